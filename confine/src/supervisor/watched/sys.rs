//! A signal of this process to its own threads (sigaction(2), tgkill(2), signal(7)).

use std::sync::OnceLock;

/// The signal that interrupts threads of this process: the highest that the program has no use of its own for.
static INTERRUPTION: OnceLock<Option<libc::c_int>> = OnceLock::new();

/// Has [`interrupt`] work, if there is a signal for it.
pub(in crate::supervisor) fn prepare_to_interrupt() -> bool {
    extern "C" fn nothing(_: libc::c_int) {}
    let handler: extern "C" fn(libc::c_int) = nothing;
    let take = |signal: &libc::c_int| {
        // SAFETY: all members are integers or pointers that may be null.
        let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
        // SAFETY: the kernel writes one `sigaction`.
        let asked = unsafe { libc::sigaction(*signal, std::ptr::null(), &raw mut action) };
        if asked != 0 || action.sa_sigaction != libc::SIG_DFL {
            return false;
        }
        // Without SA_RESTART: to have the call fail is what it is for.
        action.sa_flags = 0;
        action.sa_sigaction = handler as libc::sighandler_t;
        // SAFETY: the handler does nothing, so that it may run anywhere.
        unsafe { libc::sigaction(*signal, &raw const action, std::ptr::null_mut()) == 0 }
    };
    INTERRUPTION.get_or_init(|| (libc::SIGRTMIN()..=libc::SIGRTMAX()).rev().find(take)).is_some()
}

/// Has a call of this thread fail with EINTR, if it waits.
pub(in crate::supervisor) fn interrupt(tid: u32) {
    let Some(Some(signal)) = INTERRUPTION.get() else { return };
    // SAFETY: numbers only; the signal has a handler, and goes to a thread of this process or to nobody.
    unsafe { libc::syscall(libc::SYS_tgkill, libc::getpid(), tid, *signal) };
}
