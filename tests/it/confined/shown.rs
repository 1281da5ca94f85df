//! What the app shows first: one address may have several names, and the SNI or the Host field says which is meant.

use serde_json::{Value, json};

use super::{POLICY, app, begun, python_words, run};
use crate::support::Outside;
use crate::support::outside::names;

#[test]
fn the_sni_chooses_between_the_names_of_an_address() {
    let script = r#"
print(addresses("good.test"), addresses("other.test"))
for sni in ("good.test", "other.test"): print(sni, "|", tls(GOOD, sni))
"#;
    let Some(scene) = run(POLICY, script) else { return };
    for (host, rule) in [("good.test", "good"), ("other.test", "other")] {
        scene.said(&format!("{host} | hello from 44.0.0.7:443 as {host}"));
        let record = scene.record(host, 443);
        assert_eq!((&record["sni"], &record["rule"]), (&host.into(), &rule.into()), "{record:#}");
        assert_eq!(scene.outside.event("ended", |ended| ended["sni"] == host)["at"], "44.0.0.7:443");
    }
    scene.outside.only(&["44.0.0.7:443", "44.0.0.7:443"], &["good.test", "other.test"]);
}

#[test]
fn the_host_field_chooses_likewise() {
    let policy = "egress:\n  allow: [{ id: a, to: 'good.test:80' }, { id: b, to: 'other.test:80' }]\n";
    let script = r#"
print(addresses("good.test"), addresses("other.test"))
for host in ("good.test", "other.test", "third.test"): print(host, "|", request(connected(GOOD, 80), host).splitlines()[0])
"#;
    let Some(scene) = run(policy, script) else { return };
    scene.said("good.test | hello from 44.0.0.7:80 as good.test").said("other.test | hello from 44.0.0.7:80 as other.test");
    scene.said("third.test | egret: a request for third.test:80 inside the connection to other.test:80 is refused");
    let records = begun(&scene.egret, 3);
    let told = |record: &Value| ["host", "rule", "decision"].map(|field| record[field].as_str().unwrap_or("-").to_owned());
    assert_eq!(told(&records[0]), ["good.test", "a", "allow"]);
    assert_eq!(told(&records[1]), ["other.test", "b", "allow"]);
    assert_eq!((records[2]["decision"].as_str(), records[2]["reason"].as_str()), (Some("deny"), Some("host_mismatch")));
    let heard: Vec<Value> = scene.outside.events("ended");
    assert!(heard.iter().all(|ended| !ended["said"].as_str().unwrap_or_default().contains("third.test")), "{heard:#?}");
}

#[test]
fn an_sni_that_is_not_allowed_reaches_nobody() {
    let script = r#"
print(addresses("good.test"))
print("third", tls(GOOD, "third.test"))
s = connected(GOOD, 443); print("opaque", repr(request(s, "good.test")))
"#;
    let Some(scene) = run(POLICY, script) else { return };
    scene.said("third TLSV1_ALERT_ACCESS_DENIED").said("opaque ''");
    let records = begun(&scene.egret, 2);
    assert_eq!((&records[0]["reason"], &records[0]["sni"]), (&"sni_mismatch".into(), &"third.test".into()), "{records:#?}");
    assert_eq!(records[1]["decision"], "deny", "{records:#?}");
    // egret dialled, as the name was allowed; nothing of the app's went there.
    for ended in scene.outside.events("ended") {
        assert_eq!(ended["bytes"], 0, "{ended:#}");
    }
    assert!(records.iter().all(|record| record["bytes_up"] == 0), "{records:#?}");
}

/// Who knows an address from elsewhere is judged by the name that it shows, which egret resolves.
#[test]
fn a_literal_address_with_an_sni() {
    let Some(outside) = Outside::new() else { return };
    let mut zone = names();
    zone["good.test"] = json!({ "A": [["44.0.0.7", "44.0.0.10"]] });
    outside.set_names(&zone);
    let script = r#"
for address, sni in ((GOOD, "good.test"), ("44.0.0.10", "good.test"), (EVIL, "good.test"), (EVIL, "evil.test"), (GOOD, "third.test")):
    print(address, sni, tls(address, sni))
s = connected(EVIL, 443); print("opaque", repr(request(s, "good.test")))
"#;
    let egret = app(&outside, outside.egret(POLICY), &python_words(script)).start();
    assert_eq!(egret.wait_exit().code(), Some(0), "{}", egret.stderr());
    let said = egret.stderr();
    assert!(said.contains("44.0.0.7 good.test hello from 44.0.0.7:443 as good.test\n"), "{said}");
    assert!(said.contains("44.0.0.10 good.test hello from 44.0.0.10:443 as good.test\n"), "{said}");
    assert!(said.matches("TLSV1_ALERT_ACCESS_DENIED").count() == 3 && said.contains("opaque ''"), "{said}");
    let reasons: Vec<Value> = begun(&egret, 6).iter().map(|record| record["reason"].clone()).collect();
    let expected = json!([null, null, "address_not_of_name", "no_rule", "no_rule", "address_not_listed"]);
    assert_eq!(Value::from(reasons), expected);
    outside.only(&["44.0.0.7:443", "44.0.0.10:443"], &["good.test"]);
}
