//! A metrics query on its way to the places that count for it.

use vivace_proto::vivace::v1::SeriesRequest;

use super::plan::MetricsPlan;
use super::range::{MetricsRange, Release};
use crate::error::QueryError;
use crate::parser::parse;

impl MetricsPlan {
    /// The plan of a request: the same wherever it is made, so that partials of one request merge.
    ///
    /// # Errors
    /// What is wrong with the query or its range.
    pub fn of_request(request: &SeriesRequest) -> Result<Self, QueryError> {
        let query = parse(&request.query)?;
        let (start, end) = (request.start, request.end);
        let release = if request.v3 { Release::V3 } else { Release::V2 };
        let range = match request.instant {
            true => MetricsRange::instant(start, end, release),
            false => MetricsRange::range(start, end, request.step, release),
        }?;
        Ok(query.metrics_plan(range, request.exemplars as usize)?.with_max_series(request.max_series as usize))
    }
}
