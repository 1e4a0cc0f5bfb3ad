//! Looks for records in a file in which something is wrong.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::FileExt;

use bytes::{Buf, Bytes};

use super::{FILE_HEAD_BYTES, KIND_SEGMENT, RECORD_HEAD_BYTES, is_intact, salt_of};
use crate::header::{SEGMENT_BYTES_MAX, SegmentHeader};

/// What a disk refuses to read is left out in pieces of this size.
const SECTOR_BYTES: usize = 4096;

/// A file in which something is wrong, in memory once that is known: damage is rare, but where there is some there may be much.
pub(super) struct Damaged<'f> {
    file: &'f File,
    bytes: u64,
    read: Option<Vec<u8>>,
}

impl<'f> Damaged<'f> {
    pub(super) fn new(file: &'f File, bytes: u64) -> Self {
        Self { file, bytes, read: None }
    }

    /// Reads what can be read; what cannot is zero.
    pub(super) fn read_at(&self, out: &mut [u8], offset: u64) {
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

    pub(super) fn is_zero_from(&mut self, offset: u64) -> bool {
        self.rest(offset).iter().all(|byte| *byte == 0)
    }

    /// Whether the record that starts here is intact, without reading the file whole.
    pub(super) fn has_record_at(&self, offset: u64, salt: u32) -> bool {
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
    pub(super) fn next_intact(&mut self, from: u64, salt: u32) -> Option<u64> {
        let rest = self.rest(from);
        // What cannot be a header is sorted out first: a checksum over the rest at every byte would take hours.
        let is_record = |at: &usize| whole_record(&rest[*at..]).is_some_and(|record| is_intact(record, salt));
        (0..rest.len()).find(is_record).map(|at| from + at as u64)
    }

    /// The record from `offset` to `end` if only its length is wrong.
    pub(super) fn with_another_length(&mut self, offset: u64, end: u64, salt: u32) -> Option<Bytes> {
        let record = self.rest(offset).get(..usize::try_from(end - offset).ok()?)?;
        (record.len() > RECORD_HEAD_BYTES && is_intact(record, salt)).then(|| Bytes::copy_from_slice(record))
    }

    /// Whether what is left is the beginning of a record that was not written to its end, or nothing was written there at all.
    pub(super) fn is_unfinished(&mut self, offset: u64) -> bool {
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
    pub(super) fn derive_salt(&mut self) -> Option<u32> {
        let rest = self.rest(FILE_HEAD_BYTES as u64);
        let mut salts: BTreeMap<u32, (u32, usize)> = BTreeMap::new();
        let mut at = 0;
        while at < rest.len() {
            match whole_record(&rest[at..]) {
                Some(record) => {
                    let of = salts.entry(salt_of(record)).or_default();
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
