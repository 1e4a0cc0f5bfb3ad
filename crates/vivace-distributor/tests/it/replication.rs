use std::time::Duration;

use prost::Message;
use tonic::{Code, Status};
use vivace_core::TraceId;
use vivace_core::otlp::walk_spans;
use vivace_core::traces::{TraceSpans, Traces};
use vivace_proto::otlp::{AnyValue, KeyValue, any_value};

use crate::client::traces;
use crate::cluster::{Behaviour, Cluster, eventually, payload};

/// Forty traces of one span each.
fn many() -> Vec<(u8, u8)> {
    (1..=40).map(|n| (n, n)).collect()
}

#[tokio::test]
async fn every_trace_goes_to_one_primary_and_its_followers() {
    let mut cluster = Cluster::start(4, 3, |_| {}).await;
    let answer = cluster.export(&traces(&many()), &[]).await.expect("stored");
    assert_eq!(answer.partial_success, Some(Default::default()), "present and empty");
    cluster.stop().await;

    let held = cluster.held();
    assert_eq!(held.primaries(), (1..=40).collect::<Vec<u8>>());
    assert!(held.by_primary.len() > 1, "spread: {held:?}");
    // The sends outlive the acknowledgement, and shutdown waits for them: every segment has both its followers.
    for instance in &cluster.instances {
        for segment in instance.segments() {
            let holders = cluster.instances.iter().filter(|i| i.segments().iter().any(|s| s.id == segment.id)).count();
            assert_eq!(holders, 3, "segment {:?} of {}", segment.id, segment.primary);
        }
    }
}

/// Primaries go by it, and do not decompress a segment to count it again.
#[tokio::test]
async fn a_segment_says_what_it_holds_of_each_trace() {
    for (instances, attribute_bytes_max) in [(1, 2048), (3, 2048), (1, 4)] {
        let mut cluster = Cluster::start(instances, 1, move |config| config.distributor.max_attribute_bytes = attribute_bytes_max).await;
        let mut sent = traces(&[many(), many().iter().map(|(trace, id)| (*trace, id + 100)).collect()].concat());
        for (number, span) in (0..).zip(&mut sent.resource_spans[0].scope_spans[0].spans) {
            span.start_time_unix_nano += number;
            // Each third one ends before it starts.
            span.end_time_unix_nano = if number % 3 == 0 { number } else { span.end_time_unix_nano + 7 * number };
        }
        cluster.export(&sent, &[]).await.expect("stored");
        cluster.stop().await;
        let mut found = 0;
        for segment in cluster.instances.iter().flat_map(|instance| instance.segments()) {
            let mut counted = Traces::default();
            walk_spans(&payload(&segment), |_, span| {
                counted.add(span.trace(), &span, span.bytes.len());
            })
            .expect("spans");
            let told: Vec<TraceSpans> = segment
                .traces
                .iter()
                .map(|told| TraceSpans {
                    trace: TraceId::from_slice(&told.trace_id),
                    spans: told.spans,
                    bytes: told.bytes,
                    first_start: told.first_start,
                    last_start: told.last_start,
                    first_end: told.first_end,
                    last_end: told.last_end,
                    has_backwards: told.has_backwards,
                })
                .collect();
            assert_eq!(told, counted.into_inner());
            found += told.len();
        }
        assert_eq!(found, 40, "{instances} instances");
    }
}

#[tokio::test]
async fn a_request_of_one_primary_is_passed_on_as_it_came() {
    let cluster = Cluster::start(3, 1, |_| {}).await;
    // Unknown fields stay too: nothing is decoded.
    let mut body = traces(&[(1, 1), (1, 2), (1, 3)]).encode_to_vec();
    body.extend([0xfa, 0x3e, 2, b'h', b'i']);
    assert_eq!(cluster.post("application/x-protobuf", body.clone()).await.status, 200);
    let segments: Vec<_> = cluster.instances.iter().flat_map(|i| i.segments()).collect();
    assert_eq!(segments.len(), 1);
    assert_eq!(payload(&segments[0]), body);
    assert_eq!(segments[0].spans, 3);
    assert_eq!(segments[0].tenant, "single-tenant");
}

#[tokio::test]
async fn a_follower_that_hangs_does_not_hold_up_the_answer() {
    let cluster = Cluster::start(3, 3, |c| c.ingester_client.remote_timeout = Duration::from_secs(30)).await;
    let primary_of = primary_of(&cluster, 1).await;
    let follower = cluster.instances.iter().find(|i| i.id != primary_of).expect("another");
    follower.behave(Behaviour::Hang);
    let one = traces(&[(1, 9)]);
    tokio::time::timeout(Duration::from_secs(10), cluster.export(&one, &[])).await.expect("in time").expect("two of three are a quorum");
}

/// Who is primary of the trace made of this number: sends one span to find out.
async fn primary_of(cluster: &Cluster, trace: u8) -> String {
    cluster.export(&traces(&[(trace, 200)]), &[]).await.expect("stored");
    let held = cluster.held();
    held.by_primary.iter().find(|(_, spans)| spans.contains(&200)).map(|(id, _)| id.clone()).expect("someone has it")
}

#[tokio::test]
async fn a_primary_that_fails_is_gone_around() {
    for behaviour in [Behaviour::Fail(Status::unavailable("disk on fire")), Behaviour::Hang] {
        let cluster = Cluster::start(4, 3, |_| {}).await;
        let bad = &cluster.instances[0];
        bad.behave(behaviour.clone());
        cluster.export(&traces(&many()), &[]).await.unwrap_or_else(|e| panic!("{behaviour:?}: {e}"));
        assert!(bad.segments().is_empty());
        assert_eq!(cluster.held().primaries(), (1..=40).collect::<Vec<u8>>(), "{behaviour:?}");
        // Two of each replication set have it although one instance is out.
        eventually("followers have every span", || cluster.held().by_follower.values().map(Vec::len).sum::<usize>() >= 40).await;
    }
}

#[tokio::test]
async fn without_a_quorum_clients_are_told_to_come_back() {
    let cluster = Cluster::start(3, 3, |_| {}).await;
    for bad in &cluster.instances[1..] {
        bad.behave(Behaviour::Fail(Status::unavailable("gone")));
    }
    let error = cluster.export(&traces(&many()), &[]).await.expect_err("one of three is no quorum");
    assert_eq!(error.code(), Code::Unavailable, "{error}");
    let answer = cluster.post("application/json", r#"{"resourceSpans":[{"scopeSpans":[{"spans":[{"traceId":"01010101010101010101010101010101","spanId":"0101010101010101"}]}]}]}"#).await;
    assert_eq!((answer.status, &answer.json()["code"]), (503, &14.into()), "{answer:?}");
}

#[tokio::test]
async fn too_few_members_are_named() {
    let cluster = Cluster::start(1, 3, |_| {}).await;
    let error = cluster.export(&traces(&many()), &[]).await.expect_err("no quorum");
    assert_eq!(error.code(), Code::Unavailable);
    assert_eq!(error.message(), "at least 2 live replicas required, could only find 1");
}

#[tokio::test]
async fn ingesters_without_room_make_clients_wait() {
    let cluster = Cluster::start(1, 1, |_| {}).await;
    cluster.instances[0].behave(Behaviour::Fail(Status::resource_exhausted("the disk is full")));
    let answer = cluster.post("application/x-protobuf", traces(&[(1, 1)]).encode_to_vec()).await;
    assert_eq!((answer.status, answer.headers["retry-after"].to_str().unwrap()), (429, "1"));
    assert!(String::from_utf8_lossy(&answer.body).contains("the disk is full"), "{answer:?}");
}

#[tokio::test]
async fn what_the_door_lets_in_goes_on_in_messages_that_ingesters_take() {
    const TAKEN_MAX: u64 = 300 << 10;
    let cluster = Cluster::start(3, 3, |config| config.server.grpc_server_max_recv_msg_size = TAKEN_MAX).await;
    let ids: Vec<(u8, u8)> = (1..=40).map(|id| (id % 5 + 1, id)).collect();
    let mut large = traces(&ids);
    let mut random = 1u32;
    for span in &mut large.resource_spans[0].scope_spans[0].spans {
        // Does not compress.
        let bytes = (0..20_000).map(|_| {
            random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (random >> 24) as u8
        });
        let value = Some(AnyValue { value: Some(any_value::Value::BytesValue(bytes.collect::<Vec<u8>>().into())) });
        span.attributes.push(KeyValue { key: "random".to_owned(), value });
    }
    let answer = cluster.post("application/x-protobuf", large.encode_to_vec()).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(cluster.held().primaries(), (1..=40).collect::<Vec<u8>>());
    let segments = cluster.instances.iter().flat_map(|instance| instance.segments());
    let largest = segments.map(|segment| segment.encoded_len() as u64).max();
    assert!(largest.is_some_and(|bytes| bytes <= TAKEN_MAX), "{largest:?}");
}
