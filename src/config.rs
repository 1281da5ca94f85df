//! The policy as meant. `yaml` reads the text into a tree that knows where everything stands; here every section becomes
//! what the members want, one short function each, and everything that is wrong is told in one pass.

pub mod diagnose;
pub mod files;
mod lint;
pub mod presets;
pub(crate) mod read;
mod roles;
mod rules;
mod sections;
mod settings;
pub mod source;
pub(crate) mod yaml;

use std::collections::{BTreeMap, BTreeSet};

use egret_policy::{Draft, Effect, Host, Mode, Policy, Request, Target, UnixTime};
use egret_proxy::{CertificateDer, DnsServer};
use ipnet::IpNet;
use sha2::{Digest, Sha256};

use self::diagnose::{Code, Diagnostic, Diagnostics};
use self::files::Files;
use self::presets::Preset;
use self::read::{Fields, Findings};
pub(crate) use self::rules::instant;
pub use self::sections::{Around, Unserved};
pub use self::settings::RunSettings;
use self::source::Text;
use self::yaml::{Node, Place};

/// The keys of the file.
const FILE: &[&str] = &[
    "version",
    "mode",
    "audit-until",
    "presets",
    "sets",
    "roles",
    "egress",
    "dns",
    "files",
    "direct",
    "around",
    "exec",
    "run",
    "tests",
];
/// The keys of `egress:`.
const EGRESS: &[&str] = &["mode", "audit-until", "allow", "deny"];
/// The keys of a test.
const TEST: &[&str] = &["role", "connect", "expect"];

/// A policy, read and understood.
#[derive(Debug)]
pub struct Config {
    /// What may leave.
    pub draft: Draft,
    /// Where names are resolved.
    pub dns: DnsServer,
    /// Certificates trusted for DNS over TLS, beside the public ones.
    pub dns_roots: Vec<CertificateDer<'static>>,
    /// Additional proxy ports, in the order of their roles' names.
    pub role_ports: Vec<u16>,
    /// The file's settings for `egret run`.
    pub run: RunSettings,
    /// Where else the file says what it says, for `--print-config`.
    pub written: Lines,
    /// What is reached without the proxy.
    pub direct: Vec<IpNet>,
    /// Which files are watched.
    pub files: Option<Files>,
    /// Patterns of what a program that egret starts may execute; `None` for everything.
    pub exec: Option<Vec<String>>,
    /// What a flow around the proxy means, if that is written.
    pub around: Option<Around>,
    /// The file's own tests.
    pub tests: Vec<PolicyTest>,
    rule_places: Vec<Place>,
    executables: Vec<(String, Place)>,
    audit_end: Option<Place>,
    allow_is_empty_at: Option<Place>,
    around_alone_at: Option<Place>,
    lints: Vec<Diagnostic>,
}

/// A value and the line it is written in, from 1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written<T> {
    /// What is written.
    pub value: T,
    /// Where.
    pub line: u32,
}

/// The lines of settings that have no other home.
#[derive(Clone, Copy, Debug, Default)]
pub struct Lines {
    /// `mode:`, of the file or of `egress:`.
    pub mode: Option<u32>,
    /// `audit-until:`.
    pub audit_until: Option<u32>,
    /// `dns.upstream:`.
    pub upstream: Option<u32>,
    /// `dns.ca:`.
    pub ca: Option<u32>,
    /// `dns.private-answers:`.
    pub private_answers: Option<u32>,
}

/// One of the file's own tests.
#[derive(Clone, Debug)]
pub struct PolicyTest {
    role: String,
    target: Target,
    expect: Expect,
    at: Place,
}

/// What a test expects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Expect {
    Allow,
    Deny,
    WouldDeny,
}

const EXPECTATIONS: &[(&str, Expect)] = &[("allow", Expect::Allow), ("deny", Expect::Deny), ("would_deny", Expect::WouldDeny)];

/// Reads a policy. `mode`, from a flag or variable, goes before the file's own.
///
/// # Errors
/// Everything that is wrong, in the order of the file.
pub fn load(text: &Text, mode: Option<Mode>) -> Result<Config, Diagnostics> {
    let fail = |all| Diagnostics::new(&text.origin, &text.yaml, all);
    let (root, broken) = yaml::parse(&text.yaml);
    let mut reader = Reader { found: Findings(broken), ..Reader::default() };
    let config = match &root {
        Some(root) => reader.config(root, mode),
        // Where the text broke off has been noted.
        None if reader.found.0.is_empty() => {
            reader.found.refuse(Code::MissingKey, Place::default(), "the policy is empty", Some("begin it with `version: 1`"))
        }
        None => None,
    };
    match config {
        Some(mut config) if reader.found.0.is_empty() => {
            config.draft.hash = hash(&text.yaml, config.draft.mode, &reader.presets);
            Ok(config)
        }
        _ => Err(fail(reader.found.0)),
    }
}

/// Twelve hexadecimal digits that change whenever the text, its presets or the mode do.
fn hash(yaml: &str, mode: Mode, presets: &[&Preset]) -> String {
    let digest = Sha256::new().chain_update(yaml).chain_update(mode.to_string());
    let digest = presets.iter().fold(digest, |digest, preset| digest.chain_update(preset.yaml)).finalize();
    digest.iter().take(6).map(|byte| format!("{byte:02x}")).collect()
}

/// Turns the written form into the meant one, and gathers what is wrong.
#[derive(Default)]
struct Reader<'t> {
    sets: BTreeMap<String, rules::Set>,
    /// Targets that sets have stood for so far.
    expanded: usize,
    roles: Vec<String>,
    used_roles: BTreeSet<String>,
    ids: rules::Ids,
    presets: Vec<&'static Preset>,
    /// The preset that is being read.
    prefix: Option<&'static str>,
    rule_places: Vec<Place>,
    executables: Vec<(String, Place)>,
    lints: Vec<Diagnostic>,
    found: Findings,
    text: std::marker::PhantomData<&'t ()>,
}

impl<'t> Reader<'t> {
    /// `None` only if the whole is no mapping.
    fn config(&mut self, root: &Node<'t>, mode: Option<Mode>) -> Option<Config> {
        let file = self.found.map(root, "the policy", FILE)?;
        self.version(file);
        let mut draft = Draft::default();
        let mut written = Lines::default();
        let role_ports = self.roles(file.section("roles"), &mut draft);
        self.sets(file.section("sets"));
        let egress = file.section("egress").and_then(|node| self.found.map(node, "`egress:`", EGRESS));
        let audit_end = self.modes(file, egress, mode, &mut draft, &mut written);
        let mut direct = self.take_presets(file.section("presets"), &mut draft);
        if let Some(egress) = egress {
            self.rules(egress.section("allow"), Effect::Allow, &mut draft);
            self.rules(egress.section("deny"), Effect::Deny, &mut draft);
        }
        let allows = |rule: &egret_policy::Rule| rule.effect() == Effect::Allow;
        let empty = !draft.rules().iter().any(allows);
        self.unused_sets();
        self.unused_roles(file.section("roles"));
        let (dns, dns_roots) = self.dns(file.section("dns"), &mut draft, &mut written);
        direct.extend(self.direct(file.section("direct")));
        let files = self.files(file.section("files"));
        let exec = self.exec(file.section("exec"));
        let around = self.around(file.section("around"));
        // Whoever writes `direct:`, be it empty, has thought of it.
        let is_alone = direct.is_empty() && file.get("direct").is_none() && around.unwrap_or_default() != Around::Alert;
        let run = self.run_settings(file.section("run"));
        let tests = self.tests(file.section("tests"));
        Some(Config {
            draft,
            dns,
            dns_roots,
            role_ports,
            run,
            written,
            direct,
            files,
            exec,
            around,
            tests,
            rule_places: std::mem::take(&mut self.rule_places),
            executables: std::mem::take(&mut self.executables),
            audit_end,
            allow_is_empty_at: empty.then(|| file.get("egress").unwrap_or(root).at),
            around_alone_at: file.get("around").map(|node| node.at).filter(|_| is_alone),
            lints: std::mem::take(&mut self.lints),
        })
    }

    fn version(&mut self, file: Fields<'_, 't>) {
        match file.get("version") {
            None => {
                let at = Place { end: file.at.start, ..file.at };
                self.found.note(Code::MissingKey, at, "the policy says no version", Some("begin the file with `version: 1`"));
            }
            Some(node) if !node.is("1") => {
                self.found.note(Code::BadValue, node.at, "this version is not known", Some("write `version: 1`"));
            }
            Some(_) => {}
        }
    }

    /// The nearest mode wins: flag or variable, section, file. An end of audit belongs to the mode beside it.
    fn modes(
        &mut self,
        file: Fields<'_, 't>,
        egress: Option<Fields<'_, 't>>,
        flag: Option<Mode>,
        draft: &mut Draft,
        written: &mut Lines,
    ) -> Option<Place> {
        let of_file = self.mode_beside(file);
        let of_egress = egress.map(|egress| self.mode_beside(egress)).unwrap_or_default();
        let mode = of_egress.mode.or(of_file.mode);
        let own_mode = mode.map_or(Mode::Enforce, |(mode, _)| mode);
        // An audit of `egress:` without an end of its own ends with the file's.
        let until = of_egress.until.or(of_file.until.filter(|_| own_mode == Mode::Audit));
        if let Some((_, at)) = of_file.until.filter(|_| until != of_file.until) {
            let message = "`audit-until:` changes nothing here: `egress:` has a mode or an end of its own";
            self.lints.push(Diagnostic::warning(Code::NoEffect, at, message, Some("keep one of the two")));
        }
        draft.mode = flag.unwrap_or(own_mode);
        draft.audit_until = until.map(|(until, _)| until).filter(|_| flag.is_none());
        written.mode = mode.map(|(_, at)| at.line);
        written.audit_until = until.map(|(_, at)| at.line);
        until.map(|(_, at)| at).filter(|_| flag.is_none())
    }

    fn mode_beside(&mut self, fields: Fields<'_, 't>) -> ModeBeside {
        let word = fields.get("mode").and_then(|node| Some((self.found.word(node, "`mode:`", rules::MODES)?, node.at)));
        let until = fields.get("audit-until").and_then(|node| Some((self.instant(node, "`audit-until:`")?, node.at)));
        let unread = word.is_none() && fields.get("mode").is_some();
        let in_audit = unread || word.is_some_and(|(mode, _)| mode == Mode::Audit);
        if let Some(node) = fields.get("audit-until").filter(|_| !in_audit) {
            let help = "write `mode: audit` beside it, or remove it";
            self.found.note(Code::Conflict, node.at, "`audit-until:` ends an audit, and there is none here", Some(help));
        }
        ModeBeside { mode: word, until }
    }

    fn tests(&mut self, node: Option<&Node<'t>>) -> Vec<PolicyTest> {
        let Some(tests) = node.and_then(|node| self.found.list(node, "`tests:`")) else { return Vec::new() };
        tests.iter().filter_map(|test| self.test(test)).collect()
    }

    fn test(&mut self, node: &Node<'t>) -> Option<PolicyTest> {
        let fields = self.found.map(node, "a test", TEST)?;
        let role = match fields.get("role") {
            Some(role) => self.known_role(role)?.to_owned(),
            None => egret_policy::DEFAULT_ROLE.to_owned(),
        };
        let (Some(connect), Some(expect)) = (fields.get("connect"), fields.get("expect")) else {
            let help = "write { connect: \"api.example.com:443\", expect: allow }";
            return self.found.refuse(Code::MissingKey, node.at, "a test needs `connect:` and `expect:`", Some(help));
        };
        let expect = self.found.word(expect, "`expect:`", EXPECTATIONS);
        let text = self.found.text(connect, "`connect:`")?;
        match Target::parse(text) {
            Ok(target) => Some(PolicyTest { role, target, expect: expect?, at: connect.at }),
            Err(error) => {
                self.found.refuse(Code::BadValue, connect.at, format!("{text:?}: {error}"), Some("write \"api.example.com:443\""))
            }
        }
    }
}

/// A mode, and the end of an audit, as they stand in one place.
#[derive(Default)]
struct ModeBeside {
    mode: Option<(Mode, Place)>,
    until: Option<(UnixTime, Place)>,
}

impl PolicyTest {
    /// Asks the policy; the diagnostic says what it answered instead.
    ///
    /// # Errors
    /// The verdict is not the expected one.
    pub fn run(&self, policy: &std::sync::Arc<Policy>, now: UnixTime) -> Result<(), Diagnostic> {
        let role = policy.role_named(&self.role).unwrap_or_else(|| policy.default_role());
        let mut verdict = policy.admit(&Request::new(self.target.clone(), role, now));
        if let (Ok(permit), Host::Address(_)) = (&mut verdict, &self.target.host) {
            verdict = permit.vet(&[]).map(|_| permit.clone());
        }
        let (got, why) = match &verdict {
            Ok(permit) => match permit.would_deny() {
                None => (Expect::Allow, permit.rule().map(|rule| format!("allowed by rule {}", rule.id()))),
                Some(denial) => (Expect::WouldDeny, Some(denial.detail.clone())),
            },
            Err(denial) => (Expect::Deny, Some(format!("{} ({})", denial.detail, denial.reason))),
        };
        if got == self.expect {
            return Ok(());
        }
        let message =
            format!("the test expects {} for {} as role {}, the policy says {got}", self.expect, self.target, self.role);
        Err(Diagnostic::error(Code::FailedTest, self.at, message, why.as_deref()))
    }
}

impl std::fmt::Display for Expect {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(EXPECTATIONS.iter().find(|(_, expect)| expect == self).map_or("", |(word, _)| word))
    }
}

#[cfg(test)]
mod tests;
