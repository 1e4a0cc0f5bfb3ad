//! A cluster in one thread, on a network that does what a seed says. Time is simulated, and each process has its own.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};

use super::tests::{addr, content, word};
use super::wire::{Datagram, Item, Told, Wanted, label};
use super::{Content, Dropped, Gossip, Millis, Outgoing, PEERS_MAX, QUESTIONS_MAX, Run, Settings, Word};
use crate::{Role, merge};

const INTERVAL: Millis = 1_000;
const REJOIN: Millis = 10_000;
const LABEL: &str = "cluster";

pub(super) struct Sim {
    now: Millis,
    rng: StdRng,
    nodes: Vec<Node>,
    /// Under way, by the time of arrival.
    flights: BTreeMap<(Millis, u64), Flight>,
    sent: u64,
    dropped: u64,
    /// One datagram of so many is lost; 0 loses none.
    loss: u32,
    /// The network damages and forges.
    foul: bool,
    past: Vec<Flight>,
    /// Nodes below it do not reach those from it on.
    split: Option<usize>,
    ports: u16,
}

struct Node {
    gossip: Option<Gossip>,
    addr: SocketAddr,
    /// Its own clock minus the simulation's.
    offset: Millis,
    tick_at: Millis,
    greet_at: Millis,
    paused_until: Millis,
    content: Content,
    starts: u32,
}

#[derive(Clone)]
struct Flight {
    from: SocketAddr,
    to: SocketAddr,
    bytes: Vec<u8>,
}

/// What every ring should show, beside all that run.
#[derive(Default, Clone, Copy)]
pub(super) struct Truth<'a> {
    /// Shown as dead.
    pub(super) dead: &'a [usize],
    /// Shown as dead or not at all: whoever has stopped.
    pub(super) any_dead: bool,
    /// Not shown though they run.
    pub(super) hidden: &'a [usize],
}

impl Sim {
    pub(super) fn new(members: usize, seed: u64) -> Self {
        let nodes = (0..members).map(|i| Node {
            gossip: None,
            addr: addr(1),
            offset: 0,
            tick_at: 0,
            greet_at: 0,
            paused_until: 0,
            content: content(&format!("ingester-{i}")),
            starts: 0,
        });
        let mut sim = Self {
            now: 0,
            rng: StdRng::seed_from_u64(seed),
            nodes: nodes.collect(),
            flights: BTreeMap::new(),
            sent: 0,
            dropped: 0,
            loss: 0,
            foul: false,
            past: Vec::new(),
            split: None,
            ports: 1,
        };
        for node in 0..members {
            let seconds = sim.rng.random_range(-1_000_000_000..1_000_000_000);
            sim.start(node, seconds, true);
        }
        sim
    }

    pub(super) fn dropped(&self) -> u64 {
        self.dropped
    }

    pub(super) fn sent(&self) -> u64 {
        self.sent
    }

    pub(super) fn lose(&mut self, one_of: u32) {
        self.loss = one_of;
    }

    pub(super) fn split(&mut self, at: Option<usize>) {
        self.split = at;
    }

    /// Starts a node, or its next run, with its clock wrong by so much.
    pub(super) fn start(&mut self, node: usize, clock_seconds: i64, moves: bool) {
        let seed = self.rng.random();
        if moves {
            self.ports += 1;
            self.nodes[node].addr = addr(self.ports);
        }
        let settings = Settings {
            addr: self.nodes[node].addr,
            cluster_label: LABEL.to_owned(),
            interval: Duration::from_secs(1),
            left_timeout: Duration::from_secs(300),
        };
        let now = self.now;
        let n = &mut self.nodes[node];
        n.starts += 1;
        n.offset = clock_seconds * 1_000;
        for entry in n.content.entries.values_mut() {
            entry.addr = format!("{}:{}", entry.id, n.starts);
            entry.registered = entry.registered.saturating_add_signed(clock_seconds);
        }
        n.gossip = Some(Gossip::new(settings, &n.content, seed, now + n.offset));
        (n.tick_at, n.greet_at, n.paused_until) = (now, now, now);
    }

    pub(super) fn stop(&mut self, node: usize) {
        self.nodes[node].gossip = None;
    }

    /// The process does nothing for this time.
    pub(super) fn pause(&mut self, node: usize, ms: Millis) {
        self.nodes[node].paused_until = self.now + ms;
    }

    /// A node changes its id to another's, by a new run.
    pub(super) fn claim(&mut self, node: usize, other: usize) {
        self.stop(node);
        self.run(400_000);
        self.nodes[node].content = self.nodes[other].content.clone();
        self.start(node, -5_000, true);
    }

    pub(super) fn forget(&mut self, at: usize, dead: usize) {
        let id = format!("ingester-{dead}");
        let now = self.now;
        let n = &mut self.nodes[at];
        let (own, gossip) = (now + n.offset, n.gossip.as_mut().expect("runs"));
        let is_it = |k: &super::Known| !k.alive && k.word.content().entries.values().any(|e| e.id == id);
        let runs: Vec<Run> = gossip.known(own).iter().filter(|k| is_it(k)).map(|k| k.run).collect();
        assert!(!runs.is_empty());
        gossip.forget(&runs, own);
        n.content.forgotten.extend(runs);
        let mut out = Vec::new();
        assert!(gossip.say(&n.content, own, &mut out));
        self.send(at, out);
    }

    /// Says that it answers nobody any more.
    pub(super) fn end(&mut self, node: usize) {
        let n = &mut self.nodes[node];
        n.content.entries.values_mut().for_each(|entry| (entry.state, entry.ended) = (crate::State::Leaving, true));
        let mut out = Vec::new();
        assert!(n.gossip.as_mut().expect("runs").say(&n.content, self.now + n.offset, &mut out));
        self.send(node, out);
    }

    /// Lets time pass.
    pub(super) fn run(&mut self, ms: Millis) {
        let until = self.now + ms;
        loop {
            let ticks = self.nodes.iter().filter(|n| n.gossip.is_some()).map(|n| n.tick_at.min(n.greet_at).max(n.paused_until)).min();
            let flight = self.flights.first_key_value().map(|((at, _), _)| *at);
            let Some(next) = ticks.into_iter().chain(flight).min().filter(|at| *at <= until) else { break };
            self.now = self.now.max(next);
            if flight == Some(next) {
                self.arrive();
            } else {
                self.tick();
            }
        }
        self.now = until;
    }

    fn tick(&mut self) {
        for node in 0..self.nodes.len() {
            // What the name of a headless service would say.
            let seeds: Vec<SocketAddr> = self.nodes.iter().filter(|n| n.gossip.is_some()).take(2).map(|n| n.addr).collect();
            let now = self.now;
            let n = &mut self.nodes[node];
            let Some(gossip) = n.gossip.as_mut().filter(|_| n.paused_until <= now) else { continue };
            let mut out = Vec::new();
            if n.tick_at <= now {
                out = gossip.tick(now + n.offset);
                n.tick_at = now + INTERVAL;
            }
            if n.greet_at <= now {
                for seed in seeds {
                    gossip.greet(seed, now + n.offset, &mut out);
                }
                let is_alone = gossip.known(now + n.offset).is_empty();
                n.greet_at = now + if is_alone { 500 } else { REJOIN };
            }
            assert!(gossip.peers.len() <= PEERS_MAX && gossip.questions.len() <= QUESTIONS_MAX);
            self.send(node, out);
        }
    }

    fn arrive(&mut self) {
        let Some((_, flight)) = self.flights.pop_first() else { return };
        let now = self.now;
        let Some(node) = self.nodes.iter().position(|n| n.addr == flight.to && n.gossip.is_some()) else { return };
        let n = &mut self.nodes[node];
        if n.paused_until > now {
            // Waits in the socket's buffer.
            let at = n.paused_until;
            self.fly(flight, at);
            return;
        }
        let Some(gossip) = &mut n.gossip else { return };
        match gossip.receive(flight.from, &flight.bytes, now + n.offset) {
            Ok(out) => self.send(node, out),
            Err(Dropped::Label) => unreachable!("one label"),
            Err(_) => self.dropped += 1,
        }
    }

    fn send(&mut self, node: usize, out: Outgoing) {
        for (to, bytes) in out {
            let flight = Flight { from: self.nodes[node].addr, to, bytes };
            let side = |addr| self.nodes.iter().position(|n| n.addr == addr).map(|i| self.split.is_some_and(|at| i < at));
            if self.split.is_some() && side(flight.from) != side(to) || self.loss > 0 && self.rng.random_ratio(1, self.loss) {
                continue;
            }
            if self.foul {
                self.spoil(flight);
            } else {
                let at = self.now + self.rng.random_range(1..20);
                self.fly(flight, at);
            }
        }
    }

    fn fly(&mut self, flight: Flight, at: Millis) {
        self.sent += 1;
        self.flights.insert((at, self.sent), flight);
    }

    /// Loses, doubles, delays, repeats, damages and forges.
    fn spoil(&mut self, flight: Flight) {
        let keep = self.rng.random_range(0..400);
        match self.past.get_mut(keep) {
            Some(old) => *old = flight.clone(),
            None => self.past.push(flight.clone()),
        }
        let copies = [0, 1, 1, 2, 3][self.rng.random_range(0..5)];
        for _ in 0..copies {
            let mut copy = flight.clone();
            match self.rng.random_range(0..6) {
                0 | 1 => {}
                2 => self.damage(&mut copy.bytes),
                3 => copy = self.past.choose(&mut self.rng).cloned().unwrap_or(copy),
                _ => self.forge(&mut copy.bytes),
            }
            let slow = if self.rng.random_ratio(1, 5) { 6_000 } else { 30 };
            let at = self.now + self.rng.random_range(1..slow);
            self.fly(copy, at);
        }
    }

    fn damage(&mut self, bytes: &mut Vec<u8>) {
        let at = self.rng.random_range(0..bytes.len());
        match self.rng.random_range(0..4) {
            0 => bytes.truncate(at),
            1 => bytes[at] ^= 1 << self.rng.random_range(0..8),
            2 => bytes[at..].fill_with(|| self.rng.random()),
            _ => {
                let other = self.past.choose(&mut self.rng).map(|f| f.bytes.clone()).unwrap_or_default();
                bytes.truncate(at);
                bytes.extend(other.get(at..).unwrap_or_default());
            }
        }
    }

    /// Says something else under a right checksum and, for answers, the nonce that is waited for.
    fn forge(&mut self, bytes: &mut Vec<u8>) {
        let Ok(mut datagram) = Datagram::decode(bytes, label(LABEL)) else { return };
        for _ in 0..self.rng.random_range(1..4) {
            match self.rng.random_range(0..14) {
                0 => datagram.run = self.some_run(),
                1 => datagram.addr = self.some_addr(),
                2 => datagram.up_ms = self.some_number(),
                3 => datagram.asks = None,
                4 => {
                    let run = self.some_run();
                    if let Some(ask) = &mut datagram.asks {
                        ask.wanted = [Wanted::Word, Wanted::Page(run), Wanted::About(run)][self.rng.random_range(0..3)];
                    }
                }
                kind => {
                    let Some(answer) = &mut datagram.answers else { continue };
                    let mut answer = answer.clone();
                    match kind {
                        5 | 6 => answer.word = self.some_word(),
                        7 => answer.items.clear(),
                        8 => answer.next = Some(self.some_run()),
                        9 => {
                            let word = self.some_word();
                            let item = Item { digest: word.digest(), ..self.some_item() };
                            answer.told = Some(Told { item, up_ms: self.some_number(), word });
                        }
                        10 => answer.items.extend((0..30).map(|_| self.some_item())),
                        _ => {
                            for item in &mut answer.items {
                                let other = self.some_item();
                                match self.rng.random_range(0..6) {
                                    0 => item.run = other.run,
                                    1 => item.addr = other.addr,
                                    2 => item.heard_ms = other.heard_ms,
                                    3 => item.word_ms = other.word_ms,
                                    4 => item.digest = other.digest,
                                    _ => *item = other,
                                }
                            }
                        }
                    }
                    answer.items.truncate(60);
                    datagram.answers = Some(answer);
                }
            }
        }
        *bytes = datagram.encode(label(LABEL));
    }

    fn some_run(&mut self) -> Run {
        let runs: Vec<Run> = self.nodes.iter().filter_map(|n| n.gossip.as_ref()).map(Gossip::run).collect();
        match (self.rng.random_range(0..4), runs.choose(&mut self.rng)) {
            (0 | 1, Some(run)) => *run,
            // A few that come again and again.
            (2, _) => Run(self.rng.random_range(0..8)),
            _ => Run(self.some_number()),
        }
    }

    fn some_addr(&mut self) -> SocketAddr {
        let known = self.rng.random_range(0..self.nodes.len());
        if self.rng.random() { self.nodes[known].addr } else { addr(self.rng.random_range(1..u16::MAX)) }
    }

    fn some_number(&mut self) -> u64 {
        [0, 1, u64::MAX, u64::MAX - 1, self.rng.random(), self.rng.random_range(0..100_000)][self.rng.random_range(0..6)]
    }

    fn some_word(&mut self) -> Word {
        let number = self.rng.random_range(0..self.nodes.len());
        let mut content = self.nodes[number].content.clone();
        match self.rng.random_range(0..5) {
            0 => content.entries.clear(),
            1 => return word(&format!("ghost-{}", self.rng.random_range(0..10))),
            2 => content.entries.values_mut().for_each(|entry| (entry.state, entry.ended) = (crate::State::Leaving, true)),
            3 => content.forgotten.extend(self.nodes.iter().filter_map(|n| n.gossip.as_ref()).map(Gossip::run)),
            _ => {}
        }
        Word::new(&content).expect("short")
    }

    fn some_item(&mut self) -> Item {
        let ms = |number: u64| u32::try_from(number).unwrap_or(u32::MAX);
        let digest = if self.rng.random() { self.some_word().digest() } else { self.some_number() };
        Item {
            run: self.some_run(),
            addr: self.some_addr(),
            heard_ms: ms(self.some_number()),
            word_ms: ms(self.some_number()),
            digest,
            lasting: self.rng.random(),
        }
    }

    #[track_caller]
    pub(super) fn check(&mut self, truth: Truth<'_>) {
        for node in 0..self.nodes.len() {
            if self.nodes[node].gossip.is_some() && self.nodes[node].paused_until <= self.now {
                self.check_from(node, truth);
            }
        }
    }

    /// That this node's ring is right.
    #[track_caller]
    pub(super) fn check_from(&mut self, node: usize, truth: Truth<'_>) {
        let runs = |n: &Node| n.gossip.is_some() && n.paused_until <= self.now;
        let own = entry(&self.nodes[node].content);
        let live: BTreeSet<(String, String)> = (0..self.nodes.len())
            .filter(|i| runs(&self.nodes[*i]) && !truth.hidden.contains(i))
            .map(|i| entry(&self.nodes[i].content))
            .filter(|(id, _)| *id != own.0)
            .collect();
        let stopped = self.nodes.iter().filter(|n| !runs(n)).map(|n| entry(&n.content).0).collect::<BTreeSet<_>>();
        let now = self.now;
        let n = &mut self.nodes[node];
        let shown = merge::instances(n.gossip.as_mut().expect("runs"), now + n.offset, 0).remove(&Role::Ingester).unwrap_or_default();
        let shown_live = shown.iter().filter(|i| i.alive && i.id != own.0);
        let shown_live: BTreeSet<(String, String)> = shown_live.map(|i| (i.id.clone(), i.addr.clone())).collect();
        assert_eq!(shown_live, live, "alive as node {node} sees it at {now}");
        assert!(shown.iter().filter(|i| i.alive).all(|i| i.state == crate::State::Active), "states as node {node} sees them: {shown:#?}");
        let shown_dead: BTreeSet<String> = shown.iter().filter(|i| !i.alive && i.id != own.0).map(|i| i.id.clone()).collect();
        if truth.any_dead {
            assert!(shown_dead.is_subset(&stopped), "dead as node {node} sees it at {now}: {shown_dead:?}, stopped {stopped:?}");
        } else {
            let dead: BTreeSet<String> = truth.dead.iter().map(|i| format!("ingester-{i}")).filter(|id| *id != own.0).collect();
            assert_eq!(shown_dead, dead, "dead as node {node} sees it at {now}");
        }
    }
}

fn entry(content: &Content) -> (String, String) {
    let entry = content.entries.values().next().expect("an ingester");
    (entry.id.clone(), entry.addr.clone())
}

/// Some seconds of everything that a network or an enemy on the way can do, with restarts in between, and a minute to heal.
fn survives(seed: u64) {
    println!("seed {seed}");
    let mut rng = StdRng::seed_from_u64(!seed);
    let members = rng.random_range(2..9);
    let mut sim = Sim::new(members, seed);
    sim.run(rng.random_range(0..60_000));
    sim.foul = true;
    for _ in 0..rng.random_range(4..20) {
        sim.run(rng.random_range(100..2_000));
        let node = rng.random_range(0..members);
        match rng.random_range(0..5) {
            0 => sim.stop(node),
            1 | 2 => {
                sim.stop(node);
                sim.start(node, rng.random_range(-1_000_000_000..1_000_000_000), rng.random());
            }
            3 => sim.pause(node, rng.random_range(0..8_000)),
            _ => {}
        }
    }
    let others_stopped = sim.nodes.iter().filter(|n| n.gossip.is_none()).count() == members;
    if others_stopped {
        sim.start(0, 0, false);
    }
    sim.foul = false;
    sim.run(60_000);
    sim.check(Truth { any_dead: true, ..Truth::default() });
    // It stays right, and what has stopped can come back.
    for node in 0..members {
        if sim.nodes[node].gossip.is_none() {
            sim.start(node, -1, rng.random());
        }
    }
    sim.run(12_000);
    sim.check(Truth::default());
}

#[test]
fn the_ring_heals_within_a_minute_from_any_state() {
    #[expect(clippy::disallowed_methods, reason = "who has time for more seeds says so in the environment")]
    let seeds = std::env::var("GOSSIP_SEEDS").ok().and_then(|n| n.parse().ok()).unwrap_or(40);
    // What went wrong once, then whatever there is.
    for seed in [55, 64, 297].into_iter().chain(0..seeds) {
        survives(seed);
    }
}
