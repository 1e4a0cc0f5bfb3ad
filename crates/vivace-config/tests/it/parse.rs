use std::time::Duration;

use vivace_config::flags::Flags;
use vivace_config::{Backend, Config, KvStore, Target, Warning, WarningKind, expand};

const CONFIGS: [(&str, &str); 7] = [
    ("minimal-single-binary", include_str!("testdata/configs/minimal-single-binary.yaml")),
    ("blog-s3", include_str!("testdata/configs/blog-s3.yaml")),
    ("distributed-chart", include_str!("testdata/configs/distributed-chart.yaml")),
    ("single-chart", include_str!("testdata/configs/single-chart.yaml")),
    ("recording-2.10", include_str!("testdata/configs/recording-2.10.yaml")),
    ("recording-3", include_str!("testdata/configs/recording-3.yaml")),
    ("tempo-1.5", include_str!("testdata/configs/tempo-1.5.yaml")),
];

/// Reads a file as a process does that was started with `flags`.
#[track_caller]
pub(crate) fn load(yaml: &str, flags: &[&str]) -> (Config, Vec<Warning>) {
    let lookup = |name: &str| match name {
        "DATA" => Some("/tmp/data".to_owned()),
        name if name.ends_with("_PORT") => Some(port(name)),
        name if name.ends_with("_DURATION") || name.ends_with("_AFTER") || name.ends_with("_UNTIL") => Some("30s".to_owned()),
        _ => None,
    };
    let yaml = expand(yaml, &lookup).expect("the text expands");
    let flags = Flags::parse(flags).expect("the flags are right");
    Config::load(Some((&yaml, "tempo.yaml")), &flags).unwrap_or_else(|errors| panic!("{errors}"))
}

/// A port of its own for each name.
fn port(name: &str) -> String {
    (10_000 + name.bytes().fold(0, |sum, byte| (sum * 31 + u32::from(byte)) % 10_000)).to_string()
}

#[test]
fn streaming_is_always_on() {
    for value in ["true", "false"] {
        let yaml = format!(
            "stream_over_http_enabled: {value}\nquery_frontend: {{metrics: {{max_duration: 1h}}}}\nstorage: {{trace: {{backend: local, local: {{path: /b}}}}}}"
        );
        assert_eq!(load(&yaml, &[]).1, [], "{value}");
    }
}

#[test]
fn files_of_tempo_load() {
    for (name, yaml) in CONFIGS {
        let flags = Flags::parse(["-mem-ballast-size-mbs=1024"]).expect("the flags are right");
        let loaded = expand(yaml, &|name| Some(if name.ends_with("PORT") { port(name) } else { "30s".to_owned() }));
        let loaded = Config::load(Some((&loaded.expect("it expands"), name)), &flags);
        let (_, warnings) = loaded.unwrap_or_else(|errors| panic!("{errors}"));
        for warning in &warnings {
            assert!(warning.path.starts_with('-') || warning.line > 0, "{name}: {warning}");
        }
        let paths: Vec<_> = warnings.iter().map(|warning| &warning.path).collect();
        let mut once = paths.clone();
        once.sort();
        once.dedup();
        assert_eq!(paths.len(), once.len(), "{name} warns of each key once");
    }
}

#[test]
fn the_blog_s_snippet_is_fine_as_it_is() {
    let (config, warnings) = load(include_str!("testdata/configs/blog-s3.yaml"), &[]);
    assert_eq!(warnings, []);
    let grpc = config.distributor.receivers.otlp[0].protocols.grpc.as_ref().expect("a name alone switches it on");
    assert_eq!(grpc.endpoint, "0.0.0.0:4317");
    assert!(config.distributor.receivers.otlp[0].protocols.http.is_none());
    assert_eq!(config.storage.trace.wal.path, "/var/tempo/wal");
}

#[test]
fn the_chart_s_file_means_what_it_says() {
    let (config, warnings) = load(include_str!("testdata/configs/distributed-chart.yaml"), &["-target=ingester"]);
    assert!(warnings.iter().all(|warning| warning.kind == WarningKind::NoEffect), "{warnings:?}");
    assert_eq!(config.target, Target::Ingester);
    assert_eq!(config.ingester.lifecycler.ring.replication_factor, 3);
    assert_eq!(config.memberlist.join_members, ["dns+tempo-gossip-ring:7946"]);
    assert_eq!(config.storage.trace.backend, Backend::S3);
    assert!(config.storage.trace.s3.insecure && config.storage.trace.s3.tls_insecure_skip_verify);
    assert_eq!(config.storage.trace.s3.secret_key.expose(), "supersecret");
    assert_eq!(config.compactor.compaction.block_retention, Duration::from_secs(48 * 3600));
}

#[test]
fn old_keys_are_taken_or_named() {
    let (config, warnings) = load(include_str!("testdata/configs/tempo-1.5.yaml"), &[]);
    assert_eq!(config.distributor.max_attribute_bytes, 1024);
    assert_eq!(config.storage.trace.azure.container_name, "c");
    let limits = &config.overrides.defaults;
    assert_eq!((limits.ingestion.rate_limit_bytes, limits.ingestion.burst_size_bytes), (1000, 20_000_000));
    assert_eq!(limits.metrics_generator.processors, ["span-metrics"]);
    assert_eq!(limits.metrics_generator.processor.span_metrics.dimensions.as_deref(), Some(&["http.method".to_owned()][..]));
    for path in ["search_enabled", "distributor.max_span_attr_byte", "querier.search.prefer_self", "overrides.max_search_bytes_per_trace"] {
        assert!(warnings.iter().any(|warning| warning.path == path), "{path} is warned of");
    }
}

#[test]
fn all_forms_of_yaml_and_keys_of_later_versions_load_and_no_secret_is_shown() {
    let (config, _) = load(include_str!("testdata/configs/everything-else.yaml"), &[]);
    assert!(config.is_multitenant());
    assert_eq!(config.server.grpc_server_max_recv_msg_size, 16 << 20);
    assert_eq!(config.metrics_generator.ring.kvstore.store, KvStore::Inmemory);
    assert_eq!(config.metrics_generator.ring.instance_addr, "127.0.0.1");
    assert_eq!(config.overrides.defaults.read.max_search_duration, Duration::from_secs(14 * 86400));
    let receivers = &config.distributor.receivers;
    let endpoints: Vec<_> = receivers.otlp.iter().map(|otlp| otlp.protocols.grpc.as_ref().map(|grpc| grpc.endpoint.as_str())).collect();
    assert_eq!(endpoints, [Some("0.0.0.0:4317"), Some("0.0.0.0:5317")]);
    assert_eq!(receivers.zipkin[0].http.endpoint, "0.0.0.0:9411");
    assert_eq!(receivers.jaeger[0].protocols.thrift_compact.as_ref().map(|udp| udp.endpoint.as_str()), Some("0.0.0.0:6831"));
    for shown in [config.to_yaml(), config.to_yaml_diff(), format!("{config:?}")] {
        assert!(!shown.contains("hunter2"), "{shown}");
        assert!(shown.contains("<secret>"));
    }
}

#[test]
fn a_block_without_content_keeps_its_defaults() {
    let yaml = "server:\ncompactor:\nquery_frontend: ~\nstorage: {trace: {backend: local, local: {path: /tmp/b}, block: null, pool:, wal: {path: }}}\ndistributor: {receivers: }\n";
    let (config, warnings) = load(yaml, &[]);
    assert_eq!(config.server, Config::default().server);
    assert_eq!(config.compactor, Config::default().compactor);
    assert_eq!(config.storage.trace.wal.path, "/var/tempo/wal");
    let otlp = &config.distributor.receivers.otlp[0].protocols;
    assert_eq!(otlp.grpc.as_ref().map(|grpc| grpc.endpoint.as_str()), Some("0.0.0.0:4317"));
    assert_eq!(otlp.http.as_ref().map(|http| http.endpoint.as_str()), Some("0.0.0.0:4318"));
    assert_eq!(warnings, []);
}

#[test]
fn no_file_at_all_is_a_working_default() {
    let (config, warnings) = Config::load(None, &Flags::default()).expect("the default is right");
    assert_eq!(config.target, Target::All);
    assert_eq!(config.storage.trace.backend, Backend::Local);
    assert_eq!(config.storage.trace.local.path, "./vivace-data/blocks");
    assert_eq!(config.ingester.lifecycler.ring.replication_factor, 1);
    assert_eq!(warnings, []);
}

#[test]
fn what_is_shown_can_be_read_again() {
    for (name, yaml) in CONFIGS {
        let (config, _) = load(yaml, &[]);
        let shown = config.to_yaml();
        let (again, _) = Config::parse(&shown, name).unwrap_or_else(|errors| panic!("{errors}\n{shown}"));
        assert_eq!(again.to_yaml(), shown, "{name}");
    }
}

#[test]
fn the_difference_to_the_defaults_is_short() {
    let (config, _) = Config::parse("server: {http_listen_port: 3100}\nstorage: {trace: {s3: {secret_key: a}}}", "t").expect("it is right");
    assert_eq!(config.to_yaml_diff(), "server:\n  http_listen_port: 3100\nstorage:\n  trace:\n    s3:\n      secret_key: <secret>\n");
}

#[test]
fn only_the_first_document_is_read() {
    let (config, _) = Config::parse("---\nhttp_api_prefix: /tempo\n---\nwhat: ever\n", "t").expect("it is right");
    assert_eq!(config.http_api_prefix, "/tempo");
}
