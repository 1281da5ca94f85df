//! Whether egret is ready for traffic, and why it is not.

use std::fmt::Display;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// So long after the last client that had to wait for want of descriptors or memory, clients are taken for served again.
const STARVED: Duration = Duration::from_secs(5);

/// Ready, until somebody says otherwise.
#[derive(Debug, Default)]
pub(crate) struct Readiness(Mutex<Not>);

#[derive(Debug, Default)]
struct Not {
    comparing: bool,
    ending: Option<&'static str>,
    unhealthy: Option<String>,
    starved: Option<(Instant, String)>,
}

impl Readiness {
    /// Files are compared for the first time, before which nobody should rely on them.
    pub(crate) fn comparing(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).comparing = true;
    }

    /// They were.
    pub(crate) fn compared(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).comparing = false;
    }

    /// The end has begun.
    pub(crate) fn drain(&self, why: &'static str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).ending = Some(why);
    }

    /// Something happened that no time heals; the first reason stays until egret is started anew.
    pub(crate) fn unhealthy(&self, why: impl FnOnce() -> String) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).unhealthy.get_or_insert_with(why);
    }

    /// Clients wait, as they cannot be accepted. Says whether that is news.
    pub(crate) fn starved(&self, why: &dyn Display) -> bool {
        let mut not = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let before = not.starved.replace((Instant::now(), format!("clients cannot be accepted: {why}")));
        before.is_none_or(|(when, _)| when.elapsed() > STARVED)
    }

    /// Why it is not ready, if so.
    pub(crate) fn why_not(&self) -> Option<String> {
        let not = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let comparing = not.comparing.then_some("the watched files are being compared for the first time");
        let starved = || not.starved.as_ref().filter(|(when, _)| when.elapsed() <= STARVED).map(|(_, why)| why.clone());
        let lasting = not.ending.map(str::to_owned).or_else(|| not.unhealthy.clone());
        lasting.or_else(|| comparing.map(str::to_owned)).or_else(starved)
    }
}
