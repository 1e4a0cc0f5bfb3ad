//! Counting spans for metrics queries: in one block, and in what the ingesters hold.

use std::ops::Range;
use std::time::Duration;

use vivace_block::BlockMeta;
use vivace_core::TenantId;
use vivace_proto::tempopb::SearchMetrics;
use vivace_proto::vivace::v1::{SeriesRequest, SeriesResponse};
use vivace_traceql::{MetricsPlan, Partial};

use crate::JobError;
use crate::blocks::{Blocks, Found, skipped};
use crate::recent::Ingesters;

impl Blocks {
    /// Counts the spans of some row groups.
    pub(crate) async fn series(
        &self,
        meta: BlockMeta,
        row_groups: Range<usize>,
        request: &SeriesRequest,
    ) -> Result<Found<SeriesResponse>, JobError> {
        let plan = plan(request)?;
        let counted = self
            .with_block(meta.clone(), move |block, cancelled| {
                let mut partial = plan.partial();
                let stats = block.observe(&plan, &mut partial, row_groups, &|| cancelled.is_cancelled())?;
                Ok((partial.to_message(), stats))
            })
            .await?;
        match counted {
            Ok(((partial, stats), inspected_bytes)) => {
                let metrics = SearchMetrics {
                    inspected_traces: u32::try_from(stats.traces).unwrap_or(u32::MAX),
                    inspected_spans: stats.spans,
                    inspected_bytes,
                    ..Default::default()
                };
                let result = SeriesResponse { partial: Some(partial), metrics: Some(metrics), held: Vec::new() };
                Ok(Found { result, warnings: Vec::new() })
            }
            // What was counted until then is left out too: nothing is better than a part that looks like all.
            Err(fault) => Ok(Found { result: nothing(request)?, warnings: vec![skipped(&meta, fault)?] }),
        }
    }
}

impl Ingesters {
    /// What the ingesters counted together.
    pub(crate) async fn series(
        &self,
        tenant: &TenantId,
        request: SeriesRequest,
        timeout: Duration,
    ) -> Result<Found<SeriesResponse>, JobError> {
        let plan = plan(&request)?;
        let answers = self.count(tenant, request, timeout).await?;
        let mut sum = SearchMetrics::default();
        let mut partial = plan.partial();
        for part in answers.parts {
            let counted = Partial::from_message(part.partial.unwrap_or_default(), &plan);
            plan.merge(&mut partial, counted.map_err(|e| JobError::Internal(format!("an ingester's answer: {e}")))?);
            let metrics = part.metrics.unwrap_or_default();
            sum.inspected_traces = sum.inspected_traces.saturating_add(metrics.inspected_traces);
            sum.inspected_bytes += metrics.inspected_bytes;
        }
        let partial = partial.to_message();
        sum.inspected_spans = partial.inspected_spans;
        let result = SeriesResponse { partial: Some(partial), metrics: Some(sum), held: Vec::new() };
        Ok(Found { result, warnings: answers.warning.into_iter().collect() })
    }
}

fn plan(request: &SeriesRequest) -> Result<MetricsPlan, JobError> {
    MetricsPlan::of_request(request).map_err(|error| JobError::Invalid(error.to_string()))
}

fn nothing(request: &SeriesRequest) -> Result<SeriesResponse, JobError> {
    Ok(SeriesResponse { partial: Some(plan(request)?.partial().to_message()), ..Default::default() })
}
