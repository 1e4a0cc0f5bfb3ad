//! Which logged segments are in the bucket already. The log cannot tell, since its files go only as a whole. Without the ledger
//! nothing is lost, but work is done twice: one that is damaged, or that cannot be written, keeps no ingester from starting.

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::{Buf, BufMut};
use parking_lot::Mutex;
use prost::Message;
use vivace_core::{BlockId, files};
use vivace_proto::vivace::v1::{self as proto, ReleaseRequest};

use super::aside::set_aside;
use super::served::ServedBlock;
use crate::segment_set::SegmentSet;

/// Why the ledger could not be written. None of it loses spans, and what is missing on disk is written with what comes next.
#[derive(Debug, thiserror::Error)]
#[error("could not write {path}")]
pub(crate) struct LedgerError {
    path: PathBuf,
    #[source]
    source: io::Error,
}

/// First bytes of the journal; the last one is the version.
const MAGIC: &[u8; 8] = b"VIVALED\x01";
/// Length and checksum in front of every entry.
const ENTRY_HEAD_BYTES: usize = 8;
/// Unix seconds at the start of an entry of segments.
const SECONDS_BYTES: usize = 8;
/// A journal is not read beyond this; it has a few KB per block of the last hours.
const READ_BYTES_MAX: u64 = 1 << 30;
/// A journal smaller than this is not worth being written anew.
const REWRITE_BYTES_MIN: u64 = 1 << 20;
/// A journal is written anew when it is so many times as large as it was after the last time.
const REWRITE_GROWTH: u64 = 4;

const KIND_COVERED: u8 = 1;
const KIND_ADOPTED: u8 = 2;
const KIND_SERVED: u8 = 3;

/// What is in the bucket: which segments, and which blocks of this instance lately.
///
/// It is in memory, and in a journal beside the log for the next process. Can be lost: then segments are flushed twice, and
/// readers and compaction drop the copies.
///
/// The journal is eight bytes [`MAGIC`], then entries: the length of their content (u32), its CRC-32 (u32), one byte kind and a body.
/// Covered and adopted segments are unix seconds (u64) and a `ReleaseRequest`, a served block is a `ServedBlock`. All numbers are little-endian.
#[derive(Debug)]
pub(super) struct Ledger {
    path: PathBuf,
    state: Mutex<State>,
    /// Locked before the state.
    journal: Mutex<Journal>,
}

#[derive(Debug, Default)]
struct State {
    covered: Segments,
    adopted: Segments,
    served: HashMap<BlockId, Arc<ServedBlock>>,
}

/// Segments by primary, by the unix second in which they came here.
#[derive(Debug, Default)]
struct Segments {
    by_second: BTreeMap<u64, BTreeMap<Arc<str>, SegmentSet>>,
}

impl Segments {
    fn add(&mut self, unix_seconds: u64, primary: &Arc<str>, set: &SegmentSet) {
        self.by_second.entry(unix_seconds).or_default().entry(Arc::clone(primary)).or_default().merge(set);
    }

    /// Of one primary or of all.
    fn merged(&self, of_primary: Option<&str>) -> BTreeMap<Arc<str>, SegmentSet> {
        let mut merged: BTreeMap<Arc<str>, SegmentSet> = BTreeMap::new();
        let all = self.by_second.values().flatten();
        for (primary, set) in all.filter(|(primary, _)| of_primary.is_none_or(|wanted| wanted == &***primary)) {
            merged.entry(Arc::clone(primary)).or_default().merge(set);
        }
        merged
    }

    fn encode(&self, kind: u8, out: &mut Vec<u8>) {
        for (unix_seconds, sets) in &self.by_second {
            sets.iter().for_each(|(primary, set)| put_segments(kind, *unix_seconds, primary, set, out));
        }
    }
}

impl State {
    /// Takes all intact entries up to the first that is not; tells how many bytes those are.
    fn read(&mut self, bytes: &[u8]) -> usize {
        if bytes.len() < MAGIC.len() {
            return 0;
        }
        let mut whole = MAGIC.len();
        while let Some(content) = entry(&bytes[whole..]) {
            if content.split_first().and_then(|(kind, body)| self.take(*kind, body)).is_none() {
                break;
            }
            whole += ENTRY_HEAD_BYTES + content.len();
        }
        whole
    }

    fn encode(&self) -> Vec<u8> {
        let mut out = MAGIC.to_vec();
        self.covered.encode(KIND_COVERED, &mut out);
        self.adopted.encode(KIND_ADOPTED, &mut out);
        self.served.values().for_each(|block| put_entry(KIND_SERVED, &block.to_proto().encode_to_vec(), &mut out));
        out
    }

    /// None for an entry that is none.
    fn take(&mut self, kind: u8, mut body: &[u8]) -> Option<()> {
        match kind {
            KIND_COVERED | KIND_ADOPTED => {
                let unix_seconds = body.try_get_u64_le().ok()?;
                let ReleaseRequest { primary, covered } = ReleaseRequest::decode(body).ok()?;
                let segments = if kind == KIND_COVERED { &mut self.covered } else { &mut self.adopted };
                segments.add(unix_seconds, &primary.into(), &SegmentSet::from_proto(&covered)?);
            }
            KIND_SERVED => {
                let block = ServedBlock::from_proto(proto::ServedBlock::decode(body).ok()?).ok()?;
                self.served.insert(block.meta.block_id, Arc::new(block));
            }
            _ => return None,
        }
        Some(())
    }
}

/// The file, as far as it is known to be whole.
#[derive(Debug, Default)]
struct Journal {
    /// None while the file lacks something: it is written anew then.
    file: Option<File>,
    bytes: u64,
    /// After it was last written anew.
    rewritten_bytes: u64,
}

impl Ledger {
    /// Reads the journal. One that is damaged is set aside, and a new one begun with what could be read. Blocks the thread.
    ///
    /// # Errors
    /// What is in the journal's place is no file of ours and cannot be moved.
    pub(super) fn open(path: &Path) -> Result<Self, LedgerError> {
        let error = |source| LedgerError { path: path.to_owned(), source };
        let ledger = Self { path: path.to_owned(), state: Mutex::default(), journal: Mutex::default() };
        let bytes = match read(path).and_then(|bytes| if is_journal(&bytes) { Ok(bytes) } else { Err(io::ErrorKind::InvalidData.into()) }) {
            Ok(bytes) => bytes,
            Err(reason) => {
                let aside = set_aside(path).map_err(error)?;
                tracing::warn!(path = %path.display(), aside = %aside.display(), error = %reason,
                    "ledger cannot be read: it is set aside and begun anew, segments may be flushed twice");
                Vec::new()
            }
        };
        let whole = ledger.state.lock().read(&bytes);
        if whole < bytes.len() {
            let lost_bytes = bytes.len() - whole;
            tracing::warn!(path = %path.display(), offset = whole, lost_bytes, "rest of the ledger is damaged or not finished: segments may be flushed twice");
        }
        let mut journal = ledger.journal.lock();
        (journal.bytes, journal.rewritten_bytes) = (bytes.len() as u64, bytes.len() as u64);
        if whole == bytes.len() && whole > 0 {
            journal.file = OpenOptions::new().append(true).open(path).ok();
        }
        if journal.file.is_none()
            && let Err(error) = ledger.rewrite(&mut journal)
        {
            tracing::warn!(error = %error.source, path = %path.display(), "ledger cannot be written yet: it is kept in memory");
        }
        drop(journal);
        Ok(ledger)
    }

    /// Segments are in the bucket, in these blocks as far as they are to be served from here. On disk when this returns.
    pub(super) fn cover(
        &self,
        served: &[Arc<ServedBlock>],
        covers: &BTreeMap<Arc<str>, SegmentSet>,
        now_unix_seconds: u64,
    ) -> Result<(), LedgerError> {
        let mut entries = Vec::new();
        for (primary, set) in covers {
            put_segments(KIND_COVERED, now_unix_seconds, primary, set, &mut entries);
        }
        self.append(entries, served, |state| {
            covers.iter().for_each(|(primary, set)| state.covered.add(now_unix_seconds, primary, set));
        })
    }

    /// Segments of another primary are live here from now on, until they are in the bucket. On disk when this returns.
    pub(super) fn adopt(&self, primary: &Arc<str>, segments: &SegmentSet, now_unix_seconds: u64) -> Result<(), LedgerError> {
        let mut entries = Vec::new();
        put_segments(KIND_ADOPTED, now_unix_seconds, primary, segments, &mut entries);
        self.append(entries, &[], |state| state.adopted.add(now_unix_seconds, primary, segments))
    }

    /// Blocks are to be served from here. On disk when this returns.
    pub(super) fn serve(&self, blocks: &[Arc<ServedBlock>]) -> Result<(), LedgerError> {
        self.append(Vec::new(), blocks, |_| {})
    }

    /// The segments that were taken over, by primary; those that are in the bucket by now among them.
    pub(super) fn adopted(&self) -> BTreeMap<Arc<str>, SegmentSet> {
        self.state.lock().adopted.merged(None)
    }

    /// The segments that are known to be in the bucket, by primary.
    pub(super) fn covered(&self) -> BTreeMap<Arc<str>, SegmentSet> {
        self.state.lock().covered.merged(None)
    }

    /// Those of one primary.
    pub(super) fn covered_of(&self, primary: &str) -> SegmentSet {
        self.state.lock().covered.merged(Some(primary)).into_values().next().unwrap_or_default()
    }

    /// Blocks that may still have to be served, the oldest first.
    pub(super) fn served(&self) -> Vec<Arc<ServedBlock>> {
        let mut served: Vec<_> = self.state.lock().served.values().cloned().collect();
        served.sort_by_key(|block| (block.flushed_unix_seconds, block.meta.block_id));
        served
    }

    /// Forgets which segments were in the bucket or taken over before one time, and blocks flushed before another. Writes the journal
    /// anew where it lacks something or has grown much.
    pub(super) fn expire(&self, segments_before_unix_seconds: u64, blocks_before_unix_seconds: u64) -> Result<(), LedgerError> {
        let mut journal = self.journal.lock();
        {
            let State { covered, adopted, served } = &mut *self.state.lock();
            for segments in [covered, adopted] {
                segments.by_second = segments.by_second.split_off(&segments_before_unix_seconds);
            }
            served.retain(|_, block| block.flushed_unix_seconds >= blocks_before_unix_seconds);
        }
        let has_grown = journal.bytes > (journal.rewritten_bytes * REWRITE_GROWTH).max(REWRITE_BYTES_MIN);
        if has_grown || journal.file.is_none() { self.rewrite(&mut journal) } else { Ok(()) }
    }

    fn append(&self, mut entries: Vec<u8>, served: &[Arc<ServedBlock>], change: impl FnOnce(&mut State)) -> Result<(), LedgerError> {
        served.iter().for_each(|block| put_entry(KIND_SERVED, &block.to_proto().encode_to_vec(), &mut entries));
        // For the whole of it, so that the journal is never written anew without this.
        let mut journal = self.journal.lock();
        {
            let mut state = self.state.lock();
            change(&mut state);
            state.served.extend(served.iter().map(|block| (block.meta.block_id, Arc::clone(block))));
        }
        let Some(file) = &mut journal.file else { return self.rewrite(&mut journal) };
        match file.write_all(&entries).and_then(|()| file.sync_data()) {
            Ok(()) => {
                journal.bytes += entries.len() as u64;
                Ok(())
            }
            Err(source) => {
                journal.file = None;
                Err(LedgerError { path: self.path.clone(), source })
            }
        }
    }

    /// Puts everything that is known into a new journal.
    fn rewrite(&self, journal: &mut Journal) -> Result<(), LedgerError> {
        let new = self.path.with_extension("new");
        let bytes = self.state.lock().encode();
        let write = || -> io::Result<File> {
            let mut file = File::create(&new)?;
            file.write_all(&bytes)?;
            file.sync_all()?;
            fs::rename(&new, &self.path)?;
            if let Some(folder) = self.path.parent() {
                File::open(folder)?.sync_all()?;
            }
            file.seek(SeekFrom::End(0))?;
            Ok(file)
        };
        match write() {
            Ok(file) => {
                let len = bytes.len() as u64;
                *journal = Journal { file: Some(file), bytes: len, rewritten_bytes: len };
                Ok(())
            }
            Err(source) => {
                // On a full volume the space of what was begun is worth more.
                let _ = fs::remove_file(&new);
                journal.file = None;
                Err(LedgerError { path: self.path.clone(), source })
            }
        }
    }
}

/// Whether it begins as a journal, which may be as far as its writer came.
fn is_journal(bytes: &[u8]) -> bool {
    bytes.starts_with(MAGIC) || MAGIC.starts_with(bytes)
}

/// The journal's bytes, none where there is no journal.
fn read(path: &Path) -> io::Result<Vec<u8>> {
    let file = match files::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        file => file?,
    };
    let mut bytes = Vec::new();
    file.take(READ_BYTES_MAX).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// The content of the intact entry that `bytes` start with.
fn entry(bytes: &[u8]) -> Option<&[u8]> {
    let mut head = bytes.get(..ENTRY_HEAD_BYTES)?;
    let (len, crc) = (head.get_u32_le() as usize, head.get_u32_le());
    let content = bytes.get(ENTRY_HEAD_BYTES..)?.get(..len)?;
    (crc32fast::hash(content) == crc).then_some(content)
}

fn put_entry(kind: u8, body: &[u8], out: &mut Vec<u8>) {
    let start = out.len();
    out.resize(start + ENTRY_HEAD_BYTES, 0);
    out.push(kind);
    out.extend_from_slice(body);
    let content = start + ENTRY_HEAD_BYTES;
    let len = u32::try_from(out.len() - content).expect("an entry has a few KB per incarnation or block");
    let crc = crc32fast::hash(&out[content..]);
    out[start..start + 4].copy_from_slice(&len.to_le_bytes());
    out[start + 4..content].copy_from_slice(&crc.to_le_bytes());
}

fn put_segments(kind: u8, unix_seconds: u64, primary: &str, segments: &SegmentSet, out: &mut Vec<u8>) {
    let release = ReleaseRequest { primary: primary.to_owned(), covered: segments.to_proto() };
    let mut body = Vec::with_capacity(SECONDS_BYTES + release.encoded_len());
    body.put_u64_le(unix_seconds);
    body.extend_from_slice(&release.encode_to_vec());
    put_entry(kind, &body, out);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::header::SegmentId;

    fn set(sequences: &[u64]) -> SegmentSet {
        sequences.iter().map(|sequence| SegmentId { incarnation: [1; 16], sequence: *sequence }).collect()
    }

    fn covers(sequences: &[u64]) -> BTreeMap<Arc<str>, SegmentSet> {
        BTreeMap::from([("a".into(), set(sequences))])
    }

    #[test]
    fn what_was_written_is_known_again() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("ledger.journal");
        let ledger = Ledger::open(&path).expect("opens");
        ledger.cover(&[], &covers(&[1, 2]), 10).expect("written");
        ledger.cover(&[], &BTreeMap::from([("b".into(), set(&[7]))]), 20).expect("written");
        ledger.adopt(&"c".into(), &set(&[9]), 20).expect("written");
        let ledger = Ledger::open(&path).expect("opens");
        assert_eq!((ledger.covered_of("a"), ledger.covered_of("b"), ledger.covered_of("c")), (set(&[1, 2]), set(&[7]), set(&[])));
        assert_eq!(ledger.adopted(), BTreeMap::from([("c".into(), set(&[9]))]));
        ledger.expire(11, 0).expect("written");
        assert_eq!(ledger.covered(), BTreeMap::from([("b".into(), set(&[7]))]));
    }

    #[test]
    fn a_journal_cut_or_damaged_anywhere_is_read_up_to_there_and_goes_on() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("ledger.journal");
        let ledger = Ledger::open(&path).expect("opens");
        let mut ends = vec![fs::metadata(&path).expect("there").len() as usize];
        for i in 1..=3 {
            ledger.cover(&[], &covers(&[i * 10]), i).expect("written");
            ends.push(fs::metadata(&path).expect("there").len() as usize);
        }
        let whole = fs::read(&path).expect("readable");
        for at in 0..whole.len() {
            let mut hurt = whole.clone();
            hurt[at] ^= 1;
            for bytes in [&whole[..at], &hurt[..]] {
                fs::write(&path, bytes).expect("writable");
                let intact: Vec<u64> = (1..=3).filter(|i| ends[*i as usize] <= at).map(|i| i * 10).collect();
                assert_eq!(Ledger::open(&path).expect("opens").covered_of("a"), set(&intact), "at {at}");
                Ledger::open(&path).expect("opens").cover(&[], &covers(&[99]), 9).expect("written");
                assert!(Ledger::open(&path).expect("opens").covered_of("a").contains(&SegmentId { incarnation: [1; 16], sequence: 99 }));
            }
        }
    }

    #[test]
    fn a_folder_in_its_place_is_set_aside() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("ledger.journal");
        fs::create_dir_all(path.join("x")).expect("made");
        let ledger = Ledger::open(&path).expect("opens");
        ledger.cover(&[], &covers(&[1]), 1).expect("written");
        assert!(folder.path().join("ledger.journal.corrupt/x").is_dir());
        assert_eq!(Ledger::open(&path).expect("opens").covered_of("a"), set(&[1]));
    }

    #[test]
    fn what_could_not_be_written_is_written_later() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("wal/ledger.journal");
        let ledger = Ledger::open(&path).expect("opens without a folder to write to");
        assert!(ledger.cover(&[], &covers(&[1]), 1).is_err());
        assert_eq!(ledger.covered_of("a"), set(&[1]), "known all the same");
        fs::create_dir(folder.path().join("wal")).expect("made");
        ledger.cover(&[], &covers(&[2]), 2).expect("written");
        assert_eq!(Ledger::open(&path).expect("opens").covered_of("a"), set(&[1, 2]));
    }

    #[test]
    fn a_journal_does_not_grow_for_ever() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("ledger.journal");
        let ledger = Ledger::open(&path).expect("opens");
        let many: Vec<u64> = (0..20_000).map(|i| i * 2).collect();
        for i in 0..16 {
            ledger.cover(&[], &covers(&many), i).expect("written");
            ledger.expire(i, 0).expect("written");
        }
        let bytes = fs::metadata(&path).expect("there").len();
        assert!(bytes < 2 * REWRITE_BYTES_MIN, "{bytes}");
        assert_eq!(Ledger::open(&path).expect("opens").covered_of("a"), set(&many));
    }
}
