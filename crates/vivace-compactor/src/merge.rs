//! Makes one block of several, in a file. Blocks the thread it runs on.

use std::fs::File;
use std::io::BufWriter;
use std::path::Path;
use std::sync::Arc;

use tokio_util::sync::CancellationToken;
use vivace_block::{BlockMeta, BlockOptions, BlockReader, BlockWriter, MergedBlock, ReadAt, ReadError};
use vivace_core::BlockId;

/// What the file is written through.
const WRITE_BUFFER_BYTES: usize = 1 << 20;

/// One side of the merge: a block and where its `data.parquet` is read.
pub struct Input {
    /// What is known of it.
    pub meta: BlockMeta,
    /// Its columns.
    pub source: Arc<dyn ReadAt>,
}

/// Why there is no merged block. The inputs are as they were.
#[derive(Debug, thiserror::Error)]
pub enum MergeError {
    /// The blocks cannot be merged, or their merging was stopped.
    #[error(transparent)]
    Block(#[from] vivace_block::MergeError),
    /// The file for the output cannot be made.
    #[error("could not write {path}")]
    File {
        /// Where.
        path: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
}

impl MergeError {
    /// The input without which the others might be merged: trying again with it gives the same.
    #[must_use]
    pub fn bad_input(&self) -> Option<BlockId> {
        use vivace_block::MergeError as Of;
        match self {
            Self::Block(Of::BadInput { block, .. }) => Some(*block),
            Self::Block(Of::Input { block, source }) => match source {
                ReadError::Format { .. } | ReadError::Corrupt { .. } | ReadError::Unsupported { .. } => Some(*block),
                ReadError::Io { source, .. } => (source.kind() == std::io::ErrorKind::UnexpectedEof).then_some(*block),
            },
            Self::Block(Of::Output(_) | Of::Stopped) | Self::File { .. } => None,
        }
    }

    /// Whether nothing is wrong: the process stops, or the work went to another.
    #[must_use]
    pub fn is_stop(&self) -> bool {
        matches!(self, Self::Block(vivace_block::MergeError::Stopped))
    }
}

/// Merges blocks into a file; see [`vivace_block::merge`].
///
/// # Errors
/// [`MergeError`]; what is in the file then is of no use.
pub fn merge(
    inputs: Vec<Input>,
    options: BlockOptions,
    block_id: BlockId,
    out: &Path,
    stop: &CancellationToken,
) -> Result<MergedBlock<BufWriter<File>>, MergeError> {
    use vivace_block::MergeError as Of;
    let file = File::create(out).map_err(|source| MergeError::File { path: out.display().to_string(), source })?;
    let Some(tenant) = inputs.first().map(|input| input.meta.tenant_id.clone()) else { return Err(Of::Stopped.into()) };
    let expected_traces = inputs.iter().map(|input| input.meta.total_objects).fold(0, u64::saturating_add);
    let file = BufWriter::with_capacity(WRITE_BUFFER_BYTES, file);
    let writer = BlockWriter::new(options, tenant, block_id, file, expected_traces).map_err(Of::Output)?;
    let open = |input: Input| {
        let block = input.meta.block_id;
        BlockReader::open(input.meta, input.source).map_err(|source| Of::Input { block, source })
    };
    let blocks = inputs.into_iter().map(open).collect::<Result<Vec<_>, _>>()?;
    Ok(vivace_block::merge(&blocks, writer, &|| !stop.is_cancelled())?)
}
