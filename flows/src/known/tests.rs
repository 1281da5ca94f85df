//! The table against a kernel that is played: sockets that begin, carry octets and end, a listing that meets some of them at
//! one time and is folded in at another, and ends that come late, in bulk, or not at all.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use proptest::prelude::*;

use super::*;
use crate::diag::Counted;

const NOW: Duration = Duration::from_secs(5);

fn socket(cookie: u64, port: u16, sent: u64, received: u64) -> Socket {
    let peer = SocketAddr::new(Ipv4Addr::new(198, 18, 0, 7).into(), port);
    let counted = Counted { acked: sent + 1, received, sent: Some(sent), is_idle: true, had_answer: true };
    Socket {
        cookie,
        state: State::Established,
        is_remnant: false,
        local: "198.18.0.1:40000".parse().unwrap(),
        peer: Some(peer),
        former: peer.ip(),
        uid: 1000,
        inode: u32::try_from(cookie).unwrap(),
        counted: Some(counted),
    }
}

fn wiped(cookie: u64) -> Socket {
    let counted = Counted { had_answer: true, ..Counted::default() };
    Socket { peer: None, state: State::Closed, counted: Some(counted), ..socket(cookie, 443, 0, 0) }
}

fn list(known: &mut Known, sockets: &[Socket]) -> Vec<(Flow, End)> {
    known.begin();
    let mut changes: Vec<_> = sockets.iter().filter_map(|socket| known.listed(Protocol::Tcp, socket, NOW)).collect();
    changes.extend(known.finish(true));
    changes
}

fn ends(changes: &[(Flow, End)]) -> Vec<(u64, End)> {
    changes.iter().map(|(flow, end)| (flow.cookie, *end)).collect()
}

fn totals(flows: u64, sent: u64, received: u64) -> Totals {
    Totals { flows, connections: flows, octets: Octets { sent, received } }
}

#[test]
fn a_socket_is_small() {
    // A node of a tree has eleven places, of which at least five are taken; a link to it and its own are some 16 octets a place.
    let place = std::mem::size_of::<(u64, Entry)>() + 16;
    assert!(place * 11 / 5 < 300, "{place}");
}

#[test]
fn a_flow_that_is_listed_and_ends_is_one() {
    let mut known = Known::new(10, true);
    assert!(ends(&list(&mut known, &[socket(1, 443, 10, 20)])).is_empty());
    assert!(known.fresh(9).is_empty(), "nobody has looked who holds it");
    assert_eq!(known.unattributed(9), [1]);
    known.attribute(&[1], &HashMap::new(), Unseen::NotVisible);
    assert!(known.fresh(9).is_empty(), "the next listing proves who began it");
    assert!(ends(&list(&mut known, &[socket(1, 443, 10, 20)])).is_empty());
    assert!(matches!(&known.fresh(9)[..], [flow] if flow.direction == Some(Direction::Out)));
    assert!(known.fresh(9).is_empty(), "it is told once");
    let changes = known.destroyed(Protocol::Tcp, &socket(1, 443, 15, 25), NOW);
    assert_eq!(ends(&changes), [(1, End::Told)]);
    assert_eq!(known.totals(), totals(1, 15, 25));
}

/// Both sides may ask at once, and then the other's SYN is answered before ours is acknowledged.
#[test]
fn who_asked_is_not_taken_for_who_was_asked() {
    let mut known = Known::new(10, true);
    let both = Socket { state: State::SynReceived, counted: Some(Counted::default()), ..socket(1, 443, 0, 0) };
    list(&mut known, &[both]);
    assert_eq!(known.flows()[0].direction, None);
    for _ in 0..2 {
        list(&mut known, &[socket(1, 443, 10, 0)]);
    }
    assert_eq!(known.flows()[0].direction, Some(Direction::Out));
    let unheld = Socket { inode: 0, state: State::SynReceived, counted: Some(Counted::default()), ..socket(2, 443, 0, 0) };
    list(&mut known, &[unheld]);
    assert_eq!(known.flows()[1].direction, Some(Direction::In));
    let closed = Counted { acked: 12, received: 0, sent: Some(10), is_idle: true, had_answer: true };
    let end = Socket { state: State::Closed, counted: Some(closed), ..socket(2, 443, 0, 0) };
    let changes = known.destroyed(Protocol::Tcp, &end, NOW);
    assert_eq!(changes[0].0.direction, Some(Direction::Out), "what is certain later counts");
}

/// A socket can be led back to loopback before it ends, and then its end is nobody's business here.
#[test]
fn what_never_ends_does_not_fill_the_table() {
    let mut known = Known::new(4, true);
    let all = [1, 2, 3].map(|cookie| socket(cookie, 443, 1, 1));
    list(&mut known, &all);
    for _ in 0..2 {
        assert!(ends(&list(&mut known, &[])).is_empty());
    }
    assert_eq!(ends(&list(&mut known, &[])), [1, 2, 3].map(|cookie| (cookie, End::Gone)));
    let late = known.destroyed(Protocol::Tcp, &socket(2, 443, 5, 1), NOW);
    assert!(late.is_empty(), "counted already: {late:?}");
    assert_eq!((known.size().0, known.totals()), (0, totals(3, 7, 3)));
}

#[test]
fn a_flow_that_no_listing_met_is_one_and_its_holder_is_unknown() {
    let mut known = Known::new(10, true);
    let changes = known.destroyed(Protocol::Tcp, &socket(1, 443, 15, 25), NOW);
    let [(flow, End::Told)] = &changes[..] else { panic!("{changes:?}") };
    assert_eq!((flow.uid, flow.holder.clone()), (None, Err(Unseen::Ended)), "the kernel tells user 0 of every end");
    assert_eq!(known.totals(), totals(1, 15, 25));
}

#[test]
fn a_listing_that_met_a_socket_before_its_end_does_not_bring_it_back() {
    let mut known = Known::new(10, true);
    known.begin();
    known.destroyed(Protocol::Tcp, &socket(1, 443, 15, 25), NOW);
    assert!(known.listed(Protocol::Tcp, &socket(1, 443, 10, 20), NOW).is_none());
    assert!(known.finish(true).is_empty());
    assert_eq!((known.size().0, known.totals()), (0, totals(1, 15, 25)));
}

#[test]
fn what_a_listing_lacks_is_closed_and_has_not_ended_while_ends_are_heard() {
    let mut known = Known::new(10, true);
    list(&mut known, &[socket(1, 443, 10, 20)]);
    assert!(ends(&list(&mut known, &[])).is_empty());
    assert_eq!(known.flows()[0].state, State::Closed);
    assert_eq!(ends(&known.destroyed(Protocol::Tcp, &socket(1, 443, 11, 21), NOW)), [(1, End::Told)]);
    assert_eq!(known.totals(), totals(1, 11, 21));
}

#[test]
fn after_a_loss_what_is_gone_has_ended_and_a_late_end_only_corrects() {
    let mut known = Known::new(10, true);
    list(&mut known, &[socket(1, 443, 10, 20), socket(2, 443, 1, 1)]);
    known.lost();
    known.begin();
    assert!(known.finish(false).is_empty(), "a listing that broke off says nothing");
    assert_eq!(ends(&list(&mut known, &[socket(2, 443, 1, 1)])), [(1, End::Gone)]);
    assert!(known.destroyed(Protocol::Tcp, &socket(1, 443, 30, 40), NOW).is_empty());
    assert_eq!(known.totals(), totals(2, 31, 41));
    assert!(ends(&list(&mut known, &[])).is_empty(), "one loss is one look");
}

#[test]
fn without_ends_what_is_gone_has_ended() {
    let mut known = Known::new(10, false);
    list(&mut known, &[socket(1, 443, 10, 20)]);
    assert_eq!(ends(&list(&mut known, &[])), [(1, End::Gone)]);
    assert_eq!(known.totals(), totals(1, 10, 20));
}

#[test]
fn a_socket_that_is_used_again_is_two_flows() {
    let mut known = Known::new(10, true);
    list(&mut known, &[socket(1, 443, 10, 20)]);
    assert_eq!(ends(&list(&mut known, &[socket(1, 444, 5, 5)])), [(1, End::Reused)]);
    assert_eq!(ends(&list(&mut known, &[socket(1, 444, 1, 1)])), [(1, End::Reused)], "the same peer, and counts began anew");
    assert_eq!(ends(&known.destroyed(Protocol::Tcp, &socket(1, 80, 7, 7), NOW)), [(1, End::Reused), (1, End::Told)]);
    assert_eq!(known.totals(), totals(4, 23, 33));
}

#[test]
fn what_is_wiped_counts_as_last_seen_and_is_seen_even_if_nobody_met_it() {
    let mut known = Known::new(10, true);
    list(&mut known, &[socket(1, 443, 10, 20)]);
    assert_eq!(ends(&known.destroyed(Protocol::Tcp, &wiped(1), NOW)), [(1, End::Wiped)]);
    let changes = known.destroyed(Protocol::Tcp, &wiped(2), NOW);
    let [(flow, End::Wiped)] = &changes[..] else { panic!("{changes:?}") };
    assert_eq!(flow.peer, Some("198.18.0.7:0".parse().unwrap()));
    assert_eq!(known.totals(), totals(2, 10, 20));
}

#[test]
fn a_connect_that_failed_is_a_flow_if_it_was_met_and_a_socket_that_never_connected_is_none() {
    let mut known = Known::new(10, true);
    let asks = Socket { state: State::SynSent, counted: Some(Counted::default()), ..socket(1, 443, 0, 0) };
    list(&mut known, &[asks]);
    let failed = Socket { peer: None, counted: Some(Counted::default()), ..wiped(1) };
    assert_eq!(ends(&known.destroyed(Protocol::Tcp, &failed, NOW)), [(1, End::Told)]);
    assert!(known.destroyed(Protocol::Tcp, &Socket { cookie: 2, ..failed }, NOW).is_empty());
    assert_eq!(known.totals(), totals(1, 0, 0));
}

#[test]
fn what_is_left_of_a_closed_connection_is_no_flow() {
    let mut known = Known::new(10, true);
    list(&mut known, &[Socket { is_remnant: true, state: State::FinWait2, ..socket(9, 443, 0, 0) }]);
    assert_eq!(known.totals(), Totals::default());
}

#[test]
fn datagram_sockets_are_flows_even_if_port_and_peer_were_wiped_and_no_connections() {
    let mut known = Known::new(10, true);
    let open = Socket { peer: None, former: Ipv4Addr::UNSPECIFIED.into(), counted: None, ..socket(1, 0, 0, 0) };
    let wiped = Socket { cookie: 2, local: "0.0.0.0:0".parse().unwrap(), ..open.clone() };
    for socket in [open, wiped] {
        let changes = known.destroyed(Protocol::Udp, &socket, NOW);
        let [(flow, End::Told)] = &changes[..] else { panic!("{changes:?}") };
        assert_eq!((flow.peer, flow.local), (None, socket.local), "it may send anywhere");
    }
    assert_eq!(known.totals(), Totals { connections: 0, ..totals(2, 0, 0) });
    list(&mut known, &[socket(3, 443, 1, 2)]);
    known.destroyed(Protocol::Tcp, &socket(4, 443, 3, 4), NOW);
    assert_eq!(known.totals(), Totals { connections: 2, ..totals(4, 4, 6) });
}

#[test]
fn beyond_the_table_sockets_are_counted_and_their_ends_still_told() {
    let mut known = Known::new(1, true);
    list(&mut known, &[socket(1, 443, 0, 0), socket(2, 443, 3, 4)]);
    assert_eq!(known.size(), (1, 1));
    assert_eq!(ends(&known.destroyed(Protocol::Tcp, &socket(2, 443, 5, 6), NOW)), [(2, End::Told)]);
    assert_eq!(known.totals(), totals(2, 5, 6));
}

#[test]
fn a_flow_that_goes_on_is_told_with_what_is_new() {
    let mut known = Known::new(10, true);
    list(&mut known, &[socket(1, 443, 10, 20)]);
    let every = Duration::from_secs(60);
    assert!(known.goes(every, NOW + Duration::from_secs(59), 9).is_empty());
    let told = known.goes(every, NOW + every, 9);
    let [flow] = &told[..] else { panic!("{told:?}") };
    assert_eq!((flow.new, flow.octets), (Octets { sent: 10, received: 20 }, Octets { sent: 10, received: 20 }));
    assert!(known.goes(every, NOW + every, 9).is_empty());
    let changes = known.destroyed(Protocol::Tcp, &socket(1, 443, 15, 25), NOW);
    let [(flow, _)] = &changes[..] else { panic!("{changes:?}") };
    assert_eq!(flow.new, Octets { sent: 5, received: 5 });
}

#[test]
fn times_that_jump_are_no_panic() {
    let mut known = Known::new(10, true);
    known.begin();
    known.listed(Protocol::Tcp, &socket(1, 443, 1, 1), Duration::MAX);
    known.finish(true);
    assert!(known.goes(Duration::from_secs(60), Duration::ZERO, 9).is_empty());
    known.goes(Duration::ZERO, Duration::MAX, 9);
}

/// What the played kernel does next.
#[derive(Clone, Debug)]
enum Act {
    /// A socket begins.
    Begin,
    /// One of the live ones carries octets.
    Carry(prop::sample::Index, u8, u8),
    /// One ends; its notification waits.
    End(prop::sample::Index),
    /// The listing under way meets one of the live ones, or begins.
    Meet(prop::sample::Index),
    /// The listing comes to its end, which all live sockets were met for, and is folded in.
    List,
    /// Between listings, all live sockets are met and folded in.
    Glance,
    /// So many notifications are folded in.
    Hear(u8),
    /// All that wait are lost.
    Lose,
    /// The time is another, earlier or later.
    Jump(Duration),
}

fn act(loses: bool) -> impl Strategy<Value = Act> {
    let lose = if loses { 1 } else { 0 };
    prop_oneof![
        4 => Just(Act::Begin),
        4 => (any::<prop::sample::Index>(), any::<u8>(), any::<u8>()).prop_map(|(of, up, down)| Act::Carry(of, up, down)),
        4 => any::<prop::sample::Index>().prop_map(Act::End),
        3 => any::<prop::sample::Index>().prop_map(Act::Meet),
        2 => Just(Act::List),
        2 => Just(Act::Glance),
        3 => any::<u8>().prop_map(|most| Act::Hear(most % 4)),
        lose => Just(Act::Lose),
        1 => any::<Duration>().prop_map(Act::Jump),
    ]
}

/// A kernel, and a table that is told of it.
struct Played {
    known: Known,
    live: BTreeMap<u64, (u64, u64)>,
    /// Everything that there ever was.
    truth: BTreeMap<u64, (u64, u64)>,
    /// Notifications, and before which listing they were made.
    waiting: Vec<(u64, u32)>,
    listings: u32,
    /// What the listing under way has met, as it was then.
    met: Option<BTreeMap<u64, (u64, u64)>>,
    next: u64,
    now: Duration,
    told: BTreeMap<u64, Octets>,
}

impl Played {
    fn new() -> Self {
        let (known, next) = (Known::new(1000, true), 1);
        let (live, truth, waiting, listings, met, told) = Default::default();
        Self { known, live, truth, waiting, listings, met, next, now: NOW, told }
    }

    fn play(&mut self, act: &Act) {
        let pick = |of: &prop::sample::Index, live: &BTreeMap<u64, (u64, u64)>| {
            (!live.is_empty()).then(|| *live.keys().nth(of.index(live.len())).unwrap())
        };
        match act {
            Act::Begin => {
                self.live.insert(self.next, (0, 0));
                self.truth.insert(self.next, (0, 0));
                self.next += 1;
            }
            Act::Carry(of, up, down) => {
                let Some(cookie) = pick(of, &self.live) else { return };
                let (sent, received) = self.live[&cookie];
                let counts = (sent + u64::from(*up), received + u64::from(*down));
                self.live.insert(cookie, counts);
                self.truth.insert(cookie, counts);
            }
            Act::End(of) => {
                let Some(cookie) = pick(of, &self.live) else { return };
                self.live.remove(&cookie);
                self.waiting.push((cookie, self.listings));
            }
            Act::Meet(of) => {
                if self.met.is_none() {
                    self.known.begin();
                }
                let met = self.met.get_or_insert_default();
                if let Some(cookie) = pick(of, &self.live) {
                    met.insert(cookie, self.live[&cookie]);
                }
            }
            Act::List => self.list(),
            Act::Glance if self.met.is_some() => {}
            Act::Glance => self.meet(self.live.clone()),
            Act::Hear(most) => self.hear(usize::from(*most)),
            Act::Lose => {
                self.waiting.clear();
                self.known.lost();
            }
            Act::Jump(now) => self.now = *now,
        }
    }

    fn list(&mut self) {
        // No notification waits for as long as it is remembered that its flow may have ended.
        self.listings += 1;
        let late = self.waiting.iter().filter(|(_, made)| made + REMEMBERED / 2 < self.listings).count();
        self.hear(late);
        if self.met.is_none() {
            self.known.begin();
        }
        let mut met = self.met.take().unwrap_or_default();
        for (cookie, counts) in &self.live {
            met.entry(*cookie).or_insert(*counts);
        }
        self.meet(met);
        let changes = self.known.finish(true);
        self.tell(changes);
        self.goes(Duration::from_secs(60));
    }

    fn meet(&mut self, met: BTreeMap<u64, (u64, u64)>) {
        for (cookie, (sent, received)) in met {
            let change = self.known.listed(Protocol::Tcp, &socket(cookie, 443, sent, received), self.now);
            self.tell(change.into_iter().collect());
        }
    }

    fn goes(&mut self, every: Duration) {
        let goes = self.known.goes(every, self.now, usize::MAX);
        goes.iter().for_each(|flow| self.add(flow));
    }

    fn hear(&mut self, most: usize) {
        let most = most.min(self.waiting.len());
        for (cookie, _) in self.waiting.drain(..most).collect::<Vec<_>>() {
            let (sent, received) = self.truth[&cookie];
            let changes = self.known.destroyed(Protocol::Tcp, &socket(cookie, 443, sent, received), self.now);
            self.tell(changes);
        }
    }

    fn tell(&mut self, changes: Vec<(Flow, End)>) {
        changes.iter().for_each(|(flow, _)| self.add(flow));
    }

    fn add(&mut self, flow: &Flow) {
        let told = self.told.entry(flow.cookie).or_default();
        *told = *told + flow.new;
    }

    /// Everything is heard and listed, by a listing that began after it.
    fn settle(&mut self) {
        self.hear(usize::MAX);
        self.list();
        self.list();
        self.now = Duration::MAX;
        self.goes(Duration::ZERO);
    }

    fn truth(&self) -> Totals {
        self.truth.values().fold(Totals::default(), |all, (sent, received)| {
            let octets = Octets { sent: *sent, received: *received };
            all.with(Protocol::Tcp, octets)
        })
    }
}

proptest! {
    #[test]
    fn in_every_order_everything_is_counted_once(acts in proptest::collection::vec(act(false), 0..200)) {
        let mut played = Played::new();
        acts.iter().for_each(|act| played.play(act));
        played.settle();
        prop_assert_eq!(played.known.totals(), played.truth());
        let told = played.told.values().fold(Octets::default(), |all, one| all + *one);
        prop_assert_eq!(told, played.truth().octets, "what is told adds up to the same");
        prop_assert_eq!(played.known.size().0, played.live.len());
    }

    #[test]
    fn with_losses_nothing_is_counted_twice_and_what_was_met_is_counted(acts in proptest::collection::vec(act(true), 0..200)) {
        let mut played = Played::new();
        acts.iter().for_each(|act| played.play(act));
        played.settle();
        let (counted, truth) = (played.known.totals(), played.truth());
        prop_assert!(counted.flows <= truth.flows && counted.octets.sent <= truth.octets.sent);
        prop_assert!(counted.octets.received <= truth.octets.received);
        prop_assert_eq!(played.known.size().0, played.live.len(), "nothing that ended is left");
    }
}
