//! What is wrong with a policy, or worth a word, shown where it stands: line, column, caret, and what to write instead.

use std::fmt;

use annotate_snippets::renderer::DecorStyle;
use annotate_snippets::{AnnotationKind, Level, Origin, Renderer, Snippet};
use serde::Serialize;

use super::yaml::Place;

/// Longer lines are not shown: nobody finds a caret in them, and drawing them takes long.
const MAX_LINE: usize = 2_000;
/// The longest message in characters; a policy may hold words of any length.
const MAX_MESSAGE: usize = 500;
/// More than these are counted, not shown: nobody reads on.
const MAX_SHOWN: usize = 100;

macro_rules! codes {
    ($(#[doc = $meaning:literal] $variant:ident = $code:literal,)*) => {
        /// What kind of thing is wrong. The codes are stable.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
        pub enum Code { $(#[doc = $meaning] #[serde(rename = $code)] $variant,)* }

        impl Code {
            /// Every code there is.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The stable text.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $code,)* }
            }

            /// What it means, in a sentence for people.
            #[must_use]
            pub fn meaning(self) -> &'static str {
                match self { $(Self::$variant => $meaning.trim_ascii(),)* }
            }
        }
    };
}

codes! {
    /// The text is no YAML.
    YamlSyntax = "yaml-syntax",
    /// YAML that a policy has no use for: anchors, aliases, tags, merge keys, a second document.
    YamlFeature = "yaml-feature",
    /// A name that begins with a star stands without quotes, which YAML takes for an alias.
    UnquotedStar = "unquoted-star",
    /// A key is written twice.
    DuplicateKey = "duplicate-key",
    /// A key that does not exist.
    UnknownKey = "unknown-key",
    /// A list, mapping or text where something else is due.
    WrongType = "wrong-type",
    /// A key that must be written is not.
    MissingKey = "missing-key",
    /// A host, port, date, path or word that is none.
    BadValue = "bad-value",
    /// A set, role or preset that does not exist.
    UnknownName = "unknown-name",
    /// A wildcard over a suffix under which strangers have names, without `wide: true`.
    SharedSuffix = "shared-suffix",
    /// A list that would mean everything, or nothing, because it is empty.
    EmptyList = "empty-list",
    /// Two things that exclude one another.
    Conflict = "conflict",
    /// A test of the file does not hold.
    FailedTest = "failed-test",
    /// A rule that says what another says.
    DuplicateRule = "duplicate-rule",
    /// A rule that another covers: without it nothing would change.
    ShadowedRule = "shadowed-rule",
    /// A rule for the target of another that asks for something else; only the stricter is used.
    ConflictingRule = "conflicting-rule",
    /// An allow rule that a deny rule takes back entirely.
    DeniedRule = "denied-rule",
    /// A rule, or an audit, that has ended.
    Expired = "expired",
    /// A rule, or an audit, that ends within 14 days.
    Expiring = "expiring",
    /// A set that no rule uses.
    UnusedSet = "unused-set",
    /// A role that no rule is for.
    UnusedRole = "unused-role",
    /// A rule with `wide: true` and no note that says why.
    WideWithoutNote = "wide-without-note",
    /// A rule that no connection can match.
    NeverMatches = "never-matches",
    /// A key that changes nothing where it stands.
    NoEffect = "no-effect",
    /// A wide network that holds a metadata service among much else.
    OpensMetadata = "opens-metadata",
    /// A flow around the proxy ends the task, or its readiness, and nothing is direct.
    AroundWithoutDirect = "around-without-direct",
    /// A role by executable, where other processes cannot be seen.
    ExeNotVisible = "exe-not-visible",
    /// A policy without allow rules.
    NoRules = "no-rules",
    /// A wildcard without a rule for the name itself.
    ApexMissing = "apex-missing",
    /// A rule in audit that never ends.
    AuditWithoutEnd = "audit-without-end",
}

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// The policy is not valid.
    Error,
    /// Valid, and probably not meant.
    Warning,
    /// Valid, and worth knowing.
    Note,
}

/// One thing that is wrong, or worth a word.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Diagnostic {
    /// How bad it is.
    pub severity: Severity,
    /// What kind of thing it is.
    pub code: Code,
    /// What it is.
    pub message: String,
    /// What to do.
    pub help: Option<String>,
    /// From 1.
    pub line: u32,
    /// From 1, in characters.
    pub column: u32,
    #[serde(skip)]
    at: Place,
}

/// What there is to say about one text.
#[derive(Clone, Debug)]
pub struct Diagnostics {
    /// The path, or the variable's name.
    pub origin: String,
    text: String,
    /// In the order of the text.
    pub all: Vec<Diagnostic>,
}

impl Diagnostic {
    pub(super) fn new(severity: Severity, code: Code, at: Place, message: impl Into<String>, help: Option<&str>) -> Self {
        let (line, column) = (at.line.max(1), at.column.max(1));
        Self { severity, code, message: shown(&message.into()), help: help.map(shown), line, column, at }
    }

    pub(super) fn error(code: Code, at: Place, message: impl Into<String>, help: Option<&str>) -> Self {
        Self::new(Severity::Error, code, at, message, help)
    }

    pub(super) fn warning(code: Code, at: Place, message: impl Into<String>, help: Option<&str>) -> Self {
        Self::new(Severity::Warning, code, at, message, help)
    }

    pub(super) fn remark(code: Code, at: Place, message: impl Into<String>, help: Option<&str>) -> Self {
        Self::new(Severity::Note, code, at, message, help)
    }
}

impl Diagnostics {
    pub(crate) fn new(origin: &str, text: &str, mut all: Vec<Diagnostic>) -> Self {
        all.sort_by_key(|one| one.at.start);
        Self { origin: origin.to_owned(), text: text.to_owned(), all }
    }

    /// How many there are of this severity.
    #[must_use]
    pub fn count(&self, severity: Severity) -> usize {
        self.all.iter().filter(|one| one.severity == severity).count()
    }

    /// The column after the last character marked, on the same line.
    #[must_use]
    pub fn end_column(&self, one: &Diagnostic) -> u32 {
        let marked = self.text.get(one.at.start..one.at.end).and_then(|text| text.lines().next()).unwrap_or_default();
        one.column.saturating_add(u32::try_from(marked.chars().count()).unwrap_or(0).max(1))
    }

    /// The line where the marked part begins, and where in the text it begins. Only that is given to the renderer, which
    /// would otherwise walk a long text once for every diagnostic.
    fn line_of(&self, at: Place) -> (&str, usize) {
        let start = floor(&self.text, at.start);
        let from = self.text[..start].rfind('\n').map_or(0, |newline| newline + 1);
        // Of a part over many lines the first is enough to find it.
        let end = self.text[start..].find('\n').map_or(self.text.len(), |newline| start + newline);
        (&self.text[from..end], from)
    }

    fn render(&self, one: &Diagnostic, renderer: &Renderer) -> String {
        let (line, from) = self.line_of(one.at);
        let start = floor(&self.text, one.at.start) - from;
        let end = floor(&self.text, one.at.end.max(one.at.start)).saturating_sub(from).clamp(start, line.len().max(start));
        let snippet = Snippet::source(still(line))
            .line_start(one.line as usize)
            .path(&self.origin)
            .annotation(AnnotationKind::Primary.span(start..end));
        let origin = Origin::path(&self.origin).line(one.line as usize).char_column(one.column as usize);
        let level = match one.severity {
            Severity::Error => Level::ERROR,
            Severity::Warning => Level::WARNING,
            Severity::Note => Level::NOTE,
        };
        let title = level.primary_title(&one.message).id(one.code.as_str());
        let mut group = if line.len() > MAX_LINE { title.element(origin) } else { title.element(snippet) };
        if let Some(help) = &one.help {
            group = group.element(Level::HELP.message(help));
        }
        renderer.render(&[group])
    }
}

/// A text for a terminal: short, and nothing in it that steers.
fn shown(text: &str) -> String {
    let plain = |c: char| if c.is_control() || ends_line(c) { char::REPLACEMENT_CHARACTER } else { c };
    let cut = if text.chars().nth(MAX_MESSAGE).is_some() { "…" } else { "" };
    text.chars().take(MAX_MESSAGE).map(plain).chain(cut.chars()).collect()
}

/// A line of the policy, in which nothing steers a terminal that the renderer lets pass: of the control characters it
/// replaces those of ASCII. As many octets as before, so that what is marked stays where it is.
fn still(line: &str) -> String {
    let same_length = |c: char| match c {
        '\u{80}'..='\u{9f}' => '\u{bf}',
        _ if ends_line(c) => char::REPLACEMENT_CHARACTER,
        _ => c,
    };
    line.chars().map(same_length).collect()
}

/// Ends a line for some readers and not for others.
fn ends_line(c: char) -> bool {
    matches!(c, '\u{2028}' | '\u{2029}')
}

/// The nearest place at or before this one where a character begins.
fn floor(text: &str, at: usize) -> usize {
    (0..=at.min(text.len())).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0)
}

impl fmt::Display for Diagnostics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let renderer = Renderer::plain().decor_style(DecorStyle::Ascii);
        for (i, one) in self.all.iter().take(MAX_SHOWN).enumerate() {
            let blank = if i == 0 { "" } else { "\n\n" };
            write!(f, "{blank}{}", self.render(one, &renderer))?;
        }
        match self.all.len().saturating_sub(MAX_SHOWN) {
            0 => Ok(()),
            more => write!(f, "\n\nand {more} more"),
        }
    }
}

impl std::error::Error for Diagnostics {}
