//! `distributor`, except for its receivers, which have a file of their own.

use std::time::Duration;

use crate::ring::ServiceRing;
use crate::section::section;
use crate::value::{default, mins, text};
use crate::{Ignored, Receivers};

section! {
    /// `distributor`: receives spans and gives them to ingesters.
    pub struct Distributor {
        /// Protocols that are listened for; none is OTLP over gRPC and HTTP on every interface.
        used receivers: Receivers = default();
        /// The distributors, counted for the `global` rate strategy.
        used ring: ServiceRing = ServiceRing { heartbeat_timeout: mins(5), ..ServiceRing::default() };
        /// Name of the ring.
        idle override_ring_key: String = text("distributor");
        /// Other systems that spans are copied to.
        used forwarders: Vec<Forwarder> = vec![];
        /// Counting of bytes by attribute.
        used usage: Usage = default();
        /// Logging of every span received.
        used log_received_spans: LogSpans = default();
        /// Logging of every span refused.
        used log_discarded_spans: LogSpans = default();
        /// Counting of received spans by name.
        used metric_received_spans: MetricReceivedSpans = default();
        /// Whether writes go to another ingester when one is leaving.
        idle extend_writes: bool = true;
        /// Hint after how long a refused request may be tried again; 0 gives none.
        used retry_after_on_resource_exhausted: Duration = Duration::ZERO;
        /// Longest attribute key and value, in bytes; 0 is any.
        used max_attribute_bytes: usize = 2048;
        /// Wait added to every request.
        used artificial_delay: Duration = Duration::ZERO;
        /// Whether ingesters are written to (Kafka installations).
        idle ingester_write_path_enabled: bool = true;
        /// Whether Kafka is written to.
        idle kafka_write_path_enabled: bool = false;
        /// Kafka.
        idle kafka_config: Ignored = default();
    }
    renamed {
        "max_span_attr_byte" => max_attribute_bytes;
    }
    dropped {
        "log_received_traces": "removed in Tempo 2.1: set distributor.log_received_spans.enabled";
        "search_tags_deny_list": "removed in Tempo 2.0, every attribute is searchable; remove it";
    }
}

section! {
    /// `distributor.forwarders[]`: another system that spans are copied to.
    pub struct Forwarder {
        /// Name that overrides refer to.
        used name: String = String::new();
        /// Protocol; `otlpgrpc`.
        used backend: String = String::new();
        /// OTLP over gRPC.
        used otlpgrpc: ForwarderOtlpGrpc = default();
        /// Spans that are left out.
        used filter: ForwarderFilter = default();
    }
}

section! {
    /// `distributor.forwarders[].otlpgrpc`.
    pub struct ForwarderOtlpGrpc {
        /// Addresses, `host:port`.
        used endpoints: Vec<String> = vec![];
        /// TLS.
        used tls: ForwarderTls = default();
    }
}

section! {
    /// `distributor.forwarders[].otlpgrpc.tls`: plain text, or TLS.
    pub struct ForwarderTls {
        /// Whether plain text is spoken.
        used insecure: bool = false;
        /// File with the certificate that the other side is checked against, PEM.
        used cert_file: String = String::new();
    }
}

section! {
    /// `distributor.forwarders[].filter`.
    pub struct ForwarderFilter {
        /// Conditions on spans.
        used traces: ForwarderFilterTraces = default();
    }
}

section! {
    /// `distributor.forwarders[].filter.traces`: what matches a condition is left out.
    pub struct ForwarderFilterTraces {
        /// Conditions on spans, in OTTL.
        used span: Vec<String> = vec![];
        /// Conditions on events, in OTTL.
        used spanevent: Vec<String> = vec![];
    }
}

section! {
    /// `distributor.usage`.
    pub struct Usage {
        /// Counting of bytes by attribute.
        used cost_attribution: CostAttribution = default();
    }
}

section! {
    /// `distributor.usage.cost_attribution`: counting of bytes by attribute.
    pub struct CostAttribution {
        /// Whether bytes are counted.
        used enabled: bool = false;
        /// Series at most.
        used max_cardinality: usize = 10000;
        /// Quiet time after which a series is dropped.
        used stale_duration: Duration = mins(15);
    }
}

section! {
    /// `distributor.log_received_spans`, `distributor.log_discarded_spans`.
    pub struct LogSpans {
        /// Whether spans are logged.
        used enabled: bool = false;
        /// Whether their attributes are logged too.
        used include_all_attributes: bool = false;
        /// Whether only spans with an error are logged.
        used filter_by_status_error: bool = false;
    }
}

section! {
    /// `distributor.metric_received_spans`.
    pub struct MetricReceivedSpans {
        /// Whether spans are counted by name.
        used enabled: bool = false;
        /// Whether only roots are counted.
        used root_only: bool = false;
    }
}
