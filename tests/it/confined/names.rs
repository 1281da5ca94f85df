//! DNS of a confined app: refused names do not exist and nobody is asked for them; allowed ones are resolved by egret, vetted,
//! and remembered, so that a connection to the address is judged by the name.

use serde_json::json;

use super::{POLICY, app, python_words, run, start};
use crate::support::Outside;
use crate::support::outside::names;

/// Sends queries of its own making.
const QUERIES: &str = r#"
def ask(name, kind, stream=None):
    question = b"".join(bytes([len(l)]) + l.encode() for l in name.split(".")) + b"\0" + struct.pack("!HH", kind, 1)
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.connect(("44.0.0.53", 53))
    s.send(struct.pack("!HHHHHH", 0x1234, 0x100, 1, 0, 0, 0) + question)
    answer = s.recv(4096)
    return "code %d answers %d" % (answer[3] & 15, struct.unpack("!H", answer[6:8])[0])
"#;

#[test]
fn refused_names_do_not_exist_and_nobody_is_asked() {
    let script = r#"
for _ in range(3): print(addresses("evil.test"))
print(get("http://evil.test/"))
print(addresses("x" * 60 + "." + "secret" * 8 + ".evil.test"), addresses("good.test.evil.test"), addresses("GOOD.tEst"))
print("done"); wait()
"#;
    let Some(scene) = start(POLICY, script) else { return };
    scene.said("NONAME").said("gaierror [Errno -2] Name or service not known").said("NONAME NONAME 44.0.0.7").said("done");
    let told = scene.egret.event("name", |event| event["name"] == "evil.test");
    let fields = ["decision", "reason", "role"].map(|field| told[field].as_str().unwrap_or("-"));
    assert_eq!(fields, ["deny", "no_rule", "default"], "{told:#}");
    assert!(["A", "AAAA"].contains(&told["kind"].as_str().expect("text")), "{told:#}");
    assert_eq!(scene.egret.events("name").len(), 3, "one line a name: {:#?}", scene.egret.events("name"));
    // Each name for both families; the first four times.
    let labels = [("decision", "deny"), ("reason", "no_rule")];
    scene.egret.metric_becomes("egret_egress_decisions_total", &labels, 12.0);
    assert!(scene.egret.records().is_empty(), "{:#?}", scene.egret.records());
    scene.outside.only(&[], &["good.test"]);
    let report: serde_json::Value = serde_json::from_str(&scene.egret.get_admin("/report").1).expect("JSON");
    assert!(report.to_string().contains("evil.test"), "{report:#}");
}

#[test]
fn other_kinds_of_records() {
    let script = r#"
for kind in (16, 33, 65, 64, 255): print("good", kind, ask("good.test", kind))
for kind in (16, 33, 65, 15, 255): print("evil", kind, ask("evil.test", kind))
print("missing", ask("six.test", 1), "|", ask("good.test", 28))
"#;
    let Some(scene) = run(POLICY, &format!("{QUERIES}{script}")) else { return };
    for line in ["good 16 code 0 answers 1", "good 33 code 0 answers 1", "good 65 code 0 answers 0", "good 64 code 0 answers 0"] {
        scene.said(line);
    }
    for kind in [16, 33, 65, 15] {
        scene.said(&format!("evil {kind} code 3 answers 0"));
    }
    scene.said("missing code 0 answers 0 | code 0 answers 0").said("good 255 code 4 answers 0").said("evil 255 code 3 answers 0");
    scene.outside.only(&[], &["good.test", "six.test"]);
    let left = scene.outside.left();
    assert!(!left.iter().any(|line| line.ends_with("HTTPS") || line.ends_with("64") || line.ends_with("255")), "{left:?}");
}

/// As resolvers do that choose their ports themselves, and ask without connecting.
#[test]
fn a_query_from_a_port_of_its_own_choice_is_answered_there() {
    let script = r#"
def datagrams(port=0):
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.setblocking(False); s.bind(("0.0.0.0", port)); return s
def asked(s, name):
    question = b"".join(bytes([len(l)]) + l.encode() for l in name.split(".")) + b"\0" + struct.pack("!HH", 1, 1)
    s.sendto(struct.pack("!HHHHHH", 7, 0x100, 1, 0, 0, 0) + question, ("44.0.0.53", 53))
    if not watched.poll(10): sys.exit("no answer")
    answer, source = s.recvfrom(4096)
    return "code %d answers %d from %s" % (answer[3] & 15, struct.unpack("!H", answer[6:8])[0], source[0])
free = datagrams(); port = free.getsockname()[1]; free.close()
s = datagrams(port); watched = select.epoll(); watched.register(s, select.EPOLLIN)
print("good", asked(s, "good.test")); print("evil", outcome(asked, s, "evil.test"))
# For those who do not look whether it was sent.
watched.poll(10); print("instead", s.recv(4096)[3] & 15); print("good", asked(s, "good.test"))
s.close(); s = datagrams(port)
print("twice", outcome(datagrams, port)); s.close(); print("again", datagrams(port).getsockname()[1] == port)
"#;
    let Some(scene) = run(POLICY, script) else { return };
    scene.said("good code 0 answers 1 from 44.0.0.53").said("evil ECONNREFUSED").said("instead 3");
    scene.said("twice EADDRINUSE").said("again True");
    // Of a refused name the nameserver is asked about nothing, so that an answer comes from there.
    let asked = scene.outside.left();
    assert!(asked.iter().all(|line| !line.contains("evil")), "{asked:?}");
}

#[test]
fn dns_over_tcp_is_answered_by_egret() {
    let Some(outside) = Outside::with_resolver_options("use-vc") else { return };
    let script = r#"print(addresses("good.test"), addresses("evil.test")); print(get("http://good.test/"))"#;
    let egret = app(&outside, outside.egret(POLICY), &python_words(script)).start();
    assert_eq!(egret.wait_exit().code(), Some(0), "{}", egret.stderr());
    assert!(egret.stderr().contains("44.0.0.7 NONAME\nhello from 44.0.0.7:80 as good.test"), "{}", egret.stderr());
    let told = egret.event("name", |event| event["name"] == "evil.test");
    assert!(told["exe"].as_str().is_some_and(|exe| exe.contains("python")), "{told:#}");
    outside.only(&["44.0.0.7:80"], &["good.test"]);
}

#[test]
fn private_answers_are_told_only_within() {
    let policy = "
egress:
  allow:
    - { to: 'private.test:80', within: [10.20.0.0/16] }
    - { to: 'rebound.test:80' }
    - { to: 'mixed.test:80' }
";
    let Some(outside) = Outside::new() else { return };
    let mut zone = names();
    zone["rebound.test"] = json!({ "A": [["10.20.0.9"]] });
    zone["mixed.test"] = json!({ "A": [["10.20.0.9", "44.0.0.7"]] });
    outside.set_names(&zone);
    let script = r#"
print(addresses("private.test"), addresses("rebound.test"), addresses("mixed.test"))
print(get("http://private.test/"), "|", get("http://mixed.test/"))
print("literal", outcome(connected, "10.20.0.10", 80))
"#;
    let egret = app(&outside, outside.egret(policy), &python_words(script)).start();
    assert_eq!(egret.wait_exit().code(), Some(0), "{}", egret.stderr());
    let said = egret.stderr();
    assert!(said.contains("10.20.0.9 NONAME 44.0.0.7\n"), "{said}");
    assert!(said.contains("hello from 10.20.0.9:80 as private.test | hello from 44.0.0.7:80 as mixed.test\n"), "{said}");
    assert!(said.contains("literal EACCES"), "{said}");
    assert_eq!(egret.event("name", |event| event["name"] == "rebound.test")["reason"], "address_class");
    outside.only(&["10.20.0.9:80", "44.0.0.7:80"], &["private.test", "rebound.test", "mixed.test"]);
}

/// An allowed name whose answer changes to an address of the task's own network, or to another's: only what passed is known.
#[test]
fn an_answer_that_changes_is_vetted_each_time() {
    let policy = "egress:\n  allow: [{ to: 'rebound.test:80' }]\n";
    let Some(outside) = Outside::new() else { return };
    let mut zone = names();
    zone["rebound.test"] = json!({ "A": [["44.0.0.7"]], "AAAA": [[], ["::ffff:10.20.0.9"]] });
    outside.set_names(&zone);
    let script = r#"
import time
print(get("http://rebound.test/"))
print("own", outcome(connected, "10.20.0.9", 80), outcome(connected, "127.0.0.1", 9))
print("told", addresses("rebound.test"))
s = connected(GOOD, 80); print("again", request(s, "rebound.test"))
s = connected(GOOD, 80); print("mapped", request(s, "10.20.0.9"))
"#;
    let egret = app(&outside, outside.egret(policy), &python_words(script)).start();
    assert_eq!(egret.wait_exit().code(), Some(0), "{}", egret.stderr());
    let said = egret.stderr();
    assert!(said.contains("own EACCES ECONNREFUSED") && said.contains("told 44.0.0.7\n"), "{said}");
    assert!(said.contains("again hello from 44.0.0.7:80 as rebound.test"), "{said}");
    assert!(!said.contains("mapped hello"), "{said}");
    let left = outside.left();
    assert!(!left.iter().any(|line| line.contains("10.20.0.9")), "{left:?}");
}

/// What /etc/hosts lists is the app's to read without asking anybody; egret reads it too.
#[test]
fn names_of_the_hosts_file_are_names_too() {
    let policy = "egress:\n  allow: [{ id: listed, to: 'listed.test:80' }]\n";
    let script = r#"print(get("http://listed.test/")); print(addresses("unlisted.test"), get("http://unlisted.test/"))"#;
    let Some(scene) = run(policy, script) else { return };
    scene.said("hello from 44.0.0.20:80 as listed.test").said("45.0.0.20 EACCES");
    assert_eq!(scene.record("listed.test", 80)["rule"], "listed");
    scene.refused("unlisted.test", 80, "no_rule");
    scene.outside.only(&["44.0.0.20:80"], &[]);
}

/// Whatever is sent to the nameserver, nothing of it leaves, and the next query is answered.
#[test]
fn a65_what_is_no_query_asks_nobody() {
    let script = r#"
def sent(message):
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.connect(("44.0.0.53", 53)); s.send(message); return s
head = struct.pack("!HHHHHH", 7, 0x100, 1, 0, 0, 0)
evil = b"\4evil\4test\0" + struct.pack("!HH", 1, 1)
odd = [b"", b"\0", head, head + b"\xc0\x0c\0\1\0\1", head + evil[:-1], os.urandom(600), os.urandom(12),
    struct.pack("!HHHHHH", 7, 0x8100, 1, 0, 0, 0) + evil, struct.pack("!HHHHHH", 7, 0x100, 2, 0, 0, 0) + evil + evil,
    struct.pack("!HHHHHH", 7, 0x2900, 1, 0, 0, 0) + evil, head + evil[:-1] + b"\3", head + evil + b"x" * 400,
    head + b"\7ev\0l.te\4test\0" + evil[-4:], head + b"\0" + evil[-4:], head + b"\4GOOD\4evil\4test\0" + evil[-4:]]
kept = [sent(message) for message in odd for _ in range(20)]
streams = []
for message in odd[1:] + [b"x" * 65535]:
    s = connected("44.0.0.53", 53); streams.append(s)
    outcome(s.sendall, struct.pack("!H", len(message)) + message)
print("asked", ask("good.test", 1)); print("tcp", addresses("good.test"))
"#;
    let Some(scene) = run(POLICY, &format!("{QUERIES}{script}")) else { return };
    scene.said("asked code 0 answers 1").said("tcp 44.0.0.7");
    scene.outside.only(&[], &["good.test"]);
}

/// A program that only asks has as few connections as one that connects.
#[test]
fn connections_to_the_nameserver_count_as_others() {
    let Some(outside) = Outside::new() else { return };
    let script = r#"
streams = [connected("44.0.0.53", 53) for _ in range(4)]
print("fifth", outcome(connected, "44.0.0.53", 53)); streams.pop().close()
for _ in range(2000):
    if outcome(connected, "44.0.0.53", 53) == "ok": break
    select.select([], [], [], 0.01)
else: sys.exit("never again")
"#;
    let egret = app(&outside, outside.egret(POLICY).arg("--connections").arg("4"), &python_words(script)).start();
    assert_eq!(egret.wait_exit().code(), Some(0), "{}", egret.stderr());
    assert!(egret.stderr().contains("fifth EAGAIN"), "{}", egret.stderr());
    egret.record(|record| record["reason"] == "connection_limit");
    outside.only(&[], &[]);
}

/// A tunnel by names costs lines only up to a number, is counted in full, and reaches nobody.
#[test]
fn a66_a_flood_of_names_is_counted_and_not_told_in_full() {
    let script = r#"
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.connect(("44.0.0.53", 53))
for number in range(2000):
    label = os.urandom(30).hex().encode()
    s.send(struct.pack("!HHHHHH", number, 0x100, 1, 0, 0, 0) + b"\x3c" + label + b"\4evil\4test\0" + struct.pack("!HH", 1, 1))
    answer = s.recv(512)
    if answer[:2] != struct.pack("!H", number) or answer[3] & 15 != 3: sys.exit(f"answered {answer!r}")
print("done", ask("good.test", 1)); wait()
"#;
    let Some(scene) = start(POLICY, &format!("{QUERIES}{script}")) else { return };
    scene.said("done code 0 answers 1");
    let labels = [("decision", "deny"), ("reason", "no_rule")];
    scene.egret.metric_becomes("egret_egress_decisions_total", &labels, 2000.0);
    assert_eq!(scene.egret.events("name").len(), 512);
    scene.outside.only(&[], &["good.test"]);
}
