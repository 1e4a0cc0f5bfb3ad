use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

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

/// A process that was killed lets go sooner.
const LOCK_PATIENCE: Duration = Duration::from_secs(30);
const LOCK_RETRY_PERIOD: Duration = Duration::from_millis(100);

/// The library says so in words only.
fn is_in_use(error: &LedgerError) -> bool {
    matches!(&error.source, sled::Error::Io(error) if error.to_string().contains("could not acquire lock"))
}

/// What is in the bucket: which segments, and which blocks of this instance lately.
///
/// Can be lost: then segments are flushed twice, and readers and compaction drop the copies.
///
/// Tree `covered`: unix seconds (big-endian u64), 16 random bytes, primary -> a `ReleaseRequest`.
/// Tree `adopted`: the same, of segments that were taken over from their primaries.
/// Tree `served`: block id -> a `ServedBlock`.
#[derive(Debug)]
pub(crate) struct Ledger {
    path: PathBuf,
    covered: sled::Tree,
    adopted: sled::Tree,
    served: sled::Tree,
    db: sled::Db,
}

impl Ledger {
    /// Opens the ledger; one that is damaged is set aside and a new one begun. One that another process uses is waited for:
    /// a pod that was deleted without grace may still be ending while its successor starts. Blocks the thread.
    ///
    /// # Errors
    /// The folder cannot be used, or another process still uses it after a while.
    pub(crate) fn open(path: &Path) -> Result<Self, LedgerError> {
        let deadline = Instant::now() + LOCK_PATIENCE;
        let mut opened = Self::try_open(path);
        if opened.as_ref().is_err_and(is_in_use) {
            tracing::warn!(path = %path.display(), patience_seconds = LOCK_PATIENCE.as_secs(), "waiting for another process to let go of the ledger");
        }
        while opened.as_ref().is_err_and(is_in_use) && Instant::now() < deadline {
            std::thread::sleep(LOCK_RETRY_PERIOD);
            opened = Self::try_open(path);
        }
        match opened {
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
            let tree = |name| db.open_tree(name);
            Ok(Self { path: path.to_owned(), covered: tree("covered")?, adopted: tree("adopted")?, served: tree("served")?, db })
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
        for (primary, set) in covers {
            insert(&self.covered, primary, set, now_unix_seconds).map_err(self.error())?;
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

    /// Segments of another primary are live here from now on, until they are in the bucket. On disk when this returns.
    pub(crate) fn adopt(&self, primary: &str, segments: &SegmentSet, now_unix_seconds: u64) -> Result<(), LedgerError> {
        insert(&self.adopted, primary, segments, now_unix_seconds).map_err(self.error())?;
        self.db.flush().map_err(self.error())?;
        Ok(())
    }

    /// The segments that were taken over, by primary; those that are in the bucket by now among them.
    pub(crate) fn adopted(&self) -> Result<BTreeMap<String, SegmentSet>, LedgerError> {
        self.segments(&self.adopted, None)
    }

    /// The segments that are known to be in the bucket, by primary; of one primary or of all.
    pub(crate) fn covered(&self, of_primary: Option<&str>) -> Result<BTreeMap<String, SegmentSet>, LedgerError> {
        self.segments(&self.covered, of_primary)
    }

    fn segments(&self, tree: &sled::Tree, of_primary: Option<&str>) -> Result<BTreeMap<String, SegmentSet>, LedgerError> {
        let mut segments: BTreeMap<String, SegmentSet> = BTreeMap::new();
        for entry in tree.iter() {
            let (key, value) = entry.map_err(self.error())?;
            if of_primary.is_some_and(|primary| key.get(24..) != Some(primary.as_bytes())) {
                continue;
            }
            let decoded = ReleaseRequest::decode(&value[..]).ok().and_then(|r| Some((r.primary, SegmentSet::from_proto(&r.covered)?)));
            match decoded {
                Some((primary, set)) => segments.entry(primary).or_default().merge(&set),
                None => tracing::warn!(path = %self.path.display(), "invalid entry in the ledger skipped"),
            }
        }
        Ok(segments)
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
        for tree in [&self.covered, &self.adopted] {
            for key in tree.range(..flushed_before_unix_seconds.to_be_bytes()).keys() {
                tree.remove(key.map_err(self.error())?).map_err(self.error())?;
            }
        }
        Ok(())
    }
}

fn insert(tree: &sled::Tree, primary: &str, segments: &SegmentSet, now_unix_seconds: u64) -> Result<(), sled::Error> {
    let mut key = now_unix_seconds.to_be_bytes().to_vec();
    // Only to tell entries of one second apart.
    key.extend_from_slice(uuid::Uuid::new_v4().as_bytes());
    key.extend_from_slice(primary.as_bytes());
    let value = ReleaseRequest { primary: primary.to_owned(), covered: segments.to_proto() }.encode_to_vec();
    tree.insert(key, value).map(|_| ())
}
