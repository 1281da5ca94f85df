//! Text that a confined app chooses: names of programs, names for DNS. The journal tells them, each inside its own field.

use super::{POLICY, run};

/// Controls, ends of lines, and what turns the direction of text.
fn steers(c: char) -> bool {
    c.is_control() || matches!(c, '\u{2028}' | '\u{2029}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
}

#[test]
fn o61_a_program_with_a_hostile_name_is_told_in_one_line() {
    let script = r#"
import shutil, tempfile
folder = tempfile.mkdtemp()
for text in ['a\n{"v":1,"event":"connection","decision":"allow"}\n', 'b"},"event":"forged","x":{"', "c\x1b[2J\u2028\u202e\r", "d\udcff\udcfe"]:
    program = os.path.join(folder, text + "hostile")
    shutil.copy("/bin/true", program)
    print("ran", subprocess.run([program]).returncode)
shutil.rmtree(folder)
"#;
    let policy = format!("mode: audit\nexec: {{ allow: [/usr/bin/env] }}\n{POLICY}");
    let Some(scene) = run(&policy, script) else { return };
    scene.said("ran 0");
    let told: Vec<String> = scene
        .egret
        .events("exec")
        .into_iter()
        .filter_map(|event| event["path"].as_str().map(str::to_owned))
        .filter(|path| path.ends_with("hostile"))
        .collect();
    assert!(told.iter().any(|path| path.contains("{\"v\":1,\"event\":\"connection\"")), "{told:#?}");
    assert!(scene.egret.records().is_empty(), "{:#?}", scene.egret.records());
    for line in scene.egret.stdout_lines() {
        assert!(!line.chars().any(steers), "{}", line.escape_debug());
        assert!(line.starts_with("{\"v\":1,\"time\":"), "{line}");
    }
    scene.outside.only(&[], &[]);
}

#[test]
fn o62_a_hostile_name_for_dns_forges_nothing() {
    let script = r#"
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.connect(("44.0.0.53", 53)); s.settimeout(20)
texts = [b'a\n{"v":1,"event":"connection"}', b'b"},"event":"forged', b"c\x1b[2J\x85\xe2\x80\xa8\r", b"d\xff\xfe\0.", b"e," + b"=" * 20]
for number, text in enumerate(texts):
    s.send(struct.pack("!HHHHHH", number, 0x100, 1, 0, 0, 0) + bytes([len(text)]) + text + b"\4evil\4test\0" + struct.pack("!HH", 1, 1))
    print("code", s.recv(512)[3] & 15)
"#;
    let Some(scene) = run(POLICY, script) else { return };
    assert_eq!(scene.egret.stderr().matches("code 3").count(), 5, "{}", scene.egret.stderr());
    for line in scene.egret.stdout_lines() {
        assert!(!line.chars().any(steers), "{}", line.escape_debug());
        assert!(line.starts_with("{\"v\":1,\"time\":"), "{line}");
    }
    assert!(scene.egret.events("forged").is_empty() && scene.egret.records().is_empty());
    scene.outside.only(&[], &[]);
}
