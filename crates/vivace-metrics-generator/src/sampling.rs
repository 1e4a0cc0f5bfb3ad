//! How many spans one stands for that was kept by chance, as its trace state says.

/// The threshold below which a trace's randomness rejects it has so many hexadecimal digits, and is so large at most.
const DIGITS: usize = 14;
const ALL: u64 = 1 << (4 * DIGITS);

/// The inverse of the probability with which a span was kept; none where its trace state does not say.
///
/// Source: docs/facts/components.md, "Limits of 3.x".
pub(crate) fn adjusted_count(trace_state: &str) -> Option<f64> {
    let vendor = trace_state.split(',').find_map(|member| member.trim().strip_prefix("ot="))?;
    let digits = vendor.split(';').find_map(|part| part.trim().strip_prefix("th:"))?;
    if digits.is_empty() || digits.len() > DIGITS || !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        return None;
    }
    // Zeros at the end are left out.
    let rejected = u64::from_str_radix(digits, 16).ok()? << (4 * (DIGITS - digits.len()));
    Some(ALL as f64 / (ALL - rejected) as f64)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_threshold_is_the_share_that_was_rejected() {
        for (state, count) in [
            ("ot=th:0", 1.0),
            ("ot=th:8", 2.0),
            ("ot=th:c", 4.0),
            ("ot=th:80000000000000", 2.0),
            ("ot=th:e666", 1.0 / (1.0 - f64::from(0xe666) / f64::from(0x10000))),
            ("vendor=x:y, ot=rv:6e6d1a75832a2f;th:c;x:1,other=1", 4.0),
            ("ot=th:ffffffffffffff", 72_057_594_037_927_936.0),
        ] {
            assert_eq!(adjusted_count(state), Some(count), "{state}");
        }
        for state in ["", "ot=", "ot=rv:8", "ot=th:", "ot=th:g", "ot=th:+8", "ot=th:100000000000000", "xot=th:8", "th:8", "ot=p:3"] {
            assert_eq!(adjusted_count(state), None, "{state}");
        }
    }

    proptest! {
        #[test]
        fn whatever_is_sent_stands_for_one_at_least(state in "(ot=)?(th:)?[0-9a-f]{0,16}[;,]?\\PC{0,20}") {
            if let Some(count) = adjusted_count(&state) {
                prop_assert!(count.is_finite() && count >= 1.0);
            }
        }
    }
}
