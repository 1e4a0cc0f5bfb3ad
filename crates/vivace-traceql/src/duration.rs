//! Durations as text, in and out.

const SECOND: i64 = 1_000_000_000;

/// Reads a duration: whole numbers with `y w d h m s ms` in descending order, or Go's form with decimals.
pub(crate) fn parse(text: &str) -> Option<i64> {
    descending(text).or_else(|| go(text))
}

/// Whole numbers with units from years down to milliseconds, each at most once.
fn descending(text: &str) -> Option<i64> {
    const UNITS: [(&str, i64); 7] = [
        ("y", 365 * 24 * 3600 * SECOND),
        ("w", 7 * 24 * 3600 * SECOND),
        ("d", 24 * 3600 * SECOND),
        ("h", 3600 * SECOND),
        ("m", 60 * SECOND),
        ("s", SECOND),
        ("ms", SECOND / 1000),
    ];
    let (mut rest, mut nanos, mut next_unit) = (text, 0i64, 0);
    while !rest.is_empty() {
        let (number, tail) = split_digits(rest);
        let unit_len = tail.find(|c: char| c.is_ascii_digit()).unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(unit_len);
        let place = next_unit + UNITS[next_unit..].iter().position(|(name, _)| *name == unit)?;
        nanos = nanos.checked_add(number.parse::<i64>().ok()?.checked_mul(UNITS[place].1)?)?;
        next_unit = place + 1;
        rest = tail;
    }
    (!text.is_empty()).then_some(nanos)
}

/// Decimals with `h m s ms us µs ns`, in any order and number.
///
/// Source: Go's `time.ParseDuration`.
pub(crate) fn go(text: &str) -> Option<i64> {
    const UNITS: [(&str, i64); 8] = [
        ("h", 3600 * SECOND),
        ("ms", SECOND / 1000),
        ("m", 60 * SECOND),
        ("s", SECOND),
        ("us", 1000),
        ("µs", 1000),
        ("μs", 1000),
        ("ns", 1),
    ];
    let (mut rest, mut nanos) = (text, 0i128);
    while !rest.is_empty() {
        let (whole, tail) = split_digits(rest);
        let (fraction, tail) = match tail.strip_prefix('.') {
            Some(tail) => split_digits(tail),
            None => ("", tail),
        };
        if whole.is_empty() && fraction.is_empty() {
            return None;
        }
        let (unit, tail) = UNITS.iter().find_map(|(name, scale)| Some((*scale, tail.strip_prefix(name)?)))?;
        let whole = if whole.is_empty() { 0 } else { whole.parse::<i64>().ok()? };
        nanos += i128::from(whole) * i128::from(unit);
        // Digits past the 18th are below a nanosecond for every unit.
        let fraction = &fraction[..fraction.len().min(18)];
        if !fraction.is_empty() {
            nanos += i128::from(fraction.parse::<i64>().ok()?) * i128::from(unit) / 10i128.pow(u32::try_from(fraction.len()).ok()?);
        }
        rest = tail;
    }
    if text.is_empty() { None } else { i64::try_from(nanos).ok() }
}

fn split_digits(text: &str) -> (&str, &str) {
    text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()))
}

/// Go's notation: `1h0m0s`, `1.5s`, `250µs`, `0s`.
pub(crate) fn text(nanos: i64) -> String {
    let sign = if nanos < 0 { "-" } else { "" };
    let total = nanos.unsigned_abs();
    let decimal = |value: u64, unit: u64| {
        let (whole, rest) = (value / unit, value % unit);
        if rest == 0 {
            return whole.to_string();
        }
        let width = unit.ilog10() as usize;
        format!("{whole}.{}", format!("{rest:0width$}").trim_end_matches('0'))
    };
    if total == 0 {
        return "0s".to_owned();
    }
    if total < 1_000_000_000 {
        let (unit, name) = match total {
            0..1_000 => (1, "ns"),
            1_000..1_000_000 => (1_000, "µs"),
            _ => (1_000_000, "ms"),
        };
        return format!("{sign}{}{name}", decimal(total, unit));
    }
    let (minutes, nanos) = (total / 60_000_000_000, total % 60_000_000_000);
    let seconds = decimal(nanos, 1_000_000_000);
    match (minutes / 60, minutes % 60) {
        (0, 0) => format!("{sign}{seconds}s"),
        (0, minutes) => format!("{sign}{minutes}m{seconds}s"),
        (hours, minutes) => format!("{sign}{hours}h{minutes}m{seconds}s"),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

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
