//! A door to the converters for the fuzz targets.

use prost::Message as _;
use vivace_core::budget::Budget;
use vivace_proto::otlp::TracesData;
use vivace_server::RequestBudget;

use crate::error::PushError;
use crate::receiver::jaeger;
use crate::receiver::kafka::with_attributes;
use crate::receiver::spans::Spans;
use crate::receiver::tags::Dialect;
use crate::receiver::thrift::Encoding;
use crate::receiver::zipkin;

/// Room for what an input of a few KiB becomes; four times of it would be too much.
const BUDGET_BYTES: u64 = 64 << 20;

/// Reads the input as each of Jaeger's formats.
///
/// # Panics
/// Where what it becomes is no OTLP.
pub fn jaeger(input: &[u8]) {
    convert(input, Dialect::Jaeger, |bytes, spans| jaeger::packet(Encoding::Compact, bytes, spans));
    convert(input, Dialect::Jaeger, |bytes, spans| jaeger::packet(Encoding::Binary, bytes, spans));
    convert(input, Dialect::Jaeger, jaeger::batch);
    convert(input, Dialect::Jaeger, jaeger::request);
    convert(input, Dialect::Jaeger, jaeger::span);
    convert(input, Dialect::Jaeger, jaeger::json_span);
}

/// Puts attributes into the input, as headers of a message are.
///
/// # Panics
/// Where that makes no OTLP of what was OTLP.
pub fn message_headers(input: &[u8]) {
    let budget = Budget::new(BUDGET_BYTES);
    let charge = RequestBudget::whole(&budget).open();
    let Ok((out, charge_of_out)) = with_attributes(input, &[("zone", b"b"), ("", b"")], &charge) else { return };
    assert!(charge_of_out.bytes() >= out.len() as u64, "all of it is paid for");
    if let Ok(before) = TracesData::decode(input) {
        let after = TracesData::decode(&out[..]).expect("still OTLP");
        assert_eq!(after.resource_spans.len(), before.resource_spans.len());
    }
}

/// Reads the input as each of Zipkin's formats; its first byte says whether texts are looked into.
///
/// # Panics
/// As [`jaeger()`].
pub fn zipkin(input: &[u8]) {
    let Some((first, input)) = input.split_first() else { return };
    let dialect = Dialect::Zipkin { parse_string_tags: first & 1 == 1 };
    for read in [zipkin::spans_v2, zipkin::spans_v1, zipkin::spans_proto, zipkin::spans_thrift] {
        convert(input, dialect, read);
    }
}

fn convert(input: &[u8], dialect: Dialect, read: impl Fn(&[u8], &mut Spans) -> Result<(), PushError>) {
    let budget = Budget::new(BUDGET_BYTES);
    let charge = RequestBudget::whole(&budget).open();
    let mut spans = Spans::new(&charge, dialect, input.len()).expect("fits");
    // What is broken is refused, and what was there before it stays.
    let mark = spans.mark(input.len()).expect("fits");
    if read(input, &mut spans).is_err() {
        spans.go_back(mark);
    }
    let (body, charge) = spans.finish().expect("fits");
    assert!(charge.bytes() >= body.len() as u64, "all of it is paid for");
    drop(charge);
    assert_eq!(budget.used(), 0, "all is given back");
    if let Err(error) = TracesData::decode(body) {
        assert!(error.to_string().contains("UTF-8"), "{error}");
    }
}
