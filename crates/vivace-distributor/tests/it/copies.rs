use std::time::{Duration, Instant};

use prost::Message as _;
use vivace_config::{Forwarder, ForwarderOtlpGrpc, ForwarderTls};

use crate::client::traces;
use crate::cluster::{Behaviour, Cluster, eventually, payload};

const PROTOBUF: &str = "application/x-protobuf";

/// A forwarder to these addresses.
fn forwarder(name: &str, endpoints: &[String]) -> Forwarder {
    let tls = ForwarderTls { insecure: true, ..ForwarderTls::default() };
    let otlpgrpc = ForwarderOtlpGrpc { endpoints: endpoints.to_vec(), tls };
    Forwarder { name: name.to_owned(), backend: "otlpgrpc".to_owned(), otlpgrpc, ..Forwarder::default() }
}

#[tokio::test]
async fn every_address_of_a_forwarder_gets_what_was_sent() {
    let others = [Cluster::start(1, 1, |_| {}).await, Cluster::start(1, 1, |_| {}).await];
    let endpoints = others.iter().map(|other| other.grpc.to_string()).collect::<Vec<_>>();
    let mut cluster = Cluster::start(1, 1, move |config| {
        config.distributor.forwarders = vec![forwarder("other", &endpoints), forwarder("unused", &[])];
        config.distributor.max_attribute_bytes = 4;
        config.overrides.defaults.forwarders = vec!["other".to_owned()];
    })
    .await;
    let body = traces(&[(1, 1), (2, 2)]).encode_to_vec();
    assert_eq!(cluster.post(PROTOBUF, body.clone()).await.status, 200);
    // Shutdown waits for what is queued.
    cluster.stop().await;
    for other in &others {
        let held = other.instances[0].segments();
        assert_eq!(held.len(), 1);
        assert_eq!(payload(&held[0]), body, "as it came: what is cut here is not cut there");
    }
}

#[tokio::test]
async fn what_is_filtered_out_is_stored_here_and_not_there() {
    let other = Cluster::start(1, 1, |_| {}).await;
    let endpoint = other.grpc.to_string();
    let mut cluster = Cluster::start(1, 1, move |config| {
        let mut forwarder = forwarder("other", &[endpoint]);
        forwarder.filter.traces.span = vec!["trace_id.string == \"01010101010101010101010101010101\"".to_owned()];
        config.distributor.forwarders = vec![forwarder];
        config.overrides.defaults.forwarders = vec!["other".to_owned()];
    })
    .await;
    cluster.export(&traces(&[(1, 1), (2, 2)]), &[]).await.expect("stored");
    cluster.export(&traces(&[(1, 3)]), &[]).await.expect("stored");
    cluster.stop().await;
    let held = other.instances[0].segments();
    assert_eq!(held.iter().map(|segment| segment.spans).collect::<Vec<_>>(), [1], "nothing is sent where nothing is left");
    assert_eq!(cluster.instances[0].segments().iter().map(|segment| segment.spans).sum::<u32>(), 3);
}

#[tokio::test]
async fn a_forwarder_that_is_gone_costs_no_span_and_is_counted() {
    let cluster = Cluster::start(1, 1, |config| {
        config.distributor.forwarders = vec![forwarder("gone", &["127.0.0.1:1".to_owned()])];
        config.overrides.defaults.forwarders = vec!["gone".to_owned()];
    })
    .await;
    cluster.export(&traces(&[(1, 1)]), &[]).await.expect("stored");
    assert_eq!(cluster.held().primaries(), [1]);
    let deadline = Instant::now() + Duration::from_secs(15);
    loop {
        let metrics = cluster.page("/metrics").await;
        let metrics = String::from_utf8_lossy(&metrics.body).into_owned();
        if metrics.contains("tempo_distributor_forwarder_pushes_failures_total{tenant=\"single-tenant\"} ") {
            break;
        }
        assert!(Instant::now() < deadline, "{metrics}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Source: docs/facts/components.md, "Generic forwarders".
#[tokio::test]
async fn an_unknown_name_stops_all_forwarding_of_the_tenant() {
    let other = Cluster::start(1, 1, |_| {}).await;
    let endpoint = other.grpc.to_string();
    let mut cluster = Cluster::start(1, 1, move |config| {
        config.distributor.forwarders = vec![forwarder("other", &[endpoint])];
        config.overrides.defaults.forwarders = vec!["other".to_owned(), "none".to_owned()];
    })
    .await;
    cluster.export(&traces(&[(1, 1)]), &[]).await.expect("stored");
    cluster.stop().await;
    assert_eq!(other.instances[0].segments(), []);
}

#[tokio::test]
async fn bytes_are_counted_by_the_attributes_that_a_tenant_names() {
    let cluster = Cluster::start(1, 1, |config| {
        config.distributor.usage.cost_attribution.enabled = true;
        config.overrides.defaults.cost_attribution.dimensions = [("service.name".to_owned(), String::new())].into();
    })
    .await;
    let body = traces(&[(1, 1), (2, 2)]).encode_to_vec();
    let bytes = body.len();
    assert_eq!(cluster.post(PROTOBUF, body).await.status, 200);
    let page = cluster.page("/usage_metrics").await;
    assert_eq!(page.status, 200);
    let series = "tempo_usage_tracker_bytes_received_total{service_name=\"shop\",tenant=\"single-tenant\",tracker=\"cost-attribution\"}";
    assert!(String::from_utf8_lossy(&page.body).contains(&format!("{series} {bytes}\n")), "{page:?}");

    let without = Cluster::start(1, 1, |_| {}).await;
    assert_eq!(without.page("/usage_metrics").await.status, 404);
}

#[tokio::test]
async fn an_artificial_delay_fills_up_what_a_request_took() {
    let delay = Duration::from_millis(300);
    let cluster = Cluster::start(1, 1, move |config| {
        config.distributor.artificial_delay = Duration::from_secs(60);
        config.overrides.defaults.ingestion.artificial_delay = Some(delay);
    })
    .await;
    let start = Instant::now();
    cluster.export(&traces(&[(1, 1)]), &[]).await.expect("stored");
    assert!(start.elapsed() >= delay.mul_f64(0.85), "{:?}", start.elapsed());
    cluster.instances[0].behave(Behaviour::Fail(tonic::Status::invalid_argument("no")));
    let start = Instant::now();
    cluster.export(&traces(&[(1, 1)]), &[]).await.expect_err("refused");
    assert!(start.elapsed() >= delay.mul_f64(0.85), "failed ones too: {:?}", start.elapsed());
}

#[tokio::test]
async fn spans_are_counted_by_name_where_it_is_asked_for() {
    let cluster = Cluster::start(1, 1, |config| {
        config.distributor.metric_received_spans.enabled = true;
        config.distributor.log_received_spans.enabled = true;
    })
    .await;
    cluster.export(&traces(&[(1, 1), (2, 1), (3, 2)]), &[]).await.expect("stored");
    let page = String::from_utf8_lossy(&cluster.page("/metrics").await.body).into_owned();
    let series =
        |name: &str| format!("tempo_distributor_debug_spans_received_total{{tenant=\"single-tenant\",name=\"{name}\",service=\"shop\"}}");
    assert!(page.contains(&format!("{} 2\n", series("span 1"))) && page.contains(&format!("{} 1\n", series("span 2"))), "{page}");
    eventually("the spans are stored", || cluster.held().primaries() == [1, 1, 2]).await;
}
