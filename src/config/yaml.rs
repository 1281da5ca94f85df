//! A YAML text as a tree that knows where everything stands. Scalars stay as they were written, so that `to: 1.10` is
//! not taken for a number. What a policy has no use for is refused here: anchors, aliases, tags, merge keys, several
//! documents. Mistakes are gathered, and reading goes on after all but broken syntax.

use std::borrow::Cow;
use std::collections::HashSet;

use granit_parser::{Event, Options, Parser, ScalarStyle, ScanError, Span, StrInput, StructureStyle};

use super::diagnose::{Code, Diagnostic};

/// Deeper than any policy; a bound for hostile input.
const MAX_DEPTH: usize = 16;
/// Texts, lists and mappings in one file: 100,000 long rules take about one million.
const MAX_NODES: usize = 4_000_000;

/// A part of the text: bytes for slicing, line and column for people.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) start: usize,
    pub(crate) end: usize,
    /// From 1.
    pub(crate) line: u32,
    /// From 1, in characters.
    pub(crate) column: u32,
}

#[derive(Debug)]
pub(crate) struct Node<'t> {
    pub(crate) at: Place,
    pub(crate) value: Value<'t>,
}

#[derive(Debug)]
pub(crate) enum Value<'t> {
    Text {
        text: Cow<'t, str>,
        /// Without quotes, so that it can be a number, a boolean or nothing.
        plain: bool,
    },
    List {
        items: Vec<Node<'t>>,
        flow: bool,
    },
    Map {
        entries: Vec<(Node<'t>, Node<'t>)>,
        flow: bool,
    },
    /// What stood here has been complained of already.
    Refused,
}

impl<'t> Node<'t> {
    /// Nothing written, `~` or `null`.
    pub(crate) fn is_null(&self) -> bool {
        matches!(&self.value, Value::Text { text, plain: true } if matches!(&**text, "" | "~" | "null"))
    }

    /// The value of this key of a mapping, however the rest looks.
    pub(crate) fn get(&self, key: &str) -> Option<&Self> {
        let Value::Map { entries, .. } = &self.value else { return None };
        entries.iter().find(|(name, _)| name.is(key)).map(|(_, value)| value)
    }

    pub(crate) fn is(&self, word: &str) -> bool {
        matches!(&self.value, Value::Text { text, .. } if text == word)
    }
}

/// Reads a text. The tree is as much as could be read; `None` for an empty text.
pub(crate) fn parse(text: &str) -> (Option<Node<'_>>, Vec<Diagnostic>) {
    let mut options = Options::default();
    options.emit_unresolved_aliases = true;
    options.set_emit_comments(false);
    options.flow_nesting_limit = MAX_DEPTH;
    options.block_nesting_limit = MAX_DEPTH;
    let mut builder = Builder { parser: Parser::new_from_str_with_options(text, options), found: Vec::new(), nodes: 0 };
    let root = builder.document().unwrap_or_else(|stop| {
        builder.found.push(stop);
        None
    });
    (root, builder.found)
}

struct Builder<'t> {
    parser: Parser<'t, StrInput<'t>>,
    found: Vec<Diagnostic>,
    nodes: usize,
}

type Read<T> = Result<T, Diagnostic>;

impl<'t> Builder<'t> {
    fn next(&mut self) -> Read<(Event<'t>, Span)> {
        match self.parser.next_event() {
            Some(Ok(event)) => Ok(event),
            Some(Err(error)) => Err(broken(&error)),
            None => Ok((Event::StreamEnd, Span::default())),
        }
    }

    fn document(&mut self) -> Read<Option<Node<'t>>> {
        let mut root = None;
        loop {
            let (event, span) = self.next()?;
            match event {
                Event::StreamEnd => return Ok(root),
                Event::DocumentStart(..) if root.is_some() => {
                    return Err(feature(place(&span), "a second document", "a policy is one document: remove the `---`"));
                }
                Event::StreamStart | Event::DocumentStart(..) | Event::DocumentEnd => {}
                event => root = Some(self.node(event, span, 0)?),
            }
        }
    }

    fn node(&mut self, event: Event<'t>, span: Span, depth: usize) -> Read<Node<'t>> {
        let at = place(&span);
        self.nodes += 1;
        if depth > MAX_DEPTH || self.nodes > MAX_NODES {
            return Err(Diagnostic::error(
                Code::YamlFeature,
                at,
                "nested too deep, or too long, for a policy",
                Some("a policy has at most 16 levels"),
            ));
        }
        if event.anchor_id().is_some() || event.tag().is_some() {
            let what = if event.tag().is_some() { "a tag" } else { "an anchor" };
            self.found.push(feature(at, what, "write the value out; sets can be shared by rules"));
        }
        let value = match event {
            Event::Scalar(text, style, ..) => Value::Text { text, plain: style == ScalarStyle::Plain },
            Event::SequenceStart(style, ..) => return self.list(at, style == StructureStyle::Flow, depth),
            Event::MappingStart(style, ..) => return self.map(at, style == StructureStyle::Flow, depth),
            Event::UnresolvedAlias(name) => {
                let help = format!("quote names that begin with a star: \"*{name}\"");
                let message = format!("*{name} is an alias to YAML, not a name");
                self.found.push(Diagnostic::error(Code::UnquotedStar, at, message, Some(&help)));
                Value::Refused
            }
            // An alias; its anchor has been complained of.
            _ => Value::Refused,
        };
        Ok(Node { at, value })
    }

    fn list(&mut self, mut at: Place, flow: bool, depth: usize) -> Read<Node<'t>> {
        let mut items: Vec<Node<'t>> = Vec::new();
        loop {
            let (event, span) = self.next()?;
            if event == Event::SequenceEnd {
                at.end = items.last().filter(|_| !flow).map_or(place(&span).end, |last| last.at.end);
                return Ok(Node { at, value: Value::List { items, flow } });
            }
            items.push(self.node(event, span, depth + 1)?);
        }
    }

    fn map(&mut self, mut at: Place, flow: bool, depth: usize) -> Read<Node<'t>> {
        let mut entries: Vec<(Node<'t>, Node<'t>)> = Vec::new();
        let mut seen: HashSet<Cow<'t, str>> = HashSet::new();
        loop {
            let (event, span) = self.next()?;
            if event == Event::MappingEnd {
                at.end = entries.last().filter(|_| !flow).map_or(place(&span).end, |(_, last)| last.at.end);
                return Ok(Node { at, value: Value::Map { entries, flow } });
            }
            let key = self.node(event, span, depth + 1)?;
            let (event, span) = self.next()?;
            let value = self.node(event, span, depth + 1)?;
            match self.fault_of_key(&key, &mut seen) {
                None => entries.push((key, value)),
                Some(fault) => self.found.push(fault),
            }
        }
    }

    fn fault_of_key(&self, key: &Node<'t>, seen: &mut HashSet<Cow<'t, str>>) -> Option<Diagnostic> {
        match &key.value {
            Value::Text { text, .. } if text == "<<" => Some(feature(key.at, "a merge key", "write the keys out")),
            Value::Text { text, .. } if !seen.insert(text.clone()) => {
                let message = format!("the key {text:?} is written twice");
                Some(Diagnostic::error(Code::DuplicateKey, key.at, message, Some("keep one of the two")))
            }
            Value::List { .. } | Value::Map { .. } => {
                Some(Diagnostic::error(Code::WrongType, key.at, "a key is a word, and this is not", Some("write `key: value`")))
            }
            Value::Text { .. } | Value::Refused => None,
        }
    }
}

fn feature(at: Place, what: &str, help: &str) -> Diagnostic {
    Diagnostic::error(Code::YamlFeature, at, format!("{what} has no place in a policy"), Some(help))
}

fn place(span: &Span) -> Place {
    let start = span.start.byte_offset().unwrap_or(0);
    Place {
        start,
        end: span.end.byte_offset().unwrap_or(start).max(start),
        line: u32::try_from(span.start.line()).unwrap_or(u32::MAX),
        column: u32::try_from(span.start.col() + 1).unwrap_or(u32::MAX),
    }
}

fn broken(error: &ScanError) -> Diagnostic {
    let at = place(&Span::empty(*error.marker()));
    let message = error.info();
    let help = HELP.iter().find(|(part, _)| message.contains(part)).map_or(ANY_HELP, |(_, help)| *help);
    Diagnostic::error(Code::YamlSyntax, at, message, Some(help))
}

/// What to do about messages of the YAML scanner.
const HELP: &[(&str, &str)] = &[
    ("tab", "indent with spaces"),
    ("alias", "quote names that begin with a star: \"*.example.com\""),
    ("recursion", "a policy is never nested so deep"),
    ("mapping values are not allowed", "quote a text that holds a colon and a blank: \"note: so\""),
    ("unexpected character", "quote a text that begins with a sign"),
    ("quoted scalar", "is a quote not closed, here or above?"),
    ("placement of ':'", "is a bracket or brace not closed, here or above?"),
];
const ANY_HELP: &str = "look here and in the line above for a missing colon, comma, quote or bracket, or for wrong indentation";
