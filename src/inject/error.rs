//! Why nothing can be added or taken away, each with its offender and the way out.

use std::fmt;

/// Nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum InjectError {
    /// Neither JSON nor YAML.
    Syntax { line: usize, message: String },
    /// JSON or YAML, but nothing that egret knows.
    Unknown,
    /// Nothing of the format asked for stands in it.
    Nothing(&'static str),
    /// Something that egret would have to change, and does not understand or may not change. `place` and `why` are a sentence.
    Refused { place: String, why: String, help: String },
    /// Nothing that egret added is there.
    NotInjected,
    /// What was added has been changed since.
    Changed(String),
}

impl InjectError {
    /// Something with an anchor, which this alias means.
    pub(super) fn shared(alias: &str) -> Self {
        let anchor = alias.replacen('*', "&", 1);
        let why = format!("holds what egret would change, and {alias} means the same elsewhere, where it would change too");
        Self::refused(format!("the anchor {anchor}"), why, format!("write out in the place of {alias} what it stands for"))
    }

    pub(super) fn refused(place: impl Into<String>, why: impl Into<String>, help: impl Into<String>) -> Self {
        Self::Refused { place: place.into(), why: why.into(), help: help.into() }
    }

    /// Of which of several objects a place is.
    pub(super) fn of(self, owner: &str) -> Self {
        match self {
            Self::Refused { place, why, help } => Self::Refused { place: format!("{place} of {owner}"), why, help },
            Self::Changed(what) => Self::Changed(format!("{what} of {owner}")),
            other => other,
        }
    }
}

impl fmt::Display for InjectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Syntax { line, message } => write!(
                f,
                "line {line} can be read neither as JSON nor as YAML: {}\nhelp: correct that line, or what comes before it",
                printable(message)
            ),
            Self::Unknown => f.write_str(
                "no task definition is recognised: no `containerDefinitions` (ECS), no `Resources` (CloudFormation), no \
                 `apiVersion` and `kind` (Kubernetes), no `services` (Compose)\n\
                 help: give the whole definition; with --format, egret says what that format lacks",
            ),
            Self::Nothing(what) => {
                write!(f, "the text holds no {what}\nhelp: give one, or another --format than the one that was given or found")
            }
            Self::Refused { place, why, help } => {
                write!(f, "{} {}\nhelp: {}", printable(place), printable(why), printable(help))
            }
            Self::NotInjected => f.write_str(
                "egret has added nothing here: no container has the variable EGRET_INJECTED\n\
                 help: without that record take egret's container and what belongs to it away by hand",
            ),
            Self::Changed(what) => {
                write!(
                    f,
                    "{} is not as egret left it\nhelp: take egret's additions away by hand, or remove it from an older version",
                    printable(what)
                )
            }
        }
    }
}

impl std::error::Error for InjectError {}

/// Names come from the text, and what is printed goes to a terminal.
pub(super) fn printable(text: &str) -> String {
    let shown = |c: char| if c.is_control() { c.escape_default().to_string() } else { c.to_string() };
    text.chars().map(shown).collect()
}
