//! Time to parse and plan queries, and to evaluate them on batches as storage fills them.
//!
//! With `BENCH_CPU_TIME=1` the thread's time on a processor is measured instead of the clock's, for machines that others
//! keep busy (Linux alone).

use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use criterion::measurement::{Measurement, ValueFormatter, WallTime};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use vivace_core::{SpanId, TimeRange, TraceId};
use vivace_traceql::{Attribute, Batch, Fetch, Intrinsic, Kind, MetricsRange, Release, SpanRow, Status, TraceRow, Value, parse};

/// Time on a processor, as the kernel counts it, or that of the clock.
struct Time {
    on_processor: bool,
}

impl Time {
    fn now() -> Duration {
        let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
        let nanos = text.split_whitespace().next().and_then(|nanos| nanos.parse().ok());
        Duration::from_nanos(nanos.expect("the kernel counts the time of threads"))
    }
}

impl Measurement for Time {
    type Intermediate = (Duration, <WallTime as Measurement>::Intermediate);
    type Value = Duration;

    fn start(&self) -> Self::Intermediate {
        (if self.on_processor { Self::now() } else { Duration::ZERO }, WallTime.start())
    }

    fn end(&self, (before, start): Self::Intermediate) -> Duration {
        if self.on_processor { Self::now().saturating_sub(before) } else { WallTime.end(start) }
    }

    fn add(&self, a: &Duration, b: &Duration) -> Duration {
        *a + *b
    }

    fn zero(&self) -> Duration {
        Duration::ZERO
    }

    fn to_f64(&self, value: &Duration) -> f64 {
        WallTime.to_f64(value)
    }

    fn formatter(&self) -> &dyn ValueFormatter {
        WallTime.formatter()
    }
}

const SPANS: usize = 20_000;
const SECOND: u64 = 1_000_000_000;

/// How the spans of a trace hang together.
#[derive(Clone, Copy)]
enum Shape {
    /// Each span is the child of the one before.
    Chain,
    /// Each span has ten children, as long as there are spans.
    Tree,
}

/// [`SPANS`] spans in traces of equal size, over four hours; attributes take a handful of values.
fn batch(fetch: &Fetch, spans_per_trace: usize, shape: Shape) -> Batch {
    let texts: Vec<Arc<str>> = (0..8).map(|i| Arc::from(format!("value number {i}"))).collect();
    let value = |attribute: &Attribute, span: usize| match attribute {
        Attribute::Intrinsic(Intrinsic::Status) => Value::Status(if span.is_multiple_of(50) { Status::Error } else { Status::Unset }),
        Attribute::Intrinsic(Intrinsic::Kind) => Value::Kind(if span.is_multiple_of(2) { Kind::Server } else { Kind::Client }),
        Attribute::Named { key, .. } if &**key == "http.status_code" => Value::Int(200 + i64::try_from(span % 4).unwrap_or(0) * 100),
        _ => Value::Str(texts[span % texts.len()].clone()),
    };
    let mut batch = Batch::default();
    for attribute in &fetch.span_attributes {
        batch.columns.push((0..SPANS).map(|span| value(attribute, span)).collect());
    }
    let positions = match shape {
        Shape::Chain => chain(spans_per_trace),
        Shape::Tree => tree(spans_per_trace),
    };
    for trace in 0..SPANS / spans_per_trace {
        let start = 1_700_000_000 * SECOND + (trace as u64 * 7919 % 14_400) * SECOND;
        let first = batch.spans.len();
        for (span, (left, right, parent)) in positions.iter().copied().enumerate() {
            batch.spans.push(SpanRow {
                id: SpanId((span as u64 + 1).to_be_bytes()),
                start_unix_nanos: start + 1_000_000 * span as u64,
                duration_nanos: 1_000_000 * span as u64,
                nested_set_left: left,
                nested_set_right: right,
                nested_set_parent: parent,
                child_count: 1,
                resource: 0,
            });
        }
        batch.traces.push(TraceRow {
            trace_id: TraceId((trace as u128 + 1).to_be_bytes()),
            start_unix_nanos: start,
            end_unix_nanos: start + SECOND,
            root_name: texts[0].clone(),
            root_service: texts[1].clone(),
            services: Vec::new(),
            spans: first..batch.spans.len(),
        });
    }
    batch
}

fn number(i: usize) -> i32 {
    i32::try_from(i).unwrap_or(i32::MAX)
}

fn chain(spans: usize) -> Vec<(i32, i32, i32)> {
    (0..spans).map(|depth| (number(depth) + 1, number(2 * spans - depth), if depth == 0 { -1 } else { number(depth) })).collect()
}

fn tree(spans: usize) -> Vec<(i32, i32, i32)> {
    fn visit(span: usize, parent: i32, next: &mut i32, positions: &mut [(i32, i32, i32)]) {
        let left = *next;
        *next += 1;
        for child in span * 10 + 1..(span * 10 + 11).min(positions.len()) {
            visit(child, left, next, positions);
        }
        positions[span] = (left, *next, parent);
        *next += 1;
    }
    let mut positions = vec![(0, 0, 0); spans];
    visit(0, -1, &mut 1, &mut positions);
    positions
}

fn parsing(c: &mut Criterion<Time>) {
    let long = format!("{{ {} }}", (0..400).map(|i| format!("span:id = \"{i:016x}\"")).collect::<Vec<_>>().join(" || "));
    let queries = [
        ("filter", "{ resource.service.name = \"cart\" && span.http.status_code >= 500 && duration > 10ms }"),
        ("regex", "{ name =~ \"GET /api/.*\" && resource.k8s.namespace.name = \"shop\" }"),
        ("structure", "{ resource.service.name = \"gateway\" } >> { status = error } | select(span.http.url)"),
        ("group", "{ kind = server } | by(resource.service.name) | count() > 2"),
        ("metrics", "{ kind = server && span.http.status_code >= 500 } | rate() by (resource.service.name)"),
        ("400 conditions", &long),
    ];
    let mut seen = 0u64;
    c.bench_function("parse and plan/regex, a new one each time", |b| {
        b.iter(|| {
            seen += 1;
            parse(&format!("{{ name =~ \"GET /api/{seen}/.*\" }}")).and_then(|query| query.search_plan(TimeRange::ALL))
        });
    });
    let range = MetricsRange::range(0, 3600 * SECOND, None, Release::default());
    let mut group = c.benchmark_group("parse and plan");
    for (name, text) in queries {
        group.bench_function(name, |b| {
            b.iter(|| {
                let query = parse(black_box(text))?;
                let search = query.search_plan(TimeRange::ALL)?;
                let metrics = if query.is_metrics() { Some(query.metrics_plan(range.clone()?, 0)?) } else { None };
                Ok::<_, vivace_traceql::QueryError>((search, metrics))
            });
        });
    }
    group.finish();
}

fn searching(c: &mut Criterion<Time>) {
    let queries = [
        ("equal", "{ resource.service.name = \"value number 3\" }", 20, Shape::Chain),
        ("and", "{ span.http.status_code >= 500 && kind = server && duration > 10ms }", 20, Shape::Chain),
        ("nothing", "{ name = \"no such name\" }", 20, Shape::Chain),
        ("regex", "{ name =~ \".*number [67]\" }", 20, Shape::Chain),
        ("arithmetic", "{ span.http.status_code + 0 > 400 && duration * 2 > 1ms }", 20, Shape::Chain),
        ("group", "{} | by(resource.service.name) | count() > 2", 20, Shape::Chain),
        ("descendants of few", "{ status = error } >> { kind = client }", 1000, Shape::Tree),
        ("descendants of all", "{} >> {}", 1000, Shape::Tree),
        ("descendants in chains", "{ kind = server } >> { kind = client }", 1000, Shape::Chain),
        ("descendants, both sides", "{ kind = server } &>> { kind = client }", 1000, Shape::Tree),
        ("children", "{ kind = server } > { kind = client }", 1000, Shape::Tree),
        ("siblings", "{ kind = server } ~ { kind = client }", 1000, Shape::Tree),
    ];
    let mut group = c.benchmark_group("search");
    group.throughput(Throughput::Elements(SPANS as u64));
    for (name, text, spans_per_trace, shape) in queries {
        let Ok(plan) = parse(text).and_then(|query| query.search_plan(TimeRange::ALL)) else { continue };
        let batch = batch(plan.fetch(), spans_per_trace, shape);
        group.bench_function(name, |b| b.iter(|| plan.evaluate(black_box(&batch), 3)));
    }
    group.finish();
}

fn counting(c: &mut Criterion<Time>) {
    let queries = [
        ("rate", "{} | rate()", 0),
        ("rate by service", "{} | rate() by (resource.service.name)", 0),
        ("rate by service, with exemplars", "{} | rate() by (resource.service.name)", 100),
        ("rate by two", "{} | rate() by (resource.service.name, span.http.status_code)", 0),
        ("rate of errors by service", "{ status = error } | rate() by (resource.service.name)", 0),
        ("avg", "{} | avg_over_time(duration) by (resource.service.name)", 0),
        ("quantile", "{} | quantile_over_time(duration, 0.5, 0.99) by (resource.service.name)", 0),
        ("structure", "{ kind = server } >> { kind = client } | rate()", 0),
        ("compare", "{} | compare({ status = error })", 0),
    ];
    let mut group = c.benchmark_group("metrics");
    group.throughput(Throughput::Elements(SPANS as u64));
    for (name, text, exemplars) in queries {
        let start = 1_700_000_000 * SECOND;
        let Ok(range) = MetricsRange::range(start, start + 14_400 * SECOND, None, Release::default()) else { continue };
        let Ok(plan) = parse(text).and_then(|query| query.metrics_plan(range, exemplars)) else { continue };
        let batch = batch(plan.fetch(), 20, Shape::Chain);
        let mut partial = plan.partial();
        let _ = plan.observe(&mut partial, &batch, &|| false);
        group.bench_function(name, |b| b.iter(|| plan.observe(&mut partial, black_box(&batch), &|| false)));
    }
    group.finish();
}

fn criterion() -> Criterion<Time> {
    #[allow(clippy::disallowed_methods)]
    let on_processor = std::env::var("BENCH_CPU_TIME").is_ok();
    Criterion::default().with_measurement(Time { on_processor })
}

criterion_group!(name = benches; config = criterion(); targets = parsing, searching, counting);
criterion_main!(benches);
