//! What may leave. This crate answers three questions about a connection and does nothing else: it opens no
//! socket, reads no file and asks no clock (the time is an argument).
//!
//! 1. [`Policy::admit`]: may this name or address be asked for, on this port, by this role?
//! 2. [`Permit::vet`]: which of the addresses that the name resolved to may be dialled?
//! 3. [`Permit::confirm`]: does the client's first flight agree with what was permitted?
//!
//! ```
//! use std::net::SocketAddr;
//! use egret_policy::{Draft, Flight, Permit, Policy, Request, RuleDraft, Sni, Surroundings, Target, UnixTime};
//!
//! let mut draft = Draft::default();
//! draft.allow(RuleDraft::name("*.example.com".parse().unwrap()));
//! let policy = std::sync::Arc::new(Policy::new(draft, Surroundings::default()));
//!
//! let target: Target = "api.example.com:443".parse().unwrap();
//! let request = Request::new(target, policy.default_role(), UnixTime(1_800_000_000));
//! let mut permit = policy.admit(&request).unwrap();
//! let vetted = permit.vet(&["93.184.216.34".parse().unwrap()]).unwrap();
//! assert_eq!(vetted[0].socket(), "93.184.216.34:443".parse::<SocketAddr>().unwrap());
//! let seen = Flight::Tls { sni: Sni::One("api.example.com".parse().unwrap()), ech: false };
//! assert!(permit.confirm(&seen).is_ok());
//! ```
//!
//! A [`Permit`] and a [`VettedAddr`] come out of these functions only. To forge one does not compile:
//!
//! ```compile_fail,E0451
//! let forged = egret_policy::VettedAddr { socket: "127.0.0.1:80".parse().unwrap() };
//! ```
//!
//! ```compile_fail,E0423
//! let forged = egret_policy::VettedAddr("127.0.0.1:80".parse().unwrap());
//! ```
//!
//! ```compile_fail,E0599
//! let forged = egret_policy::Permit::default();
//! ```

#![forbid(unsafe_code)]

mod name;
mod target;
mod address;
mod pattern;
mod ports;
mod s3;
mod rule;
mod matcher;
mod verdict;
mod policy;
mod decide;
mod permit;
mod lookup;
mod explain;
mod line;
mod overlap;

pub use address::{Class, classify, embedded_ipv4};
pub use decide::{Request, UnixTime};
pub use explain::{Explanation, NearMiss};
pub use line::RuleLine;
pub use lookup::Lookup;
pub use name::{Name, NameError};
pub use overlap::{Overlap, OverlapKind};
pub use pattern::{NamePattern, PatternError, SharedSuffix, registered_domain};
pub use permit::{Flight, Sni};
pub use policy::{Asker, DEFAULT_ROLE, Draft, Policy, RoleId, Surroundings, default_role_name};
pub use ports::{PortRange, Ports};
pub use rule::{Effect, Mode, Protocol, Rule, RuleDraft, RuleId, To};
pub use s3::{BucketPattern, S3Rule};
pub use target::{Host, Target, TargetError, literal};
pub use verdict::{Denial, Permit, Reason, VettedAddr};
