//! The span-metrics processor: calls, latency and size per service, span name, kind and status, and what is known of each target.
//!
//! Source: docs/facts/components.md, "Span metrics".

use std::borrow::Cow;
use std::fmt::Write as _;
use std::sync::Arc;

use vivace_config::SpanNameSanitization;

use crate::filter::Filter;
use crate::histogram::{HistogramShape, Observation};
use crate::labels::{LabelSet, Made, SPAN_LABELS, changed_labels, label_name};
use crate::options::SpanMetricsOptions;
use crate::registry::{Metric, Registry};
use crate::span_names::SpanNames;
use crate::spans::{MeasuredResource, MeasuredSpan};

/// The labels of spans' series when targets are described too.
const TARGET_LABELS: &[&str] = &["service", "span_name", "span_kind", "status_code", "status_message", "job", "instance"];

/// Counts spans.
#[derive(Debug)]
pub(crate) struct SpanMetrics {
    options: SpanMetricsOptions,
    filter: Filter,
    shape: Arc<HistogramShape>,
    /// The label of each dimension, and of each mapping.
    dimension_labels: Vec<String>,
    mapping_labels: Vec<String>,
    /// Of the resource that was looked at last.
    job: String,
    /// A value that is put together.
    joined: String,
    names: SpanNames,
    /// Spans whose name has become a pattern, or would have.
    pub(crate) patterned: u64,
}

impl SpanMetrics {
    pub(crate) fn new(options: SpanMetricsOptions) -> Self {
        let taken = if options.target_info { TARGET_LABELS } else { SPAN_LABELS };
        Self {
            filter: Filter::new(&options.filter_policies),
            shape: Arc::new(options.shape.clone()),
            dimension_labels: options.dimensions.iter().map(|key| label_name(key, taken)).collect(),
            mapping_labels: options.mappings.iter().map(|mapping| label_name(&mapping.name, taken)).collect(),
            options,
            job: String::new(),
            joined: String::new(),
            names: SpanNames::default(),
            patterned: 0,
        }
    }

    /// Takes other options. Gives the labels that changed, as [`changed_labels`] does.
    pub(crate) fn change(&mut self, options: SpanMetricsOptions) -> Option<Vec<String>> {
        let before = self.made();
        let shape = (*self.shape == options.shape).then(|| self.shape.clone());
        let names = if options.sanitization == self.options.sanitization { std::mem::take(&mut self.names) } else { SpanNames::default() };
        *self = Self { names, patterned: self.patterned, ..Self::new(options) };
        self.shape = shape.unwrap_or_else(|| self.shape.clone());
        changed_labels(&before, &self.made())
    }

    /// What each label is made of, in the order of [`SpanMetrics::label`].
    fn made(&self) -> Vec<Made> {
        let SpanMetricsOptions { intrinsic, dimensions, mappings, target_info, instance_label, sanitization, .. } = &self.options;
        let name = if *sanitization == SpanNameSanitization::Enabled { "pattern" } else { "name" };
        let own = [
            ("service", "", intrinsic.service),
            ("span_name", name, intrinsic.span_name),
            ("span_kind", "", intrinsic.span_kind),
            ("status_code", "", intrinsic.status_code),
            ("status_message", "", intrinsic.status_message),
            ("job", "", *target_info),
            ("instance", "", *target_info && *instance_label),
        ];
        let own = own.into_iter().filter(|(.., is_made)| *is_made).map(|(label, of, _)| (label.to_owned(), of.to_owned()));
        let dimensions = self.dimension_labels.iter().cloned().zip(dimensions.iter().cloned());
        let of_mappings = mappings.iter().map(|mapping| format!("{:?}{:?}", mapping.source_labels, mapping.join));
        own.chain(dimensions).chain(self.mapping_labels.iter().cloned().zip(of_mappings)).collect()
    }

    pub(crate) fn options(&self) -> &SpanMetricsOptions {
        &self.options
    }

    /// The attributes of spans and resources that are asked for.
    pub(crate) fn keys(&self) -> impl Iterator<Item = &str> {
        let options = &self.options;
        let mapped = options.mappings.iter().flat_map(|mapping| &mapping.source_labels);
        let multiplier = Some(&options.multiplier.key).filter(|key| !key.is_empty());
        options.dimensions.iter().chain(mapped).chain(multiplier).map(String::as_str).chain(self.filter.keys())
    }

    /// Looks at a resource before its spans.
    pub(crate) fn enter(&mut self, registry: &mut Registry, labels: &mut LabelSet, resource: &MeasuredResource<'_>, now: u64) {
        if !self.options.target_info {
            return;
        }
        let text = |key: &str| resource.attributes.text(key);
        self.job.clear();
        if let Some(service) = text("service.name") {
            self.job.extend(text("service.namespace").into_iter().flat_map(|namespace| [namespace, "/".into()]));
            self.job.push_str(&service);
        }
        let instance = self.instance(resource);
        if self.job.is_empty() && instance.is_empty() {
            return;
        }
        labels.clear();
        labels.push("job", &self.job);
        labels.push("instance", &instance);
        let mut has_any = false;
        for (key, value) in resource.attributes.iter() {
            let is_own = matches!(key, "service.name" | "service.namespace" | "service.instance.id");
            let is_left_out = key.is_empty() || key.starts_with(|c: char| c.is_ascii_digit());
            if !is_own && !is_left_out && !self.options.target_info_excluded.iter().any(|excluded| excluded == key) {
                has_any = true;
                labels.push(&label_name(key, TARGET_LABELS), value);
            }
        }
        if has_any {
            let entity = registry.entity(labels, 1, now);
            registry.set(entity, Metric::TargetInfo, 1.0);
        }
    }

    /// Counts a span. False if a policy leaves it out.
    pub(crate) fn observe(
        &mut self,
        registry: &mut Registry,
        labels: &mut LabelSet,
        resource: &MeasuredResource<'_>,
        span: &MeasuredSpan<'_>,
        now_unix_nanos: u64,
    ) -> bool {
        if !self.filter.passes(resource, span) {
            return false;
        }
        self.label(labels, resource, span);
        let weight = span.weight(&self.options.multiplier, resource);
        let first_cost = if self.options.count || self.options.size { 1 } else { self.shape.cost() };
        let entity = registry.entity(labels, first_cost, now_unix_nanos);
        if self.options.count {
            registry.add(entity, Metric::Calls, weight);
        }
        if self.options.size {
            registry.add(entity, Metric::Size, span.size as f64);
        }
        if self.options.latency {
            let observation = Observation { seconds: span.duration_seconds(), weight, trace: span.trace, unix_nanos: now_unix_nanos };
            registry.observe(entity, Metric::Latency, &self.shape, observation);
        }
        true
    }

    fn label(&mut self, labels: &mut LabelSet, resource: &MeasuredResource<'_>, span: &MeasuredSpan<'_>) {
        labels.clear();
        let SpanMetricsOptions { intrinsic, dimensions, mappings, target_info, .. } = &self.options;
        if intrinsic.service
            && let Some(service) = resource.attributes.get("service.name")
        {
            labels.push("service", service);
        }
        if intrinsic.span_name {
            match self.options.sanitization {
                SpanNameSanitization::Disabled => labels.push("span_name", &span.name),
                how => {
                    let pattern = self.names.pattern(&resource.attributes.text("service.name").unwrap_or_default(), &span.name);
                    self.patterned += u64::from(*pattern != *span.name);
                    labels.push("span_name", if how == SpanNameSanitization::Enabled { pattern } else { &span.name });
                }
            }
        }
        if intrinsic.span_kind {
            labels.push("span_kind", span.kind_name());
        }
        if intrinsic.status_code {
            labels.push("status_code", span.status_name());
        }
        if intrinsic.status_message {
            labels.push("status_message", &span.status_message);
        }
        if *target_info {
            labels.push("job", &self.job);
            labels.push("instance", self.instance(resource));
        }
        for (key, label) in dimensions.iter().zip(&self.dimension_labels) {
            if let Some(value) = span.dimension(key, resource) {
                labels.push(label, value);
            }
        }
        for (mapping, label) in mappings.iter().zip(&self.mapping_labels) {
            self.joined.clear();
            for value in mapping.source_labels.iter().filter_map(|key| span.dimension(key, resource)) {
                let before = self.joined.len();
                if before > 0 {
                    self.joined.push_str(&mapping.join);
                }
                let start = self.joined.len();
                // Writing to a text cannot fail.
                let _ = write!(self.joined, "{value}");
                if self.joined.len() == start {
                    self.joined.truncate(before);
                }
            }
            labels.push(label, &self.joined);
        }
    }

    fn instance<'r>(&self, resource: &'r MeasuredResource<'_>) -> Cow<'r, str> {
        let instance = self.options.instance_label.then(|| resource.attributes.text("service.instance.id"));
        instance.flatten().unwrap_or_default()
    }
}
