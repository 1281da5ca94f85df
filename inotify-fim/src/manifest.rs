//! A view as text that can be kept beside the code: one line for each path, sorted, exactly one text for each view. Pure:
//! where the text comes from, and whether whoever wrote it is to be trusted, is not decided here.
//!
//! ```text
//! egret-manifest 1
//! /app directory 0755 0:0 0 0.000000000 -
//! /app/run file 0755 0:0 5 1700000000.000000000 sha256:2cf24dba… capability=0100000200040000…
//! /app/sh symlink 0777 0:0 0 1700000000.000000000 - target=/bin/busybox
//! end 3
//! ```
//!
//! The words of a line, each after one space:
//!
//! 1. the path, absolute, escaped as [`crate::escape`] says;
//! 2. the type: `file`, `directory`, `symlink`, `fifo`, `socket`, `character:MAJOR:MINOR` or `block:MAJOR:MINOR`;
//! 3. the permissions, four octal digits;
//! 4. owner and group, as numbers;
//! 5. the size in octets;
//! 6. the time of the last change of content: seconds since 1970, then nine digits of nanoseconds that are added to them;
//! 7. the hash: `sha256:HEX`, `too-large`, `unstable`, `unreadable:ERRNO`, `not-read`, or `-` for what has no content;
//! 8. as far as there are any, in this order: `target=` of a link, escaped; `leads-to=` with the hash of the file that it
//!    leads to, and on one machine `,SIZE,TIME,INODE` of that after it; `flags=immutable`, `append` or
//!    `immutable,append`; the extended attributes `capability=`, `acl=` and `default-acl=` in hexadecimal; and
//!    `inode=MAJOR:MINOR:NUMBER:LINKS:BORN:CHANGED`, whose times are `-` if not known. The inode belongs to one machine:
//!    write a [`View::portable`] for others.
//!
//! The last line counts the others, so that a cut text is not taken for a whole one. Whatever [`write()`] would have
//! written differently is refused: two texts that are not the same never mean the same.

pub(crate) mod line;
mod lines;

use std::error::Error;
use std::fmt;
use std::sync::Arc;

use crate::fingerprint::Fingerprint;
use crate::view::View;
pub(crate) use lines::Lines;

const HEADING: &str = "egret-manifest 1";

/// Octets of one line: more than a path, a link and all extended attributes can take with the kernel's own limits.
const LONGEST_LINE: usize = 512 * 1024;

/// The text of a view.
#[must_use]
pub fn write(view: &View) -> String {
    let mut text = format!("{HEADING}\n");
    for (path, print) in &view.entries {
        line::write(&mut text, path, print);
        text.push('\n');
    }
    text.push_str(&last_line(view.entries.len()));
    text
}

/// The view that a text holds. Memory grows with the text, some three times its size at most.
///
/// # Errors
///
/// [`Refused`], at the first line that [`write()`] would not have written there.
pub fn read(text: &[u8]) -> Result<View, Refused> {
    let mut lines = Lines::new(text);
    lines.heading(HEADING)?;
    Ok(View { entries: lines.entries(entry)?.into_iter().collect() })
}

fn entry(line: &str) -> Result<(Vec<u8>, Arc<Fingerprint>), Problem> {
    line::read(line).map(|(path, print)| (path, Arc::new(print)))
}

/// How a text of so many entries ends.
pub(crate) fn last_line(entries: usize) -> String {
    format!("end {entries}\n")
}

/// A text that is none of those that this crate writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refused {
    /// The line, from 1.
    pub line: usize,
    /// What is wrong with it.
    pub problem: Problem,
}

/// What is wrong with a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Problem {
    /// The first line should be this one.
    Heading(&'static str),
    /// The first line is of a version that this program does not know; it should be this one.
    Version(&'static str),
    /// The time since when changes are expected is missing, or not in its one form, or not before their end.
    From,
    /// The time until which changes are expected is missing, or not in its one form.
    Until,
    /// Longer than 512 KiB.
    TooLong,
    /// Octets other than printable ASCII.
    NotPlain,
    /// It ends with a carriage return.
    LineEnd,
    /// This word is missing, or not in its one form.
    Word(&'static str),
    /// The path is not absolute, or has an empty, `.` or `..` component.
    Path,
    /// The words contradict one another, or do not stand in their one form and order.
    NotCanonical,
    /// The path does not come after the one before.
    Order,
    /// The last line counts other than what stands before it.
    Count,
    /// Text after the last line.
    AfterEnd,
    /// The text ends before its last line.
    Cut,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: ", self.line)?;
        match self.problem {
            Problem::Heading(heading) => write!(f, "it should be \"{heading}\""),
            Problem::Version(heading) => write!(f, "of another version; this program reads \"{heading}\""),
            Problem::From => f.write_str("it should be \"from \" and a time before the end, as 2026-12-01T00:00:00Z"),
            Problem::Until => f.write_str("it should be \"until \" and a time, as 2026-12-31T00:00:00Z"),
            Problem::TooLong => write!(f, "longer than {LONGEST_LINE} octets"),
            Problem::NotPlain => f.write_str("not printable ASCII; names are escaped as \\xNN"),
            Problem::LineEnd => f.write_str("it ends with CR LF: something changed the text (of git, `-text` keeps it as it is)"),
            Problem::Word(word) => write!(f, "no valid {word}"),
            Problem::Path => f.write_str("the path is not absolute, or not in its shortest form"),
            Problem::NotCanonical => f.write_str("not in the one form that egret writes: make the manifest again"),
            Problem::Order => f.write_str("the path should come after that of the line before (sorted by octet, no path twice)"),
            Problem::Count => f.write_str("it counts another number of lines: some are missing, or were added"),
            Problem::AfterEnd => f.write_str("text follows after the last line"),
            Problem::Cut => f.write_str("the text ends here, before its last line: it was cut"),
        }
    }
}

impl Error for Refused {}

#[cfg(test)]
mod tests;
