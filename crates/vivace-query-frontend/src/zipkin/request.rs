//! What clients ask for, as searches of the query API. Durations are microseconds, times milliseconds.
//! Source: docs/facts/clients.md, "Zipkin's query API".

use crate::conditions::Conditions;
use crate::error::QueryError;
use crate::finding::{TIME_MAX, Wanted, range};
use crate::params::{Params, SearchRange};

/// Traces where a client names no number.
pub(crate) const DEFAULT_LIMIT: u32 = 10;
/// The attribute that says whom a span calls.
pub(crate) const PEER_SERVICE: &str = "peer.service";
/// Of a request that names no time before its end: a day, in milliseconds.
const LOOK_BACK_MILLIS: u64 = 24 * 3600 * 1000;
/// What the UI calls any service and any span.
const ANY: &str = "all";

/// A search.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Search {
    conditions: Vec<Condition>,
    range: SearchRange,
    limit: u32,
    /// Nanoseconds.
    duration: (Option<u64>, Option<u64>),
}

#[derive(Debug, PartialEq, Eq)]
enum Condition {
    Service(String),
    Name(String),
    Tag(String, String),
    Has(String),
}

impl Search {
    pub(crate) fn of(params: &Params, now: u64) -> Result<Self, QueryError> {
        let named = |name: &str| params.get(name).filter(|text| *text != ANY).map(str::to_owned);
        let mut conditions: Vec<Condition> = Vec::new();
        conditions.extend(named("serviceName").map(Condition::Service));
        conditions.extend(named("spanName").map(Condition::Name));
        conditions.extend(named("remoteServiceName").map(|name| Condition::Tag(PEER_SERVICE.to_owned(), name)));
        for term in params.get("annotationQuery").unwrap_or_default().split(" and ") {
            match term.trim().split_once('=') {
                Some((key, value)) => conditions.push(Condition::Tag(key.to_owned(), value.to_owned())),
                None if term.trim().is_empty() => {}
                None => conditions.push(Condition::Has(term.trim().to_owned())),
            }
        }
        let micros = |name: &str| Ok::<_, QueryError>(number(params, name)?.map(|micros| micros.saturating_mul(1000)));
        let limit = match number(params, "limit")? {
            None => DEFAULT_LIMIT,
            Some(0) => return Err(invalid("limit <= 0")),
            Some(limit) => u32::try_from(limit).unwrap_or(u32::MAX),
        };
        let duration = (micros("minDuration")?, micros("maxDuration")?);
        match duration {
            (None, Some(_)) => return Err(invalid("maxDuration is only valid with minDuration")),
            (Some(min), Some(max)) if max < min => return Err(invalid("maxDuration < minDuration")),
            _ => {}
        }
        Ok(Self { conditions, range: range_of(params, now)?, limit, duration })
    }

    pub(crate) fn wanted(&self) -> Result<Wanted, QueryError> {
        let mut conditions = Conditions::default();
        for condition in &self.conditions {
            match condition {
                Condition::Service(name) => conditions.service(name),
                Condition::Name(name) => conditions.name(name),
                Condition::Tag(key, value) => conditions.tag(key, value),
                Condition::Has(key) => conditions.has(key),
            }
        }
        conditions.duration(self.duration.0, self.duration.1);
        Ok(Wanted { query: conditions.filter(), range: self.range, limit: self.limit, spans_per_trace: 1 })
    }
}

/// A time that ends at `endTs` and is `lookback` long.
pub(crate) fn range_of(params: &Params, now: u64) -> Result<SearchRange, QueryError> {
    let nanos = |millis: u64| millis.saturating_mul(1_000_000);
    let end = match number(params, "endTs")? {
        Some(millis) if nanos(millis) >= TIME_MAX => {
            return Err(invalid(&format!("endTs: {millis} is no time in milliseconds since 1970")));
        }
        given => given.map_or(now, nanos),
    };
    let back = match number(params, "lookback")? {
        Some(0) => return Err(invalid("lookback <= 0")),
        given => nanos(given.unwrap_or(LOOK_BACK_MILLIS)),
    };
    Ok(range(end.saturating_sub(back), end))
}

fn number(params: &Params, name: &str) -> Result<Option<u64>, QueryError> {
    let Some(text) = params.get(name) else { return Ok(None) };
    text.parse().map(Some).map_err(|_| invalid(&format!("{name}: {text:?} is no whole number")))
}

fn invalid(message: &str) -> QueryError {
    QueryError::Invalid(message.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_700_000_000_000_000_000;

    fn wanted(query: &str) -> Result<Wanted, String> {
        Search::of(&Params::of(Some(query)), NOW).and_then(|search| search.wanted()).map_err(|error| error.to_string())
    }

    #[test]
    fn a_search_of_the_ui() {
        let found = wanted(
            "serviceName=shop&spanName=get&annotationQuery=vip%3Dx%20and%20retry&minDuration=1500&maxDuration=2000000\
             &endTs=1700000000000&lookback=3600000&limit=7",
        );
        assert_eq!(
            found,
            Ok(Wanted {
                query: "{ resource.service.name = `shop` && name = `get` && (span.vip = `x` || resource.vip = `x` || event.vip = `x`) && \
                        (span.retry != nil || resource.retry != nil || event.retry != nil || event:name = `retry`) && \
                        duration >= 1.5ms && duration <= 2s }"
                    .to_owned(),
                range: SearchRange { start: 1_699_996_400, end: 1_700_000_000 },
                limit: 7,
                spans_per_trace: 1
            })
        );
        let any = wanted("serviceName=all&spanName=all").unwrap();
        assert_eq!((any.query.as_str(), any.limit, any.range.end - any.range.start), ("{ }", 10, 24 * 3600));
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (query, said) in [
            ("limit=0", "limit <= 0"),
            ("lookback=0", "lookback <= 0"),
            ("endTs=now", "endTs: \"now\" is no whole number"),
            ("endTs=1700000000000000", "endTs: 1700000000000000 is no time in milliseconds since 1970"),
            ("maxDuration=1", "maxDuration is only valid with minDuration"),
            ("minDuration=2&maxDuration=1", "maxDuration < minDuration"),
        ] {
            assert_eq!(wanted(query).unwrap_err(), said);
        }
    }
}
