//! Cutting attribute keys and text values that are too long, in the client's own bytes. Those that are given have passed
//! [`crate::message::check`], so that they do not lie too deep.

use vivace_core::wire::{Reader, Value, WireError, put_bytes, put_varint};

use crate::message::{Field, Message};

/// The message with long keys and text values cut to `max` bytes, at a character's border, and how many were cut.
///
/// None when nothing is too long, which costs nothing for messages of up to `max` bytes.
///
/// # Errors
/// The bytes are no message.
pub(crate) fn cut(message: Message, bytes: &[u8], max: usize) -> Result<Option<(Vec<u8>, u64)>, WireError> {
    if bytes.len() <= max || !has_long(message, bytes, max)? {
        return Ok(None);
    }
    let (mut out, mut count) = (Vec::with_capacity(bytes.len()), 0);
    rewrite(message, bytes, max, &mut out, &mut count)?;
    Ok(Some((out, count)))
}

fn has_long(message: Message, bytes: &[u8], max: usize) -> Result<bool, WireError> {
    let mut reader = Reader::new(bytes);
    while let Some((number, value)) = reader.next_field()? {
        let Value::Bytes(content) = value else { continue };
        if content.len() <= max {
            continue;
        }
        let long = match message.field(number) {
            Field::AttributeText => true,
            Field::Message(inner) => has_long(inner, content, max)?,
            Field::Bytes | Field::TraceId | Field::SpanId | Field::Varint | Field::Fixed32 | Field::Fixed64 | Field::Unknown => false,
        };
        if long {
            return Ok(true);
        }
    }
    Ok(false)
}

fn rewrite(message: Message, bytes: &[u8], max: usize, out: &mut Vec<u8>, count: &mut u64) -> Result<(), WireError> {
    let mut reader = Reader::new(bytes);
    while let Some((number, value)) = reader.next_field()? {
        let key = u64::from(number) << 3;
        match value {
            Value::Varint(v) => {
                put_varint(out, key);
                put_varint(out, v);
            }
            Value::Fixed64(v) => {
                put_varint(out, key | 1);
                out.extend_from_slice(&v.to_le_bytes());
            }
            Value::Fixed32(v) => {
                put_varint(out, key | 5);
                out.extend_from_slice(&v.to_le_bytes());
            }
            // Groups have gone before.
            Value::Group => {}
            Value::Bytes(content) => match message.field(number) {
                Field::AttributeText if content.len() > max => {
                    *count += 1;
                    put_bytes(out, number, &content[..border(content, max)]);
                }
                Field::Message(inner) if content.len() > max => {
                    let mut nested = Vec::with_capacity(content.len());
                    rewrite(inner, content, max, &mut nested, count)?;
                    put_bytes(out, number, &nested);
                }
                _ => put_bytes(out, number, content),
            },
        }
    }
    Ok(())
}

/// The last border between characters at or before `max`. Bytes that are no UTF-8 are cut at `max`.
fn border(text: &[u8], max: usize) -> usize {
    let continues = |byte: &u8| byte & 0xc0 == 0x80;
    (max.saturating_sub(3)..=max).rev().find(|at| text.get(*at).is_none_or(|byte| !continues(byte))).unwrap_or(max)
}

#[cfg(test)]
mod tests {
    use super::*;
    use prost::Message as _;
    use vivace_proto::otlp::{AnyValue, ArrayValue, KeyValue, Span, any_value, span};

    fn text(value: &str) -> Option<AnyValue> {
        Some(AnyValue { value: Some(any_value::Value::StringValue(value.to_owned())) })
    }

    fn attribute(key: &str, value: Option<AnyValue>) -> KeyValue {
        KeyValue { key: key.to_owned(), value }
    }

    #[test]
    fn keys_values_events_links_and_nested_values_are_cut() {
        let nested = |value: &str| {
            let values = text(value).into_iter().collect();
            Some(AnyValue { value: Some(any_value::Value::ArrayValue(ArrayValue { values })) })
        };
        let make = |long: &str, cut: &str| Span {
            name: "a name is no attribute and stays however long it is".to_owned(),
            attributes: vec![attribute("short", text("short")), attribute(cut, text(cut)), attribute("list", nested(long))],
            events: vec![span::Event { attributes: vec![attribute("event", text(long))], ..Default::default() }],
            links: vec![span::Link { attributes: vec![attribute("link", text(long))], flags: 7, ..Default::default() }],
            start_time_unix_nano: 5,
            kind: 3,
            ..Default::default()
        };
        let long = "0123456789abcdef";
        let (bytes, cut) = (make(long, long).encode_to_vec(), &long[..10]);
        let (rewritten, count) = super::cut(Message::Span, &bytes, 10).expect("valid").expect("something is long");
        assert_eq!(Span::decode(rewritten.as_slice()).expect("decodes"), make(cut, cut));
        assert_eq!(count, 5);
        assert_eq!(super::cut(Message::Span, &rewritten, 10), Ok(None));
        assert_eq!(super::cut(Message::Span, &bytes, 16), Ok(None));
    }

    #[test]
    fn characters_are_not_split() {
        assert_eq!(border("ab€cd".as_bytes(), 4), 2);
        assert_eq!(border("ab€cd".as_bytes(), 5), 5);
        assert_eq!(border(&[0x80; 9], 6), 6);
    }
}
