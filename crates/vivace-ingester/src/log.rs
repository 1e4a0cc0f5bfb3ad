//! The write-ahead log: append-only files of checksummed records, synced before anyone is told that a record is kept.
//!
//! A file is `<folder>/0000000001-5eed1e55.log`: eight bytes [`MAGIC`] and a random salt (u32), then records. A record is the
//! length of its content (u32), the CRC-32 of that length and the content, XORed with the salt (u32), then the content:
//! one byte kind and a body. All numbers are little-endian. The salt keeps clients from sending spans that look like
//! records, so that a replay can look for the next intact record behind a damaged one. It is in the name as well, so that
//! neither a damaged head nor a damaged name costs a record; with both damaged it is what most records agree on.
//! Files are never appended to by a later process; each start opens a new one. A replay changes none: what is damaged is left
//! out, and the file is set aside as `….log.corrupt` once everything else in it is in blocks.

mod damaged;
mod files;
mod names;
mod replay;
mod writer;

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;

use bytes::{Buf, Bytes};
use tokio::sync::mpsc;

pub(crate) use files::Files;
pub(crate) use names::file_path;
pub(crate) use replay::{Replayed, replay};

use crate::header::SegmentHeader;
use writer::Command;

/// First bytes of every file; the last one is the version.
pub(crate) const MAGIC: &[u8; 8] = b"VIVALOG\x01";
/// Magic and salt.
const FILE_HEAD_BYTES: usize = 12;
/// Length and checksum in front of every record's content.
const RECORD_HEAD_BYTES: usize = 8;
/// Kind of a record that holds a segment.
const KIND_SEGMENT: u8 = 1;
/// A file is closed when it has grown to this.
const FILE_BYTES_MAX: u64 = 128 << 20;
/// Appends that wait for the writer; more wait outside.
const QUEUE_LEN: usize = 1024;

/// A file of the log, open. Who has a place in it can read it also when the file is deleted, since nobody else needs it.
#[derive(Debug)]
pub(crate) struct LogFile {
    pub(crate) number: u64,
    pub(crate) path: PathBuf,
    salt: u32,
    file: File,
}

/// A record's place.
#[derive(Debug, Clone)]
pub(crate) struct LogPosition {
    pub(crate) file: Arc<LogFile>,
    /// Where the record starts.
    pub(crate) offset: u64,
    /// Bytes of the whole record.
    pub(crate) len: u32,
}

impl LogPosition {
    /// Reads the body of the segment record that is here.
    ///
    /// # Errors
    /// The file cannot be read, or what is there is no intact record.
    pub(crate) fn read(&self) -> Result<Bytes, ReadError> {
        let path = &self.file.path;
        let mut bytes = vec![0; self.len as usize];
        self.file.file.read_exact_at(&mut bytes, self.offset).map_err(|source| ReadError::Io { path: path.clone(), source })?;
        let bytes = Bytes::from(bytes);
        if is_intact(&bytes, self.file.salt) && bytes.get(RECORD_HEAD_BYTES) == Some(&KIND_SEGMENT) {
            return Ok(bytes.slice(RECORD_HEAD_BYTES + 1..));
        }
        Err(ReadError::Corrupt { path: path.clone(), offset: self.offset })
    }
}

/// Why nothing was appended. All of these are worth a retry, best at another ingester.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum LogError {
    /// The disk has no room.
    #[error("no space left for the write-ahead log in {folder}")]
    Full {
        /// The log's folder.
        folder: PathBuf,
    },
    /// The disk did something else.
    #[error("could not write {path}")]
    Io {
        /// File or folder.
        path: PathBuf,
        /// What the operating system said.
        #[source]
        source: Arc<io::Error>,
    },
    /// The writer has stopped.
    #[error("the write-ahead log is closed")]
    Closed,
}

impl LogError {
    /// Nothing can be written, and all that is there can be read.
    fn leaves_readable(&self) -> bool {
        match self {
            Self::Full { .. } => true,
            Self::Io { source, .. } => source.kind() == io::ErrorKind::ReadOnlyFilesystem,
            Self::Closed => false,
        }
    }
}

/// Why a record could not be read back.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReadError {
    /// The disk did not give the bytes.
    #[error("could not read {path}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        #[source]
        source: io::Error,
    },
    /// The bytes are no record.
    #[error("invalid record in {path} at byte {offset}")]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// Where the record starts.
        offset: u64,
    },
}

/// A record ready to be appended.
#[derive(Debug, Clone)]
pub(crate) struct Record {
    content: Bytes,
    checksum: u32,
}

impl Record {
    /// Encodes a segment with its compressed payload.
    pub(crate) fn segment(header: &SegmentHeader, payload: &[u8]) -> Self {
        let mut content = Vec::with_capacity(160 + header.refused.len() * 21 + payload.len());
        content.push(KIND_SEGMENT);
        header.encode(&mut content);
        content.extend_from_slice(payload);
        let checksum = checksum(&content);
        Self { content: content.into(), checksum }
    }

    /// Bytes in the file.
    fn len(&self) -> u32 {
        content_len(&self.content) + RECORD_HEAD_BYTES as u32
    }

    /// What stands before the content in a file with this salt.
    fn head(&self, salt: u32) -> [u8; RECORD_HEAD_BYTES] {
        let mut head = [0; RECORD_HEAD_BYTES];
        head[..4].copy_from_slice(&content_len(&self.content).to_le_bytes());
        head[4..].copy_from_slice(&(self.checksum ^ salt).to_le_bytes());
        head
    }
}

fn content_len(content: &[u8]) -> u32 {
    u32::try_from(content.len()).expect("payloads are checked to be far below 4 GiB")
}

fn checksum(content: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&content_len(content).to_le_bytes());
    hasher.update(content);
    hasher.finalize()
}

/// What to do once a record is synced or refused. Runs on the log's thread, in the order of the log.
pub(crate) type Done = Box<dyn FnOnce(Result<LogPosition, LogError>) + Send>;

/// The open log. Appends go to one thread, which syncs once for all that wait.
#[derive(Debug)]
pub(crate) struct Log {
    files: Arc<Files>,
    commands: Option<mpsc::Sender<Command>>,
    thread: Option<JoinHandle<()>>,
}

impl Log {
    /// Opens the log for appending to a new file after those that `replayed` names. Without room for a file appends are refused until
    /// there is some: what the log holds can be read and flushed all the same, which is what makes room.
    ///
    /// # Errors
    /// The folder or the first file cannot be created, for another reason than that.
    pub(crate) fn open(folder: &Path, replayed: &[Replayed]) -> Result<Self, LogError> {
        Self::open_with(folder, replayed, FILE_BYTES_MAX)
    }

    pub(crate) fn open_with(folder: &Path, replayed: &[Replayed], file_bytes_max: u64) -> Result<Self, LogError> {
        let files = Arc::new(Files::new(folder.to_owned(), replayed));
        let (commands, receiver) = mpsc::channel(QUEUE_LEN);
        let mut writer = writer::Writer::open(folder.to_owned(), Arc::clone(&files), file_bytes_max)?;
        let thread = std::thread::Builder::new()
            .name("log".to_owned())
            .spawn(move || writer.run(receiver))
            .map_err(|e| LogError::Io { path: folder.to_owned(), source: Arc::new(e) })?;
        Ok(Self { files, commands: Some(commands), thread: Some(thread) })
    }

    /// Hands a record to the writer; waits while its queue is full. `done` always runs, also when the caller goes away.
    pub(crate) async fn append(&self, record: Record, done: Done) {
        let Some(commands) = &self.commands else { return done(Err(LogError::Closed)) };
        if let Err(mpsc::error::SendError(Command::Append(_, done))) = commands.send(Command::Append(record, done)).await {
            done(Err(LogError::Closed));
        }
    }

    /// `records` of a file are not needed any more. A file without needed records is deleted.
    pub(crate) fn forget(&self, file: u64, records: u64) {
        if self.files.forget(file, records)
            && let Some(commands) = &self.commands
        {
            // With a full queue the file is looked at when the next one is forgotten.
            let _ = commands.try_send(Command::Trim);
        }
    }

    /// A record of this file cannot be used: the file is set aside instead of deleted when nothing in it is needed any more.
    pub(crate) fn damaged(&self, file: u64) {
        self.files.damaged(file);
    }

    /// Bytes of all files.
    pub(crate) fn bytes(&self) -> u64 {
        self.files.bytes()
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        self.commands = None;
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the log's thread panicked");
        }
    }
}

/// Whether these bytes are a record from its first to its last. What its head says of its length is not looked at.
fn is_intact(record: &[u8], salt: u32) -> bool {
    record.len() > RECORD_HEAD_BYTES && salt_of(record) == salt
}

/// The salt under which these bytes are an intact record.
fn salt_of(record: &[u8]) -> u32 {
    let (head, content) = record.split_at(RECORD_HEAD_BYTES);
    (&head[4..]).get_u32_le() ^ checksum(content)
}

#[cfg(test)]
mod tests;
