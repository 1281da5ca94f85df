//! What must hold of whatever comes from outside. The fuzz targets call these; `cargo test` feeds them the seeds, by
//! taking in this file as it is.

use egret::config;
use egret::config::source::Text;
use egret_policy::{Class, Host, Name, NamePattern, Policy, Request, Surroundings, Target, UnixTime, classify, embedded_ipv4};
use egret_proxy::wire::client_hello::{Hello, Joiner};
use egret_proxy::wire::framing::{self, Chunks};
use egret_proxy::wire::{Progress, http, socks4, socks5};

/// What must hold of these bytes, or it panics.
pub type Property = fn(&[u8]);

/// A reader of a message.
type Reader<'a, T> = &'a dyn Fn(&[u8]) -> Progress<T>;

/// One of these, by its name.
pub fn property(name: &str) -> Option<Property> {
    PROPERTIES.iter().find(|(known, _)| *known == name).map(|(_, property)| *property)
}

/// All of them, by the names of the targets.
pub const PROPERTIES: &[(&str, Property)] = &[
    ("request_head", request_head),
    ("socks", socks),
    ("client_hello", client_hello),
    ("policy_file", policy_file),
    ("names", names),
    ("journal", journal),
];

/// The first bytes of an HTTP client, and those of a tunnel: where they are cut changes no verdict, what is let through
/// reads back as itself, and no byte behind the head belongs to it.
pub fn request_head(said: &[u8]) {
    let connect = |bytes: &[u8]| match http::connect(bytes) {
        Progress::Done(Ok(connect), length) => Progress::Done(Some(connect.target), length),
        Progress::Done(Err(_), length) => Progress::Done(None, length),
        Progress::More => Progress::More,
        Progress::Never(why) => Progress::Never(why),
    };
    if let Some(Some(target)) = steady(&connect, said) {
        reads_back(&target);
    }
    let framing = |bytes: &[u8]| match framing::request(bytes) {
        Progress::Done(head, length) => Progress::Done(head.ok(), length),
        Progress::More => Progress::More,
        Progress::Never(why) => Progress::Never(why),
    };
    steady(&framing, said);
    chunks(said);
    if let Some(Some(name)) = steady(&http::host, said) {
        assert_eq!(Name::parse(name.as_str()).as_ref(), Ok(&name));
    }
    let is_request = |bytes: &[u8]| http::opens_request(bytes).map_or(Progress::More, |is| Progress::Done(is, 0));
    steady(&is_request, said);
    // The credentials hold their text and nothing that ends a line of it.
    if let Some(user) = http::basic_user(said) {
        assert!(!user.is_empty() && !user.contains(':'));
    }
}

/// Chunked content ends at the same octet however it comes, or is broken however it comes.
fn chunks(said: &[u8]) {
    let mut whole = Chunks::default();
    let at_once = whole.read(said);
    assert!(at_once.as_ref().is_ok_and(|taken| *taken <= said.len()) || at_once.is_err());
    let (mut reader, mut start) = (Chunks::default(), 0);
    let mut ends = every(1 + said.len() / 256, said.len());
    ends.push(said.len());
    let broken = ends.iter().any(|end| match reader.read(&said[start..*end]) {
        Ok(taken) => {
            start += taken;
            false
        }
        Err(_) => true,
    });
    assert_eq!(broken, at_once.is_err());
    assert!(broken || (Ok(start), reader.ended()) == (at_once, whole.ended()));
}

/// A SOCKS client, from each of the messages it may send.
pub fn socks(said: &[u8]) {
    steady(&socks5::greeting, said);
    if let Some(Some(user)) = steady(&socks5::credentials, said) {
        assert!(!user.is_empty() && !user.contains('\0'));
    }
    if let Some(socks5::Asked::Connect(target)) = steady(&socks5::request, said) {
        reads_back(&target);
    }
    if let Some(socks4::Asked::Connect(target)) = steady(&socks4::request, said) {
        reads_back(&target);
    }
}

/// A first flight: read at once, byte by byte, or cut where its own first bytes say, it shows the same.
pub fn client_hello(said: &[u8]) {
    let Some((cuts, said)) = said.split_first_chunk::<4>() else { return };
    let whole = Joiner::default().read(said);
    if let Progress::Done(Hello { sni: egret_policy::Sni::One(name), .. }, length) = &whole {
        assert!(*length <= said.len());
        assert_eq!(Name::parse(name.as_str()).as_ref(), Ok(name));
    }
    let verdict = |progress: &Progress<Hello>| match progress {
        Progress::Done(hello, length) => Some(Some((hello.clone(), *length))),
        Progress::Never(_) => Some(None),
        Progress::More => None,
    };
    let step = usize::from(cuts[0]) + 1;
    for ends in [every(step, said.len()), cuts.iter().map(|cut| usize::from(*cut) * 7).collect()] {
        let mut joiner = Joiner::default();
        let mut ends: Vec<usize> = ends.into_iter().filter(|end| *end < said.len()).collect();
        ends.sort_unstable();
        ends.push(said.len());
        let progress = ends.iter().map(|end| joiner.read(&said[..*end])).find(|p| !matches!(p, Progress::More));
        assert_eq!(verdict(&progress.unwrap_or(Progress::More)), verdict(&whole));
    }
}

/// A policy file: it is refused with messages that no byte of it can bend, or can be asked.
pub fn policy_file(text: &[u8]) {
    let Ok(yaml) = std::str::from_utf8(text) else { return };
    let text = Text { origin: "policy.yaml".into(), yaml: yaml.to_owned() };
    match config::load(&text, None) {
        Ok(config) => {
            let policy = std::sync::Arc::new(Policy::new(config.draft, Surroundings::default()));
            for target in ["allowed.test:443", "bucket.s3.amazonaws.com:443", "[::1]:80", "169.254.169.254:80"] {
                let target: Target = target.parse().expect("a target");
                let asked = Request::new(target, policy.default_role(), UnixTime(1_800_000_000));
                if let Ok(mut permit) = policy.admit(&asked) {
                    let _ = permit.vet(&["127.0.0.1".parse().expect("an address"), "192.0.2.1".parse().expect("an address")]);
                }
            }
        }
        Err(diagnostics) => is_plain(&diagnostics.to_string()),
    }
}

/// A host as somebody wrote it: a name or an address, never both, and the same when it is read again.
pub fn names(text: &[u8]) {
    if let Some(octets) = text.first_chunk::<16>() {
        let address = std::net::Ipv6Addr::from(*octets);
        assert!(embedded_ipv4(address).is_none() || classify(address.into()) != Class::Global, "{address}");
    }
    let Ok(text) = std::str::from_utf8(text) else { return };
    if let Ok(name) = Name::parse(text) {
        assert_eq!(Name::parse(name.as_str()).as_ref(), Ok(&name));
        assert_eq!(Host::parse(name.as_str()), Ok(Host::Name(name.clone())));
        assert!(name.as_str().len() <= 253 && name.as_str().parse::<std::net::IpAddr>().is_err());
        assert!(name.as_str().bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-_.".contains(&b)));
        assert!(name.parents().all(|parent| name.as_str().ends_with(parent)));
    }
    if let Ok(target) = Target::parse(text) {
        reads_back(&target);
    }
    if let Some(address) = egret_policy::literal(text) {
        assert_eq!(egret_policy::literal(&address.to_string()), Some(address));
    }
    if let Ok(pattern) = NamePattern::parse(text) {
        assert_eq!(NamePattern::parse(&pattern.to_string()).as_ref(), Ok(&pattern));
    }
}

/// A journal, whoever wrote it: what is learnt from it is a policy that is valid, and audits; no report of it has a byte
/// that steers a terminal.
pub fn journal(journal: &[u8]) {
    is_plain(&egret::retelling::report(journal));
    if let Some(yaml) = egret::retelling::policy(journal) {
        is_plain(&yaml);
        let text = Text { origin: "learnt.yaml".into(), yaml };
        let config = config::load(&text, None).unwrap_or_else(|error| panic!("{error}\n{}", text.yaml));
        assert_eq!(config.draft.mode, egret_policy::Mode::Audit);
    }
}

/// The verdict on `said`, which is that of the shortest beginning that has one: what follows a message never changes it.
fn steady<T: PartialEq + std::fmt::Debug>(read: Reader<'_, T>, said: &[u8]) -> Option<T> {
    let verdict = |said: &[u8]| match read(said) {
        Progress::Done(message, length) => {
            assert!(length <= said.len());
            Some(Some(message))
        }
        Progress::Never(_) => Some(None),
        Progress::More => None,
    };
    let whole = verdict(said);
    let step = 1 + said.len() / 256;
    for end in every(step, said.len()) {
        if let Some(first) = verdict(&said[..end]) {
            assert_eq!(Some(&first), whole.as_ref(), "cut at {end}");
            break;
        }
    }
    whole.flatten()
}

fn every(step: usize, length: usize) -> Vec<usize> {
    (0..length).step_by(step).collect()
}

fn reads_back(target: &Target) {
    assert_eq!(Target::parse(&target.to_string()).as_ref(), Ok(target));
    assert!(target.port != 0);
}

/// Nothing that steers a terminal, or is taken for the end of a line by some readers and not by others.
fn is_plain(text: &str) {
    let odd = text.chars().find(|c| (c.is_control() && *c != '\n') || matches!(c, '\u{2028}' | '\u{2029}'));
    assert_eq!(odd, None, "{text:?}");
}
