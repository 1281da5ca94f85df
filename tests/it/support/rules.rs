//! Policies of tests: rules for names that the test's own resolver answers with addresses of loopback.

use std::net::{IpAddr, Ipv4Addr};

use super::DnsServer;

/// What names of a test resolve to.
pub(crate) const LOCALHOST: [IpAddr; 1] = [IpAddr::V4(Ipv4Addr::LOCALHOST)];

/// An allow rule for this name and port; `more` are further keys in YAML's flow style, such as `as: tcp, id: x`.
pub(crate) fn local(name: &str, port: u16, more: &str) -> String {
    format!("{{ to: \"{name}:{port}\", within: [127.0.0.0/8], {more} }}")
}

/// A policy of these allow rules that asks this resolver.
pub(crate) fn policy(dns: &DnsServer, allow: &[String]) -> String {
    let allow: String = allow.iter().map(|rule| format!("    - {rule}\n")).collect();
    format!("version: 1\negress:\n  allow:\n{allow}dns: {{ upstream: \"{}\" }}\n", dns.addr())
}
