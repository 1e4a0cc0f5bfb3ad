//! Time to parse a query and to evaluate it on a batch of 1,000 traces with 20 spans each.

use std::hint::black_box;
use std::sync::Arc;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use vivace_core::{SpanId, TraceId};
use vivace_traceql::{Attribute, Batch, Fetch, Intrinsic, Kind, SpanRow, Status, TraceRow, Value, parse};

const TRACES: usize = 1_000;
const SPANS: usize = 20;

/// A chain of spans per trace; attributes take a handful of values.
fn batch(fetch: &Fetch) -> Batch {
    let texts: Vec<Arc<str>> = (0..8).map(|i| Arc::from(format!("value number {i}"))).collect();
    let value = |attribute: &Attribute, span: usize| match attribute {
        Attribute::Intrinsic(Intrinsic::Status) => Value::Status(if span.is_multiple_of(50) { Status::Error } else { Status::Unset }),
        Attribute::Intrinsic(Intrinsic::Kind) => Value::Kind(if span.is_multiple_of(2) { Kind::Server } else { Kind::Client }),
        Attribute::Named { key, .. } if &**key == "http.status_code" => Value::Int(200 + i64::try_from(span % 4).unwrap_or(0) * 100),
        _ => Value::Str(texts[span % texts.len()].clone()),
    };
    let mut batch = Batch::default();
    for attribute in &fetch.span_attributes {
        batch.columns.push((0..TRACES * SPANS).map(|span| value(attribute, span)).collect());
    }
    for trace in 0..TRACES {
        for span in 0..SPANS {
            let depth = i32::try_from(span).unwrap_or(0);
            batch.spans.push(SpanRow {
                id: SpanId(u64::try_from(span + 1).unwrap_or(0).to_be_bytes()),
                start_unix_nanos: 1_000_000_000,
                duration_nanos: 1_000_000 * u64::try_from(span).unwrap_or(0),
                nested_set_left: depth + 1,
                nested_set_right: 2 * i32::try_from(SPANS).unwrap_or(0) - depth,
                nested_set_parent: if depth == 0 { -1 } else { depth },
                child_count: 1,
                resource: 0,
            });
        }
        batch.traces.push(TraceRow {
            trace_id: TraceId(u128::try_from(trace + 1).unwrap_or(0).to_be_bytes()),
            start_unix_nanos: 1_000_000_000,
            end_unix_nanos: 2_000_000_000,
            root_name: texts[0].clone(),
            root_service: texts[1].clone(),
            services: Vec::new(),
            spans: trace * SPANS..(trace + 1) * SPANS,
        });
    }
    batch
}

fn queries(c: &mut Criterion) {
    let long = format!("{{ {} }}", (0..400).map(|i| format!("span:id = \"{i:016x}\"")).collect::<Vec<_>>().join(" || "));
    let queries = [
        ("equal", "{ resource.service.name = \"value number 3\" }"),
        ("and", "{ span.http.status_code >= 500 && kind = server && duration > 10ms }"),
        ("nothing", "{ name = \"no such name\" }"),
        ("regex", "{ name =~ \".*number [67]\" }"),
        ("arithmetic", "{ span.http.status_code + 0 > 400 && duration * 2 > 1ms }"),
        ("structure", "{ status = error } >> { kind = client }"),
        ("group", "{} | by(resource.service.name) | count() > 2"),
        ("long chain", &long),
    ];
    let mut group = c.benchmark_group("parse");
    for (name, text) in queries {
        group.throughput(Throughput::Bytes(text.len() as u64));
        group.bench_function(name, |b| b.iter(|| parse(black_box(text))));
    }
    group.finish();
    let mut group = c.benchmark_group("evaluate");
    group.throughput(Throughput::Elements((TRACES * SPANS) as u64));
    for (name, text) in queries {
        let Ok(plan) = parse(text).and_then(|query| query.search_plan(0, 0)) else { continue };
        let batch = batch(plan.fetch());
        group.bench_function(name, |b| b.iter(|| plan.evaluate(black_box(&batch), 3)));
    }
    group.finish();
}

criterion_group!(benches, queries);
criterion_main!(benches);
