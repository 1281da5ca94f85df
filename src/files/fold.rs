//! Many changes in few lines: what one watched path may write in ten seconds is limited, and what is beyond is told by
//! folder, with every name. Counts stay exact; a log cannot be flooded by touching files, and grave changes are folded
//! apart from others. Pure: time is an argument.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use egret_inotify_fim::escape::escape;

use crate::config::files::Severity;

/// How long changes are counted together.
pub(crate) const WINDOW: Duration = Duration::from_secs(10);
/// Octets of names that wait to be told; of changes beyond it only the number is.
const NAMES: usize = 4 << 20;
/// Folders that wait to be told; changes in others are told of the watched path.
const FOLDERS: usize = 1_000;
/// Octets of names in one line: log drivers cut lines at 16 KiB.
const LINE: usize = 8 * 1024;
/// Lines that are given out at once, and in a second: the journal's queue takes more.
const PORTION: usize = 1_000;

/// What is folded at the moment, grave changes apart from others, as one must not crowd out the other.
#[derive(Debug)]
pub(crate) struct Fold {
    /// Lines of one watched path in one window.
    lines: u32,
    began: Option<Instant>,
    written: BTreeMap<(String, bool), u32>,
    halves: [Half; 2],
    /// Lines that are due.
    due: VecDeque<Folded>,
}

#[derive(Debug, Default)]
struct Half {
    folders: BTreeMap<Key, Folded>,
    octets: usize,
}

/// What is told together.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    rule: String,
    expected: bool,
    directory: Vec<u8>,
}

/// One change, to be told with others.
#[derive(Debug)]
pub(crate) struct Small<'a> {
    pub(crate) rule: &'a str,
    pub(crate) path: &'a [u8],
    /// Of a move.
    pub(crate) from: Option<&'a [u8]>,
    pub(crate) change: &'static str,
    pub(crate) severity: Severity,
    pub(crate) expected: bool,
}

/// Changes in one folder, as far as one line holds them.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Folded {
    pub(crate) rule: String,
    pub(crate) directory: Vec<u8>,
    pub(crate) expected: bool,
    /// The gravest of the line.
    pub(crate) severity: Severity,
    /// How many changes this line tells of.
    pub(crate) count: u64,
    /// By change, the names as the manifest writes them; of a move with ` from ` and the path before it.
    pub(crate) names: BTreeMap<&'static str, Vec<String>>,
    /// Changes whose names did not fit, by change.
    pub(crate) unnamed: BTreeMap<&'static str, u64>,
    octets: usize,
}

impl Fold {
    pub(crate) fn new(lines: u32) -> Self {
        Self { lines, began: None, written: BTreeMap::new(), halves: Default::default(), due: VecDeque::new() }
    }

    /// Whether a change may have a line of its own.
    pub(crate) fn admits(&mut self, rule: &str, severity: Severity, now: Instant) -> bool {
        self.began.get_or_insert(now);
        let written = self.written.entry((rule.to_owned(), is_grave(severity))).or_default();
        *written = written.saturating_add(1);
        *written <= self.lines
    }

    /// Takes a change that may not.
    pub(crate) fn add(&mut self, small: &Small<'_>) {
        let half = &mut self.halves[usize::from(is_grave(small.severity))];
        let slash = small.path.iter().rposition(|byte| *byte == b'/').unwrap_or(0);
        let (directory, name) = (&small.path[..slash.max(1)], &small.path[small.path.len().min(slash + 1)..]);
        let key = |directory: &[u8]| Key { rule: small.rule.to_owned(), expected: small.expected, directory: directory.to_vec() };
        let (mut key, of_rule) = (key(directory), key(small.rule.as_bytes()));
        let is_beyond = half.folders.len() >= FOLDERS && !half.folders.contains_key(&key);
        if is_beyond {
            key = of_rule;
        }
        let from = small.from.map(|from| format!(" from {}", escape(from))).unwrap_or_default();
        let name = escape(name) + &from;
        let blank = || Folded {
            rule: key.rule.clone(),
            directory: key.directory.clone(),
            expected: key.expected,
            severity: small.severity,
            ..Folded::default()
        };
        let folder = half.folders.entry(key.clone()).or_insert_with(blank);
        if folder.octets + name.len() > LINE && folder.octets > 0 && self.due.len() < PORTION {
            half.octets -= folder.octets;
            self.due.push_back(std::mem::replace(folder, blank()));
        }
        folder.count += 1;
        folder.severity = folder.severity.max(small.severity);
        if is_beyond || half.octets + name.len() > NAMES || folder.octets + name.len() > LINE && folder.octets > 0 {
            *folder.unnamed.entry(small.change).or_default() += 1;
        } else {
            half.octets += name.len();
            folder.octets += name.len();
            folder.names.entry(small.change).or_default().push(name);
        }
    }

    /// Lines that are due: those that are full, and once the window is over the others too; at the `end` all, else a
    /// portion of them.
    pub(crate) fn take(&mut self, now: Instant, end: bool) -> Vec<Folded> {
        let over = self.began.is_some_and(|began| now.saturating_duration_since(began) >= WINDOW);
        if over || end {
            self.began = None;
            self.written.clear();
            for half in self.halves.iter_mut().rev() {
                half.octets = 0;
                self.due.extend(std::mem::take(&mut half.folders).into_values());
            }
        }
        let portion = if end { self.due.len() } else { self.due.len().min(PORTION) };
        self.due.drain(..portion).collect()
    }
}

fn is_grave(severity: Severity) -> bool {
    severity >= Severity::High
}

#[cfg(test)]
mod tests {
    use super::*;

    fn small<'a>(path: &'a [u8], change: &'static str) -> Small<'a> {
        Small { rule: "/app", path, from: None, change, severity: Severity::Medium, expected: false }
    }

    #[test]
    fn lines_are_limited_by_path_gravity_and_window() {
        let (mut fold, now) = (Fold::new(2), Instant::now());
        let mut admits = |rule, severity, later| fold.admits(rule, severity, now + later);
        let medium: Vec<bool> = (0..4).map(|_| admits("/app", Severity::Medium, Duration::ZERO)).collect();
        assert_eq!(medium, [true, true, false, false]);
        assert!(admits("/app", Severity::High, Duration::ZERO), "what is grave has lines of its own");
        assert!(admits("/etc", Severity::Low, WINDOW));
        assert!(fold.take(now + WINDOW, false).is_empty(), "nothing was added");
        assert!(fold.admits("/app", Severity::Medium, now + WINDOW), "another window");
    }

    #[test]
    fn every_name_is_told_once_in_lines_that_are_not_too_long() {
        let (mut fold, now) = (Fold::new(0), Instant::now());
        assert!(!fold.admits("/app", Severity::Medium, now));
        let names: Vec<String> = (0..5_000).map(|n| format!("{n:06}")).collect();
        names.iter().for_each(|name| fold.add(&small(format!("/app/deep/{name}").as_bytes(), "created")));
        fold.add(&small(b"/app/\xff\n", "deleted"));
        let mut lines = fold.take(now + WINDOW / 2, false);
        assert_eq!(lines.len(), 30_000 / LINE, "what is full is due");
        lines.extend(fold.take(now + WINDOW, false));
        let (deep, others): (Vec<&Folded>, Vec<&Folded>) = lines.iter().partition(|line| line.directory == b"/app/deep");
        let told: Vec<&String> = deep.iter().flat_map(|line| &line.names["created"]).collect();
        assert_eq!(told, names.iter().collect::<Vec<_>>());
        assert!(deep.iter().all(|line| line.names["created"].concat().len() <= LINE));
        assert_eq!(others[0].names["deleted"], ["\\xff\\x0a"]);
        assert_eq!(lines.iter().map(|line| line.count).sum::<u64>(), 5_001);
        assert!(fold.take(now + WINDOW * 3, true).is_empty());
    }

    #[test]
    fn what_is_grave_or_approved_or_moved_is_told_apart() {
        let (mut fold, now) = (Fold::new(0), Instant::now());
        fold.add(&small(b"/app/a", "modified"));
        fold.add(&Small { expected: true, severity: Severity::Low, ..small(b"/app/b", "modified") });
        let moved = Small { severity: Severity::High, from: Some(b"/app/bin/c d"), ..small(b"/app/c", "moved") };
        fold.add(&moved);
        let lines = fold.take(now, true);
        let told: Vec<(Severity, bool, &str, &str)> = lines
            .iter()
            .map(|line| {
                (
                    line.severity,
                    line.expected,
                    *line.names.keys().next().unwrap(),
                    line.names.values().next().unwrap()[0].as_str(),
                )
            })
            .collect();
        let expected = [
            (Severity::High, false, "moved", "c from /app/bin/c\\x20d"),
            (Severity::Medium, false, "modified", "a"),
            (Severity::Low, true, "modified", "b"),
        ];
        assert_eq!(told, expected);
    }

    #[test]
    fn beyond_its_limits_it_still_counts_and_gives_out_portions() {
        let (mut fold, now) = (Fold::new(0), Instant::now());
        let paths: Vec<String> =
            (0..FOLDERS * 3).map(|n| format!("/app/{n}/f")).chain((0..900_000).map(|n| format!("/app/0/{n}"))).collect();
        paths.iter().for_each(|path| fold.add(&small(path.as_bytes(), "created")));
        fold.add(&Small { severity: Severity::High, ..small(b"/app/server", "modified") });
        fold.began = Some(now);
        let mut lines = fold.take(now + WINDOW, false);
        assert!(lines.len() <= PORTION);
        lines.extend(std::iter::from_fn(|| Some(fold.take(now, false)).filter(|lines| !lines.is_empty())).flatten());
        assert_eq!(lines.iter().map(|line| line.count).sum::<u64>(), paths.len() as u64 + 1);
        let names = lines.iter().flat_map(|line| line.names.values()).map(Vec::len).sum::<usize>();
        let unnamed = lines.iter().flat_map(|line| line.unnamed.values()).sum::<u64>();
        assert_eq!(names as u64 + unnamed, paths.len() as u64 + 1);
        assert!(unnamed > 0 && lines.len() < 4 * FOLDERS);
        assert!(lines.iter().any(|line| line.names.get("modified").is_some_and(|names| names == &["server"])), "not crowded out");
    }
}
