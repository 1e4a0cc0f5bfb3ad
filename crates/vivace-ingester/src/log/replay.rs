//! Reads the log at a start, damaged or not. Behind a damaged place the next intact record is looked for, so that damage costs
//! what it has hit and no more. The end of a write that did not finish is told apart from damage: nobody was promised it.

use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::{Buf, Bytes};

use super::names::{Found, list};
use super::{FILE_HEAD_BYTES, KIND_SEGMENT, LogFile, LogPosition, MAGIC, RECORD_HEAD_BYTES, ReadError, is_intact};
use crate::header::{SEGMENT_BYTES_MAX, SegmentHeader};
use crate::metrics::{LOG_LOST_BYTES, REPLAY_ERRORS};

/// Read ahead by this much.
const BUFFER_BYTES: usize = 1 << 20;
/// What a disk refuses to read is left out in pieces of this size.
const SECTOR_BYTES: usize = 4096;
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
    let path = &found.path;
    let file = File::open(path)?;
    let bytes = file.metadata()?.len();
    let mut result = Replayed::of(found, bytes);
    if bytes < FILE_HEAD_BYTES as u64 {
        // A crash right after the file was made.
        result.unfinished_bytes = bytes;
        return Ok(result);
    }
    let mut damaged = Damaged { file: &file, bytes, read: None };
    let mut head = [0; FILE_HEAD_BYTES];
    damaged.read_at(&mut head, 0);
    let has_magic = head.starts_with(MAGIC);
    let in_head = u32::from_le_bytes([head[8], head[9], head[10], head[11]]);
    let salt = match salt(&mut damaged, in_head, found.salt) {
        Some(salt) => {
            if !has_magic || in_head != salt {
                tracing::warn!(path = %path.display(), "damaged head of a log file made good from its records");
            }
            salt
        }
        // There is no intact record. What an intact head says decides whether the first one is merely not finished.
        None if has_magic => in_head,
        None if head == [0; FILE_HEAD_BYTES] && damaged.is_zero_from(0) => {
            result.unfinished_bytes = bytes;
            return Ok(result);
        }
        None => {
            result.lost.add(0, bytes);
            return Ok(result);
        }
    };
    drop(damaged);
    let opened = Arc::new(LogFile { number: found.number, path: path.clone(), salt, file });
    let mut damaged = Damaged { file: &opened.file, bytes, read: None };
    let mut reader = BufReader::with_capacity(BUFFER_BYTES, &opened.file);
    let mut offset = FILE_HEAD_BYTES as u64;
    let mut is_behind_damage = true;
    while offset < bytes {
        if is_behind_damage {
            reader.seek(SeekFrom::Start(offset))?;
            is_behind_damage = false;
        }
        // What the disk refuses to read is damage as well.
        let record = match read_record(&mut reader, bytes - offset, salt).unwrap_or(None) {
            Some(record) => record,
            None => {
                is_behind_damage = true;
                let next = damaged.next_intact(offset + 1, salt);
                let end = next.unwrap_or(bytes);
                match damaged.with_another_length(offset, end, salt) {
                    Some(record) => {
                        tracing::warn!(path = %path.display(), offset, "wrong length of a log record made good");
                        record
                    }
                    None if next.is_none() && damaged.is_unfinished(offset) => {
                        result.unfinished_bytes = bytes - offset;
                        break;
                    }
                    None => {
                        result.lost.add(offset, end - offset);
                        offset = end;
                        continue;
                    }
                }
            }
        };
        let len = u32::try_from(record.len()).unwrap_or(u32::MAX);
        let mut body = record.slice(RECORD_HEAD_BYTES..);
        let kind = body.try_get_u8();
        // An intact record of an unknown kind is from a later version. It counts as needed, so its file stays.
        match (kind == Ok(KIND_SEGMENT)).then(|| SegmentHeader::decode(&mut body)).flatten() {
            Some(header) => visit(header, body, LogPosition { file: Arc::clone(&opened), offset, len }),
            None => tracing::error!(path = %path.display(), offset, "log record of an unknown kind kept and skipped"),
        }
        result.records += 1;
        offset += u64::from(len);
    }
    Ok(result)
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

/// A file in which something is wrong, in memory once that is known: damage is rare, but where there is some there may be much.
struct Damaged<'f> {
    file: &'f File,
    bytes: u64,
    read: Option<Vec<u8>>,
}

impl Damaged<'_> {
    /// Reads what can be read; what cannot is zero.
    fn read_at(&self, out: &mut [u8], offset: u64) {
        if self.file.read_exact_at(out, offset).is_ok() {
            return;
        }
        for (at, sector) in (offset..).step_by(SECTOR_BYTES).zip(out.chunks_mut(SECTOR_BYTES)) {
            if self.file.read_exact_at(sector, at).is_err() {
                sector.fill(0);
            }
        }
    }

    fn all(&mut self) -> &[u8] {
        if self.read.is_none() {
            let mut all = vec![0; usize::try_from(self.bytes).unwrap_or(usize::MAX)];
            self.read_at(&mut all, 0);
            self.read = Some(all);
        }
        self.read.as_deref().unwrap_or_default()
    }

    fn rest(&mut self, offset: u64) -> &[u8] {
        self.all().get(usize::try_from(offset).unwrap_or(usize::MAX)..).unwrap_or_default()
    }

    fn is_zero_from(&mut self, offset: u64) -> bool {
        self.rest(offset).iter().all(|byte| *byte == 0)
    }

    /// Whether the record that starts here is intact, without reading the file whole.
    fn has_record_at(&self, offset: u64, salt: u32) -> bool {
        let mut head = [0; RECORD_HEAD_BYTES];
        let left = self.bytes.saturating_sub(offset);
        if left <= RECORD_HEAD_BYTES as u64 {
            return false;
        }
        self.read_at(&mut head, offset);
        let len = u64::from((&head[..]).get_u32_le());
        if len == 0 || len > left - RECORD_HEAD_BYTES as u64 {
            return false;
        }
        let mut record = vec![0; RECORD_HEAD_BYTES + len as usize];
        self.read_at(&mut record, offset);
        is_intact(&record, salt)
    }

    /// Where the first intact record at or behind `from` starts.
    fn next_intact(&mut self, from: u64, salt: u32) -> Option<u64> {
        let rest = self.rest(from);
        // What cannot be a header is sorted out first: a checksum over the rest at every byte would take hours.
        let is_record = |at: &usize| whole_record(&rest[*at..]).is_some_and(|record| is_intact(record, salt));
        (0..rest.len()).find(is_record).map(|at| from + at as u64)
    }

    /// The record from `offset` to `end` if only its length is wrong.
    fn with_another_length(&mut self, offset: u64, end: u64, salt: u32) -> Option<Bytes> {
        let record = self.rest(offset).get(..usize::try_from(end - offset).ok()?)?;
        (record.len() > RECORD_HEAD_BYTES && is_intact(record, salt)).then(|| Bytes::copy_from_slice(record))
    }

    /// Whether what is left is the beginning of a record that was not written to its end, or nothing was written there at all.
    fn is_unfinished(&mut self, offset: u64) -> bool {
        let rest = self.rest(offset);
        let Some(mut head) = rest.get(..RECORD_HEAD_BYTES) else { return true };
        let len = head.get_u32_le();
        let content = &rest[RECORD_HEAD_BYTES..];
        let reaches_beyond = len as usize > content.len() && len <= SEGMENT_BYTES_MAX;
        let begins_as_one = match content {
            [] => true,
            [kind, body @ ..] => {
                *kind == KIND_SEGMENT && (SegmentHeader::is_plausible(body) || body.len() < SegmentHeader::PLAUSIBLE_BYTES)
            }
        };
        (reaches_beyond && begins_as_one) || rest.iter().all(|byte| *byte == 0)
    }

    /// The salt that most bytes of records agree on, and at least two records.
    fn derive_salt(&mut self) -> Option<u32> {
        let rest = self.rest(FILE_HEAD_BYTES as u64);
        let mut salts: std::collections::BTreeMap<u32, (u32, usize)> = std::collections::BTreeMap::new();
        let mut at = 0;
        while at < rest.len() {
            match whole_record(&rest[at..]) {
                Some(record) => {
                    let of = salts.entry(super::salt_of(record)).or_default();
                    *of = (of.0 + 1, of.1 + record.len());
                    // A length that lies must not hide what follows: only a salt that was seen before is believed.
                    at += if of.0 > 1 { record.len() } else { 1 };
                }
                None => at += 1,
            }
        }
        salts.into_iter().filter(|(_, (records, _))| *records > 1).max_by_key(|(_, (_, bytes))| *bytes).map(|(salt, _)| salt)
    }
}

/// What may be the record that `bytes` start with, by its length and two numbers of its header.
fn whole_record(bytes: &[u8]) -> Option<&[u8]> {
    let is_header = bytes.get(RECORD_HEAD_BYTES) == Some(&KIND_SEGMENT) && SegmentHeader::is_plausible(&bytes[RECORD_HEAD_BYTES + 1..]);
    if !is_header {
        return None;
    }
    let len = bytes.get(..4)?.get_u32_le() as usize;
    bytes.get(..RECORD_HEAD_BYTES.checked_add(len)?).filter(|_| len > 0)
}
