//! A batch of Jaeger's, and its bytes in each format. Shared with the tests of the converters.

use prost::Message as _;
use thrift::protocol::{
    TBinaryOutputProtocol, TCompactOutputProtocol, TFieldIdentifier, TListIdentifier, TMessageIdentifier, TMessageType, TOutputProtocol,
    TStructIdentifier, TType,
};
use vivace_proto::jaeger::api_v2 as proto;

#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Value {
    Text(&'static str),
    Double(f64),
    Bool(bool),
    Long(i64),
    Binary(&'static [u8]),
}

pub(crate) type Tags = Vec<(&'static str, Value)>;

#[derive(Debug, Clone, Default)]
pub(crate) struct Span {
    pub(crate) trace_id: u128,
    pub(crate) id: i64,
    /// 0: none. Protobuf has it as a reference.
    pub(crate) parent_id: i64,
    pub(crate) name: &'static str,
    pub(crate) references: Vec<Reference>,
    pub(crate) start_micros: i64,
    pub(crate) duration_micros: i64,
    pub(crate) tags: Tags,
    pub(crate) logs: Vec<(i64, Tags)>,
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Reference {
    pub(crate) follows_from: bool,
    pub(crate) trace_id: u128,
    pub(crate) id: i64,
}

#[derive(Debug, Clone, Default)]
pub(crate) struct Batch {
    pub(crate) service: &'static str,
    pub(crate) process_tags: Tags,
    pub(crate) spans: Vec<Span>,
}

/// One span per id, of a shop.
pub(crate) fn shop(ids: &[u8]) -> Batch {
    let span = |id: &u8| Span {
        trace_id: 0xabcd_0000_0000_0000_0001,
        id: i64::from_be_bytes([*id; 8]),
        name: "GET /",
        start_micros: 1_700_000_000_000_000,
        duration_micros: 1500,
        tags: vec![("http.method", Value::Text("GET"))],
        ..Span::default()
    };
    Batch { service: "shop", process_tags: Vec::new(), spans: ids.iter().map(span).collect() }
}

impl Batch {
    /// `emitBatch` in compact thrift.
    pub(crate) fn compact_packet(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        write_call(&mut TCompactOutputProtocol::new(&mut bytes), self).expect("written to memory");
        bytes
    }

    /// `emitBatch` in binary thrift.
    pub(crate) fn binary_packet(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        write_call(&mut TBinaryOutputProtocol::new(&mut bytes, true), self).expect("written to memory");
        bytes
    }

    /// As it is sent over HTTP.
    pub(crate) fn http_body(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        write_batch(&mut TBinaryOutputProtocol::new(&mut bytes, true), self, true).expect("written to memory");
        bytes
    }

    /// The same with the process behind the spans.
    pub(crate) fn http_body_with_late_process(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        write_batch(&mut TBinaryOutputProtocol::new(&mut bytes, true), self, false).expect("written to memory");
        bytes
    }

    /// A `PostSpansRequest`.
    pub(crate) fn request(&self) -> proto::PostSpansRequest {
        let process = proto::Process { service_name: self.service.to_owned(), tags: proto_tags(&self.process_tags) };
        let spans = self.spans.iter().map(proto_span).collect();
        proto::PostSpansRequest { batch: Some(proto::Batch { spans, process: Some(process) }) }
    }

    /// Its bytes.
    pub(crate) fn request_bytes(&self) -> Vec<u8> {
        self.request().encode_to_vec()
    }
}

fn field(out: &mut dyn TOutputProtocol, kind: TType, id: i16) -> thrift::Result<()> {
    out.write_field_begin(&TFieldIdentifier::new("", kind, id))
}

fn structs<T>(
    out: &mut dyn TOutputProtocol,
    id: i16,
    items: &[T],
    write: impl Fn(&mut dyn TOutputProtocol, &T) -> thrift::Result<()>,
) -> thrift::Result<()> {
    field(out, TType::List, id)?;
    out.write_list_begin(&TListIdentifier::new(TType::Struct, i32::try_from(items.len()).expect("few")))?;
    for item in items {
        out.write_struct_begin(&TStructIdentifier::new(""))?;
        write(out, item)?;
        out.write_field_stop()?;
        out.write_struct_end()?;
    }
    out.write_list_end()
}

fn number(out: &mut dyn TOutputProtocol, id: i16, value: i64) -> thrift::Result<()> {
    field(out, TType::I64, id)?;
    out.write_i64(value)
}

fn write_call(out: &mut dyn TOutputProtocol, batch: &Batch) -> thrift::Result<()> {
    out.write_message_begin(&TMessageIdentifier::new("emitBatch", TMessageType::OneWay, 1))?;
    out.write_struct_begin(&TStructIdentifier::new("args"))?;
    field(out, TType::Struct, 1)?;
    write_batch(out, batch, true)?;
    out.write_field_stop()?;
    out.write_struct_end()?;
    out.write_message_end()
}

fn write_batch(out: &mut dyn TOutputProtocol, batch: &Batch, process_first: bool) -> thrift::Result<()> {
    out.write_struct_begin(&TStructIdentifier::new("Batch"))?;
    for is_process in [process_first, !process_first] {
        if !is_process {
            structs(out, 2, &batch.spans, write_span)?;
            continue;
        }
        field(out, TType::Struct, 1)?;
        out.write_struct_begin(&TStructIdentifier::new("Process"))?;
        field(out, TType::String, 1)?;
        out.write_string(batch.service)?;
        structs(out, 2, &batch.process_tags, write_tag)?;
        out.write_field_stop()?;
        out.write_struct_end()?;
    }
    number(out, 3, 7)?; // seqNo, of no interest
    out.write_field_stop()?;
    out.write_struct_end()
}

fn write_span(out: &mut dyn TOutputProtocol, span: &Span) -> thrift::Result<()> {
    number(out, 1, span.trace_id as i64)?;
    number(out, 2, (span.trace_id >> 64) as i64)?;
    number(out, 3, span.id)?;
    number(out, 4, span.parent_id)?;
    field(out, TType::String, 5)?;
    out.write_string(span.name)?;
    structs(out, 6, &span.references, |out, reference| {
        field(out, TType::I32, 1)?;
        out.write_i32(reference.follows_from.into())?;
        number(out, 2, reference.trace_id as i64)?;
        number(out, 3, (reference.trace_id >> 64) as i64)?;
        number(out, 4, reference.id)
    })?;
    field(out, TType::I32, 7)?;
    out.write_i32(1)?;
    number(out, 8, span.start_micros)?;
    number(out, 9, span.duration_micros)?;
    structs(out, 10, &span.tags, write_tag)?;
    structs(out, 11, &span.logs, |out, (timestamp, fields)| {
        number(out, 1, *timestamp)?;
        structs(out, 2, fields, write_tag)
    })
}

fn write_tag(out: &mut dyn TOutputProtocol, (key, value): &(&str, Value)) -> thrift::Result<()> {
    field(out, TType::String, 1)?;
    out.write_string(key)?;
    field(out, TType::I32, 2)?;
    match value {
        Value::Text(text) => {
            out.write_i32(0)?;
            field(out, TType::String, 3)?;
            out.write_string(text)
        }
        Value::Double(value) => {
            out.write_i32(1)?;
            field(out, TType::Double, 4)?;
            out.write_double(*value)
        }
        Value::Bool(value) => {
            out.write_i32(2)?;
            field(out, TType::Bool, 5)?;
            out.write_bool(*value)
        }
        Value::Long(value) => {
            out.write_i32(3)?;
            number(out, 6, *value)
        }
        Value::Binary(bytes) => {
            out.write_i32(4)?;
            field(out, TType::String, 7)?;
            out.write_bytes(bytes)
        }
    }
}

fn proto_tags(tags: &Tags) -> Vec<proto::KeyValue> {
    let tag = |(key, value): &(&str, Value)| {
        let mut tag = proto::KeyValue { key: (*key).to_owned(), ..Default::default() };
        match value {
            Value::Text(text) => tag.v_str = (*text).to_owned(),
            Value::Bool(value) => (tag.v_type, tag.v_bool) = (1, *value),
            Value::Long(value) => (tag.v_type, tag.v_int64) = (2, *value),
            Value::Double(value) => (tag.v_type, tag.v_float64) = (3, *value),
            Value::Binary(bytes) => (tag.v_type, tag.v_binary) = (4, bytes.to_vec().into()),
        }
        tag
    };
    tags.iter().map(tag).collect()
}

fn proto_span(span: &Span) -> proto::Span {
    let time = |micros: i64| (micros / 1_000_000, i32::try_from(micros % 1_000_000).expect("less than a second") * 1000);
    let timestamp = |micros| {
        let (seconds, nanos) = time(micros);
        Some(proto::Timestamp { seconds, nanos })
    };
    let (seconds, nanos) = time(span.duration_micros);
    let own_parent = Reference { follows_from: false, trace_id: span.trace_id, id: span.parent_id };
    let parent = Some(own_parent).filter(|parent| parent.id != 0);
    let named = |r: &Reference| r.id == span.parent_id && r.trace_id == span.trace_id;
    let parent = parent.filter(|_| !span.references.iter().any(named));
    let reference = |r: &Reference| proto::SpanRef {
        trace_id: r.trace_id.to_be_bytes().to_vec().into(),
        span_id: r.id.to_be_bytes().to_vec().into(),
        ref_type: r.follows_from.into(),
    };
    proto::Span {
        trace_id: span.trace_id.to_be_bytes().to_vec().into(),
        span_id: span.id.to_be_bytes().to_vec().into(),
        operation_name: span.name.to_owned(),
        references: parent.iter().chain(&span.references).map(reference).collect(),
        flags: 1,
        start_time: timestamp(span.start_micros),
        duration: Some(proto::Duration { seconds, nanos }),
        tags: proto_tags(&span.tags),
        logs: span.logs.iter().map(|(at, fields)| proto::Log { timestamp: timestamp(*at), fields: proto_tags(fields) }).collect(),
        ..Default::default()
    }
}
