//! A policy in force: rules, roles and what is known of this host. It is built once from a [`Draft`] and never
//! changes; a reload makes another.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, LazyLock};

use crate::address::{Class, classify};
use crate::decide::UnixTime;
use crate::line::RuleLine;
use crate::matcher::{Entry, Index};
use crate::ports::Ports;
use crate::rule::{Effect, Mode, Protocol, Rule, RuleDraft, To};

/// The name of the role of whoever is no other role.
pub const DEFAULT_ROLE: &str = "default";

static DEFAULT: LazyLock<Arc<str>> = LazyLock::new(|| DEFAULT_ROLE.into());

/// The same, as records share it.
#[must_use]
pub fn default_role_name() -> Arc<str> {
    Arc::clone(&DEFAULT)
}

/// Who is asking. Made by [`Draft::role`] and [`Policy::default_role`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RoleId(u16);

/// A policy as written, read strictly, on its way into force.
#[derive(Clone, Debug)]
pub struct Draft {
    /// Whether verdicts bind where nothing nearer says.
    pub mode: Mode,
    /// When audit ends and the mode is enforce; without meaning for a mode that enforces already.
    pub audit_until: Option<UnixTime>,
    /// Whether private answers (RFC 1918, unique local) are admitted without a rule that names their space.
    pub private_answers: bool,
    /// Identifies the policy in every record.
    pub hash: String,
    roles: Vec<Arc<str>>,
    claims: Claims,
    rules: Vec<Rule>,
}

/// By what each role is told.
#[derive(Clone, Debug, Default)]
struct Claims {
    ports: HashMap<u16, RoleId>,
    users: HashMap<String, RoleId>,
    executables: HashMap<String, RoleId>,
}

/// What is known of whoever is asking.
#[derive(Clone, Copy, Debug)]
pub struct Asker<'a> {
    /// The proxy user name it gave.
    pub user: Option<&'a str>,
    /// The executable that was seen to hold its socket.
    pub executable: Option<&'a str>,
    /// The local port it came to.
    pub port: u16,
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
    mode: Mode,
    audit_until: Option<UnixTime>,
    pub(crate) private_answers: bool,
    hash: Arc<str>,
    roles: Vec<Arc<str>>,
    claims: Claims,
    pub(crate) rules: Vec<Rule>,
    pub(crate) allow: Index,
    pub(crate) deny: Index,
    surroundings: Surroundings,
    tls_names: Vec<TlsNames>,
}

impl Draft {
    /// The mode at this time, where no rule says another.
    #[must_use]
    pub fn mode_at(&self, now: UnixTime) -> Mode {
        if self.audit_until.is_some_and(|end| now >= end) { Mode::Enforce } else { self.mode }
    }
}

impl RoleId {
    /// Its name among these.
    pub(crate) fn name_in(self, names: &[Arc<str>]) -> &Arc<str> {
        names.get(usize::from(self.0)).unwrap_or(&DEFAULT)
    }
}

impl Default for Draft {
    /// An empty policy, which denies everything.
    fn default() -> Self {
        Self {
            mode: Mode::Enforce,
            audit_until: None,
            private_answers: false,
            hash: String::new(),
            roles: vec![default_role_name()],
            claims: Claims::default(),
            rules: Vec::new(),
        }
    }
}

impl Draft {
    /// The role of this name, made if there is none yet. `None` when there are 65,536 roles already.
    pub fn role(&mut self, name: &str) -> Option<RoleId> {
        if let Some(at) = self.roles.iter().position(|role| **role == *name) {
            return u16::try_from(at).ok().map(RoleId);
        }
        let id = u16::try_from(self.roles.len()).ok().map(RoleId)?;
        self.roles.push(name.into());
        Some(id)
    }

    /// Connections to this port are this role's.
    pub fn role_by_port(&mut self, port: u16, role: RoleId) {
        self.claims.ports.insert(port, role);
    }

    /// Requests with this proxy user name are this role's.
    pub fn role_by_user(&mut self, user: &str, role: RoleId) {
        self.claims.users.insert(user.to_owned(), role);
    }

    /// Connections whose socket this executable holds are this role's.
    pub fn role_by_executable(&mut self, path: &str, role: RoleId) {
        self.claims.executables.insert(path.to_owned(), role);
    }

    /// Adds an allow rule.
    pub fn allow(&mut self, rule: RuleDraft) {
        self.rules.push(rule.build(Effect::Allow, &self.roles));
    }

    /// Adds a deny rule.
    pub fn deny(&mut self, rule: RuleDraft) {
        self.rules.push(rule.build(Effect::Deny, &self.roles));
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
        let allow = Index::of(&draft.rules, Effect::Allow);
        let deny = Index::of(&draft.rules, Effect::Deny);
        Self {
            mode: draft.mode,
            audit_until: draft.audit_until,
            private_answers: draft.private_answers,
            hash: draft.hash.into(),
            roles: draft.roles,
            claims: draft.claims,
            tls_names: tls_names(&draft.rules),
            rules: draft.rules,
            allow,
            deny,
            surroundings,
        }
    }

    /// This policy with more allow rules, to try what they would change. Roles that it does not know are left out.
    #[must_use]
    pub fn plus<'a>(&self, lines: impl IntoIterator<Item = &'a RuleLine>) -> Self {
        let mut draft = Draft {
            mode: self.mode,
            audit_until: self.audit_until,
            private_answers: self.private_answers,
            hash: self.hash.to_string(),
            roles: self.roles.clone(),
            claims: self.claims.clone(),
            rules: self.rules.clone(),
        };
        for line in lines {
            let roles = line.roles.iter().filter_map(|role| self.role_named(role)).collect();
            let within = line.within.clone();
            draft.allow(RuleDraft { roles, within, protocol: line.protocol, ..RuleDraft::new(vec![line.target()]) });
        }
        Self::new(draft, self.surroundings.clone())
    }

    /// Whether there are roles beside the default one.
    #[must_use]
    pub fn has_roles(&self) -> bool {
        self.roles.len() > 1
    }

    /// Identifies this policy in records, which share the text.
    #[must_use]
    pub fn hash(&self) -> &Arc<str> {
        &self.hash
    }

    /// The mode at this time, where no rule says another.
    #[must_use]
    pub fn mode_at(&self, now: UnixTime) -> Mode {
        if self.audit_until.is_some_and(|end| now >= end) { Mode::Enforce } else { self.mode }
    }

    /// When audit ends, if this policy is in audit and has an end.
    #[must_use]
    pub fn audit_until(&self) -> Option<UnixTime> {
        self.audit_until.filter(|_| self.mode == Mode::Audit)
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
        let at = self.roles.iter().position(|role| **role == *name)?;
        u16::try_from(at).ok().map(RoleId)
    }

    /// The role's name, which records share.
    #[must_use]
    pub fn role_name(&self, role: RoleId) -> &Arc<str> {
        role.name_in(&self.roles)
    }

    /// Who is asking. What the request itself says goes before what was observed, and that before the port.
    #[must_use]
    pub fn role_of(&self, asker: Asker<'_>) -> RoleId {
        let user = asker.user.and_then(|user| self.claims.users.get(user));
        let executable = || asker.executable.and_then(|path| self.claims.executables.get(path));
        let port = || self.claims.ports.get(&asker.port);
        user.or_else(executable).or_else(port).copied().unwrap_or(RoleId(0))
    }

    /// Whether some role is told by its executable, so that it is worth the effort to find out.
    #[must_use]
    pub fn has_executables(&self) -> bool {
        !self.claims.executables.is_empty()
    }

    /// The roles that a process may have which is not known: the default one first, then those that executables tell.
    #[must_use]
    pub fn roles_of_executables(&self) -> Vec<RoleId> {
        let mut roles: Vec<RoleId> = self.claims.executables.values().copied().collect();
        roles.sort_unstable_by_key(|role| role.0);
        roles.dedup();
        roles.insert(0, self.default_role());
        roles
    }

    pub(crate) fn rule(&self, at: u32) -> &Rule {
        &self.rules[at as usize]
    }

    /// Whether some rule lets this role show an SNI on this port: only then is a literal address without an address
    /// rule worth a look at its first flight.
    pub(crate) fn has_tls_names(&self, port: u16, role: RoleId) -> bool {
        self.tls_names.iter().any(|(ports, roles, protocol)| {
            let is_theirs = ports.contains(port) && (roles.is_empty() || roles.contains(&role));
            is_theirs && protocol.unwrap_or_else(|| Protocol::of_port(port)) != Protocol::Http
        })
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

/// Where and for whom rules let an SNI be shown; the protocol is as it was written, as each port has its own default.
type TlsNames = (Ports, Vec<RoleId>, Option<Protocol>);

/// The distinct port sets and roles of allow rules by name that can be confirmed by an SNI.
fn tls_names(rules: &[Rule]) -> Vec<TlsNames> {
    let mut found: Vec<TlsNames> = Vec::new();
    for rule in rules.iter().filter(|rule| rule.effect == Effect::Allow) {
        if matches!(rule.protocol, Some(Protocol::Http | Protocol::Tcp)) {
            continue;
        }
        for (to, ports) in &rule.to {
            let key = (ports.clone(), rule.roles.clone(), rule.protocol);
            if !matches!(to, To::Net(_)) && !found.contains(&key) {
                found.push(key);
            }
        }
    }
    found
}
