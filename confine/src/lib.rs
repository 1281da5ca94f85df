//! No way out but through the one who asks: a program is started so that every connection it makes is made for it, by
//! somebody who may refuse.
//!
//! In reading order: [`rules`] says which system calls are asked about and which are refused, each with its reason, and a
//! filter is made of them; [`probe`] tries what the kernel and the container's profile allow, and [`status`] says what
//! holds by that; [`egress`] is the question that somebody else answers, and [`names`] another; [`exec`] says what may be
//! executed; the supervisor answers the app's calls with sockets that it makes itself; [`launch`] starts the app.
//!
//! Who may connect where is not known here. What is refused, and what is not understood, fails closed: with the supervisor
//! gone, no socket can be made or connected any more.

#![deny(unsafe_code)]

pub mod rules;
mod bpf;
pub mod probe;
pub mod status;
pub mod egress;
pub mod names;
pub mod exec;
mod address;
mod identity;
mod resolve;
mod caller;
mod sockets;
mod established;
mod supervisor;
mod privileges;
mod domain;
mod limits;
pub mod launch;
#[allow(unsafe_code, reason = "the raw calls")]
mod sys;

pub use caller::Process;
pub use egress::{Egress, Reply, Request};
pub use exec::{ExecError, ExecList, Execution};
pub use launch::{Confined, LaunchError, Options, launch};
pub use names::{Answer, Names, NoNames, Query, harmless_query};
pub use probe::{Probe, probe};
pub use rustix::io::Errno;
pub use status::{Layer, Level, Status};
