use proptest::prelude::*;

use super::*;

fn normal(text: &str) -> Result<String, NameError> {
    Name::parse(text).map(|name| name.to_string())
}

#[test]
fn h01_case_is_folded() {
    assert_eq!(normal("ALLOWED.Test"), Ok("allowed.test".into()));
}

#[test]
fn h02_one_trailing_dot_is_removed_and_two_are_refused() {
    assert_eq!(normal("allowed.test."), Ok("allowed.test".into()));
    assert_eq!(normal("allowed.test.."), Err(NameError::EmptyLabel));
    assert_eq!(normal("."), Err(NameError::Empty));
}

#[test]
fn h03_brackets_are_not_part_of_a_name() {
    assert_eq!(normal("[allowed.test]"), Err(NameError::Character('[')));
}

#[test]
fn h04_h05_characters_that_end_a_name_elsewhere_are_refused() {
    for c in ['\0', '\r', '\n', ' ', '\t', '%', '@', '/', '?', '#', '\\', ':', '*', '!', '\u{7f}'] {
        assert_eq!(normal(&format!("allowed.test{c}.evil.test")), Err(NameError::Character(c)), "{c:?}");
    }
}

#[test]
fn h09_full_stops_of_other_scripts_are_refused() {
    for stop in ['\u{3002}', '\u{ff0e}', '\u{ff61}'] {
        assert_eq!(normal(&format!("evil{stop}test")), Err(NameError::Idna));
        assert_eq!(normal(&format!("127{stop}0{stop}0{stop}1")), Err(NameError::Idna));
    }
}

#[test]
fn h10_unicode_and_its_a_label_are_the_same_name() {
    assert_eq!(normal("bücher.test"), Ok("xn--bcher-kva.test".into()));
    assert_eq!(normal("BÜCHER.test"), normal("xn--bcher-kva.test"));
}

#[test]
fn h11_lengths_are_bounded() {
    let label = "a".repeat(63);
    assert!(normal(&format!("{label}.test")).is_ok());
    assert_eq!(normal(&format!("{label}a.test")), Err(NameError::LabelTooLong));
    let longest = format!("{label}.{label}.{label}.{}", "a".repeat(61));
    assert_eq!(longest.len(), 253);
    assert!(normal(&longest).is_ok());
    assert_eq!(normal(&format!("{longest}a")), Err(NameError::TooLong));
    assert_eq!(normal("a..b"), Err(NameError::EmptyLabel));
    assert_eq!(normal(".a"), Err(NameError::EmptyLabel));
    assert_eq!(normal(""), Err(NameError::Empty));
}

#[test]
fn a01_whatever_some_reader_takes_for_an_address_is_no_name() {
    for text in ["2130706433", "0x7f000001", "0177.0.0.1", "127.1", "0x7f.1", "1.1.1.1.", "1.2.3.0x", "a.0X1F", "1.1.1.1"] {
        assert_eq!(normal(text), Err(NameError::Numeric), "{text}");
    }
    assert!(normal("1.1.1.1a").is_ok());
    assert!(normal("4chan.test").is_ok());
}

#[test]
fn underscores_pass_and_hyphens_stay_inside() {
    assert!(normal("_acme-challenge.allowed.test").is_ok());
    assert_eq!(normal("-a.test"), Err(NameError::Hyphen));
    assert_eq!(normal("a-.test"), Err(NameError::Hyphen));
}

#[test]
fn parents_go_up_label_by_label() {
    let name = Name::parse("a.b.c").unwrap();
    assert_eq!(name.parents().collect::<Vec<_>>(), ["b.c", "c"]);
    assert_eq!(name.labels(), 3);
}

proptest! {
    #[test]
    fn the_normal_form_is_a_fixed_point(text in "\\PC{0,80}") {
        if let Ok(name) = Name::parse(&text) {
            prop_assert_eq!(Name::parse(name.as_str()), Ok(name.clone()));
            prop_assert!(name.as_str().bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-_.".contains(&b)));
        }
    }

    #[test]
    fn case_and_a_trailing_dot_never_matter(text in "[a-zA-Z0-9_.-]{1,60}") {
        let plain = normal(&text);
        prop_assert_eq!(&normal(&text.to_ascii_uppercase()), &plain);
        if !text.ends_with('.') {
            prop_assert_eq!(&normal(&format!("{text}.")), &plain);
        }
    }
}
