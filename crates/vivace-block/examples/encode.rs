//! Writes a block from a file of recorded requests that need not fit into memory, and says what that took.
//!
//! `cargo run --release -p vivace-block --example encode -- corpus.otlp out.parquet`
//!
//! The file holds `ExportTraceServiceRequest` messages, each behind its length as a varint. A first pass counts the spans of
//! each trace, a second one notes where each span is, eight bytes a span; then trace after trace is read and written.
//! CPU is that of the writer alone, memory that of the whole process. Linux only.

#![allow(clippy::print_stdout, reason = "a program for people")]

use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read};
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

use rustc_hash::FxHashMap;
use vivace_block::{BlockOptions, BlockWriter, SpanRef};
use vivace_core::otlp::walk_spans;
use vivace_core::wire::bytes_field_len;
use vivace_core::{BlockId, TenantId, TraceId};

/// As in the programs.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

type Failure = Box<dyn std::error::Error>;

fn main() -> Result<(), Failure> {
    let mut arguments = std::env::args().skip(1);
    let (Some(corpus), Some(out)) = (arguments.next(), arguments.next()) else {
        return Err("usage: encode <file of recorded requests> <data.parquet to write>".into());
    };
    let corpus = File::open(corpus)?;
    let index = Index::of(&corpus)?;
    let before = peak_resident()?;

    let started = Instant::now();
    let mut writing = Duration::ZERO;
    let out = BufWriter::new(File::create(out)?);
    let expected = index.traces.len() as u64;
    let mut writer = BlockWriter::new(BlockOptions::default(), TenantId::single(), BlockId::default(), out, expected)?;
    let (mut bytes, mut spans) = (Vec::new(), Vec::new());
    for trace in 0..index.traces.len() {
        bytes.clear();
        spans.clear();
        for place in index.spans_of(trace) {
            let start = bytes.len();
            read_span(&corpus, place.offset(), &mut bytes)?;
            spans.push((place.context(), start..bytes.len()));
        }
        let span = |(context, range): &(usize, std::ops::Range<usize>)| {
            let (resource, scope) = &index.contexts[*context];
            SpanRef { resource, scope, span: &bytes[range.clone()] }
        };
        let spans: Vec<SpanRef<'_>> = spans.iter().map(span).collect();
        let cpu = cpu_time()?;
        writer.push_trace(index.traces[trace].0, &spans)?;
        writing += cpu_time()? - cpu;
    }
    let cpu = cpu_time()?;
    let block = writer.finish()?;
    writing += cpu_time()? - cpu;

    const MIB: f64 = (1 << 20) as f64;
    println!("{} spans of {} traces in {} row groups", block.spans, block.meta.total_objects, block.meta.row_groups);
    println!("{:.1} bytes per span", block.meta.size_bytes as f64 / block.spans as f64);
    println!("{:.0} spans per second of CPU, {:.1} s in all", block.spans as f64 / writing.as_secs_f64(), started.elapsed().as_secs_f64());
    println!(
        "peak memory {:.0} MiB, of which {:.0} MiB were there before the first span was written",
        peak_resident()? as f64 / MIB,
        before as f64 / MIB
    );
    Ok(())
}

/// Where the spans of a file are, by trace.
struct Index {
    /// Ascending by id, each with where its spans start in `places`.
    traces: Vec<(TraceId, usize)>,
    places: Vec<Place>,
    /// The distinct pairs of resource and scope.
    contexts: Vec<(Vec<u8>, Vec<u8>)>,
}

/// Where the length of a span stands in the file: 40 bits. Its context: 24 bits.
#[derive(Clone, Copy, Default)]
struct Place(u64);

impl Place {
    fn offset(self) -> u64 {
        self.0 >> 24
    }

    fn context(self) -> usize {
        (self.0 & 0xff_ffff) as usize
    }
}

impl Index {
    fn of(corpus: &File) -> Result<Self, Failure> {
        let mut counts: FxHashMap<TraceId, usize> = FxHashMap::default();
        each_request(corpus, |_, request| {
            walk_spans(request, |_, span| *counts.entry(span.trace()).or_default() += 1)?;
            Ok(())
        })?;
        let mut traces: Vec<(TraceId, usize)> = counts.iter().map(|(id, count)| (*id, *count)).collect();
        traces.sort_unstable();
        let mut end = 0;
        for (id, count) in &mut traces {
            // From here on: where the trace's next span goes.
            counts.insert(*id, end);
            end += std::mem::replace(count, end);
        }
        let mut places = vec![Place::default(); end];
        let mut contexts = Vec::new();
        let mut by_content: FxHashMap<(Vec<u8>, Vec<u8>), u64> = FxHashMap::default();
        each_request(corpus, |offset, request| {
            let mut last = (u32::MAX, 0);
            walk_spans(request, |at, span| {
                if last.0 != at.scope_index {
                    let key = (at.resource.to_vec(), at.scope.to_vec());
                    let context = *by_content.entry(key).or_insert_with_key(|key| {
                        contexts.push(key.clone());
                        contexts.len() as u64 - 1
                    });
                    last = (at.scope_index, context);
                }
                let start = offset + (span.bytes.as_ptr().addr() - request.as_ptr().addr()) as u64;
                let length_bytes = bytes_field_len(span.bytes.len()) - 1 - span.bytes.len();
                if let Some(next) = counts.get_mut(&span.trace()) {
                    places[*next] = Place((start - length_bytes as u64) << 24 | last.1);
                    *next += 1;
                }
            })?;
            Ok(())
        })?;
        if contexts.len() > 1 << 24 || corpus.metadata()?.len() >= 1 << 40 {
            return Err("more than 2^24 resources or 2^40 bytes".into());
        }
        Ok(Self { traces, places, contexts })
    }

    fn spans_of(&self, trace: usize) -> &[Place] {
        let end = self.traces.get(trace + 1).map_or(self.places.len(), |next| next.1);
        &self.places[self.traces[trace].1..end]
    }
}

/// Calls `visit` with each request and where it starts.
fn each_request(corpus: &File, mut visit: impl FnMut(u64, &[u8]) -> Result<(), Failure>) -> Result<(), Failure> {
    let mut corpus = BufReader::with_capacity(1 << 20, OffsetReader { file: corpus, at: 0 });
    let mut request = Vec::new();
    let mut at = 0;
    loop {
        let mut head = Vec::new();
        loop {
            let mut byte = [0];
            match corpus.read(&mut byte)? {
                0 if head.is_empty() => return Ok(()),
                0 => return Err("the file ends inside a length".into()),
                _ => head.push(byte[0]),
            }
            if byte[0] < 0x80 {
                break;
            }
        }
        let (len, _) = length(&head).ok_or("a length of more than four bytes")?;
        request.resize(len, 0);
        corpus.read_exact(&mut request)?;
        at += head.len() as u64;
        visit(at, &request)?;
        at += len as u64;
    }
}

/// Reads a file from its start, whatever others do with it.
struct OffsetReader<'a> {
    file: &'a File,
    at: u64,
}

impl Read for OffsetReader<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let n = self.file.read_at(out, self.at)?;
        self.at += n as u64;
        Ok(n)
    }
}

/// Appends the message whose length stands at `offset`.
fn read_span(corpus: &File, offset: u64, out: &mut Vec<u8>) -> Result<(), Failure> {
    let mut start = [0; 1024];
    let n = corpus.read_at(&mut start, offset)?;
    let (len, head) = length(&start[..n]).ok_or("there is no span where one was")?;
    let known = (n - head).min(len);
    out.extend_from_slice(&start[head..head + known]);
    let rest = out.len();
    out.resize(rest + len - known, 0);
    corpus.read_exact_at(&mut out[rest..], offset + (head + known) as u64)?;
    Ok(())
}

/// A varint and how many bytes it takes.
fn length(bytes: &[u8]) -> Option<(usize, usize)> {
    let last = bytes.iter().take(4).position(|byte| *byte < 0x80)?;
    let number = bytes[..=last].iter().rev().fold(0, |number, byte| number << 7 | usize::from(byte & 0x7f));
    Some((number, last + 1))
}

/// CPU time of this thread.
fn cpu_time() -> Result<Duration, Failure> {
    let times = std::fs::read_to_string("/proc/thread-self/schedstat")?;
    Ok(Duration::from_nanos(times.split_whitespace().next().ok_or("no CPU time")?.parse()?))
}

/// The most memory that the process had so far, bytes.
fn peak_resident() -> Result<u64, Failure> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let kib = status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.strip_suffix("kB")).ok_or("no peak of memory")?;
    Ok(kib.trim().parse::<u64>()? * 1024)
}
