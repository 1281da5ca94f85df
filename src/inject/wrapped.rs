//! With `--wrap` egret is the app's parent and obeys the environment of the app's container: whoever has set a variable of egret's
//! there decides in egret's place (EGRET_MODE=audit, EGRET_CONFINE=off). So none may stand there, and none may come unseen.

use super::error::InjectError;
use super::plan::{Path, Plan};
use super::remove::name_of;
use super::tree::Node;

/// What every variable of egret's begins with.
const OWN: &str = "EGRET_";

/// Refuses a container with a variable of egret's, or with one whose name cannot be read. `written` are the keys of its variables,
/// `elsewhere` those that bring in more from where they cannot be seen, which is warned of.
pub(super) fn check_environment(
    plan: &mut Plan<'_>,
    path: &Path,
    container: &Node,
    written: &[&str],
    elsewhere: &[&str],
) -> Result<(), InjectError> {
    let is_merged = container.get("<<").is_some();
    for key in written {
        match container.get(key) {
            Some(variables) => check_names(&path.key(key), variables)?,
            None if is_merged => return Err(unseen(&path.key(key), "may come from elsewhere (<<)")),
            None => {}
        }
    }
    let is_filled = |key: &&&str| container.get(key).is_some_and(|node| !is_empty(node));
    for key in elsewhere.iter().filter(is_filled).chain(is_merged.then_some(&"<<")) {
        let what = "brings in variables that cannot be seen here; make sure that none is called EGRET_*, as egret would obey it";
        plan.warnings.push(format!("{}: {key} {what}", path.shown()));
    }
    Ok(())
}

/// Names of a list of mappings or of texts, or of a mapping.
fn check_names(path: &Path, variables: &Node) -> Result<(), InjectError> {
    if !variables.is_list() && !variables.is_map() {
        return if variables.text().is_some() { Ok(()) } else { Err(unseen(path, "is not written out")) };
    }
    let of_item = |item| name_of(item).or_else(|| item.text().map(name_in));
    let names = variables.entries().iter().map(|(key, _)| key.text()).chain(variables.items().iter().map(of_item));
    for name in names {
        match name {
            Some(name) if name.starts_with(OWN) => {
                let why = format!("sets {name} already, and egret, which starts this app, would obey it");
                let help = "take it away; what egret is to do is said by the flags of `egret inject`";
                return Err(InjectError::refused(path.shown(), why, help));
            }
            Some(name) if !is_computed(name) => {}
            _ => return Err(unseen(path, "has a variable whose name cannot be read")),
        }
    }
    Ok(())
}

/// Compose interpolates names; functions of CloudFormation, and what is merged, look like one.
fn is_computed(name: &str) -> bool {
    name.contains('$') || name.starts_with("Fn::") || matches!(name, "Ref" | "<<")
}

/// Of `NAME=value`.
fn name_in(text: &str) -> &str {
    text.split_once('=').map_or(text, |(name, _)| name)
}

fn is_empty(node: &Node) -> bool {
    node.text().is_some_and(|text| matches!(text, "" | "null" | "~")) || node.is_list() && node.items().is_empty()
}

fn unseen(path: &Path, why: &str) -> InjectError {
    let why = format!("{why}, and a variable of egret's in it would decide what egret does");
    InjectError::refused(path.shown(), why, "write every name out in place")
}
