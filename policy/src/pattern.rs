//! Host patterns of rules: an exact name, or `*.` and a name. Everything else people write is refused with what to
//! write instead. Also the guard against wildcards over suffixes that strangers share.

use std::fmt;
use std::str::FromStr;

use crate::name::{Name, NameError};

/// Which names a rule speaks of.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum NamePattern {
    /// This name and no other.
    Exact(Name),
    /// One or more whole labels below this name, never the name itself: `*.example.com`.
    Below(Name),
}

/// Why a text is not a host pattern; its text says what to write instead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PatternError {
    /// A bare `*`.
    Everything,
    /// `.example.com`, which readers of other files take for two different things.
    LeadingDot(String),
    /// `https://example.com`.
    Scheme(String),
    /// `example.com/path`.
    Path(String),
    /// A `*` anywhere but in a leading `*.`.
    Star,
    /// The name part is not a name.
    Name(NameError),
}

/// Under a shared suffix anybody can register or be given a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SharedSuffix {
    /// On the public suffix list: `com`, `co.uk`, `github.io`.
    Public,
    /// A provider's domain in which strangers are given names: `amazonaws.com`.
    Provider,
}

impl NamePattern {
    /// Reads `example.com` or `*.example.com`.
    ///
    /// # Errors
    /// [`PatternError`] says what to write instead.
    pub fn parse(text: &str) -> Result<Self, PatternError> {
        if text == "*" || text == "*." {
            return Err(PatternError::Everything);
        }
        if let Some((_, rest)) = text.split_once("://") {
            return Err(PatternError::Scheme(rest.split('/').next().unwrap_or(rest).to_owned()));
        }
        if let Some((host, _)) = text.split_once('/') {
            return Err(PatternError::Path(host.to_owned()));
        }
        if let Some(name) = text.strip_prefix('.').filter(|name| !name.is_empty()) {
            return Err(PatternError::LeadingDot(name.to_owned()));
        }
        let (below, name) = match text.strip_prefix("*.") {
            Some(name) => (true, name),
            None => (false, text),
        };
        if name.contains('*') {
            return Err(PatternError::Star);
        }
        let name = Name::parse(name).map_err(PatternError::Name)?;
        Ok(if below { Self::Below(name) } else { Self::Exact(name) })
    }

    /// The plain meaning, which the matcher must agree with.
    #[must_use]
    pub fn matches(&self, name: &Name) -> bool {
        match self {
            Self::Exact(exact) => exact == name,
            Self::Below(apex) => name.parents().any(|parent| parent == apex.as_str()),
        }
    }

    /// Whether this wildcard stands directly over a suffix in which strangers have names.
    #[must_use]
    pub fn shared_suffix(&self) -> Option<SharedSuffix> {
        let Self::Below(apex) = self else { return None };
        if is_public_suffix(apex.as_str()) {
            return Some(SharedSuffix::Public);
        }
        is_provider_suffix(apex.as_str()).then_some(SharedSuffix::Provider)
    }
}

/// The part of a name that somebody registered, such as `example.co.uk`; the whole name where there is no such part.
#[must_use]
pub fn registered_domain(name: &Name) -> &str {
    let domain = psl::domain(name.as_str().as_bytes()).filter(|domain| domain.suffix().is_known());
    let length = domain.map_or_else(|| unlisted_domain(name), |domain| domain.as_bytes().len());
    &name.as_str()[name.as_str().len() - length..]
}

/// Under a top-level domain that is on no list, such as `internal`, the last two labels.
fn unlisted_domain(name: &Name) -> usize {
    name.as_str().rmatch_indices('.').nth(1).map_or(name.as_str().len(), |(dot, _)| name.as_str().len() - dot - 1)
}

fn is_public_suffix(apex: &str) -> bool {
    psl::suffix(apex.as_bytes()).is_some_and(|suffix| suffix.is_known() && suffix.as_bytes() == apex.as_bytes())
}

fn is_provider_suffix(apex: &str) -> bool {
    let service = apex.split_once('.').is_some_and(|(_, parent)| PROVIDER_SERVICES.contains(&parent));
    service || PROVIDER_SUFFIXES.contains(&apex)
}

/// Domains whose children are regions or services, below which strangers are given names.
const PROVIDER_SERVICES: &[&str] =
    &["amazonaws.com", "backblazeb2.com", "core.windows.net", "digitaloceanspaces.com", "wasabisys.com"];

/// Domains in which strangers are given names although the public suffix list does not carry them.
const PROVIDER_SUFFIXES: &[&str] = &[
    "amazonaws.com",
    "amazonaws.com.cn",
    "aws.dev",
    "azure.com",
    "azure.net",
    "backblazeb2.com",
    "cloudapp.azure.com",
    "cloudflarestorage.com",
    "core.windows.net",
    "database.windows.net",
    "digitaloceanspaces.com",
    "fastly.net",
    "firebaseio.com",
    "googleusercontent.com",
    "oraclecloud.com",
    "r2.cloudflarestorage.com",
    "sharepoint.com",
    "storage.googleapis.com",
    "vault.azure.net",
    "wasabisys.com",
    "windows.net",
    "zendesk.com",
];

impl FromStr for NamePattern {
    type Err = PatternError;

    fn from_str(text: &str) -> Result<Self, PatternError> {
        Self::parse(text)
    }
}

impl fmt::Display for NamePattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(name) => name.fmt(f),
            Self::Below(name) => write!(f, "*.{name}"),
        }
    }
}

impl fmt::Display for PatternError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Everything => f.write_str("a bare `*` would allow every name; name the hosts, or observe with `mode: audit`"),
            Self::LeadingDot(name) => {
                write!(f, "a leading dot is ambiguous: write \"*.{name}\" for the names below, and {name} for the name itself")
            }
            Self::Scheme(host) => write!(f, "a rule names a host, not a URL: write {host}"),
            Self::Path(host) => write!(f, "a path cannot be seen inside TLS: write {host}"),
            Self::Star => f.write_str("`*` stands only as the whole first label: \"*.example.com\""),
            Self::Name(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for PatternError {}

#[cfg(test)]
mod tests;
