//! The raw calls that no crate of ours wraps: seccomp(2) and its notifications, memory of another process, and the fork of
//! a probe. Everything else goes through `rustix`.
//!
//! Sources: seccomp(2), seccomp_unotify(2), linux/seccomp.h, process_vm_readv(2), close_range(2), setfsuid(2).

use std::fs::File;
use std::io::Read;
use std::mem::size_of;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::process::Command;

use rustix::io::Errno;
use rustix::process::{Resource, Rlimit};

/// One call that waits for an answer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Notification {
    /// Of the notification; never used twice by one listener.
    pub(crate) id: u64,
    /// The calling thread, as numbered in this process's PID namespace; 0 if it has no number here.
    pub(crate) tid: u32,
    /// Which call.
    pub(crate) call: i32,
    /// Its registers.
    pub(crate) arguments: [u64; 6],
}

/// What `SECCOMP_IOCTL_NOTIF_RECV` writes: at least as long as any kernel's structure may become.
#[repr(C)]
struct Received {
    notification: libc::seccomp_notif,
    longer: [u64; 16],
}

/// How a filter is to be installed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Listening {
    /// Without a listener.
    No,
    /// With a listener.
    Yes,
    /// With a listener, and a call that was received is interrupted by fatal signals only (Linux 5.19).
    UntilKilled,
}

fn result(returned: libc::c_long) -> Result<libc::c_long, Errno> {
    if returned == -1 { Err(last_errno()) } else { Ok(returned) }
}

fn last_errno() -> Errno {
    std::io::Error::last_os_error().raw_os_error().map_or(Errno::IO, Errno::from_raw_os_error)
}

/// Restricts the calling thread, and those that it starts, by this filter. It needs no_new_privs or CAP_SYS_ADMIN.
///
/// # Errors
/// EINVAL if the kernel does not know the flags, EBUSY if an outer filter has a listener, EACCES without no_new_privs.
pub(crate) fn install(program: &[libc::sock_filter], listening: Listening) -> Result<Option<OwnedFd>, Errno> {
    let flags = match listening {
        Listening::No => 0,
        Listening::Yes => libc::SECCOMP_FILTER_FLAG_NEW_LISTENER,
        Listening::UntilKilled => libc::SECCOMP_FILTER_FLAG_NEW_LISTENER | libc::SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV,
    };
    let program = libc::sock_fprog {
        len: u16::try_from(program.len()).map_err(|_| Errno::INVAL)?,
        // The kernel reads it only.
        filter: program.as_ptr().cast_mut(),
    };
    // SAFETY: `program` points to `len` instructions, and both outlive the call, which only reads them.
    let returned = unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, flags, &raw const program) };
    let returned = result(returned)?;
    if listening == Listening::No {
        return Ok(None);
    }
    let fd = RawFd::try_from(returned).map_err(|_| Errno::BADF)?;
    // SAFETY: the call succeeded with a flag that makes it return a new descriptor, which nobody else knows.
    Ok(Some(unsafe { OwnedFd::from_raw_fd(fd) }))
}

/// Whether this kernel's notifications fit into the structures used here.
///
/// # Errors
/// Whatever seccomp(2) says; EINVAL before Linux 5.0.
pub(crate) fn notifications_fit() -> Result<bool, Errno> {
    let mut sizes = libc::seccomp_notif_sizes { seccomp_notif: 0, seccomp_notif_resp: 0, seccomp_data: 0 };
    // SAFETY: the kernel writes one `seccomp_notif_sizes` to a place that has room for it.
    result(unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_GET_NOTIF_SIZES, 0, &raw mut sizes) })?;
    Ok(usize::from(sizes.seccomp_notif) <= size_of::<Received>()
        && usize::from(sizes.seccomp_notif_resp) <= size_of::<libc::seccomp_notif_resp>())
}

/// Whether this thread is one of this process, by a signal that is not sent (tgkill(2)).
pub(crate) fn is_thread_of(tid: u32, pid: u32) -> bool {
    // SAFETY: numbers only.
    let asked = unsafe { libc::syscall(libc::SYS_tgkill, pid, tid, 0) };
    asked == 0 || last_errno() == Errno::PERM
}

/// Waits for the next call.
///
/// # Errors
/// INTR: a signal; NOENT: the caller was gone before it was received, or nobody is left that could call.
pub(crate) fn receive(listener: BorrowedFd<'_>) -> Result<Notification, Errno> {
    // SAFETY: all members are integers; the kernel demands zeros.
    let mut received: Received = unsafe { std::mem::zeroed() };
    // SAFETY: the kernel writes at most as many bytes as `notifications_fit` compared with the size of `received`.
    let returned = unsafe { libc::ioctl(listener.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_RECV, &raw mut received.notification) };
    result(returned.into())?;
    let libc::seccomp_notif { id, pid, data, .. } = received.notification;
    Ok(Notification { id, tid: pid, call: data.nr, arguments: data.args })
}

/// Answers a call: with this value, or with this error.
///
/// # Errors
/// NOENT: the caller is gone, or was interrupted and will call again.
pub(crate) fn answer(listener: BorrowedFd<'_>, id: u64, answer: Result<i64, Errno>) -> Result<(), Errno> {
    let (val, error) = match answer {
        Ok(value) => (value, 0),
        Err(errno) => (0, -errno.raw_os_error()),
    };
    respond(listener, libc::seccomp_notif_resp { id, val, error, flags: 0 })
}

/// Lets the kernel do what was called, with whatever the caller's memory and descriptors say by then.
///
/// # Errors
/// As [`answer`].
pub(crate) fn let_through(listener: BorrowedFd<'_>, id: u64) -> Result<(), Errno> {
    respond(listener, libc::seccomp_notif_resp { id, val: 0, error: 0, flags: libc::SECCOMP_USER_NOTIF_FLAG_CONTINUE as u32 })
}

fn respond(listener: BorrowedFd<'_>, mut response: libc::seccomp_notif_resp) -> Result<(), Errno> {
    // SAFETY: the kernel reads one response.
    let returned = unsafe { libc::ioctl(listener.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_SEND, &raw mut response) };
    result(returned.into()).map(drop)
}

/// Whether the call still waits, and so the thread's number still means that thread.
pub(crate) fn waits(listener: BorrowedFd<'_>, id: u64) -> bool {
    // SAFETY: the kernel reads one id.
    unsafe { libc::ioctl(listener.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_ID_VALID, &raw const id) == 0 }
}

/// Where a descriptor goes in the caller's table.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Place {
    /// To the lowest free number, which is returned.
    Free,
    /// To the lowest free number, which is also the answer to the call (Linux 5.14).
    FreeAndAnswer,
    /// To this number, in place of what stands there.
    Over(RawFd),
}

/// Puts a copy of a descriptor into the caller's table (Linux 5.9).
///
/// # Errors
/// MFILE: the caller's limit; NOENT: as [`answer`]; INVAL: this kernel can't answer with it.
pub(crate) fn give(
    listener: BorrowedFd<'_>,
    id: u64,
    descriptor: BorrowedFd<'_>,
    place: Place,
    close_on_exec: bool,
) -> Result<RawFd, Errno> {
    let (flags, newfd) = match place {
        Place::Free => (0, 0),
        Place::FreeAndAnswer => (libc::SECCOMP_ADDFD_FLAG_SEND, 0),
        Place::Over(number) => (libc::SECCOMP_ADDFD_FLAG_SETFD, number),
    };
    let mut given = libc::seccomp_notif_addfd {
        id,
        flags: flags as u32,
        srcfd: descriptor.as_raw_fd().cast_unsigned(),
        newfd: newfd.cast_unsigned(),
        newfd_flags: if close_on_exec { libc::O_CLOEXEC.cast_unsigned() } else { 0 },
    };
    // SAFETY: the kernel reads one `seccomp_notif_addfd`; its source descriptor is borrowed for the whole call.
    let returned = unsafe { libc::ioctl(listener.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_ADDFD, &raw mut given) };
    result(returned.into()).map(|_| returned)
}

/// Wakes the waiting thread on the caller's CPU, and the other way round (Linux 6.6).
///
/// # Errors
/// INVAL: this kernel can't.
pub(crate) fn wake_in_step(listener: BorrowedFd<'_>) -> Result<(), Errno> {
    const SYNC_WAKE_UP: libc::c_ulong = 1;
    // SAFETY: the argument is a number.
    let returned = unsafe { libc::ioctl(listener.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_SET_FLAGS, SYNC_WAKE_UP) };
    result(returned.into()).map(drop)
}

/// Reads memory of another process; the whole buffer or an error.
///
/// # Errors
/// FAULT: some of it is not there; PERM: not allowed to look; NOSYS: an outer filter refuses the call.
pub(crate) fn read_memory(tid: u32, address: u64, buffer: &mut [u8]) -> Result<(), Errno> {
    let pid = libc::pid_t::try_from(tid).map_err(|_| Errno::SRCH)?;
    let address = usize::try_from(address).map_err(|_| Errno::FAULT)?;
    let local = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
    let remote = libc::iovec { iov_base: std::ptr::without_provenance_mut(address), iov_len: buffer.len() };
    let (one, no_flags): (libc::c_ulong, libc::c_ulong) = (1, 0);
    // SAFETY: the kernel writes at most `iov_len` bytes to `buffer`; the remote address means nothing in this process.
    let returned =
        unsafe { libc::syscall(libc::SYS_process_vm_readv, pid, &raw const local, one, &raw const remote, one, no_flags) };
    if usize::try_from(result(returned)?) == Ok(buffer.len()) { Ok(()) } else { Err(Errno::FAULT) }
}

/// Takes the file-system identity of this user and group, for the calling thread alone. C libraries would do it for all
/// threads; these are the bare calls. They return the former identity and no error: who wants to know asks again.
pub(crate) fn take_file_system_identity(user: u32, group: u32) -> bool {
    // SAFETY: numbers in, numbers out. The group comes first, as with another user it can't be changed any more.
    unsafe {
        libc::syscall(libc::SYS_setfsgid, group);
        libc::syscall(libc::SYS_setfsuid, user);
        libc::syscall(libc::SYS_setfsuid, u32::MAX) == i64::from(user)
    }
}

/// Gives back the identity of the process itself.
pub(crate) fn drop_file_system_identity(user: u32, group: u32) {
    // SAFETY: as above. The user comes first: it brings back the right to change the group.
    unsafe {
        libc::syscall(libc::SYS_setfsuid, user);
        libc::syscall(libc::SYS_setfsgid, group);
    }
}

/// The process group of this process; 0 if it is one of another PID namespace.
pub(crate) fn process_group() -> i32 {
    // SAFETY: it takes nothing and can't fail.
    unsafe { libc::getpgrp() }
}

/// What a command starts with.
pub(crate) struct Seclusion {
    /// A Landlock domain of its own.
    pub(crate) domain: Option<OwnedFd>,
    /// Its refusals stay out of the host's audit log.
    pub(crate) quiet: bool,
    /// A process group that is not this process's.
    pub(crate) own_group: bool,
    /// These limits of descriptors, soft and hard.
    pub(crate) limits: Rlimit,
}

/// Has the command start so, and with no descriptor beyond the first three, whatever this process has open by then.
pub(crate) fn seclude(command: &mut Command, seclusion: Seclusion) {
    let Seclusion { domain, quiet, own_group, limits } = seclusion;
    let group = process_group();
    let seclude = move || {
        rustix::process::setrlimit(Resource::Nofile, limits)?;
        if own_group && process_group() == group {
            rustix::process::setpgid(None, None)?;
        }
        if let Some(domain) = &domain {
            enter_domain(domain.as_raw_fd(), quiet)?;
        }
        // SAFETY: numbers only; it marks descriptors, so that the standard library's own pipe lives until exec.
        let marked = unsafe { libc::syscall(libc::SYS_close_range, 3, u32::MAX, libc::CLOSE_RANGE_CLOEXEC) };
        if marked == 0 { Ok(()) } else { mark_one_by_one() }
    };
    // SAFETY: between fork and exec it makes system calls only, allocates nothing, and takes no lock.
    unsafe { command.pre_exec(seclude) };
}

/// Restricts the calling thread (landlock_restrict_self(2)).
pub(crate) fn enter_domain(domain: RawFd, quiet: bool) -> std::io::Result<()> {
    const LOG_SAME_EXEC_OFF: libc::c_ulong = 1;
    const LOG_SUBDOMAINS_OFF: libc::c_ulong = 4;
    let flags = if quiet { LOG_SAME_EXEC_OFF | LOG_SUBDOMAINS_OFF } else { 0 };
    // SAFETY: numbers only.
    let entered = unsafe { libc::syscall(libc::SYS_landlock_restrict_self, domain, flags) };
    if entered == 0 { Ok(()) } else { Err(std::io::Error::last_os_error()) }
}

/// What `close_range` does since Linux 5.11, for kernels and outer filters without it.
fn mark_one_by_one() -> std::io::Result<()> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the kernel writes one `rlimit` to a place that has room for it.
    if unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) } != 0 {
        return Err(std::io::Error::last_os_error());
    }
    // Descriptors may stand above a limit that was lowered; beyond the hard one there are none but in contrived cases.
    for number in 3..i32::try_from(limit.rlim_max).unwrap_or(1 << 20).min(1 << 20) {
        // SAFETY: numbers only. A number without a descriptor is an error that does not matter.
        unsafe { libc::fcntl(number, libc::F_SETFD, libc::FD_CLOEXEC) };
    }
    Ok(())
}

/// How many seconds a throw-away child has.
const CHILDS_LIFE: libc::c_uint = 10;

/// Runs `work` in a throw-away child, so that neither what it restricts nor how it ends touches this process. Returns what it
/// wrote, and the signal that ended it, if one did: SIGALRM if it took too long.
///
/// `work` may take no lock but the allocator's, which C libraries make usable; so it may start no thread either. Whoever held
/// another when the process forked does not exist in the child.
///
/// # Errors
/// No pipe, no process.
pub(crate) fn in_child(work: impl FnOnce(&mut File)) -> Result<(Vec<u8>, Option<i32>), Errno> {
    let (read, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
    // SAFETY: the child has the one thread that runs this function. C libraries make their allocator usable in it; of this
    // process's other locks `work` may take none.
    let pid = unsafe { libc::fork() };
    match pid {
        -1 => Err(last_errno()),
        0 => {
            drop(read);
            // SAFETY: numbers and a constant; the child has no handler of its own to come back to.
            unsafe {
                libc::signal(libc::SIGALRM, libc::SIG_DFL);
                libc::alarm(CHILDS_LIFE);
            }
            let end = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| work(&mut File::from(write))));
            // SAFETY: it ends the child at once; nothing of the parent's is flushed or run twice.
            unsafe { libc::_exit(i32::from(end.is_err())) }
        }
        pid => {
            drop(write);
            let mut written = Vec::new();
            let read = File::from(read).take(4096).read_to_end(&mut written);
            let signal = wait_for(pid)?;
            read.map_err(|_| Errno::IO)?;
            Ok((written, signal))
        }
    }
}

/// The signal that ended this child, if one did.
fn wait_for(pid: libc::pid_t) -> Result<Option<i32>, Errno> {
    let mut status = 0;
    loop {
        // SAFETY: the kernel writes one status to a place that has room for it.
        let waited = unsafe { libc::waitpid(pid, &raw mut status, 0) };
        match waited {
            -1 if last_errno() == Errno::INTR => {}
            // Somebody else reaps all children.
            -1 => return Ok(None),
            _ => return Ok(libc::WIFSIGNALED(status).then(|| libc::WTERMSIG(status))),
        }
    }
}

/// Runs `work` beside a child that calls `first` and then does nothing until it is over.
///
/// # Errors
/// No pipe, no process.
pub(crate) fn beside_a_child<T>(first: fn(), work: impl FnOnce(u32) -> T) -> Result<T, Errno> {
    let (read, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
    // SAFETY: the child makes a system call or two, reads from a pipe and ends; it takes no lock and allocates nothing.
    let pid = unsafe { libc::fork() };
    if pid == 0 {
        drop(write);
        first();
        let _ = rustix::io::read(&read, &mut [0_u8; 1]);
        // SAFETY: as in `in_child`.
        unsafe { libc::_exit(0) }
    }
    let child = u32::try_from(pid).map_err(|_| last_errno())?;
    let worked = work(child);
    drop(write);
    wait_for(pid)?;
    Ok(worked)
}

/// The version of Landlock's interface, from 1 on (landlock_create_ruleset(2)).
///
/// # Errors
/// NOSYS: not built in, or an outer filter refuses it; OPNOTSUPP: not enabled.
pub(crate) fn landlock_version() -> Result<u32, Errno> {
    const CREATE_RULESET_VERSION: libc::c_ulong = 1;
    let (none, no_size) = (std::ptr::null::<u8>(), 0 as libc::size_t);
    // SAFETY: with this flag the kernel demands no structure and reads none.
    let returned = unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, none, no_size, CREATE_RULESET_VERSION) };
    result(returned).map(|version| u32::try_from(version).unwrap_or(0))
}

/// Calls listen(2) on no descriptor: a call that is asked about and does nothing, whoever answers.
pub(crate) fn listen_on_nothing() {
    // SAFETY: numbers only.
    unsafe { libc::listen(-1, 0) };
}

/// Attaches a reuseport program that always selects the first socket of its group (SO_ATTACH_REUSEPORT_CBPF of socket(7)).
///
/// # Errors
/// Those of setsockopt(2).
pub(crate) fn first_of_group_receives(socket: BorrowedFd<'_>) -> Result<(), Errno> {
    let mut code = [libc::sock_filter { code: (libc::BPF_RET | libc::BPF_K) as u16, jt: 0, jf: 0, k: 0 }];
    let program = libc::sock_fprog { len: 1, filter: code.as_mut_ptr() };
    // SAFETY: the kernel reads one `sock_fprog` of the stated length and the one instruction that it points to.
    let returned = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_ATTACH_REUSEPORT_CBPF,
            (&raw const program).cast(),
            size_of::<libc::sock_fprog>() as libc::socklen_t,
        )
    };
    result(returned.into()).map(drop)
}

/// A standard stream, if it is open; for a look at what it is.
pub(crate) fn standard_stream(number: RawFd) -> Option<BorrowedFd<'static>> {
    // SAFETY: numbers only.
    let open = unsafe { libc::fcntl(number, libc::F_GETFD) } != -1;
    // SAFETY: it is open, and nobody closes a standard stream of a running program.
    open.then(|| unsafe { BorrowedFd::borrow_raw(number) })
}
