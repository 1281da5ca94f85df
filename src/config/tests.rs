use super::*;

fn load_yaml(yaml: &str) -> Result<Config, Diagnostics> {
    load(&Text { origin: "policy.yaml".into(), yaml: yaml.into() }, None)
}

/// What is wrong with a policy: line, column, message and help of each diagnostic.
fn wrong(yaml: &str) -> Vec<String> {
    let show = |d: &Diagnostic| format!("{}:{} {} [{}]", d.line, d.column, d.message, d.help.as_deref().unwrap_or(""));
    load_yaml(yaml).expect_err("this policy is wrong").all.iter().map(show).collect()
}

#[track_caller]
fn says(yaml: &str, place: &str, words: &[&str]) {
    let found = wrong(yaml);
    assert!(found[0].starts_with(place), "{found:?}");
    for word in words {
        assert!(found[0].contains(word), "{word}: {found:?}");
    }
}

#[test]
fn the_whole_language_is_read() {
    let config = load_yaml(
        "version: 1\nmode: audit\nsets:\n  pay: [api.stripe.test, \"*.adyen.test:8443\"]\n  nets: [10.20.0.0/16, \"fd00:20::/48\"]\n\
         roles:\n  web: { port: 3130 }\n  worker: { proxy-user: worker }\n\
         egress:\n  mode: enforce\n  allow:\n    - logs.test\n    - to: $pay\n      for: [web]\n      as: tls\n      note: n\n\
         \x20   - { to: $nets, ports: [5432, 6379-6381], as: tcp }\n    - { to: db.test:5432, within: [10.0.0.1], expires: 2027-03-31, mode: audit, id: db }\n\
         \x20   - s3: { buckets: [acme, \"logs-*\"], regions: [eu-west-1] }\n  deny:\n    - \"*.bad.test\"\n\
         dns: { upstream: \"127.0.0.1:5353\", private-answers: deny }\nrun: { listen: [\"127.0.0.1:3128\"], drain: 3 }\n\
         tests:\n  - { role: web, connect: \"api.stripe.test:443\", expect: allow }\n",
    )
    .unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(config.draft.mode, Mode::Enforce, "the section is nearer than the file");
    assert_eq!(config.draft.rules().len(), 6);
    assert_eq!(config.role_ports, [3130]);
    assert_eq!(config.dns, DnsServer::Plain("127.0.0.1:5353".parse().unwrap()));
    assert_eq!(config.draft.rules()[1].to_string(), "api.stripe.test (443), *.adyen.test (8443)");
    assert_eq!(config.draft.rules()[3].expires(), Some(UnixTime(1_806_451_200)));
    let policy = std::sync::Arc::new(Policy::new(config.draft, egret_policy::Surroundings::default()));
    assert!(config.tests[0].run(&policy, UnixTime(0)).is_ok());
}

#[test]
fn json_is_a_policy_too() {
    assert_eq!(
        load_yaml(r#"{"version": 1, "egress": {"allow": ["a.test", {"to": "b.test", "ports": [80]}]}}"#)
            .unwrap()
            .draft
            .rules()
            .len(),
        2
    );
}

#[test]
fn c02_mistakes_of_shape_are_shown_where_they_stand() {
    says("version: 1\negress:\n  allow:\n    - { to: a.test, prots: [1] }\n", "4:21", &["prots", "did you mean `ports`?"]);
    says("version: 1\nmode: adit\n", "2:7", &["adit", "audit or enforce"]);
    says("version: one\n", "1:10", &["version: 1"]);
    says("version: 1\nversion: 1\n", "2:1", &["twice", "keep one"]);
    says("version: 1\negress:\n\tallow: []\n", "3:", &["spaces"]);
    says("egress: {}\n", "1:1", &["version: 1"]);
    says("", "1:1", &["version: 1"]);
    says("version: 2\n", "1:10", &["not known"]);
    says("version: 1\negress: { allow: a.test }\n", "2:18", &["wants a list", "this is a text"]);
    says("version: 1\nrun: { drain: -1 }\n", "2:15", &["from 0 to 86400"]);
    says("version: 1\negress: { allow: [10.1.2.3/8] }\n", "2:19", &["write 10.0.0.0/8"]);
}

#[test]
fn a_mistake_of_shape_hides_no_other() {
    let found = wrong("version: 1\nmod: x\negress: { allow: [.a.test, { too: b }], deny: 7 }\nrun: [1]\n");
    let lines: Vec<&str> = found.iter().map(|text| text.split_once(' ').unwrap().0).collect();
    assert_eq!(lines, ["2:1", "3:19", "3:28", "3:30", "3:47", "4:6"], "{found:#?}");
}

#[test]
fn scalars_stay_as_they_were_written() {
    let config = load_yaml("version: 1\negress: { allow: [a.1e5x, { to: b.test, ports: [080, 1-2], note: 12 }] }\n")
        .unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(config.draft.rules()[1].to_string(), "b.test (80, 1-2)");
    assert_eq!(config.draft.rules()[1].note(), Some("12"));
}

#[test]
fn every_preset_is_valid_and_takes_part() {
    for preset in presets::ALL {
        let config = load_yaml(&format!("version: 1\npresets: [{}]\n", preset.name)).unwrap_or_else(|error| panic!("{error}"));
        let own = config.draft.rules().iter().all(|rule| rule.id().as_str().starts_with(preset.name) && rule.line() == 0);
        assert!(own && (!config.direct.is_empty() || !config.draft.rules().is_empty()), "{}", preset.name);
        let warned: Vec<_> = config.lints(UnixTime(0), true).into_iter().filter(|lint| lint.code != Code::NoRules).collect();
        assert_eq!(warned, [], "{}", preset.name);
    }
}

#[test]
fn audit_until_belongs_to_the_mode_beside_it() {
    let until = |yaml: &str, flag| load(&Text { origin: "p".into(), yaml: yaml.into() }, flag).unwrap().draft.audit_until;
    let file = "version: 1\nmode: audit\naudit-until: 2027-01-01\n";
    assert_eq!(until(file, None), Some(UnixTime(1_798_761_600)));
    assert_eq!(until(file, Some(Mode::Audit)), None, "whoever says --mode audit says no end");
    assert_eq!(until(&format!("{file}egress: {{ mode: enforce }}\n"), None), None);
    says("version: 1\naudit-until: 2027-01-01\n", "2:14", &["mode: audit"]);
    says("version: 1\nmode: audit\negress: { audit-until: 2027-01-01 }\n", "3:24", &["mode: audit"]);
}

#[test]
fn an_end_is_warned_of_two_weeks_before() {
    let codes = |now: i64| {
        let yaml = "version: 1\negress: { allow: [{ to: a.test, expires: 2027-01-01 }] }\n";
        load_yaml(yaml).unwrap().lints(UnixTime(now), true).iter().map(|lint| lint.code).collect::<Vec<_>>()
    };
    let end = 1_798_761_600;
    assert_eq!(codes(end - 15 * 86_400), []);
    assert_eq!(codes(end - 14 * 86_400), [Code::Expiring]);
    assert_eq!(codes(end - 1), [Code::Expiring]);
    assert_eq!(codes(end), [Code::Expired]);
}

#[test]
fn a_role_by_executable_is_warned_of_where_nothing_can_be_seen() {
    let yaml = "version: 1\nroles: { m: { exe: /bin/m } }\negress: { allow: [{ to: a.test, for: [m] }] }\n";
    let config = load_yaml(yaml).unwrap();
    assert_eq!(config.lints(UnixTime(0), true), []);
    assert_eq!(config.lints(UnixTime(0), false)[0].code, Code::ExeNotVisible);
}

#[test]
fn a_flow_around_that_ends_something_is_warned_of_where_nothing_is_direct() {
    let lints =
        |more: &str| load_yaml(&format!("version: 1\negress: {{ allow: [a.test] }}\n{more}\n")).unwrap().lints(UnixTime(0), true);
    for (around, end) in [("stop", "ends egret"), ("unhealthy", "ends readiness")] {
        let [lint] = &lints(&format!("around: {around}"))[..] else { panic!("one lint") };
        assert_eq!((lint.code, lint.line, lint.message.ends_with(end)), (Code::AroundWithoutDirect, 3, true), "{}", lint.message);
    }
    assert_eq!(lints("around: stop\npresets: [github]").len(), 1, "what GitHub needs is reached through the proxy");
    for thought_of in ["around: alert", "around: stop\ndirect: []", "around: stop\ndirect: [10.0.0.9]"] {
        assert_eq!(lints(thought_of), [], "{thought_of}");
    }
    for preset in ["aws-ecs-task", "aws-eks-pod"] {
        assert_eq!(lints(&format!("around: stop\npresets: [{preset}]")), [], "{preset}");
    }
}

#[test]
fn unquoted_wildcards_are_told_to_be_quoted() {
    says(
        "version: 1\negress:\n  allow:\n    - *.example.com\n",
        "4:7",
        &["an alias to YAML", "quote names that begin with a star: \"*.example.com\""],
    );
}

#[test]
fn anchors_aliases_and_deep_nesting_are_refused() {
    assert!(!wrong("version: 1\nsets: { a: &x [a.test], b: *x }\n").is_empty());
    assert!(!wrong(&format!("version: 1\nsets: {}\n", "[".repeat(200))).is_empty());
}

#[test]
fn mistakes_of_meaning_are_all_told_in_one_pass() {
    let found = wrong(
        "version: 1\negress:\n  allow:\n    - https://a.test/x\n    - .b.test\n    - c.test:99999\n    - $none\n    - \"*.com\"\n\
         \x20   - { to: d.test, for: [nobody] }\n    - { to: e.test, expires: 2027-02-31 }\n    - { to: f.test:1, ports: [2] }\n\
         \x20   - { to: g.test, ports: [\"0\"] }\n    - { to: h.test, within: [10.0.0.1/8] }\n    - {}\n    - { to: i.test, id: x }\n    - { to: j.test, id: x }\n\
         dns: { upstream: nowhere }\n",
    );
    let expected = [
        (4, "write a.test"),
        (5, "*.b.test"),
        (6, "99999"),
        (7, "no set named none"),
        (8, "wide: true"),
        (9, "no role named nobody"),
        (10, "no date"),
        (11, "written twice"),
        (12, "no port"),
        (13, "address inside its network"),
        (14, "`to:` or `s3:`"),
        (16, "is taken"),
        (17, "no DNS server"),
    ];
    assert_eq!(found.len(), expected.len(), "{found:#?}");
    for ((line, words), text) in expected.iter().zip(&found) {
        assert!(text.starts_with(&format!("{line}:")) && text.contains(words), "{line} {words}: {text}");
    }
}

#[test]
fn a_list_that_narrows_must_not_be_empty() {
    for list in [
        "to: a.test, for: []",
        "to: a.test, within: []",
        "s3: { buckets: [b], regions: [] }",
        "s3: { buckets: [] }",
        "to: a.test, ports: []",
    ] {
        let empty = format!("2:{}", 21 + list.find("[]").unwrap());
        says(&format!("version: 1\negress: {{ allow: [{{ {list} }}] }}\n"), &empty, &["is empty"]);
    }
}

#[test]
fn sets_and_users_must_mean_something() {
    says("version: 1\nsets: { none: [] }\negress: { allow: [$none] }\n", "2:9", &["set none is empty"]);
    says("version: 1\nroles: { a: { proxy-user: x }, b: { proxy-user: x } }\n", "2:49", &["of its own"]);
}

#[test]
fn a_diagnostic_shows_line_column_caret_and_help() {
    let error = load_yaml("version: 1\negress:\n  allow:\n    # ü\n    - https://a.test/x\n").unwrap_err().to_string();
    assert_eq!(
        error,
        "error[bad-value]: \"https://a.test/x\" is no host: a rule names a host, not a URL: write a.test\n\
         \x20--> policy.yaml:5:7\n\
         \x20 |\n\
         5 |     - https://a.test/x\n\
         \x20 |       ^^^^^^^^^^^^^^^^\n\
         \x20 |\n\
         \x20 = help: write api.example.com, \"*.example.com\" or 10.0.0.0/8"
    );
}

#[test]
fn wide_wildcards_pass_when_said_to_be_wide() {
    assert!(load_yaml("version: 1\negress: { allow: [{ to: \"*.com\", wide: true }] }\n").is_ok());
}

#[test]
fn a_failing_test_of_the_file_says_what_the_policy_says() {
    let config = load_yaml("version: 1\ntests:\n  - { connect: \"169.254.169.254:80\", expect: allow }\n").unwrap();
    let policy = std::sync::Arc::new(Policy::new(config.draft, egret_policy::Surroundings::default()));
    let diagnostic = config.tests[0].run(&policy, UnixTime(0)).unwrap_err();
    assert_eq!(diagnostic.line, 3);
    assert!(diagnostic.message.contains("says deny"), "{diagnostic:?}");
}

#[test]
fn the_hash_follows_text_and_mode() {
    let text = Text { origin: "x".into(), yaml: "version: 1\n".into() };
    let of = |mode| load(&text, mode).unwrap().draft.hash;
    assert_eq!(of(None), of(Some(Mode::Enforce)));
    assert_ne!(of(None), of(Some(Mode::Audit)));
    assert_eq!(of(None).len(), 12);
}

#[test]
fn the_schema_has_the_keys_and_words_of_the_reader_and_no_others() {
    let schema: serde_json::Value = serde_json::from_str(include_str!("../../docs/policy.schema.json")).unwrap();
    let keys = |place: &str| {
        let properties = schema.pointer(place).and_then(|node| node.as_object()).unwrap_or_else(|| panic!("no {place}"));
        properties.keys().cloned().collect::<std::collections::BTreeSet<String>>()
    };
    for (place, known) in [
        ("/properties", FILE),
        ("/properties/egress/properties", EGRESS),
        ("/properties/dns/properties", settings::DNS),
        ("/properties/run/properties", settings::RUN),
        ("/properties/files/properties", files::FILES),
        ("/properties/exec/properties", sections::EXEC),
        ("/$defs/longRule/properties", rules::RULE),
        ("/$defs/s3/properties", rules::S3),
        ("/$defs/role/properties", roles::ROLE),
        ("/$defs/watch/properties", files::WATCH),
        ("/$defs/test/properties", TEST),
    ] {
        assert_eq!(keys(place), known.iter().map(|key| (*key).to_owned()).collect(), "{place}");
    }
    let text = schema.to_string();
    for preset in presets::ALL {
        assert!(text.contains(&format!("\"{}\"", preset.name)), "the schema lacks the preset {}", preset.name);
    }
}
