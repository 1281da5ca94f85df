//! A reconciler without threads: events are read when the test says so.

use std::collections::BTreeSet;
use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use rustix::fs::inotify::{self, CreateFlags};
use tempfile::TempDir;

use crate::fingerprint::{Fingerprint, Kind};
use crate::roots::Roots;
use crate::scan;
use crate::view::{Change, Difference, View, compare};
use crate::watch::event::{Event, Source};
use crate::watch::reconcile::Reconciler;
use crate::watch::{Options, reader};

/// A watched root, a folder beside it, and a reader that reads when it is told.
pub(super) struct World {
    pub(super) folder: TempDir,
    pub(super) inotify: Arc<OwnedFd>,
    pub(super) reconciler: Reconciler,
    pub(super) events: Vec<Event>,
}

pub(super) fn instance() -> OwnedFd {
    inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK).unwrap()
}

pub(super) fn bytes(path: &Path) -> Vec<u8> {
    path.as_os_str().as_bytes().to_vec()
}

impl World {
    pub(super) fn new() -> Self {
        Self::with(|_| {})
    }

    /// With what `prepare` makes in the root before it is watched.
    pub(super) fn with(prepare: impl Fn(&Path)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir_all(folder.path().join("root")).unwrap();
        fs::create_dir_all(folder.path().join("outside")).unwrap();
        prepare(&folder.path().join("root"));
        let inotify = Arc::new(instance());
        let roots = Roots::from_iter([bytes(&folder.path().join("root"))]);
        let reconciler = Reconciler::new(roots, View::default(), &options(), Some(Arc::clone(&inotify)));
        let mut world = Self { folder, inotify, reconciler, events: Vec::new() };
        world.start();
        world
    }

    /// Anew, with other roots or another baseline.
    pub(super) fn restart(&mut self, roots: Roots, baseline: View, options: &Options) {
        self.restart_with(instance(), roots, baseline, options);
    }

    /// The same with this instance of inotify.
    pub(super) fn restart_with(&mut self, inotify: OwnedFd, roots: Roots, baseline: View, options: &Options) {
        self.inotify = Arc::new(inotify);
        self.reconciler = Reconciler::new(roots, baseline, options, Some(Arc::clone(&self.inotify)));
    }

    /// The first comparison; what it tells is forgotten.
    pub(super) fn start(&mut self) {
        self.first();
        self.drain();
        self.events.clear();
    }

    /// The first comparison alone.
    pub(super) fn first(&mut self) {
        let looked = self.reconciler.start(&mut |event| self.events.push(event));
        self.events.extend(looked.last);
    }

    /// Reads and compares until nothing is left.
    pub(super) fn drain(&mut self) {
        loop {
            while self.read() || self.reconciler.is_dirty() {
                self.reconcile();
            }
            let ended = self.reconciler.end_round();
            self.events.extend(ended.into_iter().flat_map(|looked| looked.last));
            // A file that was changed a moment ago is not read yet.
            if self.reconciler.waiting() == 0 && !self.reconciler.is_rereading() {
                return;
            }
            self.reconciler.read_on(Instant::now());
        }
    }

    /// Compares what is owed, as the next poll would.
    pub(super) fn poll(&mut self) {
        if self.reconciler.polls() {
            self.reconciler.compare(Source::Poll, &mut |event| self.events.push(event));
            self.drain();
        }
    }

    pub(super) fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join("root").join(name)
    }

    /// How many directories are above the root: each has a watch.
    pub(super) fn above(&self) -> usize {
        let root = fs::canonicalize(self.folder.path()).unwrap();
        root.ancestors().count()
    }

    pub(super) fn outside(&self, name: &str) -> PathBuf {
        self.folder.path().join("outside").join(name)
    }

    /// Reads what waits; whether there was any.
    pub(super) fn read(&mut self) -> bool {
        let mut any = false;
        let mut buffer = vec![0; 4096];
        loop {
            let batch = reader::read(&self.inotify, &mut buffer).unwrap();
            if batch.is_empty() {
                return any;
            }
            any = true;
            batch.iter().for_each(|note| self.reconciler.take(note, &mut |event| self.events.push(event)));
        }
    }

    pub(super) fn reconcile(&mut self) {
        self.reconciler.begin_repair();
        let looked = self.reconciler.reconcile(&mut |event| self.events.push(event));
        self.events.extend(looked.last);
    }

    /// Reads and compares until nothing is left; gives what was told.
    pub(super) fn settle(&mut self) -> Vec<Event> {
        self.drain();
        self.assert_true();
        std::mem::take(&mut self.events)
    }

    /// The view is that of a fresh scan, and each of its directories is watched.
    pub(super) fn assert_true(&self) {
        let fresh = scan::scan(&self.reconciler.roots, &View::default(), &self.reconciler.options);
        assert_eq!(compare(&self.reconciler.view, &fresh.view), []);
        let is_directory =
            |(path, print): (&crate::view::Path, &Arc<Fingerprint>)| (print.kind == Kind::Directory).then(|| path.to_vec());
        let directories: BTreeSet<Vec<u8>> = fresh.view.entries.iter().filter_map(is_directory).collect();
        let root = self.reconciler.roots.iter().next().unwrap().0;
        let watched: BTreeSet<Vec<u8>> = self.reconciler.armed.directories(root).cloned().collect();
        assert_eq!(watched, directories);
    }

    /// What was told since, as change and name.
    pub(super) fn told(&mut self) -> Vec<(String, String)> {
        let events = self.settle();
        self.names(events)
    }

    /// The same where not everything is watched.
    pub(super) fn told_so_far(&mut self) -> Vec<(String, String)> {
        self.drain();
        let events = std::mem::take(&mut self.events);
        self.names(events)
    }

    pub(super) fn names(&self, events: Vec<Event>) -> Vec<(String, String)> {
        let root = self.at("");
        let name = |path: &[u8]| String::from_utf8_lossy(&path[root.as_os_str().len()..]).into_owned();
        let told = events.into_iter().map(|event| match event {
            Event::Changed { difference, .. } => {
                let Difference { path, change, .. } = *difference;
                let change = match change {
                    Change::Moved { from } => format!("moved from {}", name(&from)),
                    other => format!("{other:?}").to_lowercase(),
                };
                (change, name(&path))
            }
            Event::Transient { path, .. } => ("transient".into(), name(&path)),
            other => (format!("{other:?}"), String::new()),
        });
        told.collect()
    }
}

pub(super) fn told<const N: usize>(events: [(&str, &str); N]) -> Vec<(String, String)> {
    events.map(|(change, name)| (change.into(), name.into())).to_vec()
}

/// One thread, no looking for writers.
pub(super) fn options() -> Options {
    let scan = scan::Options { threads: 1, ..scan::Options::default() };
    Options { scan, suspects: false, watches: usize::MAX, ..Options::default() }
}
