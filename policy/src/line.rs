//! A rule as one line of a policy file, as small as it can be: `- api.example.com`, or a mapping where more must be said.

use std::fmt;

use ipnet::IpNet;

use crate::pattern::NamePattern;
use crate::ports::Ports;
use crate::rule::{Protocol, To};
use crate::target::{Host, Target};

/// What a line says.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RuleLine {
    /// A name, a wildcard or a network.
    pub to: To,
    /// The one port it is for.
    pub port: u16,
    /// The roles it is for; empty means all.
    pub roles: Vec<String>,
    /// What the first flight must be, where that is not the port's default.
    pub protocol: Option<Protocol>,
    /// Where the answers may lie; empty for ordinary space.
    pub within: Vec<IpNet>,
}

impl RuleLine {
    /// The line for this very target, for all roles.
    #[must_use]
    pub fn for_target(target: &Target) -> Self {
        let to = match &target.host {
            Host::Name(name) => To::Name(NamePattern::Exact(name.clone())),
            Host::Address(address) => To::Net((*address).into()),
        };
        Self { to, port: target.port, roles: Vec::new(), protocol: None, within: Vec::new() }
    }

    /// What a rule of it speaks of.
    pub(crate) fn target(&self) -> (To, Option<Ports>) {
        (self.to.clone(), Some(Ports::one(self.port)))
    }

    /// The keys and values of its long form, each value in YAML's flow style; only `to` for the short form.
    #[must_use]
    pub fn keys(&self) -> Vec<(&'static str, String)> {
        let named = !matches!(self.to, To::Net(_));
        let to = match &self.to {
            To::Net(net) => net_text(*net),
            to => to.to_string(),
        };
        let to = if named && self.port != 443 { format!("{to}:{}", self.port) } else { to };
        let ports = (!named && self.port != 443).then(|| format!("[{}]", self.port));
        let quoted: Vec<String> = self.within.iter().map(|net| format!("\"{}\"", net_text(*net))).collect();
        let list = |items: &[String]| (!items.is_empty()).then(|| format!("[{}]", items.join(", ")));
        let more = [
            ("ports", ports),
            ("for", list(&self.roles)),
            ("as", self.protocol.map(|protocol| protocol.to_string())),
            ("within", list(&quoted)),
        ];
        let more = more.into_iter().filter_map(|(key, value)| Some((key, value?)));
        [("to", to)].into_iter().chain(more).collect()
    }
}

impl fmt::Display for RuleLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let keys = self.keys();
        match &keys[..] {
            [(_, to)] if is_plain(to) => write!(f, "- {to}"),
            [(_, to)] => write!(f, "- \"{to}\""),
            [(_, to), more @ ..] => {
                write!(f, "- {{ to: \"{to}\"")?;
                more.iter().try_for_each(|(key, value)| write!(f, ", {key}: {value}"))?;
                f.write_str(" }")
            }
            [] => Ok(()),
        }
    }
}

/// A network, or the address that is all of it.
fn net_text(net: IpNet) -> String {
    if net.prefix_len() == net.max_prefix_len() { net.addr().to_string() } else { net.to_string() }
}

/// Whether every YAML reader takes the text for a text without quotes: no alias, number or word of its own.
fn is_plain(text: &str) -> bool {
    text.contains('.') && text.starts_with(|c: char| c.is_ascii_alphanumeric()) && text.parse::<f64>().is_err()
}
