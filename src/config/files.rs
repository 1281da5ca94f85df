//! `files:`: which files are watched, how, and what it means that one changed.

use std::time::Duration;

use egret_inotify_fim::roots::{Content, How};

use super::Reader;
use super::diagnose::Code;
use super::read::Fields;
use super::yaml::Node;
use crate::files::ignore::Ignored;

/// The keys of `files:`.
pub(super) const FILES: &[&str] =
    &["baseline", "key", "expected", "every", "full", "poll", "settle", "hashing", "watches", "lines", "unseen", "watch"];
/// The keys of a watched path.
pub(super) const WATCH: &[&str] =
    &["path", "ignore", "as", "mounts", "follow", "hash-up-to", "action", "severity", "tags", "note"];

/// What is looked at.
pub(super) const KINDS: &[(&str, Content)] = &[
    ("all", Content::Whole),
    ("log", Content::Append),
    ("attributes", Content::Attributes),
    ("executables", Content::Executables),
];
/// What a changed file means.
pub(super) const ACTIONS: &[(&str, Action)] =
    &[("alert", Action::Alert), ("count", Action::Count), ("unhealthy", Action::Unhealthy), ("stop", Action::Stop)];
/// What it means that something is not seen: to count it alone would hide it.
pub(super) const UNSEEN: &[(&str, Action)] =
    &[("alert", Action::Alert), ("unhealthy", Action::Unhealthy), ("stop", Action::Stop)];
/// How much it matters.
pub(super) const SEVERITIES: &[(&str, Severity)] =
    &[("low", Severity::Low), ("medium", Severity::Medium), ("high", Severity::High), ("critical", Severity::Critical)];

const MILLISECOND: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(24 * 3600);

/// The most tags of one path, and octets of one tag.
const TAGS: (usize, usize) = (16, 64);

/// What is watched, and how.
#[derive(Clone, Debug, PartialEq)]
pub struct Files {
    /// The manifest that files are compared with; without one, what is there at the start is taken for good.
    pub baseline: Option<String>,
    /// The public key that the manifest must be signed for: its file, or its text.
    pub key: Option<String>,
    /// A manifest of approved changes.
    pub expected: Option<String>,
    /// How often everything is compared by its attributes.
    pub every: Duration,
    /// How often all content is read.
    pub full: Duration,
    /// How often what causes no events is compared.
    pub poll: Duration,
    /// How long a file must be quiet before it is looked at.
    pub settle: Duration,
    /// Percent of one processor that reading may take.
    pub hashing: u8,
    /// Percent of this user's inotify watches that may be used.
    pub watches: u8,
    /// Lines of the journal that one path's changes may take in ten seconds; what is beyond is told together.
    pub lines: u32,
    /// What it means that events were lost, or that something cannot be looked at.
    pub unseen: Action,
    /// What is watched.
    pub trees: Vec<Tree>,
}

/// One watched path.
#[derive(Clone, Debug)]
pub struct Tree {
    /// Absolute, in its shortest form.
    pub path: String,
    /// How it is looked at.
    pub how: How,
    /// What is left out, as it is written.
    pub ignore: Vec<String>,
    /// What a change means.
    pub action: Action,
    /// How much a change matters, at least.
    pub severity: Severity,
    /// The operator's words, passed on with each event.
    pub tags: Vec<String>,
    /// Why, for whoever reads what is watched.
    pub note: Option<String>,
    /// Something of egret's own.
    pub own: bool,
}

/// Patterns are compared as they are written.
impl PartialEq for Tree {
    fn eq(&self, other: &Self) -> bool {
        let meant = |tree: &Self| (tree.action, tree.severity, tree.tags.clone(), tree.note.clone(), tree.own);
        self.looks_as(other) && meant(self) == meant(other)
    }
}

/// What is done about a change.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Action {
    /// It is counted, and no more.
    Count,
    /// It is told.
    #[default]
    Alert,
    /// It is told, and readiness is false from then on.
    Unhealthy,
    /// It is told, and the program ends.
    Stop,
}

/// How much a change matters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// As expected, or without weight.
    Low,
    /// A change.
    #[default]
    Medium,
    /// It can be run, grants something, or hides something.
    High,
    /// egret itself, its policy or its baseline.
    Critical,
}

impl Action {
    /// Its word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        ACTIONS.iter().find(|(_, action)| *action == self).map_or("", |(word, _)| word)
    }
}

impl Severity {
    /// Its word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        SEVERITIES.iter().find(|(_, severity)| *severity == self).map_or("", |(word, _)| word)
    }
}

impl<'t> Reader<'t> {
    /// `None` if nothing is to be watched.
    pub(super) fn files(&mut self, node: Option<&Node<'t>>) -> Option<Files> {
        let node = node?;
        let fields = self.found.map(node, "`files:`", FILES)?;
        let files = self.files_beside(fields);
        if files.trees.is_empty() && self.found.0.is_empty() {
            let help = "write `watch: [{ path: /app }]`, or remove the section";
            return self.found.refuse(Code::EmptyList, node.at, "`files:` names no path to watch", Some(help));
        }
        Some(files)
    }

    fn files_beside(&mut self, fields: Fields<'_, 't>) -> Files {
        let text = |reader: &mut Self, key: &str| {
            let node = fields.get(key)?;
            reader.found.text(node, &format!("`{key}:`")).map(str::to_owned)
        };
        let percent = |reader: &mut Self, key: &str, default| {
            let read = fields.get(key).and_then(|node| reader.found.number(node, &format!("`{key}:`, in percent,"), (1, 100)));
            read.unwrap_or(default)
        };
        let mut time = |key: &str, range, default| {
            let read = fields.get(key).and_then(|node| self.duration(node, &format!("`{key}:`"), range));
            read.unwrap_or(default)
        };
        let every = time("every", (SECOND, 7 * DAY), 600 * SECOND);
        let full = time("full", (SECOND, 31 * DAY), DAY);
        let poll = time("poll", (SECOND, HOUR), 60 * SECOND);
        let settle = time("settle", (Duration::ZERO, 10 * SECOND), 100 * MILLISECOND);
        let lines = fields.get("lines").and_then(|node| self.found.number(node, "`lines:`", (1, 2_000))).unwrap_or(500);
        let unseen = fields.get("unseen").and_then(|node| self.found.word(node, "`unseen:`", UNSEEN)).unwrap_or_default();
        let (baseline, key, expected) = (text(self, "baseline"), text(self, "key"), text(self, "expected"));
        let (hashing, watches) = (percent(self, "hashing", 50), percent(self, "watches", 50));
        if key.is_some() && baseline.is_none() {
            let help = "write `baseline:` with the path of a manifest";
            self.found.note(Code::MissingKey, fields.place_of("key"), "`key:` is for a baseline, and there is none", Some(help));
        }
        if expected.is_some() && key.is_none() {
            let message = "`expected:` needs `key:`: unsigned, whoever writes files could approve of it";
            let help = "write `key:` with a minisign public key, and sign what is expected";
            self.found.note(Code::MissingKey, fields.place_of("expected"), message, Some(help));
        }
        let trees = self.trees(fields.section("watch"));
        Files { baseline, key, expected, every, full, poll, settle, hashing, watches, lines, unseen, trees }
    }

    fn trees(&mut self, node: Option<&Node<'t>>) -> Vec<Tree> {
        let mut trees: Vec<Tree> = Vec::new();
        for node in node.and_then(|node| self.found.list(node, "`watch:`")).unwrap_or_default() {
            let Some(tree) = self.tree(node) else { continue };
            if trees.iter().any(|other| other.path == tree.path) {
                let message = format!("{:?} is watched twice", tree.path);
                self.found.note(Code::Conflict, node.at, message, Some("keep one of the two"));
            }
            trees.push(tree);
        }
        trees
    }

    fn tree(&mut self, node: &Node<'t>) -> Option<Tree> {
        let fields = self.found.map(node, "a watched path", WATCH)?;
        let Some(written) = fields.get("path") else {
            return self.found.refuse(Code::MissingKey, node.at, "a watched path needs `path:`", Some("write `path: /app`"));
        };
        let path = self.watched_path(written);
        let (how, ignore) = self.how(fields, path.as_deref().unwrap_or("/"));
        let word = |key: &str| fields.get(key);
        let action = word("action").and_then(|node| self.found.word(node, "`action:`", ACTIONS)).unwrap_or_default();
        let severity = word("severity").and_then(|node| self.found.word(node, "`severity:`", SEVERITIES)).unwrap_or_default();
        let tags = word("tags").map(|node| self.tags(node)).unwrap_or_default();
        let note = word("note").and_then(|note| self.found.text(note, "`note:`")).map(str::to_owned);
        // When there are fewer watches than directories, what matters most has them.
        let how = How { priority: severity as u8, ..how };
        Some(Tree { path: path?, how, ignore, action, severity, tags, note, own: false })
    }

    fn how(&mut self, fields: Fields<'_, 't>, path: &str) -> (How, Vec<String>) {
        let default = How::default();
        let flag = |reader: &mut Self, key: &str| {
            let node = fields.get(key)?;
            reader.found.flag(node, &format!("`{key}:`"))
        };
        let content = fields.get("as").and_then(|node| self.found.word(node, "`as:`", KINDS)).unwrap_or_default();
        let largest = fields.get("hash-up-to").and_then(|node| self.size(node, "`hash-up-to:`")).unwrap_or(default.largest);
        let (cross, follow) = (flag(self, "mounts"), flag(self, "follow"));
        let (mut ignored, mut written) = (Ignored::new(), Vec::new());
        for node in fields.get("ignore").and_then(|node| self.found.list(node, "`ignore:`")).unwrap_or_default() {
            let Some(text) = self.found.text(node, "a member of `ignore:`") else { continue };
            written.push(text.to_owned());
            if let Err(error) = ignored.add(text, path) {
                let message = format!("{text:?} is no pattern of paths: {}", error.kind());
                self.found.note(Code::BadValue, node.at, message, Some(super::sections::GLOB_HELP));
            }
        }
        let (exclude, folders) = ignored.build().unwrap_or_default();
        let follow = follow.unwrap_or(default.follow);
        (How { content, exclude, folders, cross: cross.unwrap_or(default.cross), largest, follow, ..default }, written)
    }

    /// An absolute path in its shortest form.
    fn watched_path(&mut self, node: &Node<'t>) -> Option<String> {
        let text = self.absolute(node, "`path:`")?;
        let path = text.strip_suffix('/').filter(|rest| !rest.is_empty()).unwrap_or(text);
        let odd = |name: &str| matches!(name, "" | "." | "..");
        if path != "/" && path[1..].split('/').any(odd) {
            let help = "leave out `//`, `.` and `..`";
            return self.found.refuse(Code::BadValue, node.at, format!("{text:?} is not in its shortest form"), Some(help));
        }
        Some(path.to_owned())
    }

    fn tags(&mut self, node: &Node<'t>) -> Vec<String> {
        let Some(listed) = self.found.list(node, "`tags:`") else { return Vec::new() };
        let mut tags = Vec::new();
        for node in listed {
            let Some(text) = self.found.text(node, "a member of `tags:`") else { continue };
            if text.is_empty() || text.len() > TAGS.1 || listed.len() > TAGS.0 {
                let help = format!("write at most {} tags of 1 to {} octets", TAGS.0, TAGS.1);
                self.found.note(Code::BadValue, node.at, format!("{text:?} cannot be a tag"), Some(&help));
            }
            tags.push(text.to_owned());
        }
        tags
    }

    /// A number and its unit: `100ms`, `30s`, `10m`, `24h`, `7d`.
    fn duration(&mut self, node: &Node<'t>, what: &str, (least, most): (Duration, Duration)) -> Option<Duration> {
        let text = self.found.text(node, what)?;
        let units = [("ms", MILLISECOND), ("s", SECOND), ("m", 60 * SECOND), ("h", HOUR), ("d", DAY)];
        let read = units.iter().find_map(|(unit, length)| length.checked_mul(digits(text.strip_suffix(unit)?)?));
        if let Some(duration) = read.filter(|duration| (least..=most).contains(duration)) {
            return Some(duration);
        }
        let help = format!("write a number and ms, s, m, h or d, from {} to {}", told(least), told(most));
        self.found.refuse(Code::BadValue, node.at, format!("{what} is not {text:?}"), Some(&help))
    }

    /// A number of octets, or one with KiB, MiB or GiB.
    fn size(&mut self, node: &Node<'t>, what: &str) -> Option<u64> {
        let text = self.found.text(node, what)?;
        let units = [("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1_u64 << 30), ("", 1)];
        let read = units.iter().find_map(|(unit, length)| {
            let number = digits(text.strip_suffix(unit)?.trim_end())?;
            u64::from(number).checked_mul(*length)
        });
        let help = "write 64KiB, 100MiB or 4GiB";
        read.or_else(|| self.found.refuse(Code::BadValue, node.at, format!("{what} is not {text:?}"), Some(help)))
    }
}

fn digits(text: &str) -> Option<u32> {
    text.parse().ok().filter(|_| text.bytes().all(|byte| byte.is_ascii_digit()))
}

fn told(duration: Duration) -> String {
    match duration.as_secs() {
        0 => format!("{}ms", duration.as_millis()),
        seconds if seconds % 86_400 == 0 => format!("{}d", seconds / 86_400),
        seconds if seconds % 3_600 == 0 => format!("{}h", seconds / 3_600),
        seconds => format!("{seconds}s"),
    }
}

impl Tree {
    /// Something of egret's own: whatever changes there matters most. What the policy says of the place it is in holds for
    /// it too.
    #[must_use]
    pub fn own(path: &str, within: Option<&Self>) -> Self {
        Self {
            path: path.to_owned(),
            how: How { priority: Severity::Critical as u8, ..How::default() },
            ignore: Vec::new(),
            action: within.map_or(Action::Alert, |tree| tree.action.max(Action::Alert)),
            severity: Severity::Critical,
            tags: within.map(|tree| tree.tags.clone()).unwrap_or_default(),
            note: Some("egret's own".to_owned()),
            own: true,
        }
    }

    /// Whether the same is looked at in the same way.
    #[must_use]
    pub fn looks_as(&self, other: &Self) -> bool {
        let looks = |tree: &Self| {
            let How { content, cross, largest, follow, .. } = tree.how;
            (tree.path.clone(), tree.ignore.clone(), content, cross, largest, follow)
        };
        looks(self) == looks(other)
    }

    /// The word for what of it is looked at.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        KINDS.iter().find(|(_, content)| *content == self.how.content).map_or("", |(word, _)| word)
    }
}
