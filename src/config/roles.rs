//! The `roles:` section: who is asking, and by what each is told.

use std::collections::BTreeSet;

use egret_policy::{DEFAULT_ROLE, Draft, RoleId};

use super::Reader;
use super::diagnose::{Code, Diagnostic};
use super::read::{Fields, is_label};
use super::yaml::Node;

/// The keys of a role.
pub(super) const ROLE: &[&str] = &["port", "proxy-user", "exe"];

/// More roles than this are a mistake; each is a label of metrics.
const MAX_ROLES: usize = 1_000;

/// By what roles are told so far.
#[derive(Default)]
struct Claims {
    ports: Vec<u16>,
    users: BTreeSet<String>,
    executables: BTreeSet<String>,
}

impl<'t> Reader<'t> {
    pub(super) fn roles(&mut self, node: Option<&Node<'t>>, draft: &mut Draft) -> Vec<u16> {
        let Some(roles) = node.and_then(|node| self.found.any_map(node, "`roles:`")) else { return Vec::new() };
        let mut written: Vec<_> = roles.iter().collect();
        written.sort_by_key(|(name, ..)| *name);
        let mut claims = Claims::default();
        if written.len() > MAX_ROLES {
            let message = format!("{} roles are more than {MAX_ROLES}", written.len());
            self.found.note(Code::Conflict, roles.at, message, Some("a role is a kind of client, not a client"));
            written.truncate(MAX_ROLES);
        }
        for (name, key, node) in written {
            self.role_name(name, key);
            let Some(fields) = self.found.map(node, "a role", ROLE) else { continue };
            if !ROLE.iter().any(|claim| fields.get(claim).is_some()) {
                let help = "give it a `port:`, a `proxy-user:` or an `exe:`";
                self.found.note(Code::MissingKey, key.at, format!("role {name} cannot be told"), Some(help));
            }
            let Some(id) = draft.role(name) else { continue };
            self.role_port(fields, id, draft, &mut claims);
            self.role_user(fields, id, draft, &mut claims);
            self.role_executable(name, fields, id, draft, &mut claims);
        }
        claims.ports
    }

    /// Role names stand in records and metrics.
    fn role_name(&mut self, name: &str, key: &Node<'t>) {
        if name == DEFAULT_ROLE {
            let help = "give the role another name; default is whoever is no other role";
            self.found.note(Code::Conflict, key.at, "the role default is there already", Some(help));
        } else if !is_label(name) {
            let message = "the name of a role is 1 to 64 letters, digits, `-`, `_` or `.`";
            self.found.note(Code::BadValue, key.at, message, Some("it stands in records and metrics: keep it plain"));
        }
        self.roles.push(name.to_owned());
    }

    fn role_port(&mut self, fields: Fields<'_, 't>, id: RoleId, draft: &mut Draft, claims: &mut Claims) {
        let Some(node) = fields.get("port") else { return };
        let Some(port) = self.found.number::<u16>(node, "`port:`", (1, u16::MAX)) else { return };
        if claims.ports.contains(&port) {
            self.found.note(
                Code::Conflict,
                node.at,
                "each role needs a port of its own",
                Some("give one of the two another port"),
            );
        }
        draft.role_by_port(port, id);
        claims.ports.push(port);
    }

    fn role_user(&mut self, fields: Fields<'_, 't>, id: RoleId, draft: &mut Draft, claims: &mut Claims) {
        let Some(node) = fields.get("proxy-user") else { return };
        let Some(user) = self.found.text(node, "`proxy-user:`") else { return };
        if user.is_empty() {
            self.found.note(Code::BadValue, node.at, "the user name is empty", Some("write the name that clients give"));
        } else if !claims.users.insert(user.to_owned()) {
            self.found.note(
                Code::Conflict,
                node.at,
                "each role needs a user name of its own",
                Some("give one of the two another name"),
            );
        }
        draft.role_by_user(user, id);
    }

    fn role_executable(&mut self, name: &str, fields: Fields<'_, 't>, id: RoleId, draft: &mut Draft, claims: &mut Claims) {
        let Some(node) = fields.get("exe") else { return };
        let Some(path) = self.found.text(node, "`exe:`") else { return };
        if !path.starts_with('/') {
            let help = "write the whole path, /app/bin/migrate, with links resolved";
            return self.found.note(Code::BadValue, node.at, format!("{path:?} is no absolute path"), Some(help));
        }
        if !claims.executables.insert(path.to_owned()) {
            self.found.note(
                Code::Conflict,
                node.at,
                "each role needs an executable of its own",
                Some("make one role of the two"),
            );
        }
        draft.role_by_executable(path, id);
        self.executables.push((name.to_owned(), node.at));
    }

    pub(super) fn unused_roles(&mut self, node: Option<&Node<'t>>) {
        let Some(node) = node else { return };
        let unused = self.roles.iter().filter(|name| !self.used_roles.contains(*name));
        for name in unused {
            let at = Fields::key_place(node, name);
            let help = format!("write `for: [{name}]` in a rule, or remove it");
            self.lints.push(Diagnostic::warning(Code::UnusedRole, at, format!("no rule is for the role {name}"), Some(&help)));
        }
    }
}
