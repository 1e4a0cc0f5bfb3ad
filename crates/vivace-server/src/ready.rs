//! Whether the process can do its work: one check per part, and whether it is going away.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::RwLock;

type Check = Box<dyn Fn() -> Result<(), String> + Send + Sync>;

/// Shared by `/ready`, the process and gRPC health.
#[derive(Clone, Default)]
pub(crate) struct Readiness(Arc<Inner>);

#[derive(Default)]
struct Inner {
    running: AtomicBool,
    draining: AtomicBool,
    checks: RwLock<Vec<(String, Check)>>,
    /// What the process waits for before it runs.
    awaited: RwLock<Option<String>>,
}

impl Readiness {
    pub(crate) fn add(&self, name: &str, check: impl Fn() -> Result<(), String> + Send + Sync + 'static) {
        self.0.checks.write().push((name.to_owned(), Box::new(check)));
    }

    pub(crate) fn set_awaited(&self, part: Option<String>) {
        *self.0.awaited.write() = part;
    }

    pub(crate) fn set_running(&self) {
        self.0.running.store(true, Ordering::Relaxed);
    }

    pub(crate) fn set_draining(&self) {
        self.0.draining.store(true, Ordering::Relaxed);
    }

    pub(crate) fn is_draining(&self) -> bool {
        self.0.draining.load(Ordering::Relaxed)
    }

    /// Every part with its state: `Running`, or why not.
    pub(crate) fn services(&self) -> Vec<(String, Result<(), String>)> {
        self.0.checks.read().iter().map(|(name, check)| (name.clone(), check())).collect()
    }

    /// # Errors
    /// The reasons, one a line.
    pub(crate) fn check(&self) -> Result<(), String> {
        if self.is_draining() {
            return Err("shutting down\n".to_owned());
        }
        if !self.0.running.load(Ordering::Relaxed) {
            return Err(match &*self.0.awaited.read() {
                None => "starting\n".to_owned(),
                Some(part) => format!("starting: {part}\n"),
            });
        }
        let reasons: String =
            self.services().into_iter().filter_map(|(name, state)| Some(format!("{name} not ready: {}\n", state.err()?))).collect();
        if reasons.is_empty() { Ok(()) } else { Err(reasons) }
    }
}
