//! The sections that say how egret runs and resolves: `run:` and `dns:`.

use std::net::{IpAddr, SocketAddr};

use egret_policy::{Draft, Name};
use egret_proxy::pem::PemObject;
use egret_proxy::{CertificateDer, DnsServer};

use super::diagnose::Code;
use super::yaml::Node;
use super::{Lines, Reader, Written};
use crate::confinement::Confine;
use crate::journal::WhenFull;

/// The keys of `run:`.
pub(super) const RUN: &[&str] =
    &["listen", "admin", "journal", "journal-full", "drain", "connections", "close-revoked", "confine", "flows"];
/// The keys of `dns:`.
pub(super) const DNS: &[&str] = &["upstream", "ca", "private-answers"];

/// What becomes of lines that cannot be written.
const WHEN_FULL: &[(&str, WhenFull)] = &[("drop", WhenFull::Drop), ("stop", WhenFull::Stop)];

/// How far a command is held.
const CONFINE: &[(&str, Confine)] = &[("auto", Confine::Auto), ("require", Confine::Require), ("off", Confine::Off)];

/// The longest drain in seconds: a day. ECS gives a container two minutes at most.
const MAX_DRAIN: u64 = 86_400;

/// Settings of `egret run` that the file has.
#[derive(Clone, Debug, Default)]
pub struct RunSettings {
    /// Proxy listeners.
    pub listen: Option<Written<Vec<SocketAddr>>>,
    /// The admin listener.
    pub admin: Option<Written<SocketAddr>>,
    /// A file, or `-` for stdout.
    pub journal: Option<Written<String>>,
    /// What is done when it cannot be written.
    pub journal_full: Option<Written<WhenFull>>,
    /// Seconds.
    pub drain: Option<Written<u64>>,
    /// The most connections at one time.
    pub connections: Option<Written<u32>>,
    /// Whether a reload closes what it would no longer let through.
    pub close_revoked: Option<Written<bool>>,
    /// How far the command is held.
    pub confine: Option<Written<Confine>>,
    /// How often a flow that lives is told again, in seconds; 0: flows are not watched.
    pub flows: Option<Written<u64>>,
}

impl<'t> Reader<'t> {
    pub(super) fn run_settings(&mut self, node: Option<&Node<'t>>) -> RunSettings {
        let Some(run) = node.and_then(|node| self.found.map(node, "`run:`", RUN)) else { return RunSettings::default() };
        RunSettings {
            listen: run.get("listen").and_then(|node| self.written(node, Self::sockets)),
            admin: run.get("admin").and_then(|node| self.written(node, |reader, node| reader.socket(node, "`admin:`"))),
            journal: run.get("journal").and_then(|node| self.written(node, Self::journal)),
            journal_full: run
                .get("journal-full")
                .and_then(|node| self.written(node, |reader, node| reader.found.word(node, "`journal-full:`", WHEN_FULL))),
            drain: run.get("drain").and_then(|node| {
                self.written(node, |reader, node| reader.found.number(node, "`drain:`, in seconds,", (0, MAX_DRAIN)))
            }),
            connections: run
                .get("connections")
                .and_then(|node| self.written(node, |reader, node| reader.found.number(node, "`connections:`", (1, u32::MAX)))),
            close_revoked: run
                .get("close-revoked")
                .and_then(|node| self.written(node, |reader, node| reader.found.flag(node, "`close-revoked:`"))),
            confine: run
                .get("confine")
                .and_then(|node| self.written(node, |reader, node| reader.found.word(node, "`confine:`", CONFINE))),
            flows: run.get("flows").and_then(|node| {
                self.written(node, |reader, node| reader.found.number(node, "`flows:`, in seconds,", (0, MAX_DRAIN)))
            }),
        }
    }

    fn written<T>(&mut self, node: &Node<'t>, read: impl FnOnce(&mut Self, &Node<'t>) -> Option<T>) -> Option<Written<T>> {
        Some(Written { value: read(self, node)?, line: node.at.line })
    }

    fn sockets(&mut self, node: &Node<'t>) -> Option<Vec<SocketAddr>> {
        let listed = self.found.list(node, "`listen:`")?;
        if listed.is_empty() {
            let help = "name at least one address, or leave the key out";
            return self.found.refuse(Code::EmptyList, node.at, "`listen:` is empty", Some(help));
        }
        let sockets: Vec<Option<SocketAddr>> = listed.iter().map(|one| self.socket(one, "a member of `listen:`")).collect();
        sockets.into_iter().collect()
    }

    fn socket(&mut self, node: &Node<'t>, what: &str) -> Option<SocketAddr> {
        let text = self.found.text(node, what)?;
        let wrong = format!("{text:?} is no address and port");
        text.parse().ok().or_else(|| self.found.refuse(Code::BadValue, node.at, wrong, Some("write 127.0.0.1:3128")))
    }

    fn journal(&mut self, node: &Node<'t>) -> Option<String> {
        self.found.text(node, "`journal:`").map(str::to_owned)
    }

    pub(super) fn dns(
        &mut self,
        node: Option<&Node<'t>>,
        draft: &mut Draft,
        lines: &mut Lines,
    ) -> (DnsServer, Vec<CertificateDer<'static>>) {
        let Some(dns) = node.and_then(|node| self.found.map(node, "`dns:`", DNS)) else { return (DnsServer::System, Vec::new()) };
        if let Some(node) = dns.get("private-answers") {
            let allow = self.found.word(node, "`private-answers:`", &[("allow", true), ("deny", false)]);
            draft.private_answers = allow.unwrap_or(false);
            lines.private_answers = Some(node.at.line);
        }
        lines.upstream = dns.get("upstream").map(|node| node.at.line);
        lines.ca = dns.get("ca").map(|node| node.at.line);
        let server = dns.get("upstream").and_then(|node| self.dns_server(node)).unwrap_or(DnsServer::System);
        let roots = dns.get("ca").and_then(|node| self.certificates(node)).unwrap_or_default();
        (server, roots)
    }

    fn dns_server(&mut self, node: &Node<'t>) -> Option<DnsServer> {
        let text = self.found.text(node, "`upstream:`")?;
        let server = match text.strip_prefix("tls://") {
            None if text == "system" => Some(DnsServer::System),
            None => address(text, 53).map(DnsServer::Plain),
            Some(rest) => {
                rest.split_once('#').and_then(|(at, name)| Some(DnsServer::Tls(address(at, 853)?, Name::parse(name).ok()?)))
            }
        };
        let help = "write system, 10.0.0.2, 127.0.0.1:5353 or tls://9.9.9.9#dns.quad9.net";
        server.or_else(|| self.found.refuse(Code::BadValue, node.at, format!("{text:?} is no DNS server"), Some(help)))
    }

    fn certificates(&mut self, node: &Node<'t>) -> Option<Vec<CertificateDer<'static>>> {
        let path = self.found.text(node, "`ca:`")?;
        let read: Result<Vec<_>, String> = CertificateDer::pem_file_iter(path)
            .map_err(|error| error.to_string())
            .and_then(|found| found.collect::<Result<Vec<_>, _>>().map_err(|error| error.to_string()));
        let wrong = match read {
            Ok(found) if !found.is_empty() => return Some(found),
            Ok(_) => format!("{path} holds no certificate"),
            Err(error) => format!("cannot read {path}: {error}"),
        };
        self.found.refuse(Code::BadValue, node.at, wrong, Some("it wants a file of PEM certificates"))
    }
}

/// An address with or without a port.
fn address(text: &str, port: u16) -> Option<SocketAddr> {
    text.parse().ok().or_else(|| egret_policy::literal(text).map(|ip: IpAddr| SocketAddr::new(ip, port)))
}
