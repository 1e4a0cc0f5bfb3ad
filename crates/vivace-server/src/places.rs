//! Places for connections. All listeners of a process share them, and when they are taken, who does least goes first.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;
use rustc_hash::FxHashMap;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::activity::Activity;

/// The places. Cheap to clone: clones share them.
#[derive(Debug, Clone)]
pub(crate) struct Places(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    max: usize,
    taken: Mutex<Taken>,
}

#[derive(Debug, Default)]
struct Taken {
    next: u64,
    listeners: usize,
    /// By number, and so the oldest first.
    connections: BTreeMap<u64, Connection>,
}

#[derive(Debug)]
struct Connection {
    listener: Listener,
    activity: Arc<Activity>,
    leave: CancellationToken,
}

/// A listener, by number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Listener(usize);

/// A connection's place; free again when dropped.
#[derive(Debug)]
pub(crate) struct Place {
    places: Places,
    number: u64,
    /// Cancelled when another one is to have it.
    pub(crate) leave: CancellationToken,
}

/// A connection as the choice sees it.
#[derive(Debug, Clone, Copy)]
struct Candidate {
    number: u64,
    listener: Listener,
    /// Since when its client is waited for.
    waits_since: Option<Instant>,
    opened: Instant,
}

impl Places {
    pub(crate) fn new(max: usize) -> Self {
        Self(Arc::new(Shared { max: max.max(1), taken: Mutex::default() }))
    }

    pub(crate) fn listener(&self) -> Listener {
        let mut taken = self.0.taken.lock();
        taken.listeners += 1;
        Listener(taken.listeners)
    }

    /// Takes a place. When none is free, another connection has to leave; None: no other has to.
    pub(crate) fn take(&self, listener: Listener, activity: &Arc<Activity>) -> Option<Place> {
        let mut taken = self.0.taken.lock();
        if taken.connections.len() >= self.0.max {
            let victim = taken.who_leaves_for(listener, self.0.max)?;
            taken.send_away(victim);
        }
        let (number, leave) = (taken.next, CancellationToken::new());
        taken.next += 1;
        taken.connections.insert(number, Connection { listener, activity: activity.clone(), leave: leave.clone() });
        Some(Place { places: self.clone(), number, leave })
    }

    /// Frees a place, of whoever does least: the system has no more descriptors.
    pub(crate) fn free_one(&self, listener: Listener) {
        let mut taken = self.0.taken.lock();
        let all = taken.connections.len();
        if let Some(victim) = taken.who_leaves_for(listener, all) {
            taken.send_away(victim);
        }
    }
}

impl Taken {
    fn who_leaves_for(&self, listener: Listener, max: usize) -> Option<u64> {
        let candidates: Vec<Candidate> = self
            .connections
            .iter()
            .map(|(number, connection)| Candidate {
                number: *number,
                listener: connection.listener,
                waits_since: connection.activity.waits_since(),
                opened: connection.activity.opened(),
            })
            .collect();
        who_leaves(&candidates, listener, max)
    }

    fn send_away(&mut self, number: u64) {
        if let Some(connection) = self.connections.remove(&number) {
            connection.leave.cancel();
        }
    }
}

/// Whose place a newcomer gets. A listener with its fair share of the places makes room among its own connections whose
/// client is waited for. One with less takes from those with more: what waits there longest, and else what is oldest.
fn who_leaves(candidates: &[Candidate], newcomer: Listener, max: usize) -> Option<u64> {
    let mut counts: FxHashMap<Listener, usize> = FxHashMap::default();
    counts.insert(newcomer, 0);
    for candidate in candidates {
        *counts.entry(candidate.listener).or_default() += 1;
    }
    let fair = max / counts.len();
    let longest_idle = |listener: Listener| {
        let idle = candidates.iter().filter(|c| c.listener == listener).filter_map(|c| Some((c.waits_since?, c.number)));
        idle.min().map(|(_, number)| number)
    };
    if counts[&newcomer] >= fair.max(1) {
        return longest_idle(newcomer);
    }
    let mut greedy: Vec<(Reverse<usize>, Listener)> =
        counts.into_iter().filter(|(_, count)| *count > fair).map(|(listener, count)| (Reverse(count), listener)).collect();
    greedy.sort_unstable();
    let idle = greedy.iter().find_map(|(_, listener)| longest_idle(*listener));
    idle.or_else(|| {
        let (_, most) = greedy.first()?;
        candidates.iter().filter(|c| c.listener == *most).min_by_key(|c| c.opened).map(|c| c.number)
    })
}

impl Drop for Place {
    fn drop(&mut self) {
        self.places.0.taken.lock().connections.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    /// Connections as (listener, idle for so many seconds); numbered from 0, the first the oldest.
    fn leaves(connections: &[(usize, Option<u64>)], newcomer: usize) -> Option<u64> {
        let start = Instant::now();
        let hour = start + Duration::from_secs(3600);
        let candidates: Vec<Candidate> = (0..)
            .zip(connections)
            .map(|(number, (listener, idle))| Candidate {
                number,
                listener: Listener(*listener),
                waits_since: idle.map(|seconds| hour - Duration::from_secs(seconds)),
                opened: start + Duration::from_secs(number),
            })
            .collect();
        who_leaves(&candidates, Listener(newcomer), connections.len())
    }

    #[test]
    fn who_idles_longest_leaves_and_no_listener_starves() {
        let idle = Some;
        assert_eq!(leaves(&[(1, idle(5)), (1, idle(9)), (1, idle(7))], 1), Some(1), "the longest idle of its own");
        assert_eq!(leaves(&[(1, None), (1, None)], 1), None, "nobody: all are at work");
        assert_eq!(leaves(&[(1, None), (1, idle(1)), (1, idle(2)), (1, None)], 2), Some(2), "of the one with more than its share");
        assert_eq!(leaves(&[(1, None), (1, None), (1, None), (1, None)], 2), Some(0), "at work for longest, where all are");
        assert_eq!(leaves(&[(1, None), (1, None), (1, None), (2, idle(99)), (2, None), (2, None)], 1), None, "none of others");
        assert_eq!(leaves(&[(1, None), (1, idle(1)), (1, None), (2, idle(99)), (2, None), (3, None)], 3), Some(1));
        assert_eq!(leaves(&[], 1), None);
    }

    #[test]
    fn a_place_is_free_again_when_its_connection_ends_or_has_to_leave() {
        let places = Places::new(2);
        let (a, b) = (places.listener(), places.listener());
        let idle = || Activity::new(Instant::now());
        let first = places.take(a, &idle()).expect("free");
        let second = places.take(a, &idle()).expect("free");
        drop(first);
        let third = places.take(a, &idle()).expect("free again");
        assert!(!second.leave.is_cancelled());
        let _fourth = places.take(b, &idle()).expect("one of the others leaves");
        assert!(second.leave.is_cancelled() && !third.leave.is_cancelled());
        let busy = idle();
        let _request = busy.enter();
        drop(third);
        let fifth = places.take(a, &busy).expect("free again");
        assert!(places.take(a, &idle()).is_none(), "the other listener's is no more than its share, and its own is at work");
        let body = busy.begin_body();
        let _sixth = places.take(a, &idle()).expect("a client that owes the rest of a body makes room");
        assert!(fifth.leave.is_cancelled());
        drop(body);
    }
}
