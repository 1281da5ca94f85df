//! The smallest policy that admits what was seen: exact names and ports, what each connection showed itself to be, and
//! the space its answers lay in. What nobody can vouch for is left out, and said to be.

use serde_json::{Value, json};

use crate::support::journal::{Line, admits, http, journal, learn, learnt, learnt_json, opaque, replay, tls};

/// What one rule of the JSON form lets through: name, port, and what the first flight must be.
fn admitted(learnt: &Value) -> Vec<(String, u64, String)> {
    let rules = learnt["rules"].as_array().unwrap_or_else(|| panic!("no rules: {learnt:#}"));
    let mut all: Vec<_> = rules.iter().flat_map(of_rule).collect();
    all.sort();
    all
}

fn of_rule(rule: &Value) -> Vec<(String, u64, String)> {
    let to = rule["to"].as_str().unwrap_or_else(|| panic!("no `to`: {rule:#}"));
    let ports = rule["ports"].as_array().unwrap_or_else(|| panic!("no `ports`: {rule:#}"));
    let of_port = |port: &Value| {
        let port = port.as_u64().unwrap_or_else(|| panic!("no port: {rule:#}"));
        let default = match port {
            443 => "tls",
            80 => "http",
            _ => "any",
        };
        (to.to_owned(), port, rule["as"].as_str().unwrap_or(default).to_owned())
    };
    ports.iter().map(of_port).collect()
}

/// The lines of a policy that are rules, and those that are comments.
fn rules_and_comments(policy: &str) -> (Vec<&str>, Vec<&str>) {
    let lines: Vec<&str> = policy.lines().map(str::trim).collect();
    let that = |start: &str| lines.iter().copied().filter(|line| line.starts_with(start)).collect();
    (that("- "), that("#"))
}

/// The policy is valid, and enforced it would deny nothing that the journal let through.
fn holds(policy: &str, journal: &str) {
    let replayed = replay(policy, journal, &[]);
    assert_eq!(replayed.code, 0, "{replayed:#?}\n{policy}");
}

#[test]
fn a_whole_policy_begins_in_audit_and_stderr_says_what_was_learnt_and_which_line_to_flip() {
    let seen = ["a", "a", "b"].map(|name| tls(&format!("{name}.example.com"), 443));
    let gone = ["x", "y"].map(|name| tls(&format!("{name}.example.com"), 443).failed());
    let output = learn(&journal(&[&seen[..], &gone].concat()), &[]);
    assert_eq!(output.code, 0, "{output:#?}");
    let lines: Vec<&str> = output.stdout.lines().collect();
    assert!(lines.contains(&"version: 1"), "{}", output.stdout);
    let at = lines.iter().position(|line| *line == "mode: audit").unwrap_or_else(|| panic!("no mode: {}", output.stdout));
    for told in [
        "egret: learnt 2 rules from 5 events; left out 2 destinations".to_owned(),
        format!("egret: to enforce, change `mode: audit` to `mode: enforce` in line {}", at + 1),
    ] {
        assert!(output.stderr.lines().any(|line| line == told), "{told}: {}", output.stderr);
    }
}

#[test]
fn names_are_exact_and_ports_are_those_seen() {
    let seen = journal(&[tls("api.example.com", 443), tls("api.example.com", 8443), tls("www.example.org", 443)]);
    let policy = learnt(&seen, &[]);
    holds(&policy, &seen);
    for target in ["api.example.com", "api.example.com:8443", "www.example.org"] {
        assert!(admits(&policy, "default", target), "{target}: {policy}");
    }
    for target in ["example.com", "x.api.example.com", "other.example.com", "api.example.com:80", "www.example.org:8443"] {
        assert!(!admits(&policy, "default", target), "{target}: {policy}");
    }
}

#[test]
fn the_usual_port_of_tls_needs_no_more_than_the_name() {
    let policy = learnt(&journal(&[tls("api.example.com", 443)]), &[]);
    assert_eq!(rules_and_comments(&policy).0, ["- api.example.com"], "{policy}");
}

#[test]
fn tls_and_clear_http_on_other_ports_are_held_to_what_they_were() {
    let seen = [
        tls("api.example.com", 443),
        tls("api.example.com", 8443),
        http("web.example.com", 80),
        http("web.example.com", 8080),
        opaque("mixed.example.com", 9000),
        tls("mixed.example.com", 9000),
    ];
    let expected = [
        ("api.example.com", 443, "tls"),
        ("api.example.com", 8443, "tls"),
        ("mixed.example.com", 9000, "any"),
        ("web.example.com", 80, "http"),
        ("web.example.com", 8080, "http"),
    ];
    let expected = expected.map(|(name, port, protocol)| (name.to_owned(), port, protocol.to_owned()));
    let found = admitted(&learnt_json(&journal(&seen), &[]));
    assert_eq!(found, expected);
    holds(&learnt(&journal(&seen), &[]), &journal(&seen));
}

#[test]
fn answers_in_special_space_are_opened_address_by_address() {
    let seen = journal(&[
        tls("db.internal.example", 5432).at("10.20.0.7:5432", "private"),
        tls("db.internal.example", 5432).at("10.20.0.8:5432", "private"),
        tls("api.example.com", 443),
    ]);
    let found = learnt_json(&seen, &[]);
    for rule in found["rules"].as_array().expect("rules") {
        let within: Vec<String> =
            rule["within"].as_array().expect("within").iter().map(|net| net.as_str().unwrap_or("-").replace("/32", "")).collect();
        let expected: &[&str] = if rule["to"] == "db.internal.example" { &["10.20.0.7", "10.20.0.8"] } else { &[] };
        assert_eq!(within, expected, "{rule:#}");
    }
    let policy = learnt(&seen, &[]);
    holds(&policy, &seen);
    let elsewhere = journal(&[tls("db.internal.example", 5432).at("10.20.0.9:5432", "private")]);
    assert_eq!(replay(&policy, &elsewhere, &[]).code, 1, "an address that was not seen stays closed: {policy}");
}

#[test]
fn a_name_with_answers_in_both_spaces_is_admitted_at_both() {
    let seen = journal(&[
        tls("split.example.com", 443),
        tls("split.example.com", 443).at("10.20.0.7:443", "private"),
        tls("six.example.com", 443).at("[fd00:20::7]:443", "private"),
    ]);
    holds(&learnt(&seen, &[]), &seen);
}

#[test]
fn rules_stand_together_by_registered_domain_with_a_comment_each() {
    let names = ["a.example.co.uk", "b.other.org", "c.example.co.uk", "example.co.uk", "other.org", "www.third.net"];
    let policy = learnt(&journal(&names.map(|name| tls(name, 443))), &[]);
    let lines: Vec<&str> = policy.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    for domain in ["example.co.uk", "other.org", "third.net"] {
        let of_domain = |line: &&str| line.starts_with("- ") && line.ends_with(domain);
        let first = lines.iter().position(of_domain).unwrap_or_else(|| panic!("no rule for {domain}: {policy}"));
        let count = lines.iter().filter(|line| of_domain(line)).count();
        assert_eq!(count, names.iter().filter(|name| name.ends_with(domain)).count(), "{policy}");
        assert!(lines[first..first + count].iter().all(of_domain), "{domain} stands together: {policy}");
        let above = lines[first - 1];
        assert!(above.starts_with('#') && above.contains(domain), "above the rules of {domain}: {above}\n{policy}");
    }
}

/// Each mark, and what was seen of a name that carries it.
fn marked() -> [(&'static str, Vec<Line>); 4] {
    let of = |name: &str| tls(&format!("{name}.example.com"), 443);
    [
        ("asked", vec![of("asked").denied("no_rule"), of("asked").denied("no_rule")]),
        ("failed", vec![of("failed").failed()]),
        ("unverified", vec![opaque("unverified.example.com", 443)]),
        ("address-class", vec![of("address-class").denied_at("private")]),
    ]
}

#[test]
fn what_nobody_can_vouch_for_is_left_out_with_its_mark_in_a_comment() {
    let lines: Vec<Line> = marked().into_iter().flat_map(|(_, lines)| lines).chain([tls("good.example.com", 443)]).collect();
    let output = learn(&journal(&lines), &[]);
    assert!(output.stderr.contains("from 6 events; left out 4 destinations"), "{}", output.stderr);
    let (rules, comments) = rules_and_comments(&output.stdout);
    assert_eq!(rules, ["- good.example.com"], "{}", output.stdout);
    let last_rule = output.stdout.find("good.example.com").expect("the rule");
    for (mark, _) in marked() {
        let host = format!("{mark}.example.com");
        let said = comments.iter().any(|line| line.contains(&host) && line.replacen(&host, "", 1).contains(mark));
        assert!(said, "{mark}: {}", output.stdout);
        assert!(output.stdout.rfind(&host) > Some(last_rule), "{mark} stands at the end: {}", output.stdout);
    }
}

#[test]
fn a_policy_from_which_everything_was_left_out_is_valid_and_denies_everything() {
    let seen = journal(&[tls("x.example.com", 443).failed(), tls("y.example.com", 443).failed()]);
    let output = learn(&seen, &[]);
    assert!(output.code == 0 && output.stderr.contains("learnt 0 rules from 2 events"), "{output:#?}");
    assert_eq!(rules_and_comments(&output.stdout).0, [""; 0], "{}", output.stdout);
    assert!(!admits(&output.stdout, "default", "x.example.com"), "{}", output.stdout);
}

#[test]
fn each_mark_can_be_taken_in_and_takes_in_no_other() {
    let all: String = marked().iter().map(|(_, lines)| journal(lines)).collect();
    for (mark, _) in marked() {
        let found = learnt_json(&all, &["--include", mark]);
        let names: Vec<String> = admitted(&found).into_iter().map(|(name, ..)| name).collect();
        assert_eq!(names, [format!("{mark}.example.com")], "{found:#}");
        let policy = learnt(&all, &["--include", mark]);
        assert!(admits(&policy, "default", &format!("{mark}.example.com")), "{policy}");
    }
    let several = learnt_json(&all, &["--include", "asked,failed"]);
    assert_eq!((admitted(&several).len(), several["left_out"].as_array().map(Vec::len)), (2, Some(2)), "{several:#}");
    assert_eq!(learn(&all, &["--include", "everything"]).code, 2, "an unknown mark is wrong usage");
}

#[test]
fn one_good_sighting_is_enough() {
    let seen = journal(&[
        tls("late.example.com", 443).failed(),
        tls("late.example.com", 443),
        tls("listed.example.com", 443).denied("no_rule"),
        tls("listed.example.com", 443).allowed(),
        opaque("shown.example.com", 8443),
        tls("shown.example.com", 8443),
    ]);
    let found = learnt_json(&seen, &[]);
    let names: Vec<String> = admitted(&found).into_iter().map(|(name, ..)| name).collect();
    assert_eq!(names, ["late.example.com", "listed.example.com", "shown.example.com"], "{found:#}");
    assert_eq!(found["left_out"], json!([]));
}

#[test]
fn a_server_name_that_differed_teaches_neither_name() {
    let lied = tls("front.example.com", 443).denied("sni_mismatch").with("sni", "hidden.example.com").with("stage", "confirm");
    let policy = learnt(&journal(&[lied, tls("good.example.com", 443)]), &[]);
    assert_eq!(rules_and_comments(&policy).0, ["- good.example.com"], "{policy}");
}

/// The names that are learnt from TLS connections to these, as `--wildcard-after` says.
fn after(count: &str, names: &[&str]) -> Vec<String> {
    let lines: Vec<Line> = names.iter().map(|name| tls(name, 443)).collect();
    let found = learnt_json(&journal(&lines), &["--wildcard-after", count]);
    holds(&learnt(&journal(&lines), &["--wildcard-after", count]), &journal(&lines));
    admitted(&found).into_iter().map(|(name, ..)| name).collect()
}

#[test]
fn enough_names_below_one_parent_become_a_wildcard() {
    let names = ["a.cdn.example.com", "b.cdn.example.com", "c.cdn.example.com"];
    assert_eq!(after("3", &names), ["*.cdn.example.com"]);
    assert_eq!(after("2", &names), ["*.cdn.example.com"]);
    assert_eq!(after("4", &names), names);
    let again = ["a.cdn.example.com", "a.cdn.example.com", "a.cdn.example.com", "b.cdn.example.com"];
    assert_eq!(after("3", &again), ["a.cdn.example.com", "b.cdn.example.com"], "the same name again is no other name");
    let quoted = learnt(&journal(&names.map(|name| tls(name, 443))), &["--wildcard-after", "3"]);
    assert!(quoted.contains("\"*.cdn.example.com\""), "{quoted}");
}

#[test]
fn a_wildcard_counts_direct_children_and_leaves_the_parent_itself_to_its_own_rule() {
    let names = ["a.example.com", "b.example.com", "example.com"];
    assert_eq!(after("2", &names), ["*.example.com", "example.com"]);
    assert_eq!(after("3", &names), names);
    let deep = ["a.one.example.com", "a.two.example.com", "b.example.com"];
    assert_eq!(after("2", &deep), deep, "grandchildren do not count");
}

#[test]
fn a_wildcard_needs_one_port_and_one_protocol() {
    let names = ["a.example.com", "b.example.com"];
    let ports = journal(&[tls(names[0], 443), tls(names[1], 8443)]);
    let protocols = journal(&[tls(names[0], 8443), http(names[1], 8443)]);
    for seen in [ports, protocols] {
        let found = learnt_json(&seen, &["--wildcard-after", "2"]);
        let learnt: Vec<String> = admitted(&found).into_iter().map(|(name, ..)| name).collect();
        assert_eq!(learnt, names, "{found:#}");
    }
}

#[test]
fn no_wildcard_stands_over_a_suffix_that_strangers_share() {
    for suffix in ["github.io", "co.uk", "s3.eu-west-1.amazonaws.com", "cloudfront.net", "com", "internal"] {
        let names = ["a", "b", "c"].map(|label| format!("{label}.{suffix}"));
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        assert_eq!(after("2", &names), names, "*.{suffix}");
    }
}

#[test]
fn literal_addresses_are_learnt_as_addresses() {
    let seen = journal(&[
        opaque("93.184.216.34", 8080).with("reason", "address_not_listed"),
        opaque("2606:2800:220:1::35", 443).with("reason", "address_not_listed").with("address", "[2606:2800:220:1::35]:443"),
        http("93.184.216.36", 80).with("reason", "address_not_listed").with("address", "93.184.216.36:80"),
    ]);
    let policy = learnt(&seen, &["--include", "unverified"]);
    holds(&policy, &seen);
    for (target, verdict) in [
        ("93.184.216.34:8080", true),
        ("[2606:2800:220:1::35]:443", true),
        ("93.184.216.36:80", true),
        ("93.184.216.34:443", false),
        ("93.184.216.35:8080", false),
    ] {
        assert_eq!(admits(&policy, "default", target), verdict, "{target}: {policy}");
    }
    let by_default = learnt(&(seen + &journal(&[tls("good.example.com", 443)])), &[]);
    for address in ["93.184.216.34", "2606:2800:220:1::35", "93.184.216.36"] {
        assert!(by_default.contains(address), "{address} is a rule, or said to be left out: {by_default}");
    }
}

#[test]
fn json_tells_rules_what_was_left_out_and_what_is_missing() {
    let lines = [tls("api.example.com", 443), tls("api.example.com", 443), tls("jobs.example.com", 8443).failed().by("worker")];
    let seen =
        journal(&lines) + "the app says hello\n{\"v\":2,\"event\":\"connection\"}\n{\"v\":1,\"event\":\"gap\",\"lost\":7}\n";
    let found = learnt_json(&seen, &[]);
    let expected = json!({
        "v": 1,
        "events": 3,
        "rules": [{ "to": "api.example.com", "ports": [443], "for": [], "as": null, "within": [], "events": 2 }],
        "left_out": [{ "host": "jobs.example.com", "port": 8443, "role": "worker", "mark": "failed", "events": 1 }],
        "skipped_lines": 1,
        "newer_lines": 1,
        "lost_events": 7,
    });
    for (field, value) in expected.as_object().expect("an object") {
        assert_eq!(&found[field], value, "{field}: {found:#}");
    }
}

#[test]
fn roles_that_no_base_knows_leave_no_trace_in_a_whole_policy() {
    let policy = learnt(&journal(&[tls("jobs.example.com", 443).by("worker")]), &[]);
    assert_eq!(rules_and_comments(&policy).0, ["- jobs.example.com"], "{policy}");
}
