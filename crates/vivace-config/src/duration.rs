//! Durations and sizes in the spellings of Go and Prometheus, computed in whole numbers. Requests' parameters and the command
//! line are read with this too, not only the file.

use std::time::Duration;

use vivace_core::duration::{parts, scaled, unit_nanos};

/// Reads a duration in Go's or Prometheus' form: numbers with units `ns us ms s m h d w y`, `1h30m0.5s`, `14d`.
///
/// A number without a unit is nanoseconds, as in Go. Negative durations are refused.
///
/// # Errors
/// What is wrong with the text.
pub fn parse(text: &str) -> Result<Duration, &'static str> {
    let text = text.trim();
    let text = text.strip_prefix('+').unwrap_or(text);
    if text.starts_with('-') {
        return Err("which is negative");
    }
    if text.is_empty() {
        return Err("which is empty");
    }
    if text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'_') {
        return text.replace('_', "").parse().map(Duration::from_nanos).map_err(|_| "which is too long");
    }
    let mut nanos: u128 = 0;
    for (number, unit) in parts(text) {
        if unit.is_empty() {
            return Err("which lacks a unit");
        }
        let unit = unit_nanos(unit).ok_or("whose unit is none of ns, us, ms, s, m, h, d, w and y")?;
        nanos = nanos.saturating_add(scaled(number, unit).ok_or("which is no number with a unit")?);
    }
    u64::try_from(nanos).ok().filter(|nanos| i64::try_from(*nanos).is_ok()).map(Duration::from_nanos).ok_or("which is too long")
}

/// Writes a duration as Go does: `1h30m0s`, `100ms`, `0s`.
#[must_use]
pub fn format(duration: Duration) -> String {
    vivace_core::duration::text(duration.as_nanos())
}

/// Reads a size with units, such as `64KiB`, `1MB`, `63KiB1023B`.
pub(crate) fn parse_bytes(text: &str) -> Option<u64> {
    let mut bytes: u64 = 0;
    let mut rest = text.trim();
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, tail) = rest.split_at(end);
        let end = tail.find(|c: char| c.is_ascii_digit()).unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(end);
        rest = tail;
        let unit = match unit.trim().to_ascii_lowercase().as_str() {
            "b" => 1,
            "kb" => 1_000,
            "kib" => 1 << 10,
            "mb" => 1_000_000,
            "mib" => 1 << 20,
            "gb" => 1_000_000_000,
            "gib" => 1 << 30,
            _ => return None,
        };
        bytes = bytes.checked_add(u64::try_from(scaled(number, unit)?).ok()?)?;
    }
    Some(bytes)
}
