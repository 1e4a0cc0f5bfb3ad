//! The limits of a tenant, and what they share with the general settings: histograms, filters, columns.

use std::collections::{BTreeMap, HashSet};

use crate::metrics_generator;
use crate::reader::Reader;
use crate::{
    ColumnScope, ColumnType, CostAttributionLimits, DedicatedColumn, FilterPolicy, Limits, MatchType, PolicyAttribute, PolicyMatch,
};

/// Checks the limits of a tenant, or the defaults, which are at `path`.
pub(crate) fn limits(limits: &Limits, path: &str, reader: &mut Reader) {
    let generator = &limits.metrics_generator;
    if generator.native_histogram_bucket_factor <= 1.0 {
        let message = format!("expected a number above 1; got {}", generator.native_histogram_bucket_factor);
        reader.problem_at(&format!("{path}.metrics_generator.native_histogram_bucket_factor"), message);
    }
    let attribution = &limits.cost_attribution;
    if let Some(bad) = attribution.dimensions.values().find(|label| !label.is_empty() && !CostAttributionLimits::is_label(label)) {
        let message = format!("expected labels that Prometheus takes, but tenant and tracker; nothing is shown, because of {bad:?}");
        reader.advise_at(&format!("{path}.cost_attribution.dimensions"), message);
    }
    processors(&generator.processors, &format!("{path}.metrics_generator.processors"), reader);
    let processor = &generator.processor;
    let (graphs, spans) = (&processor.service_graphs, &processor.span_metrics);
    for (name, bounds, filter) in [
        ("service_graphs", &graphs.histogram_buckets, &graphs.filter_policies),
        ("span_metrics", &spans.histogram_buckets, &spans.filter_policies),
    ] {
        let path = format!("{path}.metrics_generator.processor.{name}");
        buckets(bounds.as_deref().unwrap_or_default(), &format!("{path}.histogram_buckets"), reader);
        policies(filter.as_deref().unwrap_or_default(), &format!("{path}.filter_policies"), reader);
    }
    let at = |name: &str| format!("{path}.metrics_generator.processor.{name}");
    let (dimensions, mappings) = (spans.dimensions.as_deref(), spans.dimension_mappings.as_deref());
    metrics_generator::check_spans(dimensions.unwrap_or_default(), mappings.unwrap_or_default(), &at("span_metrics"), reader);
    let are_prefixed = graphs.enable_client_server_prefix.unwrap_or(false);
    metrics_generator::check_graphs(graphs.dimensions.as_deref().unwrap_or_default(), are_prefixed, &at("service_graphs"), reader);
    columns(&limits.storage.parquet_dedicated_columns, &format!("{path}.storage.parquet_dedicated_columns"), reader);
}

/// Names of processors; an unknown one starts in Tempo too, and makes nothing. What `local-blocks` is for needs no processor.
fn processors(names: &[String], path: &str, reader: &mut Reader) {
    const KNOWN: [&str; 7] =
        ["span-metrics", "span-metrics-count", "span-metrics-latency", "span-metrics-size", "service-graphs", "host-info", "local-blocks"];
    let unknown: Vec<&str> = names.iter().map(String::as_str).filter(|name| !KNOWN.contains(name)).collect();
    if !unknown.is_empty() {
        reader.advise_at(path, format!("{} unknown; there are {}", unknown.join(", "), KNOWN.join(", ")));
    }
}

/// Which spans count: what cannot be understood would count the wrong ones.
pub(super) fn policies(policies: &[FilterPolicy], path: &str, reader: &mut Reader) {
    for (index, policy) in policies.iter().enumerate() {
        let path = format!("{path}[{index}]");
        let FilterPolicy { include, include_any, exclude } = policy;
        let matches: Vec<&PolicyMatch> = include.iter().chain(include_any).chain(exclude).collect();
        if matches.is_empty() {
            reader.problem_at(&path, "expected include, include_any or exclude; got none of them".to_owned());
        }
        for of in matches {
            for PolicyAttribute { key, value } in &of.attributes {
                let is_known =
                    matches!(key.as_str(), "kind" | "name" | "status") || key.starts_with("resource.") || key.starts_with("span.");
                if !is_known {
                    let message = format!("expected a key that is kind, name, status, or begins with resource. or span.; got {key:?}");
                    reader.problem_at(&path, message);
                }
                if of.match_type == MatchType::Regex
                    && let Err(error) = regex::Regex::new(value)
                {
                    let reason = error.to_string().lines().last().unwrap_or_default().to_owned();
                    reader.problem_at(&path, format!("expected a pattern for {key}; got {value:?}: {reason}"));
                }
            }
        }
    }
}

pub(super) fn buckets(bounds: &[f64], path: &str, reader: &mut Reader) {
    if let Some(pair) = bounds.windows(2).find(|pair| pair[0] >= pair[1]) {
        reader.problem_at(path, format!("expected bounds that increase; got {} before {}", pair[0], pair[1]));
    }
}

/// At most ten text and five number columns per scope, each attribute once.
pub(super) fn columns(columns: &[DedicatedColumn], path: &str, reader: &mut Reader) {
    let mut names: HashSet<(ColumnScope, &str)> = HashSet::new();
    let mut counts: BTreeMap<(&str, &str), usize> = BTreeMap::new();
    for (index, column) in columns.iter().enumerate() {
        let path = format!("{path}[{index}]");
        if column.name.is_empty() {
            reader.problem_at(&path, "expected a name".to_owned());
        } else if !names.insert((column.scope, &column.name)) {
            reader.problem_at(&path, format!("{} attribute {:?} has a column already", column.scope, column.name));
        }
        *counts.entry((column.scope.as_str(), column.column_type.as_str())).or_default() += 1;
    }
    for ((scope, column_type), count) in counts {
        let most = if column_type == ColumnType::Int.as_str() { 5 } else { 10 };
        if count > most {
            reader.problem_at(path, format!("expected at most {most} columns of scope {scope} and type {column_type}; got {count}"));
        }
    }
}
