//! The host-info processor: one series per host, so that others can be joined with it.
//!
//! Source: docs/facts/components.md, "Host info".

use crate::labels::LabelSet;
use crate::options::HostInfoOptions;
use crate::registry::{Metric, Registry};
use crate::spans::MeasuredResource;

/// Names the host of a resource, if one of its attributes does.
pub(crate) fn observe(
    options: &HostInfoOptions,
    registry: &mut Registry,
    labels: &mut LabelSet,
    resource: &MeasuredResource<'_>,
    now_unix_nanos: u64,
) {
    let named = options.identifiers.iter().find_map(|key| Some((key, resource.attributes.text(key)?)));
    let Some((source, host)) = named else { return };
    labels.clear();
    labels.push("grafana_host_id", host);
    labels.push("host_source", source);
    let entity = registry.entity(labels, 1, now_unix_nanos);
    registry.set(entity, Metric::HostInfo, 1.0);
}
