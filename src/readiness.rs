//! Whether egret is ready for traffic, and why it is not.

use std::sync::{Mutex, PoisonError};

/// Ready, until somebody says otherwise.
#[derive(Debug, Default)]
pub(crate) struct Readiness(Mutex<Not>);

#[derive(Debug, Default)]
struct Not {
    comparing: bool,
    ending: Option<&'static str>,
    unhealthy: Option<String>,
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

    /// Why it is not ready, if so.
    pub(crate) fn why_not(&self) -> Option<String> {
        let not = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let comparing = not.comparing.then_some("the watched files are being compared for the first time");
        not.ending.map(str::to_owned).or_else(|| not.unhealthy.clone()).or_else(|| comparing.map(str::to_owned))
    }
}
