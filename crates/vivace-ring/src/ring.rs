//! What services hold of the membership: one role's snapshot, always the latest.

use std::sync::Arc;

use axum::Router;
use tokio::sync::watch;

use crate::{Instance, OwnServices, Role, Snapshot};

/// A view of one role's members that stays current. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Ring {
    role: Role,
    snapshots: watch::Receiver<Arc<Snapshot>>,
    services: Option<OwnServices>,
}

impl Ring {
    pub(crate) fn new(role: Role, snapshots: watch::Receiver<Arc<Snapshot>>, services: Option<OwnServices>) -> Self {
        Self { role, snapshots, services }
    }

    /// This process' services, where all members are this process and it serves.
    pub(crate) fn own_services(&self) -> Option<Router> {
        self.services.as_ref().and_then(OwnServices::now)
    }

    /// A ring whose members never change: for tests, and for what is configured by address.
    #[must_use]
    pub fn fixed(role: Role, instances: impl IntoIterator<Item = Instance>) -> Self {
        Self { role, snapshots: watch::channel(Arc::new(Snapshot::new(instances))).1, services: None }
    }

    /// Whose ring this is.
    #[must_use]
    pub fn role(&self) -> Role {
        self.role
    }

    /// The members as known now.
    #[must_use]
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.snapshots.borrow().clone()
    }

    /// Tells when members come, go or change state. Heartbeats alone are not told.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<Arc<Snapshot>> {
        self.snapshots.clone()
    }
}

/// How many of a replication set must have something before it is acknowledged: more than half. Whoever can ask all but fewer than
/// this many then finds it.
#[must_use]
pub fn quorum(replication_factor: usize) -> usize {
    replication_factor / 2 + 1
}
