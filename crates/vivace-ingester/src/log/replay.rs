use std::fs::{self, File, OpenOptions};
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::{Buf, Bytes};

use super::{FILE_HEAD_BYTES, KIND_SEGMENT, LogFile, LogPosition, MAGIC, RECORD_HEAD_BYTES, ReadError, file_path, intact_record};
use crate::segment::SegmentHeader;

/// Read ahead by this much.
const BUFFER_BYTES: usize = 1 << 20;

/// One file of an earlier process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Replayed {
    pub(crate) number: u64,
    /// Intact records.
    pub(crate) records: u64,
    pub(crate) bytes: u64,
    pub(crate) damage: Option<Damage>,
}

/// What was found behind the last intact record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Damage {
    /// The last write did not finish, so nobody was told that it is kept. It has been cut off.
    Torn {
        /// Where it started.
        offset: u64,
    },
    /// Intact records follow, or the file is none of ours. The damaged part is skipped and stays on disk.
    Corrupt {
        /// Where the first damage starts.
        offset: u64,
    },
}

/// Calls `visit` for every segment of every file, oldest first, with its compressed payload. Holds one record in memory.
///
/// # Errors
/// The folder or a file cannot be read at all. Damage is no error: it is named in the result.
pub(crate) fn replay(folder: &Path, mut visit: impl FnMut(SegmentHeader, Bytes, LogPosition)) -> Result<Vec<Replayed>, ReadError> {
    let numbers = file_numbers(folder).map_err(|source| ReadError::Io { path: folder.to_owned(), source })?;
    let mut replayed = Vec::with_capacity(numbers.len());
    for number in numbers {
        let path = file_path(folder, number);
        let file = replay_file(&path, number, &mut visit).map_err(|source| ReadError::Io { path: path.clone(), source })?;
        match file.damage {
            Some(Damage::Torn { offset }) => {
                tracing::warn!(path = %path.display(), offset, cut_bytes = file.bytes - offset, "unfinished write at the end of the log cut off");
                cut(&path, offset).map_err(|source| ReadError::Io { path, source })?;
            }
            Some(Damage::Corrupt { offset }) => {
                tracing::error!(
                    path = %path.display(), offset,
                    "invalid data in the log: it is skipped up to the next intact record, and the file is kept"
                );
            }
            None => {}
        }
        replayed.push(file);
    }
    Ok(replayed)
}

fn file_numbers(folder: &Path) -> io::Result<Vec<u64>> {
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut numbers = Vec::new();
    for entry in entries {
        let path: PathBuf = entry?.path();
        if path.extension().is_some_and(|e| e == "log")
            && let Some(number) = path.file_stem().and_then(|s| s.to_str()).and_then(|s| s.parse().ok())
            // Another way to write a number is no file of ours, and there is none by its right name.
            && path == file_path(folder, number)
        {
            numbers.push(number);
        }
    }
    numbers.sort_unstable();
    Ok(numbers)
}

fn replay_file(path: &Path, number: u64, visit: &mut impl FnMut(SegmentHeader, Bytes, LogPosition)) -> io::Result<Replayed> {
    let file = File::open(path)?;
    let bytes = file.metadata()?.len();
    let mut result = Replayed { number, records: 0, bytes, damage: None };
    let mut head = [0; FILE_HEAD_BYTES];
    if bytes < FILE_HEAD_BYTES as u64 {
        result.damage = (bytes > 0).then_some(Damage::Torn { offset: 0 });
        return Ok(result);
    }
    file.read_exact_at(&mut head, 0)?;
    if !head.starts_with(MAGIC) {
        // A crash right after the file was made can leave zeros; anything else is not ours to cut.
        let is_unwritten = head == [0; FILE_HEAD_BYTES] && bytes == FILE_HEAD_BYTES as u64;
        result.damage = Some(if is_unwritten { Damage::Torn { offset: 0 } } else { Damage::Corrupt { offset: 0 } });
        return Ok(result);
    }
    let salt = u32::from_le_bytes([head[8], head[9], head[10], head[11]]);
    let opened = Arc::new(LogFile { number, path: path.to_owned(), salt, file });
    let file = &opened.file;
    let mut reader = BufReader::with_capacity(BUFFER_BYTES, file);
    let mut rest = None;
    let mut offset = FILE_HEAD_BYTES as u64;
    reader.seek(SeekFrom::Start(offset))?;
    while offset < bytes {
        let Some(record) = read_record(&mut reader, bytes - offset, salt)? else {
            let Some(next) = Rest::of(&mut rest, file, offset, bytes)?.next_intact(offset + 1, salt) else {
                // A file may have both: damage in the middle, then an unfinished write. The first decides what becomes of it.
                result.damage = result.damage.or(Some(Damage::Torn { offset }));
                break;
            };
            result.damage = result.damage.or(Some(Damage::Corrupt { offset }));
            offset = next;
            reader.seek(SeekFrom::Start(offset))?;
            continue;
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
    Ok(intact_record(&record, salt).map(|_| record.into()))
}

/// A file from its first damage on, in memory: damage is rare, but where there is some there may be much.
struct Rest {
    start: u64,
    bytes: Vec<u8>,
}

impl Rest {
    /// Read once; later damage lies behind the first.
    fn of<'r>(read: &'r mut Option<Self>, file: &File, start: u64, end: u64) -> io::Result<&'r Self> {
        if let Some(rest) = read {
            return Ok(rest);
        }
        let mut bytes = vec![0; usize::try_from(end - start).unwrap_or(usize::MAX)];
        file.read_exact_at(&mut bytes, start)?;
        Ok(read.insert(Self { start, bytes }))
    }

    /// Where the first intact record at or behind `from` starts.
    fn next_intact(&self, from: u64, salt: u32) -> Option<u64> {
        let first = usize::try_from(from - self.start).ok()?;
        // What cannot be a header is sorted out first: a checksum over the rest at every byte would take hours.
        let is_record = |at: &usize| {
            let here = &self.bytes[*at..];
            here.get(RECORD_HEAD_BYTES) == Some(&KIND_SEGMENT)
                && SegmentHeader::is_plausible(&here[RECORD_HEAD_BYTES + 1..])
                && intact_record(here, salt).is_some()
        };
        (first..self.bytes.len()).find(is_record).map(|at| self.start + at as u64)
    }
}

fn cut(path: &Path, len: u64) -> io::Result<()> {
    let file = OpenOptions::new().write(true).open(path)?;
    file.set_len(len)?;
    file.sync_all()
}
