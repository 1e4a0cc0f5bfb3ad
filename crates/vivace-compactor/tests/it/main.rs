//! Compaction and retention over a bucket in memory.

mod command_line;
mod thousands;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{ObjectStore, PutOptions, PutPayload};
use prost::Message;
use tokio_util::sync::CancellationToken;
use vivace_block::{BlockMeta, BlockOptions, BlockReader, BlockWriter, SpanRef};
use vivace_compactor::{Compactor, Owner};
use vivace_config::{Config, Limits};
use vivace_core::{BlockId, SECOND, SpanId, TenantId, TraceId};
use vivace_server::{Overrides, clock};
use vivace_storage::{Bucket, PollOptions, Poller};
use vivace_testkit::{Faults, Faulty, TraceBuilder};

/// A bucket, its block list and a compactor.
struct Upkeep {
    bucket: Bucket,
    poller: Poller,
    compactor: Compactor,
    faults: Arc<Faults>,
    _work: tempfile::TempDir,
}

fn config(change: impl FnOnce(&mut Config)) -> Config {
    let mut config = Config::default();
    change(&mut config);
    config
}

async fn upkeep(config: &Config) -> Upkeep {
    let faulty = Faulty::default();
    let faults = Arc::clone(&faulty.faults);
    over(config, Bucket::of_store(Arc::new(faulty)), faults).await
}

async fn over(config: &Config, bucket: Bucket, faults: Arc<Faults>) -> Upkeep {
    let poller = Poller::builder(bucket.clone(), PollOptions::from(&config.storage.trace), clock::unix_nanos, |_| true);
    let work = tempfile::tempdir().expect("a folder");
    let overrides = Overrides::fixed(Limits::default());
    let compactor =
        Compactor::new(config, bucket.clone(), poller.blocklist(), Owner::of_everything(), overrides, work.path().join("compaction"))
            .expect("a folder for work");
    Upkeep { bucket, poller, compactor, faults, _work: work }
}

/// One trace with spans `first..end`; equal numbers are equal spans.
fn trace(number: u64, spans: Range<u64>) -> Vec<u8> {
    let start = clock::unix_nanos() / 3_600_000_000_000 * 3_600_000_000_000;
    let mut builder = TraceBuilder::new(number, "shop", start);
    for n in 0..spans.end {
        builder = builder.span(&format!("span {n}"), &[vivace_testkit::attribute("n", &n.to_string())]);
    }
    let mut data = builder.build();
    data.resource_spans[0].scope_spans[0].spans.drain(..usize::try_from(spans.start).expect("few"));
    data.encode_to_vec()
}

impl Upkeep {
    /// Stores a block of these traces.
    async fn store(&self, block: u8, traces: &[Vec<u8>]) -> BlockMeta {
        self.store_as(block, traces, |_| {}).await
    }

    /// Stores a block of these traces whose meta says something of its own.
    async fn store_as(&self, block: u8, traces: &[Vec<u8>], change: impl FnOnce(&mut BlockMeta)) -> BlockMeta {
        let mut by_id: BTreeMap<TraceId, Vec<SpanRef<'_>>> = BTreeMap::new();
        for bytes in traces {
            vivace_core::otlp::walk_spans(bytes, |at, span| {
                by_id.entry(span.trace()).or_default().push(SpanRef { resource: at.resource, scope: at.scope, span: span.bytes });
            })
            .expect("valid");
        }
        let file = tempfile::NamedTempFile::new().expect("a file");
        let out = std::fs::File::create(file.path()).expect("a file");
        let mut writer = BlockWriter::new(BlockOptions::default(), TenantId::single(), BlockId([block; 16]), out, 10).expect("starts");
        for (id, spans) in &by_id {
            writer.push_trace(*id, spans).expect("ascending");
        }
        let mut finished = writer.finish().expect("finished");
        change(&mut finished.meta);
        self.bucket.put_block(&finished.meta, file.path(), finished.blooms, finished.index).await.expect("stored");
        finished.meta
    }

    async fn live(&self) -> Vec<BlockMeta> {
        self.bucket.blocks(&TenantId::single()).await.expect("listed")
    }

    /// Every span of the live blocks: trace, span, name and attributes as text; and how many copies there are in all.
    async fn spans(&self) -> (BTreeSet<(TraceId, SpanId, String)>, usize) {
        let sources: Vec<_> = self.live().await.into_iter().map(|meta| (meta.clone(), self.bucket.reader(&meta))).collect();
        tokio::task::spawn_blocking(move || {
            let (mut spans, mut copies) = (BTreeSet::new(), 0);
            for (meta, source) in sources {
                let reader = BlockReader::open(meta, source).expect("opens");
                for trace in reader.traces() {
                    let (id, resources) = trace.expect("readable");
                    for resource in resources {
                        let service = format!("{:?}", resource.resource);
                        for span in resource.scope_spans.into_iter().flat_map(|s| s.spans) {
                            copies += 1;
                            let id_of_span = SpanId::from_slice(&span.span_id);
                            spans.insert((id, id_of_span, format!("{service} {} {:?}", span.name, span.attributes)));
                        }
                    }
                }
            }
            (spans, copies)
        })
        .await
        .expect("no panic")
    }

    async fn compact(&self) {
        self.poller.poll_once().await.expect("polled");
        self.compactor.compact_tenant(&TenantId::single(), &CancellationToken::new()).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn merging_keeps_every_span_once() {
    let upkeep = upkeep(&Config::default()).await;
    let first = upkeep.store(1, &[trace(1, 0..3), trace(2, 0..2), trace(5, 0..1)]).await;
    let second = upkeep.store(2, &[trace(1, 1..5), trace(3, 0..1), trace(5, 0..1)]).await;
    upkeep.store(3, &[trace(4, 0..7)]).await;
    let (before, copies) = upkeep.spans().await;
    assert_eq!((before.len(), copies), (16, 19));

    upkeep.compact().await;
    let live = upkeep.live().await;
    let [merged] = live.as_slice() else { panic!("one block, not {live:?}") };
    assert_eq!((merged.compaction_level, merged.total_objects), (1, 5));
    assert_eq!(merged.start_unix_nanos, first.start_unix_nanos.min(second.start_unix_nanos));
    assert_eq!(merged.dedicated_columns, first.dedicated_columns);
    let (after, copies) = upkeep.spans().await;
    assert_eq!(after, before);
    assert_eq!(copies, 16);
    for number in 1..=5 {
        let id = TraceId(TraceBuilder::new(number, "", 0).trace_id());
        assert!(upkeep.bucket.bloom_may_contain(merged, id).await.expect("read"));
    }
    // Known at once in this process, and for others through the index.
    assert_eq!(*upkeep.poller.blocklist().live(&TenantId::single()), live);
    assert_eq!(upkeep.poller.blocklist().recently_compacted(&TenantId::single()).len(), 3);
    upkeep.compact().await;
    assert_eq!(upkeep.live().await, live, "nothing is left to do");
}

#[tokio::test(flavor = "multi_thread")]
async fn dying_between_storing_and_marking_leaves_copies_only() {
    let config = Config::default();
    let upkeep = upkeep(&config).await;
    upkeep.store(1, &[trace(1, 0..3), trace(2, 0..2)]).await;
    upkeep.store(2, &[trace(1, 2..4)]).await;
    let (before, _) = upkeep.spans().await;
    *upkeep.faults.refused_name.lock() = Some("meta.compacted.json");
    upkeep.compact().await;
    assert_eq!(upkeep.live().await.len(), 3, "the merged block and both inputs");
    assert_eq!(upkeep.spans().await.0, before);

    // A new process finds the inputs still there, and merges them once more.
    *upkeep.faults.refused_name.lock() = None;
    let restarted = over(&config, upkeep.bucket.clone(), upkeep.faults.clone()).await;
    restarted.compact().await;
    restarted.compact().await;
    let live = restarted.live().await;
    assert_eq!(live.iter().map(|b| b.compaction_level).collect::<Vec<_>>(), [2]);
    let (after, copies) = restarted.spans().await;
    assert_eq!(after, before);
    assert_eq!(copies, before.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_block_does_not_keep_the_others_apart() {
    let upkeep = upkeep(&Config::default()).await;
    for n in 1..=3 {
        upkeep.store(n, &[trace(u64::from(n), 0..2)]).await;
    }
    // Same length, other bytes.
    let broken = upkeep.live().await.remove(1);
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), vec![1; usize::try_from(broken.size_bytes).expect("small")]).expect("written");
    upkeep.bucket.put_block(&broken, file.path(), Vec::new(), Vec::new()).await.expect("stored");

    upkeep.compact().await;
    assert_eq!(upkeep.live().await.len(), 3, "the first try meets the broken block");
    upkeep.compact().await;
    let live = upkeep.live().await;
    assert_eq!(live.len(), 2);
    assert!(live.contains(&broken));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_block_with_a_flag_is_left_alone() {
    let store = Arc::new(InMemory::new());
    let upkeep = over(&Config::default(), Bucket::of_store(store.clone()), Arc::default()).await;
    upkeep.store(1, &[trace(1, 0..2)]).await;
    upkeep.store(2, &[trace(2, 0..2)]).await;
    let flag = Path::from(format!("single-tenant/{}/nocompact.flg", BlockId([1; 16])));
    store.put_opts(&flag, PutPayload::new(), PutOptions::default()).await.expect("written");
    upkeep.compact().await;
    assert_eq!(upkeep.live().await.len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn blocks_expire_and_are_deleted() {
    let config = config(|c| {
        c.compactor.compaction.block_retention = Duration::from_nanos(1);
        c.compactor.compaction.compacted_block_retention = Duration::from_nanos(1);
    });
    let upkeep = upkeep(&config).await;
    let tenant = TenantId::single();
    upkeep.store(1, &[trace(1, 0..2)]).await;
    // An empty list does nothing, and neither does one that has not seen the block.
    upkeep.compactor.retain_tenant(&tenant).await;
    upkeep.poller.poll_once().await.expect("polled");
    upkeep.compactor.retain_tenant(&tenant).await;
    assert!(upkeep.live().await.is_empty());
    assert_eq!(upkeep.bucket.list(&tenant).await.expect("listed").blocks.len(), 1, "marked, still readable");
    upkeep.compactor.retain_tenant(&tenant).await;
    assert!(upkeep.bucket.list(&tenant).await.expect("listed").blocks.is_empty());
    upkeep.poller.poll_once().await.expect("polled");
    assert!(upkeep.poller.blocklist().tenants().is_empty());
}

const DAY: u64 = 86_400 * SECOND;
/// 2200-01-01.
const YEAR_2200: u64 = 7_258_118_400 * SECOND;

/// Retention of 14 days, as by default, and none for compacted blocks.
fn two_weeks() -> Config {
    config(|c| c.compactor.compaction.compacted_block_retention = Duration::from_nanos(1))
}

#[tokio::test(flavor = "multi_thread")]
async fn blocks_of_any_time_stay_for_the_retention_from_their_arrival() {
    let (now, tenant) = (clock::unix_nanos(), TenantId::single());
    for (start, end, level) in [
        (now - 31 * DAY, now - 30 * DAY, 0),
        (now - 31 * DAY, now - 30 * DAY, 4),
        (0, SECOND, 0),
        (0, 0, 0),
        (now, 0, 2),
        (now, now - 40 * DAY, 0),
        (YEAR_2200, YEAR_2200, 0),
        (0, YEAR_2200, 3),
        (now, u64::MAX / SECOND * SECOND, 0),
    ] {
        let place = |meta: &mut BlockMeta| {
            (meta.start_unix_nanos, meta.end_unix_nanos, meta.compaction_level) = (start, end, level);
        };
        // It came just now.
        let upkeep = upkeep(&two_weeks()).await;
        for block in 1..=2 {
            upkeep.store_as(block, &[trace(u64::from(block), 0..2)], place).await;
        }
        upkeep.compact().await;
        upkeep.compactor.retain_tenant(&tenant).await;
        assert!(!upkeep.live().await.is_empty(), "{start} to {end}, level {level}");
        assert_eq!(upkeep.spans().await.1, 4, "{start} to {end}, level {level}");
        // And goes when that is long enough ago.
        let short = config(|c| c.compactor.compaction.block_retention = Duration::from_nanos(1));
        let later = over(&short, upkeep.bucket.clone(), upkeep.faults.clone()).await;
        later.poller.poll_once().await.expect("polled");
        later.compactor.retain_tenant(&tenant).await;
        assert!(later.live().await.is_empty(), "{start} to {end}, level {level}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenants_own_retention_counts_from_the_arrival_too() {
    let upkeep = upkeep(&config(|_| {})).await;
    let tenant = TenantId::single();
    let mut limits = Limits::default();
    limits.compaction.block_retention = Duration::from_secs(3 * 86_400);
    let work = tempfile::tempdir().expect("a folder");
    let (config, list) = (Config::default(), upkeep.poller.blocklist());
    let overrides = Overrides::fixed(limits);
    let compactor =
        Compactor::new(&config, upkeep.bucket.clone(), list, Owner::of_everything(), overrides, work.path().join("c")).expect("a folder");
    let now = clock::unix_nanos();
    // Four days old, and here for a moment.
    upkeep.store_as(1, &[trace(1, 0..1)], |meta| meta.end_unix_nanos = now - 4 * DAY).await;
    upkeep.poller.poll_once().await.expect("polled");
    compactor.retain_tenant(&tenant).await;
    assert_eq!(upkeep.live().await.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn merging_imports_does_not_forget_when_they_came() {
    let upkeep = upkeep(&two_weeks()).await;
    let (now, tenant) = (clock::unix_nanos(), TenantId::single());
    let old = |meta: &mut BlockMeta| (meta.start_unix_nanos, meta.end_unix_nanos) = (now - 14 * DAY, now - 13 * DAY);
    upkeep.store_as(1, &[trace(1, 0..2)], old).await;
    upkeep.store_as(2, &[trace(2, 0..2)], old).await;
    upkeep.compact().await;
    let live = upkeep.live().await;
    let [merged] = live.as_slice() else { panic!("{live:?}") };
    assert_eq!((merged.compaction_level, merged.start_unix_nanos), (1, now - 14 * DAY));
    assert!(merged.end_unix_nanos >= now / SECOND * SECOND, "kept for two weeks from now, not a day: {merged:?}");
    upkeep.poller.poll_once().await.expect("polled");
    upkeep.compactor.retain_tenant(&tenant).await;
    assert_eq!(upkeep.live().await.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_merged_block_has_the_times_of_its_inputs_metas() {
    let upkeep = upkeep(&two_weeks()).await;
    let now = clock::unix_nanos() / SECOND * SECOND;
    // The spans have other times: their writer did not believe them.
    let spans_of_2200 = |number: u64| {
        let mut builder = TraceBuilder::new(number, "shop", YEAR_2200);
        builder = builder.span("far away", &[]);
        builder.build().encode_to_vec()
    };
    upkeep
        .store_as(1, &[spans_of_2200(1)], |meta| {
            (meta.start_unix_nanos, meta.end_unix_nanos) = (now - 90 * SECOND, now - 60 * SECOND);
        })
        .await;
    upkeep
        .store_as(2, &[spans_of_2200(2)], |meta| {
            (meta.start_unix_nanos, meta.end_unix_nanos) = (now - 80 * SECOND, now - 60 * SECOND);
        })
        .await;
    upkeep.compact().await;
    let live = upkeep.live().await;
    let [merged] = live.as_slice() else { panic!("{live:?}") };
    assert_eq!((merged.start_unix_nanos, merged.end_unix_nanos), (now - 90 * SECOND, now - 60 * SECOND));
}
