//! `distributor.receivers`, in the collector's form. Vivace has OTLP, Jaeger, Zipkin and Kafka; OpenCensus is read and not started.
//! Ids such as `otlp/2`, and protocols that their bare name switches on, are more than `section!` can do, so this block is
//! read by hand.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_yaml::Value as Yaml;

use crate::node::Node;
use crate::reader::{Entry, Reader};
use crate::section::section;
use crate::value::{Effect, Secret, Value, default, secs, text};
use crate::{CollectorTls, Ignored, KafkaConsumer, KafkaReceiver};

/// `distributor.receivers`: the protocols that are listened for, one entry per id (`otlp`, `otlp/2`).
///
/// A protocol that is named without an endpoint listens on every interface (Tempo: on loopback only).
/// The default, also for an empty or null block, is OTLP over gRPC on 4317 and over HTTP on 4318.
#[derive(Clone, Debug, PartialEq)]
pub struct Receivers {
    /// OTLP.
    pub otlp: Vec<OtlpReceiver>,
    /// Jaeger.
    pub jaeger: Vec<JaegerReceiver>,
    /// Zipkin.
    pub zipkin: Vec<ZipkinReceiver>,
    /// Kafka.
    pub kafka: Vec<KafkaReceiver>,
    /// OpenCensus receivers, by id: accepted, never started.
    pub ignored: Vec<(String, Ignored)>,
}

impl Default for Receivers {
    fn default() -> Self {
        let protocols = OtlpProtocols { grpc: Some(GrpcReceiver::on(4317)), http: Some(OtlpHttpReceiver::default()) };
        Self { otlp: vec![OtlpReceiver { id: text("otlp"), protocols }], jaeger: vec![], zipkin: vec![], kafka: vec![], ignored: vec![] }
    }
}

/// A receiver of OTLP.
#[derive(Clone, Debug, PartialEq)]
pub struct OtlpReceiver {
    /// Its key in the file, such as `otlp` or `otlp/2`.
    pub id: String,
    /// What it listens for.
    pub protocols: OtlpProtocols,
}

/// A receiver of Jaeger's protocols.
#[derive(Clone, Debug, PartialEq)]
pub struct JaegerReceiver {
    /// Its key in the file.
    pub id: String,
    /// What it listens for.
    pub protocols: JaegerProtocols,
}

/// A receiver of Zipkin's protocol.
#[derive(Clone, Debug, PartialEq)]
pub struct ZipkinReceiver {
    /// Its key in the file.
    pub id: String,
    /// The listener.
    pub http: ZipkinHttp,
}

section! {
    /// `otlp.protocols`: what is listened for; null or `{}` switches a protocol on with its defaults.
    pub struct OtlpProtocols {
        /// OTLP over gRPC, by default on 0.0.0.0:4317.
        used grpc: Option<GrpcReceiver> = None;
        /// OTLP over HTTP, by default on 0.0.0.0:4318.
        used http: Option<OtlpHttpReceiver> = None;
    }
}

section! {
    /// `jaeger.protocols`.
    pub struct JaegerProtocols {
        /// gRPC, by default on 0.0.0.0:14250.
        used grpc: Option<GrpcReceiver> = None;
        /// Thrift over HTTP, by default on 0.0.0.0:14268.
        used thrift_http: Option<HttpReceiver> = None;
        /// Compact thrift over UDP, by default on 0.0.0.0:6831.
        used thrift_compact: Option<UdpReceiver> = None;
        /// Binary thrift over UDP, by default on 0.0.0.0:6832.
        used thrift_binary: Option<UdpReceiver> = None;
    }
}

section! {
    /// A gRPC listener, in the collector's form.
    pub struct GrpcReceiver {
        /// `host:port`.
        used endpoint: String = String::new();
        /// `tcp` or `unix`.
        idle transport: String = text("tcp");
        /// TLS; absent is plain text.
        used tls: Option<CollectorTls> = None;
        /// Largest message, in MiB; 0 is the limit of the `server` block.
        used max_recv_msg_size_mib: u64 = 0;
        /// Open streams per connection; 0 is 200.
        used max_concurrent_streams: u32 = 0;
        /// Read buffer, in bytes.
        idle read_buffer_size: u64 = 512 << 10;
        /// Write buffer, in bytes.
        idle write_buffer_size: u64 = 0;
        /// Pings and ages of connections.
        used keepalive: Keepalive = default();
        /// Authentication extension.
        refused auth: Ignored = default();
        /// Whether metadata is passed on; always so here.
        always include_metadata: bool = true;
        /// Middleware extensions.
        idle middlewares: Ignored = default();
        /// Origins allowed (opencensus).
        idle cors_allowed_origins: Vec<String> = vec![];
    }
}

section! {
    /// `keepalive`: pings and ages of a gRPC listener's connections.
    pub struct Keepalive {
        /// What this side does.
        used server_parameters: KeepaliveServer = default();
        /// What is asked of clients.
        used enforcement_policy: KeepaliveEnforcement = default();
    }
}

section! {
    /// `keepalive.server_parameters`; 0 is the default of gRPC's servers.
    pub struct KeepaliveServer {
        /// How long a connection may idle; 0 is no limit.
        used max_connection_idle: Duration = Duration::ZERO;
        /// How old a connection may become; 0 is no limit.
        used max_connection_age: Duration = Duration::ZERO;
        /// Time for open calls once a connection is too old; 0 is no limit.
        used max_connection_age_grace: Duration = Duration::ZERO;
        /// Pause before an idle connection is pinged; 0 is two hours.
        used time: Duration = Duration::ZERO;
        /// Longest wait for the answer to such a ping; 0 is 20 seconds.
        used timeout: Duration = Duration::ZERO;
    }
}

section! {
    /// `keepalive.enforcement_policy`.
    pub struct KeepaliveEnforcement {
        /// Shortest pause a client must leave between pings.
        idle min_time: Duration = Duration::ZERO;
        /// Whether clients may ping without an open call; always so here.
        always permit_without_stream: bool = false;
    }
}

section! {
    /// An HTTP listener, in the collector's form.
    pub struct HttpReceiver {
        /// `host:port`.
        used endpoint: String = String::new();
        /// TLS; absent is plain text.
        used tls: Option<CollectorTls> = None;
        /// Requests from web pages.
        used cors: Cors = default();
        /// Authentication extension.
        refused auth: Ignored = default();
        /// Largest body, in bytes.
        used max_request_body_size: u64 = 20 << 20;
        /// Whether headers are passed on; always so here.
        always include_metadata: bool = true;
        /// Headers added to answers.
        used response_headers: BTreeMap<String, Secret> = default();
        /// Content encodings accepted, beside none; empty is all.
        used compression_algorithms: Vec<String> = vec![];
        /// Longest time to read a request; 0 is no limit.
        used read_timeout: Duration = Duration::ZERO;
        /// Longest time to read the headers; 0 is no limit.
        used read_header_timeout: Duration = secs(60);
        /// How long a client may take nothing of its answer; 0 is no limit.
        used write_timeout: Duration = secs(30);
        /// How long a connection may idle; 0 is no limit.
        used idle_timeout: Duration = secs(60);
        /// Whether connections are reused.
        used keep_alives_enabled: bool = true;
        /// Middleware extensions.
        idle middlewares: Ignored = default();
    }
}

section! {
    /// OTLP's HTTP listener.
    pub struct OtlpHttpReceiver {
        /// `host:port`.
        used endpoint: String = text("0.0.0.0:4318");
        /// Path that traces are posted to.
        used traces_url_path: String = text("/v1/traces");
        /// Path that metrics are posted to; they are refused.
        idle metrics_url_path: String = text("/v1/metrics");
        /// Path that logs are posted to; they are refused.
        idle logs_url_path: String = text("/v1/logs");
        /// TLS; absent is plain text.
        used tls: Option<CollectorTls> = None;
        /// Requests from web pages.
        used cors: Cors = default();
        /// Authentication extension.
        refused auth: Ignored = default();
        /// Largest body, in bytes.
        used max_request_body_size: u64 = 20 << 20;
        /// Whether headers are passed on; always so here.
        always include_metadata: bool = true;
        /// Headers added to answers.
        used response_headers: BTreeMap<String, Secret> = default();
        /// Content encodings accepted, beside none; empty is all.
        used compression_algorithms: Vec<String> = vec![];
        /// Longest time to read a request; 0 is no limit.
        used read_timeout: Duration = Duration::ZERO;
        /// Longest time to read the headers; 0 is no limit.
        used read_header_timeout: Duration = secs(60);
        /// How long a client may take nothing of its answer; 0 is no limit.
        used write_timeout: Duration = secs(30);
        /// How long a connection may idle; 0 is no limit.
        used idle_timeout: Duration = secs(60);
        /// Whether connections are reused.
        used keep_alives_enabled: bool = true;
        /// Middleware extensions.
        idle middlewares: Ignored = default();
    }
}

section! {
    /// Zipkin's HTTP listener.
    pub struct ZipkinHttp {
        /// `host:port`.
        used endpoint: String = text("0.0.0.0:9411");
        /// Whether text tags that look like numbers become numbers.
        used parse_string_tags: bool = false;
        /// TLS; absent is plain text.
        used tls: Option<CollectorTls> = None;
        /// Requests from web pages.
        used cors: Cors = default();
        /// Authentication extension.
        refused auth: Ignored = default();
        /// Largest body, in bytes.
        used max_request_body_size: u64 = 20 << 20;
        /// Whether headers are passed on; always so here.
        always include_metadata: bool = true;
        /// Headers added to answers.
        used response_headers: BTreeMap<String, Secret> = default();
        /// Content encodings accepted, beside none; empty is all.
        used compression_algorithms: Vec<String> = vec![];
        /// Longest time to read a request; 0 is no limit.
        used read_timeout: Duration = Duration::ZERO;
        /// Longest time to read the headers; 0 is no limit.
        used read_header_timeout: Duration = secs(60);
        /// How long a client may take nothing of its answer; 0 is no limit.
        used write_timeout: Duration = secs(30);
        /// How long a connection may idle; 0 is no limit.
        used idle_timeout: Duration = secs(60);
        /// Whether connections are reused.
        used keep_alives_enabled: bool = true;
        /// Middleware extensions.
        idle middlewares: Ignored = default();
    }
}

section! {
    /// A UDP listener of Jaeger's agent protocol.
    pub struct UdpReceiver {
        /// `host:port`.
        used endpoint: String = String::new();
        /// Packets that wait to be worked on. While there is no room, none is taken from the socket.
        used queue_size: usize = 1000;
        /// Largest packet, in bytes. Larger ones are dropped and counted.
        used max_packet_size: usize = 65000;
        /// Requests that are stored at once. Each is made of the packets that wait when it begins.
        used workers: usize = 10;
        /// What the system may keep of packets that have not been taken yet, in bytes; 0 is the system's default.
        used socket_buffer_size: usize = 0;
    }
}

section! {
    /// `cors`: requests from web pages.
    pub struct Cors {
        /// Origins allowed, `*` for any part.
        used allowed_origins: Vec<String> = vec![];
        /// Headers allowed.
        used allowed_headers: Vec<String> = vec![];
        /// Headers shown to the page.
        used exposed_headers: Vec<String> = vec![];
        /// Seconds an answer to a preflight may be kept.
        used max_age: u64 = 0;
    }
}

/// A listener's place in the configuration.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Endpoint<'c> {
    /// The receiver's key in the file.
    pub id: &'c str,
    /// The protocol's key; empty for a receiver that has one protocol only.
    pub protocol: &'static str,
    /// `host:port`.
    pub address: &'c str,
    /// Whether it takes packets, not connections.
    pub is_udp: bool,
    /// Absent is plain text.
    pub tls: Option<&'c CollectorTls>,
}

impl Endpoint<'_> {
    /// Path of the block that it is in.
    #[must_use]
    pub fn path(&self) -> String {
        match self.protocol {
            "" => format!("distributor.receivers.{}", self.id),
            protocol => format!("distributor.receivers.{}.protocols.{protocol}", self.id),
        }
    }
}

impl Receivers {
    /// Whether all that are named are of kinds that Vivace does not have.
    pub(crate) fn is_empty(&self) -> bool {
        self.otlp.is_empty() && self.jaeger.is_empty() && self.zipkin.is_empty() && self.kafka.is_empty()
    }

    /// Every listener that is asked for, in the order of the file within each kind.
    #[must_use]
    pub fn endpoints(&self) -> Vec<Endpoint<'_>> {
        let mut all = Vec::new();
        for OtlpReceiver { id, protocols } in &self.otlp {
            all.extend(protocols.grpc.as_ref().map(|grpc| tcp(id, "grpc", &grpc.endpoint, grpc.tls.as_ref())));
            all.extend(protocols.http.as_ref().map(|http| tcp(id, "http", &http.endpoint, http.tls.as_ref())));
        }
        for JaegerReceiver { id, protocols } in &self.jaeger {
            all.extend(protocols.grpc.as_ref().map(|grpc| tcp(id, "grpc", &grpc.endpoint, grpc.tls.as_ref())));
            all.extend(protocols.thrift_http.as_ref().map(|http| tcp(id, "thrift_http", &http.endpoint, http.tls.as_ref())));
            all.extend(protocols.thrift_compact.as_ref().map(|udp| packets(id, "thrift_compact", &udp.endpoint)));
            all.extend(protocols.thrift_binary.as_ref().map(|udp| packets(id, "thrift_binary", &udp.endpoint)));
        }
        all.extend(self.zipkin.iter().map(|receiver| tcp(&receiver.id, "", &receiver.http.endpoint, receiver.http.tls.as_ref())));
        all
    }
}

fn tcp<'c>(id: &'c str, protocol: &'static str, address: &'c str, tls: Option<&'c CollectorTls>) -> Endpoint<'c> {
    Endpoint { id, protocol, address, is_udp: false, tls }
}

fn packets<'c>(id: &'c str, protocol: &'static str, address: &'c str) -> Endpoint<'c> {
    Endpoint { id, protocol, address, is_udp: true, tls: None }
}

impl OtlpHttpReceiver {
    /// What every HTTP listener has.
    #[must_use]
    pub fn listener(&self) -> HttpReceiver {
        HttpReceiver {
            endpoint: self.endpoint.clone(),
            tls: self.tls.clone(),
            cors: self.cors.clone(),
            response_headers: self.response_headers.clone(),
            compression_algorithms: self.compression_algorithms.clone(),
            max_request_body_size: self.max_request_body_size,
            read_timeout: self.read_timeout,
            read_header_timeout: self.read_header_timeout,
            write_timeout: self.write_timeout,
            idle_timeout: self.idle_timeout,
            keep_alives_enabled: self.keep_alives_enabled,
            ..HttpReceiver::default()
        }
    }
}

impl ZipkinHttp {
    /// What every HTTP listener has.
    #[must_use]
    pub fn listener(&self) -> HttpReceiver {
        HttpReceiver {
            endpoint: self.endpoint.clone(),
            tls: self.tls.clone(),
            cors: self.cors.clone(),
            response_headers: self.response_headers.clone(),
            compression_algorithms: self.compression_algorithms.clone(),
            max_request_body_size: self.max_request_body_size,
            read_timeout: self.read_timeout,
            read_header_timeout: self.read_header_timeout,
            write_timeout: self.write_timeout,
            idle_timeout: self.idle_timeout,
            keep_alives_enabled: self.keep_alives_enabled,
            ..HttpReceiver::default()
        }
    }
}

impl GrpcReceiver {
    /// The listener on a port of every interface.
    #[must_use]
    pub fn on(port: u16) -> Self {
        Self { endpoint: format!("0.0.0.0:{port}"), ..Self::default() }
    }
}

section! {
    /// A receiver with several protocols.
    pub struct OtlpBlock {
        /// What is listened for.
        used protocols: OtlpProtocols = default();
    }
}

section! {
    /// Jaeger's receiver with its protocols.
    pub struct JaegerBlock {
        /// What is listened for.
        used protocols: JaegerProtocols = default();
        /// Sampling strategies; gone from the collector.
        idle remote_sampling: Ignored = default();
    }
}

const KINDS: [&str; 5] = ["otlp", "jaeger", "zipkin", "opencensus", "kafka"];

impl Value for Receivers {
    fn read(&mut self, node: &Node, reader: &mut Reader) {
        let entries = reader.entries(node, &KINDS);
        if entries.is_empty() {
            return;
        }
        *self = Self { otlp: vec![], jaeger: vec![], zipkin: vec![], kafka: vec![], ignored: vec![] };
        for entry in entries {
            let id = entry.key.clone();
            match id.split('/').next().unwrap_or_default() {
                "otlp" => {
                    let mut block = OtlpBlock::default();
                    reader.field(&entry, Effect::Used, &mut block);
                    let mut protocols = block.protocols;
                    if let Some(grpc) = enabled(&mut protocols.grpc, &entry, "grpc") {
                        listen_everywhere(&mut grpc.endpoint, 4317);
                    }
                    if let Some(http) = enabled(&mut protocols.http, &entry, "http") {
                        listen_everywhere(&mut http.endpoint, 4318);
                    }
                    self.otlp.push(OtlpReceiver { id, protocols });
                }
                "jaeger" => {
                    let mut block = JaegerBlock::default();
                    reader.field(&entry, Effect::Used, &mut block);
                    let mut protocols = block.protocols;
                    if let Some(grpc) = enabled(&mut protocols.grpc, &entry, "grpc") {
                        listen_everywhere(&mut grpc.endpoint, 14250);
                    }
                    if let Some(http) = enabled(&mut protocols.thrift_http, &entry, "thrift_http") {
                        listen_everywhere(&mut http.endpoint, 14268);
                    }
                    if let Some(udp) = enabled(&mut protocols.thrift_compact, &entry, "thrift_compact") {
                        listen_everywhere(&mut udp.endpoint, 6831);
                    }
                    if let Some(udp) = enabled(&mut protocols.thrift_binary, &entry, "thrift_binary") {
                        listen_everywhere(&mut udp.endpoint, 6832);
                    }
                    self.jaeger.push(JaegerReceiver { id, protocols });
                }
                "zipkin" => {
                    let mut http = ZipkinHttp::default();
                    reader.field(&entry, Effect::Used, &mut http);
                    listen_everywhere(&mut http.endpoint, 9411);
                    self.zipkin.push(ZipkinReceiver { id, http });
                }
                "kafka" => {
                    let mut consumer = KafkaConsumer::default();
                    reader.field(&entry, Effect::Used, &mut consumer);
                    // Its name alone asks for TLS: nobody who writes it means that passwords go in plain text.
                    if entry.value.get("tls").is_some() {
                        consumer.tls.get_or_insert_default();
                    }
                    self.kafka.push(KafkaReceiver { id, consumer });
                }
                "opencensus" => {
                    let mut ignored = Ignored::default();
                    ignored.read(entry.value, reader);
                    reader.dropped(
                        &entry,
                        "Vivace has no OpenCensus, nothing listens there, and spans that are sent there are lost; send OTLP",
                    );
                    self.ignored.push((id, ignored));
                }
                _ => reader.unknown(&entry, &KINDS),
            }
        }
    }

    fn write(&self) -> Yaml {
        let mut map = serde_yaml::Mapping::new();
        // A protocol that is off is left out: read again, its name alone would switch it on.
        let protocols = |named: Yaml| {
            let named = match named {
                Yaml::Mapping(named) => Yaml::Mapping(named.into_iter().filter(|(_, value)| !value.is_null()).collect()),
                other => other,
            };
            Yaml::Mapping([(Yaml::from("protocols"), named)].into_iter().collect())
        };
        for receiver in &self.otlp {
            map.insert(receiver.id.as_str().into(), protocols(receiver.protocols.write()));
        }
        for receiver in &self.jaeger {
            map.insert(receiver.id.as_str().into(), protocols(receiver.protocols.write()));
        }
        for receiver in &self.zipkin {
            map.insert(receiver.id.as_str().into(), receiver.http.write());
        }
        for receiver in &self.kafka {
            map.insert(receiver.id.as_str().into(), receiver.consumer.write());
        }
        for (id, ignored) in &self.ignored {
            map.insert(id.as_str().into(), ignored.write());
        }
        Yaml::Mapping(map)
    }
}

/// Fills in an endpoint that was left out: the protocol's port on every interface.
fn listen_everywhere(endpoint: &mut String, port: u16) {
    if endpoint.is_empty() {
        *endpoint = format!("0.0.0.0:{port}");
    } else if endpoint.strip_prefix(':').is_some_and(|port| !port.contains(':')) {
        endpoint.insert_str(0, "0.0.0.0");
    }
}

/// The protocol, if it is named. A name without a body switches it on with its defaults.
fn enabled<'p, T: Default>(protocol: &'p mut Option<T>, receiver: &Entry<'_>, name: &str) -> Option<&'p mut T> {
    let named = receiver.value.get("protocols").and_then(|protocols| protocols.get(name)).is_some();
    if named && protocol.is_none() {
        *protocol = Some(T::default());
    }
    protocol.as_mut()
}
