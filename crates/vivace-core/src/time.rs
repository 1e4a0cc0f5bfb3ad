//! A range of time whose ends may be open.

/// Nanoseconds of a second.
pub const SECOND: u64 = 1_000_000_000;

/// A range of time in Unix nanoseconds. Both ends are in it; an end that is `None` is open.
///
/// An end that is given may be any number, 0 and the last one too: spans with such times exist.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TimeRange {
    /// Nothing in the range is before this.
    pub start: Option<u64>,
    /// Nothing in the range is after this.
    pub end: Option<u64>,
}

impl TimeRange {
    /// All of time.
    pub const ALL: Self = Self { start: None, end: None };

    /// From one time to another.
    #[must_use]
    pub const fn between(start_unix_nanos: u64, end_unix_nanos: u64) -> Self {
        Self { start: Some(start_unix_nanos), end: Some(end_unix_nanos) }
    }

    /// From the seconds of a request, in which 0 is an open end.
    ///
    /// Source: docs/facts/http-api.md, "Query API".
    #[must_use]
    pub fn of_request(start_unix_seconds: u32, end_unix_seconds: u32) -> Self {
        let nanos = |seconds: u32| (seconds > 0).then(|| u64::from(seconds) * SECOND);
        Self { start: nanos(start_unix_seconds), end: nanos(end_unix_seconds) }
    }

    /// Whether something that lasts from one time to another is in the range with some part of it.
    #[must_use]
    pub fn overlaps(self, start_unix_nanos: u64, end_unix_nanos: u64) -> bool {
        self.start.is_none_or(|start| start <= end_unix_nanos) && self.end.is_none_or(|end| start_unix_nanos <= end)
    }

    /// Whether the ends contradict each other.
    #[must_use]
    pub fn is_contradictory(self) -> bool {
        matches!((self.start, self.end), (Some(start), Some(end)) if start > end)
    }

    /// The range and so many nanoseconds on both sides.
    #[must_use]
    pub fn widened(self, nanos: u64) -> Self {
        Self { start: self.start.map(|start| start.saturating_sub(nanos)), end: self.end.map(|end| end.saturating_add(nanos)) }
    }

    /// The range with both ends moved outwards to a whole second.
    #[must_use]
    pub fn in_whole_seconds(self) -> Self {
        let up = |end: u64| end.div_ceil(SECOND).saturating_mul(SECOND);
        Self { start: self.start.map(|start| start / SECOND * SECOND), end: self.end.map(up) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn zero_is_open_in_a_request_alone() {
        assert_eq!(TimeRange::of_request(0, 0), TimeRange::ALL);
        assert_eq!(TimeRange::of_request(0, 7), TimeRange { start: None, end: Some(7 * SECOND) });
        assert!(TimeRange::of_request(7, 0).overlaps(0, u64::MAX) && !TimeRange::of_request(7, 0).overlaps(0, 7 * SECOND - 1));
        assert!(TimeRange::between(0, 0).overlaps(0, 5) && !TimeRange::between(0, 0).overlaps(1, 5));
        assert!(TimeRange::between(u64::MAX, u64::MAX).overlaps(3, u64::MAX));
    }

    #[test]
    fn whole_seconds_are_outside() {
        assert_eq!(TimeRange::between(1, SECOND + 1).in_whole_seconds(), TimeRange::between(0, 2 * SECOND));
        assert_eq!(TimeRange::between(SECOND, 2 * SECOND).in_whole_seconds(), TimeRange::between(SECOND, 2 * SECOND));
        assert_eq!(TimeRange::between(0, u64::MAX).in_whole_seconds().end, Some(u64::MAX));
    }

    proptest! {
        #[test]
        fn what_overlaps_overlaps_a_wider_range(range: (Option<u64>, Option<u64>), start: u64, length: u32, by: u64) {
            let range = TimeRange { start: range.0, end: range.1 };
            let end = start.saturating_add(u64::from(length));
            if range.overlaps(start, end) {
                prop_assert!(range.widened(by).overlaps(start, end));
                prop_assert!(range.in_whole_seconds().overlaps(start, end));
            }
            prop_assert!(TimeRange::ALL.overlaps(start, end));
            prop_assert_eq!(TimeRange::between(start, end).widened(by).overlaps(start, end), true);
        }
    }
}
