//! What no value can know by itself: bounds, relations between keys, and what a process with this target cannot do without. Runs
//! after everything has been read, so that one start names every problem.

mod limits;
mod receivers;
mod storage;

use std::net::IpAddr;

use crate::metrics_generator;
use crate::reader::Reader;
use crate::{Backend, Config, KvStore, ServiceRing, Target};

pub(crate) use self::limits::limits;
use self::limits::{buckets, policies};
use self::receivers::{forwarders, listeners, receivers};
use self::storage::{blocks, bucket, caches};

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
