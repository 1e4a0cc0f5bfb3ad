//! What spans add up to in one interval, and the stretch of intervals that a group has touched.

use crate::held::Held;

/// Adds up values of one interval; adding and merging give the same in any order.
pub(crate) trait Cell: Copy + Default {
    fn add(&mut self, value: f64);

    fn merge(&mut self, other: Self);

    /// Nothing was added.
    fn is_empty(self) -> bool;
}

/// How many.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Count(pub(crate) u64);

impl Cell for Count {
    #[inline]
    fn add(&mut self, _: f64) {
        self.0 = self.0.saturating_add(1);
    }

    fn merge(&mut self, other: Self) {
        self.0 = self.0.saturating_add(other.0);
    }

    fn is_empty(self) -> bool {
        self.0 == 0
    }
}

/// The smallest; NaN is none.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Min(pub(crate) f64);

impl Default for Min {
    fn default() -> Self {
        Self(f64::NAN)
    }
}

impl Cell for Min {
    #[inline]
    fn add(&mut self, value: f64) {
        // Of two zeros the negative one is smaller, so that the order makes no difference.
        if value < self.0 || self.0.is_nan() || (value == self.0 && value.is_sign_negative()) {
            self.0 = value;
        }
    }

    fn merge(&mut self, other: Self) {
        if !other.is_empty() {
            self.add(other.0);
        }
    }

    fn is_empty(self) -> bool {
        self.0.is_nan()
    }
}

/// The largest; NaN is none.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Max(pub(crate) f64);

impl Default for Max {
    fn default() -> Self {
        Self(f64::NAN)
    }
}

impl Cell for Max {
    #[inline]
    fn add(&mut self, value: f64) {
        if value > self.0 || self.0.is_nan() || (value == self.0 && value.is_sign_positive()) {
            self.0 = value;
        }
    }

    fn merge(&mut self, other: Self) {
        if !other.is_empty() {
            self.add(other.0);
        }
    }

    fn is_empty(self) -> bool {
        self.0.is_nan()
    }
}

/// A sum in two doubles: the second holds what rounding took from the first. About 100 bits, so that sums of whole
/// numbers are exact and those of others do not depend on the order.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Sum {
    pub(crate) total: f64,
    pub(crate) correction: f64,
    pub(crate) count: u64,
}

impl Sum {
    fn add_parts(&mut self, value: f64, correction: f64) {
        let (total, lost) = two_sum(self.total, value);
        if total.is_finite() {
            (self.total, self.correction) = two_sum(total, lost + self.correction + correction);
        } else {
            (self.total, self.correction) = (total, 0.0);
        }
    }
}

impl Cell for Sum {
    #[inline]
    fn add(&mut self, value: f64) {
        self.add_parts(value, 0.0);
        self.count = self.count.saturating_add(1);
    }

    fn merge(&mut self, other: Self) {
        self.add_parts(other.total, other.correction);
        self.count = self.count.saturating_add(other.count);
    }

    fn is_empty(self) -> bool {
        self.count == 0
    }
}

/// The rounded sum, and what rounding took from it.
fn two_sum(a: f64, b: f64) -> (f64, f64) {
    let sum = a + b;
    let other = sum - a;
    (sum, (a - (sum - other)) + (b - other))
}

/// Ranges of few intervals are held whole.
const WHOLE_MAX: usize = 16;

/// The cells of one group, from the first interval that it touched to the last, and a little around them.
#[derive(Debug, Clone, Default)]
pub(crate) struct Stretch<C> {
    first: usize,
    cells: Vec<C>,
}

impl<C: Cell> Stretch<C> {
    pub(crate) fn new(first: usize, cells: Vec<C>) -> Self {
        Self { first, cells }
    }

    /// The cell of an interval, which must be less than `intervals`, the number there are in all. None if there is no room for it.
    #[inline]
    pub(crate) fn at(&mut self, interval: usize, intervals: usize, held: &mut Held) -> Option<&mut C> {
        if interval.wrapping_sub(self.first) >= self.cells.len() {
            self.grow(interval, intervals, held)?;
        }
        Some(&mut self.cells[interval - self.first])
    }

    #[cold]
    fn grow(&mut self, interval: usize, intervals: usize, held: &mut Held) -> Option<()> {
        let (first, end) = (self.first, self.first + self.cells.len());
        let reach = self.cells.len();
        let (new_first, new_end) = match () {
            () if intervals <= WHOLE_MAX => (0, intervals),
            () if self.cells.is_empty() => (interval, interval + 1),
            // By at least its own length, so that growing step by step takes linear time.
            () if interval < first => (interval.min(first.saturating_sub(reach)), end),
            () => (first, (interval + 1).max((end + reach).min(intervals))),
        };
        let more = (new_end - new_first).saturating_sub(self.cells.len());
        if !held.add((more * size_of::<C>()) as u64) {
            return None;
        }
        let mut cells = vec![C::default(); new_end - new_first];
        if !self.cells.is_empty() {
            cells[first - new_first..end - new_first].copy_from_slice(&self.cells);
        }
        *self = Self { first: new_first, cells };
        Some(())
    }

    /// Interval and cell of all that are not empty.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (usize, C)> + '_ {
        self.cells.iter().enumerate().map(|(i, cell)| (self.first + i, *cell)).filter(|(_, cell)| !cell.is_empty())
    }

    /// Adds another, as far as there is room.
    pub(crate) fn merge(&mut self, other: &Self, intervals: usize, held: &mut Held) {
        for (interval, cell) in other.iter().take_while(|(interval, _)| *interval < intervals) {
            match self.at(interval, intervals, held) {
                Some(place) => place.merge(cell),
                None => return,
            }
        }
    }

    /// Without empty cells at either end.
    pub(crate) fn trimmed(&self) -> (usize, &[C]) {
        let from = self.cells.iter().position(|cell| !cell.is_empty()).unwrap_or(self.cells.len());
        let to = self.cells.iter().rposition(|cell| !cell.is_empty()).map_or(from, |last| last + 1);
        (self.first + from, &self.cells[from..to])
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use vivace_core::budget::Budget;

    use super::*;

    fn sum(values: &[f64]) -> f64 {
        let mut sum = Sum::default();
        values.iter().for_each(|v| sum.add(*v));
        sum.total + sum.correction
    }

    #[test]
    fn sums_lose_nothing() {
        assert_eq!(sum(&[1e17, 1.0, 1.0, 1.0, -1e17]), 3.0);
        assert_eq!(sum(&[0.1; 10]), 1.0);
        assert_eq!(sum(&[f64::INFINITY, 1.0]), f64::INFINITY);
        assert!(sum(&[f64::INFINITY, f64::NEG_INFINITY]).is_nan());
    }

    #[test]
    fn extremes() {
        let (mut min, mut max) = (Min::default(), Max::default());
        assert!(min.is_empty() && max.is_empty());
        for value in [2.0, -1.0, 7.0] {
            min.add(value);
            max.add(value);
        }
        min.merge(Min::default());
        assert_eq!((min.0, max.0), (-1.0, 7.0));
    }

    proptest! {
        #[test]
        fn a_stretch_holds_what_was_added(intervals in 1usize..300, touched in prop::collection::vec(any::<usize>(), 0..40)) {
            let mut stretch = Stretch::<Count>::default();
            let mut room = Held::new(&Budget::unlimited());
            let mut plain = vec![0; intervals];
            for interval in touched.iter().map(|i| i % intervals) {
                stretch.at(interval, intervals, &mut room).expect("there is room").add(0.0);
                plain[interval] += 1;
            }
            prop_assert_eq!(room.bytes(), (stretch.cells.len() * size_of::<Count>()) as u64);
            let held: Vec<_> = stretch.iter().map(|(i, count)| (i, count.0)).collect();
            let want: Vec<_> = plain.iter().enumerate().filter(|(_, count)| **count > 0).map(|(i, count)| (i, *count)).collect();
            prop_assert_eq!(held, want);
            let (first, cells) = stretch.trimmed();
            prop_assert_eq!(cells.iter().map(|c| c.0).sum::<u64>(), touched.len() as u64);
            prop_assert!(first + cells.len() <= intervals);
        }
    }
}
