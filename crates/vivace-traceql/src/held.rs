//! What a query holds while it runs, charged against the budget of the process.

use vivace_core::budget::{Account, Budget, Charge, OverBudget};

/// Bytes are charged in steps of this, since all threads share the budget. Near its limit just what is needed is asked for.
const STEP_BYTES: u64 = 64 << 10;

/// What a query holds does not fit into the memory that queries may have. What it has found until then is not all.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "the query needs more memory than there is: it holds {held} bytes, and {} bytes more would be over the {} that {} may have; {}",
    .over.asked, .over.limit, .over.account.name(), advice(*.held, .over)
)]
pub struct TooLarge {
    /// Bytes that the query held when it was refused more.
    pub held: u64,
    /// What the budget said.
    pub over: OverBudget,
}

fn advice(held: u64, over: &OverBudget) -> &'static str {
    if never_fits(held, over) {
        "narrow its filter or its time, group by attributes with fewer values, or ask for fewer results"
    } else {
        "other queries hold the rest: try again, or narrow it"
    }
}

/// Also where others hold no more than an eighth: parts of the same query, or what is charged ahead.
fn never_fits(held: u64, over: &OverBudget) -> bool {
    held.saturating_add(over.asked) > over.limit - over.limit / 8
}

impl TooLarge {
    /// Whether it would not fit either if nothing else ran, so that trying again is no use.
    #[must_use]
    pub fn never_fits(&self) -> bool {
        never_fits(self.held, &self.over)
    }

    /// Whether the query held, with what it asked for, a good part of what all may hold.
    #[must_use]
    pub fn holds_much(&self) -> bool {
        self.over.is_much(self.held.saturating_add(self.over.asked))
    }
}

/// Bytes that one query holds. Once they do not fit, that is remembered, and nothing more is taken.
#[derive(Debug)]
pub(crate) struct Held {
    budget: Budget,
    charge: Charge,
    /// At most those of the charge, unless they did not fit.
    bytes: u64,
    too_large: Option<TooLarge>,
}

impl Held {
    pub(crate) fn new(budget: &Budget) -> Self {
        let charge = budget.charge(Account::Queries, 0).expect("nothing fits always");
        Self { budget: budget.clone(), charge, bytes: 0, too_large: None }
    }

    /// Whether so many bytes more fit; then they are charged.
    #[inline]
    pub(crate) fn add(&mut self, bytes: u64) -> bool {
        let sum = self.bytes.saturating_add(bytes);
        if sum <= self.charge.bytes() {
            self.bytes = sum;
            return true;
        }
        self.take(sum)
    }

    #[cold]
    fn take(&mut self, sum: u64) -> bool {
        if self.too_large.is_some() {
            return false;
        }
        let missing = sum - self.charge.bytes();
        match self.charge.grow(missing.max(STEP_BYTES)).or_else(|_| self.charge.grow(missing)) {
            Ok(()) => {
                self.bytes = sum;
                true
            }
            Err(over) => {
                self.too_large = Some(TooLarge { held: self.charge.bytes(), over });
                false
            }
        }
    }

    /// Gives bytes back that were added.
    pub(crate) fn remove(&mut self, bytes: u64) {
        self.bytes = self.bytes.saturating_sub(bytes);
        if self.charge.bytes() - self.bytes > STEP_BYTES {
            self.charge.resize(self.bytes).expect("less fits always");
        }
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(crate) fn budget(&self) -> &Budget {
        &self.budget
    }

    /// Remembers what another part of the query was refused.
    pub(crate) fn refuse(&mut self, refused: Result<(), TooLarge>) {
        if let (None, Err(refused)) = (&self.too_large, refused) {
            self.too_large = Some(refused);
        }
    }

    pub(crate) fn into_charge(self) -> Charge {
        self.charge
    }

    pub(crate) fn is_over(&self) -> bool {
        self.too_large.is_some()
    }

    pub(crate) fn check(&self) -> Result<(), TooLarge> {
        self.too_large.clone().map_or(Ok(()), Err)
    }
}

impl Clone for Held {
    /// A copy of what is held is charged too, and remembers it where it does not fit.
    fn clone(&self) -> Self {
        let mut held = Self::new(&self.budget);
        held.too_large.clone_from(&self.too_large);
        held.add(self.bytes);
        held
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_charged_in_steps_and_to_the_last_byte() {
        let budget = Budget::new(1_000_000); // 400,000 for queries
        let mut held = Held::new(&budget);
        assert!(held.add(10));
        assert_eq!(budget.used(), STEP_BYTES);
        assert!(held.add(399_990), "to the last byte");
        assert!(!held.add(1));
        let refused = held.check().expect_err("over");
        assert_eq!((refused.held, refused.over.asked, refused.over.limit), (400_000, 1, 400_000));
        assert!(refused.never_fits());
        assert!(!held.add(1), "it stays refused");
        let little = OverBudget { used: 390_000, ..refused.over };
        assert!(TooLarge { held: 360_000, over: little.clone() }.never_fits() && !TooLarge { held: 200_000, over: little }.never_fits());
        drop(held);
        assert_eq!(budget.used(), 0);
    }

    #[test]
    fn what_others_hold_may_be_free_later() {
        let budget = Budget::new(1_000_000);
        let _other = budget.charge(Account::Queries, 300_000).expect("fits");
        let mut held = Held::new(&budget);
        assert!(!held.add(100_001));
        let refused = held.check().expect_err("over");
        assert!(!refused.never_fits());
        assert_eq!(
            refused.to_string(),
            "the query needs more memory than there is: it holds 0 bytes, and 100001 bytes more would be over the 400000 that queries may have; \
             other queries hold the rest: try again, or narrow it"
        );
    }

    #[test]
    fn copies_are_charged_and_what_is_given_back_is_free() {
        let budget = Budget::new(1_000_000);
        let mut held = Held::new(&budget);
        assert!(held.add(150_000));
        let copy = held.clone();
        assert_eq!(budget.used(), 300_000);
        assert!(held.clone().is_over());
        drop(copy);
        held.remove(140_000);
        assert_eq!(budget.used(), 10_000);
    }
}
