use proptest::prelude::*;

use super::*;

#[test]
fn odd_names_become_one_plain_word() {
    for (bytes, word) in [
        (&b"/etc/passwd"[..], "/etc/passwd"),
        (b"a b", "a\\x20b"),
        (b"new\nline\x1b[31m", "new\\x0aline\\x1b[31m"),
        (b"\\x41 \"'=", "\\x5cx41\\x20\"'="),
        ("ä".as_bytes(), "\\xc3\\xa4"),
        (b"\xff", "\\xff"),
    ] {
        assert_eq!(escape(bytes), word);
        assert_eq!(unescape(word).as_deref(), Some(bytes));
    }
}

#[test]
fn only_the_one_form_is_read() {
    for word in ["a b", "\\", "\\x", "\\x4", "\\x41", "\\xC3", "\\n", "ä", "a\n", "\\x5c\\"] {
        assert_eq!(unescape(word), None, "{word:?}");
    }
    for text in ["0", "0G", "AB", "+1"] {
        assert_eq!(unhex(text), None, "{text:?}");
    }
}

proptest! {
    #[test]
    fn any_octets_round_trip(bytes: Vec<u8>) {
        prop_assert_eq!(unescape(&escape(&bytes)), Some(bytes.clone()));
        prop_assert_eq!(unhex(&hex(&bytes)), Some(bytes));
    }

    #[test]
    fn whatever_is_read_is_written_so(word in "[ -~]{0,8}") {
        if let Some(bytes) = unescape(&word) {
            prop_assert_eq!(escape(&bytes), word);
        }
    }
}
