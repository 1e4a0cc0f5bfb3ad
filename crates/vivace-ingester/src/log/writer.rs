//! The thread that appends. Records that wait are written together and share one sync. A file whose sync failed is not appended
//! to again; on a full volume what was half written is cut off, and pushes are refused until there is room.

use std::fs::{File, OpenOptions};
use std::io::{self, IoSlice, Seek, SeekFrom, Write};
use std::path::PathBuf;
use std::sync::Arc;

use tokio::sync::mpsc;
use vivace_core::{Chain, files};

use super::{Done, FILE_HEAD_BYTES, Files, LogError, LogFile, LogPosition, MAGIC, Record, file_path};

use crate::metrics::{LOG_BYTES, LOG_FAILURES, LOG_SYNCS};

/// Bytes that one write and sync takes along at most, so that the first of many does not wait for ever.
const BATCH_BYTES_MAX: u64 = 32 << 20;

pub(super) enum Command {
    Append(Record, Done),
    /// Begin a new file if nothing in the current one is needed.
    Trim,
}

/// Owns the file that is appended to.
pub(super) struct Writer {
    folder: PathBuf,
    files: Arc<Files>,
    file_bytes_max: u64,
    /// None after a failure that leaves the file's end unknown.
    current: Option<Current>,
}

struct Current {
    file: Arc<LogFile>,
    len: u64,
}

impl Writer {
    pub(super) fn open(folder: PathBuf, files: Arc<Files>, file_bytes_max: u64) -> Result<Self, LogError> {
        let made = std::fs::create_dir_all(&folder).and_then(|()| files::sync_folder_of(&folder));
        made.map_err(|e| LogError::Io { path: folder.clone(), source: Arc::new(e) })?;
        let mut writer = Self { folder, files, file_bytes_max, current: None };
        match writer.begin_file() {
            Err(error) if !error.leaves_readable() => Err(error),
            Err(error) => {
                tracing::error!(error = %Chain(&error), "write-ahead log refuses segments until it can write again; what it holds is served and flushed");
                Ok(writer)
            }
            Ok(()) => Ok(writer),
        }
    }

    /// Writes until all senders are gone.
    pub(super) fn run(&mut self, mut commands: mpsc::Receiver<Command>) {
        while let Some(first) = commands.blocking_recv() {
            let mut batch = Vec::new();
            let mut bytes = 0;
            let mut trim = false;
            let mut next = Some(first);
            while let Some(command) = next {
                match command {
                    Command::Append(record, done) => {
                        bytes += u64::from(record.len());
                        batch.push((record, done));
                    }
                    Command::Trim => trim = true,
                }
                next = if bytes < BATCH_BYTES_MAX { commands.try_recv().ok() } else { None };
            }
            if !batch.is_empty() {
                self.append(batch, bytes);
            }
            if trim && self.files.current_is_unneeded() && self.current.as_ref().is_some_and(|c| c.len > FILE_HEAD_BYTES as u64) {
                // Gone before the next one is made: the volume may be full of it. A failure shows at the next append.
                self.end_file();
                let _ = self.begin_file();
            }
        }
    }

    fn append(&mut self, batch: Vec<(Record, Done)>, bytes: u64) {
        let start = match self.write(&batch, bytes) {
            Ok(start) => start,
            Err(error) => {
                tracing::error!(error = %Chain(&error), segments = batch.len(), "write-ahead log refuses segments");
                metrics::counter!(LOG_FAILURES.name).increment(1);
                for (_, done) in batch {
                    done(Err(error.clone()));
                }
                return;
            }
        };
        self.files.appended(batch.len() as u64, bytes);
        let mut at = start;
        for (record, done) in batch {
            at.len = record.len();
            done(Ok(at.clone()));
            at.offset += u64::from(at.len);
        }
    }

    /// Writes and syncs. After an error nothing of the batch is in the file, or the file is given up.
    fn write(&mut self, batch: &[(Record, Done)], bytes: u64) -> Result<LogPosition, LogError> {
        let is_full = |c: &Current| c.len > FILE_HEAD_BYTES as u64 && c.len + bytes > self.file_bytes_max;
        if self.current.as_ref().is_none_or(is_full) {
            self.end_file();
            self.begin_file()?;
        }
        let current = self.current.as_mut().ok_or(LogError::Closed)?;
        let start = LogPosition { file: Arc::clone(&current.file), offset: current.len, len: 0 };
        let heads: Vec<_> = batch.iter().map(|(record, _)| record.head(current.file.salt)).collect();
        let mut slices: Vec<IoSlice<'_>> =
            heads.iter().zip(batch).flat_map(|(head, (record, _))| [IoSlice::new(head), IoSlice::new(&record.content)]).collect();
        let mut file = &current.file.file;
        let result = write_all_vectored(&mut file, &mut slices).and_then(|()| file.sync_data());
        metrics::counter!(LOG_SYNCS.name).increment(1);
        match result {
            Ok(()) => {
                current.len += bytes;
                metrics::counter!(LOG_BYTES.name).increment(bytes);
                Ok(start)
            }
            Err(source) => {
                let path = current.file.path.clone();
                // What is half written would hide what comes after it, so it is cut off, or nothing comes after it.
                // Pages whose sync failed are not to be trusted again: that file is given up as well.
                let is_full = is_no_space(&source);
                let is_cut = is_full && file.set_len(current.len).is_ok() && file.seek(SeekFrom::Start(current.len)).is_ok();
                if !is_cut {
                    self.end_file();
                }
                if is_full {
                    Err(LogError::Full { folder: self.folder.clone() })
                } else {
                    Err(LogError::Io { path, source: Arc::new(source) })
                }
            }
        }
    }

    fn end_file(&mut self) {
        if self.current.take().is_some() {
            self.files.end();
        }
    }

    fn begin_file(&mut self) -> Result<(), LogError> {
        let number = self.files.next_number();
        let salt = uuid::Uuid::new_v4().as_fields().0;
        let path = file_path(&self.folder, number, salt);
        let create = || -> io::Result<File> {
            let mut file = OpenOptions::new().read(true).write(true).create_new(true).open(&path)?;
            file.write_all(MAGIC)?;
            file.write_all(&salt.to_le_bytes())?;
            file.sync_all()?;
            // Without this the file's name may be gone after a power cut.
            File::open(&self.folder)?.sync_all()?;
            Ok(file)
        };
        match create() {
            Ok(file) => {
                self.files.begin(number, path.clone(), FILE_HEAD_BYTES as u64);
                let file = Arc::new(LogFile { number, path, salt, file });
                self.current = Some(Current { file, len: FILE_HEAD_BYTES as u64 });
                Ok(())
            }
            Err(source) => {
                // The next attempt has another name.
                let _ = std::fs::remove_file(&path);
                if is_no_space(&source) {
                    return Err(LogError::Full { folder: self.folder.clone() });
                }
                Err(LogError::Io { path, source: Arc::new(source) })
            }
        }
    }
}

fn is_no_space(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

fn write_all_vectored(file: &mut impl Write, mut slices: &mut [IoSlice<'_>]) -> io::Result<()> {
    while !slices.is_empty() {
        match file.write_vectored(slices) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => IoSlice::advance_slices(&mut slices, written),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
