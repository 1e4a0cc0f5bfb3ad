//! How many traces of a tenant may be live, and how large one may become. Decided once, before a segment is logged: the log
//! remembers what was refused, so that a replay does not decide anew.

use std::time::Duration;

use rustc_hash::FxHashMap;
use vivace_core::TraceId;
use vivace_proto::vivace::v1::refused_trace::Reason;

use crate::limits::TraceLimits;

/// A trace below this share of its limit starts anew with each block, so that few traces are remembered for long.
const REMEMBERED_SHARE: u64 = 16;

/// Counts live traces and their bytes, to refuse what goes over a limit.
///
/// A trace is live from its first span until it is quiet for the idle period, at most for the live period; then its next
/// span makes it live again. Its bytes count on, so that a trace that was too large stays refused until it has been quiet
/// for as long as a block takes.
///
/// Source: docs/facts/components.md, "Push to an ingester".
#[derive(Debug, Default)]
pub(super) struct TraceTracker {
    traces: FxHashMap<TraceId, Tracked>,
    live: u64,
}

#[derive(Debug)]
struct Tracked {
    bytes: u64,
    first_unix_seconds: u64,
    last_unix_seconds: u64,
    is_live: bool,
    /// Since the last block was cut.
    is_touched: bool,
}

impl TraceTracker {
    /// Live traces.
    pub(super) fn live(&self) -> u64 {
        self.live
    }

    /// Nothing is remembered.
    pub(super) fn is_empty(&self) -> bool {
        self.traces.is_empty()
    }

    /// Counts spans of a trace that arrive; true in the answer when the trace has just become live.
    ///
    /// # Errors
    /// The limit that these spans go over.
    pub(super) fn admit(&mut self, trace: TraceId, bytes: u64, now_unix_seconds: u64, limits: TraceLimits) -> Result<bool, Reason> {
        let is_live = self.traces.get(&trace).is_some_and(|t| t.is_live);
        if !is_live && limits.live_traces_max > 0 && self.live >= limits.live_traces_max {
            return Err(Reason::LiveTracesExceeded);
        }
        let tracked = self.traces.entry(trace).or_insert(Tracked {
            bytes: 0,
            first_unix_seconds: now_unix_seconds,
            last_unix_seconds: now_unix_seconds,
            is_live: false,
            is_touched: true,
        });
        tracked.bytes += bytes;
        tracked.last_unix_seconds = now_unix_seconds;
        tracked.is_touched = true;
        if limits.trace_bytes_max > 0 && tracked.bytes > limits.trace_bytes_max {
            return Err(Reason::TraceTooLarge);
        }
        if !is_live {
            tracked.is_live = true;
            tracked.first_unix_seconds = now_unix_seconds;
            self.live += 1;
        }
        Ok(!is_live)
    }

    /// Ends the life of traces that are quiet or old, and forgets small ones.
    pub(super) fn sweep(&mut self, now_unix_seconds: u64, idle: Duration, live: Duration, limits: TraceLimits) {
        let (traces, count) = (&mut self.traces, &mut self.live);
        let since = |then: u64| Duration::from_secs(now_unix_seconds.saturating_sub(then));
        traces.retain(|_, t| {
            if t.is_live && (since(t.last_unix_seconds) >= idle || since(t.first_unix_seconds) >= live) {
                t.is_live = false;
                *count -= 1;
            }
            t.is_live || (limits.trace_bytes_max > 0 && t.bytes >= limits.trace_bytes_max / REMEMBERED_SHARE)
        });
    }

    /// A block was cut: forgets what was quiet since the one before.
    pub(super) fn cut(&mut self) {
        self.traces.retain(|_, t| t.is_live || std::mem::take(&mut t.is_touched));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: TraceLimits = TraceLimits { live_traces_max: 2, trace_bytes_max: 100 };
    const IDLE: Duration = Duration::from_secs(5);
    const LIVE: Duration = Duration::from_secs(30);

    fn id(n: u8) -> TraceId {
        TraceId([n; 16])
    }

    #[test]
    fn only_new_traces_are_refused_at_the_limit_of_live_traces() {
        let mut tracker = TraceTracker::default();
        assert_eq!(tracker.admit(id(1), 1, 0, LIMITS), Ok(true));
        assert_eq!(tracker.admit(id(2), 1, 0, LIMITS), Ok(true));
        assert_eq!(tracker.admit(id(3), 1, 0, LIMITS), Err(Reason::LiveTracesExceeded));
        assert_eq!(tracker.admit(id(1), 1, 4, LIMITS), Ok(false));
        tracker.sweep(5, IDLE, LIVE, LIMITS);
        assert_eq!(tracker.live(), 1, "the second has been quiet");
        assert_eq!(tracker.admit(id(3), 1, 5, LIMITS), Ok(true));
    }

    #[test]
    fn a_busy_trace_is_cut_after_the_live_period() {
        let mut tracker = TraceTracker::default();
        for now in 0..=30 {
            tracker.admit(id(1), 1, now, LIMITS).expect("fits");
            tracker.sweep(now, IDLE, LIVE, LIMITS);
        }
        assert_eq!(tracker.live(), 0);
    }

    #[test]
    fn a_trace_that_was_too_large_stays_refused_until_it_is_quiet_for_a_block() {
        let mut tracker = TraceTracker::default();
        assert_eq!(tracker.admit(id(1), 100, 0, LIMITS), Ok(true));
        assert_eq!(tracker.admit(id(1), 1, 0, LIMITS), Err(Reason::TraceTooLarge));
        tracker.sweep(60, IDLE, LIVE, LIMITS);
        tracker.cut();
        assert_eq!(tracker.admit(id(1), 1, 61, LIMITS), Err(Reason::TraceTooLarge));
        tracker.sweep(120, IDLE, LIVE, LIMITS);
        tracker.cut();
        tracker.cut();
        assert_eq!(tracker.admit(id(1), 1, 121, LIMITS), Ok(true));
    }

    #[test]
    fn zero_is_no_limit() {
        let limits = TraceLimits { live_traces_max: 0, trace_bytes_max: 0 };
        let mut tracker = TraceTracker::default();
        for n in 0..100 {
            assert_eq!(tracker.admit(id(n), u64::from(u32::MAX), 0, limits), Ok(true));
        }
    }
}
