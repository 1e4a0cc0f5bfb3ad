//! Jobs that wait for a querier: fair between tenants, and between the queries of one tenant.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Instant;

use parking_lot::Mutex;
use tokio::sync::{Notify, mpsc};
use tokio_util::sync::CancellationToken;
use vivace_core::TenantId;
use vivace_core::budget::Charge;
use vivace_proto::vivace::v1::JobResult;
use vivace_proto::vivace::v1::job::Work;

use crate::error::QueryError;
use crate::metrics::{CONNECTED_CLIENTS, DISCARDED_REQUESTS, QUEUE_DURATION, QUEUE_LENGTH};

/// Jobs of one query that wait or run at a time, however few queriers there are.
const JOBS_LEAST: usize = 16;

/// The queue of one query-frontend. Clones share it.
#[derive(Clone)]
pub(crate) struct Queue(Arc<Inner>);

struct Inner {
    max_outstanding: usize,
    state: Mutex<State>,
    /// Something may have become available.
    changed: Notify,
}

#[derive(Default)]
struct State {
    tenants: HashMap<TenantId, TenantQueue>,
    /// Tenants with waiting jobs; the next one to serve first.
    turns: VecDeque<TenantId>,
    /// Slots for jobs of each stream, by querier.
    queriers: BTreeMap<String, Vec<usize>>,
    waiting: usize,
    running: usize,
    next_id: u64,
    closed: bool,
}

/// One tenant's jobs.
#[derive(Default)]
struct TenantQueue {
    /// Jobs that failed once stand before all others.
    retries: VecDeque<Pending>,
    /// Per query, the next one to serve first.
    queries: VecDeque<(u64, VecDeque<Pending>)>,
    len: usize,
}

/// One job on its way.
pub(crate) struct Pending {
    /// Its place in its query.
    pub(crate) index: usize,
    pub(crate) tenant: TenantId,
    pub(crate) work: Work,
    /// Jobs of one query take turns as one.
    pub(crate) query: u64,
    /// Cancelled when nobody waits for the result any more.
    pub(crate) cancel: CancellationToken,
    pub(crate) reply: mpsc::UnboundedSender<Done>,
    /// Queriers it has failed on.
    pub(crate) tried: Vec<String>,
    /// How often a querier went away with it.
    pub(crate) lost: usize,
    pub(crate) since: Instant,
}

/// What has come of a job.
pub(crate) struct Done {
    pub(crate) index: usize,
    /// With `more`, not all of it yet.
    pub(crate) result: Result<JobResult, QueryError>,
    /// For the result, until it has been taken in.
    pub(crate) held: Option<Charge>,
}

impl Queue {
    pub(crate) fn new(max_outstanding_per_tenant: usize) -> Self {
        let inner = Inner { max_outstanding: max_outstanding_per_tenant.max(1), state: Mutex::default(), changed: Notify::new() };
        Self(Arc::new(inner))
    }

    /// A number no other query and no other job has.
    pub(crate) fn next_id(&self) -> u64 {
        let mut state = self.0.state.lock();
        state.next_id += 1;
        state.next_id
    }

    /// # Errors
    /// The tenant has too many jobs waiting, or the process ends.
    pub(crate) fn push(&self, pending: Pending) -> Result<(), QueryError> {
        let mut state = self.0.state.lock();
        if state.closed {
            return Err(QueryError::ShuttingDown);
        }
        let tenant = pending.tenant.clone();
        let queue = state.tenants.entry(tenant.clone()).or_default();
        if queue.len >= self.0.max_outstanding {
            queue.forget_cancelled();
        }
        if queue.len >= self.0.max_outstanding {
            metrics::counter!(DISCARDED_REQUESTS.name, "user" => tenant.to_string()).increment(1);
            return Err(QueryError::QueueFull);
        }
        match queue.queries.iter_mut().find(|(query, _)| *query == pending.query) {
            Some((_, jobs)) => jobs.push_back(pending),
            None => queue.queries.push_back((pending.query, VecDeque::from([pending]))),
        }
        queue.len += 1;
        state.added(&tenant);
        drop(state);
        self.0.changed.notify_waiters();
        Ok(())
    }

    /// Jobs of a tenant that wait.
    pub(crate) fn waiting(&self, tenant: &TenantId) -> usize {
        self.0.state.lock().tenants.get(tenant).map_or(0, |queue| queue.len)
    }

    /// Forgets waiting jobs that nobody wants any more.
    pub(crate) fn sweep(&self, tenants: &[TenantId]) {
        let mut state = self.0.state.lock();
        for tenant in tenants {
            let Some(queue) = state.tenants.get_mut(tenant) else { continue };
            let before = queue.len;
            queue.forget_cancelled();
            let (forgotten, is_empty) = (before - queue.len, queue.len == 0);
            state.waiting = state.waiting.saturating_sub(forgotten);
            if is_empty {
                state.tenants.remove(tenant);
                state.turns.retain(|other| other != tenant);
            }
            state.publish_length(tenant);
        }
        drop(state);
        self.0.changed.notify_waiters();
    }

    /// Jobs that all queriers together take at one time.
    pub(crate) fn slots(&self) -> usize {
        self.0.state.lock().queriers.values().flatten().sum()
    }

    /// How many jobs of one query wait or run at a time: of those that are `configured` (0: all) as many as keep the queriers busy, so
    /// that there is room for other queries' jobs.
    pub(crate) fn jobs_at_once(&self, configured: usize) -> usize {
        if configured == 0 {
            return usize::MAX;
        }
        let keep_busy = (2 * self.slots()).max(JOBS_LEAST);
        configured.min(keep_busy).min((self.0.max_outstanding / 4).max(1))
    }

    /// Whether a querier is connected that the job has not failed on.
    pub(crate) fn has_another(&self, pending: &Pending) -> bool {
        self.0.state.lock().queriers.keys().any(|querier| !pending.tried.contains(querier))
    }

    /// Whether the tenant may add a job.
    pub(crate) fn has_room(&self, tenant: &TenantId) -> bool {
        self.0.state.lock().tenants.get(tenant).is_none_or(|queue| queue.len < self.0.max_outstanding)
    }

    /// Puts a job back that failed on a querier: to the front, beyond the limit, since it has been admitted already.
    pub(crate) fn retry(&self, pending: Pending) {
        let mut state = self.0.state.lock();
        state.running = state.running.saturating_sub(1);
        let tenant = pending.tenant.clone();
        let queue = state.tenants.entry(tenant.clone()).or_default();
        queue.retries.push_back(pending);
        queue.len += 1;
        state.added(&tenant);
        drop(state);
        self.0.changed.notify_waiters();
    }

    /// The next job for a querier. A job that failed on it goes to another one, as long as there is one.
    /// May be dropped midway: no job is lost.
    pub(crate) async fn next(&self, querier: &str) -> Pending {
        loop {
            let changed = self.0.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable(); // a push between the look and the wait wakes this one
            if let Some(pending) = self.0.state.lock().pop(querier) {
                metrics::histogram!(QUEUE_DURATION.name).record(pending.since.elapsed().as_secs_f64());
                return pending;
            }
            changed.await;
        }
    }

    /// A job that [`Queue::next`] gave out has ended.
    pub(crate) fn ended(&self) {
        let mut state = self.0.state.lock();
        state.running = state.running.saturating_sub(1);
        drop(state);
        self.0.changed.notify_waiters();
    }

    /// A stream of a querier, with so many slots, begins.
    pub(crate) fn connected(&self, querier: &str, slots: usize) {
        let mut state = self.0.state.lock();
        state.queriers.entry(querier.to_owned()).or_default().push(slots);
        state.publish_queriers();
    }

    /// A stream of a querier, with so many slots, ends.
    pub(crate) fn disconnected(&self, querier: &str, slots: usize) {
        let mut state = self.0.state.lock();
        if let Some(streams) = state.queriers.get_mut(querier) {
            if let Some(at) = streams.iter().position(|of| *of == slots) {
                streams.swap_remove(at);
            }
            if streams.is_empty() {
                state.queriers.remove(querier);
            }
        }
        state.publish_queriers();
        drop(state);
        self.0.changed.notify_waiters();
    }

    pub(crate) fn has_queriers(&self) -> bool {
        !self.0.state.lock().queriers.is_empty()
    }

    /// Takes no further jobs, and waits until the admitted ones have ended.
    pub(crate) async fn drain(&self) {
        self.0.state.lock().closed = true;
        loop {
            let changed = self.0.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            {
                let mut state = self.0.state.lock();
                state.tenants.values_mut().for_each(TenantQueue::forget_cancelled);
                state.waiting = state.tenants.values().map(|queue| queue.len).sum();
                // Without a querier what waits would wait for ever.
                if state.running == 0 && (state.waiting == 0 || state.queriers.is_empty()) {
                    return;
                }
            }
            // A cancelled query wakes nobody here.
            let _ = tokio::time::timeout(std::time::Duration::from_millis(100), changed).await;
        }
    }
}

impl State {
    fn added(&mut self, tenant: &TenantId) {
        self.waiting += 1;
        if !self.turns.contains(tenant) {
            self.turns.push_back(tenant.clone());
        }
        self.publish_length(tenant);
    }

    fn pop(&mut self, querier: &str) -> Option<Pending> {
        for _ in 0..self.turns.len() {
            let tenant = self.turns.pop_front()?;
            let Some(queue) = self.tenants.get_mut(&tenant) else { continue };
            let before = queue.len;
            let pending = queue.pop(querier, &self.queriers);
            self.waiting = self.waiting.saturating_sub(before - queue.len);
            if queue.len == 0 {
                self.tenants.remove(&tenant);
            } else {
                self.turns.push_back(tenant.clone());
            }
            self.publish_length(&tenant);
            if pending.is_some() {
                self.running += 1;
                return pending;
            }
        }
        None
    }

    fn publish_length(&self, tenant: &TenantId) {
        let length = self.tenants.get(tenant).map_or(0, |queue| queue.len);
        metrics::gauge!(QUEUE_LENGTH.name, "user" => tenant.to_string()).set(length as f64);
    }

    fn publish_queriers(&self) {
        metrics::gauge!(CONNECTED_CLIENTS.name).set(self.queriers.values().map(Vec::len).sum::<usize>() as f64);
    }
}

impl TenantQueue {
    fn pop(&mut self, querier: &str, queriers: &BTreeMap<String, Vec<usize>>) -> Option<Pending> {
        let may_take = |job: &Pending| !job.tried.iter().any(|t| t == querier) || queriers.keys().all(|other| job.tried.contains(other));
        while let Some(at) = self.retries.iter().position(|job| job.cancel.is_cancelled() || may_take(job)) {
            let job = self.retries.remove(at)?;
            self.len -= 1;
            if !job.cancel.is_cancelled() {
                return Some(job);
            }
        }
        while let Some((query, mut jobs)) = self.queries.pop_front() {
            while let Some(job) = jobs.pop_front() {
                self.len -= 1;
                if job.cancel.is_cancelled() {
                    continue;
                }
                if !jobs.is_empty() {
                    self.queries.push_back((query, jobs));
                }
                return Some(job);
            }
        }
        None
    }

    fn forget_cancelled(&mut self) {
        self.retries.retain(|job| !job.cancel.is_cancelled());
        for (_, jobs) in &mut self.queries {
            jobs.retain(|job| !job.cancel.is_cancelled());
        }
        self.queries.retain(|(_, jobs)| !jobs.is_empty());
        self.len = self.retries.len() + self.queries.iter().map(|(_, jobs)| jobs.len()).sum::<usize>();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(tenant: &str, query: u64, index: usize) -> Pending {
        Pending {
            index,
            tenant: TenantId::new(tenant).unwrap(),
            work: Work::FindRecent(Default::default()),
            query,
            cancel: CancellationToken::new(),
            reply: mpsc::unbounded_channel().0,
            tried: Vec::new(),
            lost: 0,
            since: Instant::now(),
        }
    }

    #[tokio::test]
    async fn tenants_and_their_queries_take_turns() {
        let queue = Queue::new(10);
        for (tenant, query, index) in [("a", 1, 0), ("a", 1, 1), ("a", 1, 2), ("a", 2, 3), ("b", 3, 4), ("b", 3, 5)] {
            queue.push(job(tenant, query, index)).unwrap();
        }
        let mut order = Vec::new();
        for _ in 0..6 {
            order.push(queue.next("q").await.index);
        }
        assert_eq!(order, [0, 4, 3, 5, 1, 2]);
    }

    #[tokio::test]
    async fn a_full_queue_refuses_one_tenant_only_and_cancelled_jobs_do_not_count() {
        let queue = Queue::new(2);
        let cancelled = job("a", 1, 0);
        let cancel = cancelled.cancel.clone();
        queue.push(cancelled).unwrap();
        queue.push(job("a", 1, 1)).unwrap();
        assert_eq!(queue.push(job("a", 1, 2)), Err(QueryError::QueueFull));
        queue.push(job("b", 2, 3)).unwrap();
        cancel.cancel();
        queue.push(job("a", 1, 4)).unwrap();
        assert_eq!(queue.next("q").await.index, 1);
    }

    #[test]
    fn no_query_has_more_jobs_waiting_than_are_of_use() {
        let queue = Queue::new(2000);
        assert_eq!((queue.jobs_at_once(0), queue.jobs_at_once(1000), queue.jobs_at_once(3)), (usize::MAX, 16, 3));
        queue.connected("one", 20);
        assert_eq!(queue.jobs_at_once(1000), 40);
        queue.connected("two", 2000);
        assert_eq!(queue.jobs_at_once(1000), 500, "others have room too");
        assert_eq!(Queue::new(1).jobs_at_once(1000), 1);
    }

    #[tokio::test]
    async fn jobs_that_nobody_wants_are_swept_out() {
        let queue = Queue::new(10);
        let left = job("a", 1, 0);
        let cancel = left.cancel.clone();
        queue.push(left).unwrap();
        queue.push(job("a", 2, 1)).unwrap();
        cancel.cancel();
        queue.sweep(&[TenantId::new("a").unwrap()]);
        assert_eq!(queue.waiting(&TenantId::new("a").unwrap()), 1);
        assert_eq!(queue.next("q").await.index, 1);
        queue.sweep(&[TenantId::new("a").unwrap(), TenantId::new("b").unwrap()]);
    }

    #[tokio::test]
    async fn a_failed_job_goes_to_another_querier_while_there_is_one() {
        let queue = Queue::new(10);
        queue.connected("one", 1);
        queue.connected("two", 2);
        assert_eq!(queue.slots(), 3);
        queue.push(job("a", 1, 0)).unwrap();
        let mut failed = queue.next("one").await;
        failed.tried.push("one".to_owned());
        queue.retry(failed);
        queue.push(job("a", 1, 1)).unwrap();
        assert_eq!(queue.next("one").await.index, 1);
        assert_eq!(queue.next("two").await.index, 0);

        let mut failed = job("a", 1, 2);
        failed.tried.push("one".to_owned());
        queue.retry(failed);
        queue.disconnected("two", 2);
        assert_eq!(queue.slots(), 1);
        assert_eq!(queue.next("one").await.index, 2);
    }
}
