//! execve(2), execveat(2) and memfd_create(2): the first two are told and go on; the third gives a file that can't be executed.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::MemfdFlags;
use rustix::io::Errno;

use super::birth::answer_with;
use super::{Shared, descriptor};
use crate::caller::Caller;
use crate::exec::{Execution, Listed};
use crate::resolve::{Place, name_of};
use crate::sys::Notification;

/// The longest path that the kernel takes (PATH_MAX), with its end.
const LONGEST_PATH: usize = 4096;

/// The longest name of a file in memory, with its end (memfd_create(2)).
const LONGEST_NAME: usize = 250;

/// What executions are held against.
#[derive(Debug)]
pub(crate) struct Watch {
    pub(crate) listed: Listed,
    pub(crate) enforce: bool,
    /// Whether files in memory can be made so that they can't be executed (Linux 6.3).
    pub(crate) seals: bool,
    /// The command has started. Until then what executes is a copy of this process, which shows its memory to nobody.
    pub(crate) started: AtomicBool,
}

/// execve(2) or execveat(2): whatever is found out, it goes on.
pub(super) fn tell(shared: &Shared, call: &Notification) {
    if let Some(execution) = shared.watch.as_ref().and_then(|watch| look(shared, watch, call)) {
        shared.egress.executes(execution);
    }
    shared.let_through(call.id);
}

/// None if it is of no interest: it will fail, nobody waits for it, or it is on the list and nothing else would start.
fn look(shared: &Shared, watch: &Watch, call: &Notification) -> Option<Execution> {
    let caller = Caller { tid: call.tid };
    let pid = caller.pid().filter(|_| call.tid != 0)?;
    let (number, pointer, by_descriptor) = match i64::from(call.call) {
        libc::SYS_execveat => (descriptor(call), call.arguments[1], call.arguments[4] & libc::AT_EMPTY_PATH as u64 != 0),
        _ => (libc::AT_FDCWD, call.arguments[0], false),
    };
    let path = caller.read_text(pointer, LONGEST_PATH);
    if path.is_err() && !watch.started.load(Ordering::Acquire) {
        return None;
    }
    let found = path.as_ref().map_err(|errno| *errno).and_then(|path| match path.is_empty() && !by_descriptor {
        true => Err(Errno::NOENT),
        false => Place::at(caller, number, path).and_then(Place::open).and_then(|opened| name_of(&opened)),
    });
    let resolved = match found {
        Err(Errno::NOENT | Errno::NOTDIR) => return None,
        found => found.ok(),
    };
    let listed = resolved.as_deref().is_some_and(|resolved| watch.listed.has(resolved));
    let is_of_interest = shared.waits(call.id) && !(listed && watch.enforce);
    is_of_interest.then(|| Execution { pid, path: path.ok().map(as_path), resolved, listed })
}

fn as_path(bytes: Vec<u8>) -> PathBuf {
    OsString::from_vec(bytes).into()
}

/// memfd_create(2), where only what is listed may be executed: what is in memory is on no list.
pub(super) fn make_memory(shared: &Shared, call: &Notification) {
    if let Err(errno) = give_memory(shared, call) {
        shared.answer(call.id, Err(errno));
    }
}

fn give_memory(shared: &Shared, call: &Notification) -> Result<(), Errno> {
    // MFD_EXEC of linux/memfd.h.
    const EXECUTABLE: MemfdFlags = MemfdFlags::from_bits_retain(0x10);
    if !shared.watch.as_ref().is_some_and(|watch| watch.seals) {
        return Err(Errno::PERM);
    }
    let name = (Caller { tid: call.tid }).read_text(call.arguments[0], LONGEST_NAME);
    let name = name.map_err(|errno| if errno == Errno::NAMETOOLONG { Errno::INVAL } else { errno })?;
    let flags = MemfdFlags::from_bits_retain((call.arguments[1] & 0xffff_ffff) as u32);
    if flags.contains(EXECUTABLE) {
        return Err(Errno::ACCESS);
    }
    let memory = rustix::fs::memfd_create(name, flags | MemfdFlags::NOEXEC_SEAL | MemfdFlags::CLOEXEC)?;
    answer_with(shared, call, &memory, flags.contains(MemfdFlags::CLOEXEC))
}
