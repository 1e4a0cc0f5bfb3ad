//! A block written, looked into and searched by one core: spans per second of CPU, and what a block takes of bytes.
//!
//! `VIVACE_BENCH_CORPUS` names recorded requests to use instead of generated spans; see `corpus.rs`.

mod corpus;
mod cpu;

use std::hint::black_box;
use std::ops::{ControlFlow, Range};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use criterion::{BenchmarkGroup, Criterion, Throughput, criterion_group, criterion_main};
use vivace_block::bloom::{self, Shard};
use vivace_block::index::RowGroupIndex;
use vivace_block::{BlockOptions, BlockReader, BlockWriter, FinishedBlock, ReadAt, SpanRef, merge};
use vivace_core::{BlockId, TenantId, TimeRange, TraceId};
use vivace_traceql::Fetch;

use corpus::Traces;
use cpu::CpuTime;

/// As in the programs.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn write(options: BlockOptions, traces: &Traces) -> FinishedBlock<Vec<u8>> {
    let mut writer = BlockWriter::new(options, TenantId::single(), BlockId::default(), Vec::new(), traces.len() as u64).expect("starts");
    for (id, spans) in traces {
        writer.push_trace(*id, spans).expect("takes the trace");
    }
    writer.finish().expect("finishes")
}

fn count(traces: &Traces) -> u64 {
    traces.iter().map(|(_, spans)| spans.len() as u64).sum()
}

fn group<'a>(criterion: &'a mut Criterion<CpuTime>, name: &str, spans: u64) -> BenchmarkGroup<'a, CpuTime> {
    let mut group = criterion.benchmark_group(name);
    group.sample_size(10).warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(4));
    if spans > 0 {
        group.throughput(Throughput::Elements(spans));
    }
    group
}

/// Bytes in memory that count how many of them are read.
struct Counted {
    bytes: Bytes,
    read: Arc<AtomicU64>,
}

impl ReadAt for Counted {
    fn read(&self, range: Range<u64>) -> std::io::Result<Bytes> {
        self.read.fetch_add(range.end - range.start, Ordering::Relaxed);
        ReadAt::read(&self.bytes, range)
    }

    fn len(&self) -> u64 {
        ReadAt::len(&self.bytes)
    }

    /// As of a file.
    fn gap_bytes(&self) -> u64 {
        2 << 10
    }
}

fn encode(criterion: &mut Criterion<CpuTime>) {
    let traces = corpus::traces();
    let spans = count(&traces);
    let otlp: u64 = traces.iter().flat_map(|(_, spans)| spans).map(|s| s.span.len() as u64).sum();
    let mut group = group(criterion, "encode", spans);
    for zstd_level in [1, 3] {
        let options = BlockOptions { zstd_level, ..BlockOptions::default() };
        let size = write(options.clone(), &traces).meta.size_bytes as f64 / spans as f64;
        let name = format!("zstd-{zstd_level}: {spans} spans of {} bytes become {size:.1} bytes each", otlp / spans);
        group.bench_function(name, |bencher| bencher.iter(|| black_box(write(options.clone(), &traces))));
    }
    group.finish();
}

fn find(criterion: &mut Criterion<CpuTime>) {
    let traces = corpus::traces();
    let block = write(BlockOptions::default(), &traces);
    let index = RowGroupIndex::from_json(&block.index).expect("an index");
    let read = Arc::new(AtomicU64::new(0));
    let source = Counted { bytes: block.out.into(), read: Arc::clone(&read) };
    let reader = BlockReader::open(block.meta.clone(), Arc::new(source)).expect("opens");
    let wanted: Vec<TraceId> = traces.iter().step_by(traces.len() / 500 + 1).map(|(id, _)| *id).collect();
    let look = || wanted.iter().filter(|id| reader.find(**id, Some(&index)).expect("reads").is_some()).count();
    assert_eq!(look(), wanted.len());
    read.store(0, Ordering::Relaxed);
    look();
    let bytes = read.load(Ordering::Relaxed) / wanted.len() as u64;
    let mut group = group(criterion, "find", 0);
    let mut next = wanted.iter().cycle();
    group.bench_function(format!("a trace, {} KB read", bytes / 1000), |bencher| {
        bencher.iter(|| black_box(reader.find(*next.next().expect("a cycle"), Some(&index)).expect("reads")));
    });
    let absent = TraceId([7; 16]);
    let shards = &block.blooms;
    group.bench_function("no trace, by bloom filter", |bencher| {
        bencher.iter(|| {
            let shard = bloom::shard_of(absent, shards.len() as u32);
            black_box(Shard::from_bytes(&shards[shard as usize]).expect("a shard").may_contain(absent))
        });
    });
    group.finish();
}

fn scan(criterion: &mut Criterion<CpuTime>) {
    let traces = corpus::traces();
    let spans = count(&traces);
    let block = write(BlockOptions::default(), &traces);
    let reader = BlockReader::open(block.meta, Arc::new(Bytes::from(block.out))).expect("opens");
    let search = |fetch: &Fetch| {
        let mut found = 0;
        let each = &mut |batch: vivace_traceql::Batch| {
            found += batch.traces.len();
            ControlFlow::Continue(())
        };
        let stats = reader.search(fetch, 0..reader.row_groups(), each).expect("reads");
        (found, stats.bytes)
    };
    let mut group = group(criterion, "scan", spans);
    for query in [
        r#"{ resource.service.name = "nothing" }"#,
        r#"{ resource.service.name =~ "bill.*" && duration > 10s }"#,
        r#"{ resource.k8s.pod.name = "billing-7" }"#,
        r#"{ duration > 20s }"#,
        r#"{ status = error && kind = consumer }"#,
        r#"{ span.http.request.method = "DELETE" && duration > 10s }"#,
        r#"{ span.thread.name = "worker-3" && duration > 10s }"#,
        r#"{ span.rpc.service = "ledger.v1.Ledger" && duration > 10s }"#,
        r#"{ span.server.port > 1 && duration > 10s }"#,
        r#"{ span.http.response.status_code = 599 }"#,
    ] {
        let plan = vivace_traceql::parse(query).and_then(|query| query.search_plan(TimeRange::ALL)).expect("a query");
        let fetch = plan.fetch();
        let (found, bytes) = search(fetch);
        group.bench_function(format!("{query}: {found} traces, {} KB read", bytes / 1000), |bencher| {
            bencher.iter(|| black_box(search(fetch)));
        });
    }
    group.finish();
}

/// The traces dealt out to four blocks; `blocks_of` says which of them the span at a place of a trace at a place goes to.
fn dealt(traces: &Traces, blocks_of: fn(usize, usize) -> &'static [usize]) -> Vec<BlockReader> {
    let block = |number: usize| -> Option<BlockReader> {
        let part = |(at, (id, spans)): (usize, &(TraceId, Vec<SpanRef<'static>>))| {
            let spans = spans.iter().enumerate().filter(|(span, _)| blocks_of(at, *span).contains(&number)).map(|(_, span)| *span);
            (*id, spans.collect::<Vec<_>>())
        };
        let part: Traces = traces.iter().enumerate().map(part).filter(|(_, spans)| !spans.is_empty()).collect();
        if part.is_empty() {
            return None;
        }
        let block = write(BlockOptions::default(), &part);
        Some(BlockReader::open(block.meta, Arc::new(Bytes::from(block.out))).expect("opens"))
    };
    (0..4).filter_map(block).collect()
}

fn merging(criterion: &mut Criterion<CpuTime>) {
    let traces = corpus::traces();
    type Deal = fn(usize, usize) -> &'static [usize];
    let ways: [(&str, Deal); 4] = [
        ("four blocks, no trace in two of them", |trace, _| &[[0], [1], [2], [3]][trace % 4]),
        ("four blocks, the spans of every trace in all of them", |_, span| &[[0], [1], [2], [3]][span % 4]),
        ("four blocks, every span in two of them", |_, span| &[[0, 1], [1, 2], [2, 3], [3, 0]][span % 4]),
        ("one block, taken over as it is", |_, _| &[0]),
    ];
    for (name, deal) in ways {
        let blocks = dealt(&traces, deal);
        let spans = count(&traces) * deal(0, 0).len() as u64;
        let mut group = group(criterion, "merge", spans);
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                let writer = BlockWriter::new(BlockOptions::default(), TenantId::single(), BlockId::default(), Vec::new(), 50_000);
                black_box(merge(&blocks, writer.expect("starts"), &|| true).expect("merges"))
            });
        });
        group.finish();
    }
}

criterion_group!(name = benches; config = Criterion::default().with_measurement(CpuTime); targets = encode, find, scan, merging);
criterion_main!(benches);
