//! What egret does not change, each with its offender and the way out.

use super::super::{Delivery, Options, add, remove};
use super::{SAMPLES, options};
use crate::variables::Runtime;

/// The message for this text.
fn refused(text: &str, options: &Options) -> String {
    match add(text, None, options) {
        Err(error) => error.to_string(),
        Ok(added) => panic!("accepted:\n{}", added.text),
    }
}

/// The first sample with one part replaced.
fn ecs(from: &str, to: &str) -> String {
    changed(SAMPLES[0].0, from, to)
}

fn changed(text: &str, from: &str, to: &str) -> String {
    assert!(text.contains(from), "{from:?} is not in {text}");
    text.replacen(from, to, 1)
}

fn says(message: &str, parts: &[&str]) {
    for part in parts {
        assert!(message.contains(part), "{part:?} is not in: {message}");
    }
}

#[test]
fn what_is_no_task_definition() {
    let web = options("web");
    says(&refused("{\"a\": }", &web), &["line 1", "no JSON value"]);
    says(&refused("{\n \"a\": \"b", &web), &["line 2", "closing quote"]);
    says(&refused("{\"a\": 1} x", &web), &["after the end"]);
    says(&refused("a: [b\n", &web), &["line"]);
    says(&refused("", &web), &["no task definition is recognised", "containerDefinitions"]);
    says(&refused("{\"containerDefinitions\": [], \"containerDefinitions\": []}", &web), &["written twice"]);
    says(&refused(&"[".repeat(100_000), &web), &["nested too deep"]);
    says(&refused(&"- ".repeat(100_000), &web), &["line 1"]);
    says(&refused("Resources: {A: {Type: AWS::S3::Bucket}}", &web), &["AWS::ECS::TaskDefinition"]);
    says(&refused("apiVersion: v1\nkind: Service\n", &web), &["Deployment"]);
}

#[test]
fn tasks_that_share_no_loopback_or_run_windows() {
    let web = options("web");
    says(&refused(&ecs("\"awsvpc\"", "\"bridge\""), &web), &["is bridge", "networkMode: awsvpc"]);
    says(&refused(&ecs("\"networkMode\": \"awsvpc\",", ""), &web), &["not set, which means bridge"]);
    let windows = "\"family\": \"shop\", \"runtimePlatform\": {\"operatingSystemFamily\": \"WINDOWS_SERVER_2022_CORE\"},";
    says(&refused(&ecs("\"family\": \"shop\",", windows), &web), &["Windows"]);
    let pod = SAMPLES[5].0;
    says(&refused(&changed(pod, "      containers:", "      hostNetwork: true\n      containers:"), &web), &["hostNetwork"]);
    says(&refused(&changed(pod, "      containers:", "      os: {name: windows}\n      containers:"), &web), &["Windows"]);
    says(&refused(&changed(SAMPLES[7].0, "    ports:", "    network_mode: host\n    ports:"), &web), &["network_mode host"]);
}

#[test]
fn names_and_ports_that_are_taken() {
    let web = options("web");
    says(&refused(&ecs("\"name\": \"web\"", "\"name\": \"egret\""), &web), &["container egret", "--name"]);
    says(&refused(SAMPLES[0].0, &options("worker")), &["container worker", "there is: web"]);
    says(&refused(&ecs("8080", "3128"), &web), &["port 3128", "--listen"]);
    says(&refused(&ecs("8080", "3129"), &web), &["port 3129", "--admin"]);
    let second = "{\"name\": \"b\", \"image\": \"b\", \"portMappings\": [{\"containerPort\": 8080}]},\n        {\n            \"name\": \"web\"";
    says(&refused(&ecs("{\n            \"name\": \"web\"", second), &web), &["container web", "port 8080", "so has b"]);
    let twice = Options { wrap: true, containers: Vec::new(), ..web };
    let apps =
        ecs("{\n            \"name\": \"web\"", "{\"name\": \"b\", \"image\": \"b\"},\n        {\n            \"name\": \"web\"");
    says(&refused(&apps, &twice), &["2 containers of task family shop are to be wrapped", "--container"]);
}

#[test]
fn values_that_are_functions_aliases_or_shared() {
    let (template, web) = (SAMPLES[4].0, options("web"));
    let environment =
        changed(template, "          LogConfiguration:", "          Environment: !If [A, [], []]\n          LogConfiguration:");
    says(&refused(&environment, &web), &["ContainerDefinitions/web/Environment", "write it out"]);
    let container =
        changed(template, "        - Name: web\n", "        - !If [A, {Name: b}, !Ref AWS::NoValue]\n        - Name: web\n");
    says(&refused(&container, &web), &["ContainerDefinitions/#0", "no container"]);
    let function = "Resources:\n  T:\n    Type: AWS::ECS::TaskDefinition\n    Properties:\n      NetworkMode: awsvpc\n      ContainerDefinitions: !Ref X\n";
    says(&refused(function, &options("")), &["ContainerDefinitions", "written out"]);
    let project = SAMPLES[8].0;
    let merged = changed(project, "    depends_on: [db]", "    <<: *logging");
    says(&refused(&merged, &web), &["depends_on", "<<"]);
}

#[test]
fn what_an_alias_means_stays_what_it_was() {
    let web = options("web");
    let pod = |containers: &str, spec: &str, more: &str| {
        format!(
            "apiVersion: v1\nkind: List\nitems:\n- kind: Pod\n  apiVersion: v1\n  spec:{spec}\n    containers:{containers}\n{more}"
        )
    };
    let (list, item) = ("\n    - name: web\n      image: a", "\n    - &a\n      name: web\n      image: a");
    let thing = "- {kind: Thing, apiVersion: v1, spec: *a}\n";
    for text in [
        pod(&format!(" &a{list}"), "", thing),
        pod(item, "", thing),
        pod(list, " &a", thing),
        pod(&format!("{list}\n      env: &a [{{name: B, value: b}}]"), "", thing),
        pod(&format!("{list}\n      env: &a"), "", thing),
        pod(" &a [{name: web, image: a}]", "", thing),
        pod(list, "", "- *a\n").replace("- kind: Pod\n  apiVersion", "- &a\n  kind: Pod\n  apiVersion"),
        changed(SAMPLES[8].0, "    environment:\n", "    environment: &a\n") + "x-b: *a\n",
        changed(SAMPLES[8].0, "  web:\n", "  web: &a\n") + "x-b: {<<: *a}\n",
        changed(SAMPLES[8].0, "services:\n", "services: &a\n") + "x-b: *a\n",
    ] {
        says(&refused(&text, &web), &["anchor &a", "*a means the same elsewhere", "help: write out in the place of *a"]);
    }
    // Only the value is replaced here.
    let variables = "\n      env:\n      - {name: HTTPS_PROXY, value: &a \"http://corp\"}";
    let replace = Options { replace: true, ..web.clone() };
    says(&refused(&pod(&format!("{list}{variables}"), "", thing), &replace), &["anchor &a"]);
    // What no alias means, in this document, is no obstacle; nor is what stays as it is.
    for text in [
        pod(&format!(" &a{list}"), "", ""),
        pod(&format!(" &a{list}"), "", "---\n- *a\n"),
        pod(&format!("{list}\n      args: &a [b]"), "", thing),
    ] {
        super::there_and_back(&text, &web);
    }
}

#[test]
fn entrypoints_that_cannot_be_seen() {
    let wrap = Options { wrap: true, ..options("web") };
    says(&refused(SAMPLES[0].0, &wrap), &["container web", "no `entryPoint`", "--entrypoint 'web="]);
    says(
        &refused(&changed(SAMPLES[8].0, "    entrypoint:\n      - /app\n", "    entrypoint: /app --flag\n"), &wrap),
        &["is no list"],
    );
    // What the definition itself shows is not to be said twice.
    let arguments = ecs("\"environment\": []", "\"command\": [\"--all\"], \"environment\": []");
    says(&refused(&arguments, &wrap), &["shows its Entrypoint; the definition's `command` follows that"]);
    let given = Options { entrypoints: vec![("web".to_owned(), vec!["/bin/app".to_owned()])], ..wrap.clone() };
    let added = super::there_and_back(&arguments, &given);
    let json: serde_json::Value = serde_json::from_str(&added).expect("JSON");
    let web = &json["containerDefinitions"][0];
    assert_eq!(web["entryPoint"], serde_json::json!(["/opt/egret/egret", "run", "--", "/bin/app"]));
    assert_eq!(web["command"], serde_json::json!(["--all"]));
    says(&refused(SAMPLES[2].0, &wrap), &["the task of the bare list of containers is not shown", "volume"]);
}

#[test]
fn policies_that_are_not_there() {
    let volume = Options { policy: Delivery::Volume("policies".to_owned()), ..options("web") };
    says(&refused(SAMPLES[0].0, &volume), &["volume policies", "not defined"]);
    let secret = Options { policy: Delivery::Secret("policy".to_owned()), ..options("web") };
    says(&refused(SAMPLES[7].0, &secret), &["secret policy", "`secrets`"]);
    let wrap = Options { wrap: true, ..options("web") };
    let own =
        ecs("\"environment\": []", "\"entryPoint\": [\"/a\"], \"environment\": [{\"name\": \"EGRET_POLICY\", \"value\": \"x\"}]");
    says(&refused(&own, &wrap), &["EGRET_POLICY already"]);
}

/// Adds `more` to the app of a sample behind a line of it, and wraps that.
fn wrapped(sample: usize, behind: &str, more: &str, options: &Options) -> (String, Options) {
    let entrypoints = vec![("web".to_owned(), vec!["/a".to_owned()])];
    let wrap = Options { wrap: true, entrypoints, ..options.clone() };
    (changed(SAMPLES[sample].0, behind, &format!("{behind}{more}")), wrap)
}

#[test]
fn variables_of_egret_in_a_container_that_it_wraps() {
    let secret = Options { policy: Delivery::Secret("a".to_owned()), ..options("web") };
    let none = Options { policy: Delivery::None, mode: None, ..options("web") };
    let pod = "          image: example/shop:1\n          command: [\"/app\"]   # start\n          env:\n";
    for (sample, behind, more, told) in [
        (0, "\"environment\": [", "{\"name\": \"EGRET_CONFINE\", \"value\": \"off\"}", "EGRET_CONFINE already"),
        (0, "\"environment\": [", "{\"name\": \"\\u0045GRET_MODE\", \"value\": \"audit\"}", "EGRET_MODE already"),
        (0, "\"mountPoints\": [],", "\"secrets\": [{\"name\": \"EGRET_POLICY\", \"valueFrom\": \"x\"}],", "EGRET_POLICY already"),
        (
            4,
            "          Image: !Sub \"${Repo}:1\"\n",
            "          Secrets: [{Name: EGRET_JOURNAL, ValueFrom: x}]\n",
            "EGRET_JOURNAL already",
        ),
        (4, "          Image: !Sub \"${Repo}:1\"\n", "          Environment: [{Name: !Ref X, Value: x}]\n", "cannot be read"),
        (4, "          Image: !Sub \"${Repo}:1\"\n", "          Environment: !Ref X\n", "not written out"),
        (4, "          Image: !Sub \"${Repo}:1\"\n", "          Environment: {Fn::If: [a, [], []]}\n", "cannot be read"),
        (5, pod, "            - {name: EGRET_FLOWS, value: \"0\"}\n", "EGRET_FLOWS already"),
        (5, pod, "            - {name: EGRET_MODE, valueFrom: {configMapKeyRef: {name: a, key: b}}}\n", "EGRET_MODE already"),
        (8, "      - MODE=prod\n", "      - EGRET_MODE=audit\n", "EGRET_MODE already"),
        (8, "      - MODE=prod\n", "      - EGRET_MODE\n", "EGRET_MODE already"),
        (8, "      - MODE=prod\n", "      - ${X}=audit\n", "cannot be read"),
        (7, "    image: example/shop:1\n", "    environment: {EGRET_MODE: audit}\n", "EGRET_MODE already"),
        (7, "    image: example/shop:1\n", "    environment: {<<: *x}\n", "cannot be read"),
        (7, "    image: example/shop:1\n", "    <<: *x\n", "come from elsewhere"),
    ] {
        for given in [&secret, &none] {
            let (text, wrap) = wrapped(sample, behind, more, given);
            says(&refused(&text, &wrap), &[told, "help: "]);
        }
    }
    // Beside the app its variables are its own affair.
    let (text, wrap) = wrapped(8, "      - MODE=prod\n", "      - EGRET_MODE=audit\n", &none);
    add(&text, None, &Options { wrap: false, entrypoints: Vec::new(), ..wrap }).unwrap();
}

#[test]
fn variables_from_files_are_warned_of_where_egret_would_obey_them() {
    for (sample, behind, more, told) in [
        (
            0,
            "\"mountPoints\": [],",
            "\"environmentFiles\": [{\"value\": \"x\", \"type\": \"s3\"}],",
            "web`: environmentFiles brings",
        ),
        (5, "          image: example/shop:1\n", "          envFrom: [{configMapRef: {name: a}}]\n", "web`: envFrom brings"),
        (7, "    image: example/shop:1\n", "    env_file: .env\n", "web`: env_file brings"),
        (7, "    image: example/shop:1\n", "    extends: {file: a.yaml, service: b}\n", "web`: extends brings"),
    ] {
        let (text, wrap) = wrapped(sample, behind, more, &options("web"));
        let warnings = |options: &Options| add(&text, None, options).unwrap_or_else(|e| panic!("{e}")).warnings;
        assert!(warnings(&wrap).iter().any(|one| one.contains(told)), "{told}: {:?}", warnings(&wrap));
        let beside = Options { wrap: false, entrypoints: Vec::new(), ..wrap };
        assert!(!warnings(&beside).iter().any(|one| one.contains(told)));
    }
}

#[test]
fn passwords_that_would_go_into_the_record() {
    let replace = Options { replace: true, runtimes: vec![Runtime::Java], ..options("web") };
    let pod = |name: &str, value: &str| {
        changed(
            SAMPLES[5].0,
            "HTTP_PROXY\n              value: http://corp:3128",
            &format!("{name}\n              value: {value}"),
        )
    };
    for (text, name) in [
        (changed(SAMPLES[1].0, "http://corp", "http://user:hidden@corp"), "HTTPS_PROXY"),
        (changed(SAMPLES[1].0, "http://corp", "http:\\/\\/user:hidden\\u0040corp"), "HTTPS_PROXY"),
        (changed(SAMPLES[8].0, "http://corp", "http://user:hidden@corp"), "https_proxy"),
        (pod("HTTP_PROXY", "hidden@corp:3128"), "HTTP_PROXY"),
        (pod("http_proxy", "http://u:hidden/x@corp:3128"), "http_proxy"),
        (pod("JAVA_TOOL_OPTIONS", "-Dhttp.proxyUser=u -Dhttp.proxyPassword=hidden"), "JAVA_TOOL_OPTIONS"),
        (pod("JAVA_TOOL_OPTIONS", "-Dx=http://u:hidden@corp"), "JAVA_TOOL_OPTIONS"),
    ] {
        let message = refused(&text, &replace);
        says(&message, &[name, "user or password", "by hand"]);
        assert!(!message.contains("hidden"), "{message}");
        // It stays where it is without --override, and is written nowhere else.
        let kept = add(&text, None, &Options { replace: false, ..replace.clone() }).unwrap();
        assert_eq!(kept.text.matches("hidden").count(), 1, "{}", kept.text);
        assert!(!kept.warnings.iter().any(|one| one.contains("hidden")), "{:?}", kept.warnings);
    }
}

#[test]
fn of_several_objects_the_one_that_is_meant_is_named() {
    let web = options("web");
    let good =
        "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: good}\nspec: {template: {spec: {containers: [{name: web}]}}}\n";
    let other = |from: &str, to: &str| format!("{good}---\n{}", changed(good, from, to));
    for (from, to, told) in [
        ("name: web", "name: b", "container web of Deployment good does not exist\nhelp: there is: b"),
        ("name: web", "name: egret", "container egret of Deployment good exists already, and egret did not add it\nhelp: "),
        ("[{name: web}]", "*x", "`containers` of Deployment good is no list"),
        ("{name: good}", "{name: b, namespace: c}", ""),
        ("{containers", "{hostNetwork: true, containers", "`hostNetwork` of Deployment good is true"),
        ("{name: web}", "{name: web, env: {a: b}}", "`containers/web/env` of Deployment good has a value that is"),
    ] {
        let text = other(from, to);
        if told.is_empty() {
            super::there_and_back(&text, &web);
        } else {
            says(&refused(&text, &web), &[told]);
        }
    }
    let named = other("name: good}", "name: \"c\\e[31m\", namespace: a}");
    let named = named.replace("a}\nspec: {template: {spec: {", "a}\nspec: {template: {spec: {hostNetwork: true, ");
    says(&refused(&named, &web), &["of Deployment a/c\\u{1b}[31m is"]);
    let template = |mode: &str| {
        let task = |name: &str, mode: &str| {
            format!(
                "  {name}: {{Type: AWS::ECS::TaskDefinition, Properties: {{NetworkMode: {mode}, ContainerDefinitions: [{{Name: web}}]}}}}\n"
            )
        };
        format!("Resources:\n{}{}", task("One", "awsvpc"), task("Two", mode))
    };
    says(&refused(&template("host"), &web), &["the network mode of resource Two is host"]);
    let warnings = add(&template("!Ref Mode"), None, &web).unwrap().warnings;
    assert_eq!(warnings, ["resource Two: the network mode is a function: it has to become awsvpc"]);
    let added = super::there_and_back(&template("awsvpc"), &web);
    let (before, second) = added.split_at(added.rfind("web/DependsOn=").expect("a record"));
    let changed = format!("{before}{}", second.replacen("DependsOn", "Gone", 1));
    says(&remove(&changed, None).unwrap_err().to_string(), &["`ContainerDefinitions/web/Gone` of resource Two is not as"]);
}

#[test]
fn dependencies_that_are_not_written_out() {
    let text = changed(SAMPLES[8].0, "depends_on: [db]", "depends_on: [*db]");
    says(
        &refused(&text, &options("web")),
        &["`services/web/depends_on` of the project", "not written out", "help: write the name"],
    );
}

#[test]
fn several_services_are_not_all_apps() {
    says(&refused(SAMPLES[7].0, &options("")), &["several", "web, db"]);
}
