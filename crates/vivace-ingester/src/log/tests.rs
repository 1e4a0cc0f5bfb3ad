use std::fs;
use std::sync::mpsc;

use proptest::prelude::*;
use vivace_core::TenantId;

use super::*;
use crate::segment::{Compression, SegmentId};

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
        prop_assert!(replayed.iter().all(|f| f.damage.is_none()));
    }

    #[test]
    fn one_wrong_bit_costs_one_record(payloads in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..40), 2..5), place: prop::sample::Index, bit in 0u8..8) {
        let (folder, at) = written(&payloads);
        let path = file_path(folder.path(), 1);
        let mut bytes = fs::read(&path).expect("readable");
        let index = place.index(bytes.len());
        bytes[index] ^= 1 << bit;
        fs::write(&path, &bytes).expect("writable");
        let (found, replayed) = read(folder.path());
        if index < MAGIC.len() {
            prop_assert_eq!(replayed[0].damage, Some(Damage::Corrupt { offset: 0 }));
        } else if index >= FILE_HEAD_BYTES {
            let hit = at.iter().rposition(|p| p.offset as usize <= index).expect("behind the head");
            let want: Vec<_> = (1..).zip(payloads.clone()).filter(|(i, _)| *i != hit as u64 + 1).collect();
            prop_assert_eq!(found, want);
            let offset = at[hit].offset;
            let is_last = hit + 1 == at.len();
            prop_assert_eq!(replayed[0].damage, Some(if is_last { Damage::Torn { offset } } else { Damage::Corrupt { offset } }));
        }
    }
}

#[test]
fn a_write_cut_at_any_byte_keeps_all_before_it() {
    let payloads = vec![b"first".to_vec(), Vec::new(), vec![9; 70]];
    let (folder, at) = written(&payloads);
    let path = file_path(folder.path(), 1);
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
            assert!(
                replayed.iter().all(|f| f.damage.is_none() || f.damage == Some(Damage::Corrupt { offset: 0 })),
                "{len} {zeros} {replayed:?}"
            );
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
    log.release(1, 1);
    assert!(file_path(folder.path(), 1).exists());
    log.release(1, 1);
    assert!(!file_path(folder.path(), 1).exists());
    // The file that is appended to goes as well: the log moves on.
    log.release(2, 1);
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(30);
    while file_path(folder.path(), 2).exists() {
        assert!(std::time::Instant::now() < deadline, "the second file stays");
        std::thread::yield_now();
    }
    assert!(at.read().expect("a query that began before still reads it").ends_with(b"c"));
    assert_eq!(append(&log, 4, b"d").expect("appended").file.number, 3);
    drop(log);
    assert_eq!(read(folder.path()).0, [(4, b"d".to_vec())]);
}

#[test]
fn files_with_other_names_are_left_alone() {
    let (folder, _) = written(&[b"a".to_vec()]);
    for name in ["x.log", "2.log", "00000000003.log", "+000000004.log", "0000000001.log.corrupt"] {
        fs::write(folder.path().join(name), b"not ours").expect("writable");
    }
    let (found, replayed) = read(folder.path());
    assert_eq!((found.len(), replayed.len()), (1, 1));
}

#[test]
fn damage_in_many_places_costs_only_what_it_hit() {
    let payloads: Vec<Vec<u8>> = (0..200).map(|i| vec![i; 20]).collect();
    let (folder, at) = written(&payloads);
    let path = file_path(folder.path(), 1);
    let mut bytes = fs::read(&path).expect("readable");
    for hit in at.iter().skip(1).step_by(2) {
        bytes[hit.offset as usize + 30] ^= 1;
    }
    fs::write(&path, &bytes).expect("writable");
    let (found, replayed) = read(folder.path());
    assert_eq!(found.iter().map(|(i, _)| *i).collect::<Vec<_>>(), (1..=200).step_by(2).collect::<Vec<_>>());
    assert_eq!(replayed[0].damage, Some(Damage::Corrupt { offset: at[1].offset }));
}

#[test]
fn a_damaged_file_is_set_aside_instead_of_deleted() {
    let (folder, at) = written(&[b"aaaa".to_vec(), b"bbbb".to_vec()]);
    let path = file_path(folder.path(), 1);
    let mut bytes = fs::read(&path).expect("readable");
    bytes[at[0].offset as usize + 20] ^= 1;
    fs::write(&path, &bytes).expect("writable");
    let (found, replayed) = read(folder.path());
    assert_eq!(found, [(2, b"bbbb".to_vec())]);
    let log = Log::open(folder.path(), &replayed).expect("opens");
    log.release(1, 1);
    assert!(!path.exists());
    assert_eq!(fs::read(path.with_extension("log.corrupt")).expect("kept"), bytes);
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
