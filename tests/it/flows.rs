//! Every flow of the task is seen, whoever makes it and whether or not it asks the proxy; and what the policy says of those that
//! go around is done. In a network of its own, with an outside that anybody inside may reach.

use std::process::{Child, Command, Stdio};

use serde_json::Value;

use crate::support::egret::follow as lines_of;
use crate::support::outside::{NAMESERVER, whole};
use crate::support::programs::require;
use crate::support::{Egret, Outside, Program, documented, eventually, fields, run_egret};

const EGRET: &str = env!("CARGO_BIN_EXE_egret");

/// Signals (signal(7)).
const STOP: i32 = 19;
const CONTINUE: i32 = 18;

/// No privilege.
const PLAIN: [&str; 3] = ["--no-new-privs", "--bounding-set=-all", "--inh-caps=-all"];

/// What clients of the proxy may reach.
const POLICY: &str = "egress:\n  allow: [{ to: 'good.test:80' }]\n";
/// An HTTP server, and one that says what it hears until the client goes.
const WEB: &str = "44.0.0.7";
const ECHO: &str = "44.0.0.8";
const ECHO_PORT: u16 = 5432;

/// A program of the inside that lives until the test ends it, whatever its variables say of a proxy.
struct Held(Child);

impl Held {
    fn start(outside: &Outside, words: &[&str]) -> Self {
        let enter = outside.enter();
        let mut command = Command::new(&enter[0]);
        // Without a capability, as egret: whoever has more than it can't be looked into.
        command.args(&enter[1..]).arg(require("setpriv")).args(PLAIN).arg(require(words[0])).args(&words[1..]);
        let proxy = "http://127.0.0.1:1";
        command.env("HTTP_PROXY", proxy).env("http_proxy", proxy).env("HTTPS_PROXY", proxy);
        Self(command.stdin(Stdio::null()).stdout(Stdio::null()).spawn().expect("it starts"))
    }

    fn python(outside: &Outside, script: &str) -> Self {
        Self::start(outside, &["python3", "-c", &format!("import socket, time\n{script}\ntime.sleep(600)")])
    }

    /// A connection that goes around and stays.
    fn echo(outside: &Outside) -> Self {
        Self::python(outside, &format!("s = socket.create_connection(('{ECHO}', {ECHO_PORT})); s.sendall(b'hello'); s.recv(5)"))
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        // Either fails only if it is gone already.
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// The first event of a flow that goes around to that address.
fn around(egret: &Egret, address: &str, port: u16) -> Value {
    egret.event("around", |event| event["address"] == address && event["port"] == port)
}

/// What ended there.
fn ended(egret: &Egret, kind: &str, address: &str) -> Value {
    egret.event(kind, |event| event["address"] == address && event["state"] == "ended")
}

fn names(event: &Value) -> Vec<&str> {
    event["names"].as_array().expect("names").iter().filter_map(Value::as_str).collect()
}

fn curl(outside: &Outside, args: &[&str]) -> String {
    let output = outside.program("curl").args(["-sS", "--max-time", "20"]).args(args).run();
    assert_eq!(output.code, 0, "{output:#?}");
    output.stdout
}

#[test]
fn node_and_java_without_settings_of_their_own_go_around_and_the_report_says_what_to_set() {
    let Some(outside) = Outside::new() else { return };
    let egret = outside.egret(POLICY).start();
    let script = format!(
        "const http = require('http'); http.get({{ host: '{WEB}', agent: new http.Agent({{ keepAlive: true }}) }}, r => r.resume()); \
         setInterval(() => {{}}, 1000)"
    );
    let source = format!(
        "public class Get {{ public static void main(String[] w) throws Exception {{ \
         new java.net.URL(\"http://{ECHO}/\").openStream().readAllBytes(); Thread.sleep(600000); }} }}"
    );
    let file = outside.home().join("Get.java");
    std::fs::write(&file, source).expect("the directory is writable");
    let _node = Held::start(&outside, &["node", "-e", &script]);
    let _java = Held::start(&outside, &["java", &file.display().to_string()]);
    for (program, address) in [("node", WEB), ("java", ECHO)] {
        let event = around(&egret, address, 80);
        assert_eq!((&event["state"], &event["action"], &event["protocol"]), (&"began".into(), &"alert".into(), &"tcp".into()));
        assert!(event["exe"].as_str().is_some_and(|exe| exe.ends_with(program)), "{event:#}");
        assert!(event["pid"].is_u64() && event["uid"].is_u64() && event["unknown"].is_null(), "{event:#}");
    }
    egret.metric_becomes("egret_flows_around_total", &[("action", "alert")], 2.0);
    let report = inside(&outside, &["report", "--admin", &egret.admin().to_string()]);
    assert!(report.contains("\nwent around the proxy:\n"), "{report}");
    assert!(report.contains("NODE_USE_ENV_PROXY=1") && report.contains("JAVA_TOOL_OPTIONS"), "{report}");
}

#[test]
fn who_was_told_no_proxy_goes_around_with_the_names_that_led_there_and_the_proxy_does_not() {
    let Some(outside) = Outside::new() else { return };
    let egret = outside.egret(POLICY).start();
    assert!(curl(&outside, &["-x", &format!("http://{}", egret.proxy()), "http://good.test/"]).contains("hello from"));
    let proxied = ended(&egret, "flow", WEB);
    assert_eq!((&proxied["way"], proxied["port"].as_u64(), names(&proxied)), (&"proxy".into(), Some(80), vec!["good.test"]));
    assert!(curl(&outside, &["--noproxy", "*", &format!("http://{WEB}/")]).contains("hello from"));
    let event = ended(&egret, "around", WEB);
    assert_eq!((names(&event), &event["end"], event["connections"].as_u64()), (vec!["good.test"], &"final".into(), Some(1)));
    assert!(event["bytes_up"].as_u64() > Some(40) && event["bytes_down"].as_u64() > Some(80), "{event:#}");
    let dns = egret.event("flow", |event| event["protocol"] == "udp");
    assert_eq!(dns["way"], "proxy", "egret's own queries are its own: {dns:#}");
    assert!(egret.events("around").iter().all(|event| event["address"] != NAMESERVER));
    let six = "2a00:900d::7";
    assert!(curl(&outside, &["--noproxy", "*", &format!("http://[{six}]/")]).contains("hello from"));
    assert_eq!(ended(&egret, "around", six)["port"], 80);
}

#[test]
fn addresses_of_direct_do_not_go_around() {
    let Some(outside) = Outside::new() else { return };
    let egret = outside.egret(&format!("direct: [{WEB}]\n{POLICY}around: stop\n")).start();
    curl(&outside, &[&format!("http://{WEB}/")]);
    assert_eq!(ended(&egret, "flow", WEB)["way"], "direct");
    assert_eq!(egret.events("around").len(), 0);
    assert_eq!(egret.get_admin("/readyz").0, 200);
}

#[test]
fn a_flow_around_may_end_readiness_or_egret() {
    let Some(outside) = Outside::new() else { return };
    let egret = outside.egret(&format!("{POLICY}around: unhealthy\n")).start();
    let _held = Held::echo(&outside);
    around(&egret, ECHO, ECHO_PORT);
    let (status, why) = eventually("readiness is off", || Some(egret.get_admin("/readyz")).filter(|(status, _)| *status != 200));
    assert!(status == 503 && why.contains("went around the proxy, to 44.0.0.8:5432"), "{why}");
    drop(egret);
    let egret = outside.egret(&format!("{POLICY}around: stop\n")).arg("--drain").arg("0").spawn();
    let status = egret.wait_exit();
    assert_eq!(status.code(), Some(1), "{}", egret.stderr());
    assert!(egret.stderr().contains("went around the proxy, to 44.0.0.8:5432"), "{}", egret.stderr());
}

/// Who comes from a port that listened might have been called from outside. It was not.
#[test]
fn a_port_that_listened_is_no_disguise() {
    let Some(outside) = Outside::new() else { return };
    let egret = outside.egret(&format!("{POLICY}around: stop\n")).arg("--drain").arg("0").spawn();
    let script = format!(
        "l = socket.create_server(('', 0)); port = l.getsockname()[1]; time.sleep(2.5); l.close()
s = socket.socket(); s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1); s.bind(('', port)); s.connect(('{ECHO}', {ECHO_PORT}))"
    );
    let _held = Held::python(&outside, &script);
    assert_eq!(egret.wait_exit().code(), Some(1), "{}", egret.stderr());
    assert!(egret.stderr().contains("went around the proxy, to 44.0.0.8:5432"), "{}", egret.stderr());
}

#[test]
fn many_flows_are_few_lines_and_add_up() {
    const FLOWS: u64 = 300;
    let Some(outside) = Outside::new() else { return };
    let egret = outside.egret(POLICY).start();
    let script = format!(
        "import socket\nfor _ in range({FLOWS}):\n  s = socket.create_connection(('{ECHO}', {ECHO_PORT})); s.sendall(b'12345'); \
         assert s.recv(5); s.close()"
    );
    let ran = outside.program("python3").args(["-c", &script]).run();
    assert_eq!(ran.code, 0, "{ran:#?}");
    egret.metric_becomes("egret_flows_total", &[("way", "around")], 300.0);
    egret.stop();
    let lines: Vec<Value> = egret.events("around").into_iter().filter(|event| event["address"] == ECHO).collect();
    let sum = |key: &str| lines.iter().filter_map(|line| line[key].as_u64()).sum::<u64>();
    assert_eq!((sum("connections"), sum("bytes_up")), (FLOWS, FLOWS * 5));
    assert!(lines.iter().any(|line| line["state"] == "folded") && lines.len() < 100, "{}", lines.len());
}

#[test]
fn a_flow_that_lives_is_told_again_and_again_and_its_bytes_once() {
    let Some(outside) = Outside::new() else { return };
    let egret = outside.egret(POLICY).arg("--flows=1").start();
    let held = Held::echo(&outside);
    let goes = egret.event("around", |event| event["state"] == "goes" && event["bytes_up"].as_u64() > Some(0));
    assert_eq!((&goes["address"], goes["bytes_up"].as_u64(), goes["connections"].as_u64()), (&ECHO.into(), Some(5), Some(0)));
    egret.event("around", |event| event["state"] == "goes" && event["bytes_up"].as_u64() == Some(0));
    drop(held);
    egret.metric_becomes("egret_flows_total", &[("way", "around")], 1.0);
    egret.stop();
    let lines = egret.events("around");
    let sum = |key: &str| lines.iter().filter_map(|line| line[key].as_u64()).sum::<u64>();
    assert_eq!((sum("connections"), sum("bytes_up")), (1, 5), "{lines:#?}");
}

/// While egret stands still nobody reads what the kernel tells.
#[test]
fn a_full_queue_of_the_kernel_is_a_gap_and_what_is_gone_meanwhile_has_ended() {
    let Some(outside) = Outside::new() else { return };
    let egret = outside.egret(POLICY).start();
    let held = Held::python(&outside, &format!("s = socket.create_connection(('{WEB}', 80))"));
    around(&egret, WEB, 80);
    egret.signal(STOP);
    // Until the kernel says that it dropped one: column 8 of the sockets of protocol 4, sock_diag.
    let script = format!(
        "import socket
def dropped():
    rows = [row.split() for row in open('/proc/net/netlink')]
    return any(row[1] == '4' and int(row[8]) for row in rows[1:])
while not dropped():
    for _ in range(100): socket.create_connection(('{ECHO}', {ECHO_PORT})).close()"
    );
    let ran = outside.program("python3").args(["-c", &script]).run();
    drop(held);
    egret.signal(CONTINUE);
    assert_eq!(ran.code, 0, "{ran:#?}");
    egret.event("gap", |event| event["section"] == "flows" && event["cause"] == "kernel_queue");
    assert!(egret.metric("egret_flows_gaps_total", &[("cause", "kernel_queue")]) > 0.0);
    let end = ended(&egret, "around", WEB);
    assert!(["gone", "final"].contains(&end["end"].as_str().expect("a word")), "{end:#}");
}

#[test]
fn where_nobody_was_before_another_policy_is_new() {
    let Some(outside) = Outside::new() else { return };
    let egret = outside.egret(POLICY).start();
    curl(&outside, &[&format!("http://{WEB}/")]);
    assert_eq!(ended(&egret, "around", WEB)["new"], false, "a task begins with everything");
    egret.rewrite_policy(&whole(&format!("{POLICY}direct: [10.9.9.9]\n")));
    egret.event("policy", |event| event["result"] == "loaded");
    for address in [WEB, ECHO] {
        curl(&outside, &[&format!("http://{address}/")]);
    }
    assert_eq!(ended(&egret, "around", ECHO)["new"], true);
    egret.metric_becomes("egret_flows_total", &[("way", "around")], 3.0);
    egret.stop();
    let of_web = egret.events("around").into_iter().filter(|event| event["address"] == WEB);
    assert_eq!(of_web.filter(|event| event["new"] == true).count(), 0);
    let report: Value =
        serde_json::from_str(&run_egret(["report", "-", "--output", "json"], &egret.stdout_lines().join("\n")).stdout)
            .expect("JSON");
    let marked: Vec<&Value> = report["trends"].as_array().expect("hours").iter().filter(|row| row["new"] == true).collect();
    assert!(!marked.is_empty() && marked.iter().all(|row| row["host"] == ECHO), "{report:#}");
}

#[test]
fn datagrams_are_seen_and_what_they_carry_shows_on_the_interfaces() {
    let Some(outside) = Outside::new() else { return };
    let egret = outside.egret(POLICY).start();
    let _held = Held::python(
        &outside,
        "a = socket.socket(type=socket.SOCK_DGRAM); a.connect(('45.0.0.9', 9))\n\
         b = socket.socket(type=socket.SOCK_DGRAM); b.bind(('', 0))\n\
         for _ in range(200):\n  try: a.send(b'x' * 1000)\n  except OSError: pass\n  time.sleep(0.02)",
    );
    let event = around(&egret, "45.0.0.9", 9);
    assert_eq!((&event["protocol"], &event["bytes_up"]), (&"udp".into(), &Value::Null));
    let open = eventually("the socket without a peer is shown", || {
        flows(&outside, &egret).into_iter().find(|flow| flow["way"] == "open" && flow["exe"].as_str().is_some())
    });
    assert_eq!(open["address"], Value::Null);
    eventually("the bytes are unexplained", || {
        let status: Value = serde_json::from_str(&egret.get_admin("/status").1).expect("JSON");
        (status["flows"]["unexplained"]["bytes_up"].as_u64() > Some(50_000)).then_some(())
    });
}

/// A peer binds nobody: sendto(2) takes another address.
#[test]
fn datagram_sockets_with_a_peer_on_this_machine_are_shown_and_explain_no_octets() {
    let Some(outside) = Outside::new() else { return };
    let egret = outside.egret(&format!("direct: [{NAMESERVER}]\n{POLICY}around: stop\n")).start();
    let script = format!(
        "asks = socket.socket(type=socket.SOCK_DGRAM); asks.connect(('{NAMESERVER}', 53)); own = asks.getsockname()[0]
def bound(peer):
    s = socket.socket(type=socket.SOCK_DGRAM); s.bind((own, 0)); s.connect((peer, 9)); return s
def send(s):
    try: s.sendto(b'x' * 350, ('45.0.0.9', 443))
    except OSError: pass
held = [bound(own), bound('127.0.0.1')]
for _ in range(300):
    for s in held + [bound(own)]: send(s)"
    );
    let _held = Held::python(&outside, &script);
    for is_loopback in [true, false] {
        let is_it = |flow: &Value| flow["port"] == 9 && (flow["address"] == "127.0.0.1") == is_loopback;
        let flow = eventually("the socket is shown", || flows(&outside, &egret).into_iter().find(is_it));
        assert_eq!(flow["way"], "open", "{flow:#}");
    }
    eventually("the bytes are unexplained", || {
        let status: Value = serde_json::from_str(&egret.get_admin("/status").1).expect("JSON");
        (status["flows"]["unexplained"]["bytes_up"].as_u64() > Some(900 * 350)).then_some(())
    });
    assert_eq!(egret.get_admin("/readyz").0, 200, "nobody is stopped for it");
}

#[test]
fn datagram_sockets_whose_peer_was_wiped_are_told_and_counted() {
    let Some(outside) = Outside::new() else { return };
    let egret = outside.egret(POLICY).start();
    let script = "import ctypes, socket
for _ in range(20):
    s = socket.socket(type=socket.SOCK_DGRAM); s.connect(('45.0.0.9', 443)); s.send(b'x')
    ctypes.CDLL(None).connect(s.fileno(), (ctypes.c_char * 16)(), 16); s.close()";
    let ran = outside.program("python3").args(["-c", script]).run();
    assert_eq!(ran.code, 0, "{ran:#?}");
    eventually("all are counted", || {
        (egret.metric("egret_flows_total", &[("way", "open"), ("protocol", "udp")]) >= 20.0).then_some(())
    });
    let told = egret.event("flow", |event| event["way"] == "open" && event["state"] == "ended");
    assert_eq!((&told["address"], &told["bytes_up"]), (&Value::Null, &Value::Null), "{told:#}");
}

#[test]
fn the_command_shows_what_egret_knows_and_looks_for_itself_where_there_is_none() {
    let Some(outside) = Outside::new() else { return };
    let _held = Held::echo(&outside);
    let alone = || inside(&outside, &["flows", "--admin", "127.0.0.1:1"]);
    let text = eventually("the flow is there", || Some(alone()).filter(|text| text.contains("44.0.0.8:5432")));
    assert!(text.starts_with("1 flow, 1 around the proxy\n"), "{text}");
    let row = text.lines().find(|line| line.starts_with("around")).expect("a row");
    assert!(row.contains("established") && row.contains("python3"), "{row}");
    let egret = outside.egret(POLICY).start();
    around(&egret, ECHO, ECHO_PORT);
    let flow = flows(&outside, &egret).into_iter().find(|flow| flow["address"] == ECHO).expect("the flow");
    assert_eq!((&flow["way"], &flow["state"], flow["bytes_up"].as_u64()), (&"around".into(), &"established".into(), Some(5)));
    let journal = egret.stdout_lines().join("\n");
    let report: Value = serde_json::from_str(&run_egret(["report", "-", "--output", "json"], &journal).stdout).expect("JSON");
    assert_eq!((&report["around"][0]["address"], report["around"][0]["port"].as_u64()), (&ECHO.into(), Some(5432)));
    let hour = report["trends"][0]["hour"].as_str().expect("an hour");
    assert!(hour.ends_with(":00:00Z"), "{report:#}");
}

#[test]
fn answers_lines_and_events_have_the_fields_that_the_pages_name() {
    let (reference, page) = (include_str!("../../docs/reference.md"), include_str!("../../docs/flows.md"));
    let Some(outside) = Outside::new() else { return };
    let egret = outside.egret(POLICY).start();
    curl(&outside, &[&format!("http://{WEB}/")]);
    let mut event = ended(&egret, "around", WEB);
    for common in ["v", "time", "event"] {
        assert!(event.as_object_mut().expect("an object").remove(common).is_some(), "{common} is of every event");
    }
    assert_eq!(fields(&event), documented(page, "## Events"));
    let status: Value = serde_json::from_str(&egret.get_admin("/status").1).expect("JSON");
    assert_eq!(fields(&status["flows"]), documented(reference, "### Flows in /status"));
    assert_eq!(status["flows"]["blind"], serde_json::json!([]));
    let answer: Value = serde_json::from_str(&egret.get_admin("/flows?since=0").1).expect("JSON");
    assert_eq!(fields(&answer), documented(reference, "### Flows in /flows"));
    let of_a_flow = documented(reference, "### A flow in /flows");
    assert_eq!(fields(&answer["ended"][0]), of_a_flow);
    let _held = Held::echo(&outside);
    for admin in [egret.admin().to_string(), "127.0.0.1:1".to_owned()] {
        for mut line in followed(&outside, &admin) {
            assert_eq!(line.as_object_mut().expect("an object").remove("v"), Some(1.into()));
            assert_eq!(fields(&line), of_a_flow);
        }
    }
}

/// What `egret flows --follow` prints for programs of a flow that lives, and of one that is there and gone.
fn followed(outside: &Outside, admin: &str) -> [Value; 2] {
    let enter = outside.enter();
    let mut follow = Command::new(&enter[0]);
    follow.args(&enter[1..]).args([EGRET, "flows", "--follow", "--output", "json", "--admin", admin]);
    let mut follow = Held(follow.stdout(Stdio::piped()).spawn().expect("it starts"));
    let told = lines_of(follow.0.stdout.take());
    let wait = |address: &str, has_ended: bool| {
        let is_it = |flow: &Value| flow["address"] == address && (flow["state"] == "ended") == has_ended;
        let find = |lines: &[String]| lines.iter().map(|line| serde_json::from_str(line).expect("JSON")).find(is_it);
        told.wait_for(find).unwrap_or_else(|| panic!("no such flow: {:#?}", told.all()))
    };
    let lives = wait(ECHO, false);
    curl(outside, &[&format!("http://{WEB}/")]);
    [lives, wait(WEB, true)]
}

#[test]
fn doctor_names_who_goes_around_and_what_to_set() {
    let Some(outside) = Outside::new() else { return };
    let _held = Held::echo(&outside);
    let what = eventually("doctor sees it", || {
        let enter = outside.enter();
        let args = ["doctor", "--output", "json"];
        let output = Program::at(std::path::Path::new(&enter[0])).args(&enter[1..]).arg(EGRET).args(args).run();
        let told: Value = serde_json::from_str(&output.stdout).expect("JSON");
        let checks = told["checks"].as_array().cloned().unwrap_or_default();
        let around = checks.into_iter().find(|check| check["name"] == "around")?;
        around["what"].as_str().filter(|what| what.contains("44.0.0.8 port 5432")).map(str::to_owned)
    });
    assert!(what.contains("/python3") && what.contains("trust_env"), "{what}");
}

/// Where the container's profile refuses netlink nothing is seen. It is said wherever somebody may look, and all else goes on.
#[test]
fn where_netlink_is_refused_it_is_said_everywhere_and_the_proxy_goes_on() {
    const WHY: &str = "no netlink socket for sock_diag: Operation not permitted (os error 1)";
    let Some(outside) = Outside::new() else { return };
    let profile = outside.profile("netlink");
    let privileges: Vec<&str> = PLAIN.into_iter().chain(profile.iter().map(String::as_str)).collect();
    let egret = outside.egret_with(&privileges, &format!("{POLICY}around: stop\n")).start();
    let told = egret.event("coverage", |event| event["section"] == "flows");
    assert!(told["served"] == false && told["why"].as_str().is_some_and(|why| why.contains(WHY)), "{told:#}");
    eventually("it is said on stderr", || egret.stderr().contains(WHY).then_some(()));
    egret.event("coverage", |event| event["section"] == "around" && event["served"] == false);
    let status: Value = serde_json::from_str(&egret.get_admin("/status").1).expect("JSON");
    assert_eq!((&status["flows"]["state"], &status["unserved"][0]), (&"off".into(), &"around".into()), "{status:#}");
    let _held = Held::echo(&outside);
    assert!(curl(&outside, &["-x", &format!("http://{}", egret.proxy()), "http://good.test/"]).contains("hello from"));
    assert_eq!(egret.get_admin("/readyz").0, 200, "nobody is stopped for what nobody sees");
    let text = inside(&outside, &["flows", "--admin", &egret.admin().to_string()]);
    assert!(text.starts_with("0 flows, 0 around the proxy\n") && text.contains("\nnot seen: ") && text.contains(WHY), "{text}");
    let refused = |args: &[&str]| outside.program("setpriv").args(PLAIN).args(&profile).arg(EGRET).args(args).run();
    for alone in [&["flows", "--admin", "127.0.0.1:1"][..], &["flows", "--admin", "127.0.0.1:1", "--follow"]] {
        let output = refused(alone);
        assert!(output.code == 3 && output.stderr.contains(WHY), "{alone:?}: {output:#?}");
    }
    let doctor = refused(&["doctor", "--output", "text"]);
    assert!(doctor.stdout.contains(&format!("connections cannot be seen: {WHY}")), "{doctor:#?}");
}

#[test]
fn flows_may_be_left_alone_and_then_nobody_is_promised_anything() {
    let egret = Egret::with_policy("version: 1\naround: stop\n").arg("--flows=0").start();
    let event = egret.event("coverage", |event| event["section"] == "around");
    assert_eq!(event["served"], false);
    let status: Value = serde_json::from_str(&egret.get_admin("/status").1).expect("JSON");
    assert_eq!((&status["flows"]["state"], &status["unserved"][0]), (&"off".into(), &"around".into()));
}

/// What a command of egret's prints in the inside.
fn inside(outside: &Outside, args: &[&str]) -> String {
    let enter = outside.enter();
    let output = Program::at(std::path::Path::new(&enter[0])).args(&enter[1..]).arg(EGRET).args(args).run();
    assert_eq!(output.code, 0, "{output:#?}");
    output.stdout
}

/// Every flow, as the running egret knows it.
fn flows(outside: &Outside, egret: &Egret) -> Vec<Value> {
    let answer = inside(outside, &["flows", "--output", "json", "--admin", &egret.admin().to_string()]);
    let answer: Value = serde_json::from_str(&answer).expect("JSON");
    assert_eq!(answer["source"], "egret");
    answer["flows"].as_array().expect("a list").clone()
}
