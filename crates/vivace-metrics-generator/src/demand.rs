//! How many different things were refused in a while, about: HyperLogLog, so that it takes two kilobytes however many there are.

/// Bits of a hash that choose a register. The error is some 2.3 %.
const BITS: u32 = 11;
const REGISTERS: usize = 1 << BITS;

/// Counts what is different, over two windows of time of which the second is under way.
#[derive(Debug, Default)]
pub(crate) struct Demand {
    now: Sketch,
    before: Sketch,
    began_unix_nanos: u64,
}

/// For each register the longest run of zeros that was seen, plus one. Empty until something was.
#[derive(Debug, Default)]
struct Sketch(Vec<u8>);

impl Demand {
    /// Counts something by its hash.
    pub(crate) fn insert(&mut self, hash: u64) {
        self.now.insert(hash);
    }

    /// Forgets what was not seen in this window and the one before.
    pub(crate) fn turn(&mut self, now_unix_nanos: u64, window_nanos: u64) {
        if now_unix_nanos.saturating_sub(self.began_unix_nanos) >= window_nanos {
            self.began_unix_nanos = now_unix_nanos;
            self.before = std::mem::take(&mut self.now);
        }
    }

    /// How many different ones there were.
    pub(crate) fn estimate(&self) -> f64 {
        let Sketch(now) = &self.now;
        let Sketch(before) = &self.before;
        match (now.is_empty(), before.is_empty()) {
            (true, true) => 0.0,
            (true, false) => estimate(before.iter().copied()),
            (false, true) => estimate(now.iter().copied()),
            (false, false) => estimate(now.iter().zip(before).map(|(a, b)| *a.max(b))),
        }
    }
}

impl Sketch {
    fn insert(&mut self, hash: u64) {
        if self.0.is_empty() {
            self.0 = vec![0; REGISTERS];
        }
        let register = (hash >> (u64::BITS - BITS)) as usize;
        // The bit at the end bounds the run.
        let run = ((hash << BITS) | (1 << (BITS - 1))).leading_zeros() as u8 + 1;
        self.0[register] = self.0[register].max(run);
    }
}

/// As the paper has it that HyperLogLog is from: the harmonic mean of all registers, or for few things the registers still empty.
fn estimate(registers: impl Iterator<Item = u8>) -> f64 {
    let (mut sum, mut zeros) = (0.0, 0.0);
    for run in registers {
        sum += f64::from(-i32::from(run)).exp2();
        zeros += f64::from(u8::from(run == 0));
    }
    let all = REGISTERS as f64;
    let estimate = 0.7213 / (1.0 + 1.079 / all) * all * all / sum;
    if estimate <= 2.5 * all && zeros > 0.0 { all * (all / zeros).ln() } else { estimate }
}

#[cfg(test)]
mod tests {
    use std::hash::BuildHasher as _;

    use proptest::prelude::*;

    use super::*;

    fn demand(things: impl Iterator<Item = u64>) -> Demand {
        let hasher = rustc_hash::FxSeededState::with_seed(7);
        let mut demand = Demand::default();
        // A second time tells nothing new.
        things.for_each(|thing| (0..2).for_each(|_| demand.insert(hasher.hash_one(thing.to_string()))));
        demand
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]

        #[test]
        fn estimates_are_near(count in prop::sample::select(vec![0u64, 1, 10, 300, 2_000, 4_000, 6_000, 50_000, 200_000]), from in 0u64..1_000_000) {
            let estimate = demand(from..from + count).estimate();
            prop_assert!((estimate - count as f64).abs() <= 0.12 * count as f64, "{estimate} of {count}");
        }
    }

    #[test]
    fn what_was_not_seen_for_two_windows_is_forgotten() {
        let mut demand = demand(0..100);
        demand.turn(10, 10);
        assert!((90.0..110.0).contains(&demand.estimate()));
        demand.turn(19, 10);
        demand.turn(20, 10);
        assert_eq!(demand.estimate(), 0.0);
    }
}
