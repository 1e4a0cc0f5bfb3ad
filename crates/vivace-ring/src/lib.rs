//! Who owns a token: a pure ring over a membership snapshot, gossip at the rim, client pools that follow it.
//!
//! What is kept under a token is the services' business; how many of those that keep it are a [`quorum`] is said here, for all.
//! Start with [`Membership`], which hands out one [`Ring`] per [`Role`], and [`Snapshot`], which answers every question.

mod connection;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
mod gossip;
mod instance;
mod membership;
mod merge;
mod metrics;
mod options;
mod pages;
mod pool;
mod registration;
mod ring;
mod seeds;
mod snapshot;
mod socket;

pub use connection::{Connection, OwnServices};
pub use instance::{Instance, Role, State};
pub use membership::Membership;
pub use options::{GossipOptions, MembershipError};
pub use pages::router;
pub use pool::{ClientPool, PoolError, PoolOptions};
pub use registration::Registration;
pub use ring::{Ring, quorum};
pub use seeds::Seed;
pub use snapshot::{Shard, Snapshot};
pub use socket::{MemoryNetwork, MemorySocket, Socket};

/// What each member of a ring counts.
pub const METRICS: &[vivace_core::metric::Metric] = crate::metrics::ALL;
