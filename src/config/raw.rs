//! The policy file as written: every key that exists, nothing checked beyond its shape. Unknown and doubled keys are
//! refused by the reader. Rules are a host or a mapping; the visitor is written out because an untagged enum would
//! turn every mistake inside into "no variant matched".

use std::collections::BTreeMap;
use std::fmt;

use serde::Deserialize;
use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_saphyr::Spanned;

/// A text with its place in the file.
pub(crate) type Text = Spanned<String>;

/// The whole file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct File {
    pub(crate) version: Spanned<u32>,
    pub(crate) mode: Option<Mode>,
    #[serde(default)]
    pub(crate) sets: BTreeMap<String, Vec<Text>>,
    #[serde(default)]
    pub(crate) roles: BTreeMap<String, Spanned<Role>>,
    pub(crate) egress: Option<Egress>,
    pub(crate) dns: Option<Dns>,
    #[serde(default)]
    pub(crate) tests: Vec<Spanned<Test>>,
    #[serde(default)]
    pub(crate) run: Run,
}

/// Whether verdicts bind.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Mode {
    Audit,
    Enforce,
}

/// Who is asking.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct Role {
    pub(crate) port: Option<Spanned<u16>>,
    pub(crate) proxy_user: Option<Text>,
}

/// What may leave.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct Egress {
    pub(crate) mode: Option<Mode>,
    #[serde(default)]
    pub(crate) allow: Vec<Spanned<Rule>>,
    #[serde(default)]
    pub(crate) deny: Vec<Spanned<Rule>>,
}

/// A rule in its short or long form.
#[derive(Debug)]
pub(crate) enum Rule {
    Short(String),
    Long(Box<LongRule>),
}

/// A rule with all its keys.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct LongRule {
    pub(crate) id: Option<Text>,
    pub(crate) to: Option<Text>,
    pub(crate) s3: Option<Spanned<S3>>,
    pub(crate) ports: Option<Vec<Text>>,
    pub(crate) r#for: Option<Vec<Text>>,
    pub(crate) r#as: Option<Protocol>,
    pub(crate) within: Option<Vec<Text>>,
    pub(crate) mode: Option<Mode>,
    pub(crate) expires: Option<Text>,
    pub(crate) note: Option<String>,
    #[serde(default)]
    pub(crate) wide: bool,
}

/// Buckets.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct S3 {
    pub(crate) buckets: Vec<Text>,
    pub(crate) regions: Option<Vec<Text>>,
}

/// What the first flight must be.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Protocol {
    Tls,
    Http,
    Tcp,
    Any,
}

/// How names are resolved.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct Dns {
    pub(crate) upstream: Option<Text>,
    pub(crate) ca: Option<Text>,
    pub(crate) private_answers: Option<PrivateAnswers>,
}

/// Whether answers in private space pass without a rule that names it.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub(crate) enum PrivateAnswers {
    Allow,
    Deny,
}

/// One of the file's own tests.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Test {
    pub(crate) role: Option<Text>,
    pub(crate) connect: Text,
    pub(crate) expect: Expect,
}

/// What a test expects.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Expect {
    Allow,
    Deny,
    WouldDeny,
}

/// Settings of `egret run`, below flags and variables.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct Run {
    pub(crate) listen: Option<Spanned<Vec<Text>>>,
    pub(crate) admin: Option<Text>,
    pub(crate) journal: Option<String>,
    pub(crate) drain: Option<u64>,
    pub(crate) connections: Option<Spanned<u32>>,
}

impl<'de> Deserialize<'de> for Rule {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(RuleVisitor)
    }
}

struct RuleVisitor;

impl<'de> Visitor<'de> for RuleVisitor {
    type Value = Rule;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a host such as api.example.com:443, or a rule with `to:`")
    }

    fn visit_str<E>(self, text: &str) -> Result<Rule, E> {
        Ok(Rule::Short(text.to_owned()))
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Rule, A::Error> {
        LongRule::deserialize(MapAccessDeserializer::new(map)).map(|rule| Rule::Long(Box::new(rule)))
    }
}
