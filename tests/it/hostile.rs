//! What somebody means harm with besides a request (L, O, C, R): journals that were written by an attacker and read by a
//! person, variables, policy files that vanish, the admin port, clients that never read, and the end without warning.

use std::fmt::Write as _;
use std::fs;
use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::client::{connect, http_connect_with, raw, read_to_close, socks5};
use crate::support::egret::egret_program;
use crate::support::http1::Response;
use crate::support::journal::{http, journal, learn, replay, tls};
use crate::support::rules::{LOCALHOST, local, policy};
use crate::support::world::NAMES;
use crate::support::{DnsServer, Egret, Hello, Host, Program, Upstream, World, eventually, http_connect, run_egret};

/// Controls but the ends of lines that are meant, and what turns the direction of text.
fn steers(c: char) -> bool {
    (c.is_control() && c != '\n')
        || matches!(c, '\u{2028}' | '\u{2029}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
}

const HOSTILE: [&str; 9] = [
    "evil.test\nopen.test,tcp,443",
    "evil.test,tcp,443\r\n=cmd|' /C calc'!A0",
    "=HYPERLINK(\"http://evil.test\")",
    "evil\u{1b}[2J\u{1b}]0;x\u{7}.test",
    "evil\u{202e}tset.test",
    "evil\u{2028}x.test",
    "<script>alert(1)</script>.test",
    "evil.test\u{0}.allowed.test",
    "\",\"evil\",\"",
];

/// Every command that reads journals, in every form, on this one; none of them may crash.
fn every_reading(text: &str) -> Vec<(String, String)> {
    let mut outputs = Vec::new();
    for form in ["text", "json", "csv"] {
        let report = run_egret(["report", "-", "--output", form], text);
        outputs.push((format!("report {form}"), report.stdout.clone() + &report.stderr));
        assert_eq!(report.code, 0, "report {form}: {report:#?}");
    }
    for form in ["text", "json"] {
        let learnt = learn(text, &["--output", form, "--include", "asked,failed,unverified,address-class"]);
        outputs.push((format!("learn {form}"), learnt.stdout + &learnt.stderr));
        let replayed = replay("version: 1\negress: { allow: [good.example.com] }\n", text, &["--output", form]);
        outputs.push((format!("replay {form}"), replayed.stdout + &replayed.stderr));
    }
    for (case, output) in &outputs {
        assert!(!output.contains("panicked"), "{case}: {output}");
    }
    outputs
}

#[test]
fn o56_whoever_reads_a_hostile_journal_is_shown_plain_text() {
    for text in HOSTILE {
        let lines = [tls("good.example.com", 443), tls(text, 443), http(text, 80), tls(text, 443).denied("no_rule")];
        let fields = ["sni", "rule", "role", "reason", "detail", "address", "class", "policy", "via", "close", "id", "method"];
        let others = fields.map(|field| tls("other.example.com", 443).with(field, text));
        for (case, output) in every_reading(&(journal(&lines) + &journal(&others))) {
            assert!(!output.contains(steers), "{case} of {text:?}: {}", output.escape_debug());
            for row in output.lines() {
                let is_formula = case.contains("csv") && row.split(',').any(|cell| cell.trim_start_matches('"').starts_with('='));
                assert!(!row.starts_with("open.test,") && !is_formula, "{case} of {text:?}: {row}");
            }
        }
    }
}

#[test]
fn o56_lines_of_flows_that_egret_did_not_write_forge_no_row() {
    let line = |field: &str, value: Value| {
        let mut line = json!({ "v": 1, "time": "2026-11-01T00:00:00.000Z", "event": "around", "state": "ended", "way": "around",
            "protocol": "tcp", "address": "198.18.0.7", "port": 443, "names": [], "exe": null, "connections": 1_u64 << 63 });
        line[field] = value;
        format!("{line}\n")
    };
    for text in HOSTILE {
        let fields = ["state", "way", "protocol", "exe", "unknown", "container", "end", "action", "time"];
        let mut lines: String = fields.iter().map(|field| line(field, json!(text))).collect();
        lines.push_str(&line("names", json!([text])));
        for form in ["text", "json"] {
            let report = run_egret(["report", "-", "--output", form], &lines);
            assert_eq!(report.code, 0, "{form} of {text:?}: {report:#?}");
            let output = report.stdout + &report.stderr;
            let is_row = output.lines().any(|row| row.starts_with("open.test,"));
            assert!(!output.contains(steers) && !is_row, "{form} of {text:?}: {}", output.escape_debug());
        }
    }
    let sums = line("port", json!(443)).repeat(3) + &line("time", json!("9999-01-01T00:00:00.000Z"));
    let report = run_egret(["report", "-", "--output", "json"], &sums);
    let report: Value = serde_json::from_str(&report.stdout).expect("JSON");
    assert_eq!(report["around"][0]["connections"], u64::MAX, "{report:#}");
    assert!(!report.to_string().contains("9999"), "{report:#}");
}

#[test]
fn o57_lines_that_are_broken_in_any_way_are_counted_and_no_more() {
    let good = journal(&[tls("good.example.com", 443)]);
    let broken: [&[u8]; 12] = [
        b"\xff\xfe\xfd",
        b"{\"v\":1,\"event\":\"connection\",\"host\":\"\xc3\x28\"}",
        b"{\"v\":1,\"event\":\"connection\",\"host\":\"\\ud800\"}",
        b"\0\0\0\0",
        b"{\"v\":1e400,\"event\":\"connection\"}",
        b"{\"v\":-1,\"event\":\"connection\"}",
        b"{\"v\":1,\"event\":\"connection\"",
        b"{\"v\":1,\"event\":\"connection\"}}",
        b"nullnull",
        b"[{\"v\":1,\"event\":\"connection\"}]",
        &[b'['; 60_000],
        &[b'{'; 60_000],
    ];
    for line in broken {
        let text = [good.as_bytes(), line, b"\n", good.as_bytes()].concat();
        let shown = line[..line.len().min(60)].escape_ascii();
        for command in [&["report", "-"][..], &["learn", "-"], &["check", "--replay", "-"]] {
            let program = egret_program().env("EGRET_POLICY", "version: 1\negress: { allow: [good.example.com] }\n");
            let output = program.args(command).stdin(&text[..]).run();
            assert_eq!(output.code, 0, "{command:?} of {shown}: {output:#?}");
            assert!(!output.stderr.contains("panicked"), "{command:?} of {shown}: {output:#?}");
            let told = output.stdout.contains("no event") || output.stderr.contains("no event");
            assert!(told, "{command:?} of {shown}: {output:#?}");
        }
    }
}

#[test]
fn o58_numbers_beyond_counting_neither_wrap_nor_crash() {
    let most = json!(u64::MAX);
    for value in [most, json!(-1), json!(1.5e300), json!("9"), json!([1]), json!(i64::MIN), Value::Null] {
        let fields = ["bytes_up", "bytes_down", "duration_ms", "pid", "uid"];
        let lines: Vec<_> = (0..3)
            .map(|_| fields.iter().fold(tls("good.example.com", 443), |line, field| line.with(field, value.clone())))
            .collect();
        for (case, output) in every_reading(&journal(&lines)) {
            assert!(!output.contains("attempt to"), "{case} of {value}: {output}");
        }
        let report = run_egret(["report", "-", "--output", "json"], &journal(&lines));
        let report: Value = serde_json::from_str(&report.stdout).expect("JSON");
        let up = report["destinations"][0]["bytes_up"].as_u64();
        let expected = if value == json!(u64::MAX) { Some(u64::MAX) } else { Some(0) };
        assert!(report["destinations"].as_array().is_some_and(Vec::is_empty) || up == expected, "{value}: {report:#}");
    }
}

#[test]
fn o59_times_beyond_the_calendar_are_no_times() {
    for time in [
        "+999999-01-01T00:00:00Z",
        "-009999-01-01T00:00:00Z",
        "2026-02-30T00:00:00Z",
        "",
        "now",
        "0",
        "2026-01-01T00:00:00+99:99",
    ] {
        let lines = [tls("good.example.com", 443).with("time", time), tls("good.example.com", 443)];
        every_reading(&journal(&lines));
    }
}

#[test]
fn o60_what_a_person_reads_on_stderr_is_plain_text_too() {
    let world = World::echo(NAMES);
    let mut count = 0;
    for text in HOSTILE {
        let bytes = text.as_bytes();
        let length = u8::try_from(bytes.len()).expect("short");
        for said in [
            [&[5, 1, 0, 5, 1, 0, 3, length][..], bytes, &[1, 187]].concat(),
            format!("CONNECT {text}:443 HTTP/1.1\r\n\r\n").into_bytes(),
            format!("GET http://{text}/ HTTP/1.1\r\nHost: x\r\nUser-Agent: {text}\r\n\r\n").into_bytes(),
            Hello::new().sni_bytes(&[bytes]).build(),
        ] {
            raw(world.proxy, &said);
            count += 1;
        }
    }
    world.egret.wait_records(count);
    assert!(!world.egret.stderr().contains(steers), "{}", world.egret.stderr().escape_debug());
    for path in ["/status", "/report", "/metrics"] {
        let (_, body) = world.egret.get_admin(path);
        assert!(!body.contains(steers), "{path}: {}", body.escape_debug());
    }
}

#[test]
fn o03_a_user_name_that_is_no_role_is_nobodys_label() {
    let world = World::echo(&format!("roles: {{ worker: {{ proxy-user: worker }} }}\n{NAMES}"));
    let long = "w".repeat(10_000);
    let names = [
        "wor\"ker",
        "worker\n",
        "worker\",role=\"admin",
        "WORKER",
        "worker ",
        "default\"} 1\negret_forged 1",
        "\u{202e}rekrow",
        &long,
    ];
    for name in names {
        use base64::Engine as _;
        let credentials = base64::engine::general_purpose::STANDARD.encode(format!("{name}:x"));
        let field = format!("Proxy-Authorization: Basic {credentials}");
        assert_eq!(http_connect_with(world.proxy, "evil.test:443", &[&field]).response.status, 403, "{name:.20}");
        assert_eq!(world.denied(name, "admit", "no_rule")["role"], "default", "{name:.20}");
        if name.len() < 256 {
            assert_eq!(socks5(world.proxy, Host::Name("evil.test"), 443, Some((name, "x"))).0, 2, "{name}");
            assert_eq!(world.denied(name, "admit", "no_rule")["role"], "default", "{name}");
        }
    }
    let metrics = world.egret.metrics();
    let checked = Program::new("promtool").args(["check", "metrics"]).stdin(metrics.as_bytes()).run();
    assert_eq!(checked.code, 0, "{metrics}\n{checked:#?}");
    assert!(!metrics.contains("forged") && !metrics.contains("wwww") && !metrics.contains("admin"), "{metrics}");
}

#[test]
fn o06_what_was_told_before_the_end_without_warning_can_be_read() {
    let dns = DnsServer::new();
    let upstream = Upstream::echo();
    dns.answers("allowed.test", &LOCALHOST);
    let egret = Egret::with_policy(&policy(&dns, &[local("allowed.test", upstream.port(), "as: tcp")])).start();
    for _ in 0..5 {
        drop(http_connect(egret.proxy(), &format!("allowed.test:{}", upstream.port())));
        drop(http_connect(egret.proxy(), "evil.test:443"));
    }
    egret.wait_records(10);
    egret.signal(9);
    egret.wait_exit();
    let whole = egret.stdout_lines().join("\n");
    for text in [whole.clone(), whole[..whole.len() - 20].to_owned()] {
        let report = run_egret(["report", "-"], &text);
        assert_eq!(report.code, 0, "{report:#?}");
        assert!(report.stdout.starts_with("2 destinations\nallowed.test,tcp,"), "{}", report.stdout);
    }
}

#[test]
fn c52_a_variable_that_means_nothing_starts_nothing() {
    let cases = [
        ("EGRET_MODE", "ENFORCE"),
        ("EGRET_MODE", "audit "),
        ("EGRET_MODE", "off"),
        ("EGRET_MODE", ""),
        ("EGRET_LISTEN", "0.0.0.0"),
        ("EGRET_LISTEN", "localhost:x"),
        ("EGRET_LISTEN", "127.0.0.1:99999"),
        ("EGRET_ADMIN", "evil"),
        ("EGRET_CONNECTIONS", "-1"),
        ("EGRET_CONNECTIONS", "99999999999999999999"),
        ("EGRET_CONNECTIONS", "lots"),
        ("EGRET_DRAIN", "-5"),
        ("EGRET_DRAIN", "1e9"),
        ("EGRET_CONFINE", "maybe"),
    ];
    for (name, value) in cases {
        let program = egret_program().env("EGRET_POLICY", "version: 1\n").env(name, value);
        let output = program.args(["run", "--print-config"]).run();
        assert_eq!(output.code, 2, "{name}={value}: {output:#?}");
        assert!(!output.stderr.contains("panicked") && !output.stderr.is_empty(), "{name}={value}: {output:#?}");
    }
}

#[test]
fn c53_a_policy_that_vanishes_or_cannot_be_read_leaves_the_old_one_in_force() {
    let egret = Egret::with_policy("version: 1\negress: { allow: [\"*.allowed.test\"] }\n").start();
    let before = egret.started()["policy"].clone();
    fs::remove_file(egret.policy_path()).expect("the policy is there");
    egret.signal(1);
    egret.event("policy", |event| event["result"] == "rejected");
    fs::create_dir(egret.policy_path()).expect("a folder in its place");
    egret.signal(1);
    eventually("both are counted", || {
        (egret.metric("egret_policy_reloads_total", &[("result", "rejected")]) >= 2.0).then_some(())
    });
    assert_eq!(http_connect(egret.proxy(), "evil.test:443").response.status, 403);
    assert_eq!(egret.only_record()["policy"], before);
    assert_eq!(egret.get_admin("/readyz").0, 200);
}

#[test]
fn c54_a_storm_of_reloads_ends_with_the_last_policy() {
    let allowing =
        |name: &str| format!("version: 1\negress: {{ allow: [\"{name}:1\"] }}\ndns: {{ upstream: \"127.0.0.99:53\" }}\n");
    let egret = Egret::with_policy(&allowing("first.test")).start();
    for turn in 0..100 {
        egret.rewrite_policy(&allowing(&format!("n{turn}.test")));
        egret.signal(1);
        if turn % 10 == 0 {
            assert_eq!(http_connect(egret.proxy(), "evil.test:1").response.status, 403, "turn {turn}");
        }
    }
    egret.rewrite_policy(&allowing("last.test"));
    eventually("the last policy is in force", || {
        (http_connect(egret.proxy(), "last.test:1").response.status != 403).then_some(())
    });
    assert_eq!(http_connect(egret.proxy(), "first.test:1").response.status, 403);
}

fn admin_says(egret: &Egret, bytes: &[u8]) -> Vec<u8> {
    let mut stream = connect(egret.admin());
    drop(stream.write_all(bytes));
    drop(stream.shutdown(std::net::Shutdown::Write));
    read_to_close(&mut stream)
}

#[test]
fn l51_the_admin_port_is_no_proxy() {
    let world =
        World::of("egress: { allow: [{ to: \"allowed.test:PORT\", as: http, within: [127.0.0.0/8] }] }", Upstream::http("hello"));
    let target = world.at("allowed.test");
    for request in [
        format!("GET http://{target}/ HTTP/1.1\r\nHost: {target}\r\nConnection: close\r\n\r\n"),
        format!("GET http://{target}/ HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n"),
        format!("CONNECT {target} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n"),
        format!("GET //{target}/ HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n"),
        "GET /../../etc/passwd HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n".to_owned(),
        "GET /%2e%2e/status HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n".to_owned(),
        "GET /status/ HTTP/1.1\r\nHost: evil.test@127.0.0.1\r\nConnection: close\r\n\r\n".to_owned(),
        "GET /status HTTP/1.1\r\nHost: 127.0.0.1.evil.test\r\nConnection: close\r\n\r\n".to_owned(),
        "GET /status HTTP/1.1\r\nHost: localhost.evil.test\r\nConnection: close\r\n\r\n".to_owned(),
        "GET /status HTTP/1.1\r\nHost: 127.0.0.1\r\nHost: evil.test\r\nConnection: close\r\n\r\n".to_owned(),
        "GET http://evil.test/status HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n".to_owned(),
    ] {
        let answer = admin_says(&world.egret, request.as_bytes());
        let status = Response::read(&answer[..]).map(|response| response.status).unwrap_or(400);
        assert!((400..500).contains(&status), "{request}: {}", answer.escape_ascii());
    }
    assert_eq!((world.upstream.connections(), world.dns.total()), (0, 0));
    assert!(world.egret.records().is_empty(), "and leaves no record of a connection");
}

#[test]
fn l52_no_bytes_harm_the_admin_port() {
    let egret = Egret::with_policy("version: 1\n").start();
    let long = format!("GET /{} HTTP/1.1\r\n", "a".repeat(1 << 20));
    let many = format!("GET /status HTTP/1.1\r\nHost: 127.0.0.1\r\n{}\r\n", "X: y\r\n".repeat(20_000));
    let body = "POST /status HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 99999999999\r\n\r\nx";
    for bytes in [
        &[5, 1, 0][..],
        &[0x16, 3, 1, 0, 4, 1, 0, 0, 0],
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        &[0xff; 10_000],
        &[0; 10_000],
        b"GET /status\r\n\r\n",
        b"GET /status HTTP/1.1\r\n\r\n",
        long.as_bytes(),
        many.as_bytes(),
        body.as_bytes(),
    ] {
        let answer = admin_says(&egret, bytes);
        assert!(!answer.starts_with(b"HTTP/1.1 200"), "{}", answer.escape_ascii());
    }
    let idle: Vec<TcpStream> = (0..50).map(|_| connect(egret.admin())).collect();
    assert_eq!(egret.get_admin("/healthz").0, 200, "beside 50 that say nothing");
    assert_eq!(http_connect(egret.proxy(), "evil.test:443").response.status, 403);
    drop(idle);
}

/// KiB that a process has in memory.
fn resident(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("a live process has a status");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a resident size");
    line.trim().trim_end_matches(" kB").parse().expect("a number")
}

/// Sends as much as is taken without reading a byte, and says how many bytes that was. What is not taken for half a second
/// is taken to be refused for good; a slower machine only makes the test send less.
fn push(proxy: SocketAddr, bytes: &[u8], most: usize) -> (TcpStream, usize) {
    let mut stream = connect(proxy);
    stream.set_nonblocking(true).expect("a socket takes the option");
    let (mut sent, mut refused) = (0, 0);
    while sent < most && refused < 50 {
        match stream.write(&bytes[sent % bytes.len()..]) {
            Ok(count) => (sent, refused) = (sent + count, 0),
            Err(_) => {
                refused += 1;
                thread::sleep(Duration::from_millis(10));
            }
        }
    }
    (stream, sent)
}

#[test]
fn r50_a_client_that_never_reads_is_not_read_for_ever() {
    let world = World::echo(NAMES);
    let before = resident(world.egret.pid());
    let request = "GET http://evil.test/ HTTP/1.1\r\nHost: evil.test\r\n\r\n".repeat(200);
    let held: Vec<(TcpStream, usize)> = (0..20).map(|_| push(world.proxy, request.as_bytes(), 64 << 20)).collect();
    assert!(held.iter().all(|(_, sent)| *sent < 64 << 20), "somebody's answers are kept without end");
    let after = resident(world.egret.pid());
    assert!(after < before + 32 * 1024, "{before} KiB, then {after} KiB");
    assert_eq!(http_connect(world.proxy, "evil.test:443").response.status, 403, "others are served meanwhile");
    assert_eq!(world.dns.total(), 0);
}

#[test]
fn r51_clients_that_vanish_at_any_point_leave_a_record_each_and_nothing_else() {
    let world = World::echo(NAMES);
    let open = || fs::read_dir(format!("/proc/{}/fd", world.egret.pid())).expect("a live process").count();
    let whole = [
        format!("CONNECT {} HTTP/1.1\r\nHost: x\r\n\r\n", world.at("allowed.test")).into_bytes(),
        Hello::new().sni("allowed.test").build(),
    ]
    .concat();
    // Whatever stays open for its own sake is there after one of each, but for the watch of the policy file, which begins later.
    drop(raw(world.proxy, b"GET http://evil.test/ HTTP/1.0\r\n\r\n"));
    let before = open();
    let cuts: Vec<usize> = (1..whole.len()).step_by(7).collect();
    for end in &cuts {
        let mut stream = connect(world.proxy);
        stream.write_all(&whole[..*end]).expect("the proxy takes bytes");
        drop(stream);
    }
    world.egret.wait_records(cuts.len() + 1);
    eventually("every descriptor is given back", || (open() <= before + 4).then_some(()));
    world.egret.metric_becomes("egret_egress_connections_active", &[("via", "connect")], 0.0);
}

#[test]
fn r52_thousands_of_refused_names_cost_a_bounded_table() {
    let world = World::echo(NAMES);
    let mut stream = connect(world.proxy);
    let mut requests = String::new();
    for at in 1..3_000 {
        let _ = write!(requests, "GET http://n{at}.evil.test/ HTTP/1.1\r\nHost: x\r\n\r\n");
    }
    requests += "GET http://last.evil.test/ HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    let mut writer = stream.try_clone().expect("a socket can be shared");
    let sending = thread::spawn(move || writer.write_all(requests.as_bytes()));
    let answers = read_to_close(&mut stream);
    sending.join().expect("the requests are sent").expect("they are taken");
    let refused = answers.windows(13).filter(|part| part == b"HTTP/1.1 403 ").count();
    assert_eq!(refused, 3_000);
    assert_eq!(world.record()["requests"], 3_000);
    world.egret.metric_becomes("egret_discovered_destinations", &[], 2_048.0);
    assert_eq!(world.dns.total(), 0);
}
