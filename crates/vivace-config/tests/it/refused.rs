//! What a process must not start with: keys of security that are not built, and what could not work.

use vivace_config::flags::Flags;
use vivace_config::{Config, KafkaEncoding, Problem, Warning};

const STORE: &str = "storage: {trace: {backend: local, local: {path: /b}}}\n";

#[track_caller]
fn problems(yaml: &str, flags: &[&str]) -> Vec<Problem> {
    let flags = Flags::parse(flags).expect("the flags are right");
    match Config::load(Some((yaml, "t")), &flags) {
        Ok(_) => panic!("accepted:\n{yaml}"),
        Err(errors) => errors.problems,
    }
}

#[test]
fn security_that_is_not_built_is_refused_by_key_and_line() {
    for (key, yaml) in [
        ("server.grpc_tls_config", "server:\n  grpc_tls_config: {client_auth_type: RequireAndVerifyClientCert}"),
        ("internal_server.http_tls_config", "internal_server:\n  http_tls_config: {cert_file: /c, key_file: /k}"),
        ("server.cluster_validation.grpc.enabled", "server: {cluster_validation: {grpc: {\n  enabled: true}}}"),
        ("server.cluster_validation.http.enabled", "server: {cluster_validation: {http: {\n  enabled: true}}}"),
        ("ingester_client.grpc_client_config.tls_enabled", "ingester_client: {grpc_client_config: {\n  tls_enabled: true}}"),
        (
            "metrics_generator_client.grpc_client_config.tls_enabled",
            "metrics_generator_client: {grpc_client_config: {\n  tls_enabled: true}}",
        ),
        (
            "querier.frontend_worker.grpc_client_config.tls_enabled",
            "querier: {frontend_worker: {grpc_client_config: {\n  tls_enabled: true}}}",
        ),
        ("memberlist.tls_enabled", "memberlist:\n  tls_enabled: true"),
        (
            "distributor.receivers.otlp.protocols.grpc.auth",
            "distributor: {receivers: {otlp: {protocols: {grpc: {\n  auth: {authenticator: a}}}}}}",
        ),
        (
            "distributor.receivers.otlp.protocols.http.auth",
            "distributor: {receivers: {otlp: {protocols: {http: {\n  auth: {authenticator: a}}}}}}",
        ),
        (
            "metrics_generator.storage.remote_write[0].azuread",
            "metrics_generator: {storage: {remote_write: [{url: 'https://a',\n  azuread: {cloud: c}}]}}",
        ),
        (
            "metrics_generator.storage.remote_write[0].google_iam",
            "metrics_generator: {storage: {remote_write: [{url: 'https://a',\n  google_iam: {credentials_file: c}}]}}",
        ),
        (
            "metrics_generator.storage.remote_write[0].sigv4.use_fips_sts_endpoint",
            "metrics_generator: {storage: {remote_write: [{url: 'https://a', sigv4: {\n  use_fips_sts_endpoint: true}}]}}",
        ),
    ] {
        let found = problems(&format!("{yaml}\n{STORE}"), &[]);
        let [problem] = &found[..] else { panic!("{yaml}: {found:?}") };
        assert_eq!((problem.path.as_str(), problem.line), (key, 2), "{problem}");
        assert!(problem.message.contains("is not supported yet, and it would not be safe"), "{problem}");
    }
    for (key, keys) in [
        ("tls_cipher_suites", "tls_cipher_suites: TLS_AES_128_GCM_SHA256"),
        ("tls_server_name", "tls_server_name: a"),
        ("sse.encryption_key", "sse: {type: SSE-S3, encryption_key: a}"),
        ("sse.type", "sse: {type: SSE-C}"),
        ("tls_min_version", "tls_min_version: VersionTLS13"),
        ("tls_cert_path", "tls_cert_path: /c"),
    ] {
        let found = problems(&format!("storage: {{trace: {{backend: s3, s3: {{bucket: b, {keys}}}}}}}"), &[]);
        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!(found[0].path, format!("storage.trace.s3.{key}"));
    }
    let found = problems(STORE, &["-server.grpc-tls-config.cert-file=/c", "-memberlist.tls-enabled=true"]);
    assert_eq!(
        found.iter().map(|problem| problem.path.as_str()).collect::<Vec<_>>(),
        ["-server.grpc-tls-config.cert-file", "-memberlist.tls-enabled"]
    );
}

#[test]
fn security_keys_at_their_defaults_ask_for_nothing() {
    let yaml = "
server: {http_tls_config: {cert_file: '', key_file: '', client_auth_type: ''}, grpc_tls_config: {}, cluster_validation: {grpc: {enabled: false}}}
internal_server: {http_tls_config: {}}
memberlist: {tls_enabled: false}
ingester_client: {grpc_client_config: {tls_enabled: false}}
distributor: {receivers: {otlp: {protocols: {grpc: {tls: null}}}}}
";
    let (_, warnings) = Config::load(Some((&format!("{yaml}{STORE}"), "t")), &Flags::default()).unwrap_or_else(|errors| panic!("{errors}"));
    assert_eq!(warnings, []);
    // What does not run needs no protection.
    let idle = "distributor: {receivers: {opencensus: {tls: {cert_file: /c}}, otlp/2: {protocols: {grpc: {endpoint: 'a:1'}}}}}\n";
    let (_, warnings) = Config::load(Some((&format!("{idle}{STORE}"), "t")), &Flags::default()).unwrap_or_else(|errors| panic!("{errors}"));
    assert_eq!(
        warnings.iter().map(ToString::to_string).collect::<Vec<_>>(),
        ["line 1: distributor.receivers.opencensus: accepted, without effect: Vivace has no OpenCensus, nothing listens there, and spans \
             that are sent there are lost; send OTLP"]
    );
}

#[test]
fn a_process_that_could_receive_nothing_says_so() {
    let census = "distributor:\n  receivers: {opencensus: {endpoint: '127.0.0.1:55678'}}\n";
    for target in ["all", "distributor"] {
        let found = problems(&format!("{census}{STORE}"), &[&format!("-target={target}")]);
        assert_eq!(
            found[0].to_string(),
            "line 2: distributor.receivers: names only receivers that Vivace does not have, so nothing could be received; add otlp, jaeger, zipkin or kafka"
        );
    }
    let flags = Flags::parse(["-target=compactor"]).expect("it is right");
    Config::load(Some((&format!("{census}{STORE}"), "t")), &flags).unwrap_or_else(|errors| panic!("{errors}"));
    for receiver in ["otlp", "jaeger"] {
        let found = problems(&format!("distributor: {{receivers: {{{receiver}: {{protocols: {{}}}}}}}}\n{STORE}"), &[]);
        assert!(found[0].to_string().contains(&format!("distributor.receivers.{receiver}.protocols: names no protocol")), "{found:?}");
    }
    let zipkin = "distributor: {receivers: {zipkin: {endpoint: '127.0.0.1:9411'}}}\n";
    let (_, warnings) =
        Config::load(Some((&format!("{zipkin}{STORE}"), "t")), &Flags::default()).unwrap_or_else(|errors| panic!("{errors}"));
    assert_eq!(warnings, []);
}

#[test]
fn a_receiver_of_messages_is_enough() {
    let (config, warnings) = load("kafka: {}");
    assert_eq!(warnings, []);
    let kafka = &config.distributor.receivers.kafka[0].consumer;
    assert_eq!((kafka.topic(), kafka.encoding(), kafka.tls()), ("otlp_spans", KafkaEncoding::OtlpProto, None));
    assert_eq!(kafka.brokers, ["localhost:9092"]);
    assert!(config.distributor.receivers.otlp.is_empty());

    let (config, warnings) = load(
        "kafka/2: {topic: old, encoding: jaeger_json, traces: {encoding: zipkin_json}, auth: {plain_text: {username: u, password: hunter2}}, \
         max_partition_fetch_size: 5, message_marking: {after: false, on_error: true}, metadata: {full: false, retry: {max: 1}}}",
    );
    let kafka = &config.distributor.receivers.kafka[0].consumer;
    assert_eq!((kafka.topic(), kafka.encoding(), kafka.default_fetch_size), ("old", KafkaEncoding::ZipkinJson, 5));
    let said = warnings.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n");
    assert!(said.contains("message_marking.after: accepted, without effect: this is always on in Vivace"), "{said}");
    assert!(said.contains("kafka/2.metadata.retry.max: accepted, without effect"), "{said}");
    assert!(said.contains("this key is now called default_fetch_size"), "{said}");
    assert!(!config.to_yaml().contains("hunter2"), "{}", config.to_yaml());
}

#[test]
fn tls_that_is_named_is_on() {
    for tls in ["", "{}", "{insecure_skip_verify: true}"] {
        let (config, _) = load(&format!("kafka: {{tls: {tls}}}"));
        assert!(config.distributor.receivers.kafka[0].consumer.tls().is_some(), "{tls}");
    }
    let (config, _) = load("kafka: {auth: {tls: {ca_file: /ca}}}");
    assert_eq!(config.distributor.receivers.kafka[0].consumer.tls().map(|(key, _)| key), Some("auth.tls"));
    let (config, _) = load("kafka: {tls: {insecure: true}}");
    assert_eq!(config.distributor.receivers.kafka[0].consumer.tls(), None);
}

/// A configuration with these receivers, and what is said of it.
fn load(receivers: &str) -> (Config, Vec<Warning>) {
    let yaml = format!("distributor: {{receivers: {{{receivers}}}}}\n{STORE}");
    Config::load(Some((&yaml, "t")), &Flags::default()).unwrap_or_else(|errors| panic!("{errors}"))
}

#[test]
fn what_no_topic_can_be_read_with_is_refused_by_name() {
    for (kafka, want) in [
        ("brokers: []", "kafka.brokers: expected at least one broker, host:port; got none"),
        ("brokers: [kafka]", "kafka.brokers: expected host:port; got \"kafka\""),
        ("traces: {topic: '^spans-.*'}", "kafka.traces.topic: expected the name of one topic; got the pattern \"^spans-.*\""),
        ("topic: '^a'", "kafka.topic: expected the name of one topic; got the pattern \"^a\""),
        (
            "traces: {encoding: raw}",
            "kafka.traces.encoding: expected otlp_proto, otlp_json, jaeger_proto, jaeger_json, zipkin_proto, zipkin_json",
        ),
        ("initial_offset: newest", "kafka.initial_offset: expected latest or earliest; got \"newest\""),
        ("group_id: ''", "kafka.group_id: expected a name, without which no offset can be committed; got none"),
        ("heartbeat_interval: 10s", "kafka.heartbeat_interval: expected more than 0 and less than session_timeout (10s); got 10s"),
        ("min_fetch_size: 0", "kafka.min_fetch_size: expected at least 1; got 0"),
        ("max_fetch_size: 5, min_fetch_size: 6", "kafka.max_fetch_size: expected at least min_fetch_size (6); got 5"),
        ("error_backoff: {multiplier: 0.5}", "kafka.error_backoff.multiplier: expected at least 1; got 0.5"),
        ("error_backoff: {randomization_factor: 2}", "kafka.error_backoff.randomization_factor: expected 0 to 1; got 2"),
        ("auth: {kerberos: {realm: r}}", "kafka.auth.kerberos: is not supported yet"),
        ("auth: {sasl: {username: u, password: p, mechanism: AWS_MSK_IAM_OAUTHBEARER}}", "kafka.auth.sasl.mechanism: expected PLAIN, "),
        ("auth: {sasl: {username: u}}", "kafka.auth.sasl: expected username and password; one of them is missing"),
        (
            "auth: {plain_text: {username: u, password: p}, sasl: {username: u, password: p}}",
            "kafka.auth.plain_text: expected one of plain_text and sasl; got both",
        ),
        ("tls: {min_version: '1.3'}", "kafka.tls.min_version: is not supported yet"),
        ("tls: {ca_file: /a, ca_pem: b}", "kafka.tls.ca_pem: expected one of ca_file and ca_pem; got both"),
        ("tls: {cert_file: /a}", "kafka.tls: expected cert_file with key_file, or cert_pem with key_pem; got one without the other"),
        ("auth: {tls: {key_pem: a}}", "kafka.auth.tls: expected cert_file with key_file"),
        ("traces: {topics: [a]}", "kafka.traces.topics: unknown key; did you mean topic?"),
    ] {
        let found = problems(&format!("distributor: {{receivers: {{kafka: {{{kafka}}}}}}}\n{STORE}"), &[]);
        let told = found.iter().map(ToString::to_string).collect::<Vec<_>>();
        assert!(told.len() == 1 && told[0].contains(want), "{kafka}: {told:?}");
    }
}

#[test]
fn receivers_of_other_protocols_are_checked_as_those_of_otlp_are() {
    for (receivers, want) in [
        (
            "zipkin: {endpoint: '9411'}",
            "distributor.receivers.zipkin.endpoint: expected host:port, an IPv6 address in brackets; got \"9411\"",
        ),
        (
            "jaeger: {protocols: {thrift_compact: {workers: 0}}}",
            "distributor.receivers.jaeger.protocols.thrift_compact.workers: expected 1 to 1024; got 0",
        ),
        (
            "jaeger: {protocols: {thrift_binary: {max_packet_size: 70000}}}",
            "distributor.receivers.jaeger.protocols.thrift_binary.max_packet_size: expected 1 to 65535; got 70000",
        ),
        (
            "jaeger: {protocols: {thrift_http: {endpoint: 'a:9411'}}}, zipkin: ",
            "distributor.receivers.zipkin.endpoint: port 9411 is what distributor.receivers.jaeger.protocols.thrift_http.endpoint listens on already",
        ),
        (
            "jaeger: {protocols: {thrift_compact: }}, jaeger/2: {protocols: {thrift_compact: }}",
            "port 6831 is what distributor.receivers.jaeger.protocols.thrift_compact.endpoint listens on already",
        ),
    ] {
        let found = problems(&format!("distributor: {{receivers: {{{receivers}}}}}\n{STORE}"), &[]);
        assert!(found[0].to_string().contains(want), "{found:?}");
    }
    // Packets and connections have ports of their own.
    let both = "distributor: {receivers: {jaeger: {protocols: {thrift_compact: {endpoint: 'a:1'}, grpc: {endpoint: 'a:1'}}}}}\n";
    Config::load(Some((&format!("{both}{STORE}"), "t")), &Flags::default()).unwrap_or_else(|errors| panic!("{errors}"));
}

#[test]
fn what_a_start_would_trip_over_is_known_before() {
    for (yaml, flags, want) in [
        ("http_api_prefix: tempo", "all", "http_api_prefix: expected a path that starts with /; got \"tempo\""),
        ("http_api_prefix: /{tempo}", "all", "http_api_prefix: expected a plain path; got \"/{tempo}\""),
        ("server: {http_path_prefix: tempo}", "all", "server.http_path_prefix: expected a path that starts with /; got \"tempo\""),
        (
            "distributor: {receivers: {otlp: {protocols: {grpc: {endpoint: '4317'}}}}}",
            "all",
            "otlp.protocols.grpc.endpoint: expected host:port, an IPv6 address in brackets; got \"4317\"",
        ),
        (
            "distributor: {receivers: {otlp: {protocols: {grpc: {endpoint: '::1:4317'}}}}}",
            "all",
            "an IPv6 address in brackets; got \"::1:4317\"",
        ),
        (
            "distributor: {receivers: {otlp: {protocols: {grpc: {endpoint: 'http://0.0.0.0:4317'}}}}}",
            "all",
            "an IPv6 address in brackets; got \"http://0.0.0.0:4317\"",
        ),
        (
            "distributor: {forwarders: [{name: a, backend: otlpgrpc, otlpgrpc: {endpoints: [a], tls: {insecure: true}}}]}",
            "all",
            "distributor.forwarders[0].otlpgrpc.endpoints: expected host:port, an IPv6 address in brackets; got \"a\"",
        ),
        (
            "distributor: {forwarders: [{name: a, backend: otlpgrpc, otlpgrpc: {endpoints: ['a:1'], tls: {insecure: true}}, \
             filter: {traces: {span: ['name ='], spanevent: ['name == \"a\"']}}}]}",
            "all",
            "distributor.forwarders[0].filter.traces.span[0]: \"name =\" is no condition: at byte 5: expected ==",
        ),
        ("server: {grpc_server_max_recv_msg_size: 0}", "all", "server.grpc_server_max_recv_msg_size: expected a size in bytes"),
        (
            "distributor: {receivers: {otlp: {protocols: {http: {endpoint: 'a:http'}}}}}",
            "all",
            "otlp.protocols.http.endpoint: expected host:port, an IPv6 address in brackets; got \"a:http\"",
        ),
        (
            "distributor: {receivers: {otlp: {protocols: {grpc: {endpoint: 'a:1'}, http: {endpoint: 'a:1'}}}}}",
            "all",
            "port 1 is what distributor.receivers.otlp.protocols.grpc.endpoint listens on already",
        ),
        (
            "distributor: {receivers: {otlp: {protocols: {http: {traces_url_path: traces}}}}}",
            "all",
            "http.traces_url_path: expected a plain path that starts with /; got \"traces\"",
        ),
        (
            "server: {http_listen_port: 4317}",
            "all",
            "distributor.receivers.otlp.protocols.grpc.endpoint: port 4317 is what server.http_listen_port listens on already",
        ),
        (
            "server: {grpc_listen_port: 3200}",
            "compactor",
            "server.grpc_listen_port: port 3200 is what server.http_listen_port listens on already",
        ),
        (
            "query_frontend: {jaeger: {enabled: true, http_listen_port: 3200}}",
            "query-frontend",
            "query_frontend.jaeger.http_listen_port: port 3200 is what server.http_listen_port listens on already",
        ),
        (
            "query_frontend: {zipkin: {enabled: true, http_listen_port: 4318}}",
            "all",
            "query_frontend.zipkin.http_listen_port: port 4318 is what distributor.receivers.otlp.protocols.http.endpoint listens on already",
        ),
        (
            "query_frontend: {jaeger: {prometheus_url: 'prometheus:9090'}}",
            "all",
            "query_frontend.jaeger.prometheus_url: expected a URL with http:// or https://; got \"prometheus:9090\"",
        ),
        ("memberlist: {bind_addr: [localhost]}", "distributor", "memberlist.bind_addr: expected an IP address; got \"localhost\""),
        ("memberlist: {advertise_addr: localhost}", "distributor", "memberlist.advertise_addr: expected an IP address; got \"localhost\""),
        (
            "memberlist: {join_members: ['a:x']}",
            "distributor",
            "memberlist.join_members[0]: expected host:port, dns+host:port or dnssrv+name; got \"a:x\"",
        ),
    ] {
        let found = problems(&format!("{yaml}\n{STORE}"), &[&format!("-target={flags}")]);
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].to_string().contains(want), "{}", found[0]);
        assert!(found[0].line == 1 || yaml.starts_with("server: {http_listen_port"), "{}", found[0]);
    }
    let found = problems("a: [", &[]);
    assert!(found.len() == 1 && found[0].to_string().contains("this is not YAML"), "what else is missing is missing for this: {found:?}");
    let v6 = "distributor: {receivers: {otlp: {protocols: {grpc: {endpoint: '[::1]:4317'}}}}}\n";
    Config::load(Some((&format!("{v6}{STORE}"), "t")), &Flags::default()).unwrap_or_else(|errors| panic!("{errors}"));
    let labels = "overrides: {defaults: {cost_attribution: {dimensions: {service.name: tenant}}}}\n";
    let (_, warnings) =
        Config::load(Some((&format!("{labels}{STORE}"), "t")), &Flags::default()).unwrap_or_else(|errors| panic!("{errors}"));
    assert!(warnings[0].to_string().contains("cost_attribution.dimensions: expected labels that Prometheus takes"), "{warnings:?}");
    let yaml = "memberlist: {join_members: ['a:1', a, 'dns+a:1', 'dnssrv+_gossip._tcp.a', '::1', '[::1]:1']}\n";
    let flags = Flags::parse(["-target=distributor"]).expect("it is right");
    Config::load(Some((&format!("{yaml}{STORE}"), "t")), &flags).unwrap_or_else(|errors| panic!("{errors}"));
    let found = problems("storage: {trace: {backend: azure, azure: {container_name: c}}}", &[]);
    assert!(found[0].to_string().contains("storage.trace.azure.storage_account_name: is not set"), "{found:?}");
}
