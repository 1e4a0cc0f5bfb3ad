//! Durations and sizes in the spellings of Go and Prometheus, computed in whole numbers. Requests' parameters and the command
//! line are read with this too, not only the file.

use std::time::Duration;

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
    let mut rest = text;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let (number, tail) = rest.split_at(end);
        let end = tail.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(end);
        rest = tail;
        let unit: u128 = match unit {
            "ns" => 1,
            "us" | "µs" | "μs" => 1_000,
            "ms" => 1_000_000,
            "s" => 1_000_000_000,
            "m" => 60_000_000_000,
            "h" => 3_600_000_000_000,
            "d" => 86_400_000_000_000,
            "w" => 7 * 86_400_000_000_000,
            "y" => 365 * 86_400_000_000_000,
            "" => return Err("which lacks a unit"),
            _ => return Err("whose unit is none of ns, us, ms, s, m, h, d, w and y"),
        };
        nanos += scale(number, unit).ok_or("which is no number with a unit")?;
    }
    u64::try_from(nanos).ok().filter(|nanos| i64::try_from(*nanos).is_ok()).map(Duration::from_nanos).ok_or("which is too long")
}

/// `number` (digits with at most one point) times `unit`, without rounding on the way.
fn scale(number: &str, unit: u128) -> Option<u128> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') || whole.len() > 19 {
        return None;
    }
    let fraction = &fraction[..fraction.len().min(15)];
    let whole: u128 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
    let part: u128 = if fraction.is_empty() { 0 } else { fraction.parse().ok()? };
    Some(whole * unit + part * unit / 10u128.pow(u32::try_from(fraction.len()).ok()?))
}

/// Writes a duration as Go does: `1h30m0s`, `100ms`, `0s`.
#[must_use]
pub fn format(duration: Duration) -> String {
    let nanos = duration.as_nanos();
    if nanos == 0 {
        return "0s".to_owned();
    }
    if nanos < 1_000_000_000 {
        let (unit, size) = match nanos {
            0..1_000 => ("ns", 1),
            1_000..1_000_000 => ("µs", 1_000),
            _ => ("ms", 1_000_000),
        };
        return format!("{}{unit}", decimal(nanos, size));
    }
    let (secs, minutes) = (nanos % 60_000_000_000, nanos / 60_000_000_000);
    let secs = format!("{}s", decimal(secs, 1_000_000_000));
    match (minutes / 60, minutes % 60) {
        (0, 0) => secs,
        (0, minutes) => format!("{minutes}m{secs}"),
        (hours, minutes) => format!("{hours}h{minutes}m{secs}"),
    }
}

fn decimal(value: u128, unit: u128) -> String {
    let width = unit.ilog10() as usize;
    let text = format!("{}.{:0width$}", value / unit, value % unit);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
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
        bytes = bytes.checked_add(u64::try_from(scale(number, unit)?).ok()?)?;
    }
    Some(bytes)
}
