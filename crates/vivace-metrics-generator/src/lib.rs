//! Spans to metrics: span metrics and remote write
