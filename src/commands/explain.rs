//! `egret explain`: what would the policy decide, by which rule, what came near, and what would change it. It asks the
//! questions that a connection asks; DNS only if it is told to.

use std::net::{IpAddr, Ipv4Addr};
use std::str::FromStr;
use std::sync::Arc;

use anyhow::{Context, anyhow};
use egret_policy::{
    Denial, Explanation, Flight, Host, Name, NamePattern, NearMiss, Permit, Policy, Protocol, Reason, Request, Rule, Sni, Target,
    To, literal,
};
use egret_proxy::{DnsServer, Resolve, Resolver, now};
use ipnet::IpNet;
use serde_json::json;

use super::learn::in_force;
use super::{print, print_json};
use crate::cli::{ExplainArgs, Failure, Outcome, Output};
use crate::config::source::{self, Source};
use crate::config::{self, Config, presets};

/// What the client shows first, as the command line says it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Shows {
    /// A first flight.
    Flight(Flight),
    /// An HTTP request for this host.
    HttpHost(Target),
}

impl FromStr for Shows {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let tls = |sni| Ok(Self::Flight(Flight::Tls { sni, ech: false }));
        match text.split_once('=') {
            Some(("sni", name)) => tls(Sni::One(Name::parse(name).map_err(|error| error.to_string())?)),
            Some(("http", host)) => Target::parse_or(host, 80).map(Self::HttpHost).map_err(|error| error.to_string()),
            Some(_) => Err("only sni=NAME and http=HOST take a value".to_owned()),
            None => match text {
                "no-sni" => tls(Sni::Absent),
                "two-snis" => tls(Sni::Many),
                "bad-sni" => tls(Sni::Invalid("\"\"".to_owned())),
                "bad-hello" => Ok(Self::Flight(Flight::Malformed)),
                "http" => Ok(Self::Flight(Flight::Http)),
                "bytes" => Ok(Self::Flight(Flight::Opaque)),
                "nothing" => Ok(Self::Flight(Flight::Silent)),
                _ => Err("write sni=NAME, no-sni, two-snis, bad-sni, bad-hello, http, http=HOST, bytes or nothing".to_owned()),
            },
        }
    }
}

/// Exit 0 if it would be let through, 1 if not, 2 if the target or the policy is invalid.
pub(crate) fn explain(args: &ExplainArgs) -> Outcome {
    if let Some(code) = &args.reason {
        return reason(code, args.output);
    }
    if let Some(name) = &args.preset {
        return preset(name);
    }
    let audit = args.policy.mode() == Some(egret_policy::Mode::Audit);
    let advice = "name one by --policy FILE; with --mode audit an empty one is explained";
    let source = Source::find(args.policy.policy.as_deref(), source::variable, audit, advice).map_err(Failure::Usage)?;
    let text = source.read().map_err(Failure::Usage)?;
    let config = config::load(&text, args.policy.mode()).map_err(Failure::invalid)?;
    let (dns, direct) = (resolver_of(&config), config.direct.clone());
    let policy = in_force(config);
    let role = policy.role_named(&args.role).ok_or_else(|| Failure::Usage(anyhow!("there is no role named {}", args.role)))?;
    let target = target(args.target.as_deref().unwrap_or_default()).map_err(Failure::Usage)?;
    let request = Request::new(target, role, now());
    let mut asking = Asking::begin(&policy, request, args.shows.clone());
    if args.resolve {
        asking.resolve(dns.map_err(Failure::Environment)?).map_err(Failure::Environment)?;
    } else if asking.is_loopback() {
        asking.answered(&[Ipv4Addr::LOCALHOST.into()]);
    }
    asking.finish();
    let answer = Answer { role: &args.role, origin: &text.origin, direct: &direct, asking: &asking };
    match args.output {
        Output::Text => print(&answer.text())?,
        Output::Json => print_json(&answer.json())?,
    }
    if asking.explanation.verdict.is_ok() { Ok(()) } else { Err(Failure::Negative) }
}

fn reason(code: &str, output: Output) -> Outcome {
    let Some(reason) = Reason::ALL.iter().find(|reason| reason.code() == code) else {
        let known: Vec<&str> = Reason::ALL.iter().map(|reason| reason.code()).collect();
        return Err(Failure::Usage(anyhow!("there is no reason {code}; reasons are: {}", known.join(", "))));
    };
    match output {
        Output::Text => print(&format!("{code}: {}\n", reason.meaning())),
        Output::Json => print_json(&json!({ "v": 1, "reason": code, "meaning": reason.meaning() })),
    }
}

fn preset(name: &str) -> Outcome {
    match presets::named(name) {
        Some(preset) => print(preset.yaml),
        None => {
            let known: Vec<&str> = presets::ALL.iter().map(|preset| preset.name).collect();
            Err(Failure::Usage(anyhow!("there is no preset named {name}; presets are: {}", known.join(", "))))
        }
    }
}

fn resolver_of(config: &Config) -> anyhow::Result<Resolver> {
    let DnsServer::System = config.dns else {
        return Ok(Resolver::new(&config.dns, &config.dns_roots)?);
    };
    Resolver::new(&config.dns, &config.dns_roots).context("cannot resolve names; set dns.upstream in the policy")
}

/// A host, host:port, or URL; the port of a URL without one is its scheme's.
fn target(text: &str) -> anyhow::Result<Target> {
    let (default, rest) = match text.split_once("://") {
        Some(("https" | "wss", rest)) => (443, rest),
        Some(("http" | "ws", rest)) => (80, rest),
        Some((scheme, _)) => return Err(anyhow!("{scheme}:// says no port: write host:port")),
        None => (443, text),
    };
    if text.parse::<IpNet>().is_ok() {
        return Err(anyhow!("{text} is a network: ask for one address and port"));
    }
    let authority = rest.split(['/', '?', '#']).next().unwrap_or(rest);
    if let Some(address) = literal(authority) {
        return Ok(Target { host: Host::Address(address), port: default });
    }
    Target::parse_or(authority, default).with_context(|| format!("{text:?} names no target"))
}

/// A request on its way through the three questions.
struct Asking {
    policy: Arc<Policy>,
    /// As the user asked it.
    target: Target,
    request: Request,
    shows: Option<Shows>,
    explanation: Explanation,
    /// What the name resolved to, with what each address is and whether it passes.
    answers: Vec<(IpAddr, Result<(), Denial>)>,
}

impl Asking {
    /// The first question. A literal address without a rule is asked by the name that the client shows, if it does.
    fn begin(policy: &Arc<Policy>, request: Request, shows: Option<Shows>) -> Self {
        let mut explanation = policy.explain(&request);
        let target = request.target().clone();
        let shown = match &shows {
            Some(Shows::Flight(Flight::Tls { sni: Sni::One(name), .. })) if explanation.wants_name => Some(name.clone()),
            _ => None,
        };
        let request = match shown {
            Some(name) => request.shown(name),
            None => request,
        };
        if request.target() != &target {
            explanation = policy.explain(&request);
        }
        Self { policy: Arc::clone(policy), target, request, shows, explanation, answers: Vec::new() }
    }

    /// Looks the name up, and asks the second question about each address and then about all of them.
    fn resolve(&mut self, resolver: Resolver) -> anyhow::Result<()> {
        let Ok(permit) = &self.explanation.verdict else { return Ok(()) };
        let Some(name) = permit.name_to_resolve().cloned() else { return Ok(()) };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let answers = runtime.block_on(async { tokio::time::timeout(DNS, resolver.resolve(&name)).await });
        let answers = answers.map_err(|_| anyhow!("{name} cannot be resolved in time"))?;
        let answers = answers.map_err(|fault| anyhow!("{name} cannot be resolved: {}", fault.code()))?;
        self.answered(&answers);
        Ok(())
    }

    /// Asks the second question of these answers.
    fn answered(&mut self, answers: &[IpAddr]) {
        let Ok(permit) = &self.explanation.verdict else { return };
        let judged = |address: &IpAddr| (*address, permit.clone().vet(&[*address]).map(drop));
        self.answers = answers.iter().map(judged).collect();
        let mut all = permit.clone();
        self.explanation.verdict = all.vet(answers).map(|_| all);
    }

    /// A name whose answer is known without DNS.
    fn is_loopback(&self) -> bool {
        self.request.target().host.name().is_some_and(Name::is_loopback)
    }

    /// What can be asked without DNS: a literal address is its own answer, and what the client shows is known.
    fn finish(&mut self) {
        let literal = matches!(self.request.target().host, Host::Address(_));
        let Ok(permit) = &mut self.explanation.verdict else { return };
        let mut verdict = if literal { permit.vet(&[]).map(drop) } else { Ok(()) };
        if verdict.is_ok() {
            verdict = match &self.shows {
                Some(Shows::Flight(flight)) => permit.confirm(flight),
                Some(Shows::HttpHost(host)) => permit.confirm(&Flight::Http).and_then(|()| permit.confirm_host(host)),
                None => Ok(()),
            };
        }
        if let Err(denial) = verdict {
            self.explanation.verdict = Err(denial);
        }
    }

    /// What speaks against it, in audit too.
    fn objection(&self) -> Option<&Denial> {
        match &self.explanation.verdict {
            Ok(permit) => permit.would_deny(),
            Err(denial) => Some(denial),
        }
    }

    /// The rule that decided or came nearest.
    fn rule(&self) -> Option<&Rule> {
        let id = self.objection().and_then(|denial| denial.rule.as_ref());
        let of_denial = id.and_then(|id| self.policy.rules().iter().find(|rule| rule.id() == id));
        of_denial.or_else(|| self.explanation.verdict.as_ref().ok().and_then(Permit::rule))
    }

    fn allow_line(&self) -> Option<String> {
        let refused = self.answers.iter().find(|(_, verdict)| verdict.is_err()).map(|(address, _)| *address);
        let literal = match self.request.target().host {
            Host::Address(address) => Some(address),
            Host::Name(_) => self.is_loopback().then_some(Ipv4Addr::LOCALHOST.into()),
        };
        let line = self.policy.line_that_allows(&self.request, self.objection()?, refused.or(literal))?;
        Some(line.to_string())
    }
}

fn first_flight(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Tls => "must be TLS with this name",
        Protocol::Http => "must be cleartext HTTP for this host",
        Protocol::Any => "anything; TLS and HTTP are checked when they appear",
        Protocol::Tcp => "anything, not looked at",
    }
}

/// The longest look-up.
const DNS: std::time::Duration = std::time::Duration::from_secs(5);

struct Answer<'a> {
    role: &'a str,
    origin: &'a str,
    direct: &'a [IpNet],
    asking: &'a Asking,
}

impl Answer<'_> {
    fn text(&self) -> String {
        let asking = self.asking;
        let (sign, why) = match &asking.explanation.verdict {
            Ok(permit) => match permit.would_deny() {
                None => ("+ allow", self.allowed_by(permit)),
                Some(denial) => ("~ would deny", self.denied_by(denial)),
            },
            Err(denial) => ("- deny", self.denied_by(denial)),
        };
        let mut out = format!("{sign}  {} for role {}\n{why}", asking.target, self.role);
        for (address, verdict) in &asking.answers {
            let class = asking.policy.class_of(*address);
            let verdict = verdict.as_ref().map_or_else(|denial| format!("refused, {}", denial.reason), |()| "passes".to_owned());
            out.push_str(&format!("answer: {address}: {class}, {verdict}\n"));
        }
        for near in &asking.explanation.near {
            let why = self.why_near(near);
            out.push_str(&format!("near miss: {} ({}): {why}\n", near.rule, self.place(&near.rule)));
        }
        if asking.explanation.wants_name {
            out.push_str("a TLS client may still pass: egret judges it by the SNI that it shows for this address\n");
        }
        if self.is_direct() {
            out.push_str("direct: the policy says that this address is reached without the proxy\n");
        }
        out
    }

    /// Why a rule that came near did not match.
    fn why_near(&self, near: &NearMiss) -> String {
        let is_apex = |to: &To| match (to, self.asking.target.host.name()) {
            (To::Name(NamePattern::Below(apex)), Some(name)) => apex == name,
            _ => false,
        };
        match near.why {
            Some(reason) => format!("{reason}: {}", reason.meaning()),
            None if near.rule.to().iter().any(|(to, _)| is_apex(to)) => "a wildcard never covers the name itself".to_owned(),
            None => "it names a host above this one, and nothing below that".to_owned(),
        }
    }

    fn is_direct(&self) -> bool {
        matches!(self.asking.target.host, Host::Address(address) if self.direct.iter().any(|net| net.contains(&address)))
    }

    /// The file and line of a rule, or the preset that brought it.
    fn place(&self, rule: &Rule) -> String {
        match presets::of_rule(rule.id().as_str()) {
            Some(preset) => format!("preset {preset}"),
            None => format!("{}:{}", self.origin, rule.line()),
        }
    }

    fn allowed_by(&self, permit: &Permit) -> String {
        let Some(rule) = permit.rule() else { return String::new() };
        let note = rule.note().map(|note| format!("note: {note}\n")).unwrap_or_default();
        let until = rule.expires().map(|end| format!("expires: {}\n", crate::events::rfc3339_of(end))).unwrap_or_default();
        format!(
            "rule: {} ({}): {rule}\nfirst flight: {}\n{note}{until}",
            rule.id(),
            self.place(rule),
            first_flight(permit.protocol())
        )
    }

    fn denied_by(&self, denial: &Denial) -> String {
        let rule =
            self.asking.rule().map(|rule| format!("rule: {} ({}): {rule}\n", rule.id(), self.place(rule))).unwrap_or_default();
        let line =
            self.asking.allow_line().map(|line| format!("smallest line that would allow it: {line}\n")).unwrap_or_default();
        format!("reason: {}: {}\n{rule}to change this: {}\n{line}", denial.reason, denial.detail, denial.help)
    }

    fn json(&self) -> serde_json::Value {
        let asking = self.asking;
        let objection = asking.objection();
        let decision = match &asking.explanation.verdict {
            Err(_) => "deny",
            Ok(permit) if permit.would_deny().is_some() => "would_deny",
            Ok(_) => "allow",
        };
        let rule = asking.rule();
        let answer = |(address, verdict): &(IpAddr, Result<(), Denial>)| {
            let reason = verdict.as_ref().err().map(|denial| denial.reason.code());
            json!({ "address": address, "class": asking.policy.class_of(*address).as_str(), "reason": reason })
        };
        json!({
            "v": 1,
            "target": asking.target.to_string(),
            "role": self.role,
            "decision": decision,
            "reason": objection.map(|denial| denial.reason.code()),
            "rule": rule.map(|rule| rule.id().to_string()),
            "line": rule.map(Rule::line).filter(|line| *line > 0),
            "origin": rule.map(|rule| presets::of_rule(rule.id().as_str()).map_or_else(|| self.origin.to_owned(), |name| format!("preset {name}"))),
            "detail": objection.map(|denial| &denial.detail),
            "help": objection.map(|denial| &denial.help),
            "allow_line": asking.allow_line(),
            "addresses": asking.answers.iter().map(answer).collect::<Vec<_>>(),
            "near": asking.explanation.near.iter().map(|near| json!({
                "rule": near.rule.id().to_string(), "line": near.rule.line(), "why": near.why.map(Reason::code),
            })).collect::<Vec<_>>(),
            "wants_name": asking.explanation.wants_name,
            "direct": self.is_direct(),
        })
    }
}
