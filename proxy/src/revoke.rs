//! Another policy, or the end of a rule or an audit, and the connections that are alive: where the gateway closes what is revoked,
//! each of them is judged again by what it asked for, where it went and what it showed.

use std::future::pending;
use std::net::IpAddr;
use std::sync::Arc;

use egret_policy::{Denial, Flight, Permit, Policy};
use futures_util::future::BoxFuture;

use crate::listener::{Gateway, now};

/// What a live connection was let through for.
#[derive(Clone, Debug)]
pub(crate) struct Live {
    pub(crate) permit: Permit,
    pub(crate) address: IpAddr,
    pub(crate) flight: Flight,
}

impl Live {
    /// Judges again.
    pub(crate) fn judge(&self, policy: &Arc<Policy>) -> Result<(), Denial> {
        self.permit.again(policy, self.address, &self.flight, now()).map(drop)
    }
}

/// Ends once the policy in force would not let `live` through. Never ends where live connections are left alone.
/// There it takes no memory.
pub(crate) fn revoked<'a>(gateway: &'a Gateway, live: impl Fn() -> Option<Live> + Send + 'a) -> BoxFuture<'a, ()> {
    if !gateway.close_revoked {
        return Box::pin(pending());
    }
    Box::pin(async move {
        let mut changes = gateway.changes.subscribe();
        while live().is_none_or(|live| live.judge(&gateway.policy()).is_ok()) {
            if changes.changed().await.is_err() {
                return pending().await;
            }
        }
    })
}
