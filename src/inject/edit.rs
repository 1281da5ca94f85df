//! Text put into, and taken out of, a document whose tree is known. Everything else stays octet for octet, and what was put
//! in can be taken out again so that nothing is left of it:
//!
//! - in block style whole lines come and go;
//! - in brackets and braces a value goes with the comma and the blanks before it, or, as the first, with those behind it;
//! - what was empty between its brackets is empty again, with the blanks that it had.

use std::borrow::Cow;
use std::ops::Range;

use super::restored::Fits;
use super::tree::{Node, Value};
use super::write::{New, Style, line_start};

/// One change of the text.
#[derive(Clone, Debug)]
pub(super) struct Edit {
    pub(super) range: Range<usize>,
    pub(super) insert: String,
    /// Of two insertions at one place the deeper comes first.
    pub(super) depth: usize,
    /// Takes or brings whole lines, which end the text's last line first if need be.
    lines: bool,
    /// It puts back what stood there, which has to be of this kind.
    pub(super) fits: Option<Fits>,
}

/// Makes edits of one text.
#[derive(Clone, Copy, Debug)]
pub(super) struct Editor<'t> {
    pub(super) text: &'t str,
    pub(super) style: &'t Style,
}

impl Editor<'_> {
    /// New entries behind the last one of a mapping.
    pub(super) fn append_entries(&self, map: &Node, entries: &[(String, New)], depth: usize) -> Edit {
        let Some((first, _)) = map.entries().first().filter(|_| !map.is_flow()) else {
            let written = |lines: Option<&str>| entries.iter().map(|(k, v)| self.style.flow_entry(k, v, lines)).collect();
            let last = map.entries().last().map(|(_, value)| value);
            return self.in_flow(map, map.entries().first().map(|(key, _)| key), last, &written, depth);
        };
        let indent = " ".repeat(self.column(first.span.start));
        let style = self.style_below(map);
        let lines: String = entries.iter().map(|(key, value)| style.block_entry(key, value, &indent)).collect();
        self.after_line(map, &lines, depth)
    }

    /// New items behind the last one of a list.
    pub(super) fn append_items(&self, list: &Node, items: &[New], depth: usize) -> Edit {
        if list.is_flow() || list.items().is_empty() {
            let written = |lines: Option<&str>| items.iter().map(|item| self.style.flow(item, lines)).collect();
            return self.in_flow(list, list.items().first(), list.items().last(), &written, depth);
        }
        let indent = " ".repeat(self.column(self.dash(list, 0)));
        let style = self.style_below(list);
        let lines: String = items.iter().map(|item| style.block_item(item, &indent)).collect();
        self.after_line(list, &lines, depth)
    }

    /// A list or mapping below a key that had nothing after it, by indentation.
    pub(super) fn fill(&self, key: &Node, colon: &Node, new: &New, depth: usize) -> Edit {
        let indent = " ".repeat(self.column(key.span.start));
        self.after_line(colon, &self.style_below(colon).below(new, &indent), depth)
    }

    /// New items before the first one of a list; `None` where that begins within another's line.
    pub(super) fn prepend_items(&self, list: &Node, items: &[New], depth: usize) -> Option<Edit> {
        let Some(first) = list.items().first() else { return Some(self.append_items(list, items, depth)) };
        if list.is_flow() {
            let lines = self.own_line(list, first);
            let comma = self.style.comma(lines);
            let insert = items.iter().map(|item| self.style.flow(item, lines) + &comma).collect();
            return Some(Edit { range: first.span.start..first.span.start, insert, depth, lines: false, fits: None });
        }
        let dash = self.dash(list, 0);
        let (start, _) = line_start(self.text, dash);
        let indent = &self.text[start..dash];
        if !indent.trim().is_empty() {
            return None;
        }
        let insert = items.iter().map(|item| self.style.block_item(item, indent)).collect();
        Some(Edit { range: start..start, insert, depth, lines: false, fits: None })
    }

    /// Another value in place of this one, which is a scalar or stands in brackets.
    pub(super) fn replace(&self, node: &Node, new: &New, depth: usize) -> Edit {
        Edit { range: node.span.clone(), insert: self.style.flow(new, None), depth, lines: false, fits: None }
    }

    /// Another mapping in place of a list, each by indentation below its key.
    pub(super) fn replace_block(&self, key: &Node, list: &Node, new: &New, depth: usize) -> Edit {
        let indent = " ".repeat(self.column(key.span.start));
        let lines = self.style.below(new, &indent);
        Edit {
            range: self.block_range(list),
            insert: lines.trim_end_matches(['\r', '\n']).to_owned(),
            depth,
            lines: false,
            fits: None,
        }
    }

    /// What [`Self::replace`] or [`Self::replace_block`] takes out.
    pub(super) fn replaced(&self, node: &Node) -> Range<usize> {
        if matches!(node.value, Value::List { flow: false, .. } | Value::Map { flow: false, .. }) {
            self.block_range(node)
        } else {
            node.span.clone()
        }
    }

    /// Takes these values out of a list or mapping, by their numbers in rising order.
    pub(super) fn delete(&self, node: &Node, own: &[usize]) -> Vec<Edit> {
        let values = values(node);
        if !node.is_flow() {
            let from = |index: usize| if node.is_list() { self.dash(node, index) } else { values[index].0.span.start };
            return own.iter().map(|index| self.delete_lines(from(*index), values[*index].1)).collect();
        }
        let follows = |pair: &usize, next: &usize| pair + 1 == *next;
        own.chunk_by(follows).map(|run| self.delete_run(node, &values, run)).collect()
    }

    /// Neighbours between brackets.
    fn delete_run(&self, node: &Node, values: &[(&Node, &Node)], run: &[usize]) -> Edit {
        let (first, last) = (run[0], run[run.len() - 1]);
        let own = values[first].0.span.start..values[last].1.span.end;
        let range = match (first.checked_sub(1), values.get(last + 1)) {
            (Some(before), _) => values[before].1.span.end..own.end,
            (None, Some((after, _))) => own.start..after.span.start,
            (None, None) => self.all_inside(node, &own),
        };
        Edit { range, insert: String::new(), depth: 0, lines: false, fits: None }
    }

    /// All that stands between brackets, as it was put in there.
    fn all_inside(&self, node: &Node, own: &Range<usize>) -> Range<usize> {
        let inside = node.span.start + 1..node.span.end.saturating_sub(1);
        let on_lines = own.start > inside.start;
        inside.start..if on_lines { inside.end } else { own.end }
    }

    /// Puts another text in place of a part of this one.
    pub(super) fn put_back(range: Range<usize>, insert: String, fits: Fits) -> Edit {
        Edit { range, insert, depth: 0, lines: false, fits: Some(fits) }
    }

    fn delete_lines(&self, from: usize, last: &Node) -> Edit {
        let (start, _) = line_start(self.text, from);
        Edit { range: start..self.line_end(last), insert: String::new(), depth: 0, lines: true, fits: None }
    }

    /// Between brackets: behind the last value, or as the first.
    fn in_flow(
        &self,
        node: &Node,
        first: Option<&Node>,
        last: Option<&Node>,
        written: &dyn Fn(Option<&str>) -> Vec<String>,
        depth: usize,
    ) -> Edit {
        if let (Some(first), Some(last)) = (first, last) {
            let lines = self.own_line(node, first);
            let insert = written(lines).iter().map(|value| self.style.comma(lines) + value).collect();
            return Edit { range: last.span.end..last.span.end, insert, depth, lines: false, fits: None };
        }
        let at = node.span.start + 1;
        let is_tight = node.span.end == at + 1 && self.text.contains('\n');
        let (_, outer) = line_start(self.text, node.span.start);
        let inner = format!("{outer}{}", self.style.unit);
        let lines = is_tight.then_some(inner.as_str());
        let joined = written(lines).join(&self.style.comma(lines));
        let n = self.style.newline;
        let insert = if is_tight { format!("{n}{inner}{joined}{n}{outer}") } else { joined };
        Edit { range: at..at, insert, depth, lines: false, fits: None }
    }

    /// The indentation of values that stand on lines of their own; `None` if the first does not.
    fn own_line(&self, node: &Node, first: &Node) -> Option<&str> {
        let between = &self.text[node.span.start..first.span.start];
        between.contains('\n').then(|| line_start(self.text, first.span.start).1)
    }

    fn after_line(&self, node: &Node, lines: &str, depth: usize) -> Edit {
        let end = self.line_end(node);
        let ends_last_line = end == self.text.len() && !self.text.ends_with('\n');
        let insert = if ends_last_line {
            format!("{}{}", self.style.newline, lines.strip_suffix(self.style.newline).unwrap_or(lines))
        } else {
            lines.to_owned()
        };
        Edit { range: end..end, insert, depth, lines: true, fits: None }
    }

    /// The style of lines behind a node.
    fn style_below(&self, node: &Node) -> Cow<'_, Style> {
        let follows = self.text[self.line_end(node)..].lines().find(|line| !line.trim().is_empty());
        let is_comment_further_in =
            follows.is_some_and(|line| line.starts_with([' ', '\t']) && line.trim_start().starts_with('#'));
        if is_comment_further_in { Cow::Owned(self.style.quoting()) } else { Cow::Borrowed(self.style) }
    }

    /// Behind the line on which a node ends.
    fn line_end(&self, node: &Node) -> usize {
        let at = self.last_letter(node);
        self.text[at..].find('\n').map_or(self.text.len(), |newline| at + newline + 1)
    }

    /// A block scalar ends on the line below it, unless it keeps the empty lines at its end.
    fn last_letter(&self, node: &Node) -> usize {
        let keeps = matches!(&last_leaf(node).value, Value::Scalar { text, quoted: true } if text.ends_with("\n\n"));
        let until = &self.text[..node.span.end];
        if keeps { until.len() - usize::from(until.ends_with('\n')) } else { until.trim_end().len() }
    }

    fn block_range(&self, node: &Node) -> Range<usize> {
        let start = if node.is_list() { self.dash(node, 0) } else { node.span.start };
        line_start(self.text, start).0..self.last_letter(node)
    }

    /// Where the dash of an item stands: it begins a line between the item before and this one.
    fn dash(&self, list: &Node, index: usize) -> usize {
        let items = list.items();
        let Some(item) = items.get(index) else { return list.span.start };
        let from = index.checked_sub(1).map_or_else(|| line_start(self.text, list.span.start).0, |before| items[before].span.end);
        let mut at = from.min(item.span.start);
        for line in self.text[at..item.span.start].split_inclusive('\n') {
            let letter = line.len() - line.trim_start().len();
            if line[letter..].starts_with('-') {
                return at + letter;
            }
            at += line.len();
        }
        item.span.start
    }

    fn column(&self, at: usize) -> usize {
        at - line_start(self.text, at).0
    }
}

fn last_leaf(node: &Node) -> &Node {
    let last = match &node.value {
        Value::Map { entries, .. } => entries.last().map(|(_, value)| value),
        Value::List { items, .. } => items.last(),
        _ => None,
    };
    last.map_or(node, last_leaf)
}

/// Of a mapping its keys and values; of a list each item twice.
pub(super) fn values(node: &Node) -> Vec<(&Node, &Node)> {
    let entries = node.entries().iter().map(|(key, value)| (key, value));
    entries.chain(node.items().iter().map(|item| (item, item))).collect()
}

/// The text with these changes. Where two take out the same, it goes once.
pub(super) fn apply(text: &str, mut edits: Vec<Edit>) -> String {
    edits.sort_by_key(|edit| (edit.range.start, std::cmp::Reverse(edit.depth)));
    let (mut out, mut at) = (String::with_capacity(text.len() * 2), 0);
    for edit in &edits {
        out.push_str(text.get(at..edit.range.start).unwrap_or_default());
        out.push_str(&edit.insert);
        at = at.max(edit.range.end);
    }
    let rest = text.get(at..).unwrap_or_default();
    out.push_str(rest);
    let took_last_line = edits.iter().any(|edit| edit.lines && edit.insert.is_empty() && edit.range.end == text.len());
    if rest.is_empty() && took_last_line && !text.ends_with('\n') {
        out.truncate(out.trim_end_matches(['\n']).len().max(out.len().saturating_sub(1)));
        if out.ends_with('\r') {
            out.pop();
        }
    }
    out
}
