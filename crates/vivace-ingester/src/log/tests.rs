//! A log that is cut, overwritten, renamed, or cannot be written: what was not touched comes back, and nothing that was never
//! appended.

use std::fs;
use std::sync::mpsc;

use proptest::prelude::*;
use vivace_core::TenantId;

use super::replay::Lost;
use super::*;
use crate::header::{Compression, SegmentId};

fn header(sequence: u64) -> SegmentHeader {
    SegmentHeader {
        id: SegmentId { incarnation: [7; 16], sequence },
        tenant: TenantId::single(),
        primary: "ingester-0".into(),
        compression: Compression::None,
        uncompressed_bytes: 3,
        spans: 1,
        received_unix_seconds: 1_700_000_000,
        refused: Vec::new(),
    }
}

fn append(log: &Log, sequence: u64, payload: &[u8]) -> Result<LogPosition, LogError> {
    let (sender, receiver) = mpsc::channel();
    let done: Done = Box::new(move |result| sender.send(result).expect("the test waits"));
    futures::executor::block_on(log.append(Record::segment(&header(sequence), payload), done));
    receiver.recv().expect("done always runs")
}

fn read(folder: &Path) -> (Vec<(u64, Vec<u8>)>, Vec<Replayed>) {
    let mut found = Vec::new();
    let replayed = replay(folder, |header, payload, at| {
        assert_eq!(header.id.incarnation, [7; 16]);
        let mut body = at.read().expect("what is replayed can be read back");
        assert_eq!(SegmentHeader::decode(&mut body).as_ref(), Some(&header));
        assert_eq!(body, payload);
        found.push((header.id.sequence, payload.to_vec()));
    })
    .expect("readable");
    (found, replayed)
}

/// The path of a file by its number.
fn path_of(folder: &Path, number: u64) -> PathBuf {
    let files = names::list(folder).expect("listed");
    files.into_iter().find(|file| file.number == number).map_or_else(|| folder.join("no such file"), |file| file.path)
}

/// A folder with one closed file that holds these payloads, numbered from 1.
fn written(payloads: &[Vec<u8>]) -> (tempfile::TempDir, Vec<LogPosition>) {
    let folder = tempfile::tempdir().expect("a folder");
    let log = Log::open(folder.path(), &[]).expect("opens");
    let at = (1..).zip(payloads).map(|(i, p)| append(&log, i, p).expect("appended")).collect();
    (folder, at)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn what_was_appended_is_replayed_in_order(payloads in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..300), 1..12)) {
        let folder = tempfile::tempdir().expect("a folder");
        // Small files, so that there are several.
        let log = Log::open_with(folder.path(), &[], 500).expect("opens");
        for (i, payload) in (1..).zip(&payloads) {
            append(&log, i, payload).expect("appended");
        }
        drop(log);
        let (found, replayed) = read(folder.path());
        prop_assert_eq!(found, (1..).zip(payloads.clone()).collect::<Vec<_>>());
        prop_assert_eq!(replayed.iter().map(|f| f.records).sum::<u64>(), payloads.len() as u64);
        prop_assert!(replayed.iter().all(|f| f.lost.places == 0 && f.unfinished_bytes == 0));
    }

    #[test]
    fn one_wrong_bit_costs_one_record_at_most(payloads in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..40), 1..5), place: prop::sample::Index, bit in 0u8..8) {
        let (folder, at) = written(&payloads);
        let path = path_of(folder.path(), 1);
        let mut bytes = fs::read(&path).expect("readable");
        let index = place.index(bytes.len());
        bytes[index] ^= 1 << bit;
        fs::write(&path, &bytes).expect("writable");
        let (found, replayed) = read(folder.path());
        let all: Vec<_> = (1..).zip(payloads.clone()).collect();
        let hit = at.iter().rposition(|p| p.offset as usize <= index);
        match hit {
            // The head and the length of a record can be told from the rest.
            Some(hit) if index >= at[hit].offset as usize + 4 => {
                let want: Vec<_> = all.into_iter().filter(|(i, _)| *i != hit as u64 + 1).collect();
                prop_assert_eq!(found, want);
                prop_assert_eq!(&replayed[0].lost, &Lost { places: 1, bytes: at[hit].len.into(), first: vec![(at[hit].offset, at[hit].len.into())] });
            }
            _ => {
                prop_assert_eq!(found, all);
                prop_assert_eq!(&replayed[0].lost, &Lost::default());
            }
        }
        prop_assert_eq!(replayed[0].unfinished_bytes, 0);
    }

    #[test]
    fn whatever_is_damaged_every_untouched_record_is_replayed(
        payloads in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..3000), 1..12),
        damages in proptest::collection::vec(damage(), 1..4), is_renamed: bool,
    ) {
        let (folder, at) = written(&payloads);
        let path = path_of(folder.path(), 1);
        let whole = fs::read(&path).expect("readable");
        let mut bytes = whole.clone();
        damages.iter().for_each(|damage| damage.apply(&mut bytes));
        let is_untouched = |start: usize, end: usize| bytes.get(start..end) == Some(&whole[start..end]);
        let want: Vec<(u64, Vec<u8>)> = (1..).zip(&at).zip(&payloads)
            .filter(|((_, at), _)| is_untouched(at.offset as usize, at.offset as usize + at.len as usize))
            .map(|((number, _), payload)| (number, payload.clone()))
            .collect();
        // With head and name gone, the records themselves must say the salt, and that it is a file of the log.
        let is_renamed = is_renamed && is_untouched(0, MAGIC.len()) && (is_untouched(0, FILE_HEAD_BYTES) || want.len() > 1);
        fs::write(&path, &bytes).expect("writable");
        if is_renamed {
            fs::rename(&path, path.with_extension("log~")).expect("renamed");
        }
        let (found, replayed) = read(folder.path());
        for record in &want {
            prop_assert!(found.contains(record), "record {} of {:?} is not replayed, {:?}", record.0, damages, replayed);
        }
        for (number, payload) in &found {
            prop_assert_eq!(payload, &payloads[*number as usize - 1]);
        }
        if bytes.len() >= FILE_HEAD_BYTES {
            let file = &replayed[0];
            let intact: u64 = found.iter().map(|(number, _)| u64::from(at[*number as usize - 1].len)).sum();
            let head = if file.lost.first.first().is_some_and(|(offset, _)| *offset == 0) || file.unfinished_bytes == file.bytes { 0 } else { FILE_HEAD_BYTES as u64 };
            prop_assert_eq!(head + intact + file.lost.bytes + file.unfinished_bytes, bytes.len() as u64, "every byte is told of: {:?}", file);
        }
        let again = read(folder.path());
        prop_assert_eq!(again, (found, replayed), "a replay changes nothing");
    }
}

/// What disks and people do to files.
#[derive(Debug, Clone)]
enum Hurt {
    Bit {
        place: prop::sample::Index,
        bit: u8,
    },
    /// A page of zeros.
    Zeros(prop::sample::Index),
    /// A sector of garbage.
    Garbage {
        place: prop::sample::Index,
        seed: u64,
    },
    Cut(prop::sample::Index),
    Head {
        place: usize,
        value: u8,
    },
}

fn damage() -> impl Strategy<Value = Hurt> {
    prop_oneof![
        3 => (any::<prop::sample::Index>(), 0u8..8).prop_map(|(place, bit)| Hurt::Bit { place, bit }),
        1 => any::<prop::sample::Index>().prop_map(Hurt::Zeros),
        1 => (any::<prop::sample::Index>(), any::<u64>()).prop_map(|(place, seed)| Hurt::Garbage { place, seed }),
        1 => any::<prop::sample::Index>().prop_map(Hurt::Cut),
        1 => (0..FILE_HEAD_BYTES, any::<u8>()).prop_map(|(place, value)| Hurt::Head { place, value }),
    ]
}

impl Hurt {
    fn apply(&self, bytes: &mut Vec<u8>) {
        if bytes.is_empty() {
            return;
        }
        let block = |place: &prop::sample::Index, size: usize| {
            let start = place.index(bytes.len()) / size * size;
            start..(start + size).min(bytes.len())
        };
        match self {
            Self::Bit { place, bit } => {
                let at = place.index(bytes.len());
                bytes[at] ^= 1 << bit;
            }
            Self::Zeros(place) => {
                let page = block(place, 4096);
                bytes[page].fill(0);
            }
            Self::Garbage { place, seed } => {
                let sector = block(place, 512);
                let mut state = seed | 1;
                for byte in &mut bytes[sector] {
                    state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                    *byte = (state >> 56) as u8;
                }
            }
            Self::Cut(place) => bytes.truncate(place.index(bytes.len())),
            Self::Head { place, value } => {
                if let Some(byte) = bytes.get_mut(*place) {
                    *byte = *value;
                }
            }
        }
    }
}

#[test]
fn a_write_cut_at_any_byte_keeps_all_before_it() {
    let payloads = vec![b"first".to_vec(), Vec::new(), vec![9; 70]];
    let (folder, at) = written(&payloads);
    let path = path_of(folder.path(), 1);
    let whole = fs::read(&path).expect("readable");
    for len in 0..whole.len() {
        for zeros in [0, 5, 64] {
            let mut torn = whole[..len].to_vec();
            torn.resize(len + zeros, 0);
            fs::write(&path, &torn).expect("writable");
            let intact = at.iter().filter(|p| (p.offset + u64::from(p.len)) as usize <= len).count();
            let (found, _) = read(folder.path());
            // Zeros may by chance be what the record has there; then it is whole.
            assert!(found.len() >= intact, "cut at {len}: {found:?}");
            assert!(found.iter().zip(&payloads).all(|((_, a), b)| a == b), "cut at {len}");
            let (again, replayed) = read(folder.path());
            assert_eq!(again, found);
            if zeros == 0 {
                let end = at.iter().map(|p| p.offset + u64::from(p.len)).take(intact).next_back().unwrap_or(FILE_HEAD_BYTES as u64);
                let torn = if (len as u64) < FILE_HEAD_BYTES as u64 { len as u64 } else { len as u64 - end };
                assert_eq!((replayed[0].unfinished_bytes, replayed[0].lost.places), (torn, 0), "cut at {len}");
            }
        }
    }
}

#[test]
fn files_go_when_nothing_in_them_is_needed() {
    let (folder, _) = written(&[b"a".to_vec(), b"b".to_vec()]);
    let (_, replayed) = read(folder.path());
    let log = Log::open(folder.path(), &replayed).expect("opens");
    let at = append(&log, 3, b"c").expect("appended");
    assert_eq!(at.file.number, 2);
    let (first, second) = (path_of(folder.path(), 1), path_of(folder.path(), 2));
    log.forget(1, 1);
    assert!(first.exists());
    log.forget(1, 1);
    assert!(!first.exists());
    // The file that is appended to goes as well: the log moves on.
    log.forget(2, 1);
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(30);
    while second.exists() {
        assert!(std::time::Instant::now() < deadline, "the second file stays");
        std::thread::yield_now();
    }
    assert!(at.read().expect("a query that began before still reads it").ends_with(b"c"));
    assert_eq!(append(&log, 4, b"d").expect("appended").file.number, 3);
    drop(log);
    assert_eq!(read(folder.path()).0, [(4, b"d".to_vec())]);
}

#[test]
fn files_that_are_not_the_logs_are_left_alone() {
    let (folder, _) = written(&[b"a".to_vec()]);
    for name in ["x.log", "2.log", "00000000003.log", "+000000004.log", "0000000001.log.corrupt"] {
        fs::write(folder.path().join(name), b"not ours").expect("writable");
    }
    fs::create_dir(folder.path().join("0000000002.log")).expect("made");
    let (found, replayed) = read(folder.path());
    assert_eq!((found.len(), replayed.len()), (1, 1));
    let log = Log::open(folder.path(), &replayed).expect("opens beside a folder of the next number");
    append(&log, 2, b"b").expect("appended");
}

#[test]
fn a_file_under_a_damaged_name_is_read_and_removed_like_any_other() {
    let (folder, at) = written(&[b"a".to_vec()]);
    let log = Log::open(folder.path(), &read(folder.path()).1).expect("opens");
    append(&log, 2, b"b").expect("appended");
    drop(log);
    // Two files of one number, and one that has no number at all.
    let (first, second) = (path_of(folder.path(), 1), path_of(folder.path(), 2));
    fs::copy(&first, folder.path().join("#12345")).expect("copied");
    fs::rename(&second, names::file_path(folder.path(), 1, 0xffff_ffff)).expect("renamed");
    let (found, replayed) = read(folder.path());
    assert_eq!(found.iter().map(|(i, _)| *i).collect::<Vec<_>>(), [1, 1, 2]);
    let log = Log::open(folder.path(), &replayed).expect("opens");
    (1..=3).for_each(|number| log.forget(number, 1));
    assert_eq!(names::list(folder.path()).expect("listed").len(), 1, "only the new one is left");
    drop((log, at));
}

#[test]
fn a_file_of_an_earlier_version_says_its_salt_in_its_head_alone() {
    let payloads: Vec<Vec<u8>> = (0..4).map(|i| vec![i; 30]).collect();
    let (folder, _) = written(&payloads);
    let path = path_of(folder.path(), 1);
    let old = folder.path().join("0000000001.log");
    fs::rename(&path, &old).expect("renamed");
    assert_eq!(read(folder.path()).0.len(), 4);
    let mut bytes = fs::read(&old).expect("readable");
    bytes[9] ^= 4;
    fs::write(&old, &bytes).expect("writable");
    let (found, replayed) = read(folder.path());
    assert_eq!((found.len(), replayed[0].lost.places), (4, 0), "its records agree on the salt");
}

#[test]
fn damage_in_many_places_costs_only_what_it_hit() {
    let payloads: Vec<Vec<u8>> = (0..200).map(|i| vec![i; 20]).collect();
    let (folder, at) = written(&payloads);
    let path = path_of(folder.path(), 1);
    let mut bytes = fs::read(&path).expect("readable");
    for hit in at.iter().skip(1).step_by(2) {
        bytes[hit.offset as usize + 30] ^= 1;
    }
    fs::write(&path, &bytes).expect("writable");
    let (found, replayed) = read(folder.path());
    assert_eq!(found.iter().map(|(i, _)| *i).collect::<Vec<_>>(), (1..=200).step_by(2).collect::<Vec<_>>());
    let lost = &replayed[0].lost;
    assert_eq!((lost.places, lost.bytes), (100, at.iter().skip(1).step_by(2).map(|p| u64::from(p.len)).sum()));
    assert_eq!(lost.first[0], (at[1].offset, at[1].len.into()));
}

#[test]
fn a_damaged_file_is_set_aside_instead_of_deleted_and_the_oldest_goes_first() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut kept = Vec::new();
    for round in 0..3 {
        let (_, replayed) = read(folder.path());
        let log = Log::open(folder.path(), &replayed).expect("opens");
        let at = append(&log, 1, &[round; 100]).expect("appended");
        append(&log, 2, &[round; 100]).expect("appended");
        drop(log);
        let path = &at.file.path;
        let mut bytes = fs::read(path).expect("readable");
        bytes[at.offset as usize + 20] ^= 1;
        fs::write(path, &bytes).expect("writable");
        let (found, replayed) = read(folder.path());
        assert_eq!(found, [(2, vec![round; 100])]);
        let files = Files::with_limit(folder.path().to_owned(), &replayed, bytes.len() as u64 * 2);
        for file in &replayed {
            let _ = files.forget(file.number, file.records);
        }
        assert!(!path.exists());
        let aside = PathBuf::from(format!("{}.corrupt", path.display()));
        assert_eq!(fs::read(&aside).expect("kept"), bytes);
        kept.push(aside);
    }
    assert_eq!(kept.iter().map(|path| path.exists()).collect::<Vec<_>>(), [false, true, true]);
}

#[test]
fn a_file_that_could_not_be_opened_is_never_removed() {
    let (folder, _) = written(&[b"a".to_vec()]);
    let (_, mut replayed) = read(folder.path());
    (replayed[0].unreadable, replayed[0].records) = (true, 0);
    let log = Log::open(folder.path(), &replayed).expect("opens");
    log.forget(1, 1);
    append(&log, 2, b"b").expect("appended");
    drop(log);
    assert_eq!(read(folder.path()).0.len(), 2);
}

#[test]
fn a_log_that_cannot_write_refuses_and_recovers() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("log");
    let log = Log::open_with(&path, &[], 100).expect("opens");
    append(&log, 1, &[1; 80]).expect("appended");
    fs::rename(&path, folder.path().join("away")).expect("renamed");
    let error = append(&log, 2, &[2; 80]).expect_err("no folder for the next file");
    assert!(matches!(error, LogError::Io { .. }), "{error}");
    fs::rename(folder.path().join("away"), &path).expect("renamed");
    append(&log, 3, &[3; 80]).expect("appended");
    drop(log);
    assert_eq!(read(&path).0.iter().map(|(i, _)| *i).collect::<Vec<_>>(), [1, 3]);
}
