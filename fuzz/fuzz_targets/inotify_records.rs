//! Whatever stands where the kernel writes its events, each record lies within it, and nothing follows a torn one.

#![no_main]

use egret_inotify_fim::raw::records;

libfuzzer_sys::fuzz_target!(|buffer: &[u8]| {
    let mut used = 0;
    let mut torn = false;
    for record in records(buffer) {
        assert!(!torn, "a record after a torn one");
        match record {
            Ok(record) => {
                let name = record.name.unwrap_or_default();
                assert!(!name.contains(&0));
                used += 16 + name.len();
            }
            Err(_) => torn = true,
        }
    }
    assert!(used <= buffer.len());
});
