//! Sets of rows, spans and other elements, and what a condition says of all of them.

use std::ops::Range;

/// A set of small numbers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Bits {
    words: Vec<u64>,
    len: usize,
}

impl Bits {
    pub(crate) fn none(len: usize) -> Self {
        Self { words: vec![0; len.div_ceil(64)], len }
    }

    pub(crate) fn all(len: usize) -> Self {
        let mut bits = Self::none(len);
        bits.set_range(0..len);
        bits
    }

    /// The numbers below `len` that pass.
    pub(crate) fn where_true(len: usize, mut test: impl FnMut(usize) -> bool) -> Self {
        let words = (0..len.div_ceil(64)).map(|word| {
            let first = word * 64;
            (first..len.min(first + 64)).fold(0, |bits, i| bits | u64::from(test(i)) << (i - first))
        });
        Self { words: words.collect(), len }
    }

    pub(crate) fn set(&mut self, index: usize) {
        if index < self.len {
            self.words[index / 64] |= 1 << (index % 64);
        }
    }

    pub(crate) fn set_range(&mut self, range: Range<usize>) {
        let end = range.end.min(self.len);
        let mut at = range.start;
        while at < end {
            let count = (64 - at % 64).min(end - at);
            let ones = if count == 64 { u64::MAX } else { (1 << count) - 1 };
            self.words[at / 64] |= ones << (at % 64);
            at += count;
        }
    }

    /// Whether a number of the range is in the set.
    pub(crate) fn any_in(&self, range: Range<usize>) -> bool {
        let end = range.end.min(self.len);
        let mut at = range.start;
        while at < end {
            let count = (64 - at % 64).min(end - at);
            let ones = if count == 64 { u64::MAX } else { (1 << count) - 1 };
            if self.words[at / 64] >> (at % 64) & ones != 0 {
                return true;
            }
            at += count;
        }
        false
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.words.iter().all(|word| *word == 0)
    }

    pub(crate) fn and(&mut self, other: &Self) {
        for (word, other) in self.words.iter_mut().zip(&other.words) {
            *word &= other;
        }
    }

    pub(crate) fn or(&mut self, other: &Self) {
        for (word, other) in self.words.iter_mut().zip(&other.words) {
            *word |= other;
        }
    }

    pub(crate) fn not(mut self) -> Self {
        for word in &mut self.words {
            *word = !*word;
        }
        if let Some(last) = self.words.last_mut()
            && !self.len.is_multiple_of(64)
        {
            *last &= (1 << (self.len % 64)) - 1;
        }
        self
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = usize> {
        self.words.iter().enumerate().flat_map(|(word, bits)| {
            let mut left = *bits;
            std::iter::from_fn(move || {
                let bit = left.trailing_zeros();
                (left != 0).then(|| {
                    left &= left - 1;
                    word * 64 + bit as usize
                })
            })
        })
    }
}

/// What a condition says about all elements of a kind. None and all need no column to be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Outcome {
    None,
    All,
    Some(Bits),
}

impl Outcome {
    pub(crate) fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::None, _) | (_, Self::None) => Self::None,
            (Self::All, other) | (other, Self::All) => other,
            (Self::Some(mut a), Self::Some(b)) => {
                a.and(&b);
                if a.is_empty() { Self::None } else { Self::Some(a) }
            }
        }
    }

    pub(crate) fn or(self, other: Self) -> Self {
        match (self, other) {
            (Self::All, _) | (_, Self::All) => Self::All,
            (Self::None, other) | (other, Self::None) => other,
            (Self::Some(mut a), Self::Some(b)) => {
                a.or(&b);
                Self::Some(a)
            }
        }
    }

    pub(crate) fn not(self) -> Self {
        match self {
            Self::None => Self::All,
            Self::All => Self::None,
            Self::Some(bits) => Self::Some(bits.not()),
        }
    }

    pub(crate) fn bits(self, len: usize) -> Bits {
        match self {
            Self::None => Bits::none(len),
            Self::All => Bits::all(len),
            Self::Some(bits) => bits,
        }
    }
}

impl From<Bits> for Outcome {
    fn from(bits: Bits) -> Self {
        if bits.is_empty() { Self::None } else { Self::Some(bits) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_behave_like_sets() {
        for len in [0, 1, 63, 64, 65, 200] {
            for range in [0..0, 0..1, 5..64, 60..70, 64..128, 0..200] {
                let mut bits = Bits::none(len);
                bits.set_range(range.clone());
                let want: Vec<usize> = (0..len).filter(|i| range.contains(i)).collect();
                assert_eq!(bits.iter().collect::<Vec<_>>(), want);
                assert_eq!(Bits::where_true(len, |i| range.contains(&i)), bits);
                assert_eq!(bits.clone().not(), Bits::where_true(len, |i| !range.contains(&i)));
                for probe in [0..1, 3..6, 63..65, 199..200] {
                    assert_eq!(bits.any_in(probe.clone()), want.iter().any(|i| probe.contains(i)));
                }
            }
        }
    }
}
