//! Text that a confined app chooses: names of programs, names for DNS. The journal tells them, each inside its own field.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use super::{POLICY, app, python_words, run};
use crate::support::Outside;

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

#[test]
fn o66_a_program_whose_path_is_no_text_is_told_all_the_same_and_has_no_role() {
    let Some(outside) = Outside::new() else { return };
    let folder = outside.home().display().to_string();
    // A role for what the name looks like when it is told.
    let policy = format!(
        "roles: {{ look: {{ exe: '{folder}/a\\xff/sh' }} }}\negress: {{ allow: [{{ to: 'good.test:80', for: [look] }}] }}\n"
    );
    let script = r#"
import shutil
for name in ("a\udcff", "a\\xff"):
    program = os.path.join(os.environ["HOME"], name, "sh")
    os.mkdir(os.path.dirname(program))
    shutil.copy("/bin/bash", program)
    for host in ("45.0.0.66", "good.test"):
        print("ran", subprocess.run([program, "-c", f"exec 3<>/dev/tcp/{host}/80"]).returncode)
"#;
    let egret = app(&outside, outside.egret(&policy), &python_words(script)).start();
    assert_eq!(egret.wait_exit().code(), Some(0), "{}", egret.stderr());
    let (escaped, raw) = (format!("{folder}/a\\xff/sh"), [folder.as_bytes(), b"/a\xff/sh"].concat());
    let told = |event: &Value| {
        let octets = event["exe_raw"].as_str().map(|raw| STANDARD.decode(raw).expect("base64"));
        (event["host"].clone(), event["role"].clone(), event["exe"].clone(), octets)
    };
    let expected = [("45.0.0.66", "default", true), ("45.0.0.66", "look", false), ("good.test", "look", false)];
    let expected =
        expected.map(|(host, role, is_raw)| (host.into(), role.into(), (*escaped).into(), is_raw.then(|| raw.clone())));
    assert_eq!(egret.wait_records(3).iter().map(told).collect::<Vec<_>>(), expected);
    let names = egret.events("name");
    assert!(!names.is_empty(), "the name does not exist for whoever has another role");
    for name in names {
        let (_, role, exe, octets) = told(&name);
        assert_eq!((role, exe, octets), ("default".into(), (*escaped).into(), Some(raw.clone())), "{name:#}");
    }
}

#[test]
fn o66_a_program_that_calls_itself_what_is_no_text_is_told_all_the_same() {
    let script = r#"
import ctypes
ctypes.CDLL(None).prctl(15, b"\xff\xfe", 0, 0, 0)
print("refused", outcome(connected, EVIL, 80))
"#;
    let Some(scene) = run(POLICY, script) else { return };
    let record = scene.said("refused EACCES").record("45.0.0.66", 80);
    assert!(record["exe"].as_str().is_some_and(|exe| exe.contains("python")) && record["pid"].is_u64(), "{record:#}");
}

#[test]
fn o68_nothing_is_typed_for_who_reads_the_terminal_next() {
    let script = r#"
import fcntl
for order in (0x5412, 0x541c): print("order", outcome(fcntl.ioctl, 2, order, b"x"))
"#;
    let Some(scene) = run(POLICY, script) else { return };
    assert_eq!(scene.egret.stderr().matches("order EPERM").count(), 2, "{}", scene.egret.stderr());
}
