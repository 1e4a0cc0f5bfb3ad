//! What one walk over a segment's spans tells: its traces, their sizes and times, and which of those times the range of a block
//! may take over. Retention and searches go by that range, and clients' clocks are not always right.

use rustc_hash::FxHashMap;
use vivace_core::TraceId;
use vivace_core::otlp::walk_spans;
use vivace_core::wire::WireError;
use vivace_proto::vivace::v1::TraceSpans;

use crate::header::SegmentHeader;

/// A start that is so much before its span's arrival, nanoseconds, is believed also where the slack is shorter: long spans and late
/// ones are then found by search at their own times, and a block still begins near the time at which it was written.
const BELIEVED_START_NANOS: u64 = 3600 * 1_000_000_000;

/// What a segment holds of one trace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TraceSummary {
    pub(crate) trace: TraceId,
    pub(crate) spans: u32,
    /// Of the span messages.
    pub(crate) bytes: u64,
    /// Earliest start.
    pub(crate) start_unix_nanos: u64,
    /// Latest end.
    pub(crate) end_unix_nanos: u64,
    /// What its spans say for the range of the block that they come into.
    pub(crate) range: BlockRange,
}

/// The times that a block's `meta.json` is to name, as far as its spans may say them.
///
/// Retention counts from a block's end, and every search touches the blocks whose range it meets. So a time that is not near the
/// arrival of its span does not count: it is told only that there is one, and counts as the time at which the block is written.
///
/// Source: docs/facts/components.md, "Block time range".
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BlockRange {
    /// Nanoseconds since the epoch; [`u64::MAX`] when no span says one.
    start: u64,
    /// 0 when no span says one.
    end: u64,
    /// Spans have times that do not count.
    pub(crate) has_others: bool,
}

impl Default for BlockRange {
    fn default() -> Self {
        Self { start: u64::MAX, end: 0, has_others: false }
    }
}

impl TraceSummary {
    /// By what the sender of a segment says; none where some time of the trace does not count for the range of its block, which only the
    /// spans themselves tell.
    pub(crate) fn told(told: &TraceSpans, arrival: Arrival) -> Option<Self> {
        let TraceSpans { first_start, last_start, first_end, last_end, .. } = *told;
        let range = [arrival.range(first_start, first_end), arrival.range(last_start, last_end)];
        if told.has_backwards || range.iter().any(|range| range.has_others) {
            return None;
        }
        Some(Self {
            trace: TraceId::from_slice(&told.trace_id),
            spans: told.spans,
            bytes: told.bytes,
            start_unix_nanos: first_start,
            end_unix_nanos: last_end,
            range: BlockRange { start: first_start, end: last_end, has_others: false },
        })
    }
}

impl BlockRange {
    pub(crate) fn widen(&mut self, other: Self) {
        self.start = self.start.min(other.start);
        self.end = self.end.max(other.end);
        self.has_others |= other.has_others;
    }

    /// Start and end of a block that is written now, nanoseconds since the epoch.
    pub(crate) fn of_block(self, now_unix_nanos: u64, slack_nanos: u64) -> (u64, u64) {
        let others = if self.has_others || self.end == 0 { Some(now_unix_nanos) } else { None };
        let end = others.map_or(self.end, |now| self.end.max(now));
        let start = others.map_or(self.start, |now| self.start.min(now));
        // The clock may have been put back since the spans came.
        let end = end.min(now_unix_nanos.saturating_add(slack_nanos));
        (start.min(end), end)
    }
}

/// Which times of spans count for the range of their block.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Arrival {
    /// When the spans came.
    pub(crate) unix_nanos: u64,
    /// `storage.trace.wal.ingestion_time_range_slack`
    pub(crate) slack_nanos: u64,
}

impl Arrival {
    /// Of a segment.
    pub(crate) fn of(header: &SegmentHeader, slack_nanos: u64) -> Self {
        Self { unix_nanos: header.received_unix_seconds.saturating_mul(1_000_000_000), slack_nanos }
    }

    fn range(&self, start_unix_nanos: u64, end_unix_nanos: u64) -> BlockRange {
        let latest = self.unix_nanos.saturating_add(self.slack_nanos);
        let start_counts =
            (self.unix_nanos.saturating_sub(self.slack_nanos.max(BELIEVED_START_NANOS))..=latest).contains(&start_unix_nanos);
        let end_counts = (self.unix_nanos.saturating_sub(self.slack_nanos)..=latest).contains(&end_unix_nanos);
        BlockRange {
            start: if start_counts { start_unix_nanos } else { u64::MAX },
            end: if end_counts { end_unix_nanos } else { 0 },
            has_others: !start_counts || !end_counts || end_unix_nanos < start_unix_nanos,
        }
    }
}

/// The traces of a `TracesData` message, in the order of their first spans. Proves that every span can be read.
///
/// # Errors
/// The first place that is no valid message.
pub(crate) fn summarize(traces_data: &[u8]) -> Result<Vec<TraceSummary>, WireError> {
    summarize_arrived(traces_data, Arrival { unix_nanos: 0, slack_nanos: u64::MAX })
}

/// The same for spans that become part of a block.
///
/// # Errors
/// The first place that is no valid message.
pub(crate) fn summarize_arrived(traces_data: &[u8], arrival: Arrival) -> Result<Vec<TraceSummary>, WireError> {
    let mut traces: Vec<TraceSummary> = Vec::new();
    let mut places: FxHashMap<TraceId, usize> = FxHashMap::default();
    let mut last = 0;
    walk_spans(traces_data, |_, span| {
        let trace = span.trace();
        // Neighbours are mostly of one trace.
        if traces.get(last).is_none_or(|t| t.trace != trace) {
            last = *places.entry(trace).or_insert(traces.len());
            if last == traces.len() {
                traces.push(TraceSummary {
                    trace,
                    spans: 0,
                    bytes: 0,
                    start_unix_nanos: u64::MAX,
                    end_unix_nanos: 0,
                    range: BlockRange::default(),
                });
            }
        }
        let summary = &mut traces[last];
        summary.spans += 1;
        summary.bytes += span.bytes.len() as u64;
        summary.start_unix_nanos = summary.start_unix_nanos.min(span.start_unix_nanos);
        summary.end_unix_nanos = summary.end_unix_nanos.max(span.end_unix_nanos);
        summary.range.widen(arrival.range(span.start_unix_nanos, span.end_unix_nanos));
    })?;
    Ok(traces)
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;
    use prost::Message as _;
    use vivace_core::traces::Traces;
    use vivace_proto::otlp::{ResourceSpans, ScopeSpans, Span, TracesData};

    use super::*;

    const SECOND: u64 = 1_000_000_000;
    const NOW: u64 = 1_800_000_000 * SECOND;
    const SLACK: u64 = 120 * SECOND;

    /// The range of a block with these spans that came now and are flushed ten hours later, in seconds from their arrival.
    fn range(spans: &[(i64, i64)]) -> (i64, i64) {
        let at = |seconds: i64| NOW.saturating_add_signed(seconds.saturating_mul(SECOND as i64));
        let mut range = BlockRange::default();
        for (start, end) in spans {
            range.widen(Arrival { unix_nanos: NOW, slack_nanos: SLACK }.range(at(*start), at(*end)));
        }
        let (start, end) = range.of_block(at(FLUSH), SLACK);
        ((start as i64 - NOW as i64) / SECOND as i64, (end as i64 - NOW as i64) / SECOND as i64)
    }

    const FLUSH: i64 = 36_000;
    const FOREVER: i64 = i64::MAX / SECOND as i64;

    #[test]
    fn times_near_the_arrival_are_those_of_the_block() {
        assert_eq!(range(&[(-60, -59), (-10, 100)]), (-60, 100));
        assert_eq!(range(&[(-3000, -1)]), (-3000, -1), "a long span");
    }

    #[test]
    fn other_times_count_as_the_time_of_the_block() {
        assert_eq!(range(&[(-15 * 86_400, -15 * 86_400 + 1)]), (FLUSH, FLUSH), "an import");
        assert_eq!(range(&[(-FOREVER, -FOREVER)]), (FLUSH, FLUSH), "no times at all");
        assert_eq!(range(&[(FOREVER, FOREVER)]), (FLUSH, FLUSH), "a clock that is ahead");
        assert_eq!(range(&[(-10, -5), (-FOREVER, FOREVER)]), (-10, FLUSH), "beside others");
        assert_eq!(range(&[(-600, -599)]), (-600, FLUSH), "a little late: found at its own time, kept from its arrival");
        assert_eq!(range(&[(-5, -10)]), (-5, FLUSH), "an end before its start");
        assert_eq!(range(&[]), (FLUSH, FLUSH));
    }

    proptest! {
        /// What a sender tells of a trace is what the spans say, or they are asked.
        #[test]
        fn what_is_told_is_what_the_spans_say(spans in vec((0..3u8, -200..200i64, -5..300i64), 1..20)) {
            let arrival = Arrival { unix_nanos: NOW, slack_nanos: SLACK };
            let at = |seconds: i64| NOW.saturating_add_signed(seconds * SECOND as i64);
            let span = |&(trace, start, lasts): &(u8, i64, i64)| Span {
                trace_id: vec![trace + 1; 16].into(),
                start_time_unix_nano: at(start),
                end_time_unix_nano: at(start + lasts),
                ..Span::default()
            };
            let scope_spans = vec![ScopeSpans { spans: spans.iter().map(span).collect(), ..ScopeSpans::default() }];
            let data = TracesData { resource_spans: vec![ResourceSpans { scope_spans, ..ResourceSpans::default() }] }.encode_to_vec();
            let mut traces = Traces::default();
            walk_spans(&data, |_, span| {
                traces.add(span.trace(), &span, span.bytes.len());
            })
            .expect("spans");
            let walked = summarize_arrived(&data, arrival).expect("spans");
            for (told, walked) in traces.into_inner().into_iter().zip(walked) {
                let told = TraceSpans {
                    trace_id: told.trace.0.to_vec().into(),
                    spans: told.spans,
                    bytes: told.bytes,
                    first_start: told.first_start,
                    last_start: told.last_start,
                    first_end: told.first_end,
                    last_end: told.last_end,
                    has_backwards: told.has_backwards,
                };
                match TraceSummary::told(&told, arrival) {
                    Some(told) => prop_assert_eq!(told, walked),
                    None => prop_assert!(walked.range.has_others),
                }
            }
        }
    }

    #[test]
    fn a_clock_put_back_makes_no_block_of_the_future() {
        let range = Arrival { unix_nanos: NOW, slack_nanos: SLACK }.range(NOW, NOW);
        assert_eq!(range.of_block(NOW - 7200 * SECOND, SLACK), (NOW - 7080 * SECOND, NOW - 7080 * SECOND));
    }
}
