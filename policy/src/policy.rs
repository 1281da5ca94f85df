//! A policy in force: rules, roles and what is known of this host. It is built once from a [`Draft`] and never
//! changes; a reload makes another.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};

use crate::address::{Class, classify};
use crate::matcher::{Entry, Index};
use crate::ports::Ports;
use crate::rule::{Effect, Mode, Protocol, Rule, RuleDraft, To};

/// The name of the role of whoever is no other role.
pub const DEFAULT_ROLE: &str = "default";

/// Who is asking. Made by [`Draft::role`] and [`Policy::default_role`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RoleId(u16);

/// A policy as written, read strictly, on its way into force.
#[derive(Clone, Debug)]
pub struct Draft {
    /// Whether verdicts bind where nothing nearer says.
    pub mode: Mode,
    /// Whether private answers (RFC 1918, unique local) are admitted without a rule that names their space.
    pub private_answers: bool,
    /// Identifies the policy in every record.
    pub hash: String,
    roles: Vec<String>,
    by_port: HashMap<u16, RoleId>,
    by_user: HashMap<String, RoleId>,
    rules: Vec<Rule>,
}

/// What egret knows of the host it runs on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Surroundings {
    /// Where egret itself listens.
    pub listeners: Vec<SocketAddr>,
    /// Addresses of this host's interfaces.
    pub interfaces: Vec<IpAddr>,
}

/// A policy in force.
#[derive(Debug)]
pub struct Policy {
    pub(crate) mode: Mode,
    pub(crate) private_answers: bool,
    hash: String,
    roles: Vec<String>,
    by_port: HashMap<u16, RoleId>,
    by_user: HashMap<String, RoleId>,
    pub(crate) rules: Vec<Rule>,
    pub(crate) allow: Index,
    pub(crate) deny: Index,
    surroundings: Surroundings,
    tls_names: Vec<(Ports, Vec<RoleId>)>,
}

impl Default for Draft {
    /// An empty policy, which denies everything.
    fn default() -> Self {
        Self {
            mode: Mode::Enforce,
            private_answers: false,
            hash: String::new(),
            roles: vec![DEFAULT_ROLE.to_owned()],
            by_port: HashMap::new(),
            by_user: HashMap::new(),
            rules: Vec::new(),
        }
    }
}

impl Draft {
    /// The role of this name, made if there is none yet. `None` when there are 65,536 roles already.
    pub fn role(&mut self, name: &str) -> Option<RoleId> {
        if let Some(at) = self.roles.iter().position(|role| role == name) {
            return u16::try_from(at).ok().map(RoleId);
        }
        let id = u16::try_from(self.roles.len()).ok().map(RoleId)?;
        self.roles.push(name.to_owned());
        Some(id)
    }

    /// Connections to this port are this role's.
    pub fn role_by_port(&mut self, port: u16, role: RoleId) {
        self.by_port.insert(port, role);
    }

    /// Requests with this proxy user name are this role's.
    pub fn role_by_user(&mut self, user: &str, role: RoleId) {
        self.by_user.insert(user.to_owned(), role);
    }

    /// Adds an allow rule.
    pub fn allow(&mut self, rule: RuleDraft) {
        self.rules.push(rule.build(Effect::Allow));
    }

    /// Adds a deny rule.
    pub fn deny(&mut self, rule: RuleDraft) {
        self.rules.push(rule.build(Effect::Deny));
    }

    /// The rules so far, in the order they were added.
    #[must_use]
    pub fn rules(&self) -> &[Rule] {
        &self.rules
    }
}

impl Policy {
    /// Puts a draft in force.
    #[must_use]
    pub fn new(draft: Draft, surroundings: Surroundings) -> Self {
        let (mut allow, mut deny) = (Index::default(), Index::default());
        for (at, rule) in (0u32..).zip(&draft.rules) {
            match rule.effect {
                Effect::Allow => allow.insert(at, rule),
                Effect::Deny => deny.insert(at, rule),
            }
        }
        Self {
            mode: draft.mode,
            private_answers: draft.private_answers,
            hash: draft.hash,
            roles: draft.roles,
            by_port: draft.by_port,
            by_user: draft.by_user,
            tls_names: tls_names(&draft.rules),
            rules: draft.rules,
            allow,
            deny,
            surroundings,
        }
    }

    /// Identifies this policy in records.
    #[must_use]
    pub fn hash(&self) -> &str {
        &self.hash
    }

    /// The mode where nothing nearer says.
    #[must_use]
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// The rules, in the order they were written.
    #[must_use]
    pub fn rules(&self) -> &[Rule] {
        &self.rules
    }

    /// The role of whoever is no other.
    #[must_use]
    pub fn default_role(&self) -> RoleId {
        RoleId(0)
    }

    /// The role of this name.
    #[must_use]
    pub fn role_named(&self, name: &str) -> Option<RoleId> {
        let at = self.roles.iter().position(|role| role == name)?;
        u16::try_from(at).ok().map(RoleId)
    }

    /// The role's name.
    #[must_use]
    pub fn role_name(&self, role: RoleId) -> &str {
        self.roles.get(usize::from(role.0)).map_or(DEFAULT_ROLE, String::as_str)
    }

    /// Whose connections arrive at this local port.
    #[must_use]
    pub fn role_of_port(&self, port: u16) -> RoleId {
        self.by_port.get(&port).copied().unwrap_or(RoleId(0))
    }

    /// Who has this proxy user name.
    #[must_use]
    pub fn role_of_user(&self, user: &str) -> Option<RoleId> {
        self.by_user.get(user).copied()
    }

    pub(crate) fn rule(&self, at: u32) -> &Rule {
        &self.rules[at as usize]
    }

    /// Whether some rule lets this role show an SNI on this port: only then is a literal address without an address
    /// rule worth a look at its first flight.
    pub(crate) fn has_tls_names(&self, port: u16, role: RoleId) -> bool {
        let speaks = |(ports, roles): &(Ports, Vec<RoleId>)| ports.contains(port) && (roles.is_empty() || roles.contains(&role));
        self.tls_names.iter().any(speaks)
    }

    /// Whether the address is this host's: loopback, unspecified (which connects to loopback) or an interface.
    fn is_local(&self, address: IpAddr) -> bool {
        let class = classify(address);
        matches!(class, Class::Loopback | Class::Unspecified) || self.surroundings.interfaces.contains(&address)
    }

    pub(crate) fn is_own_listener(&self, address: IpAddr, port: u16) -> bool {
        self.surroundings.listeners.iter().any(|own| own.port() == port) && self.is_local(address)
    }

    /// The class of an address, this host's own interfaces included.
    #[must_use]
    pub fn class_of(&self, address: IpAddr) -> Class {
        let class = classify(address);
        let own = class != Class::Loopback && self.surroundings.interfaces.contains(&address);
        if own { Class::OwnInterface } else { class }
    }

    pub(crate) fn allowing(&self, entry: Entry) -> &Rule {
        entry.rule(&self.rules)
    }
}

/// The distinct port sets and roles of allow rules by name that can be confirmed by an SNI.
fn tls_names(rules: &[Rule]) -> Vec<(Ports, Vec<RoleId>)> {
    let mut found: Vec<(Ports, Vec<RoleId>)> = Vec::new();
    for rule in rules.iter().filter(|rule| rule.effect == Effect::Allow) {
        if matches!(rule.protocol, Some(Protocol::Http | Protocol::Tcp)) {
            continue;
        }
        for (to, ports) in &rule.to {
            let key = (ports.clone(), rule.roles.clone());
            if !matches!(to, To::Net(_)) && !found.contains(&key) {
                found.push(key);
            }
        }
    }
    found
}
