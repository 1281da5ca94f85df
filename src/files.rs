//! `files:` of the policy, served: the watch is started, what it sees is told, and what the policy says of a change is
//! done. What changed is for `inotify-fim` to find out.

mod approvals;
mod fold;
pub(crate) mod ignore;
mod severity;
pub(crate) mod signature;
pub(crate) mod status;
mod teller;
pub(crate) mod trusted;
pub(crate) mod words;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::Context;
use egret_inotify_fim::ledger::Ledger;
use egret_inotify_fim::roots::{Content, Roots};
use egret_inotify_fim::scan;
use egret_inotify_fim::view::View;
use egret_inotify_fim::watch::{Event as Seen, Options, Source, Watch};
use serde_json::Value;
use tokio::sync::watch;

use self::approvals::Approvals;
use self::signature::PublicKey;
pub(crate) use self::teller::Outlets;
use self::teller::{Carried, Teller};
use self::trusted::Trusted;
use crate::config::files::{Files, Severity, Tree};
use crate::events::Event;
use crate::metrics;

/// How often it is looked whether something is due to be told.
const TICK: Duration = Duration::from_secs(1);
/// Files that never become quiet are not waited for longer than this.
const PATIENCE: Duration = Duration::from_secs(1);
/// How long a reload waits for the last comparison of what was watched before.
const HANDOVER: Duration = Duration::from_secs(60);
/// The inotify watches of one user where that cannot be read: the kernel's least.
const LEAST_WATCHES: usize = 8_192;

/// The file watch of a running egret. Without `files:` in the policy it watches nothing.
pub(crate) struct Monitor {
    outlets: Outlets,
    own: Vec<Own>,
    running: Mutex<Option<Running>>,
    exchange: watch::Sender<Exchange>,
}

/// What becomes of a watch when the policy is read again.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Exchange {
    /// What runs is what the policy wants.
    Done,
    /// One has ended, the next does not run yet.
    UnderWay,
    /// The next could not be started.
    Failed,
}

/// A file of egret's own, beside those that the policy names.
#[derive(Clone, Debug)]
pub(crate) struct Own {
    pub(crate) path: PathBuf,
    pub(crate) kind: Kind,
}

/// What a file of egret's own is to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// It reads it.
    Input,
    /// It runs it. Where no baseline says how it should be, a start need not wait until it is read.
    Program,
    /// It writes at its end.
    Journal,
}

struct Running {
    files: Files,
    trees: Vec<Tree>,
    /// Which baseline; `None` if there is none.
    manifest: Option<String>,
    watch: Watch,
    teller: Arc<Mutex<Teller>>,
    /// Whether the first comparison is done.
    compared: watch::Receiver<bool>,
    /// That the watch ended by itself was told.
    told_end: bool,
}

/// What a policy wants watched, with all that must be read for it.
pub(crate) struct Prepared {
    files: Files,
    trusted: Option<Trusted>,
    approvals: Option<Approvals>,
}

/// What a watch that ended hands on to the next.
#[derive(Default)]
struct Former {
    trees: Vec<Tree>,
    view: View,
    manifest: Option<String>,
    carried: Carried,
}

impl Monitor {
    pub(crate) fn new(outlets: Outlets, own: Vec<Own>) -> Self {
        Self { outlets, own, running: Mutex::new(None), exchange: watch::Sender::new(Exchange::Done) }
    }

    /// Reads the baseline that a policy names. One that cannot be read, is no manifest, or is not signed as it should be
    /// is refused: there is no going on without it.
    pub(crate) fn prepare(&self, files: Option<&Files>) -> anyhow::Result<Option<Prepared>> {
        let Some(files) = files else { return Ok(None) };
        let read = || {
            let key = files.key.as_deref().map(PublicKey::find).transpose()?;
            let baseline = files.baseline.as_ref().map(|file| Trusted::load(Path::new(file), key.as_ref(), None));
            Ok::<_, anyhow::Error>((baseline.transpose()?, key))
        };
        let (trusted, key) = read().context("the baseline of `files:` is not taken").inspect_err(|error| {
            if self.running().is_none() {
                self.outlets.journal.write(Event::Coverage { section: "files", why: format!("{error:#}") });
            }
        })?;
        let expected = files.expected.as_ref().map(PathBuf::from).zip(key);
        let approvals = expected.map(|(file, key)| Approvals::new(file, key));
        Ok(Some(Prepared { files: files.clone(), trusted, approvals }))
    }

    /// Watches what another policy wants; nothing happens if that is what is watched. A path that was watched in the same
    /// way goes on from what was last seen, unless the baseline is another; others begin with the baseline. It blocks
    /// until what was watched before is compared once more.
    ///
    /// # Errors
    /// The watch cannot be started. Then nothing is watched any more, which is told, and readiness is off.
    pub(crate) fn serve(&self, prepared: Option<Prepared>) -> anyhow::Result<()> {
        if prepared.as_ref().is_some_and(|prepared| self.serves(prepared)) {
            return Ok(());
        }
        self.exchange.send_replace(Exchange::UnderWay);
        let served = self.exchange(prepared);
        self.exchange.send_replace(if served.is_ok() { Exchange::Done } else { Exchange::Failed });
        served
    }

    fn exchange(&self, prepared: Option<Prepared>) -> anyhow::Result<()> {
        let former = self.running().take();
        let Some(prepared) = prepared else {
            if let Some(former) = former {
                let teller = Arc::clone(&former.teller);
                let (_, complete) = former.hand_over();
                lock(&teller).ended(complete, Some("the policy names no files any more".to_owned()));
                metrics::files_covered(&Ledger::default());
            }
            // Nobody need wait for a comparison any more.
            self.outlets.readiness.compared();
            return Ok(());
        };
        let former = former.map(|running| running.hand_over().0).unwrap_or_default();
        match self.start(prepared, former) {
            Ok(running) => *self.running() = Some(running),
            Err(error) => {
                self.outlets.journal.write(Event::Coverage { section: "files", why: format!("{error:#}") });
                self.outlets.readiness.unhealthy(|| format!("{error:#}"));
                return Err(error);
            }
        }
        Ok(())
    }

    fn serves(&self, prepared: &Prepared) -> bool {
        let manifest = prepared.trusted.as_ref().map(|trusted| &trusted.id);
        let running = self.running();
        running.as_ref().is_some_and(|running| {
            running.watch.is_running() && running.files == prepared.files && running.manifest.as_ref() == manifest
        })
    }

    fn start(&self, prepared: Prepared, former: Former) -> anyhow::Result<Running> {
        let Prepared { files, mut trusted, approvals } = prepared;
        metrics::files_begin();
        let trees = self.trees(&files);
        let manifest = trusted.as_ref().map(|trusted| trusted.id.clone());
        let known = trusted.as_mut().map(Trusted::take_view).unwrap_or_default();
        let mut carried = former.carried.clone();
        let baseline = baseline(&trees, known, former, &manifest, &mut carried.learned);
        let mut teller = Teller::new(&files, trees.clone(), trusted.as_ref(), approvals, carried, self.outlets.clone());
        teller.begin();
        let teller = Arc::new(Mutex::new(teller));
        let (first, compared) = watch::channel(false);
        let (heard, readiness) = (Arc::clone(&teller), Arc::clone(&self.outlets.readiness));
        let tell = move |event| {
            let is_first = matches!(event, Seen::Compared { source: Source::Start, complete: true, .. });
            lock(&heard).hear(event);
            if is_first {
                readiness.compared();
                first.send_replace(true);
            }
        };
        let watch = Watch::start(roots(&trees), baseline, options(&files), tell).context("the file watch cannot be started")?;
        Ok(Running { files, trees, manifest, watch, teller, compared, told_end: false })
    }

    /// What the policy names, and egret's own files: by the path that leads there, and where that leads.
    fn trees(&self, files: &Files) -> Vec<Tree> {
        let named = [&files.baseline, &files.expected].into_iter().flatten().map(PathBuf::from);
        let named = named.flat_map(|path| [signature::beside(&path), path]);
        let key = files.key.as_ref().map(PathBuf::from).filter(|path| path.is_file());
        let still = named.chain(key).map(|path| Own { path, kind: Kind::Input });
        let mut trees = files.trees.clone();
        for Own { path, kind } in still.chain(self.own.iter().cloned()) {
            let ways = [in_shortest_form(&path), path.canonicalize().ok()];
            for path in ways.iter().flatten().filter_map(|path| path.to_str()) {
                own(&mut trees, path, kind);
            }
        }
        trees
    }

    /// Waits for the first comparison, if there is a watch.
    ///
    /// # Errors
    /// Why nothing should be started: what the comparison found, or that there was none.
    pub(crate) async fn allows_start(&self) -> Result<(), String> {
        let current = || self.running().as_ref().map(|running| running.compared.clone());
        let answer = |why: Option<&str>| self.outlets.stop.why().or(why.map(str::to_owned)).map_or(Ok(()), Err);
        let ended = "the file watch has ended before its first comparison was done";
        let mut exchange = self.exchange.subscribe();
        loop {
            let settled = exchange.wait_for(|state| *state != Exchange::UnderWay).await.map(|state| *state);
            if settled.is_ok_and(|state| state == Exchange::Failed) {
                return answer(Some(ended));
            }
            let Some(mut compared) = current() else { return answer(None) };
            if compared.wait_for(|done| *done).await.is_ok() {
                return answer(None);
            }
            let is_done = *exchange.borrow() == Exchange::Done;
            if is_done && current().is_some_and(|current| current.same_channel(&compared)) {
                return answer(Some(ended));
            }
        }
    }

    /// Tells what is due, looks whether other changes were approved, and whether the watch still watches. To be called
    /// every second; it reads files.
    fn tick(&self) {
        let mut running = self.running();
        let Some(running) = running.as_mut() else { return };
        let mut teller = lock(&running.teller);
        teller.look_for_approvals();
        teller.tick(false);
        metrics::files_covered(&running.watch.ledger());
        if !running.watch.is_running() && !std::mem::replace(&mut running.told_end, true) {
            let why = "the file watch has ended by itself: nothing is watched any more";
            teller.ended(false, Some(why.to_owned()));
            self.outlets.readiness.unhealthy(|| why.to_owned());
        }
    }

    /// What is watched, as far as anybody may know; `None` if nothing is.
    pub(crate) fn status(&self) -> Option<Value> {
        let running = self.running();
        running.as_ref().map(|running| status::json(&running.watch.ledger(), &lock(&running.teller), running.told_end))
    }

    fn running(&self) -> MutexGuard<'_, Option<Running>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Running {
    /// For a reload: what is not compared yet for the first time, the next watch begins anew.
    fn hand_over(self) -> (Former, bool) {
        let within = if *self.compared.borrow() { HANDOVER } else { Duration::ZERO };
        self.end(within)
    }

    /// What the next watch goes on from, and whether a last comparison was done `within` this time. Before the first
    /// comparison was done, or where the watch has ended by itself, there is no view to go on from.
    fn end(self, within: Duration) -> (Former, bool) {
        let runs = self.watch.is_running();
        let is_ready = runs && *self.compared.borrow();
        // A watch that ended by itself has no view, and would only say its fault again.
        let (view, complete) = if runs { self.watch.stop(within) } else { Default::default() };
        let mut teller = lock(&self.teller);
        teller.tick(true);
        let (trees, view) = if is_ready { (self.trees, view) } else { Default::default() };
        (Former { trees, view, manifest: self.manifest, carried: teller.carried.clone() }, complete)
    }
}

/// A file of egret's own among what is watched. What the policy says of the place it is in holds for it too.
fn own(trees: &mut Vec<Tree>, path: &str, kind: Kind) {
    if let Some(named) = trees.iter_mut().find(|tree| tree.path == path) {
        named.severity = Severity::Critical;
        return;
    }
    let around = roots(trees);
    let within = around.of(path.as_bytes()).and_then(|(root, _)| trees.iter().find(|tree| tree.path.as_bytes() == root));
    let mut tree = Tree::own(path, within);
    tree.how.later = kind == Kind::Program;
    if kind == Kind::Journal {
        tree.how.content = Content::Append;
    }
    trees.push(tree);
}

/// What files are compared with at first. Of `learned` those stay that go on.
fn baseline(trees: &[Tree], known: View, former: Former, manifest: &Option<String>, learned: &mut BTreeSet<Vec<u8>>) -> View {
    let (now, before) = (roots(trees), roots(&former.trees));
    let goes_on = |root: &[u8]| {
        let of = |trees: &[Tree]| trees.iter().find(|tree| tree.path.as_bytes() == root).cloned();
        former.manifest == *manifest && of(trees).zip(of(&former.trees)).is_some_and(|(now, before)| now.looks_as(&before))
    };
    let going: BTreeSet<Vec<u8>> = now.iter().map(|(root, _)| root.to_vec()).filter(|root| goes_on(root)).collect();
    learned.retain(|root| going.contains(root));
    let root_of = |roots: &Roots, path: &[u8]| roots.of(path).map(|(root, _)| root.to_vec());
    let mut view = known;
    view.entries.retain(|path, _| root_of(&now, path).is_some_and(|root| !going.contains(&root)));
    let seen = former.view.entries.into_iter().filter(|(path, _)| {
        let root = root_of(&now, path);
        root == root_of(&before, path) && root.is_some_and(|root| going.contains(&root))
    });
    view.entries.extend(seen);
    view
}

fn roots(trees: &[Tree]) -> Roots {
    Roots::new(trees.iter().map(|tree| (tree.path.as_bytes().to_vec(), tree.how.clone())))
}

fn lock(teller: &Mutex<Teller>) -> MutexGuard<'_, Teller> {
    teller.lock().unwrap_or_else(PoisonError::into_inner)
}

fn options(files: &Files) -> Options {
    let scan = scan::Options { share: files.hashing, ..scan::Options::default() };
    Options {
        scan,
        settle: files.settle,
        patience: PATIENCE.max(files.settle * 2),
        every: files.every,
        full: files.full,
        poll: files.poll,
        watches: budget(files.watches),
        suspects: true,
    }
}

/// So many percent of the inotify watches that this user has.
fn budget(percent: u8) -> usize {
    egret_inotify_fim::watch::most_watches().unwrap_or(LEAST_WATCHES).saturating_mul(usize::from(percent)) / 100
}

/// The absolute path of a file whose folder exists.
fn in_shortest_form(path: &Path) -> Option<PathBuf> {
    let absolute = std::path::absolute(path).ok()?;
    Some(absolute.parent()?.canonicalize().ok()?.join(absolute.file_name()?))
}

/// Tells what is due, once a second, for ever.
pub(crate) async fn tell_in_time(monitor: Arc<Monitor>) {
    let mut tick = tokio::time::interval(TICK);
    loop {
        tick.tick().await;
        let monitor = Arc::clone(&monitor);
        // It fails only if it panicked, and the next may not.
        let _ = tokio::task::spawn_blocking(move || monitor.tick()).await;
    }
}

/// Ends the watch, with a last comparison if that is done within `most`; whether it was is told.
pub(crate) async fn finish(monitor: &Monitor, most: Duration) {
    let Some(running) = monitor.running().take() else { return };
    let teller = Arc::clone(&running.teller);
    // What is told at the end takes time as well.
    let within = most * 4 / 5;
    let ended = tokio::time::timeout(most, tokio::task::spawn_blocking(move || running.end(within).1)).await;
    lock(&teller).ended(matches!(ended, Ok(Ok(true))), None);
}

#[cfg(test)]
mod tests;
