//! What one place has counted for a metrics query. Partials of several places merge in any order into what one place would have.

use super::cells::{Cell, Count, Max, Min, Stretch, Sum};
use super::exemplars::Slots;
use super::groups::Groups;
use crate::held::{Held, TooLarge};

/// Series in the making: what was counted so far, in one place. See [`crate::MetricsPlan`].
///
/// A clone is charged to the same budget.
#[derive(Debug, Clone)]
pub struct Partial {
    pub(crate) stages: Vec<StagePartial>,
    pub(crate) is_truncated: bool,
    pub(crate) inspected_spans: u64,
    pub(crate) held: Held,
}

impl Partial {
    /// Whether all that was counted is in it. Before a partial is used for anything but counting on, this must have been asked:
    /// one that did not fit into its budget lacks spans.
    ///
    /// # Errors
    /// It did not fit.
    pub fn check(&self) -> Result<(), TooLarge> {
        self.held.check()
    }

    /// What is charged for it, bytes.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.held.bytes()
    }

    /// Whether spans were left out because they would have made too many series.
    #[must_use]
    pub fn is_truncated(&self) -> bool {
        self.is_truncated
    }

    /// Spans that were looked at.
    #[must_use]
    pub fn inspected_spans(&self) -> u64 {
        self.inspected_spans
    }

    /// Groups of spans held, over all parts of the query: no more series can come of histograms and counts.
    #[must_use]
    pub fn groups(&self) -> usize {
        self.stages.iter().map(|stage| stage.groups.len()).sum()
    }
}

/// What one first stage counted.
#[derive(Debug, Clone)]
pub(crate) struct StagePartial {
    pub(crate) groups: Groups,
    /// One stretch per group.
    pub(crate) tally: Tally,
    pub(crate) exemplars: Slots,
}

/// What is added up, for each group.
#[derive(Debug, Clone)]
pub(crate) enum Tally {
    Counts(Vec<Stretch<Count>>),
    Mins(Vec<Stretch<Min>>),
    Maxs(Vec<Stretch<Max>>),
    Sums(Vec<Stretch<Sum>>),
}

fn merge<C: Cell>(into: &mut Vec<Stretch<C>>, group: usize, from: Option<&Stretch<C>>, intervals: usize, held: &mut Held) {
    if into.len() <= group {
        into.resize_with(group + 1, Stretch::default);
    }
    if let Some(from) = from {
        into[group].merge(from, intervals, held);
    }
}

impl Tally {
    /// Adds what `other` holds of its group `from` to the group `into`.
    fn merge(&mut self, into: usize, other: &Self, from: usize, intervals: usize, held: &mut Held) {
        match (self, other) {
            (Self::Counts(a), Self::Counts(b)) => merge(a, into, b.get(from), intervals, held),
            (Self::Mins(a), Self::Mins(b)) => merge(a, into, b.get(from), intervals, held),
            (Self::Maxs(a), Self::Maxs(b)) => merge(a, into, b.get(from), intervals, held),
            (Self::Sums(a), Self::Sums(b)) => merge(a, into, b.get(from), intervals, held),
            // Partials of one plan tally the same.
            _ => {}
        }
    }
}

impl StagePartial {
    /// Adds another; false if groups had to be left out.
    pub(crate) fn merge(&mut self, other: Self, groups_max: usize, intervals: usize, held: &mut Held) -> bool {
        let mut is_complete = true;
        for (from, key) in other.groups.keys().iter().enumerate() {
            match self.groups.number(key.clone(), groups_max, held) {
                Some(into) => self.tally.merge(into as usize, &other.tally, from, intervals, held),
                None => is_complete = false,
            }
            if held.is_over() {
                return false;
            }
        }
        for candidate in other.exemplars.iter() {
            self.exemplars.merge(candidate.clone(), held);
        }
        is_complete
    }
}
