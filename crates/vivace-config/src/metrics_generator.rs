//! `metrics_generator`: all processors of Tempo can be configured, all but local blocks are built: queries need no blocks of
//! the generator. Filters and mappings of labels are here for tenants' limits too.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::reader::Reader;
use crate::ring::ServiceRing;
use crate::section::{choice, section};
use crate::value::{default, mins, secs, text};
use crate::{Block, BlockSearch, Ignored, RemoteWrite, Wal};

section! {
    /// `metrics_generator`: makes metrics from spans and sends them to Prometheus.
    pub struct MetricsGenerator {
        /// The generators that share the work.
        used ring: ServiceRing = default();
        /// What is made.
        used processor: Processor = default();
        /// The series held.
        used registry: Registry = default();
        /// Where metrics go.
        used storage: GeneratorStorage = default();
        /// Log of the local-blocks processor.
        idle traces_storage: Wal = Wal { path: String::new(), ..Wal::default() };
        /// Log that queries read.
        idle traces_query_storage: Wal = Wal { path: String::new(), ..Wal::default() };
        /// Spans that ended longer ago, or end later than this from now, are left out.
        used metrics_ingestion_time_range_slack: Duration = secs(30);
        /// Longest time of a query.
        idle query_timeout: Duration = secs(30);
        /// Name of the ring.
        idle override_ring_key: String = text("metrics-generator");
        /// What is limited.
        used limiter_type: LimiterType = default();
        /// Kafka installations.
        idle codec: String = text("push-bytes");
        /// Kafka installations.
        idle disable_local_blocks: bool = false;
        /// Kafka installations.
        idle disable_grpc: bool = false;
        /// Kafka installations.
        idle ingest_concurrency: usize = 16;
        /// Kafka installations.
        idle instance_id: String = String::new();
        /// Kafka installations (3.x).
        idle ring_mode: String = String::new();
        /// Kafka installations (3.x).
        idle leave_consumer_group_on_shutdown: bool = false;
        /// Kafka installations (3.x).
        idle skip_stale_backlog_on_startup: bool = false;
    }
}

choice! {
    /// What a generator's limit counts.
    pub enum LimiterType {
        /// Series.
        Series = "series";
        /// Sets of labels.
        Entity = "entity";
    }
}

section! {
    /// `metrics_generator.processor`.
    pub struct Processor {
        /// Edges between services.
        used service_graphs: ServiceGraphs = default();
        /// Calls, latency and size by span name.
        used span_metrics: SpanMetrics = default();
        /// Blocks for TraceQL metrics.
        idle local_blocks: LocalBlocks = default();
        /// One series per host.
        used host_info: HostInfo = default();
    }
}

section! {
    /// `metrics_generator.processor.service_graphs`.
    pub struct ServiceGraphs {
        /// How long one side of a call waits for the other.
        used wait: Duration = secs(10);
        /// Calls waiting.
        used max_items: usize = 10000;
        /// Workers; what they do takes none.
        idle workers: usize = 10;
        /// Bounds of the latency histogram, in seconds.
        used histogram_buckets: Vec<f64> = vec![0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8];
        /// Attributes that become labels.
        used dimensions: Vec<String> = vec![];
        /// Whether labels say which side they are from.
        used enable_client_server_prefix: bool = false;
        /// Whether the time in message queues is measured.
        used enable_messaging_system_latency_histogram: bool = false;
        /// Whether a label marks virtual nodes.
        used enable_virtual_node_label: bool = false;
        /// Attributes that name a service without spans.
        used peer_attributes: Vec<String> = vec![text("peer.service"), text("db.name"), text("db.system")];
        /// Attributes that name a database.
        used database_name_attributes: Vec<String> = vec![text("db.namespace"), text("db.name"), text("db.system")];
        /// Attribute by which a span counts more than once.
        used span_multiplier_key: String = String::new();
        /// Whether trace state may say so too (3.x).
        used enable_tracestate_span_multiplier: bool = false;
        /// Spans that count (3.x).
        used filter_policies: Vec<FilterPolicy> = vec![];
    }
}

section! {
    /// `metrics_generator.processor.span_metrics`.
    pub struct SpanMetrics {
        /// Bounds of the latency histogram, in seconds.
        used histogram_buckets: Vec<f64> = vec![0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.128, 0.256, 0.512, 1.024, 2.048, 4.096, 8.192, 16.384];
        /// Labels made from fields of the span.
        used intrinsic_dimensions: IntrinsicDimensions = default();
        /// Attributes that become labels.
        used dimensions: Vec<String> = vec![];
        /// Labels made from several attributes.
        used dimension_mappings: Vec<DimensionMapping> = vec![];
        /// Whether `traces_target_info` is made.
        used enable_target_info: bool = false;
        /// Whether an instance label is set.
        used enable_instance_label: bool = true;
        /// Resource attributes left out of `traces_target_info`.
        used target_info_excluded_dimensions: Vec<String> = vec![];
        /// Spans that count.
        used filter_policies: Vec<FilterPolicy> = vec![];
        /// Attribute by which a span counts more than once.
        used span_multiplier_key: String = String::new();
        /// Whether trace state may say so too (3.x).
        used enable_tracestate_span_multiplier: bool = false;
        /// Parts that are on, by number.
        idle subprocessors: Ignored = default();
    }
}

section! {
    /// `intrinsic_dimensions`: labels made from fields of the span.
    pub struct IntrinsicDimensions {
        /// `service`.
        used service: bool = true;
        /// `span_name`.
        used span_name: bool = true;
        /// `span_kind`.
        used span_kind: bool = true;
        /// `status_code`.
        used status_code: bool = true;
        /// `status_message`.
        used status_message: bool = false;
    }
}

section! {
    /// `dimension_mappings[]`: a label made from several attributes.
    pub struct DimensionMapping {
        /// Name of the label.
        used name: String = String::new();
        /// The attributes.
        used source_labels: Vec<String> = vec![];
        /// What is put between their values.
        used join: String = String::new();
    }
}

section! {
    /// `filter_policies[]`: which spans count.
    pub struct FilterPolicy {
        /// A span must match this.
        used include: Option<PolicyMatch> = None;
        /// A span must match one of these (3.x).
        used include_any: Vec<PolicyMatch> = vec![];
        /// A span must not match this.
        used exclude: Option<PolicyMatch> = None;
    }
}

choice! {
    /// How a policy's values are compared.
    pub enum MatchType {
        /// Equal.
        Strict = "strict";
        /// By pattern.
        Regex = "regex";
    }
}

section! {
    /// A set of attributes that must all match.
    pub struct PolicyMatch {
        /// How values are compared.
        used match_type: MatchType = default();
        /// The attributes.
        used attributes: Vec<PolicyAttribute> = vec![];
    }
}

section! {
    /// One attribute of a policy.
    pub struct PolicyAttribute {
        /// Its name, such as `kind` or `resource.service.name`.
        used key: String = String::new();
        /// Its value; numbers and booleans are kept as text.
        used value: String = String::new();
    }
}

section! {
    /// `metrics_generator.processor.local_blocks`.
    pub struct LocalBlocks {
        /// How blocks are written.
        used block: Block = default();
        /// How blocks are searched.
        used search: BlockSearch = default();
        /// Pause between looks for blocks to cut.
        used flush_check_period: Duration = secs(10);
        /// How long a trace may be quiet.
        used trace_idle_period: Duration = secs(5);
        /// How long a trace is live at most.
        used trace_live_period: Duration = secs(30);
        /// How old a block becomes before it is cut.
        used max_block_duration: Duration = mins(1);
        /// How large a block becomes before it is cut.
        used max_block_bytes: u64 = 500_000_000;
        /// How long a finished block is kept.
        used complete_block_timeout: Duration = mins(60);
        /// Live traces; 0 is any number.
        used max_live_traces: u64 = 0;
        /// Bytes of live traces; 0 is any number.
        used max_live_traces_bytes: u64 = 250_000_000;
        /// Work at once.
        used concurrency: usize = 4;
        /// Blocks read at once.
        used concurrent_blocks: usize = 10;
        /// Share of overlap below which a block is read without looking at times.
        used time_overlap_cutoff: f64 = 0.2;
        /// Whether only server spans are kept.
        used filter_server_spans: bool = true;
        /// Whether blocks go to the bucket.
        used flush_to_storage: bool = false;
    }
}

section! {
    /// `metrics_generator.processor.host_info`.
    pub struct HostInfo {
        /// Attributes that name a host.
        used host_identifiers: Vec<String> = vec![text("k8s.node.name"), text("host.id")];
        /// Name of the metric.
        used metric_name: String = text("traces_host_info");
    }
}

section! {
    /// `metrics_generator.registry`: the series held.
    pub struct Registry {
        /// Pause between collections.
        used collection_interval: Duration = secs(15);
        /// Quiet time after which a series is dropped.
        used stale_duration: Duration = mins(15);
        /// Labels added to every series.
        used external_labels: BTreeMap<String, String> = default();
        /// Label that carries the tenant; empty is none.
        used inject_tenant_id_as: String = String::new();
        /// Longest name of a label, in bytes.
        used max_label_name_length: usize = 1024;
        /// Longest value of a label, in bytes.
        used max_label_value_length: usize = 2048;
    }
}

section! {
    /// `metrics_generator.storage`: where metrics go.
    pub struct GeneratorStorage {
        /// Folder of the generator; empty switches it off.
        used path: String = String::new();
        /// Prometheus' log in that folder.
        idle wal: Ignored = default();
        /// Longest time to send what is left when stopping.
        used remote_write_flush_deadline: Duration = mins(1);
        /// Whether the tenant is sent as `X-Scope-OrgID`.
        used remote_write_add_org_id_header: bool = true;
        /// Where metrics are written to.
        used remote_write: Vec<RemoteWrite> = vec![];
    }
}

/// Names that Prometheus gives, and what marks overflow: one request with a series that has two of them is refused as a whole.
const GIVEN_LABELS: [&str; 3] = ["__name__", "le", "metric_overflow"];

/// Checks the labels that all series get, and the dimensions.
pub(crate) fn check(generator: &MetricsGenerator, reader: &mut Reader) {
    let registry = &generator.registry;
    let named =
        [("external_labels", registry.external_labels.keys().collect()), ("inject_tenant_id_as", vec![&registry.inject_tenant_id_as])];
    for (key, names) in named {
        let path = format!("metrics_generator.registry.{key}");
        for name in names.into_iter().filter(|name| GIVEN_LABELS.contains(&name.as_str())) {
            reader.problem_at(&path, format!("expected another label than {}; got {name:?}", GIVEN_LABELS.join(", ")));
        }
    }
    if registry.external_labels.contains_key(&registry.inject_tenant_id_as) {
        let message = format!("{:?} is in external_labels too; series have the tenant there", registry.inject_tenant_id_as);
        reader.advise_at("metrics_generator.registry.inject_tenant_id_as", message);
    }
    let Processor { span_metrics: spans, service_graphs: graphs, .. } = &generator.processor;
    check_spans(&spans.dimensions, &spans.dimension_mappings, "metrics_generator.processor.span_metrics", reader);
    check_graphs(&graphs.dimensions, graphs.enable_client_server_prefix, "metrics_generator.processor.service_graphs", reader);
}

/// Checks labels of span metrics, whose section is at `path`.
pub(crate) fn check_spans(dimensions: &[String], mappings: &[DimensionMapping], path: &str, reader: &mut Reader) {
    check_labels(dimensions, &format!("{path}.dimensions"), reader);
    check_labels(mappings.iter().map(|mapping| &mapping.name), &format!("{path}.dimension_mappings"), reader);
}

/// Checks labels of service graphs, whose section is at `path`.
pub(crate) fn check_graphs(dimensions: &[String], are_prefixed: bool, path: &str, reader: &mut Reader) {
    if !are_prefixed {
        check_labels(dimensions, &format!("{path}.dimensions"), reader);
    }
}

fn check_labels<'n>(names: impl IntoIterator<Item = &'n String>, path: &str, reader: &mut Reader) {
    for name in names {
        let label: String = name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect();
        if GIVEN_LABELS.contains(&label.as_str()) {
            reader.advise_at(path, format!("series have a label {label} already; that of {name:?} is called __{label}"));
        }
    }
}
