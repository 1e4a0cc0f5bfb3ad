//! Blocks of our own writer: other pages, codecs and row groups than the original's.

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::sync::Arc;

use bytes::Bytes;
use prost::Message as _;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use vivace_block::index::RowGroupIndex;
use vivace_block::{BlockMeta, BlockOptions, BlockReader, BlockWriter, FinishedBlock, SpanRef, live};
use vivace_core::{BlockId, TenantId, TraceId};
use vivace_proto::otlp::{ResourceSpans, TracesData};
use vivace_traceql::{Attribute, Batch, Comparison, Condition, Fetch, Intrinsic, RowParts, Scope, SpanFilter, Status, TraceFilter, Value};

use crate::read::open;
use crate::read_broken::use_all;

type Trace = (TraceId, Vec<ResourceSpans>);

/// Resource, scope and span messages.
pub(crate) type Parts = (Vec<u8>, Vec<u8>, Vec<u8>);

pub(crate) fn parts(trace: &[ResourceSpans]) -> Vec<Parts> {
    let spans = trace.iter().flat_map(|resource| {
        let message = resource.resource.clone().unwrap_or_default().encode_to_vec();
        resource.scope_spans.iter().flat_map(move |scope| {
            let of = (message.clone(), scope.scope.clone().unwrap_or_default().encode_to_vec());
            scope.spans.iter().map(move |span| (of.0.clone(), of.1.clone(), span.encode_to_vec()))
        })
    });
    spans.collect()
}

pub(crate) fn refs(parts: &[Parts]) -> Vec<SpanRef<'_>> {
    parts.iter().map(|(resource, scope, span)| SpanRef { resource, scope, span }).collect()
}

/// The traces of a real block, written anew in small row groups.
fn written(set: &str) -> (Vec<Trace>, BlockMeta, Bytes, Vec<u8>) {
    let block = open(set);
    let traces: Vec<Trace> = block.traces().collect::<Result<_, _>>().expect("reads");
    let dedicated_columns = block.meta().dedicated_columns.clone();
    let options = BlockOptions { dedicated_columns, row_group_traces: 24, row_group_otlp_bytes: 64 << 10, ..BlockOptions::default() };
    let mut writer =
        BlockWriter::new(options, TenantId::new("a").expect("valid"), BlockId([7; 16]), Vec::new(), traces.len() as u64).expect("starts");
    for (id, trace) in &traces {
        writer.push_trace(*id, &refs(&parts(trace))).expect("is written");
    }
    let FinishedBlock { meta, index, out, .. } = writer.finish().expect("is written");
    (traces, meta, out.into(), index)
}

fn encoded(trace: &[ResourceSpans]) -> Vec<u8> {
    TracesData { resource_spans: trace.to_vec() }.encode_to_vec()
}

#[test]
fn what_is_written_is_read() {
    for set in ["v4-edge-default", "v4-bulk-rowgroups"] {
        let (traces, meta, bytes, index) = written(set);
        assert!(meta.row_groups > 2, "{set}: {}", meta.row_groups);
        let index = RowGroupIndex::from_json(&index).expect("an index");
        let block = BlockReader::open(meta, Arc::new(bytes)).expect("opens");
        let read: Vec<Trace> = block.traces().collect::<Result<_, _>>().expect("reads");
        assert_eq!(read.len(), traces.len());
        for (row, ((id, trace), (want_id, want))) in read.iter().zip(&traces).enumerate() {
            assert_eq!(id, want_id);
            assert_eq!(encoded(trace), encoded(want), "{set} {id}: {trace:#?}\n{want:#?}");
            if row % 7 == 0 {
                let found = block.find(*id, (row % 2 == 0).then_some(&index)).expect("reads").expect("is there");
                assert_eq!(encoded(&found), encoded(trace), "{set} {id}");
            }
        }
    }
}

/// The same question asked of live spans and of the block made of them.
#[test]
fn blocks_and_live_spans_answer_alike() {
    let named = |scope, key: &str| Attribute::Named { scope, key: key.into() };
    let leaf = |attribute, comparison| SpanFilter::Leaf(Condition { attribute, comparison });
    let text = |text: &str| Value::Str(text.into());
    for set in ["v4-edge-default", "v4-bulk-rowgroups"] {
        let (traces, meta, bytes, _) = written(set);
        let mut starts: Vec<u64> = traces.iter().map(|(_, trace)| trace[0].scope_spans[0].spans[0].start_time_unix_nano).collect();
        starts.sort_unstable();
        let block = BlockReader::open(meta, Arc::new(bytes)).expect("opens");
        let parts: Vec<(TraceId, Vec<Parts>)> = traces.iter().map(|(id, trace)| (*id, parts(trace))).collect();
        let spans: Vec<(TraceId, Vec<SpanRef<'_>>)> = parts.iter().map(|(id, parts)| (*id, refs(parts))).collect();
        let mut answered = 0;
        for filter in [
            TraceFilter::All,
            TraceFilter::AnySpan(leaf(Attribute::Intrinsic(Intrinsic::Status), Comparison::Equal(Value::Status(Status::Error)))),
            TraceFilter::AnySpan(leaf(named(Scope::Unscoped, "http.method"), Comparison::Equal(text("GET")))),
            TraceFilter::AnySpan(leaf(named(Scope::Resource, "service.name"), Comparison::Equal(text("cart")))),
            TraceFilter::AnySpan(leaf(named(Scope::Span, "http.status_code"), Comparison::GreaterEqual(Value::Int(500)))),
            TraceFilter::AnySpan(leaf(named(Scope::Span, "thread.id"), Comparison::NotExists)),
        ] {
            let fetch = Fetch {
                range: vivace_core::TimeRange::between(starts[starts.len() / 4], starts[starts.len() / 4 * 3]),
                filter,
                span_attributes: vec![
                    Attribute::Intrinsic(Intrinsic::Name),
                    Attribute::Intrinsic(Intrinsic::Kind),
                    Attribute::Intrinsic(Intrinsic::ParentId),
                    Attribute::Intrinsic(Intrinsic::ScopeName),
                    named(Scope::Resource, "service.name"),
                    named(Scope::Unscoped, "http.status_code"),
                    named(Scope::Span, "http.url"),
                    named(Scope::Span, "thread.id"),
                ],
                event_attributes: vec![Attribute::Intrinsic(Intrinsic::EventName), named(Scope::Event, "exception.type")],
                link_attributes: vec![Attribute::Intrinsic(Intrinsic::LinkTraceId)],
                rows: RowParts::ALL,
            };
            let mut batches = Vec::new();
            block
                .search(&fetch, 0..usize::MAX, &mut |batch| {
                    batches.push(batch);
                    ControlFlow::Continue(())
                })
                .expect("reads");
            let show = |batch: &Batch| -> BTreeSet<String> {
                let traces = batch.traces.iter().map(|trace| {
                    let spans = trace.spans.clone().map(|span| {
                        let columns: Vec<&Value> = batch.columns.iter().map(|column| &column[span]).collect();
                        let children = [&batch.events, &batch.links]
                            .map(|rows| -> Vec<&[Value]> { rows.columns.iter().map(|column| &column[rows.of_span(span)]).collect() });
                        format!("{:?} {columns:?} {children:?}\n", batch.spans[span])
                    });
                    format!("{:?}{}", vivace_traceql::TraceRow { spans: 0..0, ..trace.clone() }, spans.collect::<String>())
                });
                traces.collect()
            };
            let of_block: BTreeSet<String> = batches.iter().flat_map(show).collect();
            let of_live = show(&live::batch(&fetch, &spans));
            answered += usize::from(!of_live.is_empty());
            for (block, live) in of_block.iter().zip(&of_live) {
                assert_eq!(block, live, "{set}");
            }
            assert_eq!(of_block.len(), of_live.len(), "{set} {:?}", fetch.filter);
        }
        assert!(answered > 3, "{set}: only {answered} queries have an answer");
    }
}

/// Here the checksums are those of zstd.
#[test]
fn changed_columns_are_errors_or_harmless_but_never_panics() {
    let (_, meta, bytes, _) = written("v4-edge-default");
    let columns = 4..bytes.len() - meta.footer_bytes as usize - 8;
    let mut random = StdRng::seed_from_u64(5);
    let mut failed = 0;
    for _ in 0..150 {
        let mut bytes = bytes.to_vec();
        for _ in 0..random.random_range(1..20) {
            let at = random.random_range(columns.clone());
            bytes[at] ^= 1 << random.random_range(0..8);
        }
        let block = BlockReader::open(meta.clone(), Arc::new(Bytes::from(bytes)));
        failed += usize::from(block.and_then(|block| use_all(&block)).is_err());
    }
    assert!(failed > 100, "only {failed} of 150 were noticed");
}
