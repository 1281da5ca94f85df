//! What may be learnt of the thread that made a call, through `/proc/<tid>` and its memory.
//!
//! A thread's number may go to another thread once the call has ended. So everything learnt here counts only if the call is
//! found to wait afterwards; that is for whoever uses it.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashSet, VecDeque};
use std::ffi::{CStr, OsString};
use std::fs::{self, File};
use std::io::{ErrorKind, Write as _};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use rustix::fs::{CWD, Mode, OFlags, fstat, openat, readlinkat, readlinkat_raw};
use rustix::io::Errno;

use crate::address::{self, Address, Family};
use crate::sys;

/// Room for the name of a socket, which is `socket:[` and an inode.
const LONGEST_LINK: usize = 48;

/// A thread that made a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Caller {
    pub(crate) tid: u32,
}

/// The memory of a caller: that of the process it was when it was opened, and of no other.
#[derive(Debug)]
pub(crate) struct Memory(File);

/// How many threads' folders each thread here keeps open.
const MOST_FOLDERS: usize = 8;

/// How many threads are remembered with their processes.
const MOST_KNOWN: usize = 4096;

/// How many descriptors of one process are looked at.
const MOST_DESCRIPTORS: usize = 4096;

/// Who made a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Process {
    /// The process, as numbered in this process's PID namespace.
    pub pid: u32,
    /// What it runs, if that could be read.
    pub exe: Option<PathBuf>,
    /// Its effective user; root's if the process lets nobody look at it.
    pub uid: u32,
}

/// What a descriptor stands for, by the kernel's name of its protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protocol {
    Tcp(Family),
    Udp(Family),
    /// Reaches nobody outside.
    Unix,
    /// Reaches the kernel.
    Netlink,
    /// Any other kind of socket.
    Other,
}

/// Flags of a descriptor that outlive its replacement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Flags {
    pub(crate) nonblocking: bool,
    pub(crate) close_on_exec: bool,
}

impl Caller {
    /// The address that this pointer and length mean, as the kernel would take them.
    pub(crate) fn address(self, pointer: u64, length: u64) -> Result<Address, Errno> {
        address::parse(&self.bytes(pointer, length)?)
    }

    /// The bytes of an address.
    pub(crate) fn bytes(self, pointer: u64, length: u64) -> Result<Vec<u8>, Errno> {
        // The kernel takes the length as an int.
        let length = (length & 0xffff_ffff) as u32;
        let length = usize::try_from(length.cast_signed()).map_err(|_| Errno::INVAL)?;
        if length > address::LONGEST {
            return Err(Errno::INVAL);
        }
        let mut bytes = vec![0; length];
        self.read(pointer, &mut bytes)?;
        Ok(bytes)
    }

    /// Reads the caller's memory: the whole buffer, or an error.
    pub(crate) fn read(self, pointer: u64, buffer: &mut [u8]) -> Result<(), Errno> {
        if buffer.is_empty() {
            return Ok(());
        }
        match sys::read_memory(self.tid, pointer, buffer) {
            Err(Errno::PERM | Errno::NOSYS | Errno::ACCESS) => self.read_file(pointer, buffer),
            read => read,
        }
    }

    /// The same through procfs, where an outer filter refuses the call or the caller has another user.
    fn read_file(self, pointer: u64, buffer: &mut [u8]) -> Result<(), Errno> {
        let memory = self.look(|| File::open(format!("/proc/{}/mem", self.tid)))?;
        memory.read_exact_at(buffer, pointer).map_err(|_| Errno::FAULT)
    }

    /// The caller's memory, to be written. It is opened first, and then asked whether the call waits: so it is the caller's own,
    /// and stays that, whoever has the thread's number afterwards.
    ///
    /// # Errors
    /// INTR: the call does not wait; ACCESS: nobody may look.
    pub(crate) fn memory(self, waits: impl FnOnce() -> bool) -> Result<Memory, Errno> {
        let file = self.look(|| File::options().read(true).write(true).open(format!("/proc/{}/mem", self.tid)))?;
        if waits() { Ok(Memory(file)) } else { Err(Errno::INTR) }
    }

    /// The inode of the socket behind this descriptor.
    ///
    /// # Errors
    /// BADF, NOTSOCK as connect(2); ACCESS if nobody may look.
    pub(crate) fn socket(self, number: i32) -> Result<u64, Errno> {
        if let Some(inode) = self.socket_by_folder(number) {
            return Ok(inode);
        }
        let link = self.look(|| fs::read_link(format!("/proc/{}/fd/{number}", self.tid)));
        let link = link.map_err(|errno| if errno == Errno::NOENT { Errno::BADF } else { errno })?;
        link.to_str().and_then(socket_inode).ok_or(Errno::NOTSOCK)
    }

    fn socket_by_folder(self, number: i32) -> Option<u64> {
        let mut path = [0; LONGEST_LINK];
        write!(&mut path[..], "fd/{number}\0").ok()?;
        let path = CStr::from_bytes_until_nul(&path).ok()?;
        self.in_folder(|folder| {
            let mut link = [MaybeUninit::uninit(); LONGEST_LINK];
            let (link, _) = readlinkat_raw(folder, path, &mut link).ok()?;
            socket_inode(std::str::from_utf8(link).ok()?)
        })
    }

    /// Looks in the thread's folder in procfs, which is kept open for the next time. A folder is that of one thread, whoever
    /// gets its number later; so what is found there is right, and what is not found is to be looked for by name.
    fn in_folder<T>(self, look: impl FnOnce(&OwnedFd) -> Option<T>) -> Option<T> {
        thread_local! {
            static FOLDERS: RefCell<VecDeque<(u32, OwnedFd)>> = const { RefCell::new(VecDeque::new()) };
        }
        FOLDERS.with_borrow_mut(|folders| {
            let kept = folders.iter().position(|(tid, _)| *tid == self.tid);
            let place = match kept {
                Some(place) => place,
                None => {
                    let folder = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
                    let folder = openat(CWD, format!("/proc/{}", self.tid), folder, Mode::empty()).ok()?;
                    folders.truncate(MOST_FOLDERS - 1);
                    folders.push_front((self.tid, folder));
                    0
                }
            };
            let found = look(&folders.get(place)?.1);
            if found.is_none() {
                folders.remove(place);
            }
            found
        })
    }

    /// What kind of socket it is (`system.sockprotoname`, the one thing that sockfs tells of a socket that is not one's own).
    pub(crate) fn protocol(self, number: i32) -> Result<Protocol, Errno> {
        let path = format!("/proc/{}/fd/{number}", self.tid);
        let mut name = [0; 32];
        let length = self.look(|| Ok(rustix::fs::getxattr(&path, "system.sockprotoname", &mut name)?))?;
        let name = name.get(..length).unwrap_or_default();
        Ok(match name.split(|byte| *byte == 0).next().unwrap_or_default() {
            b"TCP" => Protocol::Tcp(Family::V4),
            b"TCPv6" => Protocol::Tcp(Family::V6),
            b"UDP" => Protocol::Udp(Family::V4),
            b"UDPv6" => Protocol::Udp(Family::V6),
            // Streams have a name of their own since Linux 5.15.
            b"UNIX" | b"UNIX-STREAM" => Protocol::Unix,
            b"NETLINK" => Protocol::Netlink,
            _ => Protocol::Other,
        })
    }

    /// Whether the kernel would let it bind any port: CAP_NET_BIND_SERVICE where this process lives, not in a namespace of its own.
    pub(crate) fn may_bind_any_port(self) -> Result<bool, Errno> {
        const NET_BIND_SERVICE: u64 = 1 << 10;
        let status = self.status().ok_or(Errno::ACCESS)?;
        let effective = status.lines().find_map(|line| u64::from_str_radix(line.strip_prefix("CapEff:")?.trim(), 16).ok());
        if effective.is_none_or(|effective| effective & NET_BIND_SERVICE == 0) {
            return Ok(false);
        }
        let its = self.look(|| fs::read_link(format!("/proc/{}/ns/user", self.tid)))?;
        Ok(fs::read_link("/proc/self/ns/user").is_ok_and(|own| own == its))
    }

    /// The descriptor's flags (`flags` of proc_pid_fdinfo(5), octal).
    pub(crate) fn flags(self, number: i32) -> Result<Flags, Errno> {
        let text = self.look(|| fs::read_to_string(format!("/proc/{}/fdinfo/{number}", self.tid)))?;
        let flags = text.lines().find_map(|line| i32::from_str_radix(line.strip_prefix("flags:")?.trim(), 8).ok());
        let flags = flags.ok_or(Errno::BADF)?;
        Ok(Flags { nonblocking: flags & libc::O_NONBLOCK != 0, close_on_exec: flags & libc::O_CLOEXEC != 0 })
    }

    /// What the kernel tells everybody of it (proc_pid_status(5)). A thread's name is any 15 octets, UTF-8 or not, or a part of it.
    pub(crate) fn status(self) -> Option<String> {
        let status = fs::read(format!("/proc/{}/status", self.tid)).ok()?;
        Some(String::from_utf8_lossy(&status).into_owned())
    }

    /// Whether users and their capabilities mean to it what they mean here.
    pub(crate) fn shares_users(self) -> bool {
        let theirs = self.look(|| fs::read_link(format!("/proc/{}/ns/user", self.tid)));
        let ours = fs::read_link("/proc/thread-self/ns/user");
        theirs.is_ok_and(|theirs| ours.is_ok_and(|ours| ours == theirs))
    }

    /// The text that a pointer means, up to its end: at most so many bytes with the end.
    ///
    /// # Errors
    /// As [`read`](Self::read); NAMETOOLONG.
    pub(crate) fn read_text(self, pointer: u64, longest: usize) -> Result<Vec<u8>, Errno> {
        // What comes behind it may not be there: pages are read one by one.
        const PAGE: u64 = 4096;
        const AT_ONCE: u64 = 256;
        let mut text = Vec::new();
        let mut from = pointer;
        while text.len() < longest {
            let length = AT_ONCE.min(PAGE - from % PAGE);
            let mut bytes = [0; AT_ONCE as usize];
            let bytes = bytes.get_mut(..usize::try_from(length).unwrap_or(0)).unwrap_or_default();
            self.read(from, bytes)?;
            let end = bytes.iter().position(|byte| *byte == 0);
            text.extend_from_slice(&bytes[..end.unwrap_or(bytes.len())]);
            if end.is_some() && text.len() < longest {
                return Ok(text);
            }
            from = from.checked_add(length).ok_or(Errno::FAULT)?;
        }
        Err(Errno::NAMETOOLONG)
    }

    /// Who it is.
    pub(crate) fn process(self) -> Option<Process> {
        let (uid, exe) = self
            .in_folder(|folder| {
                let exe = readlinkat(folder, c"exe", Vec::new()).ok()?;
                Some((fstat(folder).ok()?.st_uid, Some(OsString::from_vec(exe.into_bytes()).into())))
            })
            .or_else(|| {
                let uid = fs::metadata(format!("/proc/{}", self.tid)).ok()?.uid();
                Some((uid, self.look(|| fs::read_link(format!("/proc/{}/exe", self.tid))).ok()))
            })?;
        Some(Process { pid: self.pid()?, exe, uid })
    }

    /// The process of the thread. What it was before is asked of the kernel; only what was not known is read.
    pub(crate) fn pid(self) -> Option<u32> {
        static KNOWN: Mutex<BTreeMap<u32, u32>> = Mutex::new(BTreeMap::new());
        let known = || KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
        let before = known().get(&self.tid).copied();
        if let Some(pid) = before.filter(|pid| sys::is_thread_of(self.tid, *pid)) {
            return Some(pid);
        }
        let pid = self.status()?.lines().find_map(|line| line.strip_prefix("Tgid:")?.trim().parse().ok())?;
        let mut known = known();
        if known.len() >= MOST_KNOWN {
            known.clear();
        }
        known.insert(self.tid, pid);
        Some(pid)
    }

    /// The inodes of all sockets that it has; none if nobody may look, or there are too many descriptors to look at.
    pub(crate) fn sockets(self) -> Option<HashSet<u64>> {
        let folder = format!("/proc/{}/fd", self.tid);
        let mut numbers = Vec::new();
        self.look(|| {
            numbers.clear();
            for entry in fs::read_dir(&folder)?.take(MOST_DESCRIPTORS + 1) {
                numbers.extend(entry?.file_name().to_str().and_then(|number| number.parse::<i32>().ok()));
            }
            Ok(())
        })
        .ok()?;
        (numbers.len() <= MOST_DESCRIPTORS).then(|| numbers.iter().filter_map(|number| self.socket(*number).ok()).collect())
    }

    /// Looks; and if that is refused, looks again with the caller's own file-system identity, which is what the kernel's check
    /// compares (`PTRACE_MODE_READ_FSCREDS`, ptrace(2)). A supervisor that is root may take it; any other has the caller's
    /// already, or is refused again.
    pub(crate) fn look<T>(self, mut look: impl FnMut() -> std::io::Result<T>) -> Result<T, Errno> {
        match look() {
            Err(error) if error.kind() == ErrorKind::PermissionDenied => {}
            seen => return seen.map_err(|error| errno(&error)),
        }
        let owner = fs::metadata(format!("/proc/{}", self.tid)).map_err(|error| errno(&error))?;
        let (user, group) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
        if (owner.uid(), owner.gid()) == (user, group) {
            return Err(Errno::ACCESS);
        }
        let seen = if sys::take_file_system_identity(owner.uid(), owner.gid()) { look() } else { Err(Errno::ACCESS.into()) };
        sys::drop_file_system_identity(user, group);
        // With another identity the kernel falls back to the machine's own idea of who may look (`suid_dumpable`, proc_sys_fs(5)).
        rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable).map_err(|_| Errno::ACCESS)?;
        seen.map_err(|error| errno(&error))
    }
}

/// Names of files start with a slash, so that none of them reads like this.
fn socket_inode(link: &str) -> Option<u64> {
    link.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()
}

impl Memory {
    pub(crate) fn read(&self, pointer: u64, buffer: &mut [u8]) -> Result<(), Errno> {
        self.0.read_exact_at(buffer, pointer).map_err(|_| Errno::FAULT)
    }

    /// Only while the call waits, and nothing but its end can end that, is this memory what the caller meant it to be.
    pub(crate) fn write(&self, pointer: u64, bytes: &[u8]) -> Result<(), Errno> {
        if bytes.is_empty() {
            return Ok(());
        }
        self.0.write_all_at(bytes, pointer).map_err(|_| Errno::FAULT)
    }
}

fn errno(error: &std::io::Error) -> Errno {
    Errno::from_io_error(error).unwrap_or(Errno::IO)
}

#[cfg(test)]
mod tests;
