//! How a start brings back what an earlier process had: whose each logged segment is, and whether it is in the bucket already.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use vivace_core::TenantId;
use vivace_server::clock;

use super::aside::set_aside;
use super::head::Summarized;
use super::held::Held;
use super::ledger::{Ledger, LedgerError};
use super::live::{Inserted, Live};
use super::lock::{InUse, Lock};
use super::own_ids;
use super::served::ServedBlock;
use crate::header::SegmentHeader;
use crate::log::{self, Log, LogError, LogPosition, ReadError};
use crate::metrics::REPLAY_ERRORS;
use crate::segment::{Segment, SegmentError, traces_of};
use crate::segment_set::SegmentSet;
use crate::settings::Settings;

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
    #[error("could not prepare {path} (storage.trace.wal.path)")]
    Folder {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
}

/// What an earlier process left, in use again.
pub(super) struct Opened {
    pub(super) live: Live,
    pub(super) held: Held,
    pub(super) ledger: Ledger,
    pub(super) log: Log,
    pub(super) starts_empty: bool,
    pub(super) lock: Lock,
}

/// Opens log and ledger of the instance `id`. Blocks the thread until all is read. Needs no room to write: without any, what is here
/// is served and flushed, and pushes are refused until there is some.
///
/// # Errors
/// A folder or a file cannot be read or written. Damaged data is no error: it is logged, counted and kept; what can be made anew is
/// set aside.
pub(super) fn open(id: &Arc<str>, settings: &Settings) -> Result<Opened, StartError> {
    let lock = take_folder(settings)?;
    let log_folder = log_folder(settings)?;
    let ledger = Ledger::open(&settings.ledger_file())?;
    let starts_empty = own_ids::is_new(&settings.wal);
    let own_ids = own_ids::remember(&settings.wal, id);
    let (live, held) = (Live::new(&settings.budget), Held::default());
    serve_again(&live, &ledger, settings, id, &own_ids);
    let mut replay = Replay {
        settings,
        own_ids: &own_ids,
        covered: ledger.covered(),
        adopted: ledger.adopted(),
        live: &live,
        held: &held,
        segments: 0,
        to_adopt: BTreeMap::new(),
        unneeded: BTreeMap::new(),
        unusable: BTreeSet::new(),
    };
    let files = log::replay(&log_folder, |header, payload, at| replay.visit(Segment { header, at }, &payload))?;
    let log = Log::open(&log_folder, &files)?;
    replay.finish(&log, files.len());
    Ok(Opened { live, held, ledger, log, starts_empty, lock })
}

/// Makes the folder, for this process alone.
fn take_folder(settings: &Settings) -> Result<Lock, StartError> {
    let wal = &settings.wal;
    std::fs::create_dir_all(wal).map_err(|source| StartError::Folder { path: wal.clone(), source })?;
    let lock = Lock::take(wal)?;
    for former in settings.former_folders().into_iter().filter(|former| former.is_dir()) {
        if let Err(error) = std::fs::remove_dir_all(&former) {
            tracing::warn!(path = %former.display(), %error, "folder of an earlier version not removed");
        }
    }
    Ok(lock)
}

/// The place of the log, with nothing in it that is no folder.
fn log_folder(settings: &Settings) -> Result<PathBuf, StartError> {
    let folder = settings.log_folder();
    if std::fs::symlink_metadata(&folder).is_ok() && !folder.is_dir() {
        let aside = set_aside(&folder);
        tracing::warn!(path = %folder.display(), "no folder in the place of the write-ahead log: it is set aside as ….corrupt and the log begun anew");
        aside.map_err(|source| StartError::Folder { path: folder.clone(), source })?;
    }
    Ok(folder)
}

/// Serves the blocks that queriers may not know yet. Those that were written under another name are this instance's all the same.
fn serve_again(live: &Live, ledger: &Ledger, settings: &Settings, id: &Arc<str>, own_ids: &[String]) {
    let served_from = clock::unix_seconds().saturating_sub(settings.complete_block_timeout.as_secs());
    for block in ledger.served().into_iter().filter(|block| block.flushed_unix_seconds >= served_from) {
        let is_own = own_ids.iter().any(|own| **own == *block.writer);
        live.serve(if is_own { Arc::new(ServedBlock { writer: Arc::clone(id), ..ServedBlock::clone(&block) }) } else { block });
    }
}

/// A replay under way.
struct Replay<'a> {
    settings: &'a Settings,
    own_ids: &'a [String],
    covered: BTreeMap<Arc<str>, SegmentSet>,
    adopted: BTreeMap<Arc<str>, SegmentSet>,
    live: &'a Live,
    held: &'a Held,
    /// How many there were so far.
    segments: u64,
    /// Live all together once everything has been read: each tenant's are one head.
    to_adopt: BTreeMap<TenantId, Vec<Summarized>>,
    /// Records of each file that nobody needs.
    unneeded: BTreeMap<u64, u64>,
    /// Files with segments that cannot be used.
    unusable: BTreeSet<u64>,
}

impl Replay<'_> {
    fn visit(&mut self, segment: Segment, payload: &Bytes) {
        self.segments += 1;
        let file = segment.at.file.number;
        if has(&self.covered, &segment.header) || !self.place(segment, payload) {
            *self.unneeded.entry(file).or_default() += 1;
        }
    }

    /// Puts a segment that is in no block where it belongs. False when its record is not needed.
    fn place(&mut self, segment: Segment, payload: &Bytes) -> bool {
        let is_own = self.own_ids.iter().any(|own| **own == *segment.header.primary);
        if !is_own && !has(&self.adopted, &segment.header) {
            return self.held.insert(segment);
        }
        match traces_of(&segment.header, payload, self.settings.slack_nanos()) {
            Ok(traces) if is_own => self.live.insert(Arc::new(segment), &traces, self.settings.max_block_bytes) != Inserted::Known,
            Ok(traces) => {
                self.to_adopt.entry(segment.header.tenant.clone()).or_default().push((Arc::new(segment), traces));
                true
            }
            Err(error) => {
                self.leave_out(&segment, &error);
                false
            }
        }
    }

    fn leave_out(&mut self, Segment { header, at: LogPosition { file, offset, len } }: &Segment, error: &SegmentError) {
        let tenant = header.tenant.to_string();
        tracing::error!(tenant, segment = ?header.id, path = %file.path.display(), offset, bytes = len, %error,
            "logged segment cannot be used: it is left out, the log's file with it is set aside");
        metrics::counter!(REPLAY_ERRORS.name, "tenant" => tenant).increment(1);
        self.unusable.insert(file.number);
    }

    /// What is to be done once the log is open again.
    fn finish(self, log: &Log, files: usize) {
        for (tenant, segments) in self.to_adopt {
            self.live.adopt(&tenant, segments);
        }
        self.unusable.into_iter().for_each(|file| log.damaged(file));
        for (file, records) in self.unneeded {
            log.forget(file, records);
        }
        if self.segments > 0 {
            tracing::info!(files, segments = self.segments, live_bytes = self.live.memory_bytes(), "write-ahead log replayed");
        }
    }
}

fn has(sets: &BTreeMap<Arc<str>, SegmentSet>, header: &SegmentHeader) -> bool {
    sets.get(&*header.primary).is_some_and(|set| set.contains(&header.id))
}
