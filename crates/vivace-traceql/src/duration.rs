//! Durations as text, in and out.

use vivace_core::duration::{parts, scaled, unit_nanos};

/// Reads a duration: whole numbers with `y w d h m s ms` in descending order, or Go's form with decimals.
pub(crate) fn parse(text: &str) -> Option<i64> {
    descending(text).or_else(|| go(text))
}

/// Whole numbers with units from years down to milliseconds, each at most once.
fn descending(text: &str) -> Option<i64> {
    const UNITS: [&str; 7] = ["y", "w", "d", "h", "m", "s", "ms"];
    let (mut nanos, mut next_unit) = (0i64, 0);
    for (number, unit) in parts(text) {
        next_unit += 1 + UNITS[next_unit..].iter().position(|name| *name == unit)?;
        let unit = i64::try_from(unit_nanos(unit)?).ok()?;
        nanos = nanos.checked_add(number.parse::<i64>().ok()?.checked_mul(unit)?)?;
    }
    (!text.is_empty()).then_some(nanos)
}

/// Decimals with `h m s ms us µs ns`, in any order and number.
///
/// Source: Go's `time.ParseDuration`.
pub(crate) fn go(text: &str) -> Option<i64> {
    let mut nanos = 0u128;
    for (number, unit) in parts(text) {
        // Go knows no days.
        let unit = unit_nanos(unit).filter(|_| !matches!(unit, "d" | "w" | "y"))?;
        nanos = nanos.checked_add(scaled(number, unit)?)?;
    }
    if text.is_empty() { None } else { i64::try_from(nanos).ok() }
}

/// Go's notation: `1h0m0s`, `1.5s`, `250µs`, `0s`, `-1m1s`.
pub(crate) fn text(nanos: i64) -> String {
    let sign = if nanos < 0 { "-" } else { "" };
    format!("{sign}{}", vivace_core::duration::text(nanos.unsigned_abs().into()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: i64 = 1_000_000_000;

    #[test]
    fn both_notations_are_read() {
        let cases = [
            ("1d12h", Some(36 * 3600 * SECOND)),
            ("2w3d", Some(17 * 24 * 3600 * SECOND)),
            ("1.5h", Some(5400 * SECOND)),
            ("1m1h", Some(3660 * SECOND)),
            ("100ms200us", Some(100_200_000)),
            ("250µs", Some(250_000)),
            ("1.5d", None),
            ("1m30", None),
            ("1x", None),
            ("", None),
            ("9999999y", None),
            ("1h1h", Some(7200 * SECOND)),
            ("1d1d", None),
            ("1.5.5s", None),
            (".5s", Some(SECOND / 2)),
            ("9223372036854775808ns", None),
            ("-1s", None),
        ];
        for (text, nanos) in cases {
            assert_eq!(parse(text), nanos, "{text}");
        }
    }

    #[test]
    fn written_as_go_writes_them() {
        for (nanos, want) in
            [(0, "0s"), (1, "1ns"), (250_000, "250µs"), (1_500_000_000, "1.5s"), (3_600_000_000_000, "1h0m0s"), (-61 * SECOND, "-1m1s")]
        {
            assert_eq!(text(nanos), want);
        }
    }

    proptest! {
        #[test]
        fn written_then_read_is_the_same(nanos in 0i64..) {
            prop_assert_eq!(parse(&text(nanos)), Some(nanos));
        }
    }
}
