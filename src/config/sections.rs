//! Small sections beside `egress:`: what is reached without the proxy, what going around it means, and what is held.

use globset::Glob;
use ipnet::IpNet;

use super::Reader;
use super::diagnose::Code;
use super::yaml::Node;

/// The keys of `exec:`.
pub(super) const EXEC: &[&str] = &["allow"];

/// What a flow around the proxy means, apart from the event that tells of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Around {
    /// Nothing.
    #[default]
    Alert,
    /// Readiness goes off.
    Unhealthy,
    /// egret ends, and the app that it started.
    Stop,
}

pub(super) const AROUND: &[(&str, Around)] =
    &[("alert", Around::Alert), ("unhealthy", Around::Unhealthy), ("stop", Around::Stop)];

impl Around {
    /// The word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        AROUND.iter().find(|(_, around)| *around == self).map_or("", |(word, _)| word)
    }
}

/// A section that is written and not served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unserved {
    /// Its key.
    pub section: &'static str,
    /// What does not happen.
    pub why: &'static str,
}

/// How a pattern of paths is written.
pub(super) const GLOB_HELP: &str = "`*` within one folder, `**` across folders, `?`, [a-z], {a,b}";

impl<'t> Reader<'t> {
    /// `direct:`: addresses and networks that are reached without the proxy.
    pub(super) fn direct(&mut self, node: Option<&Node<'t>>) -> Vec<IpNet> {
        let listed = node.and_then(|node| self.found.list(node, "`direct:`")).unwrap_or_default();
        listed.iter().filter_map(|net| self.net(net, "a member of `direct:`")).collect()
    }

    /// `around:`: one word.
    pub(super) fn around(&mut self, node: Option<&Node<'t>>) -> Option<Around> {
        self.found.word(node?, "`around:`", AROUND)
    }

    /// `exec:`: patterns of what may be executed. A section that is there and lists nothing allows nothing.
    pub(super) fn exec(&mut self, node: Option<&Node<'t>>) -> Option<Vec<String>> {
        let exec = self.found.map(node?, "`exec:`", EXEC)?;
        let listed = exec.section("allow").and_then(|node| self.found.list(node, "`exec.allow:`")).unwrap_or_default();
        let mut patterns = Vec::new();
        for glob in listed {
            if let Some(text) = self.absolute(glob, "a member of `exec.allow:`") {
                self.glob(text, glob);
                patterns.push(text.to_owned());
            }
        }
        Some(patterns)
    }

    pub(super) fn absolute<'n>(&mut self, node: &'n Node<'t>, what: &str) -> Option<&'n str> {
        let path = self.found.text(node, what)?;
        if path.starts_with('/') {
            return Some(path);
        }
        self.found.refuse(Code::BadValue, node.at, format!("{path:?} is no absolute path"), Some("begin it with /"))
    }

    fn glob(&mut self, text: &str, node: &Node<'t>) {
        if let Err(error) = Glob::new(text) {
            let message = format!("{text:?} is no pattern of paths: {}", error.kind());
            self.found.note(Code::BadValue, node.at, message, Some(GLOB_HELP));
        }
    }
}
