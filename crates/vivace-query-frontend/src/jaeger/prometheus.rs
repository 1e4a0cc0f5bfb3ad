//! The span metrics of the metrics-generators, asked of the Prometheus they are written to.
//! Source: docs/facts/components.md, "Span metrics".

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Context as _;
use serde::Deserialize;
use serde_json::Value as Json;
use vivace_config::SecretUrl;
use vivace_core::TenantId;
use vivace_core::budget::Account;
use vivace_server::tenant;

use super::monitor::{Labels, Measure, Points, Question};
use crate::error::QueryError;
use crate::http::QueryApi;
use vivace_traceql::Kind;

/// Longest wait for an answer.
const TIMEOUT: Duration = Duration::from_secs(30);
/// Largest answer, bytes.
const ANSWER_BYTES: usize = 16 << 20;

/// A Prometheus, by its address.
#[derive(Clone)]
pub(crate) struct Prometheus {
    url: SecretUrl,
    client: reqwest::Client,
}

#[derive(Deserialize)]
struct Answer {
    data: Data,
}

#[derive(Deserialize)]
struct Data {
    result: Vec<Series>,
}

#[derive(Deserialize)]
struct Series {
    metric: BTreeMap<String, String>,
    /// Unix seconds, and a number as text.
    values: Vec<(f64, String)>,
}

impl Prometheus {
    pub(crate) fn new(url: &SecretUrl) -> anyhow::Result<Self> {
        // There may be one already, of another part of the process.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let client = reqwest::Client::builder()
            .timeout(TIMEOUT)
            .build()
            .context("cannot set up the client for query_frontend.jaeger.prometheus_url")?;
        Ok(Self { url: url.clone(), client })
    }

    /// # Errors
    /// Prometheus does not answer, or not with series.
    pub(crate) async fn ask(
        &self,
        question: &Question,
        tenants: &[TenantId],
        api: &QueryApi,
    ) -> Result<BTreeMap<Labels, Points>, QueryError> {
        let url = format!("{}/api/v1/query_range", self.url.expose().trim_end_matches('/'));
        let seconds = |millis: u64| format!("{}.{:03}", millis / 1000, millis % 1000);
        let parameters = [
            ("query", promql(question)),
            ("start", seconds(question.start)),
            ("end", seconds(question.end)),
            ("step", seconds(question.step)),
        ];
        let mut request = self.client.get(url).query(&parameters);
        if api.tenancy.multitenancy {
            let names = tenants.iter().map(TenantId::as_str).collect::<Vec<_>>().join("|");
            request = request.header(tenant::HEADER, names);
        }
        // Its text may have the address with the password.
        let unreachable = |error: reqwest::Error| QueryError::Unavailable(format!("Prometheus does not answer: {}", error.without_url()));
        let mut response = request.send().await.map_err(unreachable)?;
        let status = response.status();
        let (mut body, mut held) = (Vec::new(), api.frontend.budget.open(Account::Queries));
        while let Some(chunk) = response.chunk().await.map_err(unreachable)? {
            if body.len() + chunk.len() > ANSWER_BYTES {
                return Err(QueryError::TooLarge(format!(
                    "Prometheus answers with more than {ANSWER_BYTES} bytes: ask for less time or a longer step"
                )));
            }
            held.grow(chunk.len() as u64)?;
            body.extend_from_slice(&chunk);
        }
        if !status.is_success() {
            let said = serde_json::from_slice::<Json>(&body).ok().and_then(|json| Some(json.get("error")?.as_str()?.to_owned()));
            return Err(QueryError::Unavailable(format!("Prometheus answers {status}: {}", said.unwrap_or_default())));
        }
        let answer: Answer = serde_json::from_slice(&body)
            .map_err(|error| QueryError::Unavailable(format!("Prometheus' answer makes no sense: {error}")))?;
        Ok(answer.data.result.into_iter().map(|series| of_series(series, question.by_operation)).collect())
    }
}

fn of_series(mut series: Series, by_operation: bool) -> (Labels, Points) {
    let mut label = |name: &str| series.metric.remove(name).unwrap_or_default();
    let labels = Labels { service: label("service"), operation: by_operation.then(|| label("span_name")) };
    let points = series.values.into_iter().filter_map(|(time, value)| Some(((time * 1000.0) as i64, value.parse().ok()?)));
    (labels, points.collect())
}

/// The question in Prometheus' language.
fn promql(question: &Question) -> String {
    let quoted = |text: &str| Json::from(text).to_string();
    let services: Vec<String> = question.services.iter().map(|service| regex::escape(service)).collect();
    let kinds: Vec<&str> = question.kinds.iter().map(|kind| label_of(*kind)).collect();
    let matchers = format!("service=~{},span_kind=~{}", quoted(&services.join("|")), quoted(&kinds.join("|")));
    let by = if question.by_operation { "service, span_name" } else { "service" };
    let per = format!("{}ms", question.rate_per);
    let rate = |more: &str| format!("sum by ({by}) (rate(traces_spanmetrics_calls_total{{{matchers}{more}}}[{per}]))");
    match question.measure {
        Measure::Calls => rate(""),
        // Without a single failure there is no series of failures.
        Measure::Errors => format!("({} or {} * 0) / {}", rate(",status_code=\"STATUS_CODE_ERROR\""), rate(""), rate("")),
        Measure::Latencies { quantile } => format!(
            "histogram_quantile({quantile}, sum by ({by}, le) (rate(traces_spanmetrics_latency_bucket{{{matchers}}}[{per}]))) * 1000"
        ),
    }
}

fn label_of(kind: Kind) -> &'static str {
    match kind {
        Kind::Unspecified => "SPAN_KIND_UNSPECIFIED",
        Kind::Internal => "SPAN_KIND_INTERNAL",
        Kind::Server => "SPAN_KIND_SERVER",
        Kind::Client => "SPAN_KIND_CLIENT",
        Kind::Producer => "SPAN_KIND_PRODUCER",
        Kind::Consumer => "SPAN_KIND_CONSUMER",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn questions_in_promql() {
        let question = |measure, by_operation| Question {
            measure,
            services: vec!["a.b".to_owned(), "\"} or vector(1) #".to_owned()],
            kinds: vec![Kind::Server],
            by_operation,
            start: 0,
            end: 1,
            step: 1000,
            rate_per: 600_000,
        };
        let matchers = r#"service=~"a\\.b|\"\\} or vector\\(1\\) \\#",span_kind=~"SPAN_KIND_SERVER""#;
        let calls = format!("sum by (service) (rate(traces_spanmetrics_calls_total{{{matchers}}}[600000ms]))");
        assert_eq!(promql(&question(Measure::Calls, false)), calls);
        let failed =
            format!("sum by (service) (rate(traces_spanmetrics_calls_total{{{matchers},status_code=\"STATUS_CODE_ERROR\"}}[600000ms]))");
        assert_eq!(promql(&question(Measure::Errors, false)), format!("({failed} or {calls} * 0) / {calls}"));
        assert_eq!(
            promql(&question(Measure::Latencies { quantile: 0.95 }, true)),
            format!(
                "histogram_quantile(0.95, sum by (service, span_name, le) (rate(traces_spanmetrics_latency_bucket{{{matchers}}}[600000ms]))) * 1000"
            )
        );
    }
}
