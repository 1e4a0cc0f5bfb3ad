//! The byte budget of a process: one limit, shared by named accounts.
//!
//! Whoever is about to hold bytes that a client or a query decides about charges them first, as they appear, and is refused
//! when they do not fit. What bytes are held for is an [`Account`]; each has a share that it cannot go over, so that searches
//! cannot take what requests need, nor the other way round.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// What bytes are held for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Account {
    /// Requests of senders, from their first byte until they are answered: as they came, and decompressed.
    Requests,
    /// The index of live segments.
    Live,
    /// Blocks that are built or merged.
    Builds,
    /// What queries hold: rows that were read, groups, series, results.
    Queries,
    /// Answers that were made and that nobody has read yet.
    Answers,
    /// What is kept in case it is asked for again.
    Caches,
    /// What the allocator has given out beyond all that is charged: working memory of what runs, and what is too small to be
    /// charged. Entered by [`Budget::reconcile`].
    Uncharged,
}

impl Account {
    /// All of them, in the order of their declaration.
    pub const ALL: [Self; 7] = [Self::Requests, Self::Live, Self::Builds, Self::Queries, Self::Answers, Self::Caches, Self::Uncharged];

    /// As metrics and errors spell it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Requests => "requests",
            Self::Live => "live",
            Self::Builds => "builds",
            Self::Queries => "queries",
            Self::Answers => "answers",
            Self::Caches => "caches",
            Self::Uncharged => "uncharged",
        }
    }

    /// The share of the limit that it cannot go over, percent. Together more than all: seldom are several at their highest.
    fn share_percent(self) -> u64 {
        match self {
            Self::Requests => 25,
            Self::Live | Self::Queries => 40,
            Self::Builds | Self::Answers | Self::Caches => 20,
            Self::Uncharged => 100,
        }
    }
}

/// A process' bytes, for all that hold many. Cheap to clone: clones are the same budget.
#[derive(Debug, Clone)]
pub struct Budget(Arc<Books>);

#[derive(Debug)]
struct Books {
    limit_bytes: u64,
    used: AtomicU64,
    accounts: [AtomicU64; Account::ALL.len()],
}

/// Bytes that do not fit.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("out of memory for {}: {asked} bytes more than the {used} that are held would be over the limit of {limit} bytes", .account.name())]
pub struct OverBudget {
    /// What they were for.
    pub account: Account,
    /// Bytes that were asked for.
    pub asked: u64,
    /// Bytes that the account, or the whole budget, holds.
    pub used: u64,
    /// The limit that they would go over, bytes.
    pub limit: u64,
}

impl OverBudget {
    /// Whether they would not fit either if nothing else were held, so that waiting is no use.
    #[must_use]
    pub fn never_fits(&self) -> bool {
        self.asked > self.limit
    }

    /// Whether so many bytes alone are a good part, a quarter, of what may be held.
    #[must_use]
    pub fn is_much(&self, bytes: u64) -> bool {
        bytes > self.limit / 4
    }

    /// Whether those that were asked for are.
    #[must_use]
    pub fn asks_much(&self) -> bool {
        self.is_much(self.asked)
    }
}

/// Bytes of an account; given back when dropped.
#[derive(Debug)]
pub struct Charge {
    budget: Budget,
    account: Account,
    bytes: u64,
}

impl Budget {
    /// A budget of so many bytes.
    #[must_use]
    pub fn new(limit_bytes: u64) -> Self {
        Self(Arc::new(Books { limit_bytes, used: AtomicU64::new(0), accounts: Default::default() }))
    }

    /// One that refuses nothing: for tools and tests that are about something else.
    #[must_use]
    pub fn unlimited() -> Self {
        Self::new(u64::MAX)
    }

    /// Bytes of all accounts together.
    #[must_use]
    pub fn limit(&self) -> u64 {
        self.0.limit_bytes
    }

    /// The most that an account may hold, bytes.
    #[must_use]
    pub fn limit_of(&self, account: Account) -> u64 {
        (u128::from(self.0.limit_bytes) * u128::from(account.share_percent()) / 100) as u64
    }

    /// What an account holds now, bytes.
    #[must_use]
    pub fn used_by(&self, account: Account) -> u64 {
        self.0.accounts[account as usize].load(Ordering::Relaxed)
    }

    /// What all hold now, bytes.
    #[must_use]
    pub fn used(&self) -> u64 {
        self.0.used.load(Ordering::Relaxed)
    }

    /// Takes bytes for an account. None (0) always fit.
    ///
    /// # Errors
    /// They would go over the account's share, or over the whole.
    pub fn charge(&self, account: Account, bytes: u64) -> Result<Charge, OverBudget> {
        let mut charge = self.open(account);
        charge.grow(bytes)?;
        Ok(charge)
    }

    /// A charge that holds nothing yet.
    #[must_use]
    pub fn open(&self, account: Account) -> Charge {
        Charge { budget: self.clone(), account, bytes: 0 }
    }

    /// Holds the books against what the allocator has given out, bytes: what no account has been charged with is entered as
    /// [`Account::Uncharged`], over the limit if it must be. Nobody is then given more until some of it is free.
    pub fn reconcile(&self, allocated: u64) {
        let entered = &self.0.accounts[Account::Uncharged as usize];
        let before = entered.load(Ordering::Relaxed);
        let charged = self.used().saturating_sub(before);
        let now = allocated.saturating_sub(charged);
        entered.store(now, Ordering::Relaxed);
        // Each of the two operations keeps the sum right for itself, whoever charges in between.
        self.0.used.fetch_add(now.saturating_sub(before), Ordering::Relaxed);
        self.0.used.fetch_sub(before.saturating_sub(now), Ordering::Relaxed);
    }

    fn take(&self, account: Account, asked: u64, limit: u64) -> Result<(), OverBudget> {
        let over = |used, limit| OverBudget { account, asked, used, limit };
        let share = self.limit_of(account).min(limit);
        let own = &self.0.accounts[account as usize];
        add(own, asked, share).map_err(|used| over(used, share))?;
        add(&self.0.used, asked, self.0.limit_bytes).map_err(|used| {
            own.fetch_sub(asked, Ordering::Relaxed);
            over(used, self.0.limit_bytes)
        })
    }

    fn give_back(&self, account: Account, bytes: u64) {
        self.0.accounts[account as usize].fetch_sub(bytes, Ordering::Relaxed);
        self.0.used.fetch_sub(bytes, Ordering::Relaxed);
    }
}

/// Adds unless the sum is over the limit; then the error is what stands there.
fn add(used: &AtomicU64, bytes: u64, limit: u64) -> Result<(), u64> {
    let fits = |used: u64| used.checked_add(bytes).filter(|sum| *sum <= limit);
    used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits).map(|_| ())
}

impl Charge {
    /// Bytes that it holds.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Takes more.
    ///
    /// # Errors
    /// As [`Budget::charge`]; what was held before stays.
    pub fn grow(&mut self, bytes: u64) -> Result<(), OverBudget> {
        self.grow_within(bytes, u64::MAX)
    }

    /// Takes more, as long as the account then holds no more than `limit` bytes. So a part of an account is kept for those that
    /// have already begun: what comes in from outside leaves room for what its work needs.
    ///
    /// # Errors
    /// As [`Budget::charge`], with the lower of the limits; what was held before stays.
    pub fn grow_within(&mut self, bytes: u64, limit: u64) -> Result<(), OverBudget> {
        if bytes > 0 {
            self.budget.take(self.account, bytes, limit)?;
            self.bytes += bytes;
        }
        Ok(())
    }

    /// Enters in the books what is held already and cannot be refused any more, over the limit if it must be. Others are then
    /// refused.
    pub fn set_held(&mut self, bytes: u64) {
        let (own, all) = (&self.budget.0.accounts[self.account as usize], &self.budget.0.used);
        if bytes >= self.bytes {
            own.fetch_add(bytes - self.bytes, Ordering::Relaxed);
            all.fetch_add(bytes - self.bytes, Ordering::Relaxed);
        } else {
            self.budget.give_back(self.account, self.bytes - bytes);
        }
        self.bytes = bytes;
    }

    /// Takes more or gives back, so that it holds just so many.
    ///
    /// # Errors
    /// As [`Charge::grow`].
    pub fn resize(&mut self, bytes: u64) -> Result<(), OverBudget> {
        if bytes > self.bytes {
            return self.grow(bytes - self.bytes);
        }
        self.budget.give_back(self.account, self.bytes - bytes);
        self.bytes = bytes;
        Ok(())
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.budget.give_back(self.account, self.bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_account_cannot_go_over_its_share() {
        let budget = Budget::new(1000);
        let held = budget.charge(Account::Requests, 200).expect("fits");
        let over = budget.charge(Account::Requests, 51).expect_err("a quarter is 250");
        assert_eq!(over, OverBudget { account: Account::Requests, asked: 51, used: 200, limit: 250 });
        assert!(!over.never_fits());
        assert_eq!(
            over.to_string(),
            "out of memory for requests: 51 bytes more than the 200 that are held would be over the limit of 250 bytes"
        );
        assert!(budget.charge(Account::Requests, 251).expect_err("too large").never_fits());
        drop(held);
        assert_eq!((budget.used(), budget.used_by(Account::Requests)), (0, 0));
        budget.charge(Account::Requests, 250).expect("fits again");
    }

    #[test]
    fn all_accounts_together_cannot_go_over_the_limit() {
        let budget = Budget::new(1000);
        let _live = budget.charge(Account::Live, 400).expect("fits");
        let _queries = budget.charge(Account::Queries, 400).expect("fits");
        let mut requests = budget.charge(Account::Requests, 150).expect("fits");
        let over = requests.grow(51).expect_err("1001 of 1000");
        assert_eq!((over.used, over.limit), (950, 1000));
        assert_eq!(budget.used_by(Account::Requests), 150, "what was refused is not kept in the books");
    }

    #[test]
    fn a_charge_grows_and_shrinks() {
        let budget = Budget::new(1000);
        let mut charge = budget.charge(Account::Queries, 0).expect("nothing always fits");
        charge.resize(300).expect("fits");
        charge.grow(100).expect("fits");
        charge.grow(1).expect_err("over");
        charge.resize(50).expect("less always fits");
        assert_eq!((charge.bytes(), budget.used()), (50, 50));
    }

    #[test]
    fn a_part_of_an_account_can_be_kept_back() {
        let budget = Budget::new(1000);
        let mut outside = budget.charge(Account::Requests, 0).expect("nothing always fits");
        outside.grow_within(100, 150).expect("fits");
        let over = outside.grow_within(51, 150).expect_err("over the part");
        assert_eq!((over.used, over.limit), (100, 150));
        outside.grow(51).expect("there is room for those that may use all");
    }

    #[test]
    fn what_is_held_already_is_entered_over_the_limit() {
        let budget = Budget::new(1000);
        let mut live = budget.charge(Account::Live, 0).expect("nothing always fits");
        live.set_held(990);
        assert_eq!((budget.used_by(Account::Live), budget.used()), (990, 990));
        budget.charge(Account::Requests, 11).expect_err("others are refused");
        live.set_held(10);
        assert_eq!((live.bytes(), budget.used()), (10, 10));
    }

    #[test]
    fn what_nobody_was_charged_with_counts_too() {
        let budget = Budget::new(1000);
        let held = budget.charge(Account::Live, 300).expect("fits");
        budget.reconcile(950);
        assert_eq!((budget.used_by(Account::Uncharged), budget.used()), (650, 950));
        let over = budget.charge(Account::Queries, 51).expect_err("1001 of 1000");
        assert_eq!((over.used, over.limit), (950, 1000));
        budget.reconcile(5000);
        budget.charge(Account::Requests, 1).expect_err("all are refused");
        drop(held);
        budget.reconcile(200);
        assert_eq!((budget.used_by(Account::Uncharged), budget.used()), (200, 200));
        let _held = budget.charge(Account::Live, 400).expect("fits");
        budget.reconcile(100);
        assert_eq!((budget.used_by(Account::Uncharged), budget.used()), (0, 400), "charges may be estimates that are too high");
    }

    #[test]
    fn threads_together_stay_within_the_limit() {
        let budget = Budget::new(100_000);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for n in 0..10_000_u64 {
                        let charge = budget.charge(Account::Requests, n % 20_000);
                        assert!(budget.used_by(Account::Requests) <= budget.limit_of(Account::Requests));
                        drop(charge);
                    }
                });
            }
        });
        assert_eq!(budget.used(), 0);
    }
}
