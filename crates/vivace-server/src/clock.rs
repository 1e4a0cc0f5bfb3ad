//! The wall clock. Nothing else in Vivace reads it, so that decisions take the time as an argument and can be tested.

use std::time::{SystemTime, UNIX_EPOCH};

/// Nanoseconds since 1970. 0 when the machine's clock stands before that.
#[must_use]
pub fn unix_nanos() -> u64 {
    #[expect(clippy::disallowed_methods, reason = "this is the one place that reads the wall clock")]
    let now = SystemTime::now();
    now.duration_since(UNIX_EPOCH).map_or(0, |since| u64::try_from(since.as_nanos()).unwrap_or(u64::MAX))
}

/// Whole seconds since 1970.
#[must_use]
pub fn unix_seconds() -> u64 {
    unix_nanos() / 1_000_000_000
}
