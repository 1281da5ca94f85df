//! A file system that another process serves, as one that another machine does: its files change without a call to this
//! kernel. The kernel's side is in include/uapi/linux/fuse.h, whose names the numbers here have.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::thread;

use rustix::fs::{Mode, OFlags};

use super::namespace::run;

const LOOKUP: u32 = 1;
const FORGET: u32 = 2;
const GETATTR: u32 = 3;
const OPEN: u32 = 14;
const READ: u32 = 15;
const STATFS: u32 = 17;
const RELEASE: u32 = 18;
const FLUSH: u32 = 25;
const INIT: u32 = 26;
const OPENDIR: u32 = 27;
const READDIR: u32 = 28;
const RELEASEDIR: u32 = 29;
const BATCH_FORGET: u32 = 42;

const NOENT: i32 = 2;
const NOSYS: i32 = 38;

/// The numbers of the root and of its one file, `f`.
const ROOT: u64 = 1;
const ONLY: u64 = 2;

/// What the one file holds, and when that was written.
#[derive(Clone)]
pub(super) struct Served(Arc<Mutex<(Vec<u8>, u64)>>);

impl Served {
    /// Mounts it; `None` if that cannot be done, which was said.
    pub(super) fn mount(at: &Path, content: &str) -> Option<Self> {
        // The program that mounts it has to have it too.
        let device = match rustix::fs::open("/dev/fuse", OFlags::RDWR, Mode::empty()) {
            Ok(device) => File::from(device),
            Err(error) => {
                eprintln!("NOT TESTED: no /dev/fuse: {error}");
                return None;
            }
        };
        let options = format!("fd={},rootmode=40755,user_id=0,group_id=0", device.as_raw_fd());
        let served = Self(Arc::new(Mutex::new((content.into(), 1))));
        let serving = served.clone();
        // Mounting it waits for nobody; the first look at it would.
        let arguments = ["-i", "-t", "fuse", "-o", &options, "served"].map(std::ffi::OsStr::new);
        let all: Vec<_> = arguments.into_iter().chain([at.as_os_str()]).collect();
        let is_mounted = run("mount", &all);
        thread::spawn(move || serving.serve(device));
        is_mounted.then_some(served)
    }

    /// As another machine would: nobody here is told.
    pub(super) fn write(&self, content: &str) {
        let mut file = self.0.lock().unwrap();
        *file = (content.into(), file.1 + 1);
    }

    /// Until it is unmounted.
    fn serve(&self, mut device: File) {
        let mut request = vec![0; 1 << 20];
        while let Ok(length) = device.read(&mut request) {
            let (head, body) = request[..length].split_at(40);
            let (opcode, unique, node) = (word(head, 4), long(head, 8), long(head, 16));
            if matches!(opcode, FORGET | BATCH_FORGET) {
                continue;
            }
            let (error, answer) = match self.answer(opcode, node, body) {
                Ok(answer) => (0, answer),
                Err(error) => (-error, Vec::new()),
            };
            let length = u32::try_from(16 + answer.len()).unwrap();
            let whole = [&length.to_ne_bytes()[..], &error.to_ne_bytes(), &unique.to_ne_bytes(), &answer].concat();
            if device.write_all(&whole).is_err() {
                return;
            }
        }
    }

    fn answer(&self, opcode: u32, node: u64, body: &[u8]) -> Result<Vec<u8>, i32> {
        match opcode {
            // Version 7.31, all else as it comes.
            INIT => Ok([words(&[7, 31]), vec![0; 12], words(&[1 << 16, 1]), vec![0; 36]].concat()),
            LOOKUP if node == ROOT && body == b"f\0" => {
                Ok([longs(&[ONLY, 1, 0, 0]), words(&[0, 0]), self.attributes(ONLY)].concat())
            }
            LOOKUP => Err(NOENT),
            GETATTR => Ok([longs(&[0, 0]), self.attributes(node)].concat()),
            OPEN | OPENDIR => Ok(vec![0; 16]),
            READ => {
                let content = self.0.lock().unwrap().0.clone();
                let from = usize::try_from(long(body, 8)).unwrap().min(content.len());
                let to = (from + word(body, 16) as usize).min(content.len());
                Ok(content[from..to].to_vec())
            }
            // One entry, at the beginning: a regular file.
            READDIR if long(body, 8) == 0 => Ok([longs(&[ONLY, 1]), words(&[1, 8]), b"f\0\0\0\0\0\0\0".to_vec()].concat()),
            READDIR | RELEASE | RELEASEDIR | FLUSH => Ok(Vec::new()),
            STATFS => Ok(vec![0; 80]),
            _ => Err(NOSYS),
        }
    }

    /// `struct fuse_attr`.
    fn attributes(&self, node: u64) -> Vec<u8> {
        let (content, written) = self.0.lock().unwrap().clone();
        let (size, mode) = if node == ROOT { (0, 0o40_755) } else { (content.len() as u64, 0o100_644) };
        [longs(&[node, size, 0, written, written, written]), words(&[0, 0, 0, mode, 1, 0, 0, 0, 4096, 0])].concat()
    }
}

fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_ne_bytes(bytes[at..at + 4].try_into().unwrap())
}

fn long(bytes: &[u8], at: usize) -> u64 {
    u64::from_ne_bytes(bytes[at..at + 8].try_into().unwrap())
}

fn words(values: &[u32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_ne_bytes()).collect()
}

fn longs(values: &[u64]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_ne_bytes()).collect()
}
