//! What waits to be sent to one receiver of copies, by tenant.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use rustc_hash::FxHashMap;
use tokio::sync::Semaphore;
use tokio_util::task::TaskTracker;
use vivace_config::{GeneratorForwarderLimits, set_or};
use vivace_core::TenantId;

use crate::metrics::{QUEUE_LENGTH, QUEUE_PUSH_FAILURES, QUEUE_PUSHES};

/// Where a limit is not set. Source: docs/facts/components.md, "Metrics-generator tee" and "Generic forwarders".
const REQUESTS_MAX: usize = 100;
const WORKERS: usize = 2;
/// Longest time that shutdown waits for what is queued.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(20);

/// A queue for each tenant.
#[derive(Debug)]
pub(crate) struct Queues {
    /// Of the receiver, as its series are labelled.
    name: String,
    tenants: Mutex<FxHashMap<TenantId, Queue>>,
    tasks: TaskTracker,
}

/// One tenant's queue.
#[derive(Debug, Clone)]
struct Queue {
    limits: QueueLimits,
    /// Free places.
    places: Arc<Semaphore>,
    /// Free workers.
    workers: Arc<Semaphore>,
}

/// Bounds of a queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct QueueLimits {
    /// Requests that wait, at most; further ones are dropped and counted.
    requests: usize,
    /// Requests that are sent at once, at most.
    workers: usize,
}

impl Default for QueueLimits {
    fn default() -> Self {
        Self { requests: REQUESTS_MAX, workers: WORKERS }
    }
}

impl From<&GeneratorForwarderLimits> for QueueLimits {
    fn from(limits: &GeneratorForwarderLimits) -> Self {
        Self { requests: set_or(limits.queue_size, REQUESTS_MAX), workers: set_or(limits.workers, WORKERS) }
    }
}

impl Queues {
    pub(crate) fn new(name: impl Into<String>) -> Self {
        Self { name: name.into(), tenants: Mutex::default(), tasks: TaskTracker::new() }
    }

    /// Queues what sends a request. Never waits.
    pub(crate) fn enqueue(&self, tenant: &TenantId, limits: QueueLimits, send: impl Future<Output = ()> + Send + 'static) {
        let label = tenant.to_string();
        let counter = |name: &'static str| metrics::counter!(name, "name" => self.name.clone(), "tenant" => label.clone());
        counter(QUEUE_PUSHES.name).increment(1);
        let queue = self.queue(tenant, limits);
        let Ok(place) = queue.places.try_acquire_owned() else {
            counter(QUEUE_PUSH_FAILURES.name).increment(1);
            return;
        };
        let length = metrics::gauge!(QUEUE_LENGTH.name, "name" => self.name.clone(), "tenant" => label.clone());
        length.increment(1.0);
        self.tasks.spawn(async move {
            let worker = queue.workers.acquire_owned().await;
            length.decrement(1.0);
            drop(place);
            send.await;
            drop(worker);
        });
    }

    /// Counts a request that is not queued.
    pub(crate) fn drop_one(&self, tenant: &TenantId) {
        for counter in [QUEUE_PUSHES, QUEUE_PUSH_FAILURES] {
            metrics::counter!(counter.name, "name" => self.name.clone(), "tenant" => tenant.to_string()).increment(1);
        }
    }

    /// Waits for what is queued, for a while.
    pub(crate) async fn drain(&self) {
        self.tasks.close();
        if tokio::time::timeout(DRAIN_TIMEOUT, self.tasks.wait()).await.is_err() {
            tracing::warn!(to = self.name, requests = self.tasks.len(), "copies of spans are dropped at shutdown");
        }
    }

    fn queue(&self, tenant: &TenantId, limits: QueueLimits) -> Queue {
        let mut tenants = self.tenants.lock();
        if let Some(queue) = tenants.get(tenant).filter(|queue| queue.limits == limits) {
            return queue.clone();
        }
        // A tenant whose limits change gets a new queue; what is in the old one is still sent.
        let semaphore = |permits: usize| Arc::new(Semaphore::new(permits.min(Semaphore::MAX_PERMITS)));
        let queue = Queue { limits, places: semaphore(limits.requests), workers: semaphore(limits.workers) };
        tenants.insert(tenant.clone(), queue.clone());
        queue
    }
}
