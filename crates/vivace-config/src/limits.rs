//! What a tenant may do, and where each limit of Tempo's older, flat form has its place. How a tenant's limits are read over the
//! defaults is in `overrides`.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::section::{choice, section};
use crate::value::{Value, default, mins};
use crate::{DedicatedColumn, DimensionMapping, FilterPolicy, IntrinsicDimensions, Secret};

section! {
    /// A tenant's limits, complete: every key that the tenant leaves out has its default. 0 is no limit unless said otherwise.
    pub struct Limits {
        /// Receiving.
        used ingestion: IngestionLimits = default();
        /// Querying.
        used read: ReadLimits = default();
        /// Compacting and deleting.
        used compaction: CompactionLimits = default();
        /// Making metrics.
        used metrics_generator: GeneratorLimits = default();
        /// Names of forwarders that get a copy of the spans.
        used forwarders: Vec<String> = vec![];
        /// Limits of everything.
        used global: GlobalLimits = default();
        /// Storing.
        used storage: StorageLimits = default();
        /// Counting of bytes by attribute.
        used cost_attribution: CostAttributionLimits = default();
    }
}

choice! {
    /// Whose rate is limited.
    pub enum RateStrategy {
        /// Each distributor's.
        Local = "local";
        /// That of all distributors together.
        Global = "global";
    }
}

section! {
    /// `ingestion`: limits of receiving.
    pub struct IngestionLimits {
        /// Whose rate is limited; the same for all tenants.
        used rate_strategy: RateStrategy = default();
        /// Bytes a second; 0 is no limit (Tempo: refuses everything).
        used rate_limit_bytes: u64 = 15_000_000;
        /// Bytes at once; a larger request never passes. 0 is no limit.
        used burst_size_bytes: u64 = 20_000_000;
        /// Live traces per ingester.
        used max_traces_per_user: usize = 10_000;
        /// Live traces of all ingesters.
        used max_global_traces_per_user: usize = 0;
        /// Ingesters that serve the tenant; 0 is all.
        idle tenant_shard_size: usize = 0;
        /// Longest attribute key and value, in bytes; 0 is the distributor's.
        used max_attribute_bytes: usize = 0;
        /// Wait added to every request; unset is the distributor's.
        used artificial_delay: Option<Duration> = None;
        /// Whether a refusal carries a hint when to try again.
        used retry_info_enabled: bool = true;
        /// Whether short trace ids are filled up with zeros (3.x).
        idle left_pad_trace_ids: bool = false;
    }
}

section! {
    /// `read`: limits of querying.
    pub struct ReadLimits {
        /// Bytes of tag names or values in an answer; what is over is cut off.
        used max_bytes_per_tag_values_query: usize = 1_000_000;
        /// Blocks looked at for tag values.
        used max_blocks_per_tag_values_query: usize = 0;
        /// Longest range of a search; 0 is the query-frontend's.
        used max_search_duration: Duration = Duration::ZERO;
        /// Longest range of a metrics query; 0 is the query-frontend's.
        used max_metrics_duration: Duration = Duration::ZERO;
        /// Whether debugging hints in queries are obeyed.
        idle unsafe_query_hints: bool = false;
        /// Conditions of a tag query (3.x).
        idle max_condition_groups_per_tag_query: usize = 100;
        /// Whether metrics read spans only (3.x).
        idle metrics_spanonly_fetch: bool = false;
    }
}

section! {
    /// `compaction`: limits of compacting and deleting.
    pub struct CompactionLimits {
        /// Age at which a block is deleted; 0 is the compactor's.
        used block_retention: Duration = Duration::ZERO;
        /// Window of merged blocks; 0 is the compactor's.
        used compaction_window: Duration = Duration::ZERO;
        /// Whether nothing is compacted and nothing deleted.
        used compaction_disabled: bool = false;
    }
}

section! {
    /// `global`: limits of everything.
    pub struct GlobalLimits {
        /// Bytes of one trace.
        used max_bytes_per_trace: u64 = 5_000_000;
    }
}

section! {
    /// `storage`: limits of storing.
    pub struct StorageLimits {
        /// Attributes that get columns of their own; none is the block's list.
        used parquet_dedicated_columns: Vec<DedicatedColumn> = vec![];
    }
}

section! {
    /// `cost_attribution`: counting of bytes by attribute.
    pub struct CostAttributionLimits {
        /// Attributes, and the labels they become.
        used dimensions: BTreeMap<String, String> = default();
        /// Series at most; 0 is the distributor's.
        used max_cardinality: usize = 0;
    }
}

impl CostAttributionLimits {
    /// Whether Prometheus takes a text for a label beside those that are always there.
    #[must_use]
    pub fn is_label(text: &str) -> bool {
        let starts_well = text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_') && !text.starts_with("__");
        starts_well && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') && !["tenant", "tracker"].contains(&text)
    }
}

choice! {
    /// Form of generated histograms.
    pub enum HistogramMode {
        /// With fixed bounds.
        Classic = "classic";
        /// Native.
        Native = "native";
        /// Both.
        Both = "both";
    }
}

choice! {
    /// What becomes of the names of spans.
    pub enum SpanNameSanitization {
        /// They stay.
        Disabled = "" | "disabled";
        /// They stay, and those that would change are counted.
        DryRun = "dry_run";
        /// What varies in them is replaced.
        Enabled = "enabled";
    }
}

section! {
    /// `metrics_generator`: limits of making metrics.
    pub struct GeneratorLimits {
        /// Generators that serve the tenant; 0 is all.
        used ring_size: usize = 0;
        /// What is made, such as `span-metrics`.
        used processors: Vec<String> = vec![];
        /// Series at most.
        used max_active_series: usize = 0;
        /// Sets of labels at most.
        used max_active_entities: usize = 0;
        /// Values per label at most; others become `__cardinality_overflow__` (3.x). 0 is no limit.
        used max_cardinality_per_label: usize = 0;
        /// Pause between collections; 0 is the registry's.
        used collection_interval: Duration = Duration::ZERO;
        /// Whether nothing is sent.
        used disable_collection: bool = false;
        /// Form of histograms.
        used generate_native_histograms: HistogramMode = default();
        /// Growth from one native bucket to the next.
        used native_histogram_bucket_factor: f64 = 1.1;
        /// Native buckets at most.
        used native_histogram_max_bucket_number: u32 = 100;
        /// Shortest life of a native histogram.
        used native_histogram_min_reset_duration: Duration = mins(15);
        /// Label of exemplars; empty is `traceID`.
        used trace_id_label_name: String = String::new();
        /// Headers added to remote writes.
        used remote_write_headers: BTreeMap<String, Secret> = default();
        /// Spans that ended longer ago are left out; 0 is the generator's.
        used ingestion_time_range_slack: Duration = Duration::ZERO;
        /// Whether names of spans become patterns, such as `GET /users/<_>` (3.x).
        used span_name_sanitization: SpanNameSanitization = default();
        /// Attribute by which a span counts more than once (3.x).
        used span_multiplier_key: String = String::new();
        /// Whether trace state may say so too (3.x).
        used enable_tracestate_span_multiplier: bool = false;
        /// The way from distributors to generators.
        used forwarder: GeneratorForwarderLimits = default();
        /// What is made, and how; unset is the generator's.
        used processor: ProcessorLimits = default();
    }
}

section! {
    /// `metrics_generator.forwarder`: the way from distributors to generators.
    pub struct GeneratorForwarderLimits {
        /// Requests waiting; 0 is 100.
        used queue_size: usize = 0;
        /// Requests sent at once; 0 is 2.
        used workers: usize = 0;
    }
}

section! {
    /// `metrics_generator.processor`: unset is the generator's.
    pub struct ProcessorLimits {
        /// Edges between services.
        used service_graphs: ServiceGraphLimits = default();
        /// Calls, latency and size by span name.
        used span_metrics: SpanMetricsLimits = default();
        /// Blocks for TraceQL metrics.
        idle local_blocks: LocalBlocksLimits = default();
        /// One series per host.
        used host_info: HostInfoLimits = default();
    }
}

section! {
    /// `metrics_generator.processor.service_graphs`: unset is the generator's.
    pub struct ServiceGraphLimits {
        /// Bounds of the latency histogram, in seconds.
        used histogram_buckets: Option<Vec<f64>> = None;
        /// Attributes that become labels.
        used dimensions: Option<Vec<String>> = None;
        /// Attributes that name a service without spans.
        used peer_attributes: Option<Vec<String>> = None;
        /// Whether labels say which side they are from.
        used enable_client_server_prefix: Option<bool> = None;
        /// Whether the time in message queues is measured.
        used enable_messaging_system_latency_histogram: Option<bool> = None;
        /// Whether a label marks virtual nodes.
        used enable_virtual_node_label: Option<bool> = None;
        /// Attribute by which a span counts more than once (3.x).
        used span_multiplier_key: Option<String> = None;
        /// Whether trace state may say so too (3.x).
        used enable_tracestate_span_multiplier: Option<bool> = None;
        /// Spans that count (3.x).
        used filter_policies: Option<Vec<FilterPolicy>> = None;
    }
}

section! {
    /// `metrics_generator.processor.span_metrics`: unset is the generator's.
    pub struct SpanMetricsLimits {
        /// Bounds of the latency histogram, in seconds.
        used histogram_buckets: Option<Vec<f64>> = None;
        /// Attributes that become labels.
        used dimensions: Option<Vec<String>> = None;
        /// Labels made from fields of the span.
        used intrinsic_dimensions: Option<IntrinsicDimensions> = None;
        /// Spans that count.
        used filter_policies: Option<Vec<FilterPolicy>> = None;
        /// Labels made from several attributes.
        used dimension_mappings: Option<Vec<DimensionMapping>> = None;
        /// Whether `traces_target_info` is made.
        used enable_target_info: Option<bool> = None;
        /// Resource attributes left out of `traces_target_info`.
        used target_info_excluded_dimensions: Option<Vec<String>> = None;
        /// Whether an instance label is set.
        used enable_instance_label: Option<bool> = None;
        /// Attribute by which a span counts more than once (3.x).
        used span_multiplier_key: Option<String> = None;
        /// Whether trace state may say so too (3.x).
        used enable_tracestate_span_multiplier: Option<bool> = None;
    }
}

section! {
    /// `metrics_generator.processor.local_blocks`: 0 is the generator's.
    pub struct LocalBlocksLimits {
        /// Live traces.
        used max_live_traces: u64 = 0;
        /// How old a block becomes before it is cut.
        used max_block_duration: Duration = Duration::ZERO;
        /// How large a block becomes before it is cut.
        used max_block_bytes: u64 = 0;
        /// Pause between looks for blocks to cut.
        used flush_check_period: Duration = Duration::ZERO;
        /// How long a trace may be quiet.
        used trace_idle_period: Duration = Duration::ZERO;
        /// How long a finished block is kept.
        used complete_block_timeout: Duration = Duration::ZERO;
    }
}

section! {
    /// `metrics_generator.processor.host_info`: unset is the generator's.
    pub struct HostInfoLimits {
        /// Attributes that name a host.
        used host_identifiers: Option<Vec<String>> = None;
        /// Name of the metric.
        used metric_name: Option<String> = None;
    }
}

/// Where a limit of Tempo's older, flat form is in the newer form, as a path below the tenant.
pub(crate) fn flat_path(key: &str) -> Option<String> {
    const PROCESSORS: [&str; 4] = ["service_graphs", "span_metrics", "local_blocks", "host_info"];
    let block = match key {
        "max_traces_per_user" | "max_global_traces_per_user" => "ingestion",
        "block_retention" | "compaction_window" | "compaction_disabled" => "compaction",
        "max_bytes_per_tag_values_query"
        | "max_blocks_per_tag_values_query"
        | "max_search_duration"
        | "max_metrics_duration"
        | "unsafe_query_hints" => "read",
        "max_bytes_per_trace" => "global",
        "parquet_dedicated_columns" => "storage",
        _ => "",
    };
    if !block.is_empty() {
        return Some(format!("{block}.{key}"));
    }
    if let Some(rest) = key.strip_prefix("ingestion_") {
        return Some(format!("ingestion.{rest}"));
    }
    let rest = key.strip_prefix("metrics_generator_")?;
    if let Some(rest) = rest.strip_prefix("forwarder_") {
        return Some(format!("metrics_generator.forwarder.{rest}"));
    }
    let processor = rest
        .strip_prefix("processor_")
        .and_then(|rest| PROCESSORS.iter().find_map(|processor| Some((processor, rest.strip_prefix(processor)?.strip_prefix('_')?))));
    match processor {
        Some((processor, leaf)) => Some(format!("metrics_generator.processor.{processor}.{leaf}")),
        None => Some(format!("metrics_generator.{rest}")),
    }
}

/// The names of all limits in the flat form.
pub(crate) fn flat_names() -> Vec<String> {
    let mut paths = vec![];
    collect(&Limits::default(), "", &mut paths);
    paths
        .into_iter()
        .filter_map(|path| {
            let (_, leaf) = path.split_once('.')?;
            [leaf.to_owned(), path.replace('.', "_")].into_iter().find(|name| flat_path(name).as_deref() == Some(&path))
        })
        .collect()
}

fn collect(block: &dyn Value, path: &str, paths: &mut Vec<String>) {
    for field in block.fields() {
        let path = if path.is_empty() { field.key.to_owned() } else { format!("{path}.{}", field.key) };
        if field.value.fields().is_empty() {
            paths.push(path);
        } else {
            collect(field.value, &path, paths);
        }
    }
}
