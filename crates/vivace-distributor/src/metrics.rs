//! What is counted. Source: docs/facts/metrics.md, "Distributor" and "Buckets".

use vivace_core::TenantId;

use crate::plan::Survey;

vivace_core::metrics! {
    /// Spans that a receiver took.
    counter RECEIVER_ACCEPTED = "tempo_receiver_accepted_spans" by "receiver", "transport";
    /// Spans of requests that a receiver refused as a whole.
    counter RECEIVER_REFUSED = "tempo_receiver_refused_spans" by "receiver", "transport";
    /// Packets that were taken from a UDP socket.
    counter UDP_PACKETS = "vivace_receiver_packets_total" by "transport";
    /// Packets whose spans are lost: dropped by the kernel since its buffer was full, over the receiver's size, broken, without room
    /// in memory, or refused as a request would be.
    counter UDP_PACKETS_DROPPED = "vivace_receiver_packets_dropped_total" by "transport", "reason";
    /// Messages of a topic that are done with: stored, or skipped.
    counter KAFKA_MESSAGES = "vivace_receiver_messages_total" by "receiver";
    /// Messages of a topic whose spans are lost: broken, without a tenant, larger than what is ever taken, refused for good, without
    /// anything in them, or of a kind that this program has a fault with.
    counter KAFKA_MESSAGES_SKIPPED = "vivace_receiver_messages_skipped_total" by "receiver", "reason";
    /// Tries of messages that were refused for now: by a tenant's rate, for lack of room, or since ingesters are away.
    counter KAFKA_MESSAGES_RETRIED = "vivace_receiver_messages_retried_total" by "receiver";
    /// Partitions that this process reads.
    gauge KAFKA_PARTITIONS = "vivace_receiver_partitions" by "receiver";
    /// Messages in those partitions that are not read yet.
    gauge KAFKA_MESSAGES_BEHIND = "vivace_receiver_messages_behind" by "receiver";
    /// Bytes of requests of known tenants, before any limit.
    counter INGRESS_BYTES = "tempo_distributor_ingress_bytes_total" in bytes by "tenant";
    /// Bytes of requests within their tenants' rate.
    counter BYTES_RECEIVED = "tempo_distributor_bytes_received_total" in bytes by "tenant";
    /// Spans of requests within their tenants' rate, with those among them that were discarded later.
    counter SPANS_RECEIVED = "tempo_distributor_spans_received_total" by "tenant";
    /// Spans that were dropped for good.
    counter DISCARDED_SPANS = "tempo_discarded_spans_total" by "reason", "tenant";
    /// Values of attributes that were cut to the longest that is allowed.
    counter ATTRIBUTES_TRUNCATED = "tempo_distributor_attributes_truncated_total" by "tenant";
    /// How many traces a request has spans of.
    histogram TRACES_PER_BATCH = "tempo_distributor_traces_per_batch"
        at [2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0];
    /// How long requests took, from the receiver to the quorum of ingesters.
    histogram PUSH_DURATION = "tempo_distributor_push_duration_seconds" in seconds;
    /// Segments that were sent to an ingester.
    counter APPENDS = "tempo_distributor_ingester_appends_total" by "ingester";
    /// Segments that an ingester did not take.
    counter APPEND_FAILURES = "tempo_distributor_ingester_append_failures_total" by "ingester";
    /// Ingesters that there are connections to.
    gauge INGESTER_CLIENTS = "tempo_distributor_ingester_clients";
    /// Metrics-generators that there are connections to.
    gauge GENERATOR_CLIENTS = "tempo_distributor_metrics_generator_clients";
    /// Requests that were sent to a metrics-generator.
    counter GENERATOR_PUSHES = "tempo_distributor_metrics_generator_pushes_total" by "metrics_generator";
    /// Requests that a metrics-generator did not take: their spans are missing in its metrics.
    counter GENERATOR_PUSH_FAILURES = "tempo_distributor_metrics_generator_pushes_failures_total" by "metrics_generator";
    /// Requests that were sent to an address of a forwarder.
    counter FORWARDER_PUSHES = "tempo_distributor_forwarder_pushes_total" by "tenant";
    /// Requests that an address of a forwarder did not take.
    counter FORWARDER_PUSH_FAILURES = "tempo_distributor_forwarder_pushes_failures_total" by "tenant";
    /// Requests that wait to be sent to metrics-generators, or to a forwarder.
    gauge QUEUE_LENGTH = "tempo_distributor_queue_length" by "name", "tenant";
    /// Requests that were to be queued.
    counter QUEUE_PUSHES = "tempo_distributor_queue_pushes_total" by "name", "tenant";
    /// Requests that were dropped since the queue was full.
    counter QUEUE_PUSH_FAILURES = "tempo_distributor_queue_pushes_failures_total" by "name", "tenant";
    /// Spans by name, where `metric_received_spans` asks for it.
    counter DEBUG_SPANS_RECEIVED = "tempo_distributor_debug_spans_received_total" by "tenant", "name", "service";
    /// Pages of `/usage_metrics` that lack a tenant, since one of its labels is none.
    counter USAGE_ERRORS = "tempo_distributor_usage_tracker_errors_total" by "tenant", "reason";
    /// How long requests were held up since an artificial delay asks for it.
    histogram ADDED_LATENCY = "tempo_distributor_added_latency_seconds" in seconds by "tenant";
}

/// Which receiver took a request, as its series are labelled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Receiver {
    OtlpGrpc,
    OtlpHttp,
    JaegerGrpc,
    JaegerThriftHttp,
    JaegerCompact,
    JaegerBinary,
    ZipkinV1Json,
    ZipkinV1Thrift,
    ZipkinV2Json,
    ZipkinV2Proto,
    Kafka,
}

impl Receiver {
    pub(crate) fn accepted(self, spans: u64) {
        let (receiver, transport) = self.labels();
        metrics::counter!(RECEIVER_ACCEPTED.name, "receiver" => receiver, "transport" => transport).increment(spans);
    }

    pub(crate) fn refused(self, spans: u64) {
        let (receiver, transport) = self.labels();
        metrics::counter!(RECEIVER_REFUSED.name, "receiver" => receiver, "transport" => transport).increment(spans);
    }

    /// Packets have come.
    pub(crate) fn packets(self, packets: u64) {
        metrics::counter!(UDP_PACKETS.name, "transport" => self.labels().1).increment(packets);
    }

    /// Packets are lost.
    pub(crate) fn dropped(self, reason: &'static str, packets: u64) {
        metrics::counter!(UDP_PACKETS_DROPPED.name, "transport" => self.labels().1, "reason" => reason).increment(packets);
    }

    fn labels(self) -> (&'static str, &'static str) {
        match self {
            Self::OtlpGrpc => ("otlp/otlp_receiver", "grpc"),
            Self::OtlpHttp => ("otlp/otlp_receiver", "http"),
            Self::JaegerGrpc => ("jaeger/jaeger_receiver", "grpc"),
            Self::JaegerThriftHttp => ("jaeger/jaeger_receiver", "collector_http"),
            Self::JaegerCompact => ("jaeger/jaeger_receiver", "udp_thrift_compact"),
            Self::JaegerBinary => ("jaeger/jaeger_receiver", "udp_thrift_binary"),
            Self::ZipkinV1Json => ("zipkin/zipkin_receiver", "http_v1_json"),
            Self::ZipkinV1Thrift => ("zipkin/zipkin_receiver", "http_v1_thrift"),
            Self::ZipkinV2Json => ("zipkin/zipkin_receiver", "http_v2_json"),
            Self::ZipkinV2Proto => ("zipkin/zipkin_receiver", "http_v2_proto"),
            Self::Kafka => ("kafka/kafka_receiver", "kafka"),
        }
    }
}

/// A receiver of messages begins: its series are there before there is anything to count.
pub(crate) fn kafka_begins(id: &str) {
    metrics::counter!(KAFKA_MESSAGES.name, "receiver" => id.to_owned()).increment(0);
    kafka_retries(id, 0);
    kafka_position(id, 0, 0);
}

/// A message is done with, and why its spans are lost, if they are.
pub(crate) fn kafka_message(id: &str, skipped: Option<&'static str>) {
    metrics::counter!(KAFKA_MESSAGES.name, "receiver" => id.to_owned()).increment(1);
    if let Some(reason) = skipped {
        metrics::counter!(KAFKA_MESSAGES_SKIPPED.name, "receiver" => id.to_owned(), "reason" => reason).increment(1);
    }
}

/// Messages are to be tried again.
pub(crate) fn kafka_retries(id: &str, messages: u64) {
    metrics::counter!(KAFKA_MESSAGES_RETRIED.name, "receiver" => id.to_owned()).increment(messages);
}

/// Where a receiver of messages stands.
pub(crate) fn kafka_position(id: &str, partitions: u64, behind: u64) {
    metrics::gauge!(KAFKA_PARTITIONS.name, "receiver" => id.to_owned()).set(partitions as f64);
    metrics::gauge!(KAFKA_MESSAGES_BEHIND.name, "receiver" => id.to_owned()).set(behind as f64);
}

/// A request of a known tenant has arrived.
pub(crate) fn ingress(tenant: &TenantId, bytes: u64) {
    metrics::counter!(INGRESS_BYTES.name, "tenant" => tenant.to_string()).increment(bytes);
}

/// A request is within its tenant's limits and was taken apart.
pub(crate) fn surveyed(tenant: &TenantId, bytes: u64, survey: &Survey) {
    let tenant_label = tenant.to_string();
    let spans = u64::from(survey.spans) + u64::from(survey.rejected());
    metrics::counter!(BYTES_RECEIVED.name, "tenant" => tenant_label.clone()).increment(bytes);
    metrics::counter!(SPANS_RECEIVED.name, "tenant" => tenant_label.clone()).increment(spans);
    metrics::histogram!(TRACES_PER_BATCH.name).record(survey.traces as f64);
    if survey.truncated > 0 {
        metrics::counter!(ATTRIBUTES_TRUNCATED.name, "tenant" => tenant_label).increment(survey.truncated);
    }
    let reasons = [
        ("invalid_trace_id", survey.bad_trace_ids),
        ("invalid_span_id", survey.bad_span_ids),
        ("invalid_parent_or_link_id", survey.bad_references),
        ("value_too_deep", survey.too_deep),
    ];
    for (reason, spans) in reasons {
        if spans > 0 {
            discarded(tenant, reason, u64::from(spans));
        }
    }
}

/// Spans are dropped for good.
pub(crate) fn discarded(tenant: &TenantId, reason: &'static str, spans: u64) {
    metrics::counter!(DISCARDED_SPANS.name, "reason" => reason, "tenant" => tenant.to_string()).increment(spans);
}
