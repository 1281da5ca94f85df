//! The commands that print and end: check, explain, env.

use serde_json::Value;

use crate::support::egret::egret_program;
use crate::support::run_egret;

const POLICY: &str = "version: 1\nroles: { worker: { proxy-user: w } }\negress:\n  allow:\n    - { id: api, to: api.test, note: the note }\n    \
                      - { to: jobs.test, for: [worker] }\n    - \"*.wild.test\"\n  deny:\n    - { id: never, to: bad.wild.test }\n\
                      tests:\n  - { connect: \"api.test:443\", expect: allow }\n  - { connect: \"169.254.169.254:80\", expect: deny }\n";

/// Runs a command with the policy in the environment.
fn egret(args: &[&str]) -> crate::support::programs::Output {
    egret_program().env("EGRET_POLICY", POLICY).args(args).run()
}

fn explained(args: &[&str]) -> (i32, Value) {
    let output = egret(&[&["explain", "--output", "json"], args].concat());
    (output.code, serde_json::from_str(&output.stdout).expect("JSON"))
}

#[test]
fn check_accepts_a_good_policy_and_runs_its_tests() {
    let good = egret(&["check"]);
    assert_eq!((good.code, good.stdout.trim()), (0, "EGRET_POLICY: ok (4 rules, 2 tests, mode enforce)"));
    let failing = POLICY.replace("expect: allow", "expect: deny");
    let failed = egret_program().env("EGRET_POLICY", &failing).args(["check"]).run();
    assert_eq!(failed.code, 1);
    assert!(failed.stderr.contains("the policy says allow") && failed.stderr.contains("^^^"), "{}", failed.stderr);
}

#[test]
fn check_refuses_a_bad_policy_in_text_and_json() {
    let bad = egret_program().env("EGRET_POLICY", "version: 1\nmod: x\n").args(["check", "--output", "json"]).run();
    assert_eq!(bad.code, 2);
    let told: Value = serde_json::from_str(&bad.stdout).expect("JSON");
    assert_eq!((told["valid"].as_bool(), told["diagnostics"][0]["line"].as_u64()), (Some(false), Some(2)));
    let text = egret_program().env("EGRET_POLICY", "version: 1\nmod: x\n").args(["check"]).run();
    assert!(text.code == 2 && text.stderr.contains("EGRET_POLICY:2:1"), "{}", text.stderr);
}

#[test]
fn explain_names_verdict_rule_line_and_the_way_out() {
    let allowed = egret(&["explain", "https://api.test/path"]);
    assert_eq!(allowed.code, 0);
    assert!(
        allowed.stdout.starts_with("+ allow  api.test:443 for role default\nrule: api (EGRET_POLICY:5)"),
        "{}",
        allowed.stdout
    );
    assert!(allowed.stdout.contains("the note"), "{}", allowed.stdout);
    let denied = egret(&["explain", "other.test"]);
    assert_eq!(denied.code, 1);
    assert!(denied.stdout.contains("no_rule") && denied.stdout.contains("add `- other.test`"), "{}", denied.stdout);
    let near = egret(&["explain", "wild.test"]);
    assert!(near.stdout.contains("near miss: *.wild.test"), "{}", near.stdout);
}

/// What localhost leads to is known without a look-up (RFC 6761).
#[test]
fn explain_knows_where_localhost_leads() {
    let with = |rule: &str, args: &[&str]| {
        let policy = format!("version: 1\negress: {{ allow: [{rule}] }}\n");
        let output = egret_program().env("EGRET_POLICY", policy).arg("explain").args(args).run();
        (output.code, output.stdout)
    };
    for name in ["localhost", "a.localhost"] {
        let (code, told) = with(name, &[name]);
        assert!(code == 1 && told.contains("address_class") && told.contains("answer: 127.0.0.1: loopback, refused"), "{told}");
        let line = format!("- {{ to: \"{name}\", within: [\"127.0.0.1\"] }}");
        assert!(told.contains(&line), "{told}");
        let (code, told) = with("api.test", &[name]);
        assert!(code == 1 && told.contains("no_rule") && told.contains(&line), "{told}");
        assert!(told.contains(&format!("add `- {{ to: \"{name}\", within: [127.0.0.1] }}`")), "{told}");
        assert_eq!(with(&line[2..], &[name]).0, 0);
        let (_, json) = with(name, &[name, "--output", "json"]);
        assert!(json.contains(r#""address":"127.0.0.1""#), "{json}");
    }
    assert_eq!(with("localhost.test", &["localhost.test"]).0, 0);
    assert_eq!(with("127.0.0.0/8", &["localhost"]).0, 1, "no rule names it");
}

#[test]
fn explain_in_json_is_stable() {
    for (args, code, decision, reason, rule) in [
        (&["api.test"][..], 0, "allow", None, Some("api")),
        (&["api.test:80"], 1, "deny", Some("port_not_listed"), Some("api")),
        (&["bad.wild.test:1"], 1, "deny", Some("deny_rule"), Some("never")),
        (&["jobs.test"], 1, "deny", Some("role_not_listed"), None),
        (&["jobs.test", "--role", "worker"], 0, "allow", None, None),
        (&["127.0.0.1:3128"], 1, "deny", Some("own_listener"), None),
        (&["127.0.0.1:3129", "--mode", "audit"], 1, "deny", Some("own_listener"), None),
        (&["1.1.1.1"], 1, "deny", Some("address_not_listed"), None),
        (&["other.test", "--mode", "audit"], 0, "would_deny", Some("no_rule"), None),
        (&["169.254.169.254", "--mode", "audit"], 1, "deny", Some("address_class"), None),
    ] {
        let (got, told) = explained(args);
        assert_eq!((got, told["decision"].as_str(), told["reason"].as_str()), (code, Some(decision), reason), "{args:?}: {told}");
        if rule.is_some() {
            assert_eq!(told["rule"].as_str(), rule, "{args:?}: {told}");
        }
    }
}

#[test]
fn explain_refuses_what_is_no_target_or_role() {
    for args in [
        &["explain", "a b"][..],
        &["explain", "ftp://a.test/"],
        &["explain", "a.test:0"],
        &["explain", "a.test", "--role", "nobody"],
    ] {
        let output = egret(args);
        assert_eq!(output.code, 2, "{args:?}: {}", output.stderr);
    }
}

#[test]
fn c13_env_prints_both_cases_in_four_forms() {
    let shell = run_egret(["env"], "");
    for line in ["export HTTPS_PROXY='http://127.0.0.1:3128'", "export http_proxy='http://127.0.0.1:3128'"] {
        assert!(shell.stdout.contains(line), "{}", shell.stdout);
    }
    assert!(shell.stdout.contains("169.254.170.2"), "{}", shell.stdout);
    let json: Value =
        serde_json::from_str(&run_egret(["env", "--output", "json", "--listen", "127.0.0.1:1"], "").stdout).expect("JSON");
    assert_eq!(json["https_proxy"], "http://127.0.0.1:1");
    let ecs: Value = serde_json::from_str(&run_egret(["env", "--output", "ecs"], "").stdout).expect("JSON");
    assert_eq!(ecs[0]["name"], "HTTP_PROXY");
    assert!(run_egret(["env", "--output", "dotenv"], "").stdout.starts_with("HTTP_PROXY=http://127.0.0.1:3128\n"));
}

#[test]
fn c13_env_leaves_direct_addresses_of_a_policy_to_the_app_itself() {
    let home = tempfile::TempDir::new().expect("a temporary directory");
    let policy = home.path().join("policy.yaml");
    std::fs::write(&policy, "version: 1\npresets: [aws-ecs-task]\ndirect: [10.0.0.53, 10.1.0.0/16]\n").expect("a policy");
    let dotenv = egret_program().args(["env", "--output", "dotenv", "--policy"]).arg(&policy).run();
    let no_proxy = dotenv.stdout.lines().find_map(|line| line.strip_prefix("NO_PROXY=")).expect("NO_PROXY");
    for address in ["169.254.170.2", "169.254.169.253", "fd00:ec2::123", "10.0.0.53"] {
        assert_eq!(no_proxy.split(',').filter(|one| *one == address).count(), 1, "{address}: {no_proxy}");
    }
    assert!(!no_proxy.contains('/') && dotenv.stderr.contains("10.1.0.0/16"), "{dotenv:?}");
}

#[test]
fn env_knows_runtimes_and_says_what_they_leave_unread() {
    let shell = run_egret(["env", "--runtime", "java,php,perl,node-agents", "--direct", ".corp.test,10.0.0.53"], "");
    for part in [
        "# php: the curl extension reads them; streams",
        "export JAVA_TOOL_OPTIONS='-Dhttp.proxyHost=127.0.0.1 -Dhttp.proxyPort=3128 -Dhttps.proxyHost=127.0.0.1",
        "-Dhttp.nonProxyHosts=localhost|127.0.0.1|[::1]|169.254.170.2|169.254.170.23|corp.test|*.corp.test|10.0.0.53'",
        "export PERL_LWP_ENV_PROXY='1'",
        "169.254.170.23,corp.test,.corp.test,10.0.0.53'",
    ] {
        assert!(shell.stdout.contains(part), "{part:?} is not in {}", shell.stdout);
    }
    let home = tempfile::TempDir::new().expect("a temporary directory");
    let script = home.path().join("env.sh");
    std::fs::write(&script, &shell.stdout).expect("the script is written");
    let read = format!(". {}; printf %s \"$NODE_OPTIONS\"", script.display());
    let read = crate::support::Program::new("bash").args(["-euc", &read]).run();
    assert!(read.stdout.starts_with("--import=data:text/javascript,import%20http%20from'node:http'"), "{read:?}");
    let ecs = run_egret(["env", "--format", "ecs", "--runtime", "python"], "");
    assert!(
        ecs.stderr.contains("aiohttp only with trust_env=True") && serde_json::from_str::<Value>(&ecs.stdout).is_ok(),
        "{ecs:?}"
    );
}

#[test]
fn env_refuses_what_half_of_all_clients_would_not_read() {
    for (name, why) in [("*.corp", "star"), ("10.0.0.0/8", "networks"), ("a.test:80", "ports"), (" a.test", "blank")] {
        let refused = run_egret(["env", "--direct", name], "");
        assert!(refused.code == 2 && refused.stderr.contains(why), "{name}: {refused:?}");
    }
    assert_eq!(run_egret(["env", "--direct", "fd00::1"], "").code, 0);
}

#[test]
fn env_refuses_a_port_that_is_not_chosen_yet() {
    for address in ["127.0.0.1:0", "[::]:0"] {
        let refused = run_egret(["env", "--listen", address], "");
        assert!(refused.code == 2 && refused.stdout.is_empty() && refused.stderr.contains("name a port"), "{refused:?}");
        let variable = egret_program().env("EGRET_LISTEN", address).arg("env").run();
        assert!(variable.code == 2 && variable.stderr.contains("name a port"), "{variable:?}");
    }
    let nonsense = run_egret(["env", "--listen", ":1"], "");
    assert!(nonsense.code == 2 && nonsense.stderr.contains("write ADDR:PORT"), "{nonsense:?}");
}

/// What a command advises is what it takes.
#[test]
fn who_finds_no_policy_is_advised_for_this_command() {
    for (args, advice) in [
        (&["run"][..], "--policy FILE; to observe first, start with --mode audit"),
        (&["explain", "a.test"], "--policy FILE; with --mode audit"),
        (&["check"], "egret check FILE; with --mode audit"),
        (&["files", "verify"], "MANIFEST"),
    ] {
        let output = run_egret(args.iter().copied(), "");
        assert!(
            output.code == 2 && output.stderr.contains("no policy found") && output.stderr.contains(advice),
            "{args:?}: {output:?}"
        );
    }
    let verify = run_egret(["files", "verify"], "");
    assert!(!verify.stderr.contains("--mode"), "{verify:?}");
}

#[test]
fn explain_expands_presets_and_names_them_as_the_origin_of_their_rules() {
    let policy = "version: 1\npresets: [github, aws-ecs-task]\n";
    let run = |args: &[&str]| egret_program().env("EGRET_POLICY", policy).args(args).run();
    let told: Value = serde_json::from_str(&run(&["explain", "api.github.com", "--output", "json"]).stdout).expect("JSON");
    assert_eq!((told["rule"].as_str(), told["origin"].as_str()), (Some("github/https"), Some("preset github")), "{told}");
    assert!(run(&["explain", "169.254.170.2:80"]).stdout.contains("reached without the proxy"));
    let held = run_egret(["explain", "--preset", "github"], "");
    assert!(held.code == 0 && held.stdout.contains("codeload.github.com"), "{held:?}");
    let none = run_egret(["explain", "--preset", "gitlab"], "");
    assert!(none.code == 2 && none.stderr.contains("kubernetes-pod"), "{none:?}");
}

#[test]
fn completions_are_scripts_of_their_shells() {
    let bash = run_egret(["completions", "bash"], "");
    let home = tempfile::TempDir::new().expect("a temporary directory");
    let script = home.path().join("egret.bash");
    std::fs::write(&script, &bash.stdout).expect("the script is written");
    let complete = format!(
        ". {}; COMP_WORDS=(egret expl); COMP_CWORD=1; _egret egret expl egret; echo \"${{COMPREPLY[@]}}\"",
        script.display()
    );
    let completed = crate::support::Program::new("bash").args(["-c", &complete]).run();
    assert_eq!((completed.code, completed.stdout.trim()), (0, "explain"), "{completed:?}");
    for shell in ["zsh", "fish", "elvish", "powershell"] {
        assert!(run_egret(["completions", shell], "").stdout.contains("wildcard-after"), "{shell}");
    }
}

#[test]
fn every_command_has_a_manual_page() {
    assert!(run_egret(["man"], "").stdout.contains(".TH egret 1"));
    let home = tempfile::TempDir::new().expect("a temporary directory");
    let written = egret_program().args(["man", "--dir"]).arg(home.path()).run();
    assert_eq!(written.code, 0, "{written:?}");
    for command in ["run", "check", "explain", "report", "learn", "env", "health", "schema"] {
        let page = std::fs::read_to_string(home.path().join(format!("egret-{command}.1"))).expect("a page for each command");
        assert!(page.contains(".SH SYNOPSIS"), "{command}: {page}");
    }
    assert_eq!(run_egret(["man", "--dir", "/nonexistent"], "").code, 3);
}

#[test]
fn wrong_usage_is_exit_2() {
    assert_eq!(run_egret(["run", "--listen", "nowhere"], "").code, 2);
    assert_eq!(run_egret(["nonsense"], "").code, 2);
}
