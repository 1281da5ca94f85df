//! What goes in and comes out again, for every sample and however it is written; and what is refused.

mod mutations;
mod refusals;

use serde_json::Value;

use super::{Delivery, Format, InjectError, Options, add, remove};
use crate::variables::Runtime;

/// Every sample, with the container that is an app.
const SAMPLES: [(&str, &str); 9] = [
    (include_str!("../../tests/inject/ecs.json"), "web"),
    (include_str!("../../tests/inject/described.json"), "web"),
    (include_str!("../../tests/inject/containers.json"), "web"),
    (include_str!("../../tests/inject/template.json"), ""),
    (include_str!("../../tests/inject/cloudformation.yaml"), "web"),
    (include_str!("../../tests/inject/deployment.yaml"), "web"),
    (include_str!("../../tests/inject/list.yaml"), "job"),
    (include_str!("../../tests/inject/compose.yaml"), "web"),
    (include_str!("../../tests/inject/project.yaml"), "web"),
];

const POLICY: &str = "version: 1\nsets:\n  payments: [api.example.com]\negress:\n  allow:\n    - to: $payments # $(x)\n";

fn options(container: &str) -> Options {
    Options {
        image: "example/egret@sha256:0".to_owned(),
        name: "egret".to_owned(),
        containers: Some(container.to_owned()).filter(|name| !name.is_empty()).into_iter().collect(),
        listen: "127.0.0.1:3128".parse().unwrap(),
        admin: "127.0.0.1:3129".parse().unwrap(),
        runtimes: vec![Runtime::Node, Runtime::Java],
        direct: vec!["corp.example".to_owned()],
        policy: Delivery::Text(POLICY.to_owned()),
        mode: None,
        replace: false,
        wrap: false,
        entrypoints: Vec::new(),
    }
}

/// In all the ways that change a text differently.
fn ways(container: &str) -> Vec<Options> {
    let plain = options(container);
    let observe = Options { policy: Delivery::None, mode: Some("audit"), runtimes: Vec::new(), ..plain.clone() };
    let replace = Options { replace: true, policy: Delivery::Allow("a.example b.example".to_owned()), ..plain.clone() };
    let entrypoints = if container == "web" { vec![(container.to_owned(), vec!["/bin/app".to_owned()])] } else { Vec::new() };
    vec![Options { wrap: true, entrypoints, ..plain.clone() }, plain, observe, replace]
}

/// Adds and takes away again; the text with the additions.
fn there_and_back(text: &str, options: &Options) -> String {
    let added = add(text, None, options).unwrap_or_else(|error| panic!("{error}\n{options:?}\n{text}")).text;
    assert_eq!(remove(&added, None).as_deref(), Ok(text), "{added}");
    assert_eq!(add(&added, None, options).unwrap().text, added, "a second time changes it");
    added
}

/// A bare list has no volumes to wrap by.
fn fits(text: &str, options: &Options) -> bool {
    !(options.wrap && text.starts_with('['))
}

#[test]
fn what_was_added_goes_without_a_trace() {
    for (text, container) in SAMPLES {
        for options in ways(container).iter().filter(|options| fits(text, options)) {
            let added = there_and_back(text, options);
            assert!(added.contains("example/egret@sha256:0"), "{added}");
        }
    }
}

#[test]
fn nothing_is_taken_away() {
    for (text, container) in SAMPLES {
        // The short form of depends_on is written out.
        let text: String =
            text.split_inclusive('\n').filter(|line| !line.contains("depends_on") && !line.contains("- db")).collect();
        let added = there_and_back(&text, &options(container));
        let mut rest = added.chars();
        assert!(text.chars().all(|c| rest.any(|after| after == c)), "{added}");
    }
}

#[test]
fn json_keeps_its_keys_and_their_order() {
    for (text, container) in &SAMPLES[..4] {
        let (before, after): (Value, Value) =
            (serde_json::from_str(text).unwrap(), serde_json::from_str(&there_and_back(text, &options(container))).unwrap());
        assert!(holds(&after, &before), "{after:#}");
    }
}

/// Whether the first holds all of the second, in its order.
fn holds(after: &Value, before: &Value) -> bool {
    match (after, before) {
        (Value::Object(after), Value::Object(before)) => {
            let mut rest = after.iter();
            before.iter().all(|(key, value)| rest.any(|(other, there)| other == key && holds(there, value)))
        }
        (Value::Array(after), Value::Array(before)) => {
            let mut rest = after.iter();
            before.iter().all(|value| rest.any(|there| holds(there, value)))
        }
        (after, before) => after == before,
    }
}

#[test]
fn another_image_takes_the_place_of_the_first() {
    for (text, container) in SAMPLES {
        let first = there_and_back(text, &options(container));
        let second = Options { image: "example/egret:2".to_owned(), runtimes: Vec::new(), ..options(container) };
        let updated = add(&first, None, &second).unwrap().text;
        assert_eq!(updated, add(text, None, &second).unwrap().text);
    }
}

#[test]
fn values_that_others_put_beside_ours_stay() {
    let added = there_and_back(SAMPLES[0].0, &options("web"));
    let theirs = "{\n                    \"name\": \"THEIRS\",\n                    \"value\": \"1\"\n                },\n                ";
    let changed = added.replacen(
        "{\n                    \"name\": \"HTTPS_PROXY\"",
        &format!("{theirs}{{\n                    \"name\": \"HTTPS_PROXY\""),
        1,
    );
    assert_ne!(changed, added);
    let back = remove(&changed, None).unwrap();
    assert!(back.contains("THEIRS") && !back.contains("_PROXY") && !back.contains("egret"), "{back}");
    assert!(serde_json::from_str::<Value>(&back).is_ok(), "{back}");
}

#[test]
fn a_record_that_does_not_fit_touches_nothing() {
    let added = there_and_back(SAMPLES[0].0, &options("web"));
    for record in [
        "1 nowhere=",
        "1 containerDefinitions/web/environment+99",
        "1 containerDefinitions+x",
        "2 a=",
        "1 containerDefinitions/web/name~%F",
    ] {
        let start = added.find("\"1 containerDefinitions").unwrap();
        let end = added[start + 1..].find('"').unwrap() + start + 1;
        let hostile = format!("{}\"{record}{}", &added[..start], &added[end..]);
        assert!(matches!(remove(&hostile, None), Err(InjectError::Changed(_))), "{record}");
    }
}

#[test]
fn what_is_set_already_stays_unless_it_is_to_be_replaced() {
    let text = SAMPLES[1].0;
    let kept = add(text, None, &options("web")).unwrap();
    assert!(
        kept.text.contains("corp.example:3128") && kept.warnings.iter().any(|one| one.contains("HTTPS_PROXY is set already"))
    );
    for why in ["*.corp.example\": curl", "10.0.0.0/8", "http_proxy is set already and stays: its value is not written here"] {
        assert!(kept.warnings.iter().any(|one| one.contains(why)), "{why}: {:?}", kept.warnings);
    }
    let replaced = add(text, None, &Options { replace: true, ..options("web") }).unwrap();
    assert!(replaced.text.contains("\"HTTPS_PROXY\", \"value\": \"http://127.0.0.1:3128\""), "{}", replaced.text);
}

#[test]
fn log_routers_start_before_egret_and_are_left_alone() {
    let added = add(SAMPLES[1].0, None, &Options { containers: Vec::new(), ..options("") }).unwrap().text;
    let json: Value = serde_json::from_str(&added).unwrap();
    let containers = &json["taskDefinition"]["containerDefinitions"];
    assert_eq!(containers[0]["dependsOn"][0]["containerName"], "egret");
    assert_eq!(containers[1].get("dependsOn"), None);
    assert_eq!(containers[2]["logConfiguration"], containers[0]["logConfiguration"]);
}

#[test]
fn lists_are_indented_as_those_around_them() {
    let out = "apiVersion: v1\nkind: Pod\nspec:\n  containers:\n  - image: a\n    name: job\n    env:\n    command:\n    - /a\n";
    let added = there_and_back(out, &options("job"));
    assert!(
        added.contains("    env:\n    - name: HTTP_PROXY\n      value: ")
            && added.contains("  initContainers:\n  - name: egret\n"),
        "{added}"
    );
    let further_in = out.replace(
        "  - image: a\n    name: job\n    env:\n    command:\n    - /a",
        "    - image: a\n      name: job\n      env:\n",
    );
    let added = there_and_back(&further_in, &options("job"));
    assert!(added.contains("      env:\n        - name: HTTP_PROXY\n          value: "), "{added}");
}

#[test]
fn dollars_mean_what_they_meant() {
    let compose = there_and_back(SAMPLES[7].0, &options("web"));
    assert!(compose.contains("to: $$payments # $$(x)"), "{compose}");
    let pod = there_and_back(SAMPLES[5].0, &options("web"));
    assert!(pod.contains("to: $payments # $$(x)"), "{pod}");
}

#[test]
fn a_long_form_is_chosen_by_what_a_text_looks_like() {
    assert!(matches!(add("services: {}", Some(Format::Ecs), &options("")), Err(InjectError::Nothing(_))));
    assert_eq!(add("a: 1\n", None, &options("")).unwrap_err(), InjectError::Unknown);
    assert_eq!(remove(SAMPLES[0].0, None).unwrap_err(), InjectError::NotInjected);
}
