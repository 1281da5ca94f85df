//! Small sections beside `egress:`: what is reached without the proxy, and what is held. Those that this
//! version does not serve are read and checked all the same, and everybody who asks is told that nothing serves them.

use globset::Glob;
use ipnet::IpNet;

use super::Reader;
use super::diagnose::{Code, Diagnostic};
use super::read::Fields;
use super::yaml::Node;

/// The keys of `exec:`.
pub(super) const EXEC: &[&str] = &["allow"];

/// What a connection around the proxy means.
pub(super) const AROUND: &[(&str, ())] = &[("alert", ()), ("unhealthy", ()), ("stop", ())];

/// A section that is read and not served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unserved {
    /// Its key.
    pub section: &'static str,
    /// What does not happen.
    pub why: &'static str,
}

/// How a pattern of paths is written.
pub(super) const GLOB_HELP: &str = "`*` within one folder, `**` across folders, `?`, [a-z], {a,b}";

const UNSERVED: &[Unserved] =
    &[Unserved { section: "around", why: "this version does not see connections that go around the proxy" }];

impl<'t> Reader<'t> {
    /// `direct:`: addresses and networks that are reached without the proxy.
    pub(super) fn direct(&mut self, node: Option<&Node<'t>>) -> Vec<IpNet> {
        let listed = node.and_then(|node| self.found.list(node, "`direct:`")).unwrap_or_default();
        listed.iter().filter_map(|net| self.net(net, "a member of `direct:`")).collect()
    }

    /// Checks the sections that are not served, and tells which are written.
    pub(super) fn unserved(&mut self, file: Fields<'_, 't>) -> Vec<Unserved> {
        if let Some(node) = file.section("around") {
            self.found.word(node, "`around:`", AROUND);
        }
        let keys = file.iter().filter(|(_, _, value)| !value.is_null());
        let written = keys.filter_map(|(name, key, _)| Some((UNSERVED.iter().find(|one| one.section == name)?, key.at)));
        let mut all = Vec::new();
        for (unserved, at) in written {
            let message = format!("`{}:` is read and not served: {}", unserved.section, unserved.why);
            self.lints.push(Diagnostic::warning(Code::NotServed, at, message, Some("remove it until it is served")));
            all.push(*unserved);
        }
        all
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
