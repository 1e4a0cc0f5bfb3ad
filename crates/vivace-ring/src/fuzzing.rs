//! A door to the gossip for the fuzz target.

use std::net::SocketAddr;
use std::time::Duration;

use xxhash_rust::xxh3::xxh3_64;

use crate::gossip::wire::{Answer, Ask, Datagram, Item, Told, Wanted, label};
use crate::gossip::{Content, Gossip, Millis, Outgoing, PEERS_MAX, Run, Settings, Word};

/// A process that hears what the input says: bytes, bytes under a right checksum, and answers to its own questions.
///
/// # Panics
/// Where more is kept than there may be, or somebody counts as alive after a minute of silence.
pub fn gossip(input: &[u8]) {
    let mut input = Input(input);
    let mut victim = Victim::new();
    while !input.0.is_empty() {
        match input.u8() % 6 {
            0 => victim.hear(&input.part().to_vec()),
            1 => victim.hear(&sealed(input.part())),
            2 => victim.wait(Millis::from(input.u16()) * 4),
            3 => victim.hear_asked(&mut input),
            _ => victim.hear_answer(&mut input),
        }
        assert!(victim.gossip.known(victim.now).len() <= PEERS_MAX);
    }
    for _ in 0..60 {
        victim.wait(1_000);
    }
    assert!(victim.gossip.known(victim.now).iter().all(|known| !known.alive), "a member made of nothing");
}

struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    fn take(&mut self, len: usize) -> &'a [u8] {
        let (head, rest) = self.0.split_at(len.min(self.0.len()));
        self.0 = rest;
        head
    }

    fn u8(&mut self) -> u8 {
        self.take(1).first().copied().unwrap_or_default()
    }

    fn u16(&mut self) -> u16 {
        u16::from(self.u8()) | u16::from(self.u8()) << 8
    }

    fn part(&mut self) -> &'a [u8] {
        let len = self.u16();
        self.take(usize::from(len))
    }

    /// Small ones, largest ones, and any.
    fn number(&mut self) -> u64 {
        match self.u8() {
            0xff => u64::MAX - u64::from(self.u8()),
            0xfe => self.take(8).iter().fold(0, |number, byte| number << 8 | u64::from(*byte)),
            small => u64::from(small),
        }
    }

    fn addr(&mut self) -> SocketAddr {
        ([10, 0, 0, self.u8() % 8], u16::from(self.u8() % 8) + 1).into()
    }

    fn word(&mut self) -> Word {
        let text = String::from_utf8_lossy(self.part());
        let id = format!(
            r#"{{"name":"x","roles":{{"ingester":{{"id":"{}","addr":"a","zone":"","state":"ACTIVE","registered":1}}}}}}"#,
            self.u8()
        );
        Word::parse(&text).or_else(|| Word::parse(&id)).expect("a word")
    }

    fn item(&mut self) -> Item {
        let ms = |number: u64| u32::try_from(number).unwrap_or(u32::MAX);
        Item {
            run: Run(self.number()),
            addr: self.addr(),
            heard_ms: ms(self.number()),
            word_ms: ms(self.number()),
            digest: self.number(),
            lasting: self.u8() & 1 == 1,
        }
    }
}

struct Victim {
    gossip: Gossip,
    now: Millis,
    /// Open ones, the latest last.
    questions: Vec<Ask>,
}

impl Victim {
    fn new() -> Self {
        let settings = Settings {
            addr: ([10, 0, 0, 1], 1).into(),
            cluster_label: String::new(),
            interval: Duration::from_secs(1),
            left_timeout: Duration::from_secs(300),
        };
        let mut victim = Self { gossip: Gossip::new(settings, &Content::default(), 1, 0), now: 0, questions: Vec::new() };
        let mut out = Vec::new();
        victim.gossip.greet(([10, 0, 0, 2], 1).into(), 0, &mut out);
        victim.sent(out);
        victim
    }

    fn sent(&mut self, out: Outgoing) {
        for (_, bytes) in out {
            let sent = Datagram::decode(&bytes, label("")).expect("what is sent can be read");
            self.questions.extend(sent.asks);
        }
        let old = self.questions.len().saturating_sub(64);
        self.questions.drain(..old);
    }

    fn hear(&mut self, bytes: &[u8]) {
        if let Ok(out) = self.gossip.receive(([10, 0, 0, 9], 9).into(), bytes, self.now) {
            self.sent(out);
        }
    }

    fn wait(&mut self, ms: Millis) {
        self.now += ms;
        let out = self.gossip.tick(self.now);
        self.sent(out);
    }

    fn hear_asked(&mut self, input: &mut Input<'_>) {
        let run = Run(input.number());
        let wanted = [Wanted::Word, Wanted::Page(run), Wanted::About(run)][usize::from(input.u8() % 3)];
        let asks = Some(Ask { nonce: input.number(), wanted });
        let datagram = Datagram { run: Run(input.number()), addr: input.addr(), up_ms: input.number(), answers: None, asks };
        self.hear(&datagram.encode(label("")));
    }

    fn hear_answer(&mut self, input: &mut Input<'_>) {
        let back = usize::from(input.u8()) % self.questions.len().max(1);
        let Some(ask) = self.questions.iter().rev().nth(back).copied() else { return };
        let flags = input.u8();
        let items = (0..flags & 7).map(|_| input.item()).collect();
        let told = (flags & 8 != 0).then(|| {
            let word = input.word();
            Told { item: Item { digest: word.digest(), ..input.item() }, up_ms: input.number(), word }
        });
        let next = (flags & 16 != 0).then(|| Run(input.number()));
        let answer = Answer { nonce: ask.nonce, word: input.word(), items, next, told };
        let asks = (flags & 32 != 0).then(|| Ask { nonce: input.number(), wanted: Wanted::Page(Run(0)) });
        let datagram = Datagram { run: Run(input.number()), addr: input.addr(), up_ms: input.number(), answers: Some(answer), asks };
        self.hear(&datagram.encode(label("")));
    }
}

/// These bytes as the content of a datagram that has arrived undamaged.
fn sealed(content: &[u8]) -> Vec<u8> {
    let checked = [&label("").to_le_bytes()[..], content].concat();
    [&b"VvG\x01"[..], &xxh3_64(&checked).to_le_bytes(), &checked].concat()
}
