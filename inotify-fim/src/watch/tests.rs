use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::mpsc;

use super::*;
use crate::view::Change;

fn bytes(path: &Path) -> Vec<u8> {
    path.as_os_str().as_bytes().to_vec()
}

fn quick() -> Options {
    Options { settle: Duration::from_millis(20), patience: Duration::from_millis(200), ..Options::default() }
}

/// A watch on a folder, ready, with what it tells.
fn watch(root: &Path, baseline: Option<View>, options: Options) -> (Watch, Vec<Event>, mpsc::Receiver<Event>) {
    let (send, told) = mpsc::channel();
    let tell = move |event| drop(send.send(event));
    let watch = Watch::start(Roots::from_iter([bytes(root)]), baseline, options, tell).unwrap();
    let is_ready = |event: &Event| matches!(event, Event::Compared { source: Source::Start, .. });
    let mut first = Vec::new();
    while !first.last().is_some_and(is_ready) {
        first.push(told.recv_timeout(Duration::from_secs(10)).unwrap());
    }
    (watch, first, told)
}

fn changes(events: impl IntoIterator<Item = Event>) -> Vec<(Change, Vec<u8>, Source)> {
    let change = |event| match event {
        Event::Changed { difference, source } => Some((difference.change, difference.path.to_vec(), source)),
        _ => None,
    };
    events.into_iter().filter_map(change).collect()
}

#[test]
fn a_change_is_told_while_it_runs_and_the_last_ones_when_it_stops() {
    let folder = tempfile::tempdir().unwrap();
    let (running, first, told) = watch(folder.path(), None, quick());
    assert_eq!(changes(first), [], "what is there is learned");
    let (one, two) = (folder.path().join("one"), folder.path().join("two"));
    fs::write(&one, "x").unwrap();
    let event = told.recv_timeout(Duration::from_secs(10)).unwrap();
    assert_eq!(changes([event]), [(Change::Created, bytes(&one), Source::Event)]);
    fs::write(&two, "x").unwrap();
    let view = running.stop();
    assert_eq!(changes(told), [(Change::Created, bytes(&two), Source::Event)]);
    assert_eq!(
        view.entries.keys().map(|path| path.to_vec()).collect::<Vec<_>>(),
        [bytes(folder.path()), bytes(&one), bytes(&two)]
    );
}

#[test]
fn what_changed_while_nobody_watched_is_told_at_the_start() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("f");
    fs::write(&file, "old").unwrap();
    let (running, ..) = watch(folder.path(), None, quick());
    let baseline = running.stop().portable();
    let times = fs::metadata(&file).unwrap().modified().unwrap();
    fs::write(&file, "new").unwrap();
    fs::File::options().append(true).open(&file).unwrap().set_modified(times).unwrap();
    let (_running, first, _told) = watch(folder.path(), Some(baseline), quick());
    assert_eq!(changes(first), [(Change::Modified, bytes(&file), Source::Start)], "though size and time are the old ones");
}

#[test]
fn endless_events_do_not_keep_it_from_looking() {
    let folder = tempfile::tempdir().unwrap();
    let (running, _, told) = watch(folder.path(), None, quick());
    let (busy, quiet) = (folder.path().join("busy"), folder.path().join("quiet"));
    fs::write(&quiet, "x").unwrap();
    let start = Instant::now();
    let mut seen = Vec::new();
    while !seen.iter().any(|(_, path, _)| *path == bytes(&quiet)) {
        fs::write(&busy, format!("{:?}", Instant::now())).unwrap();
        seen.extend(changes(told.try_iter()));
        assert!(start.elapsed() < Duration::from_secs(10));
    }
    drop(running);
}

#[test]
fn what_causes_no_event_is_found_on_schedule() {
    let folder = tempfile::tempdir().unwrap();
    let outside = tempfile::tempdir_in(folder.path().parent().unwrap()).unwrap();
    let file = folder.path().join("f");
    fs::write(&file, "x").unwrap();
    fs::hard_link(&file, outside.path().join("other name")).unwrap();
    let (_running, _, told) = watch(folder.path(), None, Options { every: Duration::from_millis(300), ..quick() });
    fs::write(outside.path().join("other name"), "y").unwrap();
    let end = Instant::now() + Duration::from_secs(10);
    let event = std::iter::repeat_with(|| told.recv_timeout(end.saturating_duration_since(Instant::now())).unwrap())
        .find(|event| matches!(event, Event::Changed { .. }));
    assert_eq!(changes(event), [(Change::Modified, bytes(&file), Source::Schedule)]);
}

#[test]
fn that_it_has_ended_can_be_seen_and_the_longest_times_do_no_harm() {
    let folder = tempfile::tempdir().unwrap();
    let endless = Options { settle: Duration::ZERO, patience: Duration::MAX, every: Duration::MAX, ..Options::default() };
    let (running, ..) = watch(folder.path(), None, endless.clone());
    assert!(running.is_running());
    let refuses = |event| assert!(!matches!(event, Event::Changed { .. }), "what a test throws");
    let fails = Watch::start(Roots::from_iter([bytes(folder.path())]), Some(View::default()), endless, refuses).unwrap();
    let end = Instant::now() + Duration::from_secs(10);
    while fails.is_running() {
        assert!(Instant::now() < end);
        thread::sleep(Duration::from_millis(5));
    }
    assert!(running.is_running());
}

#[test]
fn a_reader_that_cannot_hand_on_says_so_and_does_not_wait() {
    let folder = tempfile::tempdir().unwrap();
    let inotify = inotify::init(CreateFlags::NONBLOCK).unwrap();
    inotify::add_watch(&inotify, folder.path(), inotify::WatchFlags::CREATE).unwrap();
    let stop = eventfd(1, EventfdFlags::NONBLOCK).unwrap();
    for n in 0..5000 {
        fs::write(folder.path().join(n.to_string()), "").unwrap();
    }
    let (send, notes) = channel();
    let backlog = Backlog::default();
    reader::run(&inotify, &stop, &send, &backlog, 3000);
    assert!(backlog.lost.load(Ordering::Acquire));
    let kept = notes.try_iter().map(|batch| batch.len()).sum::<usize>();
    assert!((1..=3000).contains(&kept), "{kept}");
}
