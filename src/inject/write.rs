//! New values as text, in the style of the document that they go into.

use std::fmt::Write as _;

use super::tree::{Documents, Node, Value};

/// A value that is to be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum New {
    Text(String),
    /// A number, a boolean: as it stands.
    Bare(String),
    List(Vec<Self>),
    Map(Vec<(String, Self)>),
    /// With its tag: `!Ref`.
    Tagged(String, Box<Self>),
}

impl New {
    pub(super) fn text(text: impl Into<String>) -> Self {
        Self::Text(text.into())
    }

    pub(super) fn bare(word: impl ToString) -> Self {
        Self::Bare(word.to_string())
    }

    pub(super) fn map<const N: usize>(entries: [(&str, Self); N]) -> Self {
        Self::Map(entries.into_iter().map(|(key, value)| (key.to_owned(), value)).collect())
    }

    pub(super) fn texts<T: Into<String>>(texts: impl IntoIterator<Item = T>) -> Self {
        Self::List(texts.into_iter().map(Self::text).collect())
    }

    pub(super) fn words<'w>(words: impl IntoIterator<Item = &'w str>) -> Vec<Self> {
        words.into_iter().map(Self::text).collect()
    }

    /// The same again, to be written elsewhere; `None` where it leans on an anchor.
    pub(super) fn copy(node: &Node) -> Option<Self> {
        let plain = match &node.value {
            Value::Scalar { text, quoted: false } if !is_text(text) => Self::Bare(text.clone()),
            Value::Scalar { text, .. } => Self::Text(text.clone()),
            Value::List { items, .. } => Self::List(items.iter().map(Self::copy).collect::<Option<_>>()?),
            Value::Map { entries, .. } => {
                let pair = |(key, value): &(Node, Node)| Some((key.text()?.to_owned(), Self::copy(value)?));
                Self::Map(entries.iter().map(pair).collect::<Option<_>>()?)
            }
            Value::Alias => return None,
        };
        Some(match &node.tag {
            Some(tag) => Self::Tagged(tag.clone(), Box::new(plain)),
            None => plain,
        })
    }
}

/// How a document is written.
#[derive(Clone, Debug)]
pub(super) struct Style {
    pub(super) newline: &'static str,
    /// One step of indentation.
    pub(super) unit: String,
    /// Between a key and its value, in flow style.
    colon: &'static str,
    /// Dashes stand below the first letter of their key, and not further in.
    dashes_out: bool,
    /// No text in lines below a `|`: a comment that follows further in would become part of it.
    quote: bool,
}

impl Style {
    pub(super) fn of(text: &str, documents: &Documents) -> Self {
        let (all, carriage) = (text.matches('\n').count(), text.matches("\r\n").count());
        let newline = if carriage * 2 > all { "\r\n" } else { "\n" };
        let colon = if documents.is_json && text.contains("\":") && !text.contains("\": ") { ":" } else { ": " };
        let roots = &documents.roots;
        let unit = roots.iter().find_map(|root| step(text, root)).unwrap_or_else(|| "  ".to_owned());
        Self {
            newline,
            unit,
            colon,
            dashes_out: roots.iter().find_map(|root| dashes_out(text, root)).unwrap_or(false),
            quote: false,
        }
    }

    /// The same with every text in quotes.
    pub(super) fn quoting(&self) -> Self {
        Self { quote: true, ..self.clone() }
    }

    /// In brackets and braces: on lines of their own below this indentation, or all on one line.
    pub(super) fn flow(&self, new: &New, lines: Option<&str>) -> String {
        let mut out = String::new();
        self.write_flow(&mut out, new, lines);
        out
    }

    /// A key and its value in braces.
    pub(super) fn flow_entry(&self, key: &str, new: &New, lines: Option<&str>) -> String {
        format!("{}{}{}", quoted(key), self.colon, self.flow(new, lines))
    }

    /// Between two values in brackets or braces.
    pub(super) fn comma(&self, lines: Option<&str>) -> String {
        match lines {
            Some(indent) => format!(",{}{indent}", self.newline),
            None if self.colon == ":" => ",".to_owned(),
            None => ", ".to_owned(),
        }
    }

    fn write_flow(&self, out: &mut String, new: &New, lines: Option<&str>) {
        let inner = lines.map(|indent| format!("{indent}{}", self.unit));
        let (open, close, parts): (_, _, Vec<String>) = match new {
            New::Text(text) => return out.push_str(&quoted(text)),
            New::Bare(word) => return out.push_str(word),
            New::Tagged(tag, new) => {
                let _ = write!(out, "{tag} ");
                return self.write_flow(out, new, lines);
            }
            New::List(items) => ('[', ']', items.iter().map(|item| self.flow(item, inner.as_deref())).collect()),
            New::Map(entries) => {
                ('{', '}', entries.iter().map(|(key, value)| self.flow_entry(key, value, inner.as_deref())).collect())
            }
        };
        let (start, end) = match (&inner, lines) {
            (Some(inner), Some(indent)) if !parts.is_empty() => {
                (format!("{}{inner}", self.newline), format!("{}{indent}", self.newline))
            }
            _ => (String::new(), String::new()),
        };
        let _ = write!(out, "{open}{start}{}{end}{close}", parts.join(&self.comma(inner.as_deref())));
    }

    /// `key: value` by indentation, in whole lines.
    pub(super) fn block_entry(&self, key: &str, new: &New, indent: &str) -> String {
        let mut out = format!("{indent}{}:", key_text(key));
        self.write_block(&mut out, new, indent, false);
        out
    }

    /// `- value` by indentation, in whole lines.
    pub(super) fn block_item(&self, new: &New, indent: &str) -> String {
        let mut out = format!("{indent}-");
        self.write_block(&mut out, new, indent, true);
        out
    }

    /// The lines below a key at this indentation, for a list or mapping.
    pub(super) fn below(&self, new: &New, indent: &str) -> String {
        let dashes = if self.dashes_out { indent.to_owned() } else { format!("{indent}{}", self.unit) };
        match new {
            New::List(items) => items.iter().map(|item| self.block_item(item, &dashes)).collect(),
            New::Map(entries) => {
                let inner = format!("{indent}{}", self.unit);
                entries.iter().map(|(key, value)| self.block_entry(key, value, &inner)).collect()
            }
            other => format!("{indent}{}{}{}", self.unit, self.flow(other, None), self.newline),
        }
    }

    /// What comes after a colon or a dash, with the end of its line.
    fn write_block(&self, out: &mut String, new: &New, indent: &str, after_dash: bool) {
        let n = self.newline;
        match new {
            New::List(items) if items.iter().any(|item| matches!(item, New::Map(_))) => {
                let _ = write!(out, "{n}{}", self.below(new, indent));
            }
            New::Map(entries) if !entries.is_empty() => {
                let inner = if after_dash { format!("{indent}  ") } else { format!("{indent}{}", self.unit) };
                let lines: String = entries.iter().map(|(key, value)| self.block_entry(key, value, &inner)).collect();
                if after_dash {
                    let _ = write!(out, " {}", lines.trim_start());
                } else {
                    let _ = write!(out, "{n}{lines}");
                }
            }
            New::Text(text) if is_block_text(text) && !self.quote => {
                let inner = format!("{indent}{}", self.unit);
                let blank = |line: &str| if line.is_empty() { String::new() } else { format!("{inner}{line}") };
                let lines: String = text.lines().map(|line| format!("{}{n}", blank(line))).collect();
                let _ = write!(out, " |{n}{lines}");
            }
            New::Text(text) if is_word(text) => {
                let _ = write!(out, " {text}{n}");
            }
            New::Tagged(tag, new) if matches!(**new, New::Text(_)) => {
                let _ = write!(out, " {tag} {}{n}", self.flow(new, None));
            }
            other => {
                let _ = write!(out, " {}{n}", self.flow(other, None));
            }
        }
    }
}

/// JSON, which YAML reads too.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

fn key_text(key: &str) -> String {
    if is_word(key) { key.to_owned() } else { quoted(key) }
}

/// Needs no quotes in YAML, wherever it stands.
fn is_word(text: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_-./".contains(c);
    text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '/' || c == '_') && text.chars().all(plain) && is_text(text)
}

/// Not taken for a number, a boolean or nothing, by any version of YAML.
fn is_text(text: &str) -> bool {
    const WORDS: [&str; 11] = ["true", "false", "yes", "no", "on", "off", "null", "y", "n", "~", ""];
    let is_number = text.starts_with(|c: char| c.is_ascii_digit() || "+-.".contains(c));
    !WORDS.contains(&text.to_ascii_lowercase().as_str()) && !is_number
}

/// Can be written as lines below a `|` and reads the same again.
fn is_block_text(text: &str) -> bool {
    let fits = |line: &str| !line.ends_with([' ', '\t']) && !line.chars().any(char::is_control);
    text.ends_with('\n')
        && !text.ends_with("\n\n")
        && !text.starts_with([' ', '\n', '\t'])
        && text.len() > 1
        && text.strip_suffix('\n').unwrap_or(text).split('\n').all(fits)
}

/// The blanks that a line begins with, and where it begins.
pub(super) fn line_start(text: &str, at: usize) -> (usize, &str) {
    let start = text[..at].rfind('\n').map_or(0, |newline| newline + 1);
    let line = &text[start..];
    (start, &line[..line.len() - line.trim_start_matches([' ', '\t']).len()])
}

/// How much further in a child stands than its parent: the first that is found on a line of its own.
fn step(text: &str, node: &Node) -> Option<String> {
    let (_, parent) = line_start(text, node.span.start);
    let first = match &node.value {
        Value::Map { entries, .. } => entries.first().map(|(key, _)| key.span.start),
        Value::List { items, .. } => items.first().map(|item| item.span.start),
        _ => None,
    };
    let deeper = first.filter(|at| node.is_flow() && text[node.span.start..*at].contains('\n')).and_then(|at| {
        let (_, child) = line_start(text, at);
        child.strip_prefix(parent).filter(|step| !step.is_empty()).map(str::to_owned)
    });
    deeper.or_else(|| children(node).find_map(|(key, child)| block_step(text, key, child).or_else(|| step(text, child))))
}

fn block_step(text: &str, key: Option<&Node>, child: &Node) -> Option<String> {
    let is_block_map = matches!(child.value, Value::Map { flow: false, .. });
    let column = |at: usize| at - line_start(text, at).0;
    let key = key.filter(|_| is_block_map)?;
    column(child.span.start).checked_sub(column(key.span.start)).filter(|step| *step > 0).map(|step| " ".repeat(step))
}

/// Whether the first list that is found has its dashes below the first letter of its key.
fn dashes_out(text: &str, node: &Node) -> Option<bool> {
    children(node).find_map(|(key, child)| {
        let first = child.items().first().filter(|_| !child.is_flow());
        let found = key.zip(first).map(|(key, first)| {
            let column = key.span.start - line_start(text, key.span.start).0;
            // The line of an item begins with its dash.
            line_start(text, first.span.start).1.len() == column
        });
        found.or_else(|| dashes_out(text, child))
    })
}

fn children(node: &Node) -> impl Iterator<Item = (Option<&Node>, &Node)> {
    let (entries, items): (&[(Node, Node)], &[Node]) = match &node.value {
        Value::Map { entries, .. } => (entries, &[]),
        Value::List { items, .. } => (&[], items),
        _ => (&[], &[]),
    };
    entries.iter().map(|(key, value)| (Some(key), value)).chain(items.iter().map(|item| (None, item)))
}
