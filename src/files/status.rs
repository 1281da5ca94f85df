//! What is watched and what is not: as JSON for /status, and as text for `egret files status`.

use egret_inotify_fim::ledger::{Ledger, Mount, Polled, Proof, Unverified};
use egret_inotify_fim::watch::Source;
use serde_json::{Value, json};

use super::teller::{Teller, uncovered};
use crate::events::files::{PathFields, source_word};
use crate::events::rfc3339;
use crate::replay::counted;

/// Paths that are not covered, and are named.
const NAMED: usize = 100;

/// Everything that a report of coverage needs.
pub(super) fn json(ledger: &Ledger, teller: &Teller, dead: bool) -> Value {
    let roots = ledger.roots.iter().map(|root| {
        let path_octets = root.path.as_slice();
        let PathFields { path, path_raw } = path_octets.into();
        let baseline = teller.baseline_of(path_octets);
        let mut root = json!({ "path": path, "path_raw": path_raw, "baseline": baseline, "present": root.present, "entries": root.entries,
                               "policy": null });
        if let Some(tree) = teller.tree(path_octets) {
            root["policy"] = teller.facts(tree);
        }
        root
    });
    let compared = ledger.compared.iter().map(|(source, time)| (source_word(*source).to_owned(), json!(rfc3339(*time))));
    let named = ledger.uncovered.iter().take(NAMED).map(|(path, why)| {
        let PathFields { path, path_raw } = path.as_slice().into();
        json!({ "path": path, "path_raw": path_raw, "why": uncovered(*why) })
    });
    let state = match ledger.gap_since {
        _ if dead => "ended",
        Some(_) => "degraded",
        None if ledger.compared.contains_key(&Source::Start) => "watching",
        None => "starting",
    };
    json!({
        "state": state,
        "baseline": teller.baseline,
        "unseen": teller.unseen.as_str(),
        "roots": roots.collect::<Vec<_>>(),
        "entries": ledger.entries,
        "inotify": ledger.inotify,
        "watched": ledger.watched,
        "budget": ledger.budget,
        "polled": ledger.polled,
        "excluded": ledger.excluded,
        "excluded_transients": ledger.excluded_transients,
        "reasons": ledger.reasons,
        "uncovered": named.collect::<Vec<_>>(),
        "mounts": ledger.mounts.iter().map(mount).collect::<Vec<_>>(),
        "compared": compared.collect::<serde_json::Map<_, _>>(),
        "gaps": ledger.gaps,
        "gap_since": ledger.gap_since.map(rfc3339),
        "overflows": ledger.overflows,
        "clock_jumps": ledger.clock_jumps,
        "repaired": ledger.repaired,
        "high_water": ledger.high_water,
        "hot": ledger.hot,
        "unread": ledger.unread,
        "reading": ledger.reading.map(|reading| json!({ "since": rfc3339(reading.since), "octets": reading.octets, "of": reading.of })),
        "looking_since": ledger.looking_since.map(rfc3339),
        "collapsed": ledger.collapsed,
        "hidden_processes": ledger.hidden_processes,
        "changes": teller.carried.changes,
        "last_change": teller.carried.last_change.map(rfc3339),
        "seq": teller.carried.seq,
    })
}

fn mount(mount: &Mount) -> Value {
    let PathFields { path, path_raw } = mount.path.as_slice().into();
    let (proof, why) = match mount.proof {
        Proof::Proven => ("proven", None),
        Proof::Unverified(why) => ("unverified", Some(unverified(why))),
        Proof::Polled(Polled::NoEvents) => ("polled", Some("no event came from there")),
        Proof::Polled(Polled::Remote) => ("polled", Some("others may change it without an event")),
    };
    json!({ "path": path, "path_raw": path_raw, "fs": mount.fs, "proof": proof, "why": why })
}

fn unverified(why: Unverified) -> &'static str {
    match why {
        Unverified::Pending => "not tried yet",
        Unverified::ReadOnly => "read-only",
        Unverified::NotWritable => "no directory can be made there",
        Unverified::SingleFile => "a single file: no directory can be made there",
        Unverified::Unwatched => "nothing there is watched",
    }
}

/// The same for people, from the JSON of a running egret.
pub(crate) fn text(status: &Value) -> String {
    let word = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let of = |key: &str, what: &str| counted(status[key].as_u64().unwrap_or_default(), what);
    let mut text = format!("{}, baseline {}\n", word(&status["state"]), word(&status["baseline"]));
    text.push_str(&format!(
        "{} known; {} of {} watches in use; {} polled; {} left out by name\n",
        of("entries", "path"),
        status["watched"],
        status["budget"],
        of("polled", "tree"),
        of("excluded", "file")
    ));
    if status["inotify"] == false {
        text.push_str("no inotify instance: everything is compared on schedule only\n");
    }
    for root in items(&status["roots"]) {
        let absent = if root["present"] == false { ", not there" } else { "" };
        text.push_str(&format!(
            "path   {}  {}, baseline {}{absent}\n",
            shown(root),
            counted(root["entries"].as_u64().unwrap_or_default(), "path"),
            word(&root["baseline"])
        ));
    }
    for mount in items(&status["mounts"]) {
        let why = mount["why"].as_str().map(|why| format!(": {why}")).unwrap_or_default();
        text.push_str(&format!("mount  {}  {}, {}{why}\n", shown(mount), word(&mount["fs"]), word(&mount["proof"])));
    }
    for path in items(&status["uncovered"]) {
        text.push_str(&format!("not covered  {}  {}\n", shown(path), word(&path["why"])));
    }
    let named = items(&status["uncovered"]).len() as u64;
    let all: u64 = status["reasons"].as_object().into_iter().flat_map(|reasons| reasons.values()).filter_map(Value::as_u64).sum();
    if all > named {
        text.push_str(&format!("not covered  {} more\n", all - named));
    }
    for (source, time) in status["compared"].as_object().into_iter().flatten() {
        text.push_str(&format!("compared  {}  {source}\n", word(time)));
    }
    if let Some(since) = status["reading"]["since"].as_str() {
        text.push_str(&format!(
            "reading   {since}  {} of {} octets so far\n",
            status["reading"]["octets"], status["reading"]["of"]
        ));
    }
    let since = status["gap_since"].as_str().map(|since| format!(", one open since {since}")).unwrap_or_default();
    text.push_str(&format!(
        "gaps {}{since}; overflows {}; clock jumps {}\n",
        status["gaps"], status["overflows"], status["clock_jumps"]
    ));
    let changes = status["changes"].as_object().into_iter().flatten().map(|(change, count)| format!("{change} {count}"));
    let changes = changes.collect::<Vec<_>>().join(", ");
    text.push_str(&format!("changes  {}\n", if changes.is_empty() { "none" } else { &changes }));
    text
}

fn items(value: &Value) -> &[Value] {
    value.as_array().map(Vec::as_slice).unwrap_or_default()
}

/// A path, its controls escaped.
fn shown(value: &Value) -> String {
    value["path"].as_str().unwrap_or_default().escape_debug().to_string()
}
