//! Ports and addresses: what listens, and where copies of spans go.

use std::collections::HashSet;
use std::net::Ipv6Addr;

use crate::ottl::{Condition, Context};
use crate::reader::Reader;
use crate::{Config, JaegerReceiver, KafkaConsumer, KafkaReceiver, OtlpReceiver, Receivers, Target};

/// Most packets that may wait in a receiver, most that may be worked on at once, and the largest packet that UDP has, bytes.
const UDP_QUEUE_MAX: usize = 1 << 20;
const UDP_WORKERS_MAX: usize = 1024;
const UDP_PACKET_BYTES_MAX: usize = 65_535;

/// Whether the listeners of the receivers that are built can be opened, as far as their text says.
pub(super) fn receivers(receivers: &Receivers, reader: &mut Reader) {
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
pub(super) fn listeners(config: &Config, reader: &mut Reader) {
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

pub(super) fn forwarders(config: &Config, reader: &mut Reader) {
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
