//! Buckets that are powers of two, and quantiles of them.
//!
//! Source: docs/facts/traceql.md, "Histogram buckets" and "Quantiles".

/// The bucket of a number: the exponent of the smallest power of two that is not smaller. None below 2.
#[inline]
pub(crate) fn exponent(value: i64) -> Option<u32> {
    let value = u64::try_from(value).ok().filter(|value| *value >= 2)?;
    Some(u64::BITS - (value - 1).leading_zeros())
}

/// The upper bound of a bucket.
pub(crate) fn bound(exponent: i64, divisor: f64) -> f64 {
    2f64.powi(i32::try_from(exponent).unwrap_or(0)) / divisor
}

/// The value below which the share `q` of what was counted lies. Buckets are upper bound and count, by their bounds.
pub(crate) fn quantile(q: f64, buckets: &[(f64, u64)]) -> f64 {
    let buckets = || buckets.iter().filter(|(_, count)| *count > 0);
    let total = buckets().fold(0u64, |sum, (_, count)| sum.saturating_add(*count));
    if total == 0 {
        return 0.0;
    }
    #[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    let rank = ((q * total as f64).ceil() as u64).clamp(1, total);
    let (mut seen, mut before) = (0u64, None::<f64>);
    for (bound, count) in buckets() {
        let with = seen.saturating_add(*count);
        if with > rank {
            #[allow(clippy::cast_precision_loss)]
            let share = (rank - seen) as f64 / *count as f64;
            let high = bound.log2();
            let low = before.map_or(high - 1.0, f64::log2);
            return (low + (high - low) * share).exp2();
        }
        seen = with;
        if seen == rank {
            return *bound;
        }
        before = Some(*bound);
    }
    0.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets() {
        let exponents = [(2, 1), (3, 2), (4, 2), (5, 3), (100, 7), (i64::MAX, 63), (1 << 62, 62), (1_000_000_000, 30)];
        for (value, want) in exponents {
            assert_eq!(exponent(value), Some(want), "{value}");
        }
        for value in [1, 0, -1, i64::MIN] {
            assert_eq!(exponent(value), None, "{value}");
        }
        assert_eq!(bound(30, 1e9), 1.073_741_824);
        assert_eq!(bound(27, 1e9), 0.134_217_728);
    }

    #[test]
    fn quantiles() {
        assert_eq!(quantile(0.5, &[]), 0.0);
        assert_eq!(quantile(1.0, &[(4.0, 2)]), 4.0);
        assert_eq!(quantile(0.5, &[(4.0, 2)]), 2f64.powf(1.5));
        assert_eq!(quantile(0.0, &[(2.0, 0), (4.0, 1), (8.0, 3)]), 4.0);
        assert_eq!(quantile(0.5, &[(4.0, 1), (8.0, 3)]), (2.0 + 1.0 / 3.0f64).exp2());
        assert_eq!(quantile(1.0, &[(4.0, 1), (8.0, 3)]), 8.0);
        assert_eq!(quantile(0.25, &[(64.0, 2)]), 2f64.powf(5.5));
    }
}
