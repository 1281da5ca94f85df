//! What every platform's additions have in common: which containers are meant, which variables they lack, and what the
//! sidecar is told.

use std::net::SocketAddr;

use super::error::InjectError;
use super::plan::{Path, Plan, RECORD};
use super::remove::name_of;
use super::tree::Node;
use super::write::New;
use super::{Delivery, Options};
use crate::variables;

/// Where a variable of a container comes from.
pub(super) enum Set<'n> {
    /// Written out.
    Value(&'n Node),
    /// A secret, a field, a function: what it is cannot be seen.
    Elsewhere,
}

impl Options {
    /// Whether a container is meant. One without a name that can be read is meant with all others only.
    pub(super) fn means(&self, name: Option<&str>) -> bool {
        self.containers.is_empty() || name.is_some_and(|name| self.containers.iter().any(|meant| meant == name))
    }

    /// `what` is what the platform calls them. Every `--container` must be there, and nothing that egret did not add may have the sidecar's name.
    pub(super) fn check_names(&self, what: &str, names: &[Option<&str>]) -> Result<(), InjectError> {
        if names.contains(&Some(self.name.as_str())) {
            let why = "exists already, and egret did not add it";
            return Err(InjectError::refused(
                format!("{what} {}", self.name),
                why,
                "rename it, or give egret another name by --name",
            ));
        }
        let missing =
            self.containers.iter().chain(self.entrypoints.iter().map(|(name, _)| name)).find(|name| !names.contains(&Some(name)));
        let Some(missing) = missing else { return Ok(()) };
        let there: Vec<&str> = names.iter().flatten().copied().collect();
        let help = format!("there is: {}; give what has other names a run of its own", there.join(", "));
        Err(InjectError::refused(format!("{what} {missing}"), "does not exist", help))
    }

    /// The variables of an app that goes through the sidecar.
    pub(super) fn for_app(&self, proxy: &str, more_direct: &[String]) -> Vec<(String, String)> {
        if self.wrap {
            return self.policy_variables();
        }
        let mut direct = self.direct.clone();
        direct.extend_from_slice(more_direct);
        variables::variables(proxy, &variables::no_proxy(&direct), &self.runtimes)
    }

    /// What the sidecar is told by variables, but for secrets.
    pub(super) fn for_sidecar(&self, record: String, listen: SocketAddr) -> Vec<(String, String)> {
        let mut all = vec![(RECORD.to_owned(), record)];
        if !self.wrap {
            let is_default = |address: SocketAddr, default: &str| address.to_string() == default;
            if !is_default(listen, crate::settings::DEFAULT_LISTEN) {
                all.push(("EGRET_LISTEN".to_owned(), listen.to_string()));
            }
            if !is_default(self.admin, crate::settings::DEFAULT_ADMIN) {
                all.push(("EGRET_ADMIN".to_owned(), self.admin.to_string()));
            }
            all.extend(self.policy_variables());
        }
        all
    }

    fn policy_variables(&self) -> Vec<(String, String)> {
        let policy = match &self.policy {
            Delivery::Text(text) => Some(("EGRET_POLICY".to_owned(), text.clone())),
            Delivery::Allow(names) => Some(("EGRET_ALLOW".to_owned(), names.clone())),
            Delivery::Secret(_) | Delivery::Volume(_) | Delivery::None => None,
        };
        policy.into_iter().chain(self.mode.map(|mode| ("EGRET_MODE".to_owned(), mode.to_owned()))).collect()
    }

    /// The command line that egret is put before; `None` if the definition shows none and nobody told.
    pub(super) fn entrypoint(&self, name: Option<&str>) -> Option<&[String]> {
        let name = name?;
        self.entrypoints.iter().find(|(own, _)| own == name).map(|(_, words)| words.as_slice())
    }
}

/// The variables that a container lacks. One that is there with another value stays, and is warned of, unless it is to be
/// replaced.
pub(super) fn missing<'n>(
    plan: &mut Plan<'_>,
    path: &Path,
    variables: &[(String, String)],
    options: &Options,
    set: impl Fn(&str) -> Option<Set<'n>>,
    written: &Written<'_>,
) -> Result<Vec<(String, String)>, InjectError> {
    let mut lacks = Vec::new();
    for (name, value) in variables {
        match set(name) {
            None => lacks.push((name.clone(), value.clone())),
            Some(Set::Value(node)) if node.text() == Some(&written.text(name, value)) => {}
            Some(Set::Value(node)) if options.replace && node.text().is_some() => {
                check_no_password(path, name, node.text().unwrap_or_default())?;
                plan.replace(node, &written.place(path, name), &New::text(written.text(name, value)));
            }
            Some(there) => plan.warnings.push(kept(path, name, &there)),
        }
    }
    Ok(lacks)
}

/// What is replaced goes into the record, in the sidecar's environment, to be put back; a password has no business there.
fn check_no_password(path: &Path, name: &str, value: &str) -> Result<(), InjectError> {
    let is_proxy = name.to_ascii_lowercase().ends_with("_proxy");
    let in_url = |word: &str| word.split_once("://").is_some_and(|(_, rest)| rest.contains('@'));
    let has_password = is_proxy && value.contains('@')
        || value.split_whitespace().any(in_url)
        || value.to_ascii_lowercase().contains("proxypassword");
    if has_password {
        let why = format!(
            "has {name} with a user or password of another proxy, which --override would keep in the record of what it replaced"
        );
        return Err(InjectError::refused(path.shown(), why, "take the variable away by hand first"));
    }
    Ok(())
}

/// How a list of variables is written.
pub(super) enum Written<'k> {
    /// Items with a name, and a value at this key.
    Items(&'k str),
    /// A mapping from names to values.
    Entries,
    /// `NAME=value`
    Texts,
}

impl Written<'_> {
    pub(super) fn text(&self, name: &str, value: &str) -> String {
        if matches!(self, Self::Texts) { format!("{name}={value}") } else { value.to_owned() }
    }

    /// Where the value of a variable stands; of a text all of it.
    fn place(&self, path: &Path, name: &str) -> Path {
        match self {
            Self::Items(key) => path.key(name).key(key),
            Self::Entries | Self::Texts => path.key(name),
        }
    }
}

fn kept(path: &Path, name: &str, there: &Set<'_>) -> String {
    let kept = format!("{}: {name} is set already and stays", path.shown());
    match there {
        Set::Elsewhere => format!("{kept}: its value is not written here; take it away if this app is to go through egret"),
        Set::Value(node) => {
            let unread =
                node.text().filter(|_| name.eq_ignore_ascii_case("NO_PROXY")).into_iter().flat_map(|text| text.split(','));
            let unread = unread.filter_map(|item| variables::unportable(item).map(|why| format!("; {item:?}: {why}")));
            format!("{kept}; --override takes its place{}", unread.collect::<String>())
        }
    }
}

/// The item of a list that has this name.
pub(super) fn named<'n>(list: Option<&'n Node>, name: &str) -> Option<&'n Node> {
    list?.items().iter().find(|item| name_of(item) == Some(name))
}

/// Two containers share one network: no two of them may have one port, and none may have egret's.
pub(super) fn check_ports(ports: &[(String, String)], options: &Options) -> Result<(), InjectError> {
    for (index, (name, port)) in ports.iter().enumerate() {
        for (flag, own) in [("--listen", options.listen), ("--admin", options.admin)] {
            if *port == own.port().to_string() {
                let help = format!("give egret another one: {flag} 127.0.0.1:PORT");
                return Err(InjectError::refused(
                    format!("container {name}"),
                    format!("has the port {port} that egret listens on"),
                    help,
                ));
            }
        }
        if let Some((other, _)) = ports[..index].iter().find(|(other, same)| same == port && other != name) {
            let why = format!("has the port {port}, and so has {other}; they share one network");
            return Err(InjectError::refused(format!("container {name}"), why, "give one of them another port"));
        }
    }
    Ok(())
}

/// Wrapped apps have an egret each, and these share one network.
pub(super) fn check_wrapped(count: usize, options: &Options) -> Result<(), InjectError> {
    if options.wrap && count > 1 {
        let why = "are to be wrapped, and each would start an egret on the same ports";
        return Err(InjectError::refused(format!("{count} containers"), why, "name one by --container"));
    }
    Ok(())
}

/// `what` is what the platform calls it, `key` shows what is started, and `arguments` what follows that.
pub(super) fn unknown_entrypoint(what: &str, name: Option<&str>, key: &str, arguments: (&str, Option<&Node>)) -> InjectError {
    let name = name.unwrap_or("NAME");
    let shows = match arguments {
        (own, Some(_)) => format!("shows its Entrypoint; the definition's `{own}` follows that, in the place of the image's Cmd"),
        (_, None) => "shows Entrypoint and Cmd".to_owned(),
    };
    InjectError::refused(
        format!("{what} {name}"),
        format!("has no `{key}`, so that its image decides what is started, and egret cannot see that"),
        format!("say it: --entrypoint '{name}=[\"/app/server\", \"--flag\"]' (`docker inspect` of the image {shows})"),
    )
}
