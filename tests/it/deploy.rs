//! The examples below deploy/: what egret made is what egret makes, and what others read they can read.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::programs::{Output, node};
use crate::support::{Program, run_egret};

fn deploy() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy")
}

fn read(path: &str) -> String {
    fs::read_to_string(deploy().join(path)).unwrap_or_else(|e| panic!("deploy/{path}: {e}"))
}

fn ends_well(output: &Output) {
    assert_eq!(output.code, 0, "{output:?}");
}

/// The commands of deploy/README.md.
fn commands() -> Vec<String> {
    read("README.md").lines().filter_map(|line| line.strip_prefix("    ")).map(str::to_owned).collect()
}

#[test]
fn every_output_is_what_its_command_prints() {
    let home = TempDir::new().expect("a temporary directory");
    let copied = Program::new("cp").arg("-R").arg(deploy()).arg(home.path()).run();
    ends_well(&copied);
    let bin = Path::new(env!("CARGO_BIN_EXE_egret")).parent().expect("a folder");
    let commands = commands();
    assert!(commands.len() >= 8, "{commands:?}");
    for command in &commands {
        let path = format!("{}:/usr/bin:/bin", bin.display());
        let shell =
            Program::new("sh").args(["-ec", command]).env("PATH", path).env("EGRET_IMAGE", "registry.example/egret:0.1.0");
        ends_well(&shell.dir(&home.path().join("deploy")).run());
        let written = command.rsplit([' ']).next().expect("a file");
        let made = fs::read_to_string(home.path().join("deploy").join(written)).expect("the command wrote it");
        assert_eq!(made, read(written), "deploy/{written} is not what `{command}` prints");
    }
}

#[test]
fn every_output_goes_back_to_its_input() {
    let injects: Vec<String> = commands().into_iter().filter(|command| command.starts_with("egret inject")).collect();
    assert!(injects.len() >= 6, "{injects:?}");
    for command in injects {
        let (_, files) = command.split_once(" < ").expect("an input");
        let (before, after) = files.split_once(" > ").expect("an output");
        let back = run_egret(["inject", "--remove"], &read(after));
        assert_eq!((back.code, back.stdout), (0, read(before)), "{after}: {}", back.stderr);
    }
}

#[test]
fn the_policy_is_good() {
    let path = deploy().join("policy.yaml");
    let checked = run_egret(["check", "--strict", &path.display().to_string()], "");
    assert_eq!(checked.code, 0, "{checked:?}");
}

/// The kustomize component adds the container that `inject` adds, but for the image, the record and where the policy is.
#[test]
fn the_kustomize_component_agrees_with_inject() {
    const READ: &str = "import json, sys, yaml; print(json.dumps([next(yaml.safe_load_all(open(p))) for p in sys.argv[1:]]))";
    let files =
        ["kubernetes/component/sidecar.yaml", "kubernetes/deployment.egret.yaml", "kubernetes/component/kustomization.yaml"];
    let paths: Vec<PathBuf> = files.iter().map(|file| deploy().join(file)).collect();
    let read = Program::at(Path::new("/usr/bin/python3")).args(["-c", READ]).args(paths).run();
    ends_well(&read);
    let mut all: Vec<Value> = serde_json::from_str(&read.stdout).expect("JSON");
    let kustomization = all.pop().expect("three documents");
    let [ours, theirs] = [0, 1].map(|index| all[index]["spec"]["template"]["spec"].clone());
    let mut made = theirs["initContainers"][0].clone();
    made.as_object_mut().expect("a container").remove("env");
    assert_eq!(ours["initContainers"][0], made);
    assert_eq!(ours["volumes"], theirs["volumes"]);
    for file in ["policy.yaml", "proxy.env", "sidecar.yaml"] {
        assert!(kustomization.to_string().contains(file) && deploy().join("kubernetes/component").join(file).is_file(), "{file}");
    }
}

#[test]
fn prometheus_takes_the_rules_and_they_fire() {
    let folder = deploy().join("prometheus");
    for args in
        [&["check", "config", "prometheus.yml"][..], &["check", "rules", "alerts.yml"], &["test", "rules", "alerts.test.yml"]]
    {
        ends_well(&Program::new("promtool").dir(&folder).args(args).run());
    }
}

/// Every name that begins with egret_ in a text, without what Prometheus adds to histograms.
fn metrics(text: &str) -> BTreeSet<String> {
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let names = text.match_indices("egret_").map(|(at, _)| text[at..].chars().take_while(|c| word(*c)).collect::<String>());
    let suffixes = ["_bucket", "_count", "_sum"];
    names.map(|name| suffixes.iter().find_map(|suffix| name.strip_suffix(suffix)).unwrap_or(&name).to_owned()).collect()
}

#[test]
fn every_metric_of_the_alerts_and_the_dashboard_exists() {
    let table = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/metrics.rs")).expect("the table of metrics");
    let known = metrics(&table);
    let dashboard: Value = serde_json::from_str(&read("grafana/egret.json")).expect("JSON");
    let panels = dashboard["panels"].as_array().expect("panels");
    let expressions: Vec<&str> = panels
        .iter()
        .flat_map(|panel| panel["targets"].as_array().expect("targets"))
        .filter_map(|target| target["expr"].as_str())
        .collect();
    assert!(panels.len() > 10 && expressions.len() >= panels.len(), "{expressions:?}");
    for text in expressions.iter().copied().chain([read("prometheus/alerts.yml").as_str(), &dashboard["templating"].to_string()])
    {
        let used = metrics(text);
        assert!(!used.is_empty(), "no metric in {text}");
        let unknown: Vec<&String> = used.difference(&known).collect();
        assert!(unknown.is_empty(), "{unknown:?} are no metrics of egret");
    }
    let ids: BTreeSet<u64> = panels.iter().filter_map(|panel| panel["id"].as_u64()).collect();
    assert_eq!(ids.len(), panels.len(), "each panel has a number of its own");
}

#[test]
fn the_unit_starts_egret_with_settings_that_it_takes() {
    let unit = read("systemd/egret.service");
    let start = unit.lines().find_map(|line| line.strip_prefix("ExecStart=/usr/local/bin/egret ")).expect("ExecStart");
    let policy = deploy().join("policy.yaml").display().to_string();
    let args = start.split(' ').map(|word| if word == "/etc/egret/policy.yaml" { policy.as_str() } else { word });
    let settings = run_egret(args.chain(["--print-config=json"]), "");
    ends_well(&settings);
    assert!(settings.stdout.contains("/var/log/egret/journal.ndjson"), "{settings:?}");
    // What it writes is where the unit lets it write.
    assert!(unit.contains("LogsDirectory=egret\n") && unit.contains("ProtectSystem=strict\n"), "{unit}");
}

#[test]
fn terraform_takes_what_inject_printed() {
    let (main, containers) = (read("terraform/main.tf"), read("terraform/containers.egret.json"));
    assert!(main.contains("${path.module}/containers.egret.json") && main.contains("= \"awsvpc\""), "{main}");
    let containers: Value = serde_json::from_str(&containers).expect("JSON");
    assert_eq!(containers[1]["name"], "egret");
}

/// What the extension does to a task, with the few classes of the CDK that it touches stood in for.
const CDK: &str = "
const calls = { environment: {}, dependsOn: [], dropped: [] };
const app = { addEnvironment: (name, value) => { calls.environment[name] = value },
    addContainerDependencies: on => calls.dependsOn.push({ containerName: on.container.name, condition: on.condition }) };
const task = { node: { children: [app, { notAContainer: true }] },
    addContainer: (name, options) => { calls.container = { name, ...options, linuxParameters: undefined }; return { name } } };
globalThis.calls = calls;
import('./egret.ts').then(({ Egret }) => {
    new Egret('image', 'policy', 'log').extend(task);
    console.log(JSON.stringify(calls));
});";
const CDK_ECS: &str = "export const Capability = { ALL: 'ALL' };
export const ContainerDependencyCondition = { HEALTHY: 'HEALTHY' };
export class LinuxParameters { dropCapabilities(...all) { globalThis.calls.dropped.push(...all) } }
";

#[test]
fn the_cdk_extension_adds_what_inject_adds() {
    let home = TempDir::new().expect("a temporary directory");
    let library = home.path().join("node_modules/aws-cdk-lib");
    fs::create_dir_all(library.join("aws-ecs")).expect("the test's directory is writable");
    for (file, text) in [
        ("package.json", r#"{"type": "module", "exports": {".": "./index.js", "./aws-ecs": "./aws-ecs/index.js"}}"#),
        ("index.js", "export const Duration = { seconds: n => n };\n"),
        ("aws-ecs/index.js", CDK_ECS),
    ] {
        fs::write(library.join(file), text).expect("the test's directory is writable");
    }
    fs::write(home.path().join("package.json"), r#"{"type": "module"}"#).expect("the test's directory is writable");
    fs::write(home.path().join("egret.ts"), read("cdk/egret.ts")).expect("the test's directory is writable");
    let ran = Program::at(&node()).dir(home.path()).args(["--no-warnings", "-e", CDK]).run();
    ends_well(&ran);
    let calls: Value = serde_json::from_str(&ran.stdout).expect("JSON");
    let task: Value = serde_json::from_str(&read("ecs/task.sidecar.json")).expect("JSON");
    let [web, egret] = &task["containerDefinitions"].as_array().expect("containers")[..] else { panic!("{task}") };
    let variables = web["environment"].as_array().expect("variables").iter().filter(|one| one["name"] != "STAGE");
    let variables: Value =
        variables.map(|one| (one["name"].as_str().expect("a name").to_owned(), one["value"].clone())).collect();
    assert_eq!((&calls["environment"], &calls["dependsOn"]), (&variables, &web["dependsOn"]));
    assert_eq!(json!({ "drop": calls["dropped"] }), egret["linuxParameters"]["capabilities"]);
    for key in ["name", "essential", "user", "readonlyRootFilesystem", "healthCheck", "stopTimeout"] {
        assert_eq!(calls["container"][key], egret[key], "{key}");
    }
}
