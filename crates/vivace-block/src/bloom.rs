//! The bloom filter of a block's trace ids, cut into shards so that a lookup reads one small object.
//!
//! Source: docs/facts/blocks.md, "Bloom filters".

use vivace_core::TraceId;

/// Size and number of the filters, fixed before the first id is added.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Params {
    /// Objects; 1 to 1000.
    pub shards: u32,
    /// Bits of each filter; a multiple of 64.
    pub bits: u64,
    /// Positions per id.
    pub hashes: u32,
}

/// One shard, as read from its object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shard {
    bits: u64,
    hashes: u64,
    words: Vec<u64>,
}

/// All shards of a block that is being written.
#[derive(Debug, Clone)]
pub struct Builder {
    shards: Vec<Shard>,
}

/// The bytes of an object that should be a bloom filter are none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid bloom filter: {reason}")]
pub struct CorruptBloom {
    /// What was found and what was expected.
    pub reason: String,
}

/// More positions per id than this is no filter; a sane one has 7.
const HASHES_MAX: u64 = 1000;

impl Params {
    /// The original's sizes for `traces` ids: shards of exactly `shard_size_bytes`.
    #[must_use]
    pub fn of_the_original(traces: u64, false_positive: f64, shard_size_bytes: u64) -> Self {
        let n = traces.max(1) as f64;
        let m0 = Self::total_bits(n, false_positive);
        let hashes = (std::f64::consts::LN_2 * m0 / n).ceil().clamp(1.0, 1000.0) as u32;
        let bits = shard_size_bytes.max(8) * 8;
        let shards = (m0 / bits as f64).ceil().clamp(1.0, 1000.0) as u32;
        Self { shards, bits, hashes }
    }

    /// The same number of shards and positions, and no more bits than `traces` ids need: readers take the size from the
    /// object, so a small block need not carry 100 kB of zeros.
    #[must_use]
    pub fn fitting(traces: u64, false_positive: f64, shard_size_bytes: u64) -> Self {
        let full = Self::of_the_original(traces, false_positive, shard_size_bytes);
        let needed = Self::total_bits(traces.max(1) as f64, false_positive) / f64::from(full.shards);
        // Whole cache lines; a little air because ids do not spread evenly over shards.
        let bits = ((needed * 1.05) as u64).next_multiple_of(512);
        Self { bits: bits.min(full.bits), ..full }
    }

    fn total_bits(n: f64, false_positive: f64) -> f64 {
        let p = if false_positive > 0.0 && false_positive < 1.0 { false_positive } else { 0.01 };
        (-n * p.ln() / (std::f64::consts::LN_2 * std::f64::consts::LN_2)).ceil()
    }
}

/// The shard that knows about an id. `shards` is `bloom_shards` of the block's meta.
#[must_use]
pub fn shard_of(id: TraceId, shards: u32) -> u32 {
    id.fnv1_32() % if shards == 0 { 10 } else { shards }
}

impl Builder {
    /// Empty filters.
    #[must_use]
    pub fn new(params: Params) -> Self {
        let words = vec![0; usize::try_from(params.bits.div_ceil(64)).expect("a filter fits in memory")];
        let shard = Shard { bits: params.bits, hashes: u64::from(params.hashes), words };
        Self { shards: vec![shard; params.shards as usize] }
    }

    /// Adds one id.
    pub fn insert(&mut self, id: TraceId) {
        let shard = shard_of(id, self.shards.len() as u32) as usize;
        self.shards[shard].insert(id);
    }

    /// The bytes of `bloom-0`, `bloom-1`, ….
    #[must_use]
    pub fn finish(&self) -> Vec<Vec<u8>> {
        self.shards.iter().map(Shard::to_bytes).collect()
    }
}

impl Shard {
    /// Reads one object.
    ///
    /// # Errors
    /// [`CorruptBloom`] if the numbers in front do not fit the length.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, CorruptBloom> {
        let corrupt = |reason: String| CorruptBloom { reason };
        if bytes.len() < 24 {
            return Err(corrupt(format!("{} bytes, expected at least 24", bytes.len())));
        }
        let number = |chunk: &[u8]| u64::from_be_bytes(chunk.try_into().expect("chunks of eight"));
        let (bits, hashes, length) = (number(&bytes[..8]), number(&bytes[8..16]), number(&bytes[16..24]));
        if bits == 0 || bits != length || hashes == 0 || hashes > HASHES_MAX {
            return Err(corrupt(format!("{bits} bits, {length} stored, {hashes} hashes")));
        }
        let words = &bytes[24..];
        if words.len() as u64 != bits.div_ceil(64).saturating_mul(8) {
            return Err(corrupt(format!("{} bytes of content, expected {bits} bits", words.len())));
        }
        Ok(Self { bits, hashes, words: words.chunks_exact(8).map(number).collect() })
    }

    /// Whether the id may be in the block; false is certain.
    #[must_use]
    pub fn may_contain(&self, id: TraceId) -> bool {
        positions(id, self.bits, self.hashes).all(|p| self.words[(p / 64) as usize] >> (p % 64) & 1 == 1)
    }

    fn insert(&mut self, id: TraceId) {
        for p in positions(id, self.bits, self.hashes) {
            self.words[(p / 64) as usize] |= 1 << (p % 64);
        }
    }

    fn to_bytes(&self) -> Vec<u8> {
        [self.bits, self.hashes, self.bits].iter().chain(&self.words).flat_map(|word| word.to_be_bytes()).collect()
    }
}

fn positions(id: TraceId, bits: u64, hashes: u64) -> impl Iterator<Item = u64> {
    let (h0, h1) = murmur3_x64_128(id.0, None);
    let (h2, h3) = murmur3_x64_128(id.0, Some(1));
    let h = [h0, h1, h2, h3];
    (0..hashes).map(move |i| {
        let odd = i % 2;
        let factor = h[2 + (((i + odd) % 4) / 2) as usize];
        h[odd as usize].wrapping_add(i.wrapping_mul(factor)) % bits
    })
}

/// MurmurHash3, 64-bit variant with 128 bits of result and seed 0, over 16 bytes and one more when given.
fn murmur3_x64_128(block: [u8; 16], tail: Option<u8>) -> (u64, u64) {
    const C1: u64 = 0x87c3_7b91_1142_53d5;
    const C2: u64 = 0x4cf5_ad43_2745_937f;
    let mix1 = |k: u64| k.wrapping_mul(C1).rotate_left(31).wrapping_mul(C2);
    let mix2 = |k: u64| k.wrapping_mul(C2).rotate_left(33).wrapping_mul(C1);
    let word = |at: usize| u64::from_le_bytes(block[at..at + 8].try_into().expect("eight bytes"));
    let mut h1 = mix1(word(0)).rotate_left(27).wrapping_mul(5).wrapping_add(0x52dc_e729);
    let mut h2 = mix2(word(8)).rotate_left(31).wrapping_add(h1).wrapping_mul(5).wrapping_add(0x3849_5ab5);
    if let Some(byte) = tail {
        h1 ^= mix1(u64::from(byte));
    }
    let len = 16 + u64::from(tail.is_some());
    h1 ^= len;
    h2 ^= len;
    h1 = h1.wrapping_add(h2);
    h2 = h2.wrapping_add(h1);
    let finish = |mut k: u64| {
        k = (k ^ (k >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
        k = (k ^ (k >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
        k ^ (k >> 33)
    };
    (h1, h2) = (finish(h1), finish(h2));
    h1 = h1.wrapping_add(h2);
    h2 = h2.wrapping_add(h1);
    (h1, h2)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(text: &str) -> TraceId {
        text.parse().expect("an id")
    }

    /// Source: docs/facts/blocks.md, "Test vectors".
    #[test]
    fn positions_are_the_originals() {
        type Row = (&'static str, [u64; 4], [u64; 7], [u64; 7]);
        let table: [Row; 3] = [
            (
                "1",
                [0x23ef_f263_57c4_8224, 0x0189_7af0_aa0c_a051, 0x640e_b8eb_aa79_f30c, 0xea7a_7a80_f5fe_bcaf],
                [36, 256, 386, 373, 84, 444, 62],
                [557_604, 548_096, 97_154, 260_469, 806_484, 479_164, 28_222],
            ),
            (
                "4e7e1fa916da4b9d2a8868fa593cf519",
                [0xfe46_9710_38ad_b958, 0xeb4f_645b_8579_e57e, 0x2670_b4b5_b196_3012, 0x563c_c4a6_b835_3a9b],
                [344, 25, 142, 436, 416, 133, 250],
                [47_448, 761_881, 11_918, 226_740, 817_568, 264_837, 760_058],
            ),
            (
                "ffffffffffffffffffffffffffffffff",
                [0xd8ce_73d7_a39a_46e6, 0xd0ac_179d_2650_b632, 0x0376_73bf_8899_420d, 0xa15c_106a_571c_89bf],
                [230, 497, 100, 89, 282, 237, 352],
                [280_294, 540_657, 711_268, 654_425, 446_234, 550_637, 721_248],
            ),
        ];
        for (text, hashes, small, large) in table {
            let (h0, h1) = murmur3_x64_128(id(text).0, None);
            let (h2, h3) = murmur3_x64_128(id(text).0, Some(1));
            assert_eq!([h0, h1, h2, h3], hashes, "{text}");
            assert!(positions(id(text), 512, 7).eq(small), "{text}");
            assert!(positions(id(text), 819_200, 7).eq(large), "{text}");
        }
    }

    #[test]
    fn sizes_are_the_originals() {
        let params = |n, p, bytes| Params::of_the_original(n, p, bytes);
        assert_eq!(params(86, 0.01, 102_400), Params { shards: 1, bits: 819_200, hashes: 7 });
        assert_eq!(params(200, 0.01, 64).shards, 4);
        assert_eq!(params(132, 0.01, 64).shards, 3);
        assert_eq!(params(1_000_000, 0.01, 102_400), Params { shards: 12, bits: 819_200, hashes: 7 });
        assert_eq!(params(1000, 0.05, 102_400).hashes, 5);
        assert_eq!(Params::total_bits(86.0, 0.01), 825.0);
        assert_eq!(Params::total_bits(1_000_000.0, 0.01), 9_585_059.0);
        assert_eq!(Params::fitting(86, 0.01, 102_400), Params { shards: 1, bits: 1024, hashes: 7 });
        assert_eq!(params(0, 0.01, 102_400).shards, 1);
    }

    #[test]
    fn what_was_added_is_found_and_little_else() {
        let ids = |from: u32, to: u32| (from..to).map(|i| TraceId::from_slice(&i.wrapping_mul(2_654_435_761).to_be_bytes()));
        let params = Params::fitting(5000, 0.01, 1024);
        let mut builder = Builder::new(params);
        ids(0, 5000).for_each(|id| builder.insert(id));
        let shards: Vec<Shard> = builder.finish().iter().map(|bytes| Shard::from_bytes(bytes).expect("valid")).collect();
        let found = |id: &TraceId| shards[shard_of(*id, params.shards) as usize].may_contain(*id);
        assert!(ids(0, 5000).all(|id| found(&id)));
        assert!(ids(5000, 25_000).filter(found).count() < 400);
    }

    #[test]
    fn broken_objects_are_refused() {
        let good = Builder::new(Params { shards: 1, bits: 512, hashes: 7 }).finish().remove(0);
        assert!(Shard::from_bytes(&good).is_ok());
        assert!(Shard::from_bytes(&good[..good.len() - 1]).is_err());
        assert!(Shard::from_bytes(&good[..20]).is_err());
        assert!(Shard::from_bytes(&[0; 24]).is_err());
        assert!(Shard::from_bytes(&[0xff; 24]).is_err());
    }
}
