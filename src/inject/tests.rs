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

/// docs/inject.md names what else changes: values of proxy variables that are to be replaced, and the short form of depends_on.
#[test]
fn nothing_is_taken_away() {
    for (text, container) in SAMPLES {
        let text: String =
            text.split_inclusive('\n').filter(|line| !line.contains("depends_on") && !line.contains("- db")).collect();
        for options in ways(container).iter().filter(|options| !options.replace && fits(&text, options)) {
            let added = there_and_back(&text, options);
            let mut rest = added.chars();
            assert!(text.chars().all(|c| rest.any(|after| after == c)), "{added}");
        }
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

/// A sample with egret in place of other proxies, and its record changed.
fn forged(sample: usize, from: &str, to: &str) -> (String, String) {
    let added = there_and_back(SAMPLES[sample].0, &Options { replace: true, ..options("web") });
    let forged = added.replacen(from, to, 1);
    assert_ne!(forged, added, "{from:?} is not in {added}");
    (added, forged)
}

#[test]
fn a_record_puts_back_nothing_but_what_egret_replaces() {
    let value = "HTTPS_PROXY/value~%22http%3A%2F%2Fcorp.example%3A3128%22";
    let item = "https_proxy~https_proxy%3Dhttp%3A%2F%2Fcorp.example%3A3128";
    for (sample, from, to) in [
        // More than the value; another container; a key of another one.
        (1, value, "HTTPS_PROXY/value~%22a%22%2C%22x%22%3A%22b%22"),
        (1, value, "HTTPS_PROXY/value~%22a%22%7D%2C%7B%22name%22%3A%22EVIL%22%2C%22value%22%3A%22b%22"),
        (1, value, "HTTPS_PROXY/value~%5B%22a%22%5D"),
        (1, value, "HTTPS_PROXY/value~"),
        (1, value, "HTTPS_PROXY/name~%22LD_PRELOAD%22"),
        (1, "web/environment/HTTPS_PROXY/value~", "web/image~"),
        (1, "web/environment/HTTPS_PROXY/value~", "web/environment~"),
        // Twice, and in what another step takes out.
        (1, value, &format!("{value} containerDefinitions/web/environment/{value}")),
        (1, "HTTPS_PROXY/value~", "NODE_USE_ENV_PROXY/value~"),
        // The word that is compared with.
        (1, "\"family\": \"shop\"", "\"family\": \"put-back-by-egret-\\u0030\""),
        (8, item, "https_proxy~LD_PRELOAD%3D%2Fevil.so"),
        (8, item, "https_proxy~https_proxy%3Da%0A%20%20%20%20%20%20-%20EVIL%3Db"),
        (8, item, "https_proxy~https_proxy%3Da%0A%20%20%20%20privileged%3A%20true"),
        (8, item, "https_proxy~%26x%20https_proxy%3Da"),
        (8, item, "https_proxy~%21x%20https_proxy%3Da"),
        (8, "depends_on~%5Bdb%5D", "depends_on~%5Bdb%5D%0A%20%20%20%20privileged%3A%20true"),
        (8, "depends_on~%5Bdb%5D", "depends_on~%7Bdb%3A%20x%7D"),
        (8, "depends_on~%5Bdb%5D", "depends_on~%5B%5Bdb%5D%5D"),
    ] {
        let (_, forged) = forged(sample, from, to);
        assert!(matches!(remove(&forged, None), Err(InjectError::Changed(_))), "{to}: {:?}", remove(&forged, None));
        assert!(matches!(add(&forged, None, &options("web")), Err(InjectError::Changed(_))), "{to}");
    }
    // Another value of the same kind is as good as the first.
    let (_, other) = forged(1, value, "HTTPS_PROXY/value~%22http%3A%2F%2Fother%22");
    assert_eq!(remove(&other, None).unwrap(), SAMPLES[1].0.replace("http://corp.example:3128", "http://other"));
}

#[test]
fn a_record_takes_no_other_keys_away() {
    for step in ["web/logConfiguration=", "web/portMappings=", "web/image=", "web/cpu=", "web/essential="] {
        let (_, forged) = forged(1, "\"1 containerDefinitions", &format!("\"1 containerDefinitions/{step} containerDefinitions"));
        assert!(matches!(remove(&forged, None), Err(InjectError::Changed(_))), "{step}");
    }
    let wrap = Options { wrap: true, ..options("web") };
    let added = there_and_back(SAMPLES[1].0, &wrap);
    let shorter = added.replacen("web/entryPoint^3", "web/entryPoint^4", 1);
    assert_ne!(shorter, added);
    assert!(matches!(remove(&shorter, None), Err(InjectError::Changed(_))));
}

#[test]
fn that_an_earlier_egret_went_is_told() {
    let told = |text: &str| {
        let warnings = add(text, None, &options("web")).unwrap().warnings;
        warnings.iter().any(|one| one.contains("an earlier egret was taken out first"))
    };
    assert!(!told(SAMPLES[0].0));
    assert!(told(&there_and_back(SAMPLES[0].0, &options("web"))));
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
fn fields_of_a_description_are_told_if_they_are_there() {
    let told = |text: &str| {
        let warnings = add(text, None, &options("web")).unwrap().warnings;
        let mut told = warnings
            .into_iter()
            .filter_map(|one| one.split_once("does not take these keys of it: ").map(|(_, keys)| keys.to_owned()));
        told.next()
    };
    assert_eq!(told(SAMPLES[0].0), None);
    let described: Value = serde_json::from_str(SAMPLES[1].0).unwrap();
    let all = described["taskDefinition"].as_object().unwrap();
    let there = told(SAMPLES[1].0).expect("a warning");
    assert!(there.split(", ").all(|key| all.contains_key(key)), "{there}");
    assert!(there.contains("taskDefinitionArn") && !there.contains("deregisteredAt"), "{there}");
    let one = SAMPLES[0].0.replacen("\"family\"", "\"status\": \"ACTIVE\", \"family\"", 1);
    assert_eq!(told(&one).as_deref(), Some("status"));
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
