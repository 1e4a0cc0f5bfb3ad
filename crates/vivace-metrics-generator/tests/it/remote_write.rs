use std::path::PathBuf;

use vivace_proto::otlp::TracesData;
use vivace_proto::prometheus::histogram::Count;
use vivace_server::clock;
use vivace_testkit::{TraceBuilder, attribute};

use crate::receiver::Receiver;
use crate::running::{Running, until};

fn trace(number: u64) -> TracesData {
    TraceBuilder::new(number, "shop", clock::unix_nanos()).span("pay", &[attribute("method", "GET")]).span("store", &[]).build()
}

fn last(receiver: &Receiver, name: &str, labels: &[(&str, &str)]) -> f64 {
    receiver.samples(name, labels).last().map_or(f64::NAN, |(_, value)| *value)
}

/// Requests that wait on disk.
fn waiting(folder: &std::path::Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).into_iter().flatten().map(|entry| entry.expect("readable").path()) {
            if entry.is_dir() {
                folders.push(entry);
            } else if entry.file_name().is_some_and(|name| name != "collected") {
                found.push(entry);
            }
        }
    }
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn counters_histograms_and_exemplars_reach_the_receiver() {
    let (folder, receiver) = (tempfile::tempdir().expect("a folder"), Receiver::start().await);
    let limits = "processors: [span-metrics, service-graphs], generate_native_histograms: both, trace_id_label_name: trace_id, \
                  remote_write_headers: {X-Key: abc}, processor: {span_metrics: {dimensions: [method]}}";
    let generator = Running::start(folder.path(), &receiver.url(), "", limits).await;
    generator.push("acme", &trace(1), false).await;
    generator.push("acme", &trace(2), true).await;
    let pay = [("span_name", "pay"), ("service", "shop"), ("method", "GET"), ("__metrics_gen_instance", "generator-0")];
    until("calls are counted", || async { last(&receiver, "traces_spanmetrics_calls_total", &pay) == 1.0 }).await;
    generator.push("acme", &trace(3), false).await;
    generator.stop().await;

    assert_eq!(last(&receiver, "traces_spanmetrics_calls_total", &pay), 2.0, "a last collection is made, and what asked to be left out is");
    assert_eq!(receiver.samples("traces_spanmetrics_calls_total", &pay)[0].1, 0.0, "it begins with zero");
    assert_eq!(last(&receiver, "traces_spanmetrics_latency_bucket", &[("le", "+Inf"), ("span_name", "pay")]), 2.0);
    let edge = [("client", "user"), ("server", "shop"), ("connection_type", "virtual_node")];
    assert_eq!(last(&receiver, "traces_service_graph_request_total", &edge), 2.0);
    let series = receiver.series();
    let native: Vec<_> = series.iter().filter(|series| !series.histograms.is_empty()).collect();
    let counts: Vec<_> = native.iter().flat_map(|series| &series.histograms).map(|histogram| histogram.count).collect();
    assert_eq!((counts.first(), counts.last()), (Some(&Some(Count::CountInt(0))), Some(&Some(Count::CountInt(2)))));
    assert!(native.iter().all(|series| series.samples.is_empty()));
    let exemplar = series.iter().find_map(|series| series.exemplars.first()).expect("some");
    let id = vivace_core::TraceId::from_slice(&TraceBuilder::new(1, "", 0).trace_id()).trimmed_hex();
    assert_eq!((exemplar.labels[0].name.as_str(), exemplar.labels[0].value.as_str()), ("trace_id", id.as_str()));
    assert!(receiver.headers().iter().all(|headers| headers["x-scope-orgid"] == "acme" && headers["x-key"] == "abc"));
    assert!(series.iter().all(|series| series.labels.is_sorted_by(|a, b| a.name < b.name)), "sorted, each name once");
    assert_eq!(waiting(folder.path()), [""; 0].map(PathBuf::from));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_outlives_a_kill_and_comes_in_order() {
    let (folder, receiver) = (tempfile::tempdir().expect("a folder"), Receiver::start().await);
    receiver.answer(503);
    let limits = "processors: [span-metrics-count]";
    let storage = ", queue_config: {min_backoff: 5ms, max_backoff: 20ms}, metadata_config: {send: false}";
    let generator = Running::start(folder.path(), &receiver.url(), storage, limits).await;
    generator.push("acme", &trace(1), false).await;
    until("collections wait", || async { waiting(folder.path()).len() > 3 && receiver.refused() > 3 }).await;
    generator.kill().await;
    let before = waiting(folder.path()).len();
    assert!(receiver.series().is_empty());

    receiver.answer(0);
    let generator = Running::start(folder.path(), &receiver.url(), storage, limits).await;
    until("all of them are sent", || async { waiting(folder.path()).is_empty() }).await;
    let samples = receiver.samples("traces_spanmetrics_calls_total", &[("span_name", "pay")]);
    assert!(samples.len() > before, "{} samples of {before} collections", samples.len());
    generator.push("acme", &trace(2), false).await;
    until("the new process counts from zero", || async {
        receiver.samples("traces_spanmetrics_calls_total", &[("span_name", "pay")]).len() > samples.len() + 1
    })
    .await;
    generator.stop().await;
    let samples = receiver.samples("traces_spanmetrics_calls_total", &[("span_name", "pay")]);
    assert!(samples.is_sorted_by(|a, b| a.0 < b.0), "receivers refuse what is out of order: {samples:?}");
}

/// A pod without a volume of its own: nothing says what the one before it sent.
#[tokio::test(flavor = "multi_thread")]
async fn series_of_a_new_folder_begin_after_those_of_the_one_before() {
    let receiver = Receiver::start().await;
    let pay = [("span_name", "pay"), ("__metrics_gen_instance", "generator-0")];
    for number in 1..=3 {
        let folder = tempfile::tempdir().expect("a folder");
        let generator = Running::start(folder.path(), &receiver.url(), "", "processors: [span-metrics-count]").await;
        generator.push("acme", &trace(number), false).await;
        generator.stop().await;
    }
    let samples = receiver.samples("traces_spanmetrics_calls_total", &pay);
    assert!(samples.len() >= 3 && samples.is_sorted_by(|a, b| a.0 < b.0), "{samples:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_refused_for_good_is_not_sent_again() {
    let (folder, receiver) = (tempfile::tempdir().expect("a folder"), Receiver::start().await);
    receiver.answer(400);
    let generator = Running::start(folder.path(), &receiver.url(), "", "processors: [span-metrics]").await;
    generator.push("single-tenant", &trace(1), false).await;
    until("some are refused", || async { receiver.refused() > 1 }).await;
    receiver.answer(0);
    until("the next ones come", || async { !receiver.series().is_empty() }).await;
    generator.stop().await;
    assert!(receiver.headers().iter().all(|headers| !headers.contains_key("x-scope-orgid")), "nobody is named");
    assert_eq!(waiting(folder.path()).len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_too_old_is_dropped() {
    let (folder, receiver) = (tempfile::tempdir().expect("a folder"), Receiver::start().await);
    receiver.answer(503);
    let storage = ", queue_config: {min_backoff: 5ms, max_backoff: 20ms, sample_age_limit: 1s}, metadata_config: {send: false}";
    let generator = Running::start(folder.path(), &receiver.url(), storage, "processors: [span-metrics-count]").await;
    generator.push("acme", &trace(1), false).await;
    until("one waits", || async { !waiting(folder.path()).is_empty() }).await;
    let first = waiting(folder.path()).into_iter().min().expect("one");
    until("it is dropped", || async { !first.exists() }).await;
    receiver.answer(0);
    until("the next ones come", || async { !receiver.series().is_empty() }).await;
    generator.stop().await;
    let file = first.file_name().and_then(|name| name.to_str()?.split('-').next()?.parse::<i64>().ok()).expect("a time");
    let samples = receiver.samples("traces_spanmetrics_calls_total", &[("span_name", "pay")]);
    assert!(samples.iter().all(|(unix_millis, value)| *unix_millis > file && *value == 1.0), "{samples:?}");
}
