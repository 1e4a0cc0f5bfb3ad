//! The one Prometheus recorder of the process.

use std::sync::OnceLock;

use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};

/// Where a histogram's name says nothing else.
const DEFAULT: &[f64] = &[0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

/// Buckets by histogram name. Source: docs/facts/metrics.md, "Buckets".
const BUCKETS: &[(&str, &[f64])] = &[
    ("tempo_request_duration_seconds", &[0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 1.5, 2.5, 5.0, 10.0, 25.0, 50.0, 100.0]),
    ("tempo_spans_distance_in_past_seconds", &[300.0, 1800.0, 3600.0]),
    ("tempo_spans_distance_in_future_seconds", &[300.0, 1800.0, 3600.0]),
    ("tempo_distributor_traces_per_batch", &[2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0]),
    ("tempo_ingester_flush_duration_seconds", &[1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0]),
    (
        "tempo_ingester_flush_size_bytes",
        &[
            1_048_576.0,
            2_097_152.0,
            4_194_304.0,
            8_388_608.0,
            16_777_216.0,
            33_554_432.0,
            67_108_864.0,
            134_217_728.0,
            268_435_456.0,
            536_870_912.0,
        ],
    ),
    ("tempo_query_frontend_actual_batch_size", &[1.0, 2.4, 3.8, 5.2, 6.6]),
    ("tempo_query_frontend_retries", &[0.0, 1.0, 2.0, 3.0, 4.0, 5.0]),
    ("tempodb_backend_request_duration_seconds", &[0.005, 0.02, 0.08, 0.32, 1.28, 5.12]),
    ("tempodb_retention_duration_seconds", &[0.25, 0.5, 1.0, 2.0, 4.0, 8.0]),
];

/// The recorder, installed at the first call. Tests run several processes' worth of parts in one; they share it.
pub(crate) fn install() -> anyhow::Result<PrometheusHandle> {
    static HANDLE: OnceLock<Result<PrometheusHandle, String>> = OnceLock::new();
    HANDLE
        .get_or_init(|| build().map_err(|e| e.to_string()))
        .clone()
        .map_err(|e| anyhow::anyhow!("cannot install the metrics recorder: {e}"))
}

fn build() -> Result<PrometheusHandle, BuildError> {
    let mut builder = PrometheusBuilder::new().set_buckets(DEFAULT)?;
    for (name, buckets) in BUCKETS {
        builder = builder.set_buckets_for_metric(Matcher::Full((*name).to_owned()), buckets)?;
    }
    builder.install_recorder()
}
