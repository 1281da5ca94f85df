use std::fs;
use std::thread;

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
