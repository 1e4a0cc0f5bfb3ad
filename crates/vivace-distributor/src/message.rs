//! The messages that spans are made of, as the wire has them, and whether bytes are such a message: what is acknowledged must be
//! readable by all who read it later.

use vivace_core::wire::{Reader, Value, WireError};

/// How deep values may lie within values: an attribute's own value is 1 deep, what its list or map holds is 2 deep.
///
/// Decoders refuse messages that nest more than 100 deep, and answers wrap a span in ten messages; each level of a map is three.
pub(crate) const VALUE_DEPTH_MAX: u32 = 24;

/// A message that a span is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Message {
    Resource,
    Scope,
    Span,
    Event,
    Link,
    Status,
    KeyValue,
    AnyValue,
    ArrayValue,
    KeyValueList,
}

/// What a field holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Field {
    /// Text of an attribute: its key, or a value.
    AttributeText,
    /// Other text, and bytes.
    Bytes,
    Varint,
    Fixed32,
    Fixed64,
    Message(Message),
    /// Of a later protocol.
    Unknown,
}

impl Message {
    /// Source: OpenTelemetry protocol, `trace.proto`, `resource.proto`, `common.proto`.
    #[inline]
    pub(crate) fn field(self, number: u32) -> Field {
        match (self, number) {
            (Self::Resource, 1) | (Self::Scope, 3) | (Self::Span, 9) | (Self::Event, 3) | (Self::Link, 4) | (Self::KeyValueList, 1) => {
                Field::Message(Self::KeyValue)
            }
            (Self::Span, 11) => Field::Message(Self::Event),
            (Self::Span, 13) => Field::Message(Self::Link),
            (Self::Span, 15) => Field::Message(Self::Status),
            (Self::KeyValue, 2) | (Self::ArrayValue, 1) => Field::Message(Self::AnyValue),
            (Self::AnyValue, 5) => Field::Message(Self::ArrayValue),
            (Self::AnyValue, 6) => Field::Message(Self::KeyValueList),
            (Self::KeyValue | Self::AnyValue, 1) => Field::AttributeText,
            (Self::Scope | Self::Event | Self::Status, 2)
            | (Self::Scope, 1)
            | (Self::Span, 1..=5)
            | (Self::Link, 1..=3)
            | (Self::AnyValue, 7) => Field::Bytes,
            (Self::Resource, 2)
            | (Self::Scope | Self::Event, 4)
            | (Self::Span, 6 | 10 | 12 | 14)
            | (Self::Link, 5)
            | (Self::Status, 3)
            | (Self::AnyValue, 2 | 3) => Field::Varint,
            (Self::Span, 16) | (Self::Link, 6) => Field::Fixed32,
            (Self::Span, 7 | 8) | (Self::Event, 1) | (Self::AnyValue, 4) => Field::Fixed64,
            _ => Field::Unknown,
        }
    }
}

/// Whether a message can be kept.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Verdict {
    #[default]
    Good,
    /// Values lie deeper within values than [`VALUE_DEPTH_MAX`].
    TooDeep,
}

/// Looks at a message and at all that it is made of. Text may be any bytes, and fields that are not known are skipped.
///
/// # Errors
/// The bytes are no such message. The offset counts from the start of the innermost message.
pub(crate) fn check(message: Message, bytes: &[u8]) -> Result<Verdict, WireError> {
    check_at(message, bytes, 0)
}

fn check_at(message: Message, bytes: &[u8], depth: u32) -> Result<Verdict, WireError> {
    let depth = depth + u32::from(message == Message::AnyValue);
    if depth > VALUE_DEPTH_MAX {
        return Ok(Verdict::TooDeep);
    }
    let mut reader = Reader::new(bytes);
    let mut verdict = Verdict::Good;
    while let Some((number, value)) = reader.next_field()? {
        match (message.field(number), value) {
            (Field::Message(inner), Value::Bytes(content)) => {
                if check_at(inner, content, depth)? == Verdict::TooDeep {
                    verdict = Verdict::TooDeep;
                }
            }
            (Field::AttributeText | Field::Bytes, Value::Bytes(_))
            | (Field::Varint, Value::Varint(_))
            | (Field::Fixed32, Value::Fixed32(_))
            | (Field::Fixed64, Value::Fixed64(_))
            | (Field::Unknown, _) => {}
            _ => return Err(reader.wrong_type(number)),
        }
    }
    Ok(verdict)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use prost::Message as _;
    use vivace_proto::otlp::any_value::Value as Any;
    use vivace_proto::otlp::{AnyValue, ArrayValue, InstrumentationScope, KeyValue, KeyValueList, Resource, Span, Status, span};

    use super::*;

    fn attribute(value: Any) -> KeyValue {
        KeyValue { key: "key".to_owned(), value: Some(AnyValue { value: Some(value) }) }
    }

    fn deep(levels: u32, wrap: fn(AnyValue) -> Any) -> Any {
        (1..levels).fold(Any::IntValue(1), |inner, _| wrap(AnyValue { value: Some(inner) }))
    }

    fn map(inner: AnyValue) -> Any {
        Any::KvlistValue(KeyValueList { values: vec![KeyValue { key: "k".to_owned(), value: Some(inner) }] })
    }

    fn list(inner: AnyValue) -> Any {
        Any::ArrayValue(ArrayValue { values: vec![inner] })
    }

    /// A span with every field that there is.
    fn full() -> Span {
        let attributes = || vec![attribute(Any::BoolValue(true)), attribute(Any::BytesValue(vec![1, 2].into())), attribute(deep(4, map))];
        Span {
            trace_id: vec![1; 16].into(),
            span_id: vec![2; 8].into(),
            trace_state: "a=b".to_owned(),
            parent_span_id: vec![3; 8].into(),
            name: "name".to_owned(),
            kind: 2,
            start_time_unix_nano: 1 << 60,
            end_time_unix_nano: (1 << 60) + 1,
            attributes: attributes(),
            dropped_attributes_count: 1,
            events: vec![span::Event {
                time_unix_nano: 5,
                name: "event".to_owned(),
                attributes: attributes(),
                dropped_attributes_count: 2,
            }],
            dropped_events_count: 3,
            links: vec![span::Link {
                trace_id: vec![4; 16].into(),
                span_id: vec![5; 8].into(),
                trace_state: "c=d".to_owned(),
                attributes: attributes(),
                dropped_attributes_count: 4,
                flags: 6,
            }],
            dropped_links_count: 7,
            status: Some(Status { message: "status".to_owned(), code: 2 }),
            flags: 256,
        }
    }

    #[test]
    fn values_are_kept_up_to_a_depth() {
        for wrap in [map, list] {
            let span = |levels| Span { attributes: vec![attribute(deep(levels, wrap))], ..Span::default() }.encode_to_vec();
            assert_eq!(check(Message::Span, &span(VALUE_DEPTH_MAX)), Ok(Verdict::Good));
            assert_eq!(check(Message::Span, &span(VALUE_DEPTH_MAX + 1)), Ok(Verdict::TooDeep));
            let event = span::Event { attributes: vec![attribute(deep(VALUE_DEPTH_MAX + 1, wrap))], ..Default::default() };
            assert_eq!(check(Message::Span, &Span { events: vec![event], ..Span::default() }.encode_to_vec()), Ok(Verdict::TooDeep));
            let resource = |levels| Resource { attributes: vec![attribute(deep(levels, wrap))], ..Default::default() }.encode_to_vec();
            assert_eq!(check(Message::Resource, &resource(VALUE_DEPTH_MAX)), Ok(Verdict::Good));
            assert_eq!(check(Message::Resource, &resource(VALUE_DEPTH_MAX + 1)), Ok(Verdict::TooDeep));
        }
    }

    #[test]
    fn a_hostile_depth_costs_no_stack() {
        let mut bytes = Vec::new();
        for _ in 0..100_000 {
            let mut outer = Vec::with_capacity(bytes.len() + 12);
            vivace_core::wire::put_bytes(&mut outer, 1, &bytes);
            bytes.clear();
            vivace_core::wire::put_bytes(&mut bytes, 5, &outer);
            if bytes.len() > 20_000 {
                break;
            }
        }
        let mut value = Vec::new();
        vivace_core::wire::put_bytes(&mut value, 2, &bytes);
        let mut span = Vec::new();
        vivace_core::wire::put_bytes(&mut span, 9, &value);
        assert_eq!(check(Message::Span, &span), Ok(Verdict::TooDeep));
    }

    #[test]
    fn scopes_and_fields_of_a_later_protocol_are_taken() {
        let scope = InstrumentationScope { name: "n".to_owned(), attributes: vec![attribute(Any::IntValue(-1))], ..Default::default() };
        let mut bytes = scope.encode_to_vec();
        vivace_core::wire::put_bytes(&mut bytes, 77, b"new");
        assert_eq!(check(Message::Scope, &bytes), Ok(Verdict::Good));
    }

    proptest! {
        /// Whatever is let in can be decoded, but for text that is no UTF-8, which readers mend.
        #[test]
        fn what_is_let_in_can_be_decoded(changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4), cut in 0..8usize) {
            let mut bytes = full().encode_to_vec();
            for (at, byte) in changes {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
            bytes.truncate(bytes.len() - cut);
            let decoded = Span::decode(bytes.as_slice());
            match check(Message::Span, &bytes) {
                Ok(_) => {
                    let is_text = |error: &prost::DecodeError| error.to_string().contains("UTF-8");
                    prop_assert!(decoded.as_ref().err().is_none_or(is_text), "{:?}", decoded);
                }
                // Groups alone are refused that a decoder would skip.
                Err(error) => prop_assert!(decoded.is_err() || matches!(error, WireError::Key { .. }), "{error}"),
            }
        }
    }
}
