//! Durations as text, as Go writes them: numbers with units, `1h30m0.5s`.
//!
//! What is common to all who read them; which units and forms they take is theirs.
//!
//! Source: Go's `time.ParseDuration` and `Duration.String`.

use crate::SECOND;

/// The numbers of a text, each with what stands between it and the next one. What is no number, or none of the units, is for
/// the caller to refuse.
pub fn parts(text: &str) -> impl Iterator<Item = (&str, &str)> {
    let is_of_number = |c: char| c.is_ascii_digit() || c == '.';
    let mut rest = text;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let (number, tail) = rest.split_at(rest.find(|c| !is_of_number(c)).unwrap_or(rest.len()));
        let (unit, tail) = tail.split_at(tail.find(is_of_number).unwrap_or(tail.len()));
        rest = tail;
        Some((number, unit))
    })
}

/// The nanoseconds of a unit: Go's from `ns` to `h`, and Prometheus' `d`, `w` and `y` (365 days).
#[must_use]
pub fn unit_nanos(unit: &str) -> Option<u64> {
    Some(match unit {
        "ns" => 1,
        // With the sign for micro, and with the Greek letter.
        "us" | "µs" | "μs" => 1_000,
        "ms" => 1_000_000,
        "s" => SECOND,
        "m" => 60 * SECOND,
        "h" => 3_600 * SECOND,
        "d" => 86_400 * SECOND,
        "w" => 7 * 86_400 * SECOND,
        "y" => 365 * 86_400 * SECOND,
        _ => return None,
    })
}

/// `number` (digits with at most one point) times `unit`, without rounding on the way; none if it is no number, or one of
/// more than 64 bits.
#[must_use]
pub fn scaled(number: &str, unit: u64) -> Option<u128> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let is_digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if (whole.is_empty() && fraction.is_empty()) || !is_digits(whole) || !is_digits(fraction) {
        return None;
    }
    // Digits past the 18th are far below one for every unit.
    let fraction = &fraction[..fraction.len().min(18)];
    let value = |digits: &str| if digits.is_empty() { Some(0) } else { digits.parse::<u64>().ok().map(u128::from) };
    let unit = u128::from(unit);
    Some(value(whole)? * unit + value(fraction)? * unit / 10u128.pow(u32::try_from(fraction.len()).ok()?))
}

/// Go's notation: `1h0m0s`, `1.5s`, `250µs`, `0s`.
#[must_use]
pub fn text(nanos: u128) -> String {
    let decimal = |value: u128, unit: u128| {
        let width = unit.ilog10() as usize;
        let text = format!("{}.{:0width$}", value / unit, value % unit);
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    };
    match nanos {
        0 => return "0s".to_owned(),
        1..1_000 => return format!("{nanos}ns"),
        1_000..1_000_000 => return format!("{}µs", decimal(nanos, 1_000)),
        1_000_000..1_000_000_000 => return format!("{}ms", decimal(nanos, 1_000_000)),
        _ => {}
    }
    let (minutes, nanos) = (nanos / 60_000_000_000, nanos % 60_000_000_000);
    let seconds = decimal(nanos, 1_000_000_000);
    match (minutes / 60, minutes % 60) {
        (0, 0) => format!("{seconds}s"),
        (0, minutes) => format!("{minutes}m{seconds}s"),
        (hours, minutes) => format!("{hours}h{minutes}m{seconds}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_stand_before_their_units() {
        let parts = |text| parts(text).collect::<Vec<_>>();
        assert_eq!(parts("1h30m.5s"), [("1", "h"), ("30", "m"), (".5", "s")]);
        assert_eq!(parts("h1"), [("", "h"), ("1", "")]);
        assert_eq!(parts("1.2.3µs"), [("1.2.3", "µs")]);
        assert_eq!(parts(""), []);
    }

    #[test]
    fn numbers_are_scaled_without_rounding_on_the_way() {
        let cases = [
            ("1.5", Some(1_500_000_000)),
            (".5", Some(500_000_000)),
            ("2.", Some(2_000_000_000)),
            ("0.0000000019", Some(1)),
            ("0.1234567891234567891234567891", Some(123_456_789)),
            ("18446744073709551615", Some(18_446_744_073_709_551_615_000_000_000)),
            ("18446744073709551616", None),
            ("", None),
            (".", None),
            ("1.2.3", None),
            ("-1", None),
            ("+1", None),
        ];
        for (number, want) in cases {
            assert_eq!(scaled(number, SECOND), want, "{number}");
        }
    }

    #[test]
    fn written_as_go_writes_them() {
        let cases = [
            (0, "0s"),
            (1, "1ns"),
            (1_500, "1.5µs"),
            (250_000, "250µs"),
            (100_000_000, "100ms"),
            (1_500_000_000, "1.5s"),
            (61_000_000_000, "1m1s"),
            (3_600_000_000_000, "1h0m0s"),
        ];
        for (nanos, want) in cases {
            assert_eq!(text(nanos), want);
        }
    }
}
