//! What the file watch tells, as fields.

use std::collections::BTreeMap;
use std::os::unix::ffi::OsStrExt;
use std::time::SystemTime;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use egret_inotify_fim::escape::escape;
use egret_inotify_fim::fingerprint::{Fingerprint, HashState};
use egret_inotify_fim::view::{Change, Difference};
use egret_inotify_fim::watch::{Certainty, Source, Suspect};
use serde::Serialize;
use serde_json::Value;

use super::{rfc3339, shortened};
use crate::files::words;

/// A path, and its octets where they are no UTF-8.
#[derive(Debug, Serialize)]
pub(crate) struct PathFields {
    pub(crate) path: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) path_raw: Option<String>,
}

impl PathFields {
    /// At most so many characters of it, and so many of its octets.
    pub(crate) fn shortened(path: &[u8], most: usize) -> Self {
        let Self { path: text, .. } = path.into();
        let is_text = str::from_utf8(path).is_ok();
        let path_raw = (!is_text).then(|| STANDARD.encode(&path[..path.len().min(most)]));
        Self { path: shortened(&text, most), path_raw }
    }
}

impl From<&[u8]> for PathFields {
    fn from(path: &[u8]) -> Self {
        match str::from_utf8(path) {
            Ok(text) => Self { path: text.to_owned(), path_raw: None },
            Err(_) => Self { path: escape(path), path_raw: Some(STANDARD.encode(path)) },
        }
    }
}

/// A change, with what the policy says of it.
#[derive(Debug, Serialize)]
pub(crate) struct File {
    /// Counts everything that the file watch tells, so that a missing line is noticed.
    pub(crate) seq: u64,
    #[serde(flatten)]
    pub(crate) changed: Changed,
    pub(crate) severity: &'static str,
    pub(crate) action: &'static str,
    /// The watched path.
    pub(crate) rule: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) tags: Vec<String>,
    /// Whether it is among the approved changes.
    pub(crate) expected: bool,
    pub(crate) baseline: &'static str,
}

/// Many changes in one folder.
#[derive(Debug, Serialize)]
pub(crate) struct Files {
    pub(crate) seq: u64,
    pub(crate) rule: String,
    pub(crate) directory: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) directory_raw: Option<String>,
    pub(crate) expected: bool,
    pub(crate) severity: &'static str,
    pub(crate) action: &'static str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) tags: Vec<String>,
    pub(crate) count: u64,
    /// By change, names as the manifest writes them; of a move with ` from ` and the path before it.
    pub(crate) names: BTreeMap<&'static str, Vec<String>>,
    /// By change, how many more.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) unnamed: BTreeMap<&'static str, u64>,
    pub(crate) baseline: &'static str,
}

/// What is seen, and what is not.
#[derive(Debug, Serialize)]
pub(crate) struct Coverage {
    pub(crate) seq: u64,
    pub(crate) section: &'static str,
    pub(crate) state: &'static str,
    #[serde(flatten)]
    pub(crate) path: Option<PathFields>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) why: Option<String>,
    #[serde(flatten)]
    pub(crate) facts: serde_json::Map<String, Value>,
}

/// A time in which changes may not have been seen, or not in their order.
#[derive(Debug, Serialize)]
pub(crate) struct Gap {
    pub(crate) seq: u64,
    pub(crate) section: &'static str,
    pub(crate) state: &'static str,
    pub(crate) cause: &'static str,
    pub(crate) start: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) end: Option<String>,
    /// Differences that the comparison found which closed it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) found: Option<usize>,
    /// What is done about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) action: Option<&'static str>,
}

/// What changed at one path.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Changed {
    pub(crate) change: &'static str,
    #[serde(flatten)]
    pub(crate) path: Option<PathFields>,
    #[serde(skip_serializing_if = "Option::is_none")]
    from: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    from_raw: Option<String>,
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    kind: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    old_type: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    old_hash: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    new_hash: Option<String>,
    /// `done`, or why there is no hash.
    #[serde(skip_serializing_if = "Option::is_none")]
    hash_state: Option<&'static str>,
    /// What the kernel says of content that cannot be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    hash_error: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    attributes: Vec<&'static str>,
    #[serde(flatten)]
    values: Values,
    /// How it was found, where somebody watched.
    #[serde(skip_serializing_if = "Option::is_none")]
    source: Option<&'static str>,
    /// It did not happen before this time, where it was found by comparison.
    #[serde(skip_serializing_if = "Option::is_none")]
    since: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    suspect: Vec<Who>,
}

/// The values of the attributes that differ, before and after.
#[derive(Debug, Default, Serialize)]
struct Values(serde_json::Map<String, Value>);

/// Who had the file open for writing when its change was noticed.
#[derive(Debug, Serialize)]
struct Who {
    pid: u32,
    exe: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    exe_raw: Option<String>,
    uid: u32,
    certainty: &'static str,
}

impl Changed {
    /// What differs, whoever found it.
    pub(crate) fn new(difference: &Difference) -> Self {
        let (old, new) = (difference.old.as_deref(), difference.new.as_deref());
        let from = match &difference.change {
            Change::Moved { from } => Some(PathFields::from(&**from)),
            _ => None,
        };
        let (from, from_raw) = from.map_or((None, None), |from| (Some(from.path), from.path_raw));
        let kind = |print: Option<&Fingerprint>| print.map(|print| print.kind.to_string());
        let (old_kind, new_kind) = (kind(old), kind(new));
        let content = new.or(old).map(words::content).filter(|state| *state != HashState::NotRegular);
        Self {
            change: words::change(&difference.change),
            path: Some(PathFields::from(&*difference.path)),
            from,
            from_raw,
            old_type: old_kind.clone().filter(|_| new_kind.is_some() && old_kind != new_kind),
            kind: new_kind.or(old_kind),
            old_hash: old.and_then(words::hash),
            new_hash: new.and_then(words::hash),
            hash_state: content.map(words::state),
            hash_error: content.and_then(|state| state.error()).map(|error| error.to_string()),
            attributes: difference.attributes().into_iter().map(words::attribute).collect(),
            values: Values::of(difference),
            source: None,
            since: None,
            suspect: Vec::new(),
        }
    }

    /// The same with how it was found.
    pub(crate) fn seen(difference: &Difference, source: Source, since: Option<SystemTime>, suspects: &[Suspect]) -> Self {
        let suspect = suspects.iter().map(Who::from).collect();
        Self { source: Some(source_word(source)), since: since.map(rfc3339), suspect, ..Self::new(difference) }
    }

    pub(crate) fn transient(path: &[u8], suspects: &[Suspect]) -> Self {
        Self {
            change: "transient",
            path: Some(path.into()),
            source: Some(source_word(Source::Event)),
            suspect: suspects.iter().map(Who::from).collect(),
            ..Self::default()
        }
    }
}

impl From<&Suspect> for Who {
    fn from(suspect: &Suspect) -> Self {
        let certainty = match suspect.certainty {
            Certainty::Sole => "sole_writer",
            Certainty::SoleVisible => "sole_visible_writer",
            Certainty::OneOfSeveral => "one_of_several",
        };
        let exe = suspect.exe.as_ref().map(|exe| PathFields::from(exe.as_os_str().as_bytes()));
        let (exe, exe_raw) = exe.map_or((None, None), |exe| (Some(exe.path), exe.path_raw));
        Self { pid: suspect.pid, exe, exe_raw, uid: suspect.uid, certainty }
    }
}

impl Values {
    fn of(difference: &Difference) -> Self {
        let (Some(old), Some(new)) = (&difference.old, &difference.new) else { return Self::default() };
        let mut values = Self::default();
        for attribute in difference.attributes() {
            let name = words::attribute(attribute);
            let Some((old, new)) = words::value(attribute, old).zip(words::value(attribute, new)) else { continue };
            values.0.insert(format!("old_{name}"), old.into());
            values.0.insert(format!("new_{name}"), new.into());
        }
        values
    }
}

/// The word of what a difference was found by.
pub(crate) fn source_word(source: Source) -> &'static str {
    match source {
        Source::Event => "event",
        Source::Start => "start",
        Source::Repair => "repair",
        Source::Schedule => "schedule",
        Source::Full => "full",
        Source::Poll => "poll",
        Source::End => "end",
    }
}
