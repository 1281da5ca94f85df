//! The table of docs/clients.md. `EGRET_BLESS=1 cargo test --test it the_document` writes it anew, with the versions that are here;
//! without that it has to have these rows, of whatever versions, as the same client is another version on the next machine.

use std::fs;
use std::path::Path;

use super::matrix::ROWS;
use crate::support::moto;
use crate::support::programs::{Program, node};

/// What tells the version of a client, by the beginning of its name: a line for sh, which has $NODE, $MOTO and the libraries' $MODULES.
const VERSIONS: &[(&str, &str)] = &[
    ("curl", "curl --version"),
    ("wget", "wget --version"),
    ("git", "git --version"),
    ("Python urllib", "/usr/bin/python3 --version"),
    ("Python requests", "/usr/bin/python3 -c 'import requests as m; print(m.__version__)'"),
    ("Python httpx", "/usr/bin/python3 -c 'import httpx as m; print(m.__version__)'"),
    ("Python aiohttp", "/usr/bin/python3 -c 'import aiohttp as m; print(m.__version__)'"),
    ("boto3", "$MOTO -c 'import boto3 as m; print(m.__version__)'"),
    ("Node fetch", "$NODE --version"),
    ("undici", "grep -m1 '\"version\"' $MODULES/undici/package.json"),
    ("axios", "grep -m1 '\"version\"' $MODULES/axios/package.json"),
    ("AWS SDK for JavaScript v3", "grep -m1 '\"version\"' $MODULES/@aws-sdk/client-s3/package.json"),
    ("Go", "go version"),
    ("Java", "java -version 2>&1"),
    ("Ruby", "ruby -e 'puts RUBY_VERSION'"),
    ("PHP", "php -r 'echo PHP_VERSION;'"),
    ("Perl LWP", "perl -MLWP -e 'print $LWP::VERSION'"),
    ("Perl HTTP::Tiny", "perl -MHTTP::Tiny -e 'print $HTTP::Tiny::VERSION'"),
    ("Rust reqwest", "grep -A1 '^name = \"reqwest\"' tests/reqwest/Cargo.lock"),
];

/// The first number with a dot that is told.
fn version(name: &str) -> String {
    let (_, line) =
        VERSIONS.iter().find(|(client, _)| name.starts_with(client)).unwrap_or_else(|| panic!("no version of {name}"));
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let shell = Program::new("sh").args(["-ec", line]).dir(here).env("NODE", node()).env("MOTO", moto::python());
    let told = shell.env("MODULES", here.join("target/tools/clients/node_modules")).run();
    let is_part = |c: char| c.is_ascii_digit() || c == '.';
    let mut words = told.stdout.split(|c: char| !is_part(c)).map(|word| word.trim_matches('.'));
    words.find(|word| word.contains('.')).unwrap_or_else(|| panic!("{name} tells no version: {told:?}")).to_owned()
}

/// Every row, with a version where one is asked for.
fn rows(version: impl Fn(&str) -> String) -> Vec<String> {
    let told = |text: &str| if text.is_empty() { String::new() } else { format!("`{text}`") };
    let row = |row: &super::matrix::Row| {
        let cells = [row.name, &version(row.name), row.runtime, row.http, row.https, &told(row.told)].map(str::to_owned);
        format!("| {} |", cells.join(" | "))
    };
    ROWS.iter().map(row).collect()
}

/// Without the version, which is the second cell.
fn without_version(line: &str) -> String {
    let cells: Vec<&str> = line.split(" | ").collect();
    assert!(cells[1].contains(|c: char| c.is_ascii_digit()), "no version: {line}");
    [&cells[..1], &["-"], &cells[2..]].concat().join(" | ")
}

#[test]
fn the_document_has_these_rows_and_no_others() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/clients.md");
    let text = fs::read_to_string(&path).expect("docs/clients.md");
    let head = text.find("|---").expect("a table");
    let start = head + text[head..].find('\n').expect("rows") + 1;
    let end = start + text[start..].find("\n\n").expect("text below the table") + 1;
    if std::env::var_os("EGRET_BLESS").is_some_and(|value| value == "1") {
        let table: String = rows(version).iter().map(|row| format!("{row}\n")).collect();
        fs::write(&path, format!("{}{table}{}", &text[..start], &text[end..])).expect("docs/clients.md can be written");
        panic!("the table of docs/clients.md was written; read it, and run again without EGRET_BLESS");
    }
    let written: Vec<String> = text[start..end].lines().map(without_version).collect();
    assert_eq!(written, rows(|_| "-".to_owned()));
}
