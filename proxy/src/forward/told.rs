//! What one forwarded request leaves behind: its verdict before its answer begins, its record when that is over.

use std::sync::Arc;

use egret_policy::Policy;
use hyper::Request;
use hyper::body::Incoming;

use super::{Forwarder, message};
use crate::fault::{Fault, Stop};
use crate::record::RequestRecord;

/// The record of one request, told when the last byte of its answer has gone, or its client has.
pub(super) struct Told {
    forwarder: Arc<Forwarder>,
    pub(super) entry: RequestRecord,
    before: (u64, u64),
}

impl Told {
    pub(super) fn new(forwarder: &Arc<Forwarder>, request: &Request<Incoming>, policy: &Policy) -> Self {
        let mut record = forwarder.record();
        record.requests += 1;
        let entry = RequestRecord {
            id: record.id.clone(),
            role: record.role.clone(),
            method: message::method(request),
            target: None,
            rule: None,
            denial: None,
            would_deny: None,
            status: 0,
            fault: None,
            address: None,
            refused: None,
            class: None,
            bytes_up: 0,
            bytes_down: 0,
            policy: Arc::clone(policy.hash()),
        };
        drop(record);
        Self { before: forwarder.meter.both(), forwarder: Arc::clone(forwarder), entry }
    }

    pub(super) fn answered(&mut self, status: u16) {
        self.entry.status = status;
        self.forwarder.note(&self.entry);
        self.forwarder.gateway.observer.answered(&self.entry);
    }
}

impl Drop for Told {
    fn drop(&mut self) {
        if self.entry.status == 0 {
            if self.entry.target.is_none() {
                return;
            }
            // The client went before its answer; what it asked for is told all the same.
            self.entry.fault = Some(Fault::ClientGone.code());
            self.answered(0);
        }
        let (down, up) = self.forwarder.meter.both();
        self.entry.bytes_down = down.saturating_sub(self.before.0);
        self.entry.bytes_up = up.saturating_sub(self.before.1);
        self.forwarder.gateway.observer.requested(self.entry.clone());
    }
}

impl RequestRecord {
    pub(super) fn stopped(&mut self, stop: &Stop) {
        match stop {
            Stop::Denied(denial) => {
                if denial.rule.is_some() {
                    self.rule.clone_from(&denial.rule);
                }
                self.denial = Some(denial.clone());
            }
            Stop::Fault(fault) => self.fault = Some(fault.code()),
        }
    }
}
