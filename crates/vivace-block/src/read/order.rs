//! Where trace ids stand in a block. Rows ascend by id, each id once; yet there are blocks whose rows do not: Tempo leaves such
//! behind when it flushes while spans come in. What knows the order of rows is here and in [`super::ids`], and nothing else
//! relies on it.

use rustc_hash::FxHashMap;
use vivace_core::TraceId;

use super::fault::ReadError;
use super::file::BlockFile;
use super::group::Group;
use super::ids::{GroupIds, GroupOrder};
use crate::index::RowGroupIndex;

/// A row of a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    pub(crate) id: TraceId,
    pub(crate) group: u32,
    pub(crate) row: u32,
}

/// The traces of a row group that have several rows, here or elsewhere in the block.
#[derive(Debug, Default)]
pub(crate) struct Repeated {
    /// Those whose first row is in this row group. Ascending.
    pub(crate) ids: Vec<TraceId>,
    /// The rows of all of them that are in this row group, ascending.
    rows: Vec<usize>,
}

impl Repeated {
    /// Leaves out the rows of traces that have several.
    pub(crate) fn leave_out(&self, rows: &mut Vec<usize>) {
        if !self.rows.is_empty() {
            rows.retain(|row| self.rows.binary_search(row).is_err());
        }
    }
}

/// Finds the traces that have several rows.
pub(crate) enum RepeatedTraces {
    /// There are none.
    Nowhere,
    /// All rows of a trace are in one row group.
    WithinGroups,
    /// By row group.
    Anywhere(FxHashMap<usize, Repeated>),
}

impl RepeatedTraces {
    /// Reads all ids of a block whose row groups overlap.
    pub(crate) fn of(file: &BlockFile) -> Result<Self, ReadError> {
        if file.is_written_in_order() {
            return Ok(Self::Nowhere);
        }
        if file.groups_ascend()? {
            return Ok(Self::WithinGroups);
        }
        let mut by_group: FxHashMap<usize, Repeated> = FxHashMap::default();
        for rows in file.all_places()?.chunk_by(|a, b| a.id == b.id).filter(|rows| rows.len() > 1) {
            by_group.entry(rows[0].group as usize).or_default().ids.push(rows[0].id);
            for place in rows {
                by_group.entry(place.group as usize).or_default().rows.push(place.row as usize);
            }
        }
        by_group.values_mut().for_each(|repeated| repeated.rows.sort_unstable());
        Ok(Self::Anywhere(by_group))
    }

    /// Takes the rows of such traces out of the rows of a row group that may match, and gives the traces that are to be looked at
    /// with all their rows instead. `one_row_decides`: such a trace matches only where one of its rows passes.
    pub(crate) fn take_out(
        &mut self,
        file: &BlockFile,
        group: usize,
        rows: &mut Vec<usize>,
        one_row_decides: bool,
    ) -> Result<Vec<TraceId>, ReadError> {
        if rows.is_empty() && one_row_decides && !self.reach_beyond_groups() {
            return Ok(Vec::new());
        }
        let repeated = self.take(file, group)?;
        repeated.leave_out(rows);
        Ok(repeated.ids)
    }

    /// Whether a trace may have rows in other row groups than its first.
    pub(crate) fn reach_beyond_groups(&self) -> bool {
        matches!(self, Self::Anywhere(_))
    }

    /// Those of a row group, once. Reads its ids if it may have some.
    pub(crate) fn take(&mut self, file: &BlockFile, group: usize) -> Result<Repeated, ReadError> {
        let mut repeated = Repeated::default();
        match self {
            Self::Nowhere => {}
            Self::Anywhere(by_group) => repeated = by_group.remove(&group).unwrap_or_default(),
            Self::WithinGroups => {
                let ids = file.group_ids(group)?;
                if !ids.ascend() {
                    let rows: Vec<usize> = ids.rows_by_id().collect();
                    for rows in rows.chunk_by(|a, b| ids.by_row()[*a] == ids.by_row()[*b]).filter(|rows| rows.len() > 1) {
                        repeated.ids.push(ids.by_row()[rows[0]]);
                        repeated.rows.extend(rows);
                    }
                    repeated.rows.sort_unstable();
                }
            }
        }
        Ok(repeated)
    }
}

impl BlockFile {
    /// Trace ids of a row group. Read once.
    pub(crate) fn group_ids(&self, group: usize) -> Result<&GroupIds, ReadError> {
        if let Some(ids) = self.ids[group].get() {
            return Ok(ids);
        }
        let column = Group::new(self, group).column(self.layout.trace_id)?;
        let ids = (0..column.values.len()).map(|row| TraceId::from_slice(column.values.bytes(row))).collect();
        Ok(self.ids[group].get_or_init(|| GroupIds::new(ids)))
    }

    /// Whether each row group begins after the one before has ended. Reads ids only where the footer does not say.
    pub(crate) fn groups_ascend(&self) -> Result<bool, ReadError> {
        match self.group_order {
            GroupOrder::Ascending => Ok(true),
            GroupOrder::Overlapping => Ok(false),
            GroupOrder::Unknown => {
                let mut last = None;
                for group in 0..self.row_groups() {
                    let ids = self.group_ids(group)?.distinct();
                    if last.is_some() && ids.first().copied() <= last && !ids.is_empty() {
                        return Ok(false);
                    }
                    last = ids.last().copied().or(last);
                }
                Ok(true)
            }
        }
    }

    /// Whether all rows ascend by id, each id once. Reads the ids of blocks that others wrote.
    pub(crate) fn is_in_order(&self) -> Result<bool, ReadError> {
        if self.is_written_in_order() {
            return Ok(true);
        }
        if !self.groups_ascend()? {
            return Ok(false);
        }
        for group in 0..self.row_groups() {
            if !self.group_ids(group)?.ascend() {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// The row groups that an id may be in. Reads nothing where the file has statistics of its ids.
    fn groups_of(&self, id: TraceId, index: Option<&RowGroupIndex>) -> Vec<usize> {
        let groups = &self.footer.groups;
        let bounds = |group: usize| groups[group].chunks[self.layout.trace_id].id_bounds;
        let may_have = |group: &usize| bounds(*group).is_none_or(|(min, max)| min <= id.0 && id.0 <= max);
        match self.group_order {
            GroupOrder::Ascending => {
                let (mut low, mut high) = (0, groups.len());
                while low < high {
                    let middle = low + (high - low) / 2;
                    if bounds(middle).is_some_and(|(_, max)| max < id.0) { low = middle + 1 } else { high = middle }
                }
                Some(low).filter(|group| *group < groups.len()).filter(may_have).into_iter().collect()
            }
            GroupOrder::Overlapping => (0..groups.len()).filter(may_have).collect(),
            GroupOrder::Unknown => {
                let index = index.filter(|index| index.last_ids.len() == groups.len() && index.last_ids.is_sorted_by(|a, b| a < b));
                match index {
                    Some(index) => index.row_group_of(id).into_iter().collect(),
                    None => (0..groups.len()).filter(may_have).collect(),
                }
            }
        }
    }

    /// Where a trace is: row groups, with the rows in each.
    pub(crate) fn rows_of(&self, id: TraceId, index: Option<&RowGroupIndex>) -> Result<Vec<(usize, Vec<usize>)>, ReadError> {
        let mut found = Vec::new();
        for group in self.groups_of(id, index) {
            let rows = self.group_ids(group)?.rows_of(id);
            if !rows.is_empty() {
                found.push((group, rows));
            }
        }
        Ok(found)
    }

    /// The rows of these traces, which ascend, in a row group: ascending by id. Reads its ids if it may have some.
    pub(crate) fn rows_in(&self, group: usize, ids: &[TraceId]) -> Result<Vec<usize>, ReadError> {
        let wanted = match self.footer.groups[group].chunks[self.layout.trace_id].id_bounds {
            Some((min, max)) => &ids[ids.partition_point(|id| id.0 < min)..ids.partition_point(|id| id.0 <= max)],
            None => ids,
        };
        let mut rows = Vec::new();
        if wanted.is_empty() {
            return Ok(rows);
        }
        let held = self.group_ids(group)?;
        if wanted.len() < held.by_row().len() / 16 {
            wanted.iter().for_each(|id| rows.extend(held.rows_of(*id)));
            return Ok(rows);
        }
        let mut wanted = wanted.iter().peekable();
        for row in held.rows_by_id() {
            let id = held.by_row()[row];
            while wanted.next_if(|wanted| **wanted < id).is_some() {}
            match wanted.peek() {
                Some(wanted) if **wanted == id => rows.push(row),
                Some(_) => {}
                None => break,
            }
        }
        Ok(rows)
    }

    /// All rows, ascending by id.
    pub(crate) fn all_places(&self) -> Result<Vec<Place>, ReadError> {
        let mut places = Vec::new();
        for group in 0..self.row_groups() {
            let ids = self.group_ids(group)?.by_row();
            places.extend(ids.iter().enumerate().map(|(row, id)| Place { id: *id, group: group as u32, row: row as u32 }));
        }
        places.sort_unstable();
        Ok(places)
    }
}
