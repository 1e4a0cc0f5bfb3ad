use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use vivace_config::{Backend, LocalBackend, TraceStorage};
use vivace_core::{SECOND, TenantId, TimeRange};
use vivace_storage::{Bucket, Change, PollError, PollOptions, Poller, overlaps};
use vivace_testkit::{Faulty, Listings};

use crate::{block_id, clock, store, tenant};

fn options() -> PollOptions {
    PollOptions { retries: 0, ..PollOptions::from(&TraceStorage::default()) }
}

/// A bucket whose files the test can reach.
async fn local() -> (tempfile::TempDir, Bucket) {
    let folder = tempfile::tempdir().expect("a folder");
    let local = LocalBackend { path: folder.path().display().to_string() };
    let config = TraceStorage { backend: Backend::Local, local, ..Default::default() };
    (folder, Bucket::open(&config, &|_| None).await.expect("opens"))
}

fn live_ids(poller: &Poller, tenant: &TenantId) -> Vec<u8> {
    poller.blocklist().live(tenant).iter().map(|meta| meta.block_id.0[0]).collect()
}

#[tokio::test]
async fn readers_see_through_the_index_what_the_builder_listed() {
    let (folder, bucket) = local().await;
    let a = tenant("a");
    let metas = [store(&bucket, &a, 1, b"one").await, store(&bucket, &a, 2, b"two").await];
    store(&bucket, &a, 3, b"three").await;
    bucket.mark_compacted(&a, block_id(3)).await.expect("marked");
    let builder = Poller::builder(bucket.clone(), options(), clock, |_| true);
    builder.poll_once().await.expect("polled");
    // Written after the index: a reader that listed would see it.
    store(&bucket, &a, 4, b"four").await;

    for kept in ["index.pb.zst", "index.json.gz"] {
        let reader = Poller::reader(bucket.clone(), PollOptions { fallback: false, ..options() }, clock);
        assert!(!reader.blocklist().is_polled());
        reader.poll_once().await.expect("polled");
        let list = reader.blocklist();
        assert_eq!(*list.live(&a), metas, "from {kept}");
        assert_eq!(list.recently_compacted(&a).len(), 1);
        assert!(list.is_polled());
        let _ = std::fs::remove_file(folder.path().join("a/index.pb.zst"));
    }

    std::fs::remove_file(folder.path().join("a/index.json.gz")).expect("removed");
    let reader = Poller::reader(bucket.clone(), options(), clock);
    reader.poll_once().await.expect("polled");
    assert_eq!(live_ids(&reader, &a), [1, 2, 4], "by listing");
    assert!(!folder.path().join("a/index.pb.zst").exists(), "only builders write");
}

#[tokio::test]
async fn bad_objects_are_skipped_and_the_rest_is_listed() {
    let (folder, bucket) = local().await;
    let a = tenant("a");
    store(&bucket, &a, 1, b"one").await;
    store(&bucket, &a, 2, b"two").await;
    let at = |path: &str| folder.path().join(path);
    let write = |path: &Path, text: &str| {
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("made");
        std::fs::write(path, text).expect("written");
    };
    write(&at(&format!("a/{}/meta.json", block_id(2))), "{\"format\":");
    // Someone copied a block without changing its meta.
    let copy = std::fs::read_to_string(at(&format!("a/{}/meta.json", block_id(1)))).expect("read");
    write(&at(&format!("a/{}/meta.json", block_id(5))), &copy);
    write(&at("a/not-a-block/meta.json"), "{}");
    write(&at("a/notes.txt"), "hello");
    write(&at(&format!("a/{}/data.parquet", block_id(6))), "being written");
    write(&at("tempo_cluster_seed.json"), "{}");
    let poller = Poller::builder(bucket.clone(), options(), clock, |_| true);
    let report = poller.poll_once().await.expect("polled");
    assert_eq!(report.polled, std::slice::from_ref(&a));
    assert_eq!(live_ids(&poller, &a), [1]);
    assert_eq!(bucket.list(&a).await.expect("listed").unfinished_blocks, 1);

    // A crash between the two steps of marking leaves both names.
    std::fs::copy(at(&format!("a/{}/meta.json", block_id(1))), at(&format!("a/{}/meta.compacted.json", block_id(1)))).expect("copied");
    poller.poll_once().await.expect("polled");
    assert_eq!(live_ids(&poller, &a), [0u8; 0]);
    assert_eq!(poller.blocklist().compacted(&a).len(), 1);
}

#[tokio::test]
async fn a_broken_or_old_index_is_not_used() {
    let (folder, bucket) = local().await;
    let a = tenant("a");
    store(&bucket, &a, 1, b"one").await;
    let builder = Poller::builder(bucket.clone(), options(), clock, |_| true);
    builder.poll_once().await.expect("polled");
    store(&bucket, &a, 2, b"two").await;

    let strict = PollOptions { fallback: false, stale_index_age: Duration::from_nanos(1), ..options() };
    let reader = Poller::reader(bucket.clone(), strict.clone(), clock);
    let report = reader.poll_once().await.expect("polled");
    assert!(matches!(report.failed[..], [(_, PollError::Stale { .. })]), "{report:?}");

    std::fs::write(folder.path().join("a/index.pb.zst"), "no index").expect("written");
    let report = reader.poll_once().await.expect("polled");
    assert!(report.failed[0].1.to_string().contains("a/index.pb.zst"), "{report:?}");
    let reader = Poller::reader(bucket, PollOptions { fallback: true, ..strict }, clock);
    reader.poll_once().await.expect("polled");
    assert_eq!(live_ids(&reader, &a), [1, 2]);
}

#[tokio::test]
async fn own_changes_show_until_a_poll_has_them() {
    let bucket = Bucket::memory();
    let a = tenant("a");
    store(&bucket, &a, 1, b"one").await;
    store(&bucket, &a, 2, b"two").await;
    let other = Poller::builder(bucket.clone(), options(), clock, |_| true);
    other.poll_once().await.expect("polled");
    let poller = Poller::reader(bucket.clone(), options(), clock);
    poller.poll_once().await.expect("polled");

    let merged = store(&bucket, &a, 3, b"one and two").await;
    bucket.mark_compacted(&a, block_id(1)).await.expect("marked");
    bucket.mark_compacted(&a, block_id(2)).await.expect("marked");
    let change = Change { added: vec![merged], compacted: vec![block_id(1), block_id(2)], deleted: Vec::new() };
    poller.blocklist().apply(&a, change);
    assert_eq!(live_ids(&poller, &a), [3]);
    // The index is from before.
    poller.poll_once().await.expect("polled");
    assert_eq!(live_ids(&poller, &a), [3]);
    assert_eq!(poller.blocklist().recently_compacted(&a).len(), 2);
    assert_eq!(poller.blocklist().compacted_into_live(&a).len(), 2, "marked together with their successor");

    for n in 1..=3 {
        bucket.delete_block(&a, block_id(n)).await.expect("deleted");
    }
    other.poll_once().await.expect("polled");
    assert!(other.blocklist().tenants().is_empty(), "an empty tenant's index is deleted with it");
    poller.poll_once().await.expect("polled");
    assert!(poller.blocklist().tenants().is_empty());
}

#[tokio::test]
async fn a_tenant_is_looked_up_when_first_asked_for() {
    let bucket = Bucket::memory();
    let poller = Poller::reader(bucket.clone(), options(), clock);
    poller.poll_once().await.expect("polled");
    let (a, b) = (tenant("a"), tenant("b"));
    store(&bucket, &a, 1, b"one").await;
    poller.ensure(&a).await.expect("looked up");
    assert_eq!(live_ids(&poller, &a), [1]);
    poller.ensure(&b).await.expect("looked up");
    assert!(live_ids(&poller, &b).is_empty());
}

#[tokio::test]
async fn time_bounds_are_used_when_both_are_given() {
    let meta = store(&Bucket::memory(), &tenant("a"), 1, b"one").await;
    let (start, end) = (meta.start_unix_nanos, meta.end_unix_nanos);
    let between = |start, end| overlaps(&meta, TimeRange::between(start, end));
    assert!(
        [TimeRange::ALL, TimeRange { start: Some(end + 5 * SECOND), end: None }, TimeRange { start: None, end: Some(1) }]
            .iter()
            .all(|open| overlaps(&meta, *open))
    );
    assert!(between(start - 1, start + 1) && between(end, end + SECOND) && between(start - SECOND, start));
    assert!(!between(start - 2 * SECOND, start - SECOND) && !between(end + SECOND, end + 2 * SECOND));
}

#[tokio::test]
async fn an_index_that_would_say_the_same_is_left_alone() {
    static SKIPPED: AtomicU64 = AtomicU64::new(0);
    let later: fn() -> u64 = || clock() + SKIPPED.load(Ordering::Relaxed);
    let (folder, bucket) = local().await;
    let a = tenant("a");
    store(&bucket, &a, 1, b"one").await;
    let both = || ["a/index.pb.zst", "a/index.json.gz"].map(|name| std::fs::read(folder.path().join(name)).expect("it is there"));
    let builder = Poller::builder(bucket.clone(), options(), later, |_| true);
    let polled = async |builder: &Poller| {
        builder.poll_once().await.expect("polled");
        both()
    };
    let first = polled(&builder).await;
    assert_eq!(polled(&builder).await, first);
    // After a restart too, and all it knows it has from there.
    let restarted = Poller::builder(bucket.clone(), options(), later, |_| true);
    assert_eq!(polled(&restarted).await, first);
    assert_eq!(live_ids(&restarted, &a), [1]);

    let changed = async |before: &[Vec<u8>; 2], what: &str| {
        let now = polled(&builder).await;
        assert!(now[0] != before[0] && now[1] != before[1], "{what}");
        now
    };
    store(&bucket, &a, 2, b"two").await;
    let index = changed(&first, "a block came").await;
    bucket.mark_compacted(&a, block_id(1)).await.expect("marked");
    let index = changed(&index, "a block was marked").await;
    bucket.delete_block(&a, block_id(1)).await.expect("deleted");
    let index = changed(&index, "a block went").await;
    std::fs::remove_file(folder.path().join("a/index.pb.zst")).expect("removed");
    std::fs::remove_file(folder.path().join("a/index.json.gz")).expect("removed");
    let index = changed(&index, "somebody deleted them").await;

    // Readers see by its age that somebody looks after it.
    SKIPPED.store(300_000_000_000, Ordering::Relaxed);
    let [protobuf, json] = polled(&builder).await;
    assert!(protobuf != index[0] && json == index[1]);
    SKIPPED.store(4_000_000_000_000, Ordering::Relaxed);
    let aged = polled(&builder).await;
    assert!(aged[0] != protobuf && aged[1] != json);
    // A clock that was ahead and is right again.
    SKIPPED.store(0, Ordering::Relaxed);
    assert!(polled(&builder).await[0] != aged[0]);
}

#[tokio::test(start_paused = true)]
async fn a_tenant_that_is_asked_for_waits_for_no_other() {
    let faulty = Faulty::default();
    let faults = Arc::clone(&faulty.faults);
    let bucket = Bucket::of_store(Arc::new(faulty));
    let (a, b) = (tenant("a"), tenant("b"));
    store(&bucket, &b, 1, b"one").await;
    store(&bucket, &a, 2, b"two").await;
    *faults.listings.lock() = Listings::Unanswered;
    let poller = Poller::reader(bucket.clone(), options(), clock);
    let polling = poller.clone();
    let polling = async move { polling.poll_once().await };
    let mut polling = std::pin::pin!(polling);
    tokio::time::timeout(Duration::from_secs(60), polling.as_mut()).await.expect_err("the listings are still waited for");
    *faults.listings.lock() = Listings::Answered;
    let asked = tokio::time::timeout(Duration::from_secs(1), futures::future::join(poller.ensure(&a), poller.ensure(&a))).await;
    let (first, second) = asked.expect("at once");
    first.expect("looked up");
    second.expect("waited for the same look");
    assert_eq!(live_ids(&poller, &a), [2]);
}

#[tokio::test]
async fn a_tenant_that_came_while_a_poll_went_on_stays_known() {
    let bucket = Bucket::memory();
    let poller = Poller::reader(bucket.clone(), PollOptions { jitter: Duration::from_millis(300), ..options() }, clock);
    store(&bucket, &tenant("a"), 1, b"one").await;
    let polling = poller.poll_once();
    let mut polling = std::pin::pin!(polling);
    // As far as the list of the tenants.
    let _ = futures::poll!(polling.as_mut());
    store(&bucket, &tenant("b"), 2, b"two").await;
    poller.ensure(&tenant("b")).await.expect("looked up");
    polling.await.expect("polled");
    assert_eq!((live_ids(&poller, &tenant("a")), live_ids(&poller, &tenant("b"))), (vec![1], vec![2]));
}

#[tokio::test]
async fn readers_whose_clock_is_off_follow_the_index() {
    let ahead: fn() -> u64 = || clock() + 3_600_000_000_000;
    let behind: fn() -> u64 = || clock() - 3_600_000_000_000;
    for (what, of_reader, of_builder) in [
        ("reader ahead", ahead, clock as fn() -> u64),
        ("reader behind", behind, clock),
        ("builder ahead", clock, ahead),
        ("builder behind", clock, behind),
    ] {
        let bucket = Bucket::memory();
        let a = tenant("a");
        store(&bucket, &a, 1, b"one").await;
        let builder = Poller::builder(bucket.clone(), options(), of_builder, |_| true);
        builder.poll_once().await.expect("polled");
        let reader = Poller::reader(bucket.clone(), options(), of_reader);
        reader.poll_once().await.expect("polled");
        store(&bucket, &a, 2, b"two").await;
        builder.poll_once().await.expect("polled");
        reader.poll_once().await.expect("polled");
        assert_eq!(live_ids(&reader, &a), [1, 2], "{what}");
        // The work goes to a builder with another clock.
        store(&bucket, &a, 3, b"three").await;
        let next = Poller::builder(bucket.clone(), options(), if what == "builder ahead" { clock } else { of_builder }, |_| true);
        next.poll_once().await.expect("polled");
        reader.poll_once().await.expect("polled");
        assert_eq!(live_ids(&reader, &a), [1, 2, 3], "{what}");
    }
}
