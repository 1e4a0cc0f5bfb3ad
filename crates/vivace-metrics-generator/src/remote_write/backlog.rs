//! Requests that wait for a receiver, each a file, so that neither a receiver that is down nor the end of the process loses them.
//!
//! A file's name says when its samples were gathered and how many series it has: `<unix millis>-<number>-<series>`.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;

/// Bytes that may wait in one folder, and in all of the process; beyond either the oldest of the folder are dropped and counted.
#[derive(Debug)]
pub(crate) struct Room {
    folder_bytes_max: u64,
    all_bytes_max: u64,
    bytes: AtomicU64,
}

/// The requests of one tenant for one receiver.
#[derive(Debug)]
pub(crate) struct Backlog {
    folder: PathBuf,
    room: Arc<Room>,
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct State {
    waiting: VecDeque<Waiting>,
    bytes: u64,
    series: u64,
    /// Of the file that is written next.
    number: u64,
    is_closed: bool,
}

/// A request that waits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Waiting {
    pub(crate) path: PathBuf,
    pub(crate) series: u64,
    unix_millis: u64,
    number: u64,
    bytes: u64,
    /// Is being sent, and thus not dropped.
    is_taken: bool,
}

impl Room {
    pub(crate) fn new(folder_bytes_max: u64, all_bytes_max: u64) -> Arc<Self> {
        Arc::new(Self { folder_bytes_max, all_bytes_max, bytes: AtomicU64::new(0) })
    }

    fn has(&self, folder_bytes: u64, more: u64) -> bool {
        folder_bytes + more <= self.folder_bytes_max && self.bytes.load(Ordering::Relaxed) + more <= self.all_bytes_max
    }
}

impl Backlog {
    /// Makes the folder, or takes up what an earlier process left in it.
    ///
    /// # Errors
    /// The folder cannot be made or read.
    pub(crate) fn open(folder: PathBuf, room: Arc<Room>) -> std::io::Result<Self> {
        std::fs::create_dir_all(&folder)?;
        let mut found = Vec::new();
        for entry in std::fs::read_dir(&folder)? {
            let entry = entry?;
            match Waiting::named(&entry.path(), entry.metadata()?.len()) {
                Some(waiting) => found.push(waiting),
                // Half written when the process ended.
                None if entry.path().extension().is_some_and(|extension| extension == "tmp") => std::fs::remove_file(entry.path())?,
                None => {}
            }
        }
        found.sort_by_key(|waiting| (waiting.unix_millis, waiting.number));
        let mut state = State::default();
        for waiting in found {
            room.bytes.fetch_add(waiting.bytes, Ordering::Relaxed);
            state.bytes += waiting.bytes;
            state.series += waiting.series;
            state.number = state.number.max(waiting.number + 1);
            state.waiting.push_back(waiting);
        }
        Ok(Self { folder, room, state: Mutex::new(state), changed: Notify::new() })
    }

    /// Lets a request wait. Returns how many series were dropped for it; all of its own where there is no room at all.
    ///
    /// # Errors
    /// It cannot be written.
    pub(crate) fn put(&self, unix_millis: u64, series: u64, body: &[u8]) -> std::io::Result<u64> {
        let bytes = body.len() as u64;
        let (number, mut dropped) = {
            let mut state = self.state.lock();
            state.number += 1;
            let mut dropped = Vec::new();
            while !self.room.has(state.bytes, bytes) {
                let Some(oldest) = state.waiting.iter().position(|waiting| !waiting.is_taken) else { break };
                dropped.extend(self.forget(&mut state, oldest));
            }
            if !self.room.has(state.bytes, bytes) {
                return Ok(series + remove(&dropped));
            }
            // Taken before it is there, so that two that write at once do not share it.
            state.bytes += bytes;
            self.room.bytes.fetch_add(bytes, Ordering::Relaxed);
            (state.number, dropped)
        };
        let path = self.folder.join(format!("{unix_millis:013}-{number:010}-{series}"));
        let temporary = path.with_extension("tmp");
        let written = std::fs::write(&temporary, body).and_then(|()| std::fs::rename(&temporary, &path));
        let dropped = remove(&std::mem::take(&mut dropped));
        let mut state = self.state.lock();
        if let Err(error) = written {
            state.bytes -= bytes;
            self.room.bytes.fetch_sub(bytes, Ordering::Relaxed);
            let _ = std::fs::remove_file(&temporary);
            return Err(error);
        }
        state.series += series;
        state.waiting.push_back(Waiting { path, series, unix_millis, number, bytes, is_taken: false });
        drop(state);
        self.changed.notify_one();
        Ok(dropped)
    }

    /// Waits for requests and takes the oldest ones, all of one collection: their order is of no account. `most` says how many at most
    /// while so many series wait. None when it is closed and nothing is left.
    pub(crate) async fn take(&self, most: impl Fn(u64) -> usize) -> Option<Vec<Waiting>> {
        loop {
            let changed = self.changed.notified();
            {
                let mut state = self.state.lock();
                let unix_millis = state.waiting.front().map(|waiting| waiting.unix_millis);
                let most = most(state.series);
                let oldest = state.waiting.iter_mut().take_while(|waiting| Some(waiting.unix_millis) == unix_millis).take(most);
                let taken: Vec<Waiting> = oldest
                    .map(|waiting| {
                        waiting.is_taken = true;
                        waiting.clone()
                    })
                    .collect();
                if !taken.is_empty() {
                    return Some(taken);
                }
                if state.is_closed {
                    return None;
                }
            }
            changed.await;
        }
    }

    /// Removes a request that was taken.
    pub(crate) fn done(&self, done: &Waiting) {
        let mut state = self.state.lock();
        let found = state.waiting.iter().position(|waiting| waiting.path == done.path);
        let gone = found.and_then(|at| self.forget(&mut state, at));
        drop(state);
        remove(&gone.into_iter().collect::<Vec<_>>());
    }

    /// Nothing will be put any more.
    pub(crate) fn close(&self) {
        self.state.lock().is_closed = true;
        self.changed.notify_one();
    }

    /// Series in requests that wait.
    pub(crate) fn series(&self) -> u64 {
        self.state.lock().series
    }

    fn forget(&self, state: &mut State, at: usize) -> Option<Waiting> {
        let gone = state.waiting.remove(at)?;
        state.bytes -= gone.bytes;
        state.series -= gone.series;
        self.room.bytes.fetch_sub(gone.bytes, Ordering::Relaxed);
        Some(gone)
    }
}

impl Waiting {
    /// How long it has waited.
    pub(crate) fn age(&self, now_unix_millis: u64) -> Duration {
        Duration::from_millis(now_unix_millis.saturating_sub(self.unix_millis))
    }

    /// Reads the name of a file.
    fn named(path: &Path, bytes: u64) -> Option<Self> {
        let mut parts = path.file_name()?.to_str()?.split('-').map(str::parse::<u64>);
        let (Some(Ok(unix_millis)), Some(Ok(number)), Some(Ok(series)), None) = (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return None;
        };
        Some(Self { path: path.to_owned(), series, unix_millis, number, bytes, is_taken: false })
    }
}

/// Removes the files; how many series were in them.
fn remove(files: &[Waiting]) -> u64 {
    for Waiting { path, .. } in files {
        if let Err(error) = std::fs::remove_file(path) {
            tracing::warn!(path = %path.display(), %error, "a request that is done cannot be removed");
        }
    }
    files.iter().map(|waiting| waiting.series).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn series(taken: Option<Vec<Waiting>>) -> Vec<u64> {
        taken.unwrap_or_default().iter().map(|waiting| waiting.series).collect()
    }

    #[tokio::test]
    async fn requests_outlive_the_process_in_their_order() {
        let folder = tempfile::tempdir().expect("a folder");
        let open = || Backlog::open(folder.path().join("a"), Room::new(1000, 1000)).expect("opened");
        let backlog = open();
        for (unix_millis, series) in [(5, 1), (5, 2), (5, 3), (7, 4)] {
            assert_eq!(backlog.put(unix_millis, series, b"body").expect("written"), 0);
        }
        let taken = backlog.take(|_| 2).await.expect("some");
        backlog.done(&taken[0]);
        drop(backlog);
        std::fs::write(folder.path().join("a/9-9-9.tmp"), "half").expect("written");

        let backlog = open();
        assert_eq!(backlog.series(), 9);
        let first = backlog.take(|_| 5).await;
        assert_eq!(series(first.clone()), [2, 3], "those of one collection");
        first.iter().flatten().for_each(|waiting| backlog.done(waiting));
        backlog.put(8, 5, b"body").expect("written");
        assert_eq!(series(backlog.take(|_| 5).await), [4]);
        backlog.close();
        let left: Vec<_> = std::fs::read_dir(folder.path().join("a")).expect("readable").collect();
        assert_eq!(left.len(), 2);
    }

    #[tokio::test]
    async fn without_room_the_oldest_are_dropped_and_counted() {
        let folder = tempfile::tempdir().expect("a folder");
        let room = Room::new(10, 15);
        let backlog = Backlog::open(folder.path().join("a"), room.clone()).expect("opened");
        let put = |unix_millis, series, bytes: usize| backlog.put(unix_millis, series, &vec![0; bytes]).expect("written");
        assert_eq!((put(1, 1, 4), put(2, 2, 4), put(3, 3, 4)), (0, 0, 1));
        let taken = backlog.take(|_| 1).await.expect("some");
        assert_eq!(put(4, 4, 4), 3, "the second one is on its way");
        assert_eq!(put(5, 5, 11), 9, "one too large for the folder, and that for which it made room in vain");
        assert_eq!(series(Some(taken)), [2]);
        let other = Backlog::open(folder.path().join("b"), room.clone()).expect("opened");
        assert_eq!(other.put(1, 7, &[0; 10]).expect("written"), 0);
        assert_eq!(other.put(2, 8, &[0; 10]).expect("written"), 7);
        assert_eq!(room.bytes.load(Ordering::Relaxed), 14);
    }
}
