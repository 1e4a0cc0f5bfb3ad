//! Whether this ingester takes segments and answers queries: neither while it joins the ring, and no segments once it leaves.

use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::{RwLock, RwLockReadGuard};

/// Where an ingester is between its start and its end.
#[derive(Debug)]
pub(crate) struct Lifecycle {
    /// Not yet a member: what this instance had before it was started may still be elsewhere, so it neither takes nor answers.
    joining: AtomicBool,
    /// Pushes hold it for reading while they run, so that whoever closes it waits for them. True once none is taken any more.
    is_closed: RwLock<bool>,
    /// Everything is to be flushed before the process ends.
    flush_on_drain: AtomicBool,
}

impl Lifecycle {
    pub(crate) fn new(flush_on_drain: bool) -> Self {
        Self { joining: AtomicBool::new(false), is_closed: RwLock::new(false), flush_on_drain: AtomicBool::new(flush_on_drain) }
    }

    /// Neither pushes are taken nor queries answered while it is so.
    pub(crate) fn set_joining(&self, joining: bool) {
        self.joining.store(joining, Ordering::Release);
    }

    pub(crate) fn is_joining(&self) -> bool {
        self.joining.load(Ordering::Acquire)
    }

    /// A push begins, and is under way as long as the guard lives. None when the process is going away.
    pub(crate) fn begin_push(&self) -> Option<RwLockReadGuard<'_, bool>> {
        self.is_closed.try_read().ok().filter(|is_closed| !**is_closed)
    }

    /// Refuses pushes, and finishes those under way.
    pub(crate) async fn close(&self) {
        *self.is_closed.write().await = true;
    }

    /// Everything is flushed when the process ends, whatever the configuration says.
    pub(crate) fn flush_on_drain(&self) {
        self.flush_on_drain.store(true, Ordering::Relaxed);
    }

    pub(crate) fn flushes_on_drain(&self) -> bool {
        self.flush_on_drain.load(Ordering::Relaxed)
    }
}
