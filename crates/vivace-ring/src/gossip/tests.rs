//! What holds for a cluster in fair weather, and the examples of what can be wrong with it.

use std::net::SocketAddr;

use super::sim::{Sim, Truth};
use super::wire::{Answer, Datagram, Item, Wanted};
use super::*;

pub(super) fn addr(port: u16) -> SocketAddr {
    ([10, 0, 0, 1], port).into()
}

/// An active ingester.
pub(super) fn content(id: &str) -> Content {
    let entry = Entry {
        id: id.to_owned(),
        addr: format!("{id}:9095"),
        zone: "zone-a".to_owned(),
        state: State::Active,
        registered: 1_700_000_000,
        ended: false,
    };
    Content { name: id.to_owned(), entries: BTreeMap::from([(Role::Ingester, entry)]), forgotten: Vec::new() }
}

pub(super) fn word(id: &str) -> Word {
    Word::new(&content(id)).expect("short")
}

#[test]
fn members_join_within_seconds_and_stay() {
    for members in [2, 3, 10, 40] {
        let mut sim = Sim::new(members, 7);
        sim.run(if members < 20 { 1_000 } else { 3_000 });
        sim.check(Truth::default());
        for _ in 0..40 {
            sim.run(500);
            sim.check(Truth::default());
        }
        assert_eq!(sim.dropped(), 0, "nothing is dropped in fair weather");
    }
}

#[test]
fn a_restart_is_noticed_at_once_whatever_the_clocks_say() {
    let mut sim = Sim::new(5, 3);
    sim.run(60_000);
    for (seconds, moves) in [(-200_000_000, false), (400_000_000, true), (-7_200, false), (0, true)] {
        sim.stop(2);
        sim.run(300);
        sim.start(2, seconds, moves);
        sim.run(2_000);
        sim.check(Truth::default());
    }
}

#[test]
fn all_restart_at_once() {
    let mut sim = Sim::new(12, 5);
    sim.run(40_000);
    for node in 0..12 {
        sim.stop(node);
    }
    for node in 0..12 {
        sim.start(node, -86_400 * node as i64, node % 2 == 0);
    }
    sim.run(4_000);
    sim.check(Truth::default());
}

#[test]
fn the_dead_are_noticed_and_remembered_also_by_those_who_come_later() {
    let mut sim = Sim::new(6, 11);
    sim.run(60_000);
    sim.stop(4);
    sim.run(5_000);
    sim.check(Truth { dead: &[4], ..Truth::default() });
    sim.stop(1);
    sim.start(1, 0, true);
    sim.run(8_000);
    sim.check(Truth { dead: &[4], ..Truth::default() });
    // As long as somebody is there who has spoken with it.
    for node in [0, 2, 3] {
        sim.stop(node);
        sim.start(node, 0, true);
        sim.run(40_000);
    }
    sim.check(Truth { dead: &[4], ..Truth::default() });
    sim.start(4, -1_000, true);
    sim.run(2_000);
    sim.check(Truth::default());
}

#[test]
fn who_has_left_stays_on_the_page_for_a_while() {
    let mut sim = Sim::new(4, 12);
    sim.run(60_000);
    sim.end(3);
    sim.run(2_000);
    sim.check(Truth { dead: &[3], hidden: &[3], ..Truth::default() });
    sim.stop(3);
    sim.run(200_000);
    sim.check(Truth { dead: &[3], ..Truth::default() });
    sim.run(150_000);
    sim.check(Truth::default());
}

#[test]
fn the_forgotten_stay_forgotten_until_they_live() {
    let mut sim = Sim::new(6, 13);
    sim.run(60_000);
    sim.stop(4);
    sim.run(10_000);
    sim.forget(0, 4);
    sim.run(4_000);
    sim.check(Truth::default());
    // Neither who comes later nor the end of who said it brings it back.
    sim.stop(3);
    sim.start(3, 0, true);
    sim.run(60_000);
    sim.stop(0);
    sim.run(300_000);
    sim.check(Truth { dead: &[0], ..Truth::default() });
    sim.start(4, 0, false);
    sim.start(0, 0, false);
    sim.run(12_000);
    sim.check(Truth::default());
}

#[test]
fn a_split_heals() {
    for (members, seconds) in [(2, 20), (6, 20), (6, 600), (20, 30)] {
        let mut sim = Sim::new(members, 17);
        sim.run(60_000);
        sim.split(Some(members / 2));
        sim.run(seconds * 1_000);
        sim.split(None);
        sim.run(15_000);
        sim.check(Truth::default());
    }
}

#[test]
fn fifty_members_notice_one_death_and_nobody_else() {
    let mut sim = Sim::new(50, 19);
    sim.run(32_000);
    sim.check(Truth::default());
    let sent = sim.sent();
    sim.stop(25);
    sim.run(7_000);
    for _ in 0..10 {
        sim.check(Truth { dead: &[25], ..Truth::default() });
        sim.run(500);
    }
    let sent = (sim.sent() - sent) / 50 / 12;
    assert!(sent < 60, "each sends {sent} datagrams in a second");
}

#[test]
fn a_fifth_of_all_datagrams_may_be_lost() {
    let mut sim = Sim::new(10, 23);
    sim.lose(5);
    sim.run(10_000);
    for _ in 0..240 {
        sim.run(500);
        sim.check(Truth::default());
    }
}

#[test]
fn of_two_that_claim_one_id_everyone_shows_the_one_that_started_last() {
    let mut sim = Sim::new(5, 29);
    sim.run(40_000);
    sim.claim(3, 2);
    sim.run(10_000);
    sim.check(Truth { hidden: &[2], dead: &[3], ..Truth::default() });
    sim.stop(3);
    sim.run(8_000);
    sim.check(Truth { dead: &[3], ..Truth::default() });
}

#[test]
fn a_process_that_stood_still_takes_nobody_for_dead() {
    let mut sim = Sim::new(5, 31);
    sim.run(40_000);
    sim.pause(0, 30_000);
    sim.run(29_999);
    sim.check(Truth { dead: &[0], ..Truth::default() });
    sim.run(1);
    for _ in 0..40 {
        sim.run(50);
        sim.check_from(0, Truth::default());
    }
    sim.check(Truth::default());
}

/// One that is asked, and answers what it likes.
struct Liar {
    gossip: Gossip,
    now: Millis,
}

impl Liar {
    fn new() -> Self {
        let settings = Settings {
            addr: addr(1),
            cluster_label: String::new(),
            interval: Duration::from_secs(1),
            left_timeout: Duration::from_secs(300),
        };
        Self { gossip: Gossip::new(settings, &content("victim"), 1, 0), now: 0 }
    }

    /// Is asked for a page, and answers in the name of this run.
    fn lie(&mut self, run: u64, id: &str, items: Vec<Item>) -> Outgoing {
        let mut asked = Vec::new();
        self.gossip.greet(addr(9), self.now, &mut asked);
        let asked = Datagram::decode(&asked[0].1, wire::label("")).expect("a question");
        let ask = asked.asks.expect("a question");
        assert_eq!(ask.wanted, Wanted::Page(Run(0)));
        let answer = Answer { nonce: ask.nonce, word: word(id), items, next: None, told: None };
        let lie = Datagram { run: Run(run), addr: addr(9), up_ms: u64::MAX, answers: Some(answer), asks: None };
        let bytes = lie.encode(wire::label(""));
        let out = self.gossip.receive(addr(9), &bytes, self.now).expect("taken");
        assert_eq!(self.gossip.receive(addr(9), &bytes, self.now), Err(Dropped::Unasked), "an answer is taken once");
        out
    }

    fn ids(&mut self) -> Vec<String> {
        self.gossip.known(self.now).iter().map(|k| k.word.content().name.clone()).collect()
    }
}

#[test]
fn made_up_members_take_bounded_memory_and_are_never_shown() {
    let mut liar = Liar::new();
    for round in 0..200u64 {
        let item =
            |i: u64| Item { run: Run(round * 1_000 + i), addr: addr(i as u16 + 10), heard_ms: 0, word_ms: 0, digest: i, lasting: true };
        let caused = liar.lie(u64::MAX, "liar", (0..60).map(item).collect());
        assert!(caused.len() <= CAUSED_MAX, "{} questions after one answer", caused.len());
        if round % 20 == 0 {
            liar.now += 1_000;
            assert!(liar.gossip.tick(liar.now).len() <= ASKED_AGAIN_MAX * 2 + ASKED_PER_INTERVAL);
        }
        assert!(liar.gossip.peers.len() <= PEERS_MAX && liar.gossip.questions.len() <= QUESTIONS_MAX);
        assert_eq!(liar.ids(), ["liar"]);
    }
    assert_eq!(liar.gossip.peers.len(), PEERS_MAX);
    // Who speaks for itself is taken in all the same.
    liar.lie(5, "honest", Vec::new());
    assert!(liar.ids().contains(&"honest".to_owned()));
    // A minute of silence, and nothing is left.
    for _ in 0..45 {
        liar.now += 1_000;
        liar.gossip.tick(liar.now);
    }
    assert_eq!((liar.gossip.peers.len(), liar.ids()), (0, vec![]));
}

#[test]
fn made_up_runs_that_speak_take_bounded_memory_too() {
    let mut liar = Liar::new();
    for run in 0..PEERS_MAX as u64 + 500 {
        liar.lie(run | 1 << 40, "liar", Vec::new());
        if run % 100 == 0 {
            liar.now += 1_000;
            liar.gossip.tick(liar.now);
        }
        assert!(liar.gossip.peers.len() <= PEERS_MAX);
    }
}

#[test]
fn what_nobody_has_asked_for_changes_nothing() {
    let mut liar = Liar::new();
    let answer = Answer { nonce: 7, word: word("stranger"), items: Vec::new(), next: None, told: None };
    let datagram = Datagram { run: Run(7), addr: addr(7), up_ms: 1, answers: Some(answer), asks: None };
    assert_eq!(liar.gossip.receive(addr(7), &datagram.encode(wire::label("")), 0), Err(Dropped::Unasked));
    assert_eq!(liar.gossip.receive(addr(7), &datagram.encode(wire::label("other")), 0), Err(Dropped::Label));
    // A question is answered, and no more than that.
    let asks = Some(Ask { nonce: 7, wanted: Wanted::Word });
    let out = liar.gossip.receive(addr(7), &Datagram { answers: None, asks, ..datagram }.encode(wire::label("")), 0);
    assert_eq!(out.map(|out| out.len()), Ok(1));
    assert_eq!(liar.ids(), Vec::<String>::new());
}
