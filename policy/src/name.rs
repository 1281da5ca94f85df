//! A DNS name in its one normal form: lower case, A-labels, no trailing dot. [`Name::parse`] is the only door;
//! rules, requests, SNI, Host headers and SOCKS names all come through it, so they can be compared as text.
//!
//! It does not look at what a name means (public suffixes: `pattern`), nor at addresses (`target`).

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// The longest name in octets of its text form without a trailing dot (RFC 1035 section 2.3.4: 255 on the wire).
const MAX_NAME: usize = 253;
/// The longest label in octets (RFC 1035 section 2.3.4).
const MAX_LABEL: usize = 63;

/// A DNS name in normal form, for example `api.example.com`.
///
/// Labels hold letters, digits, `-` and `_` (service names carry underscores), are 1 to 63 octets long, and the
/// last one is not numeric, so that no text is both a name and some reader's idea of an IPv4 address (WHATWG URL,
/// "ends in a number").
/// Copies share their text: a decision takes several, and allocates for none.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Name(Arc<str>);

/// Why a text is not a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NameError {
    /// Nothing, or only a dot.
    Empty,
    /// More than 253 octets.
    TooLong,
    /// Two dots in a row, or a dot at the start.
    EmptyLabel,
    /// A label of more than 63 octets.
    LabelTooLong,
    /// A character that no host name has; NUL, blanks, `%`, `@`, brackets and the like.
    Character(char),
    /// International text that IDNA (UTS 46) does not map to a name.
    Idna,
    /// The last label is a number (`127.1`, `0x7f000001`): some resolvers read that as an address.
    Numeric,
    /// A label that begins or ends with a hyphen.
    Hyphen,
}

impl Name {
    /// localhost and every name below it: known to be loopback without DNS (RFC 6761, section 6.3).
    #[must_use]
    pub fn is_loopback(&self) -> bool {
        self.as_str().rsplit('.').next() == Some("localhost")
    }

    /// Brings a text into normal form: one trailing dot removed, lower case, international labels as A-labels
    /// (UTS 46, non-transitional).
    ///
    /// # Errors
    /// [`NameError`] says which rule the text breaks.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        let text = text.strip_suffix('.').unwrap_or(text);
        if text.is_empty() {
            return Err(NameError::Empty);
        }
        if text.is_ascii() {
            return Self::from_ascii(text);
        }
        if text.chars().any(is_dot_look_alike) {
            // UTS 46 would turn these into label separators, which other readers of the same text would not.
            return Err(NameError::Idna);
        }
        let ascii = idna::domain_to_ascii(text).map_err(|_| NameError::Idna)?;
        Self::from_ascii(&ascii)
    }

    fn from_ascii(text: &str) -> Result<Self, NameError> {
        if text.len() > MAX_NAME {
            return Err(NameError::TooLong);
        }
        for label in text.split('.') {
            check_label(label)?;
        }
        if is_numeric(last_label(text)) {
            return Err(NameError::Numeric);
        }
        let mut text: Arc<str> = text.into();
        if let Some(text) = Arc::get_mut(&mut text) {
            text.make_ascii_lowercase();
        }
        Ok(Self(text))
    }

    /// The normal form, shared.
    #[must_use]
    pub fn shared(&self) -> Arc<str> {
        Arc::clone(&self.0)
    }

    /// The normal form.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The names above this one, longest first: for `a.b.c`, `b.c` and `c`.
    pub fn parents(&self) -> impl Iterator<Item = &str> {
        self.0.match_indices('.').map(|(dot, _)| &self.0[dot + 1..])
    }

    /// How many labels it has.
    #[must_use]
    pub fn labels(&self) -> usize {
        self.0.split('.').count()
    }
}

fn check_label(label: &str) -> Result<(), NameError> {
    if label.is_empty() {
        return Err(NameError::EmptyLabel);
    }
    if let Some(bad) = label.chars().find(|c| !is_name_char(*c)) {
        return Err(NameError::Character(bad));
    }
    if label.len() > MAX_LABEL {
        return Err(NameError::LabelTooLong);
    }
    if label.starts_with('-') || label.ends_with('-') {
        return Err(NameError::Hyphen);
    }
    Ok(())
}

fn is_name_char(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '-' || c == '_'
}

fn is_dot_look_alike(c: char) -> bool {
    matches!(c, '\u{3002}' | '\u{ff0e}' | '\u{ff61}')
}

fn last_label(text: &str) -> &str {
    text.rsplit('.').next().unwrap_or(text)
}

/// Decimal digits, or `0x` and hexadecimal digits (or none), as inet_aton(3) would read them.
fn is_numeric(label: &str) -> bool {
    let hex = label.strip_prefix("0x").or_else(|| label.strip_prefix("0X"));
    match hex {
        Some(digits) => digits.bytes().all(|b| b.is_ascii_hexdigit()),
        None => label.bytes().all(|b| b.is_ascii_digit()),
    }
}

impl FromStr for Name {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        Self::parse(text)
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for NameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("the name is empty"),
            Self::TooLong => write!(f, "the name is longer than {MAX_NAME} characters"),
            Self::EmptyLabel => f.write_str("the name has an empty label (two dots in a row, or a leading dot)"),
            Self::LabelTooLong => write!(f, "a label is longer than {MAX_LABEL} characters"),
            Self::Character(c) => write!(f, "{c:?} cannot stand in a host name"),
            Self::Idna => f.write_str("the name is not valid under IDNA (UTS 46)"),
            Self::Numeric => f.write_str("the last label is a number, so this is neither a name nor a plain address"),
            Self::Hyphen => f.write_str("a label begins or ends with a hyphen"),
        }
    }
}

impl std::error::Error for NameError {}

#[cfg(test)]
mod tests;
