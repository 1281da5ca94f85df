//! Connections by address and by name: what is let through and how it is recorded, what is not and with which errno.

use serde_json::Value;

use super::{POLICY, app, begun, python_words, run, start};
use crate::support::Outside;

#[test]
fn what_is_allowed_by_name_works_and_is_recorded() {
    let script = r#"
print("pid", os.getpid())
print(get("http://good.test/"))
print(get("https://good.test/"))
s = connected("db.test", 5432); s.sendall(b"\0" * 1000); print("echo", len(s.recv(1000, socket.MSG_WAITALL))); s.close()
"#;
    let Some(scene) = run(POLICY, script) else { return };
    scene.said("hello from 44.0.0.7:80 as good.test").said("hello from 44.0.0.7:443 as good.test").said("echo 1000");
    let pid: u32 = scene.egret.stderr().lines().find_map(|line| line.strip_prefix("pid ")?.parse().ok()).expect("a pid");
    for (host, port, rule, sni, address) in [
        ("good.test", 80, "web", Value::Null, "44.0.0.7:80"),
        ("good.test", 443, "good", "good.test".into(), "44.0.0.7:443"),
        ("db.test", 5432, "db", Value::Null, "44.0.0.8:5432"),
    ] {
        let record = scene.record(host, port);
        assert_eq!((record["decision"].as_str(), record["via"].as_str()), (Some("allow"), Some("confined")), "{record:#}");
        assert_eq!((&record["rule"], &record["sni"], &record["address"]), (&rule.into(), &sni, &address.into()), "{record:#}");
        assert_eq!((&record["pid"], record["uid"].is_u64()), (&pid.into(), true), "{record:#}");
        assert!(record["exe"].as_str().is_some_and(|exe| exe.starts_with("/usr/bin/python3")), "{record:#}");
        assert!(record["bytes_up"].as_u64() > Some(20) && record["bytes_down"].as_u64() > Some(20), "{record:#}");
        assert!(record["client"].as_str().is_some_and(|client| client.starts_with("127.0.0.1:")), "{record:#}");
    }
    let record = scene.record("db.test", 5432);
    assert_eq!((&record["bytes_up"], &record["bytes_down"]), (&1000.into(), &1000.into()));
    scene.outside.only(&["44.0.0.7:443", "44.0.0.7:80", "44.0.0.8:5432"], &["good.test", "db.test"]);
}

#[test]
fn what_is_allowed_works_over_ipv6() {
    let Some(scene) = run(POLICY, r#"print(addresses("six.test")); print(get("http://six.test/"))"#) else { return };
    scene.said("2a00:900d::7").said("hello from [2a00:900d::7]:80 as six.test");
    assert_eq!(scene.record("six.test", 80)["address"], "[2a00:900d::7]:80");
    scene.outside.only(&["[2a00:900d::7]:80"], &["six.test"]);
}

#[test]
fn literals_that_no_rule_names_are_refused_at_connect() {
    let script = r#"
print("v4", outcome(connected, EVIL, 25))
print("v6", outcome(connected, EVIL6, 25))
print("mapped", outcome(connected, "::ffff:" + EVIL, 26))
s = tcp(); s.setblocking(False); print("nonblocking", outcome(s.connect, (EVIL, 27)))
print("metadata", outcome(connected, "169.254.169.254", 80))
print("own nameserver's other port", outcome(connected, "44.0.0.53", 54))
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); print("udp", outcome(s.sendto, b"secret", (EVIL, 99)))
async def a():
    try: await asyncio.open_connection(EVIL, 28)
    except OSError as error: print("asyncio", errno.errorcode[error.errno])
asyncio.run(a())
print("done"); wait()
"#;
    let Some(scene) = start(POLICY, script) else { return };
    for line in ["v4 EACCES", "v6 EACCES", "mapped EACCES", "nonblocking EACCES", "asyncio EACCES", "metadata EACCES"] {
        scene.said(line);
    }
    scene.said("own nameserver's other port EACCES").said("udp EACCES").said("done");
    for (host, port) in [("45.0.0.66", 25), ("2a00:bad::66", 25), ("45.0.0.66", 26), ("45.0.0.66", 27), ("45.0.0.66", 28)] {
        let record = scene.refused(host, port, "address_not_listed");
        assert_eq!((&record["stage"], &record["bytes_up"]), (&"admit".into(), &0.into()), "{record:#}");
    }
    scene.refused("169.254.169.254", 80, "address_not_listed");
    scene.refused("44.0.0.53", 54, "address_not_listed");
    let labels = [("decision", "deny"), ("reason", "address_not_listed")];
    scene.egret.metric_becomes("egret_egress_decisions_total", &labels, 7.0);
    assert_eq!(scene.egret.records().len(), 7);
    scene.outside.only(&[], &[]);
    assert_eq!(scene.egret.stop().code(), Some(143));
}

#[test]
fn an_address_that_a_rule_names_is_let_through() {
    let policy = "
egress:
  allow: [{ id: net, to: '45.0.0.0/24', ports: [5432], as: tcp }]
  deny: [{ id: not, to: '45.0.0.67' }]
";
    let script = r#"
s = connected(EVIL, 5432); s.sendall(b"hello"); print(s.recv(5)); s.close()
print("port", outcome(connected, EVIL, 5433), "denied", outcome(connected, "45.0.0.67", 5432))
"#;
    let Some(scene) = run(policy, script) else { return };
    scene.said("b'hello'").said("port EACCES denied EACCES");
    let record = scene.record("45.0.0.66", 5432);
    assert_eq!((&record["decision"], &record["rule"]), (&"allow".into(), &"net".into()), "{record:#}");
    scene.refused("45.0.0.66", 5433, "port_not_listed");
    assert_eq!(scene.refused("45.0.0.67", 5432, "deny_rule")["rule"], "not");
    scene.outside.only(&["45.0.0.66:5432"], &[]);
}

/// Who waits is told the truth; who does not wait is connected to egret already, and reset.
#[test]
fn what_cannot_be_reached_is_said_as_the_kernel_says_it() {
    let policy = "egress:\n  allow: [{ to: '44.0.0.0/8', ports: [81], as: tcp }, { to: '46.0.0.1', ports: [81], as: tcp }]\n";
    let script = r#"
print("refused", outcome(connected, GOOD, 81))
s = tcp(); s.setblocking(False); print("asked", outcome(s.connect, (GOOD, 81)) in ("ok", "EINPROGRESS"))
select.select([s], [], [], 20); print("then", s.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) or outcome(s.recv, 1))
print("silent", outcome(connected, "46.0.0.1", 81))
"#;
    let Some(scene) = run(policy, script) else { return };
    scene.said("refused ECONNREFUSED").said("asked True").said("silent ETIMEDOUT");
    let then: Vec<String> = scene.egret.stderr().lines().filter(|line| line.starts_with("then ")).map(str::to_owned).collect();
    assert!(then == ["then ECONNRESET"] || then == ["then 104"], "{then:?}");
    let closes: Vec<Value> = begun(&scene.egret, 3).iter().map(|record| record["close"].clone()).collect();
    assert_eq!(closes, ["connect_refused", "connect_refused", "connect_timeout"]);
    let left = scene.outside.left();
    assert!(left.iter().all(|line| line == "connect 44.0.0.7:81" || line == "connect 46.0.0.1:81"), "{left:?}");
}

#[test]
fn audit_lets_names_through_and_says_so() {
    let script = r#"
print(get("http://evil.test/"))
s = connected(EVIL, 5432); s.sendall(b"\0hello"); print(s.recv(6)); s.close()
s = connected("45.0.0.67", 5432); s.sendall(b"\0again"); print(s.recv(6)); s.close()
print("metadata", outcome(connected, "169.254.169.254", 80), "private", addresses("private.test"))
"#;
    let Some(scene) = run("mode: audit\n", script) else { return };
    scene
        .said("hello from 45.0.0.66:80 as evil.test")
        .said(r"b'\x00hello'")
        .said(r"b'\x00again'")
        .said("metadata EACCES private NONAME");
    for (host, port, reason) in
        [("evil.test", 80, "no_rule"), ("evil.test", 5432, "no_rule"), ("45.0.0.67", 5432, "address_not_listed")]
    {
        let record = scene.record(host, port);
        assert_eq!((&record["decision"], &record["reason"]), (&"would_deny".into(), &reason.into()), "{record:#}");
    }
    scene.refused("169.254.169.254", 80, "address_class");
    scene.outside.only(&["45.0.0.66:5432", "45.0.0.66:80", "45.0.0.67:5432"], &["evil.test", "private.test"]);
}

#[test]
fn an_allowed_address_is_reached_in_every_form() {
    let script = r#"
print(addresses("good.test"))
s = connected(GOOD, 80); print(request(s, "good.test"))
s = connected("::ffff:" + GOOD, 80); print(request(s, "good.test"))
s = tcp(); s.setblocking(False); print("asked", outcome(s.connect, (GOOD, 80)) in ("ok", "EINPROGRESS"))
select.select([], [s], [], 20); s.setblocking(True); print("error", s.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)); print(request(s, "good.test"))
"#;
    let Some(scene) = run(POLICY, script) else { return };
    scene.said("asked True").said("error 0");
    assert_eq!(scene.egret.stderr().matches("hello from 44.0.0.7:80 as good.test").count(), 3, "{}", scene.egret.stderr());
    let records = scene.egret.wait_records(3);
    assert!(records.iter().all(|record| record["host"] == "good.test" && record["decision"] == "allow"), "{records:#?}");
    scene.outside.only(&["44.0.0.7:80", "44.0.0.7:80", "44.0.0.7:80"], &["good.test"]);
}

#[test]
fn one_connection_more_than_the_limit_is_to_be_tried_again() {
    let Some(outside) = Outside::new() else { return };
    let script = r#"
s = connected("db.test", 5432); s.sendall(b"\0"); s.recv(1)
print("second", outcome(connected, "db.test", 5432)); s.close()
# The end of the first is noticed a moment later.
for _ in range(2000):
    if outcome(connected, "db.test", 5432) == "ok": break
    select.select([], [], [], 0.01)
else: sys.exit("never again")
"#;
    let egret = app(&outside, outside.egret(POLICY).arg("--connections").arg("1"), &python_words(script)).start();
    assert_eq!(egret.wait_exit().code(), Some(0), "{}", egret.stderr());
    assert!(egret.stderr().contains("second EAGAIN"), "{}", egret.stderr());
    egret.record(|record| record["reason"] == "connection_limit");
}

/// The way in to egret is on IPv4's loopback, whatever the app's socket is.
#[test]
fn sockets_that_are_bound_or_of_ipv6_alone_are_connected_too() {
    let script = r#"
print(addresses("good.test"), addresses("six.test"))
s = tcp(socket.AF_INET6); s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1); s.connect(("2a00:900d::7", 80)); print("only", request(s, "six.test"))
s = tcp(); s.bind(("10.99.0.2", 0)); s.connect((GOOD, 80)); print("bound", request(s, "good.test"))
s = tcp(socket.AF_INET6); s.bind(("fd00:99::2", 0)); s.connect(("2a00:900d::7", 80)); print("bound6", request(s, "six.test"))
"#;
    let Some(scene) = run(POLICY, script) else { return };
    scene.said("only hello from [2a00:900d::7]:80 as six.test").said("bound hello from 44.0.0.7:80 as good.test");
    scene.said("bound6 hello from [2a00:900d::7]:80 as six.test");
    scene.outside.only(&["44.0.0.7:80", "[2a00:900d::7]:80", "[2a00:900d::7]:80"], &["good.test", "six.test"]);
}
