//! How fast a block is written, in spans per second of one core; and how large it gets.

use std::hint::black_box;
use std::time::Duration;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use vivace_block::{BlockOptions, BlockWriter, FinishedBlock, SpanRef};
use vivace_core::wire::{put_bytes, put_varint};
use vivace_core::{BlockId, TenantId, TraceId};

const TRACES: u64 = 4000;
const START: u64 = 1_795_176_000_000_000_000;

/// A small generator of numbers; the same seed gives the same spans.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }
}

fn put_text(out: &mut Vec<u8>, field: u32, key: &str, text: &str) {
    let (mut any, mut attr) = (Vec::new(), Vec::new());
    put_bytes(&mut any, 1, text.as_bytes());
    put_bytes(&mut attr, 1, key.as_bytes());
    put_bytes(&mut attr, 2, &any);
    put_bytes(out, field, &attr);
}

fn put_int(out: &mut Vec<u8>, field: u32, key: &str, value: u64) {
    let (mut any, mut attr) = (Vec::new(), Vec::new());
    put_varint(&mut any, 3 << 3);
    put_varint(&mut any, value);
    put_bytes(&mut attr, 1, key.as_bytes());
    put_bytes(&mut attr, 2, &any);
    put_bytes(out, field, &attr);
}

fn put_fixed64(out: &mut Vec<u8>, field: u32, value: u64) {
    put_varint(out, u64::from(field) << 3 | 1);
    out.extend(value.to_le_bytes());
}

fn resource(service: u64) -> Vec<u8> {
    let mut out = Vec::new();
    put_text(&mut out, 1, "service.name", &format!("service-{service}"));
    put_text(&mut out, 1, "k8s.pod.name", &format!("service-{service}-7d9f-{}", service % 5));
    put_text(&mut out, 1, "k8s.namespace.name", "shop");
    put_text(&mut out, 1, "k8s.cluster.name", "prod-eu-1");
    for i in 0..16 {
        put_text(&mut out, 1, &format!("resource.attribute.{i}"), &format!("value-{i}-{}", service * i % 7));
    }
    put_int(&mut out, 1, "process.pid", 1000 + service);
    out
}

fn span(random: &mut Random, id: u64, parent: Option<u64>, at: u64) -> Vec<u8> {
    let mut out = Vec::new();
    put_bytes(&mut out, 2, &id.to_be_bytes());
    if let Some(parent) = parent {
        put_bytes(&mut out, 4, &parent.to_be_bytes());
    }
    put_bytes(&mut out, 5, format!("GET /api/resource/{}", random.below(40)).as_bytes());
    put_varint(&mut out, 6 << 3);
    put_varint(&mut out, 1 + random.below(5));
    put_fixed64(&mut out, 7, at);
    put_fixed64(&mut out, 8, at + random.below(50_000_000));
    put_text(&mut out, 9, "http.request.method", ["GET", "POST", "PUT"][random.below(3) as usize]);
    put_text(&mut out, 9, "url.path", &format!("/api/resource/{}", random.below(2000)));
    put_int(&mut out, 9, "http.response.status_code", [200, 200, 200, 404, 500][random.below(5) as usize]);
    put_text(&mut out, 9, "db.statement", &format!("SELECT * FROM orders WHERE id = '{:016x}' AND state = 'open'", random.next()));
    put_text(&mut out, 9, "user_agent.original", "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36");
    put_text(&mut out, 9, "app.user.id", &format!("user-{}", random.below(5000)));
    put_int(&mut out, 9, "thread.id", random.below(64));
    if random.below(8) == 0 {
        let mut event = Vec::new();
        put_fixed64(&mut event, 1, at + random.below(1_000_000));
        put_bytes(&mut event, 2, b"message");
        put_int(&mut event, 3, "message.id", random.below(100_000));
        put_bytes(&mut out, 11, &event);
    }
    out
}

struct Trace {
    id: TraceId,
    /// Service and bytes.
    spans: Vec<(usize, Vec<u8>)>,
}

fn traces() -> (Vec<Vec<u8>>, Vec<Trace>) {
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let resources = (0..14).map(resource).collect();
    let mut traces: Vec<Trace> = (0..TRACES)
        .map(|_| {
            let mut id = [0; 16];
            id[..8].copy_from_slice(&random.next().to_be_bytes());
            id[8..].copy_from_slice(&random.next().to_be_bytes());
            let at = START + random.below(600_000_000_000);
            let mut ids: Vec<u64> = Vec::new();
            let mut spans = Vec::new();
            for i in 0..4 + random.below(40) {
                let parent = (i > 0).then(|| ids[random.below(i) as usize]);
                ids.push(random.next());
                let service = (i / 4 + at % 7) as usize % 14;
                let at = at + random.below(1_000_000_000);
                spans.push((service, span(&mut random, ids[i as usize], parent, at)));
            }
            Trace { id: TraceId(id), spans }
        })
        .collect();
    traces.sort_by_key(|trace| trace.id);
    (resources, traces)
}

fn write(zstd_level: i32, traces: &[(TraceId, Vec<SpanRef<'_>>)]) -> FinishedBlock<Vec<u8>> {
    let options = BlockOptions { zstd_level, ..BlockOptions::default() };
    let mut writer = BlockWriter::new(options, TenantId::single(), BlockId::default(), Vec::new(), traces.len() as u64).expect("starts");
    for (id, spans) in traces {
        writer.push_trace(*id, spans).expect("takes the trace");
    }
    writer.finish().expect("finishes")
}

fn encode(criterion: &mut Criterion) {
    let (resources, traces) = traces();
    let mut scope = Vec::new();
    put_bytes(&mut scope, 1, b"io.opentelemetry.http");
    let traces: Vec<(TraceId, Vec<SpanRef<'_>>)> = traces
        .iter()
        .map(|trace| {
            let spans = trace.spans.iter().map(|(service, span)| SpanRef { resource: &resources[*service], scope: &scope, span });
            (trace.id, spans.collect())
        })
        .collect();
    let spans: usize = traces.iter().map(|(_, spans)| spans.len()).sum();
    let otlp: usize = traces.iter().flat_map(|(_, spans)| spans).map(|s| s.span.len()).sum();
    let mut group = criterion.benchmark_group("encode");
    group.sample_size(10).measurement_time(Duration::from_secs(8)).throughput(Throughput::Elements(spans as u64));
    for level in [1, 3] {
        let size = write(level, &traces).meta.size_bytes;
        let per_span = |bytes: u64| bytes / spans as u64;
        let name = format!("zstd-{level}: {spans} spans of {} bytes become {} bytes each", per_span(otlp as u64), per_span(size));
        group.bench_function(name, |bencher| bencher.iter(|| black_box(write(level, &traces))));
    }
    group.finish();
}

criterion_group!(benches, encode);
criterion_main!(benches);
