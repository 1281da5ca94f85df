//! Kubernetes: egret as a native sidecar of a pod, that is, a first init container that goes on running.
//!
//! Facts that this follows (Kubernetes documentation, "Sidecar Containers"; stable since 1.33): the next container is started once
//! the `startupProbe` of such a one has succeeded; its readiness counts for the pod's; it ends after the others, in
//! reverse order, and Jobs complete without it. In `env` a value may refer to another by `$(NAME)`; `$$(` stands for `$(`.

use super::error::InjectError;
use super::plan::{Path, Plan};
use super::remove::name_of;
use super::sidecar::{Set, Written, check_ports, check_wrapped, missing, named, unknown_entrypoint};
use super::tree::Node;
use super::wrapped::check_environment;
use super::write::New;
use super::{Delivery, FOLDERS, Options, WRAPPER};

/// The specifications of the pods of a document.
pub(super) fn pods(root: &Node) -> Vec<(String, &Node)> {
    let path: &[&str] = match root.get("kind").and_then(Node::text) {
        Some("Pod") => &["spec"],
        Some("Deployment" | "StatefulSet" | "DaemonSet" | "ReplicaSet" | "ReplicationController" | "Job") => {
            &["spec", "template", "spec"]
        }
        Some("CronJob") => &["spec", "jobTemplate", "spec", "template", "spec"],
        Some("List") => return root.get("items").map(Node::items).unwrap_or_default().iter().flat_map(pods).collect(),
        _ => return Vec::new(),
    };
    root.at(path).map(|pod| (owner(root), pod)).into_iter().collect()
}

/// What people call it: `Deployment shop`, `Job batch/sum`.
fn owner(root: &Node) -> String {
    let text = |path: &[&str]| root.at(path).and_then(Node::text);
    let kind = text(&["kind"]).unwrap_or("Pod");
    match (text(&["metadata", "namespace"]), text(&["metadata", "name"]).or(text(&["metadata", "generateName"]))) {
        (Some(space), Some(name)) => format!("{kind} {space}/{name}"),
        (None, Some(name)) => format!("{kind} {name}"),
        (_, None) => format!("a {kind} without a name"),
    }
}

/// Adds egret to a pod.
pub(super) fn add(plan: &mut Plan<'_>, root: &Node, options: &Options) -> Result<(), InjectError> {
    check_pod(root)?;
    let path = Path::default();
    let all: Vec<(Path, &Node)> = ["initContainers", "containers"]
        .into_iter()
        .flat_map(|key| {
            let items = root.get(key).map(Node::items).unwrap_or_default().iter().enumerate();
            items.map(|(index, one)| (Path::default().key(key).item(name_of(one), index), one)).collect::<Vec<_>>()
        })
        .collect();
    options.check_names("container", &all.iter().map(|(_, one)| name_of(one)).collect::<Vec<_>>())?;
    check_ports(&ports(&all), options)?;
    // An app that is wrapped is started by its own egret; what runs before it is not.
    let is_app = |one: &Node| {
        !options.wrap || root.get("containers").is_some_and(|list| list.items().iter().any(|app| app.span == one.span))
    };
    let meant: Vec<&(Path, &Node)> = all.iter().filter(|(_, one)| options.means(name_of(one)) && is_app(one)).collect();
    check_wrapped(meant.len(), options)?;
    let pod = Pod { options };
    meant.into_iter().try_for_each(|(path, container)| pod.app(plan, path, container))?;
    plan.extend(root, &path, "volumes", pod.volumes())?;
    plan.prepend_sidecar(root, &path, "initContainers", |plan| pod.sidecar(plan.record()))
}

fn check_pod(root: &Node) -> Result<(), InjectError> {
    let is_windows = root.at(&["os", "name"]).and_then(Node::text) == Some("windows")
        || root.at(&["nodeSelector", "kubernetes.io/os"]).and_then(Node::text) == Some("windows");
    if is_windows {
        return Err(InjectError::refused("the operating system", "is Windows, and egret is for Linux", "leave it as it is"));
    }
    if root.get("hostNetwork").and_then(Node::text) == Some("true") {
        let why = "is true, so that egret would listen on its node's network, for everybody there";
        return Err(InjectError::refused("`hostNetwork`", why, "take `hostNetwork: true` away"));
    }
    match root.get("containers") {
        Some(list) if !list.items().is_empty() && list.items().iter().all(Node::is_map) => Ok(()),
        _ => Err(InjectError::refused("`containers`", "is no list of containers that is written out", "write them out in place")),
    }
}

fn ports(containers: &[(Path, &Node)]) -> Vec<(String, String)> {
    let ports = |one: &Node| {
        let ports = one.get("ports").map(Node::items).unwrap_or_default();
        ports.iter().filter_map(|port| port.get("containerPort")?.text().map(str::to_owned)).collect::<Vec<_>>()
    };
    let named = containers.iter().map(|(path, one)| (name_of(one).map_or_else(|| path.to_string(), str::to_owned), ports(one)));
    named.flat_map(|(name, ports)| ports.into_iter().map(move |port| (name.clone(), port))).collect()
}

struct Pod<'a> {
    options: &'a Options,
}

impl Pod<'_> {
    fn app(&self, plan: &mut Plan<'_>, path: &Path, container: &Node) -> Result<(), InjectError> {
        let name = name_of(container);
        if self.options.wrap {
            self.wrap(plan, path, name, container)?;
        }
        let mut variables = self.options.for_app(&self.options.listen.to_string(), &[]);
        variables.iter_mut().for_each(|(_, value)| *value = literal(value));
        let there = container.get("env");
        let set = |name: &str| named(there, name).map(|item| item.get("value").map_or(Set::Elsewhere, Set::Value));
        let lacks = missing(plan, &path.key("env"), &variables, self.options, set, &Written::Items("value"))?;
        let items =
            lacks.iter().map(|(name, value)| New::map([("name", New::text(name)), ("value", New::text(value))])).collect();
        plan.extend(container, path, "env", items)
    }

    fn wrap(&self, plan: &mut Plan<'_>, path: &Path, name: Option<&str>, container: &Node) -> Result<(), InjectError> {
        check_environment(plan, path, container, &["env"], &["envFrom"])?;
        if container.get("command").is_some_and(|list| !list.items().is_empty()) {
            plan.prepend(container, path, "command", New::words(WRAPPER))?;
        } else {
            let words = self
                .options
                .entrypoint(name)
                .ok_or_else(|| unknown_entrypoint("container", name, "command", ("args", container.get("args"))))?;
            plan.prepend(container, path, "command", New::words(WRAPPER.into_iter().chain(words.iter().map(String::as_str))))?;
        }
        let mut mounts = vec![mount(FOLDERS[0], true)];
        match &self.options.policy {
            Delivery::Volume(_) => mounts.push(mount(FOLDERS[1], true)),
            Delivery::Secret(source) => plan.extend(container, path, "env", vec![secret(source)])?,
            Delivery::Text(_) | Delivery::Allow(_) | Delivery::None => {}
        }
        plan.extend(container, path, "volumeMounts", mounts)
    }

    fn sidecar(&self, record: String) -> New {
        let options = self.options;
        let variables = options.for_sidecar(record, options.listen);
        let variables = variables.iter().map(|(name, value)| (name, literal(value)));
        let mut env: Vec<New> =
            variables.map(|(name, value)| New::map([("name", New::text(name)), ("value", New::text(value))])).collect();
        let mut entries = vec![("name", New::text(&options.name)), ("image", New::text(&options.image))];
        if options.wrap {
            entries.push(("args", New::texts(["install", FOLDERS[0].1])));
            entries.push(("volumeMounts", New::List(vec![mount(FOLDERS[0], false)])));
        } else {
            entries.push(("restartPolicy", New::text("Always")));
            entries.extend([("startupProbe", probe(1, 60)), ("readinessProbe", probe(5, 3))]);
            match &options.policy {
                Delivery::Volume(_) => entries.push(("volumeMounts", New::List(vec![mount(FOLDERS[1], true)]))),
                Delivery::Secret(source) => env.push(secret(source)),
                Delivery::Text(_) | Delivery::Allow(_) | Delivery::None => {}
            }
        }
        entries.extend([("env", New::List(env)), ("securityContext", security())]);
        New::Map(entries.into_iter().map(|(key, value)| (key.to_owned(), value)).collect())
    }

    fn volumes(&self) -> Vec<New> {
        let empty = New::map([("name", New::text(FOLDERS[0].0)), ("emptyDir", New::Map(Vec::new()))]);
        let policy = match &self.options.policy {
            Delivery::Volume(name) => {
                Some(New::map([("name", New::text(FOLDERS[1].0)), ("configMap", New::map([("name", New::text(name))]))]))
            }
            _ => None,
        };
        self.options.wrap.then_some(empty).into_iter().chain(policy).collect()
    }
}

fn mount((volume, folder): (&str, &str), read_only: bool) -> New {
    let entries = [("name", New::text(volume)), ("mountPath", New::text(folder)), ("readOnly", New::bare(read_only))];
    New::map(entries)
}

/// `NAME` or `NAME/KEY`.
fn secret(source: &str) -> New {
    let (name, key) = source.split_once('/').unwrap_or((source, "policy.yaml"));
    let from = New::map([("secretKeyRef", New::map([("name", New::text(name)), ("key", New::text(key))]))]);
    New::map([("name", New::text("EGRET_POLICY")), ("valueFrom", from)])
}

/// Each `period` seconds, and given up after so many failures.
fn probe(period: u32, failures: u32) -> New {
    let exec = New::map([("command", New::texts(["/egret", "health"]))]);
    let entries = [
        ("exec", exec),
        ("periodSeconds", New::bare(period)),
        ("timeoutSeconds", New::bare(2)),
        ("failureThreshold", New::bare(failures)),
    ];
    New::map(entries)
}

fn security() -> New {
    New::map([
        ("runAsNonRoot", New::bare(true)),
        ("runAsUser", New::bare(65534)),
        ("runAsGroup", New::bare(65534)),
        ("allowPrivilegeEscalation", New::bare(false)),
        ("readOnlyRootFilesystem", New::bare(true)),
        ("capabilities", New::map([("drop", New::texts(["ALL"]))])),
        ("seccompProfile", New::map([("type", New::text("RuntimeDefault"))])),
    ])
}

/// Not taken for a reference to another variable.
fn literal(value: &str) -> String {
    value.replace("$(", "$$(")
}
