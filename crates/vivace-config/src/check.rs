//! What no value can know by itself: bounds, relations between keys, and what a process with this target cannot do without. Runs
//! after everything has been read, so that one start names every problem.

use std::collections::{BTreeMap, HashSet};
use std::net::{IpAddr, Ipv6Addr};

use crate::metrics_generator;
use crate::ottl::{Condition, Context};
use crate::reader::Reader;
use crate::{
    Backend, BlockVersion, CacheRole, ColumnScope, ColumnType, Config, CostAttributionLimits, DedicatedColumn, FilterPolicy,
    JaegerReceiver, KafkaConsumer, KafkaReceiver, KvStore, Limits, MatchType, OtlpReceiver, PolicyAttribute, PolicyMatch, Receivers, S3,
    ServiceRing, Target,
};

/// Most packets that may wait in a receiver, most that may be worked on at once, and the largest packet that UDP has, bytes.
const UDP_QUEUE_MAX: usize = 1 << 20;
const UDP_WORKERS_MAX: usize = 1024;
const UDP_PACKET_BYTES_MAX: usize = 65_535;

/// Checks values that stand alone, or that stand beside each other in one block.
pub(crate) fn values(config: &Config, reader: &mut Reader) {
    limits(&config.overrides.defaults, "overrides.defaults", reader);
    prefix(&config.http_api_prefix, "http_api_prefix", reader);
    prefix(&config.server.http_path_prefix, "server.http_path_prefix", reader);
    receivers(&config.distributor.receivers, reader);
    for (key, bytes) in [
        ("grpc_server_max_recv_msg_size", config.server.grpc_server_max_recv_msg_size),
        ("grpc_server_max_send_msg_size", config.server.grpc_server_max_send_msg_size),
    ] {
        if bytes == 0 {
            reader.problem_at(&format!("server.{key}"), "expected a size in bytes; with 0 no process could be told anything".to_owned());
        }
    }
    if config.ingester.lifecycler.ring.replication_factor == 0 {
        reader.problem_at("ingester.lifecycler.ring.replication_factor", "expected at least 1; got 0".to_owned());
    }
    let search = &config.query_frontend.search;
    if search.query_backend_after > search.query_ingesters_until {
        let message = format!(
            "expected at most query_ingesters_until ({}), or spans of that age are found nowhere; got {}",
            crate::format_duration(search.query_ingesters_until),
            crate::format_duration(search.query_backend_after)
        );
        reader.problem_at("query_frontend.search.query_backend_after", message);
    }
    let prometheus = &config.query_frontend.jaeger.prometheus_url;
    if !prometheus.expose().is_empty() && !is_http(prometheus.expose()) {
        let message = format!("expected a URL with http:// or https://; got {:?}", prometheus.masked());
        reader.problem_at("query_frontend.jaeger.prometheus_url", message);
    }
    stores(config, reader);
    blocks(config, reader);
    caches(config, reader);
    forwarders(config, reader);
    let processor = &config.metrics_generator.processor;
    buckets(&processor.span_metrics.histogram_buckets, "metrics_generator.processor.span_metrics.histogram_buckets", reader);
    buckets(&processor.service_graphs.histogram_buckets, "metrics_generator.processor.service_graphs.histogram_buckets", reader);
    policies(&processor.span_metrics.filter_policies, "metrics_generator.processor.span_metrics.filter_policies", reader);
    policies(&processor.service_graphs.filter_policies, "metrics_generator.processor.service_graphs.filter_policies", reader);
    metrics_generator::check(&config.metrics_generator, reader);
    for (index, target) in config.metrics_generator.storage.remote_write.iter().enumerate() {
        let path = format!("metrics_generator.storage.remote_write[{index}]");
        if !is_http(target.url.expose()) {
            let message = format!("expected a URL with http:// or https://; got {:?}", target.url.masked());
            reader.problem_at(&format!("{path}.url"), message);
        }
        crate::remote_write::check(target, &path, reader);
    }
    if config.usage_report.reporting_enabled {
        reader.note_at("usage_report.reporting_enabled", "accepted, without effect: Vivace sends no reports".to_owned());
    }
}

fn is_http(url: &str) -> bool {
    url.starts_with("http://") || url.starts_with("https://")
}

/// The start of paths.
fn prefix(text: &str, path: &str, reader: &mut Reader) {
    if !text.is_empty() && !text.starts_with('/') {
        reader.problem_at(path, format!("expected a path that starts with /; got {text:?}"));
    } else if text.contains(['{', '}', '*']) {
        reader.problem_at(path, format!("expected a plain path; got {text:?}"));
    }
}

/// Whether the listeners of the receivers that are built can be opened, as far as their text says.
fn receivers(receivers: &Receivers, reader: &mut Reader) {
    let endpoints = receivers.endpoints();
    let otlp = receivers.otlp.iter().map(|receiver| (&receiver.id, "grpc or http"));
    let jaeger = receivers.jaeger.iter().map(|receiver| (&receiver.id, "grpc, thrift_http, thrift_compact or thrift_binary"));
    for (id, known) in otlp.chain(jaeger) {
        if !endpoints.iter().any(|endpoint| endpoint.id == id) {
            let path = format!("distributor.receivers.{id}.protocols");
            reader.problem_at(&path, format!("names no protocol, so nothing would be received; expected {known}"));
        }
    }
    for endpoint in &endpoints {
        if host_and_port(endpoint.address).is_none() {
            let message = format!("expected host:port, an IPv6 address in brackets; got {:?}", endpoint.address);
            reader.problem_at(&format!("{}.endpoint", endpoint.path()), message);
        }
    }
    for receiver in &receivers.kafka {
        kafka(receiver, reader);
    }
    for OtlpReceiver { id, protocols } in &receivers.otlp {
        if let Some(http) = &protocols.http
            && (!http.traces_url_path.starts_with('/') || http.traces_url_path.contains(['{', '}', '*']))
        {
            let message = format!("expected a plain path that starts with /; got {:?}", http.traces_url_path);
            reader.problem_at(&format!("distributor.receivers.{id}.protocols.http.traces_url_path"), message);
        }
    }
    for JaegerReceiver { id, protocols } in &receivers.jaeger {
        for (protocol, udp) in [("thrift_compact", &protocols.thrift_compact), ("thrift_binary", &protocols.thrift_binary)] {
            let Some(udp) = udp else { continue };
            for (key, value, max) in [
                ("queue_size", udp.queue_size, UDP_QUEUE_MAX),
                ("workers", udp.workers, UDP_WORKERS_MAX),
                ("max_packet_size", udp.max_packet_size, UDP_PACKET_BYTES_MAX),
            ] {
                if !(1..=max).contains(&value) {
                    let path = format!("distributor.receivers.{id}.protocols.{protocol}.{key}");
                    reader.problem_at(&path, format!("expected 1 to {max}; got {value}"));
                }
            }
        }
    }
}

/// Whether a topic can be read, as far as the text says.
fn kafka(receiver: &KafkaReceiver, reader: &mut Reader) {
    let KafkaReceiver { id, consumer } = receiver;
    let path = |key: &str| format!("distributor.receivers.{id}.{key}");
    if consumer.brokers.is_empty() {
        reader.problem_at(&path("brokers"), "expected at least one broker, host:port; got none".to_owned());
    }
    for broker in consumer.brokers.iter().filter(|broker| host_and_port(broker).is_none()) {
        reader.problem_at(&path("brokers"), format!("expected host:port; got {broker:?}"));
    }
    if consumer.topic().starts_with('^') {
        let key = if consumer.traces.topic.is_empty() { "topic" } else { "traces.topic" };
        reader.problem_at(&path(key), format!("expected the name of one topic; got the pattern {:?}", consumer.topic()));
    }
    if consumer.group_id.is_empty() {
        reader.problem_at(&path("group_id"), "expected a name, without which no offset can be committed; got none".to_owned());
    }
    if consumer.heartbeat_interval.is_zero() || consumer.heartbeat_interval >= consumer.session_timeout {
        let timeout = crate::format_duration(consumer.session_timeout);
        let got = crate::format_duration(consumer.heartbeat_interval);
        reader
            .problem_at(&path("heartbeat_interval"), format!("expected more than 0 and less than session_timeout ({timeout}); got {got}"));
    }
    for (key, bytes) in [("min_fetch_size", consumer.min_fetch_size), ("default_fetch_size", consumer.default_fetch_size)] {
        if bytes == 0 {
            reader.problem_at(&path(key), "expected at least 1; got 0".to_owned());
        }
    }
    if consumer.max_fetch_size > 0 && consumer.max_fetch_size < consumer.min_fetch_size {
        reader.problem_at(
            &path("max_fetch_size"),
            format!("expected at least min_fetch_size ({}); got {}", consumer.min_fetch_size, consumer.max_fetch_size),
        );
    }
    let backoff = &consumer.error_backoff;
    if backoff.multiplier.is_nan() || backoff.multiplier < 1.0 {
        reader.problem_at(&path("error_backoff.multiplier"), format!("expected at least 1; got {}", backoff.multiplier));
    }
    if !(0.0..=1.0).contains(&backoff.randomization_factor) {
        let got = backoff.randomization_factor;
        reader.problem_at(&path("error_backoff.randomization_factor"), format!("expected 0 to 1; got {got}"));
    }
    kafka_identity(consumer, &path, reader);
}

/// Whether what proves who this process is hangs together.
fn kafka_identity(consumer: &KafkaConsumer, path: &dyn Fn(&str) -> String, reader: &mut Reader) {
    let auth = &consumer.auth;
    if auth.plain_text.is_some() && auth.sasl.is_some() {
        reader.problem_at(&path("auth.plain_text"), "expected one of plain_text and sasl; got both".to_owned());
    }
    let users = [
        ("auth.plain_text", auth.plain_text.as_ref().map(|plain| (&plain.username, &plain.password))),
        ("auth.sasl", auth.sasl.as_ref().map(|sasl| (&sasl.username, &sasl.password))),
    ];
    for (key, user) in users {
        if user.is_some_and(|(name, password)| name.is_empty() || password.is_empty()) {
            reader.problem_at(&path(key), "expected username and password; one of them is missing".to_owned());
        }
    }
    let Some((key, tls)) = consumer.tls() else { return };
    let pairs = [("ca", &tls.ca_file, &tls.ca_pem), ("cert", &tls.cert_file, &tls.cert_pem)];
    for (of, file, pem) in pairs {
        if !file.is_empty() && !pem.is_empty() {
            reader.problem_at(&path(&format!("{key}.{of}_pem")), format!("expected one of {of}_file and {of}_pem; got both"));
        }
    }
    let has_key = !tls.key_file.is_empty() || !tls.key_pem.is_empty();
    let has_cert = !tls.cert_file.is_empty() || !tls.cert_pem.is_empty();
    if has_key != has_cert || tls.key_file.is_empty() != tls.cert_file.is_empty() {
        let message = "expected cert_file with key_file, or cert_pem with key_pem; got one without the other";
        reader.problem_at(&path(key), message.to_owned());
    }
}

fn host_and_port(endpoint: &str) -> Option<(&str, u16)> {
    let (host, port) = endpoint.rsplit_once(':')?;
    let is_host = match host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        Some(address) => address.parse::<Ipv6Addr>().is_ok(),
        None => !host.is_empty() && !host.contains([':', '/', '[', ']']),
    };
    Some((host, port.parse().ok().filter(|_| is_host)?))
}

/// Whether two listeners of one process are to have the same port.
fn listeners(config: &Config, reader: &mut Reader) {
    let (server, own) = (&config.server, &config.internal_server);
    let mut open: Vec<(String, &str, u16, bool)> = vec![
        ("server.http_listen_port".to_owned(), &server.http_listen_address, server.http_listen_port, false),
        ("server.grpc_listen_port".to_owned(), &server.grpc_listen_address, server.grpc_listen_port, false),
    ];
    if own.enable {
        open.push(("internal_server.http_listen_port".to_owned(), &own.http_listen_address, own.http_listen_port, false));
    }
    if config.target.includes(Target::Distributor) {
        for endpoint in config.distributor.receivers.endpoints() {
            let Some((host, port)) = host_and_port(endpoint.address) else { continue };
            open.push((format!("{}.endpoint", endpoint.path()), host, port, endpoint.is_udp));
        }
    }
    if config.target.includes(Target::QueryFrontend) {
        // What is on by itself goes without a port that is taken.
        let (jaeger, zipkin) = (&config.query_frontend.jaeger, &config.query_frontend.zipkin);
        if jaeger.enabled == Some(true) {
            let (http, grpc) = (jaeger.http_listen_port, jaeger.grpc_listen_port);
            open.push(("query_frontend.jaeger.http_listen_port".to_owned(), &server.http_listen_address, http, false));
            open.push(("query_frontend.jaeger.grpc_listen_port".to_owned(), &server.grpc_listen_address, grpc, false));
        }
        if zipkin.enabled == Some(true) && !config.zipkin_receiver_has(zipkin.http_listen_port) {
            let key = "query_frontend.zipkin.http_listen_port".to_owned();
            open.push((key, &server.http_listen_address, zipkin.http_listen_port, false));
        }
    }
    let everywhere = |host: &str| matches!(host, "" | "0.0.0.0" | "::" | "[::]");
    for (index, (path, host, port, is_udp)) in open.iter().enumerate() {
        let meets = |(_, other, taken, other_is_udp): &&(String, &str, u16, bool)| {
            port == taken && *port != 0 && is_udp == other_is_udp && (host == other || everywhere(host) || everywhere(other))
        };
        if let Some((other, ..)) = open[..index].iter().find(meets) {
            reader.problem_at(path, format!("port {port} is what {other} listens on already"));
        }
    }
}

/// Membership is by gossip, whatever store Tempo was told to use.
fn stores(config: &Config, reader: &mut Reader) {
    let rings: [(&str, KvStore); 4] = [
        ("distributor.ring", store(&config.distributor.ring)),
        ("ingester.lifecycler.ring", config.ingester.lifecycler.ring.kvstore.store),
        ("metrics_generator.ring", store(&config.metrics_generator.ring)),
        ("compactor.ring", store(&config.compactor.ring)),
    ];
    for (ring, store) in rings {
        if matches!(store, KvStore::Consul | KvStore::Etcd | KvStore::Multi) {
            let message = format!("{store} is not used; the ring is kept by gossip (set memberlist.join_members)");
            reader.advise_at(&format!("{ring}.kvstore.store"), message);
        }
    }
}

fn store(ring: &ServiceRing) -> KvStore {
    ring.kvstore.store
}

fn blocks(config: &Config, reader: &mut Reader) {
    let block = &config.storage.trace.block;
    if block.version != BlockVersion::VParquet4 {
        reader.advise_at(
            "storage.trace.block.version",
            format!("blocks are written as vParquet4, which Tempo 2.x and 3.x read; got {}", block.version),
        );
    }
    let share = block.bloom_filter_false_positive;
    if share <= 0.0 || share >= 1.0 {
        reader.problem_at("storage.trace.block.bloom_filter_false_positive", format!("expected a share above 0 and below 1; got {share}"));
    }
    for (key, bytes) in [
        ("bloom_filter_shard_size_bytes", block.bloom_filter_shard_size_bytes),
        ("parquet_row_group_size_bytes", block.parquet_row_group_size_bytes),
    ] {
        if bytes == 0 {
            reader.problem_at(&format!("storage.trace.block.{key}"), "expected at least 1; got 0".to_owned());
        }
    }
    columns(&block.parquet_dedicated_columns, "storage.trace.block.parquet_dedicated_columns", reader);
}

fn caches(config: &Config, reader: &mut Reader) {
    let mut claimed: HashSet<CacheRole> = HashSet::new();
    for (index, cache) in config.cache.caches.iter().enumerate() {
        let path = format!("cache.caches[{index}]");
        if cache.memcached.is_some() == cache.redis.is_some() {
            reader.problem_at(&path, "expected either memcached or redis".to_owned());
        }
        if cache.roles.is_empty() {
            reader.problem_at(&path, "expected at least one role in roles".to_owned());
        }
        for role in &cache.roles {
            if !claimed.insert(*role) {
                reader.problem_at(&format!("{path}.roles"), format!("role {role} is claimed by another cache already"));
            }
        }
    }
}

fn forwarders(config: &Config, reader: &mut Reader) {
    let mut names = HashSet::new();
    for (index, forwarder) in config.distributor.forwarders.iter().enumerate() {
        let path = format!("distributor.forwarders[{index}]");
        if forwarder.name.is_empty() || !names.insert(&forwarder.name) {
            reader.problem_at(&path, format!("expected a name that no other forwarder has; got {:?}", forwarder.name));
        }
        if forwarder.backend != "otlpgrpc" {
            reader.problem_at(&path, format!("expected backend otlpgrpc; got {:?}", forwarder.backend));
        }
        let filter = &forwarder.filter.traces;
        for (key, context, conditions) in [("span", Context::Span, &filter.span), ("spanevent", Context::Event, &filter.spanevent)] {
            for (index, text) in conditions.iter().enumerate() {
                if let Err(error) = Condition::parse(text, context) {
                    reader.problem_at(&format!("{path}.filter.traces.{key}[{index}]"), format!("{text:?} is no condition: {error}"));
                }
            }
        }
        let client = &forwarder.otlpgrpc;
        if client.endpoints.is_empty() {
            reader.problem_at(&format!("{path}.otlpgrpc.endpoints"), "expected at least one host:port; got none".to_owned());
        }
        for endpoint in &client.endpoints {
            // Users write the scheme too; whether it is TLS says the key for that.
            let address = endpoint.split_once("://").map_or(endpoint.as_str(), |(_, address)| address);
            if host_and_port(address.trim_end_matches('/')).is_none() {
                let message = format!("expected host:port, an IPv6 address in brackets; got {endpoint:?}");
                reader.problem_at(&format!("{path}.otlpgrpc.endpoints"), message);
            }
        }
        if !client.tls.insecure && client.tls.cert_file.is_empty() {
            let message = "expected the file of the certificate that the other side is checked against, or insecure: true for plain text";
            reader.problem_at(&format!("{path}.otlpgrpc.tls.cert_file"), message.to_owned());
        }
    }
}

/// Checks the limits of a tenant, or the defaults, which are at `path`.
pub(crate) fn limits(limits: &Limits, path: &str, reader: &mut Reader) {
    let generator = &limits.metrics_generator;
    if generator.native_histogram_bucket_factor <= 1.0 {
        let message = format!("expected a number above 1; got {}", generator.native_histogram_bucket_factor);
        reader.problem_at(&format!("{path}.metrics_generator.native_histogram_bucket_factor"), message);
    }
    let attribution = &limits.cost_attribution;
    if let Some(bad) = attribution.dimensions.values().find(|label| !label.is_empty() && !CostAttributionLimits::is_label(label)) {
        let message = format!("expected labels that Prometheus takes, but tenant and tracker; nothing is shown, because of {bad:?}");
        reader.advise_at(&format!("{path}.cost_attribution.dimensions"), message);
    }
    processors(&generator.processors, &format!("{path}.metrics_generator.processors"), reader);
    let processor = &generator.processor;
    let (graphs, spans) = (&processor.service_graphs, &processor.span_metrics);
    for (name, bounds, filter) in [
        ("service_graphs", &graphs.histogram_buckets, &graphs.filter_policies),
        ("span_metrics", &spans.histogram_buckets, &spans.filter_policies),
    ] {
        let path = format!("{path}.metrics_generator.processor.{name}");
        buckets(bounds.as_deref().unwrap_or_default(), &format!("{path}.histogram_buckets"), reader);
        policies(filter.as_deref().unwrap_or_default(), &format!("{path}.filter_policies"), reader);
    }
    let at = |name: &str| format!("{path}.metrics_generator.processor.{name}");
    let (dimensions, mappings) = (spans.dimensions.as_deref(), spans.dimension_mappings.as_deref());
    metrics_generator::check_spans(dimensions.unwrap_or_default(), mappings.unwrap_or_default(), &at("span_metrics"), reader);
    let are_prefixed = graphs.enable_client_server_prefix.unwrap_or(false);
    metrics_generator::check_graphs(graphs.dimensions.as_deref().unwrap_or_default(), are_prefixed, &at("service_graphs"), reader);
    columns(&limits.storage.parquet_dedicated_columns, &format!("{path}.storage.parquet_dedicated_columns"), reader);
}

/// Names of processors; an unknown one starts in Tempo too, and makes nothing. What `local-blocks` is for needs no processor.
fn processors(names: &[String], path: &str, reader: &mut Reader) {
    const KNOWN: [&str; 7] =
        ["span-metrics", "span-metrics-count", "span-metrics-latency", "span-metrics-size", "service-graphs", "host-info", "local-blocks"];
    let unknown: Vec<&str> = names.iter().map(String::as_str).filter(|name| !KNOWN.contains(name)).collect();
    if !unknown.is_empty() {
        reader.advise_at(path, format!("{} unknown; there are {}", unknown.join(", "), KNOWN.join(", ")));
    }
}

/// Which spans count: what cannot be understood would count the wrong ones.
fn policies(policies: &[FilterPolicy], path: &str, reader: &mut Reader) {
    for (index, policy) in policies.iter().enumerate() {
        let path = format!("{path}[{index}]");
        let FilterPolicy { include, include_any, exclude } = policy;
        let matches: Vec<&PolicyMatch> = include.iter().chain(include_any).chain(exclude).collect();
        if matches.is_empty() {
            reader.problem_at(&path, "expected include, include_any or exclude; got none of them".to_owned());
        }
        for of in matches {
            for PolicyAttribute { key, value } in &of.attributes {
                let is_known =
                    matches!(key.as_str(), "kind" | "name" | "status") || key.starts_with("resource.") || key.starts_with("span.");
                if !is_known {
                    let message = format!("expected a key that is kind, name, status, or begins with resource. or span.; got {key:?}");
                    reader.problem_at(&path, message);
                }
                if of.match_type == MatchType::Regex
                    && let Err(error) = regex::Regex::new(value)
                {
                    let reason = error.to_string().lines().last().unwrap_or_default().to_owned();
                    reader.problem_at(&path, format!("expected a pattern for {key}; got {value:?}: {reason}"));
                }
            }
        }
    }
}

fn buckets(bounds: &[f64], path: &str, reader: &mut Reader) {
    if let Some(pair) = bounds.windows(2).find(|pair| pair[0] >= pair[1]) {
        reader.problem_at(path, format!("expected bounds that increase; got {} before {}", pair[0], pair[1]));
    }
}

/// At most ten text and five number columns per scope, each attribute once.
fn columns(columns: &[DedicatedColumn], path: &str, reader: &mut Reader) {
    let mut names: HashSet<(ColumnScope, &str)> = HashSet::new();
    let mut counts: BTreeMap<(&str, &str), usize> = BTreeMap::new();
    for (index, column) in columns.iter().enumerate() {
        let path = format!("{path}[{index}]");
        if column.name.is_empty() {
            reader.problem_at(&path, "expected a name".to_owned());
        } else if !names.insert((column.scope, &column.name)) {
            reader.problem_at(&path, format!("{} attribute {:?} has a column already", column.scope, column.name));
        }
        *counts.entry((column.scope.as_str(), column.column_type.as_str())).or_default() += 1;
    }
    for ((scope, column_type), count) in counts {
        let most = if column_type == ColumnType::Int.as_str() { 5 } else { 10 };
        if count > most {
            reader.problem_at(path, format!("expected at most {most} columns of scope {scope} and type {column_type}; got {count}"));
        }
    }
}

/// Checks relations between blocks, for the target that the process runs.
pub(crate) fn relations(config: &Config, reader: &mut Reader) {
    let target = config.target;
    let runs = |services: &[Target]| services.iter().any(|service| target.includes(*service));
    if runs(&[Target::Ingester, Target::Querier, Target::QueryFrontend, Target::Compactor]) {
        bucket(config, reader);
    }
    let trace = &config.storage.trace;
    if runs(&[Target::Ingester]) && trace.wal.path.is_empty() {
        reader.problem_at("storage.trace.wal.path", "is not set; expected a folder for the ingester's log".to_owned());
    }
    if runs(&[Target::Distributor]) && config.distributor.receivers.is_empty() {
        let message = "names only receivers that Vivace does not have, so nothing could be received; add otlp, jaeger, zipkin or kafka";
        reader.problem_at("distributor.receivers", message.to_owned());
    }
    listeners(config, reader);
    // One process alone joins nobody.
    if target != Target::All {
        gossip(config, reader);
    }
    if target == Target::Querier && config.querier.frontend_worker.frontend_address.is_empty() {
        let message = "is not set; expected host:port of the query-frontends' gRPC listener".to_owned();
        reader.problem_at("querier.frontend_worker.frontend_address", message);
    }
    if target == Target::MetricsGenerator && config.metrics_generator.storage.path.is_empty() {
        reader.problem_at("metrics_generator.storage.path", "is not set; expected a folder for the generator".to_owned());
    }
    if trace.backend == Backend::Local && target != Target::All {
        reader.advise_at("storage.trace.backend", format!("local folders are not shared between processes, and this one is {target} only"));
    }
    let poll = trace.blocklist_poll;
    if runs(&[Target::Ingester]) && config.ingester.complete_block_timeout < poll {
        let message = "is shorter than storage.trace.blocklist_poll; a flushed block may be found nowhere for a while".to_owned();
        reader.advise_at("ingester.complete_block_timeout", message);
    }
    if runs(&[Target::Compactor]) {
        let compaction = &config.compactor.compaction;
        for (key, retention) in
            [("block_retention", compaction.block_retention), ("compacted_block_retention", compaction.compacted_block_retention)]
        {
            if retention < poll {
                let message = "is shorter than storage.trace.blocklist_poll; queriers may look for blocks that are deleted".to_owned();
                reader.advise_at(&format!("compactor.compaction.{key}"), message);
            }
        }
    }
    let by_id = &config.query_frontend.trace_by_id;
    if by_id.concurrent_shards > by_id.query_shards {
        let message = format!("is more than query_shards; {} are in flight at most", by_id.query_shards);
        reader.advise_at("query_frontend.trace_by_id.concurrent_shards", message);
    }
}

/// Whether the addresses of the gossip can be understood.
fn gossip(config: &Config, reader: &mut Reader) {
    let memberlist = &config.memberlist;
    // The first one is taken.
    let bound = memberlist.bind_addr.first().map(|address| ("memberlist.bind_addr", address.as_str()));
    for (path, address) in bound.into_iter().chain([("memberlist.advertise_addr", memberlist.advertise_addr.as_str())]) {
        if !address.is_empty() && address.parse::<IpAddr>().is_err() {
            reader.problem_at(path, format!("expected an IP address; got {address:?}"));
        }
    }
    for (index, member) in memberlist.join_members.iter().enumerate() {
        let rest = ["dns+", "dnssrv+", "dnssrvnoa+"].iter().find_map(|prefix| member.strip_prefix(prefix)).unwrap_or(member);
        let (host, port) = match rest.rsplit_once(':') {
            Some((host, port)) if rest.parse::<IpAddr>().is_err() => (host, port.parse::<u16>().is_ok()),
            _ => (rest, true),
        };
        if !port || host.trim_matches(['[', ']']).is_empty() {
            let message = format!("expected host:port, dns+host:port or dnssrv+name; got {member:?}");
            reader.problem_at(&format!("memberlist.join_members[{index}]"), message);
        }
    }
}

/// What a start would find wrong with the bucket's keys without asking it.
fn s3(s3: &S3, reader: &mut Reader) {
    let at = |key: &str| format!("storage.trace.s3.{key}");
    let endpoint = s3.endpoint.trim().trim_end_matches('/');
    let host = endpoint.split_once("://").map_or(endpoint, |(_, host)| host);
    if endpoint.contains("://") && !endpoint.starts_with("http://") && !endpoint.starts_with("https://") || host.contains('/') {
        reader.problem_at(&at("endpoint"), format!("expected host or host:port, the bucket has a key of its own; got {endpoint:?}"));
    }
    if s3.bucket_lookup_type > 2 {
        let message = format!("expected 0 (automatic), 1 (host name) or 2 (path); got {}", s3.bucket_lookup_type);
        reader.problem_at(&at("bucket_lookup_type"), message);
    }
    if !matches!(s3.sse.kind.as_str(), "" | "SSE-S3" | "SSE-KMS") {
        reader.problem_at(&at("sse.type"), format!("expected SSE-S3, SSE-KMS or nothing; got {:?}", s3.sse.kind));
    }
    if s3.tls_cert_path.is_empty() != s3.tls_key_path.is_empty() {
        reader.problem_at(&at("tls_cert_path"), "expected both tls_cert_path and tls_key_path, or neither".to_owned());
    }
    if s3.tls_min_version == "VersionTLS13" {
        let message = "cannot be VersionTLS13 yet: TLS 1.2 is accepted too, and it would not be safe to go on as if it were not";
        reader.problem_at(&at("tls_min_version"), message.to_owned());
    }
}

/// Whether the bucket is named at all.
fn bucket(config: &Config, reader: &mut Reader) {
    let trace = &config.storage.trace;
    let (key, value, what) = match trace.backend {
        Backend::Unset => {
            if !reader.is_refused("storage.trace.backend") {
                reader.problem_at("storage.trace.backend", "is not set; expected local, s3, gcs or azure".to_owned());
            }
            return;
        }
        Backend::Local => ("local.path", &trace.local.path, "a folder for blocks"),
        Backend::S3 => ("s3.bucket", &trace.s3.bucket, "the name of a bucket"),
        Backend::Gcs => ("gcs.bucket_name", &trace.gcs.bucket_name, "the name of a bucket"),
        Backend::Azure => ("azure.container_name", &trace.azure.container_name, "the name of a container"),
    };
    if value.is_empty() {
        reader.problem_at(&format!("storage.trace.{key}"), format!("is not set; expected {what}, as the backend is {}", trace.backend));
    }
    match trace.backend {
        Backend::S3 => s3(&trace.s3, reader),
        Backend::Azure if trace.azure.storage_account_name.is_empty() => {
            let message = "is not set; expected the name of an account, as the backend is azure".to_owned();
            reader.problem_at("storage.trace.azure.storage_account_name", message);
        }
        _ => {}
    }
}
