//! How many values each label of a tenant has: those beyond the limit become one.

use std::hash::BuildHasher as _;

use hashbrown::{DefaultHashBuilder, HashMap};

use crate::labels::LabelSet;

/// What stands for all values beyond the limit.
const OVERFLOW: &str = "__cardinality_overflow__";

/// Names of labels that are told apart. They come from the configuration, and of targets from resources.
const NAMES_MAX: usize = 4096;

/// The values of each label, as hashes, and when each was seen last.
#[derive(Debug, Default)]
pub(crate) struct Cardinality {
    /// 0 is any number.
    values_max: usize,
    labels: HashMap<Box<str>, HashMap<u64, u64>>,
    hasher: DefaultHashBuilder,
}

impl Cardinality {
    /// Changes the limit; values that are known stay.
    pub(crate) fn set_max(&mut self, values_max: usize) {
        self.values_max = values_max;
        if values_max == 0 {
            self.labels = HashMap::new();
        }
    }

    /// Replaces values beyond the limit; how many.
    pub(crate) fn limit(&mut self, labels: &mut LabelSet, now_unix_nanos: u64) -> u64 {
        if self.values_max == 0 {
            return 0;
        }
        labels.replace(OVERFLOW, |name, value| !self.admits(name, value, now_unix_nanos))
    }

    /// Forgets values that were not seen since.
    pub(crate) fn expire(&mut self, before_unix_nanos: u64) {
        self.labels.retain(|_, values| {
            values.retain(|_, seen_unix_nanos| *seen_unix_nanos >= before_unix_nanos);
            !values.is_empty()
        });
    }

    fn admits(&mut self, name: &str, value: &str, now_unix_nanos: u64) -> bool {
        if !self.labels.contains_key(name) {
            if self.labels.len() >= NAMES_MAX {
                return false;
            }
            self.labels.insert(name.into(), HashMap::new());
        }
        let Some(values) = self.labels.get_mut(name) else { return false };
        let hash = self.hasher.hash_one(value);
        if let Some(seen_unix_nanos) = values.get_mut(&hash) {
            *seen_unix_nanos = now_unix_nanos;
            return true;
        }
        let has_room = values.len() < self.values_max;
        if has_room {
            values.insert(hash, now_unix_nanos);
        }
        has_room
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::labels::labels_of;

    fn limited(cardinality: &mut Cardinality, now: u64, labels: &[(&str, String)]) -> Vec<String> {
        let mut set = LabelSet::new(100, 100, Vec::new());
        labels.iter().for_each(|(name, value)| set.push(name, value));
        cardinality.limit(&mut set, now);
        labels_of(set.key()).map(|(name, value)| format!("{name}={value}")).collect()
    }

    #[test]
    fn values_beyond_the_limit_become_one_until_others_are_forgotten() {
        let mut cardinality = Cardinality::default();
        let mut seen = |max: usize, now: u64, value: &str| {
            cardinality.set_max(max);
            cardinality.expire(now.saturating_sub(10));
            limited(&mut cardinality, now, &[("a", value.to_owned()), ("b", "same".to_owned())]).join(",")
        };
        assert_eq!(seen(2, 1, "x"), "a=x,b=same");
        assert_eq!(seen(2, 2, "y"), "a=y,b=same");
        assert_eq!(seen(2, 3, "z"), "a=__cardinality_overflow__,b=same");
        assert_eq!(seen(2, 4, "x"), "a=x,b=same");
        assert_eq!(seen(2, 13, "z"), "a=z,b=same", "y is forgotten");
        assert_eq!(seen(1, 14, "w"), "a=__cardinality_overflow__,b=same");
        assert_eq!(seen(0, 15, "w"), "a=w,b=same");
    }

    proptest! {
        #[test]
        fn no_label_has_more_values_than_the_limit(max in 1usize..8, values in prop::collection::vec((0u8..3, 0u8..40), 0..300)) {
            let mut cardinality = Cardinality::default();
            cardinality.set_max(max);
            let mut seen: HashMap<String, std::collections::BTreeSet<String>> = HashMap::new();
            for (now, (label, value)) in (0u64..).zip(values) {
                let name = ["a", "b", "c"][usize::from(label)];
                for label in limited(&mut cardinality, now, &[(name, value.to_string())]) {
                    seen.entry(name.to_owned()).or_default().insert(label);
                }
            }
            prop_assert!(seen.values().all(|values| values.len() <= max + 1), "{seen:?}");
        }
    }
}
