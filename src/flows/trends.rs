//! Where flows went, hour by hour, and who went around the proxy: a pure fold of lines, of the watch or of journals, into bounded
//! tables. A destination is a name that its address was resolved from, or the address.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::events::flows::{FlowLine, sum};

/// Hours that are kept.
const HOURS: usize = 48;
/// Destinations of an hour that are kept apart; more are counted together.
const EACH_HOUR: usize = 256;
/// Owners and destinations that went around; more are counted together.
const MOST_AROUND: usize = 1_024;
/// Names of one address.
const MOST_NAMES: usize = 8;

/// The tables.
#[derive(Clone, Debug, Default)]
pub(crate) struct Trends {
    hours: BTreeMap<String, BTreeMap<Destination, Sums>>,
    around: BTreeMap<Who, Around>,
    /// Lines of what went around beyond the table.
    pub(crate) other: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Destination {
    way: String,
    host: String,
    port: Option<u16>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Sums {
    connections: u64,
    up: u64,
    down: u64,
    new: bool,
}

/// One destination in one hour.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Trend {
    /// The beginning of the hour, in UTC.
    pub(crate) hour: String,
    pub(crate) way: String,
    /// A name, an address, `clients` of what comes in, `unknown`, or `other`.
    pub(crate) host: String,
    pub(crate) port: Option<u16>,
    pub(crate) connections: u64,
    pub(crate) bytes_up: u64,
    pub(crate) bytes_down: u64,
    /// Nobody had been there before.
    pub(crate) new: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Who {
    exe: Option<String>,
    uid: Option<u32>,
    address: Option<String>,
    port: Option<u16>,
    protocol: String,
}

/// One owner and destination that went around.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Around {
    pub(crate) exe: Option<String>,
    pub(crate) uid: Option<u32>,
    pub(crate) container: Option<String>,
    /// Why the owner is not known.
    pub(crate) unknown: Option<String>,
    pub(crate) address: Option<String>,
    pub(crate) port: Option<u16>,
    pub(crate) protocol: String,
    pub(crate) names: Vec<String>,
    pub(crate) connections: u64,
    /// `null`: nobody counts UDP.
    pub(crate) bytes_up: Option<u64>,
    pub(crate) bytes_down: Option<u64>,
    pub(crate) first_seen: String,
    pub(crate) last_seen: String,
    pub(crate) new: bool,
    /// What to set, so that it does not.
    pub(crate) advice: Option<String>,
}

impl Trends {
    /// Folds a line of a journal in.
    pub(crate) fn see(&mut self, line: &FlowLine) {
        self.see_line(line, false);
    }

    /// Folds a line of this moment in. What is kept of later hours was told by a clock that was set back since, and goes first.
    pub(crate) fn see_now(&mut self, line: &FlowLine) {
        self.see_line(line, true);
    }

    fn see_line(&mut self, line: &FlowLine, is_now: bool) {
        // 2026-11-21T20 of 2026-11-21T20:17:22.000Z.
        if let Some(hour) = line.time.get(..13) {
            let hour = format!("{hour}:00:00Z");
            self.see_hour(&hour, line);
            self.forget_hours(is_now.then_some(&hour));
        }
        if line.way == "around" {
            self.see_around(line);
        }
    }

    /// The oldest ones beyond what is kept, or what lies ahead of the present.
    fn forget_hours(&mut self, present: Option<&String>) {
        while self.hours.len() > HOURS {
            let is_ahead = self.hours.keys().next_back() > present;
            let _ = if present.is_some() && is_ahead { self.hours.pop_last() } else { self.hours.pop_first() };
        }
    }

    fn see_hour(&mut self, hour: &str, line: &FlowLine) {
        let destinations = self.hours.entry(hour.to_owned()).or_default();
        let host = match line.way.as_str() {
            "in" => Some("clients".to_owned()),
            _ => line.names.first().cloned().or_else(|| line.address.map(|address| address.to_string())),
        };
        let mut key = Destination { way: line.way.clone(), host: host.unwrap_or_else(|| "unknown".to_owned()), port: line.port };
        if destinations.len() >= EACH_HOUR && !destinations.contains_key(&key) {
            (key.host, key.port) = ("other".to_owned(), None);
        }
        let sums = destinations.entry(key).or_default();
        sums.connections = sums.connections.saturating_add(line.connections);
        sums.up = sums.up.saturating_add(line.bytes_up.unwrap_or(0));
        sums.down = sums.down.saturating_add(line.bytes_down.unwrap_or(0));
        sums.new |= line.new;
    }

    fn see_around(&mut self, line: &FlowLine) {
        let (exe, uid, port) = (line.exe.clone(), line.uid, line.port);
        let who = Who { exe, uid, address: line.address.map(|a| a.to_string()), port, protocol: line.protocol.clone() };
        if self.around.len() >= MOST_AROUND && !self.around.contains_key(&who) {
            self.other += 1;
            return;
        }
        let entry = self.around.entry(who).or_insert_with(|| Around {
            first_seen: line.time.clone(),
            exe: line.exe.clone(),
            uid: line.uid,
            address: line.address.map(|a| a.to_string()),
            port: line.port,
            protocol: line.protocol.clone(),
            ..Around::default()
        });
        entry.add(line);
    }

    /// What went around, the most connections first.
    pub(crate) fn around(&self) -> Vec<Around> {
        let mut all: Vec<Around> = self.around.values().cloned().collect();
        all.sort_by_key(|around| std::cmp::Reverse(around.connections));
        for around in &mut all {
            let advice = around.exe.as_deref().and_then(|exe| super::advice::of(exe, &around.protocol));
            around.advice = advice.map(str::to_owned);
        }
        all
    }

    /// Every hour and destination, in order.
    pub(crate) fn rows(&self) -> Vec<Trend> {
        let row = |hour: &String, key: &Destination, sums: &Sums| Trend {
            hour: hour.clone(),
            way: key.way.clone(),
            host: key.host.clone(),
            port: key.port,
            connections: sums.connections,
            bytes_up: sums.up,
            bytes_down: sums.down,
            new: sums.new,
        };
        self.hours.iter().flat_map(|(hour, all)| all.iter().map(move |(key, sums)| row(hour, key, sums))).collect()
    }
}

impl Around {
    fn add(&mut self, line: &FlowLine) {
        self.connections = self.connections.saturating_add(line.connections);
        self.bytes_up = sum(self.bytes_up, line.bytes_up);
        self.bytes_down = sum(self.bytes_down, line.bytes_down);
        self.container = self.container.take().or_else(|| line.container.clone());
        self.unknown = self.unknown.take().or_else(|| line.unknown.clone());
        let room = MOST_NAMES.saturating_sub(self.names.len());
        let new: Vec<String> = line.names.iter().filter(|name| !self.names.contains(name)).take(room).cloned().collect();
        self.names.extend(new);
        self.new |= line.new;
        if line.time < self.first_seen {
            self.first_seen.clone_from(&line.time);
        }
        if line.time > self.last_seen {
            self.last_seen.clone_from(&line.time);
        }
    }
}

#[cfg(test)]
mod tests;
