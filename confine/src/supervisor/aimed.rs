//! Calls that do something to the process or thread with a certain number: refused if it is one of the supervisor's own threads.
//!
//! The number may mean another thread by the time the kernel looks. For that, the app would have to use up all numbers in that
//! moment, and this process to start a thread in it.

use std::path::Path;

use rustix::io::Errno;

use super::Shared;
use crate::sys::Notification;

/// Which argument of a call is the number.
fn target(call: &Notification) -> Option<u64> {
    let argument = match i64::from(call.call) {
        libc::SYS_kill | libc::SYS_tkill | libc::SYS_rt_sigqueueinfo => 0,
        libc::SYS_sched_setaffinity | libc::SYS_sched_setscheduler | libc::SYS_sched_setparam | libc::SYS_sched_setattr => 0,
        libc::SYS_setpriority | libc::SYS_ioprio_set => 1,
        // F_SETOWN, the one command that is asked about.
        libc::SYS_fcntl => 2,
        _ => return None,
    };
    Some(call.arguments[argument] & 0xffff_ffff)
}

pub(super) fn is_about_a_process(call: &Notification) -> bool {
    target(call).is_some()
}

pub(super) fn handle(shared: &Shared, call: &Notification) {
    match target(call) {
        // What can't be looked at is refused, too.
        Some(number) if Path::new(&format!("/proc/self/task/{number}")).try_exists().is_ok_and(|exists| !exists) => {
            shared.let_through(call.id);
        }
        _ => {
            shared.answer(call.id, Err(Errno::PERM));
        }
    }
}
