//! The lines of a text: which of them is wrong, in which way, and that none is missing. A long text is read by several
//! threads, a piece each; what is said of it does not depend on their number.

use std::thread;

use super::{LONGEST_LINE, Problem, Refused};
use crate::view::Path;

/// Octets that are worth a thread.
const PIECE: usize = 1 << 20;

/// Threads that read one text.
const THREADS: usize = 4;

/// The lines of a text, each with its end.
pub(crate) struct Lines<'a> {
    rest: &'a [u8],
    number: usize,
}

impl<'a> Lines<'a> {
    pub(crate) fn new(text: &'a [u8]) -> Self {
        Self { rest: text, number: 0 }
    }

    /// The first line, which ends with the digit of its version.
    pub(crate) fn heading(&mut self, heading: &'static str) -> Result<(), Refused> {
        let name = heading.trim_end_matches(|c: char| c.is_ascii_digit());
        match self.next()? {
            Some(line) if line == heading => Ok(()),
            Some(other) if other.starts_with(name) => Err(self.refuse(Problem::Version(heading))),
            _ => Err(self.refuse(Problem::Heading(heading))),
        }
    }

    /// All lines from here on, as paths and what stands there; the last counts them.
    pub(crate) fn entries<T: Send>(
        self,
        read: impl Fn(&str) -> Result<(Vec<u8>, T), Problem> + Sync,
    ) -> Result<Vec<(Path, T)>, Refused> {
        let worth = self.rest.len() / PIECE;
        self.entries_in(thread::available_parallelism().map_or(1, usize::from).min(THREADS).min(worth), read)
    }

    /// The same, by so many threads.
    pub(super) fn entries_in<T: Send>(
        self,
        threads: usize,
        read: impl Fn(&str) -> Result<(Vec<u8>, T), Problem> + Sync,
    ) -> Result<Vec<(Path, T)>, Refused> {
        let (first, others) = pieces(self.rest, threads);
        let parts = thread::scope(|scope| {
            let read = &read;
            let start =
                |piece: &'a [u8]| thread::Builder::new().spawn_scoped(scope, move || Part::read(piece, read)).map_err(|_| piece);
            let others: Vec<_> = others.into_iter().map(start).collect();
            let mut parts = vec![Part::read(first, read)];
            parts.extend(others.into_iter().map(|part| match part {
                Ok(thread) => thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)),
                // No more threads can be had.
                Err(piece) => Part::read(piece, read),
            }));
            parts
        });
        self.join(parts)
    }

    /// What was read of the pieces, as if by one.
    fn join<T>(mut self, parts: Vec<Part<'_, T>>) -> Result<Vec<(Path, T)>, Refused> {
        let mut entries: Vec<(Path, T)> = Vec::new();
        let last = parts.len() - 1;
        for (at, part) in parts.into_iter().enumerate() {
            if let (Some((before, _)), Some((path, _))) = (entries.last(), part.entries.first())
                && before >= path
            {
                self.number += 1;
                return Err(self.refuse(Problem::Order));
            }
            if entries.is_empty() {
                entries = part.entries;
            } else {
                entries.extend(part.entries);
            }
            self.number += part.lines;
            match part.end {
                End::Open => {}
                End::Refused(problem) => return Err(self.refuse(problem)),
                End::Count { count, .. } if count != entries.len().to_string() => return Err(self.refuse(Problem::Count)),
                End::Count { is_last, .. } if is_last && at == last => return Ok(entries),
                End::Count { .. } => return Err(self.refuse(Problem::AfterEnd)),
            }
        }
        self.number += 1;
        Err(self.refuse(Problem::Cut))
    }

    /// The next line; `None` where the text ends, or the line does not.
    pub(crate) fn next(&mut self) -> Result<Option<&'a str>, Refused> {
        self.number += 1;
        let window = &self.rest[..self.rest.len().min(LONGEST_LINE + 1)];
        let Some(end) = window.iter().position(|byte| *byte == b'\n') else {
            return if window.len() > LONGEST_LINE { Err(self.refuse(Problem::TooLong)) } else { Ok(None) };
        };
        let line = &self.rest[..end];
        self.rest = &self.rest[end + 1..];
        match line {
            [.., b'\r'] => Err(self.refuse(Problem::LineEnd)),
            plain if plain.iter().all(|byte| matches!(byte, b' '..=b'~')) => {
                str::from_utf8(plain).map(Some).map_err(|_| self.refuse(Problem::NotPlain))
            }
            _ => Err(self.refuse(Problem::NotPlain)),
        }
    }

    pub(crate) fn refuse(&self, problem: Problem) -> Refused {
        Refused { line: self.number, problem }
    }
}

/// A text in so many pieces of about one length, each but the last with whole lines.
fn pieces(text: &[u8], number: usize) -> (&[u8], Vec<&[u8]>) {
    let (mut others, mut rest) = (Vec::new(), text);
    for left in (2..=number).rev() {
        let (first, after) = rest.split_at(rest.len() / left);
        let end = after.iter().position(|byte| *byte == b'\n').map_or(rest.len(), |end| first.len() + end + 1);
        let (piece, after) = rest.split_at(end);
        others.push(piece);
        rest = after;
    }
    others.push(rest);
    let first = others.remove(0);
    others.retain(|piece| !piece.is_empty());
    (first, others)
}

/// What was read of a piece.
struct Part<'a, T> {
    entries: Vec<(Path, T)>,
    /// How many lines, with the one that is the end.
    lines: usize,
    end: End<'a>,
}

/// Why no more was read.
enum End<'a> {
    /// There is no more.
    Open,
    /// The last line counts the others; whether nothing follows.
    Count { count: &'a str, is_last: bool },
    /// This line is wrong.
    Refused(Problem),
}

impl<'a, T> Part<'a, T> {
    fn read(piece: &'a [u8], read: impl Fn(&str) -> Result<(Vec<u8>, T), Problem>) -> Self {
        let mut lines = Lines::new(piece);
        let mut entries: Vec<(Path, T)> = Vec::new();
        loop {
            let end = match lines.next() {
                Ok(Some(line)) => match line.strip_prefix("end ") {
                    Some(count) => End::Count { count, is_last: lines.rest.is_empty() },
                    None => match next(&mut entries, read(line)) {
                        Ok(()) => continue,
                        Err(problem) => End::Refused(problem),
                    },
                },
                Ok(None) if lines.rest.is_empty() => {
                    lines.number -= 1;
                    End::Open
                }
                Ok(None) => End::Refused(Problem::Cut),
                Err(Refused { problem, .. }) => End::Refused(problem),
            };
            return Self { entries, lines: lines.number, end };
        }
    }
}

/// Adds what was read of one line.
fn next<T>(entries: &mut Vec<(Path, T)>, read: Result<(Vec<u8>, T), Problem>) -> Result<(), Problem> {
    let (path, entry) = read?;
    if entries.last().is_some_and(|(last, _)| **last >= *path) {
        return Err(Problem::Order);
    }
    entries.push((path.into(), entry));
    Ok(())
}
