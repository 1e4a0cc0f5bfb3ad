//! What an ingester has, and how it comes back at a start: whose each logged segment is, and whether it is in the bucket already.
//! What is done with it is in `push`, `flush`, `query`, `takeover` and `handover`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::{Notify, RwLock, watch};
use tokio_util::sync::CancellationToken;
use vivace_core::{TenantId, files};
use vivace_ring::Ring;
use vivace_server::clock;
use vivace_storage::Bucket;

use crate::aside::set_aside;
use crate::head::Summarized;
use crate::held::Held;
use crate::ledger::{Ledger, LedgerError};
use crate::limits::{LimitsOf, TenantLimits};
use crate::live::{Inserted, Live};
use crate::lock::{InUse, Lock};
use crate::log::{self, Log, LogError, ReadError};
use crate::metrics::{BLOCKS_CLEARED, REPLAY_ERRORS};
use crate::segment::{Segment, traces_of};
use crate::segment_set::SegmentSet;
use crate::served::ServedBlock;
use crate::settings::Settings;

/// File in the log's parent folder: ids under which this instance was a primary, one a line.
const FORMER_IDS: &str = "instance-ids";

/// What an ingester holds, and the log and bucket behind it.
pub(crate) struct Ingester {
    /// This instance's id in the ring.
    pub(crate) id: Arc<str>,
    /// Its disk is new: what it had before it was started, if anything, is lost here.
    pub(crate) starts_empty: bool,
    pub(crate) settings: Settings,
    pub(crate) live: Live,
    pub(crate) held: Held,
    pub(crate) ledger: Ledger,
    pub(crate) log: Log,
    pub(crate) bucket: Bucket,
    pub(crate) ring: Ring,
    pub(crate) limits: TenantLimits,
    /// Pushes hold it for reading while they run, so that whoever closes it waits for them.
    pub(crate) gate: RwLock<Gate>,
    /// Wakes the flush loop before its time.
    pub(crate) flush_wanted: Notify,
    /// Counts heads that are done.
    pub(crate) flushed: watch::Sender<u64>,
    /// The flush loop has ended, in order or not.
    pub(crate) flushing_over: CancellationToken,
    /// Everything is to be flushed before the process ends.
    flush_on_drain: AtomicBool,
    /// How often segments were taken over. Locked while they turn from held to live, so that a query sees each of them in one place.
    pub(crate) takeovers: parking_lot::RwLock<u64>,
    /// Not yet a member: what this instance had before it was started may still be elsewhere, so it neither takes nor answers.
    joining: AtomicBool,
    /// Last, so that the log is closed when another process gets it.
    _lock: Lock,
}

/// Whether pushes are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Gate {
    Open,
    /// The process is going away.
    Closed,
}

/// Why an ingester cannot start.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StartError {
    #[error("could not read the write-ahead log")]
    Replay(#[from] ReadError),
    #[error("could not open the write-ahead log")]
    Log(#[from] LogError),
    #[error("could not open the ledger")]
    Ledger(#[from] LedgerError),
    #[error("the folder of the write-ahead log is in use")]
    InUse(#[from] InUse),
    #[error("could not prepare {path}")]
    Folder {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
}

impl Ingester {
    /// Opens log and ledger, and brings back what an earlier process held. Blocks the thread until all is read. Needs no room to write:
    /// without any, what is here is served and flushed, and pushes are refused until there is some.
    ///
    /// # Errors
    /// A folder or a file cannot be read or written. Damaged data is no error: it is logged, counted and kept; what can be made anew is
    /// set aside.
    pub(crate) fn open(id: Arc<str>, settings: Settings, bucket: Bucket, ring: Ring, limits: LimitsOf) -> Result<Self, StartError> {
        let folder =
            |path: &Path, result: std::io::Result<()>| result.map_err(|source| StartError::Folder { path: path.to_owned(), source });
        folder(&settings.wal, std::fs::create_dir_all(&settings.wal))?;
        let lock = Lock::take(&settings.wal)?;
        for former in settings.former_folders().into_iter().filter(|former| former.is_dir()) {
            if let Err(error) = std::fs::remove_dir_all(&former) {
                tracing::warn!(path = %former.display(), %error, "folder of an earlier version not removed");
            }
        }
        let log_folder = settings.log_folder();
        if std::fs::symlink_metadata(&log_folder).is_ok() && !log_folder.is_dir() {
            let aside = set_aside(&log_folder);
            tracing::warn!(path = %log_folder.display(), "no folder in the place of the write-ahead log: it is set aside as ….corrupt and the log begun anew");
            folder(&log_folder, aside.map(drop))?;
        }
        let ledger = Ledger::open(&settings.ledger_file())?;
        let (covered, adopted) = (ledger.covered(), ledger.adopted());
        let live = Live::new(&settings.budget);
        let starts_empty = std::fs::symlink_metadata(settings.wal.join(FORMER_IDS)).is_err();
        let former_ids = remember_id(&settings.wal, &id);
        let served_from = clock::unix_seconds().saturating_sub(settings.complete_block_timeout.as_secs());
        for block in ledger.served().into_iter().filter(|block| block.flushed_unix_seconds >= served_from) {
            let is_own = former_ids.iter().any(|former| *former == *block.writer);
            live.serve(if is_own { Arc::new(ServedBlock { writer: Arc::clone(&id), ..ServedBlock::clone(&block) }) } else { block });
        }
        let held = Held::default();
        let mut taken_over: BTreeMap<TenantId, Vec<Summarized>> = BTreeMap::new();
        let mut unneeded: BTreeMap<u64, u64> = BTreeMap::new();
        let mut unusable: BTreeSet<u64> = BTreeSet::new();
        let mut segments = 0u64;
        let replayed = log::replay(&log_folder, |header, payload, at| {
            segments += 1;
            let is_covered = covered.get(&*header.primary).is_some_and(|set| set.contains(&header.id));
            let is_own = former_ids.iter().any(|former| *former == *header.primary);
            let is_live = is_own || adopted.get(&*header.primary).is_some_and(|set| set.contains(&header.id));
            let is_needed = !is_covered
                && if is_live {
                    let segment = Segment { header, at: at.clone() };
                    match traces_of(&segment.header, &payload, settings.slack_nanos()) {
                        Ok(traces) if is_own => live.insert(Arc::new(segment), &traces, settings.max_block_bytes) != Inserted::Known,
                        Ok(traces) => {
                            taken_over.entry(segment.header.tenant.clone()).or_default().push((Arc::new(segment), traces));
                            true
                        }
                        Err(error) => {
                            let tenant = segment.header.tenant.to_string();
                            tracing::error!(tenant, segment = ?segment.header.id, path = %at.file.path.display(), offset = at.offset, bytes = at.len, %error,
                                "logged segment cannot be used: it is left out, the log's file with it is set aside");
                            metrics::counter!(REPLAY_ERRORS.name, "tenant" => tenant).increment(1);
                            unusable.insert(at.file.number);
                            false
                        }
                    }
                } else {
                    held.insert(Segment { header, at: at.clone() })
                };
            if !is_needed {
                *unneeded.entry(at.file.number).or_default() += 1;
            }
        })?;
        for (tenant, segments) in taken_over {
            live.adopt(&tenant, segments);
        }
        let log = Log::open(&log_folder, &replayed)?;
        unusable.into_iter().for_each(|file| log.damaged(file));
        for (file, records) in unneeded {
            log.release(file, records);
        }
        if segments > 0 {
            tracing::info!(files = replayed.len(), segments, live_bytes = live.memory_bytes(), "write-ahead log replayed");
        }
        let limits = TenantLimits::new(limits, ring.clone(), settings.block.clone());
        let gate = RwLock::new(Gate::Open);
        let flush_on_drain = AtomicBool::new(settings.flush_all_on_shutdown);
        let (flush_wanted, flushed) = (Notify::new(), watch::Sender::new(0));
        let (takeovers, joining) = (parking_lot::RwLock::new(0), AtomicBool::new(false));
        Ok(Self {
            id,
            starts_empty,
            settings,
            live,
            held,
            ledger,
            log,
            bucket,
            ring,
            limits,
            gate,
            flush_wanted,
            flushed,
            flushing_over: CancellationToken::new(),
            flush_on_drain,
            takeovers,
            joining,
            _lock: lock,
        })
    }

    /// Neither pushes are taken nor queries answered while it is so.
    pub(crate) fn set_joining(&self, joining: bool) {
        self.joining.store(joining, Ordering::Release);
    }

    pub(crate) fn is_joining(&self) -> bool {
        self.joining.load(Ordering::Acquire)
    }

    /// Everything is flushed when the process ends, whatever the configuration says.
    pub(crate) fn flush_on_drain(&self) {
        self.flush_on_drain.store(true, Ordering::Relaxed);
    }

    /// Refuses pushes, finishes those under way, and flushes everything where that is wanted. Otherwise the log keeps it.
    pub(crate) async fn drain(&self) {
        *self.gate.write().await = Gate::Closed;
        if self.flush_on_drain.load(Ordering::Relaxed) && self.settings.flush_object_storage {
            self.flush_everything().await;
        }
    }

    /// Whether every segment that is live here is in the bucket.
    pub(crate) fn is_flushed(&self) -> bool {
        self.live.is_flushed()
    }

    /// A primary, or who flushed in its place, says what is in the bucket. Blocks the thread.
    ///
    /// # Errors
    /// The ledger cannot be written; the segments are dropped all the same.
    pub(crate) fn release(&self, primary: &str, covered: &SegmentSet, now_unix_seconds: u64) -> Result<(), LedgerError> {
        let released = self.held.remove(primary, covered);
        if released.is_empty() {
            return Ok(());
        }
        // Before the log forgets them, so that a start in between does not bring them back.
        let set: SegmentSet = released.iter().map(|s| s.header.id).collect();
        let recorded = self.ledger.released(primary, &set, now_unix_seconds);
        self.forget_records(&released);
        recorded
    }

    /// These segments' records are not needed any more.
    pub(crate) fn forget_records(&self, segments: &[Arc<Segment>]) {
        let mut files: BTreeMap<u64, u64> = BTreeMap::new();
        for segment in segments {
            *files.entry(segment.at.file.number).or_default() += 1;
        }
        for (file, records) in files {
            self.log.release(file, records);
        }
    }

    /// What this primary knows of segments that a follower holds for it.
    pub(crate) fn covered(&self, held: &SegmentSet) -> (SegmentSet, SegmentSet) {
        // The pending ones first: what is flushed in between is then in both, and pending wins until the next question.
        let pending = held.intersection(&self.live.own_ids());
        let covered = self.ledger.covered_of(&self.id);
        (held.intersection(&covered), pending)
    }

    /// The segments of this primary that are in its log or in the bucket.
    pub(crate) fn known(&self) -> SegmentSet {
        let mut known = self.live.own_ids();
        known.merge(&self.ledger.covered_of(&self.id));
        known
    }

    /// Blocks that queriers know by now are not served any more.
    pub(crate) fn clear(&self, now_unix_seconds: u64) {
        let before = now_unix_seconds.saturating_sub(self.settings.complete_block_timeout.as_secs());
        let cleared: usize = self.live.tenants().iter().map(|tenant| tenant.clear(before)).sum();
        if cleared > 0 {
            metrics::counter!(BLOCKS_CLEARED.name).increment(cleared as u64);
        }
    }
}

/// Adds the id to those under which this folder's log was written, and returns all of them.
///
/// What an instance logged as a primary stays its own when it comes back under another name, as containers do. Where the file of
/// former ids cannot be read or written, what was logged under another name is held, and taken over when that name does not come.
fn remember_id(wal: &Path, id: &str) -> Vec<String> {
    let path = wal.join(FORMER_IDS);
    let text = match files::check(&path).and_then(|()| std::fs::read(&path)) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
        Err(error) => {
            let aside = set_aside(&path);
            tracing::warn!(path = %path.display(), %error, is_set_aside = aside.is_ok(), "former ids of this instance cannot be read: they are begun anew");
            String::new()
        }
        Ok(bytes) => String::from_utf8(bytes).unwrap_or_else(|error| {
            tracing::warn!(path = %path.display(), "former ids of this instance are no text: lines that are none are left out");
            let lines = error.as_bytes().split(|byte| *byte == b'\n').filter_map(|line| std::str::from_utf8(line).ok());
            lines.collect::<Vec<_>>().join("\n")
        }),
    };
    let mut ids: Vec<String> = text.lines().filter(|line| !line.is_empty()).map(str::to_owned).collect();
    let is_known = ids.iter().any(|former| former == id);
    if !is_known {
        ids.push(id.to_owned());
    }
    let wanted = ids.join("\n") + "\n";
    if wanted != text
        && let Err(error) = write_ids(&path, &wanted)
    {
        tracing::warn!(path = %path.display(), %error, "id of this instance not noted: under another name it does not know its log as its own");
    }
    ids
}

fn write_ids(path: &Path, text: &str) -> std::io::Result<()> {
    let new = path.with_extension("new");
    let written =
        std::fs::write(&new, text).and_then(|()| std::fs::File::open(&new)?.sync_all()).and_then(|()| std::fs::rename(&new, path));
    let written = written.and_then(|()| files::sync_folder_of(path));
    if written.is_err() {
        let _ = std::fs::remove_file(&new);
    }
    written
}
