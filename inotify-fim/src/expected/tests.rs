use proptest::prelude::*;

use super::*;
use crate::arbitrary;

const OLD: &str = "\
egret-manifest 1
/app directory 0755 0:0 0 0.000000000 -
/app/gone file 0644 0:0 1 1.000000000 sha256:1111111111111111111111111111111111111111111111111111111111111111
/app/kept file 0644 0:0 1 1.000000000 sha256:2222222222222222222222222222222222222222222222222222222222222222
/app/lib file 0644 0:0 1 1.000000000 sha256:3333333333333333333333333333333333333333333333333333333333333333
end 4
";

const SAMPLE: &str = "\
egret-expected 1
from 2026-12-01T00:00:00Z
until 2026-12-31T00:00:00Z
/app/gone absent
/app/lib file 0755 0:0 2 9.000000000 sha256:4444444444444444444444444444444444444444444444444444444444444444 capability=01
/app/sh symlink 0777 0:0 0 9.000000000 - target=lib
end 3
";

/// 2026-12-15.
const WITHIN: i64 = 1_797_292_800;

fn old() -> View {
    manifest(OLD)
}

fn manifest(text: &str) -> View {
    crate::manifest::read(text.as_bytes()).unwrap()
}

fn sample() -> Expected {
    Expected::read(SAMPLE.as_bytes()).unwrap()
}

/// The old view after all that the sample expects.
fn after() -> View {
    old().moved_forward_by(&sample(), WITHIN)
}

fn all_allowed(from: &View, to: &View, now: i64) -> bool {
    let found = compare(from, to);
    assert!(!found.is_empty());
    found.iter().all(|difference| sample().allows(difference, now))
}

/// The new view with a change to the library.
fn with(change: impl Fn(&mut Fingerprint)) -> View {
    let mut view = after();
    let lib = view.entries.get_mut(b"/app/lib".as_slice()).unwrap();
    change(Arc::make_mut(lib));
    view
}

#[test]
fn the_sample_is_read_and_written_as_it_stands() {
    let expected = sample();
    assert_eq!(expected.write(), SAMPLE);
    assert_eq!((expected.from, expected.until), (Some(1_796_083_200), 1_798_675_200));
    let open = SAMPLE.replace("from 2026-12-01T00:00:00Z\n", "");
    assert_eq!(Expected::read(open.as_bytes()).unwrap().write(), open);
    assert_eq!(expected.without_content().count(), 0);
}

#[test]
fn g10_what_was_approved_is_allowed_in_its_time_only() {
    let (from, until) = (sample().from.unwrap(), sample().until);
    for (now, allowed) in [(from - 1, false), (from, true), (WITHIN, true), (until - 1, true), (until, false), (i64::MAX, false)]
    {
        assert_eq!(all_allowed(&old(), &after(), now), allowed, "{now}");
        assert_eq!(sample().is_in_force(now), allowed);
        assert_eq!(old().moved_forward_by(&sample(), now) != old(), allowed);
    }
}

#[test]
fn g10_another_state_than_the_approved_is_not_allowed() {
    type Edit = fn(&mut Fingerprint);
    let not_allowed: [(&str, Edit); 10] = [
        ("hash", |lib| lib.hash = HashState::Done([5; 32])),
        ("unreadable", |lib| lib.hash = HashState::Unreadable(13)),
        ("not read", |lib| lib.hash = HashState::NotRead),
        ("size", |lib| lib.size = 3),
        ("mode", |lib| lib.mode = 0o4755),
        ("owner", |lib| lib.uid = 1),
        ("group", |lib| lib.gid = 1),
        ("flags", |lib| lib.flags.immutable = true),
        ("capability", |lib| lib.xattrs = Box::default()),
        ("type", |lib| (lib.kind, lib.hash) = (Kind::Fifo, HashState::NotRegular)),
    ];
    for (what, change) in not_allowed {
        assert!(!all_allowed(&old(), &with(change), WITHIN), "{what}");
    }
    assert!(all_allowed(&old(), &with(|lib| lib.mtime.seconds = 77), WITHIN), "the time tells nothing");
}

#[test]
fn g10_what_nobody_named_is_not_allowed() {
    let mut view = after();
    view.entries.remove(b"/app/kept".as_slice());
    assert!(!all_allowed(&old(), &view, WITHIN), "another file is gone");
    let mut back = old();
    back.entries.remove(b"/app/lib".as_slice());
    assert!(!all_allowed(&old(), &back, WITHIN), "gone instead of changed");
    assert!(!all_allowed(&after(), &old(), WITHIN), "back to what was");
}

#[test]
fn a_move_needs_leave_for_both_sides() {
    let lib = &after().entries[b"/app/lib".as_slice()];
    let moved = |from: &[u8]| Difference {
        path: b"/app/lib".as_slice().into(),
        change: Change::Moved { from: from.into() },
        old: Some(Arc::clone(lib)),
        new: Some(Arc::clone(lib)),
    };
    assert!(sample().allows(&moved(b"/app/gone"), WITHIN));
    assert!(!sample().allows(&moved(b"/app/kept"), WITHIN));
    assert!(!sample().allows(&moved(b"/app/lib"), WITHIN));
}

#[test]
fn unknown_content_approves_of_nothing() {
    for state in ["too-large", "unstable", "not-read", "unreadable:13"] {
        let text = SAMPLE.replace(&format!("sha256:{}", "4".repeat(64)), state);
        let expected = Expected::read(text.as_bytes()).unwrap();
        assert_eq!(expected.without_content().count(), 1);
        let view = old().moved_forward_by(&expected, WITHIN);
        let found = compare(&old(), &view);
        assert!(!found.iter().all(|difference| expected.allows(difference, WITHIN)), "{state}");
    }
}

#[test]
fn made_of_two_manifests_it_allows_the_step_between_them_and_leaves_out_times() {
    let touched = manifest(&OLD.replace("1.000000000 sha256:2222", "5.000000000 sha256:2222"));
    assert!(Expected::between(&old(), &touched, None, 1).entries.is_empty());
    let expected = Expected::between(&old(), &after(), sample().from, sample().until);
    assert_eq!(expected, sample());
}

#[test]
fn each_fault_is_told_with_its_line() {
    for (old, new, line, problem) in [
        ("egret-expected 1", "egret-manifest 1", 1, Problem::Heading(HEADING)),
        ("egret-expected 1", "egret-expected 2", 1, Problem::Version(HEADING)),
        ("from 2026-12-01T00:00:00Z", "from 2026-12-01", 2, Problem::From),
        ("from 2026-12-01T00:00:00Z", "from 2026-12-01T00:00:00.5Z", 2, Problem::From),
        ("from 2026-12-01T00:00:00Z", "from 2026-12-01T01:00:00+01:00", 2, Problem::From),
        ("from 2026-12-01T00:00:00Z", "from 2026-12-31T00:00:00Z", 3, Problem::From),
        ("from 2026-12-01T00:00:00Z\nuntil 2026-12-31T00:00:00Z\n", "", 2, Problem::Until),
        ("until 2026-12-31T00:00:00Z", "until tomorrow", 3, Problem::Until),
        ("until 2026-12-31T00:00:00Z\n", "until 2026-12-31T00:00:00Z\nuntil 2027-12-31T00:00:00Z\n", 4, Problem::Path),
        ("/app/gone absent", "/app/gone absent ", 4, Problem::Word("type")),
        ("/app/gone absent", "app absent", 4, Problem::Path),
        ("/app/gone absent", "/z absent", 5, Problem::Order),
        ("end 3", "end 2", 7, Problem::Count),
        ("end 3\n", "", 7, Problem::Cut),
        ("\n", "\r\n", 1, Problem::LineEnd),
    ] {
        let refused = Expected::read(SAMPLE.replace(old, new).as_bytes()).unwrap_err();
        assert_eq!((refused.line, refused.problem), (line, problem), "{old} -> {new}");
    }
    for end in 0..SAMPLE.len() {
        assert!(Expected::read(&SAMPLE.as_bytes()[..end]).is_err(), "{end}");
    }
}

proptest! {
    #[test]
    fn what_stands_between_two_views_round_trips_and_leads_from_one_to_the_other(
        old in arbitrary::view(), new in arbitrary::view(), until in 1_i64..4_000_000_000
    ) {
        let expected = Expected::between(&old, &new, None, until);
        prop_assert_eq!(Expected::read(expected.write().as_bytes()), Ok(expected.clone()));
        let moved = old.portable().moved_forward_by(&expected, until - 1);
        prop_assert!(compare(&moved, &new.portable()).iter().all(|left| !says_more_than_time(left)));
    }

    #[test]
    fn no_octets_make_it_panic(text: Vec<u8>) {
        prop_assert!(Expected::read(&text).is_err());
    }
}
