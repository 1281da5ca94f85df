use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use super::*;

impl Sink for Vec<u8> {}
impl Sink for Then {}

fn gap(lost: u64) -> Event {
    Event::Gap { cause: "test", lost }
}

#[test]
fn what_was_lost_is_told_by_the_next_line_that_can_be_written() {
    let (queue, events) = sync_channel(1);
    let losses = Arc::new(Losses::default());
    let journal = Journal { queue, losses: Arc::clone(&losses) };
    for n in 0..4 {
        journal.write(gap(n));
    }
    let mut writer = Lines::new(Vec::new(), &losses);
    writer.write_batch(events.recv().ok().flatten(), &events);
    let text = String::from_utf8(writer.sink).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    assert!(lines.len() == 2 && lines[1].contains("\"journal_behind\",\"lost\":3"), "{text}");
    assert_eq!((losses.untold.load(Ordering::Relaxed), journal.has_failed()), (0, false));
}

#[test]
fn who_must_not_lose_a_line_is_told_with_the_first_that_is_lost() {
    let (queue, _events) = sync_channel(1);
    let losses = Arc::new(Losses { when_full: WhenFull::Stop, ..Losses::default() });
    let journal = Journal { queue, losses };
    journal.write(gap(1));
    assert!(!journal.has_failed());
    journal.write(gap(2));
    assert!(journal.has_failed());
}

#[test]
fn what_is_queued_while_the_last_batch_is_written_is_written_too() {
    /// Queues one more event as soon as it has taken a batch, and ends.
    struct Late<'a>(Vec<u8>, SyncSender<Option<Event>>, &'a AtomicBool);
    impl Write for Late<'_> {
        fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
            if !self.2.swap(true, Ordering::Release) {
                self.1.send(Some(gap(2))).unwrap();
            }
            self.0.write(octets)
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    impl Sink for Late<'_> {}
    let (queue, events) = sync_channel(8);
    queue.send(Some(gap(1))).unwrap();
    let end = AtomicBool::new(false);
    let mut writer = Lines::new(Late(Vec::new(), queue, &end), &Arc::default());
    writer.write_all(&events, &end);
    let text = String::from_utf8(writer.sink.0).unwrap();
    assert!(text.contains("\"lost\":1") && text.contains("\"lost\":2"), "{text}");
}

/// Takes this text and then does this.
struct Then(Vec<u8>, usize, fn() -> io::Result<usize>);

impl Write for Then {
    fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
        match self.1.min(octets.len()) {
            0 => (self.2)(),
            room => {
                self.1 -= room;
                self.0.write(&octets[..room])
            }
        }
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_batch_that_cannot_be_written_is_lost_and_counted() {
    let (queue, events) = sync_channel(8);
    queue.send(Some(gap(2))).unwrap();
    let losses = Arc::new(Losses { untold: AtomicU64::new(5), ..Losses::default() });
    let full = Then(Vec::new(), 0, || Err(io::ErrorKind::StorageFull.into()));
    Lines::new(full, &losses).write_batch(Some(gap(1)), &events);
    assert_eq!(losses.untold.load(Ordering::Relaxed), 5 + 2, "what was missed, and two of the three lines of this batch");
}

#[test]
fn half_a_line_is_ended_before_the_next_one_that_can_be_written() {
    let (_queue, events) = sync_channel(8);
    let losses = Arc::default();
    let mut writer = Lines::new(Then(Vec::new(), 10, || Err(io::ErrorKind::StorageFull.into())), &losses);
    (0..2).for_each(|_| writer.write_batch(Some(gap(1)), &events));
    writer.sink.1 = 1000;
    writer.write_batch(Some(gap(3)), &events);
    writer.write_batch(Some(gap(4)), &events);
    let text = String::from_utf8(writer.sink.0).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    assert!(lines.len() == 4 && lines[0].len() == 10 && lines[1..].iter().all(|line| line.ends_with('}')), "{text}");
    assert!(lines[2].contains("\"journal_behind\",\"lost\":2"), "{text}");
}

#[test]
fn a_panic_costs_what_was_in_hand_and_the_journal_goes_on() {
    let (queue, events) = sync_channel(8);
    let losses = Arc::new(Losses { untold: AtomicU64::new(5), ..Losses::default() });
    let (end, once) = (AtomicBool::new(false), AtomicBool::new(false));
    struct Panics<'a>(Vec<u8>, &'a AtomicBool, &'a AtomicBool, SyncSender<Option<Event>>);
    impl Write for Panics<'_> {
        fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
            if !self.1.swap(true, Ordering::Relaxed) {
                self.3.send(Some(gap(7))).unwrap();
                panic!("a bug, on purpose");
            }
            self.2.store(true, Ordering::Release);
            self.0.write(octets)
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    impl Sink for Panics<'_> {}
    queue.send(Some(gap(1))).unwrap();
    let mut writer = Lines::new(Panics(Vec::new(), &once, &end, queue), &losses);
    writer.write_all(&events, &end);
    let text = String::from_utf8(writer.sink.0).unwrap();
    assert!(text.contains("\"lost\":7") && text.contains("\"journal_behind\",\"lost\":7"), "5, one, and one for the bug: {text}");
}

/// A journal in a directory of its own, which ends egret where it must not lose a line.
struct Kept {
    folder: tempfile::TempDir,
    lines: Lines<Target>,
    losses: Arc<Losses>,
}

impl Kept {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let losses = Arc::new(Losses { when_full: WhenFull::Stop, ..Losses::default() });
        let target = Target::at(folder.path().join("journal").to_str().unwrap()).unwrap();
        let mut kept = Self { folder, lines: Lines::new(target, &losses), losses };
        kept.tell(1);
        kept
    }

    fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn text(&self, name: &str) -> String {
        fs::read_to_string(self.at(name)).unwrap()
    }

    fn tell(&mut self, number: u64) {
        self.lines.write_batch(Some(gap(number)), &sync_channel(1).1);
    }

    /// A look without an event; whether that ends egret, and how many events were lost.
    fn look(&mut self) -> (bool, u64) {
        self.lines.write_batch(None, &sync_channel(1).1);
        self.lost()
    }

    fn lost(&self) -> (bool, u64) {
        (self.losses.end.why().is_some(), self.losses.total.load(Ordering::Relaxed))
    }
}

#[test]
fn what_is_left_alone_is_no_loss() {
    let mut kept = Kept::new();
    assert_eq!((kept.look(), kept.losses.taken.why()), ((false, 0), None));
}

#[test]
fn a_copy_in_the_place_of_the_journal_is_a_loss_and_is_written_on() {
    let mut kept = Kept::new();
    fs::copy(kept.at("journal"), kept.at("copy")).unwrap();
    fs::rename(kept.at("copy"), kept.at("journal")).unwrap();
    kept.tell(2);
    assert_eq!(kept.lost(), (true, 1), "it was written to a file that is gone");
    assert!(kept.losses.taken.why().is_some_and(|why| why.contains("removed")), "{:?}", kept.losses.taken.why());
    kept.tell(3);
    let text = kept.text("journal");
    assert!(["journal_replaced", "\"lost\":3", "journal_behind"].iter().all(|word| text.contains(word)), "{text}");
    assert_eq!(kept.lost(), (true, 1));
}

#[test]
fn who_keeps_the_old_file_by_another_name_hides_nothing() {
    let mut kept = Kept::new();
    fs::hard_link(kept.at("journal"), kept.at("kept")).unwrap();
    fs::copy(kept.at("journal"), kept.at("copy")).unwrap();
    fs::rename(kept.at("copy"), kept.at("journal")).unwrap();
    assert_eq!(kept.look(), (true, 0), "no line is lost, but the place is");
}

#[test]
fn a_journal_that_is_removed_is_a_loss_and_begins_anew() {
    let mut kept = Kept::new();
    fs::remove_file(kept.at("journal")).unwrap();
    assert_eq!(kept.look(), (true, 0));
    kept.tell(2);
    assert!(kept.text("journal").contains("journal_replaced"));
}

#[test]
fn a_rotation_by_rename_loses_nothing_and_is_told_in_the_new_file() {
    let rotations: [fn(&Path); 2] = [|_| {}, |new| fs::write(new, "").unwrap()];
    for create in rotations {
        let mut kept = Kept::new();
        fs::rename(kept.at("journal"), kept.at("journal.1")).unwrap();
        create(&kept.at("journal"));
        kept.tell(2);
        kept.tell(3);
        assert_eq!((kept.lost(), kept.losses.taken.why()), ((false, 0), None));
        let (old, new) = (kept.text("journal.1"), kept.text("journal"));
        assert!(old.contains("\"lost\":1") && old.contains("\"lost\":2") && !old.contains("\"lost\":3"), "{old}");
        assert!(new.lines().count() == 2 && new.contains("journal_renamed") && new.contains("\"lost\":3"), "{new}");
    }
}

#[test]
fn what_egret_writes_to_is_chosen_by_nobody_else() {
    let takes: [fn(&Path, &Path); 3] = [
        |victim, place| std::os::unix::fs::symlink(victim, place).unwrap(),
        |victim, place| fs::hard_link(victim, place).unwrap(),
        |_, place| rustix::fs::mknodat(rustix::fs::CWD, place, rustix::fs::FileType::Fifo, 0o666.into(), 0).unwrap(),
    ];
    for take in takes {
        let mut kept = Kept::new();
        fs::write(kept.at("victim"), "").unwrap();
        fs::rename(kept.at("journal"), kept.at("journal.1")).unwrap();
        take(&kept.at("victim"), &kept.at("journal"));
        assert_eq!(kept.look(), (true, 0));
        kept.tell(2);
        assert_eq!((kept.text("victim").as_str(), kept.text("journal.1").contains("\"lost\":2")), ("", true));
        fs::remove_file(kept.at("journal")).unwrap();
        kept.look();
        kept.tell(3);
        assert!(kept.text("journal").contains("\"lost\":3"), "it goes on where it can");
    }
}

#[test]
fn a_directory_that_was_swapped_is_noticed() {
    let mut kept = Kept::new();
    let (inside, away) = (kept.at("in"), kept.at("away"));
    fs::create_dir(&inside).unwrap();
    kept.lines.sink = Target::at(inside.join("journal").to_str().unwrap()).unwrap();
    fs::rename(&inside, &away).unwrap();
    fs::create_dir(&inside).unwrap();
    fs::copy(away.join("journal"), inside.join("journal")).unwrap();
    assert_eq!(kept.look(), (true, 0));
}
