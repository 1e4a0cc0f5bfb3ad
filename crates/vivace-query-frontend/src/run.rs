//! One query's jobs on their way: a bounded number of them waits or runs at a time.

use std::collections::VecDeque;
use std::time::Instant;

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio_util::sync::{CancellationToken, DropGuard};
use vivace_core::budget::Charge;
use vivace_core::{TenantId, TraceId};
use vivace_proto::vivace::v1::BlockTraces;
use vivace_proto::vivace::v1::job::Work;
use vivace_proto::vivace::v1::job_result::Outcome;

use crate::error::QueryError;
use crate::queue::{Done, Pending, Queue};

/// Traces that a job has left to others.
#[derive(Debug, Default)]
pub(crate) struct NamedTraces {
    /// Those that may match or count and are in several places, 16 bytes each.
    pub(crate) split: Bytes,
    /// Of blocks, those that are live too.
    pub(crate) live_in_blocks: Vec<BlockTraces>,
    /// meta.json of blocks that ingesters have written and that the query did not know.
    pub(crate) served: Vec<Bytes>,
}

/// Ids that stand one after another, 16 bytes each.
pub(crate) fn ids(bytes: &[u8]) -> impl Iterator<Item = TraceId> {
    bytes.as_chunks().0.iter().map(|id| TraceId(*id))
}

/// What a job has found.
pub(crate) struct Arrived {
    /// Its place among the jobs.
    pub(crate) job: usize,
    pub(crate) outcome: Outcome,
    /// The job has ended.
    pub(crate) is_last: bool,
    /// For the outcome, until it has been taken in.
    pub(crate) _held: Option<Charge>,
}

/// The jobs of one query. Dropping it cancels those that have not ended.
pub(crate) struct Run {
    queue: Queue,
    query: u64,
    /// Each with its place among the jobs.
    jobs: VecDeque<(usize, (TenantId, Work))>,
    next_index: usize,
    outstanding: usize,
    concurrency: usize,
    reply: mpsc::UnboundedSender<Done>,
    done: mpsc::UnboundedReceiver<Done>,
    cancel: CancellationToken,
    _cancel_when_dropped: DropGuard,
    /// What jobs that ended well could not look at.
    warnings: Vec<String>,
    named: NamedTraces,
}

impl Run {
    /// `concurrency` 0: all jobs at once.
    pub(crate) fn new(queue: &Queue, jobs: Vec<(TenantId, Work)>, concurrency: usize) -> Self {
        // Bounded by the jobs that are outstanding.
        let (reply, done) = mpsc::unbounded_channel();
        let cancel = CancellationToken::new();
        Self {
            queue: queue.clone(),
            query: queue.next_id(),
            next_index: jobs.len(),
            jobs: jobs.into_iter().enumerate().collect(),
            outstanding: 0,
            concurrency: queue.jobs_at_once(concurrency),
            reply,
            done,
            _cancel_when_dropped: cancel.clone().drop_guard(),
            cancel,
            warnings: Vec::new(),
            named: NamedTraces::default(),
        }
    }

    /// Says from the start what will be missing in the answer.
    pub(crate) fn lacking(mut self, missing: Vec<String>) -> Self {
        for warning in &missing {
            tracing::warn!(warning, "a query's answer is not complete");
        }
        self.warnings.extend(missing);
        self
    }

    /// Adds jobs behind all others by their places, and before them by their turn.
    pub(crate) fn add(&mut self, jobs: Vec<(TenantId, Work)>) {
        let first = self.next_index;
        self.next_index += jobs.len();
        for (place, job) in jobs.into_iter().enumerate().rev() {
            self.jobs.push_front((first + place, job));
        }
    }

    /// Whether all jobs have ended.
    pub(crate) fn is_idle(&self) -> bool {
        self.outstanding == 0 && self.jobs.is_empty()
    }

    /// The traces that the job that ended last has left to others.
    pub(crate) fn take_named(&mut self) -> NamedTraces {
        std::mem::take(&mut self.named)
    }

    /// Ends all jobs that have been added and not ended: what they would say is not wanted any more.
    pub(crate) fn forget_rest(&mut self) {
        self.jobs.clear();
        self.outstanding = 0;
        // Answers that are on their way go to the old channel.
        (self.reply, self.done) = mpsc::unbounded_channel();
        let cancel = CancellationToken::new();
        self._cancel_when_dropped = cancel.clone().drop_guard();
        self.cancel = cancel;
    }

    /// The next that comes of a job; none when all have ended.
    ///
    /// # Errors
    /// A job failed for good, or the first of them finds no room in the queue.
    pub(crate) async fn next(&mut self) -> Result<Option<Arrived>, QueryError> {
        self.fill()?;
        if self.outstanding == 0 {
            return Ok(None);
        }
        let Some(Done { index: job, result, held }) = self.done.recv().await else { return Ok(None) };
        let is_last = !result.as_ref().is_ok_and(|result| result.more);
        self.outstanding -= usize::from(is_last);
        let result = result?;
        for warning in result.warnings {
            tracing::warn!(warning, "a query's answer is not complete");
            if !self.warnings.contains(&warning) {
                self.warnings.push(warning);
            }
        }
        self.named = NamedTraces { split: result.split, live_in_blocks: result.live_in_blocks, served: result.served };
        match result.outcome {
            Some(outcome) => Ok(Some(Arrived { job, outcome, is_last, _held: held })),
            None => Err(QueryError::Job("a querier sent an empty result".to_owned())),
        }
    }

    /// What is missing in the answer, each reason once.
    pub(crate) fn take_warnings(&mut self) -> Vec<String> {
        std::mem::take(&mut self.warnings)
    }

    fn fill(&mut self) -> Result<(), QueryError> {
        while self.outstanding < self.concurrency
            && let Some((_, (tenant, _))) = self.jobs.front()
        {
            // A query that has begun waits for its own jobs rather than fail midway.
            if self.outstanding > 0 && !self.queue.has_room(tenant) {
                return Ok(());
            }
            let Some((index, (tenant, work))) = self.jobs.pop_front() else { return Ok(()) };
            self.queue.push(Pending {
                index,
                tenant,
                work,
                query: self.query,
                cancel: self.cancel.clone(),
                reply: self.reply.clone(),
                tried: Vec::new(),
                lost: 0,
                since: Instant::now(),
            })?;
            self.outstanding += 1;
        }
        Ok(())
    }
}
