//! Has a watched file changed: inotify, read without trust.
//!
//! In reading order: [`fingerprint`] is what one file is; [`view`] is what many are, and how two views differ; [`manifest`]
//! is a view as text, with names as [`escape`] writes them; [`expected`] is what somebody approved to change; [`roots`] says
//! which trees count, and how; [`scan`] makes the view of them; [`raw`] reads what the kernel's inotify writes; [`watch`]
//! keeps a view true by it, and tells what changed. What is mounted, whether events arrive, and who may have written a file
//! are its helpers; [`ledger`] says what it covers.
//!
//! Which trees matter, who is told, and what is done about it is for whoever uses this. Nobody who may write to the files
//! *and* stop this process is kept from doing so unseen.

#![deny(unsafe_code)]

pub mod fingerprint;
mod pace;
mod beneath;
pub mod view;
pub mod escape;
pub mod manifest;
pub mod expected;
pub mod roots;
pub mod scan;
pub mod raw;
mod mounts;
mod canary;
mod suspects;
pub mod ledger;
pub mod watch;

#[cfg(test)]
mod arbitrary;
#[cfg(test)]
mod seeds;
