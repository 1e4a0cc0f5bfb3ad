//! The range and the steps of a metrics query: which interval a time is in, and where that begins and ends.

use crate::duration;
use crate::error::QueryError;

/// More intervals than this are refused.
pub const MAX_INTERVALS: u64 = 10_000;

const MS: u64 = 1_000_000;
const SECOND: u64 = 1_000 * MS;

/// Which release's rules hold where two of them differ. Everything that only the later one has is always there.
///
/// | | `V2` | `V3` |
/// |---|---|---|
/// | default step | multiples of 5 s, or of 1 s | multiples of the unit that fits the range, down to 50 ms |
/// | a step as long as the range | one value, as an instant request gives it | intervals as for any other step |
/// | label of a name that needs quotes | `span.a b` | `span."a b"` |
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Release {
    /// 2.10
    #[default]
    V2,
    /// 3.x
    V3,
}

/// The time of a metrics query, cut into intervals of one step, each open on the left and closed on the right.
///
/// Source: docs/facts/traceql.md, "Range of a metrics query", "Default step", "Instant queries".
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MetricsRange {
    /// Unix nanoseconds; a span that starts here is not counted.
    start: u64,
    step: u64,
    intervals: u32,
    is_instant: bool,
    release: Release,
}

impl MetricsRange {
    /// A range request, in Unix nanoseconds: the range is widened to whole steps, and by one step at its start.
    ///
    /// Without a step the release's default is taken.
    ///
    /// # Errors
    /// [`QueryError::Invalid`] when the start is not before the end or there are more than [`MAX_INTERVALS`].
    pub fn range(start: u64, end: u64, step_nanos: Option<u64>, release: Release) -> Result<Self, QueryError> {
        let length = length(start, end)?;
        let step = step_nanos.unwrap_or_else(|| default_step(length, release));
        if step == 0 || length / step > MAX_INTERVALS {
            return Err(QueryError::Invalid(format!(
                "step of {} is too small, minimum step for given range is {}",
                duration_text(step),
                duration_text(length.div_ceil(MAX_INTERVALS))
            )));
        }
        if step == length && release == Release::V2 {
            return Self::instant(start, end, release);
        }
        let aligned_start = start / step * step;
        let aligned_end = end.div_ceil(step).checked_mul(step).ok_or_else(|| out_of_range(end))?;
        let start = aligned_start.saturating_sub(if start < step { 0 } else { step });
        let intervals = u32::try_from((aligned_end - start) / step).map_err(|_| out_of_range(end))?;
        Ok(Self { start, step, intervals, is_instant: false, release })
    }

    /// An instant request, in Unix nanoseconds: one interval, not aligned.
    ///
    /// # Errors
    /// [`QueryError::Invalid`] when the start is not before the end.
    pub fn instant(start: u64, end: u64, release: Release) -> Result<Self, QueryError> {
        Ok(Self { start, step: length(start, end)?, intervals: 1, is_instant: true, release })
    }

    /// The range without the intervals that end after a time in Unix nanoseconds; at least one stays.
    ///
    /// 3.x answers nothing about the last seconds, which may still be on their way.
    #[must_use]
    pub fn ending_by(self, end: u64) -> Self {
        if self.is_instant {
            return self;
        }
        let whole = end.saturating_sub(self.start) / self.step;
        Self { intervals: self.intervals.min(u32::try_from(whole).unwrap_or(u32::MAX)).max(1), ..self }
    }

    /// Unix nanoseconds. Spans that start here or earlier are not counted.
    #[must_use]
    pub fn start_unix_nanos(&self) -> u64 {
        self.start
    }

    /// Unix nanoseconds. Spans that start here are counted, later ones are not.
    #[must_use]
    pub fn end_unix_nanos(&self) -> u64 {
        self.start + self.step * u64::from(self.intervals)
    }

    /// Length of an interval, nanoseconds.
    #[must_use]
    pub fn step_nanos(&self) -> u64 {
        self.step
    }

    /// Number of intervals, so of samples that a series can have.
    #[must_use]
    pub fn intervals(&self) -> usize {
        self.intervals as usize
    }

    /// Whether there is one value per series instead of samples over time. Such queries have no exemplars.
    #[must_use]
    pub fn is_instant(&self) -> bool {
        self.is_instant
    }

    /// Whose rules hold.
    #[must_use]
    pub fn release(&self) -> Release {
        self.release
    }

    /// The interval that a time in Unix nanoseconds belongs to.
    #[must_use]
    pub fn interval_of(&self, unix_nanos: u64) -> Option<usize> {
        let interval = unix_nanos.checked_sub(self.start)?.checked_sub(1)? / self.step;
        (interval < u64::from(self.intervals)).then_some(usize::try_from(interval).unwrap_or(usize::MAX))
    }

    /// The bounds of an interval in Unix nanoseconds: it holds what is after the first and not after the second.
    #[must_use]
    pub fn bounds(&self, interval: usize) -> (u64, u64) {
        let start = self.start + self.step * interval as u64;
        (start, start + self.step)
    }

    /// The time of an interval's sample: its right edge, Unix milliseconds.
    #[must_use]
    pub fn timestamp_ms(&self, interval: usize) -> i64 {
        i64::try_from(self.bounds(interval).1 / MS).unwrap_or(i64::MAX)
    }
}

fn length(start: u64, end: u64) -> Result<u64, QueryError> {
    // What is later than this cannot be written as signed nanoseconds, and sums with steps might not fit.
    if end > i64::MAX.cast_unsigned() {
        return Err(out_of_range(end));
    }
    match end.checked_sub(start) {
        None | Some(0) => Err(QueryError::Invalid("invalid time range: start must be before end".to_owned())),
        Some(length) => Ok(length),
    }
}

fn out_of_range(end: u64) -> QueryError {
    QueryError::Invalid(format!("invalid time range: end {end} is out of range"))
}

fn duration_text(nanos: u64) -> String {
    duration::text(i64::try_from(nanos).unwrap_or(i64::MAX))
}

/// The step of a request that names none, nanoseconds.
///
/// Source: docs/facts/traceql.md, "Default step".
fn default_step(length: u64, release: Release) -> u64 {
    let wanted = length / 240;
    let down_to = |unit: u64| (wanted / unit * unit).max(unit);
    match release {
        Release::V2 if wanted < 5 * SECOND => down_to(SECOND),
        Release::V2 => down_to(5 * SECOND),
        Release::V3 if length < 60 * SECOND => down_to(50 * MS),
        Release::V3 => {
            let units = [3600, 300, 60, 15, 5, 1].map(|seconds| seconds * SECOND);
            down_to(units.into_iter().find(|unit| *unit < wanted).unwrap_or(SECOND))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn default_steps() {
        let cases = [
            (10 * SECOND, 50 * MS, SECOND),
            (59 * SECOND, 200 * MS, SECOND),
            (120 * SECOND, SECOND, SECOND),
            (3600 * SECOND, 15 * SECOND, 15 * SECOND),
            (6 * 3600 * SECOND, 60 * SECOND, 90 * SECOND),
            (24 * 3600 * SECOND, 300 * SECOND, 360 * SECOND),
            (2400 * SECOND, 10 * SECOND, 10 * SECOND),
            (1, 50 * MS, SECOND),
        ];
        for (length, v3, v2) in cases {
            assert_eq!((default_step(length, Release::V3), default_step(length, Release::V2)), (v3, v2), "{length}");
        }
    }

    #[test]
    fn ranges_are_widened_to_whole_steps() {
        let range = |start, end, step| MetricsRange::range(start, end, Some(step), Release::V3).expect("a range");
        let aligned = range(600, 720, 60);
        assert_eq!((aligned.start_unix_nanos(), aligned.end_unix_nanos(), aligned.intervals()), (540, 720, 3));
        assert_eq!(range(610, 710, 60), aligned);
        assert_eq!(range(30, 100, 60).start_unix_nanos(), 0, "no step before the beginning of time");
        assert_eq!(range(60, 100, 60).start_unix_nanos(), 0);
        assert_eq!(aligned.ending_by(700).end_unix_nanos(), 660);
        assert_eq!(aligned.ending_by(0).intervals(), 1);
    }

    #[test]
    fn intervals_are_open_on_the_left() {
        let range = MetricsRange::range(600 * SECOND, 720 * SECOND, Some(60 * SECOND), Release::V2).expect("a range");
        let interval = |nanos: u64| range.interval_of(nanos);
        assert_eq!(interval(540 * SECOND), None);
        assert_eq!(interval(540 * SECOND + 1), Some(0));
        assert_eq!(interval(600 * SECOND), Some(0));
        assert_eq!(interval(600 * SECOND + 1), Some(1));
        assert_eq!(interval(720 * SECOND), Some(2));
        assert_eq!(interval(720 * SECOND + 1), None);
        assert_eq!(interval(0), None);
        assert_eq!([0, 1, 2].map(|i| range.timestamp_ms(i)), [600_000, 660_000, 720_000]);
    }

    #[test]
    fn a_step_as_long_as_the_range() {
        let range = |release| MetricsRange::range(600, 900, Some(300), release).expect("a range");
        assert!(range(Release::V2).is_instant());
        assert_eq!(range(Release::V2), MetricsRange::instant(600, 900, Release::V2).expect("a range"));
        assert_eq!(range(Release::V3).intervals(), 2);
    }

    #[test]
    fn bad_ranges_are_refused() {
        let refused = |start, end, step| MetricsRange::range(start, end, step, Release::V2).expect_err("refused").to_string();
        assert_eq!(refused(5, 5, None), "invalid time range: start must be before end");
        assert_eq!(refused(0, 3600 * SECOND, Some(MS)), "step of 1ms is too small, minimum step for given range is 360ms");
        assert!(refused(0, 10, Some(0)).starts_with("step of 0s is too small"));
        assert!(refused(0, u64::MAX, None).contains("out of range"));
        assert!(MetricsRange::instant(9, 9, Release::V2).is_err());
        let widest = MetricsRange::range(1, i64::MAX.cast_unsigned(), Some(i64::MAX.cast_unsigned()), Release::V3).expect("a range");
        assert!(widest.end_unix_nanos() >= i64::MAX.cast_unsigned());
    }
}
