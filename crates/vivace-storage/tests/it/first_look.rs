//! What a reader does about tenant indexes that are older than the newest blocks.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use vivace_config::TraceStorage;
use vivace_core::TenantId;
use vivace_storage::{Bucket, PollOptions, Poller};
use vivace_testkit::{Faults, Faulty, Listings};

use crate::{block_id, clock, store, tenant};

/// A tenant whose index names blocks 1 to 3; since then 1 was deleted, 2 compacted, and 4 written.
struct Outdated {
    bucket: Bucket,
    tenant: TenantId,
    builder: Poller,
    faults: Arc<Faults>,
}

impl Outdated {
    async fn new() -> Self {
        let faulty = Faulty::default();
        let faults = Arc::clone(&faulty.faults);
        let bucket = Bucket::of_store(Arc::new(faulty));
        let tenant = tenant("a");
        for n in 1..=3 {
            store(&bucket, &tenant, n, b"old").await;
        }
        let builder = Poller::builder(bucket.clone(), options(), clock, |_| true);
        builder.poll_once().await.expect("polled");
        bucket.delete_block(&tenant, block_id(1)).await.expect("deleted");
        bucket.mark_compacted(&tenant, block_id(2)).await.expect("marked");
        store(&bucket, &tenant, 4, b"new").await;
        faults.metas_read.store(0, Ordering::Relaxed);
        faults.listed.store(0, Ordering::Relaxed);
        Self { bucket, tenant, builder, faults }
    }

    fn reader(&self) -> Poller {
        Poller::reader(self.bucket.clone(), options(), clock)
    }

    fn live(&self, poller: &Poller) -> Vec<u8> {
        poller.blocklist().live(&self.tenant).iter().map(|meta| meta.block_id.0[0]).collect()
    }

    fn counts(&self) -> (usize, usize) {
        (self.faults.listed.load(Ordering::Relaxed), self.faults.metas_read.load(Ordering::Relaxed))
    }
}

fn options() -> PollOptions {
    PollOptions { retries: 0, ..PollOptions::from(&TraceStorage::default()) }
}

#[tokio::test]
async fn the_first_poll_sees_what_the_index_lacks() {
    let outdated = Outdated::new().await;
    let reader = outdated.reader();
    reader.poll_once().await.expect("polled");
    assert_eq!(outdated.live(&reader), [3, 4]);
    assert_eq!(reader.blocklist().compacted(&outdated.tenant).len(), 1);
    assert_eq!(outdated.counts(), (1, 1), "listed once, and the one new meta was read");

    // The index is still the old one: what is known is not forgotten, and nothing is listed again.
    reader.poll_once().await.expect("polled");
    assert_eq!(outdated.live(&reader), [3, 4]);
    assert_eq!(outdated.counts(), (1, 1));

    store(&outdated.bucket, &outdated.tenant, 5, b"newer").await;
    outdated.builder.poll_once().await.expect("polled");
    reader.poll_once().await.expect("polled");
    assert_eq!(outdated.live(&reader), [3, 4, 5], "from the new index");
}

#[tokio::test]
async fn a_tenant_asked_for_before_the_first_poll_is_current() {
    let outdated = Outdated::new().await;
    let reader = outdated.reader();
    reader.ensure(&outdated.tenant).await.expect("looked up");
    assert_eq!(outdated.live(&reader), [3, 4]);
}

#[tokio::test]
async fn the_index_stays_where_listing_fails_and_the_next_poll_tries_again() {
    let outdated = Outdated::new().await;
    let reader = outdated.reader();
    *outdated.faults.listings.lock() = Listings::Refused;
    let report = reader.poll_once().await.expect("polled");
    assert!(report.failed.is_empty(), "{report:?}");
    assert_eq!(outdated.live(&reader), [1, 2, 3]);
    assert!(reader.blocklist().is_polled());

    *outdated.faults.listings.lock() = Listings::Answered;
    reader.poll_once().await.expect("polled");
    assert_eq!(outdated.live(&reader), [3, 4]);
}

#[tokio::test]
async fn readers_that_must_not_list_keep_to_the_index() {
    let outdated = Outdated::new().await;
    let reader = Poller::reader(outdated.bucket.clone(), PollOptions { fallback: false, ..options() }, clock);
    reader.poll_once().await.expect("polled");
    assert_eq!(outdated.live(&reader), [1, 2, 3]);
    assert_eq!(outdated.counts().0, 0);
}

#[tokio::test(start_paused = true)]
async fn a_listing_that_takes_long_holds_nobody_up() {
    let outdated = Outdated::new().await;
    let reader = outdated.reader();
    *outdated.faults.listings.lock() = Listings::Unanswered;
    let hour = tokio::time::timeout(Duration::from_secs(3600), reader.poll_once()).await;
    assert!(hour.is_err(), "the listing is still waited for");
    assert!(reader.blocklist().is_polled());
    assert_eq!(outdated.live(&reader), [1, 2, 3]);
}
