//! Shipped bundles of rules, by name. Each is a policy text of its own, with `sets`, `egress.allow` and `direct`, that is
//! read like the user's; its rules are named `PRESET/ID` in records. `egret explain --preset NAME` prints one.

use egret_policy::{Draft, Effect};
use ipnet::IpNet;

use super::Reader;
use super::diagnose::Code;
use super::read::{Findings, nearest};
use super::yaml::{self, Node};

/// A bundle.
#[derive(Debug, PartialEq, Eq)]
pub struct Preset {
    /// Its name.
    pub name: &'static str,
    /// Its text.
    pub yaml: &'static str,
}

/// Every preset there is.
pub const ALL: &[Preset] = &[
    Preset { name: "aws-ecs-task", yaml: include_str!("presets/aws-ecs-task.yaml") },
    Preset { name: "aws-eks-pod", yaml: include_str!("presets/aws-eks-pod.yaml") },
    Preset { name: "kubernetes-pod", yaml: include_str!("presets/kubernetes-pod.yaml") },
    Preset { name: "github", yaml: include_str!("presets/github.yaml") },
    Preset { name: "github-actions", yaml: include_str!("presets/github-actions.yaml") },
];

/// The preset of this name.
#[must_use]
pub fn named(name: &str) -> Option<&'static Preset> {
    ALL.iter().find(|preset| preset.name == name)
}

/// The preset that a rule id belongs to: users' own ids hold no slash.
#[must_use]
pub fn of_rule(id: &str) -> Option<&str> {
    id.split_once('/').map(|(preset, _)| preset)
}

impl Preset {
    /// Its rules and direct addresses, into a draft. A shipped preset has no mistakes, which a test holds.
    fn read(&self, draft: &mut Draft) -> (usize, Vec<IpNet>, Findings) {
        let (root, broken) = yaml::parse(self.yaml);
        let mut reader = Reader { found: Findings(broken), prefix: Some(self.name), ..Reader::default() };
        let Some(root) = &root else { return (0, Vec::new(), reader.found) };
        reader.sets(root.get("sets"));
        reader.rules(root.get("egress").and_then(|egress| egress.get("allow")), Effect::Allow, draft);
        let direct = reader.direct(root.get("direct"));
        (reader.rule_places.len(), direct, reader.found)
    }
}

impl<'t> Reader<'t> {
    /// Takes the presets that are named, and gives what they say is direct.
    pub(super) fn take_presets(&mut self, node: Option<&Node<'t>>, draft: &mut Draft) -> Vec<IpNet> {
        let listed = node.and_then(|node| self.found.list(node, "`presets:`")).unwrap_or_default();
        let mut direct = Vec::new();
        for node in listed {
            let Some(preset) = self.preset(node) else { continue };
            let (rules, nets, mut broken) = preset.read(draft);
            self.rule_places.extend(std::iter::repeat_n(node.at, rules));
            self.found.0.append(&mut broken.0);
            self.presets.push(preset);
            direct.extend(nets);
        }
        direct
    }

    fn preset(&mut self, node: &Node<'t>) -> Option<&'static Preset> {
        let name = self.found.text(node, "a preset")?;
        let known: Vec<&str> = ALL.iter().map(|preset| preset.name).collect();
        if let Some(preset) = named(name) {
            if self.presets.contains(&preset) {
                return self.found.refuse(
                    Code::Conflict,
                    node.at,
                    format!("the preset {name} is named twice"),
                    Some("name it once"),
                );
            }
            return Some(preset);
        }
        let help = match nearest(name, &known) {
            Some(near) => format!("did you mean {near}?"),
            None => format!("presets are: {}", known.join(", ")),
        };
        self.found.refuse(Code::UnknownName, node.at, format!("there is no preset named {name}"), Some(&help))
    }
}
