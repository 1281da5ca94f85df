//! Whatever a set of expected changes holds, it is refused or has exactly this text.

#![no_main]

use egret_inotify_fim::expected::Expected;

libfuzzer_sys::fuzz_target!(|text: &[u8]| {
    if let Ok(expected) = Expected::read(text) {
        assert_eq!(expected.write().as_bytes(), text);
    }
});
