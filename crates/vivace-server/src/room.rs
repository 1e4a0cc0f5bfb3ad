//! Waiting a moment for memory, and holding it until an answer is sent.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use vivace_core::budget::{Account, Budget, Charge, OverBudget};

/// Bytes that a trace takes in memory for each on the wire while it is looked up, about: decoded, and encoded for who asks.
const LOOKUP_FACTOR: u64 = 6;
/// What a look-up takes before it is known how large the trace is, bytes, at most, and as a part of what queries may hold.
const LOOKUP_BYTES: u64 = 16 << 20;
const LOOKUP_PART: u64 = 8;
/// How long a look-up waits for memory.
const LOOKUP_PATIENCE: Duration = Duration::from_secs(2);
/// Between two tries.
const RETRY_PERIOD: Duration = Duration::from_millis(5);

/// Takes bytes as soon as they fit: many that come at once are served one after another rather than refused.
///
/// # Errors
/// They did not fit for so long, or never will.
pub async fn room(budget: &Budget, account: Account, bytes: u64, patience: Duration) -> Result<Charge, OverBudget> {
    let deadline = Instant::now() + patience;
    loop {
        match budget.charge(account, bytes) {
            Err(over) if !over.never_fits() && Instant::now() < deadline => tokio::time::sleep(RETRY_PERIOD).await,
            charged => return charged,
        }
    }
}

/// Memory for looking a trace up, of which so many bytes on the wire are known, and with `has_more` there may be more. Waits for it
/// for a moment.
///
/// # Errors
/// As [`room`].
pub async fn room_for_lookup(budget: &Budget, known_bytes: u64, has_more: bool) -> Result<Charge, OverBudget> {
    let more = if has_more { LOOKUP_BYTES.min(budget.limit_of(Account::Queries) / LOOKUP_PART) } else { 0 };
    room(budget, Account::Queries, LOOKUP_FACTOR * known_bytes + more, LOOKUP_PATIENCE).await
}

/// What a trace that was found takes, whose parts have so many bytes on the wire.
pub fn lookup_bytes(encoded_lens: impl Iterator<Item = usize>) -> u64 {
    LOOKUP_FACTOR * encoded_lens.map(|bytes| bytes as u64).sum::<u64>()
}

/// Put into the extensions of an answer: what is charged for it, given back when the last of it is sent or given up.
#[derive(Debug, Clone)]
pub struct HeldUntilSent(#[expect(dead_code, reason = "it is held, not read")] Arc<Charge>);

impl From<Charge> for HeldUntilSent {
    fn from(charge: Charge) -> Self {
        Self(Arc::new(charge))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn who_waits_is_served_when_there_is_room() {
        let budget = Budget::new(1000); // 400 for queries
        let first = budget.charge(Account::Queries, 300).expect("fits");
        let second = room(&budget, Account::Queries, 200, Duration::from_secs(1));
        let later = async {
            tokio::time::sleep(Duration::from_millis(500)).await;
            drop(first);
        };
        let (second, ()) = tokio::join!(second, later);
        assert_eq!(second.expect("there is room").bytes(), 200);
        let _held = budget.charge(Account::Queries, 400).expect("fits");
        room(&budget, Account::Queries, 1, Duration::from_secs(1)).await.expect_err("nobody leaves");
        let begun = Instant::now();
        room(&budget, Account::Queries, 401, Duration::from_secs(1)).await.expect_err("never");
        assert_eq!(begun.elapsed(), Duration::ZERO);
    }
}
