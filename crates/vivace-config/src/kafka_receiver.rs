//! `distributor.receivers.kafka`, with the collector's keys and defaults.

use std::time::Duration;

use crate::Ignored;
use crate::section::{choice, section};
use crate::value::{Secret, default, millis, mins, secs, text};

/// A receiver that reads a topic.
#[derive(Clone, Debug, PartialEq)]
pub struct KafkaReceiver {
    /// Its key in the file, such as `kafka` or `kafka/2`.
    pub id: String,
    /// What it reads, and how.
    pub consumer: KafkaConsumer,
}

section! {
    /// `kafka`: reads spans from a topic. What a message holds is stored before its offset is committed.
    pub struct KafkaConsumer {
        /// Brokers that are asked first, `host:port`.
        used brokers: Vec<String> = vec![text("localhost:9092")];
        /// Version of Kafka's protocol; it is agreed with each broker here.
        idle protocol_version: String = String::new();
        /// Whether brokers' addresses are looked up backwards first.
        idle resolve_canonical_bootstrap_servers_only: bool = false;
        /// Name that brokers know this process by.
        used client_id: String = text("otel-collector");
        /// The group whose members share the topic.
        used group_id: String = text("otel-collector");
        /// Name of this member, which keeps its partitions while it restarts; empty: it has none.
        used group_instance_id: String = String::new();
        /// How the group shares partitions.
        used group_rebalance_strategy: KafkaStrategy = default();
        /// Where this process is; replicas there are read first, where brokers do so.
        used rack_id: String = String::new();
        /// Whether a leader's epoch is checked; always so here.
        always use_leader_epoch: bool = true;
        /// Topic, of old; `traces.topic` counts first.
        used topic: String = String::new();
        /// Encoding, of old; `traces.encoding` counts first.
        used encoding: Option<KafkaEncoding> = None;
        /// Where spans are.
        used traces: KafkaTraces = default();
        /// Logs are not read.
        idle logs: Ignored = default();
        /// Metrics are not read.
        idle metrics: Ignored = default();
        /// Profiles are not read.
        idle profiles: Ignored = default();
        /// Where a group begins that has committed nothing yet.
        used initial_offset: KafkaOffset = default();
        /// How long a member may be silent before its partitions go to others.
        used session_timeout: Duration = secs(10);
        /// Pause between signs of life.
        used heartbeat_interval: Duration = secs(3);
        /// Bytes that the broker waits for before it answers.
        used min_fetch_size: u32 = 1;
        /// Most bytes of a partition in an answer. A batch that is larger comes alone.
        used default_fetch_size: u32 = 1 << 20;
        /// Most bytes of an answer; 0 is 16 MiB.
        used max_fetch_size: u32 = 0;
        /// How long the broker waits for `min_fetch_size`.
        used max_fetch_wait: Duration = millis(250);
        /// How long a connection may idle.
        used conn_idle_timeout: Duration = mins(9);
        /// TLS to the brokers; absent is plain text.
        used tls: Option<KafkaTls> = None;
        /// Who this process is.
        used auth: KafkaAuth = default();
        /// What is asked about the cluster.
        used metadata: KafkaMetadata = default();
        /// When offsets of messages that are stored are committed.
        used autocommit: KafkaAutocommit = default();
        /// What counts as done.
        used message_marking: KafkaMarking = default();
        /// Headers of messages that become attributes.
        used header_extraction: KafkaHeaders = default();
        /// Pauses after a message that was refused for now.
        used error_backoff: KafkaBackoff = default();
        /// Partitions in parallel.
        idle partition_processing: Ignored = default();
        /// The collector's own metrics.
        idle telemetry: Ignored = default();
    }
    renamed {
        "max_partition_fetch_size" => default_fetch_size;
    }
}

section! {
    /// `kafka.traces`: where spans are.
    pub struct KafkaTraces {
        /// The topic; empty is `otlp_spans`.
        used topic: String = String::new();
        /// What messages hold; absent is `otlp_proto`.
        used encoding: Option<KafkaEncoding> = None;
    }
}

section! {
    /// `kafka.tls`, of a client.
    pub struct KafkaTls {
        /// Whether plain text is spoken.
        used insecure: bool = false;
        /// Whether the brokers' certificates go unchecked.
        used insecure_skip_verify: bool = false;
        /// Name expected in the brokers' certificates; empty is each broker's own.
        used server_name_override: String = String::new();
        /// File with the authorities trusted, PEM; empty, with `ca_pem` empty too: those of browsers.
        used ca_file: String = String::new();
        /// The authorities themselves, PEM.
        used ca_pem: String = String::new();
        /// Whether the system's authorities are trusted besides.
        used include_system_ca_certs_pool: bool = false;
        /// File with this process' certificate chain, PEM.
        used cert_file: String = String::new();
        /// The certificate chain itself, PEM.
        used cert_pem: String = String::new();
        /// File with its private key, PEM.
        used key_file: String = String::new();
        /// The private key itself, PEM.
        used key_pem: Secret = default();
        /// Lowest TLS version.
        refused min_version: String = text("1.2");
        /// Highest TLS version; the newest.
        refused max_version: String = String::new();
        /// Cipher suites allowed; those of the TLS library.
        refused cipher_suites: Vec<String> = vec![];
        /// Curves preferred; those of the TLS library.
        refused curve_preferences: Vec<String> = vec![];
        /// Pause between reloads of the files; 0 is never.
        used reload_interval: Duration = Duration::ZERO;
    }
}

section! {
    /// `kafka.auth`.
    pub struct KafkaAuth {
        /// User and password as SASL's PLAIN, of old.
        used plain_text: Option<KafkaPlain> = None;
        /// SASL.
        used sasl: Option<KafkaSasl> = None;
        /// TLS, of old; `tls` counts first.
        used tls: Option<KafkaTls> = None;
        /// Kerberos.
        refused kerberos: Ignored = default();
    }
}

section! {
    /// `kafka.auth.plain_text`.
    pub struct KafkaPlain {
        /// User.
        used username: String = String::new();
        /// Password.
        used password: Secret = default();
    }
}

section! {
    /// `kafka.auth.sasl`.
    pub struct KafkaSasl {
        /// User.
        used username: String = String::new();
        /// Password.
        used password: Secret = default();
        /// How the password is proved.
        used mechanism: KafkaMechanism = default();
        /// Version of the handshake; it is agreed with each broker here.
        idle version: u32 = 0;
        /// Tokens of AWS.
        refused aws_msk: Ignored = default();
        /// Extension that has tokens.
        refused oauthbearer_token_source: Ignored = default();
    }
}

section! {
    /// `kafka.metadata`.
    pub struct KafkaMetadata {
        /// Whether all topics are asked for; only those that are read are.
        idle full: bool = true;
        /// Pause between looks at the cluster.
        used refresh_interval: Duration = mins(10);
        /// What happens while brokers are away.
        used retry: KafkaMetadataRetry = default();
    }
}

section! {
    /// `kafka.metadata.retry`.
    pub struct KafkaMetadataRetry {
        /// Tries; brokers are tried until they are there.
        idle max: u32 = 3;
        /// First pause before another try; each is twice the one before, up to 30 seconds.
        used backoff: Duration = millis(250);
    }
}

section! {
    /// `kafka.autocommit`.
    pub struct KafkaAutocommit {
        /// Whether offsets are committed at an interval. Off: after each answer of the broker whose messages are stored.
        used enable: bool = true;
        /// The interval.
        used interval: Duration = secs(1);
    }
}

section! {
    /// `kafka.message_marking`.
    pub struct KafkaMarking {
        /// Whether messages are done only once they are stored; always so here.
        always after: bool = true;
        /// Whether a message that is refused for now counts as done: it is lost, instead of tried again.
        used on_error: bool = false;
        /// Whether a message that can never be stored counts as done; always so here.
        always on_permanent_error: bool = true;
    }
}

section! {
    /// `kafka.header_extraction`.
    pub struct KafkaHeaders {
        /// Whether headers become attributes of the resource, `kafka.header.NAME`.
        used extract_headers: bool = false;
        /// Which ones.
        used headers: Vec<String> = vec![];
    }
}

section! {
    /// `kafka.error_backoff`.
    pub struct KafkaBackoff {
        /// Whether it is waited at all; always so here.
        always enabled: bool = true;
        /// First pause.
        used initial_interval: Duration = millis(500);
        /// Longest pause.
        used max_interval: Duration = secs(30);
        /// How much longer each pause is than the one before.
        used multiplier: f64 = 1.5;
        /// Share by which a pause may differ.
        used randomization_factor: f64 = 0.5;
        /// When it is given up; never here.
        idle max_elapsed_time: Duration = Duration::ZERO;
    }
}

choice! {
    /// What a message holds.
    pub enum KafkaEncoding {
        /// An OTLP request, protobuf.
        OtlpProto = "otlp_proto";
        /// An OTLP request, JSON.
        OtlpJson = "otlp_json";
        /// One span of Jaeger's, protobuf.
        JaegerProto = "jaeger_proto";
        /// One span of Jaeger's, in protobuf's JSON.
        JaegerJson = "jaeger_json";
        /// A list of Zipkin's spans, protobuf.
        ZipkinProto = "zipkin_proto";
        /// A list of Zipkin's spans, version 2, JSON.
        ZipkinJson = "zipkin_json";
        /// A list of Zipkin's spans, version 1, thrift.
        ZipkinThrift = "zipkin_thrift";
    }
}

choice! {
    /// Where a group begins.
    pub enum KafkaOffset {
        /// With what is sent from now on.
        Latest = "latest";
        /// With what is there.
        Earliest = "earliest";
    }
}

choice! {
    /// How a group shares partitions.
    pub enum KafkaStrategy {
        /// What every member of the group can: ranges first, then those that move the fewest partitions.
        Any = "";
        /// A range of each topic's partitions to each member.
        Range = "range";
        /// One partition after the other.
        RoundRobin = "roundrobin";
        /// As few as possible move, and the others are read meanwhile.
        CooperativeSticky = "cooperative-sticky";
    }
}

choice! {
    /// How a password is proved.
    pub enum KafkaMechanism {
        /// It is sent.
        Plain = "PLAIN";
        /// It is not, by SHA-256.
        ScramSha256 = "SCRAM-SHA-256";
        /// It is not, by SHA-512.
        ScramSha512 = "SCRAM-SHA-512";
    }
}

impl KafkaConsumer {
    /// The topic that is read.
    #[must_use]
    pub fn topic(&self) -> &str {
        [self.traces.topic.as_str(), self.topic.as_str()].into_iter().find(|topic| !topic.is_empty()).unwrap_or("otlp_spans")
    }

    /// What messages hold.
    #[must_use]
    pub fn encoding(&self) -> KafkaEncoding {
        self.traces.encoding.or(self.encoding).unwrap_or_default()
    }

    /// TLS to the brokers, and its path below the receiver; none is plain text.
    #[must_use]
    pub fn tls(&self) -> Option<(&'static str, &KafkaTls)> {
        let old = || self.auth.tls.as_ref().map(|tls| ("auth.tls", tls));
        self.tls.as_ref().map(|tls| ("tls", tls)).or_else(old).filter(|(_, tls)| !tls.insecure)
    }
}
