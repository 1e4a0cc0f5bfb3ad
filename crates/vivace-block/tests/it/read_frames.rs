//! Dictionaries in frames: what a lookup reads of them, and what happens when their table lies.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use memchr::memmem;
use prost::Message as _;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use vivace_block::{BlockMeta, BlockOptions, BlockReader, BlockWriter, ReadAt, SpanRef};
use vivace_core::{BlockId, TenantId, TraceId};
use vivace_proto::otlp::any_value::Value;
use vivace_proto::otlp::{AnyValue, KeyValue, Span};

const TRACES: u32 = 450;
/// What the table in front of the frames begins with.
const TABLE: &[u8] = b"vivace dictionary 1";

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

    fn gap_bytes(&self) -> u64 {
        0
    }
}

fn id(trace: u32) -> TraceId {
    TraceId::from_slice(&(trace + 1).to_be_bytes())
}

fn attribute(key: &str, value: Value) -> KeyValue {
    KeyValue { key: key.to_owned(), value: Some(AnyValue { value: Some(value) }) }
}

/// Texts and numbers of which most come twice, so that they are in dictionaries, which are large.
fn span(trace: u32, number: u32) -> Span {
    let unique = (trace * 40 + number) / 2;
    Span {
        trace_id: id(trace).0.to_vec().into(),
        span_id: (u64::from(trace) << 32 | u64::from(number) | 1 << 63).to_be_bytes().to_vec().into(),
        name: "query".to_owned(),
        attributes: vec![
            attribute(
                "db.query.text",
                Value::StringValue(format!("SELECT * FROM orders WHERE id = '{:032x}'", u64::from(unique) * 0x9e37_79b9)),
            ),
            attribute("message.id", Value::IntValue(i64::from(unique) * 7919)),
        ],
        ..Span::default()
    }
}

fn block() -> (BlockMeta, Bytes) {
    let mut writer =
        BlockWriter::new(BlockOptions::default(), TenantId::single(), BlockId([3; 16]), Vec::new(), u64::from(TRACES)).expect("starts");
    for trace in 0..TRACES {
        let spans: Vec<Vec<u8>> = (0..80).map(|number| span(trace, number).encode_to_vec()).collect();
        let refs: Vec<SpanRef<'_>> = spans.iter().map(|span| SpanRef { resource: &[], scope: &[], span }).collect();
        writer.push_trace(id(trace), &refs).expect("is written");
    }
    let block = writer.finish().expect("is written");
    (block.meta, block.out.into())
}

fn open(meta: &BlockMeta, bytes: &Bytes, read: &Arc<AtomicU64>) -> BlockReader {
    let source = Counted { bytes: bytes.clone(), read: Arc::clone(read) };
    BlockReader::open(meta.clone(), Arc::new(source)).expect("opens")
}

#[test]
fn a_lookup_reads_few_frames_and_finds_what_the_whole_dictionary_says() {
    let (meta, bytes) = block();
    assert!(memmem::find_iter(&bytes, TABLE).count() >= 2, "texts and numbers are in frames");
    let read = Arc::new(AtomicU64::new(0));
    let block = open(&meta, &bytes, &read);
    let whole: Vec<_> = block.traces().collect::<Result<_, _>>().expect("reads");
    for (want_id, want) in whole.iter().step_by(23) {
        read.store(0, Ordering::Relaxed);
        let found = block.find(*want_id, None).expect("reads").expect("is there");
        assert_eq!(&found, want);
        let read = read.load(Ordering::Relaxed);
        assert!(read < bytes.len() as u64 / 5, "{read} of {} bytes", bytes.len());
    }
}

#[test]
fn a_table_that_lies_is_an_error_or_harmless() {
    let (meta, bytes) = block();
    let places: Vec<usize> = memmem::find_iter(&bytes, TABLE).collect();
    let mut random = StdRng::seed_from_u64(7);
    let mut errors = 0;
    for _ in 0..400 {
        let mut changed = bytes.to_vec();
        let place = places[random.random_range(0..places.len())];
        for _ in 0..random.random_range(1..4) {
            // The magic number and the length before the name, the table after it, and a little of the first frame.
            changed[place - 8 + random.random_range(0..TABLE.len() + 80)] = random.random();
        }
        let block = open(&meta, &changed.into(), &Arc::default());
        for trace in [0, 150, 299] {
            errors += u32::from(block.find(id(trace), None).is_err());
        }
    }
    assert!(errors > 100, "{errors}");
}
