//! Files of Tempo from 1.x to 3.x: complete ones of their defaults, and keys that came and went.

use vivace_config::flags::Flags;
use vivace_config::{Config, Warning, WarningKind};

const HISTORICAL: &str = include_str!("testdata/configs/historical.yaml");

fn warnings(name: &str, yaml: &str) -> Vec<Warning> {
    let (_, warnings) = Config::load(Some((yaml, name)), &Flags::default()).unwrap_or_else(|errors| panic!("{errors}"));
    warnings
}

#[test]
fn complete_files_of_every_version_start() {
    for (name, yaml) in [
        ("1.x", include_str!("testdata/configs/complete-1.yaml")),
        ("2.0", include_str!("testdata/configs/complete-2.0.yaml")),
        ("2.10", include_str!("testdata/configs/complete-2.10.yaml")),
        ("3.x", include_str!("testdata/configs/complete-3.yaml")),
    ] {
        Config::parse(yaml, name).unwrap_or_else(|errors| panic!("{errors}"));
        let mut paths: Vec<String> = warnings(name, yaml).into_iter().map(|warning| warning.path).collect();
        let all = paths.len();
        paths.sort();
        paths.dedup();
        assert_eq!(paths.len(), all, "{name} warns of each key once");
    }
}

#[test]
fn each_historical_key_gives_one_warning_that_says_what_to_do() {
    let warnings = warnings("historical.yaml", HISTORICAL);
    let keys: Vec<(usize, &str)> = HISTORICAL
        .lines()
        .enumerate()
        .filter(|(_, line)| line.contains(": ") && line.contains("# "))
        .map(|(at, line)| (at + 1, line))
        .collect();
    assert!(keys.len() > 40, "{}", keys.len());
    for (line, text) in keys {
        let said: Vec<&Warning> = warnings.iter().filter(|warning| warning.line == line).collect();
        assert_eq!(said.len(), 1, "line {line}, {text}: {said:?}");
        let said = said[0];
        let advises = ["remove it", "set ", "is now called", "vParquet4", "move "].iter().any(|what| said.message.contains(what));
        assert!(advises, "line {line}, {text}: {said}");
    }
    for (path, kind, message) in [
        ("autocomplete_filtering_enabled", WarningKind::NoEffect, "removed after Tempo 2.5"),
        (
            "storage.trace.s3.insecure_skip_verify",
            WarningKind::Advice,
            "this key is now called tls_insecure_skip_verify; its value is taken",
        ),
        ("storage.trace.azure.buffer-size", WarningKind::NoEffect, "without effect in Vivace: this key is now called buffer_size"),
        ("querier.frontend_worker.scheduler_address", WarningKind::NoEffect, "set querier.frontend_worker.frontend_address"),
        (
            "compactor.compaction.chunk_size_bytes",
            WarningKind::NoEffect,
            "without effect in Vivace: this key is now called v2_in_buffer_bytes",
        ),
    ] {
        let said = warnings.iter().find(|warning| warning.path == path).unwrap_or_else(|| panic!("{path} is not warned of: {warnings:#?}"));
        assert!(said.kind == kind && said.message.contains(message), "{said:?}");
    }
}

#[test]
fn a_cluster_name_as_2_10_prints_it_is_nothing() {
    let yaml = "server: {cluster_validation: {label: '', additional_labels: '', grpc: {enabled: false}}}\nstorage: {trace: {backend: local, local: {path: /b}}}";
    assert_eq!(warnings("t", yaml).iter().filter(|warning| warning.path.ends_with("enabled")).count(), 0);
}

#[test]
fn flags_of_every_version_are_known() {
    for flag in [
        "server.http-listen-port=1",
        "server.grpc-listen-port=1",
        "log.level=info",
        "multitenancy.enabled",
        "auth.enabled",
        "http-api-prefix=/a",
        "shutdown-delay=0s",
        "enable-go-runtime-metrics",
        "mem-ballast-size-mbs=1",
        "mutex-profile-fraction=0",
        "block-profile-threshold=0",
        "memberlist.host-port=a:1",
        "memberlist.bind-port=1",
        "memberlist.message-history-buffer-bytes=0",
        "storage.trace.backend=local",
        "storage.trace.local.path=/b",
        "storage.trace.wal.path=/w",
        "storage.trace.blocklist_poll=5m",
        "storage.trace.s3.bucket=b",
        "storage.trace.s3.prefix=p",
        "storage.trace.s3.endpoint=e",
        "storage.trace.s3.access_key=a",
        "storage.trace.s3.secret_key=s",
        "storage.trace.s3.session_token=t",
        "storage.trace.s3.tls_min_version=VersionTLS12",
        "storage.trace.s3.list_blocks_concurrency=3",
        "storage.trace.s3.sse.type=SSE-S3",
        "storage.trace.s3.sse.kms-key-id=k",
        "storage.trace.s3.sse.kms-encryption-context={}",
        "storage.trace.gcs.bucket=b",
        "storage.trace.gcs.prefix=p",
        "storage.trace.gcs.list_blocks_concurrency=3",
        "storage.trace.gcs.max_retries=3",
        "storage.trace.azure.storage_account_name=a",
        "storage.trace.azure.storage_account_key=k",
        "storage.trace.azure.container_name=c",
        "storage.trace.azure.prefix=p",
        "storage.trace.azure.endpoint=e",
        "storage.trace.azure.max_buffers=4",
        "storage.trace.pool.max-workers=400",
        "storage.trace.pool.queue-depth=20000",
        "ingester.trace-idle-period=5s",
        "ingester.max-block-duration=30m",
        "ingester.max-block-bytes=1",
        "ingester.complete-block-timeout=15m",
        "ingester.availability-zone=a",
        "distributor.rate-limit-strategy=local",
        "distributor.ingestion-rate-limit-bytes=1",
        "distributor.ingestion-burst-size-bytes=1",
        "ingester.max-traces-per-user=1",
        "ingester.max-global-traces-per-user=1",
        "ingester.max-bytes-per-trace=1",
        "querier.max-bytes-per-tag-values-query=1",
        "querier.max-blocks-per-tag-values-query=1",
        "querier.frontend-address=a:1",
        "compactor.disabled",
        "compactor.compaction.compaction.block-retention=1h",
        "compactor.compaction.compaction.compaction-window=1h",
        "compactor.compaction.compaction.max-block-bytes=1",
        "compactor.compaction.compaction.max-objects-per-block=1",
        "compactor.compaction.block-retention=1h",
        "compactor.compaction.compaction-window=1h",
        "compactor.compaction.max-block-bytes=1",
        "compactor.compaction.max-objects-per-block=1",
        "distributor.log-received-spans.enabled=false",
        "distributor.log-received-spans.include-attributes",
        "distributor.log-received-spans.filter-by-status-error",
        "distributor.log-discarded-spans.enabled",
        "distributor.log-received-traces",
        "config.per-user-override-config=f",
        "config.per-user-override-period=10s",
        "reporting.enabled=false",
        "reporting.backoff-min-period=1s",
        "metrics-generator.native-histogram-bucket-factor=1.1",
        "metrics-generator.native-histogram-max-bucket-number=100",
        "metrics-generator.native-histogram-min-reset-duration=15m",
        "search.enabled",
        "metrics-generator.enabled=true",
        "use-otel-tracer",
        "backend-scheduler.poll-interval=1m",
        "backend-worker.x=1",
        "block-builder.x=1",
        "live-store.x=1",
        "ingest.kafka.topic=t",
        "distributor.ring.consul.hostname=h",
        "distributor.ring.etcd.endpoints=e",
        "distributor.ring.multi.primary=a",
        "generatorstore=a",
        "config.enable-legacy-overrides",
    ] {
        let flags = Flags::parse([format!("-{flag}")]).unwrap_or_else(|error| panic!("{error}"));
        let loaded = Config::load(None, &flags);
        loaded.unwrap_or_else(|errors| panic!("-{flag}: {errors}"));
    }
    let flags = Flags::parse(["-storage.trace.gcs.bucket=b", "-distributor.log-received-traces=true"]).expect("both are known");
    let (config, warnings) = Config::load(None, &flags).expect("both are taken");
    assert_eq!(config.storage.trace.gcs.bucket_name, "b");
    let said: Vec<String> = warnings.iter().map(ToString::to_string).collect();
    assert_eq!(
        said,
        ["-distributor.log-received-traces: accepted, without effect: removed in Tempo 2.1; use -distributor.log-received-spans.enabled"]
    );
}

#[test]
fn what_is_no_flag_is_ignored_with_a_warning() {
    let flags = Flags::parse(["/tempo", "-target=all", "-"]).expect("they are ignored");
    let (_, warnings) = Config::load(None, &flags).expect("it starts");
    let said: Vec<String> = warnings.iter().map(ToString::to_string).collect();
    let why = "is ignored: everything is set by flags, such as -config.file=tempo.yaml";
    assert_eq!(said, [format!("argument \"/tempo\" {why}"), format!("argument \"-\" {why}")]);
}
