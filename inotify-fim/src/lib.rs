//! Has a watched file changed: inotify, read without trust.
//!
//! [`fingerprint`] is what one file is; [`view`] is what many are, and how two views differ; [`manifest`] is a view as
//! text, with names as [`escape`] writes them. [`raw`] reads what the kernel's inotify writes.

#![forbid(unsafe_code)]

pub mod fingerprint;
mod beneath;
pub mod view;
pub mod escape;
pub mod manifest;
pub mod scan;
pub mod raw;

#[cfg(test)]
mod arbitrary;
