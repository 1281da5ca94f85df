//! A document as a tree that knows where everything stands in the text: JSON, or YAML with tags, anchors and several
//! documents. Nothing is resolved and nothing is printed from it; whoever edits, edits the text.

mod json;
mod yaml;

use std::ops::Range;

use super::error::InjectError;

/// Deeper than any task definition; a bound for hostile input.
const MAX_DEPTH: usize = 64;

/// The documents of a text, and how they are written.
#[derive(Debug)]
pub(super) struct Documents {
    pub(super) roots: Vec<Node>,
    pub(super) is_json: bool,
}

#[derive(Clone, Debug)]
pub(super) struct Node {
    /// Octets of the text. Of what is in block style: from its first key or dash to the end of its last value.
    pub(super) span: Range<usize>,
    /// As written, with its sign: `!Ref`.
    pub(super) tag: Option<String>,
    /// May be meant by an alias elsewhere.
    pub(super) anchored: bool,
    /// The alias that means it, as it is written: `*name`.
    pub(super) meant_by: Option<String>,
    pub(super) value: Value,
}

#[derive(Clone, Debug)]
pub(super) enum Value {
    Scalar {
        text: String,
        /// In quotes, or as a block: certainly a text.
        quoted: bool,
    },
    List {
        items: Vec<Node>,
        flow: bool,
    },
    Map {
        entries: Vec<(Node, Node)>,
        flow: bool,
    },
    /// Stands for something with an anchor elsewhere.
    Alias,
}

impl Documents {
    /// Reads JSON where a text begins like it, else YAML.
    pub(super) fn read(text: &str) -> Result<Self, InjectError> {
        let is_json = text.trim_start_matches('\u{feff}').trim_start().starts_with(['{', '[']);
        let roots = if is_json { vec![json::read(text)?] } else { yaml::read(text)? };
        roots.iter().try_for_each(|root| root.refuse_doubles(text))?;
        Ok(Self { roots, is_json })
    }
}

impl Node {
    /// The value of this key of a mapping.
    pub(super) fn get(&self, key: &str) -> Option<&Self> {
        self.entries().iter().find(|(name, _)| name.text() == Some(key)).map(|(_, value)| value)
    }

    /// Along several keys.
    pub(super) fn at(&self, keys: &[&str]) -> Option<&Self> {
        keys.iter().try_fold(self, |node, key| node.get(key))
    }

    /// Of a mapping, untagged; else none.
    pub(super) fn entries(&self) -> &[(Self, Self)] {
        match &self.value {
            Value::Map { entries, .. } if self.tag.is_none() => entries,
            _ => &[],
        }
    }

    /// Of a list, untagged; else none.
    pub(super) fn items(&self) -> &[Self] {
        match &self.value {
            Value::List { items, .. } if self.tag.is_none() => items,
            _ => &[],
        }
    }

    pub(super) fn is_map(&self) -> bool {
        self.tag.is_none() && matches!(self.value, Value::Map { .. })
    }

    pub(super) fn is_list(&self) -> bool {
        self.tag.is_none() && matches!(self.value, Value::List { .. })
    }

    /// In brackets or braces, and not by indentation.
    pub(super) fn is_flow(&self) -> bool {
        matches!(self.value, Value::List { flow: true, .. } | Value::Map { flow: true, .. })
    }

    /// A scalar that means what is written: no tag.
    pub(super) fn text(&self) -> Option<&str> {
        match &self.value {
            Value::Scalar { text, .. } if self.tag.is_none() => Some(text),
            _ => None,
        }
    }

    /// Nothing written after the key.
    pub(super) fn is_absent(&self) -> bool {
        matches!(&self.value, Value::Scalar { text, quoted: false } if text.is_empty() && self.tag.is_none())
    }

    /// Everything below that an alias means, itself included, in the order of the text.
    pub(super) fn meant_elsewhere<'n>(&'n self, found: &mut Vec<&'n Self>) {
        found.extend(self.meant_by.is_some().then_some(self));
        match &self.value {
            Value::List { items, .. } => items.iter().for_each(|item| item.meant_elsewhere(found)),
            Value::Map { entries, .. } => entries.iter().for_each(|(key, value)| {
                key.meant_elsewhere(found);
                value.meant_elsewhere(found);
            }),
            Value::Scalar { .. } | Value::Alias => {}
        }
    }

    /// A key that is written twice means one thing to one reader and another to the next.
    fn refuse_doubles(&self, text: &str) -> Result<(), InjectError> {
        if let Value::Map { entries, .. } = &self.value {
            let mut seen = std::collections::HashSet::new();
            for (key, value) in entries {
                let name = key.text().unwrap_or_default();
                if name != "<<" && !seen.insert(name) {
                    return Err(InjectError::Syntax {
                        line: line_of(text, key.span.start),
                        message: format!("the key {name:?} is written twice"),
                    });
                }
                value.refuse_doubles(text)?;
            }
        }
        if let Value::List { items, .. } = &self.value {
            items.iter().try_for_each(|item| item.refuse_doubles(text))?;
        }
        Ok(())
    }
}

/// The line of this place, from 1.
pub(super) fn line_of(text: &str, at: usize) -> usize {
    text.as_bytes().iter().take(at).filter(|byte| **byte == b'\n').count() + 1
}
