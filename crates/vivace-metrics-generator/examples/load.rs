//! What metrics of spans cost: CPU per span at some series, and memory per series.
//!
//! `cargo run --release -p vivace-metrics-generator --features measuring --example load -- cpu` (or `series`, `counters`)
//!
//! `cpu` counts spans of calls through five services, each with a server, an internal and a client span, eight attributes a span, at
//! 10,000 active series of span metrics and service graphs. `series` makes a million series of span metrics as they come, `counters` a
//! million of calls alone, each with labels of its own. CPU is that of counting, in one thread; memory that of the process. Linux only.

#![allow(clippy::print_stdout, reason = "a program for people")]

use std::time::Duration;

use prost::Message as _;
use vivace_config::Config;
use vivace_metrics_generator::measuring::Measured;
use vivace_proto::otlp::{Resource, ResourceSpans, ScopeSpans, Span, TracesData};
use vivace_testkit::attribute;

/// As in the programs.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

type Failure = Box<dyn std::error::Error>;

const NOW: u64 = 1_700_000_000_000_000_000;
const SERVICES: u64 = 20;
const SPANS_PER_TRACE: u64 = 15;

fn main() -> Result<(), Failure> {
    match std::env::args().nth(1).as_deref() {
        Some("cpu") => cpu(),
        Some("series") => series("span-metrics"),
        Some("counters") => series("span-metrics-count"),
        _ => Err("usage: load cpu|series|counters".into()),
    }
}

fn cpu() -> Result<(), Failure> {
    let mut tenant = Measured::new(&config("span-metrics, service-graphs")?);
    // 40 traces a request.
    let requests: Vec<Vec<u8>> = (0..50).map(|number| request(number * 40..(number + 1) * 40)).collect();
    let push_all = |tenant: &mut Measured| -> u64 { requests.iter().map(|request| tenant.push(request, NOW)).sum() };
    push_all(&mut tenant);
    let bytes: usize = requests.iter().map(Vec::len).sum();
    println!("{} active series, {} bytes per span", tenant.active_series(), bytes as u64 / (50 * 40 * SPANS_PER_TRACE));
    for _ in 0..3 {
        let (before, mut spans) = (cpu_time()?, 0);
        while spans < 3_000_000 {
            spans += push_all(&mut tenant);
        }
        let took = cpu_time()? - before;
        println!("counting: {:.3} CPU s per million spans", took.as_secs_f64() * 1e6 / spans as f64);
    }
    tenant.collect(NOW + 1_000_000_000);
    let before = cpu_time()?;
    let collected = tenant.collect(NOW + 2_000_000_000);
    let took = cpu_time()? - before;
    println!("a collection: {:.1} ms of CPU for {} series, {} bytes", took.as_secs_f64() * 1e3, collected.series, collected.bytes);
    Ok(())
}

fn series(processors: &str) -> Result<(), Failure> {
    let mut tenant = Measured::new(&config(processors)?);
    let (before, mut number) = (resident("VmRSS")?, 0);
    while tenant.active_series() < 1_000_000 {
        let spans = (number..number + 500).map(|number| span(number, 1, 1, 0, 2, &format!("GET /api/orders/operation-{number}")));
        let spans = vec![ScopeSpans { spans: spans.collect(), ..ScopeSpans::default() }];
        tenant.push(&TracesData { resource_spans: vec![of_service(number % SERVICES, spans)] }.encode_to_vec(), NOW);
        number += 500;
    }
    let (active, filled) = (tenant.active_series(), resident("VmRSS")?);
    println!("{active} active series: {} MB, {} bytes per series", (filled - before) >> 20, (filled - before) / active as u64);
    for second in 1..=3 {
        let before = cpu_time()?;
        let collected = tenant.collect(NOW + second * 1_000_000_000);
        println!(
            "a collection: {:.2} CPU s, {} series, {} MB",
            (cpu_time()? - before).as_secs_f64(),
            collected.series,
            collected.bytes >> 20
        );
    }
    println!("the process: {} MB, at most {} MB", resident("VmRSS")? >> 20, resident("VmHWM")? >> 20);
    Ok(())
}

fn config(processors: &str) -> Result<Config, Failure> {
    let (config, _) = Config::parse(&format!("overrides: {{defaults: {{metrics_generator: {{processors: [{processors}]}}}}}}"), "load")?;
    Ok(config)
}

/// Traces of calls through five services.
fn request(traces: std::ops::Range<u64>) -> Vec<u8> {
    let mut resource_spans = Vec::new();
    for trace in traces {
        for hop in 0..5 {
            // Each service calls the next one; which operation it is depends on the trace.
            let service = (trace % 4) * 5 + hop;
            let operation = trace / 4 % 9;
            let id = hop * 3 + 1;
            let spans = vec![
                span(trace, id, if hop == 0 { 0 } else { id - 1 }, 0, 2, &format!("POST /api/{service}/operation/{operation}")),
                span(trace, id + 1, id, 0, 1, &format!("handle {operation}")),
                span(trace, id + 2, id, 0, 3, &format!("call {operation}")),
            ];
            resource_spans.push(of_service(service, vec![ScopeSpans { spans, ..ScopeSpans::default() }]));
        }
    }
    TracesData { resource_spans }.encode_to_vec()
}

fn of_service(service: u64, scope_spans: Vec<ScopeSpans>) -> ResourceSpans {
    let attributes = vec![
        attribute("service.name", &format!("service-{service}")),
        attribute("service.version", "1.2.3"),
        attribute("k8s.namespace.name", "shop"),
        attribute("k8s.pod.name", &format!("service-{service}-6d5f7c9b8-abcde")),
        attribute("telemetry.sdk.language", "rust"),
        attribute("deployment.environment", "production"),
    ];
    ResourceSpans { resource: Some(Resource { attributes, ..Resource::default() }), scope_spans, ..ResourceSpans::default() }
}

fn span(trace: u64, id: u64, parent: u64, late: u64, kind: i32, name: &str) -> Span {
    let id_of = |id: u64| if id == 0 { Vec::new() } else { ((trace << 16) + id).to_be_bytes().to_vec() };
    let duration = 1_000_000 * (1 + trace.wrapping_mul(0x9e37_79b9) % 900);
    let attributes =
        ["http.request.method", "url.scheme", "server.address", "http.route", "user_agent.original", "client.address", "thread.name"];
    let mut attributes: Vec<_> = attributes.iter().map(|key| attribute(key, "some value of a usual size")).collect();
    attributes.push(attribute("http.response.status_code", "200"));
    Span {
        trace_id: [trace.to_be_bytes(), (trace + 1).to_be_bytes()].concat().into(),
        span_id: id_of(id).into(),
        parent_span_id: id_of(parent).into(),
        name: name.to_owned(),
        kind,
        start_time_unix_nano: NOW - late - duration,
        end_time_unix_nano: NOW - late,
        attributes,
        ..Span::default()
    }
}

fn cpu_time() -> Result<Duration, Failure> {
    let stat = std::fs::read_to_string("/proc/self/schedstat")?;
    Ok(Duration::from_nanos(stat.split(' ').next().ok_or("no CPU time in /proc/self/schedstat")?.parse()?))
}

/// `VmRSS` or `VmHWM` of this process, bytes.
fn resident(key: &str) -> Result<u64, Failure> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix(key)).ok_or("no such line in /proc/self/status")?;
    let kib: u64 = line.trim_matches(|c: char| !c.is_ascii_digit()).parse()?;
    Ok(kib << 10)
}
