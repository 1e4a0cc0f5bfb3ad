//! What the benches write and read: recorded requests where there are any, else generated spans.

use std::collections::BTreeMap;

use vivace_block::SpanRef;
use vivace_core::TraceId;
use vivace_core::otlp::walk_spans;
use vivace_core::wire::{put_bytes, put_varint, varint};

/// Names a file of `ExportTraceServiceRequest` messages, each behind its length as a varint.
const RECORDED: &str = "VIVACE_BENCH_CORPUS";

/// Traces ascending by id, each with its spans in the order of their arrival.
pub(crate) type Traces = Vec<(TraceId, Vec<SpanRef<'static>>)>;

/// Kept for as long as the process runs.
#[allow(clippy::disallowed_methods, reason = "a bench has no configuration")]
pub(crate) fn traces() -> Traces {
    match std::env::var(RECORDED) {
        Ok(path) => recorded(std::fs::read(&path).unwrap_or_else(|e| panic!("{RECORDED}={path}: {e}")).leak()),
        Err(_) => generated(),
    }
}

fn recorded(file: &'static [u8]) -> Traces {
    let mut traces: BTreeMap<TraceId, Vec<SpanRef<'static>>> = BTreeMap::new();
    let mut rest = file;
    while !rest.is_empty() {
        let (len, at) = varint(rest).expect("the length of a request");
        let (request, tail) = rest[at..].split_at(usize::try_from(len).expect("a length"));
        rest = tail;
        walk_spans(request, |at, span| {
            let span_ref = SpanRef { resource: at.resource, scope: at.scope, span: span.bytes };
            traces.entry(span.trace()).or_default().push(span_ref);
        })
        .expect("a recorded request");
    }
    traces.into_iter().collect()
}

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

fn generated() -> Traces {
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let resources: Vec<&'static [u8]> = (0..14).map(|service| &*resource(service).leak()).collect();
    let mut scope = Vec::new();
    put_bytes(&mut scope, 1, b"io.opentelemetry.http");
    let scope: &'static [u8] = scope.leak();
    let mut traces: Traces = (0..TRACES)
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
                let span = span(&mut random, ids[i as usize], parent, at).leak();
                spans.push(SpanRef { resource: resources[service], scope, span });
            }
            (TraceId(id), spans)
        })
        .collect();
    traces.sort_by_key(|(id, _)| *id);
    traces
}
