//! Ingesters that count together for a metrics query: first each names its traces, then it counts those that nobody else has.

use std::time::Duration;

use rustc_hash::{FxHashMap, FxHashSet};
use tonic::Request;
use tonic::transport::Channel;
use vivace_core::TenantId;
use vivace_proto::vivace::v1::recent_client::RecentClient;
use vivace_proto::vivace::v1::{RecentTraces, SeriesRequest, SeriesResponse};
use vivace_ring::Instance;

use crate::JobError;
use crate::recent::{Answers, Ingesters, Missing, answering, not_answering, report};

/// So often segments may be taken over while one query is answered; each time it begins anew.
const CHANGES_MAX: u32 = 5;

/// Those that answer one query for themselves, all the way: were one to fail between naming and counting, others would have to
/// count what they hold for it, and traces would be in other places than they were named in.
#[derive(Default)]
pub(crate) struct Party {
    answering: Vec<Instance>,
    missing: Vec<Missing>,
    /// Those that have failed during this query; they are not asked again.
    failed: Vec<Missing>,
    /// How often each had taken segments over when it named its traces, by id.
    takeovers: FxHashMap<String, u64>,
    /// Ids of the blocks that they answer from for others.
    held_blocks: FxHashSet<[u8; 16]>,
    changes: u32,
}

impl Party {
    /// Whether the query has to begin anew: an ingester failed, or there is something that was not there when it named its traces.
    fn has_changed(&mut self, failed: Vec<Missing>, answered: &[&Instance], parts: &[SeriesResponse]) -> bool {
        let changed = answered.iter().zip(parts).any(|(instance, part)| {
            self.takeovers.get(&instance.id) != Some(&part.takeovers)
                || part.held_blocks.as_chunks().0.iter().any(|id| !self.held_blocks.contains(id))
        });
        self.changes += u32::from(changed);
        let has_failed = !failed.is_empty();
        report(failed, &mut self.failed);
        has_failed || changed && self.changes <= CHANGES_MAX
    }
}

impl Ingesters {
    /// The traces that each live ingester has, and those that it holds for others who do not answer.
    ///
    /// # Errors
    /// [`JobError::Unavailable`] when no ingester answers, [`JobError::Invalid`] when one cannot make sense of the query.
    pub(crate) async fn traces(
        &self,
        party: &mut Party,
        tenant: &TenantId,
        request: &SeriesRequest,
        timeout: Duration,
    ) -> Result<Vec<RecentTraces>, JobError> {
        let max_bytes = self.max_answer_bytes;
        let call = move |channel: Channel, request: Request<SeriesRequest>| async move {
            RecentClient::new(channel).max_decoding_message_size(max_bytes).traces(request).await
        };
        loop {
            let snapshot = self.ring.snapshot();
            party.missing = not_answering(&snapshot);
            let known = |missing: &Missing| party.missing.iter().any(|m| m.id == missing.id);
            let failed: Vec<Missing> = party.failed.iter().filter(|failed| !known(failed)).cloned().collect();
            party.missing.extend(failed);
            let all = answering(&snapshot, &party.missing)?;
            let (answered, traces, failed) = self.round(&all, tenant, request, &all, timeout, &call).await?;
            if failed.is_empty() {
                party.takeovers = answered.iter().zip(&traces).map(|(i, traces)| (i.id.clone(), traces.takeovers)).collect();
                party.held_blocks = traces.iter().flat_map(|t| &t.held_blocks).flat_map(|b| b.block_id.as_chunks().0).copied().collect();
                party.answering = answered.into_iter().cloned().collect();
                return Ok(traces);
            }
            report(failed, &mut party.failed);
        }
    }

    /// Lets those that have named their traces count: each its own spans, and then those that hold something for others that,
    /// one after the other, each without the segments and blocks that another has counted. None when something has changed since the traces
    /// were named, so that spans could count twice or not at all: they have to be named once more.
    ///
    /// # Errors
    /// [`JobError::Invalid`] when an ingester cannot make sense of the query.
    pub(crate) async fn count(
        &self,
        party: &mut Party,
        tenant: &TenantId,
        request: SeriesRequest,
        timeout: Duration,
    ) -> Result<Option<Answers<SeriesResponse>>, JobError> {
        let max_bytes = self.max_answer_bytes;
        let call = move |channel: Channel, request: Request<SeriesRequest>| async move {
            RecentClient::new(channel).max_decoding_message_size(max_bytes).count(request).await
        };
        let instances = party.answering.clone();
        let all: Vec<&Instance> = instances.iter().collect();
        let (answered, mut parts, failed) = self.round(&all, tenant, &request, &all, timeout, &call).await?;
        if party.has_changed(failed, &answered, &parts) {
            return Ok(None);
        }
        let mut request = SeriesRequest { only_held: true, ..request };
        let holders: Vec<&Instance> =
            answered.iter().zip(&parts).filter(|(_, part)| part.holds_more).map(|(instance, _)| *instance).collect();
        for instance in holders {
            let (answered, held, failed) = self.round(&[instance], tenant, &request, &all, timeout, &call).await?;
            if party.has_changed(failed, &answered, &held) {
                return Ok(None);
            }
            for part in held {
                request.known_segments.extend(part.held.iter().cloned());
                request.known_blocks = [&request.known_blocks[..], &part.held_blocks].concat().into();
                parts.push(part);
            }
        }
        let mut warnings: Vec<String> = self.warning(&party.missing).into_iter().collect();
        if party.changes > CHANGES_MAX {
            warnings
                .push("ingesters took segments over from others while they counted: some spans may count twice, or not at all".to_owned());
        }
        Ok(Some(Answers { parts, warning: (!warnings.is_empty()).then(|| warnings.join("; ")) }))
    }
}
