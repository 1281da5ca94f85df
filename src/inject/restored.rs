//! Whether what a record puts back may have stood there. A record comes with the text, so that whoever wrote the one may have
//! written the other: without this, words that no scanner takes for configuration would become some.

use super::edit::{Edit, apply};
use super::error::InjectError;
use super::plan::RECORD;
use super::tree::{Documents, Node, Value};

/// What egret replaces, and so all that it puts back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Fits {
    /// The value of a proxy variable.
    Text,
    /// A text of a list that is this variable: `NAME=value`.
    Variable(String),
    /// Names of services.
    Names,
}

/// Compares the text as the edits restore it with the same where each value that is put back is one word: nothing but these may
/// differ, and each has to be of its kind.
pub(super) fn check(text: &str, restored: &str, edits: &[Edit]) -> Result<(), InjectError> {
    let changed = || InjectError::Changed(format!("what the record {RECORD} puts back"));
    let kinds: Vec<&Fits> = edits.iter().filter_map(|edit| edit.fits.as_ref()).collect();
    if overlap(edits) {
        return Err(changed());
    }
    let mut number = 0..;
    let mut marked_edits = edits.to_vec();
    for edit in marked_edits.iter_mut().filter(|edit| edit.fits.is_some()) {
        edit.insert = marked(text, edit, number.next().unwrap_or_default());
    }
    let marked = apply(text, marked_edits);
    let (Ok(restored), Ok(marked)) = (Documents::read(restored), Documents::read(&marked)) else { return Err(changed()) };
    let mut comparison = Comparison { kinds, found: 0 };
    let pairs = restored.roots.iter().zip(&marked.roots);
    let is_same = restored.is_json == marked.is_json
        && restored.roots.len() == marked.roots.len()
        && pairs.into_iter().all(|(one, other)| comparison.is_same(one, other));
    if is_same && comparison.found == comparison.kinds.len() { Ok(()) } else { Err(changed()) }
}

/// Whether something is put back into what another step takes out.
fn overlap(edits: &[Edit]) -> bool {
    let meets = |one: &Edit, other: &Edit| one.range.start < other.range.end && other.range.start < one.range.end;
    let put_back = edits.iter().enumerate().filter(|(_, edit)| edit.fits.is_some());
    put_back.into_iter().any(|(at, edit)| edits.iter().enumerate().any(|(other, one)| at != other && meets(edit, one)))
}

/// One word, as far in as what stands there now.
fn marked(text: &str, edit: &Edit, number: usize) -> String {
    let now = text.get(edit.range.clone()).unwrap_or_default();
    let indent = &now[..now.len() - now.trim_start_matches([' ', '\t']).len()];
    format!("{indent}\"{}\"", word(number))
}

fn word(number: usize) -> String {
    format!("put-back-by-egret-{number}")
}

/// Whether two nodes mean the same.
pub(super) fn is_same(one: &Node, other: &Node) -> bool {
    Comparison { kinds: Vec::new(), found: 0 }.is_same(one, other)
}

struct Comparison<'k> {
    kinds: Vec<&'k Fits>,
    /// How many of the words were met. More than there are kinds: somebody else wrote one.
    found: usize,
}

impl Comparison<'_> {
    /// Whether two nodes mean the same, but for words in the second.
    fn is_same(&mut self, one: &Node, other: &Node) -> bool {
        let number = self.kinds.iter().enumerate().position(|(number, _)| other.text() == Some(&word(number)));
        if let Some(number) = number {
            self.found += 1;
            return !one.anchored && self.kinds[number].accepts(one);
        }
        one.tag == other.tag && one.anchored == other.anchored && self.is_same_value(&one.value, &other.value)
    }

    fn is_same_value(&mut self, one: &Value, other: &Value) -> bool {
        match (one, other) {
            (Value::Scalar { text, quoted }, Value::Scalar { text: other, quoted: also }) => text == other && quoted == also,
            (Value::List { items, .. }, Value::List { items: others, .. }) => {
                items.len() == others.len() && items.iter().zip(others).all(|(one, other)| self.is_same(one, other))
            }
            (Value::Map { entries, .. }, Value::Map { entries: others, .. }) => {
                let mut pairs = entries.iter().zip(others);
                entries.len() == others.len()
                    && pairs.all(|(one, other)| self.is_same(&one.0, &other.0) && self.is_same(&one.1, &other.1))
            }
            (Value::Alias, Value::Alias) => true,
            _ => false,
        }
    }
}

impl Fits {
    fn accepts(&self, node: &Node) -> bool {
        match self {
            Self::Text => node.text().is_some(),
            Self::Variable(name) => node.text().and_then(|text| text.split_once('=')).is_some_and(|(own, _)| own == name),
            Self::Names => node.is_list() && node.items().iter().all(|item| item.text().is_some() && !item.anchored),
        }
    }
}
