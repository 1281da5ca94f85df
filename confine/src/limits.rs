//! How many descriptors the supervisor may have, and the app.

use std::sync::OnceLock;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Raises this process's soft limit to the hard one, since sockets of the app are held here, too. Returns the limits that it was
/// started with, which are the app's.
pub(crate) fn raise() -> Rlimit {
    static FIRST: OnceLock<Rlimit> = OnceLock::new();
    let now = getrlimit(Resource::Nofile);
    let first = FIRST.get_or_init(|| now);
    // With a lower one fewer are held; it does not fail for that.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: now.maximum, maximum: now.maximum });
    *first
}
