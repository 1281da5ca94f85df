//! Whatever the kernel, or somebody in its place, answers: messages lie within it, and nothing follows a torn one.

#![no_main]

use egret_flows::diag::{Said, messages};

libfuzzer_sys::fuzz_target!(|received: &[u8]| {
    let (mut read, mut torn) = (0, false);
    for message in messages(received) {
        assert!(!torn, "a message after a torn one");
        match message {
            Ok(message) => {
                read += 16;
                if let Said::Socket(socket) = message.said {
                    read += 72;
                    assert!(socket.peer.is_none_or(|peer| peer.port() != 0));
                    let _ = (socket.direction(), socket.sent(), socket.received());
                }
            }
            Err(_) => torn = true,
        }
    }
    assert!(read <= received.len());
});
