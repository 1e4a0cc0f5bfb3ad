//! When a file of the log may go: records are counted as they are appended and forgotten, and a file of which none is needed is
//! deleted. One with damage is set aside instead, until those that are kept get too large together.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use parking_lot::Mutex;

use super::Replayed;
use super::names::SET_ASIDE;

/// Damaged files that are kept although all that is intact in them is in blocks, bytes; the oldest go first.
const SET_ASIDE_BYTES_MAX: u64 = 256 << 20;

/// The log's files and how many records of each are still needed. What nobody needs is deleted.
#[derive(Debug)]
pub(crate) struct Files {
    folder: PathBuf,
    set_aside_bytes_max: u64,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// By number.
    files: BTreeMap<u64, FileState>,
    /// The largest number so far.
    last: u64,
    /// The file that is appended to.
    current: Option<u64>,
}

#[derive(Debug, Default)]
struct FileState {
    path: PathBuf,
    needed: u64,
    bytes: u64,
    /// Holds what could not be read: set aside instead of deleted.
    damaged: bool,
}

impl Files {
    pub(super) fn new(folder: PathBuf, replayed: &[Replayed]) -> Self {
        Self::with_limit(folder, replayed, SET_ASIDE_BYTES_MAX)
    }

    pub(super) fn with_limit(folder: PathBuf, replayed: &[Replayed], set_aside_bytes_max: u64) -> Self {
        let state = |f: &Replayed| {
            // One that could not be opened is looked at again at the next start.
            let needed = if f.unreadable { u64::MAX } else { f.records };
            FileState { path: f.path.clone(), needed, bytes: f.bytes, damaged: f.lost.places > 0 }
        };
        let files: BTreeMap<u64, FileState> = replayed.iter().map(|f| (f.number, state(f))).collect();
        let last = files.keys().next_back().copied().unwrap_or(0);
        Self { folder, set_aside_bytes_max, state: Mutex::new(State { files, last, current: None }) }
    }

    /// The number for the next file.
    pub(super) fn next_number(&self) -> u64 {
        self.state.lock().last + 1
    }

    /// From now on `number` is appended to.
    pub(super) fn begin(&self, number: u64, path: PathBuf, bytes: u64) {
        let mut state = self.state.lock();
        (state.last, state.current) = (number, Some(number));
        state.files.insert(number, FileState { path, bytes, ..FileState::default() });
        drop(state);
        self.drop_unneeded();
    }

    /// Nothing is appended to the current file any more, so that it can go before there is room for another.
    pub(super) fn end(&self) {
        self.state.lock().current = None;
        self.drop_unneeded();
    }

    /// The current file has grown.
    pub(super) fn appended(&self, records: u64, bytes: u64) {
        let mut state = self.state.lock();
        let current = state.current;
        if let Some(file) = current.and_then(|number| state.files.get_mut(&number)) {
            file.needed += records;
            file.bytes += bytes;
        }
    }

    /// True when no record in the current file is needed.
    pub(super) fn current_is_unneeded(&self) -> bool {
        let state = self.state.lock();
        state.current.and_then(|number| state.files.get(&number)).is_some_and(|f| f.needed == 0)
    }

    /// A record of this file turned out to be damaged.
    pub(super) fn damaged(&self, number: u64) {
        if let Some(file) = self.state.lock().files.get_mut(&number) {
            file.damaged = true;
        }
    }

    /// Returns true when the file is the current one and nothing in it is needed any more: then the writer should move on.
    pub(super) fn forget(&self, number: u64, records: u64) -> bool {
        let mut state = self.state.lock();
        let is_current = state.current == Some(number);
        let Some(file) = state.files.get_mut(&number) else { return false };
        file.needed = file.needed.saturating_sub(records);
        let unneeded = file.needed == 0;
        drop(state);
        if unneeded && !is_current {
            self.drop_unneeded();
        }
        unneeded && is_current
    }

    pub(super) fn bytes(&self) -> u64 {
        self.state.lock().files.values().map(|f| f.bytes).sum()
    }

    fn drop_unneeded(&self) {
        let mut state = self.state.lock();
        let current = state.current;
        let unneeded: Vec<u64> = state.files.iter().filter(|(n, f)| Some(**n) != current && f.needed == 0).map(|(n, _)| *n).collect();
        for number in unneeded {
            let Some(FileState { path, damaged, .. }) = state.files.remove(&number) else { continue };
            let result = if damaged { self.set_aside(&path) } else { fs::remove_file(&path) };
            if let Err(error) = result {
                // It is replayed at the next start; the ledger says then that it is covered.
                tracing::warn!(path = %path.display(), %error, "could not remove log file");
            }
        }
    }

    fn set_aside(&self, path: &Path) -> std::io::Result<()> {
        let mut name = path.as_os_str().to_owned();
        name.push(".");
        name.push(SET_ASIDE);
        fs::rename(path, &name)?;
        tracing::warn!(
            path = %Path::new(&name).display(), bytes_max = self.set_aside_bytes_max,
            "damaged log file set aside: all that was readable in it is in blocks; it goes when those kept are larger than the limit, oldest first"
        );
        self.prune()
    }

    /// Removes the oldest files that were set aside while they are larger than the limit together.
    fn prune(&self) -> std::io::Result<()> {
        let mut kept: Vec<(SystemTime, PathBuf, u64)> = Vec::new();
        for entry in fs::read_dir(&self.folder)? {
            let entry = entry?;
            let is_kept = entry.path().extension().is_some_and(|extension| extension == SET_ASIDE);
            if is_kept && entry.file_type()?.is_file() {
                let metadata = entry.metadata()?;
                kept.push((metadata.modified()?, entry.path(), metadata.len()));
            }
        }
        // By the time they were written last: numbers begin anew when no file is left.
        kept.sort();
        let mut bytes: u64 = kept.iter().map(|(_, _, len)| len).sum();
        for (_, path, len) in kept {
            if bytes <= self.set_aside_bytes_max {
                break;
            }
            tracing::warn!(path = %path.display(), bytes = len, "damaged log file removed, those kept were larger than their limit");
            fs::remove_file(&path)?;
            bytes -= len;
        }
        Ok(())
    }
}
