//! What processors make for a tenant: the generator's configuration, and over it the tenant's.

use std::sync::Arc;

use vivace_config::{DimensionMapping, FilterPolicy, GeneratorLimits, HistogramMode, IntrinsicDimensions, Processor, SpanNameSanitization};

use crate::histogram::HistogramShape;
use crate::native_histogram::NativeLimits;
use crate::spans::Multiplier;

/// The processors of a tenant.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct ProcessorOptions {
    pub(crate) span_metrics: Option<SpanMetricsOptions>,
    pub(crate) service_graphs: Option<ServiceGraphOptions>,
    pub(crate) host_info: Option<HostInfoOptions>,
}

/// Calls, latency and size.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct SpanMetricsOptions {
    /// `traces_spanmetrics_calls_total` is made.
    pub(crate) count: bool,
    /// `traces_spanmetrics_latency` is made.
    pub(crate) latency: bool,
    /// `traces_spanmetrics_size_total` is made.
    pub(crate) size: bool,
    pub(crate) intrinsic: IntrinsicDimensions,
    /// Attributes that become labels.
    pub(crate) dimensions: Vec<String>,
    pub(crate) mappings: Vec<DimensionMapping>,
    /// `traces_target_info` is made, and series have a label `job`.
    pub(crate) target_info: bool,
    pub(crate) target_info_excluded: Vec<String>,
    /// And a label `instance`.
    pub(crate) instance_label: bool,
    pub(crate) filter_policies: Vec<FilterPolicy>,
    pub(crate) multiplier: Multiplier,
    /// What becomes of the names of spans.
    pub(crate) sanitization: SpanNameSanitization,
    pub(crate) shape: HistogramShape,
}

/// Edges between services.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct ServiceGraphOptions {
    /// How long one side of a call waits for the other, nanoseconds.
    pub(crate) wait_nanos: u64,
    /// Edges that wait, at most.
    pub(crate) edges_max: usize,
    /// Attributes that become labels.
    pub(crate) dimensions: Vec<String>,
    /// Each attribute becomes two labels, one for each side.
    pub(crate) prefixed: bool,
    /// Attributes that name a service without spans.
    pub(crate) peer_attributes: Vec<String>,
    /// Attributes that name a database.
    pub(crate) database_attributes: Vec<String>,
    pub(crate) messaging_latency: bool,
    pub(crate) virtual_node_label: bool,
    pub(crate) filter_policies: Vec<FilterPolicy>,
    pub(crate) multiplier: Multiplier,
    pub(crate) shape: HistogramShape,
}

/// One series per host.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct HostInfoOptions {
    /// Attributes that name a host, in order of trust.
    pub(crate) identifiers: Vec<String>,
    pub(crate) metric_name: String,
}

impl ProcessorOptions {
    /// Unknown names make nothing, as in the reference; `local-blocks` has nothing to do, since queries need no blocks of its own.
    pub(crate) fn new(general: &Processor, limits: &GeneratorLimits) -> Self {
        let has = |name: &str| limits.processors.iter().any(|processor| processor == name);
        let parts = ["span-metrics-count", "span-metrics-latency", "span-metrics-size"].map(|part| has("span-metrics") || has(part));
        Self {
            span_metrics: parts.contains(&true).then(|| span_metrics(general, limits, parts)),
            service_graphs: has("service-graphs").then(|| service_graphs(general, limits)),
            host_info: has("host-info").then(|| host_info(general, limits)),
        }
    }
}

fn span_metrics(general: &Processor, limits: &GeneratorLimits, [count, latency, size]: [bool; 3]) -> SpanMetricsOptions {
    let (own, general) = (&limits.processor.span_metrics, &general.span_metrics);
    SpanMetricsOptions {
        count,
        latency,
        size,
        intrinsic: own.intrinsic_dimensions.clone().unwrap_or_else(|| general.intrinsic_dimensions.clone()),
        dimensions: chosen(own.dimensions.as_ref(), &general.dimensions),
        mappings: chosen(own.dimension_mappings.as_ref(), &general.dimension_mappings),
        target_info: own.enable_target_info.unwrap_or(general.enable_target_info),
        target_info_excluded: chosen(own.target_info_excluded_dimensions.as_ref(), &general.target_info_excluded_dimensions),
        instance_label: own.enable_instance_label.unwrap_or(general.enable_instance_label),
        filter_policies: chosen(own.filter_policies.as_ref(), &general.filter_policies),
        multiplier: Multiplier {
            key: first_set([own.span_multiplier_key.as_deref(), Some(&*limits.span_multiplier_key)], &general.span_multiplier_key),
            trace_state: own
                .enable_tracestate_span_multiplier
                .unwrap_or(limits.enable_tracestate_span_multiplier || general.enable_tracestate_span_multiplier),
        },
        sanitization: limits.span_name_sanitization,
        shape: shape(&chosen(own.histogram_buckets.as_ref(), &general.histogram_buckets), limits),
    }
}

fn service_graphs(general: &Processor, limits: &GeneratorLimits) -> ServiceGraphOptions {
    let (own, general) = (&limits.processor.service_graphs, &general.service_graphs);
    let messaging = own.enable_messaging_system_latency_histogram;
    ServiceGraphOptions {
        wait_nanos: u64::try_from(general.wait.as_nanos()).unwrap_or(u64::MAX),
        edges_max: general.max_items,
        dimensions: chosen(own.dimensions.as_ref(), &general.dimensions),
        prefixed: own.enable_client_server_prefix.unwrap_or(general.enable_client_server_prefix),
        peer_attributes: chosen(own.peer_attributes.as_ref(), &general.peer_attributes),
        database_attributes: general.database_name_attributes.clone(),
        messaging_latency: messaging.unwrap_or(general.enable_messaging_system_latency_histogram),
        virtual_node_label: own.enable_virtual_node_label.unwrap_or(general.enable_virtual_node_label),
        filter_policies: chosen(own.filter_policies.as_ref(), &general.filter_policies),
        multiplier: Multiplier {
            key: first_set([own.span_multiplier_key.as_deref(), Some(&*limits.span_multiplier_key)], &general.span_multiplier_key),
            trace_state: own
                .enable_tracestate_span_multiplier
                .unwrap_or(limits.enable_tracestate_span_multiplier || general.enable_tracestate_span_multiplier),
        },
        shape: shape(&chosen(own.histogram_buckets.as_ref(), &general.histogram_buckets), limits),
    }
}

fn host_info(general: &Processor, limits: &GeneratorLimits) -> HostInfoOptions {
    let (own, general) = (&limits.processor.host_info, &general.host_info);
    HostInfoOptions {
        identifiers: chosen(own.host_identifiers.as_ref(), &general.host_identifiers),
        metric_name: first_set([own.metric_name.as_deref()], &general.metric_name),
    }
}

/// The tenant's list, or the general one where it has none. An empty one is none: whole configurations that were written out have
/// such lists.
fn chosen<T: Clone>(own: Option<&Vec<T>>, general: &[T]) -> Vec<T> {
    own.filter(|own| !own.is_empty()).map_or_else(|| general.to_vec(), Clone::clone)
}

fn first_set<const N: usize>(own: [Option<&str>; N], general: &str) -> String {
    own.into_iter().flatten().find(|own| !own.is_empty()).unwrap_or(general).to_owned()
}

fn shape(bounds: &[f64], limits: &GeneratorLimits) -> HistogramShape {
    let mode = limits.generate_native_histograms;
    let native = NativeLimits::new(
        limits.native_histogram_bucket_factor,
        limits.native_histogram_max_bucket_number,
        limits.native_histogram_min_reset_duration,
    );
    HistogramShape {
        classic: (mode != HistogramMode::Native).then(|| Arc::from(bounds)),
        native: (mode != HistogramMode::Classic).then_some(native),
    }
}

#[cfg(test)]
mod tests {
    use vivace_config::Config;

    use super::*;

    fn options(limits: &str) -> ProcessorOptions {
        let general = "metrics_generator: {processor: {span_metrics: {dimensions: [a], enable_target_info: true}}}";
        let text = format!("{general}\noverrides: {{defaults: {{metrics_generator: {limits}}}}}");
        let (config, _) = Config::parse(&text, "t").expect("right");
        ProcessorOptions::new(&config.metrics_generator.processor, &config.overrides.defaults.metrics_generator)
    }

    #[test]
    fn only_what_is_named_is_made() {
        assert_eq!(options("{processors: [local-blocks, something-else]}"), ProcessorOptions::default());
        let of = options("{processors: [span-metrics-latency, service-graphs]}");
        let span_metrics = of.span_metrics.expect("a part of it is named");
        assert_eq!((span_metrics.count, span_metrics.latency, span_metrics.size), (false, true, false));
        assert!(of.service_graphs.is_some() && of.host_info.is_none());
    }

    #[test]
    fn a_tenant_s_own_goes_before_the_generator_s() {
        let own = "{span_metrics: {dimensions: [b], enable_target_info: false, histogram_buckets: []}}";
        let of = options(&format!("{{processors: [span-metrics], generate_native_histograms: both, processor: {own}}}"));
        let of = of.span_metrics.expect("named");
        assert_eq!((of.dimensions, of.target_info, of.instance_label), (vec!["b".to_owned()], false, true));
        assert_eq!(of.shape.classic.map(|bounds| bounds.len()), Some(14), "an empty list is none");
        assert!(of.shape.native.is_some());
        assert_eq!(options("{processors: [span-metrics]}").span_metrics.expect("named").dimensions, ["a"]);
    }
}
