use serde_json::json;

use super::*;

fn sighting(host: &str, verdict: Verdict) -> Sighting {
    Sighting {
        host: host.into(),
        port: 443,
        verdict,
        reason: None,
        rule: None,
        known_by: "connect",
        verified: true,
        failed: false,
        class: Some("global".into()),
        time: "2026-01-01T00:00:00.000Z".parse().unwrap(),
        bytes_up: 1,
        bytes_down: 2,
    }
}

#[test]
fn sightings_of_one_destination_are_added_up() {
    let mut discovery = Discovery::default();
    discovery.see(sighting("a.test", Verdict::Allow));
    discovery.see(Sighting { time: "2026-01-02T00:00:00.000Z".parse().unwrap(), ..sighting("a.test", Verdict::Deny) });
    discovery.see(Sighting { port: 80, ..sighting("a.test", Verdict::Allow) });
    let all: Vec<&Destination> = discovery.destinations().collect();
    assert_eq!((all.len(), all[1].connections, all[1].bytes_down), (2, 2, 4));
    assert_eq!((all[1].verdict, all[1].denied), (Verdict::Deny, 1), "the worst verdict is told");
    assert_eq!(all[1].marks(), ["some_denied"]);
    let seen = [all[1].first_seen, all[1].last_seen].map(String::from);
    assert_eq!(seen, ["2026-01-01T00:00:00.000Z", "2026-01-02T00:00:00.000Z"]);
}

#[test]
fn the_table_is_bounded_and_the_rest_is_counted() {
    let mut discovery = Discovery::default();
    for n in 0..MAX_DESTINATIONS + 7 {
        discovery.see(sighting(&format!("{n}.test"), Verdict::Deny));
    }
    assert_eq!((discovery.len(), discovery.other()), (MAX_DESTINATIONS, 7));
}

#[test]
fn o08_marks_say_what_a_name_is_worth() {
    let marks = |change: fn(&mut Sighting)| {
        let mut one = sighting("a.test", Verdict::Allow);
        change(&mut one);
        Destination::new(one).marks()
    };
    assert_eq!(marks(|_| {}), [""; 0]);
    assert_eq!(marks(|s| s.verdict = Verdict::Deny), ["denied"]);
    assert_eq!(marks(|s| s.verdict = Verdict::WouldDeny), ["would_deny"]);
    assert_eq!(marks(|s| s.verified = false), ["unverified"]);
    assert_eq!(marks(|s| (s.failed, s.verified) = (true, false)), ["failed"]);
}

#[test]
fn journal_lines_become_sightings() {
    let line = json!({ "event": "connection", "via": "connect", "decision": "allow", "host": "a.test", "port": 443, "sni": "a.test",
        "stage": "relay", "close": "client", "time": "2026-01-01T00:00:00.000Z", "bytes_up": 1, "bytes_down": 2, "class": "global" });
    assert_eq!(Sighting::of_event(&line), Some(sighting("a.test", Verdict::Allow)));
    let dns = json!({ "event": "connection", "via": "socks5", "decision": "allow", "host": "a.test", "port": 443, "stage": "resolve",
        "time": "2026-01-01T00:00:00Z" });
    assert!(Sighting::of_event(&dns).unwrap().failed);
    for other in [
        json!({}),
        json!({"event": "lifecycle"}),
        json!({"event": "connection", "via": "forward", "decision": "allow"}),
        json!([1]),
        json!({"event": "connection", "via": "connect", "decision": null}),
        json!({"event": "connection", "via": "tls", "decision": "allow", "host": "a.test", "port": 443, "time": "t"}),
    ] {
        assert_eq!(Sighting::of_event(&other), None, "{other}");
    }
}
