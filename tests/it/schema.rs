//! The JSON Schema of the policy file, for editors: egret prints it, it is a schema, it accepts every policy that egret
//! accepts, and it refuses unknown keys, wrong types and wrong words.
//!
//! Needs Debian's python3-jsonschema and python3-yaml.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::support::programs::Program;
use crate::support::run_egret;

const SCHEMA: &str = "docs/policy.schema.json";

/// Those of `tests/policies/bad` that an editor can tell to be wrong without knowing what egret knows.
const REFUSED: &[&str] = &[
    "audit-until.yaml",
    "byte-order-mark.yaml",
    "crlf.yaml",
    "empty-lists.yaml",
    "empty.yaml",
    "json.yaml",
    "many-lines.yaml",
    "no-newline-at-end.yaml",
    "non-ascii.yaml",
    "nothing-where-something-is-due.yaml",
    "root-is-a-list.yaml",
    "rule-targets.yaml",
    "run.yaml",
    "sections.yaml",
    "tests.yaml",
    "text-for-boolean.yaml",
    "text-for-number.yaml",
    "unknown-key-for-version.yaml",
    "unknown-keys.yaml",
    "unknown-words.yaml",
    "version-2.yaml",
    "version-missing.yaml",
    "version-one.yaml",
    "wrong-type-in-rules.yaml",
    "wrong-type-in-sections.yaml",
    "wrong-type-list-for-mapping.yaml",
    "wrong-type-mapping-for-list.yaml",
];

/// Prints, for each file, what the schema says against it. Dates stay texts, as they are in YAML 1.2 and in editors.
const VALIDATE: &str = r#"
import json, sys, yaml
from jsonschema import Draft202012Validator

class Loader(yaml.SafeLoader):
    pass

Loader.yaml_implicit_resolvers = {
    first: [(tag, form) for tag, form in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}

def faults(error, depth=0):
    yield " " * depth + "/".join(map(str, error.absolute_path)) + ": " + error.message
    for cause in error.context:
        yield from faults(cause, depth + 2)

def load(path):
    with open(path, "rb") as file:
        return yaml.load(file, Loader=Loader)

with open(sys.argv[1], encoding="utf-8") as file:
    schema = json.load(file)
Draft202012Validator.check_schema(schema)
validator = Draft202012Validator(schema)
found = {path: [line for error in validator.iter_errors(load(path)) for line in faults(error)] for path in sys.argv[2:]}
json.dump(found, sys.stdout)
"#;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// What the schema says against each of these files.
fn faults(files: &[PathBuf]) -> BTreeMap<PathBuf, Vec<String>> {
    assert!(!files.is_empty(), "no files");
    let python = Path::new("/usr/bin/python3");
    assert!(python.is_file(), "this test needs {}: install the Debian package python3", python.display());
    let output = Program::at(python).args(["-c", VALIDATE]).arg(root().join(SCHEMA)).args(files).run();
    for (module, package) in [("jsonschema", "python3-jsonschema"), ("yaml", "python3-yaml")] {
        let missing = output.stderr.contains(&format!("No module named '{module}'"));
        assert!(!missing, "this test needs the Debian package {package}");
    }
    assert_eq!(output.code, 0, "{}", output.stderr);
    let found: BTreeMap<PathBuf, Vec<String>> = serde_json::from_str(&output.stdout).expect("JSON");
    assert_eq!(found.len(), files.len(), "{found:#?}");
    found
}

#[track_caller]
fn accepts_all_of(folder: &str) {
    let entries = fs::read_dir(root().join(folder)).unwrap_or_else(|error| panic!("{folder}: {error}"));
    let paths = entries.map(|entry| entry.expect("a folder entry").path());
    let policies: Vec<PathBuf> = paths.filter(|path| path.extension().is_some_and(|ending| ending == "yaml")).collect();
    let refused: Vec<_> = faults(&policies).into_iter().filter(|(_, faults)| !faults.is_empty()).collect();
    assert!(refused.is_empty(), "{refused:#?}");
}

#[test]
fn egret_prints_the_schema_that_is_in_docs() {
    let printed = run_egret(["schema"], "");
    let written = fs::read_to_string(root().join(SCHEMA)).expect("the schema is readable");
    assert_eq!((printed.code, printed.stdout, printed.stderr.as_str()), (0, written, ""));
}

#[test]
fn every_key_is_described() {
    let written = fs::read_to_string(root().join(SCHEMA)).expect("the schema is readable");
    let schema: Value = serde_json::from_str(&written).expect("JSON");
    let mut keys = 0;
    each_key(&schema, &mut |name, key| {
        keys += 1;
        assert!(key["description"].as_str().is_some_and(|text| text.ends_with('.')), "{name}: {key}");
    });
    assert!(keys > 40, "{keys} keys");
}

/// Calls `see` for every key of every mapping that the schema describes.
fn each_key(schema: &Value, see: &mut impl FnMut(&str, &Value)) {
    // Mappings that take their form from elsewhere name a key only to narrow it.
    if schema["additionalProperties"] == false {
        for (name, key) in schema["properties"].as_object().into_iter().flatten() {
            see(name, key);
        }
    }
    match schema {
        Value::Object(fields) => fields.values().for_each(|field| each_key(field, see)),
        Value::Array(items) => items.iter().for_each(|item| each_key(item, see)),
        _ => {}
    }
}

#[test]
fn the_schema_accepts_good_policies() {
    accepts_all_of("tests/policies/good");
}

#[test]
fn the_schema_accepts_policies_that_are_only_warned_of() {
    accepts_all_of("tests/policies/lint");
}

#[test]
fn the_schema_accepts_the_examples() {
    accepts_all_of("examples");
}

#[test]
fn the_schema_refuses_unknown_keys_wrong_types_and_wrong_words() {
    let bad: Vec<PathBuf> = REFUSED.iter().map(|name| root().join("tests/policies/bad").join(name)).collect();
    let accepted: Vec<_> = faults(&bad).into_iter().filter(|(_, faults)| faults.is_empty()).collect();
    assert!(accepted.is_empty(), "{accepted:?}");
}
