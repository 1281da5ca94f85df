//! Differences between a manifest and something else, as text and as JSON. The words are those of the journal.

use std::collections::BTreeMap;
use std::path::Path;

use egret_inotify_fim::escape::{escape, hex};
use egret_inotify_fim::fingerprint::{Fingerprint, HashState, Kind, Xattr};
use egret_inotify_fim::scan::{Read, Uncovered};
use egret_inotify_fim::view::{Attribute, Change, Difference};
use serde::Serialize;
use serde_json::{Value, json};

use crate::cli::{Failure, Outcome, Output};
use crate::commands::print;
use crate::events;
use crate::events::files::{Changed, PathFields};
use crate::files::trusted::Trusted;
use crate::files::words;
use crate::replay::counted;

/// Digits of a hash that people are shown.
const SHORT: usize = 12;

/// What a comparison found.
pub(super) struct Told<'a> {
    pub(super) manifest: &'a Path,
    pub(super) trusted: &'a Trusted,
    /// Each with whether it was approved.
    pub(super) differences: Vec<(Difference, bool)>,
    /// What could not be looked at.
    pub(super) uncovered: BTreeMap<Vec<u8>, Uncovered>,
    /// What content was read.
    pub(super) read: Read,
}

impl Told<'_> {
    /// Exit 0 if there is nothing to tell but what was approved, else 1.
    pub(super) fn print(&self, output: Output) -> Outcome {
        match output {
            Output::Text => print(&self.text())?,
            Output::Json => print(&format!("{}\n", events::escape(self.json().to_string())))?,
        }
        if self.is_equal() { Ok(()) } else { Err(Failure::Negative) }
    }

    fn is_equal(&self) -> bool {
        self.uncovered.is_empty() && self.differences.iter().all(|(_, expected)| *expected)
    }

    fn text(&self) -> String {
        let mut out: String = self.differences.iter().map(|(difference, expected)| line(difference, *expected)).collect();
        for (path, why) in &self.uncovered {
            out.push_str(&format!("not seen    {}: {}\n", escape(path), uncovered(*why)));
        }
        let expected = self.differences.iter().filter(|(_, expected)| *expected).count();
        let found = self.differences.len() - expected;
        let verdict = match (self.is_equal(), expected) {
            (true, 0) => "equal".to_owned(),
            (true, _) => format!("as expected ({})", counted(expected as u64, "approved change")),
            (false, _) => {
                let (found, unseen) = (counted(found as u64, "difference"), counted(self.uncovered.len() as u64, "path"));
                format!("not equal ({found}, {expected} approved, {unseen} not seen)")
            }
        };
        let paths = counted(self.trusted.view.entries.len() as u64, "path");
        let signed = if self.trusted.signed { "signed" } else { "not verified by a signature" };
        let read = match self.read {
            Read::All => "",
            Read::Changed => ", read what the kernel's times do not prove",
            Read::Nothing => ", no content read",
        };
        format!("{out}{}: {verdict}; {paths}, {signed}{read}\n", self.manifest.display())
    }

    fn json(&self) -> Value {
        let mut counts: BTreeMap<&str, u64> = BTreeMap::new();
        for (difference, _) in &self.differences {
            *counts.entry(words::change(&difference.change)).or_default() += 1;
        }
        let uncovered = self.uncovered.iter().map(|(path, why)| {
            let PathFields { path, path_raw } = path.as_slice().into();
            json!({ "path": path, "path_raw": path_raw, "why": uncovered(*why) })
        });
        let found = self
            .differences
            .iter()
            .map(|(difference, expected)| Found { changed: Changed::new(difference), expected: *expected });
        let found: Vec<Found> = found.collect();
        json!({
            "v": 1,
            "manifest": self.manifest.to_string_lossy(),
            "manifest_sha256": self.trusted.id,
            "signed": self.trusted.signed,
            "paths": self.trusted.view.entries.len(),
            "read": match self.read {
                Read::All => "all",
                Read::Changed => "changed",
                Read::Nothing => "nothing",
            },
            "equal": self.is_equal(),
            "counts": counts,
            "differences": found,
            "uncovered": uncovered.collect::<Vec<_>>(),
        })
    }
}

/// Why something was not looked at.
pub(super) fn uncovered(why: Uncovered) -> String {
    match why {
        Uncovered::Unreadable(error) => state(HashState::Unreadable(error)),
        Uncovered::OtherFileSystem => "another file system is mounted there".to_owned(),
        Uncovered::Kernel => "it holds the kernel's state, not files".to_owned(),
        Uncovered::Excluded => "it is left out".to_owned(),
        Uncovered::TooMany => "there are too many files".to_owned(),
        Uncovered::NoWatch | Uncovered::NoEvents | Uncovered::Remote => "it is not watched".to_owned(),
    }
}

/// A state of content, for people.
pub(super) fn state(state: HashState) -> String {
    match state {
        HashState::Done(hash) => format!("sha256 {}", &hex(&hash)[..SHORT]),
        HashState::TooLarge => "too large to read".to_owned(),
        HashState::Unstable => "it changed while it was read".to_owned(),
        HashState::Unreadable(_) => {
            let error = state.error().map_or_else(String::new, |error| error.to_string());
            format!("cannot be read: {}", error.split(" (os error").next().unwrap_or_default())
        }
        HashState::NotRead => "not read".to_owned(),
        HashState::NotRegular => "no content".to_owned(),
    }
}

fn line(difference: &Difference, expected: bool) -> String {
    let path = escape(&difference.path);
    let from = match &difference.change {
        Change::Moved { from } => Some(format!("from {}", escape(from))),
        _ => None,
    };
    let what = match (&difference.old, &difference.new) {
        (Some(old), Some(new)) => {
            let attributes = difference.attributes();
            let values = attributes.iter().map(|attribute| step(*attribute, old, new));
            from.into_iter().chain(values).collect::<Vec<_>>().join(", ")
        }
        (Some(only), None) | (None, Some(only)) => whole(only),
        (None, None) => String::new(),
    };
    let approved = if expected { " (approved)" } else { "" };
    format!("{:<11} {path}: {what}{approved}\n", words::change(&difference.change))
}

/// All that is worth a word of a file that came or went.
fn whole(print: &Fingerprint) -> String {
    let Fingerprint { kind, mode, uid, gid, .. } = print;
    let mut words = vec![format!("{kind} {mode:04o} {uid}:{gid}")];
    if *kind == Kind::File {
        words.push(format!("size {}", print.size));
        words.push(state(print.hash));
    }
    words.extend(print.target.as_deref().map(|target| format!("to {}", escape(target))));
    words.extend(print.xattrs.iter().map(|(which, value)| format!("{} {}", which.name(), hex(value))));
    words.join(", ")
}

/// What an attribute was, and is.
fn step(attribute: Attribute, old: &Fingerprint, new: &Fingerprint) -> String {
    let name = words::attribute(attribute);
    match attribute {
        Attribute::Xattrs => xattr_steps(old, new),
        Attribute::Hash | Attribute::HashState => format!("{} → {}", state(known_hash(old)), state(new.hash)),
        _ => format!("{name} {} → {}", value(attribute, old), value(attribute, new)),
    }
}

fn xattr_steps(old: &Fingerprint, new: &Fingerprint) -> String {
    let of = |print: &Fingerprint, which: Xattr| {
        print.xattrs.iter().find(|(name, _)| *name == which).map_or_else(|| "none".to_owned(), |(_, value)| hex(value))
    };
    let steps = Xattr::ALL.into_iter().map(|which| (which.name(), of(old, which), of(new, which)));
    let differing = steps.filter(|(_, old, new)| old != new).map(|(name, old, new)| format!("{name} {old} → {new}"));
    differing.collect::<Vec<_>>().join(", ")
}

fn known_hash(print: &Fingerprint) -> HashState {
    print.last.as_deref().map_or(print.hash, |last| HashState::Done(*last))
}

fn value(attribute: Attribute, print: &Fingerprint) -> String {
    match attribute {
        Attribute::Kind => print.kind.to_string(),
        Attribute::LeadsTo => print.leads_to.as_ref().map_or_else(|| "nothing".to_owned(), |end| state(end.hash)),
        _ => words::value(attribute, print).filter(|value| !value.is_empty()).unwrap_or_else(|| "none".to_owned()),
    }
}

/// One difference, as the journal would tell it.
#[derive(Serialize)]
struct Found {
    #[serde(flatten)]
    changed: Changed,
    expected: bool,
}
