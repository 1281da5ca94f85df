//! Compose: egret as a service of its own on the app's networks, since services do not share loopback.
//!
//! Facts that this follows (the Compose specification): `depends_on` waits for health only in its long form; `$` begins an
//! interpolation and `$$` stands for it; a service without `networks` is on `default`.

use std::net::{Ipv4Addr, SocketAddr};

use super::error::InjectError;
use super::plan::{Path, Plan};
use super::sidecar::{Set, Written, check_wrapped, missing, unknown_entrypoint};
use super::tree::Node;
use super::wrapped::check_environment;
use super::write::New;
use super::{Delivery, FOLDERS, Options, WRAPPER};

/// Adds egret to a project.
pub(super) fn add(plan: &mut Plan<'_>, root: &Node, options: &Options) -> Result<(), InjectError> {
    let Some(services) = root.get("services").filter(|services| services.is_map() && !services.entries().is_empty()) else {
        return Err(InjectError::refused("`services`", "is no mapping that is written out", "write the services out"));
    };
    let names: Vec<Option<&str>> = services.entries().iter().map(|(name, _)| name.text()).collect();
    options.check_names("service", &names)?;
    if options.containers.is_empty() && names.len() > 1 {
        let help = format!("name the apps by --container: {}", names.iter().flatten().copied().collect::<Vec<_>>().join(", "));
        return Err(InjectError::refused("`services`", "holds several, and not all of them may be apps", help));
    }
    let place = Path::default().key("services");
    let apps: Vec<(&str, &Node)> = services
        .entries()
        .iter()
        .filter_map(|(name, service)| Some((name.text()?, service)))
        .filter(|(name, _)| options.means(Some(name)))
        .collect();
    check_wrapped(apps.len(), options)?;
    let project = Project { options, root, names: names.into_iter().flatten().map(str::to_owned).collect() };
    for (name, service) in &apps {
        project.app(plan, &place.key(name), name, service)?;
    }
    if options.wrap {
        plan.enter(root, &Path::default(), "volumes", vec![(FOLDERS[0].0.to_owned(), New::Map(Vec::new()))])?;
    }
    plan.note(&place, "+1");
    let sidecar = project.sidecar(plan, &apps)?;
    plan.append_to_map(services, &options.name, sidecar, 1);
    Ok(())
}

struct Project<'a> {
    options: &'a Options,
    root: &'a Node,
    names: Vec<String>,
}

impl Project<'_> {
    fn app(&self, plan: &mut Plan<'_>, path: &Path, name: &str, service: &Node) -> Result<(), InjectError> {
        if !service.is_map() {
            return Err(InjectError::refused(path.shown(), "is no service that is written out", "write it out"));
        }
        if let Some(mode) = service.get("network_mode").filter(|_| !self.options.wrap) {
            let why = format!(
                "has network_mode {}, so that it would not find egret by its name",
                mode.text().unwrap_or("(a function)")
            );
            return Err(InjectError::refused(path.shown(), why, "take network_mode away"));
        }
        if self.options.wrap {
            self.wrap(plan, path, name, service)?;
        }
        self.environment(plan, path, service)?;
        self.depend(plan, path, service)
    }

    /// A mapping, or a list of `NAME=value`.
    fn environment(&self, plan: &mut Plan<'_>, path: &Path, service: &Node) -> Result<(), InjectError> {
        let proxy = format!("{}:{}", self.options.name, self.options.listen.port());
        let mut variables = self.options.for_app(&proxy, &self.names);
        variables.iter_mut().for_each(|(_, value)| *value = literal(value));
        let there = service.get("environment");
        let own = path.key("environment");
        if there.is_some_and(Node::is_list) {
            let item = |name: &str| there?.items().iter().find(|item| item.text().is_some_and(|text| named(text, name)));
            let set =
                |name: &str| item(name).map(|item| if item.text() == Some(name) { Set::Elsewhere } else { Set::Value(item) });
            let lacks = missing(plan, &own, &variables, self.options, set, &Written::Texts)?;
            let items = lacks.iter().map(|(name, value)| New::text(Written::Texts.text(name, value))).collect();
            return plan.extend(service, path, "environment", items);
        }
        let value = |name: &str| there.and_then(|there| there.get(name));
        let set = |name: &str| value(name).map(|value| if value.is_absent() { Set::Elsewhere } else { Set::Value(value) });
        let lacks = missing(plan, &own, &variables, self.options, set, &Written::Entries)?;
        let entries = lacks.into_iter().map(|(name, value)| (name, New::Text(value))).collect();
        plan.enter(service, path, "environment", entries)
    }

    /// The long form, which alone waits for health; a short one is written out.
    fn depend(&self, plan: &mut Plan<'_>, path: &Path, service: &Node) -> Result<(), InjectError> {
        let condition = if self.options.wrap { "service_completed_successfully" } else { "service_healthy" };
        let on = |name: &str, condition: &str| (name.to_owned(), New::map([("condition", New::text(condition))]));
        let egret = on(&self.options.name, condition);
        let there = service.entries().iter().find(|(key, _)| key.text() == Some("depends_on"));
        let Some((key, list)) = there.filter(|(_, list)| list.is_list()) else {
            return plan.enter(service, path, "depends_on", vec![egret]);
        };
        if list.items().iter().any(|item| item.text().is_none()) {
            let why = "has an item that is not written out, which egret cannot keep in the long form";
            return Err(InjectError::refused(path.key("depends_on").shown(), why, "write the name out in place"));
        }
        let others = list.items().iter().filter_map(Node::text).map(|name| on(name, "service_started"));
        let all = New::Map(others.chain([egret]).collect());
        plan.replace_list(key, list, &path.key("depends_on"), &all);
        Ok(())
    }

    fn wrap(&self, plan: &mut Plan<'_>, path: &Path, name: &str, service: &Node) -> Result<(), InjectError> {
        check_environment(plan, path, service, &["environment"], &["env_file", "extends"])?;
        match service.get("entrypoint") {
            Some(list) if list.is_list() && !list.items().is_empty() => {
                plan.prepend(service, path, "entrypoint", New::words(WRAPPER))?;
            }
            None => {
                let words = self.options.entrypoint(Some(name)).ok_or_else(|| {
                    unknown_entrypoint("service", Some(name), "entrypoint", ("command", service.get("command")))
                })?;
                plan.prepend(
                    service,
                    path,
                    "entrypoint",
                    New::words(WRAPPER.into_iter().chain(words.iter().map(String::as_str))),
                )?;
            }
            Some(_) => {
                let help = "write it as a list: entrypoint: [\"/app/server\"]";
                return Err(InjectError::refused(path.key("entrypoint").shown(), "is no list", help));
            }
        }
        let mut mounts = vec![New::text(format!("{}:{}:ro", FOLDERS[0].0, FOLDERS[0].1))];
        match &self.options.policy {
            Delivery::Volume(folder) => mounts.push(policy_mount(folder)),
            Delivery::Secret(name) => {
                let help = "deliver the policy by --policy or --policy-volume";
                return Err(InjectError::refused(
                    format!("secret {name}"),
                    "is a file in Compose, which --wrap has no place to name",
                    help,
                ));
            }
            Delivery::Text(_) | Delivery::Allow(_) | Delivery::None => {}
        }
        plan.extend(service, path, "volumes", mounts)
    }

    fn sidecar(&self, plan: &mut Plan<'_>, apps: &[(&str, &Node)]) -> Result<New, InjectError> {
        let options = self.options;
        let variables = options.for_sidecar(plan.record(), SocketAddr::from((Ipv4Addr::UNSPECIFIED, options.listen.port())));
        let variables = variables.into_iter().map(|(name, value)| (name, New::Text(literal(&value)))).collect();
        let mut entries = vec![("image", New::text(&options.image))];
        if options.wrap {
            entries.extend([
                ("command", New::texts(["install", FOLDERS[0].1])),
                ("user", New::text("0:0")),
                ("network_mode", New::text("none")),
            ]);
            entries.push(("volumes", New::texts([format!("{}:{}", FOLDERS[0].0, FOLDERS[0].1)])));
        } else {
            entries.push(("user", New::text("65534:65534")));
            entries.extend(self.delivered()?);
            entries.push(("healthcheck", health()));
            let networks = apps.iter().find_map(|(_, app)| app.get("networks"));
            entries.extend(networks.and_then(network_names).map(|names| ("networks", names)));
        }
        entries.push(("environment", New::Map(variables)));
        entries.extend([
            ("read_only", New::bare(true)),
            ("cap_drop", New::texts(["ALL"])),
            ("security_opt", New::texts(["no-new-privileges:true"])),
        ]);
        let logging = apps.iter().find_map(|(_, app)| app.get("logging")).and_then(New::copy);
        entries.extend(logging.map(|logging| ("logging", logging)));
        Ok(New::Map(entries.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()))
    }

    fn delivered(&self) -> Result<Vec<(&'static str, New)>, InjectError> {
        match &self.options.policy {
            Delivery::Volume(folder) => Ok(vec![("volumes", New::List(vec![policy_mount(folder)]))]),
            Delivery::Secret(name) if self.root.at(&["secrets", name]).is_some() => {
                let command = New::texts(["run".to_owned(), "--policy".to_owned(), format!("/run/secrets/{name}")]);
                Ok(vec![("command", command), ("secrets", New::texts([name]))])
            }
            Delivery::Secret(name) => {
                Err(InjectError::refused(format!("secret {name}"), "is not among the project's `secrets`", "define it there"))
            }
            Delivery::Text(_) | Delivery::Allow(_) | Delivery::None => Ok(Vec::new()),
        }
    }
}

fn policy_mount(folder: &str) -> New {
    New::text(format!("{}:{}:ro", literal(folder), FOLDERS[1].1))
}

fn health() -> New {
    let test = New::texts(["CMD", "/egret", "health"]);
    New::map([("test", test), ("interval", New::text("2s")), ("timeout", New::text("2s")), ("retries", New::bare(15))])
}

/// The names alone: an address of the app's would be taken.
fn network_names(networks: &Node) -> Option<New> {
    let keys = networks.entries().iter().filter_map(|(key, _)| key.text());
    let names: Vec<&str> = networks.items().iter().filter_map(Node::text).chain(keys).collect();
    (!names.is_empty()).then(|| New::texts(names))
}

fn named(text: &str, name: &str) -> bool {
    text == name || text.strip_prefix(name).is_some_and(|rest| rest.starts_with('='))
}

/// Not taken for an interpolation.
fn literal(value: &str) -> String {
    value.replace('$', "$$")
}
