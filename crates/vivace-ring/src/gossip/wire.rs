//! One datagram of gossip: who sends it, what it answers, what it asks.
//!
//! ```text
//! 0   4  magic and version, "VvG" 1
//! 4   8  checksum: xxh3 of everything behind it
//! 12  8  xxh3 of the cluster label
//! 20  8  run of the sender       28  8  milliseconds since that run started
//! 36     address the sender listens on: 4 or 6, IP, port
//!        flags: 1 answers, 2 asks
//! answers  nonce 8, word (length 2, JSON), next page (flag 1, run 8), told (flag 1, item, milliseconds 8, word), items (count 1)
//! asks     nonce 8, kind 1, run 8
//! ```
//! Numbers are little-endian. Everything has a bound that is checked before memory is taken.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use xxhash_rust::xxh3::xxh3_64;

use super::{Run, Word};

/// The longest datagram taken or sent, bytes. Most have less than [`DATAGRAM_AIM`].
pub(crate) const DATAGRAM_MAX: usize = 16 << 10;
/// Items are added up to this size, bytes: what an Ethernet carries in one packet.
const DATAGRAM_AIM: usize = 1_400;
/// Items that are added whatever else there is: a long word must not keep others from being known.
const ITEMS_MIN: usize = 8;
/// More cannot be said in one datagram.
const ITEMS_MAX: usize = 64;
const MAGIC: [u8; 4] = *b"VvG\x01";
const CHECKED_FROM: usize = 12;

/// A datagram's content.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Datagram {
    /// Who sends it.
    pub(crate) run: Run,
    /// Where that run listens, as it says.
    pub(crate) addr: SocketAddr,
    /// How long it has been running, milliseconds.
    pub(crate) up_ms: u64,
    pub(crate) answers: Option<Answer>,
    pub(crate) asks: Option<Ask>,
}

/// What is said to a question. All of it is the sender's own knowledge, none of it repeated from others but for `heard_ms`.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Answer {
    /// That of the question.
    pub(crate) nonce: u64,
    /// What the sender says of itself.
    pub(crate) word: Word,
    /// Whom it knows, from the run that was asked for on, in the order of runs.
    pub(crate) items: Vec<Item>,
    /// Where its next page begins.
    pub(crate) next: Option<Run>,
    /// What a run that was asked about has told the sender.
    pub(crate) told: Option<Told>,
}

/// A question. The answer carries its nonce, which nobody else can know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ask {
    pub(crate) nonce: u64,
    pub(crate) wanted: Wanted,
}

/// What to say beside the word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// Nothing.
    Word,
    /// Whom the other knows, from this run on.
    Page(Run),
    /// What the other was told by this run.
    About(Run),
}

/// That the sender has spoken with a run, and when.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Item {
    pub(crate) run: Run,
    pub(crate) addr: SocketAddr,
    /// How long ago the run has last been known to live, milliseconds.
    pub(crate) heard_ms: u32,
    /// How long ago it has said its word to the sender, milliseconds.
    pub(crate) word_ms: u32,
    /// Of that word.
    pub(crate) digest: u64,
    /// Whether the sender has known it for long enough to remember it once it is dead.
    pub(crate) lasting: bool,
}

/// A run's word at second hand.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Told {
    pub(crate) item: Item,
    /// How long ago the run started, milliseconds.
    pub(crate) up_ms: u64,
    pub(crate) word: Word,
}

/// Why a datagram changed nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Dropped {
    /// It is not of this protocol, or of another version of it.
    Foreign,
    /// It is of a cluster with another label.
    Label,
    /// It was damaged on the way.
    Damaged,
    /// Whoever sent it does not follow the protocol.
    Malformed,
    /// It answers nothing that was asked: forged, repeated, or too late.
    Unasked,
}

impl Dropped {
    /// For the metric.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Foreign => "foreign",
            Self::Label => "label",
            Self::Damaged => "damaged",
            Self::Malformed => "malformed",
            Self::Unasked => "unasked",
        }
    }
}

/// What stands for a cluster label on the wire.
pub(crate) fn label(text: &str) -> u64 {
    xxh3_64(text.as_bytes())
}

impl Datagram {
    /// The bytes, at most [`DATAGRAM_MAX`].
    pub(crate) fn encode(&self, label: u64) -> Vec<u8> {
        let mut out = Vec::with_capacity(DATAGRAM_AIM);
        out.extend(MAGIC);
        out.extend([0; 8]);
        out.extend(label.to_le_bytes());
        put_u64(&mut out, self.run.0);
        put_u64(&mut out, self.up_ms);
        put_addr(&mut out, self.addr);
        out.push(u8::from(self.answers.is_some()) | u8::from(self.asks.is_some()) << 1);
        if let Some(answer) = &self.answers {
            put_u64(&mut out, answer.nonce);
            put_word(&mut out, &answer.word);
            out.push(u8::from(answer.next.is_some()));
            put_u64(&mut out, answer.next.map_or(0, |run| run.0));
            out.push(u8::from(answer.told.is_some()));
            if let Some(told) = &answer.told {
                put_item(&mut out, &told.item);
                put_u64(&mut out, told.up_ms);
                put_word(&mut out, &told.word);
            }
            out.push(u8::try_from(answer.items.len()).unwrap_or(u8::MAX));
            for item in &answer.items {
                put_item(&mut out, item);
            }
        }
        if let Some(ask) = &self.asks {
            put_u64(&mut out, ask.nonce);
            let (kind, run) = match ask.wanted {
                Wanted::Word => (0, 0),
                Wanted::Page(run) => (1, run.0),
                Wanted::About(run) => (2, run.0),
            };
            out.push(kind);
            put_u64(&mut out, run);
        }
        let checksum = xxh3_64(&out[CHECKED_FROM..]);
        out[MAGIC.len()..CHECKED_FROM].copy_from_slice(&checksum.to_le_bytes());
        out
    }

    /// # Errors
    /// Why it must be dropped.
    pub(crate) fn decode(bytes: &[u8], label: u64) -> Result<Self, Dropped> {
        let checksum = bytes.get(MAGIC.len()..CHECKED_FROM).filter(|_| bytes.starts_with(&MAGIC)).ok_or(Dropped::Foreign)?;
        let checked = bytes.get(CHECKED_FROM..).unwrap_or_default();
        if checksum != xxh3_64(checked).to_le_bytes() {
            return Err(Dropped::Damaged);
        }
        let mut rest = Reader(checked);
        if rest.u64().ok_or(Dropped::Malformed)? != label {
            return Err(Dropped::Label);
        }
        Some(rest).filter(|_| bytes.len() <= DATAGRAM_MAX).and_then(Reader::datagram).ok_or(Dropped::Malformed)
    }
}

impl Answer {
    /// Items that a datagram with this answer has room for.
    pub(crate) fn room(word: &Word) -> usize {
        // An item with an IPv6 address, the longest; everything but the word and the items.
        const ITEM: usize = 8 + 19 + 4 + 4 + 8 + 1;
        const REST: usize = 120;
        (DATAGRAM_AIM.saturating_sub(REST + word.text().len()) / ITEM).clamp(ITEMS_MIN, ITEMS_MAX)
    }
}

fn put_u64(out: &mut Vec<u8>, number: u64) {
    out.extend(number.to_le_bytes());
}

fn put_addr(out: &mut Vec<u8>, addr: SocketAddr) {
    match addr.ip() {
        IpAddr::V4(ip) => {
            out.push(4);
            out.extend(ip.octets());
        }
        IpAddr::V6(ip) => {
            out.push(6);
            out.extend(ip.octets());
        }
    }
    out.extend(addr.port().to_le_bytes());
}

fn put_word(out: &mut Vec<u8>, word: &Word) {
    let text = word.text().as_bytes();
    out.extend(u16::try_from(text.len()).unwrap_or(0).to_le_bytes());
    out.extend(text);
}

fn put_item(out: &mut Vec<u8>, item: &Item) {
    put_u64(out, item.run.0);
    put_addr(out, item.addr);
    out.extend(item.heard_ms.to_le_bytes());
    out.extend(item.word_ms.to_le_bytes());
    put_u64(out, item.digest);
    out.push(u8::from(item.lasting));
}

/// None means that the bytes do not follow the protocol.
struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (taken, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*taken)
    }

    fn u8(&mut self) -> Option<u8> {
        self.take::<1>().map(|[byte]| byte)
    }

    fn u16(&mut self) -> Option<u16> {
        self.take().map(u16::from_le_bytes)
    }

    fn u32(&mut self) -> Option<u32> {
        self.take().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.take().map(u64::from_le_bytes)
    }

    fn flag(&mut self) -> Option<bool> {
        match self.u8()? {
            0 => Some(false),
            1 => Some(true),
            _ => None,
        }
    }

    fn addr(&mut self) -> Option<SocketAddr> {
        let ip: IpAddr = match self.u8()? {
            4 => Ipv4Addr::from(self.take::<4>()?).into(),
            6 => Ipv6Addr::from(self.take::<16>()?).into(),
            _ => return None,
        };
        Some(SocketAddr::new(ip, self.u16()?))
    }

    fn word(&mut self) -> Option<Word> {
        let len = usize::from(self.u16()?);
        let (text, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Word::parse(std::str::from_utf8(text).ok()?)
    }

    fn item(&mut self) -> Option<Item> {
        Some(Item {
            run: Run(self.u64()?),
            addr: self.addr()?,
            heard_ms: self.u32()?,
            word_ms: self.u32()?,
            digest: self.u64()?,
            lasting: self.flag()?,
        })
    }

    fn datagram(mut self) -> Option<Datagram> {
        let (run, up_ms, addr, flags) = (Run(self.u64()?), self.u64()?, self.addr()?, self.u8()?);
        let answers = if flags & 1 == 0 { None } else { Some(self.answer()?) };
        let asks = if flags & 2 == 0 { None } else { Some(self.ask()?) };
        let whole = self.0.is_empty() && flags < 4 && addr.port() != 0;
        whole.then_some(Datagram { run, addr, up_ms, answers, asks })
    }

    fn answer(&mut self) -> Option<Answer> {
        let (nonce, word) = (self.u64()?, self.word()?);
        let (has_next, next) = (self.flag()?, Run(self.u64()?));
        let told = if self.flag()? { Some(Told { item: self.item()?, up_ms: self.u64()?, word: self.word()? }) } else { None };
        if told.as_ref().is_some_and(|t| t.word.digest() != t.item.digest) {
            return None;
        }
        let count = usize::from(self.u8()?);
        if count > ITEMS_MAX {
            return None;
        }
        let items = (0..count).map(|_| self.item()).collect::<Option<Vec<_>>>()?;
        Some(Answer { nonce, word, items, next: has_next.then_some(next), told })
    }

    fn ask(&mut self) -> Option<Ask> {
        let (nonce, kind, run) = (self.u64()?, self.u8()?, Run(self.u64()?));
        let wanted = match kind {
            0 => Wanted::Word,
            1 => Wanted::Page(run),
            2 => Wanted::About(run),
            _ => return None,
        };
        Some(Ask { nonce, wanted })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::tests::{addr, word};
    use super::*;

    fn item(run: u64) -> Item {
        Item { run: Run(run), addr: addr(run as u16 | 1), heard_ms: 7, word_ms: u32::MAX, digest: !run, lasting: run % 2 == 0 }
    }

    fn datagram(items: u64, kind: u8) -> Datagram {
        let word = word("ingester-0");
        let told = Told { item: Item { digest: word.digest(), ..item(9) }, up_ms: 5, word: word.clone() };
        let answer = Answer { nonce: 3, word, items: (0..items).map(item).collect(), next: Some(Run(77)), told: Some(told) };
        let wanted = [Wanted::Word, Wanted::Page(Run(1)), Wanted::About(Run(u64::MAX))][usize::from(kind % 3)];
        Datagram {
            run: Run(1),
            addr: "[fd00::1]:7946".parse().expect("an address"),
            up_ms: 1,
            answers: (kind & 4 == 0).then_some(answer),
            asks: (kind & 8 == 0).then_some(Ask { nonce: 4, wanted }),
        }
    }

    #[test]
    fn other_clusters_and_protocols_are_told_apart() {
        let bytes = datagram(2, 0).encode(label("one"));
        assert_eq!(Datagram::decode(&bytes, label("other")), Err(Dropped::Label));
        assert_eq!(Datagram::decode(b"", label("one")), Err(Dropped::Foreign));
        assert_eq!(Datagram::decode(&[0, 1, 2, 3], label("one")), Err(Dropped::Foreign));
        // The version before this one began with these bytes.
        assert_eq!(Datagram::decode(&[0xAC, 0x23, 0x01, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], label("one")), Err(Dropped::Foreign));
        let long = Datagram { answers: None, ..datagram(0, 0) }.encode(label("one"));
        assert_eq!(Datagram::decode(&[&long[..], &[0]].concat(), label("one")), Err(Dropped::Damaged));
    }

    #[test]
    fn what_fits_is_sent_whole_and_within_the_aim() {
        let word = word("ingester-0");
        let room = Answer::room(&word);
        assert!(room > 20, "{room}");
        let mut datagram = datagram(room as u64, 0);
        if let Some(answer) = &mut datagram.answers {
            answer.told = None;
        }
        assert!(datagram.encode(1).len() <= DATAGRAM_AIM);
    }

    proptest! {
        #[test]
        fn encode_then_decode_is_the_same(items in 0u64..64, kind: u8) {
            let datagram = datagram(items, kind);
            let bytes = datagram.encode(5);
            prop_assert!(bytes.len() <= DATAGRAM_MAX);
            prop_assert_eq!(Datagram::decode(&bytes, 5), Ok(datagram));
        }

        #[test]
        fn any_damage_is_noticed(kind: u8, at: prop::sample::Index, xor in 1u8.., cut: prop::sample::Index) {
            let bytes = datagram(3, kind).encode(5);
            let mut flipped = bytes.clone();
            let at = at.index(bytes.len());
            flipped[at] ^= xor;
            prop_assert!(Datagram::decode(&flipped, 5).is_err());
            prop_assert!(Datagram::decode(&bytes[..cut.index(bytes.len())], 5).is_err());
        }
    }
}
