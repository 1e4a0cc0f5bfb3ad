//! `/api/metrics`: latencies, calls and errors of services over time, for the monitoring page of Jaeger's UI.
//! Source: docs/facts/clients.md, "Jaeger's monitoring page".
//!
//! With a Prometheus, the span metrics of the metrics-generators are asked; without one, the spans themselves, by TraceQL metrics.

use std::collections::BTreeMap;
use std::time::Duration;

use axum::extract::{Path, State};
use axum::response::Response;
use http::StatusCode;
use serde::{Serialize, Serializer};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use vivace_core::TenantId;
use vivace_proto::otlp::any_value::Value;
use vivace_proto::tempopb::{QueryRangeRequest, TimeSeries};
use vivace_traceql::{Kind, Status};

use super::JaegerApi;
use super::error::V1Error;
use super::request::{self, looking_back, millis};
use super::v1_json::Envelope;
use crate::asked::Asked;
use crate::attribute_json::value_of;
use crate::conditions::{Conditions, kind_is, service_name, status_is, text_is};
use crate::error::QueryError;
use crate::metrics::Op;
use crate::metrics_query::MetricsQuery;
use crate::params::Params;
use crate::refusal::Refusal;

const LOOK_BACK: Duration = Duration::from_secs(3600);
/// Milliseconds between points, and of a rate.
const STEP: u64 = 5_000;
const RATE_PER: u64 = 600_000;
/// Least milliseconds between points.
const MIN_STEP: u64 = 1_000;

/// What is asked.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Measure {
    /// Milliseconds of a share of the spans, 0 to 1.
    Latencies {
        /// The share.
        quantile: f64,
    },
    /// A second.
    Calls,
    /// Of calls, 0 to 1.
    Errors,
}

/// Of which spans, over which time.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Question {
    pub(crate) measure: Measure,
    pub(crate) services: Vec<String>,
    /// Empty: any.
    pub(crate) kinds: Vec<Kind>,
    pub(crate) by_operation: bool,
    /// Unix milliseconds.
    pub(crate) start: u64,
    pub(crate) end: u64,
    /// Milliseconds.
    pub(crate) step: u64,
    pub(crate) rate_per: u64,
}

/// A service, and its operation where they are told apart.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Labels {
    pub(crate) service: String,
    pub(crate) operation: Option<String>,
}

/// Points by their Unix milliseconds.
pub(crate) type Points = BTreeMap<i64, f64>;

pub(crate) async fn metrics(State(jaeger): State<JaegerApi>, Path(kind): Path<String>, asked: Asked) -> Result<Response, V1Error> {
    let tenants = asked.tenants()?;
    if kind == "minstep" {
        return Ok(asked.answer(&jaeger.api, Envelope::of(MIN_STEP, 0), &[]).await?);
    }
    let question = Question::of(&kind, &asked.params, jaeger.api.frontend.now())?;
    let series = match &jaeger.prometheus {
        Some(prometheus) => prometheus.ask(&question, tenants, &jaeger.api).await?,
        None => jaeger.count(&question, tenants).await?,
    };
    Ok(asked.answer(&jaeger.api, Family::of(&question, series), &[]).await?)
}

impl Question {
    fn of(kind: &str, params: &Params, now: u64) -> Result<Self, Refusal> {
        let invalid = |message: String| Refusal::from(QueryError::Invalid(message));
        let measure = match kind {
            "latencies" => {
                let text = params.get("quantile").ok_or_else(|| invalid("parameter 'quantile' is required".to_owned()))?;
                let quantile = text.parse().ok().filter(|quantile| (0.0..=1.0).contains(quantile));
                Measure::Latencies {
                    quantile: quantile
                        .ok_or_else(|| invalid(format!("unable to parse param 'quantile': {text:?} is no number from 0 to 1")))?,
                }
            }
            "calls" => Measure::Calls,
            "errors" => Measure::Errors,
            other => {
                return Err(Refusal::new(
                    StatusCode::NOT_FOUND,
                    format!("no metrics {other:?}: there are latencies, calls, errors and minstep"),
                ));
            }
        };
        // The UI joins several with a comma before the next name.
        let services: Vec<String> = params.all("service").flat_map(|text| text.split(",service=")).map(str::to_owned).collect();
        if services.is_empty() {
            return Err(invalid("please provide at least one service name".to_owned()));
        }
        let kinds = params.all("spanKind").map(|text| request::kind(text).map(|kind| kind.map(|(_, kind)| kind)));
        let mut kinds: Vec<Kind> = kinds.filter_map(Result::transpose).collect::<Result<_, _>>()?;
        if kinds.is_empty() {
            kinds.push(Kind::Server);
        }
        let in_millis = |name: &str, default: u64| -> Result<u64, QueryError> {
            let given = millis(params, name)?.map(|nanos| nanos / 1_000_000);
            match given {
                Some(0) => Err(QueryError::Invalid(format!("unable to parse param '{name}': must be a positive number"))),
                given => Ok(given.unwrap_or(default)),
            }
        };
        let (start, end) = looking_back(params, now, LOOK_BACK)?;
        Ok(Self {
            measure,
            services,
            kinds,
            by_operation: params.get("groupByOperation") == Some("true"),
            start: start / 1_000_000,
            end: end / 1_000_000,
            step: in_millis("step", STEP)?.max(MIN_STEP),
            rate_per: in_millis("ratePer", RATE_PER)?,
        })
    }

    /// The query that counts the spans themselves; `errors_only`: those of them that failed.
    fn traceql(&self, errors_only: bool) -> String {
        let mut conditions = Conditions::default();
        conditions.any_of(&self.services.iter().map(|service| text_is(&service_name(), service)).collect::<Vec<_>>());
        conditions.any_of(&self.kinds.iter().map(|kind| kind_is(*kind)).collect::<Vec<_>>());
        if errors_only {
            conditions.any_of(&[status_is(Status::Error)]);
        }
        let counted = match self.measure {
            Measure::Latencies { quantile } => format!("quantile_over_time(duration, {quantile:?})"),
            Measure::Calls | Measure::Errors => "rate()".to_owned(),
        };
        let by = if self.by_operation { "resource.service.name, name" } else { "resource.service.name" };
        format!("{} | {counted} by({by})", conditions.filter())
    }
}

impl JaegerApi {
    /// By TraceQL metrics: a point is of the step before it, whatever `ratePer` says.
    async fn count(&self, question: &Question, tenants: &[TenantId]) -> Result<BTreeMap<Labels, Points>, Refusal> {
        let all = self.series(question, question.traceql(false), tenants).await?;
        match question.measure {
            Measure::Calls => Ok(all),
            Measure::Latencies { .. } => Ok(all.into_iter().map(|(labels, points)| (labels, in_millis(points))).collect()),
            Measure::Errors => {
                let failed = self.series(question, question.traceql(true), tenants).await?;
                Ok(all.into_iter().map(|(labels, calls)| share(labels, &calls, &failed)).collect())
            }
        }
    }

    async fn series(&self, question: &Question, query: String, tenants: &[TenantId]) -> Result<BTreeMap<Labels, Points>, Refusal> {
        let (api, nanos) = (&self.api, |millis: u64| millis.saturating_mul(1_000_000));
        let request = QueryRangeRequest {
            query,
            start: nanos(question.start),
            end: nanos(question.end),
            step: nanos(question.step),
            ..Default::default()
        };
        let query = async {
            let query = MetricsQuery::range_message(request, api.frontend.now())?;
            let mut series = api.frontend.series(tenants, query)?;
            while series.step().await? {}
            Ok((series.result.inspected_bytes(), series.result.counted().await?))
        };
        let (_, counted) = api.timed(tenants, Op::Metrics, |(inspected, _): &(u64, _)| *inspected, query).await?;
        let (answer, _held) = counted.into_range();
        Ok(answer.series.iter().map(|series| (labels(series, question.by_operation), points(series))).collect())
    }
}

fn labels(series: &TimeSeries, by_operation: bool) -> Labels {
    let text = |key: &str| {
        let label = series.labels.iter().find(|label| label.key == key)?;
        match value_of(label) {
            Some(Value::StringValue(text)) => Some(text.clone()),
            _ => None,
        }
    };
    Labels { service: text("resource.service.name").unwrap_or_default(), operation: by_operation.then(|| text("name").unwrap_or_default()) }
}

fn points(series: &TimeSeries) -> Points {
    series.samples.iter().map(|sample| (sample.timestamp_ms, sample.value)).collect()
}

/// Of latencies in seconds. Where there were no calls there is no point.
fn in_millis(points: Points) -> Points {
    points.into_iter().filter(|(_, seconds)| *seconds > 0.0).map(|(time, seconds)| (time, seconds * 1000.0)).collect()
}

/// The share of failed calls. Where there were no calls there is no point.
fn share(labels: Labels, calls: &Points, failed: &BTreeMap<Labels, Points>) -> (Labels, Points) {
    let failed = failed.get(&labels);
    let of = |(time, calls): (&i64, &f64)| {
        let failed = failed.and_then(|points| points.get(time)).copied().unwrap_or(0.0);
        (*time, failed / calls)
    };
    let points = calls.iter().filter(|(_, calls)| **calls > 0.0).map(of).collect();
    (labels, points)
}

/// What the UI reads.
#[derive(Debug, Serialize)]
pub(crate) struct Family {
    name: &'static str,
    #[serde(rename = "type")]
    kind: &'static str,
    help: String,
    metrics: Vec<Metric>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Metric {
    labels: Vec<Label>,
    metric_points: Vec<Point>,
}

#[derive(Debug, Serialize)]
struct Label {
    name: &'static str,
    value: String,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Point {
    gauge_value: Gauge,
    timestamp: String,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Gauge {
    #[serde(serialize_with = "number")]
    double_value: f64,
}

/// What is no number is a text, which the UI shows as a gap.
#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
fn number<S: Serializer>(value: &f64, to: S) -> Result<S::Ok, S::Error> {
    if value.is_finite() { to.serialize_f64(*value) } else { to.serialize_str(&value.to_string()) }
}

impl Family {
    fn of(question: &Question, series: BTreeMap<Labels, Points>) -> Self {
        let (name, what) = match (question.measure, question.by_operation) {
            (Measure::Latencies { .. }, false) => ("service_latencies", "latency in milliseconds"),
            (Measure::Latencies { .. }, true) => ("service_operation_latencies", "latency in milliseconds"),
            (Measure::Calls, false) => ("service_call_rate", "calls/sec"),
            (Measure::Calls, true) => ("service_operation_call_rate", "calls/sec"),
            (Measure::Errors, false) => ("service_error_rate", "error rate, computed as a fraction of errors/sec over calls/sec"),
            (Measure::Errors, true) => ("service_operation_error_rate", "error rate, computed as a fraction of errors/sec over calls/sec"),
        };
        let of = match question.measure {
            Measure::Latencies { quantile } => format!("{quantile}th quantile "),
            Measure::Calls | Measure::Errors => String::new(),
        };
        let by = if question.by_operation { "service & operation" } else { "service" };
        Self { name, kind: "GAUGE", help: format!("{of}{what}, grouped by {by}"), metrics: series.into_iter().map(Metric::of).collect() }
    }
}

impl Metric {
    fn of((labels, points): (Labels, Points)) -> Self {
        let operation = labels.operation.map(|value| Label { name: "operation", value });
        // The UI takes the first label for the service.
        let service = Label { name: "service_name", value: labels.service };
        let point = |(millis, value)| {
            let time = OffsetDateTime::from_unix_timestamp_nanos(i128::from(millis) * 1_000_000).ok()?;
            Some(Point { gauge_value: Gauge { double_value: value }, timestamp: time.format(&Rfc3339).ok()? })
        };
        Self { labels: std::iter::once(service).chain(operation).collect(), metric_points: points.into_iter().filter_map(point).collect() }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const NOW: u64 = 1_700_000_000_000_000_000;

    fn question(kind: &str, query: &str) -> Result<Question, Refusal> {
        Question::of(kind, &Params::of(Some(query)), NOW)
    }

    /// Source: docs/facts/clients.md, "Jaeger's monitoring page".
    #[test]
    fn what_the_ui_asks_becomes_a_query() {
        let asked = question(
            "latencies",
            "service=a,service=b%60&quantile=0.95&groupByOperation=true&endTs=1700000000000&lookback=3600000&step=60000&ratePer=600000\
             &spanKind=server&spanKind=SPAN_KIND_CLIENT",
        )
        .unwrap();
        assert_eq!((asked.end - asked.start, asked.step, asked.rate_per), (3_600_000, 60_000, 600_000));
        assert_eq!(
            asked.traceql(false),
            "{ (resource.service.name = `a` || resource.service.name = \"b`\") && (kind = server || kind = client) } | \
             quantile_over_time(duration, 0.95) by(resource.service.name, name)"
        );
        let calls = question("errors", "service=a").unwrap();
        assert_eq!(
            calls.traceql(true),
            "{ resource.service.name = `a` && kind = server && status = error } | rate() by(resource.service.name)"
        );
        for (kind, query, said) in [
            ("latencies", "service=a", "parameter 'quantile' is required"),
            ("latencies", "service=a&quantile=2", "unable to parse param 'quantile': \"2\" is no number from 0 to 1"),
            ("calls", "", "please provide at least one service name"),
            ("calls", "service=a&step=0", "unable to parse param 'step': must be a positive number"),
            ("calls", "service=a&spanKind=x", "unknown span kind \"x\""),
        ] {
            let refusal = question(kind, query).unwrap_err();
            assert_eq!((refusal.status, refusal.message.as_str()), (StatusCode::BAD_REQUEST, said));
        }
        assert_eq!(question("x", "service=a").unwrap_err().status, StatusCode::NOT_FOUND);
    }

    #[test]
    fn shares_are_of_all_calls() {
        let labels = Labels { service: "a".to_owned(), operation: None };
        let failed = BTreeMap::from([(labels.clone(), Points::from([(1, 1.0)]))]);
        let (_, points) = share(labels, &Points::from([(0, 3.0), (1, 4.0), (2, 0.0)]), &failed);
        assert_eq!(points, Points::from([(0, 0.0), (1, 0.25)]), "none where nobody called");
    }

    #[test]
    fn a_family_is_what_the_ui_reads() {
        let asked = question("calls", "service=a&groupByOperation=true").unwrap();
        let labels = Labels { service: "a".to_owned(), operation: Some("GET /".to_owned()) };
        let family =
            Family::of(&asked, BTreeMap::from([(labels, Points::from([(1_700_000_000_500, 1.5), (1_700_000_001_000, f64::NAN)]))]));
        let want = json!({
            "name": "service_operation_call_rate", "type": "GAUGE", "help": "calls/sec, grouped by service & operation",
            "metrics": [{
                "labels": [{"name": "service_name", "value": "a"}, {"name": "operation", "value": "GET /"}],
                "metricPoints": [
                    {"gaugeValue": {"doubleValue": 1.5}, "timestamp": "2023-11-14T22:13:20.5Z"},
                    {"gaugeValue": {"doubleValue": "NaN"}, "timestamp": "2023-11-14T22:13:21Z"},
                ],
            }],
        });
        assert_eq!(serde_json::to_value(family).unwrap(), want);
    }
}
