//! docs/abuse.md against the tests: every case of the catalogue has a row, every row a test whose name begins with its id or a
//! reason why there is none, and every test with an id its row.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// The known attacks, by group. Numbers that are missing were never given.
const CATALOGUE: [(char, &[u8]); 9] = [
    ('H', &[1, 2, 3, 4, 5, 7, 8, 9, 10, 11, 12, 13, 15, 16]),
    ('A', &[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 15, 16, 17]),
    ('P', &[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 13, 14, 15, 17, 18, 19, 21, 22, 23, 24, 25, 26]),
    ('T', &[1, 2, 3, 4, 5, 7, 8, 10, 11, 12, 13, 14, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27]),
    ('S', &[1, 2, 3, 4, 7, 8, 9, 10]),
    ('R', &[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 15, 16]),
    ('L', &[1, 2, 3, 5, 6, 7, 8]),
    ('O', &[1, 3, 4, 5, 6, 7, 8, 9, 10]),
    ('C', &[1, 2, 3, 4, 5, 7, 8, 9, 10, 11, 12, 13, 14]),
];

/// Ids from here on are our own.
const OWN: u8 = 50;

/// What a row says in the place of tests.
const WITHOUT_TESTS: [&str; 2] = ["not visible: ", "not offered"];

struct Row {
    outcome: String,
    reasons: Vec<String>,
    tests: BTreeSet<String>,
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The words of a cell that stand between backticks.
fn quoted(cell: &str) -> impl Iterator<Item = String> {
    cell.split('`').skip(1).step_by(2).map(str::to_owned)
}

/// The rows of the page by id, as tests write it: `h04`.
fn rows() -> BTreeMap<String, Row> {
    let page = fs::read_to_string(root().join("docs/abuse.md")).expect("docs/abuse.md");
    let mut rows = BTreeMap::new();
    for line in page.lines().filter(|line| line.starts_with("| ")) {
        let cells: Vec<&str> = line.trim_matches('|').split(" | ").map(str::trim).collect();
        let [id, _, outcome, _, reasons, tests] = cells[..] else { panic!("six columns: {line}") };
        let Some(id) = as_tests_write(id) else { continue };
        let row = Row { outcome: outcome.to_owned(), reasons: quoted(reasons).collect(), tests: quoted(tests).collect() };
        assert!(rows.insert(id, row).is_none(), "a second row: {line}");
    }
    rows
}

/// `H4` as `h04`; nothing for a heading.
fn as_tests_write(id: &str) -> Option<String> {
    let (group, number) = id.split_at_checked(1)?;
    let number: u8 = number.parse().ok()?;
    Some(format!("{}{number:02}", group.to_ascii_lowercase()))
}

/// Files of tests and of code with tests in it. What watches files has a catalogue of its own.
fn sources() -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders: Vec<PathBuf> = ["tests/it", "src", "policy/src", "proxy"].iter().map(|folder| root().join(folder)).collect();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display())) {
            let path = entry.expect("a folder entry").path();
            if path.starts_with(root().join("src/files")) || path.file_name().is_some_and(is_of_files) {
                continue;
            }
            match path.is_dir() {
                true => folders.push(path),
                false if path.extension().is_some_and(|ending| ending == "rs") => found.push(path),
                false => {}
            }
        }
    }
    found
}

fn is_of_files(name: &std::ffi::OsStr) -> bool {
    name.to_string_lossy().starts_with("files_")
}

/// Tests by the ids that their names begin with.
fn tests() -> BTreeMap<String, BTreeSet<String>> {
    let mut tests: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for path in sources() {
        let text = fs::read_to_string(&path).expect("text");
        for name in text.split("fn ").skip(1).filter_map(|rest| rest.split('(').next()) {
            for id in ids(name) {
                tests.entry(id).or_default().insert(name.to_owned());
            }
        }
    }
    tests
}

/// `h01_h12_every_way…` as `h01` and `h12`.
fn ids(name: &str) -> Vec<String> {
    let is_id = |word: &&str| {
        let bytes = word.as_bytes();
        bytes.len() == 3 && b"haptsrloc".contains(&bytes[0]) && bytes[1..].iter().all(u8::is_ascii_digit)
    };
    name.split('_').take_while(is_id).map(str::to_owned).collect()
}

#[test]
fn every_known_case_has_a_row_and_at_least_forty_are_our_own() {
    let rows = rows();
    for (group, numbers) in CATALOGUE {
        for number in numbers {
            let id = format!("{}{number:02}", group.to_ascii_lowercase());
            assert!(rows.contains_key(&id), "docs/abuse.md lacks {group}{number}");
        }
    }
    let own = rows.keys().filter(|id| id[1..].parse::<u8>().is_ok_and(|number| number >= OWN));
    assert!(own.count() >= 40);
}

#[test]
fn every_row_names_its_tests_and_every_test_has_its_row() {
    let (rows, tests) = (rows(), tests());
    for (id, row) in &rows {
        let without = WITHOUT_TESTS.iter().any(|words| row.outcome.starts_with(words));
        let found = tests.get(id).cloned().unwrap_or_default();
        assert_eq!(found.is_empty(), without, "{id}: tests, or a reason why there are none: {}", row.outcome);
        assert_eq!(row.tests, found, "{id}: the page and the tests");
    }
    let lost: Vec<_> = tests.keys().filter(|id| !rows.contains_key(*id)).collect();
    assert!(lost.is_empty(), "tests of cases that docs/abuse.md lacks: {lost:?}");
}

#[test]
fn every_reason_of_a_row_is_one() {
    let known: BTreeSet<&str> = egret_policy::Reason::ALL.iter().map(|reason| reason.code()).collect();
    for (id, row) in rows() {
        for reason in &row.reasons {
            assert!(known.contains(reason.as_str()), "{id}: {reason} is no reason");
        }
    }
}
