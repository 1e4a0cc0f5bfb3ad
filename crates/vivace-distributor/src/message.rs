//! The messages that spans are made of, as the wire has them, and whether bytes are such a message: what is acknowledged must be
//! readable by all who read it later.

use vivace_core::otlp::{Around, INSTRUMENTATION_LIBRARY_SPANS, SCOPE_SPANS};
use vivace_core::wire::{Reader, Value, WireError, offset_in};

/// How deep values may lie within values: an attribute's own value is 1 deep, what its list or map holds is 2 deep.
///
/// Decoders refuse messages that nest more than 100 deep, and answers wrap a span in ten messages; each level of a map is three.
pub(crate) const VALUE_DEPTH_MAX: u32 = 24;

pub(crate) const TRACE_ID_BYTES: usize = 16;
pub(crate) const SPAN_ID_BYTES: usize = 8;

/// A message of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Message {
    TracesData,
    ResourceSpans,
    ScopeSpans,
    Resource,
    EntityRef,
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
    /// An id of a trace, or none.
    TraceId,
    /// An id of a span, or none.
    SpanId,
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
            (Self::KeyValue, 2) => Field::Message(Self::AnyValue),
            (Self::ArrayValue, 1) => Field::Message(Self::AnyValue),
            (Self::AnyValue, 5) => Field::Message(Self::ArrayValue),
            (Self::AnyValue, 6) => Field::Message(Self::KeyValueList),
            (Self::KeyValue | Self::AnyValue, 1) => Field::AttributeText,
            (Self::Link, 1) => Field::TraceId,
            (Self::Link, 2) => Field::SpanId,
            (Self::Scope | Self::Event | Self::Status, 2)
            | (Self::Scope, 1)
            | (Self::Span, 1..=5)
            | (Self::Link, 3)
            | (Self::AnyValue, 7)
            | (Self::EntityRef, 1..=4)
            | (Self::ResourceSpans | Self::ScopeSpans, 3) => Field::Bytes,
            (Self::Resource, 2)
            | (Self::Scope | Self::Event, 4)
            | (Self::Span, 6 | 10 | 12 | 14)
            | (Self::Link, 5)
            | (Self::Status, 3)
            | (Self::AnyValue, 2 | 3) => Field::Varint,
            (Self::Span, 16) | (Self::Link, 6) => Field::Fixed32,
            (Self::Span, 7 | 8) | (Self::Event, 1) | (Self::AnyValue, 4) => Field::Fixed64,
            (Self::Resource, 3) => Field::Message(Self::EntityRef),
            (Self::TracesData, 1) => Field::Message(Self::ResourceSpans),
            (Self::ResourceSpans, 1) => Field::Message(Self::Resource),
            (Self::ResourceSpans, SCOPE_SPANS | INSTRUMENTATION_LIBRARY_SPANS) => Field::Message(Self::ScopeSpans),
            (Self::ScopeSpans, 1) => Field::Message(Self::Scope),
            (Self::ScopeSpans, 2) => Field::Message(Self::Span),
            _ => Field::Unknown,
        }
    }

    /// Whether a field holds a message of which there is one at most.
    pub(crate) fn has_one(self, number: u32) -> bool {
        matches!(
            (self, number),
            (Self::ResourceSpans | Self::ScopeSpans, 1) | (Self::Span, 15) | (Self::KeyValue, 2) | (Self::AnyValue, 5 | 6)
        )
    }
}

impl From<Around> for Message {
    fn from(around: Around) -> Self {
        match around {
            Around::Traces => Self::TracesData,
            Around::Resource => Self::ResourceSpans,
            Around::Scope => Self::ScopeSpans,
        }
    }
}

/// What was found in messages.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Findings {
    /// Values lie deeper within values than [`VALUE_DEPTH_MAX`].
    pub(crate) too_deep: bool,
    /// Bytes of a link's id that has a wrong length.
    pub(crate) bad_link: Option<usize>,
    /// Not all who read it later would understand it alike: [`crate::normal`] writes it as they do.
    pub(crate) unusual: bool,
}

impl Findings {
    fn look_at(&mut self, id: &[u8], len: usize) {
        if id.len() != len && !id.is_empty() {
            self.bad_link = self.bad_link.or(Some(id.len()));
        }
    }

    pub(crate) fn and(self, other: Self) -> Self {
        Self {
            too_deep: self.too_deep || other.too_deep,
            bad_link: self.bad_link.or(other.bad_link),
            unusual: self.unusual || other.unusual,
        }
    }
}

/// Looks at a message and at all that it is made of. Text may be any bytes, and fields that are not known are skipped.
///
/// # Errors
/// The bytes are no such message.
pub(crate) fn check(message: Message, bytes: &[u8]) -> Result<Findings, WireError> {
    let mut found = Findings::default();
    check_at(message, bytes, 0, &mut found)?;
    Ok(found)
}

// On the way of every span: the order of things here, and what is inlined, is measured.
#[inline(never)]
fn check_at(message: Message, bytes: &[u8], depth: u32, found: &mut Findings) -> Result<(), WireError> {
    let depth = depth + u32::from(message == Message::AnyValue);
    if depth > VALUE_DEPTH_MAX {
        found.too_deep = true;
        return Ok(());
    }
    let mut reader = Reader::new(bytes);
    let mut messages = 0u32;
    while let Some((number, value)) = reader.next_field()? {
        match (message.field(number), value) {
            (Field::Message(inner), Value::Bytes(content)) => {
                messages += 1;
                check_at(inner, content, depth, found).map_err(|error| error.after(offset_in(bytes, content)))?;
            }
            (Field::TraceId, Value::Bytes(id)) => found.look_at(id, TRACE_ID_BYTES),
            (Field::SpanId, Value::Bytes(id)) => found.look_at(id, SPAN_ID_BYTES),
            (Field::Unknown, Value::Group) => found.unusual = true,
            (Field::AttributeText | Field::Bytes, Value::Bytes(_))
            | (Field::Varint, Value::Varint(_))
            | (Field::Fixed32, Value::Fixed32(_))
            | (Field::Fixed64, Value::Fixed64(_))
            | (Field::Unknown, _) => {}
            _ => return Err(reader.wrong_type(number)),
        }
    }
    // A status in pieces is read alike by all.
    found.unusual |= match message {
        Message::KeyValue => messages > 1,
        Message::AnyValue => reader.field_start() > 0,
        _ => false,
    };
    Ok(())
}

/// Looks at a message around spans, and at its resource or scope also where that comes in pieces, and says whether it is unusual.
///
/// # Errors
/// As [`check`].
pub(crate) fn check_around(message: Message, bytes: &[u8]) -> Result<bool, WireError> {
    let mut reader = Reader::new(bytes);
    let (mut is_unusual, mut ones) = (false, 0u32);
    while let Some((number, value)) = reader.next_field()? {
        match (message.field(number), value) {
            (Field::Message(inner), Value::Bytes(content)) if message.has_one(number) => {
                ones += 1;
                check(inner, content).map_err(|error| error.after(offset_in(bytes, content)))?;
            }
            (Field::Message(_), Value::Bytes(_)) => is_unusual |= number == INSTRUMENTATION_LIBRARY_SPANS,
            (Field::Unknown, Value::Group) => is_unusual = true,
            (Field::Bytes, Value::Bytes(_)) | (Field::Unknown, _) => {}
            _ => return Err(reader.wrong_type(number)),
        }
    }
    Ok(is_unusual || ones > 1)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use prost::Message as _;
    use vivace_proto::otlp::any_value::Value as Any;
    use vivace_proto::otlp::{AnyValue, ArrayValue, InstrumentationScope, KeyValue, KeyValueList, Resource, Span, Status, span};

    use super::*;

    const TOO_DEEP: Result<Findings, WireError> = Ok(Findings { too_deep: true, bad_link: None, unusual: false });

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
            assert_eq!(check(Message::Span, &span(VALUE_DEPTH_MAX)), Ok(Findings::default()));
            assert_eq!(check(Message::Span, &span(VALUE_DEPTH_MAX + 1)), TOO_DEEP);
            let event = span::Event { attributes: vec![attribute(deep(VALUE_DEPTH_MAX + 1, wrap))], ..Default::default() };
            assert_eq!(check(Message::Span, &Span { events: vec![event], ..Span::default() }.encode_to_vec()), TOO_DEEP);
            let resource = |levels| Resource { attributes: vec![attribute(deep(levels, wrap))], ..Default::default() }.encode_to_vec();
            assert_eq!(check(Message::Resource, &resource(VALUE_DEPTH_MAX)), Ok(Findings::default()));
            assert_eq!(check(Message::Resource, &resource(VALUE_DEPTH_MAX + 1)), TOO_DEEP);
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
        assert_eq!(check(Message::Span, &span), TOO_DEEP);
    }

    #[test]
    fn scopes_and_fields_of_a_later_protocol_are_taken() {
        let scope = InstrumentationScope { name: "n".to_owned(), attributes: vec![attribute(Any::IntValue(-1))], ..Default::default() };
        let mut bytes = scope.encode_to_vec();
        vivace_core::wire::put_bytes(&mut bytes, 77, b"new");
        assert_eq!(check(Message::Scope, &bytes), Ok(Findings::default()));
    }

    #[test]
    fn what_not_all_readers_would_understand_alike_is_unusual() {
        use vivace_core::wire::put_bytes;
        let (text, number) = (Any::StringValue("a".to_owned()), Any::IntValue(1));
        let [text, number] = [text, number].map(|value| AnyValue { value: Some(value) }.encode_to_vec());
        let unusual = |message, bytes: &[u8]| check(message, bytes).expect("valid").unusual;
        let mut twice = attribute(Any::IntValue(1)).encode_to_vec();
        put_bytes(&mut twice, 2, &text);
        assert!(unusual(Message::KeyValue, &twice), "a value twice");
        assert!(unusual(Message::AnyValue, &[text, number].concat()), "a value of two kinds");
        let group = [9 << 3 | 3, 9 << 3 | 4];
        assert!(unusual(Message::KeyValue, &group), "a group");
        assert!(!unusual(Message::Span, &full().encode_to_vec()));
        assert_eq!(check(Message::KeyValue, &[1 << 3 | 3, 1 << 3 | 4]), Err(WireError::Type { field: 1, offset: 0 }), "a key is none");
    }

    #[test]
    fn errors_count_from_the_start_of_what_was_given() {
        let bytes = full().encode_to_vec();
        let last = bytes.windows(4).position(|bytes| bytes == b"\x0a\x03ke").expect("has attributes");
        let mut broken = bytes;
        // A length beyond the end.
        broken[last + 1] = 100;
        assert_eq!(check(Message::Span, &broken), Err(WireError::Truncated { offset: last }));
    }

    #[test]
    fn ids_of_links_have_a_length() {
        let check = |trace: usize, span: usize| {
            let link = span::Link { trace_id: vec![1; trace].into(), span_id: vec![1; span].into(), ..Default::default() };
            check(Message::Span, &Span { links: vec![link], ..Span::default() }.encode_to_vec()).expect("valid").bad_link
        };
        assert_eq!([check(16, 8), check(0, 0), check(16, 0), check(15, 8), check(16, 16)], [None, None, None, Some(15), Some(16)]);
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
                Err(error) => prop_assert!(decoded.is_err(), "{error}"),
            }
        }
    }
}
