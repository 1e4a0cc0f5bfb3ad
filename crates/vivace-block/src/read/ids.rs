//! Trace ids of row groups, as they are known once they have been read. What reads them is in [`super::order`].

use vivace_core::TraceId;

use super::footer::Footer;
use super::layout::LeafId;

/// Trace ids of a row group.
#[derive(Debug)]
pub(crate) struct GroupIds {
    by_row: Vec<TraceId>,
    /// Only where rows are out of order or ids repeat.
    disorder: Option<Disorder>,
}

#[derive(Debug)]
struct Disorder {
    /// Row numbers, ascending by id, those of one id by row.
    rows: Vec<u32>,
    /// Ascending, each id once.
    distinct: Vec<TraceId>,
}

impl GroupIds {
    pub(crate) fn new(by_row: Vec<TraceId>) -> Self {
        if by_row.is_sorted_by(|a, b| a < b) {
            return Self { by_row, disorder: None };
        }
        let mut rows: Vec<u32> = (0..by_row.len() as u32).collect();
        rows.sort_by_key(|row| by_row[*row as usize]);
        let mut distinct: Vec<TraceId> = rows.iter().map(|row| by_row[*row as usize]).collect();
        distinct.dedup();
        Self { by_row, disorder: Some(Disorder { rows, distinct }) }
    }

    /// In the order of the rows.
    pub(crate) fn by_row(&self) -> &[TraceId] {
        &self.by_row
    }

    /// Whether each row's id is above the one before.
    pub(crate) fn ascend(&self) -> bool {
        self.disorder.is_none()
    }

    /// Ascending, each id once.
    pub(crate) fn distinct(&self) -> &[TraceId] {
        self.disorder.as_ref().map_or(&self.by_row, |disorder| &disorder.distinct)
    }

    /// The row numbers ascending by id, those of one id by row.
    pub(crate) fn rows_by_id(&self) -> impl Iterator<Item = usize> + '_ {
        (0..self.by_row.len()).map(|at| self.disorder.as_ref().map_or(at, |disorder| disorder.rows[at] as usize))
    }

    /// The rows with this id, ascending.
    pub(crate) fn rows_of(&self, id: TraceId) -> Vec<usize> {
        match &self.disorder {
            None => self.by_row.binary_search(&id).into_iter().collect(),
            Some(Disorder { rows, .. }) => {
                let first = rows.partition_point(|row| self.by_row[*row as usize] < id);
                rows[first..].iter().map(|row| *row as usize).take_while(|row| self.by_row[*row] == id).collect()
            }
        }
    }
}

/// What the footer says of the order of row groups.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum GroupOrder {
    /// Each begins after the one before has ended: an id is in one of them at most.
    Ascending,
    /// Some overlap.
    Overlapping,
    /// Some have no statistics of their ids.
    Unknown,
}

impl GroupOrder {
    pub(crate) fn of(footer: &Footer, trace_id: LeafId) -> Self {
        let mut last: Option<[u8; 16]> = None;
        for group in &footer.groups {
            let Some((min, max)) = group.chunks[trace_id].id_bounds else { return Self::Unknown };
            if min > max || last.is_some_and(|last| last >= min) {
                return Self::Overlapping;
            }
            last = Some(max);
        }
        Self::Ascending
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(number: u8) -> TraceId {
        TraceId([number; 16])
    }

    #[test]
    fn rows_are_found_in_any_order() {
        let ids = GroupIds::new([5, 2, 9, 2, 7, 2].map(id).to_vec());
        assert!(!ids.ascend());
        assert_eq!(ids.distinct(), [2, 5, 7, 9].map(id));
        assert_eq!(ids.rows_of(id(2)), [1, 3, 5]);
        assert_eq!((ids.rows_of(id(9)), ids.rows_of(id(3)), ids.rows_of(id(10))), (vec![2], vec![], vec![]));
        assert_eq!(ids.rows_by_id().collect::<Vec<_>>(), [1, 3, 5, 0, 4, 2]);
        let ids = GroupIds::new([1, 2, 4].map(id).to_vec());
        assert!(ids.ascend());
        assert_eq!((ids.rows_of(id(4)), ids.rows_of(id(3))), (vec![2], vec![]));
        assert!(!GroupIds::new([1, 1].map(id).to_vec()).ascend(), "a repeated id is out of order");
    }
}
