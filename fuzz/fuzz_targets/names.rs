//! `egret_fuzz::names` says what must hold.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| egret_fuzz::names(input));
