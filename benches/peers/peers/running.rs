//! A proxy at work: until when it is waited for, and how it is ended.

use std::fs;
use std::path::PathBuf;
use std::process::Child;
use std::time::{Duration, Instant};

use anyhow::bail;
use rustix::process::{Pid, Signal, kill_process};

use crate::cost::family;
use crate::wire::loopback;

/// A proxy at work, or the lack of one; ended when dropped.
pub(crate) struct Running {
    pub(super) child: Option<Child>,
    pub(super) log: PathBuf,
}

const STARTING: Duration = Duration::from_secs(10);
const ENDING: Duration = Duration::from_secs(3);
const PAUSE: Duration = Duration::from_micros(50);

impl Running {
    pub(crate) fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// Waits until a connection is taken.
    pub(crate) fn wait(&mut self, port: u16) -> anyhow::Result<()> {
        let end = Instant::now() + STARTING;
        while std::net::TcpStream::connect(loopback(port)).is_err() {
            if let Some(status) = self.child.as_mut().and_then(|child| child.try_wait().transpose()) {
                bail!("it ended: {}", status?);
            }
            if Instant::now() > end {
                bail!("nothing listens on {port} after {STARTING:?}");
            }
            std::thread::sleep(PAUSE);
        }
        Ok(())
    }

    /// Ends it, and says how many lines its log has then.
    pub(crate) fn end(mut self) -> usize {
        self.stop();
        fs::read(&self.log).map_or(0, |log| log.iter().filter(|byte| **byte == b'\n').count())
    }

    fn stop(&mut self) {
        let Some(mut child) = self.child.take() else { return };
        signal(&[child.id()], Signal::TERM);
        let end = Instant::now() + ENDING;
        while matches!(child.try_wait(), Ok(None)) && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(1));
        }
        if matches!(child.try_wait(), Ok(None)) {
            signal(&family(child.id()), Signal::KILL);
        }
        let _ = child.wait();
    }
}

/// To the bench's own children, which nobody else has waited for, and theirs.
fn signal(pids: &[u32], signal: Signal) {
    for pid in pids.iter().filter_map(|pid| Pid::from_raw(i32::try_from(*pid).ok()?)) {
        let _ = kill_process(pid, signal);
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop();
    }
}
