//! Tag names and tag values.

use std::collections::{BTreeMap, BTreeSet};

use vivace_core::budget::{Account, Budget, Charge};
use vivace_proto::tempopb::{SearchTagValuesV2Response, SearchTagsV2Response, SearchTagsV2Scope, TagValue};

/// Where an answer ends although there is more. 0: nowhere.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Limits {
    /// Bytes of all names or values.
    pub(crate) max_bytes: usize,
    /// Names per scope, or values.
    pub(crate) max_items: usize,
    /// Consecutive known ones after which it is enough.
    pub(crate) max_stale: usize,
}

/// Memory of an entry beside its text, which is held twice: until it is sent, and to know it again.
const ENTRY_BYTES: usize = 160;

/// What has been counted against [`Limits`].
#[derive(Debug)]
struct Count {
    limits: Limits,
    held: Charge,
    bytes: usize,
    stale: usize,
    /// The limit at which the list ended.
    reached: Option<String>,
}

impl Count {
    fn new(budget: &Budget, limits: Limits) -> Self {
        let held = budget.charge(Account::Queries, 0).expect("nothing fits always");
        Self { limits, held, bytes: 0, stale: 0, reached: None }
    }

    /// Counts one that is known already.
    fn known(&mut self) {
        self.stale += 1;
        if self.limits.max_stale > 0 && self.stale >= self.limits.max_stale {
            self.reached = Some(format!("maxStaleValues={}", self.limits.max_stale));
        }
    }

    /// Looks at how many there are now.
    fn has(&mut self, items: usize) {
        if self.limits.max_items > 0 && items >= self.limits.max_items {
            self.reached = Some(format!("limit={}", self.limits.max_items));
        }
    }

    /// Whether a new one of so many bytes still fits, and if so counts it.
    fn admits(&mut self, bytes: usize) -> bool {
        self.stale = 0;
        if self.limits.max_bytes > 0 && self.bytes + bytes > self.limits.max_bytes {
            self.reached = Some(format!("{} bytes (read.max_bytes_per_tag_values_query)", self.limits.max_bytes));
            return false;
        }
        if let Err(over) = self.held.grow((2 * bytes + ENTRY_BYTES) as u64) {
            self.reached = Some(format!("{} bytes: {over}", self.bytes));
            return false;
        }
        self.bytes += bytes;
        true
    }

    /// What a client is told that did not get everything.
    fn warning(&self) -> Option<String> {
        self.reached.as_ref().map(|limit| format!("truncated: the list ends at {limit}, there may be more"))
    }
}

/// Names of tags by scope.
#[derive(Debug)]
pub(crate) struct TagCombiner {
    scopes: BTreeMap<String, BTreeSet<String>>,
    unsent: BTreeMap<String, BTreeSet<String>>,
    count: Count,
    pub(crate) inspected_bytes: u64,
}

impl TagCombiner {
    pub(crate) fn new(budget: &Budget, limits: Limits) -> Self {
        Self { scopes: BTreeMap::new(), unsent: BTreeMap::new(), count: Count::new(budget, limits), inspected_bytes: 0 }
    }

    pub(crate) fn add(&mut self, answer: SearchTagsV2Response) {
        self.inspected_bytes += answer.metrics.map_or(0, |metrics| metrics.inspected_bytes);
        for scope in answer.scopes {
            for tag in scope.tags {
                self.add_tag(&scope.name, tag);
            }
        }
    }

    fn add_tag(&mut self, scope: &str, tag: String) {
        if self.count.reached.is_some() {
            return;
        }
        let tags = self.scopes.entry(scope.to_owned()).or_default();
        if tags.contains(&tag) {
            return self.count.known();
        }
        if self.count.admits(tag.len()) {
            self.unsent.entry(scope.to_owned()).or_default().insert(tag.clone());
            tags.insert(tag);
            self.count.has(tags.len());
        }
    }

    /// Nothing more will be taken.
    pub(crate) fn is_full(&self) -> bool {
        self.count.reached.is_some()
    }

    /// Says which limit ended the list, if one did.
    pub(crate) fn warning(&self) -> Option<String> {
        self.count.warning()
    }

    /// Everything, sorted; scopes without tags are left out.
    pub(crate) fn scopes(&self) -> Vec<SearchTagsV2Scope> {
        scopes(&self.scopes)
    }

    /// What has come since the last call.
    pub(crate) fn take_unsent(&mut self) -> Vec<SearchTagsV2Scope> {
        scopes(&std::mem::take(&mut self.unsent))
    }
}

fn scopes(scopes: &BTreeMap<String, BTreeSet<String>>) -> Vec<SearchTagsV2Scope> {
    let filled = scopes.iter().filter(|(_, tags)| !tags.is_empty());
    filled.map(|(name, tags)| SearchTagsV2Scope { name: name.clone(), tags: tags.iter().cloned().collect() }).collect()
}

/// The names of several scopes as one sorted list.
pub(crate) fn flat(scopes: Vec<SearchTagsV2Scope>) -> Vec<String> {
    scopes.into_iter().flat_map(|scope| scope.tags).collect::<BTreeSet<_>>().into_iter().collect()
}

/// Values of one tag.
#[derive(Debug)]
pub(crate) struct ValueCombiner {
    /// Type and value.
    values: BTreeSet<(String, String)>,
    unsent: BTreeSet<(String, String)>,
    count: Count,
    pub(crate) inspected_bytes: u64,
}

impl ValueCombiner {
    pub(crate) fn new(budget: &Budget, limits: Limits) -> Self {
        Self { values: BTreeSet::new(), unsent: BTreeSet::new(), count: Count::new(budget, limits), inspected_bytes: 0 }
    }

    pub(crate) fn add(&mut self, answer: SearchTagValuesV2Response) {
        self.inspected_bytes += answer.metrics.map_or(0, |metrics| metrics.inspected_bytes);
        for value in answer.tag_values {
            self.add_value(value.r#type, value.value);
        }
    }

    pub(crate) fn add_value(&mut self, kind: String, value: String) {
        if self.count.reached.is_some() {
            return;
        }
        let bytes = value.len();
        let value = (kind, value);
        if self.values.contains(&value) {
            return self.count.known();
        }
        if self.count.admits(bytes) {
            self.unsent.insert(value.clone());
            self.values.insert(value);
            self.count.has(self.values.len());
        }
    }

    /// Nothing more will be taken.
    pub(crate) fn is_full(&self) -> bool {
        self.count.reached.is_some()
    }

    /// Says which limit ended the list, if one did.
    pub(crate) fn warning(&self) -> Option<String> {
        self.count.warning()
    }

    /// What is charged for the values.
    pub(crate) fn into_held(self) -> Charge {
        self.count.held
    }

    /// Everything, sorted by type and value.
    pub(crate) fn values(&self) -> Vec<TagValue> {
        typed(self.values.clone())
    }

    /// What has come since the last call.
    pub(crate) fn take_unsent(&mut self) -> Vec<TagValue> {
        typed(std::mem::take(&mut self.unsent))
    }
}

fn typed(values: BTreeSet<(String, String)>) -> Vec<TagValue> {
    values.into_iter().map(|(r#type, value)| TagValue { r#type, value }).collect()
}

/// The values without their types and those that are added, sorted, each once.
pub(crate) fn untyped(values: Vec<TagValue>, added: &[&str]) -> Vec<String> {
    let added = added.iter().map(|value| (*value).to_owned());
    values.into_iter().map(|value| value.value).chain(added).collect::<BTreeSet<_>>().into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tags(scope: &str, tags: &[&str]) -> SearchTagsV2Response {
        let tags = tags.iter().map(|tag| (*tag).to_owned()).collect();
        SearchTagsV2Response { scopes: vec![SearchTagsV2Scope { name: scope.to_owned(), tags }], metrics: None }
    }

    #[test]
    fn limits_end_the_list() {
        let mut combiner = TagCombiner::new(&Budget::unlimited(), Limits { max_items: 2, ..Default::default() });
        combiner.add(tags("span", &["c", "a", "b"]));
        assert!(combiner.is_full());
        assert_eq!(combiner.warning().unwrap(), "truncated: the list ends at limit=2, there may be more");
        assert_eq!(combiner.scopes()[0].tags, ["a", "c"]);

        let mut combiner = TagCombiner::new(&Budget::unlimited(), Limits { max_bytes: 3, ..Default::default() });
        combiner.add(tags("span", &["aa", "b", "c"]));
        assert_eq!(combiner.scopes()[0].tags, ["aa", "b"]);
        assert!(combiner.warning().unwrap().contains("3 bytes (read.max_bytes_per_tag_values_query)"));

        let mut combiner = TagCombiner::new(&Budget::unlimited(), Limits { max_stale: 2, ..Default::default() });
        combiner.add(tags("span", &["a", "b", "a", "b", "c"]));
        assert_eq!(combiner.scopes()[0].tags, ["a", "b"]);
    }

    #[test]
    fn a_list_that_does_not_fit_into_memory_ends_and_says_so() {
        let budget = Budget::new(100 << 20);
        let mut combiner = ValueCombiner::new(&budget, Limits::default());
        for n in 0..100 {
            combiner.add_value("string".to_owned(), format!("{n}{}", "x".repeat(1 << 20)));
        }
        assert!(combiner.is_full());
        assert_eq!(combiner.values().len(), 19, "40 MiB hold 19 twice");
        assert!(combiner.warning().unwrap().contains("out of memory for queries"));
        drop(combiner);
        assert_eq!(budget.used(), 0);
    }

    #[test]
    fn a_diff_has_only_what_is_new() {
        let mut combiner = TagCombiner::new(&Budget::unlimited(), Limits::default());
        combiner.add(tags("span", &["a"]));
        assert_eq!(combiner.take_unsent().len(), 1);
        combiner.add(tags("span", &["a"]));
        assert_eq!(combiner.take_unsent().len(), 0);
        combiner.add(tags("resource", &["a"]));
        assert_eq!(combiner.take_unsent()[0].name, "resource");
        assert_eq!(flat(combiner.scopes()), ["a"]);
    }
}
