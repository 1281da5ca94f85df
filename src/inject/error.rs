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
    /// Something that egret would have to change, and does not understand or may not change.
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
}

impl fmt::Display for InjectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Syntax { line, message } => write!(f, "line {line}: {message}; neither JSON nor YAML can be read here"),
            Self::Unknown => f.write_str(
                "no task definition is recognised: no `containerDefinitions` (ECS), no `Resources` (CloudFormation), no \
                 `apiVersion` and `kind` (Kubernetes), no `services` (Compose)",
            ),
            Self::Nothing(what) => write!(f, "there is no {what} in it"),
            Self::Refused { place, why, help } => write!(f, "{place}: {why}\nhelp: {help}"),
            Self::NotInjected => f.write_str("egret has added nothing here: no container has the variable EGRET_INJECTED"),
            Self::Changed(what) => {
                write!(
                    f,
                    "{what} is not as egret left it\nhelp: take egret's additions away by hand, or remove it from an older version"
                )
            }
        }
    }
}

impl std::error::Error for InjectError {}
