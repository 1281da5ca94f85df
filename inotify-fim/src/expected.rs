//! Changes that somebody approved beforehand: which paths may become what, from when until when. Pure: where the text comes
//! from, and whether whoever wrote it is to be trusted, is not decided here.
//!
//! ```text
//! egret-expected 1
//! from 2026-12-01T00:00:00Z
//! until 2026-12-31T00:00:00Z
//! /app/old absent
//! /app/run file 0755 0:0 5 1700000000.000000000 sha256:2cf24dba…
//! end 2
//! ```
//!
//! The line `from` may be left out. The others are those of a [`manifest`](crate::manifest), or say that the path shall be absent. Like a
//! manifest it has exactly one text.
//!
//! A change is allowed if it ends as it should, and happens in time. What has run out approves of nothing: whoever has an
//! old approval, however well signed, cannot go back to what it says.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;

use crate::fingerprint::{Fingerprint, HashState, Kind};
use crate::manifest::{Lines, Problem, Refused, last_line, line};
use crate::view::{Attribute, Change, Difference, Path, View, compare};

const HEADING: &str = "egret-expected 1";

/// What may change, and when. Times are seconds since 1970, UTC.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expected {
    /// Not before this.
    pub from: Option<i64>,
    /// Before this.
    pub until: i64,
    /// What stands at each path afterwards; `None` if nothing does.
    pub entries: BTreeMap<Path, Option<Arc<Fingerprint>>>,
}

impl Expected {
    /// What makes one view of another. Times of change, link counts and inodes are left out: they tell nothing.
    #[must_use]
    pub fn between(old: &View, new: &View, from: Option<i64>, until: i64) -> Self {
        let differences = compare(&old.clone().portable(), &new.clone().portable());
        let counted = differences.into_iter().filter(says_more_than_time);
        Self { from, until, entries: counted.map(|difference| (difference.path, difference.new)).collect() }
    }

    /// The files of which it does not say the content, as their manifest did not: changes of these are never allowed.
    pub fn without_content(&self) -> impl Iterator<Item = &Path> {
        let unknown = |print: &Arc<Fingerprint>| print.kind == Kind::File && print.hash.done().is_none();
        self.entries.iter().filter(move |(_, shall)| shall.as_ref().is_some_and(unknown)).map(|(path, _)| path)
    }

    /// Whether it approves of anything at this time.
    #[must_use]
    pub fn is_in_force(&self, now: i64) -> bool {
        self.from.is_none_or(|from| from <= now) && now < self.until
    }

    /// Whether a change that is seen at this time was approved: what is there now is what shall be there, in type,
    /// permissions, owner, flags, size, content, link and extended attributes. What is gone must be expected to be absent;
    /// of a move both.
    #[must_use]
    pub fn allows(&self, difference: &Difference, now: i64) -> bool {
        let left = match &difference.change {
            Change::Moved { from } => self.says(from, None),
            _ => true,
        };
        self.is_in_force(now) && left && self.says(&difference.path, difference.new.as_deref())
    }

    /// Whether this is what shall be at a path.
    fn says(&self, path: &[u8], there: Option<&Fingerprint>) -> bool {
        match (self.entries.get(path), there) {
            (Some(None), None) => true,
            (Some(Some(shall)), Some(there)) => is_as(shall, there),
            _ => false,
        }
    }

    /// The text.
    #[must_use]
    pub fn write(&self) -> String {
        let from = self.from.map(|from| format!("from {}\n", time(from))).unwrap_or_default();
        let mut text = format!("{HEADING}\n{from}until {}\n", time(self.until));
        for (path, shall) in &self.entries {
            match shall {
                Some(print) => line::write(&mut text, path, print),
                None => text.push_str(&format!("{} {ABSENT}", crate::escape::escape(path))),
            }
            text.push('\n');
        }
        text.push_str(&last_line(self.entries.len()));
        text
    }

    /// What a text says.
    ///
    /// # Errors
    ///
    /// [`Refused`], at the first line that [`Expected::write`] would not have written there.
    pub fn read(text: &[u8]) -> Result<Self, Refused> {
        let mut lines = Lines::new(text);
        lines.heading(HEADING)?;
        let mut line = lines.next()?;
        let from = match line.and_then(|line| line.strip_prefix("from ")) {
            None => None,
            Some(word) => {
                let from = seconds(word).ok_or_else(|| lines.refuse(Problem::From))?;
                line = lines.next()?;
                Some(from)
            }
        };
        let until = line.and_then(|line| line.strip_prefix("until ")).and_then(seconds);
        let until = until.ok_or_else(|| lines.refuse(if line.is_some() { Problem::Until } else { Problem::Cut }))?;
        if from.is_some_and(|from| from >= until) {
            return Err(lines.refuse(Problem::From));
        }
        Ok(Self { from, until, entries: lines.entries(entry)?.into_iter().collect() })
    }
}

impl View {
    /// The same after all that is expected: what shall be is there, what shall be absent is not. As it is, if nothing is
    /// expected at this time. A change that is expected and has not happened yet differs from it.
    #[must_use]
    pub fn moved_forward_by(mut self, expected: &Expected, now: i64) -> Self {
        if expected.is_in_force(now) {
            for (path, shall) in &expected.entries {
                match shall {
                    Some(print) => self.entries.insert(Arc::clone(path), Arc::clone(print)),
                    None => self.entries.remove(path),
                };
            }
        }
        self
    }
}

/// How a path is said to be absent.
const ABSENT: &str = "absent";

fn entry(text: &str) -> Result<(Vec<u8>, Option<Arc<Fingerprint>>), Problem> {
    match text.split_once(' ') {
        Some((path, ABSENT)) => Ok((line::path(path)?, None)),
        _ => line::read(text).map(|(path, print)| (path, Some(Arc::new(print)))),
    }
}

/// Only where both are sure of it: a file of unknown content is never as it should be.
fn is_as(shall: &Fingerprint, there: &Fingerprint) -> bool {
    let known = match (shall.hash, there.hash) {
        (HashState::Done(one), HashState::Done(other)) => one == other && shall.size == there.size,
        (HashState::NotRegular, HashState::NotRegular) => true,
        _ => false,
    };
    let end = |print: &Fingerprint| print.leads_to.as_ref().map(|end| end.hash);
    let plain = |print: &Fingerprint| (print.kind, print.mode, print.uid, print.gid, print.flags);
    known
        && plain(shall) == plain(there)
        && shall.target == there.target
        && shall.xattrs == there.xattrs
        && end(shall) == end(there)
        && end(shall).is_none_or(|hash| hash.done().is_some())
}

fn says_more_than_time(difference: &Difference) -> bool {
    let tells_nothing = |attribute: &Attribute| matches!(attribute, Attribute::Mtime | Attribute::Links);
    difference.change != Change::Attributes || !difference.attributes().iter().all(tells_nothing)
}

/// RFC 3339, UTC, to the second.
fn time(seconds: i64) -> String {
    Timestamp::from_second(seconds).unwrap_or(if seconds < 0 { Timestamp::MIN } else { Timestamp::MAX }).to_string()
}

fn seconds(word: &str) -> Option<i64> {
    let seconds = word.parse::<Timestamp>().ok()?.as_second();
    (time(seconds) == word).then_some(seconds)
}

#[cfg(test)]
mod tests;
