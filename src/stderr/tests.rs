use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};

use super::*;

/// Tells what is written, each time when it is let.
struct Held(Sender<String>, Receiver<()>);

impl Write for Held {
    fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
        self.0.send(String::from_utf8_lossy(octets).into_owned()).unwrap();
        // Nobody lets it any more: it stays, as in a write that blocks.
        self.1.recv().unwrap_or_else(|_| {
            loop {
                thread::park()
            }
        });
        Ok(octets.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn queue(sink: impl Write + Send + 'static) -> Arc<Queue> {
    let queue = Arc::new(Queue::new());
    queue.lock().has_writer = true;
    let writes = Arc::clone(&queue);
    thread::spawn(move || writes.write_to(sink));
    queue
}

#[test]
fn what_has_no_room_is_counted_and_told_when_it_goes_on() {
    let ((wrote, written), (go, may)) = (channel(), channel());
    let queue = queue(Held(wrote, may));
    assert!(queue.take("first\n"));
    assert_eq!(written.recv().unwrap(), "first\n");
    // The writer hangs from here on, and nobody else does.
    let line = format!("{}\n", "x".repeat(MOST / 4 - 1));
    (0..4).for_each(|_| assert!(queue.take(&line)));
    ["lost\n", "lost too\n"].iter().for_each(|line| assert!(queue.take(line)));
    queue.finish(Duration::from_millis(1));
    (0..6).for_each(|_| go.send(()).unwrap());
    let rest: String = (0..5).map(|_| written.recv().unwrap()).collect();
    assert_eq!(rest, format!("{line}{line}{line}{line}egret: 2 messages are lost: nobody read stderr\n"));
    queue.finish(Duration::from_secs(60));
    assert!(queue.take("last\n"));
    assert_eq!(written.recv().unwrap(), "last\n");
}

#[test]
fn one_message_may_be_longer_than_what_waits_otherwise() {
    let ((wrote, written), (go, may)) = (channel(), channel());
    let queue = queue(Held(wrote, may));
    let line = "x".repeat(2 * MOST) + "\n";
    assert!(queue.take(&line));
    go.send(()).unwrap();
    assert_eq!(written.recv().unwrap(), line);
}

#[test]
fn a_sink_that_fails_ends_nothing() {
    struct Broken(Sender<()>);
    impl Write for Broken {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            self.0.send(()).unwrap();
            Err(io::ErrorKind::BrokenPipe.into())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let (wrote, written) = channel();
    let queue = queue(Broken(wrote));
    for _ in 0..3 {
        assert!(queue.take("line\n"));
        written.recv().unwrap();
    }
    queue.finish(Duration::from_secs(60));
}

#[test]
fn without_a_writer_nothing_is_kept() {
    let queue = Queue::new();
    assert!(!queue.take("line\n"));
    queue.finish(Duration::from_secs(60));
    assert!(queue.lock().lines.is_empty());
}
