//! The span-metrics processor: calls, latency and size per service, span name, kind and status.
//!
//! Source: docs/facts/components.md, "Span metrics".

use vivace_core::wire::WireError;

use crate::registry::{Labels, Registry};
use crate::spans::{Attributes, MeasuredSpan, attributes, measure};

/// Which labels series get, and the latency buckets.
#[derive(Debug, Clone, PartialEq)]
pub struct SpanMetricsOptions {
    /// Label `service`.
    pub service: bool,
    /// Label `span_name`.
    pub span_name: bool,
    /// Label `span_kind`.
    pub span_kind: bool,
    /// Label `status_code`.
    pub status_code: bool,
    /// Label `status_message`.
    pub status_message: bool,
    /// Attributes that become labels: resource first, then span.
    pub dimensions: Vec<String>,
    /// Upper bounds of the latency buckets, seconds, ascending; `+Inf` is added.
    pub buckets_seconds: Vec<f64>,
    /// `traces_spanmetrics_calls_total` is made.
    pub count: bool,
    /// `traces_spanmetrics_latency` is made.
    pub latency: bool,
    /// `traces_spanmetrics_size_total` is made.
    pub size: bool,
}

/// What happened to one push.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Accounted {
    pub(crate) spans: u64,
    /// Spans that ended too far from now.
    pub(crate) outside_slack: u64,
    /// Spans that are broken inside.
    pub(crate) unreadable: u64,
}

const KINDS: [&str; 6] =
    ["SPAN_KIND_UNSPECIFIED", "SPAN_KIND_INTERNAL", "SPAN_KIND_SERVER", "SPAN_KIND_CLIENT", "SPAN_KIND_PRODUCER", "SPAN_KIND_CONSUMER"];
const STATUSES: [&str; 3] = ["STATUS_CODE_UNSET", "STATUS_CODE_OK", "STATUS_CODE_ERROR"];
const INTRINSIC_LABELS: [&str; 5] = ["service", "span_name", "span_kind", "status_code", "status_message"];

/// Counts every span of a push whose end lies within `slack_nanos` of `now_unix_nanos`.
///
/// # Errors
/// The payload is no `TracesData`; spans before the broken place are counted. A span that is broken inside is left out alone.
pub(crate) fn observe(
    options: &SpanMetricsOptions,
    registry: &mut Registry,
    traces_data: &[u8],
    now_unix_nanos: u64,
    slack_nanos: u64,
) -> Result<Accounted, WireError> {
    let mut accounted = Accounted::default();
    accounted.unreadable = measure(traces_data, |resource, span| {
        accounted.spans += 1;
        if span.end_unix_nanos.abs_diff(now_unix_nanos) > slack_nanos {
            accounted.outside_slack += 1;
            return;
        }
        let labels = labels(options, resource, &span);
        if options.count {
            registry.add("traces_spanmetrics_calls_total", &labels, 1.0, now_unix_nanos);
        }
        if options.latency {
            let name = "traces_spanmetrics_latency";
            registry.observe(name, &labels, &options.buckets_seconds, span.duration_seconds(), span.trace_id, now_unix_nanos);
        }
        if options.size {
            registry.add("traces_spanmetrics_size_total", &labels, span.size as f64, now_unix_nanos);
        }
    })?;
    accounted.spans += accounted.unreadable;
    Ok(accounted)
}

fn labels(options: &SpanMetricsOptions, resource: &Attributes<'_>, span: &MeasuredSpan<'_>) -> Labels {
    let mut labels = Labels::default();
    let number = |n: u64| usize::try_from(n).unwrap_or(usize::MAX);
    if options.service {
        labels.push("service", resource.get("service.name").map_or("", String::as_str));
    }
    if options.span_name {
        labels.push("span_name", &span.name);
    }
    if options.span_kind {
        labels.push("span_kind", KINDS.get(number(span.kind)).unwrap_or(&KINDS[0]));
    }
    if options.status_code {
        labels.push("status_code", STATUSES.get(number(span.status_code)).unwrap_or(&STATUSES[0]));
    }
    if options.status_message {
        labels.push("status_message", &span.status_message);
    }
    if !options.dimensions.is_empty() {
        // The walk has shown that the span is a message; attributes that cannot be read are absent.
        let own = attributes(span.bytes, 9).unwrap_or_default();
        for dimension in &options.dimensions {
            if let Some(value) = resource.get(dimension.as_str()).or_else(|| own.get(dimension.as_str())) {
                labels.push(&label_name(dimension), value);
            }
        }
    }
    labels
}

/// An attribute's key as a label: other characters than letters, digits and `_` become `_`; names of intrinsic labels get `__`.
fn label_name(key: &str) -> String {
    let name: String = key.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect();
    if INTRINSIC_LABELS.contains(&name.as_str()) || name.starts_with(|c: char| c.is_ascii_digit()) { format!("__{name}") } else { name }
}

#[cfg(test)]
mod tests {
    use super::*;
    use prost::Message;
    use vivace_testkit::{TraceBuilder, attribute};

    const NOW: u64 = 1_700_000_000_000_000_000;

    fn options() -> SpanMetricsOptions {
        SpanMetricsOptions {
            service: true,
            span_name: true,
            span_kind: true,
            status_code: true,
            status_message: false,
            dimensions: vec!["http.method".to_owned()],
            buckets_seconds: vec![0.002, 0.016, 0.1],
            count: true,
            latency: true,
            size: true,
        }
    }

    #[test]
    fn spans_become_calls_latency_and_size() {
        let trace = TraceBuilder::new(7, "shop", NOW).span("pay", &[attribute("http.method", "POST")]).span("store", &[]).failed("full");
        let mut registry = Registry::new(0, Vec::new());
        let accounted = observe(&options(), &mut registry, &trace.build().encode_to_vec(), NOW, 30_000_000_000).expect("valid");
        assert_eq!(accounted, Accounted { spans: 2, ..Accounted::default() });
        let series = registry.collect(NOW / 1_000_000);
        let value = |name: &str, span: &str, le: Option<&str>| {
            let has = |s: &vivace_proto::prometheus::TimeSeries, k: &str, v: &str| s.labels.iter().any(|l| l.name == k && l.value == v);
            let found = series.iter().find(|s| {
                has(s, "__name__", name) && has(s, "span_name", span) && has(s, "service", "shop") && le.is_none_or(|le| has(s, "le", le))
            });
            found.unwrap_or_else(|| panic!("no series {name} of {span}")).samples.last().expect("a sample").value
        };
        assert_eq!(value("traces_spanmetrics_calls_total", "pay", None), 1.0);
        assert_eq!(value("traces_spanmetrics_latency_bucket", "pay", Some("0.002")), 0.0);
        assert_eq!(value("traces_spanmetrics_latency_bucket", "pay", Some("0.016")), 1.0);
        assert_eq!(value("traces_spanmetrics_latency_bucket", "pay", Some("+Inf")), 1.0);
        assert_eq!(value("traces_spanmetrics_latency_sum", "store", None), 0.01);
        assert!(value("traces_spanmetrics_size_total", "store", None) > 40.0);
        let failed = |s: &&vivace_proto::prometheus::TimeSeries| s.labels.iter().any(|l| l.value == "STATUS_CODE_ERROR");
        assert!(series.iter().any(|s| failed(&s)));
        assert!(series.iter().any(|s| s.labels.iter().any(|l| l.name == "http_method" && l.value == "POST")));
    }

    #[test]
    fn spans_far_from_now_are_left_out() {
        let trace = TraceBuilder::new(7, "shop", NOW - 60_000_000_000).span("pay", &[]);
        let mut registry = Registry::new(0, Vec::new());
        let accounted = observe(&options(), &mut registry, &trace.build().encode_to_vec(), NOW, 30_000_000_000).expect("valid");
        assert_eq!(accounted, Accounted { spans: 1, outside_slack: 1, unreadable: 0 });
        assert!(registry.collect(NOW / 1_000_000).is_empty());
    }

    #[test]
    fn text_that_is_no_utf8_is_mended_and_a_broken_span_is_left_out_alone() {
        let trace =
            TraceBuilder::new(7, "shop", NOW).span("p??", &[]).span("broken", &[attribute("a", "b")]).span("good", &[]).failed("full");
        let mut bytes = trace.build().encode_to_vec();
        let at = |bytes: &[u8], text: &[u8]| bytes.windows(text.len()).position(|window| window == text).expect("there");
        let name = at(&bytes, b"p??");
        bytes[name + 1..name + 3].fill(0xff);
        // The attribute's value is longer than the attribute.
        let value = at(&bytes, &[0x12, 3, 0x0a, 1, b'b']);
        bytes[value + 1] = 0x7f;
        let mut registry = Registry::new(0, Vec::new());
        let accounted = observe(&options(), &mut registry, &bytes, NOW, 30_000_000_000).expect("still a message");
        let series = registry.collect(NOW / 1_000_000);
        let names: std::collections::BTreeSet<&str> =
            series.iter().flat_map(|s| &s.labels).filter(|label| label.name == "span_name").map(|label| label.value.as_str()).collect();
        assert_eq!(names.into_iter().collect::<Vec<_>>(), ["broken", "good", "p\u{fffd}\u{fffd}"], "an attribute that is not asked for");
        assert_eq!(accounted, Accounted { spans: 3, ..Accounted::default() });

        let status = at(&bytes, &[0x12, 4, b'f', b'u', b'l', b'l']);
        bytes[status + 1] = 0x7f;
        let accounted = observe(&options(), &mut registry, &bytes, NOW, 30_000_000_000).expect("still a message");
        assert_eq!(accounted, Accounted { spans: 3, outside_slack: 0, unreadable: 1 });
    }

    #[test]
    fn dimensions_cannot_hide_intrinsic_labels() {
        assert_eq!(label_name("k8s.pod/name"), "k8s_pod_name");
        assert_eq!(label_name("service"), "__service");
    }
}
