//! stdout and stderr, which an app that egret has started shares with it: the same open file descriptions (open(2), fork(2)). The
//! app may make them non-blocking, fill them, and write in between. Whoever writes by way of this waits where it would be told
//! to come again, and no line of up to [`WHOLE`] octets is torn by what others write to the same pipe.

use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::thread;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::Errno;

mod sys;

pub(crate) use sys::write_in_background;

/// What a pipe takes as one piece, whoever else writes to it: PIPE_BUF (pipe(7)).
const WHOLE: usize = 4096;
/// So often in a row somebody else may have been faster, before it is a descriptor that only seems to be writable.
const VAIN: u32 = 64;
/// How long such a descriptor is left alone.
const PAUSE: Duration = Duration::from_millis(1);

/// Writes to a descriptor whether it is blocking or not, and waits in both cases alike: without a limit, so for a thread of its
/// own, or for a command that has nothing else to do.
pub(crate) struct Patient<F>(pub(crate) F);

impl<F: AsFd> Write for Patient<F> {
    fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
        let mut vain = 0;
        loop {
            match rustix::io::write(&self.0, octets) {
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => {
                    until_writable(self.0.as_fd())?;
                    vain += 1;
                    if vain > VAIN {
                        thread::sleep(PAUSE);
                    }
                }
                written => return Ok(written?),
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn until_writable(descriptor: BorrowedFd<'_>) -> Result<(), Errno> {
    match poll(&mut [PollFd::new(&descriptor, PollFlags::OUT)], None) {
        Ok(_) | Err(Errno::INTR) => Ok(()),
        Err(error) => Err(error),
    }
}

/// Another way to the same pipe, where that can be had: what the app does to the one that it shares (fcntl(2) O_NONBLOCK, O_DIRECT)
/// is nothing to this one. A file stays shared, as two offsets would overwrite one another; a socket can't be opened.
///
/// # Errors
/// There are no descriptors left.
pub(crate) fn own(shared: impl AsFd) -> io::Result<OwnedFd> {
    let shared = shared.as_fd();
    let is_pipe = rustix::fs::fstat(shared).is_ok_and(|status| FileType::from_raw_mode(status.st_mode) == FileType::Fifo);
    let opened = is_pipe.then(|| {
        let path = format!("/proc/self/fd/{}", shared.as_raw_fd());
        rustix::fs::open(path, OFlags::WRONLY | OFlags::NONBLOCK | OFlags::CLOEXEC, Mode::empty())
    });
    match opened {
        Some(Ok(own)) => Ok(own),
        _ => shared.try_clone_to_owned(),
    }
}

/// So much was written before that happened.
#[derive(Debug)]
pub(crate) struct Unwritten {
    pub(crate) written: usize,
    pub(crate) error: io::Error,
}

/// Writes whole lines, as many at once as stay together; longer ones each at once, which something else may get into.
///
/// # Errors
/// They can't be written to the end.
pub(crate) fn write_lines(to: &mut impl Write, text: &[u8]) -> Result<(), Unwritten> {
    let mut written = 0;
    while written < text.len() {
        match to.write(piece(&text[written..])) {
            Ok(0) => return Err(Unwritten { written, error: io::ErrorKind::WriteZero.into() }),
            Ok(count) => written += count,
            Err(error) => return Err(Unwritten { written, error }),
        }
    }
    Ok(())
}

/// The lines at the beginning of a text that a pipe takes as one piece; one at least.
fn piece(text: &[u8]) -> &[u8] {
    let is_end = |octet: &u8| *octet == b'\n';
    if text.len() <= WHOLE {
        return text;
    }
    let end = text[..WHOLE].iter().rposition(is_end).or_else(|| text.iter().position(is_end));
    end.map_or(text, |end| &text[..=end])
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::unix::net::UnixStream;

    use rustix::fs::{fcntl_getfl, fcntl_setfl};

    use super::*;

    /// Takes so much in one write, and notes what it took.
    struct Takes(usize, Vec<Vec<u8>>);

    impl Write for Takes {
        fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
            let taken = octets.len().min(self.0);
            self.1.push(octets[..taken].to_vec());
            Ok(taken)
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// Lines of these lengths, their ends included.
    fn lines(lengths: &[usize]) -> Vec<u8> {
        lengths.iter().flat_map(|length| [vec![b'x'; length - 1], vec![b'\n']].concat()).collect()
    }

    #[test]
    fn lines_stay_together_as_far_as_a_pipe_keeps_them_so() {
        for (lengths, pieces) in [
            (&[10, 20][..], &[30][..]),
            (&[4000, 96], &[4096]),
            (&[4000, 97], &[4000, 97]),
            (&[100, 9000, 50], &[100, 9000, 50]),
            (&[4096, 4096, 1], &[4096, 4096, 1]),
            (&[], &[]),
        ] {
            let mut to = Takes(usize::MAX, Vec::new());
            write_lines(&mut to, &lines(lengths)).unwrap();
            assert_eq!(to.1.iter().map(Vec::len).collect::<Vec<_>>(), pieces, "{lengths:?}");
        }
        let mut few = Takes(7, Vec::new());
        write_lines(&mut few, &lines(&[50, 9000, 3])).unwrap();
        assert_eq!(few.1.concat(), lines(&[50, 9000, 3]), "what is taken in part is gone on with where it ended");
    }

    #[test]
    fn how_far_it_came_is_told_with_what_ended_it() {
        let failed = write_lines(&mut Takes(0, Vec::new()), b"x\n").unwrap_err();
        assert_eq!((failed.written, failed.error.kind()), (0, io::ErrorKind::WriteZero));
        let mut room = [0; 5];
        let failed = write_lines(&mut &mut room[..], b"one\ntwo\n").unwrap_err();
        assert_eq!((failed.written, &room), (5, b"one\nt"));
    }

    #[test]
    fn what_is_full_and_does_not_block_is_waited_for() {
        let (mut reader, writer) = UnixStream::pair().unwrap();
        writer.set_nonblocking(true).unwrap();
        let text = lines(&[1000; 2000]);
        let writing = thread::spawn({
            let text = text.clone();
            move || write_lines(&mut Patient(own(writer).unwrap()), &text).unwrap()
        });
        let mut read = Vec::new();
        reader.read_to_end(&mut read).unwrap();
        writing.join().unwrap();
        assert!(read == text, "{} of {}", read.len(), text.len());
    }

    #[test]
    fn who_reads_no_more_is_an_error_and_no_wait() {
        let (reader, writer) = UnixStream::pair().unwrap();
        writer.set_nonblocking(true).unwrap();
        drop(reader);
        assert_eq!(Patient(writer).write(b"x").unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    }

    #[test]
    fn a_pipe_is_written_to_by_a_way_that_the_app_does_not_share() {
        let (mut reader, shared) = io::pipe().unwrap();
        let mut own = Patient(own(&shared).unwrap());
        let before = fcntl_getfl(&own.0).unwrap();
        fcntl_setfl(&shared, fcntl_getfl(&shared).unwrap() | OFlags::DIRECT).unwrap();
        assert_eq!(fcntl_getfl(&own.0).unwrap(), before);
        own.write_all(b"words").unwrap();
        drop((own, shared));
        let mut read = [0; 3];
        reader.read_exact(&mut read).unwrap();
        let mut rest = Vec::new();
        reader.read_to_end(&mut rest).unwrap();
        assert_eq!((&read, &*rest), (b"wor", &b"ds"[..]), "in packets the rest would be lost");
    }

    #[test]
    fn a_file_stays_shared() {
        let mut file = tempfile::tempfile().unwrap();
        Patient(own(&file).unwrap()).write_all(b"one ").unwrap();
        file.write_all(b"two").unwrap();
        Patient(own(&file).unwrap()).write_all(b" three").unwrap();
        let mut text = String::new();
        io::Seek::rewind(&mut file).unwrap();
        file.read_to_string(&mut text).unwrap();
        assert_eq!(text, "one two three");
    }
}
