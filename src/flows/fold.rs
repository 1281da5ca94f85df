//! Many lines in few: beyond a rate, lines of one destination and owner are told together. Their numbers add up; no program can
//! flood the log by connecting. Pure: time is an argument.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use crate::events::flows::{FlowLine, sum};

/// How long lines are counted together.
const WINDOW: Duration = Duration::from_secs(10);
/// Lines of one destination and owner that are told one by one in that time.
const EACH: u32 = 5;
/// Lines of all that are.
const ALL: u32 = 200;
/// Destinations and owners that are told apart; more are told by their way alone.
const KEYS: usize = 500;

/// What is folded.
#[derive(Debug, Default)]
pub(crate) struct Fold {
    began: Option<Instant>,
    written: u32,
    keys: HashMap<Key, (u32, Option<FlowLine>)>,
}

/// What is told together.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Key {
    way: String,
    protocol: String,
    destination: Option<(String, Option<u16>)>,
    exe: Option<String>,
    uid: Option<u32>,
}

impl Fold {
    /// The line, if it is to be told on its own.
    pub(crate) fn admits(&mut self, line: FlowLine, now: Instant) -> Option<FlowLine> {
        self.began.get_or_insert(now);
        let key = self.key(&line);
        let (count, folded) = self.keys.entry(key).or_default();
        *count += 1;
        if *count <= EACH && self.written < ALL {
            self.written += 1;
            return Some(line);
        }
        match folded {
            Some(folded) => add(folded, &line),
            None => *folded = Some(FlowLine { state: "folded".to_owned(), duration_ms: None, end: None, ..line }),
        }
        None
    }

    /// The lines of a window that is over, or of what there is at the end.
    pub(crate) fn take(&mut self, now: Instant, end: bool) -> Vec<FlowLine> {
        let is_over = self.began.is_some_and(|began| now.saturating_duration_since(began) >= WINDOW);
        if !is_over && !end {
            return Vec::new();
        }
        let keys = std::mem::take(self).keys;
        keys.into_values().filter_map(|(_, folded)| folded).collect()
    }

    fn key(&self, line: &FlowLine) -> Key {
        let key = Key {
            way: line.way.clone(),
            protocol: line.protocol.clone(),
            // Of what comes in, the port that it comes to.
            destination: match line.address {
                _ if line.way == "in" => Some((String::new(), line.port)),
                address => address.map(|address| (address.to_string(), line.port)),
            },
            exe: line.exe.clone(),
            uid: line.uid,
        };
        if self.keys.len() < KEYS || self.keys.contains_key(&key) {
            return key;
        }
        Key { destination: None, exe: None, uid: None, ..key }
    }
}

/// What differs is left out.
fn add(folded: &mut FlowLine, line: &FlowLine) {
    folded.bytes_up = sum(folded.bytes_up, line.bytes_up);
    folded.bytes_down = sum(folded.bytes_down, line.bytes_down);
    folded.connections += line.connections;
    folded.new |= line.new;
    keep_if_same(&mut folded.pid, &line.pid);
    keep_if_same(&mut folded.exe, &line.exe);
    keep_if_same(&mut folded.uid, &line.uid);
    keep_if_same(&mut folded.container, &line.container);
    keep_if_same(&mut folded.unknown, &line.unknown);
    keep_if_same(&mut folded.port, &line.port);
    if folded.address != line.address {
        (folded.address, folded.port) = (None, None);
        folded.names.clear();
    }
}

fn keep_if_same<T: PartialEq>(kept: &mut Option<T>, other: &Option<T>) {
    if *kept != *other {
        *kept = None;
    }
}

#[cfg(test)]
mod tests;
