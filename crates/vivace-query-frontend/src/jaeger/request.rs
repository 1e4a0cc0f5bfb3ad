//! What clients ask for, as searches of the query API: version 1 counts microseconds, version 3 has times of RFC 3339, and gRPC
//! messages. Source: docs/facts/clients.md, "Jaeger's query API".

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use vivace_config::parse_duration;
use vivace_core::{SECOND, TraceId};
use vivace_proto::jaeger::api_v3::{self, TraceQueryParameters};
use vivace_traceql::Kind;

use crate::conditions::{Conditions, KINDS};
use crate::error::QueryError;
use crate::finding::{TIME_MAX, Wanted, range};
use crate::params::{self, Params};

/// Traces where a client names no number.
const DEFAULT_LIMIT: u32 = 100;
/// Of a search of version 1 that names no start.
const DEFAULT_LOOK_BACK: Duration = Duration::from_secs(48 * 3600);

/// A search as all versions have it.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Search {
    /// Empty: any.
    service: String,
    /// Empty: any.
    operation: String,
    tags: Vec<(String, String)>,
    /// Unix nanoseconds.
    start: u64,
    end: u64,
    /// Nanoseconds.
    min_duration: Option<u64>,
    max_duration: Option<u64>,
    /// Traces.
    limit: u32,
}

/// What version 1 may ask of `/api/traces`.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum TracesV1 {
    Ids(Vec<TraceId>),
    Search(Search),
}

impl Search {
    pub(crate) fn wanted(&self) -> Result<Wanted, QueryError> {
        let mut conditions = Conditions::default();
        if !self.service.is_empty() {
            conditions.service(&self.service);
        }
        if !self.operation.is_empty() {
            conditions.name(&self.operation);
        }
        self.tags.iter().for_each(|(key, value)| conditions.tag(key, value));
        if let (Some(min), Some(max)) = (self.min_duration, self.max_duration)
            && min > max
        {
            return Err(invalid("'maxDuration' should be greater than 'minDuration'"));
        }
        conditions.duration(self.min_duration, self.max_duration);
        if self.start >= self.end {
            return Err(invalid("the start of the search is not before its end"));
        }
        Ok(Wanted { query: conditions.filter(), range: range(self.start, self.end), limit: self.limit, spans_per_trace: 1 })
    }

    /// Of version 1, but for its ids.
    fn v1(params: &Params, now: u64) -> Result<Self, QueryError> {
        let service = params.get("service").ok_or_else(|| invalid("parameter 'service' is required"))?;
        let end = micros(params, "end")?.unwrap_or(now);
        let look_back = match params.get("lookback") {
            Some(text) => duration("lookback", text)?,
            None => nanos(DEFAULT_LOOK_BACK),
        };
        let mut tags = Vec::new();
        for text in params.all("tags") {
            tags.extend(tags_of(text)?);
        }
        for text in params.all("tag") {
            let (key, value) =
                text.split_once(':').ok_or_else(|| invalid(format!("malformed 'tag' parameter, expecting key:value, received: {text}")))?;
            tags.push((key.to_owned(), value.to_owned()));
        }
        Ok(Self {
            service: service.to_owned(),
            operation: params.get("operation").unwrap_or_default().to_owned(),
            tags,
            start: match micros(params, "start")? {
                Some(start) => start,
                // An end alone is a search of the time before it.
                None => end.saturating_sub(look_back),
            },
            end,
            min_duration: params.get("minDuration").map(|text| duration("minDuration", text)).transpose()?,
            max_duration: params.get("maxDuration").map(|text| duration("maxDuration", text)).transpose()?,
            limit: limit("limit", params.get("limit"))?,
        })
    }

    /// Of version 3, whose parameters go by several names.
    pub(crate) fn v3(params: &Params) -> Result<Self, QueryError> {
        let any = |names: &[&str]| names.iter().find_map(|name| params.get(&format!("query.{name}")));
        let text = |names: &[&str]| any(names).unwrap_or_default().to_owned();
        let time = |names: &[&str]| -> Result<u64, QueryError> {
            let name = format!("query.{}", names[0]);
            let text = any(names).ok_or_else(|| invalid(format!("{name} is required")))?;
            time(&name, text)
        };
        let duration = |names: &[&str]| any(names).map(|text| duration(&format!("query.{}", names[0]), text)).transpose();
        Ok(Self {
            service: text(&["service_name", "serviceName"]),
            operation: text(&["operation_name", "operationName", "span_name", "spanName"]),
            tags: any(&["attributes"]).map(tags_of).transpose()?.unwrap_or_default(),
            start: time(&["start_time_min", "startTimeMin"])?,
            end: time(&["start_time_max", "startTimeMax"])?,
            min_duration: duration(&["duration_min", "durationMin"])?,
            max_duration: duration(&["duration_max", "durationMax"])?,
            limit: {
                let names = ["num_traces", "numTraces", "search_depth", "searchDepth"].map(|name| format!("query.{name}"));
                let named = names.iter().find(|name| params.get(name).is_some()).unwrap_or(&names[0]);
                limit(named, params.get(named))?
            },
        })
    }

    /// Of gRPC.
    pub(crate) fn message(query: TraceQueryParameters) -> Result<Self, QueryError> {
        let time = |name: &str, time: Option<api_v3::Timestamp>| {
            let time = time.ok_or_else(|| invalid(format!("{name} is required")))?;
            of_parts(time.seconds, time.nanos).ok_or_else(|| invalid(format!("{name} is no time since 1970")))
        };
        let duration = |name: &str, duration: Option<api_v3::Duration>| match duration {
            None | Some(api_v3::Duration { seconds: 0, nanos: 0 }) => Ok(None),
            Some(duration) => match of_parts(duration.seconds, duration.nanos) {
                Some(nanos) => Ok(Some(nanos)),
                None => Err(invalid(format!("{name} is negative or too long"))),
            },
        };
        Ok(Self {
            service: query.service_name,
            operation: query.operation_name,
            tags: query.attributes.into_iter().collect(),
            start: time("start_time_min", query.start_time_min)?,
            end: time("start_time_max", query.start_time_max)?,
            min_duration: duration("duration_min", query.duration_min)?,
            max_duration: duration("duration_max", query.duration_max)?,
            limit: match u32::try_from(query.search_depth) {
                Ok(0) => DEFAULT_LIMIT,
                Ok(limit) => limit,
                Err(_) => return Err(invalid("search_depth is negative")),
            },
        })
    }
}

impl TracesV1 {
    pub(crate) fn of(params: &Params, now: u64) -> Result<Self, QueryError> {
        let ids: Vec<TraceId> = params.all("traceID").map(trace_id).collect::<Result<_, _>>()?;
        if ids.is_empty() { Search::v1(params, now).map(Self::Search) } else { Ok(Self::Ids(ids)) }
    }
}

/// A trace's id: up to 32 hex digits, or 8 or 16 bytes as base64.
pub(crate) fn trace_id(text: &str) -> Result<TraceId, QueryError> {
    match STANDARD.decode(text) {
        // Their `=` is no hex digit.
        Ok(bytes) if text.ends_with('=') && matches!(bytes.len(), 8 | 16) => Ok(TraceId::from_slice(&bytes)),
        _ => params::trace_id(text),
    }
}

/// A kind of span by its name; none where the client names none.
pub(crate) fn kind(text: &str) -> Result<Option<(&'static str, Kind)>, QueryError> {
    if text.is_empty() {
        return Ok(None);
    }
    // The monitoring page writes kinds as the protocol does.
    let name = text.trim_start_matches("SPAN_KIND_").to_ascii_lowercase();
    let found = KINDS.iter().find(|(known, _)| *known == name);
    found.copied().map(Some).ok_or_else(|| invalid(format!("unknown span kind {text:?}")))
}

/// A range that ends at `endTs` and is `lookback` long, both in milliseconds, as Unix nanoseconds.
pub(crate) fn looking_back(params: &Params, now: u64, default: Duration) -> Result<(u64, u64), QueryError> {
    let end = millis(params, "endTs")?.unwrap_or(now);
    let back = millis(params, "lookback")?.unwrap_or_else(|| nanos(default));
    if back == 0 {
        return Err(invalid("invalid lookback: must be a positive number of milliseconds"));
    }
    Ok((end.saturating_sub(back), end))
}

/// A parameter in milliseconds, as nanoseconds.
pub(crate) fn millis(params: &Params, name: &str) -> Result<Option<u64>, QueryError> {
    whole(params, name, 1_000_000, "milliseconds")
}

fn micros(params: &Params, name: &str) -> Result<Option<u64>, QueryError> {
    whole(params, name, 1000, "microseconds")
}

fn whole(params: &Params, name: &str, unit_nanos: u64, unit: &str) -> Result<Option<u64>, QueryError> {
    let Some(text) = params.get(name) else { return Ok(None) };
    let nanos = text.parse::<u64>().ok().and_then(|number| number.checked_mul(unit_nanos)).filter(|nanos| *nanos < TIME_MAX);
    nanos.map(Some).ok_or_else(|| invalid(format!("unable to parse param '{name}': {text:?} is no number of {unit}")))
}

/// Tags as an object of texts, or in logfmt.
fn tags_of(text: &str) -> Result<Vec<(String, String)>, QueryError> {
    let malformed = |why: String| invalid(format!("malformed 'tags' parameter, cannot unmarshal JSON: {why}"));
    let text = text.trim();
    if text.is_empty() || text == "null" {
        return Ok(vec![]);
    }
    if !text.starts_with('{') {
        if !text.contains('=') {
            return Err(malformed(format!("{text:?} is no object such as {{\"key\":\"value\"}}")));
        }
        return vivace_traceql::parse_tags(text).map_err(|error| invalid(error.to_string()));
    }
    let tags: serde_json::Map<String, serde_json::Value> = serde_json::from_str(text).map_err(|error| malformed(error.to_string()))?;
    tags.into_iter()
        .map(|(key, value)| match value {
            serde_json::Value::String(text) => Ok((key, text)),
            serde_json::Value::Bool(_) | serde_json::Value::Number(_) => Ok((key, value.to_string())),
            _ => Err(malformed(format!("the value of {key:?} is no text"))),
        })
        .collect()
}

fn time(name: &str, text: &str) -> Result<u64, QueryError> {
    let time = OffsetDateTime::parse(text, &Rfc3339).ok().and_then(|time| u64::try_from(time.unix_timestamp_nanos()).ok());
    time.ok_or_else(|| invalid(format!("malformed parameter {name}: {text:?} is no time of RFC 3339 since 1970")))
}

fn duration(name: &str, text: &str) -> Result<u64, QueryError> {
    let duration = parse_duration(text).map_err(|why| invalid(format!("unable to parse param '{name}': {text:?}, {why}")))?;
    Ok(nanos(duration))
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

fn limit(name: &str, text: Option<&str>) -> Result<u32, QueryError> {
    match text.map(str::parse::<u32>) {
        None => Ok(DEFAULT_LIMIT),
        Some(Ok(limit)) if limit > 0 => Ok(limit),
        Some(_) => Err(invalid(format!("unable to parse param '{name}': must be a positive number"))),
    }
}

fn of_parts(seconds: i64, nanos: i32) -> Option<u64> {
    u64::try_from(seconds).ok()?.checked_mul(SECOND)?.checked_add(u64::try_from(nanos).ok()?)
}

fn invalid(message: impl Into<String>) -> QueryError {
    QueryError::Invalid(message.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_700_000_000 * SECOND;

    fn v1(query: &str) -> Result<Wanted, String> {
        match TracesV1::of(&Params::of(Some(query)), NOW).map_err(|error| error.to_string())? {
            TracesV1::Search(search) => search.wanted().map_err(|error| error.to_string()),
            TracesV1::Ids(ids) => panic!("{ids:?}"),
        }
    }

    #[test]
    fn a_search_of_version_1() {
        let wanted = v1("service=shop&operation=GET%20%2F&tag=vip:true&minDuration=1.5ms&maxDuration=2s&limit=7\
                         &start=1699990000000000&end=1699999999000001&lookback=custom");
        assert_eq!(wanted.map_err(|_| ()), Err(()), "a look-back that is no duration");
        let wanted = v1("service=shop&operation=GET%20%2F&tags=%7B%22vip%22%3A%22x%22%7D&minDuration=1.5ms&maxDuration=2s&limit=7\
                         &start=1699990000000000&end=1699999999000001");
        assert_eq!(
            wanted,
            Ok(Wanted {
                query:
                    "{ resource.service.name = `shop` && name = `GET /` && (span.vip = `x` || resource.vip = `x` || event.vip = `x`) && \
                        duration >= 1.5ms && duration <= 2s }"
                        .to_owned(),
                range: crate::params::SearchRange { start: 1_699_990_000, end: 1_700_000_000 },
                limit: 7,
                spans_per_trace: 1
            })
        );
        assert_eq!(v1("service=a&tags=vip%3Dx").map(|w| w.query), v1("service=a&tag=vip:x").map(|w| w.query), "logfmt too");
        let open = v1("service=shop").unwrap();
        assert_eq!((open.limit, open.range.end - open.range.start), (100, 48 * 3600));
        assert_eq!(v1("service=shop&lookback=1h").unwrap().range.start, 1_700_000_000 - 3600);
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (query, said) in [
            ("operation=x", "parameter 'service' is required"),
            ("service=a&start=x", "unable to parse param 'start': \"x\" is no number of microseconds"),
            ("service=a&limit=0", "unable to parse param 'limit': must be a positive number"),
            ("service=a&minDuration=2s&maxDuration=1s", "'maxDuration' should be greater than 'minDuration'"),
            ("service=a&tag=x", "malformed 'tag' parameter, expecting key:value, received: x"),
            ("service=a&start=5&end=5", "the start of the search is not before its end"),
        ] {
            assert_eq!(v1(query).unwrap_err(), said);
        }
        assert!(v1("service=a&tags=%5B%5D").unwrap_err().contains("\"[]\" is no object"));
        assert_eq!(v1("service=a&tags=null").map(|w| w.query), v1("service=a").map(|w| w.query));
        assert!(v1("service=a&end=1700000000000000000").unwrap_err().ends_with("is no number of microseconds"));
        assert!(v1("service=a&tags=%7B%22a%22%3A%5B%5D%7D").unwrap_err().starts_with("malformed 'tags' parameter"));
        assert!(v1("service=a&minDuration=fast").unwrap_err().starts_with("unable to parse param 'minDuration': \"fast\""));
    }

    #[test]
    fn version_3_knows_several_names() {
        let search = |query: &str| Search::v3(&Params::of(Some(query))).and_then(|search| search.wanted()).map_err(|e| e.to_string());
        let camel = search(
            "query.serviceName=a&query.operationName=b&query.startTimeMin=2023-11-14T21:13:20.5Z&query.startTimeMax=2023-11-14T22:13:20Z\
             &query.searchDepth=3&query.durationMin=1s&query.attributes=%7B%22k%22%3A%22v%22%7D",
        );
        let snake = search(
            "query.service_name=a&query.span_name=b&query.start_time_min=2023-11-14T21:13:20.500Z&query.start_time_max=2023-11-14T22:13:20Z\
             &query.num_traces=3&query.duration_min=1s&query.attributes=%7B%22k%22%3A%22v%22%7D",
        );
        assert_eq!(camel, snake);
        assert_eq!((camel.clone().unwrap().limit, camel.unwrap().range.end), (3, 1_700_000_000));
        assert_eq!(search("query.service_name=a"), Err("query.start_time_min is required".to_owned()));
    }

    #[test]
    fn ids_are_hex_or_base64() {
        assert_eq!(trace_id("aBc").unwrap().trimmed_hex(), "abc");
        assert_eq!(trace_id("AAAAAAAAAAAAAAAAAAAAAQ==").unwrap().trimmed_hex(), "1");
        assert_eq!(trace_id("/////////+8=").unwrap().trimmed_hex(), "ffffffffffffffef");
        assert!(trace_id("no").is_err());
        assert!(trace_id(&"0".repeat(33)).is_err());
    }
}
