//! New rules in a policy that people wrote: they are put after the last item of `egress.allow`, in the style that stands
//! there, and nothing else changes. Every comment, every blank and the order stay.

use egret_policy::RuleLine;
use similar::TextDiff;

use crate::config::yaml::{Node, Value, parse};

/// The text with the rules added; `None` if the text is no policy that can be added to.
pub(crate) fn extended(text: &str, rules: &[RuleLine]) -> Option<String> {
    let (root, broken) = parse(text);
    let root = root.filter(|_| broken.is_empty())?;
    let (all, carriage) = (text.matches('\n').count(), text.matches("\r\n").count());
    let newline = if carriage * 2 > all { "\r\n" } else { "\n" };
    let editor = Editor { text, newline, rules };
    let (at, added) = editor.insertion(&root)?;
    Some(format!("{}{added}{}", &text[..at], &text[at..]))
}

/// What `patch` applies. To it a carriage return alone ends no line, and so none may here.
pub(crate) fn unified(name: &str, old: &str, new: &str) -> String {
    let [old, new] = [old, new].map(|text| text.split_inclusive('\n').collect::<Vec<&str>>());
    let diff = TextDiff::configure().newline_terminated(true).diff_slices(&old, &new);
    diff.unified_diff().context_radius(3).header(name, name).to_string()
}

struct Editor<'a> {
    text: &'a str,
    newline: &'static str,
    rules: &'a [RuleLine],
}

/// Where to add, and what.
type Insertion = Option<(usize, String)>;

impl Editor<'_> {
    fn insertion(&self, root: &Node<'_>) -> Insertion {
        let Value::Map { entries, flow } = &root.value else { return None };
        let Some((key, egress)) = entries.iter().find(|(key, _)| key.is("egress")) else {
            return if *flow {
                self.in_flow_map(root, entries, &format!("\"egress\": {{\"allow\": [{}]}}", self.flow_items()))
            } else {
                let lines = format!("egress:{n}  allow:{n}{}", self.items("    "), n = self.newline);
                Some((self.text.len(), self.on_a_line_of_its_own(self.text.len(), &lines)))
            };
        };
        match &egress.value {
            Value::Map { entries, flow } => self.in_egress(egress, entries, *flow),
            _ if egress.is_null() => {
                let indent = " ".repeat(key.at.column as usize + 1);
                self.after_line(key.at.end, &format!("{indent}allow:{n}{}", self.items(&format!("{indent}  ")), n = self.newline))
            }
            _ => None,
        }
    }

    fn in_egress(&self, egress: &Node<'_>, entries: &[(Node<'_>, Node<'_>)], flow: bool) -> Insertion {
        let Some((key, allow)) = entries.iter().find(|(key, _)| key.is("allow")) else {
            if flow {
                return self.in_flow_map(egress, entries, &format!("\"allow\": [{}]", self.flow_items()));
            }
            // Behind the last key: a comment above a key belongs to it.
            let ((first, _), (key, value)) = (entries.first()?, entries.last()?);
            let (_, indent) = self.line_start(first.at.start)?;
            let lines = format!("{indent}allow:{n}{}", self.items(&format!("{indent}  ")), n = self.newline);
            return self.after_line(value.at.end.max(key.at.end), &lines);
        };
        match &allow.value {
            Value::List { items, flow: true } => self.in_flow_list(allow, items),
            Value::List { items, flow: false } => {
                let indent = self.dash_indent(items.first()?.at.start)?;
                self.after_line(items.last()?.at.end, &self.items(indent))
            }
            _ if allow.is_null() && !flow => {
                let (_, indent) = self.line_start(key.at.start)?;
                self.after_line(key.at.end, &self.items(&format!("{indent}  ")))
            }
            _ => None,
        }
    }

    fn in_flow_list(&self, list: &Node<'_>, items: &[Node<'_>]) -> Insertion {
        let added = self.flow_items();
        match items.last() {
            Some(last) => Some((last.at.end, format!(", {added}"))),
            None => Some((list.at.start + 1, added)),
        }
    }

    fn in_flow_map(&self, map: &Node<'_>, entries: &[(Node<'_>, Node<'_>)], added: &str) -> Insertion {
        match entries.last() {
            Some((_, last)) => Some((last.at.end, format!(", {added}"))),
            None => Some((map.at.start + 1, added.to_owned())),
        }
    }

    /// The items of a list in block style, each on a line.
    fn items(&self, indent: &str) -> String {
        self.rules.iter().map(|rule| format!("{indent}{rule}{}", self.newline)).collect()
    }

    /// The same in flow style, as JSON, which YAML reads too.
    fn flow_items(&self) -> String {
        let json = |rule: &RuleLine| {
            let keys = rule.keys();
            match &keys[..] {
                [(_, to)] => format!("\"{to}\""),
                keys => {
                    let pairs: Vec<String> =
                        keys.iter().map(|(key, value)| format!("\"{key}\": {}", json_value(value))).collect();
                    format!("{{{}}}", pairs.join(", "))
                }
            }
        };
        self.rules.iter().map(json).collect::<Vec<_>>().join(", ")
    }

    /// After the line that holds this place.
    fn after_line(&self, at: usize, lines: &str) -> Insertion {
        // A block scalar ends behind its line.
        let at = self.text[..at].trim_end().len();
        let end = self.text[at..].find('\n').map_or(self.text.len(), |newline| at + newline + 1);
        Some((end, self.on_a_line_of_its_own(end, lines)))
    }

    /// Lines to stand at this place; where the file does not end its last line, they end it first.
    fn on_a_line_of_its_own(&self, at: usize, lines: &str) -> String {
        match self.text[..at].ends_with('\n') || at == 0 {
            true => lines.to_owned(),
            false => format!("{}{}", self.newline, lines.strip_suffix(self.newline).unwrap_or(lines)),
        }
    }

    /// The blanks before the dash of an item, which may stand on a line above.
    fn dash_indent(&self, item: usize) -> Option<&str> {
        let line_end = self.text[item..].find('\n').map_or(self.text.len(), |newline| item + newline);
        let line = self.text[..line_end].rsplit('\n').find(|line| line.trim_start().starts_with('-'))?;
        Some(&line[..line.len() - line.trim_start().len()])
    }

    /// Where the line begins, and its blanks. `None` if something but blanks and quotes stands before the place.
    fn line_start(&self, at: usize) -> Option<(usize, &str)> {
        let start = self.text[..at].rfind('\n').map_or(0, |newline| newline + 1);
        let before = &self.text[start..at];
        let indent = &before[..before.len() - before.trim_start_matches(' ').len()];
        before.chars().all(|c| matches!(c, ' ' | '"' | '\'')).then_some((start, indent))
    }
}

/// A value of [`RuleLine::keys`] as JSON: lists of words get their quotes.
fn json_value(value: &str) -> String {
    let Some(inner) = value.strip_prefix('[').and_then(|value| value.strip_suffix(']')) else { return format!("\"{value}\"") };
    let words: Vec<String> = inner
        .split(", ")
        .map(|word| {
            if word.starts_with('"') || word.bytes().all(|b| b.is_ascii_digit()) {
                word.to_owned()
            } else {
                format!("\"{word}\"")
            }
        })
        .collect();
    format!("[{}]", words.join(", "))
}
