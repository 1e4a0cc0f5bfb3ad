//! Queries are parsed and planned by the library, so explaining one needs no server and knows nothing of anyone's data.

use anyhow::bail;
use clap::Args;
use vivace_traceql::QueryError;

use crate::text::pointed;

/// How a TraceQL query would be answered, without asking anyone.
#[derive(Debug, Args)]
pub(crate) struct Command {
    /// The query, such as '{ status = error } | rate() by (resource.service.name)'.
    traceql: String,
}

pub(crate) fn run(command: &Command) -> anyhow::Result<String> {
    match vivace_traceql::parse(&command.traceql).and_then(|query| query.explain()) {
        Ok(explanation) => Ok(explanation.to_string()),
        Err(QueryError::Parse(error)) => bail!("{}", pointed(&command.traceql, error.line, error.column, &error.reason)),
        Err(error) => bail!("{error}"),
    }
}
