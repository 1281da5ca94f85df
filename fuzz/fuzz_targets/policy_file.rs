//! `egret_fuzz::policy_file` says what must hold.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| egret_fuzz::policy_file(input));
