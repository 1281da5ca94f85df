//! One connection, end to end: accept → sniff → parse → **admit** → resolve → **vet** → connect → answer → peek →
//! **confirm** → relay → record. The three bold steps are questions to `egret-policy`; [`connection`] is the page that
//! asks them in this order, and every step is a file of this folder.
//!
//! This crate opens sockets and moves bytes. It knows neither the policy file nor the journal: what happened goes to
//! an [`Observer`].

#![forbid(unsafe_code)]

mod listener;
mod connection;
mod client;
mod asker;
mod sniff;
mod request;
pub mod wire;
mod resolve;
mod connect;
mod reply;
mod peek;
mod relay;
mod revoke;
mod forward;
mod confined;
mod record;
mod fault;
mod limits;

pub use asker::Owners;
pub use confined::{Answered, Call, Dialled, Door, Guest, Inquiry, NameRecord, Process, note_direct, note_refused};
pub use fault::{ConnectFault, DnsFault, Fault, Stop};
pub use limits::Limits;
pub use listener::{Gateway, Serving, now};
pub use record::{Close, Decision, Id, Observer, Record, RequestRecord, Stage, Via};
pub use resolve::{BoxedAnswers, BoxedRecords, DnsServer, Resolve, Resolver, ResolverError};
pub use rustls::pki_types::{CertificateDer, pem};
