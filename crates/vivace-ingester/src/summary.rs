use rustc_hash::FxHashMap;
use vivace_core::TraceId;
use vivace_core::otlp::walk_spans;
use vivace_core::wire::WireError;

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
}

/// The traces of a `TracesData` message, in the order of their first spans. Proves that every span can be read.
///
/// # Errors
/// The first place that is no valid message.
pub(crate) fn summarize(traces_data: &[u8]) -> Result<Vec<TraceSummary>, WireError> {
    let mut traces: Vec<TraceSummary> = Vec::new();
    let mut places: FxHashMap<TraceId, usize> = FxHashMap::default();
    let mut last = 0;
    walk_spans(traces_data, |_, span| {
        let trace = span.trace();
        // Neighbours are mostly of one trace.
        if traces.get(last).is_none_or(|t| t.trace != trace) {
            last = *places.entry(trace).or_insert(traces.len());
            if last == traces.len() {
                traces.push(TraceSummary { trace, spans: 0, bytes: 0, start_unix_nanos: u64::MAX, end_unix_nanos: 0 });
            }
        }
        let summary = &mut traces[last];
        summary.spans += 1;
        summary.bytes += span.bytes.len() as u64;
        summary.start_unix_nanos = summary.start_unix_nanos.min(span.start_unix_nanos);
        summary.end_unix_nanos = summary.end_unix_nanos.max(span.end_unix_nanos);
    })?;
    Ok(traces)
}
