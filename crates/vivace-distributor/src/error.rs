use std::time::Duration;

use tonic::Code;
use vivace_core::{TenantError, TenantId};

use crate::plan::PlanError;
use crate::replicate::StoreError;

/// How long a client should wait when this process or the ingesters have no room.
const BUSY_RETRY: Duration = Duration::from_secs(1);

/// Why a request was not taken.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PushError {
    /// Whose spans these are is not clear.
    #[error(transparent)]
    Tenant(#[from] TenantError),
    /// Over the tenant's rate. Clients look for the first word.
    #[error(
        "RATE_LIMITED: {request_bytes} bytes are over the ingestion rate limit of tenant {tenant}: local {local_bytes} bytes/s, global \
         {global_bytes} bytes/s, burst {burst_bytes} bytes"
    )]
    RateLimited {
        tenant: TenantId,
        request_bytes: u64,
        local_bytes: u64,
        global_bytes: u64,
        burst_bytes: u64,
        retry_after: Option<Duration>,
    },
    /// Larger than the burst: sending it again cannot help.
    #[error(
        "RATE_LIMITED: a request of {request_bytes} bytes is larger than the ingestion burst of tenant {tenant}, {burst_bytes} bytes (rate limit \
         {local_bytes} bytes/s), and can never be accepted; send smaller batches or raise the limit"
    )]
    LargerThanBurst { tenant: TenantId, request_bytes: u64, local_bytes: u64, burst_bytes: u64 },
    /// The bytes are not what they claim to be.
    #[error("{0}")]
    Malformed(String),
    /// Not one span has valid ids.
    #[error("{0}")]
    NoValidSpans(String),
    /// The body is larger than the receiver takes.
    #[error("the request body is larger than {limit} bytes")]
    TooLarge { limit: u64 },
    /// No memory for it now.
    #[error("{bytes} bytes do not fit into the {limit} bytes that requests in flight may take; try again")]
    Overloaded { bytes: u64, limit: u64 },
    /// Not stored by enough ingesters.
    #[error(transparent)]
    Store(StoreError),
}

impl From<StoreError> for PushError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Plan(PlanError::Malformed(_)) => Self::Malformed(error.to_string()),
            other => Self::Store(other),
        }
    }
}

impl PushError {
    /// The gRPC status. Source: HTTP API facts 3.1 and its "worth improving".
    pub(crate) fn code(&self) -> Code {
        match self {
            Self::Tenant(TenantError::Missing) => Code::Unauthenticated,
            Self::Tenant(
                TenantError::TooLong { .. } | TenantError::Character { .. } | TenantError::Reserved { .. } | TenantError::Multiple { .. },
            )
            | Self::Malformed(_)
            | Self::NoValidSpans(_)
            | Self::TooLarge { .. } => Code::InvalidArgument,
            Self::RateLimited { .. } | Self::LargerThanBurst { .. } | Self::Overloaded { .. } => Code::ResourceExhausted,
            Self::Store(StoreError::Failed { busy: true, .. }) => Code::ResourceExhausted,
            Self::Store(StoreError::Refused { .. }) => Code::InvalidArgument,
            Self::Store(StoreError::Plan(_) | StoreError::TooFew { .. } | StoreError::Failed { .. } | StoreError::Stopping) => {
                Code::Unavailable
            }
        }
    }

    /// When to try again; clients drop a RESOURCE_EXHAUSTED that carries no such hint.
    pub(crate) fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::RateLimited { retry_after, .. } => *retry_after,
            Self::Overloaded { .. } | Self::Store(StoreError::Failed { busy: true, .. }) => Some(BUSY_RETRY),
            Self::Tenant(_)
            | Self::LargerThanBurst { .. }
            | Self::Malformed(_)
            | Self::NoValidSpans(_)
            | Self::TooLarge { .. }
            | Self::Store(_) => None,
        }
    }
}
