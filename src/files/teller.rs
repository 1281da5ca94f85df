//! From what the watch sees to what is told and done: severity, approval, one line or a folded one, the action.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use egret_inotify_fim::escape::escape;
use egret_inotify_fim::ledger::reason;
use egret_inotify_fim::roots::Roots;
use egret_inotify_fim::scan::Uncovered;
use egret_inotify_fim::view::{Change, Difference};
use egret_inotify_fim::watch::{Cause, Event as Seen, MountChange, Source, Suspect};
use serde_json::{Map, Value, json};

use super::approvals::Approvals;
use super::fold::{Fold, Folded, Small, WINDOW};
use super::trusted::Trusted;
use super::{severity, words};
use crate::config::files::{Action, Files, Severity, Tree};
use crate::events::files::{Changed, Coverage, File, Gap, PathFields, source_word};
use crate::events::{Event, rfc3339};
use crate::journal::Journal;
use crate::metrics;
use crate::readiness::Readiness;
use crate::stop::Stop;

/// Lines about one kind of coverage in one window; those beyond are counted.
const COVERAGE_LINES: u32 = 50;

/// Where what is told goes, and whom an action moves.
#[derive(Clone)]
pub(crate) struct Outlets {
    pub(crate) journal: Journal,
    pub(crate) readiness: Arc<Readiness>,
    pub(crate) stop: Stop,
}

/// What one teller hands on to the next.
#[derive(Clone, Debug, Default)]
pub(crate) struct Carried {
    /// Counts everything that was told.
    pub(crate) seq: u64,
    pub(crate) changes: BTreeMap<&'static str, u64>,
    pub(crate) last_change: Option<SystemTime>,
    /// The roots whose state at the start was taken for good.
    pub(crate) learned: BTreeSet<Vec<u8>>,
}

/// Tells what is seen.
pub(crate) struct Teller {
    trees: BTreeMap<Vec<u8>, Tree>,
    roots: Roots,
    /// The word for the baseline of those roots that have one.
    pub(super) baseline: &'static str,
    approvals: Option<Approvals>,
    fold: Fold,
    /// When this window of coverage lines began, how many there are in it, and how many beyond, by state.
    coverage_began: Option<Instant>,
    coverage: BTreeMap<&'static str, (u32, u64)>,
    /// What is done about what is not seen.
    pub(super) unseen: Action,
    outlets: Outlets,
    pub(super) carried: Carried,
}

/// What the policy and the baseline say of one change.
struct Judged<'a> {
    tree: &'a Tree,
    severity: Severity,
    expected: bool,
    change: &'static str,
    from: Option<&'a [u8]>,
    /// It is counted, and no more.
    silent: bool,
    /// The action is taken.
    moves: bool,
}

impl Teller {
    pub(crate) fn new(
        files: &Files,
        trees: Vec<Tree>,
        trusted: Option<&Trusted>,
        approvals: Option<Approvals>,
        carried: Carried,
        outlets: Outlets,
    ) -> Self {
        let roots = super::roots(&trees);
        Self {
            trees: trees.into_iter().map(|tree| (tree.path.as_bytes().to_vec(), tree)).collect(),
            roots,
            baseline: trusted.map_or("learned", |trusted| if trusted.signed { "signed" } else { "manifest" }),
            approvals,
            fold: Fold::new(files.lines),
            coverage_began: None,
            coverage: BTreeMap::new(),
            unseen: files.unseen,
            outlets,
            carried,
        }
    }

    /// The word for the baseline of a root.
    pub(super) fn baseline_of(&self, root: &[u8]) -> &'static str {
        if self.carried.learned.contains(root) { "learned" } else { self.baseline }
    }

    /// Says what is watched, how, and what a change means.
    pub(crate) fn begin(&mut self) {
        for tree in self.trees.values().cloned().collect::<Vec<_>>() {
            let facts = self.facts(&tree);
            self.write_coverage("watching", Some(tree.path.as_bytes()), None, facts);
        }
    }

    /// What the policy says of a path.
    pub(super) fn facts(&self, tree: &Tree) -> Value {
        json!({ "as": tree.kind(), "ignore": tree.ignore, "action": tree.action.as_str(), "severity": tree.severity.as_str(),
                "tags": tree.tags, "note": tree.note })
    }

    /// The watched path.
    pub(super) fn tree(&self, root: &[u8]) -> Option<&Tree> {
        self.trees.get(root)
    }

    /// Reads the approved changes anew if their file is another one now.
    pub(crate) fn look_for_approvals(&mut self) {
        let Some(approvals) = &mut self.approvals else { return };
        match approvals.read_again() {
            None => {}
            Some(Ok(count)) => self.coverage("approved", None, None, json!({ "entries": count })),
            Some(Err(refused)) => self.coverage("approval_refused", None, Some(refused.to_string()), json!({})),
        }
    }

    /// Says that the watch has ended, whether the last comparison was done, and why if that is not plain.
    pub(crate) fn ended(&mut self, complete: bool, why: Option<String>) {
        self.tick(true);
        self.write_coverage("ended", None, why, json!({ "complete": complete, "changes": self.carried.changes }));
    }

    /// Tells one thing that was seen.
    pub(crate) fn hear(&mut self, seen: Seen) {
        match seen {
            Seen::Changed { difference, source, suspects, since } => self.changed(&difference, source, since, &suspects),
            Seen::Transient { path, suspects } => self.transient(&path, &suspects),
            Seen::GapOpened { cause, start } => self.gap("opened", cause, start, None),
            Seen::GapClosed { cause, start, end, found } => self.gap("closed", cause, start, Some((end, found))),
            // As the policy wants it; /status lists it.
            Seen::CoverageLost { why: Uncovered::Excluded, .. } => {}
            Seen::CoverageLost { path, why } => self.lost(&path, why),
            Seen::CoverageGained { path } => self.coverage("gained", Some(&path), None, json!({})),
            Seen::Compared { source, entries, watched, found, took, complete } => {
                metrics::files_compared(source_word(source), took);
                // Polls come every minute, and say nothing unless they find something.
                if source != Source::Poll || found > 0 {
                    let took = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
                    let facts = json!({ "source": source_word(source), "entries": entries, "watched": watched, "found": found,
                                        "took_ms": took, "complete": complete, "baseline": self.baseline });
                    self.coverage("compared", None, None, facts);
                }
            }
            Seen::Learned { root } => self.learn(root),
            Seen::MountChanged { path, change } => self.mount(&path, &change),
            Seen::ClockJumped { by } => self.coverage("clock_jumped", None, Some(by.to_string()), json!({})),
            Seen::Ended { why } => self.coverage("failed", None, Some(why), json!({})),
            Seen::Repaired { watches } => self.coverage("repaired", None, None, json!({ "watches": watches })),
        }
    }

    /// Tells what was folded, once it is time to; at the `end`, at once.
    pub(crate) fn tick(&mut self, end: bool) {
        let folded = self.fold.take(Instant::now(), end);
        for line in folded {
            let line = self.folded(line);
            self.outlets.journal.write(Event::Files(Box::new(line)));
        }
        let over = |began: Instant| began.elapsed() >= WINDOW;
        if !end && !self.coverage_began.is_some_and(over) {
            return;
        }
        self.coverage_began = None;
        let beyond: Vec<(&'static str, u64)> = std::mem::take(&mut self.coverage)
            .into_iter()
            .filter_map(|(state, (_, more))| (more > 0).then_some((state, more)))
            .collect();
        for (state, more) in beyond {
            self.write_coverage(state, None, None, json!({ "count": more }));
        }
    }

    fn changed(&mut self, difference: &Difference, source: Source, since: Option<SystemTime>, suspects: &[Suspect]) {
        self.look_for_approvals();
        if let Change::Moved { from } = &difference.change
            && self.root_of(from) != self.root_of(&difference.path)
        {
            // It left one watched path for another: each says for itself what that means.
            let gone = Difference { path: Arc::clone(from), change: Change::Deleted, old: difference.old.clone(), new: None };
            let path = Arc::clone(&difference.path);
            let came = Difference { path, change: Change::Created, old: None, new: difference.new.clone() };
            self.judge(&gone, source, since, suspects);
            return self.judge(&came, source, since, suspects);
        }
        self.judge(difference, source, since, suspects);
    }

    fn judge(&mut self, difference: &Difference, source: Source, since: Option<SystemTime>, suspects: &[Suspect]) {
        let Some(tree) = self.root_of(&difference.path).and_then(|root| self.trees.get(&root)).cloned() else { return };
        let expected = self.approvals.as_ref().is_some_and(|approvals| approvals.allow(difference, now()));
        let severity = if expected { Severity::Low } else { severity::of(difference, tree.severity) };
        let from = match &difference.change {
            Change::Moved { from } => Some(&**from),
            _ => None,
        };
        let trivial = severity::is_trivial(difference);
        let judged = Judged {
            tree: &tree,
            severity,
            expected,
            change: words::change(&difference.change),
            from,
            silent: trivial && difference.change == Change::Appended,
            moves: !expected && !trivial,
        };
        self.tell(&judged, &difference.path, || Changed::seen(difference, source, since, suspects));
    }

    fn root_of(&self, path: &[u8]) -> Option<Vec<u8>> {
        self.roots.of(path).map(|(root, _)| root.to_vec())
    }

    fn transient(&mut self, path: &[u8], suspects: &[Suspect]) {
        let Some(tree) = self.root_of(path).and_then(|root| self.trees.get(&root)).cloned() else { return };
        let (severity, change) = (tree.severity, "transient");
        let judged = Judged { tree: &tree, severity, expected: false, change, from: None, silent: false, moves: true };
        self.tell(&judged, path, || Changed::transient(path, suspects));
    }

    /// Counts a change, tells it unless it is silent, and does what its action says.
    fn tell(&mut self, judged: &Judged<'_>, path: &[u8], changed: impl FnOnce() -> Changed) {
        let Judged { tree, severity, .. } = *judged;
        metrics::file_changed(judged.change, severity.as_str(), &tree.path);
        *self.carried.changes.entry(judged.change).or_default() += 1;
        self.carried.last_change = Some(SystemTime::now());
        if judged.silent || tree.action == Action::Count {
            return;
        }
        if self.fold.admits(&tree.path, severity, Instant::now()) {
            let file = File {
                seq: self.next(),
                changed: changed(),
                severity: severity.as_str(),
                action: tree.action.as_str(),
                rule: tree.path.clone(),
                tags: tree.tags.clone(),
                expected: judged.expected,
                baseline: self.baseline_of(tree.path.as_bytes()),
            };
            self.outlets.journal.write(Event::File(Box::new(file)));
        } else {
            let Judged { change, from, expected, .. } = *judged;
            self.fold.add(&Small { rule: &tree.path, path, from, change, severity, expected });
        }
        if judged.moves {
            self.act(tree.action, || format!("the watched file {} changed: {}", shown(path), judged.change));
        }
    }

    fn act(&self, action: Action, why: impl FnOnce() -> String) {
        match action {
            Action::Count | Action::Alert => {}
            Action::Unhealthy => self.outlets.readiness.unhealthy(why),
            Action::Stop => self.outlets.stop.say(why),
        }
    }

    /// Something is not covered as it should be. What is not there is not hidden, and what is polled is only seen later.
    fn lost(&mut self, path: &[u8], why: Uncovered) {
        let gone = Uncovered::Unreadable(rustix::io::Errno::NOENT.raw_os_error());
        let is_unseen = matches!(why, Uncovered::Unreadable(_) | Uncovered::TooMany) && why != gone;
        let facts = if is_unseen { json!({ "action": self.unseen.as_str() }) } else { json!({}) };
        self.coverage("lost", Some(path), Some(uncovered(why)), facts);
        if is_unseen {
            self.act(self.unseen, || format!("what is watched at {} is not seen: {}", shown(path), uncovered(why)));
        }
    }

    fn learn(&mut self, root: Vec<u8>) {
        // egret's own files are in no manifest.
        if self.trees.get(&root).is_some_and(|tree| !tree.own) {
            let why = "no manifest names it: what is there at the start is taken for good".to_owned();
            self.coverage("learned", Some(&root), Some(why), json!({}));
        }
        self.carried.learned.insert(root);
    }

    fn mount(&mut self, path: &[u8], change: &MountChange) {
        let (why, facts) = match change {
            MountChange::Mounted { fs_type, source, read_only } => {
                let source = source.as_deref().map(escape);
                ("mounted", json!({ "fs_type": fs_type, "source": source, "read_only": read_only }))
            }
            MountChange::Unmounted => ("unmounted", json!({})),
            MountChange::Remounted { read_only } => ("remounted", json!({ "read_only": read_only })),
        };
        self.coverage("mount", Some(path), Some(why.to_owned()), facts);
    }

    fn gap(&mut self, state: &'static str, cause: Cause, start: SystemTime, end: Option<(SystemTime, usize)>) {
        let cause = match cause {
            Cause::Kernel => "kernel_queue",
            Cause::Queue => "own_queue",
        };
        if end.is_none() {
            metrics::file_gap(cause);
        }
        let gap = Gap {
            seq: self.next(),
            section: "files",
            state,
            cause,
            start: rfc3339(start),
            end: end.map(|(end, _)| rfc3339(end)),
            found: end.map(|(_, found)| found),
            action: end.is_none().then_some(self.unseen.as_str()),
        };
        self.outlets.journal.write(Event::FileGap(Box::new(gap)));
        if end.is_none() {
            self.act(self.unseen, || {
                format!("events of watched files were lost ({cause}): what changed meanwhile may not be known")
            });
        }
    }

    /// A line about coverage, or one more that is only counted.
    fn coverage(&mut self, state: &'static str, path: Option<&[u8]>, why: Option<String>, facts: Value) {
        self.coverage_began.get_or_insert_with(Instant::now);
        let (written, more) = self.coverage.entry(state).or_default();
        if *written >= COVERAGE_LINES {
            *more += 1;
            return;
        }
        *written += 1;
        self.write_coverage(state, path, why, facts);
    }

    fn write_coverage(&mut self, state: &'static str, path: Option<&[u8]>, why: Option<String>, facts: Value) {
        let facts = if let Value::Object(facts) = facts { facts } else { Map::new() };
        let (seq, path) = (self.next(), path.map(PathFields::from));
        self.outlets.journal.write(Event::FileCoverage(Box::new(Coverage { seq, section: "files", state, path, why, facts })));
    }

    fn folded(&mut self, line: Folded) -> crate::events::files::Files {
        let PathFields { path: directory, path_raw: directory_raw } = PathFields::from(line.directory.as_slice());
        let baseline = self.baseline_of(line.rule.as_bytes());
        let tree = self.trees.get(line.rule.as_bytes());
        crate::events::files::Files {
            action: tree.map_or("", |tree| tree.action.as_str()),
            tags: tree.map(|tree| tree.tags.clone()).unwrap_or_default(),
            seq: self.next(),
            rule: line.rule,
            directory,
            directory_raw,
            expected: line.expected,
            severity: line.severity.as_str(),
            count: line.count,
            names: line.names,
            unnamed: line.unnamed,
            baseline,
        }
    }

    fn next(&mut self) -> u64 {
        self.carried.seq += 1;
        self.carried.seq
    }
}

/// Seconds since 1970.
fn now() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(now.as_secs()).unwrap_or(i64::MAX)
}

/// A path for people, its controls escaped.
fn shown(path: &[u8]) -> String {
    PathFields::from(path).path.escape_debug().to_string()
}

/// Why a path is not seen.
pub(crate) fn uncovered(why: Uncovered) -> String {
    match why {
        Uncovered::Unreadable(number) => format!("{}: {}", reason(why), std::io::Error::from_raw_os_error(number)),
        Uncovered::NoWatch => format!("{}: the limit of inotify watches is reached; found by comparison only", reason(why)),
        _ => reason(why).to_owned(),
    }
}
