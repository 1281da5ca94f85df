//! Typed reading of the tree: mappings with known keys, lists, texts, words, numbers. Whatever is of another kind is
//! noted where it stands, and reading goes on.

use std::fmt::Display;
use std::str::FromStr;

use super::diagnose::{Code, Diagnostic};
use super::yaml::{Node, Place, Value};

/// What is wrong, gathered.
#[derive(Debug, Default)]
pub(super) struct Findings(pub(super) Vec<Diagnostic>);

/// A mapping whose keys are known.
#[derive(Clone, Copy)]
pub(super) struct Fields<'n, 't> {
    pub(super) at: Place,
    entries: &'n [(Node<'t>, Node<'t>)],
}

impl<'n, 't> Fields<'n, 't> {
    /// The value of a key, if it is written.
    pub(super) fn get(&self, key: &str) -> Option<&'n Node<'t>> {
        self.entries.iter().find(|(name, _)| name.is(key)).map(|(_, value)| value)
    }

    /// The same for a section: one that holds nothing is none.
    pub(super) fn section(&self, key: &str) -> Option<&'n Node<'t>> {
        self.get(key).filter(|node| !node.is_null())
    }

    /// Where a key of a mapping stands.
    pub(super) fn key_place(node: &Node<'_>, key: &str) -> Place {
        let Value::Map { entries, .. } = &node.value else { return node.at };
        entries.iter().find(|(name, _)| name.is(key)).map_or(node.at, |(name, _)| name.at)
    }

    /// Where a key of this mapping stands.
    pub(super) fn place_of(&self, key: &str) -> Place {
        self.entries.iter().find(|(name, _)| name.is(key)).map_or(self.at, |(name, _)| name.at)
    }

    /// The keys that are written, with their values.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&'n str, &'n Node<'t>, &'n Node<'t>)> + use<'n, 't> {
        self.entries.iter().filter_map(|(key, value)| match &key.value {
            Value::Text { text, .. } => Some((&**text, key, value)),
            _ => None,
        })
    }
}

impl Findings {
    pub(super) fn note(&mut self, code: Code, at: Place, message: impl Into<String>, help: Option<&str>) {
        self.0.push(Diagnostic::error(code, at, message, help));
    }

    /// Notes an error and gives nothing, as the last word of a reader.
    pub(super) fn refuse<T>(&mut self, code: Code, at: Place, message: impl Into<String>, help: Option<&str>) -> Option<T> {
        self.note(code, at, message, help);
        None
    }

    /// A mapping with any keys.
    pub(super) fn any_map<'n, 't>(&mut self, node: &'n Node<'t>, what: &str) -> Option<Fields<'n, 't>> {
        match &node.value {
            Value::Map { entries, .. } => Some(Fields { at: node.at, entries }),
            _ => self.wrong_kind(node, what, "a mapping", "write `key: value`, on lines of their own or in braces"),
        }
    }

    /// A mapping; keys that are not known are noted with the nearest one that is.
    pub(super) fn map<'n, 't>(&mut self, node: &'n Node<'t>, what: &str, keys: &[&str]) -> Option<Fields<'n, 't>> {
        let fields = self.any_map(node, what)?;
        for (name, key, _) in fields.iter().filter(|(name, _, _)| !keys.contains(name)) {
            let help = match nearest(name, keys) {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("known here: {}", keys.join(", ")),
            };
            self.note(Code::UnknownKey, key.at, format!("{what} has no key {name:?}"), Some(&help));
        }
        Some(fields)
    }

    pub(super) fn list<'n, 't>(&mut self, node: &'n Node<'t>, what: &str) -> Option<&'n [Node<'t>]> {
        match &node.value {
            Value::List { items, .. } => Some(items),
            _ => self.wrong_kind(node, what, "a list", "write [a, b], or lines that begin with `-`"),
        }
    }

    pub(super) fn text<'n>(&mut self, node: &'n Node<'_>, what: &str) -> Option<&'n str> {
        match &node.value {
            Value::Text { text, .. } if !node.is_null() => Some(text),
            _ => self.wrong_kind(node, what, "a text", "write a word, or a text in quotes"),
        }
    }

    /// One of some words.
    pub(super) fn word<T: Copy>(&mut self, node: &Node<'_>, what: &str, words: &[(&str, T)]) -> Option<T> {
        let text = self.text(node, what)?;
        if let Some((_, value)) = words.iter().find(|(word, _)| *word == text) {
            return Some(*value);
        }
        let known: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
        self.refuse(Code::BadValue, node.at, format!("{what} is not {text:?}"), Some(&format!("write {}", known.join(" or "))))
    }

    pub(super) fn flag(&mut self, node: &Node<'_>, what: &str) -> Option<bool> {
        self.word(node, what, &[("true", true), ("false", false)])
    }

    /// A whole number in plain decimal digits, of the range that the type has.
    pub(super) fn number<T>(&mut self, node: &Node<'_>, what: &str, range: (T, T)) -> Option<T>
    where
        T: FromStr + Display + PartialOrd,
    {
        let text = self.text(node, what)?;
        let digits = text.bytes().all(|b| b.is_ascii_digit());
        match text.parse().ok().filter(|n| digits && (&range.0..=&range.1).contains(&n)) {
            Some(number) => Some(number),
            None => {
                let help = format!("write a whole number from {} to {}", range.0, range.1);
                self.refuse(Code::BadValue, node.at, format!("{what} is not {text:?}"), Some(&help))
            }
        }
    }

    fn wrong_kind<T>(&mut self, node: &Node<'_>, what: &str, wanted: &str, help: &str) -> Option<T> {
        let got = match &node.value {
            Value::Refused => return None,
            Value::Text { .. } if node.is_null() => "nothing",
            Value::Text { .. } => "a text",
            Value::List { .. } => "a list",
            Value::Map { .. } => "a mapping",
        };
        self.refuse(Code::WrongType, node.at, format!("{what} wants {wanted}, and this is {got}"), Some(help))
    }
}

/// Whether a text may name a rule or a role: 1 to 64 letters, digits, `-`, `_` or `.`. Such names stand in records,
/// metrics and files.
pub(crate) fn is_label(text: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    !text.is_empty() && text.len() <= 64 && text.chars().all(plain)
}

/// The longest word that a nearer one is looked for.
const MAX_WORD: usize = 64;

/// The first few of what is known.
pub(super) fn some_of(known: &[&str]) -> String {
    let more = if known.len() > 20 { ", …" } else { "" };
    format!("{}{more}", known[..known.len().min(20)].join(", "))
}

/// The known word that a misspelt one is nearest to, or that it begins.
pub(super) fn nearest<'k>(word: &str, known: &[&'k str]) -> Option<&'k str> {
    let known: Vec<&str> = known.iter().copied().filter(|known| known.len() <= MAX_WORD).collect();
    if word.len() > MAX_WORD {
        return None;
    }
    if let Some(longer) = known.iter().find(|known| word.len() > 2 && known.starts_with(word)) {
        return Some(longer);
    }
    let distance = |candidate: &&&str| strsim::damerau_levenshtein(&word.to_lowercase(), candidate);
    known.iter().min_by_key(distance).filter(|near| distance(near) <= 1 + near.len() / 4).copied()
}
