//! The parameters of the query API, with the errors that its clients know. Source: docs/facts/http-api.md, "Query API".

use std::fmt::Display;
use std::time::Duration;

use vivace_config::{format_duration, parse_duration};
use vivace_core::{BlockId, ParseIdError, SECOND, TimeRange, TraceId};

use crate::error::QueryError;

/// What a metrics query without a time looks at.
const METRICS_LOOK_BACK_NANOS: u64 = 3600 * SECOND;

/// A URL's query string. Of several parameters of one name the first counts.
pub(crate) struct Params(Vec<(String, String)>);

/// Whole Unix seconds as a request has them, both given, start before end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SearchRange {
    pub(crate) start: u32,
    pub(crate) end: u32,
}

impl From<SearchRange> for TimeRange {
    fn from(SearchRange { start, end }: SearchRange) -> Self {
        Self::between(u64::from(start) * SECOND, u64::from(end) * SECOND)
    }
}

/// What the configuration says about time ranges.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RangeRules {
    /// Of a query that names no time.
    pub(crate) default_look_back: Duration,
    /// Zero: any.
    pub(crate) max: Duration,
}

impl Params {
    pub(crate) fn of(query: Option<&str>) -> Self {
        // A string of pairs always parses; what is no escape stands for itself.
        Self(axum::extract::Query::try_from_uri(&uri_of(query)).map(|axum::extract::Query(pairs)| pairs).unwrap_or_default())
    }

    /// The parameter's value, if it is given and not empty.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str()).filter(|value| !value.is_empty())
    }

    /// The values of all parameters of a name that are not empty.
    pub(crate) fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(key, value)| key == name && !value.is_empty()).map(|(_, value)| value.as_str())
    }

    /// A number of Go's type int.
    pub(crate) fn int(&self, name: &str) -> Result<Option<i64>, QueryError> {
        let Some(text) = self.get(name) else { return Ok(None) };
        let number =
            text.parse().map_err(|_| QueryError::Invalid(format!("invalid {name}: strconv.Atoi: parsing {text:?}: invalid syntax")))?;
        Ok(Some(number))
    }

    /// A number where nonsense counts as absent.
    pub(crate) fn lenient_u32(&self, name: &str) -> u32 {
        self.get(name).and_then(|text| text.parse().ok()).unwrap_or(0)
    }

    /// A duration in milliseconds.
    pub(crate) fn millis(&self, name: &str) -> Result<u32, QueryError> {
        let Some(text) = self.get(name) else { return Ok(0) };
        let duration = parse_duration(text).map_err(|_| QueryError::Invalid(format!("invalid {name}: time: invalid duration {text:?}")))?;
        Ok(u32::try_from(duration.as_millis()).unwrap_or(u32::MAX))
    }

    /// `start`, `end` or `since`, in nanoseconds; none where the query names no time.
    fn times(&self, now: u64) -> Result<Option<(u64, u64)>, QueryError> {
        if let Some(text) = self.get("since") {
            let since = parse_duration(text).map_err(|why| QueryError::Invalid(format!("invalid since: {text:?}, {why}")))?;
            return Ok(Some((now.saturating_sub(u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)), now)));
        }
        match (self.time("start")?, self.time("end")?) {
            (None, None) | (Some(0), Some(0)) => Ok(None),
            (Some(start), Some(end)) => Ok(Some((start, end))),
            (Some(_), None) => Err(time_missing("end")),
            (None, Some(_)) => Err(time_missing("start")),
        }
    }

    fn time(&self, name: &str) -> Result<Option<u64>, QueryError> {
        let Some(text) = self.get(name) else { return Ok(None) };
        if let Some(unit) = wrong_unit(text) {
            let expected = "times are Unix seconds (10 digits), Unix nanoseconds (19 digits) or RFC 3339";
            return Err(QueryError::Invalid(format!("invalid {name}: {text} seems to be in {unit}; {expected}")));
        }
        let nanos = parse_time(text)
            .ok_or_else(|| QueryError::Invalid(format!("invalid {name}: strconv.ParseInt: parsing {text:?}: invalid syntax")))?;
        Ok(Some(nanos))
    }

    /// The range of a search or a tag query as messages have it: in Unix seconds, and both 0 where the query names no time.
    pub(crate) fn seconds_range(&self, now: u64) -> Result<(u32, u32), QueryError> {
        Ok(match self.times(now)? {
            // Ends are rounded outwards, so that nothing in the range is lost.
            Some((start, end)) => (seconds(start), seconds(end.saturating_add(SECOND - 1))),
            None => (0, 0),
        })
    }

    /// The range of a metrics query in Unix nanoseconds; the last hour where the query names no time.
    pub(crate) fn nanos_range(&self, now: u64) -> Result<(u64, u64), QueryError> {
        Ok(self.times(now)?.unwrap_or_else(|| last_hour(now)))
    }

    /// The distance between samples in nanoseconds: a number of seconds or a duration. None where the query names none.
    pub(crate) fn step(&self) -> Result<Option<u64>, QueryError> {
        let Some(text) = self.get("step") else { return Ok(None) };
        let nanos = match text.parse::<f64>() {
            Ok(seconds) => Some(seconds * 1e9).filter(|nanos| (0.0..9e18).contains(nanos)).map(|nanos| nanos as u64),
            Err(_) => parse_duration(text).ok().and_then(|duration| u64::try_from(duration.as_nanos()).ok()),
        };
        let why = "a step is a number of seconds or a duration such as 15s, and not negative";
        nanos.map(Some).ok_or_else(|| QueryError::Invalid(format!("cannot parse {text:?} to a valid duration: {why}")))
    }

    /// The range of a lookup by id, which may be open at one end or both; 0 is open.
    pub(crate) fn open_range(&self) -> Result<(u32, u32), QueryError> {
        let (start, end) = (self.time("start")?.map_or(0, seconds), self.time("end")?.map_or(0, seconds));
        if start != 0 && end != 0 && start >= end {
            return Err(start_after_end(start, end));
        }
        Ok((start, end))
    }

    /// A block id, where one is given.
    pub(crate) fn block_id(&self, name: &str) -> Result<Option<BlockId>, QueryError> {
        self.get(name).map(str::parse).transpose().map_err(|error: ParseIdError| QueryError::Invalid(format!("invalid {name}: {error}")))
    }
}

impl RangeRules {
    /// Fills in the default range where both ends are 0.
    pub(crate) fn check(self, start: u32, end: u32, now: u64) -> Result<SearchRange, QueryError> {
        if start == 0 && end == 0 {
            let look_back = u64::try_from(self.default_look_back.as_nanos()).unwrap_or(u64::MAX).max(SECOND);
            return Ok(SearchRange { start: seconds(now.saturating_sub(look_back)), end: seconds(now.saturating_add(SECOND - 1)) });
        }
        if start == 0 || end == 0 {
            return Err(time_missing(if start == 0 { "start" } else { "end" }));
        }
        if start >= end {
            return Err(start_after_end(start, end));
        }
        if !self.max.is_zero() && Duration::from_secs(u64::from(end - start)) > self.max {
            // The UI looks for these words.
            let max = format_duration(self.max);
            return Err(QueryError::Invalid(format!("range specified by start and end exceeds {max}. received start={start} end={end}")));
        }
        Ok(SearchRange { start, end })
    }
}

/// The range of a metrics query as a message has it: in Unix nanoseconds, and both 0 for the last hour.
pub(crate) fn message_nanos_range(start: u64, end: u64, now: u64) -> Result<(u64, u64), QueryError> {
    match (start, end) {
        (0, 0) => Ok(last_hour(now)),
        (0, _) => Err(time_missing("start")),
        (_, 0) => Err(time_missing("end")),
        (start, end) => match [("start", start), ("end", end)].into_iter().find(|(_, time)| *time < LEAST_NANOS) {
            Some((name, time)) => {
                let unit = if time < MANY_SECONDS * 10 { "seconds" } else { unit_of(time) };
                Err(QueryError::Invalid(format!(
                    "invalid {name}: {time} seems to be in {unit}; the times of this message are Unix nanoseconds (19 digits)"
                )))
            }
            None => Ok((start, end)),
        },
    }
}

fn last_hour(now: u64) -> (u64, u64) {
    (now.saturating_sub(METRICS_LOOK_BACK_NANOS), now)
}

fn time_missing(name: &str) -> QueryError {
    QueryError::Invalid(format!("start and end must be given together: {name} is missing"))
}

/// In whatever unit the request has.
pub(crate) fn start_after_end(start: impl Display, end: impl Display) -> QueryError {
    QueryError::Invalid(format!("http parameter start must be before end. received start={start} end={end}"))
}

fn seconds(nanos: u64) -> u32 {
    u32::try_from(nanos / SECOND).unwrap_or(u32::MAX)
}

fn uri_of(query: Option<&str>) -> http::Uri {
    http::Uri::builder().path_and_query(format!("/?{}", query.unwrap_or_default())).build().unwrap_or_default()
}

/// More than any number of seconds: the year 2286. A number of more digits is of another unit.
const MANY_SECONDS: u64 = 10_000_000_000;
/// Less than any number of nanoseconds: the year 1973. What is between is of neither unit.
const LEAST_NANOS: u64 = 100_000_000 * SECOND;

/// The unit of a number that is neither of seconds nor of nanoseconds; it would be read as some hour of 1970.
fn wrong_unit(text: &str) -> Option<&'static str> {
    let whole = text.split_once('.').map_or(text, |(whole, _)| whole);
    let number = whole.parse::<u64>().ok()?;
    (MANY_SECONDS..LEAST_NANOS).contains(&number).then(|| unit_of(number))
}

/// Of a time between.
fn unit_of(number: u64) -> &'static str {
    if number < MANY_SECONDS * 10_000 { "milliseconds" } else { "microseconds" }
}

/// Unix nanoseconds from seconds, fractional seconds, nanoseconds (more than ten digits) or RFC 3339.
fn parse_time(text: &str) -> Option<u64> {
    if let Ok(number) = text.parse::<u64>() {
        return if text.len() <= 10 { number.checked_mul(SECOND) } else { Some(number) };
    }
    if let Some((whole, fraction)) = text.split_once('.')
        && fraction.bytes().all(|b| b.is_ascii_digit())
        && let Ok(whole) = whole.parse::<u64>()
    {
        let millis: u64 = format!("{fraction:0<3}")[..3].parse().ok()?;
        return whole.checked_mul(SECOND)?.checked_add(millis * 1_000_000);
    }
    let time = time::OffsetDateTime::parse(text, &time::format_description::well_known::Rfc3339).ok()?;
    u64::try_from(time.unix_timestamp_nanos()).ok()
}

/// A trace id from a path: 1 to 32 hex digits.
pub(crate) fn trace_id(text: &str) -> Result<TraceId, QueryError> {
    text.parse().map_err(|error| {
        QueryError::Invalid(match error {
            ParseIdError::Length { .. } => "trace IDs can't be larger than 128 bits".to_owned(),
            ParseIdError::Digit { character, position } => {
                format!("trace IDs can only contain hex characters: invalid character '{character}' at position {position}")
            }
            ParseIdError::Uuid { .. } => error.to_string(),
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULES: RangeRules = RangeRules { default_look_back: Duration::from_secs(900), max: Duration::from_secs(168 * 3600) };
    const NOW: u64 = 1_700_000_000 * SECOND;

    fn range(query: &str) -> Result<SearchRange, String> {
        let range = Params::of(Some(query)).seconds_range(NOW).and_then(|(start, end)| RULES.check(start, end, NOW));
        range.map_err(|error| error.to_string())
    }

    #[test]
    fn times_come_in_four_forms() {
        let want = Ok(SearchRange { start: 1_699_990_000, end: 1_700_000_000 });
        assert_eq!(range("start=1699990000&end=1700000000"), want);
        assert_eq!(range("start=1699990000000000000&end=1700000000000000000"), want);
        assert_eq!(range("start=1699990000.5&end=1699999999.5"), want);
        assert_eq!(range("start=2023-11-14T19:26:40Z&end=2023-11-14T23:13:20%2B01:00").unwrap().start, 1_699_990_000);
        assert_eq!(range("since=1h"), Ok(SearchRange { start: 1_699_996_400, end: 1_700_000_000 }));
        assert_eq!(range(""), Ok(SearchRange { start: 1_699_999_100, end: 1_700_000_000 }));
        assert_eq!(range("start=0&end=0"), range(""));
    }

    #[test]
    fn wrong_times_are_named() {
        let error = |query: &str| range(query).unwrap_err();
        assert_eq!(error("start=yesterday&end=1700000000"), "invalid start: strconv.ParseInt: parsing \"yesterday\": invalid syntax");
        assert_eq!(error("start=20&end=10"), "http parameter start must be before end. received start=20 end=10");
        assert_eq!(error("start=1&end=1700000000"), "range specified by start and end exceeds 168h0m0s. received start=1 end=1700000000");
        assert_eq!(error("start=10"), "start and end must be given together: end is missing");
    }

    #[test]
    fn times_of_other_units_are_told_apart() {
        for (time, unit) in [
            ("1699990000000", "milliseconds"),
            ("1699990000000.5", "milliseconds"),
            ("1699990000000000", "microseconds"),
            ("99999999999", "milliseconds"),
        ] {
            let said = format!(
                "invalid start: {time} seems to be in {unit}; times are Unix seconds (10 digits), Unix nanoseconds (19 digits) or RFC 3339"
            );
            assert_eq!(range(&format!("start={time}&end=1700000000")), Err(said.clone()));
            let params = Params::of(Some(&format!("start={time}&end=1700000000")));
            assert_eq!(params.open_range().unwrap_err().to_string(), said);
            assert_eq!(params.nanos_range(NOW).unwrap_err().to_string(), said);
        }
        assert_eq!(message_nanos_range(NOW - SECOND, NOW, NOW), Ok((NOW - SECOND, NOW)));
        for (time, unit) in [(NOW / SECOND, "seconds"), (NOW / 1_000_000, "milliseconds"), (NOW / 1000, "microseconds")] {
            let error = message_nanos_range(time, time + 1, NOW).unwrap_err().to_string();
            assert!(error.starts_with(&format!("invalid start: {time} seems to be in {unit}; ")), "{error}");
        }
    }

    #[test]
    fn steps_are_seconds_or_durations() {
        let step = |query: &str| Params::of(Some(query)).step().map_err(|e| e.to_string());
        assert_eq!(step("q=x"), Ok(None));
        assert_eq!(step("step=300"), Ok(Some(300 * SECOND)));
        assert_eq!(step("step=0.5"), Ok(Some(SECOND / 2)));
        assert_eq!(step("step=1m30s"), Ok(Some(90 * SECOND)));
        for wrong in ["often", "-1", "-5s", "inf", "1e30", "NaN"] {
            assert!(step(&format!("step={wrong}")).unwrap_err().contains(wrong), "{wrong}");
        }
    }

    #[test]
    fn metrics_without_a_time_are_of_the_last_hour() {
        let range = |query: &str| Params::of(Some(query)).nanos_range(NOW).map_err(|e| e.to_string());
        assert_eq!(range("q=x"), Ok((NOW - 3600 * SECOND, NOW)));
        assert_eq!(range("start=1699990000.5&end=1700000000"), Ok((1_699_990_000_500_000_000, NOW)));
        assert_eq!(range("since=10m"), Ok((NOW - 600 * SECOND, NOW)));
    }

    #[test]
    fn ids_are_loose_hex() {
        assert_eq!(trace_id("AbC").unwrap().trimmed_hex(), "abc");
        assert_eq!(
            trace_id("xyz").unwrap_err().to_string(),
            "trace IDs can only contain hex characters: invalid character 'x' at position 1"
        );
        assert_eq!(trace_id(&"0".repeat(33)).unwrap_err().to_string(), "trace IDs can't be larger than 128 bits");
    }
}
