//! Makes one block of several. Blocks the thread it runs on.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use prost::Message;
use tokio_util::sync::CancellationToken;
use vivace_block::{BlockMeta, BlockOptions, BlockReader, BlockWriter, FinishedBlock, ReadAt, ReadError, SpanRef, WriteError};
use vivace_core::BlockId;

/// One side of the merge: a block and where its `data.parquet` is read.
pub struct Input {
    /// What is known of it.
    pub meta: BlockMeta,
    /// Its columns.
    pub source: Arc<dyn ReadAt>,
}

/// A merged block, and what came of merging.
#[derive(Debug)]
pub struct Merged {
    /// The block; its columns are in the file that was given.
    pub block: FinishedBlock<BufWriter<File>>,
    /// Traces that several inputs had.
    pub traces_combined: u64,
    /// Copies of spans that were dropped.
    pub spans_combined: u64,
}

/// Why there is no merged block. The inputs are as they were.
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
    /// The file for the output cannot be made or filled.
    #[error("could not write {path}")]
    File {
        /// Where.
        path: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The process stops, or the work went to another.
    #[error("the merge was stopped")]
    Stopped,
}

impl MergeError {
    /// The input without which the others might be merged: trying again with it gives the same.
    #[must_use]
    pub fn bad_input(&self) -> Option<BlockId> {
        match self {
            Self::BadInput { block, .. } => Some(*block),
            Self::Input { block, source } => match source {
                ReadError::Format { .. } | ReadError::Corrupt { .. } | ReadError::Unsupported { .. } => Some(*block),
                ReadError::Io { source, .. } => (source.kind() == std::io::ErrorKind::UnexpectedEof).then_some(*block),
            },
            Self::Output(_) | Self::File { .. } | Self::Stopped => None,
        }
    }
}

/// Merges blocks by trace id into one file: parts of a trace are combined, copies of a span dropped, nothing else is.
///
/// Holds one decoded row group per input and one of the output.
///
/// # Errors
/// [`MergeError`]; what is in the file then is of no use.
pub fn merge(
    inputs: Vec<Input>,
    options: BlockOptions,
    block_id: BlockId,
    out: &Path,
    stop: &CancellationToken,
) -> Result<Merged, MergeError> {
    let unwritable = |source| MergeError::File { path: out.display().to_string(), source };
    let file = File::create(out).map_err(unwritable)?;
    let Some(tenant) = inputs.first().map(|i| i.meta.tenant_id.clone()) else { return Err(MergeError::Stopped) };
    let metas: Vec<BlockMeta> = inputs.iter().map(|i| i.meta.clone()).collect();
    let expected_traces = metas.iter().map(|m| m.total_objects).fold(0, u64::saturating_add);
    let mut writer = BlockWriter::new(options, tenant, block_id, BufWriter::new(file), expected_traces).map_err(MergeError::Output)?;
    let unread = |block| move |source| MergeError::Input { block, source };
    let readers = inputs
        .into_iter()
        .map(|input| {
            let block = input.meta.block_id;
            BlockReader::open(input.meta, input.source).map_err(unread(block))
        })
        .collect::<Result<Vec<_>, _>>()?;
    let mut sides = Vec::with_capacity(readers.len());
    for reader in &readers {
        let block = reader.meta().block_id;
        let mut traces = reader.traces();
        let head = traces.next().transpose().map_err(unread(block))?;
        sides.push((block, traces, head));
    }

    let (mut traces_combined, mut spans_in) = (0, 0);
    let mut encoded = Encoded::default();
    while let Some(id) = sides.iter().filter_map(|(_, _, head)| head.as_ref().map(|(id, _)| *id)).min() {
        if stop.is_cancelled() {
            return Err(MergeError::Stopped);
        }
        let mut parts = Vec::new();
        for (block, traces, head) in &mut sides {
            if head.as_ref().is_none_or(|(head_id, _)| *head_id != id) {
                continue;
            }
            let next = traces.next().transpose().map_err(unread(*block))?;
            if let Some((next_id, _)) = &next
                && *next_id <= id
            {
                let reason = format!("trace {next_id} comes after trace {id}");
                return Err(MergeError::BadInput { block: *block, reason });
            }
            parts.extend(std::mem::replace(head, next).map(|(_, spans)| spans));
        }
        traces_combined += u64::from(parts.len() > 1);
        spans_in += parts.iter().flatten().flat_map(|r| &r.scope_spans).map(|s| s.spans.len() as u64).sum::<u64>();
        encoded.clear();
        for resource in vivace_core::combine::combine(parts) {
            let of_resource = encoded.put(resource.resource.as_ref());
            for scope in resource.scope_spans {
                let of_scope = encoded.put(scope.scope.as_ref());
                for span in &scope.spans {
                    let of_span = encoded.put(Some(span));
                    encoded.spans.push([of_resource.clone(), of_scope.clone(), of_span]);
                }
            }
        }
        writer.push_trace(id, &encoded.refs()).map_err(MergeError::Output)?;
    }
    drop(sides);

    let mut block = writer.finish().map_err(MergeError::Output)?;
    if block.invalid_spans > 0 {
        let first = metas.first().map(|m| m.block_id).unwrap_or_default();
        return Err(MergeError::BadInput { block: first, reason: format!("{} spans could not be written again", block.invalid_spans) });
    }
    block.out.flush().map_err(unwritable)?;
    let meta = &mut block.meta;
    // As the inputs say: their writers may have known better than the spans' own clocks.
    meta.start_unix_nanos = metas.iter().map(|m| m.start_unix_nanos).min().unwrap_or_default();
    meta.end_unix_nanos = metas.iter().map(|m| m.end_unix_nanos).max().unwrap_or_default();
    Ok(Merged { spans_combined: spans_in - block.spans, traces_combined, block })
}

/// The bytes of one trace's messages, kept from trace to trace.
#[derive(Default)]
struct Encoded {
    bytes: Vec<u8>,
    /// Resource, scope and span of each span.
    spans: Vec<[Range<usize>; 3]>,
}

impl Encoded {
    fn put(&mut self, message: Option<&impl Message>) -> Range<usize> {
        let start = self.bytes.len();
        if let Some(message) = message {
            message.encode(&mut self.bytes).expect("a vector grows");
        }
        start..self.bytes.len()
    }

    fn refs(&self) -> Vec<SpanRef<'_>> {
        let at = |range: &Range<usize>| &self.bytes[range.clone()];
        self.spans.iter().map(|[resource, scope, span]| SpanRef { resource: at(resource), scope: at(scope), span: at(span) }).collect()
    }

    fn clear(&mut self) {
        self.bytes.clear();
        self.spans.clear();
    }
}
