use std::fs;
use std::thread;
use std::time::SystemTime;

use egret_inotify_fim::scan::Uncovered;
use egret_inotify_fim::watch::Cause;
use tempfile::TempDir;

use super::*;
use crate::config;
use crate::config::source::Text;
use crate::journal::{Journal, WhenFull};
use crate::readiness::Readiness;
use crate::stop::Stop;

/// A monitor of one folder.
struct Scene {
    folder: TempDir,
    monitor: Monitor,
}

impl Scene {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("app")).unwrap();
        let (journal, _writer) = Journal::open("/dev/null", WhenFull::default()).unwrap();
        let outlets = Outlets { journal, readiness: Arc::new(Readiness::default()), stop: Stop::default() };
        Self { folder, monitor: Monitor::new(outlets, Vec::new()) }
    }

    /// As a reload of the policy does it, which is the same each time.
    fn reload(&self) {
        let app = self.folder.path().join("app");
        let yaml = format!("version: 1\nfiles:\n  watch: [{{ path: {} }}]\n", app.display());
        let files = config::load(&Text { origin: "a policy".to_owned(), yaml }, None).unwrap().files;
        self.monitor.serve(self.monitor.prepare(files.as_ref()).unwrap()).unwrap();
    }

    /// Waits for the first comparison of the watch that runs now.
    fn compared(&self) -> Result<(), String> {
        tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(self.monitor.allows_start())
    }

    /// Of the running watch.
    fn with<T>(&self, act: impl FnOnce(&mut Running) -> T) -> T {
        act(self.monitor.running().as_mut().unwrap())
    }

    fn told(&self) -> u64 {
        self.with(|running| lock(&running.teller).carried.seq)
    }
}

/// A watch that has ended by a fault of its own.
fn faulty(trees: &[Tree], files: &Files) -> Watch {
    let watch = Watch::start(roots(trees), View::default(), options(files), |_| panic!("a fault")).unwrap();
    while watch.is_running() {
        thread::yield_now();
    }
    watch
}

#[test]
fn a_reload_begins_a_watch_anew_that_ended_by_itself() {
    let scene = Scene::new();
    scene.reload();
    assert_eq!(scene.compared(), Ok(()));
    scene.with(|running| running.watch = faulty(&running.trees, &running.files));
    scene.monitor.tick();
    assert!(scene.monitor.outlets.readiness.why_not().is_some(), "nothing is watched");
    let told = scene.told();
    scene.reload();
    assert!(scene.with(|running| running.watch.is_running()));
    assert_eq!(scene.compared(), Ok(()));
    assert!(scene.told() > told, "the numbers go on: {} after {told}", scene.told());
}

#[test]
fn a_reload_leaves_a_watch_alone_that_still_watches() {
    let scene = Scene::new();
    scene.reload();
    assert_eq!(scene.compared(), Ok(()));
    let teller = scene.with(|running| Arc::clone(&running.teller));
    scene.reload();
    assert!(scene.with(|running| Arc::ptr_eq(&running.teller, &teller)));
}

/// What a teller whose policy says this of losses does about one: whether it is ready still, and goes on.
fn does(unseen: &str, seen: Seen) -> (bool, bool) {
    let Scene { monitor, .. } = Scene::new();
    let yaml = format!("version: 1\nfiles: {{ unseen: {unseen}, watch: [{{ path: /app }}] }}\n");
    let files = config::load(&Text { origin: "a policy".to_owned(), yaml }, None).unwrap().files.unwrap();
    let trees = files.trees.clone();
    let mut teller = Teller::new(&files, trees, None, None, Carried::default(), monitor.outlets.clone());
    teller.hear(seen);
    (monitor.outlets.readiness.why_not().is_none(), monitor.outlets.stop.why().is_none())
}

#[test]
fn what_is_not_seen_means_what_the_policy_says() {
    let lost = |why| Seen::CoverageLost { path: b"/app/d".to_vec(), why };
    let gap = Seen::GapOpened { cause: Cause::Kernel, start: SystemTime::now() };
    let unseen = [gap, lost(Uncovered::Unreadable(13)), lost(Uncovered::TooMany)];
    for seen in unseen {
        assert_eq!(does("alert", seen.clone()), (true, true), "{seen:?}");
        assert_eq!(does("unhealthy", seen.clone()), (false, true), "{seen:?}");
        assert_eq!(does("stop", seen.clone()), (true, false), "{seen:?}");
    }
    let gone = Uncovered::Unreadable(2);
    let known = [gone, Uncovered::Excluded, Uncovered::Kernel, Uncovered::OtherFileSystem];
    let polled = [Uncovered::NoWatch, Uncovered::NoEvents, Uncovered::Remote];
    for why in known.into_iter().chain(polled) {
        assert_eq!(does("stop", lost(why)), (true, true), "{why:?}");
    }
}
