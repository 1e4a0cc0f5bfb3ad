//! The one Prometheus recorder of the process.

use std::sync::OnceLock;

use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};
use vivace_core::metric::{Kind, Metric, Unit};

use crate::METRICS;

/// Where a histogram's name says nothing else.
const DEFAULT: &[f64] = &[0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

/// The recorder, which knows the metrics of every process and those of `lists`. Installed at the first call: tests run several
/// processes' worth of parts in one, which share it, and the buckets are those of the first.
pub(crate) fn install(lists: &[&[Metric]]) -> anyhow::Result<PrometheusHandle> {
    static HANDLE: OnceLock<Result<PrometheusHandle, String>> = OnceLock::new();
    let known = || [METRICS].into_iter().chain(lists.iter().copied()).flatten();
    let handle = HANDLE.get_or_init(|| build(known()).map_err(|e| e.to_string())).clone();
    let handle = handle.map_err(|e| anyhow::anyhow!("cannot install the metrics recorder: {e}"))?;
    known().for_each(describe);
    Ok(handle)
}

fn build<'a>(known: impl Iterator<Item = &'a Metric>) -> Result<PrometheusHandle, BuildError> {
    let mut builder = PrometheusBuilder::new().set_buckets(DEFAULT)?;
    for metric in known.filter(|metric| !metric.buckets.is_empty()) {
        builder = builder.set_buckets_for_metric(Matcher::Full(metric.name.to_owned()), metric.buckets)?;
    }
    builder.install_recorder()
}

fn describe(metric: &Metric) {
    let unit = match metric.unit {
        Unit::Number => metrics::Unit::Count,
        Unit::Bytes => metrics::Unit::Bytes,
        Unit::Seconds => metrics::Unit::Seconds,
    };
    match metric.kind {
        Kind::Counter => metrics::describe_counter!(metric.name, unit, metric.help),
        Kind::Gauge => metrics::describe_gauge!(metric.name, unit, metric.help),
        Kind::Histogram => metrics::describe_histogram!(metric.name, unit, metric.help),
    }
}
