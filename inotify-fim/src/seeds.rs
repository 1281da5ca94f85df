//! What the fuzz targets begin with, held to what they hold: for whoever does not fuzz.

use std::fs;
use std::path::Path;

use crate::expected::Expected;
use crate::manifest;
use crate::raw::records;

/// All seeds of a target; at least one, so that a test over none cannot pass.
fn seeds(target: &str) -> Vec<(String, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/seeds").join(target);
    let entries = fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let files = entries.map(|entry| entry.unwrap().path());
    let seeds: Vec<_> = files.map(|path| (path.display().to_string(), fs::read(path).unwrap())).collect();
    assert!(!seeds.is_empty(), "{target}");
    seeds
}

#[test]
fn a_manifest_is_refused_or_the_one_text_of_what_it_says() {
    let mut taken = 0;
    for (name, text) in seeds("manifest") {
        if let Ok(view) = manifest::read(&text) {
            assert_eq!(manifest::write(&view).as_bytes(), text, "{name}");
            taken += 1;
        }
    }
    assert!(taken > 2);
}

#[test]
fn expected_changes_are_refused_or_the_one_text_of_what_they_say() {
    let mut taken = 0;
    for (name, text) in seeds("expected") {
        if let Ok(expected) = Expected::read(&text) {
            assert_eq!(expected.write().as_bytes(), text, "{name}");
            taken += 1;
        }
    }
    assert!(taken > 2);
}

#[test]
fn records_end_with_the_first_torn_one() {
    for (name, buffer) in seeds("inotify_records") {
        let read: Vec<_> = records(&buffer).collect();
        let torn = read.iter().position(Result::is_err);
        assert!(torn.is_none_or(|at| at + 1 == read.len()), "{name}");
        assert_eq!(torn.is_some(), name.ends_with("lying-length"), "{name}");
    }
}
