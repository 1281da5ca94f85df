//! What is told of flows, counted, and done about them: by the way that each takes.

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::net::IpAddr;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use egret_flows::watch::{Listed, Lost, Part};
use egret_flows::{End, Event as Seen, Flow, Octets, traffic};
use egret_policy::Class;
use egret_proxy::Gateway;
use serde_json::{Value, json};

use super::fold::Fold;
use super::row::{self, Row, end_word};
use super::trends::Trends;
use super::ways::{Listening, OwnSockets, Surroundings, Unexplained, Way};
use crate::config::Around;
use crate::confinement::exit::Direct;
use crate::events::Event;
use crate::events::flows::{FlowGap, FlowLine};
use crate::files::Outlets;
use crate::metrics;
use crate::replay::counted;

/// Flows that ended, kept for whoever follows.
const KEPT: usize = 2_048;
/// Destinations that are remembered, to know new ones.
const REMEMBERED: usize = 4_096;
/// What is met in the first hour is not called new: a task begins with everything.
const SETTLING: Duration = Duration::from_secs(3_600);

/// Listings come every second.
const STALLED: Duration = Duration::from_secs(30);

/// What the watch needs to know of everything else.
pub(super) struct Knows {
    pub(super) outlets: Outlets,
    pub(super) gateway: Arc<Gateway>,
    pub(super) own: Arc<OwnSockets>,
    pub(super) direct: Direct,
    pub(super) nameservers: Vec<IpAddr>,
}

/// Who hears the watch.
pub(super) struct Teller {
    knows: Knows,
    around: Around,
    fold: Fold,
    pub(super) trends: Trends,
    listening: Listening,
    /// Live flows that went around and for which the policy was followed.
    acted: HashSet<u64>,
    unexplained: Unexplained,
    known: HashSet<(IpAddr, Option<u16>)>,
    /// From when on a destination that nobody knows is new.
    settled: Instant,
    sums: BTreeMap<Way, (u64, Octets)>,
    ended: VecDeque<Row>,
    /// The number of the last that ended.
    seq: u64,
    began: Instant,
    latest: Listed,
    /// When that was.
    listed: Instant,
    gaps: u64,
    blind: BTreeMap<&'static str, String>,
}

impl Teller {
    pub(super) fn new(knows: Knows, around: Around) -> Self {
        let now = Instant::now();
        Self {
            knows,
            around,
            fold: Fold::default(),
            trends: Trends::default(),
            listening: Listening::default(),
            acted: HashSet::new(),
            unexplained: Unexplained::default(),
            known: HashSet::new(),
            settled: now + SETTLING,
            sums: BTreeMap::new(),
            ended: VecDeque::new(),
            seq: 0,
            began: now,
            latest: Listed::default(),
            listed: now,
            gaps: 0,
            blind: BTreeMap::new(),
        }
    }

    /// Another policy: what it says of flows around, and what comes now is new to it.
    pub(super) fn reload(&mut self, around: Around) {
        (self.around, self.settled) = (around, Instant::now());
    }

    pub(super) fn hear(&mut self, seen: Seen) {
        match seen {
            Seen::Began(flow) => self.began(&flow),
            Seen::Goes(flow) => self.goes(&flow),
            Seen::Ended(flow, end) => self.ended(&flow, end),
            Seen::Lost(lost) => self.lost(lost),
            Seen::Listed(listed) => self.listed(listed),
            Seen::Refused(part, why) => self.refused(part, why),
        }
    }

    fn began(&mut self, flow: &Flow) {
        let way = self.way(flow);
        if way == Way::Around {
            // What it carried so far is told with the rest.
            let begun = Flow { new: Octets::default(), ..flow.clone() };
            self.tell(&begun, way, "began", |line| (line.bytes_up, line.bytes_down) = (None, None));
            self.act(flow);
        } else if way == Way::Near {
            self.unexplained.near(flow, Octets::default());
        }
    }

    fn goes(&mut self, flow: &Flow) {
        let way = self.way(flow);
        self.tell(flow, way, "goes", |_| {});
        // Only now it may be known who began it, or the policy may be another one.
        if way == Way::Around {
            self.act(flow);
        }
    }

    fn ended(&mut self, flow: &Flow, end: End) {
        let way = self.way(flow);
        let age = self.age(flow);
        self.tell(flow, way, "ended", |line| {
            line.connections = 1;
            line.duration_ms = flow.uid.is_some().then_some(age);
            line.end = Some(end_word(end).to_owned());
        });
        if way == Way::Around {
            self.act(flow);
        }
        self.acted.remove(&flow.cookie);
        if way != Way::Near {
            self.sums.entry(way).or_default().0 += 1;
            metrics::flow_ended(way.as_str(), flow.protocol.as_str());
            self.keep(self.row_as(flow, way).ended(end));
        }
    }

    fn keep(&mut self, row: Row) {
        self.seq += 1;
        self.ended.push_back(row);
        if self.ended.len() > KEPT {
            self.ended.pop_front();
        }
    }

    /// A line for a flow that takes this way, unless it stays here.
    fn tell(&mut self, flow: &Flow, way: Way, state: &str, add: impl FnOnce(&mut FlowLine)) {
        self.count(way, flow);
        if way == Way::Near {
            return;
        }
        let mut line = row::line(flow, way, self.names(flow), state).now();
        if way == Way::In {
            // Whoever comes has a port of its own each time; ours is the one that tells.
            line.port = Some(flow.local.port());
        }
        line.new = way != Way::In && self.is_new(&line);
        line.action = (way == Way::Around).then(|| self.around.as_str().to_owned());
        add(&mut line);
        self.trends.see_now(&line);
        if let Some(line) = self.fold.admits(line, Instant::now()) {
            self.write(line);
        }
    }

    fn write(&self, line: FlowLine) {
        self.knows.outlets.journal.write(Event::Flow(Box::new(line)));
    }

    /// Adds what is new of a flow.
    fn count(&mut self, way: Way, flow: &Flow) {
        if way == Way::Near {
            self.unexplained.near(flow, flow.new);
            return;
        }
        let (_, octets) = self.sums.entry(way).or_default();
        *octets = *octets + flow.new;
        metrics::flow_carried(way.as_str(), flow.new.sent, flow.new.received);
    }

    /// Does what the policy says of a flow that goes around, once.
    fn act(&mut self, flow: &Flow) {
        if !self.acted.insert(flow.cookie) {
            return;
        }
        metrics::went_around(self.around.as_str());
        let why = || {
            let row = self.row_as(flow, Way::Around);
            let exe = row.exe.as_deref().unwrap_or("an unknown program").escape_debug().to_string();
            let to = flow.peer.map_or_else(|| "an unknown address".to_owned(), |peer| peer.to_string());
            format!("{exe} went around the proxy, to {to}")
        };
        match self.around {
            Around::Alert => {}
            Around::Unhealthy => self.knows.outlets.readiness.unhealthy(why),
            Around::Stop => self.knows.outlets.stop.say(why),
        }
    }

    fn lost(&mut self, lost: Lost) {
        let cause = if lost == Lost::Kernel { "kernel_queue" } else { "own_queue" };
        self.gaps += 1;
        metrics::flows_lost(cause);
        self.knows.outlets.journal.write(Event::FlowGap(FlowGap { section: "flows", cause }));
    }

    fn listed(&mut self, listed: Listed) {
        self.blind.remove(part_word(Part::Listings));
        self.listening.listed(&listed.listening);
        if listed.beyond > 0 && self.latest.beyond == 0 {
            let why = format!("{} sockets more than can be known at once: of those only the end is told", listed.beyond);
            self.knows.outlets.journal.write(Event::Coverage { section: "flows", why });
        }
        if let Ok(passed) = traffic::passed() {
            self.unexplained.look(listed.totals, passed);
            let Octets { sent, received } = self.unexplained.unexplained;
            metrics::unexplained(sent, received);
        }
        metrics::flows_known(listed.sockets);
        (self.latest, self.listed) = (listed, Instant::now());
        self.flush(false);
    }

    /// Tells what was folded; at the `end`, at once.
    pub(super) fn flush(&mut self, end: bool) {
        for line in self.fold.take(Instant::now(), end) {
            self.write(line.now());
        }
    }

    fn refused(&mut self, part: Part, why: String) {
        let section = part_word(part);
        if self.blind.insert(section, why.clone()).is_none() {
            let what = match part {
                Part::Listings => "sockets cannot be listed",
                Part::Ends => "ends of sockets are not told: flows between two listings are not seen",
            };
            self.knows.outlets.journal.write(Event::Coverage { section: "flows", why: format!("{what}: {why}") });
        }
    }

    /// Whether nobody was there before; it is remembered.
    fn is_new(&mut self, line: &FlowLine) -> bool {
        let Some(address) = line.address else { return false };
        let has_room = self.known.len() < REMEMBERED;
        let key = (address, line.port);
        let is_known = if has_room { !self.known.insert(key) } else { self.known.contains(&key) };
        !is_known && Instant::now() >= self.settled
    }

    fn way(&self, flow: &Flow) -> Way {
        let policy = self.knows.gateway.policy();
        let is_near = |address: IpAddr| matches!(policy.class_of(address), Class::Loopback | Class::OwnInterface);
        let direct = self.knows.direct.read().unwrap_or_else(PoisonError::into_inner);
        let surroundings = Surroundings {
            own: &self.knows.own,
            direct: &direct,
            nameservers: &self.knows.nameservers,
            listening: &self.listening,
            is_near: &is_near,
            pid: std::process::id(),
        };
        surroundings.way(flow)
    }

    fn names(&self, flow: &Flow) -> Vec<String> {
        let names = flow.peer.map(|peer| self.knows.gateway.resolved_names(peer.ip())).unwrap_or_default();
        names.iter().map(ToString::to_string).collect()
    }

    /// How long ago it was first seen, in milliseconds; it is known to the second.
    fn age(&self, flow: &Flow) -> u64 {
        u64::try_from(self.began.elapsed().saturating_sub(flow.began).as_millis()).unwrap_or(u64::MAX)
    }

    fn row_as(&self, flow: &Flow, way: Way) -> Row {
        Row::new(flow, way, self.names(flow), self.age(flow))
    }

    /// A live flow, as it is shown.
    pub(super) fn row(&self, flow: &Flow) -> Row {
        self.row_as(flow, self.way(flow))
    }

    /// Flows that ended after that number, the last number, and how many in between are not kept any more.
    pub(super) fn ended_since(&self, since: u64) -> (Vec<Row>, u64, u64) {
        let wanted = self.seq.saturating_sub(since);
        let kept = u64::try_from(self.ended.len()).unwrap_or(u64::MAX).min(wanted);
        let skip = self.ended.len() - usize::try_from(kept).unwrap_or(0);
        (self.ended.iter().skip(skip).cloned().collect(), self.seq, wanted - kept)
    }

    /// A watch that stands still is none, whatever the reason.
    fn state(&self) -> &'static str {
        match () {
            () if self.blind.contains_key(part_word(Part::Listings)) => "blind",
            () if self.listed.elapsed() > STALLED => "stalled",
            () => "watching",
        }
    }

    /// For /status.
    pub(super) fn status(&self) -> Value {
        let sums = Way::TOLD.iter().map(|way| {
            let (flows, octets) = self.sums.get(way).copied().unwrap_or_default();
            (way.as_str().to_owned(), json!({ "ended": flows, "bytes_up": octets.sent, "bytes_down": octets.received }))
        });
        let Unexplained { passed, unexplained, .. } = self.unexplained;
        json!({
            "state": self.state(),
            "around": self.around.as_str(),
            "sockets": self.latest.sockets,
            "beyond": self.latest.beyond,
            "listing_ms": u64::try_from(self.latest.took.as_millis()).unwrap_or(u64::MAX),
            "ways": sums.collect::<serde_json::Map<_, _>>(),
            "interfaces": { "bytes_up": passed.sent, "bytes_down": passed.received },
            "unexplained": { "bytes_up": unexplained.sent, "bytes_down": unexplained.received },
            "gaps": self.gaps,
            "blind": self.blind_spots(),
            "others_visible": egret_flows::others_visible(),
        })
    }

    /// What cannot be seen, in sentences.
    pub(super) fn blind_spots(&self) -> Vec<String> {
        let parts = self.blind.iter().map(|(part, why)| format!("{part}: {why}"));
        let beyond = (self.latest.beyond > 0).then(|| format!("{} beyond the table", counted_sockets(self.latest.beyond)));
        let stalled = (self.state() == "stalled").then(|| "listings: none for half a minute".to_owned());
        parts.chain(beyond).chain(stalled).collect()
    }
}

fn counted_sockets(count: usize) -> String {
    counted(u64::try_from(count).unwrap_or(u64::MAX), "socket")
}

fn part_word(part: Part) -> &'static str {
    match part {
        Part::Listings => "listings",
        Part::Ends => "ends",
    }
}
