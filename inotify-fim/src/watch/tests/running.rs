//! The watch as a whole, with its threads.

use std::fs;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use rustix::fs::inotify;

use super::world::bytes;
use crate::roots::Roots;
use crate::view::{Change, View};
use crate::watch::event::{Event, Source};
use crate::watch::shared::{Message, Shared};
use crate::watch::{Certainty, Options, Watch, reader};

const LONG: Duration = Duration::from_secs(600);

fn quick() -> Options {
    Options { settle: Duration::from_millis(20), patience: Duration::from_millis(200), suspects: false, ..Options::default() }
}

/// A watch on a folder, ready, with what it tells.
fn watch(root: &Path, baseline: View, options: Options) -> (Watch, Vec<Event>, mpsc::Receiver<Event>) {
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
        Event::Changed { difference, source, .. } => Some((difference.change, difference.path.to_vec(), source)),
        _ => None,
    };
    events.into_iter().filter_map(change).collect()
}

#[test]
fn a_change_is_told_while_it_runs_and_the_last_ones_when_it_stops() {
    let folder = tempfile::tempdir().unwrap();
    let (running, first, told) = watch(folder.path(), View::default(), quick());
    assert_eq!(changes(first), [], "what is there is learned");
    let (one, two) = (folder.path().join("one"), folder.path().join("two"));
    fs::write(&one, "x").unwrap();
    let event = told.recv_timeout(Duration::from_secs(10)).unwrap();
    assert_eq!(changes([event]), [(Change::Created, bytes(&one), Source::Event)]);
    fs::write(&two, "x").unwrap();
    let view = running.stop(LONG).0;
    assert_eq!(changes(told), [(Change::Created, bytes(&two), Source::Event)]);
    assert_eq!(
        view.entries.keys().map(|path| path.to_vec()).collect::<Vec<_>>(),
        [bytes(folder.path()), bytes(&one), bytes(&two)]
    );
}

#[test]
fn a_stop_that_has_no_time_says_so_and_loses_nothing() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("old"), "x").unwrap();
    let (running, _, told) = watch(folder.path(), View::default(), quick());
    let made = folder.path().join("made");
    for n in 0..20 {
        fs::File::create(folder.path().join(n.to_string())).unwrap().set_len(1 << 30).unwrap();
    }
    let (view, complete) = running.stop(Duration::ZERO);
    fs::remove_file(folder.path().join("old")).unwrap();
    fs::write(&made, "x").unwrap();
    assert!(!complete);
    assert!(told.iter().any(|event| matches!(event, Event::Compared { source: Source::End, complete: false, .. })));
    for n in 0..20 {
        fs::remove_file(folder.path().join(n.to_string())).unwrap();
    }
    let (_running, first, _told) = watch(folder.path(), view, quick());
    let found = changes(first);
    assert!(found.contains(&(Change::Created, bytes(&made), Source::Start)), "{found:?}");
    assert!(found.contains(&(Change::Deleted, bytes(&folder.path().join("old")), Source::Start)), "{found:?}");
}

#[test]
fn c13_g01_what_changed_while_nobody_watched_is_told_at_the_start() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("f");
    fs::write(&file, "old").unwrap();
    let (running, ..) = watch(folder.path(), View::default(), quick());
    let baseline = running.stop(LONG).0.portable();
    let times = fs::metadata(&file).unwrap().modified().unwrap();
    fs::write(&file, "new").unwrap();
    fs::File::options().append(true).open(&file).unwrap().set_modified(times).unwrap();
    let (_running, first, _told) = watch(folder.path(), baseline, quick());
    assert_eq!(changes(first), [(Change::Modified, bytes(&file), Source::Start)], "though size and time are the old ones");
}

#[test]
fn a13_endless_events_do_not_keep_it_from_looking() {
    let folder = tempfile::tempdir().unwrap();
    let (running, _, told) = watch(folder.path(), View::default(), quick());
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
fn what_causes_no_event_is_found_on_schedule_and_says_since_when() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("f");
    fs::write(&file, "x").unwrap();
    let script = "import mmap, sys\nf = open(sys.argv[1], 'r+b')\nm = mmap.mmap(f.fileno(), 1)\nf.close()\n\
                  print('mapped', flush=True)\nsys.stdin.readline()\nm[0] = 121\nsys.stdin.readline()\n";
    let mut command = std::process::Command::new("python3");
    command.args(["-c", script]).arg(&file);
    let child = command.stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::piped()).spawn();
    let Ok(mut child) = child else { return eprintln!("NOT TESTED: no python3 to map a file") };
    let mut line = String::new();
    std::io::BufRead::read_line(&mut std::io::BufReader::new(child.stdout.as_mut().unwrap()), &mut line).unwrap();
    assert_eq!(line, "mapped\n");
    let (running, _, told) = watch(folder.path(), View::default(), Options { every: Duration::from_millis(300), ..quick() });
    std::io::Write::write_all(child.stdin.as_mut().unwrap(), b"now\n").unwrap();
    let event = until(&told, |event| matches!(event, Event::Changed { .. }));
    let Event::Changed { difference, source, since, .. } = event else { panic!("{event:?}") };
    assert_eq!((difference.change, difference.path.to_vec(), source), (Change::Modified, bytes(&file), Source::Schedule));
    assert!(since.is_some_and(|since| since <= SystemTime::now()));
    drop(child.stdin.take());
    child.wait().unwrap();
    drop(running);
}

#[test]
fn b16_a_directory_above_a_root_that_is_swapped_is_told_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("a/b/root");
    fs::create_dir_all(&root).unwrap();
    fs::write(root.join("f"), "x").unwrap();
    let (running, _, told) = watch(&root, View::default(), quick());
    let swapped = |event: &Event| matches!(event, Event::Changed { source: Source::Event, difference, .. } if difference.path.ends_with(b"f"));
    fs::rename(folder.path().join("a"), folder.path().join("old")).unwrap();
    fs::create_dir_all(&root).unwrap();
    fs::write(root.join("f"), "evil").unwrap();
    until(&told, swapped);
    fs::write(root.join("g"), "").unwrap();
    let made = |event: &Event| matches!(event, Event::Changed { difference, .. } if difference.path.ends_with(b"g"));
    until(&told, made);
    drop(running);
}

#[test]
fn reading_that_fails_is_noticed_at_once() {
    let shared = Shared::of(rustix::fs::open("/", rustix::fs::OFlags::RDONLY, rustix::fs::Mode::empty()).unwrap());
    let (send, messages) = mpsc::channel();
    shared.end();
    reader::run(&shared, send, 3000);
    assert!(shared.lost.load(Ordering::Acquire));
    let messages: Vec<Message> = messages.into_iter().collect();
    assert!(matches!(&messages[..], [Message::Notes(none), Message::End] if none.is_empty()), "{messages:?}");
}

#[test]
fn that_it_has_ended_can_be_seen_and_the_longest_times_do_no_harm() {
    let folder = tempfile::tempdir().unwrap();
    let [patience, every, full, poll] = [Duration::MAX; 4];
    let endless = Options { settle: Duration::ZERO, patience, every, full, poll, ..Options::default() };
    let (running, ..) = watch(folder.path(), View::default(), endless.clone());
    assert!(running.is_running());
    let refuses = |_| panic!("what a test throws");
    let fails = Watch::start(Roots::from_iter([bytes(folder.path())]), View::default(), endless, refuses).unwrap();
    let end = Instant::now() + Duration::from_secs(10);
    while fails.is_running() {
        assert!(Instant::now() < end);
        thread::sleep(Duration::from_millis(5));
    }
    assert!(running.is_running());
}

#[test]
fn a15_a_reader_that_cannot_hand_on_says_so_and_does_not_wait() {
    let folder = tempfile::tempdir().unwrap();
    let shared = Shared::new().unwrap();
    inotify::add_watch(shared.inotify().unwrap(), folder.path(), inotify::WatchFlags::CREATE).unwrap();
    for n in 0..5000 {
        fs::write(folder.path().join(n.to_string()), "").unwrap();
    }
    let (send, messages) = mpsc::channel();
    shared.end();
    reader::run(&shared, send, 3000);
    assert!(shared.lost.load(Ordering::Acquire));
    let messages: Vec<Message> = messages.into_iter().collect();
    assert!(matches!(messages.last(), Some(Message::End)));
    let kept: usize = messages.iter().map(|message| if let Message::Notes(batch) = message { batch.len() } else { 0 }).sum();
    assert!((1..=3000).contains(&kept), "{kept}");
    assert!(shared.high_water.load(Ordering::Acquire) >= kept);
}

/// Waits for an event.
fn until(told: &mpsc::Receiver<Event>, wanted: impl Fn(&Event) -> bool) -> Event {
    let end = Instant::now() + Duration::from_secs(20);
    std::iter::repeat_with(|| told.recv_timeout(end.saturating_duration_since(Instant::now())).unwrap())
        .find(|event| wanted(event))
        .unwrap()
}

#[test]
fn who_holds_a_file_open_for_writing_is_told_with_its_change() {
    let folder = tempfile::tempdir().unwrap();
    let (running, _, told) = watch(folder.path(), View::default(), Options { suspects: true, ..quick() });
    let file = folder.path().join("f");
    let mut command = std::process::Command::new("sh");
    command.arg("-c").arg("exec 3>>\"$0\"; while echo x >&3; do read -r line || exit; done").arg(&file);
    let mut child = command.stdin(std::process::Stdio::piped()).spawn().unwrap();
    let mut suspects = Vec::new();
    // One look may come too early, or another too soon after it.
    while suspects.is_empty() {
        std::io::Write::write_all(child.stdin.as_mut().unwrap(), b"again\n").unwrap();
        let Event::Changed { suspects: seen, .. } = until(&told, |event| matches!(event, Event::Changed { .. })) else {
            panic!()
        };
        suspects = seen;
    }
    assert_eq!(suspects[0].pid, child.id());
    assert!(matches!(suspects[0].certainty, Certainty::Sole | Certainty::SoleVisible));
    drop(child.stdin.take());
    child.wait().unwrap();
    assert!(running.ledger().hidden_processes.is_some());
}

#[test]
fn g05_after_a_reload_nothing_is_lost_or_told_twice() {
    let folder = tempfile::tempdir().unwrap();
    let [stays, goes, comes] = ["stays", "goes", "comes"].map(|name| folder.path().join(name));
    for root in [&stays, &goes, &comes] {
        fs::create_dir(root).unwrap();
        fs::write(root.join("old"), "").unwrap();
    }
    let start = |names: [&Path; 2], baseline| {
        let (send, told) = mpsc::channel();
        let roots = Roots::from_iter(names.map(bytes));
        (Watch::start(roots, baseline, quick(), move |event| drop(send.send(event))).unwrap(), told)
    };
    let (first, told) = start([&stays, &goes], View::default());
    until(&told, |event| matches!(event, Event::Compared { source: Source::Start, .. }));
    fs::write(stays.join("before"), "").unwrap();
    let baseline = first.stop(LONG).0;
    assert_eq!(changes(told).len(), 1);
    for root in [&stays, &goes, &comes] {
        fs::write(root.join("between"), "").unwrap();
    }
    let (second, told) = start([&stays, &comes], baseline);
    let mut events = Vec::new();
    while !matches!(events.last(), Some(Event::Compared { source: Source::Start, .. })) {
        events.push(told.recv_timeout(Duration::from_secs(20)).unwrap());
    }
    let learned = events.iter().filter(|event| matches!(event, Event::Learned { .. })).collect::<Vec<_>>();
    assert_eq!(learned, [&Event::Learned { root: bytes(&comes) }]);
    assert_eq!(changes(events), [(Change::Created, bytes(&stays.join("between")), Source::Start)]);
    let ledger = second.ledger();
    assert_eq!(ledger.roots.iter().map(|root| (root.learned, root.entries)).collect::<Vec<_>>(), [(true, 3), (false, 4)]);
    let view = second.stop(LONG).0;
    assert!(view.tree(&bytes(&goes)).next().is_none());
    assert_eq!(changes(told), []);
}

#[test]
fn a_comparison_can_be_asked_for_and_the_ledger_tells_what_is_covered() {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("d")).unwrap();
    let (running, _, told) = watch(folder.path(), View::default(), quick());
    running.compare();
    until(&told, |event| matches!(event, Event::Compared { source: Source::Schedule, entries: 2, .. }));
    let end = Instant::now() + Duration::from_secs(20);
    let proven =
        |running: &Watch| running.ledger().mounts.first().is_some_and(|mount| mount.proof == crate::ledger::Proof::Proven);
    while !proven(&running) {
        assert!(Instant::now() < end, "{:?}", running.ledger());
        thread::sleep(Duration::from_millis(5));
    }
    let ledger = running.ledger();
    assert_eq!((ledger.entries, ledger.roots.len(), ledger.gaps, ledger.polled), (2, 1, 0, 0));
    assert_eq!(ledger.watched, 2 + fs::canonicalize(folder.path()).unwrap().ancestors().count() - 1, "and those above");
    assert!(
        ledger.inotify && ledger.roots[0].present && ledger.roots[0].learned && ledger.compared.contains_key(&Source::Schedule)
    );
    let (_, complete) = running.stop(LONG);
    assert!(complete);
    assert!(told.iter().any(|event| matches!(event, Event::Compared { source: Source::End, .. })));
}

#[test]
fn a_full_comparison_reads_everything() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("f"), "x").unwrap();
    let (_running, _, told) = watch(folder.path(), View::default(), Options { full: Duration::from_millis(50), ..quick() });
    until(&told, |event| matches!(event, Event::Compared { source: Source::Full, .. }));
}

#[test]
fn g03_b02_what_is_made_while_a_tree_is_first_looked_at_is_not_lost() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().to_path_buf();
    let makes = thread::spawn({
        let root = root.clone();
        move || {
            for n in 0..500 {
                let directory = root.join(format!("{}/{n}", n % 10));
                fs::create_dir_all(&directory).unwrap();
                fs::write(directory.join("file"), "x").unwrap();
            }
        }
    });
    let (running, ..) = watch(&root, View::default(), quick());
    makes.join().unwrap();
    assert_eq!(running.stop(LONG).0.entries.len(), 1 + 10 + 500 + 500);
}

#[test]
fn g12_a_fault_is_told_and_can_be_seen() {
    let folder = tempfile::tempdir().unwrap();
    let (send, told) = mpsc::channel();
    let tell = move |event| {
        assert!(!matches!(event, Event::Changed { .. }), "what a test throws");
        drop(send.send(event));
    };
    let running = Watch::start(Roots::from_iter([bytes(folder.path())]), View::default(), quick(), tell).unwrap();
    until(&told, |event| matches!(event, Event::Compared { source: Source::Start, .. }));
    fs::write(folder.path().join("f"), "").unwrap();
    let end = until(&told, |event| matches!(event, Event::Ended { .. }));
    assert_eq!(end, Event::Ended { why: "what a test throws".into() });
    assert!(told.recv_timeout(Duration::from_secs(20)).is_err(), "nobody is left to tell more");
    while running.is_running() {
        thread::yield_now();
    }
}

#[test]
fn c03_what_is_written_before_a_file_has_its_watch_is_looked_at_soon() {
    let folder = tempfile::tempdir().unwrap();
    let (root, other) = (folder.path().join("root"), folder.path().join("other"));
    fs::create_dir(&root).unwrap();
    fs::write(&other, "one").unwrap();
    let (send, told) = mpsc::channel();
    let elsewhere = other.clone();
    let tell = move |event| {
        // It was looked at, and is not watched yet.
        if matches!(&event, Event::Changed { difference, .. } if difference.change == Change::Created) {
            fs::write(&elsewhere, "two").unwrap();
        }
        drop(send.send(event));
    };
    let _running = Watch::start(Roots::from_iter([bytes(&root)]), View::default(), quick(), tell).unwrap();
    until(&told, |event| matches!(event, Event::Compared { source: Source::Start, .. }));
    fs::hard_link(&other, root.join("f")).unwrap();
    let modified = |event: &Event| matches!(event, Event::Changed { difference, .. } if difference.change == Change::Modified);
    until(&told, modified);
}
