//! What could not be read, and is said to be missing in an answer.

use vivace_block::ReadError;
use vivace_storage::BucketError;

use super::error::QueryError;
use crate::metrics::LEFT_OUT;
use crate::segment::{Segment, SegmentError};
use crate::store::ServedBlock;

/// How much an answer lacks.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct LeftOut {
    segments: u64,
    blocks: u64,
}

impl LeftOut {
    /// A live segment that cannot be read.
    pub(crate) fn segment(&mut self, segment: &Segment, error: &SegmentError) {
        self.segments += 1;
        metrics::counter!(LEFT_OUT.name, "what" => "segment").increment(1);
        tracing::error!(tenant = %segment.header.tenant, segment = ?segment.header.id, %error, "segment left out of an answer");
    }

    /// A served block that cannot be read. One that has been compacted away meanwhile is known to queriers: it is no loss.
    ///
    /// # Errors
    /// The bucket did not answer: another try may read it.
    pub(crate) fn block(&mut self, block: &ServedBlock, error: ReadError) -> Result<(), QueryError> {
        match error {
            ReadError::Io { ref source, .. } if source.kind() == std::io::ErrorKind::NotFound => Ok(()),
            ReadError::Io { .. } => Err(QueryError::Unavailable(error.into())),
            error => {
                self.damaged(block, &error);
                Ok(())
            }
        }
    }

    /// The same for its filter.
    ///
    /// # Errors
    /// As [`LeftOut::block`].
    pub(crate) fn object(&mut self, block: &ServedBlock, error: BucketError) -> Result<(), QueryError> {
        match error {
            BucketError::Gone { .. } => Ok(()),
            error @ BucketError::Corrupt { .. } => {
                self.damaged(block, &error);
                Ok(())
            }
            error @ (BucketError::Unavailable { .. } | BucketError::LocalFile { .. }) => Err(QueryError::Unavailable(error.into())),
        }
    }

    fn damaged(&mut self, block: &ServedBlock, error: &(dyn std::error::Error + 'static)) {
        self.blocks += 1;
        metrics::counter!(LEFT_OUT.name, "what" => "block").increment(1);
        let (block_id, tenant) = (block.meta.block_id, &block.meta.tenant_id);
        tracing::error!(%block_id, %tenant, error, "flushed block is damaged, left out of an answer");
    }

    pub(crate) fn add(&mut self, other: Self) {
        self.segments += other.segments;
        self.blocks += other.blocks;
    }

    /// For the client; none when nothing is missing.
    pub(crate) fn warning(self) -> Option<String> {
        let Self { segments, blocks } = self;
        let some = |count: u64, what: &str| (count > 0).then(|| format!("{count} {what}{}", if count == 1 { "" } else { "s" }));
        let parts: Vec<String> = [some(segments, "segment"), some(blocks, "block")].into_iter().flatten().collect();
        (!parts.is_empty()).then(|| format!("recent spans are missing: {} could not be read", parts.join(" and ")))
    }
}
