//! Sets of segment ids. A distributor counts its segments, so millions of ids are a few ranges: small enough to be sent to other
//! instances and kept in the ledger.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use vivace_proto::vivace::v1::{SequenceRanges, sequence_ranges::Range};

use crate::header::SegmentId;

/// A set of segment ids: inclusive ranges of sequence numbers per incarnation, neighbours merged.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct SegmentSet {
    incarnations: BTreeMap<[u8; 16], BTreeMap<u64, u64>>,
}

impl SegmentSet {
    pub(crate) fn is_empty(&self) -> bool {
        self.incarnations.is_empty()
    }

    /// Segments in it.
    pub(crate) fn len(&self) -> u64 {
        let ranges = self.incarnations.values().flatten();
        ranges.map(|(first, last)| (last - first).saturating_add(1)).fold(0, u64::saturating_add)
    }

    pub(crate) fn insert(&mut self, id: SegmentId) {
        self.insert_range(id.incarnation, id.sequence, id.sequence);
    }

    pub(crate) fn contains(&self, id: &SegmentId) -> bool {
        self.incarnations
            .get(&id.incarnation)
            .and_then(|ranges| ranges.range(..=id.sequence).next_back())
            .is_some_and(|(_, last)| id.sequence <= *last)
    }

    pub(crate) fn merge(&mut self, other: &Self) {
        for (incarnation, ranges) in &other.incarnations {
            for (first, last) in ranges {
                self.insert_range(*incarnation, *first, *last);
            }
        }
    }

    /// Inclusive ranges of ids.
    pub(crate) fn ranges(&self) -> impl Iterator<Item = RangeInclusive<SegmentId>> + '_ {
        self.incarnations.iter().flat_map(|(incarnation, ranges)| {
            let id = |sequence: &u64| SegmentId { incarnation: *incarnation, sequence: *sequence };
            ranges.iter().map(move |(first, last)| id(first)..=id(last))
        })
    }

    /// What is in both.
    pub(crate) fn intersection(&self, other: &Self) -> Self {
        let mut both = Self::default();
        for (incarnation, ranges) in &self.incarnations {
            let Some(others) = other.incarnations.get(incarnation) else { continue };
            for (first, last) in ranges {
                // The one that starts before and may reach into this one, and those that start within.
                let before = others.range(..*first).next_back().filter(|(_, l)| *l >= first);
                for (f, l) in before.into_iter().chain(others.range(first..=last)) {
                    both.insert_range(*incarnation, *f.max(first), *l.min(last));
                }
            }
        }
        both
    }

    /// Adds `first..=last`; nothing when `first > last`.
    fn insert_range(&mut self, incarnation: [u8; 16], mut first: u64, mut last: u64) {
        if first > last {
            return;
        }
        let ranges = self.incarnations.entry(incarnation).or_default();
        while let Some((f, l)) = ranges.range(..=last.saturating_add(1)).next_back().map(|(f, l)| (*f, *l)) {
            if l.saturating_add(1) < first {
                break;
            }
            ranges.remove(&f);
            first = first.min(f);
            last = last.max(l);
        }
        ranges.insert(first, last);
    }

    pub(crate) fn to_proto(&self) -> Vec<SequenceRanges> {
        self.incarnations
            .iter()
            .map(|(incarnation, ranges)| SequenceRanges {
                incarnation: incarnation.to_vec().into(),
                ranges: ranges.iter().map(|(first, last)| Range { first: *first, last: *last }).collect(),
            })
            .collect()
    }

    /// None when an incarnation has not 16 bytes.
    pub(crate) fn from_proto(ranges: &[SequenceRanges]) -> Option<Self> {
        let mut set = Self::default();
        for of_incarnation in ranges {
            let incarnation = <[u8; 16]>::try_from(&of_incarnation.incarnation[..]).ok()?;
            for range in &of_incarnation.ranges {
                set.insert_range(incarnation, range.first, range.last);
            }
        }
        Some(set)
    }
}

impl FromIterator<SegmentId> for SegmentSet {
    fn from_iter<I: IntoIterator<Item = SegmentId>>(ids: I) -> Self {
        let mut set = Self::default();
        for id in ids {
            set.insert(id);
        }
        set
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn id(incarnation: u8, sequence: u64) -> SegmentId {
        SegmentId { incarnation: [incarnation; 16], sequence }
    }

    proptest! {
        #[test]
        fn a_set_is_its_members(
            members in proptest::collection::vec((0u8..3, 0u64..40), 0..60), others in proptest::collection::vec((0u8..3, 0u64..40), 0..60),
        ) {
            let set: SegmentSet = members.iter().map(|(i, s)| id(*i, *s)).collect();
            for incarnation in 0..3 {
                for sequence in 0..41 {
                    prop_assert_eq!(set.contains(&id(incarnation, sequence)), members.contains(&(incarnation, sequence)));
                }
            }
            let other: SegmentSet = others.iter().map(|(i, s)| id(*i, *s)).collect();
            let both: SegmentSet = members.iter().filter(|m| others.contains(m)).map(|(i, s)| id(*i, *s)).collect();
            prop_assert_eq!(set.intersection(&other), both);
            let proto = set.to_proto();
            for of_incarnation in &proto {
                for pair in of_incarnation.ranges.windows(2) {
                    prop_assert!(pair[0].last + 1 < pair[1].first, "neighbours are merged: {:?}", pair);
                }
            }
            prop_assert_eq!(SegmentSet::from_proto(&proto), Some(set));
        }
    }

    #[test]
    fn the_largest_number_is_a_number() {
        let mut set: SegmentSet = [id(1, u64::MAX), id(1, 0)].into_iter().collect();
        assert!(set.contains(&id(1, u64::MAX)) && set.contains(&id(1, 0)) && !set.contains(&id(1, 1)));
        set.insert_range([1; 16], 0, u64::MAX);
        assert_eq!(set.to_proto()[0].ranges, [Range { first: 0, last: u64::MAX }]);
    }
}
