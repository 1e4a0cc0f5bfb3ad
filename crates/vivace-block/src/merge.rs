//! Several blocks become one: rows in the order of their ids, parts of a trace combined, copies of a span dropped.

use std::io::Write;

use vivace_core::{BlockId, TraceId, combine};
use vivace_proto::otlp::ResourceSpans;

use crate::SpanMessages;
use crate::read::{BlockReader, GroupIds, ReadError, Traces};
use crate::write::{BlockWriter, FinishedBlock, RowSource, WriteError};

/// What was merged.
#[derive(Debug)]
pub struct MergedBlock<W> {
    /// The block. Its times are the widest of the inputs': their writers may have known better than the spans' own clocks.
    pub block: FinishedBlock<W>,
    /// Traces that several inputs had.
    pub traces_combined: u64,
    /// Copies of spans that were dropped.
    pub spans_combined: u64,
}

/// Why blocks could not be merged.
#[derive(Debug, thiserror::Error)]
pub enum MergeError {
    /// An input cannot be read.
    #[error("could not read block {block}")]
    Input {
        /// Which.
        block: BlockId,
        /// Why.
        #[source]
        source: ReadError,
    },
    /// An input can be read and makes no sense, or holds what cannot be written again.
    #[error("block {block} cannot be merged: {reason}")]
    BadInput {
        /// Which.
        block: BlockId,
        /// What is wrong.
        reason: String,
    },
    /// The output cannot be written.
    #[error("could not write the merged block")]
    Output(#[source] WriteError),
    /// The caller did not want to go on.
    #[error("the merge was stopped")]
    Stopped,
}

/// Merges blocks into one. Row groups that no other input reaches into are taken over as they are; rows that one input
/// has are copied column by column; only where a row is unusual, or an input is of another layout or out of order, spans become OTLP.
///
/// Where two inputs have a copy of a span, that of the input which stands first remains. Holds one decoded row group per
/// input and one of the output. `goes_on` is asked before each trace.
///
/// # Errors
/// [`MergeError`]; what was written then is of no use.
pub fn merge<W: Write + Send>(
    inputs: &[BlockReader],
    mut writer: BlockWriter<W>,
    goes_on: &dyn Fn() -> bool,
) -> Result<MergedBlock<W>, MergeError> {
    let mut sides = inputs.iter().map(|block| Side::new(block, &writer)).collect::<Result<Vec<_>, _>>()?;
    let (mut traces_combined, mut spans_in) = (0, 0);
    let mut encoded = SpanMessages::default();
    while let Some(id) = sides.iter().filter_map(|side| side.head).min() {
        if !goes_on() {
            return Err(MergeError::Stopped);
        }
        let mut at: Vec<usize> = Vec::with_capacity(sides.len());
        at.extend((0..sides.len()).filter(|side| sides[*side].head == Some(id)));
        if let [only] = at[..] {
            let beyond = sides.iter().enumerate().filter(|(side, _)| *side != only).filter_map(|(_, side)| side.head).min();
            if sides[only].has_row_group_before(beyond) && writer.may_end_row_group() {
                spans_in += sides[only].pass_row_group(&mut writer)?;
                continue;
            }
        }
        traces_combined += u64::from(at.len() > 1);
        let mut parts: Vec<&mut Side<'_>> = sides.iter_mut().filter(|side| side.head == Some(id)).collect();
        for part in &mut parts {
            spans_in += part.load()?;
        }
        if !copy(id, &mut parts, &mut writer)? {
            let parts = parts.iter_mut().map(|part| part.otlp(id)).collect::<Result<Vec<_>, _>>()?;
            encoded.read(&combine::combine(parts));
            writer.push_trace(id, &encoded.refs()).map_err(MergeError::Output)?;
        }
        parts.into_iter().try_for_each(Side::advance)?;
    }
    drop(sides);
    let mut block = writer.finish().map_err(MergeError::Output)?;
    if block.invalid_spans > 0 {
        let first = inputs.first().map(|input| input.meta().block_id).unwrap_or_default();
        return Err(MergeError::BadInput { block: first, reason: format!("{} spans could not be written again", block.invalid_spans) });
    }
    let metas = || inputs.iter().map(BlockReader::meta);
    block.meta.start_unix_nanos = metas().map(|meta| meta.start_unix_nanos).min().unwrap_or_default();
    block.meta.end_unix_nanos = metas().map(|meta| meta.end_unix_nanos).max().unwrap_or_default();
    Ok(MergedBlock { spans_combined: spans_in - block.spans, traces_combined, block })
}

/// Takes a trace over column by column. False: that is not possible.
fn copy<W: Write + Send>(id: TraceId, parts: &mut [&mut Side<'_>], writer: &mut BlockWriter<W>) -> Result<bool, MergeError> {
    let block = parts[0].block.meta().block_id;
    let mut rows: Vec<&mut RowSource> = Vec::with_capacity(parts.len());
    for part in parts {
        match &mut part.rows {
            Rows::Columns { current: Some(current), .. } => rows.push(current),
            _ => return Ok(false),
        }
    }
    match writer.copy_trace(id, &mut rows).map_err(MergeError::Output)? {
        Ok(copied) => Ok(copied),
        Err(mismatch) => {
            let reason = format!("trace {id}: column {} does not fit its neighbours", mismatch.0.column().path());
            Err(MergeError::BadInput { block, reason })
        }
    }
}

/// An input, and how far it has been read.
struct Side<'a> {
    block: &'a BlockReader,
    /// The next trace.
    head: Option<TraceId>,
    rows: Rows<'a>,
}

enum Rows<'a> {
    /// Rows that can be taken over as they are.
    Columns {
        group: usize,
        row: usize,
        /// The decoded row group, at `row`; none before the first row is needed.
        current: Option<RowSource>,
    },
    /// Another layout, or rows out of order.
    Otlp { traces: Box<Traces<'a>>, next: Option<Vec<ResourceSpans>> },
}

impl<'a> Side<'a> {
    fn new<W: Write + Send>(block: &'a BlockReader, writer: &BlockWriter<W>) -> Result<Self, MergeError> {
        let in_order = block.is_in_order().map_err(|source| MergeError::Input { block: block.meta().block_id, source })?;
        let fits = in_order && block.file.is_like_written() && block.meta().dedicated_columns == writer.dedicated_columns();
        let rows = if fits {
            Rows::Columns { group: 0, row: 0, current: None }
        } else {
            Rows::Otlp { traces: Box::new(block.traces()), next: None }
        };
        let mut side = Self { block, head: None, rows };
        side.find_head(None)?;
        Ok(side)
    }

    fn unread(&self, source: ReadError) -> MergeError {
        MergeError::Input { block: self.block.meta().block_id, source }
    }

    /// Finds the trace at the current place, or the first after it.
    fn find_head(&mut self, previous: Option<TraceId>) -> Result<(), MergeError> {
        let block = self.block;
        let found = match &mut self.rows {
            Rows::Columns { group, row, current } => loop {
                if *group >= block.row_groups() {
                    break Ok(None);
                }
                match block.file.group_ids(*group).map(GroupIds::by_row) {
                    Ok(ids) if *row < ids.len() => break Ok(Some(ids[*row])),
                    Ok(_) => (*group, *row, *current) = (*group + 1, 0, None),
                    Err(error) => break Err(error),
                }
            },
            Rows::Otlp { traces, next } => traces.next().transpose().map(|trace| {
                let (id, spans) = trace.unzip();
                *next = spans;
                id
            }),
        };
        self.head = found.map_err(|error| self.unread(error))?;
        match (previous, self.head) {
            (Some(previous), Some(head)) if head <= previous => {
                let reason = format!("trace {head} comes after trace {previous}");
                Err(MergeError::BadInput { block: self.block.meta().block_id, reason })
            }
            _ => Ok(()),
        }
    }

    /// Decodes the row group of the current trace if that has not been done, and counts the trace's spans.
    fn load(&mut self) -> Result<u64, MergeError> {
        let block = self.block;
        match &mut self.rows {
            Rows::Columns { group, row, current } => {
                if current.is_none() {
                    let columns = block.row_group(*group).map_err(|source| MergeError::Input { block: block.meta().block_id, source })?;
                    let mut rows = RowSource::new(columns);
                    (0..=*row).for_each(|_| rows.next_row());
                    *current = Some(rows);
                }
                Ok(current.as_ref().map_or(0, RowSource::spans))
            }
            Rows::Otlp { next, .. } => {
                let resources = next.iter().flatten();
                Ok(resources.flat_map(|resource| &resource.scope_spans).map(|scope| scope.spans.len() as u64).sum())
            }
        }
    }

    /// The current trace.
    fn otlp(&mut self, id: TraceId) -> Result<Vec<ResourceSpans>, MergeError> {
        let block = self.block;
        match &mut self.rows {
            Rows::Otlp { next, .. } => Ok(next.take().unwrap_or_default()),
            Rows::Columns { group, row, .. } => {
                let trace = block.trace_at(*group, *row).map_err(|error| self.unread(error))?;
                trace
                    .filter(|(found, _)| *found == id)
                    .map(|(_, spans)| spans)
                    .ok_or(MergeError::BadInput { block: block.meta().block_id, reason: format!("trace {id} is not in its row") })
            }
        }
    }

    fn advance(&mut self) -> Result<(), MergeError> {
        if let Rows::Columns { row, current, .. } = &mut self.rows {
            *row += 1;
            if let Some(current) = current {
                current.next_row();
            }
        }
        self.find_head(self.head)
    }

    /// Whether a whole row group comes next that ends before `beyond`.
    fn has_row_group_before(&self, beyond: Option<TraceId>) -> bool {
        let Rows::Columns { group, row: 0, .. } = &self.rows else { return false };
        let last = self.block.file.group_ids(*group).ok().and_then(|ids| ids.by_row().last());
        self.block.file.is_packed(*group) && last.is_some_and(|last| beyond.is_none_or(|beyond| *last < beyond))
    }

    /// Takes over the row group that comes next, and counts its spans.
    fn pass_row_group<W: Write + Send>(&mut self, writer: &mut BlockWriter<W>) -> Result<u64, MergeError> {
        let block = self.block;
        let Rows::Columns { group, row, current } = &mut self.rows else { return Ok(0) };
        let ids = block.file.group_ids(*group).map_err(|source| MergeError::Input { block: block.meta().block_id, source })?.by_row();
        let last = ids.last().copied();
        let spans = writer.copy_row_group(block, *group, ids).map_err(MergeError::Output)?;
        (*group, *row, *current) = (*group + 1, 0, None);
        self.find_head(last)?;
        Ok(spans)
    }
}
