//! What this process knows of the others, and how it finds out. No clock, no socket, no runtime: time and datagrams come in as
//! arguments, datagrams go out as results.
//!
//! - **A run is a process from its start to its end**, named by a random number. Nothing compares runs, so no clock can be wrong.
//! - **Everything is an answer.** What nobody has asked for is dropped before it changes anything: each question has a random
//!   nonce, and one answer uses it up. So copies, late datagrams, forgeries by whoever cannot read the questions have no effect.
//! - **A run speaks for itself.** Its word is taken from itself alone. That another has it differently is a reason to ask the
//!   run; only where it does not answer for [`INTERVALS_UNTIL_DEAD`] is the other's copy taken, and dropped again when
//!   nobody who has spoken with the run itself goes on repeating it.
//! - **Life is an age, not a counter**: how long ago somebody had an answer of that run, counted from before the question. Ages grow
//!   by themselves, so a false one is gone after [`INTERVALS_UNTIL_DEAD`], and there is no highest one to claim.
//!
//! See docs/decisions/0001-gossip.md.

mod answers;
pub(crate) mod wire;
mod word;

#[cfg(test)]
mod sim;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::seq::{IndexedRandom, SliceRandom};
use rand::{Rng, SeedableRng};

use crate::{Role, State};
use wire::{Answer, Ask, Datagram, Dropped, Item, Told, Wanted};
pub(crate) use word::{Content, Entry, FORGOTTEN_MAX, WORD_MAX, Word};

/// A member counts as dead when nobody has had an answer of it for this many gossip intervals.
///
/// Each member hears of every other about every second interval, mostly over third parties; who is silent for longer is asked
/// directly, which leaves room for lost packets and a starved CPU. With the default interval of one second a dead member is
/// noticed after 4 to 5 seconds.
pub(crate) const INTERVALS_UNTIL_DEAD: u32 = 4;
/// Members asked in each interval for all that they know.
const ASKED_PER_INTERVAL: usize = 3;
/// Dead members of roles that own no data are dropped from the ring after this time.
const FORGET_DEAD_AFTER: Duration = Duration::from_secs(120);
/// A dead ingester holds what nobody else may have flushed: it stays visible until it is forgotten by hand, or this long.
const FORGET_DEAD_INGESTER_AFTER: Duration = Duration::from_secs(24 * 60 * 60);
/// Who has claimed its ids here for this long is remembered when it is dead, and the others are told of it.
const LASTING_AFTER: Duration = Duration::from_secs(30);
/// The dead of whom there is no more than that are dropped after this time: what a hostile network made up is gone in a minute.
const FORGET_UNPROVEN_AFTER: Duration = Duration::from_secs(40);
/// Pause between questions to a member that does not answer, at most: what heals a split.
const ASK_AGAIN_AFTER_MAX: Duration = Duration::from_secs(10);
/// Answers that take longer are not taken.
const ANSWER_WITHIN: Duration = Duration::from_secs(4);
/// Members known at a time, beyond which only those are added that speak for themselves.
pub(crate) const PEERS_MAX: usize = 4096;
/// Questions open at a time. Half of them are for what this process asks on its own account, whatever others make it ask.
const QUESTIONS_MAX: usize = 8192;
/// Silent members asked in one interval.
const ASKED_AGAIN_MAX: usize = 128;
/// Questions that one answer can cause, beside that for its next page.
const CAUSED_MAX: usize = 64;

/// Milliseconds on a clock that never goes back. Negative before this process started.
pub(crate) type Millis = i64;

/// Datagrams to send.
pub(crate) type Outgoing = Vec<(SocketAddr, Vec<u8>)>;

/// One process from its start to its end: a random number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Run(pub(crate) u64);

/// What does not change while this process runs.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    pub(crate) addr: SocketAddr,
    pub(crate) cluster_label: String,
    pub(crate) interval: Duration,
    pub(crate) left_timeout: Duration,
}

/// This process among the others.
#[derive(Debug)]
pub(crate) struct Gossip {
    settings: Settings,
    label: u64,
    run: Run,
    started: Millis,
    word: Word,
    peers: BTreeMap<Run, Peer>,
    /// Dead runs that people want forgotten, and since when: nobody's tale brings them back.
    forgotten: BTreeMap<Run, Millis>,
    questions: HashMap<u64, Question>,
    rng: StdRng,
    /// When this process last did something.
    awake: Millis,
    /// After a pause of this process nobody is taken for dead before this.
    lenient_until: Millis,
    /// Whether what the ring shows may have changed.
    news: bool,
}

/// A question that waits for its answer.
#[derive(Debug, Clone, Copy)]
struct Question {
    at: Millis,
    wanted: Wanted,
}

/// Another run.
#[derive(Debug)]
struct Peer {
    addr: SocketAddr,
    /// When it last was known to live.
    heard: Millis,
    said: Option<Said>,
    rumor: Option<Rumor>,
    /// When somebody who has spoken with it last told of it.
    vouched: Millis,
    /// When another run answered at its address.
    replaced: Option<Millis>,
    ask_at: Millis,
    /// Pause before it is asked once more.
    pause: Millis,
    /// Whether it was alive before this process paused.
    was_alive: bool,
}

/// A run's word as known here.
#[derive(Debug)]
struct Said {
    word: Word,
    /// When it was its word.
    at: Millis,
    /// Since when it claims these ids here.
    since: Millis,
    /// Whether the run said it here itself.
    first_hand: bool,
    /// When the run started.
    started: Millis,
}

/// That somebody has another word of a run, or has spoken with one that is not known here.
#[derive(Debug, Clone, Copy)]
struct Rumor {
    digest: u64,
    at: Millis,
    /// Since when the run has been asked about it.
    since: Millis,
    via: SocketAddr,
    lasting: bool,
}

/// Another run, for the ring.
#[derive(Debug, Clone)]
pub(crate) struct Known {
    pub(crate) run: Run,
    pub(crate) addr: SocketAddr,
    pub(crate) word: Word,
    pub(crate) alive: bool,
    /// When it was last known to live.
    pub(crate) heard: Millis,
    /// When it started.
    pub(crate) started: Millis,
}

impl Gossip {
    /// A process that starts now.
    pub(crate) fn new(settings: Settings, content: &Content, seed: u64, now: Millis) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        Self {
            label: wire::label(&settings.cluster_label),
            settings,
            run: Run(rng.random()),
            started: now,
            word: Word::new(content).unwrap_or_else(|| Word::new(&Content::default()).expect("an empty word is short")),
            peers: BTreeMap::new(),
            forgotten: BTreeMap::new(),
            questions: HashMap::new(),
            rng,
            awake: now,
            lenient_until: now,
            news: false,
        }
    }

    pub(crate) fn run(&self) -> Run {
        self.run
    }

    /// Changes what this process says of itself and has every live member ask for it. False where it is too long to be said.
    pub(crate) fn say(&mut self, content: &Content, now: Millis, out: &mut Outgoing) -> bool {
        let Some(word) = Word::new(content) else { return false };
        self.word = word;
        let live: Vec<SocketAddr> = self.peers.values().filter(|p| self.is_alive(p, now)).map(|p| p.addr).collect();
        for addr in live {
            self.ask(addr, Wanted::Word, now, out);
        }
        true
    }

    /// Asks whoever listens there for all that it knows.
    pub(crate) fn greet(&mut self, addr: SocketAddr, now: Millis, out: &mut Outgoing) {
        if addr != self.settings.addr {
            self.ask(addr, Wanted::Page(Run(0)), now, out);
        }
    }

    /// Drops dead runs here; who says that they are forgotten tells the others in its word.
    pub(crate) fn forget(&mut self, runs: &[Run], now: Millis) {
        for run in runs {
            if self.peers.get(run).is_some_and(|peer| !self.is_alive(peer, now)) {
                self.peers.remove(run);
                self.news = true;
                while self.forgotten.len() >= PEERS_MAX {
                    self.forgotten.pop_first();
                }
                self.forgotten.entry(*run).or_insert(now);
            }
        }
    }

    /// What is due in each interval.
    pub(crate) fn tick(&mut self, now: Millis) -> Outgoing {
        self.wake(now);
        let mut out = Vec::new();
        self.expire(now);
        let lenient = now < self.lenient_until;
        let live: Vec<Run> = self.peers.iter().filter(|(_, p)| self.is_alive(p, now)).map(|(run, _)| *run).collect();
        for (run, peer) in &mut self.peers {
            peer.was_alive = if lenient { peer.was_alive } else { live.binary_search(run).is_ok() };
        }
        let asked = if live.is_empty() { self.peers.keys().copied().collect() } else { live };
        let asked: Vec<SocketAddr> = asked.choose_multiple(&mut self.rng, ASKED_PER_INTERVAL).map(|run| self.peers[run].addr).collect();
        for addr in asked {
            self.ask(addr, Wanted::Page(Run(0)), now, &mut out);
        }
        self.ask_again(now, &mut out);
        out
    }

    /// Asks those of whom too little is known.
    fn ask_again(&mut self, now: Millis, out: &mut Outgoing) {
        let (interval, until_dead, longest) = (self.interval(), self.until_dead(), millis(ASK_AGAIN_AFTER_MAX));
        let is_silent = |p: &Peer| now - p.heard >= 2 * interval || p.rumor.is_some() || p.said.as_ref().is_none_or(|s| !s.first_hand);
        let mut due: Vec<(Millis, Run)> =
            self.peers.iter().filter(|(_, p)| p.ask_at <= now && is_silent(p)).map(|(run, p)| (p.ask_at, *run)).collect();
        due.shuffle(&mut self.rng);
        due.sort_by_key(|(ask_at, _)| *ask_at);
        for (_, run) in due.into_iter().take(ASKED_AGAIN_MAX) {
            let Some(peer) = self.peers.get_mut(&run) else { continue };
            let is_dead = now - peer.heard >= 2 * until_dead;
            peer.pause = if is_dead { (peer.pause * 2).clamp(interval, longest.max(interval)) } else { interval };
            peer.ask_at = now + peer.pause;
            let (addr, unanswered) = (peer.addr, peer.rumor.filter(|r| r.is_unanswered(interval, now)));
            self.ask(addr, Wanted::Word, now, out);
            if let Some(rumor) = unanswered {
                self.ask(rumor.via, Wanted::About(run), now, out);
            }
        }
    }

    /// Takes what has arrived.
    ///
    /// # Errors
    /// Why it changed nothing.
    pub(crate) fn receive(&mut self, from: SocketAddr, bytes: &[u8], now: Millis) -> Result<Outgoing, Dropped> {
        self.wake(now);
        let datagram = Datagram::decode(bytes, self.label)?;
        let mut out = Vec::new();
        if datagram.run == self.run {
            // Greeted ourselves under one of our addresses.
            return Ok(out);
        }
        let is_asked = datagram.answers.is_none();
        if let Some(answer) = &datagram.answers {
            let question = self.questions.remove(&answer.nonce).filter(|q| now - q.at <= self.answer_within());
            let question = question.ok_or(Dropped::Unasked)?;
            self.hear(&datagram, answer, question, from, now, &mut out);
        }
        if let Some(ask) = datagram.asks {
            let back = match ask.wanted {
                _ if !is_asked => None,
                Wanted::Page(Run(0)) => Some(Wanted::Page(Run(0))),
                // The next page of one who has been asked with the first.
                Wanted::Page(_) => None,
                Wanted::Word | Wanted::About(_) => Some(Wanted::Word),
            };
            self.answer(ask, back, from, now, &mut out);
        }
        Ok(out)
    }

    /// Those who have spoken, or of whom somebody tells who has spoken with them.
    pub(crate) fn known(&mut self, now: Millis) -> Vec<Known> {
        self.wake(now);
        let known = |(run, peer): (&Run, &Peer)| {
            let said = peer.said.as_ref()?;
            let (alive, word) = (self.is_alive(peer, now), said.word.clone());
            Some(Known { run: *run, addr: peer.addr, word, alive, heard: peer.heard, started: said.started })
        };
        self.peers.iter().filter_map(known).collect()
    }

    /// Whether what [`Gossip::known`] tells has changed since this was asked, but for those who have become silent.
    pub(crate) fn take_news(&mut self) -> bool {
        std::mem::take(&mut self.news)
    }

    /// How long a member that is dead stays in a ring.
    pub(crate) fn dead_max(&self, role: Role, state: State) -> Millis {
        millis(match (state, role) {
            (State::Leaving, _) => self.settings.left_timeout,
            (_, Role::Ingester) => FORGET_DEAD_INGESTER_AFTER,
            _ => FORGET_DEAD_AFTER,
        })
    }

    fn is_alive(&self, peer: &Peer, now: Millis) -> bool {
        let is_fresh = now - peer.heard < self.until_dead() || now < self.lenient_until && peer.was_alive;
        is_fresh && peer.replaced.is_none_or(|at| peer.heard > at)
    }

    fn interval(&self) -> Millis {
        millis(self.settings.interval).clamp(1, 3_600_000)
    }

    fn until_dead(&self) -> Millis {
        self.interval() * Millis::from(INTERVALS_UNTIL_DEAD)
    }

    fn answer_within(&self) -> Millis {
        millis(ANSWER_WITHIN)
    }

    /// Notices that this process has stood still: the others have not.
    fn wake(&mut self, now: Millis) {
        if now - self.awake >= self.until_dead() - self.interval() {
            self.lenient_until = now + 2 * self.interval();
        }
        self.awake = self.awake.max(now);
    }

    fn expire(&mut self, now: Millis) {
        let within = self.answer_within();
        self.questions.retain(|_, question| now - question.at <= within);
        self.forgotten.retain(|_, since| now - *since < millis(FORGET_DEAD_INGESTER_AFTER));
        // Time for several questions also where the interval is long.
        let unproven = millis(FORGET_UNPROVEN_AFTER).max(10 * self.interval());
        let is_kept = |peer: &Peer| {
            let Some(said) = &peer.said else { return now - peer.vouched < unproven };
            let roles = said.word.content().entries.iter().map(|(role, entry)| self.dead_max(*role, entry.state));
            let longest = roles.max().unwrap_or(0).max(millis(FORGET_DEAD_AFTER));
            match (said.first_hand, said.is_lasting()) {
                (true, true) => now - peer.heard < longest,
                (true, false) => now - peer.heard < unproven,
                (false, _) => now - peer.vouched < unproven && now - peer.heard < longest,
            }
        };
        let gone: Vec<Run> = self.peers.iter().filter(|(_, peer)| !is_kept(peer)).map(|(run, _)| *run).collect();
        for run in gone {
            self.news |= self.peers.remove(&run).is_some_and(|peer| peer.said.is_some());
        }
    }

    /// Opens a question. None where this many are open.
    fn question(&mut self, wanted: Wanted, most: usize, now: Millis) -> Option<Ask> {
        if self.questions.len() >= most {
            return None;
        }
        let nonce = self.rng.random();
        self.questions.insert(nonce, Question { at: now, wanted });
        Some(Ask { nonce, wanted })
    }

    fn ask(&mut self, to: SocketAddr, wanted: Wanted, now: Millis, out: &mut Outgoing) {
        if let Some(ask) = self.question(wanted, QUESTIONS_MAX, now) {
            out.push((to, self.datagram(None, Some(ask), now)));
        }
    }

    /// For what others give cause to ask.
    fn ask_if_idle(&mut self, to: SocketAddr, wanted: Wanted, now: Millis, out: &mut Outgoing) {
        if let Some(ask) = self.question(wanted, QUESTIONS_MAX / 2, now) {
            out.push((to, self.datagram(None, Some(ask), now)));
        }
    }

    fn datagram(&self, answers: Option<Answer>, asks: Option<Ask>, now: Millis) -> Vec<u8> {
        let up_ms = u64::try_from(now - self.started).unwrap_or(0);
        Datagram { run: self.run, addr: self.settings.addr, up_ms, answers, asks }.encode(self.label)
    }

    /// Answers, and asks back in the same datagram: who asks may be unknown here, or have news.
    fn answer(&mut self, ask: Ask, back: Option<Wanted>, to: SocketAddr, now: Millis, out: &mut Outgoing) {
        let mut items = Vec::new();
        let mut next = None;
        if let Wanted::Page(from) = ask.wanted {
            let room = Answer::room(&self.word);
            let mut spoken = self.peers.range(from..).filter_map(|(run, peer)| peer.item(*run, now));
            items.extend(spoken.by_ref().take(room));
            next = spoken.next().map(|item| item.run);
        }
        let told = match ask.wanted {
            Wanted::About(run) => self.peers.get(&run).and_then(|peer| peer.told(run, now)),
            _ => None,
        };
        let asks = back.and_then(|wanted| self.question(wanted, QUESTIONS_MAX / 2, now));
        let answer = Answer { nonce: ask.nonce, word: self.word.clone(), items, next, told };
        out.push((to, self.datagram(Some(answer), asks, now)));
    }
}

impl Peer {
    fn new(addr: SocketAddr, heard: Millis, now: Millis) -> Self {
        Self { addr, heard, said: None, rumor: None, vouched: now, replaced: None, ask_at: now, pause: 0, was_alive: false }
    }

    /// For others; none where it has not spoken here itself.
    fn item(&self, run: Run, now: Millis) -> Option<Item> {
        let said = self.said.as_ref().filter(|said| said.first_hand)?;
        let age = |then: Millis| u32::try_from((now - then).max(0)).unwrap_or(u32::MAX);
        Some(Item {
            run,
            addr: self.addr,
            heard_ms: age(self.heard),
            word_ms: age(said.at),
            digest: said.word.digest(),
            lasting: said.is_lasting(),
        })
    }

    fn told(&self, run: Run, now: Millis) -> Option<Told> {
        let (item, said) = (self.item(run, now)?, self.said.as_ref()?);
        Some(Told { item, up_ms: u64::try_from(now - said.started).unwrap_or(0), word: said.word.clone() })
    }
}

impl Said {
    fn is_lasting(&self) -> bool {
        self.first_hand && self.at - self.since >= millis(LASTING_AFTER)
    }
}

impl Rumor {
    fn is_unanswered(&self, interval: Millis, now: Millis) -> bool {
        now - self.since >= interval * Millis::from(INTERVALS_UNTIL_DEAD)
    }
}

pub(crate) fn millis(duration: Duration) -> Millis {
    Millis::try_from(duration.as_millis()).unwrap_or(Millis::MAX / 4)
}
