//! What is wrong with a policy, shown where it stands: line, column, caret, and what to write instead. Syntax errors
//! of the YAML reader and errors of meaning look alike.

use std::fmt;
use std::ops::Range;

use annotate_snippets::renderer::DecorStyle;
use annotate_snippets::{AnnotationKind, Level, Renderer, Snippet};
use serde::Serialize;
use serde_saphyr::Location;

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Diagnostic {
    /// What is wrong.
    pub message: String,
    /// What to do.
    pub help: Option<String>,
    /// From 1.
    pub line: u64,
    /// From 1, in characters.
    pub column: u64,
    #[serde(skip)]
    span: Range<usize>,
}

/// Everything that is wrong with one text.
#[derive(Clone, Debug)]
pub struct Diagnostics {
    origin: String,
    text: String,
    /// In the order they were found; never empty.
    pub all: Vec<Diagnostic>,
}

impl Diagnostic {
    /// Something wrong at a place.
    pub(crate) fn at(location: Location, message: impl Into<String>, help: Option<&str>) -> Self {
        Self {
            message: message.into(),
            help: help.map(str::to_owned),
            line: location.line(),
            column: location.column(),
            span: to_usize(location.span().offset())..to_usize(location.span().offset() + location.span().len().max(1)),
        }
    }

    /// What the YAML reader could not read.
    pub(crate) fn of(error: &serde_saphyr::Error) -> Self {
        let location = error.location().unwrap_or(Location::UNKNOWN);
        let full = error.without_snippet().to_string();
        let place = format!(" at line {}, column {}", location.line(), location.column());
        let message = full.replace(&place, "").replace(", set DuplicateKeyPolicy in Options if acceptable", "");
        let help = HELP.iter().find(|(part, _)| message.contains(part)).map(|(_, help)| *help);
        Self::at(location, message, help)
    }
}

/// What to do about messages of the YAML reader.
const HELP: &[(&str, &str)] = &[
    ("unknown anchor", "quote names that start with *: \"*.example.com\""),
    ("tab", "indent with spaces"),
    ("duplicate mapping key", "keep one of the two"),
    ("missing field `version`", "begin the file with `version: 1`"),
    ("unexpected end of input", "the policy is empty: begin it with `version: 1`"),
];

fn to_usize(n: u64) -> usize {
    usize::try_from(n).unwrap_or(usize::MAX)
}

impl Diagnostics {
    pub(crate) fn new(origin: &str, text: &str, all: Vec<Diagnostic>) -> Self {
        Self { origin: origin.to_owned(), text: text.to_owned(), all }
    }

    /// Character offsets of the reader to byte offsets of the renderer, inside the text.
    fn bytes(&self, span: &Range<usize>) -> Range<usize> {
        let byte = |n: usize| self.text.char_indices().nth(n).map_or(self.text.len(), |(at, _)| at);
        let start = byte(span.start);
        start..byte(span.end).max(start)
    }
}

impl fmt::Display for Diagnostics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let renderer = Renderer::plain().decor_style(DecorStyle::Ascii);
        for (i, one) in self.all.iter().enumerate() {
            let snippet =
                Snippet::source(&self.text).path(&self.origin).annotation(AnnotationKind::Primary.span(self.bytes(&one.span)));
            let mut group = Level::ERROR.primary_title(&one.message).element(snippet);
            if let Some(help) = &one.help {
                group = group.element(Level::HELP.message(help));
            }
            let blank = if i == 0 { "" } else { "\n\n" };
            write!(f, "{blank}{}", renderer.render(&[group]))?;
        }
        Ok(())
    }
}

impl std::error::Error for Diagnostics {}
