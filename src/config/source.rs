//! Where a policy comes from, in order: `--policy FILE`, `EGRET_POLICY` (the text, or `gz:` and base64), `EGRET_ALLOW`
//! (names, no file at all), `/etc/egret/policy.yaml`.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// Where a policy is looked for when nothing says otherwise.
const WELL_KNOWN: &str = "/etc/egret/policy.yaml";
/// The longest policy text in octets, unpacked.
const MAX_TEXT: u64 = 16 * 1024 * 1024;

/// Where a policy comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// A file, read again on reload.
    File(PathBuf),
    /// A text that came in a variable, with the variable's name.
    Text(&'static str, String),
    /// Nothing was found, and the user asked for audit: an empty policy.
    Empty,
}

/// A policy text and what to call it in messages.
#[derive(Clone, Debug)]
pub struct Text {
    /// The path, or the variable's name.
    pub origin: String,
    /// The YAML.
    pub yaml: String,
}

impl Source {
    /// The file, if it is one.
    #[must_use]
    pub fn path(&self) -> Option<&std::path::Path> {
        match self {
            Self::File(path) => Some(path),
            Self::Text(..) | Self::Empty => None,
        }
    }

    /// Looks for a policy. `advice` is what the command's user can do if there is none.
    ///
    /// # Errors
    /// `None` is anywhere, and the mode is not audit; the message says where was looked.
    pub fn find(
        policy: Option<&Path>,
        variable: impl Fn(&str) -> Option<String>,
        audit: bool,
        advice: &str,
    ) -> anyhow::Result<Self> {
        if let Some(path) = policy {
            return Ok(Self::File(path.to_owned()));
        }
        if let Some(text) = variable("EGRET_POLICY").filter(|text| !text.trim().is_empty()) {
            return unpack(&text).map(|yaml| Self::Text("EGRET_POLICY", yaml));
        }
        if let Some(allow) = variable("EGRET_ALLOW").filter(|names| !names.trim().is_empty()) {
            return Ok(Self::Text("EGRET_ALLOW", from_names(&allow)));
        }
        let well_known = Path::new(WELL_KNOWN);
        match well_known.try_exists() {
            Ok(false) if audit => Ok(Self::Empty),
            Ok(false) => bail!(
                "no policy found: none is named, EGRET_POLICY and EGRET_ALLOW are not set, and there is no {WELL_KNOWN}\n{advice}"
            ),
            _ => Ok(Self::File(well_known.to_owned())),
        }
    }

    /// Reads the text.
    ///
    /// # Errors
    /// The file cannot be read, is no regular text, or is longer than 16 MiB.
    pub fn read(&self) -> anyhow::Result<Text> {
        match self {
            Self::File(path) => read_file(path).with_context(|| format!("cannot read the policy {}", path.display())),
            Self::Text(variable, yaml) => Ok(Text { origin: (*variable).to_owned(), yaml: yaml.clone() }),
            Self::Empty => Ok(Text { origin: "(empty policy)".to_owned(), yaml: "version: 1\n".to_owned() }),
        }
    }
}

/// A variable of the environment. One that is no UTF-8 is not passed over: it will be found invalid where it is read.
pub fn variable(name: &str) -> Option<String> {
    std::env::var_os(name).map(|value| value.to_string_lossy().into_owned())
}

fn read_file(path: &Path) -> io::Result<Text> {
    // Before it is opened: opening a pipe would wait for a writer.
    if !path.metadata()?.is_file() {
        return Err(io::Error::other("not a regular file"));
    }
    Ok(Text { origin: path.display().to_string(), yaml: read_bounded(File::open(path)?)? })
}

fn read_bounded(from: impl Read) -> io::Result<String> {
    let mut text = String::new();
    from.take(MAX_TEXT + 1).read_to_string(&mut text)?;
    if text.len() as u64 > MAX_TEXT {
        return Err(io::Error::other("longer than 16 MiB"));
    }
    Ok(text)
}

/// The text of `EGRET_POLICY`: as it is, or `gz:` and base64 of its gzip form, for variables with a length limit.
fn unpack(text: &str) -> anyhow::Result<String> {
    let Some(packed) = text.trim().strip_prefix("gz:") else { return Ok(text.to_owned()) };
    let compact: String = packed.chars().filter(|c| !c.is_ascii_whitespace()).collect();
    let gzip = STANDARD.decode(compact).context("EGRET_POLICY begins with gz: but is not base64")?;
    read_bounded(flate2::read::GzDecoder::new(&*gzip)).context("EGRET_POLICY begins with gz: but is not gzip of a text")
}

/// `a.com *.b.com db.c:5432` as a policy of short rules. Each name is quoted as JSON, which YAML reads.
pub(crate) fn from_names(names: &str) -> String {
    let rules: Vec<String> = names
        .split([' ', ',', '\n', '\t'])
        .filter(|name| !name.is_empty())
        .map(|name| format!("    - {}\n", serde_json::json!(name)))
        .collect();
    if rules.is_empty() {
        return "version: 1\n".to_owned();
    }
    format!("version: 1\negress:\n  allow:\n{}", rules.concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find(policy: Option<&str>, variables: &[(&str, &str)], audit: bool) -> anyhow::Result<Source> {
        let variable = |name: &str| variables.iter().find(|(n, _)| *n == name).map(|(_, value)| (*value).to_owned());
        Source::find(policy.map(Path::new), variable, audit, "name one")
    }

    #[test]
    fn sources_are_tried_in_order() {
        let both = [("EGRET_POLICY", "version: 1"), ("EGRET_ALLOW", "a.test")];
        assert_eq!(find(Some("x.yaml"), &both, false).unwrap(), Source::File("x.yaml".into()));
        assert_eq!(find(None, &both, false).unwrap(), Source::Text("EGRET_POLICY", "version: 1".into()));
        let allow = find(None, &both[1..], false).unwrap();
        assert_eq!(allow, Source::Text("EGRET_ALLOW", "version: 1\negress:\n  allow:\n    - \"a.test\"\n".into()));
    }

    #[test]
    fn c10_nothing_found_is_an_error_unless_audit_is_asked_for() {
        let error = find(None, &[], false).unwrap_err().to_string();
        for place in ["EGRET_POLICY", "EGRET_ALLOW", WELL_KNOWN, "\nname one"] {
            assert!(error.contains(place), "{error}");
        }
        assert_eq!(find(None, &[], true).unwrap(), Source::Empty);
    }

    #[test]
    fn packed_policies_are_unpacked_and_bad_ones_named() {
        use std::io::Write as _;
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        gzip.write_all(b"version: 1\n").unwrap();
        let packed = format!("gz:{}", STANDARD.encode(gzip.finish().unwrap()));
        assert_eq!(unpack(&packed).unwrap(), "version: 1\n");
        assert!(unpack("gz:!!!").unwrap_err().to_string().contains("base64"));
        assert!(unpack("gz:AAAA").unwrap_err().to_string().contains("gzip"));
    }

    #[test]
    fn names_cannot_break_out_of_their_quotes() {
        let text = from_names("a.test\", mode: audit #");
        assert!(text.contains("\"a.test\\\"\""), "{text}");
        assert_eq!(from_names("  "), "version: 1\n");
    }
}
