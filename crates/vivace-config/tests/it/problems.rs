use vivace_config::Config;
use vivace_config::flags::Flags;

#[track_caller]
fn reports(yaml: &str, want: &str) {
    let errors = Config::load(Some((yaml, "tempo.yaml")), &Flags::default()).expect_err("something is wrong");
    assert_eq!(errors.to_string(), want.trim(), "\n--- got:\n{errors}\n");
}

#[test]
fn everything_wrong_is_reported_at_once() {
    reports(
        r#"
server:
  http_listen_prot: 3200
  http_listen_port: "3200"
  log_level: Info
ingester:
  max_block_byts: 6.5
  max_block_bytes: 6.5
  trace_idle_period: 5 parsecs
  lifecycler:
    replication_factor: 3
memberlist:
  join_members: a:7946
  join_members: [b:7946]
compactor: [a]
distributor:
  receivers:
    oltp: {protocols: {grpc: }}
    otlp: {protocols: {gprc: }}
stream_over_http_enabled: "true"
storage:
  trace:
    backend: S3
nonsense: 1
query_frontend: {search: {query_backend_after: 1h}}
"#,
        "
tempo.yaml: 17 problems
  line 3: server.http_listen_prot: unknown key; did you mean http_listen_port?
  line 4: server.http_listen_port: expected a whole number from 0 to 65535; got the quoted text \"3200\"
  line 5: server.log_level: expected info, debug, warn or error; got \"Info\"; did you mean info?
  line 7: ingester.max_block_byts: unknown key; did you mean max_block_bytes?
  line 8: ingester.max_block_bytes: expected a whole number that is not negative; got \"6.5\"
  line 9: ingester.trace_idle_period: expected a duration such as 30s, 5m or 1h30m; got \"5 parsecs\", whose unit is none of ns, us, ms, s, m, h, d, w and y
  line 11: ingester.lifecycler.replication_factor: unknown key here; there is ingester.lifecycler.ring.replication_factor
  line 13: memberlist.join_members: expected a list, such as [a, b]; got \"a:7946\"
  line 14: join_members: this key is already set in line 13
  line 15: compactor: expected a block with keys such as disabled, ring, compaction, override_ring_key; got a list
  line 18: distributor.receivers.oltp: unknown key; did you mean otlp?
  line 19: distributor.receivers.otlp.protocols: names no protocol, so nothing would be received; expected grpc or http
  line 19: distributor.receivers.otlp.protocols.gprc: unknown key; did you mean grpc?
  line 20: stream_over_http_enabled: expected true or false without quotes; got the quoted text \"true\"
  line 23: storage.trace.backend: expected local, s3, gcs or azure; got \"S3\"; did you mean s3?
  line 24: nonsense: unknown key; expected target, multitenancy_enabled, auth_enabled, http_api_prefix, stream_over_http_enabled, shutdown_delay, enable_go_runtime_metrics, partition_ring_live_store, ... (32 in all)
  line 25: query_frontend.search.query_backend_after: expected at most query_ingesters_until (30m0s), or spans of that age are found nowhere; got 1h0m0s
",
    );
}

#[test]
fn what_is_missing_is_named() {
    reports(
        "target: querier\n",
        "
tempo.yaml: 2 problems
  storage.trace.backend: is not set; expected local, s3, gcs or azure
  querier.frontend_worker.frontend_address: is not set; expected host:port of the query-frontends' gRPC listener
",
    );
    reports(
        "storage:\n  trace:\n    backend: s3\n",
        "
tempo.yaml: 1 problem
  line 2: storage.trace.s3.bucket: is not set; expected the name of a bucket, as the backend is s3
",
    );
}

#[test]
fn broken_yaml_names_its_line() {
    for yaml in ["a: [1,\n", "server:\n\tport: 1\n", "a: b: c\n", "{{{{", "a: *nothing\n", "? [a]\n: b\n"] {
        let errors = Config::parse(yaml, "t").expect_err(yaml);
        assert!(errors.problems.iter().any(|problem| problem.line > 0), "{yaml:?}: {errors}");
    }
    let deep = "[".repeat(100_000);
    Config::parse(&deep, "t").expect_err("nested too deeply");
}

#[test]
fn relations_within_lists_name_the_item() {
    reports(
        "
storage: {trace: {backend: local, local: {path: /tmp}}}
cache:
  caches:
    - roles: [bloom]
      memcached: {host: a}
    - roles: [bloom]
metrics_generator:
  storage:
    remote_write:
      - url: prometheus:9090
overrides:
  defaults:
    storage:
      parquet_dedicated_columns:
        - {name: a, scope: span}
        - {name: a, scope: span}
",
        "
tempo.yaml: 4 problems
  line 7: cache.caches[1]: expected either memcached or redis
  line 7: cache.caches[1].roles: role bloom is claimed by another cache already
  line 11: metrics_generator.storage.remote_write[0].url: expected a URL with http:// or https://; got \"prometheus:9090\"
  line 17: overrides.defaults.storage.parquet_dedicated_columns[1]: span attribute \"a\" has a column already
",
    );
}

/// A policy that is misunderstood would count the wrong spans, the general one and a tenant's.
#[test]
fn policies_that_cannot_be_understood_are_refused() {
    let policies = "[{include: {attributes: [{key: http.method, value: GET}]}}, {}, \
                    {exclude: {match_type: regex, attributes: [{key: span.url, value: '('}, {key: kind, value: '.*'}]}}]";
    let at = |processor: &str, policies: &str| format!("{{processor: {{{processor}: {{filter_policies: {policies}}}}}}}");
    let errors = |yaml: &str| {
        let errors = Config::load(Some((yaml, "t")), &Flags::default()).expect_err("something is wrong").to_string();
        errors.lines().skip(1).map(|line| line.split_once(".filter_policies").map_or(line, |(_, rest)| rest).to_owned()).collect::<Vec<_>>()
    };
    let want = [
        r#"[0]: expected a key that is kind, name, status, or begins with resource. or span.; got "http.method""#,
        "[1]: expected include, include_any or exclude; got none of them",
        r#"[2]: expected a pattern for span.url; got "(": error: unclosed group"#,
    ];
    let wrong = |yaml: String| {
        let found = errors(&format!("{yaml}\nstorage: {{trace: {{backend: local, local: {{path: /a}}, wal: {{path: /b}}}}}}"));
        assert_eq!(found.iter().filter(|line| line.starts_with('[')).map(String::as_str).collect::<Vec<_>>(), want, "{found:#?}");
    };
    for processor in ["span_metrics", "service_graphs"] {
        wrong(format!("metrics_generator: {}", at(processor, policies)));
        wrong(format!("overrides: {{defaults: {{metrics_generator: {}}}}}", at(processor, policies)));
    }
}

#[test]
fn a_receiver_of_metrics_is_checked_by_key() {
    for (keys, said) in [
        ("basic_auth: {username: a}, bearer_token: b", ": expected one way to authenticate; got basic_auth, bearer_token"),
        ("tls_config: {ca: a, ca_file: b}", ".tls_config: expected ca or ca_file; got both"),
        ("tls_config: {cert_file: a}", ".tls_config: expected both a certificate and its key, or neither"),
        ("tls_config: {min_version: '1.3'}", ".tls_config.min_version: expected TLS12 or TLS13; got \"1.3\""),
        ("tls_config: {max_version: TLS11}", ".tls_config.max_version: leaves no version that is spoken"),
        ("no_proxy: a", ".no_proxy: without proxy_url there is no proxy to go around"),
        ("proxy_url: 'http://p', proxy_from_environment: true", ": expected proxy_from_environment, or proxy_url and no_proxy; got both"),
        ("oauth2: {client_id: a}", ".oauth2: expected client_id and token_url"),
        ("oauth2: {client_id: a, token_url: 'http://b', tls_config: {key: a}}", ".oauth2.tls_config: expected both a certificate"),
        ("sigv4: {access_key: a}", ".sigv4: expected both access_key and secret_key, or neither"),
        ("protobuf_message: io.prometheus.write.v2.Request", ".protobuf_message: expected prometheus.WriteRequest"),
        ("write_relabel_configs: [{action: keep}, {}]", ".write_relabel_configs[1].target_label: is not set; the action replace needs it"),
    ] {
        let yaml = format!("metrics_generator: {{storage: {{remote_write: [{{url: 'https://a', {keys}}}]}}}}");
        let error = Config::parse(&yaml, "t").expect_err(keys).to_string();
        assert!(error.contains(&format!("metrics_generator.storage.remote_write[0]{said}")), "{error}");
        assert!(error.contains("1 problem") || error.lines().count() == 2, "one problem each: {error}");
    }
}

/// A series with two labels of one name would be refused, and with it all that is sent together.
#[test]
fn labels_that_series_have_already_are_told_of() {
    let said_of = |yaml: &str| match Config::parse(yaml, "t") {
        Ok((_, warnings)) => warnings.iter().map(ToString::to_string).collect::<Vec<_>>(),
        Err(errors) => errors.to_string().lines().skip(1).map(str::to_owned).collect(),
    };
    for (yaml, want) in [
        ("metrics_generator: {registry: {external_labels: {le: a}}}", "registry.external_labels: expected another label than __name__, le"),
        ("metrics_generator: {registry: {inject_tenant_id_as: __name__}}", "registry.inject_tenant_id_as: expected another label than"),
        ("metrics_generator: {registry: {external_labels: {a: b}, inject_tenant_id_as: a}}", "\"a\" is in external_labels too"),
        ("metrics_generator: {processor: {span_metrics: {dimensions: [a, --name--]}}}", "that of \"--name--\" is called ____name__"),
        (
            "metrics_generator: {processor: {span_metrics: {dimension_mappings: [{name: le}]}}}",
            "dimension_mappings: series have a label le",
        ),
        (
            "metrics_generator: {processor: {service_graphs: {dimensions: [le]}}}",
            "service_graphs.dimensions: series have a label le already",
        ),
    ] {
        let said = said_of(yaml);
        assert!(said.len() == 1 && said[0].contains(want), "{yaml}: {said:?}");
        if let Some(processor) = yaml.strip_prefix("metrics_generator: {processor") {
            let of_tenant = format!("overrides: {{defaults: {{metrics_generator: {{processor{processor}}}}}");
            let said = said_of(&of_tenant);
            assert!(said.len() == 1 && said[0].contains(want), "{of_tenant}: {said:?}");
        }
    }
    let prefixed = "metrics_generator: {processor: {service_graphs: {dimensions: [le], enable_client_server_prefix: true}}}";
    assert_eq!(said_of(prefixed), [""; 0]);
}
