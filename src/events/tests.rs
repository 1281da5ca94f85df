use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use egret_inotify_fim::view::{Change, Difference as FileDifference};
use egret_inotify_fim::watch::{Certainty, Suspect};
use egret_policy::Reason;
use egret_proxy::{Close, Id, Process, Stage, Via};
use proptest::prelude::*;
use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::Value;

use super::files::{Changed, PathFields};
use super::*;
use crate::confinement::{Confine, Confinement, Layer};

#[test]
fn o01_text_from_the_network_stays_inside_its_string() {
    let forged = "a\"}\n{\"event\":\"connection\"\u{2028}\u{1b}[2J\u{7f}\u{202e}";
    let line = line("gap", SystemTime::UNIX_EPOCH, serde_json::json!({ "cause": forged }));
    assert!(line.is_ascii() && !line.chars().any(char::is_control), "{line}");
    let read: Value = serde_json::from_str(&line).unwrap();
    assert_eq!(read["cause"], forged);
    assert_eq!(read["event"], "gap");
    assert_eq!(read["time"], "1970-01-01T00:00:00.000Z");
}

/// An object's fields in their order, a name that stands twice twice.
struct Fields(Vec<(String, Value)>);

impl<'de> Deserialize<'de> for Fields {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct All;
        impl<'de> Visitor<'de> for All {
            type Value = Fields;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Fields, A::Error> {
                let mut fields = Vec::new();
                while let Some(field) = map.next_entry()? {
                    fields.push(field);
                }
                Ok(Fields(fields))
            }
        }
        deserializer.deserialize_map(All)
    }
}

/// A record whose every text is this one.
fn record(text: &str) -> Record {
    Record {
        id: Id::new(text.into(), 7),
        opened: SystemTime::UNIX_EPOCH,
        duration: Duration::ZERO,
        client: Some(SocketAddr::from(([127, 0, 0, 1], 1))),
        process: Some(process(text)),
        via: Some(Via::Connect),
        role: text.into(),
        target: Target::parse("a.test:1").ok(),
        sni: Some(text.into()),
        ech: false,
        rule: None,
        denial: Some(denial(text)),
        would_deny: None,
        address: None,
        refused: None,
        class: None,
        bytes_up: 0,
        bytes_down: 0,
        requests: 0,
        stage: Stage::Parse,
        close: Close::Denied,
        detail: Some(text.into()),
        policy: text.into(),
    }
}

fn process(text: &str) -> Process {
    Process { pid: 1, executable: Some(text.into()), uid: 0 }
}

fn denial(text: &str) -> Denial {
    Denial::new(Reason::NoRule, text, text)
}

fn request_record(text: &str) -> RequestRecord {
    let from = record(text);
    RequestRecord {
        id: from.id,
        role: from.role,
        method: text.into(),
        target: from.target,
        rule: None,
        denial: from.denial,
        would_deny: None,
        status: 403,
        fault: None,
        address: None,
        refused: None,
        class: None,
        bytes_up: 0,
        bytes_down: 0,
        policy: from.policy,
    }
}

fn name_record(text: &str) -> NameRecord {
    NameRecord {
        name: text.into(),
        kind: text.into(),
        role: text.into(),
        process: Some(process(text)),
        denial: denial(text),
        policy: text.into(),
    }
}

/// File events of a path of these octets, which another text may accompany.
fn file_events(path: &[u8], text: &str) -> [Event; 5] {
    use std::os::unix::ffi::OsStringExt as _;
    let exe = PathBuf::from(std::ffi::OsString::from_vec(path.to_vec()));
    let suspect = Suspect { pid: 1, exe: Some(exe), uid: 0, certainty: Certainty::Sole };
    let path: Arc<[u8]> = path.into();
    let moved =
        FileDifference { path: Arc::clone(&path), change: Change::Moved { from: Arc::clone(&path) }, old: None, new: None };
    let file = |changed| {
        Event::File(Box::new(files::File {
            seq: 1,
            changed,
            severity: "high",
            action: "alert",
            rule: text.into(),
            tags: vec![text.into()],
            expected: false,
            baseline: "start",
        }))
    };
    let fields = PathFields::from(&*path);
    [
        file(Changed::new(&moved)),
        file(Changed::transient(&path, &[suspect])),
        Event::Files(Box::new(files::Files {
            seq: 1,
            rule: text.into(),
            directory: fields.path,
            directory_raw: fields.path_raw,
            expected: false,
            severity: "high",
            action: "alert",
            tags: vec![text.into()],
            count: 1,
            names: [("created", vec![text.to_owned()])].into(),
            unnamed: [].into(),
            baseline: "start",
        })),
        Event::FileCoverage(Box::new(files::Coverage {
            seq: 1,
            section: "files",
            state: "uncovered",
            path: Some(PathFields::from(&*path)),
            why: Some(text.into()),
            facts: [("fact".to_owned(), Value::from(text))].into_iter().collect(),
        })),
        Event::FileGap(Box::new(files::Gap {
            seq: 1,
            section: "files",
            state: "open",
            cause: "overflow",
            start: text.into(),
            end: Some(text.into()),
            found: None,
            action: Some("alert"),
        })),
    ]
}

/// Every kind of event, with this text wherever a text can stand.
fn events(text: &str) -> Vec<Event> {
    let string = || text.to_owned();
    let rule = RuleLine { id: string(), effect: "allow", text: string(), line: 1 };
    let difference = Difference { added: vec![rule], added_count: 1, ..Difference::default() };
    vec![
        Event::Connection(Box::new(record(text))),
        Event::Request(Box::new(request_record(text))),
        Event::Policy(Box::new(Reload {
            result: "rejected",
            policy: string(),
            mode: string(),
            error: Some(string()),
            rules: 1,
            difference,
        })),
        Event::Coverage { section: "exec", why: string() },
        Event::Lifecycle(Box::new(Lifecycle {
            phase: "started",
            version: "0",
            pid: 1,
            listen: Vec::new(),
            admin: SocketAddr::from(([127, 0, 0, 1], 1)),
            mode: string(),
            policy: string(),
            why: Some(string()),
        })),
        Event::Child(Box::new(Child { phase: "started", command: string(), why: Some(string()), ..Child::default() })),
        Event::Confinement(Box::new(Confinement {
            confine: Confine::Auto,
            state: "none",
            why: string(),
            layers: vec![Layer { name: "landlock", level: string(), why: string() }],
        })),
        Event::Name(Box::new(name_record(text))),
        Event::Exec { decision: "deny", pid: 1, path: string(), policy: string() },
        Event::Gap { cause: "queue", lost: 1 },
    ]
}

/// Controls, ends of lines, and what turns the direction of text or hides it.
fn steers(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

fn assert_is_one_plain_object(event: &Event) -> Result<(), TestCaseError> {
    let line = event.line();
    prop_assert!(!line.chars().any(steers), "{}", line.escape_debug());
    let Fields(fields) = serde_json::from_str(&line).map_err(|error| TestCaseError::fail(format!("{error}: {line}")))?;
    let mut names: Vec<&str> = fields.iter().map(|(name, _)| name.as_str()).collect();
    prop_assert_eq!(&names[..3], ["v", "time", "event"], "{}", line);
    names.sort_unstable();
    let count = names.len();
    names.dedup();
    prop_assert_eq!(count, names.len(), "a field stands twice: {}", line);
    Ok(())
}

/// The kind of each event, as it must be whatever the text.
fn kinds(events: &[Event]) -> Vec<Value> {
    events.iter().map(|event| serde_json::from_str::<Value>(&event.line()).expect("JSON")["event"].clone()).collect()
}

/// Octets that like to break out, and any others.
fn octets() -> impl Strategy<Value = Vec<u8>> {
    let breaker = prop::sample::select(vec![
        &b"\"}\n{\"event\":\"connection\",\"decision\":\"allow\"}\n"[..],
        b"\\",
        b"\\u000a",
        b"\r\n",
        b"\0",
        b"\x1b[2J\x1b]0;x\x07",
        "\u{2028}\u{2029}\u{85}\u{202e}\u{2066}\u{feff}\u{200b}".as_bytes(),
        b"\xff\xfe\xc0\xaf\xed\xa0\x80",
        "\u{10ffff}\u{fffd}".as_bytes(),
    ]);
    let part = prop_oneof![breaker.prop_map(<[u8]>::to_vec), prop::collection::vec(any::<u8>(), 0..40)];
    prop::collection::vec(part, 0..6).prop_map(|parts| parts.concat())
}

proptest! {
    #[test]
    fn o50_no_text_in_any_field_of_any_event_forges_anything(octets in octets()) {
        let text = String::from_utf8_lossy(&octets);
        let plain = kinds(&events("plain"));
        let events = events(&text);
        prop_assert_eq!(kinds(&events), plain);
        for event in &events {
            assert_is_one_plain_object(event)?;
        }
        let record: Value = serde_json::from_str(&events[0].line()).expect("JSON");
        let id = format!("{text}-7");
        prop_assert_eq!(record["id"].as_str(), Some(&*id));
        for field in ["role", "sni", "exe", "detail", "policy"] {
            prop_assert_eq!(record[field].as_str(), Some(&*text), "{} is told as it was", field);
        }
        prop_assert_eq!(&record["decision"], "deny");
    }

    #[test]
    fn o51_no_path_of_any_octets_forges_anything(octets in octets()) {
        let text = String::from_utf8_lossy(&octets);
        for event in file_events(&octets, &text) {
            assert_is_one_plain_object(&event)?;
        }
    }
}
