//! YAML with places, from the parser's events.

use std::collections::HashMap;

use granit_parser::{Event, Options, Parser, ScalarStyle, ScanError, Span, StrInput, StructureStyle};

use super::super::error::InjectError;
use super::{MAX_DEPTH, Node, Value, line_of};

/// Every document of the text that holds something.
pub(super) fn read(text: &str) -> Result<Vec<Node>, InjectError> {
    Reader { text, parser: parser(text), document: 0, aliases: aliases(text)? }.documents()
}

fn parser(text: &str) -> Parser<'_, StrInput<'_>> {
    let mut options = Options::default();
    options.emit_unresolved_aliases = true;
    options.set_emit_comments(false);
    options.flow_nesting_limit = MAX_DEPTH;
    options.block_nesting_limit = MAX_DEPTH;
    Parser::new_from_str_with_options(text, options)
}

/// Of an anchor the number of its document and its own.
type Anchor = (usize, usize);

/// The anchors that aliases mean, each with such an alias as it is written.
fn aliases(text: &str) -> Read<HashMap<Anchor, String>> {
    let (mut document, mut found) = (0, HashMap::new());
    for event in parser(text) {
        match event.map_err(|error| broken(&error))? {
            (Event::DocumentStart(..), _) => document += 1,
            (Event::Alias(id), span) => {
                let written = span.byte_range().and_then(|range| text.get(range)).unwrap_or("*");
                found.entry((document, id)).or_insert_with(|| written.trim().to_owned());
            }
            _ => {}
        }
    }
    Ok(found)
}

struct Reader<'t> {
    text: &'t str,
    parser: Parser<'t, StrInput<'t>>,
    document: usize,
    aliases: HashMap<Anchor, String>,
}

type Read<T> = Result<T, InjectError>;

impl<'t> Reader<'t> {
    fn next(&mut self) -> Read<(Event<'t>, Span)> {
        match self.parser.next_event() {
            Some(Ok(event)) => Ok(event),
            Some(Err(error)) => Err(broken(&error)),
            None => Ok((Event::StreamEnd, Span::default())),
        }
    }

    fn documents(mut self) -> Read<Vec<Node>> {
        let mut roots = Vec::new();
        loop {
            let (event, span) = self.next()?;
            match event {
                Event::StreamEnd => return Ok(roots),
                Event::DocumentStart(..) => self.document += 1,
                Event::StreamStart | Event::DocumentEnd => {}
                event => roots.push(self.node(event, &span, 0)?),
            }
        }
    }

    fn node(&mut self, event: Event<'t>, span: &Span, depth: usize) -> Read<Node> {
        let start = span.start.byte_offset().unwrap_or(0);
        let end = span.end.byte_offset().unwrap_or(start).max(start);
        if depth > MAX_DEPTH {
            return Err(InjectError::Syntax { line: line_of(self.text, start), message: "nested too deep".to_owned() });
        }
        let tag = event.tag().map(|tag| format!("{}{}", tag.handle(), tag.suffix()));
        let anchored = event.anchor_id().is_some();
        let meant_by = event.anchor_id().and_then(|id| self.aliases.get(&(self.document, id))).cloned();
        let (value, end) = match event {
            // The parser writes `~` for what is not there.
            Event::Scalar(text, style, ..) => {
                let text = if start == end { String::new() } else { text.into_owned() };
                (Value::Scalar { text, quoted: style != ScalarStyle::Plain }, end)
            }
            Event::SequenceStart(style, ..) => self.list(style == StructureStyle::Flow, depth, end)?,
            Event::MappingStart(style, ..) => self.map(style == StructureStyle::Flow, depth, end)?,
            _ => (Value::Alias, end),
        };
        Ok(Node { span: start..end.max(start), tag, anchored, meant_by, value })
    }

    fn list(&mut self, flow: bool, depth: usize, mut end: usize) -> Read<(Value, usize)> {
        let mut items = Vec::new();
        loop {
            let (event, span) = self.next()?;
            if event == Event::SequenceEnd {
                end = if flow { span.end.byte_offset().unwrap_or(end) } else { end };
                return Ok((Value::List { items, flow }, end));
            }
            let item = self.node(event, &span, depth + 1)?;
            end = item.span.end;
            items.push(item);
        }
    }

    fn map(&mut self, flow: bool, depth: usize, mut end: usize) -> Read<(Value, usize)> {
        let mut entries = Vec::new();
        loop {
            let (event, span) = self.next()?;
            if event == Event::MappingEnd {
                end = if flow { span.end.byte_offset().unwrap_or(end) } else { end };
                return Ok((Value::Map { entries, flow }, end));
            }
            let key = self.node(event, &span, depth + 1)?;
            let (event, span) = self.next()?;
            let mut value = self.node(event, &span, depth + 1)?;
            if value.is_absent() {
                // The parser says it stands before the next token, which may be many comments below.
                let colon = self.text[key.span.end..].find(':').map_or(key.span.end, |at| key.span.end + at + 1);
                value.span = colon..colon;
            }
            end = value.span.end;
            entries.push((key, value));
        }
    }
}

fn broken(error: &ScanError) -> InjectError {
    InjectError::Syntax { line: error.marker().line(), message: error.info() }
}
