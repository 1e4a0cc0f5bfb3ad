//! The host-info processor: one series per host, so that others can be joined with it.
//!
//! Source: docs/facts/components.md, "Host info".

use crate::labels::LabelSet;
use crate::options::HostInfoOptions;
use crate::registry::{Metric, Registry};
use crate::spans::{MeasuredResource, Scalar};

/// Names the host of a resource, if one of its attributes does.
pub(crate) fn observe(
    options: &HostInfoOptions,
    registry: &mut Registry,
    labels: &mut LabelSet,
    resource: &MeasuredResource<'_>,
    now_unix_nanos: u64,
) {
    let named = options.identifiers.iter().find_map(|key| match resource.attributes.get(key) {
        Some(Scalar::Text(text)) if !text.is_empty() => Some((key, text)),
        _ => None,
    });
    let Some((source, host)) = named else { return };
    labels.clear();
    labels.push("grafana_host_id", host);
    labels.push("host_source", source);
    let entity = registry.entity(labels, 1, now_unix_nanos);
    registry.set(entity, Metric::HostInfo, 1.0);
}
