use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use prost::Message;
use vivace_core::BlockId;
use vivace_proto::vivace::v1::{self as proto, ReleaseRequest};

use crate::live::ServedBlock;
use crate::ranges::SegmentSet;

/// Why the ledger could not be read or written. None of it loses spans.
#[derive(Debug, thiserror::Error)]
#[error("ledger in {path}")]
pub(crate) struct LedgerError {
    path: PathBuf,
    #[source]
    source: sled::Error,
}

/// What is in the bucket: which segments, and which blocks of this instance lately.
///
/// Can be lost: then segments are flushed twice, and readers and compaction drop the copies.
///
/// Tree `covered`: unix seconds (big-endian u64), 16 random bytes, primary -> a `ReleaseRequest`.
/// Tree `served`: block id -> a `ServedBlock`.
#[derive(Debug)]
pub(crate) struct Ledger {
    path: PathBuf,
    covered: sled::Tree,
    served: sled::Tree,
    db: sled::Db,
}

impl Ledger {
    /// Opens the ledger; one that is damaged is set aside and a new one begun.
    ///
    /// # Errors
    /// The folder cannot be used, or another process uses it.
    pub(crate) fn open(path: &Path) -> Result<Self, LedgerError> {
        match Self::try_open(path) {
            Err(LedgerError { source: error @ (sled::Error::Corruption { .. } | sled::Error::ReportableBug(_)), .. }) => {
                tracing::error!(path = %path.display(), %error, "damaged ledger set aside: segments may be flushed twice");
                let aside = path.with_extension("corrupt");
                let _ = std::fs::remove_dir_all(&aside);
                std::fs::rename(path, &aside).map_err(|e| LedgerError { path: path.to_owned(), source: e.into() })?;
                Self::try_open(path)
            }
            result => result,
        }
    }

    fn try_open(path: &Path) -> Result<Self, LedgerError> {
        let open = || {
            // A small cache: the ledger is written per block and read at start.
            let db = sled::Config::new().path(path).cache_capacity(4 << 20).mode(sled::Mode::LowSpace).flush_every_ms(None).open()?;
            Ok(Self { path: path.to_owned(), covered: db.open_tree("covered")?, served: db.open_tree("served")?, db })
        };
        open().map_err(|source| LedgerError { path: path.to_owned(), source })
    }

    fn error(&self) -> impl Fn(sled::Error) -> LedgerError {
        |source| LedgerError { path: self.path.clone(), source }
    }

    /// Segments are in the bucket, in this block if it is to be served from here. On disk when this returns.
    pub(crate) fn flushed(
        &self,
        served: Option<&ServedBlock>,
        covers: &BTreeMap<Arc<str>, SegmentSet>,
        now_unix_seconds: u64,
    ) -> Result<(), LedgerError> {
        // Only to tell entries of one second apart.
        let unique = uuid::Uuid::new_v4();
        for (primary, set) in covers {
            let mut key = now_unix_seconds.to_be_bytes().to_vec();
            key.extend_from_slice(unique.as_bytes());
            key.extend_from_slice(primary.as_bytes());
            let value = ReleaseRequest { primary: primary.to_string(), covered: set.to_proto() }.encode_to_vec();
            self.covered.insert(key, value).map_err(self.error())?;
        }
        if let Some(served) = served {
            self.served.insert(served.meta.block_id.0, served.to_proto().encode_to_vec()).map_err(self.error())?;
        }
        self.db.flush().map_err(self.error())?;
        Ok(())
    }

    /// Another instance says that these are in the bucket. On disk when this returns.
    pub(crate) fn released(&self, primary: &str, covered: &SegmentSet, now_unix_seconds: u64) -> Result<(), LedgerError> {
        let covers = BTreeMap::from([(Arc::from(primary), covered.clone())]);
        self.flushed(None, &covers, now_unix_seconds)
    }

    /// The segments that are known to be in the bucket, by primary; of one primary or of all.
    pub(crate) fn covered(&self, of_primary: Option<&str>) -> Result<BTreeMap<String, SegmentSet>, LedgerError> {
        let mut covered: BTreeMap<String, SegmentSet> = BTreeMap::new();
        for entry in self.covered.iter() {
            let (key, value) = entry.map_err(self.error())?;
            if of_primary.is_some_and(|primary| key.get(24..) != Some(primary.as_bytes())) {
                continue;
            }
            let decoded = ReleaseRequest::decode(&value[..]).ok().and_then(|r| Some((r.primary, SegmentSet::from_proto(&r.covered)?)));
            match decoded {
                Some((primary, set)) => covered.entry(primary).or_default().merge(&set),
                None => tracing::warn!(path = %self.path.display(), "invalid entry in the ledger skipped"),
            }
        }
        Ok(covered)
    }

    /// Blocks are to be served from here. On disk when this returns.
    pub(crate) fn serve(&self, blocks: &[Arc<ServedBlock>]) -> Result<(), LedgerError> {
        for block in blocks {
            self.served.insert(block.meta.block_id.0, block.to_proto().encode_to_vec()).map_err(self.error())?;
        }
        self.db.flush().map_err(self.error())?;
        Ok(())
    }

    /// Blocks that may still have to be served.
    pub(crate) fn served(&self) -> Result<Vec<ServedBlock>, LedgerError> {
        let mut served = Vec::new();
        for entry in self.served.iter() {
            let (_, value) = entry.map_err(self.error())?;
            let block = proto::ServedBlock::decode(&value[..]).ok().and_then(|block| ServedBlock::from_proto(block).ok());
            match block {
                Some(block) => served.push(block),
                None => tracing::warn!(path = %self.path.display(), "invalid entry in the ledger skipped"),
            }
        }
        Ok(served)
    }

    /// A block is not served any more.
    pub(crate) fn cleared(&self, block: BlockId) -> Result<(), LedgerError> {
        self.served.remove(block.0).map(|_| ()).map_err(self.error())
    }

    /// Forgets which segments blocks before this covered.
    pub(crate) fn forget(&self, flushed_before_unix_seconds: u64) -> Result<(), LedgerError> {
        for key in self.covered.range(..flushed_before_unix_seconds.to_be_bytes()).keys() {
            self.covered.remove(key.map_err(self.error())?).map_err(self.error())?;
        }
        Ok(())
    }
}
