//! `egret inject`: egret in a task definition. Pure: a text goes in, the same text with additions comes out, and everything
//! that was there stays as it was written. What was added is recorded in the sidecar's own environment, so that it can be
//! taken away again to the last octet; each result is tried for that before anybody is given it.

mod error;
mod tree;
mod write;
mod edit;
mod plan;
mod remove;
mod restored;
mod sidecar;
mod wrapped;
mod ecs;
mod kubernetes;
mod compose;

use std::net::SocketAddr;

use clap::ValueEnum;

use self::ecs::Case;
use self::edit::{Editor, apply};
pub(crate) use self::error::InjectError;
use self::plan::Plan;
use self::tree::{Documents, Node};
use self::write::Style;
use crate::variables::Runtime;

/// What starts an app in a container that egret was copied into.
const WRAPPER: [&str; 3] = ["/opt/egret/egret", "run", "--"];
/// Volumes that may be added, and where they are mounted.
const FOLDERS: [(&str, &str); 2] = [("egret-bin", "/opt/egret"), ("egret-policy", "/etc/egret")];

/// What a text describes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// An ECS task definition, as it is registered or described, or a list of its containers
    Ecs,
    /// Every AWS::ECS::TaskDefinition of a template
    Cloudformation,
    /// Every pod, or template of one, of manifests
    Kubernetes,
    /// Services of a project
    Compose,
}

/// How egret gets its policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Delivery {
    /// In a variable.
    Text(String),
    /// Names, in a variable.
    Allow(String),
    /// A secret of the platform: an ARN, NAME/KEY, a name.
    Secret(String),
    /// A volume with policy.yaml: of the task, a ConfigMap, a folder.
    Volume(String),
    /// In the image, or nothing in audit.
    None,
}

/// What to add.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    pub(crate) image: String,
    /// Of the sidecar.
    pub(crate) name: String,
    /// Those that go through egret; empty for all.
    pub(crate) containers: Vec<String>,
    pub(crate) listen: SocketAddr,
    pub(crate) admin: SocketAddr,
    pub(crate) runtimes: Vec<Runtime>,
    /// For NO_PROXY.
    pub(crate) direct: Vec<String>,
    pub(crate) policy: Delivery,
    pub(crate) mode: Option<&'static str>,
    /// Take the place of proxy variables that differ.
    pub(crate) replace: bool,
    /// egret starts the app, instead of standing beside it.
    pub(crate) wrap: bool,
    /// What a container's image starts, by the container's name.
    pub(crate) entrypoints: Vec<(String, Vec<String>)>,
}

/// A text with egret in it, and what its user should know.
#[derive(Debug)]
pub(crate) struct Injected {
    pub(crate) text: String,
    pub(crate) warnings: Vec<String>,
}

/// One task, pod or project.
#[derive(Clone, Debug)]
struct Scope<'n> {
    kind: Kind,
    root: &'n Node,
    /// What people call it.
    owner: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Task(Case),
    /// The containers of a task, without the task.
    Containers,
    Pod,
    Project,
}

/// Adds egret, anew if it is there already.
///
/// # Errors
/// The text is not understood, or says something that forbids it; nothing is done then.
pub(crate) fn add(text: &str, format: Option<Format>, options: &Options) -> Result<Injected, InjectError> {
    let mut warnings = Vec::new();
    let clean = match remove(text, format) {
        Ok(clean) => {
            warnings.push(format!("an earlier egret was taken out first, as its record {} says", plan::RECORD));
            clean
        }
        Err(InjectError::NotInjected) => text.to_owned(),
        Err(error) => return Err(error),
    };
    let documents = Documents::read(&clean)?;
    let style = Style::of(&clean, &documents);
    let editor = Editor { text: &clean, style: &style };
    let mut edits = Vec::new();
    for scope in scopes(&documents, format)? {
        let mut plan = Plan::new(editor);
        let added = match scope.kind {
            Kind::Task(case) => ecs::add(&mut plan, scope.root, case, options),
            Kind::Containers => ecs::add_to_list(&mut plan, scope.root, options),
            Kind::Pod => kubernetes::add(&mut plan, scope.root, options),
            Kind::Project => compose::add(&mut plan, scope.root, options),
        };
        added.map_err(|error| error.of(&scope.owner))?;
        edits.append(&mut plan.edits);
        warnings.extend(plan.warnings.iter().map(|warning| error::printable(&format!("{}: {warning}", scope.owner))));
    }
    let added = apply(&clean, edits);
    check_aliases(&documents, &added)?;
    match remove(&added, format) {
        Ok(back) if back == clean => Ok(Injected { text: added, warnings }),
        _ => Err(InjectError::refused(
            "the text",
            "is written in a way that egret could not restore",
            "format it anew (jq, yq), and try again",
        )),
    }
}

/// An alias has to mean after it what it meant before: what stands there has not been asked for, or is egret's no more.
fn check_aliases(before: &Documents, added: &str) -> Result<(), InjectError> {
    let after = Documents::read(added)?;
    let shared = |documents: &'_ Documents| {
        let mut found = Vec::new();
        documents.roots.iter().for_each(|root| root.meant_elsewhere(&mut found));
        found.into_iter().cloned().collect::<Vec<Node>>()
    };
    let (before, after) = (shared(before), shared(&after));
    let mut pairs = before.iter().zip(&after);
    match pairs.find(|(one, other)| !restored::is_same(one, other)) {
        Some((changed, _)) => Err(InjectError::shared(changed.meant_by.as_deref().unwrap_or_default())),
        None => Ok(()),
    }
}

/// Takes away what was added.
///
/// # Errors
/// The text is not understood, nothing was added to it, or that has been changed since.
pub(crate) fn remove(text: &str, format: Option<Format>) -> Result<String, InjectError> {
    let documents = Documents::read(text)?;
    let style = Style::of(text, &documents);
    let editor = Editor { text, style: &style };
    let mut edits = Vec::new();
    for scope in scopes(&documents, format)? {
        if let Some((sidecar, record)) = remove::record_in(&containers(&scope)) {
            let taken = remove::edits(editor, scope.root, sidecar, record);
            edits.extend(taken.map_err(|error| error.of(&scope.owner))?);
        }
    }
    if edits.is_empty() {
        return Err(InjectError::NotInjected);
    }
    let removed = apply(text, edits.clone());
    restored::check(text, &removed, &edits)?;
    Ok(removed)
}

/// Everything that gets an egret of its own.
fn scopes(documents: &Documents, format: Option<Format>) -> Result<Vec<Scope<'_>>, InjectError> {
    let format = format.or_else(|| documents.roots.iter().find_map(recognise)).ok_or(InjectError::Unknown)?;
    let roots = documents.roots.iter();
    let found: Vec<Scope<'_>> = match format {
        Format::Ecs => roots.filter_map(task).collect(),
        Format::Cloudformation => roots.flat_map(resources).collect(),
        Format::Kubernetes => {
            roots.flat_map(kubernetes::pods).map(|(owner, root)| Scope { kind: Kind::Pod, root, owner }).collect()
        }
        Format::Compose => roots.filter(|root| root.get("services").is_some()).map(project).collect(),
    };
    if found.is_empty() { Err(InjectError::Nothing(format.what())) } else { Ok(found) }
}

impl Format {
    fn what(self) -> &'static str {
        match self {
            Self::Ecs => "task definition with `containerDefinitions`",
            Self::Cloudformation => "resource of the type AWS::ECS::TaskDefinition with Properties",
            Self::Kubernetes => "Pod, Deployment, StatefulSet, DaemonSet, ReplicaSet, Job or CronJob",
            Self::Compose => "`services`",
        }
    }
}

fn recognise(root: &Node) -> Option<Format> {
    if task(root).is_some() {
        Some(Format::Ecs)
    } else if root.get("Resources").is_some() {
        Some(Format::Cloudformation)
    } else if root.get("apiVersion").is_some() && root.get("kind").is_some() {
        Some(Format::Kubernetes)
    } else {
        root.get("services").map(|_| Format::Compose)
    }
}

/// As it is registered, as `describe-task-definition` prints it, or its containers alone.
fn task(root: &Node) -> Option<Scope<'_>> {
    let root = root.get("taskDefinition").unwrap_or(root);
    let is_container = |item: &Node| item.get("image").is_some() && item.get("name").is_some();
    if root.get("containerDefinitions").is_some() {
        let family = root.get("family").and_then(Node::text);
        let owner = family.map_or_else(|| "the task definition".to_owned(), |family| format!("task family {family}"));
        return Some(Scope { kind: Kind::Task(Case::Lower), root, owner });
    }
    let owner = || "the bare list of containers".to_owned();
    let is_list = !root.items().is_empty() && root.items().iter().all(is_container);
    is_list.then(|| Scope { kind: Kind::Containers, root, owner: owner() })
}

fn project(root: &Node) -> Scope<'_> {
    let owner = root.get("name").and_then(Node::text).map_or_else(|| "the project".to_owned(), |name| format!("project {name}"));
    Scope { kind: Kind::Project, root, owner }
}

fn resources<'n>(root: &'n Node) -> Vec<Scope<'n>> {
    let all = root.get("Resources").map(Node::entries).unwrap_or_default().iter();
    let tasks = all.filter(|(_, resource)| resource.get("Type").and_then(Node::text) == Some("AWS::ECS::TaskDefinition"));
    let scope = |(name, resource): &'n (Node, Node)| {
        let owner = format!("resource {}", name.text().unwrap_or("without a name"));
        Some(Scope { kind: Kind::Task(Case::Upper), root: resource.get("Properties")?, owner })
    };
    tasks.filter_map(scope).collect()
}

/// The containers of a scope with their names, if they have such.
fn containers<'n>(scope: &Scope<'n>) -> Vec<(&'n str, &'n Node)> {
    let lists: Vec<&Node> = match scope.kind {
        Kind::Task(case) => scope.root.get(&case.key("containerDefinitions")).into_iter().collect(),
        Kind::Containers => vec![scope.root],
        Kind::Pod => ["initContainers", "containers"].iter().filter_map(|key| scope.root.get(key)).collect(),
        Kind::Project => {
            let services = scope.root.get("services").map(Node::entries).unwrap_or_default();
            return services.iter().filter_map(|(name, service)| Some((name.text()?, service))).collect();
        }
    };
    lists.into_iter().flat_map(Node::items).filter_map(|item| Some((remove::name_of(item)?, item))).collect()
}

#[cfg(test)]
mod tests;
