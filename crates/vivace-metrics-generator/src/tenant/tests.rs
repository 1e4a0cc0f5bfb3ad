//! What a tenant's spans become, and what changes when its limits do.

use std::collections::{BTreeMap, BTreeSet};

use prost::Message;
use vivace_config::Config;
use vivace_testkit::{TraceBuilder, attribute};

use super::*;
use crate::collection::Collection;

const NOW: u64 = 1_700_000_000_000_000_000;
const SLACK: u64 = 30_000_000_000;

struct Running {
    tenant: Tenant,
    section: MetricsGenerator,
    collected: u64,
}

impl Running {
    fn new(processor: &str, limits: &str) -> Self {
        let (section, limits) = keys(processor, limits);
        let mut tenant = Tenant::new(&section, Vec::new());
        tenant.follow(&section, &limits);
        Self { tenant, section, collected: 0 }
    }

    fn follow(&mut self, limits: &str) {
        self.tenant.follow(&self.section, &keys("", limits).1);
    }

    fn push(&mut self, trace: TraceBuilder) -> Accounted {
        self.tenant.push(&trace.build().encode_to_vec(), NOW, SLACK).expect("valid")
    }

    /// Last values by name and labels; what has ended is NaN.
    fn series(&mut self) -> BTreeMap<String, f64> {
        self.collected += 1;
        let now = NOW + self.collected * 1_000_000;
        let mut collection = Collection::new(&mut self.tenant.registry, now, 0, "", 100);
        let parts = std::iter::from_fn(|| collection.part(&mut self.tenant.registry));
        let shown = parts.flatten().map(|series| {
            let labels = series.labels.iter().filter(|label| label.name != "__name__");
            let labels: Vec<String> = labels.map(|label| format!("{}={}", label.name, label.value)).collect();
            let name = &series.labels.iter().find(|label| label.name == "__name__").expect("a name").value;
            let value = series.samples.last().map_or(f64::INFINITY, |sample| sample.value);
            (format!("{name}{{{}}}", labels.join(",")), value)
        });
        shown.collect()
    }
}

fn keys(processor: &str, limits: &str) -> (MetricsGenerator, Arc<Limits>) {
    let text = format!("metrics_generator: {{processor: {{{processor}}}}}\noverrides: {{defaults: {{metrics_generator: {{{limits}}}}}}}");
    let (config, _) = Config::parse(&text, "t").expect("it is right");
    (config.metrics_generator, Arc::new(config.overrides.defaults))
}

fn trace() -> TraceBuilder {
    TraceBuilder::new(7, "shop", NOW).span("pay", &[attribute("http.method", "POST")]).span("store", &[]).failed("full")
}

fn names(series: &BTreeMap<String, f64>) -> Vec<&str> {
    let names: BTreeSet<&str> = series.keys().filter_map(|key| key.split('{').next()).collect();
    names.into_iter().collect()
}

const PAY: &str = "service=shop,span_kind=SPAN_KIND_SERVER,span_name=pay,status_code=STATUS_CODE_UNSET";
const STORE: &str = "service=shop,span_kind=SPAN_KIND_INTERNAL,span_name=store,status_code=STATUS_CODE_ERROR";

#[test]
fn spans_become_calls_latency_and_size() {
    let mut tenant = Running::new("span_metrics: {histogram_buckets: [0.002, 0.016, 0.1]}", "processors: [span-metrics]");
    assert_eq!(tenant.push(trace()), Accounted { spans: 2, ..Accounted::default() });
    let series = tenant.series();
    let value = |name: &str, labels: &str| *series.get(&format!("{name}{{{labels}}}")).unwrap_or_else(|| panic!("no {name} {labels}"));
    assert_eq!(value("traces_spanmetrics_calls_total", PAY), 1.0);
    assert_eq!(value("traces_spanmetrics_latency_bucket", &format!("le=0.002,{PAY}")), 0.0);
    assert_eq!(value("traces_spanmetrics_latency_bucket", &format!("le=0.016,{PAY}")), 1.0);
    assert_eq!(value("traces_spanmetrics_latency_bucket", &format!("le=+Inf,{PAY}")), 1.0);
    assert_eq!(value("traces_spanmetrics_latency_sum", STORE), 0.01);
    assert!(value("traces_spanmetrics_size_total", STORE) > 40.0);
    assert_eq!(series.len(), 2 * 8);
}

#[test]
fn attributes_become_labels_of_their_own_or_together() {
    let keys = "span_metrics: {dimensions: [http.method, service, none], intrinsic_dimensions: {service: false, span_kind: false, status_code: false}, \
                dimension_mappings: [{name: what, source_labels: [service.name, none, http.method], join: /}]}";
    let mut tenant = Running::new(keys, "processors: [span-metrics-count]");
    tenant.push(trace());
    let want = ["{http_method=POST,span_name=pay,what=shop/POST}", "{span_name=store,what=shop}"];
    assert_eq!(tenant.series().into_keys().collect::<Vec<_>>(), want.map(|labels| format!("traces_spanmetrics_calls_total{labels}")));
}

#[test]
fn targets_are_described() {
    let keys = "span_metrics: {enable_target_info: true, target_info_excluded_dimensions: [telemetry.sdk.name]}";
    let mut tenant = Running::new(keys, "processors: [span-metrics-count]");
    let mut data = trace().build();
    let own = [("service.namespace", "eu"), ("service.instance.id", "pod-1"), ("job", "x"), ("1st", "x"), ("telemetry.sdk.name", "rust")];
    let resource = data.resource_spans[0].resource.as_mut().expect("a resource");
    resource.attributes.extend(own.map(|(key, value)| attribute(key, value)));
    tenant.tenant.push(&data.encode_to_vec(), NOW, SLACK).expect("valid");
    let series = tenant.series();
    assert_eq!(series["traces_target_info{__job=x,instance=pod-1,job=eu/shop}"], 1.0);
    assert_eq!(series.len(), 3, "of two spans, and the target: {series:?}");
    assert!(series.keys().all(|key| key.contains("instance=pod-1") && key.contains("job=eu/shop")));
}

#[test]
fn hosts_are_named() {
    let mut tenant = Running::new("host_info: {host_identifiers: [host.id, service.name]}", "processors: [host-info]");
    tenant.push(trace());
    assert_eq!(tenant.series().into_keys().collect::<Vec<_>>(), ["traces_host_info{grafana_host_id=shop,host_source=service.name}"]);
}

#[test]
fn spans_far_from_now_are_left_out_of_everything() {
    let mut tenant = Running::new("", "processors: [span-metrics, service-graphs, host-info]");
    let accounted = tenant.push(TraceBuilder::new(7, "shop", NOW - 2 * SLACK).span("pay", &[]));
    assert_eq!(accounted, Accounted { spans: 1, outside_slack: 1, ..Accounted::default() });
    tenant.tenant.expire(u64::MAX);
    assert_eq!(tenant.series(), BTreeMap::new());
}

#[test]
fn what_a_policy_leaves_out_is_counted() {
    let keys = "span_metrics: {filter_policies: [{include: {match_type: strict, attributes: [{key: kind, value: SPAN_KIND_SERVER}]}}]}";
    let mut tenant = Running::new(keys, "processors: [span-metrics]");
    assert_eq!(tenant.push(trace()), Accounted { spans: 2, filtered: 1, ..Accounted::default() });
    assert!(tenant.series().keys().all(|key| key.contains("span_name=pay")));
}

#[test]
fn other_limits_leave_alone_what_stays_the_same() {
    let mut tenant = Running::new("", "processors: [span-metrics, service-graphs, host-info]");
    tenant.push(trace());
    let before = tenant.series();
    assert!(names(&before).contains(&"traces_service_graph_request_total"));

    tenant.follow("processors: [span-metrics-count, service-graphs], max_active_series: 1000");
    let series = tenant.series();
    let (ended, living): (BTreeMap<_, _>, BTreeMap<_, _>) = series.into_iter().partition(|(_, value)| value.is_nan());
    assert!(names(&ended).iter().all(|name| name.starts_with("traces_spanmetrics_latency") || *name == "traces_spanmetrics_size_total"));
    assert_eq!(ended.len(), 2 * (17 + 1), "each once");
    assert!(living.iter().all(|(key, value)| before[key] == *value), "counts go on: {living:?}");

    tenant.follow("processors: [service-graphs], processor: {service_graphs: {dimensions: [http.method]}}");
    tenant.push(trace());
    let series = tenant.series();
    let now = "traces_service_graph_request_total{client=user,connection_type=virtual_node,http_method=POST,server=shop}";
    assert_eq!(series[now], 1.0);
    // Calls without the attribute would still be counted by it.
    let before = "traces_service_graph_request_total{client=user,connection_type=virtual_node,server=shop}";
    assert_eq!(series[before], 1.0);
    let seen: Vec<_> = std::iter::from_fn(|| tenant.series().get(before).copied()).take(10).collect();
    assert!(seen.len() == 5 && seen[4].is_nan(), "there were none in a minute: {seen:?}");
    tenant.follow("processors: []");
    assert!(tenant.series().values().all(|value| value.is_nan()));
    assert_eq!(tenant.series(), BTreeMap::new(), "it is said once");
    assert_eq!(tenant.tenant.registry.active_series(), 0);
}

/// A dimension that is new changes nothing for spans that lack it.
#[test]
fn series_whose_labels_stay_count_on() {
    let mut tenant = Running::new("", "processors: [span-metrics-count, service-graphs]");
    let both = |tenant: &mut Running| {
        tenant.push(trace());
        tenant.push(TraceBuilder::new(8, "plain", NOW).span("pay", &[]));
        tenant.series().into_iter().filter(|(key, _)| key.contains("_total{") && !key.contains("store")).collect::<BTreeMap<_, _>>()
    };
    assert_eq!(both(&mut tenant).len(), 4);
    let with = |processor: &str| format!("processors: [span-metrics-count, service-graphs], processor: {{{processor}}}");
    tenant.follow(&with("span_metrics: {dimensions: [http.method]}, service_graphs: {dimensions: [http.method]}"));
    let series = both(&mut tenant);
    let plain = PAY.replace("shop", "plain");
    let edge = "traces_service_graph_request_total{client=user,connection_type=virtual_node,";
    assert_eq!(series[&format!("traces_spanmetrics_calls_total{{{plain}}}")], 2.0);
    assert_eq!(series[&format!("{edge}server=plain}}")], 2.0);
    assert_eq!(series[&format!("traces_spanmetrics_calls_total{{http_method=POST,{PAY}}}")], 1.0);
    assert_eq!(series[&format!("traces_spanmetrics_calls_total{{{PAY}}}")], 1.0);

    tenant.follow(&with("service_graphs: {dimensions: [http.method]}"));
    let series = both(&mut tenant);
    assert!(series[&format!("traces_spanmetrics_calls_total{{http_method=POST,{PAY}}}")].is_nan(), "the label is gone");
    assert_eq!(series[&format!("traces_spanmetrics_calls_total{{{plain}}}")], 3.0);
    assert_eq!(series[&format!("traces_spanmetrics_calls_total{{{PAY}}}")], 2.0, "it is back in time");
    assert_eq!(series[&format!("{edge}http_method=POST,server=shop}}")], 2.0, "the other processor's options are the same");
}

#[test]
fn text_that_is_no_utf8_is_mended_and_a_broken_span_is_left_out_alone() {
    let trace = TraceBuilder::new(7, "shop", NOW).span("p??", &[]).span("broken", &[attribute("a", "b")]).span("good", &[]).failed("full");
    let mut bytes = trace.build().encode_to_vec();
    let at = |bytes: &[u8], text: &[u8]| bytes.windows(text.len()).position(|window| window == text).expect("there");
    let name = at(&bytes, b"p??");
    bytes[name + 1..name + 3].fill(0xff);
    // The attribute's value is longer than the attribute.
    let value = at(&bytes, &[0x12, 3, 0x0a, 1, b'b']);
    bytes[value + 1] = 0x7f;
    let mut tenant = Running::new("span_metrics: {dimensions: [a]}", "processors: [span-metrics-count]");
    let accounted = tenant.tenant.push(&bytes, NOW, SLACK).expect("still a message");
    assert_eq!(accounted, Accounted { spans: 3, ..Accounted::default() });
    let series = tenant.series();
    for name in ["broken", "good", "p\u{fffd}\u{fffd}"] {
        assert!(series.keys().any(|key| key.contains(&format!("span_name={name},"))), "no {name} in {series:?}");
    }
    let status = at(&bytes, &[0x12, 4, b'f', b'u', b'l', b'l']);
    bytes[status + 1] = 0x7f;
    let accounted = tenant.tenant.push(&bytes, NOW, SLACK).expect("still a message");
    assert_eq!(accounted, Accounted { spans: 3, unreadable: 1, ..Accounted::default() });
}

#[test]
fn the_slack_reaches_both_ways_and_its_ends_are_in() {
    let mut tenant = Running::new("", "processors: [span-metrics-count]");
    let ended = |end: u64| {
        let mut data = TraceBuilder::new(7, "shop", 0).span("pay", &[]).build();
        let span = &mut data.resource_spans[0].scope_spans[0].spans[0];
        (span.start_time_unix_nano, span.end_time_unix_nano) = (end - 1000, end);
        data.encode_to_vec()
    };
    for (end, outside) in [(NOW - SLACK - 1, 1), (NOW - SLACK, 0), (NOW, 0), (NOW + SLACK, 0), (NOW + SLACK + 1, 1)] {
        let accounted = tenant.tenant.push(&ended(end), NOW, SLACK).expect("valid");
        assert_eq!((accounted.spans, accounted.outside_slack), (1, outside), "{}", i128::from(end) - i128::from(NOW));
    }
    // Those that count do so in the collection after they came, whenever they ended.
    assert_eq!(tenant.series().into_values().collect::<Vec<_>>(), [3.0]);
}

#[test]
fn values_beyond_the_limit_of_a_label_become_one() {
    let mut tenant = Running::new("", "processors: [span-metrics-count, service-graphs], max_cardinality_per_label: 2");
    for name in ["a", "b", "c", "d", "a"] {
        tenant.push(TraceBuilder::new(7, "shop", NOW).span(name, &[]));
    }
    let series = tenant.series();
    let value = |name: &str| series.get(&format!("traces_spanmetrics_calls_total{{{}}}", PAY.replace("pay", name))).copied();
    assert_eq!((value("a"), value("b"), value("c")), (Some(2.0), Some(1.0), None));
    assert_eq!(value("__cardinality_overflow__"), Some(2.0));
    assert_eq!(tenant.tenant.registry.take_changes().values_limited, 2);
}

#[test]
fn names_with_ids_become_one() {
    let pushed = |how: &str| {
        let mut tenant = Running::new("", &format!("processors: [span-metrics-count], span_name_sanitization: {how}"));
        for number in 1..=20 {
            tenant.push(TraceBuilder::new(7, "shop", NOW).span(&format!("GET /users/{number}"), &[]));
        }
        let patterned = tenant.tenant.span_metrics.as_ref().expect("it runs").patterned;
        (tenant.series(), patterned)
    };
    let (series, patterned) = pushed("enabled");
    let labels = PAY.replace("pay", "GET /users/<_>");
    assert_eq!(series.into_iter().collect::<Vec<_>>(), [(format!("traces_spanmetrics_calls_total{{{labels}}}"), 20.0)]);
    assert_eq!(patterned, 20);
    let (series, patterned) = pushed("dry_run");
    assert_eq!((series.len(), patterned), (20, 20));
    let (series, patterned) = pushed("''");
    assert_eq!((series.len(), patterned), (20, 0));
}

#[test]
fn the_trace_state_says_how_many_spans_one_stands_for() {
    let mut data = TraceBuilder::new(7, "shop", NOW).span("pay", &[]).build();
    data.resource_spans[0].scope_spans[0].spans[0].trace_state = "vendor=1,ot=th:c".to_owned();
    let bytes = data.encode_to_vec();
    let calls = |processor: &str, limits: &str| {
        let mut tenant = Running::new(processor, &format!("processors: [span-metrics-count, service-graphs]{limits}"));
        tenant.tenant.push(&bytes, NOW, SLACK).expect("valid");
        let series = tenant.series();
        let graph = "traces_service_graph_request_total{client=user,connection_type=virtual_node,server=shop}";
        (series[&format!("traces_spanmetrics_calls_total{{{PAY}}}")], series[graph])
    };
    assert_eq!(calls("", ""), (1.0, 1.0));
    assert_eq!(calls("span_metrics: {enable_tracestate_span_multiplier: true}", ""), (4.0, 1.0));
    assert_eq!(calls("", ", enable_tracestate_span_multiplier: true"), (4.0, 4.0));
    let own = ", enable_tracestate_span_multiplier: true, processor: {span_metrics: {enable_tracestate_span_multiplier: false}}";
    assert_eq!(calls("", own), (1.0, 4.0));
}

#[test]
fn the_demand_is_what_there_would_be_without_a_limit() {
    let pushed = |limits: &str| {
        let mut tenant = Running::new("", &format!("processors: [span-metrics], {limits}"));
        for number in 0..2000 {
            tenant.push(TraceBuilder::new(7, "shop", NOW).span(&format!("name-{number}"), &[]));
        }
        let registry = &tenant.tenant.registry;
        (registry.active_series(), registry.series_demand(), registry.entity_demand())
    };
    let (active, series, entities) = pushed("max_active_series: 0");
    assert_eq!((active, series, entities), (2000 * 19, 38_000.0, 2000.0));
    let (active, series, entities) = pushed("max_active_series: 5000");
    assert!(active <= 5000);
    assert!((series / 38_000.0 - 1.0).abs() < 0.1 && (entities / 2000.0 - 1.0).abs() < 0.1, "{series} {entities}");
}

/// What a client calls its attributes, and what it puts into them, never breaks what is sent.
#[test]
fn hostile_labels_can_be_sent() {
    let keys = ["__name__", "..name..", "le", "metric_overflow", "", "1", "\u{0}", "a b", "a.b", "a_b", "é", "service"];
    let long = "x".repeat(1 << 20);
    let values = ["", "\u{0}\n\u{1b}[31m", "{le=\"1\"}", "\u{ffff}", &long];
    let dimensions = keys.map(|key| serde_json::to_string(key).expect("text")).join(", ");
    let processor =
        format!("span_metrics: {{enable_target_info: true, dimensions: [{dimensions}]}}, service_graphs: {{dimensions: [{dimensions}]}}");
    let mut tenant = Running::new(&processor, "processors: [span-metrics, service-graphs, host-info]");
    for (number, value) in values.iter().enumerate() {
        let attributes: Vec<_> = keys.iter().map(|key| attribute(key, value)).collect();
        let mut data = TraceBuilder::new(number as u64, value, NOW).span(value, &attributes).span(value, &attributes).build();
        data.resource_spans[0].resource.as_mut().expect("a resource").attributes.extend(attributes);
        tenant.tenant.push(&data.encode_to_vec(), NOW, SLACK).expect("valid");
    }
    tenant.tenant.expire(u64::MAX);
    let mut collection = Collection::new(&mut tenant.tenant.registry, NOW, 0, "", 100);
    let series: Vec<_> = std::iter::from_fn(|| collection.part(&mut tenant.tenant.registry)).flatten().collect();
    assert!(series.len() > 100);
    let mut seen = BTreeSet::new();
    for series in &series {
        assert!(series.labels.is_sorted_by(|a, b| a.name < b.name), "sorted, each name once: {:?}", series.labels);
        for label in &series.labels {
            assert!(!label.value.is_empty() && label.value.len() <= 2048);
            let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
            assert!(label.name.chars().all(is_name) && !label.name.starts_with(|c: char| c.is_ascii_digit()), "{:?}", label.name);
        }
        assert!(series.labels[..].iter().any(|label| label.name == "__name__" && label.value.starts_with("traces_")));
        assert!(seen.insert(format!("{:?}", series.labels)), "each once");
    }
}

#[test]
fn what_all_series_have_is_there_once() {
    let given = [("cluster", "a"), ("tenant", "forged"), ("zone", ""), ("tenant", "acme")];
    let given = given.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
    let registry = Registry::new(RegistryLimits::default(), given.clone());
    assert_eq!(registry.constant_labels, [given[0].clone(), given[3].clone()]);
}

/// A metric of another name: the old one ends by its own name.
#[test]
fn a_host_s_series_end_by_the_name_they_had() {
    let mut tenant = Running::new("host_info: {host_identifiers: [service.name]}", "processors: [host-info]");
    tenant.push(trace());
    tenant.series();
    let (section, limits) = keys("host_info: {host_identifiers: [service.name], metric_name: hosts}", "processors: [host-info]");
    tenant.tenant.follow(&section, &limits);
    tenant.push(trace());
    let series = tenant.series();
    let labels = "{grafana_host_id=shop,host_source=service.name}";
    assert!(series[&format!("traces_host_info{labels}")].is_nan(), "{series:?}");
    assert_eq!(series[&format!("hosts{labels}")], 1.0);
}

#[test]
fn thousands_of_other_limits_leave_nothing_behind() {
    let mut tenant = Running::new("", "processors: [span-metrics, service-graphs, host-info]");
    let limits: Vec<Arc<Limits>> = [
        "processors: [span-metrics, service-graphs], max_active_series: 100",
        "processors: [span-metrics-latency], generate_native_histograms: both",
        "processors: [span-metrics], generate_native_histograms: native, max_cardinality_per_label: 1",
        "processors: [service-graphs], processor: {service_graphs: {dimensions: [http.method]}}",
        "processors: [span-metrics], processor: {span_metrics: {histogram_buckets: [1, 2], enable_target_info: true}}",
        "processors: [host-info, span-metrics], span_name_sanitization: enabled",
        "processors: []",
    ]
    .map(|limits| keys("", limits).1)
    .to_vec();
    for number in 0..5000 {
        tenant.tenant.follow(&tenant.section, &limits[number * 7919 % limits.len()]);
        tenant.push(trace());
        if number % 50 == 0 {
            tenant.series();
        }
        assert!(tenant.tenant.registry.ended.len() < 500, "{} series have ended and were not said to", tenant.tenant.registry.ended.len());
    }
    tenant.tenant.follow(&tenant.section, &limits[limits.len() - 1]);
    // Native histograms end in a form of their own.
    assert!(tenant.series().values().all(|value| value.is_nan() || value.is_infinite()));
    assert_eq!((tenant.tenant.registry.active_series(), tenant.tenant.registry.active_entities()), (0, 0));
    assert_eq!(tenant.series(), BTreeMap::new());
}

/// Attributes are read only where a processor asks for them: none may be forgotten.
#[test]
fn each_option_gets_the_attributes_it_asks_for() {
    let keys = ["dimension", "mapped", "share", "let.in", "left.out", "graph", "peer", "base"];
    let all: Vec<_> = keys.iter().map(|key| attribute(key, "x")).collect();
    let mut data = TraceBuilder::new(7, "shop", NOW).span("pay", &all).build();
    let span = &mut data.resource_spans[0].scope_spans[0].spans[0];
    span.kind = 3;
    span.attributes.push(attribute("server.address", "db-1"));
    let share = vivace_proto::otlp::any_value::Value::DoubleValue(0.5);
    span.attributes[2].value = Some(vivace_proto::otlp::AnyValue { value: Some(share) });
    let policies = "[{include: {attributes: [{key: span.let.in, value: x}]}, exclude: {attributes: [{key: resource.left.out, value: x}]}}]";
    let spans = format!(
        "{{dimensions: [dimension], dimension_mappings: [{{name: m, source_labels: [mapped]}}], span_multiplier_key: share, filter_policies: {policies}}}"
    );
    let graphs = "{dimensions: [graph], peer_attributes: [peer], database_name_attributes: [base], span_multiplier_key: share}";
    let processor = format!("span_metrics: {spans}, service_graphs: {graphs}, host_info: {{host_identifiers: [host]}}");
    let mut tenant = Running::new(&processor, "processors: [span-metrics-count, service-graphs, host-info]");
    data.resource_spans[0].resource.as_mut().expect("a resource").attributes.push(attribute("host", "h"));
    tenant.tenant.push(&data.encode_to_vec(), NOW, SLACK).expect("valid");
    let series = tenant.series();
    let calls = "traces_spanmetrics_calls_total{dimension=x,m=x,service=shop,span_kind=SPAN_KIND_CLIENT,span_name=pay,status_code=STATUS_CODE_UNSET}";
    assert_eq!(series.get(calls), Some(&2.0), "{series:?}");
    assert_eq!(
        series.get("traces_service_graph_request_total{client=shop,connection_type=database,graph=x,server=db-1}"),
        Some(&2.0),
        "{series:?}"
    );
    assert_eq!(series.get("traces_host_info{grafana_host_id=h,host_source=host}"), Some(&1.0), "{series:?}");
    data.resource_spans[0].resource.as_mut().expect("a resource").attributes.push(attribute("left.out", "x"));
    assert_eq!(tenant.tenant.push(&data.encode_to_vec(), NOW, SLACK).expect("valid").filtered, 1);
}

/// Receivers refuse a request as a whole for one sample that is older than the one before it.
#[test]
fn samples_of_a_series_are_in_order_whatever_changes() {
    let limits = [
        "processors: [span-metrics, service-graphs]",
        "processors: [span-metrics, service-graphs], processor: {span_metrics: {dimensions: [http.method]}}",
        "processors: [span-metrics, service-graphs], processor: {service_graphs: {dimensions: [http.method]}}",
        "processors: [span-metrics, host-info]",
        "processors: [service-graphs], generate_native_histograms: both",
        "processors: []",
    ]
    .map(|limits| keys("host_info: {host_identifiers: [service.name]}", limits).1);
    let mut tenant = Running::new("host_info: {host_identifiers: [service.name]}", "processors: []");
    let mut last: BTreeMap<String, i64> = BTreeMap::new();
    let mut backs = 0;
    for step in 0..400_u64 {
        let now = NOW + step * 2_000_000_000;
        if step % 3 == 0 {
            tenant.tenant.follow(&tenant.section, &limits[step as usize * 7919 % limits.len()]);
        }
        if step % 7 < 4 {
            tenant.tenant.push(&trace().build().encode_to_vec(), now, u64::MAX).expect("valid");
        }
        let stale_before = now - if step % 11 == 0 { 1_000_000_000 } else { 60_000_000_000 };
        let mut collection = Collection::new(&mut tenant.tenant.registry, now, stale_before, "", 3);
        while let Some(series) = collection.part(&mut tenant.tenant.registry) {
            for series in series {
                let samples = series.samples.iter().map(|sample| sample.timestamp);
                for at in samples.chain(series.histograms.iter().map(|histogram| histogram.timestamp)) {
                    // A native histogram has the name of none of the other series.
                    let before = last.insert(format!("{:?}", series.labels), at);
                    assert!(before.is_none_or(|before| before < at), "step {step}: {at} after {before:?} of {:?}", series.labels);
                    backs += usize::from(before.is_some_and(|before| at == before + 1));
                }
            }
        }
    }
    assert!(backs > 20, "series came back: {backs}");
}
