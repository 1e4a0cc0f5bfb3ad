//! What others leave in a bucket, and metas that cannot be right: nothing of it hides anything else.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::sync::Arc;

use vivace_block::BlockMeta;
use vivace_config::{Backend, LocalBackend, TraceStorage};
use vivace_core::{SECOND, TimeRange};
use vivace_storage::{Bucket, PollOptions, Poller, overlaps};
use vivace_testkit::{Faulty, Listings};

use crate::{block, block_id, clock, store, tenant};

fn options() -> PollOptions {
    PollOptions { retries: 0, ..PollOptions::from(&TraceStorage::default()) }
}

async fn open(folder: &tempfile::TempDir) -> Bucket {
    let local = LocalBackend { path: folder.path().display().to_string() };
    let config = TraceStorage { backend: Backend::Local, local, ..Default::default() };
    Bucket::open(&config, &|_| None).await.expect("opens")
}

/// Each on its own, so that a failure names what it was.
#[tokio::test]
async fn odd_entries_of_a_folder_hide_nothing_else() {
    type Make = fn(&std::path::Path) -> std::io::Result<()>;
    let odd: [(&str, Make); 14] = [
        ("a file at the top", |root| fs::write(root.join("readme"), "x")),
        ("a file at the top with spaces and umlauts", |root| fs::write(root.join("läs mich!?"), "x")),
        ("a folder that is no tenant", |root| fs::create_dir(root.join("lost+found"))),
        ("a name that is not UTF-8", |root| fs::create_dir(root.join(OsStr::from_bytes(b"caf\xe9")))),
        ("a name with a line break", |root| fs::create_dir(root.join("a\nb"))),
        ("a link to nothing at the top", |root| symlink("/nowhere/at/all", root.join("gone"))),
        ("a link to itself at the top", |root| symlink("loop", root.join("loop"))),
        ("a name with % in a tenant", |root| fs::write(root.join("a/100%25#1"), "x")),
        ("a name in a tenant that is not UTF-8", |root| fs::write(root.join("a").join(OsStr::from_bytes(b"\xff\xfe")), "x")),
        ("a link to nothing in a tenant", |root| symlink("/nowhere", root.join("a/link"))),
        ("a link to nothing where a block is", |root| symlink("/nowhere", root.join(format!("a/{}", block_id(8))))),
        ("a file where a block is", |root| fs::write(root.join(format!("a/{}", block_id(9))), "x")),
        ("a name in a block that is not UTF-8", |root| {
            fs::write(root.join(format!("a/{}", block_id(1))).join(OsStr::from_bytes(b"\xff")), "x")
        }),
        ("a folder where a meta is", |root| fs::create_dir_all(root.join(format!("a/{}/meta.json", block_id(7))))),
    ];
    for (what, make) in odd {
        let folder = tempfile::tempdir().expect("a folder");
        let bucket = open(&folder).await;
        let (a, b) = (tenant("a"), tenant("b"));
        let metas = [store(&bucket, &a, 1, b"one").await, store(&bucket, &a, 2, b"two").await];
        store(&bucket, &b, 3, b"three").await;
        make(folder.path()).expect(what);
        assert_eq!(bucket.tenants().await.expect(what), [a.clone(), b.clone()], "{what}");
        for poller in [Poller::reader(bucket.clone(), options(), clock), Poller::builder(bucket.clone(), options(), clock, |_| true)] {
            let report = poller.poll_once().await.expect(what);
            assert!(report.failed.is_empty(), "{what}: {report:?}");
            assert_eq!(*poller.blocklist().live(&a), metas, "{what}");
            assert_eq!(poller.blocklist().live(&b).len(), 1, "{what}");
        }
    }
}

#[tokio::test]
async fn a_link_to_a_folder_elsewhere_is_a_tenant() {
    let (folder, elsewhere) = (tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("a folder"));
    let (bucket, other) = (open(&folder).await, open(&elsewhere).await);
    store(&other, &tenant("a"), 1, b"one").await;
    symlink(elsewhere.path().join("a"), folder.path().join("a")).expect("linked");
    assert_eq!(bucket.tenants().await.expect("listed"), [tenant("a")]);
    assert_eq!(bucket.blocks(&tenant("a")).await.expect("listed").len(), 1);
}

#[tokio::test]
async fn a_tenant_that_cannot_be_listed_is_known_to_be_unknown() {
    let faulty = Faulty::default();
    let faults = Arc::clone(&faulty.faults);
    let bucket = Bucket::of_store(Arc::new(faulty));
    let a = tenant("a");
    store(&bucket, &a, 1, b"one").await;
    *faults.listings.lock() = Listings::Refused;
    let poller = Poller::reader(bucket.clone(), options(), clock);
    let report = poller.poll_once().await.expect("polled");
    assert_eq!(report.failed.len(), 1);
    let list = poller.blocklist();
    let why = list.why_unknown(&a).expect("nothing is known of it");
    assert!(why.contains("could not list a"), "{why}");
    assert_eq!(list.why_unknown(&tenant("b")), None, "which is not there");
    assert!(poller.ensure(&a).await.is_err());
    assert!(poller.ensure(&a).await.is_err(), "asked again it does not pass for empty");

    *faults.listings.lock() = Listings::Answered;
    poller.ensure(&a).await.expect("looked up");
    assert_eq!((list.live(&a).len(), list.why_unknown(&a)), (1, None));
    // What was known once stays known.
    *faults.listings.lock() = Listings::Refused;
    poller.poll_once().await.expect("polled");
    assert_eq!((list.live(&a).len(), list.why_unknown(&a)), (1, None));
}

/// 2200-01-01.
const YEAR_2200: u64 = 7_258_118_400 * SECOND;

/// Stores a block whose meta says these times, and returns what the block lists make of it, read and by index.
async fn listed_as(start: u64, end: u64) -> [BlockMeta; 2] {
    let bucket = Bucket::memory();
    let a = tenant("a");
    let (mut meta, blooms) = block(&a, 1, b"one");
    (meta.start_unix_nanos, meta.end_unix_nanos) = (start, end);
    let file = tempfile::NamedTempFile::new().expect("a file");
    fs::write(file.path(), b"one").expect("written");
    bucket.put_block(&meta, file.path(), blooms, b"{}".to_vec()).await.expect("stored");
    let builder = Poller::builder(bucket.clone(), options(), clock, |_| true);
    builder.poll_once().await.expect("polled");
    let reader = Poller::reader(bucket, PollOptions { fallback: false, ..options() }, clock);
    reader.poll_once().await.expect("polled");
    [&builder, &reader].map(|poller| poller.blocklist().live(&a).first().cloned().expect("it is listed"))
}

#[tokio::test]
async fn blocks_of_any_time_are_listed_and_asked() {
    let now = clock();
    for (start, end, is_known) in [
        (now - SECOND, now, true),
        (0, now, true),
        (SECOND, 2 * SECOND, true),
        (now, YEAR_2200, true),
        (0, u64::MAX / SECOND * SECOND, true),
        (0, 0, false),
        (now, 0, false),
        (now, now - 60 * SECOND, false),
        (YEAR_2200, SECOND, false),
    ] {
        for meta in listed_as(start, end).await {
            let want = if is_known { (start, end) } else { (0, 0) };
            assert_eq!((meta.start_unix_nanos, meta.end_unix_nanos), want, "{start} to {end}");
            // Whatever the block says of itself, a search of that time looks into it; so does every one where it says nonsense.
            for at in [start, end].into_iter().filter(|at| *at > 0) {
                assert!(
                    overlaps(&meta, TimeRange::between(at.saturating_sub(SECOND), at.saturating_add(SECOND))),
                    "{start} to {end}, asked of {at}"
                );
            }
            let before = TimeRange::between(now - 3600 * SECOND, now - 1800 * SECOND);
            assert_eq!(overlaps(&meta, before), !is_known || start == 0 && end > now - 3600 * SECOND);
        }
    }
}
