//! Blocks that are not what they should be.

use std::ops::{ControlFlow, Range};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use vivace_block::{BlockReader, ReadAt, ReadError};
use vivace_core::TraceId;
use vivace_traceql::{Attribute, Comparison, Condition, Fetch, RowParts, Scope, SpanFilter, TraceFilter, Value};

use crate::read::{data, meta, open};

/// Remembers what was read.
struct Recorded {
    bytes: Bytes,
    reads: Mutex<Vec<Range<u64>>>,
}

impl ReadAt for Recorded {
    fn read(&self, range: Range<u64>) -> std::io::Result<Bytes> {
        self.reads.lock().expect("no panics").push(range.clone());
        ReadAt::read(&self.bytes, range)
    }

    fn len(&self) -> u64 {
        ReadAt::len(&self.bytes)
    }
}

/// Everything a reader can be asked; the answers do not matter, only that there are some.
pub(crate) fn use_all(block: &BlockReader) -> Result<(), ReadError> {
    let fetch = Fetch {
        range: vivace_core::TimeRange::between(1, u64::MAX),
        filter: TraceFilter::AnySpan(SpanFilter::Leaf(Condition {
            attribute: Attribute::Named { scope: Scope::Unscoped, key: "http.method".into() },
            comparison: Comparison::NotEqual(Value::Str("x".into())),
        })),
        span_attributes: vec![Attribute::Named { scope: Scope::Unscoped, key: "http.status_code".into() }],
        event_attributes: vec![Attribute::Named { scope: Scope::Event, key: "exception.type".into() }],
        link_attributes: Vec::new(),
        rows: RowParts::ALL,
    };
    block.search(&fetch, 0..usize::MAX, &mut |_| ControlFlow::Continue(()))?;
    block.tag_names(None, None, 0..usize::MAX, &mut |_, _| ControlFlow::Continue(()))?;
    let tag = Attribute::Named { scope: Scope::Span, key: "http.route".into() };
    block.tag_values(&tag, None, 0..usize::MAX, &mut |_| ControlFlow::Continue(()))?;
    let ids: Vec<TraceId> = block.traces().map(|trace| trace.map(|(id, _)| id)).collect::<Result<_, _>>()?;
    if let Some(id) = ids.get(ids.len() / 2) {
        block.find(*id, None)?;
    }
    Ok(())
}

fn open_bytes(set: &str, bytes: impl Into<Bytes>) -> Result<BlockReader, ReadError> {
    let bytes = bytes.into();
    let mut meta = meta(set);
    meta.size_bytes = bytes.len() as u64;
    BlockReader::open(meta, Arc::new(bytes))
}

#[test]
fn changed_bytes_are_errors_or_harmless_but_never_panics() {
    let mut random = StdRng::seed_from_u64(4);
    for set in ["v4-three-blocks-1", "v5-edge-default"] {
        let whole = data(set);
        let footer = whole.len() - meta(set).footer_bytes as usize - 8;
        let mut failed = 0;
        let mut flip = |place: Range<usize>, rounds| {
            for _ in 0..rounds {
                let mut bytes = whole.to_vec();
                for _ in 0..random.random_range(1..4) {
                    let at = random.random_range(place.clone());
                    bytes[at] = match random.random_range(0..3) {
                        0 => bytes[at] ^ 1 << random.random_range(0..8),
                        1 => 0xff,
                        _ => random.random(),
                    };
                }
                failed += usize::from(open_bytes(set, bytes).and_then(|block| use_all(&block)).is_err());
            }
        };
        flip(footer..whole.len(), 150);
        flip(0..footer, 40);
        assert!(failed > 60, "{set}: only {failed} of 190 were noticed");
    }
}

#[test]
fn cut_files_are_errors() {
    let whole = data("v4-three-blocks-1");
    for len in (0..whole.len()).step_by(997).chain(whole.len() - 12..whole.len()) {
        let error = open_bytes("v4-three-blocks-1", whole.slice(..len)).expect_err("is cut");
        assert!(error.to_string().contains("data.parquet"), "{error}");
    }
    // With the right end but a hole before it.
    let mut bytes = whole.to_vec();
    bytes.drain(100..200);
    let block = open_bytes("v4-three-blocks-1", bytes);
    assert!(block.and_then(|block| use_all(&block)).is_err());
}

#[test]
fn errors_name_block_column_and_reason() {
    let block = open("v4-three-blocks-1");
    let id = block.meta().block_id.to_string();
    let mut bytes = data("v4-three-blocks-1").to_vec();
    bytes[300] ^= 1;
    let error = open_bytes("v4-three-blocks-1", bytes).and_then(|block| use_all(&block)).expect_err("is broken").to_string();
    assert!(error.contains(&id) && error.contains("column TraceID") && error.contains("checksum"), "{error}");

    let error = BlockReader::open(meta("v3-edge"), Arc::new(data("v4-edge-default"))).expect_err("is too old").to_string();
    assert!(error.contains("vParquet3") && error.contains("vParquet4") && error.contains("until its retention ends"), "{error}");
    let error = BlockReader::open(meta("v4-pages"), Arc::new(data("v4-edge-default"))).expect_err("is another").to_string();
    assert!(error.contains("303338") && error.contains("113631"), "{error}");
}

#[test]
fn a_missing_id_reads_no_column_but_the_ids() {
    let source = Arc::new(Recorded { bytes: data("v4-bulk-rowgroups"), reads: Mutex::default() });
    let block = BlockReader::open(meta("v4-bulk-rowgroups"), source.clone()).expect("opens");
    let reads = || std::mem::take(&mut *source.reads.lock().expect("no panics"));
    assert_eq!(reads().len(), 1, "the footer is one read");
    for outside in [TraceId([0; 16]), TraceId([0xff; 16])] {
        assert_eq!(block.find(outside, None).expect("reads"), None);
        assert_eq!(reads(), []);
    }
    let (present, _) = block.traces().nth(50).expect("a trace").expect("reads");
    reads();
    let mut missing = present;
    missing.0[15] ^= 1;
    assert_eq!(block.find(missing, None).expect("reads"), None);
    let ids: u64 = reads().iter().map(|range| range.end - range.start).sum();
    assert!(ids < 2000, "{ids} bytes of ids");
    // One row takes less than its whole row group.
    block.find(present, None).expect("reads").expect("is there");
    let found: u64 = reads().iter().map(|range| range.end - range.start).sum();
    assert!(found < block.meta().size_bytes / 4, "{found} bytes for one trace");
}
