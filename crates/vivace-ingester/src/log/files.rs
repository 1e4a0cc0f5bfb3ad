use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use parking_lot::Mutex;

use super::{Damage, Replayed, file_path};

/// The log's files and how many records of each are still needed. What nobody needs is deleted.
#[derive(Debug)]
pub(crate) struct Files {
    folder: PathBuf,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// By number.
    files: BTreeMap<u64, FileState>,
    /// The file that is appended to.
    current: u64,
}

#[derive(Debug, Default)]
struct FileState {
    needed: u64,
    bytes: u64,
    /// Holds bytes that could not be read: set aside instead of deleted.
    damaged: bool,
}

impl Files {
    pub(super) fn new(folder: PathBuf, replayed: &[Replayed]) -> Self {
        let files = replayed
            .iter()
            .map(|f| (f.number, FileState { needed: f.records, bytes: f.bytes, damaged: matches!(f.damage, Some(Damage::Corrupt { .. })) }))
            .collect::<BTreeMap<_, _>>();
        let current = files.keys().next_back().map_or(0, |last| *last);
        Self { folder, state: Mutex::new(State { files, current }) }
    }

    /// The number for the next file.
    pub(super) fn next_number(&self) -> u64 {
        self.state.lock().current + 1
    }

    /// From now on `number` is appended to.
    pub(super) fn begin(&self, number: u64, bytes: u64) {
        let mut state = self.state.lock();
        state.current = number;
        state.files.insert(number, FileState { bytes, ..FileState::default() });
        drop(state);
        self.drop_unneeded();
    }

    /// The current file has grown.
    pub(super) fn appended(&self, records: u64, bytes: u64) {
        let mut state = self.state.lock();
        let current = state.current;
        let file = state.files.entry(current).or_default();
        file.needed += records;
        file.bytes += bytes;
    }

    /// True when the current file holds records and none is needed.
    pub(super) fn current_is_unneeded(&self) -> bool {
        let state = self.state.lock();
        state.files.get(&state.current).is_some_and(|f| f.needed == 0)
    }

    /// Returns true when the file is the current one and nothing in it is needed any more: then the writer should move on.
    pub(super) fn release(&self, number: u64, records: u64) -> bool {
        let mut state = self.state.lock();
        let is_current = number == state.current;
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
        let unneeded: Vec<(u64, bool)> =
            state.files.iter().filter(|(n, f)| **n != current && f.needed == 0).map(|(n, f)| (*n, f.damaged)).collect();
        for (number, damaged) in unneeded {
            state.files.remove(&number);
            let path = file_path(&self.folder, number);
            let result = if damaged {
                let aside = path.with_extension("log.corrupt");
                tracing::warn!(path = %aside.display(), "damaged log file set aside, all its readable segments are in blocks");
                fs::rename(&path, aside)
            } else {
                fs::remove_file(&path)
            };
            if let Err(error) = result {
                // It is replayed at the next start; the ledger says then that it is covered.
                tracing::warn!(path = %path.display(), %error, "could not remove log file");
            }
        }
    }
}
