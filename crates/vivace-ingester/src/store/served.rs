//! A block that ingesters answer from although it is in the bucket already, and the message that names it: sent to other
//! ingesters, and kept in the ledger.

use std::sync::Arc;

use vivace_block::BlockMeta;
use vivace_proto::vivace::v1 as proto;

/// A block in the bucket that ingesters answer from until all queriers know it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct ServedBlock {
    pub(crate) meta: BlockMeta,
    pub(crate) flushed_unix_seconds: u64,
    /// The instance that wrote it, and answers from it as long as it can.
    pub(crate) writer: Arc<str>,
}

impl ServedBlock {
    /// Whether `instance` answers from it when these instances answer: its writer does, and without it all others that know it.
    pub(super) fn is_answered_by(&self, instance: &str, answering: &[String]) -> bool {
        *self.writer == *instance || answering.iter().all(|other| **other != *self.writer)
    }

    pub(crate) fn to_proto(&self) -> proto::ServedBlock {
        proto::ServedBlock {
            meta: self.meta.to_json().into(),
            writer: self.writer.to_string(),
            flushed_unix_seconds: self.flushed_unix_seconds,
        }
    }

    /// # Errors
    /// What is wrong with the block's meta.
    pub(crate) fn from_proto(block: proto::ServedBlock) -> Result<Self, String> {
        let meta = BlockMeta::from_json(&block.meta, "another ingester").map_err(|error| error.to_string())?;
        Ok(Self { meta, flushed_unix_seconds: block.flushed_unix_seconds, writer: block.writer.into() })
    }
}

#[cfg(test)]
mod tests {
    use vivace_block::{BlockOptions, BlockWriter, SpanRef};
    use vivace_core::{BlockId, TenantId, TraceId};

    use super::*;

    fn meta() -> BlockMeta {
        let mut writer = BlockWriter::new(BlockOptions::default(), TenantId::single(), BlockId([1; 16]), Vec::new(), 1).expect("starts");
        writer.push_trace(TraceId([1; 16]), &[SpanRef { resource: &[], scope: &[], span: &[10, 1, 1] }]).expect("taken");
        writer.finish().expect("finished").meta
    }

    #[test]
    fn a_block_survives_its_message() {
        let block = ServedBlock { meta: meta(), flushed_unix_seconds: 7, writer: "a".into() };
        assert_eq!(ServedBlock::from_proto(block.to_proto()), Ok(block));
        let bad = proto::ServedBlock { meta: b"{".to_vec().into(), ..proto::ServedBlock::default() };
        assert!(ServedBlock::from_proto(bad).is_err());
    }
}
