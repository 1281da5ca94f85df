//! What fuzzing looks for holds of its seeds, which every machine can run: whole, cut anywhere, and with a byte flipped.

use std::fs;
use std::path::Path;

#[path = "../../fuzz/src/lib.rs"]
#[allow(unreachable_pub)] // there it is a library
mod properties;

/// More cuts or flips than this of one seed take long and find no more.
const MOST: usize = 64;

fn seeds(target: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds").join(target);
    let entries = fs::read_dir(&folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    entries.map(|entry| fs::read(entry.expect("a seed").path()).expect("a file")).collect()
}

fn holds(target: &str) {
    let property = properties::property(target).expect("a property of this name");
    let seeds = seeds(target);
    assert!(seeds.len() >= 5, "{target} has only {} seeds", seeds.len());
    for seed in seeds {
        property(&seed);
        let step = 1 + seed.len() / MOST;
        for at in (0..seed.len()).step_by(step) {
            property(&seed[..at]);
            let mut flipped = seed.clone();
            flipped[at] ^= 0x80 >> (at % 8);
            property(&flipped);
        }
    }
}

#[test]
fn of_request_heads() {
    holds("request_head");
}

#[test]
fn of_socks() {
    holds("socks");
}

#[test]
fn of_client_hellos() {
    holds("client_hello");
}

#[test]
fn of_policy_files() {
    holds("policy_file");
}

#[test]
fn of_names() {
    holds("names");
}

#[test]
fn of_journals() {
    holds("journal");
}

#[test]
fn every_target_is_a_property_with_seeds_or_of_a_member() {
    let manifest = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/Cargo.toml")).expect("a manifest");
    let targets: Vec<&str> =
        manifest.lines().filter_map(|line| line.strip_prefix("path = \"fuzz_targets/")?.strip_suffix(".rs\"")).collect();
    // These belong to the file watch and to the listing of sockets, whose own tests run their seeds.
    let of_members = ["manifest", "expected", "inotify_records", "sock_diag"];
    for target in &targets {
        assert!(of_members.contains(target) || properties::property(target).is_some(), "{target} is run by no test");
    }
    assert_eq!(targets.len(), of_members.len() + properties::PROPERTIES.len());
}
