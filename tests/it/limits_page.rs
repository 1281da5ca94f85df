//! The page of limits says what the code says: each of them, with its value.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use egret_proxy::Limits;

fn read(path: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap_or_else(|e| panic!("{path}: {e}"))
}

/// The value of a limit as the page writes it: `16 KiB`, `4.5 s`, `1,024`.
fn shown(value: &str, is_count: bool) -> String {
    let number = |text: &str| -> u64 {
        let factors = text.split('*').map(|factor| factor.trim().replace('_', "").parse::<u64>().expect("a number"));
        factors.product()
    };
    let inner = |prefix: &str| value.strip_prefix(prefix)?.strip_suffix(')').map(number);
    let millis = inner("Duration::from_millis(").or_else(|| inner("Duration::from_secs(").map(|seconds| seconds * 1000));
    match millis {
        Some(millis) if millis % 3_600_000 == 0 => format!("{} h", millis / 3_600_000),
        Some(millis) if millis < 1000 => format!("{millis} ms"),
        Some(millis) if millis % 1000 == 0 => format!("{} s", millis / 1000),
        Some(millis) => format!("{} s", millis as f64 / 1000.0),
        None if !is_count && number(value).is_multiple_of(1024) => format!("{} KiB", number(value) / 1024),
        None => with_commas(number(value)),
    }
}

fn with_commas(number: u64) -> String {
    if number < 1000 { number.to_string() } else { format!("{},{:03}", with_commas(number / 1000), number % 1000) }
}

/// Every limit of the code by its name on the page, with its value.
fn in_code() -> BTreeMap<String, String> {
    let code = read("proxy/src/limits.rs");
    let settable = code.lines().filter_map(|line| line.trim().strip_suffix(',')?.split_once(": "));
    let settable = settable.filter(|(name, _)| !name.contains(' ')).map(|(name, value)| (name.to_owned(), shown(value, true)));
    let fixed = code.lines().filter_map(|line| {
        let (name, rest) = line.strip_prefix("pub(crate) const ")?.split_once(": ")?;
        let (_, value) = rest.trim_end_matches(';').split_once(" = ")?;
        Some((name.to_lowercase(), shown(value, false)))
    });
    settable.chain(fixed).collect()
}

/// Every row of the page's tables that begins with a name in code.
fn on_page() -> BTreeMap<String, String> {
    let page = read("docs/limits.md");
    let rows = page.lines().filter_map(|line| line.strip_prefix("| `")?.split_once('`'));
    let cells = rows.filter_map(|(name, rest)| Some((name.to_owned(), rest.split('|').nth(1)?.trim().to_owned())));
    cells.collect()
}

#[test]
fn every_limit_of_a_connection_is_on_the_page_with_its_value() {
    let (code, page) = (in_code(), on_page());
    assert!(code.len() > 30, "{code:?}");
    assert_eq!(page, code);
}

#[test]
fn the_limits_of_the_code_are_those_that_a_program_gets() {
    let code = in_code();
    let limits = Limits::default();
    assert_eq!(code["idle"], format!("{} h", limits.idle.as_secs() / 3600));
    assert_eq!(code["connections"], with_commas(limits.connections as u64));
}

#[test]
fn the_rest_of_the_program_is_on_the_page_too() {
    let page = read("docs/limits.md");
    for (file, constant, text) in [
        ("src/journal.rs", "QUEUE: usize = 4096", "| journal queue | 4,096 events |"),
        ("src/journal.rs", "FINISH: Duration = Duration::from_secs(2)", "2 s for the journal"),
        ("src/stderr.rs", "MOST: usize = 64 * 1024", "| messages for stderr | 64 KiB that wait |"),
        ("src/stderr.rs", "FINISH: Duration = Duration::from_secs(1)", "1 s for stderr"),
        ("src/run.rs", "CLOSING: Duration = Duration::from_secs(2)", "2 s for records of live connections"),
        ("src/discovery.rs", "MAX_DESTINATIONS: usize = 2048", "| discovery table | 2,048 destinations |"),
        ("src/admin.rs", "CONNECTIONS: usize = 32", "| admin port | 32 connections, 5 s for a head of 16 KiB, 60 s for all |"),
        ("src/admin.rs", "HEAD: Duration = Duration::from_secs(5)", "5 s for a head"),
        ("src/admin.rs", "LIFE: Duration = Duration::from_secs(60)", "60 s for all"),
        ("src/admin.rs", "MAX_HEAD: usize = 16 * 1024", "a head of 16 KiB"),
        ("confine/src/supervisor.rs", "HANDLERS: usize = 2", "| 2 threads; one more each 0.5 s"),
        ("confine/src/supervisor.rs", "PATIENCE: Duration = Duration::from_millis(500)", "each 0.5 s while all hang"),
        ("confine/src/supervisor.rs", "MOST_HANDLERS: usize = 16", "up to 16"),
        ("confine/src/supervisor/connect.rs", "MOST_PENDING: usize = 4096", "| connects without an answer | 4,096 |"),
        ("confine/src/supervisor/connect.rs", "MOST_SLOW: usize = 64", "each on a thread of its own | 64 |"),
        ("confine/src/sockets.rs", "MOST_HELD: usize = 512", "| 512, for 30 s |"),
        ("confine/src/sockets.rs", "LONGEST_HELD: Duration = Duration::from_secs(30)", "| 512, for 30 s |"),
        ("confine/src/supervisor/datagram.rs", "MOST_PAIRS: usize = 128", "connected to a nameserver | 128 |"),
        ("confine/src/supervisor/relay.rs", "MOST_RELAYS: usize = 256", "datagrams are passed on | 256 |"),
        ("src/confinement/exit.rs", "MOST_QUERIES: usize = 256", "| queries by UDP | 256 at one time |"),
        ("proxy/src/confined/known.rs", "MOST_ADDRESSES: usize = 4096", "| 4,096, of 8 names each |"),
        ("proxy/src/confined/known.rs", "MOST_NAMES: usize = 8", "| 4,096, of 8 names each |"),
        ("src/readiness.rs", "STARVED: Duration = Duration::from_secs(5)", "for 5 s after it"),
    ] {
        assert!(read(file).contains(constant), "{file} says no longer {constant}");
        assert!(page.contains(text), "docs/limits.md lacks {text}");
    }
}
