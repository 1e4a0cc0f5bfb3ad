//! Which queries are begun and which wait in line. As many are begun as end in good time; what is begun is finished.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::oneshot;
use tokio::time::Instant;
use vivace_core::TenantId;

use crate::error::QueryError;
use crate::metrics::DISCARDED_REQUESTS;
use crate::queue::Queue;

/// Queries are begun side by side as long as they end within this. Far below any timeout of jobs, so that none of them ends in it.
const GOOD_TIME: Duration = Duration::from_secs(5);
/// Queries of a kind that are begun at first, before it is known how long they take.
const FIRST_LIMIT: f64 = 4.0;
/// How long a query takes, as long as nothing is known. Little, so that nobody is refused for one slow query at the start.
const FIRST_SECONDS: f64 = 0.05;
/// Queries of a kind that are begun at least.
const LEAST_LIMIT: f64 = 2.0;
/// How much the last query counts for the time that they take.
const LAST_WEIGHT: f64 = 0.1;
/// The line of a kind may be so much longer than what is expected to be begun in time.
const SLACK: f64 = 1.5;

/// What waits for each other. A lookup by id does not wait for searches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lane {
    /// A trace by its id.
    Lookup,
    /// All that may have to look at everything.
    Scan,
}

/// The lines of one query-frontend. Clones share them.
#[derive(Clone)]
pub(crate) struct Admission(Arc<Inner>);

struct Inner {
    queue: Queue,
    max_outstanding_per_tenant: usize,
    max_wait: Duration,
    lanes: [Mutex<State>; 2],
    /// Queries of all lanes that run.
    running: AtomicUsize,
    /// Queries that have begun so far.
    begun: AtomicU64,
}

struct State {
    running: usize,
    /// How many may run.
    limit: f64,
    /// When it was lowered last.
    lowered: Option<Instant>,
    /// How long a query takes, as a moving mean in seconds.
    takes_seconds: f64,
    tenants: HashMap<TenantId, VecDeque<Waiter>>,
    /// Tenants that wait; the next one to serve first.
    turns: VecDeque<TenantId>,
    waiting: usize,
}

type Waiter = oneshot::Sender<Result<Permit, QueryError>>;

/// A query that is begun. Dropped when it ends.
pub(crate) struct Permit {
    /// None once it is given back.
    of: Option<(Admission, Lane)>,
    begun: Instant,
    /// Which of all queries it is, if no other one ran when it began.
    began_alone: Option<u64>,
}

impl Admission {
    /// `max_wait` 0: nobody waits.
    pub(crate) fn new(queue: Queue, max_outstanding_per_tenant: usize, max_wait: Duration) -> Self {
        let lane = || {
            Mutex::new(State {
                running: 0,
                limit: FIRST_LIMIT,
                lowered: None,
                takes_seconds: FIRST_SECONDS,
                tenants: HashMap::new(),
                turns: VecDeque::new(),
                waiting: 0,
            })
        };
        let max_outstanding_per_tenant = max_outstanding_per_tenant.max(1);
        let lanes = [lane(), lane()];
        let (running, begun) = (AtomicUsize::new(0), AtomicU64::new(0));
        Self(Arc::new(Inner { queue, max_outstanding_per_tenant, max_wait, lanes, running, begun }))
    }

    fn lane(&self, lane: Lane) -> &Mutex<State> {
        &self.0.lanes[lane as usize]
    }

    /// Waits in line until the query may begin. Of several tenants the first stands in line.
    ///
    /// # Errors
    /// The tenant has too much waiting, or the line is longer than what is worth waiting for.
    pub(crate) async fn enter(&self, tenants: &[TenantId], lane: Lane) -> Result<Permit, QueryError> {
        let Some(tenant) = tenants.first() else { return Err(QueryError::Invalid("a query without a tenant".to_owned())) };
        let begun = {
            let mut state = self.lane(lane).lock();
            let slots = self.0.queue.slots();
            if state.waiting == 0 && state.running < state.limit(lane, slots) {
                state.running += 1;
                return Ok(self.permit(lane));
            }
            let ahead = state.tenants.get(tenant).map_or(0, VecDeque::len) + self.0.queue.waiting(tenant);
            if ahead >= self.0.max_outstanding_per_tenant {
                metrics::counter!(DISCARDED_REQUESTS.name, "user" => tenant.to_string()).increment(1);
                return Err(QueryError::QueueFull);
            }
            if state.waiting >= state.worth_waiting(lane, slots, self.0.max_wait) {
                metrics::counter!(DISCARDED_REQUESTS.name, "user" => tenant.to_string()).increment(1);
                return Err(state.refusal(lane, slots, self.0.max_wait));
            }
            let (waiter, begun) = oneshot::channel();
            state.push(tenant.clone(), waiter);
            begun
        };
        match tokio::time::timeout(self.0.max_wait, begun).await {
            Ok(Ok(admitted)) => admitted,
            Ok(Err(_)) => Err(QueryError::ShuttingDown),
            Err(_) => {
                let mut state = self.lane(lane).lock();
                state.forget_gone();
                Err(state.refusal(lane, self.0.queue.slots(), self.0.max_wait))
            }
        }
    }

    fn permit(&self, lane: Lane) -> Permit {
        let number = self.0.begun.fetch_add(1, Ordering::SeqCst) + 1;
        let is_alone = self.0.running.fetch_add(1, Ordering::SeqCst) == 0;
        Permit { of: Some((self.clone(), lane)), begun: Instant::now(), began_alone: is_alone.then_some(number) }
    }

    /// A query has ended after so long: the next ones begin.
    fn leave(&self, lane: Lane, took: Duration) {
        self.0.running.fetch_sub(1, Ordering::SeqCst);
        let slots = self.0.queue.slots();
        let mut state = self.lane(lane).lock();
        state.running = state.running.saturating_sub(1);
        state.learn(took, slots);
        state.forget_gone();
        while state.running < state.limit(lane, slots)
            && let Some(waiter) = state.pop()
        {
            state.running += 1;
            if let Err(Ok(mut permit)) = waiter.send(Ok(self.permit(lane))) {
                // It left meanwhile. The lock is held, which dropping a permit takes.
                permit.of = None;
                self.0.running.fetch_sub(1, Ordering::SeqCst);
                state.running -= 1;
            }
        }
        // Who would only wait in vain is told now.
        while state.waiting as f64 > SLACK * state.worth_waiting(lane, slots, self.0.max_wait) as f64
            && let Some((tenant, waiter)) = state.pop_last()
        {
            metrics::counter!(DISCARDED_REQUESTS.name, "user" => tenant.to_string()).increment(1);
            let _ = waiter.send(Err(state.refusal(lane, slots, self.0.max_wait)));
        }
    }
}

impl State {
    /// Queries that may run at one time: no more than there are slots for their jobs.
    fn limit(&self, lane: Lane, slots: usize) -> usize {
        match lane {
            Lane::Lookup => slots.max(LEAST_LIMIT as usize),
            Lane::Scan => (self.limit as usize).min(slots.max(1)),
        }
    }

    /// How many can be begun within the longest wait, at the speed at which they end.
    fn worth_waiting(&self, lane: Lane, slots: usize, max_wait: Duration) -> usize {
        (max_wait.as_secs_f64() / self.takes_seconds.max(0.001) * self.limit(lane, slots) as f64) as usize
    }

    fn refusal(&self, lane: Lane, slots: usize, max_wait: Duration) -> QueryError {
        let limit = self.limit(lane, slots);
        let seconds = (self.waiting as f64 * self.takes_seconds / limit as f64).ceil().clamp(1.0, 60.0) as u64;
        let (running, waiting) = (self.running, self.waiting);
        QueryError::Busy {
            reason: format!(
                "too many queries: {running} run and {waiting} wait in line, more than can be begun within query_frontend.max_wait ({}); \
                 try again in {seconds} s",
                vivace_config::format_duration(max_wait)
            ),
            retry_after_seconds: seconds,
        }
    }

    /// Fewer at one time when they take long, more when they do not.
    fn learn(&mut self, took: Duration, slots: usize) {
        let seconds = took.as_secs_f64();
        self.takes_seconds += (seconds - self.takes_seconds) * LAST_WEIGHT;
        if took <= GOOD_TIME {
            if self.waiting > 0 {
                self.limit = (self.limit + 1.0 / self.limit).min((slots as f64).max(LEAST_LIMIT));
            }
            return;
        }
        // Those that were begun before are slow for the same reason: they lower it once.
        let now = Instant::now();
        if self.lowered.is_none_or(|lowered| now.duration_since(lowered) > took) {
            self.limit = (self.limit * 0.7).max(LEAST_LIMIT);
            self.lowered = Some(now);
        }
    }

    fn push(&mut self, tenant: TenantId, waiter: Waiter) {
        let waiters = self.tenants.entry(tenant.clone()).or_default();
        if waiters.is_empty() {
            self.turns.push_back(tenant);
        }
        waiters.push_back(waiter);
        self.waiting += 1;
    }

    /// The first of the tenant whose turn it is.
    fn pop(&mut self) -> Option<Waiter> {
        let tenant = self.turns.pop_front()?;
        let waiters = self.tenants.get_mut(&tenant)?;
        let waiter = waiters.pop_front();
        if waiters.is_empty() {
            self.tenants.remove(&tenant);
        } else {
            self.turns.push_back(tenant);
        }
        self.waiting -= usize::from(waiter.is_some());
        waiter
    }

    /// The last of the tenant that has most waiting.
    fn pop_last(&mut self) -> Option<(TenantId, Waiter)> {
        let tenant = self.tenants.iter().max_by_key(|(_, waiters)| waiters.len()).map(|(tenant, _)| tenant.clone())?;
        let waiters = self.tenants.get_mut(&tenant)?;
        let waiter = waiters.pop_back()?;
        if waiters.is_empty() {
            self.tenants.remove(&tenant);
            self.turns.retain(|other| *other != tenant);
        }
        self.waiting -= 1;
        Some((tenant, waiter))
    }

    /// Those whose client has left, or who have waited long enough.
    fn forget_gone(&mut self) {
        self.tenants.retain(|_, waiters| {
            waiters.retain(|waiter| !waiter.is_closed());
            !waiters.is_empty()
        });
        self.turns.retain(|tenant| self.tenants.contains_key(tenant));
        self.waiting = self.tenants.values().map(VecDeque::len).sum();
    }
}

impl Permit {
    /// Whether no other query of this query-frontend has run since it began.
    pub(crate) fn has_run_alone(&self) -> bool {
        let begun = self.of.as_ref().map(|(admission, _)| admission.0.begun.load(Ordering::SeqCst));
        begun.is_some() && begun == self.began_alone
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if let Some((admission, lane)) = self.of.take() {
            admission.leave(lane, self.begun.elapsed());
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;

    fn tenant(name: &str) -> [TenantId; 1] {
        [TenantId::new(name).unwrap()]
    }

    fn admission(slots: usize, max_outstanding: usize) -> Admission {
        let queue = Queue::new(max_outstanding);
        queue.connected("one", slots);
        Admission::new(queue, max_outstanding, Duration::from_secs(20))
    }

    #[tokio::test(start_paused = true)]
    async fn tenants_take_turns_and_lookups_wait_for_nobody() {
        let line = admission(1, 100);
        let first = line.enter(&tenant("a"), Lane::Scan).await.unwrap();
        let (a, b) = (tenant("a"), tenant("b"));
        let mut waiting: Vec<_> = [&a, &a, &b].into_iter().map(|of| Box::pin(line.enter(of, Lane::Scan))).collect();
        assert!(waiting.iter_mut().all(|enter| enter.as_mut().now_or_never().is_none()));
        line.enter(&tenant("a"), Lane::Lookup).now_or_never().expect("at once").unwrap();
        drop(first);
        let second = waiting[0].as_mut().now_or_never().expect("its turn").unwrap();
        assert!(waiting[2].as_mut().now_or_never().is_none());
        drop(second);
        let third = waiting[2].as_mut().now_or_never().expect("the other tenant's turn").unwrap();
        assert!(waiting[1].as_mut().now_or_never().is_none());
        drop(third);
        waiting[1].as_mut().now_or_never().expect("its turn").unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn who_leaves_the_line_is_passed_over() {
        let line = admission(1, 100);
        let first = line.enter(&tenant("a"), Lane::Scan).await.unwrap();
        let of = tenant("a");
        let mut leaves = Box::pin(line.enter(&of, Lane::Scan));
        let mut stays = Box::pin(line.enter(&of, Lane::Scan));
        assert!(leaves.as_mut().now_or_never().is_none() && stays.as_mut().now_or_never().is_none());
        drop(leaves);
        drop(first);
        drop(stays.as_mut().now_or_never().expect("its turn").unwrap());
        // A permit that was given to somebody who left at the same moment is not lost either.
        let second = line.enter(&of, Lane::Scan).now_or_never().expect("nobody runs").unwrap();
        let mut given = Box::pin(line.enter(&of, Lane::Scan));
        assert!(given.as_mut().now_or_never().is_none());
        drop(second);
        drop(given);
        line.enter(&of, Lane::Scan).now_or_never().expect("nobody runs").unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn the_wait_has_an_end_and_a_hint() {
        let line = admission(1, 100);
        let of = tenant("a");
        let _first = line.enter(&of, Lane::Scan).await.unwrap();
        let begun = Instant::now();
        let Err(QueryError::Busy { reason, retry_after_seconds }) = line.enter(&of, Lane::Scan).await else { panic!("it is refused") };
        assert_eq!(begun.elapsed(), Duration::from_secs(20));
        assert!(
            reason.starts_with("too many queries: 1 run and 0 wait in line") && reason.contains("query_frontend.max_wait (20s)"),
            "{reason}"
        );
        assert_eq!(retry_after_seconds, 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_line_that_is_too_long_for_the_wait_is_refused_at_once() {
        let line = admission(1, 100);
        let of = tenant("a");
        let first = line.enter(&of, Lane::Scan).await.unwrap();
        let takes = |seconds| (0..200).for_each(|_| line.lane(Lane::Scan).lock().learn(Duration::from_secs(seconds), 1));
        takes(2);
        let mut waiting: Vec<_> = (0..10).map(|_| Box::pin(line.enter(&of, Lane::Scan))).collect();
        assert!(waiting.iter_mut().all(|enter| enter.as_mut().now_or_never().is_none()), "ten can be begun within 20 s");
        let refused = line.enter(&of, Lane::Scan).now_or_never().expect("at once").err();
        let Some(QueryError::Busy { retry_after_seconds, .. }) = refused else { panic!("{refused:?}") };
        assert_eq!(retry_after_seconds, 20);
        // It takes longer than it seemed: those who would wait in vain are told.
        takes(9);
        drop(first);
        let _begun = waiting.remove(0).now_or_never().expect("its turn").unwrap();
        let refused = waiting.iter_mut().filter_map(|enter| enter.as_mut().now_or_never()).filter(Result::is_err).count();
        assert_eq!(refused, 9 - 3, "two can be begun within 20 s, and some slack");
    }

    #[tokio::test(start_paused = true)]
    async fn it_is_known_whether_others_have_run_meanwhile() {
        let line = admission(10, 100);
        let of = tenant("a");
        let first = line.enter(&of, Lane::Scan).await.unwrap();
        assert!(first.has_run_alone());
        let second = line.enter(&of, Lane::Lookup).await.unwrap();
        assert!(!first.has_run_alone() && !second.has_run_alone());
        drop(second);
        assert!(!first.has_run_alone(), "it may have taken what was missing");
        drop(first);
        assert!(line.enter(&of, Lane::Scan).await.unwrap().has_run_alone());
    }

    #[tokio::test(start_paused = true)]
    async fn a_tenant_has_only_so_many_in_line() {
        let line = admission(1, 2);
        let (a, b) = (tenant("a"), tenant("b"));
        let _first = line.enter(&a, Lane::Scan).await.unwrap();
        let mut waiting: Vec<_> = (0..2).map(|_| Box::pin(line.enter(&a, Lane::Scan))).collect();
        assert!(waiting.iter_mut().all(|enter| enter.as_mut().now_or_never().is_none()));
        assert_eq!(line.enter(&a, Lane::Scan).await.err(), Some(QueryError::QueueFull));
        assert!(line.enter(&b, Lane::Scan).now_or_never().is_none(), "others wait for their turn");
    }

    #[tokio::test(start_paused = true)]
    async fn more_are_begun_while_they_end_in_good_time_and_fewer_when_they_do_not() {
        let line = admission(50, 1000);
        let limit = || line.lane(Lane::Scan).lock().limit(Lane::Scan, 50);
        assert_eq!(limit(), 4);
        line.lane(Lane::Scan).lock().waiting = 1;
        (0..200).for_each(|_| line.lane(Lane::Scan).lock().learn(Duration::from_secs(1), 50));
        assert!((15..=50).contains(&limit()), "{}", limit());
        for _ in 0..50 {
            tokio::time::advance(Duration::from_secs(10)).await;
            line.lane(Lane::Scan).lock().learn(Duration::from_secs(9), 50);
        }
        assert_eq!(limit(), 2);
    }
}
