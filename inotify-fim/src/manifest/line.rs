//! One line of a manifest: a path and its fingerprint.
//!
//! Reading is simple because it ends with writing: what was read is written again, and must be the same line.

use std::fmt::{self, Write};
use std::str::FromStr;

use super::Problem;
use crate::escape::{escape, escape_into, hex, unescape, unhex};
use crate::fingerprint::{Device, Fingerprint, Flags, HashState, Inode, Kind, LeadsTo, Stamp, Xattr};

/// Adds the line, without its end, to a text.
pub(crate) fn write(text: &mut String, path: &[u8], print: &Fingerprint) {
    // Writing to a String cannot fail.
    let _ = words(text, path, print);
}

fn words(text: &mut String, path: &[u8], print: &Fingerprint) -> fmt::Result {
    let Fingerprint { kind, mode, uid, gid, size, mtime, hash, .. } = print;
    escape_into(text, path);
    write!(text, " {kind} {mode:04o} {uid}:{gid} {size} {mtime} {hash}")?;
    if let Some(target) = &print.target {
        write!(text, " target={}", escape(target))?;
    }
    if let Some(end) = &print.leads_to {
        write!(text, " leads-to={}", EndWord(end))?;
    }
    if let Some(word) = flags_word(print.flags) {
        write!(text, " flags={word}")?;
    }
    for (which, value) in &print.xattrs {
        write!(text, " {}={}", xattr_word(*which), hex(value))?;
    }
    match print.inode {
        Some(inode) => write!(text, " inode={}", InodeWord(inode)),
        None => Ok(()),
    }
}

pub(crate) fn read(line: &str) -> Result<(Vec<u8>, Fingerprint), Problem> {
    let mut words = line.split(' ');
    let mut word = |what| words.next().ok_or(Problem::Word(what));
    let path = path(word("path")?)?;
    let kind = kind(word("type")?).ok_or(Problem::Word("type"))?;
    let mode = u16::from_str_radix(word("mode")?, 8).ok().filter(|mode| *mode <= 0o7777).ok_or(Problem::Word("mode"))?;
    let (uid, gid) = pair(word("owner")?).ok_or(Problem::Word("owner"))?;
    let size = number(word("size")?).ok_or(Problem::Word("size"))?;
    let mtime = time(word("time")?).ok_or(Problem::Word("time"))?;
    let hash = hash(word("hash")?).ok_or(Problem::Word("hash"))?;
    let flags = Flags::default();
    let mut print = Fingerprint {
        kind,
        mode,
        uid,
        gid,
        size,
        mtime,
        flags,
        target: None,
        xattrs: Box::default(),
        hash,
        inode: None,
        extends: None,
        last: None,
        leads_to: None,
    };
    let mut xattrs = Vec::new();
    for word in words {
        optional(word, &mut print, &mut xattrs)?;
    }
    print.xattrs = xattrs.into();
    let mut again = String::with_capacity(line.len());
    write(&mut again, &path, &print);
    if !is_sound(&print) || again != line {
        return Err(Problem::NotCanonical);
    }
    Ok((path, print))
}

/// The first word: an absolute path in its shortest form.
pub(crate) fn path(word: &str) -> Result<Vec<u8>, Problem> {
    let path = unescape(word).ok_or(Problem::Word("path"))?;
    if is_canonical(&path) { Ok(path) } else { Err(Problem::Path) }
}

/// A word after the seventh.
fn optional(word: &str, print: &mut Fingerprint, xattrs: &mut Vec<(Xattr, Box<[u8]>)>) -> Result<(), Problem> {
    let (key, value) = word.split_once('=').ok_or(Problem::NotCanonical)?;
    match key {
        "target" => print.target = Some(unescape(value).ok_or(Problem::Word("target"))?.into()),
        "flags" => print.flags = flags(value).ok_or(Problem::Word("flags"))?,
        "leads-to" => print.leads_to = Some(Box::new(end(value).ok_or(Problem::Word("leads-to"))?)),
        "inode" => print.inode = Some(inode(value).ok_or(Problem::Word("inode"))?),
        _ => {
            let which = Xattr::ALL.into_iter().find(|which| xattr_word(*which) == key).ok_or(Problem::NotCanonical)?;
            xattrs.push((which, unhex(value).ok_or(Problem::Word("extended attribute"))?.into()));
        }
    }
    Ok(())
}

/// Whether a path is absolute and says each component once.
fn is_canonical(path: &[u8]) -> bool {
    let Some(inside) = path.strip_prefix(b"/") else { return false };
    let plain = |name: &[u8]| !matches!(name, b"" | b"." | b"..") && !name.contains(&0);
    inside.is_empty() || inside.split(|byte| *byte == b'/').all(plain)
}

/// Whether a file can be so: content, a size and a hash belong to regular files, a target to links; no attribute twice.
fn is_sound(print: &Fingerprint) -> bool {
    let regular = print.kind == Kind::File;
    regular == (print.hash != HashState::NotRegular)
        && (regular || print.size == 0)
        && (print.kind == Kind::Symlink) == print.target.is_some()
        && print.leads_to.as_ref().is_none_or(|end| print.kind == Kind::Symlink && end.hash != HashState::NotRegular)
        && print.xattrs.is_sorted_by(|(one, _), (other, _)| one < other)
}

/// As a manifest has it.
impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File => f.write_str("file"),
            Self::Directory => f.write_str("directory"),
            Self::Symlink => f.write_str("symlink"),
            Self::Fifo => f.write_str("fifo"),
            Self::Socket => f.write_str("socket"),
            Self::Character(Device { major, minor }) => write!(f, "character:{major}:{minor}"),
            Self::Block(Device { major, minor }) => write!(f, "block:{major}:{minor}"),
        }
    }
}

fn kind(word: &str) -> Option<Kind> {
    let device = |numbers| pair(numbers).map(|(major, minor)| Device { major, minor });
    match word {
        "file" => Some(Kind::File),
        "directory" => Some(Kind::Directory),
        "symlink" => Some(Kind::Symlink),
        "fifo" => Some(Kind::Fifo),
        "socket" => Some(Kind::Socket),
        _ => match word.split_once(':')? {
            ("character", numbers) => device(numbers).map(Kind::Character),
            ("block", numbers) => device(numbers).map(Kind::Block),
            _ => None,
        },
    }
}

/// As a manifest has it.
impl fmt::Display for HashState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Done(hash) => write!(f, "sha256:{}", hex(hash)),
            Self::TooLarge => f.write_str("too-large"),
            Self::Unstable => f.write_str("unstable"),
            Self::NotRead => f.write_str("not-read"),
            Self::Unreadable(error) => write!(f, "unreadable:{error}"),
            Self::NotRegular => f.write_char('-'),
        }
    }
}

fn hash(word: &str) -> Option<HashState> {
    match word {
        "-" => Some(HashState::NotRegular),
        "too-large" => Some(HashState::TooLarge),
        "unstable" => Some(HashState::Unstable),
        "not-read" => Some(HashState::NotRead),
        _ => match word.split_once(':')? {
            ("sha256", digits) => Some(HashState::Done(unhex(digits)?.try_into().ok()?)),
            ("unreadable", error) => number(error).map(HashState::Unreadable),
            _ => None,
        },
    }
}

/// As a manifest has it.
impl fmt::Display for Stamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:09}", self.seconds, self.nanos)
    }
}

fn time(word: &str) -> Option<Stamp> {
    let (seconds, nanos) = word.split_once('.')?;
    Some(Stamp { seconds: number(seconds)?, nanos: number(nanos).filter(|nanos| *nanos < 1_000_000_000)? })
}

struct OptionalTime(Option<Stamp>);

impl fmt::Display for OptionalTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(stamp) => stamp.fmt(f),
            None => f.write_char('-'),
        }
    }
}

fn optional_time(word: &str) -> Option<Option<Stamp>> {
    if word == "-" { Some(None) } else { time(word).map(Some) }
}

struct InodeWord(Inode);

impl fmt::Display for InodeWord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Inode { device: Device { major, minor }, number, links, born, changed } = self.0;
        write!(f, "{major}:{minor}:{number}:{links}:{}:{}", OptionalTime(born), OptionalTime(changed))
    }
}

fn inode(word: &str) -> Option<Inode> {
    let words: Vec<&str> = word.split(':').collect();
    let [major, minor, inode, links, born, changed] = words[..] else { return None };
    Some(Inode {
        device: Device { major: number(major)?, minor: number(minor)? },
        number: number(inode)?,
        links: number(links)?,
        born: optional_time(born)?,
        changed: optional_time(changed)?,
    })
}

struct EndWord<'a>(&'a LeadsTo);

impl fmt::Display for EndWord<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let LeadsTo { inode, size, mtime, hash } = *self.0;
        hash.fmt(f)?;
        inode.map_or(Ok(()), |inode| write!(f, ",{size},{},{}", mtime, InodeWord(inode)))
    }
}

fn end(word: &str) -> Option<LeadsTo> {
    let words: Vec<&str> = word.split(',').collect();
    let (state, rest) = words.split_first()?;
    let (size, mtime, found) = match rest {
        [] => (0, Stamp::default(), None),
        [size, mtime, found] => (number(size)?, time(mtime)?, Some(inode(found)?)),
        _ => return None,
    };
    Some(LeadsTo { inode: found, size, mtime, hash: hash(state)? })
}

fn flags_word(flags: Flags) -> Option<&'static str> {
    match (flags.immutable, flags.append) {
        (false, false) => None,
        (true, false) => Some("immutable"),
        (false, true) => Some("append"),
        (true, true) => Some("immutable,append"),
    }
}

fn flags(word: &str) -> Option<Flags> {
    let all = [(true, false), (false, true), (true, true)].map(|(immutable, append)| Flags { immutable, append });
    all.into_iter().find(|flags| flags_word(*flags) == Some(word))
}

fn xattr_word(which: Xattr) -> &'static str {
    match which {
        Xattr::Capability => "capability",
        Xattr::Access => "acl",
        Xattr::Default => "default-acl",
    }
}

fn pair(word: &str) -> Option<(u32, u32)> {
    let (one, other) = word.split_once(':')?;
    Some((number(one)?, number(other)?))
}

fn number<T: FromStr>(word: &str) -> Option<T> {
    word.parse().ok()
}
