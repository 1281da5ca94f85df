//! The settings of `egret run`: each from its flag, its variable, the file or its default, in that order, and each with
//! a note of where it came from.

use std::fmt::Display;
use std::io::IsTerminal;
use std::net::SocketAddr;
use std::time::Duration;

use clap::parser::ValueSource;
use egret_policy::Mode;
use egret_proxy::{DnsServer, Limits};
use serde::Serialize;
use serde_json::json;
use tracing_subscriber::filter::LevelFilter;

use crate::cli::{Failure, Output, RunArgs};
use crate::config::source::{self, Source, Text};
use crate::config::{self, Config, Written};
use crate::confinement::Confine;
use crate::events::rfc3339_of;
use crate::journal::WhenFull;
use crate::stderr::{self, Tracing};

pub(crate) const DEFAULT_LISTEN: &str = "127.0.0.1:3128";
pub(crate) const DEFAULT_ADMIN: &str = "127.0.0.1:3129";
const DEFAULT_DRAIN: u64 = 10;
const DEFAULT_FLOWS: u64 = 300;
const DEFAULT_LOG: &str = "warn";

/// Everything `run` needs.
pub(crate) struct Settings {
    pub(crate) source: Source,
    pub(crate) mode: Option<Mode>,
    /// The policy's text.
    pub(crate) yaml: String,
    /// What it says.
    pub(crate) config: Config,
    pub(crate) listen: Vec<SocketAddr>,
    pub(crate) admin: SocketAddr,
    pub(crate) journal: String,
    pub(crate) journal_full: WhenFull,
    pub(crate) drain: Duration,
    pub(crate) limits: Limits,
    pub(crate) close_revoked: bool,
    pub(crate) confine: Confine,
    /// How often a flow that lives is told again; zero: flows are not watched.
    pub(crate) flows: Duration,
    told: Vec<Told>,
}

/// One setting, told.
#[derive(Debug, Serialize)]
struct Told {
    name: &'static str,
    value: String,
    from: String,
}

impl Settings {
    pub(crate) fn gather(args: &RunArgs) -> Result<Self, Failure> {
        let mode = args.policy.mode();
        let audit = mode == Some(Mode::Audit);
        let advice = "name one by --policy FILE; to observe first, start with --mode audit";
        let source = Source::find(args.policy.policy.as_deref(), source::variable, audit, advice).map_err(Failure::Usage)?;
        let text = source.read().map_err(Failure::Usage)?;
        let config = config::load(&text, mode).map_err(Failure::invalid)?;
        let mut choice = Choice { args, text: &text, told: Vec::new() };
        choice.policy(&source, &config);
        let listen = Some(args.listen.clone()).filter(|listen| !listen.is_empty());
        let run = config.run.clone();
        let listen = choice.of("listen", listen, run.listen, vec![fixed(DEFAULT_LISTEN)], |all| joined(all));
        let admin = choice.of("admin", args.admin, run.admin, fixed(DEFAULT_ADMIN), ToString::to_string);
        let journal = choice.of("journal", args.journal.clone(), run.journal, "-".to_owned(), Clone::clone);
        let journal_full =
            choice.of("journal-full", args.journal_full, run.journal_full, WhenFull::default(), ToString::to_string);
        let drain = choice.of("drain", args.drain, run.drain, DEFAULT_DRAIN, |seconds| format!("{seconds} s"));
        let default = Limits::default();
        let most = u32::try_from(default.connections).unwrap_or(u32::MAX);
        let connections = choice.of("connections", args.connections, run.connections, most, ToString::to_string);
        let close_revoked = choice.of("close-revoked", args.close_revoked, run.close_revoked, false, ToString::to_string);
        let confine = choice.of("confine", args.confine, run.confine, Confine::default(), ToString::to_string);
        let flows = choice.of("flows", args.flows, run.flows, DEFAULT_FLOWS, |seconds| format!("{seconds} s"));
        choice.dns(&config);
        choice.log();
        let told = choice.told;
        Ok(Self {
            source,
            mode,
            yaml: text.yaml,
            config,
            listen,
            admin,
            journal,
            journal_full,
            drain: Duration::from_secs(drain),
            limits: Limits { connections: usize::try_from(connections).unwrap_or(usize::MAX), ..default },
            close_revoked,
            confine,
            flows: Duration::from_secs(flows),
            told,
        })
    }

    /// Every setting, its value and where it came from.
    pub(crate) fn tell(&self, output: Output) -> String {
        match output {
            Output::Json => format!("{}\n", json!({ "v": 1, "settings": self.told })),
            Output::Text => {
                let width = |cell: fn(&Told) -> usize| self.told.iter().map(cell).max().unwrap_or(0).max(7);
                let (name, value) = (width(|told| told.name.len()), width(|told| told.value.len()));
                let head = format!("{:name$}  {:value$}  FROM\n", "SETTING", "VALUE");
                let row = |told: &Told| format!("{:name$}  {:value$}  {}\n", told.name, told.value, told.from);
                head + &self.told.iter().map(row).collect::<String>()
            }
        }
    }
}

/// Where the values of one run are chosen from.
struct Choice<'a> {
    args: &'a RunArgs,
    text: &'a Text,
    told: Vec<Told>,
}

impl Choice<'_> {
    /// One setting with a flag, a variable and a key, told under its flag's name.
    fn of<T>(
        &mut self,
        name: &'static str,
        given: Option<T>,
        file: Option<Written<T>>,
        default: T,
        show: impl Fn(&T) -> String,
    ) -> T {
        let (value, from) = match (given, file) {
            (Some(value), _) => (value, self.given(name)),
            (None, Some(written)) => (written.value, self.line(written.line)),
            (None, None) => (default, "default".to_owned()),
        };
        self.told.push(Told { name, value: show(&value), from });
        value
    }

    /// The flag or the variable that a given value came from.
    fn given(&self, name: &str) -> String {
        match self.args.sources.get(name) {
            Some(ValueSource::EnvVariable) => format!("EGRET_{}", name.replace('-', "_").to_uppercase()),
            _ => format!("--{name}"),
        }
    }

    fn line(&self, line: u32) -> String {
        format!("{}:{line}", self.text.origin)
    }

    fn tell(&mut self, name: &'static str, value: impl Display, line: Option<u32>) {
        let from = line.map_or_else(|| "default".to_owned(), |line| self.line(line));
        self.told.push(Told { name, value: value.to_string(), from });
    }

    fn policy(&mut self, source: &Source, config: &Config) {
        let from = match source {
            Source::File(_) if self.args.policy.policy.is_some() => "--policy",
            Source::Text(variable, _) => variable,
            Source::File(_) | Source::Empty => "default",
        };
        self.told.push(Told { name: "policy", value: self.text.origin.clone(), from: from.to_owned() });
        let mode = config.draft.mode_at(egret_proxy::now());
        match self.args.policy.mode() {
            Some(_) => self.told.push(Told { name: "mode", value: mode.to_string(), from: self.given("mode") }),
            None => self.tell("mode", mode, config.written.mode),
        }
        let until = config.draft.audit_until.map_or_else(|| "never".to_owned(), rfc3339_of);
        match (self.args.policy.mode(), config.written.audit_until) {
            (Some(_), Some(_)) => {
                let from = self.given("mode");
                stderr::say(format_args!("{from} goes before the file's mode: its `audit-until:` does not count"));
                self.told.push(Told { name: "audit-until", value: until, from });
            }
            (_, line) => self.tell("audit-until", until, line),
        }
    }

    fn dns(&mut self, config: &Config) {
        let upstream = match &config.dns {
            DnsServer::System => "system".to_owned(),
            DnsServer::Plain(address) => address.to_string(),
            DnsServer::Tls(address, name) => format!("tls://{address}#{name}"),
        };
        self.tell("dns.upstream", upstream, config.written.upstream);
        self.tell("dns.ca", format!("{} certificates", config.dns_roots.len()), config.written.ca);
        let private = if config.draft.private_answers { "allow" } else { "deny" };
        self.tell("dns.private-answers", private, config.written.private_answers);
    }

    fn log(&mut self) {
        let (value, from) = match std::env::var("EGRET_LOG") {
            Ok(level) => (level, "EGRET_LOG"),
            Err(_) => (DEFAULT_LOG.to_owned(), "default"),
        };
        self.told.push(Told { name: "log", value, from: from.to_owned() });
    }
}

fn joined(addresses: &[SocketAddr]) -> String {
    addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
}

pub(crate) fn fixed(address: &str) -> SocketAddr {
    address.parse().expect("the defaults are addresses")
}

/// Diagnostics go to stderr; `EGRET_LOG` sets their level.
pub(crate) fn init_diagnostics() {
    let asked = std::env::var("EGRET_LOG").ok().and_then(|text| text.parse().ok());
    let _ = tracing_subscriber::fmt()
        .with_max_level(asked.unwrap_or(LevelFilter::WARN))
        .with_writer(|| Tracing)
        // It would panic where stderr cannot be written.
        .log_internal_errors(false)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false)
        .try_init();
}
