//! One tenant: its series, and the processors that make them, which follow its limits while they run.

use std::sync::Arc;

use vivace_config::{Limits, MetricsGenerator};
use vivace_core::wire::WireError;
use vivace_proto::prometheus::MetricMetadata;

use crate::collection::name;
use crate::host_info;
use crate::labels::LabelSet;
use crate::options::{HostInfoOptions, ProcessorOptions};
use crate::registry::{Metric, Registry, RegistryLimits};
use crate::remote_write::metadata;
use crate::service_graphs::ServiceGraphs;
use crate::span_metrics::SpanMetrics;
use crate::spans::{Interest, Wanted, measure};

/// What happened to one push.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Accounted {
    pub(crate) spans: u64,
    /// Spans that ended too far from now.
    pub(crate) outside_slack: u64,
    /// Spans that are broken inside.
    pub(crate) unreadable: u64,
    /// Spans that a policy of span metrics leaves out.
    pub(crate) filtered: u64,
}

/// A tenant's series and processors.
#[derive(Debug)]
pub(crate) struct Tenant {
    pub(crate) registry: Registry,
    labels: LabelSet,
    /// Those that the options below were made of.
    limits: Option<Arc<Limits>>,
    pub(crate) span_metrics: Option<SpanMetrics>,
    pub(crate) service_graphs: Option<ServiceGraphs>,
    host_info: Option<HostInfoOptions>,
    /// Attributes that any of them looks at.
    interest: Interest,
}

impl Tenant {
    /// One without processors; its series have the constant labels.
    pub(crate) fn new(section: &MetricsGenerator, constant_labels: Vec<(String, String)>) -> Self {
        let names = constant_labels.iter().filter(|(_, value)| !value.is_empty()).map(|(name, _)| name.clone()).collect();
        let keys = &section.registry;
        Self {
            registry: Registry::new(RegistryLimits::default(), constant_labels),
            labels: LabelSet::new(keys.max_label_name_length, keys.max_label_value_length, names),
            limits: None,
            span_metrics: None,
            service_graphs: None,
            host_info: None,
            interest: Interest::default(),
        }
    }

    /// Follows the limits. A processor that stays as it was keeps its series; of one that makes other labels those that have them end,
    /// and of one that is gone all.
    pub(crate) fn follow(&mut self, section: &MetricsGenerator, limits: &Arc<Limits>) {
        if self.limits.as_ref().is_some_and(|known| Arc::ptr_eq(known, limits)) {
            return;
        }
        self.limits = Some(limits.clone());
        self.registry.set_limits(registry_limits(section, limits));
        let wanted = ProcessorOptions::new(&section.processor, &limits.metrics_generator);
        self.change_span_metrics(wanted.span_metrics);
        self.change_service_graphs(wanted.service_graphs, section.registry.max_label_value_length);
        if self.host_info != wanted.host_info {
            self.registry.end(|metric| metric == Metric::HostInfo);
            if let Some(options) = &wanted.host_info {
                options.metric_name.clone_into(&mut self.registry.host_info_name);
            }
            self.host_info = wanted.host_info;
        }
        self.want();
    }

    /// Looks which attributes the processors ask for.
    fn want(&mut self) {
        let spans = self.span_metrics.as_ref();
        let others: Vec<&str> = spans.into_iter().flat_map(SpanMetrics::keys).collect();
        let graphs = self.service_graphs.iter().flat_map(ServiceGraphs::keys);
        let calls: Vec<&str> = others.iter().copied().chain(graphs).collect();
        let hosts = self.host_info.iter().flat_map(|options| &options.identifiers).map(String::as_str);
        let describes_targets = spans.is_some_and(|spans| spans.options().target_info);
        let named = || Wanted::new(calls.iter().copied().chain(hosts).chain(["service.name"]));
        let resources = if describes_targets { Wanted::all() } else { named() };
        self.interest = Interest { resources, others: Wanted::new(others), calls: Wanted::new(calls.iter().copied()) };
    }

    /// Names of the processors and whether they run.
    pub(crate) fn processors(&self) -> [(&'static str, bool); 3] {
        [
            ("span-metrics", self.span_metrics.is_some()),
            ("service-graphs", self.service_graphs.is_some()),
            ("host-info", self.host_info.is_some()),
        ]
    }

    /// What the metrics are that the processors make now.
    pub(crate) fn metadata(&self) -> Vec<MetricMetadata> {
        let (spans, graphs) =
            (self.span_metrics.as_ref().map(SpanMetrics::options), self.service_graphs.as_ref().map(ServiceGraphs::options));
        let has_messages = graphs.is_some_and(|options| options.messaging_latency);
        let made = [
            (Metric::Calls, spans.is_some_and(|options| options.count)),
            (Metric::Latency, spans.is_some_and(|options| options.latency)),
            (Metric::Size, spans.is_some_and(|options| options.size)),
            (Metric::TargetInfo, spans.is_some_and(|options| options.target_info)),
            (Metric::HostInfo, self.host_info.is_some()),
            (Metric::Requests, graphs.is_some()),
            (Metric::FailedRequests, graphs.is_some()),
            (Metric::ServerSeconds, graphs.is_some()),
            (Metric::ClientSeconds, graphs.is_some()),
            (Metric::MessagingSeconds, has_messages),
        ];
        let made = made.into_iter().filter(|(_, is_made)| *is_made);
        made.map(|(metric, _)| metadata(metric, name(metric, &self.registry.host_info_name))).collect()
    }

    /// Counts the spans of one push that ended within `slack_nanos` of now.
    ///
    /// # Errors
    /// The payload is no `TracesData`; spans before the broken place are counted. A span that is broken inside is left out alone.
    pub(crate) fn push(&mut self, traces_data: &[u8], now_unix_nanos: u64, slack_nanos: u64) -> Result<Accounted, WireError> {
        let Self { registry, labels, span_metrics, service_graphs, host_info, interest, .. } = self;
        let mut accounted = Accounted::default();
        let mut entered = None;
        accounted.unreadable = measure(traces_data, interest, |resource, span| {
            accounted.spans += 1;
            if span.end_unix_nanos.abs_diff(now_unix_nanos) > slack_nanos {
                accounted.outside_slack += 1;
                return;
            }
            if entered.replace(resource.index) != Some(resource.index) {
                if let Some(span_metrics) = span_metrics {
                    span_metrics.enter(registry, labels, resource, now_unix_nanos);
                }
                if let Some(options) = host_info {
                    host_info::observe(options, registry, labels, resource, now_unix_nanos);
                }
            }
            if let Some(span_metrics) = span_metrics
                && !span_metrics.observe(registry, labels, resource, span, now_unix_nanos)
            {
                accounted.filtered += 1;
            }
            if let Some(graphs) = service_graphs {
                graphs.observe(registry, labels, resource, span, now_unix_nanos);
            }
        })?;
        accounted.spans += accounted.unreadable;
        self.expire(now_unix_nanos);
        Ok(accounted)
    }

    /// Ends the waiting of calls whose other side did not come.
    pub(crate) fn expire(&mut self, now_unix_nanos: u64) {
        if let Some(graphs) = &mut self.service_graphs {
            graphs.expire(&mut self.registry, &mut self.labels, now_unix_nanos);
        }
    }

    fn change_span_metrics(&mut self, wanted: Option<crate::options::SpanMetricsOptions>) {
        let Some(options) = wanted else {
            if self.span_metrics.take().is_some() {
                self.registry.end(is_of_spans);
            }
            return;
        };
        let Some(running) = &mut self.span_metrics else {
            self.span_metrics = Some(SpanMetrics::new(options));
            return;
        };
        if *running.options() == options {
            return;
        }
        let (count, latency, size, target_info) = (options.count, options.latency, options.size, options.target_info);
        let leaves_out_others = options.target_info_excluded != running.options().target_info_excluded;
        let changed = running.change(options);
        self.registry.end(|metric| match metric {
            Metric::Calls => !count,
            Metric::Latency => !latency,
            Metric::Size => !size,
            // Queries join with it: there must not be two of one target.
            Metric::TargetInfo => !target_info || leaves_out_others || changed.is_some(),
            _ => false,
        });
        if let Some(changed) = changed {
            self.registry.relabel(is_of_spans, &changed);
        }
    }

    fn change_service_graphs(&mut self, wanted: Option<crate::options::ServiceGraphOptions>, value_bytes_max: usize) {
        let Some(options) = wanted else {
            if self.service_graphs.take().is_some() {
                self.registry.end(is_of_graphs);
            }
            return;
        };
        let Some(running) = &mut self.service_graphs else {
            self.service_graphs = Some(ServiceGraphs::new(options, value_bytes_max));
            return;
        };
        if *running.options() == options {
            return;
        }
        let messaging = options.messaging_latency;
        let changed = running.change(options);
        self.registry.end(|metric| metric == Metric::MessagingSeconds && !messaging);
        if let Some(changed) = changed {
            self.registry.relabel(is_of_graphs, &changed);
        }
    }
}

fn is_of_spans(metric: Metric) -> bool {
    matches!(metric, Metric::Calls | Metric::Latency | Metric::Size | Metric::TargetInfo)
}

fn is_of_graphs(metric: Metric) -> bool {
    matches!(metric, Metric::Requests | Metric::FailedRequests | Metric::ServerSeconds | Metric::ClientSeconds | Metric::MessagingSeconds)
}

/// One of the two counts, as the configuration says.
fn registry_limits(section: &MetricsGenerator, limits: &Limits) -> RegistryLimits {
    let (series_max, entities_max) = (limits.metrics_generator.max_active_series, limits.metrics_generator.max_active_entities);
    let values_max = limits.metrics_generator.max_cardinality_per_label;
    match section.limiter_type {
        vivace_config::LimiterType::Series => RegistryLimits { series_max, entities_max: 0, values_max },
        vivace_config::LimiterType::Entity => RegistryLimits { series_max: 0, entities_max, values_max },
    }
}

#[cfg(test)]
mod tests;
