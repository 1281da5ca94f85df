use proptest::prelude::*;

use super::*;
use crate::arbitrary;

const SAMPLE: &str = "\
egret-manifest 1
/ directory 0755 0:0 0 0.000000000 -
/a\\x20b\\x0a\\xff file 4755 0:10 5 1700000000.000000001 sha256:2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824 \
capability=01000002 acl=02000000 inode=8:1:12:2:-5.000000000:-
/dev/null character:1:3 0666 0:0 0 0.000000000 -
/huge file 0600 1:1 99 0.000000000 too-large flags=immutable,append
/secret file 0000 1:1 9 0.000000000 unreadable:13
/sh symlink 0777 0:0 0 0.000000000 - target=/bin/busy\\x20box
/state file 0600 1:1 0 0.000000000 not-read
/to symlink 0777 0:0 0 0.000000000 - target=a leads-to=too-large
/to-here symlink 0777 0:0 0 0.000000000 - target=a leads-to=too-large,9,1.000000000,8:1:12:2:-:- inode=8:1:13:1:-:-
end 9
";

/// As so many threads read it.
fn read_by(threads: usize, text: &[u8]) -> Result<View, Refused> {
    let mut lines = Lines::new(text);
    lines.heading(HEADING)?;
    Ok(View { entries: lines.entries_in(threads, entry)?.into_iter().collect() })
}

fn problem(text: impl AsRef<[u8]>) -> (usize, Problem) {
    let refused = read(text.as_ref()).unwrap_err();
    for threads in 1..12 {
        assert_eq!(read_by(threads, text.as_ref()), Err(refused), "{threads} threads");
    }
    assert!(refused.to_string().starts_with(&format!("line {}: ", refused.line)), "{refused}");
    (refused.line, refused.problem)
}

#[test]
fn the_sample_is_read_and_written_as_it_stands() {
    let view = read(SAMPLE.as_bytes()).unwrap();
    assert_eq!(write(&view), SAMPLE);
    let names: Vec<&[u8]> = view.entries.keys().map(|path| &**path).collect();
    assert_eq!(
        names,
        [b"/".as_slice(), b"/a b\n\xff", b"/dev/null", b"/huge", b"/secret", b"/sh", b"/state", b"/to", b"/to-here"]
    );
    assert_eq!(write(&View::default()), "egret-manifest 1\nend 0\n");
}

#[test]
fn every_prefix_is_refused() {
    for end in 0..SAMPLE.len() {
        assert!(read(&SAMPLE.as_bytes()[..end]).is_err(), "{end}");
    }
    assert_eq!(problem(&SAMPLE[..SAMPLE.len() - 1]), (11, Problem::Cut));
}

#[test]
fn each_fault_is_told_with_its_line() {
    for (old, new, expected) in [
        ("egret-manifest 1", "egret-manifest 2", (1, Problem::Version(HEADING))),
        ("egret-manifest 1", "egret", (1, Problem::Heading(HEADING))),
        ("/secret", "/sec\tret", (6, Problem::NotPlain)),
        ("/secret", "/s\\x65cret", (6, Problem::Word("path"))),
        ("/secret", "secret", (6, Problem::Path)),
        ("/secret", "/secret/../x", (6, Problem::Path)),
        ("/secret", "/secret//x", (6, Problem::Path)),
        ("/secret", "/se\\x00cret", (6, Problem::Path)),
        ("/secret", "/a", (6, Problem::Order)),
        ("/secret", "/huge", (6, Problem::Order)),
        ("/secret file", "/secret dir", (6, Problem::Word("type"))),
        ("0000 1:1", "10000 1:1", (6, Problem::Word("mode"))),
        ("0000 1:1", "00000 1:1", (6, Problem::NotCanonical)),
        ("0000 1:1", "0000 1", (6, Problem::Word("owner"))),
        ("0000 1:1 9", "0000 1:1 +9", (6, Problem::NotCanonical)),
        ("0000 1:1 9", "0000 1:1 -9", (6, Problem::Word("size"))),
        ("0000 1:1 9 0.0", "0000 1:1 9 0.00", (6, Problem::NotCanonical)),
        ("0.000000000 unreadable", "0.1000000000 unreadable", (6, Problem::Word("time"))),
        ("unreadable:13", "unreadable", (6, Problem::Word("hash"))),
        ("unreadable:13", "", (6, Problem::Word("hash"))),
        (" unreadable:13", "", (6, Problem::Word("hash"))),
        ("unreadable:13", "-", (6, Problem::NotCanonical)),
        ("unreadable:13", "unreadable:13 ", (6, Problem::NotCanonical)),
        ("unreadable:13", "unreadable:13 target=x", (6, Problem::NotCanonical)),
        ("capability=01000002 acl=02000000", "acl=02000000 capability=01000002", (3, Problem::NotCanonical)),
        ("capability=01000002", "capability=01000002 capability=01000002", (3, Problem::NotCanonical)),
        ("capability=0", "capability=", (3, Problem::Word("extended attribute"))),
        ("8:1:12", "8:1:", (3, Problem::Word("inode"))),
        ("immutable,append", "append,immutable", (5, Problem::Word("flags"))),
        ("too-large,9", "-,9", (10, Problem::NotCanonical)),
        ("leads-to=too-large,9,", "leads-to=too-large,", (10, Problem::Word("leads-to"))),
        ("leads-to=too-large\n", "leads-to=-\n", (9, Problem::NotCanonical)),
        ("not-read", "not-read leads-to=too-large", (8, Problem::NotCanonical)),
        ("end 9", "end 5", (11, Problem::Count)),
        ("end 9", "end 09", (11, Problem::Count)),
        ("end 9\n", "end 9\n\n", (11, Problem::AfterEnd)),
        ("end 9\n", "", (11, Problem::Cut)),
        ("end 9\n", "end 9\r\n", (11, Problem::LineEnd)),
        ("egret-manifest 1\n", "egret-manifest 1\r\n", (1, Problem::LineEnd)),
        ("egret-manifest 1\n", "\u{feff}egret-manifest 1\n", (1, Problem::NotPlain)),
        ("end 9\n", "end 99999999999999999999\n", (11, Problem::Count)),
        ("0000 1:1 9", "0000 1:1 99999999999999999999", (6, Problem::Word("size"))),
        ("0000 1:1 9", "0000 4294967296:1 9", (6, Problem::Word("owner"))),
    ] {
        assert_eq!(problem(SAMPLE.replace(old, new)), expected, "{old} -> {new}");
    }
}

#[test]
fn a_long_text_is_read_by_several_threads_line_for_line() {
    let file = |name: String| format!("/{name} file 0644 0:0 0 0.000000000 not-read\n");
    let lines: String = (0..60_000).map(|number| file(format!("{number:06}"))).collect();
    let text = format!("{HEADING}\n{lines}{}", last_line(60_000));
    assert!(text.len() > 2 << 20, "worth two threads");
    assert_eq!(read(text.as_bytes()).map(|view| view.entries.len()), Ok(60_000));
    for (old, new, expected) in [
        ("/000007 ", "/0000070", (9, Problem::Word("type"))),
        ("/059990 ", "/059990  ", (59_992, Problem::Word("type"))),
        ("/059990 ", "/000000 ", (59_992, Problem::Order)),
        ("end 60000", "end 59999", (60_002, Problem::Count)),
        ("end 60000\n", "", (60_002, Problem::Cut)),
    ] {
        assert_eq!(problem(text.replace(old, new)), expected, "{old} -> {new}");
    }
}

#[test]
fn a_line_has_a_longest_length() {
    let long = format!("{HEADING}\n/{}", "a".repeat(LONGEST_LINE + 1));
    assert_eq!(problem(long), (2, Problem::TooLong));
    assert_eq!(problem(vec![0xff; LONGEST_LINE * 2]), (1, Problem::TooLong));
}

proptest! {
    #[test]
    fn a_view_round_trips(view in arbitrary::view()) {
        let text = write(&view);
        prop_assert_eq!(read_by(3, text.as_bytes()), Ok(view.clone()));
        prop_assert_eq!(read(text.as_bytes()), Ok(view));
    }

    #[test]
    fn a_changed_octet_is_refused_or_another_view(view in arbitrary::view(), at: prop::sample::Index, byte: u8) {
        let mut text = write(&view).into_bytes();
        let at = at.index(text.len());
        text[at] = byte;
        let read = read(&text);
        for threads in 1..6 {
            prop_assert_eq!(&read_by(threads, &text), &read);
        }
        if let Ok(read) = read {
            prop_assert_eq!(write(&read).into_bytes(), text);
        }
    }

    #[test]
    fn no_octets_make_it_panic(text: Vec<u8>) {
        prop_assert!(read(&text).is_err());
    }
}
