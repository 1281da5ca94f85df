//! Takes away what was added, by the record that the sidecar carries. Values that somebody put among ours since stay; what
//! has been changed beyond recognition is an error, and nothing is touched.

use super::edit::{Edit, Editor};
use super::error::InjectError;
use super::plan::{RECORD, VERSION, unescape};
use super::restored::Fits;
use super::tree::Node;
use super::{FOLDERS, WRAPPER};
use crate::variables;

/// The keys that are made where there are none.
const MADE: [&str; 11] = [
    "environment",
    "env",
    "secrets",
    "dependsOn",
    "depends_on",
    "entryPoint",
    "command",
    "mountPoints",
    "volumeMounts",
    "volumes",
    "initContainers",
];

/// The record in one of these containers, and the container's name.
pub(super) fn record_in<'n>(containers: &[(&'n str, &'n Node)]) -> Option<(&'n str, &'n str)> {
    containers.iter().find_map(|(name, container)| Some((*name, record_of(container)?)))
}

/// What takes this record's additions out of the tree below `root`.
pub(super) fn edits(editor: Editor<'_>, root: &Node, sidecar: &str, record: &str) -> Result<Vec<Edit>, InjectError> {
    let Some((VERSION, steps)) = record.split_once(' ') else {
        return Err(InjectError::Changed(format!("the record {RECORD}")));
    };
    let remover = Remover { editor, root, sidecar };
    let mut all = Vec::new();
    for step in steps.split(' ').filter(|step| !step.is_empty()) {
        all.extend(remover.step(step)?);
    }
    Ok(all)
}

/// The record of a container: a variable of either form.
fn record_of(container: &Node) -> Option<&str> {
    let environment = ["environment", "Environment", "env"].iter().find_map(|key| container.get(key))?;
    let in_list = environment.items().iter().find(|item| name_of(item) == Some(RECORD));
    let value = in_list.and_then(|item| item.get("value").or_else(|| item.get("Value")));
    value.or_else(|| environment.get(RECORD)).and_then(Node::text)
}

/// `name` or `Name`.
pub(super) fn name_of(node: &Node) -> Option<&str> {
    node.get("name").or_else(|| node.get("Name")).and_then(Node::text)
}

struct Remover<'t> {
    editor: Editor<'t>,
    root: &'t Node,
    sidecar: &'t str,
}

impl<'t> Remover<'t> {
    fn step(&self, step: &str) -> Result<Vec<Edit>, InjectError> {
        let at = step.find(['=', '+', '^', '~']).unwrap_or(step.len());
        let (path, what) = step.split_at(at);
        let changed = || InjectError::Changed(format!("`{path}`"));
        if what.is_empty() {
            return Err(changed());
        }
        let (sign, rest) = what.split_at(1);
        let count = || rest.parse::<usize>().map_err(|_| changed());
        let found = match sign {
            "=" => self.created(path),
            "+" => self.values(path, count()?, false),
            "^" => self.values(path, count()?, true),
            _ => self.replaced(path, rest),
        };
        found.ok_or_else(changed)
    }

    /// A key that was new: it goes, unless somebody has put values of his own below it. Of other keys egret makes none.
    fn created(&self, path: &str) -> Option<Vec<Edit>> {
        let (map, index) = self.entry(path)?;
        let (key, value) = map.entries().get(index)?;
        key.text().filter(|key| MADE.iter().any(|made| made.eq_ignore_ascii_case(key)))?;
        let count = value.items().len() + value.entries().len();
        let own = self.own(value);
        if count == own.len() {
            return Some(self.editor.delete(map, &[index]));
        }
        if own.is_empty() {
            return None;
        }
        Some(self.editor.delete(value, &own))
    }

    /// The first or last of our values.
    fn values(&self, path: &str, count: usize, first: bool) -> Option<Vec<Edit>> {
        let node = self.node(path)?;
        let own = self.own(node);
        let is_wrapped = node.items().first().and_then(Node::text) == Some(WRAPPER[0]);
        if is_wrapped && ![WRAPPER.len(), node.items().len()].contains(&count) {
            return None;
        }
        let skip = own.len().checked_sub(count)?;
        let own = if first { own.get(..count)? } else { own.get(skip..)? };
        Some(self.editor.delete(node, own))
    }

    fn replaced(&self, path: &str, original: &str) -> Option<Vec<Edit>> {
        let node = self.node(path)?;
        let original = unescape(original).filter(|original| !original.trim().is_empty())?;
        Some(vec![Editor::put_back(self.editor.replaced(node), original, kind(path, node)?)])
    }

    /// Which values of a list or mapping look like ours.
    fn own(&self, node: &Node) -> Vec<usize> {
        if node.items().first().and_then(Node::text) == Some(WRAPPER[0]) {
            return (0..node.items().len()).collect();
        }
        let entries =
            node.entries().iter().map(|(key, value)| key.text().is_some_and(|key| self.is_ours(key)) || self.is_own(value));
        let items = node.items().iter().map(|item| self.is_own(item));
        entries.chain(items).enumerate().filter(|(_, is_own)| *is_own).map(|(index, _)| index).collect()
    }

    /// One of its texts is a name of ours.
    fn is_own(&self, node: &Node) -> bool {
        let texts = node.entries().iter().filter_map(|(_, value)| value.text());
        texts.chain(node.text()).any(|text| self.is_ours(text))
    }

    fn is_ours(&self, text: &str) -> bool {
        let name = text.split_once('=').map_or(text, |(name, _)| name);
        let source = text.split_once(':').map_or(text, |(source, _)| source);
        text == self.sidecar
            || text.starts_with("egret-") && FOLDERS.iter().any(|(volume, _)| *volume == source)
            || FOLDERS.iter().any(|(_, folder)| *folder == text || text.contains(&format!(":{folder}")))
            || WRAPPER.contains(&text)
            || name.starts_with("EGRET_")
            || variables::NAMES.contains(&name)
    }

    /// The value at a path.
    fn node(&self, path: &str) -> Option<&'t Node> {
        path.split('/').filter(|segment| !segment.is_empty()).try_fold(self.root, |node, segment| {
            match segment.strip_prefix('#') {
                Some(number) => node.items().get(number.parse::<usize>().ok()?),
                None => {
                    let name = unescape(segment)?;
                    node.get(&name).or_else(|| node.items().iter().find(|item| is_called(item, &name)))
                }
            }
        })
    }

    /// The mapping that has the last key of a path, and which of its entries that is.
    fn entry(&self, path: &str) -> Option<(&'t Node, usize)> {
        let (parent, key) = path.rsplit_once('/').unwrap_or(("", path));
        let (map, key) = (self.node(parent)?, unescape(key)?);
        Some((map, map.entries().iter().position(|(name, _)| name.text() == Some(&key))?))
    }
}

/// What egret replaces at such a path; `None` if it replaces nothing there.
fn kind(path: &str, node: &Node) -> Option<Fits> {
    let mut from_end = path.rsplit('/');
    let last = from_end.next()?;
    let is_proxy = |name: &str| variables::NAMES.contains(&name);
    match last {
        "depends_on" => Some(Fits::Names),
        "value" | "Value" => from_end.next().filter(|name| is_proxy(name)).map(|_| Fits::Text),
        name if !is_proxy(name) => None,
        name if is_called(node, name) => Some(Fits::Variable(name.to_owned())),
        _ => Some(Fits::Text),
    }
}

/// An item of a list: a mapping with a name, or a text that is one with `=` behind it.
fn is_called(item: &Node, name: &str) -> bool {
    name_of(item) == Some(name) || item.text().and_then(|text| text.split_once('=')).is_some_and(|(own, _)| own == name)
}
