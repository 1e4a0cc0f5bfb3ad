//! Reads the log at a start, damaged or not. Behind a damaged place the next intact record is looked for, so that damage costs
//! what it has hit and no more. The end of a write that did not finish is told apart from damage: nobody was promised it.

use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::{Buf, Bytes};

use super::damaged::Damaged;
use super::names::{Found, list};
use super::{FILE_HEAD_BYTES, KIND_SEGMENT, LogFile, LogPosition, MAGIC, RECORD_HEAD_BYTES, ReadError, is_intact};
use crate::header::SegmentHeader;
use crate::metrics::{LOG_LOST_BYTES, REPLAY_ERRORS};

/// Read ahead by this much.
const BUFFER_BYTES: usize = 1 << 20;
/// Damaged places of a file that are named one by one; the others are only counted.
const PLACES_NAMED_MAX: usize = 32;

/// One file of an earlier process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Replayed {
    pub(crate) number: u64,
    pub(crate) path: PathBuf,
    /// Intact records.
    pub(crate) records: u64,
    pub(crate) bytes: u64,
    /// Could not be opened. It stays as it is.
    pub(crate) unreadable: bool,
    /// What was written and is not intact any more. The file is kept.
    pub(crate) lost: Lost,
    /// Bytes at the end of a last write that did not finish, so that nobody was told that it is kept.
    pub(crate) unfinished_bytes: u64,
}

/// Damaged places.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Lost {
    pub(crate) places: u64,
    pub(crate) bytes: u64,
    /// Offset and length of the first ones.
    pub(crate) first: Vec<(u64, u64)>,
}

impl Lost {
    fn add(&mut self, offset: u64, bytes: u64) {
        self.places += 1;
        self.bytes += bytes;
        if self.first.len() < PLACES_NAMED_MAX {
            self.first.push((offset, bytes));
        }
    }
}

/// Calls `visit` for every segment of every file, oldest first, with its compressed payload. Holds one record in memory, and where
/// there is damage one file. Changes nothing on disk.
///
/// # Errors
/// The folder cannot be read at all. Damage is no error: it is named in the result, logged and counted.
pub(crate) fn replay(folder: &Path, mut visit: impl FnMut(SegmentHeader, Bytes, LogPosition)) -> Result<Vec<Replayed>, ReadError> {
    let found = list(folder).map_err(|source| ReadError::Io { path: folder.to_owned(), source })?;
    let mut replayed = Vec::with_capacity(found.len());
    for file in found {
        let path = file.path.display().to_string();
        match replay_file(&file, &mut visit) {
            Ok(file) => {
                report(&path, &file);
                replayed.push(file);
            }
            Err(error) => {
                tracing::error!(path, %error, "log file cannot be read: its segments are missing here until it can be at a later start");
                metrics::counter!(REPLAY_ERRORS.name, "tenant" => "").increment(1);
                replayed.push(Replayed { unreadable: true, ..Replayed::of(&file, 0) });
            }
        }
    }
    Ok(replayed)
}

impl Replayed {
    fn of(file: &Found, bytes: u64) -> Self {
        Self {
            number: file.number,
            path: file.path.clone(),
            records: 0,
            bytes,
            unreadable: false,
            lost: Lost::default(),
            unfinished_bytes: 0,
        }
    }
}

fn report(path: &str, file: &Replayed) {
    if file.unfinished_bytes > 0 {
        let offset = file.bytes - file.unfinished_bytes;
        tracing::warn!(
            path,
            offset,
            bytes = file.unfinished_bytes,
            "unfinished write at the end of the log left out: nobody was told that it is kept"
        );
    }
    let lost = &file.lost;
    if lost.places == 0 {
        return;
    }
    metrics::counter!(REPLAY_ERRORS.name, "tenant" => "").increment(lost.places);
    metrics::counter!(LOG_LOST_BYTES.name).increment(lost.bytes);
    for (offset, bytes) in &lost.first {
        tracing::error!(path, offset, bytes, "damaged place in the log: no record can be read there");
    }
    tracing::error!(
        path,
        places = lost.places,
        lost_bytes = lost.bytes,
        records = file.records,
        "log file is damaged: its intact records are used, and the file is kept for a while after they are in blocks"
    );
}

fn replay_file(found: &Found, visit: &mut impl FnMut(SegmentHeader, Bytes, LogPosition)) -> io::Result<Replayed> {
    let file = File::open(&found.path)?;
    let mut result = Replayed::of(found, file.metadata()?.len());
    let Some(salt) = salt_of_file(&file, found, &mut result) else { return Ok(result) };
    let opened = Arc::new(LogFile { number: found.number, path: found.path.clone(), salt, file });
    let mut records = Records {
        path: &opened.path,
        salt,
        bytes: result.bytes,
        damaged: Damaged::new(&opened.file, result.bytes),
        reader: BufReader::with_capacity(BUFFER_BYTES, &opened.file),
        offset: FILE_HEAD_BYTES as u64,
        is_behind_damage: true,
    };
    while let Some((offset, record)) = records.next(&mut result)? {
        let len = u32::try_from(record.len()).unwrap_or(u32::MAX);
        let mut body = record.slice(RECORD_HEAD_BYTES..);
        let kind = body.try_get_u8();
        // An intact record of an unknown kind is from a later version. It counts as needed, so its file stays.
        match (kind == Ok(KIND_SEGMENT)).then(|| SegmentHeader::decode(&mut body)).flatten() {
            Some(header) => visit(header, body, LogPosition { file: Arc::clone(&opened), offset, len }),
            None => tracing::error!(path = %found.path.display(), offset, "log record of an unknown kind kept and skipped"),
        }
        result.records += 1;
    }
    Ok(result)
}

/// The salt of the file's records. None when it can have none; the result says then what that is.
fn salt_of_file(file: &File, found: &Found, result: &mut Replayed) -> Option<u32> {
    let bytes = result.bytes;
    if bytes < FILE_HEAD_BYTES as u64 {
        // A crash right after the file was made.
        result.unfinished_bytes = bytes;
        return None;
    }
    let mut damaged = Damaged::new(file, bytes);
    let mut head = [0; FILE_HEAD_BYTES];
    damaged.read_at(&mut head, 0);
    let has_magic = head.starts_with(MAGIC);
    let in_head = u32::from_le_bytes([head[8], head[9], head[10], head[11]]);
    match salt(&mut damaged, in_head, found.salt) {
        Some(salt) => {
            if !has_magic || in_head != salt {
                tracing::warn!(path = %found.path.display(), "damaged head of a log file made good from its records");
            }
            Some(salt)
        }
        // There is no intact record. What an intact head says decides whether the first one is merely not finished.
        None if has_magic => Some(in_head),
        None if head == [0; FILE_HEAD_BYTES] && damaged.is_zero_from(0) => {
            result.unfinished_bytes = bytes;
            None
        }
        None => {
            result.lost.add(0, bytes);
            None
        }
    }
}

/// The records of a file, one after another.
struct Records<'f> {
    path: &'f Path,
    salt: u32,
    bytes: u64,
    damaged: Damaged<'f>,
    reader: BufReader<&'f File>,
    /// Where the next one starts.
    offset: u64,
    /// The reader is not there.
    is_behind_damage: bool,
}

impl Records<'_> {
    /// The next intact record and where it starts, none at the end. What is skipped is noted in the result.
    fn next(&mut self, result: &mut Replayed) -> io::Result<Option<(u64, Bytes)>> {
        while self.offset < self.bytes {
            if self.is_behind_damage {
                self.reader.seek(SeekFrom::Start(self.offset))?;
                self.is_behind_damage = false;
            }
            // What the disk refuses to read is damage as well.
            let record = match read_record(&mut self.reader, self.bytes - self.offset, self.salt).unwrap_or(None) {
                Some(record) => record,
                None => match self.make_good(result) {
                    ControlFlow::Break(()) => return Ok(None),
                    ControlFlow::Continue(None) => continue,
                    ControlFlow::Continue(Some(record)) => record,
                },
            };
            let offset = self.offset;
            self.offset += record.len() as u64;
            return Ok(Some((offset, record)));
        }
        Ok(None)
    }

    /// What is to be done where no record can be read: it may be one whose length alone is wrong. Else the next one is looked for behind
    /// it; breaks where there is only an unfinished one.
    fn make_good(&mut self, result: &mut Replayed) -> ControlFlow<(), Option<Bytes>> {
        self.is_behind_damage = true;
        let (offset, salt) = (self.offset, self.salt);
        let next = self.damaged.next_intact(offset + 1, salt);
        let end = next.unwrap_or(self.bytes);
        if let Some(record) = self.damaged.with_another_length(offset, end, salt) {
            tracing::warn!(path = %self.path.display(), offset, "wrong length of a log record made good");
            return ControlFlow::Continue(Some(record));
        }
        if next.is_none() && self.damaged.is_unfinished(offset) {
            result.unfinished_bytes = self.bytes - offset;
            return ControlFlow::Break(());
        }
        result.lost.add(offset, end - offset);
        self.offset = end;
        ControlFlow::Continue(None)
    }
}

/// The salt under which the file has an intact record: as its head says, as its name says, or as most of its records do.
/// None when it has none.
fn salt(file: &mut Damaged<'_>, in_head: u32, in_name: Option<u32>) -> Option<u32> {
    let said = [Some(in_head), in_name];
    let mut said = said.into_iter().flatten();
    let start = FILE_HEAD_BYTES as u64;
    if said.clone().any(|salt| file.has_record_at(start, salt)) {
        return said.find(|salt| file.has_record_at(start, *salt));
    }
    said.find(|salt| file.next_intact(start, *salt).is_some()).or_else(|| file.derive_salt())
}

/// The next record with its head, none when it is not intact.
fn read_record(reader: &mut impl Read, left: u64, salt: u32) -> io::Result<Option<Bytes>> {
    let mut head = [0; RECORD_HEAD_BYTES];
    if left < RECORD_HEAD_BYTES as u64 {
        return Ok(None);
    }
    reader.read_exact(&mut head)?;
    let len = (&head[..]).get_u32_le();
    if len == 0 || u64::from(len) > left - RECORD_HEAD_BYTES as u64 {
        return Ok(None);
    }
    let mut record = vec![0; RECORD_HEAD_BYTES + len as usize];
    record[..RECORD_HEAD_BYTES].copy_from_slice(&head);
    reader.read_exact(&mut record[RECORD_HEAD_BYTES..])?;
    Ok(is_intact(&record, salt).then(|| record.into()))
}
