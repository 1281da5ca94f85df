//! The policy as meant. `raw` is the file as written; here every section becomes what the members want, one short
//! function each, and everything that is wrong is told in one pass.

pub mod diagnose;
mod raw;
mod rules;
pub mod source;

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use egret_policy::{Draft, Mode, Name, Policy, Request, Target, UnixTime};
use egret_proxy::pem::PemObject;
use egret_proxy::{CertificateDer, DnsServer};
use serde_saphyr::{Location, MergeKeyPolicy, Spanned};
use sha2::{Digest, Sha256};

use self::diagnose::{Diagnostic, Diagnostics};
use self::source::Text;

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
    /// The file's own tests.
    pub tests: Vec<PolicyTest>,
}

/// Settings of `egret run` that the file has.
#[derive(Clone, Debug, Default)]
pub struct RunSettings {
    /// Proxy listeners.
    pub listen: Option<Vec<SocketAddr>>,
    /// The admin listener.
    pub admin: Option<SocketAddr>,
    /// A file, or `-` for stdout.
    pub journal: Option<String>,
    /// Seconds.
    pub drain: Option<u64>,
    /// The most connections at one time.
    pub connections: Option<u32>,
}

/// One of the file's own tests.
#[derive(Clone, Debug)]
pub struct PolicyTest {
    role: String,
    target: Target,
    expect: raw::Expect,
    at: Location,
}

/// Reads a policy. `mode`, from a flag or variable, goes before the file's own.
///
/// # Errors
/// Everything that is wrong, in the order of the file.
pub fn load(text: &Text, mode: Option<Mode>) -> Result<Config, Diagnostics> {
    let fail = |all| Diagnostics::new(&text.origin, &text.yaml, all);
    let file = parse(&text.yaml).map_err(|diagnostic| fail(vec![diagnostic]))?;
    let mut reader = Reader { sets: &file.sets, roles: &file.roles, found: Vec::new() };
    let mut config = reader.config(&file, mode);
    config.draft.hash = hash(&text.yaml, config.draft.mode);
    if reader.found.is_empty() { Ok(config) } else { Err(fail(reader.found)) }
}

/// Bounds for hostile or mistaken input. Anchors and aliases have no use in a policy and are refused.
fn parse(yaml: &str) -> Result<raw::File, Diagnostic> {
    let mut options = serde_saphyr::Options::default();
    options.with_snippet = false;
    options.merge_keys = MergeKeyPolicy::Error;
    options.alias_limits.max_total_replayed_events = 0;
    if let Some(budget) = &mut options.budget {
        budget.max_depth = 16;
        budget.max_documents = 1;
        budget.max_anchors = 0;
        budget.max_nodes = 4_000_000;
        budget.max_events = 8_000_000;
    }
    serde_saphyr::from_str_with_options(yaml, options).map_err(|error| Diagnostic::of(&error))
}

/// Twelve hexadecimal digits that change whenever the text or the mode does.
fn hash(yaml: &str, mode: Mode) -> String {
    let digest = Sha256::new().chain_update(yaml).chain_update(mode.to_string()).finalize();
    digest.iter().take(6).map(|byte| format!("{byte:02x}")).collect()
}

/// Turns the written form into the meant one, and gathers what is wrong.
struct Reader<'a> {
    sets: &'a BTreeMap<String, Vec<raw::Text>>,
    roles: &'a BTreeMap<String, Spanned<raw::Role>>,
    found: Vec<Diagnostic>,
}

impl Reader<'_> {
    fn note(&mut self, at: Location, message: impl Into<String>, help: Option<&str>) {
        self.found.push(Diagnostic::at(at, message, help));
    }

    /// Notes an error and gives nothing, as the last word of a reader.
    fn error<T>(&mut self, at: Location, message: impl Into<String>, help: Option<&str>) -> Option<T> {
        self.note(at, message, help);
        None
    }

    fn config(&mut self, file: &raw::File, mode: Option<Mode>) -> Config {
        if file.version.value != 1 {
            self.note(
                file.version.referenced,
                format!("version {} is not known", file.version.value),
                Some("write `version: 1`"),
            );
        }
        let mut draft = Draft::default();
        let egress_mode = file.egress.as_ref().and_then(|egress| egress.mode);
        draft.mode = mode.or_else(|| egress_mode.or(file.mode).map(rules::mode)).unwrap_or(Mode::Enforce);
        let role_ports = self.role_claims(&mut draft);
        if let Some(egress) = &file.egress {
            self.rules(egress, &mut draft);
        }
        let (dns, dns_roots) = self.dns(file.dns.as_ref(), &mut draft);
        Config { draft, dns, dns_roots, role_ports, run: self.run_settings(&file.run), tests: self.tests(&file.tests) }
    }

    fn role_claims(&mut self, draft: &mut Draft) -> Vec<u16> {
        let (mut ports, mut users) = (Vec::new(), Vec::new());
        for (name, role) in self.roles {
            if role.value.port.is_none() && role.value.proxy_user.is_none() {
                self.note(role.referenced, format!("role {name} cannot be told"), Some("give it a `port:` or a `proxy-user:`"));
            }
            let Some(id) = draft.role(name) else { continue };
            if let Some(port) = &role.value.port {
                if port.value == 0 || ports.contains(&port.value) {
                    self.note(port.referenced, "each role needs a port of its own, from 1", None);
                }
                draft.role_by_port(port.value, id);
                ports.push(port.value);
            }
            if let Some(user) = &role.value.proxy_user {
                if user.value.is_empty() || users.contains(&&user.value) {
                    self.note(user.referenced, "each role needs a user name of its own", None);
                }
                draft.role_by_user(&user.value, id);
                users.push(&user.value);
            }
        }
        ports
    }

    fn dns(&mut self, dns: Option<&raw::Dns>, draft: &mut Draft) -> (DnsServer, Vec<CertificateDer<'static>>) {
        let Some(dns) = dns else { return (DnsServer::System, Vec::new()) };
        draft.private_answers = dns.private_answers == Some(raw::PrivateAnswers::Allow);
        let server = dns.upstream.as_ref().and_then(|upstream| self.dns_server(upstream)).unwrap_or(DnsServer::System);
        let roots = dns.ca.as_ref().and_then(|path| self.certificates(path)).unwrap_or_default();
        (server, roots)
    }

    fn dns_server(&mut self, text: &raw::Text) -> Option<DnsServer> {
        let server = match text.value.strip_prefix("tls://") {
            None if text.value == "system" => Some(DnsServer::System),
            None => address(&text.value, 53).map(DnsServer::Plain),
            Some(rest) => {
                rest.split_once('#').and_then(|(at, name)| Some(DnsServer::Tls(address(at, 853)?, Name::parse(name).ok()?)))
            }
        };
        if server.is_none() {
            let help = "write system, 10.0.0.2, 127.0.0.1:5353 or tls://9.9.9.9#dns.quad9.net";
            return self.error(text.referenced, format!("{:?} is no DNS server", text.value), Some(help));
        }
        server
    }

    fn certificates(&mut self, path: &raw::Text) -> Option<Vec<CertificateDer<'static>>> {
        let read: Result<Vec<_>, String> = CertificateDer::pem_file_iter(&path.value)
            .map_err(|error| error.to_string())
            .and_then(|found| found.collect::<Result<Vec<_>, _>>().map_err(|error| error.to_string()));
        match read {
            Ok(found) if !found.is_empty() => Some(found),
            Ok(_) => self.error(path.referenced, format!("{} holds no certificate", path.value), Some("it wants PEM")),
            Err(error) => self.error(path.referenced, format!("cannot read {}: {error}", path.value), None),
        }
    }

    fn run_settings(&mut self, run: &raw::Run) -> RunSettings {
        if let Some(listen) = run.listen.as_ref().filter(|listen| listen.value.is_empty()) {
            self.note(listen.referenced, "`listen:` is empty", Some("name at least one address, or leave the key out"));
        }
        if let Some(connections) = run.connections.as_ref().filter(|connections| connections.value == 0) {
            self.note(connections.referenced, "no connection at all cannot be meant", Some("write at least 1"));
        }
        let listen = run.listen.as_ref().map(|all| all.value.iter().filter_map(|text| self.socket(text)).collect());
        let admin = run.admin.as_ref().and_then(|text| self.socket(text));
        let connections = run.connections.as_ref().map(|connections| connections.value);
        RunSettings { listen, admin, journal: run.journal.clone(), drain: run.drain, connections }
    }

    fn socket(&mut self, text: &raw::Text) -> Option<SocketAddr> {
        match text.value.parse() {
            Ok(address) => Some(address),
            Err(_) => {
                self.error(text.referenced, format!("{:?} is no address and port", text.value), Some("write 127.0.0.1:3128"))
            }
        }
    }

    fn tests(&mut self, tests: &[Spanned<raw::Test>]) -> Vec<PolicyTest> {
        let read = |test: &Spanned<raw::Test>| {
            let role = test.value.role.as_ref();
            if let Some(role) =
                role.filter(|role| role.value != egret_policy::DEFAULT_ROLE && !self.roles.contains_key(&role.value))
            {
                return self.error(role.referenced, format!("there is no role named {}", role.value), None);
            }
            let role = role.map_or(egret_policy::DEFAULT_ROLE, |role| &role.value).to_owned();
            match Target::parse(&test.value.connect.value) {
                Ok(target) => Some(PolicyTest { role, target, expect: test.value.expect, at: test.value.connect.referenced }),
                Err(error) => self.error(test.value.connect.referenced, format!("{:?}: {error}", test.value.connect.value), None),
            }
        };
        tests.iter().filter_map(read).collect()
    }
}

/// An address with or without a port.
fn address(text: &str, port: u16) -> Option<SocketAddr> {
    text.parse().ok().or_else(|| egret_policy::literal(text).map(|ip: IpAddr| SocketAddr::new(ip, port)))
}

impl PolicyTest {
    /// Asks the policy; the diagnostic says what it answered instead.
    ///
    /// # Errors
    /// The verdict is not the expected one.
    pub fn run(&self, policy: &std::sync::Arc<Policy>, now: UnixTime) -> Result<(), Diagnostic> {
        let role = policy.role_named(&self.role).unwrap_or_else(|| policy.default_role());
        let mut verdict = policy.admit(&Request::new(self.target.clone(), role, now));
        if let (Ok(permit), egret_policy::Host::Address(_)) = (&mut verdict, &self.target.host) {
            verdict = permit.vet(&[]).map(|_| permit.clone());
        }
        let (got, why) = match &verdict {
            Ok(permit) => match permit.would_deny() {
                None => (raw::Expect::Allow, permit.rule().map(|rule| format!("allowed by rule {}", rule.id()))),
                Some(denial) => (raw::Expect::WouldDeny, Some(denial.detail.clone())),
            },
            Err(denial) => (raw::Expect::Deny, Some(format!("{} ({})", denial.detail, denial.reason))),
        };
        if got == self.expect {
            return Ok(());
        }
        let message =
            format!("the test expects {:?} for {} as role {}, the policy says {got:?}", self.expect, self.target, self.role);
        Err(Diagnostic::at(self.at, message, why.as_deref()))
    }
}

#[cfg(test)]
mod tests;
