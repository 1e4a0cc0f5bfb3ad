//! Calls of which one side was seen: they wait for the other one, a while and in bounded number.

use std::collections::VecDeque;

use hashbrown::HashMap;
use vivace_core::{SpanId, TraceId};

/// What pairs both sides of a call: the trace and the calling span.
pub(crate) type EdgeKey = (TraceId, SpanId);

/// Bytes of the names and labels of edges that wait, at most.
const BYTES_MAX: usize = 32 << 20;

/// How two services are connected.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Connection {
    /// One calls the other.
    #[default]
    Call,
    Messaging,
    Database,
    /// One of the two has no spans.
    Virtual,
}

/// The sides of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    Client,
    Server,
}

/// A call, as far as it was seen.
#[derive(Debug, Clone, Default)]
pub(crate) struct Edge {
    pub(crate) connection: Connection,
    /// Names of services; empty until the side was seen.
    pub(crate) client: String,
    pub(crate) server: String,
    pub(crate) client_seconds: f64,
    pub(crate) server_seconds: f64,
    /// When the client's span ended and the server's began, nanoseconds since the epoch: what lies between is a queue's.
    pub(crate) client_end_unix_nanos: u64,
    pub(crate) server_start_unix_nanos: u64,
    pub(crate) is_failed: bool,
    /// What the side that was seen calls the other one.
    pub(crate) peer: String,
    /// How many calls it stands for.
    pub(crate) weight: f64,
    /// Values of dimensions, by the number of their label.
    pub(crate) dimensions: Vec<(usize, String)>,
}

/// Calls that wait.
#[derive(Debug, Default)]
pub(crate) struct Edges {
    waiting: HashMap<EdgeKey, Waiting>,
    /// In the order they came; may name some that wait no longer.
    order: VecDeque<(u64, EdgeKey)>,
    /// Those that have waited long enough and are kept while there is room, in the same order; may name others too.
    late: VecDeque<(u64, EdgeKey)>,
    bytes: usize,
}

#[derive(Debug)]
struct Waiting {
    edge: Edge,
    since_unix_nanos: u64,
    is_late: bool,
}

impl Edge {
    pub(crate) fn is_complete(&self) -> bool {
        !self.client.is_empty() && !self.server.is_empty()
    }

    /// Sets a dimension that is perhaps set already: the last one counts.
    pub(crate) fn set_dimension(&mut self, label: usize, value: String) {
        match self.dimensions.iter_mut().find(|(other, _)| *other == label) {
            Some((_, old)) => *old = value,
            None => self.dimensions.push((label, value)),
        }
    }

    fn bytes(&self) -> usize {
        let dimensions: usize = self.dimensions.iter().map(|(_, value)| value.len() + size_of::<(usize, String)>()).sum();
        self.client.len() + self.server.len() + self.peer.len() + dimensions
    }
}

impl Edges {
    /// How many wait.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Takes out the edge that waits at a place, and since when; a late one would wait anew.
    pub(crate) fn take(&mut self, key: &EdgeKey) -> Option<(Edge, Option<u64>)> {
        let Waiting { edge, since_unix_nanos, is_late } = self.waiting.remove(key)?;
        self.bytes -= edge.bytes();
        Some((edge, (!is_late).then_some(since_unix_nanos)))
    }

    /// Lets an edge wait; one that waited before keeps its time. False when there are `most` already, or they are too large. Late ones
    /// make room.
    pub(crate) fn put(&mut self, key: EdgeKey, edge: Edge, since: Option<u64>, now_unix_nanos: u64, most: usize) -> bool {
        while self.waiting.len() >= most || self.bytes + edge.bytes() > BYTES_MAX {
            if self.oldest_late(u64::MAX).is_none() {
                return false;
            }
        }
        let since_unix_nanos = since.unwrap_or(now_unix_nanos);
        if since.is_none() {
            self.order.push_back((now_unix_nanos, key));
        }
        self.insert(key, Waiting { edge, since_unix_nanos, is_late: false });
        // Those that are complete leave their place in the order.
        if self.order.len() > 2 * self.waiting.len() + 1024 {
            self.order.retain(|(since, key)| self.waiting.get(key).is_some_and(|waiting| waiting.since_unix_nanos == *since));
        }
        true
    }

    /// Keeps an edge that has waited long enough: its other side may come yet.
    pub(crate) fn keep(&mut self, key: EdgeKey, edge: Edge, since_unix_nanos: u64) {
        self.insert(key, Waiting { edge, since_unix_nanos, is_late: true });
        self.late.push_back((since_unix_nanos, key));
        if self.late.len() > 2 * self.waiting.len() + 1024 {
            self.late
                .retain(|(since, key)| self.waiting.get(key).is_some_and(|waiting| waiting.is_late && waiting.since_unix_nanos == *since));
        }
    }

    fn insert(&mut self, key: EdgeKey, waiting: Waiting) {
        self.bytes += waiting.edge.bytes();
        self.waiting.insert(key, waiting);
    }

    /// Forgets late edges that wait since before a time.
    pub(crate) fn forget_late(&mut self, before_unix_nanos: u64) {
        while self.oldest_late(before_unix_nanos).is_some() {}
    }

    /// Takes out the oldest late edge, if it waits since before a time.
    fn oldest_late(&mut self, before_unix_nanos: u64) -> Option<Edge> {
        while let Some((since, key)) = self.late.front().copied().filter(|(since, _)| *since < before_unix_nanos) {
            self.late.pop_front();
            if self.waiting.get(&key).is_some_and(|waiting| waiting.is_late && waiting.since_unix_nanos == since)
                && let Some((edge, _)) = self.take(&key)
            {
                return Some(edge);
            }
        }
        None
    }

    /// Takes out the oldest edge that waits since before a time.
    pub(crate) fn expired(&mut self, before_unix_nanos: u64) -> Option<(EdgeKey, Edge, u64)> {
        while let Some((since, key)) = self.order.front().copied().filter(|(since, _)| *since < before_unix_nanos) {
            self.order.pop_front();
            if self.waiting.get(&key).is_some_and(|waiting| !waiting.is_late && waiting.since_unix_nanos == since)
                && let Some((edge, _)) = self.take(&key)
            {
                return Some((key, edge, since));
            }
        }
        None
    }

    /// Forgets the dimensions of all that wait: their labels are others now.
    pub(crate) fn forget_dimensions(&mut self) {
        for waiting in self.waiting.values_mut() {
            waiting.edge.dimensions.clear();
        }
        self.bytes = self.waiting.values().map(|waiting| waiting.edge.bytes()).sum();
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn key(number: u8) -> EdgeKey {
        (TraceId::from_slice(&[number]), SpanId::from_slice(&[1]))
    }

    proptest! {
        #[test]
        fn what_waits_is_bounded_and_each_edge_comes_out_once(steps in proptest::collection::vec((0u8..20, any::<bool>()), 0..300)) {
            let mut edges = Edges::default();
            let (mut in_count, mut out_count) = (0, 0);
            for (now, (number, is_put)) in (1u64..).zip(steps) {
                if is_put {
                    let (edge, since) = edges.take(&key(number)).unwrap_or_default();
                    out_count += usize::from(since.is_some());
                    in_count += usize::from(edges.put(key(number), edge, since, now, 8));
                } else {
                    out_count += usize::from(edges.take(&key(number)).is_some());
                }
                prop_assert!(edges.len() <= 8);
                while edges.expired(now.saturating_sub(30)).is_some() {
                    out_count += 1;
                }
            }
            while edges.expired(u64::MAX).is_some() {
                out_count += 1;
            }
            prop_assert_eq!((in_count, edges.len(), edges.bytes, edges.order.len()), (out_count, 0, 0, 0));
        }

        #[test]
        fn the_order_does_not_grow_with_calls_that_are_complete(calls in 2000u16..6000) {
            let mut edges = Edges::default();
            for call in 0..calls {
                let key = (TraceId::from_slice(&call.to_be_bytes()), SpanId::from_slice(&[1]));
                edges.put(key, Edge::default(), None, u64::from(call), 10);
                edges.take(&key);
            }
            prop_assert!(edges.order.len() <= 1026);
        }
    }

    #[test]
    fn large_names_are_refused_in_time() {
        let mut edges = Edges::default();
        let large = |number: u8| (key(number), Edge { client: "x".repeat(9 << 20), ..Edge::default() });
        let taken: Vec<bool> = (0..5).map(large).map(|(key, edge)| edges.put(key, edge, None, 1, 100)).collect();
        assert_eq!(taken, [true, true, true, false, false]);
    }
}
