//! What is added to one task, pod or project, and the record of it that travels in the sidecar's own environment, so that
//! it can be taken away again to the last octet.
//!
//! The record is a list of steps, each a path and what was done there: `=` the key is new, `+N` and `^N` N values were put
//! behind or before what was there, `~TEXT` another value stood there. Paths lead from the task or pod; items of lists are
//! called by their name, or by their number if they have none.

use super::edit::{Edit, Editor};
use super::error::InjectError;
use super::tree::Node;
use super::write::New;

/// The variable that holds the record.
pub(super) const RECORD: &str = "EGRET_INJECTED";
/// The first word of a record.
pub(super) const VERSION: &str = "1";

/// A place below the task or pod.
#[derive(Clone, Debug, Default)]
pub(super) struct Path(Vec<String>);

impl Path {
    pub(super) fn key(&self, key: &str) -> Self {
        Self(self.0.iter().cloned().chain([escape(key)]).collect())
    }

    /// An item: by its name, or by its number.
    pub(super) fn item(&self, name: Option<&str>, index: usize) -> Self {
        match name {
            Some(name) => self.key(name),
            None => Self(self.0.iter().cloned().chain([format!("#{index}")]).collect()),
        }
    }

    /// For messages.
    pub(super) fn shown(&self) -> String {
        format!("`{self}`")
    }

    fn depth(&self) -> usize {
        self.0.len()
    }
}

impl std::fmt::Display for Path {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0.join("/"))
    }
}

/// Gathers the edits of one task or pod and their record.
pub(super) struct Plan<'t> {
    editor: Editor<'t>,
    pub(super) edits: Vec<Edit>,
    record: Vec<String>,
    pub(super) warnings: Vec<String>,
}

impl<'t> Plan<'t> {
    pub(super) fn new(editor: Editor<'t>) -> Self {
        Self { editor, edits: Vec::new(), record: Vec::new(), warnings: Vec::new() }
    }

    /// Everything done so far.
    pub(super) fn record(&self) -> String {
        format!("{VERSION} {}", self.record.join(" "))
    }

    /// Notes a step that is yet to be done, as the record has to be written before it.
    pub(super) fn note(&mut self, path: &Path, step: &str) {
        self.record.push(format!("{path}{step}"));
    }

    /// New items of the list at this key, which is made if there is none.
    pub(super) fn extend(&mut self, map: &Node, path: &Path, key: &str, items: Vec<New>) -> Result<(), InjectError> {
        if items.is_empty() {
            return Ok(());
        }
        match self.prepare(map, path, key, items.len(), '+', Node::is_list)? {
            There::Not => self.append(map, path, key, New::List(items)),
            There::Empty(name, node) => self.fill(name, node, path, &New::List(items)),
            There::Is(list) => self.edits.push(self.editor.append_items(list, &items, path.depth() + 1)),
        }
        Ok(())
    }

    /// New entries of the mapping at this key, which is made if there is none.
    pub(super) fn enter(&mut self, map: &Node, path: &Path, key: &str, entries: Vec<(String, New)>) -> Result<(), InjectError> {
        if entries.is_empty() {
            return Ok(());
        }
        match self.prepare(map, path, key, entries.len(), '+', Node::is_map)? {
            There::Not => self.append(map, path, key, New::Map(entries)),
            There::Empty(name, node) => self.fill(name, node, path, &New::Map(entries)),
            There::Is(inner) => self.edits.push(self.editor.append_entries(inner, &entries, path.depth() + 1)),
        }
        Ok(())
    }

    /// The same before the items that are there.
    pub(super) fn prepend(&mut self, map: &Node, path: &Path, key: &str, items: Vec<New>) -> Result<(), InjectError> {
        match self.prepare(map, path, key, items.len(), '^', Node::is_list)? {
            There::Not => self.append(map, path, key, New::List(items)),
            There::Empty(name, node) => self.fill(name, node, path, &New::List(items)),
            There::Is(list) => self.put_before(list, &items, &path.key(key))?,
        }
        Ok(())
    }

    /// The sidecar itself behind the items of a list, which has been noted.
    pub(super) fn append_to_list(&mut self, list: &Node, item: New, depth: usize) {
        self.edits.push(self.editor.append_items(list, &[item], depth));
    }

    /// The sidecar itself before the items of the list at this key, or as the only one. The record in it is made here.
    pub(super) fn prepend_sidecar(
        &mut self,
        map: &Node,
        path: &Path,
        key: &str,
        make: impl Fn(&mut Self) -> New,
    ) -> Result<(), InjectError> {
        match self.prepare(map, path, key, 1, '^', Node::is_list)? {
            There::Not => {
                let item = make(self);
                self.append(map, path, key, New::List(vec![item]));
            }
            There::Empty(name, node) => {
                let item = make(self);
                self.fill(name, node, path, &New::List(vec![item]));
            }
            There::Is(list) => {
                let item = make(self);
                self.put_before(list, &[item], &path.key(key))?;
            }
        }
        Ok(())
    }

    fn put_before(&mut self, list: &Node, items: &[New], path: &Path) -> Result<(), InjectError> {
        let edit = self.editor.prepend_items(list, items, path.depth()).ok_or_else(|| {
            let help = "put its first dash on a line of its own";
            InjectError::refused(path.shown(), "begins within another's line, so that nothing can stand before it", help)
        })?;
        self.edits.push(edit);
        Ok(())
    }

    /// The sidecar itself as an entry of a mapping, which has been noted.
    pub(super) fn append_to_map(&mut self, map: &Node, name: &str, entry: New, depth: usize) {
        self.edits.push(self.editor.append_entries(map, &[(name.to_owned(), entry)], depth));
    }

    /// Another value in place of one that is there.
    pub(super) fn replace(&mut self, node: &Node, path: &Path, new: &New) {
        self.note(path, &format!("~{}", escape(&self.editor.text[self.editor.replaced(node)])));
        self.edits.push(self.editor.replace(node, new, path.depth()));
    }

    /// A mapping in place of a list.
    pub(super) fn replace_list(&mut self, key: &Node, list: &Node, path: &Path, new: &New) {
        if list.is_flow() {
            return self.replace(list, path, new);
        }
        self.note(path, &format!("~{}", escape(&self.editor.text[self.editor.replaced(list)])));
        self.edits.push(self.editor.replace_block(key, list, new, path.depth()));
    }

    /// What is at a key, with the step noted that will be done to it.
    fn prepare<'n>(
        &mut self,
        map: &'n Node,
        path: &Path,
        key: &str,
        count: usize,
        side: char,
        fits: fn(&Node) -> bool,
    ) -> Result<There<'n>, InjectError> {
        let there = map.entries().iter().find(|(name, _)| name.text() == Some(key));
        if there.is_none() && map.get("<<").is_some() {
            let why = "may come from elsewhere (<<), and one that is written here would take its place";
            return Err(InjectError::refused(path.key(key).shown(), why, format!("write `{key}` out here")));
        }
        let step = if there.is_some() { format!("{side}{count}") } else { "=".to_owned() };
        self.note(&path.key(key), &step);
        match there {
            None => Ok(There::Not),
            Some((name, value)) if value.is_absent() && !map.is_flow() => Ok(There::Empty(name, value)),
            Some((_, value)) if fits(value) => Ok(There::Is(value)),
            Some(_) => Err(InjectError::refused(
                path.key(key).shown(),
                "has a value that is a function, an alias, null or of another type, so that nothing can be added to it",
                "write it out in place, or leave it away",
            )),
        }
    }

    fn append(&mut self, map: &Node, path: &Path, key: &str, new: New) {
        self.edits.push(self.editor.append_entries(map, &[(key.to_owned(), new)], path.depth()));
    }

    fn fill(&mut self, name: &Node, value: &Node, path: &Path, new: &New) {
        self.edits.push(self.editor.fill(name, value, new, path.depth() + 1));
    }
}

enum There<'n> {
    Not,
    /// The key, and the place behind its colon.
    Empty(&'n Node, &'n Node),
    Is(&'n Node),
}

/// Letters, digits and a few signs as they are, the rest as %XX.
pub(super) fn escape(text: &str) -> String {
    let sign = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' => char::from(byte).to_string(),
        _ => format!("%{byte:02X}"),
    };
    text.bytes().map(sign).collect()
}

/// What [`escape`] was given.
pub(super) fn unescape(text: &str) -> Option<String> {
    let mut bytes = Vec::new();
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte == b'%' {
            let digits = [rest.next()?, rest.next()?];
            bytes.push(u8::from_str_radix(std::str::from_utf8(&digits).ok()?, 16).ok()?);
        } else {
            bytes.push(byte);
        }
    }
    String::from_utf8(bytes).ok()
}
