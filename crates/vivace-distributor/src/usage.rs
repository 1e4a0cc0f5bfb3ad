//! Cost attribution: whose bytes they are, by attributes that each tenant names. Read at `/usage_metrics`, apart from the process'
//! own metrics, since the labels are the tenants'. Source: docs/facts/components.md, "Cost attribution".

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use rustc_hash::FxHashMap;
use tokio::time::Instant;
use vivace_config::{CostAttribution, CostAttributionLimits, set_or};
use vivace_core::TenantId;
use vivace_core::otlp::walk_spans;
use vivace_core::wire::{Reader, Value, WireError};

use crate::metrics::USAGE_ERRORS;

/// The one series, and what is said for spans that lack an attribute, and once there are too many series.
const NAME: &str = "tempo_usage_tracker_bytes_received_total";
const TRACKER: &str = "cost-attribution";
const MISSING: &str = "__missing__";
const OVERFLOW: &str = "__overflow__";
/// How often series are looked through for quiet ones.
const SWEEP_EVERY: Duration = Duration::from_secs(60);
/// Fields of OTLP messages that list attributes.
const RESOURCE_ATTRIBUTES: u32 = 1;
const SPAN_ATTRIBUTES: u32 = 9;

/// What tenants have sent, by the attributes that they name.
#[derive(Debug)]
pub(crate) struct Usage {
    /// Series of a tenant whose own limit is 0.
    series_max: usize,
    stale: Duration,
    tenants: Mutex<FxHashMap<TenantId, TenantUsage>>,
}

#[derive(Debug)]
struct TenantUsage {
    /// As configured, to see that it has changed.
    configured: BTreeMap<String, String>,
    labels: Arc<[Label]>,
    series: FxHashMap<Vec<String>, Series>,
    swept: Instant,
}

/// A label, and the attributes that it may come from, in their order.
#[derive(Debug, PartialEq, Eq)]
struct Label {
    name: String,
    of: Vec<Attribute>,
}

#[derive(Debug, PartialEq, Eq)]
struct Attribute {
    scope: Scope,
    key: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Scope {
    Span,
    Resource,
    /// The span's, or else the resource's.
    Either,
}

#[derive(Debug)]
struct Series {
    bytes: u64,
    seen: Instant,
}

impl Usage {
    pub(crate) fn new(config: &CostAttribution) -> Self {
        Self { series_max: config.max_cardinality, stale: config.stale_duration, tenants: Mutex::default() }
    }

    /// Counts a request, a serialised `ExportTraceServiceRequest`, where the tenant names attributes. What cannot be read is not
    /// counted; it is refused elsewhere.
    pub(crate) fn count(&self, tenant: &TenantId, limits: &CostAttributionLimits, body: &[u8], now: Instant) {
        if limits.dimensions.is_empty() {
            self.tenants.lock().remove(tenant);
            return;
        }
        let labels = self.labels(tenant, limits, now);
        let Ok(counted) = bytes_by_values(body, &labels) else { return };
        let series_max = set_or(limits.max_cardinality, self.series_max);
        let mut tenants = self.tenants.lock();
        // Other labels by now: these values are none of theirs.
        let Some(usage) = tenants.get_mut(tenant).filter(|usage| usage.labels == labels) else { return };
        usage.sweep(self.stale, now);
        for (values, bytes) in counted {
            usage.add(values, bytes, series_max, now);
        }
    }

    /// The labels of a tenant, made anew where its limits have changed. The lock is not held while a request is read.
    fn labels(&self, tenant: &TenantId, limits: &CostAttributionLimits, now: Instant) -> Arc<[Label]> {
        let mut tenants = self.tenants.lock();
        match tenants.get_mut(tenant) {
            Some(usage) if usage.configured == limits.dimensions => usage.labels.clone(),
            _ => {
                let usage = TenantUsage::new(limits, now);
                let labels = usage.labels.clone();
                tenants.insert(tenant.clone(), usage);
                labels
            }
        }
    }

    /// All series in the text format of Prometheus.
    pub(crate) fn render(&self, now: Instant) -> String {
        let mut out = format!("# HELP {NAME} Bytes received, by attributes that the tenant names.\n# TYPE {NAME} counter\n");
        let mut tenants = self.tenants.lock();
        for (tenant, usage) in tenants.iter_mut() {
            usage.sweep(self.stale, now);
            if let Some(bad) = usage.labels.iter().find(|label| !CostAttributionLimits::is_label(&label.name)) {
                tracing::warn!(%tenant, label = bad.name, "cost_attribution.dimensions has a label that is none; its series are left out");
                metrics::counter!(USAGE_ERRORS.name, "tenant" => tenant.to_string(), "reason" => "invalid_labels_in_collect").increment(1);
                continue;
            }
            for (values, series) in &usage.series {
                out.push_str(NAME);
                out.push('{');
                for (label, value) in usage.labels.iter().zip(values) {
                    // Writing to a string does not fail.
                    let _ = write!(out, "{}=\"{}\",", label.name, escape(value));
                }
                let _ = writeln!(out, "tenant=\"{}\",tracker=\"{TRACKER}\"}} {}", escape(&tenant.to_string()), series.bytes);
            }
        }
        out
    }
}

impl TenantUsage {
    fn new(limits: &CostAttributionLimits, now: Instant) -> Self {
        Self { configured: limits.dimensions.clone(), labels: labels(&limits.dimensions).into(), series: FxHashMap::default(), swept: now }
    }

    fn add(&mut self, values: Vec<String>, bytes: u64, series_max: usize, now: Instant) {
        let is_full = self.series.len() >= series_max && !self.series.contains_key(&values);
        let values = if is_full { vec![OVERFLOW.to_owned(); values.len()] } else { values };
        let series = self.series.entry(values).or_insert(Series { bytes: 0, seen: now });
        series.bytes += bytes;
        series.seen = now;
    }

    fn sweep(&mut self, stale: Duration, now: Instant) {
        if now.duration_since(self.swept) >= SWEEP_EVERY {
            self.swept = now;
            self.series.retain(|_, series| now.duration_since(series.seen) < stale);
        }
    }
}

/// Several attributes of one label stand for each other: the first that a span has counts.
fn labels(dimensions: &BTreeMap<String, String>) -> Vec<Label> {
    let mut labels: Vec<Label> = Vec::new();
    for (attribute, label) in dimensions {
        let (scope, key) = match attribute.split_once('.') {
            Some(("resource", key)) => (Scope::Resource, key),
            Some(("span", key)) => (Scope::Span, key),
            _ => (Scope::Either, attribute.as_str()),
        };
        let name = if label.is_empty() { sanitized(attribute) } else { label.clone() };
        let attribute = Attribute { scope, key: key.to_owned() };
        match labels.iter_mut().find(|known| known.name == name) {
            Some(known) => known.of.push(attribute),
            None => labels.push(Label { name, of: vec![attribute] }),
        }
    }
    labels
}

/// An attribute's name as a label's.
fn sanitized(attribute: &str) -> String {
    let mut label: String = attribute.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect();
    if label.starts_with(|c: char| c.is_ascii_digit()) {
        label.insert(0, '_');
    }
    label
}

fn escape(value: &str) -> String {
    value.replace('\\', r"\\").replace('"', "\\\"").replace('\n', r"\n")
}

/// The bytes of a request by values of these labels. What belongs to no span, such as resources, is shared by the spans beneath, the
/// first of them takes what is left over: so the sum is the size of the request.
fn bytes_by_values(body: &[u8], labels: &[Label]) -> Result<FxHashMap<Vec<String>, u64>, WireError> {
    let mut counted: FxHashMap<Vec<String>, u64> = FxHashMap::default();
    for resource_spans in fields(body)? {
        let mut spans: Vec<(Vec<String>, u64)> = Vec::new();
        let mut failure = None;
        walk_spans(resource_spans, |at, span| match values(labels, at.resource, span.bytes) {
            Ok(values) => spans.push((values, span.bytes.len() as u64)),
            Err(error) => failure = Some(error),
        })?;
        if let Some(error) = failure {
            return Err(error);
        }
        let count = spans.len() as u64;
        let shared = resource_spans.len() as u64 - spans.iter().map(|(_, bytes)| bytes).sum::<u64>();
        for (index, (values, bytes)) in spans.into_iter().enumerate() {
            let rest = if index == 0 { shared % count } else { 0 };
            *counted.entry(values).or_default() += bytes + shared / count + rest;
        }
    }
    Ok(counted)
}

/// Each field with its key: a message of one field.
fn fields(message: &[u8]) -> Result<Vec<&[u8]>, WireError> {
    let mut starts = Vec::new();
    let mut reader = Reader::new(message);
    while reader.next_field()?.is_some() {
        starts.push(reader.field_start());
    }
    let ends = starts.iter().skip(1).copied().chain([message.len()]);
    Ok(starts.iter().zip(ends).map(|(start, end)| &message[*start..end]).collect())
}

fn values(labels: &[Label], resource: &[u8], span: &[u8]) -> Result<Vec<String>, WireError> {
    let of_span = |key: &str| text(span, SPAN_ATTRIBUTES, key);
    let of_resource = |key: &str| text(resource, RESOURCE_ATTRIBUTES, key);
    let value = |attribute: &Attribute| match attribute.scope {
        Scope::Span => of_span(&attribute.key),
        Scope::Resource => of_resource(&attribute.key),
        Scope::Either => Ok(of_span(&attribute.key)?.or(of_resource(&attribute.key)?)),
    };
    let first = |label: &Label| label.of.iter().map(value).find_map(Result::transpose).transpose();
    labels.iter().map(|label| Ok(first(label)?.unwrap_or_else(|| MISSING.to_owned()))).collect()
}

/// The attribute of a message that lists them in field `number`, if it is a text. The first of equal keys counts.
fn text(message: &[u8], number: u32, key: &str) -> Result<Option<String>, WireError> {
    let mut reader = Reader::new(message);
    while let Some((field, value)) = reader.next_field()? {
        let (true, Value::Bytes(attribute)) = (field == number, value) else { continue };
        let (mut is_this, mut found) = (false, None);
        let mut parts = Reader::new(attribute);
        while let Some((field, value)) = parts.next_field()? {
            match (field, value) {
                (1, Value::Bytes(name)) => is_this = name == key.as_bytes(),
                (2, Value::Bytes(any)) => {
                    if let Some((1, Value::Bytes(text))) = Reader::new(any).next_field()? {
                        found = Some(String::from_utf8_lossy(text).into_owned());
                    }
                }
                _ => {}
            }
        }
        if is_this {
            return Ok(found);
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use prost::Message;
    use vivace_proto::otlp::{AnyValue, KeyValue, Resource, ResourceSpans, ScopeSpans, Span, TracesData, any_value};

    use super::*;

    fn attribute(key: &str, text: &str) -> KeyValue {
        let value = Some(AnyValue { value: Some(any_value::Value::StringValue(text.to_owned())) });
        KeyValue { key: key.to_owned(), value }
    }

    /// Two teams; three spans of the first, one of them of another team by an attribute of its own.
    fn body() -> Vec<u8> {
        let span = |attributes| Span { trace_id: vec![1; 16].into(), span_id: vec![1; 8].into(), attributes, ..Default::default() };
        let of = |team: Vec<KeyValue>, spans| ResourceSpans {
            resource: Some(Resource { attributes: team, ..Default::default() }),
            scope_spans: vec![ScopeSpans { spans, ..Default::default() }],
            ..Default::default()
        };
        let own = vec![attribute("team.name", "own\"\n")];
        let resource_spans =
            vec![of(vec![attribute("team.name", "one")], vec![span(vec![]), span(vec![]), span(own)]), of(vec![], vec![span(vec![])])];
        TracesData { resource_spans }.encode_to_vec()
    }

    fn limits(dimensions: &[(&str, &str)], max_cardinality: usize) -> CostAttributionLimits {
        let dimensions = dimensions.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        CostAttributionLimits { dimensions, max_cardinality }
    }

    /// Series and bytes of the page, sorted.
    fn page(usage: &Usage, now: Instant) -> Vec<(String, u64)> {
        let mut lines: Vec<_> = usage
            .render(now)
            .lines()
            .filter_map(|line| line.strip_prefix(NAME)?.rsplit_once(' '))
            .map(|(labels, bytes)| (labels.to_owned(), bytes.parse().unwrap()))
            .collect();
        lines.sort();
        lines
    }

    #[test]
    fn bytes_are_counted_by_attributes_and_none_twice() {
        let (usage, now, tenant) = (Usage::new(&CostAttribution::default()), Instant::now(), TenantId::new("t").unwrap());
        usage.count(&tenant, &limits(&[("team.name", "")], 0), &body(), now);
        let lines = page(&usage, now);
        let labels: Vec<&str> = lines.iter().map(|(labels, _)| labels.as_str()).collect();
        let rest = "tenant=\"t\",tracker=\"cost-attribution\"}";
        assert_eq!(
            labels,
            [
                format!("{{team_name=\"__missing__\",{rest}"),
                format!("{{team_name=\"one\",{rest}"),
                format!("{{team_name=\"own\\\"\\n\",{rest}")
            ]
        );
        assert_eq!(lines.iter().map(|(_, bytes)| bytes).sum::<u64>(), body().len() as u64);
    }

    #[test]
    fn scopes_choose_and_one_label_has_several_attributes() {
        let (usage, now, tenant) = (Usage::new(&CostAttribution::default()), Instant::now(), TenantId::new("t").unwrap());
        usage.count(&tenant, &limits(&[("resource.team.name", "team")], 0), &body(), now);
        assert_eq!(page(&usage, now).len(), 2, "the span's own does not count");
        usage.count(&tenant, &limits(&[("span.team.name", "team"), ("resource.none", "team")], 0), &body(), now);
        let lines = page(&usage, now);
        assert_eq!(lines.len(), 2, "and after a change of the dimensions counting begins anew");
        assert!(lines.iter().any(|(labels, _)| labels.contains("own")), "{lines:?}");
    }

    #[test]
    fn series_are_bounded_and_quiet_ones_go() {
        let config = CostAttribution { max_cardinality: 1, ..CostAttribution::default() };
        let (usage, now, tenant) = (Usage::new(&config), Instant::now(), TenantId::new("t").unwrap());
        let limits = limits(&[("team.name", "team")], 0);
        usage.count(&tenant, &limits, &body(), now);
        let lines = page(&usage, now);
        assert_eq!(lines.len(), 2, "{lines:?}");
        assert!(lines.iter().any(|(labels, _)| labels.contains(OVERFLOW)));
        assert_eq!(lines.iter().map(|(_, bytes)| bytes).sum::<u64>(), body().len() as u64);
        assert_eq!(page(&usage, now + config.stale_duration), []);
    }

    #[test]
    fn labels_that_are_none_are_left_out() {
        let (usage, now, tenant) = (Usage::new(&CostAttribution::default()), Instant::now(), TenantId::new("t").unwrap());
        for bad in ["a-b", "tenant", "1a", "__a"] {
            usage.count(&tenant, &limits(&[("team.name", bad)], 0), &body(), now);
            assert_eq!(page(&usage, now), [], "{bad}");
        }
    }
}
