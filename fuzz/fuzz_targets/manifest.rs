//! Whatever a manifest holds, it is refused or has exactly this text.

#![no_main]

use egret_inotify_fim::manifest;

libfuzzer_sys::fuzz_target!(|text: &[u8]| {
    if let Ok(view) = manifest::read(text) {
        assert_eq!(manifest::write(&view).as_bytes(), text);
    }
});
