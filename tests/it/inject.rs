//! `egret inject` as people use it: text in, text out, and what other programs read in it. That what was added goes again
//! without a trace is proven over many forms of each sample beside the code.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::egret::egret_program;
use crate::support::programs::Output;
use crate::support::{Program, run_egret};

const IMAGE: &str = "example/egret@sha256:0123";

fn sample(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/inject").join(name);
    fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

fn inject(args: &[&str], text: &str) -> Output {
    run_egret([&["inject", "--image", IMAGE], args].concat(), text)
}

fn injected(args: &[&str], text: &str) -> String {
    let output = inject(args, text);
    assert_eq!(output.code, 0, "{output:?}");
    output.stdout
}

/// As Python's YAML reads it, with tags as mappings; one value for each document.
fn yaml(text: &str) -> Vec<Value> {
    const READ: &str = "
import json, sys, yaml
def tagged(loader, suffix, node):
    build = {yaml.ScalarNode: loader.construct_scalar, yaml.SequenceNode: loader.construct_sequence}.get(type(node), loader.construct_mapping)
    return {suffix: build(node)}
yaml.SafeLoader.add_multi_constructor('!', tagged)
print(json.dumps(list(yaml.safe_load_all(sys.stdin.read()))))";
    let read = Program::at(Path::new("/usr/bin/python3")).args(["-c", READ]).stdin(text.as_bytes()).run();
    assert_eq!(read.code, 0, "python3-yaml does not read it: {}\n{text}", read.stderr);
    serde_json::from_str(&read.stdout).expect("JSON")
}

fn variable<'v>(list: &'v Value, name: &str) -> &'v Value {
    let list = list.as_array().expect("a list of variables");
    list.iter().find(|one| one["name"] == name || one["Name"] == name).unwrap_or_else(|| panic!("no {name} in {list:?}"))
}

#[test]
fn ecs_has_a_sidecar_that_the_app_waits_for() {
    let task: Value = serde_json::from_str(&injected(&["--allow", "api.example.com"], &sample("ecs.json"))).expect("JSON");
    let [web, egret] = &task["containerDefinitions"].as_array().expect("containers")[..] else { panic!("{task}") };
    assert_eq!(web["dependsOn"], json!([{ "containerName": "egret", "condition": "HEALTHY" }]));
    for name in ["HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy"] {
        assert_eq!(variable(&web["environment"], name)["value"], "http://127.0.0.1:3128");
    }
    assert_eq!(variable(&egret["environment"], "EGRET_ALLOW")["value"], "api.example.com");
    // Fields that the platform has its own idea of where they are left out.
    for (key, value) in [
        ("essential", json!(true)),
        ("user", json!("65534:65534")),
        ("readonlyRootFilesystem", json!(true)),
        ("linuxParameters", json!({ "capabilities": { "drop": ["ALL"] } })),
        ("stopTimeout", json!(30)),
        ("logConfiguration", web["logConfiguration"].clone()),
    ] {
        assert_eq!(egret[key], value, "{key}");
    }
    // Exec form: the image has no shell. The bounds are those of the ECS API: interval 5 to 300, timeout 2 to 60, retries 1 to 10.
    assert_eq!(egret["healthCheck"]["command"], json!(["CMD", "/egret", "health"]));
    assert!(egret["healthCheck"]["interval"].as_u64() >= Some(5) && egret["healthCheck"]["timeout"].as_u64() >= Some(2));
}

#[test]
fn ecs_starts_the_app_by_egret_with_wrap() {
    let entrypoint = r#"web=["/bin/serve", "--all"]"#;
    let text = injected(&["--allow", "api.example.com", "--wrap", "--entrypoint", entrypoint], &sample("ecs.json"));
    let task: Value = serde_json::from_str(&text).expect("JSON");
    let [web, egret] = &task["containerDefinitions"].as_array().expect("containers")[..] else { panic!("{task}") };
    assert_eq!(web["entryPoint"], json!(["/opt/egret/egret", "run", "--", "/bin/serve", "--all"]));
    assert_eq!(web["dependsOn"], json!([{ "containerName": "egret", "condition": "SUCCESS" }]));
    assert_eq!(variable(&web["environment"], "EGRET_ALLOW")["value"], "api.example.com");
    assert_eq!(web["mountPoints"][0], json!({ "sourceVolume": "egret-bin", "containerPath": "/opt/egret", "readOnly": true }));
    // A container that others wait for by SUCCESS must not be essential.
    assert_eq!((&egret["essential"], &egret["command"]), (&json!(false), &json!(["install", "/opt/egret"])));
    assert_eq!(task["volumes"], json!([{ "name": "egret-bin" }]));
}

#[test]
fn policies_come_by_secret_and_volume() {
    let arn = "arn:aws:ssm:eu-west-1:111122223333:parameter/egret";
    let task: Value = serde_json::from_str(&injected(&["--policy-secret", arn], &sample("ecs.json"))).expect("JSON");
    assert_eq!(task["containerDefinitions"][1]["secrets"], json!([{ "name": "EGRET_POLICY", "valueFrom": arn }]));
    let pods = yaml(&injected(&["--policy-volume", "egress"], &sample("deployment.yaml")));
    let spec = &pods[0]["spec"]["template"]["spec"];
    assert_eq!(spec["volumes"], json!([{ "name": "egret-policy", "configMap": { "name": "egress" } }]));
    let mount = json!({ "name": "egret-policy", "mountPath": "/etc/egret", "readOnly": true });
    assert_eq!(spec["initContainers"][0]["volumeMounts"], json!([mount]));
    let secret = yaml(&injected(&["--policy-secret", "egress/text"], &sample("deployment.yaml")));
    let from = &variable(&secret[0]["spec"]["template"]["spec"]["initContainers"][0]["env"], "EGRET_POLICY")["valueFrom"];
    assert_eq!(*from, json!({ "secretKeyRef": { "name": "egress", "key": "text" } }));
}

#[test]
fn kubernetes_has_a_native_sidecar_before_all_others() {
    let documents = yaml(&injected(&["--mode", "audit"], &sample("list.yaml")));
    let spec = &documents[0]["items"][0]["spec"]["jobTemplate"]["spec"]["template"]["spec"];
    let egret = &spec["initContainers"][0];
    assert_eq!((&egret["name"], &egret["restartPolicy"]), (&json!("egret"), &json!("Always")));
    assert_eq!(egret["startupProbe"]["exec"]["command"], json!(["/egret", "health"]));
    assert_eq!(egret["securityContext"]["capabilities"], json!({ "drop": ["ALL"] }));
    assert_eq!(egret["securityContext"]["runAsNonRoot"], json!(true));
    for container in [&spec["initContainers"][1], &spec["containers"][0]] {
        assert_eq!(variable(&container["env"], "HTTPS_PROXY")["value"], "http://127.0.0.1:3128");
    }
    let one = &documents[0]["items"][1]["spec"];
    assert_eq!(one["initContainers"][0]["name"], "egret");
}

#[test]
fn cloudformation_keeps_its_functions() {
    let template = &yaml(&injected(&["--mode", "audit"], &sample("cloudformation.yaml")))[0];
    let containers = &template["Resources"]["Task"]["Properties"]["ContainerDefinitions"];
    assert_eq!(containers[0]["Image"], json!({ "Sub": "${Repo}:1" }));
    assert_eq!(containers[1]["LogConfiguration"], containers[0]["LogConfiguration"]);
    assert_eq!(containers[1]["LogConfiguration"]["Options"]["awslogs-group"], json!({ "Ref": "Logs" }));
    let json: Value = serde_json::from_str(&injected(&["--mode", "audit"], &sample("template.json"))).expect("JSON");
    let containers = &json["Resources"]["Task"]["Properties"]["ContainerDefinitions"];
    assert_eq!(containers[1]["LogConfiguration"]["Options"]["awslogs-group"], json!({ "Ref": "Logs" }));
    assert_eq!(variable(&containers[0]["Environment"], "https_proxy")["Value"], "http://127.0.0.1:3128");
}

#[test]
fn compose_reaches_egret_by_its_name() {
    let project = &yaml(&injected(&["--mode", "audit", "--container", "web"], &sample("project.yaml")))[0];
    let (web, egret) = (&project["services"]["web"], &project["services"]["egret"]);
    assert_eq!(web["depends_on"]["egret"], json!({ "condition": "service_healthy" }));
    assert_eq!(web["depends_on"]["db"], json!({ "condition": "service_started" }));
    assert!(web["environment"].as_array().expect("a list").contains(&json!("http_proxy=http://egret:3128")), "{web}");
    assert_eq!((&egret["networks"], &egret["environment"]["EGRET_LISTEN"]), (&json!(["front"]), &json!("0.0.0.0:3128")));
}

#[test]
fn a_diff_is_what_patch_applies() {
    let (home, text) = (TempDir::new().expect("a temporary directory"), sample("deployment.yaml"));
    let file = home.path().join("deployment.yaml");
    fs::write(&file, &text).expect("the test's directory is writable");
    let diff = injected(&["--mode", "audit", "--diff"], &text);
    assert!(diff.starts_with("--- ") && diff.contains("\n+      initContainers:"), "{diff}");
    let patched = Program::new("patch").dir(home.path()).arg("deployment.yaml").stdin(diff.as_bytes()).run();
    assert_eq!(patched.code, 0, "{patched:?}");
    let added = injected(&["--mode", "audit"], &text);
    assert_eq!(fs::read_to_string(&file).expect("the file is there"), added);
    let removed = run_egret(["inject", "--remove"], &added);
    assert_eq!((removed.code, removed.stdout), (0, text));
}

#[test]
fn a_long_policy_is_packed_and_a_bad_one_refused() {
    let home = TempDir::new().expect("a temporary directory");
    let policy = home.path().join("policy.yaml");
    let rules: String = (0..400).map(|n| format!("    - host-{n}.example.com\n")).collect();
    fs::write(&policy, format!("version: 1\negress:\n  allow:\n{rules}")).expect("a policy");
    let path = policy.display().to_string();
    let task: Value = serde_json::from_str(&injected(&["--policy", &path], &sample("ecs.json"))).expect("JSON");
    let packed = variable(&task["containerDefinitions"][1]["environment"], "EGRET_POLICY")["value"].as_str().expect("a text");
    assert!(packed.starts_with("gz:"), "{packed}");
    let explained = egret_program().env("EGRET_POLICY", packed).args(["explain", "host-399.example.com"]).run();
    assert_eq!(explained.code, 0, "{explained:?}");
    fs::write(&policy, "version: 1\nmod: x\n").expect("a policy");
    let refused = inject(&["--policy", &path], &sample("ecs.json"));
    assert!(refused.code == 2 && refused.stdout.is_empty() && refused.stderr.contains("the policy is invalid"), "{refused:?}");
}

#[test]
fn wrong_usage_prints_nothing_and_says_what_to_do() {
    let task = sample("ecs.json");
    for (args, told) in [
        (&["inject", "--mode", "audit"][..], "--image is missing"),
        (&["inject", "--image", "", "--mode", "audit"], "--image is missing"),
        (&["inject", "--image", "e", "--allow", "good.test a..b"], "a..b"),
        (&["inject", "--image", "e", "--mode", "audit", "--direct", "a b"], "no name or address"),
        (&["inject", "--image", "e"], "to observe first, give --mode audit"),
        (&["inject", "--image", "e", "--mode", "audit", "--wrap", "--entrypoint", "web=/app"], "JSON list"),
        (&["inject", "--image", "e", "--mode", "audit", "--direct", "*.corp"], "write the domain with a dot"),
        (&["inject", "--image", "e", "--mode", "audit", "--name", "a/b"], "letters, digits and dashes"),
        (&["inject", "--image", "e", "--mode", "audit", "--listen", "127.0.0.1:0"], "name a port"),
        (&["inject", "--image", "e", "--mode", "audit", "--admin", "[::]:0"], "name a port"),
        (&["inject", "--remove", "--wrap"], "cannot be used with"),
        (&["inject", "--remove"], "egret has added nothing here"),
        (&["inject", "--image", "e", "--mode", "audit", "--format", "compose"], "the text holds no `services`"),
    ] {
        let output = run_egret(args, &task);
        assert!(output.code == 2 && output.stdout.is_empty() && output.stderr.contains(told), "{args:?}: {output:?}");
    }
    let binary = egret_program().args(["inject", "--image", "e", "--mode", "audit"]).stdin(b"\xff\xfe{").run();
    assert!(binary.code == 2 && binary.stderr.contains("UTF-8"), "{binary:?}");
    let long = egret_program().args(["inject", "--remove"]).stdin(&vec![b' '; 9 << 20]).run();
    assert!(long.code == 2 && long.stderr.contains("8 MiB"), "{long:?}");
}

#[test]
fn install_copies_the_program_to_where_it_can_be_started() {
    let home = TempDir::new().expect("a temporary directory");
    for _ in 0..2 {
        let installed = egret_program().arg("install").arg(home.path()).run();
        assert_eq!(installed.code, 0, "{installed:?}");
    }
    let copy = home.path().join("egret");
    assert_eq!(fs::metadata(&copy).expect("the copy").permissions().mode() & 0o777, 0o755);
    assert_eq!(Program::at(&copy).arg("--version").run().stdout, run_egret(["--version"], "").stdout);
    assert_eq!(fs::read_dir(home.path()).expect("the folder").count(), 1, "nothing else is left");
    let nowhere = egret_program().args(["install", "/nonexistent"]).run();
    assert!(nowhere.code == 3 && nowhere.stderr.contains("/nonexistent"), "{nowhere:?}");
}

/// As in a container: the process is number 1, and the umask may be anybody's.
#[test]
fn install_leaves_what_is_not_its_own_and_asks_no_umask() {
    let home = TempDir::new().expect("a temporary directory");
    let left = home.path().join(".egret.1");
    fs::write(&left, "left over").expect("the test's directory is writable");
    let script = format!("umask 077 && exec {} install {}", env!("CARGO_BIN_EXE_egret"), home.path().display());
    let install = || Program::new("unshare").args(["-r", "-p", "-f", "sh", "-ec", &script]).run();
    let installed = install();
    assert_eq!(installed.code, 0, "{installed:?}");
    let copy = home.path().join("egret");
    assert_eq!(fs::metadata(&copy).expect("the copy").permissions().mode() & 0o777, 0o755);
    // It cannot take the place of a folder, and what it made by then goes again.
    fs::remove_file(&copy).expect("the test's own file");
    fs::create_dir(&copy).expect("the test's directory is writable");
    assert_eq!(install().code, 3);
    assert_eq!(fs::read_dir(home.path()).expect("the folder").count(), 2, "only the folder and what was left over");
    assert_eq!(fs::read_to_string(&left).expect("it is still there"), "left over");
}
