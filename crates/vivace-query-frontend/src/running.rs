//! A query on its way: its turn in line, its jobs, and what is made of their answers.

use std::time::Duration;

use vivace_core::TenantId;
use vivace_proto::vivace::v1::job::Work;
use vivace_proto::vivace::v1::job_result::Outcome;

use crate::admission::{Admission, Lane, Permit};
use crate::combine::{SearchResult, TagCombiner, TraceCombiner, ValueCombiner};
use crate::error::QueryError;
use crate::queue::Queue;
use crate::run::{Arrived, NamedTraces, Run};

/// Between two looks whether there are queriers at all.
const QUERIERS_LOOK: Duration = Duration::from_secs(1);
/// A query waits so long for the first querier.
const QUERIERS_MISSING: Duration = Duration::from_secs(30);

/// A query on its way, or in line. Dropped, its jobs are cancelled first, and then the next one begins.
pub(crate) struct Running<R> {
    pub(crate) run: Run,
    pub(crate) result: R,
    pub(crate) turn: Turn,
}

/// Where a query stands among the others.
pub(crate) struct Turn {
    queue: Queue,
    admission: Admission,
    tenants: Vec<TenantId>,
    lane: Lane,
    /// Once it is begun.
    permit: Option<Permit>,
}

impl Turn {
    /// At the end of the line.
    pub(crate) fn new(queue: Queue, admission: Admission, tenants: &[TenantId], lane: Lane) -> Self {
        Self { queue, admission, tenants: tenants.to_vec(), lane, permit: None }
    }

    async fn begin(&mut self) -> Result<(), QueryError> {
        if self.permit.is_none() {
            self.permit = Some(self.admission.enter(&self.tenants, self.lane).await?);
        }
        Ok(())
    }

    /// Where no other query ran it is not others that hold the memory: trying again is no use.
    fn blame(&self, error: QueryError) -> QueryError {
        match error {
            QueryError::OutOfMemory { reason, holds_much: true } if self.permit.as_ref().is_some_and(Permit::has_run_alone) => {
                QueryError::TooLarge(format!("{reason} (no other query ran: ask for less)"))
            }
            error => error,
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        if self.permit.is_some() {
            self.queue.sweep(&self.tenants);
        }
    }
}

/// Takes in what one job found.
pub(crate) trait Collect {
    /// Takes in some of what a job found that goes on.
    ///
    /// # Errors
    /// The outcome is not of this query's kind, or is not sent in pieces.
    fn collect_some(&mut self, _job: usize, outcome: Outcome) -> Result<(), QueryError> {
        Err(unexpected(&outcome))
    }

    /// Whether more jobs are needed.
    ///
    /// # Errors
    /// The outcome is not of this query's kind.
    fn collect(&mut self, job: usize, outcome: Outcome) -> Result<bool, QueryError>;

    /// Takes traces that a job has left to others, before what it found is collected.
    ///
    /// # Errors
    /// They make no sense.
    fn take_named(&mut self, _job: usize, _named: NamedTraces) -> Result<(), QueryError> {
        Ok(())
    }

    /// Whether what has been found is enough, so that jobs that still wait or run are not needed; true once.
    fn has_enough(&mut self) -> bool {
        false
    }

    /// Jobs that follow from what was collected; their places are behind those of all before. `all_ended`: none is left.
    fn more_jobs(&mut self, _all_ended: bool) -> Vec<(TenantId, Work)> {
        Vec::new()
    }
}

impl<R: Collect> Running<R> {
    /// Waits in line if the query has not begun, and then for one more job; false when the answer is complete.
    ///
    /// # Errors
    /// A job failed for good, there is too much to do to begin the query, or no room for its first job.
    pub(crate) async fn step(&mut self) -> Result<bool, QueryError> {
        let stepped = self.one_step().await;
        stepped.map_err(|error| self.turn.blame(error))
    }

    async fn one_step(&mut self) -> Result<bool, QueryError> {
        // What needs no job needs not wait.
        if !self.run.is_idle() {
            self.turn.begin().await?;
        }
        match self.next().await? {
            Some(Arrived { job, outcome, is_last: false, _held }) => {
                let result = &mut self.result;
                if is_large(&outcome) {
                    off_async(|| result.collect_some(job, outcome))?
                } else {
                    result.collect_some(job, outcome)?
                }
                Ok(true)
            }
            Some(Arrived { job, outcome, is_last: true, _held }) => {
                self.result.take_named(job, self.run.take_named())?;
                let result = &mut self.result;
                let more = if is_large(&outcome) { off_async(|| result.collect(job, outcome))? } else { result.collect(job, outcome)? };
                if more {
                    if self.result.has_enough() {
                        self.run.forget_rest();
                    }
                    let jobs = self.result.more_jobs(self.run.is_idle());
                    self.run.add(jobs);
                }
                Ok(more)
            }
            None => Ok(false),
        }
    }

    /// What was found. Others may begin from now on.
    pub(crate) fn into_result(self) -> R {
        self.result
    }

    /// The next job's outcome. Jobs that nobody could take for a while fail.
    async fn next(&mut self) -> Result<Option<Arrived>, QueryError> {
        let mut without_queriers = Duration::ZERO;
        loop {
            match tokio::time::timeout(QUERIERS_LOOK, self.run.next()).await {
                Ok(next) => return next,
                Err(_) if self.turn.queue.has_queriers() => without_queriers = Duration::ZERO,
                Err(_) => without_queriers += QUERIERS_LOOK,
            }
            if without_queriers >= QUERIERS_MISSING {
                return Err(QueryError::Unavailable(format!("no querier has been connected for {} s", QUERIERS_MISSING.as_secs())));
            }
        }
    }

    /// Waits for the answer, with what is missing in it.
    ///
    /// # Errors
    /// As [`Running::step`].
    pub(crate) async fn finish(mut self) -> Result<(R, Vec<String>), QueryError> {
        while self.step().await? {}
        Ok((self.result, self.run.take_warnings()))
    }
}

/// Whether taking it in keeps a thread busy for more than a moment.
fn is_large(outcome: &Outcome) -> bool {
    const MANY: usize = 1000;
    match outcome {
        Outcome::Series(answer) => answer.partial.iter().flat_map(|partial| &partial.stages).any(|stage| stage.groups.len() > MANY),
        Outcome::Search(answer) => answer.traces.len() > MANY,
        Outcome::TagValues(answer) => answer.tag_values.len() > MANY,
        Outcome::Tags(answer) => answer.scopes.iter().any(|scope| scope.tags.len() > MANY),
        Outcome::Trace(_) | Outcome::Failure(_) => false,
    }
}

/// Runs what burns CPU without holding up other tasks, where the runtime can do that.
fn off_async<T>(work: impl FnOnce() -> T) -> T {
    use tokio::runtime::{Handle, RuntimeFlavor};
    match Handle::current().runtime_flavor() {
        RuntimeFlavor::MultiThread => tokio::task::block_in_place(work),
        _ => work(),
    }
}

impl Collect for SearchResult {
    fn collect_some(&mut self, job: usize, outcome: Outcome) -> Result<(), QueryError> {
        let Outcome::Search(answer) = outcome else { return Err(unexpected(&outcome)) };
        self.add_traces(job, answer.traces);
        Ok(())
    }

    fn collect(&mut self, job: usize, outcome: Outcome) -> Result<bool, QueryError> {
        let Outcome::Search(answer) = outcome else { return Err(unexpected(&outcome)) };
        self.add(job, answer);
        Ok(!self.is_complete())
    }

    fn take_named(&mut self, job: usize, named: NamedTraces) -> Result<(), QueryError> {
        self.add_named(job, named);
        Ok(())
    }

    fn has_enough(&mut self) -> bool {
        self.begin_completing()
    }

    fn more_jobs(&mut self, all_ended: bool) -> Vec<(TenantId, Work)> {
        self.split_trace_jobs(all_ended)
    }
}

impl Collect for TagCombiner {
    fn collect(&mut self, _: usize, outcome: Outcome) -> Result<bool, QueryError> {
        let Outcome::Tags(answer) = outcome else { return Err(unexpected(&outcome)) };
        self.add(answer);
        Ok(!self.is_full())
    }
}

impl Collect for ValueCombiner {
    fn collect(&mut self, _: usize, outcome: Outcome) -> Result<bool, QueryError> {
        let Outcome::TagValues(answer) = outcome else { return Err(unexpected(&outcome)) };
        self.add(answer);
        Ok(!self.is_full())
    }
}

impl Collect for TraceCombiner {
    fn collect(&mut self, _: usize, outcome: Outcome) -> Result<bool, QueryError> {
        let Outcome::Trace(answer) = outcome else { return Err(unexpected(&outcome)) };
        self.add(answer)?;
        // Parts may be anywhere: only a trace that is too large anyhow needs no more.
        Ok(!self.is_full())
    }
}

pub(crate) fn unexpected(outcome: &Outcome) -> QueryError {
    let kind = match outcome {
        Outcome::Failure(_) => "a failure",
        Outcome::Trace(_) => "a trace",
        Outcome::Search(_) => "search results",
        Outcome::Tags(_) => "tag names",
        Outcome::TagValues(_) => "tag values",
        Outcome::Series(_) => "series",
    };
    QueryError::Job(format!("a querier answered with {kind}, which was not asked for"))
}
