//! ECS: task definitions, in their own case and in CloudFormation's, and bare lists of containers.
//!
//! Facts of the platform that this follows (Amazon ECS, "Task definition parameters"): health checks of an image are not read,
//! only those of the definition; `dependsOn` HEALTHY is looked at when a task starts, and its order is reversed when it ends; with
//! `awsvpc` all containers share loopback; Fargate waits for `stopTimeout` 30 s, 120 at most; a volume without a host is the task's.

use super::error::InjectError;
use super::plan::{Path, Plan};
use super::remove::name_of;
use super::sidecar::{Set, Written, check_ports, check_wrapped, missing, named, unknown_entrypoint};
use super::tree::Node;
use super::wrapped::check_environment;
use super::write::New;
use super::{Delivery, FOLDERS, Options, WRAPPER};

/// What `describe-task-definition` prints of a task and `register-task-definition` does not take.
const DESCRIBED: [&str; 8] = [
    "taskDefinitionArn",
    "revision",
    "status",
    "requiresAttributes",
    "compatibilities",
    "registeredAt",
    "deregisteredAt",
    "registeredBy",
];

/// How keys are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Case {
    /// `containerDefinitions`
    Lower,
    /// `ContainerDefinitions`
    Upper,
}

impl Case {
    pub(super) fn key(self, key: &str) -> String {
        match (self, key.split_at_checked(1)) {
            (Self::Upper, Some((first, rest))) => format!("{}{rest}", first.to_ascii_uppercase()),
            _ => key.to_owned(),
        }
    }

    fn map<const N: usize>(self, entries: [(&str, New); N]) -> New {
        New::Map(entries.into_iter().map(|(key, value)| (self.key(key), value)).collect())
    }

    fn pair(self, name: &str, value: &str) -> New {
        self.map([("name", New::text(name)), ("value", New::text(value))])
    }
}

/// Adds egret to a task.
pub(super) fn add(plan: &mut Plan<'_>, root: &Node, case: Case, options: &Options) -> Result<(), InjectError> {
    check_task(plan, root, case)?;
    let key = case.key("containerDefinitions");
    let path = Path::default();
    let Some(list) = root.get(&key).filter(|list| list.is_list()) else {
        return Err(InjectError::refused(
            path.key(&key).shown(),
            "is no list that is written out",
            "write the containers out in place of the function",
        ));
    };
    let task = Task { case, options, list, place: path.key(&key), needs_memory: root.get(&case.key("memory")).is_none() };
    task.apps(plan)?;
    if options.wrap {
        let volume = case.map([("name", New::text(FOLDERS[0].0))]);
        plan.extend(root, &path, &case.key("volumes"), vec![volume])?;
    }
    task.check_volume(root)?;
    plan.note(&task.place, "+1");
    let sidecar = task.sidecar(plan);
    plan.append_to_list(list, sidecar, 1);
    Ok(())
}

/// Adds egret to containers whose task is elsewhere.
pub(super) fn add_to_list(plan: &mut Plan<'_>, list: &Node, options: &Options) -> Result<(), InjectError> {
    if options.wrap {
        let why = "is not shown, and --wrap needs a volume of it";
        return Err(InjectError::refused("the task", why, "give the whole task definition"));
    }
    plan.warnings.push("the task is not shown; it has to have `networkMode: awsvpc`".to_owned());
    let task = Task { case: Case::Lower, options, list, place: Path::default(), needs_memory: false };
    task.apps(plan)?;
    plan.note(&task.place, "+1");
    let sidecar = task.sidecar(plan);
    plan.append_to_list(list, sidecar, 0);
    Ok(())
}

fn check_task(plan: &mut Plan<'_>, root: &Node, case: Case) -> Result<(), InjectError> {
    let family = root.at(&[&case.key("runtimePlatform"), &case.key("operatingSystemFamily")]).and_then(Node::text);
    if family.is_some_and(|family| family.starts_with("WINDOWS")) {
        return Err(InjectError::refused(
            "the operating system",
            "is Windows, and egret is for Linux",
            "leave this task as it is",
        ));
    }
    let mode = root.get(&case.key("networkMode"));
    match mode.map(|mode| mode.text()) {
        Some(Some("awsvpc")) => {}
        Some(None) => plan.warnings.push("the network mode is a function: it has to become awsvpc".to_owned()),
        found => {
            let found = found.flatten().unwrap_or("not set, which means bridge");
            let why = format!("is {found}: containers of this task do not share loopback, where egret listens");
            let help = format!("set `{}: awsvpc`", case.key("networkMode"));
            return Err(InjectError::refused("the network mode", why, help));
        }
    }
    let read_only: Vec<&str> = DESCRIBED.into_iter().filter(|key| root.get(key).is_some()).collect();
    if !read_only.is_empty() {
        let keys = read_only.join(", ");
        plan.warnings.push(format!("it is a description; register-task-definition does not take these keys of it: {keys}"));
    }
    Ok(())
}

struct Task<'a> {
    case: Case,
    options: &'a Options,
    list: &'a Node,
    /// Of the list.
    place: Path,
    /// The task has no memory of its own, so that each container needs some.
    needs_memory: bool,
}

impl Task<'_> {
    /// What changes in containers that are there.
    fn apps(&self, plan: &mut Plan<'_>) -> Result<(), InjectError> {
        let containers = self.list.items();
        if let Some(odd) = containers.iter().position(|container| !container.is_map()) {
            let place = self.place.item(None, odd).shown();
            return Err(InjectError::refused(
                place,
                "is no container that is written out",
                "write it out in place of the function",
            ));
        }
        self.options.check_names("container", &containers.iter().map(name_of).collect::<Vec<_>>())?;
        check_ports(&self.ports(), self.options)?;
        let meant: Vec<(usize, &Node)> = containers.iter().enumerate().filter(|(_, one)| self.is_app(one)).collect();
        if meant.is_empty() {
            return Err(InjectError::refused(
                "the list of containers",
                "has none that could go through egret; log routers start before it",
                "add the app's container, or name a router by --container",
            ));
        }
        check_wrapped(meant.len(), self.options)?;
        meant.into_iter().try_for_each(|(index, container)| self.app(plan, index, container))
    }

    /// A log router starts before egret, whose log it takes.
    fn is_app(&self, container: &Node) -> bool {
        let is_router = container.get(&self.key("firelensConfiguration")).is_some();
        self.options.means(name_of(container)) && (!is_router || !self.options.containers.is_empty())
    }

    fn app(&self, plan: &mut Plan<'_>, index: usize, container: &Node) -> Result<(), InjectError> {
        let name = name_of(container);
        let path = self.place.item(name, index);
        if self.options.wrap {
            self.wrap(plan, &path, name, container)?;
        }
        let proxy = self.options.listen.to_string();
        let variables = self.options.for_app(&proxy, &[]);
        let key = self.key("environment");
        let (environment, secrets) = (container.get(&key), container.get(&self.key("secrets")));
        let set = |name: &str| {
            let value = named(environment, name).map(|item| item.get(&self.key("value")).map_or(Set::Elsewhere, Set::Value));
            value.or_else(|| named(secrets, name).map(|_| Set::Elsewhere))
        };
        let lacks = missing(plan, &path.key(&key), &variables, self.options, set, &Written::Items(&self.key("value")))?;
        let items = lacks.iter().map(|(name, value)| self.case.pair(name, value)).collect();
        plan.extend(container, &path, &key, items)?;
        let condition = if self.options.wrap { "SUCCESS" } else { "HEALTHY" };
        let depends = [("containerName", New::text(&self.options.name)), ("condition", New::text(condition))];
        plan.extend(container, &path, &self.key("dependsOn"), vec![self.case.map(depends)])
    }

    /// egret before the app's own command line, and what it needs in its container.
    fn wrap(&self, plan: &mut Plan<'_>, path: &Path, name: Option<&str>, container: &Node) -> Result<(), InjectError> {
        check_environment(
            plan,
            path,
            container,
            &[&self.key("environment"), &self.key("secrets")],
            &[&self.key("environmentFiles")],
        )?;
        let key = self.key("entryPoint");
        let given = self.options.entrypoint(name);
        if container.get(&key).is_some_and(|list| !list.items().is_empty()) {
            plan.warnings
                .extend(given.map(|_| format!("{}: the definition has an {key}, which goes before --entrypoint", path.shown())));
            plan.prepend(container, path, &key, New::words(WRAPPER))?;
        } else {
            let own = self.key("command");
            let words = given.ok_or_else(|| unknown_entrypoint("container", name, &key, (&own, container.get(&own))))?;
            plan.prepend(container, path, &key, New::words(WRAPPER.into_iter().chain(words.iter().map(String::as_str))))?;
        }
        let mut mounts = vec![self.mount(FOLDERS[0].0, FOLDERS[0].1, true)];
        match &self.options.policy {
            Delivery::Volume(volume) => mounts.push(self.mount(volume, FOLDERS[1].1, true)),
            Delivery::Secret(source) => plan.extend(container, path, &self.key("secrets"), vec![self.secret(source)])?,
            Delivery::Text(_) | Delivery::Allow(_) | Delivery::None => {}
        }
        plan.extend(container, path, &self.key("mountPoints"), mounts)
    }

    /// egret itself, which has to be the last thing that is planned: it carries the record.
    fn sidecar(&self, plan: &mut Plan<'_>) -> New {
        let (case, options) = (self.case, self.options);
        let variables = options.for_sidecar(plan.record(), options.listen);
        let environment = variables.iter().map(|(name, value)| case.pair(name, value)).collect();
        let drop_all = case.map([("drop", New::texts(["ALL"]))]);
        let mut entries = vec![
            ("name", New::text(&options.name)),
            ("image", New::text(&options.image)),
            ("essential", New::bare(!options.wrap)),
        ];
        if options.wrap {
            entries.push(("command", New::texts(["install", FOLDERS[0].1])));
        }
        // What is copied goes to a folder of root's; nothing else about this container is root's.
        entries.push(("user", New::text(if options.wrap { "0:0" } else { "65534:65534" })));
        entries.push(("readonlyRootFilesystem", New::bare(true)));
        entries.push(("linuxParameters", case.map([("capabilities", drop_all)])));
        if self.needs_memory {
            entries.push(("memoryReservation", New::bare(64)));
        }
        entries.push(("environment", New::List(environment)));
        entries.extend(self.served());
        if let Some(log) = self.list.items().iter().find_map(|app| app.get(&self.key("logConfiguration"))) {
            entries.extend(New::copy(log).map(|log| ("logConfiguration", log)));
        }
        New::Map(entries.into_iter().map(|(key, value)| (case.key(key), value)).collect())
    }

    /// What a gateway has and a copied file does not; and of the other what it is copied to.
    fn served(&self) -> Vec<(&'static str, New)> {
        let case = self.case;
        if self.options.wrap {
            return vec![("mountPoints", New::List(vec![self.mount(FOLDERS[0].0, FOLDERS[0].1, false)]))];
        }
        let check = [
            ("command", New::texts(["CMD", "/egret", "health"])),
            ("interval", New::bare(5)),
            ("timeout", New::bare(2)),
            ("retries", New::bare(3)),
            ("startPeriod", New::bare(10)),
        ];
        let policy = match &self.options.policy {
            Delivery::Secret(source) => Some(("secrets", New::List(vec![self.secret(source)]))),
            Delivery::Volume(volume) => Some(("mountPoints", New::List(vec![self.mount(volume, FOLDERS[1].1, true)]))),
            Delivery::Text(_) | Delivery::Allow(_) | Delivery::None => None,
        };
        policy.into_iter().chain([("healthCheck", case.map(check)), ("stopTimeout", New::bare(30))]).collect()
    }

    fn mount(&self, volume: &str, folder: &str, read_only: bool) -> New {
        let entries =
            [("sourceVolume", New::text(volume)), ("containerPath", New::text(folder)), ("readOnly", New::bare(read_only))];
        self.case.map(entries)
    }

    fn secret(&self, source: &str) -> New {
        self.case.map([("name", New::text("EGRET_POLICY")), ("valueFrom", New::text(source))])
    }

    /// A volume with the policy has to be the task's already.
    fn check_volume(&self, root: &Node) -> Result<(), InjectError> {
        match &self.options.policy {
            Delivery::Volume(volume) if named(root.get(&self.key("volumes")), volume).is_none() => {
                let help = "define it (an EFS volume with policy.yaml), or deliver the policy by --policy or --policy-secret";
                Err(InjectError::refused(format!("volume {volume}"), "is not defined there", help))
            }
            _ => Ok(()),
        }
    }

    fn ports(&self) -> Vec<(String, String)> {
        let mappings = |container: &Node| {
            let ports = container.get(&self.key("portMappings")).map(Node::items).unwrap_or_default();
            ports.iter().filter_map(|port| port.get(&self.key("containerPort"))?.text().map(str::to_owned)).collect::<Vec<_>>()
        };
        let named = self
            .list
            .items()
            .iter()
            .enumerate()
            .map(|(index, one)| (name_of(one).map_or(format!("#{index}"), str::to_owned), one));
        named.flat_map(|(name, one)| mappings(one).into_iter().map(move |port| (name.clone(), port))).collect()
    }

    fn key(&self, key: &str) -> String {
        self.case.key(key)
    }
}
