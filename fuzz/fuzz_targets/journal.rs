//! `egret_fuzz::journal` says what must hold.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| egret_fuzz::journal(input));
