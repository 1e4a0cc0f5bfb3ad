//! Edges from spans as clients send them.

use prost::Message;
use vivace_config::Config;
use vivace_proto::otlp::{AnyValue, KeyValue, Resource, ResourceSpans, ScopeSpans, Span, Status, TracesData, any_value::Value as Any};
use vivace_testkit::attribute;

use super::*;
use crate::collection::Collection;
use crate::options::ProcessorOptions;
use crate::registry::RegistryLimits;
use crate::spans::{Interest, measure};

const SECOND: u64 = 1_000_000_000;

struct Graph {
    graphs: ServiceGraphs,
    registry: Registry,
    labels: LabelSet,
}

fn options(keys: &str) -> ServiceGraphOptions {
    let text = format!(
        "metrics_generator: {{processor: {{service_graphs: {keys}}}}}\n\
         overrides: {{defaults: {{metrics_generator: {{processors: [service-graphs]}}}}}}"
    );
    let (config, _) = Config::parse(&text, "t").expect("it is right");
    let options = ProcessorOptions::new(&config.metrics_generator.processor, &config.overrides.defaults.metrics_generator);
    options.service_graphs.expect("it is named")
}

fn graph(keys: &str) -> Graph {
    Graph {
        graphs: ServiceGraphs::new(options(keys), 2048),
        registry: Registry::new(RegistryLimits::default(), Vec::new()),
        labels: LabelSet::new(1024, 2048, Vec::new()),
    }
}

/// A span of one second that begins at second 1, in a trace of its own number.
fn span(trace: u8, kind: u64, id: u8, parent: u8, attributes: &[KeyValue]) -> Span {
    let bytes = |number: u8| if number == 0 { Vec::new().into() } else { vec![number; 8].into() };
    Span {
        trace_id: vec![trace; 16].into(),
        span_id: bytes(id),
        parent_span_id: bytes(parent),
        kind: i32::try_from(kind).expect("small"),
        start_time_unix_nano: SECOND,
        end_time_unix_nano: 2 * SECOND,
        attributes: attributes.to_vec(),
        ..Span::default()
    }
}

fn client(trace: u8, attributes: &[KeyValue]) -> Span {
    span(trace, KIND_CLIENT, 1, 9, attributes)
}

fn server(trace: u8, attributes: &[KeyValue]) -> Span {
    span(trace, KIND_SERVER, 2, 1, attributes)
}

fn text_of(value: &AnyValue) -> Option<&str> {
    match &value.value {
        Some(Any::StringValue(text)) => Some(text),
        _ => None,
    }
}

impl Graph {
    fn push(&mut self, service: &str, spans: &[Span], now: u64) {
        self.push_named(attribute("service.name", service), spans, now);
    }

    fn push_named(&mut self, service: KeyValue, spans: &[Span], now: u64) {
        let zone = format!("zone-{}", service.value.as_ref().and_then(text_of).unwrap_or_default());
        let data = TracesData {
            resource_spans: vec![ResourceSpans {
                resource: Some(Resource { attributes: vec![service, attribute("zone", &zone)], ..Resource::default() }),
                scope_spans: vec![ScopeSpans { spans: spans.to_vec(), ..ScopeSpans::default() }],
                ..ResourceSpans::default()
            }],
        };
        let Self { graphs, registry, labels } = self;
        let read = measure(&data.encode_to_vec(), &Interest::all(), |resource, span| graphs.observe(registry, labels, resource, span, now));
        assert_eq!(read, Ok(0));
    }

    fn expire(&mut self, now: u64) {
        self.graphs.expire(&mut self.registry, &mut self.labels, now);
    }

    /// Series as PromQL would write them, without buckets.
    fn series(&mut self) -> Vec<String> {
        let mut collection = Collection::new(&mut self.registry, SECOND, 0, "", 10);
        let mut all: Vec<String> = std::iter::from_fn(|| collection.part(&mut self.registry))
            .flatten()
            .filter_map(|series| {
                let name =
                    series.labels.iter().find(|label| label.name == "__name__")?.value.strip_prefix("traces_service_graph_request_")?;
                if name.ends_with("_bucket") || name.ends_with("_count") {
                    return None;
                }
                let labels = series.labels.iter().filter(|label| label.name != "__name__");
                let labels: Vec<String> = labels.map(|label| format!("{}={}", label.name, label.value)).collect();
                Some(format!("{name}{{{}}} {}", labels.join(","), series.samples.last()?.value))
            })
            .collect();
        all.sort();
        all
    }

    fn account(&mut self) -> (u64, u64, u64) {
        let Account { edges, expired_edges, dropped_spans } = self.graphs.take_account();
        (edges, expired_edges, dropped_spans)
    }
}

#[test]
fn both_sides_of_a_call_make_an_edge_whichever_comes_first() {
    for is_server_first in [false, true] {
        let mut graph = graph("{}");
        let failed = Span { status: Some(Status { code: 2, ..Status::default() }), ..server(1, &[]) };
        let sides = [("shop", client(1, &[])), ("bank", Span { end_time_unix_nano: SECOND + SECOND / 2, ..failed })];
        let [first, second] = if is_server_first { [1, 0] } else { [0, 1] };
        graph.push(sides[first].0, &[sides[first].1.clone()], 3 * SECOND);
        assert_eq!(graph.series(), [""; 0]);
        graph.push(sides[second].0, &[sides[second].1.clone()], 12 * SECOND);
        assert_eq!(
            graph.series(),
            [
                "client_seconds_sum{client=shop,server=bank} 1",
                "failed_total{client=shop,server=bank} 1",
                "server_seconds_sum{client=shop,server=bank} 0.5",
                "total{client=shop,server=bank} 1",
            ]
        );
        graph.expire(100 * SECOND);
        assert_eq!((graph.account(), graph.graphs.edges.len()), ((1, 0, 0), 0));
    }
}

#[test]
fn other_traces_and_inner_spans_make_no_edge() {
    let mut graph = graph("{}");
    graph.push("shop", &[client(1, &[]), span(1, 1, 5, 1, &[]), span(1, 0, 6, 1, &[])], SECOND);
    graph.push("bank", &[server(2, &[])], SECOND);
    graph.push("", &[server(1, &[])], SECOND);
    assert_eq!(graph.series(), [""; 0]);
    graph.expire(11 * SECOND);
    assert_eq!(graph.account(), (0, 0, 0), "they have waited for 10 seconds, and not longer");
    graph.expire(11 * SECOND + 1);
    assert_eq!((graph.account(), graph.series()), ((0, 2, 0), vec![]));
}

#[test]
fn a_side_without_spans_is_a_virtual_node() {
    let mut graph = graph("{enable_virtual_node_label: true}");
    graph.push("shop", &[client(1, &[attribute("peer.service", "mail")])], SECOND);
    graph.push("web", &[span(2, KIND_SERVER, 1, 0, &[])], SECOND);
    graph.push("api", &[span(3, KIND_SERVER, 1, 0, &[attribute("peer.service", "phone")])], SECOND);
    graph.expire(60 * SECOND);
    let virtual_node = |client: &str, server: &str, side: &str, values: [u8; 3]| {
        let labels = format!("{{client={client},connection_type=virtual_node,server={server},virtual_node={side}}}");
        let names = ["client_seconds_sum", "server_seconds_sum", "total"];
        names.into_iter().zip(values).map(|(name, value)| format!("{name}{labels} {value}")).collect::<Vec<_>>()
    };
    let mut want = [
        virtual_node("shop", "mail", "server", [1, 0, 1]),
        virtual_node("user", "web", "client", [0, 1, 1]),
        virtual_node("phone", "api", "client", [0, 1, 1]),
    ]
    .concat();
    want.sort();
    assert_eq!((graph.series(), graph.account()), (want, (3, 0, 0)));
}

#[test]
fn a_database_is_not_waited_for() {
    let port = KeyValue { key: "network.peer.port".to_owned(), value: Some(AnyValue { value: Some(Any::IntValue(5432)) }) };
    for (attributes, name) in [
        (vec![attribute("db.system", "redis")], "redis"),
        (vec![attribute("db.name", "orders"), attribute("db.system", "postgresql")], "orders"),
        (vec![attribute("db.system", "x"), attribute("network.peer.address", "10.0.0.7"), port], "10.0.0.7:5432"),
        (vec![attribute("db.system", "x"), attribute("server.address", "db-1"), attribute("network.peer.address", "y")], "db-1"),
        (vec![attribute("db.system", "x"), attribute("server.address", "db-1"), attribute("peer.service", "pg")], "pg"),
    ] {
        let mut graph = graph("{}");
        graph.push("shop", &[client(1, &attributes)], SECOND);
        let labels = format!("{{client=shop,connection_type=database,server={name}}}");
        let want = ["client_seconds_sum", "server_seconds_sum", "total"].map(|metric| format!("{metric}{labels} 1"));
        assert_eq!(graph.series(), want);
    }
}

#[test]
fn messages_lie_in_a_queue_between() {
    let mut graph = graph("{enable_messaging_system_latency_histogram: true}");
    let consumer = |trace, start| Span { start_time_unix_nano: start, end_time_unix_nano: start, ..span(trace, KIND_CONSUMER, 2, 1, &[]) };
    graph.push("shop", &[span(1, KIND_PRODUCER, 1, 9, &[]), span(2, KIND_PRODUCER, 1, 9, &[])], SECOND);
    graph.push("mail", &[consumer(1, 5 * SECOND), consumer(2, SECOND)], SECOND);
    let labels = "{client=shop,connection_type=messaging_system,server=mail}";
    assert_eq!(
        graph.series(),
        [
            format!("client_seconds_sum{labels} 2"),
            format!("messaging_system_seconds_sum{labels} 3"),
            format!("server_seconds_sum{labels} 0"),
            format!("total{labels} 2"),
        ]
    );
}

#[test]
fn dimensions_are_of_both_sides() {
    let series = |keys: &str| {
        let mut graph = graph(keys);
        graph.push("shop", &[client(1, &[attribute("client", "x"), attribute("method", "GET")])], SECOND);
        graph.push("bank", &[server(1, &[attribute("zone", "the resource's goes before")])], SECOND);
        graph.series().pop().expect("the total comes last")
    };
    assert_eq!(series("{dimensions: [zone, method, client]}"), "total{__client=x,client=shop,method=GET,server=bank,zone=zone-bank} 1");
    assert_eq!(
        series("{dimensions: [zone, method], enable_client_server_prefix: true}"),
        "total{client=shop,client_method=GET,client_zone=zone-shop,server=bank,server_zone=zone-bank} 1"
    );
}

#[test]
fn a_kept_span_stands_for_those_that_were_not() {
    let mut graph = graph("{span_multiplier_key: share}");
    let share = KeyValue { key: "share".to_owned(), value: Some(AnyValue { value: Some(Any::DoubleValue(0.25)) }) };
    graph.push("shop", &[client(1, std::slice::from_ref(&share))], SECOND);
    graph.push("bank", &[server(1, &[share])], SECOND);
    assert_eq!(graph.series()[2], "total{client=shop,server=bank} 4");
    assert_eq!(graph.series()[0], "client_seconds_sum{client=shop,server=bank} 4");
}

#[test]
fn a_full_store_drops_what_is_new_and_counts_it() {
    let mut graph = graph("{max_items: 2}");
    graph.push("shop", &[client(1, &[]), client(2, &[]), client(3, &[])], SECOND);
    graph.push("bank", &[server(1, &[]), server(2, &[]), server(3, &[])], SECOND);
    assert_eq!(graph.series().last().map(String::as_str), Some("total{client=shop,server=bank} 2"));
    assert_eq!((graph.account(), graph.graphs.edges.len()), ((2, 0, 1), 1), "the third server waits in vain");
}

#[test]
fn what_waits_survives_other_options() {
    let mut graph = graph("{}");
    graph.push("shop", &[client(1, &[])], SECOND);
    assert_eq!(graph.graphs.change(options("{histogram_buckets: [1, 2]}")), None);
    assert_eq!(graph.graphs.change(options("{dimensions: [zone]}")), Some(vec![]));
    assert_eq!(graph.graphs.change(options("{dimensions: [region]}")), Some(vec!["zone".to_owned()]));
    assert!(graph.graphs.change(options("{dimensions: [zone]}")).is_some());
    graph.push("bank", &[server(1, &[])], SECOND);
    assert_eq!(graph.series().pop().expect("a total"), "total{client=shop,server=bank,zone=zone-bank} 1");
}

#[test]
fn halves_that_come_minutes_apart_meet() {
    for (keys, account) in [("{}", (1, 1, 0)), ("{wait: 5m}", (1, 0, 0))] {
        let mut graph = graph(keys);
        graph.push("shop", &[client(1, &[])], SECOND);
        graph.expire(180 * SECOND);
        graph.push("bank", &[server(1, &[])], 180 * SECOND);
        graph.expire(900 * SECOND);
        assert_eq!((graph.account(), graph.graphs.edges.len()), (account, 0), "{keys}");
        assert_eq!(graph.series().pop().expect("one"), "total{client=shop,server=bank} 1");
    }
}

/// What has waited long enough is in nobody's way, and is not kept for ever.
#[test]
fn late_halves_make_room_and_are_forgotten() {
    let mut graph = graph("{max_items: 2}");
    graph.push("shop", &[client(1, &[]), client(2, &[])], SECOND);
    graph.expire(20 * SECOND);
    assert_eq!((graph.account(), graph.graphs.edges.len()), ((0, 2, 0), 2));
    graph.push("shop", &[client(3, &[])], 20 * SECOND);
    graph.push("bank", &[server(2, &[]), server(3, &[])], 21 * SECOND);
    assert_eq!((graph.account(), graph.graphs.edges.len()), ((2, 0, 0), 0), "the first one made room for the third");
    graph.push("shop", &[client(4, &[])], 30 * SECOND);
    graph.expire(50 * SECOND);
    graph.push("shop", &[client(4, &[])], 60 * SECOND);
    graph.expire(80 * SECOND);
    graph.expire(600 * SECOND);
    assert_eq!((graph.account(), graph.graphs.edges.len()), ((0, 2, 0), 1), "one that comes again waits again");
    graph.expire(680 * SECOND);
    assert_eq!((graph.account(), graph.graphs.edges.len()), ((0, 0, 0), 0));
}

/// A name is what its attribute's value is as a text.
#[test]
fn names_need_not_be_texts() {
    let number = |key: &str, of: Any| KeyValue { key: key.to_owned(), value: Some(AnyValue { value: Some(of) }) };
    let mut graph = graph("{}");
    graph.push_named(number("service.name", Any::IntValue(7)), &[client(1, &[])], SECOND);
    graph.push_named(number("service.name", Any::BoolValue(true)), &[server(1, &[])], SECOND);
    graph.push("shop", &[client(2, &[number("db.name", Any::IntValue(5))])], SECOND);
    graph.push("shop", &[client(3, &[number("peer.service", Any::DoubleValue(0.5))])], SECOND);
    graph.expire(60 * SECOND);
    let mut series = graph.series();
    series.retain(|series| series.starts_with("total"));
    assert_eq!(
        series,
        [
            "total{client=7,server=true} 1",
            "total{client=shop,connection_type=database,server=5} 1",
            "total{client=shop,connection_type=virtual_node,server=0.5} 1",
        ]
    );
}

/// Two generators have a half each: neither makes up what it did not see, but for a name that the half has itself.
#[test]
fn halves_in_two_generators_are_counted_by_neither() {
    let (mut one, mut other) = (graph("{}"), graph("{}"));
    one.push("shop", &[client(1, &[]), client(2, &[attribute("peer.service", "mail")])], SECOND);
    other.push("bank", &[server(1, &[]), server(2, &[])], SECOND);
    one.expire(60 * SECOND);
    other.expire(60 * SECOND);
    assert_eq!((one.account(), other.account()), ((1, 1, 0), (0, 2, 0)));
    assert_eq!(one.series().pop().expect("one"), "total{client=shop,connection_type=virtual_node,server=mail} 1");
}

/// A message has one producer and perhaps many consumers: the first one completes it.
#[test]
fn a_message_is_counted_once() {
    let mut graph = graph("{}");
    graph.push("shop", &[span(1, KIND_PRODUCER, 1, 9, &[])], SECOND);
    for consumer in ["mail", "stock", "audit"] {
        graph.push(consumer, &[span(1, KIND_CONSUMER, 2, 1, &[])], SECOND);
    }
    graph.expire(60 * SECOND);
    assert_eq!(graph.account(), (1, 1, 0), "consumers after the first are two that nobody sent to");
    assert_eq!(graph.series().pop().expect("one"), "total{client=shop,connection_type=messaging_system,server=mail} 1");
}

#[test]
fn what_waits_is_no_larger_than_labels_are() {
    let large = "é".repeat(500_000);
    let mut graph = graph("{dimensions: [large], peer_attributes: [large], database_name_attributes: [none]}");
    for trace in 1..=200 {
        graph.push(&large, &[client(trace, &[attribute("large", &large)])], SECOND);
    }
    assert_eq!((graph.account(), graph.graphs.edges.len()), ((0, 0, 0), 200), "all of them have room");
    graph.expire(60 * SECOND);
    assert!(graph.series().iter().all(|series| series.len() < 3 * 2048 + 200));
}
