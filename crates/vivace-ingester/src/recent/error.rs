//! Why a query has no answer.

/// Why a query has no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum QueryError {
    /// The request makes no sense.
    #[error("{0}")]
    Invalid(String),
    /// What it had before it was started may still be elsewhere. Others answer for it meanwhile.
    #[error("the ingester is still joining the ring")]
    Joining,
    /// The bucket did not answer. Worth a retry.
    #[error("could not read a block that is still served from here")]
    Unavailable(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// What it takes does not fit into memory.
    #[error("{0}")]
    TooLarge(#[from] vivace_traceql::TooLarge),
    /// A part of the query failed in a way it should not.
    #[error("query failed: {0}")]
    Internal(String),
}
