//! A member of a ring. Its tokens follow from its id, so that nobody has to store, tell or agree on them.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use vivace_core::Token;
use xxhash_rust::xxh3::xxh3_64;

/// Tokens that each instance has on the ring. Enough that shares differ by about a tenth.
pub(crate) const TOKENS_PER_INSTANCE: u32 = 128;

/// What an instance does. Each role has a ring of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// Takes segments, owns traces by token.
    Ingester,
    /// Takes spans of tenants that want metrics of them.
    MetricsGenerator,
    /// Owns compaction work.
    Compactor,
    /// Takes spans from clients. Counted for global rate limits.
    Distributor,
    /// Runs query jobs.
    Querier,
    /// Answers queries.
    QueryFrontend,
}

impl Role {
    /// Every role.
    pub const ALL: [Self; 6] =
        [Self::Ingester, Self::MetricsGenerator, Self::Compactor, Self::Distributor, Self::Querier, Self::QueryFrontend];

    /// The name in metrics, paths and gossip.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ingester => "ingester",
            Self::MetricsGenerator => "metrics-generator",
            Self::Compactor => "compactor",
            Self::Distributor => "distributor",
            Self::Querier => "querier",
            Self::QueryFrontend => "query-frontend",
        }
    }
}

impl FromStr for Role {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        Self::ALL.into_iter().find(|role| role.as_str() == text).ok_or(())
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Where an instance is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum State {
    /// Started, takes no writes yet.
    Pending,
    /// Replaying its log, takes no writes yet.
    Joining,
    /// Takes writes and answers reads.
    Active,
    /// Going away: takes no writes, answers reads as long as it lives.
    Leaving,
}

impl State {
    /// Every state.
    pub const ALL: [Self; 4] = [Self::Pending, Self::Joining, Self::Active, Self::Leaving];

    /// The name on the ring page and in metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "PENDING",
            Self::Joining => "JOINING",
            Self::Active => "ACTIVE",
            Self::Leaving => "LEAVING",
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One member of a ring, as last heard of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Instance {
    /// Unique within its role; stays the same over restarts where the host name does.
    pub id: String,
    /// What it does.
    pub role: Role,
    /// `host:port` of its gRPC listener.
    pub addr: String,
    /// Availability zone; empty where zones are not used.
    pub zone: String,
    /// What it says of itself.
    pub state: State,
    /// Whether its heartbeat has been heard lately.
    pub alive: bool,
    /// When this run registered, seconds since the epoch.
    pub registered_unix_seconds: u64,
    /// When its heartbeat was heard last as this process knows, nanoseconds since the epoch. Not kept current in a snapshot.
    pub last_heartbeat_unix_nanos: u64,
}

impl Instance {
    /// Takes writes: alive and [`State::Active`].
    #[must_use]
    pub fn takes_writes(&self) -> bool {
        self.alive && self.state == State::Active
    }

    /// The places on the ring, a hash of id and index: nothing has to be stored to keep them over a restart.
    pub fn tokens(&self) -> impl Iterator<Item = Token> + '_ {
        let mut key = Vec::with_capacity(self.id.len() + 4);
        (0..TOKENS_PER_INSTANCE).map(move |index| {
            key.clear();
            key.extend_from_slice(self.id.as_bytes());
            key.extend_from_slice(&index.to_le_bytes());
            // The upper half: any 32 of the 64 bits are as good.
            Token((xxh3_64(&key) >> 32) as u32)
        })
    }

    /// Equal in all that decides where data goes: everything but the heartbeat.
    pub(crate) fn same_membership(&self, other: &Self) -> bool {
        Self { last_heartbeat_unix_nanos: 0, ..self.clone() } == Self { last_heartbeat_unix_nanos: 0, ..other.clone() }
    }
}
