//! What is read again and again, kept up to a number of bytes.

use std::fmt;
use std::hash::Hash;

use lru::LruCache;
use parking_lot::Mutex;

use crate::budget::{Account, Budget, Charge};

/// What an entry costs beside its bytes.
const ENTRY_OVERHEAD_BYTES: u64 = 128;
/// An entry may take this part of a cache: one huge one must not empty it.
const PART_MAX: u64 = 8;

/// Entries up to a number of bytes, charged to the budget's account for caches. The least recently used go first.
pub struct ByteCache<K, V> {
    kept: Mutex<Kept<K, V>>,
}

struct Kept<K, V> {
    entries: LruCache<K, (V, u64)>,
    max_bytes: u64,
    charge: Charge,
}

impl<K: Hash + Eq, V: Clone> ByteCache<K, V> {
    /// An empty one for so many bytes, which nobody is charged with.
    #[must_use]
    pub fn new(max_bytes: u64) -> Self {
        let charge = Budget::unlimited().open(Account::Caches);
        Self { kept: Mutex::new(Kept { entries: LruCache::unbounded(), max_bytes, charge }) }
    }

    /// From now on its bytes are charged, and bounded by what caches may hold.
    pub fn charge_to(&self, budget: &Budget) {
        let mut kept = self.kept.lock();
        let max_bytes = kept.max_bytes.min(budget.limit_of(Account::Caches));
        *kept = Kept { entries: LruCache::unbounded(), max_bytes, charge: budget.open(Account::Caches) };
    }

    /// What is kept under a key.
    #[must_use]
    pub fn get(&self, key: &K) -> Option<V> {
        self.kept.lock().entries.get(key).map(|(value, _)| value.clone())
    }

    /// Whether something is kept under a key. Not a use of it.
    #[must_use]
    pub fn contains(&self, key: &K) -> bool {
        self.kept.lock().entries.contains(key)
    }

    /// Keeps a value of so many bytes, if it is not too large a part, and returns the bytes that are kept now.
    pub fn put(&self, key: K, value: V, bytes: usize) -> u64 {
        let cost = bytes as u64 + ENTRY_OVERHEAD_BYTES;
        let mut kept = self.kept.lock();
        let kept = &mut *kept;
        if cost > kept.max_bytes / PART_MAX {
            return kept.charge.bytes();
        }
        if let Some((_, old)) = kept.entries.pop(&key) {
            kept.give_back(old);
        }
        loop {
            let fits = kept.charge.bytes() + cost <= kept.max_bytes && kept.charge.grow(cost).is_ok();
            if fits {
                kept.entries.put(key, (value, cost));
                break;
            }
            // Where others hold the memory it shrinks to nothing at last.
            let Some((_, (_, oldest))) = kept.entries.pop_lru() else { break };
            kept.give_back(oldest);
        }
        kept.charge.bytes()
    }
}

impl<K, V> fmt::Debug for ByteCache<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ByteCache").field("bytes", &self.kept.lock().charge.bytes()).finish_non_exhaustive()
    }
}

impl<K, V> Kept<K, V> {
    fn give_back(&mut self, bytes: u64) {
        self.charge.set_held(self.charge.bytes() - bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_stay_under_the_bound() {
        let cache = ByteCache::new(80_000);
        for number in 0..100 {
            assert!(cache.put(number, number, 5000) <= 80_000);
            assert_eq!(cache.get(&0), Some(0), "what is used stays");
        }
        assert_eq!((cache.get(&1), cache.get(&99)), (None, Some(99)));
        cache.put(200, 200, 50_000);
        assert!(!cache.contains(&200), "too large a share");
        let before = cache.put(99, 7, 5000);
        assert_eq!((cache.put(99, 8, 1000), cache.get(&99)), (before - 4000, Some(8)), "the same key again");
    }

    #[test]
    fn it_makes_room_for_others() {
        let budget = Budget::new(1_000_000); // a fifth for caches
        let cache = ByteCache::new(1 << 30);
        cache.charge_to(&budget);
        (0..100).for_each(|number| _ = cache.put(number, (), 10_000));
        assert!((150_000..=200_000).contains(&budget.used_by(Account::Caches)), "{}", budget.used());
        let mut others = budget.open(Account::Live);
        others.set_held(950_000);
        cache.put(100, (), 10_000);
        assert!(budget.used() <= 1_000_000, "{}", budget.used());
        drop(cache);
        assert_eq!(budget.used_by(Account::Caches), 0);
    }
}
