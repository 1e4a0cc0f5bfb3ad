//! All traces of a block in the order of their ids, whatever the order of its rows.

use std::collections::VecDeque;

use vivace_core::TraceId;
use vivace_core::combine::combine;
use vivace_proto::otlp::ResourceSpans;

use super::assemble::Assembler;
use super::fault::ReadError;
use super::file::BlockFile;
use super::group::Group;
use super::order::Place;
use super::reader::BlockReader;

/// Of row groups that overlap, so many rows are held decoded at a time: about this many bytes as they are stored.
const SCATTERED_BYTES: u64 = 16 << 20;

type Trace = (TraceId, Vec<ResourceSpans>);

/// Iterates over the traces of a block.
pub struct Traces<'a> {
    file: &'a BlockFile,
    order: Order,
    /// Ready to be handed out.
    ready: VecDeque<Trace>,
    is_done: bool,
}

enum Order {
    /// Not looked at yet.
    ById,
    /// Row group by row group.
    Groups { next: usize, current: Option<(Box<Assembler>, VecDeque<usize>)>, combines: bool },
    /// By places, since row groups overlap.
    Places { places: Vec<Place>, at: usize, rows_at_once: usize },
}

impl BlockReader {
    /// All traces, ascending by id, each once. One row group is held decoded at a time, and a part of each where they overlap.
    ///
    /// After an error nothing more comes.
    pub fn traces(&self) -> Traces<'_> {
        Traces { file: &self.file, order: Order::ById, ready: VecDeque::new(), is_done: false }
    }

    /// All rows in the order of the file, be it what it may.
    pub(crate) fn rows(&self) -> Traces<'_> {
        let order = Order::Groups { next: 0, current: None, combines: false };
        Traces { file: &self.file, order, ready: VecDeque::new(), is_done: false }
    }
}

impl Order {
    fn of(file: &BlockFile) -> Result<Self, ReadError> {
        if file.is_written_in_order() || file.groups_ascend()? {
            return Ok(Self::Groups { next: 0, current: None, combines: true });
        }
        let places = file.all_places()?;
        let bytes: u64 = (0..file.row_groups()).map(|group| Group::new(file, group).stored_bytes()).sum();
        let bytes_of_row = bytes / (places.len() as u64).max(1);
        let rows_at_once = (SCATTERED_BYTES / bytes_of_row.max(1)).clamp(1, 1 << 14) as usize;
        Ok(Self::Places { places, at: 0, rows_at_once })
    }
}

impl Traces<'_> {
    /// Makes more traces ready. False at the end.
    fn more(&mut self) -> Result<bool, ReadError> {
        let file = self.file;
        match &mut self.order {
            Order::ById => {
                self.order = Order::of(file)?;
                Ok(true)
            }
            Order::Groups { next, current, combines } => {
                let Some((rows, order)) = current.as_mut().filter(|(_, order)| !order.is_empty()) else {
                    *current = None;
                    if *next >= file.row_groups() {
                        return Ok(false);
                    }
                    let group = Group::new(file, *next);
                    let order = match *combines && !file.is_written_in_order() {
                        true => file.group_ids(*next)?.rows_by_id().collect(),
                        false => (0..group.rows()).collect(),
                    };
                    *current = Some((Box::new(Assembler::new(group)?), order));
                    *next += 1;
                    return Ok(true);
                };
                let mut parts = Vec::with_capacity(1);
                let id = order.front().map(|row| rows.id(*row));
                while let Some(row) = order.pop_front_if(|row| parts.is_empty() || *combines && Some(rows.id(*row)) == id) {
                    parts.extend(rows.trace(row));
                }
                self.ready.extend(whole(parts));
                Ok(true)
            }
            Order::Places { places, at, rows_at_once } => {
                let first = *at;
                let mut end = places.len().min(first + *rows_at_once);
                // All rows of a trace are needed at the same time.
                while end < places.len() && places[end].id == places[end - 1].id {
                    end += 1;
                }
                *at = end;
                let wanted = &places[first..end];
                let mut by_group: Vec<(Place, usize)> = wanted.iter().copied().zip(0..).collect();
                by_group.sort_unstable_by_key(|(place, _)| (place.group, place.row));
                let mut found: Vec<Option<Trace>> = wanted.iter().map(|_| None).collect();
                for some in by_group.chunk_by(|(a, _), (b, _)| a.group == b.group) {
                    let rows = some.iter().map(|(place, _)| place.row as usize).collect();
                    let rows = Assembler::new(Group::new(file, some[0].0.group as usize).narrow(rows))?;
                    some.iter().enumerate().for_each(|(row, (_, at))| found[*at] = rows.trace(row));
                }
                let mut found = found.into_iter().flatten().peekable();
                while let Some(first) = found.next() {
                    let mut parts = vec![first];
                    while let Some(part) = found.next_if(|part| part.0 == parts[0].0) {
                        parts.push(part);
                    }
                    self.ready.extend(whole(parts));
                }
                Ok(first < end)
            }
        }
    }
}

/// One trace of its parts.
fn whole(mut parts: Vec<Trace>) -> Option<Trace> {
    let id = parts.first()?.0;
    match parts.len() {
        1 => parts.pop(),
        _ => Some((id, combine(parts.into_iter().map(|(_, spans)| spans)))),
    }
}

impl Iterator for Traces<'_> {
    type Item = Result<Trace, ReadError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(trace) = self.ready.pop_front() {
                return Some(Ok(trace));
            }
            if self.is_done {
                return None;
            }
            match self.more() {
                Ok(goes_on) => self.is_done = !goes_on,
                Err(error) => {
                    self.is_done = true;
                    return Some(Err(error));
                }
            }
        }
    }
}
