//! Why a push is refused, and what the client is told. Clients go by it: the code says whether to send again or to drop the
//! spans, and without a hint of when they do not send again what was refused for lack of room.

use std::time::Duration;

use tonic::Code;
use vivace_core::budget::OverBudget;
use vivace_core::{TenantError, TenantId};
use vivace_server::{BodyError, EncodingError};

use crate::plan::PlanError;
use crate::receiver::output::NoRoom;
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
    /// Not one span can be stored.
    #[error("{0}")]
    NoValidSpans(String),
    /// The body is larger than the receiver takes.
    #[error("the request body is larger than {limit} bytes")]
    TooLarge { limit: u64 },
    /// It would become many times of what was sent.
    #[error("{0}")]
    Grows(NoRoom),
    /// No memory for it now.
    #[error(transparent)]
    Overloaded(#[from] OverBudget),
    /// The client sends too slowly.
    #[error("{0}")]
    TooSlow(String),
    /// A fault of this program. What was sent may well be sound.
    #[error("a fault in this program, not in the request: {0}")]
    Fault(String),
    /// Not stored by enough ingesters.
    #[error(transparent)]
    Store(StoreError),
}

impl From<StoreError> for PushError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Plan(PlanError::Malformed(_) | PlanError::Broken { .. }) => Self::Malformed(error.to_string()),
            StoreError::Plan(PlanError::Unusual) => Self::Fault("a request that was written anew is not in its usual form".to_owned()),
            other => Self::Store(other),
        }
    }
}

impl From<NoRoom> for PushError {
    fn from(why: NoRoom) -> Self {
        match why {
            NoRoom::Memory(over) => Self::Overloaded(over),
            NoRoom::Grows { .. } => Self::Grows(why),
        }
    }
}

impl From<EncodingError> for PushError {
    fn from(error: EncodingError) -> Self {
        match error {
            EncodingError::OverBudget(over) => Self::Overloaded(over),
            EncodingError::TooLarge { limit } => Self::TooLarge { limit },
            EncodingError::Damaged { .. } | EncodingError::Unknown(_) => Self::Malformed(error.to_string()),
        }
    }
}

impl PushError {
    /// Why a body could not be read.
    pub(crate) fn of_body(error: &(dyn std::error::Error + 'static)) -> Self {
        match BodyError::of(error) {
            Some(BodyError::OverBudget { over, .. }) => Self::Overloaded(over.clone()),
            Some(BodyError::TooSlow { .. }) => Self::TooSlow(error.to_string()),
            Some(BodyError::Grpc(_) | BodyError::Connection(_)) | None => {
                Self::Malformed(format!("could not read the request body: {error}"))
            }
        }
    }

    /// Whether the request is too large for this process, whatever else it does.
    pub(crate) fn is_too_large(&self) -> bool {
        match self {
            Self::TooLarge { .. } | Self::Grows(_) => true,
            Self::Overloaded(over) => over.never_fits(),
            _ => false,
        }
    }

    /// Whether the same spans may be stored later, if whoever has them keeps them until then.
    pub(crate) fn may_pass_later(&self) -> bool {
        match self {
            Self::RateLimited { .. } | Self::TooSlow(_) => true,
            Self::Overloaded(over) => !over.never_fits(),
            Self::Store(StoreError::TooFew { .. } | StoreError::Failed { .. } | StoreError::Stopping) => true,
            Self::Store(StoreError::Plan(PlanError::NoOwner(_))) => true,
            Self::Store(StoreError::Plan(PlanError::Malformed(_) | PlanError::Broken { .. } | PlanError::Unusual)) => false,
            Self::Store(StoreError::Refused { .. } | StoreError::Fault(_)) => false,
            Self::Tenant(_)
            | Self::LargerThanBurst { .. }
            | Self::Malformed(_)
            | Self::NoValidSpans(_)
            | Self::TooLarge { .. }
            | Self::Grows(_)
            | Self::Fault(_) => false,
        }
    }

    /// The gRPC status. Source: docs/facts/http-api.md, "OTLP over HTTP".
    pub(crate) fn code(&self) -> Code {
        match self {
            Self::Tenant(TenantError::Missing) => Code::Unauthenticated,
            Self::Tenant(
                TenantError::TooLong { .. } | TenantError::Character { .. } | TenantError::Reserved { .. } | TenantError::Multiple { .. },
            )
            | Self::Malformed(_)
            | Self::NoValidSpans(_)
            | Self::TooLarge { .. }
            | Self::Grows(_) => Code::InvalidArgument,
            Self::RateLimited { .. } | Self::LargerThanBurst { .. } | Self::Overloaded(_) => Code::ResourceExhausted,
            Self::TooSlow(_) => Code::DeadlineExceeded,
            Self::Fault(_) | Self::Store(StoreError::Fault(_)) => Code::Internal,
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
            Self::Overloaded(over) => (!over.never_fits()).then_some(BUSY_RETRY),
            Self::Store(StoreError::Failed { busy: true, .. }) => Some(BUSY_RETRY),
            Self::Tenant(_)
            | Self::LargerThanBurst { .. }
            | Self::Malformed(_)
            | Self::NoValidSpans(_)
            | Self::TooLarge { .. }
            | Self::Grows(_)
            | Self::TooSlow(_)
            | Self::Fault(_)
            | Self::Store(_) => None,
        }
    }
}
