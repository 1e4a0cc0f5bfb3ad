//! What requests may take of the process' memory, from their first byte until they are answered.

use std::time::Duration;

use bytes::Bytes;
use tonic::{Code, Status};
use vivace_core::budget::{Account, Budget, Charge, OverBudget};
use vivace_core::wire::{put_bytes, put_varint};

use crate::metrics::MEMORY_REFUSED;

/// Share of the account that those outside of the cluster may fill, percent. The rest is for what their requests need within:
/// were it theirs too, no request that has begun could end.
const SENDERS_PERCENT: u64 = 70;
/// How long a client should wait when there is no room: about as long as requests take.
pub(crate) const RETRY_AFTER: Duration = Duration::from_secs(1);

/// The part of a process' budget that the requests of a listener may take. Cheap to clone.
#[derive(Debug, Clone)]
pub struct RequestBudget {
    budget: Budget,
    /// Bytes that the account may then hold.
    limit: u64,
}

/// Bytes of a request; given back when dropped.
#[derive(Debug)]
pub struct RequestCharge {
    charge: Charge,
    of: RequestBudget,
}

impl RequestBudget {
    /// For requests of members of the cluster.
    #[must_use]
    pub fn whole(budget: &Budget) -> Self {
        Self { budget: budget.clone(), limit: budget.limit_of(Account::Requests) }
    }

    /// For requests of everybody else.
    #[must_use]
    pub fn of_senders(budget: &Budget) -> Self {
        let share = u128::from(budget.limit_of(Account::Requests)) * u128::from(SENDERS_PERCENT) / 100;
        Self { budget: budget.clone(), limit: share as u64 }
    }

    /// Begins to charge a request.
    #[must_use]
    pub fn open(&self) -> RequestCharge {
        RequestCharge { charge: self.budget.open(Account::Requests), of: self.clone() }
    }

    /// Takes bytes for a request.
    ///
    /// # Errors
    /// They do not fit.
    pub fn charge(&self, bytes: u64) -> Result<RequestCharge, OverBudget> {
        let mut charge = self.open();
        charge.grow(bytes)?;
        Ok(charge)
    }

    /// Whether so many bytes would fit now. Nothing is kept for them: who announces much and sends it slowly, or never, shall
    /// not keep others out.
    ///
    /// # Errors
    /// They do not fit.
    pub fn check(&self, bytes: u64) -> Result<(), OverBudget> {
        self.charge(bytes).map(drop)
    }

    /// Takes bytes if all that the account holds stays below a share of it, percent: for what requests can go without. None: it does not.
    #[must_use]
    pub fn spare(&self, bytes: u64, percent: u64) -> Option<RequestCharge> {
        let of = Self { budget: self.budget.clone(), limit: self.limit / 100 * percent };
        let mut charge = of.open();
        charge.charge.grow_within(bytes, of.limit).ok()?;
        Some(charge)
    }
}

impl RequestCharge {
    /// Bytes that it holds.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.charge.bytes()
    }

    /// Takes more.
    ///
    /// # Errors
    /// It does not fit; what was held before stays.
    pub fn grow(&mut self, bytes: u64) -> Result<(), OverBudget> {
        let held = self.charge.bytes();
        self.charge.grow_within(bytes, self.of.limit).inspect_err(count_refusal).map_err(|over| {
            // Told is the request as a whole: whether waiting is of any use depends on all of it.
            OverBudget { asked: held + bytes, used: over.used.saturating_sub(held), ..over }
        })
    }

    /// Another one of the same request.
    #[must_use]
    pub fn another(&self) -> Self {
        self.of.open()
    }

    /// Gives some of it back.
    pub fn give_back(&mut self, bytes: u64) {
        let left = self.charge.bytes().saturating_sub(bytes);
        self.charge.set_held(left);
    }

    /// Gives all of it back.
    pub fn clear(&mut self) {
        self.charge.set_held(0);
    }

    /// Takes over what another one holds.
    pub fn absorb(&mut self, mut other: Self) {
        // For a moment both stand in the books: never too little.
        self.charge.set_held(self.charge.bytes() + other.charge.bytes());
        other.clear();
    }
}

/// Counts what does not fit.
pub(crate) fn count_refusal(over: &OverBudget) {
    metrics::counter!(MEMORY_REFUSED.name, "account" => over.account.name()).increment(1);
}

/// The refusal as a gRPC status: RESOURCE_EXHAUSTED, with the hint without which clients drop what they send, unless it never
/// fits.
#[must_use]
pub fn over_budget_status(over: &OverBudget) -> Status {
    let message = over.to_string();
    let details = if over.never_fits() { Bytes::new() } else { retry_details(Code::ResourceExhausted, &message, RETRY_AFTER) };
    Status::with_details(Code::ResourceExhausted, message, details)
}

/// A `google.rpc.Status` with a `RetryInfo`. Source: googleapis `rpc/status.proto`, `rpc/error_details.proto`.
fn retry_details(code: Code, message: &str, delay: Duration) -> Bytes {
    let (mut duration, mut info, mut any, mut status) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    put_varint(&mut duration, 1 << 3);
    put_varint(&mut duration, delay.as_secs());
    put_bytes(&mut info, 1, &duration);
    put_bytes(&mut any, 1, b"type.googleapis.com/google.rpc.RetryInfo");
    put_bytes(&mut any, 2, &info);
    put_varint(&mut status, 1 << 3);
    put_varint(&mut status, code as u64);
    put_bytes(&mut status, 2, message.as_bytes());
    put_bytes(&mut status, 3, &any);
    status.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn senders_leave_room_for_what_their_requests_need_within() {
        let budget = Budget::new(4000);
        let (senders, members) = (RequestBudget::of_senders(&budget), RequestBudget::whole(&budget));
        let mut held = senders.charge(700).expect("70 % of a quarter");
        let over = held.grow(1).expect_err("the rest is not theirs");
        assert_eq!((over.asked, over.used, over.limit, over.never_fits()), (701, 0, 700, true));
        senders.check(1).expect_err("no more");
        members.charge(300).expect("the rest");
        assert!(senders.charge(701).expect_err("too large").never_fits());
    }

    #[test]
    fn a_refusal_says_when_to_come_back_unless_it_is_no_use() {
        let budget = Budget::new(4000);
        let _held = budget.charge(Account::Requests, 1000).expect("fits");
        let status = over_budget_status(&budget.charge(Account::Requests, 1).expect_err("full"));
        assert_eq!(status.code(), Code::ResourceExhausted);
        let hint = b"type.googleapis.com/google.rpc.RetryInfo";
        assert!(status.details().windows(hint.len()).any(|w| w == hint));
        assert!(over_budget_status(&budget.charge(Account::Requests, 1001).expect_err("never")).details().is_empty());
    }
}
