//! The policy: where it comes from, what a bad one does, and how it is replaced while egret runs.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::OnceLock;

use serde_json::Value;

use crate::support::egret::egret_program;
use crate::support::{DnsServer, Egret, http_connect, run_egret};

/// A policy that allows this name. Its DNS server knows no name, so that a name that is let through ends in a 502.
fn allowing(name: &str) -> String {
    static DNS: OnceLock<DnsServer> = OnceLock::new();
    let dns = DNS.get_or_init(DnsServer::new).addr();
    format!("version: 1\negress: {{ allow: [\"{name}:1\"] }}\ndns: {{ upstream: \"{dns}\" }}\n")
}

fn a() -> String {
    allowing("a.test")
}

fn b() -> String {
    allowing("b.test")
}

/// Whether the policy in force lets this name as far as its look-up, which fails here.
fn admits(egret: &Egret, name: &str) -> bool {
    match http_connect(egret.proxy(), &format!("{name}:1")).response.status {
        403 => false,
        502 => true,
        other => panic!("{name}: {other}"),
    }
}

fn reloaded(egret: &Egret) -> Value {
    egret.event("policy", |event| event["result"] == "loaded")
}

#[test]
fn c02_a_bad_policy_is_exit_2_with_line_caret_and_help_and_nothing_listens() {
    let egret = Egret::with_policy("version: 1\negress:\n  allow:\n    - https://a.test/\n").spawn();
    assert_eq!(egret.wait_exit().code(), Some(2));
    let stderr = egret.stderr();
    for part in ["policy.yaml:4:7", "^^^^", "help:", "write a.test"] {
        assert!(stderr.contains(part), "{part}: {stderr}");
    }
    assert_eq!(egret.stdout_lines(), [""; 0]);
}

#[test]
fn a_missing_policy_says_where_was_looked() {
    let none = egret_program().args(["run", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"]).run();
    assert_eq!(none.code, 2);
    assert!(none.stderr.contains("EGRET_POLICY") && none.stderr.contains("--mode audit"), "{}", none.stderr);
    let gone = run_egret(["run", "--policy", "/nonexistent/p.yaml"], "");
    assert_eq!(gone.code, 2);
    assert!(gone.stderr.contains("/nonexistent/p.yaml"), "{}", gone.stderr);
}

#[test]
fn c10_policies_come_from_variables_too() {
    let text = Egret::without_policy().env("EGRET_POLICY", a()).start();
    assert!(admits(&text, "a.test") && !admits(&text, "b.test"));
    let names = Egret::without_policy().env("EGRET_ALLOW", "b.test:1 *.c.test").start();
    assert_eq!(names.started()["mode"], "enforce");
    assert!(!admits(&names, "a.test"));
    let audit = Egret::without_policy().env("EGRET_ALLOW", "b.test:1").env("EGRET_MODE", "audit").start();
    assert_eq!(audit.started()["mode"], "audit");
    let nothing = Egret::without_policy().arg("--mode").arg("audit").start();
    assert_eq!(nothing.started()["mode"], "audit");
}

#[test]
fn c01_an_empty_allow_list_denies_everything() {
    for policy in ["version: 1\n", "version: 1\negress: {}\n", "version: 1\negress: { allow: [] }\n"] {
        let egret = Egret::with_policy(policy).start();
        assert!(!admits(&egret, "a.test"), "{policy}");
    }
}

#[test]
fn a_change_in_place_is_loaded() {
    let egret = Egret::with_policy(&a()).start();
    assert!(admits(&egret, "a.test"));
    fs::write(egret.policy_path(), b()).expect("the new policy is written");
    let event = reloaded(&egret);
    assert_ne!(event["policy"], egret.started()["policy"]);
    assert!(admits(&egret, "b.test") && !admits(&egret, "a.test"));
    egret.metric_becomes("egret_policy_reloads_total", &[("result", "loaded")], 1.0);
}

#[test]
fn a_rename_over_the_file_is_loaded() {
    let egret = Egret::with_policy(&a()).start();
    let next = egret.policy_path().with_extension("new");
    fs::write(&next, b()).expect("the new policy is written");
    fs::rename(&next, egret.policy_path()).expect("and renamed");
    reloaded(&egret);
    assert!(admits(&egret, "b.test"));
}

#[test]
fn a_swapped_data_link_is_loaded() {
    let builder = Egret::without_policy();
    let home = builder.home().to_owned();
    mount_like_kubernetes(&home, "1", &a());
    let egret = builder.arg("--policy").arg(home.join("mounted.yaml").display().to_string()).start();
    assert!(admits(&egret, "a.test"));
    swap_data(&home, "2", &b());
    reloaded(&egret);
    assert!(admits(&egret, "b.test"));
}

/// `mounted.yaml` → `..data/policy.yaml`, and `..data` → a folder, as a mounted ConfigMap is laid out.
fn mount_like_kubernetes(home: &Path, version: &str, policy: &str) {
    swap_data(home, version, policy);
    symlink("..data/policy.yaml", home.join("mounted.yaml")).expect("a link to the policy");
}

fn swap_data(home: &Path, version: &str, policy: &str) {
    let folder = home.join(format!("..{version}"));
    fs::create_dir(&folder).expect("a folder for the version");
    fs::write(folder.join("policy.yaml"), policy).expect("its policy");
    symlink(format!("..{version}"), home.join("..data_tmp")).expect("a link beside the old one");
    fs::rename(home.join("..data_tmp"), home.join("..data")).expect("and over it");
}

#[test]
fn c04_a_broken_change_keeps_the_old_policy_and_says_so_everywhere() {
    let egret = Egret::with_policy(&a()).start();
    egret.rewrite_policy("version: 1\negress: { allow: [.broken] }\n");
    let event = egret.event("policy", |_| true);
    assert_eq!(event["result"], "rejected");
    assert_eq!(event["policy"], egret.started()["policy"], "the old one stays in force");
    assert!(event["error"].as_str().is_some_and(|error| error.contains("*.broken")), "{event}");
    egret.metric_becomes("egret_policy_reloads_total", &[("result", "rejected")], 1.0);
    assert!(admits(&egret, "a.test"));
    assert_eq!(egret.get_admin("/readyz").0, 200);
    egret.rewrite_policy(&b());
    reloaded(&egret);
    assert!(admits(&egret, "b.test"));
    assert!(egret.stderr().contains("the old one stays in force"), "{}", egret.stderr());
}

#[test]
fn sighup_reloads_even_without_a_change() {
    let egret = Egret::with_policy(&a()).start();
    egret.signal(1);
    let event = reloaded(&egret);
    assert_eq!(event["policy"], egret.started()["policy"]);
}

#[test]
fn c05_a_live_connection_outlives_the_policy_that_allowed_it() {
    let echo = crate::support::Upstream::echo();
    let dns = DnsServer::new();
    dns.answers("a.test", &[echo.addr().ip()]);
    let policy = |name: &str| {
        format!(
            "version: 1\negress: {{ allow: [{{ to: \"{name}:{}\", as: tcp, within: [127.0.0.0/8] }}] }}\ndns: {{ upstream: \"{}\" }}\n",
            echo.port(),
            dns.addr()
        )
    };
    let egret = Egret::with_policy(&policy("a.test")).start();
    let mut tunnel = http_connect(egret.proxy(), &format!("a.test:{}", echo.port())).stream;
    egret.rewrite_policy(&policy("b.test"));
    reloaded(&egret);
    std::io::Write::write_all(&mut tunnel, b"still here").expect("the tunnel lives");
    assert_eq!(crate::support::client::read_exactly(&mut tunnel, 10), b"still here");
    drop(tunnel);
    assert_eq!(egret.only_record()["policy"], egret.started()["policy"]);
}
