//! The samples in other hands: JSON with any blanks, YAML with comments and empty lines anywhere, other line ends, none at the
//! end. Whatever is accepted can be taken back.

use proptest::prelude::*;
use serde_json::Value;

use super::{SAMPLES, fits, there_and_back, ways};

/// JSON with these blanks between its parts, in turn.
fn written(value: &Value, blanks: &mut dyn Iterator<Item = &'static str>) -> String {
    let mut blank = || blanks.next().unwrap_or_default();
    match value {
        Value::Array(items) => {
            let parts: Vec<String> =
                items.iter().map(|item| format!("{}{}{}", blank(), written_again(item, &mut blank), blank())).collect();
            if parts.is_empty() { format!("[{}]", blank()) } else { format!("[{}]", parts.join(",")) }
        }
        Value::Object(entries) => {
            let part = |(key, value): (&String, &Value)| {
                format!(
                    "{}{}{}:{}{}{}",
                    blank(),
                    Value::from(key.as_str()),
                    blank(),
                    blank(),
                    written_again(value, &mut blank),
                    blank()
                )
            };
            let parts: Vec<String> = entries.iter().map(part).collect();
            if parts.is_empty() { format!("{{{}}}", blank()) } else { format!("{{{}}}", parts.join(",")) }
        }
        other => other.to_string(),
    }
}

fn written_again(value: &Value, blank: &mut dyn FnMut() -> &'static str) -> String {
    written(value, &mut std::iter::from_fn(|| Some(blank())))
}

/// YAML with something between its lines, but for those of texts in blocks.
fn interspersed(text: &str, between: &[&str]) -> String {
    let mut between = between.iter().cycle();
    let mut in_block = false;
    let mut out = String::new();
    for line in text.lines() {
        if !in_block {
            out.push_str(between.next().copied().unwrap_or_default());
        }
        in_block = line.ends_with('|') || in_block && (line.ends_with("two") || line.ends_with("lines"));
        out.push_str(line);
        if !in_block && !line.contains('#') && !line.contains("---") {
            out.push_str(["", "  ", " # why", ""][out.len() % 4]);
        }
        out.push('\n');
    }
    out
}

/// Other line ends, or none at the end.
fn ended(text: &str, carriage: bool, last: bool) -> String {
    let text = if last { text } else { text.trim_end_matches('\n') };
    if carriage { text.replace('\n', "\r\n") } else { text.to_owned() }
}

fn try_all(text: &str, container: &str) {
    for options in ways(container).iter().filter(|options| fits(text.trim_start(), options)) {
        there_and_back(text, options);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn json_with_any_blanks(
        sample in 0_usize..4,
        blanks in prop::collection::vec(prop::sample::select(vec!["", "", " ", "\n", "\n\t", "\r\n  ", "\n      "]), 1..40),
    ) {
        let (text, container) = SAMPLES[sample];
        let value: Value = serde_json::from_str(text).unwrap();
        let mut turns = blanks.iter().copied().cycle();
        try_all(&written(&value, &mut turns), container);
    }

    #[test]
    fn json_in_the_usual_forms(sample in 0_usize..4, indent in prop::sample::select(vec!["\t", " ", "  ", "    "]), last: bool, carriage: bool) {
        let (text, container) = SAMPLES[sample];
        let value: Value = serde_json::from_str(text).unwrap();
        let mut pretty = Vec::new();
        let formatter = serde_json::ser::PrettyFormatter::with_indent(indent.as_bytes());
        serde::Serialize::serialize(&value, &mut serde_json::Serializer::with_formatter(&mut pretty, formatter)).unwrap();
        let pretty = String::from_utf8(pretty).unwrap() + if last { "\n" } else { "" };
        try_all(&ended(&pretty, carriage, last), container);
        try_all(&value.to_string(), container);
    }

    #[test]
    fn yaml_with_anything_between_its_lines(
        sample in 4_usize..9,
        between in prop::collection::vec(prop::sample::select(vec!["", "", "\n", "# a comment\n", "        # further in\n", "\n\n"]), 1..12),
        last: bool,
        carriage: bool,
    ) {
        let (text, container) = SAMPLES[sample];
        try_all(&ended(&interspersed(text, &between), carriage, last), container);
    }

    /// Nothing that is read makes it panic, and no part of a sample is taken for another whole.
    #[test]
    fn parts_and_noise(sample in 0_usize..9, from in 0_usize..400, until in 0_usize..1200, noise in "[-:{}\\[\\],'\"&*!|>#\n a]{0,6}") {
        let (text, container) = SAMPLES[sample];
        let part: String = text.chars().take(from).chain(noise.chars()).chain(text.chars().skip(until)).collect();
        for options in ways(container) {
            if let Ok(added) = super::add(&part, None, &options) {
                let back = super::remove(&added.text, None);
                prop_assert_eq!(back.as_deref(), Ok(&*part));
            }
        }
    }
}
