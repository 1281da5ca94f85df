//! Has a watched file changed: inotify, read without trust. So far this crate holds the reader of what the kernel
//! writes; it watches nothing yet.

#![forbid(unsafe_code)]

pub mod raw;
