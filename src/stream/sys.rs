//! A signal that a thread does not take (pthread_sigmask(3)), for which there is no safe call here.

#![allow(unsafe_code, reason = "the C library is called")]

use std::mem::MaybeUninit;
use std::ptr::null_mut;

/// Lets this thread write to a terminal that another group of processes has in its foreground, where that would stop egret otherwise
/// (termios(3) TOSTOP, SIGTTOU): an app that has the terminal may have arranged that. Only this thread: what others start inherits
/// their signals, not its.
pub(crate) fn write_in_background() {
    let mut signals = MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: the first call makes a set of signals of `signals`, which lives until the last one has returned; none keeps it.
    unsafe {
        libc::sigemptyset(signals.as_mut_ptr());
        libc::sigaddset(signals.as_mut_ptr(), libc::SIGTTOU);
        libc::pthread_sigmask(libc::SIG_BLOCK, signals.as_ptr(), null_mut());
    }
}
