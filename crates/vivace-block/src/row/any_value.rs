//! Attribute values, borrowed from their OTLP bytes.

use std::fmt::Write;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use vivace_core::wire::{Reader, Value, WireError, usual_len};

/// An attribute of a resource, scope, span, event or link.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Attr<'a> {
    pub(crate) key: &'a [u8],
    pub(crate) value: AttrValue<'a>,
}

/// A value in the shape of its columns.
///
/// Source: docs/facts/blocks.md, "Attribute encoding".
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum AttrValue<'a> {
    Scalar(Scalar<'a>),
    /// All elements are scalars of one kind; possibly none.
    Array(Array<'a>),
    /// The whole `AnyValue` message.
    Unsupported(&'a [u8]),
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Scalar<'a> {
    Str(&'a [u8]),
    Int(i64),
    Double(f64),
    Bool(bool),
}

/// An `ArrayValue` message that was checked to hold scalars of one kind.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Array<'a> {
    pub(super) message: &'a [u8],
    pub(crate) len: usize,
}

impl<'a> Array<'a> {
    pub(crate) fn elements(self) -> impl Iterator<Item = Scalar<'a>> {
        let mut reader = Reader::new(self.message);
        std::iter::from_fn(move || {
            while let Ok(Some((field, value))) = reader.next_field() {
                if let (1, Value::Bytes(element)) = (field, value)
                    && let Ok(AnyValue::Scalar(scalar)) = AnyValue::read(element)
                {
                    return Some(scalar);
                }
            }
            None
        })
    }
}

impl<'a> Attr<'a> {
    /// Reads a `KeyValue` message.
    #[inline]
    pub(crate) fn read(message: &'a [u8]) -> Result<Self, WireError> {
        match Self::read_usual(message) {
            Some(attr) => Ok(attr),
            None => Self::read_any(message),
        }
    }

    /// Reads a key and a scalar value, in this order and nothing else: what clients send nearly always. None for all else.
    #[inline]
    fn read_usual(message: &'a [u8]) -> Option<Self> {
        let (key_len, rest) = usual_len(message.strip_prefix(&[1 << 3 | 2])?)?;
        let (key, rest) = rest.split_at_checked(key_len)?;
        let (value_len, value) = usual_len(rest.strip_prefix(&[2 << 3 | 2])?)?;
        if value.len() != value_len {
            return None;
        }
        let scalar = match value {
            [0x0a, rest @ ..] => {
                let (len, text) = usual_len(rest)?;
                if text.len() != len {
                    return None;
                }
                Scalar::Str(text)
            }
            [0x10, bit @ (0 | 1)] => Scalar::Bool(*bit == 1),
            [0x18, digits @ .., last @ ..0x80] if digits.len() < 9 => {
                let mut number = u64::from(*last) << (7 * digits.len());
                for (at, digit) in digits.iter().enumerate() {
                    if *digit < 0x80 {
                        return None;
                    }
                    number |= u64::from(digit & 0x7f) << (7 * at);
                }
                Scalar::Int(number.cast_signed())
            }
            [0x21, bits @ ..] => Scalar::Double(f64::from_le_bytes(bits.try_into().ok()?)),
            _ => return None,
        };
        Some(Self { key, value: AttrValue::Scalar(scalar) })
    }

    fn read_any(message: &'a [u8]) -> Result<Self, WireError> {
        let (key, value) = key_value(message)?;
        let value = match AnyValue::read(value)? {
            AnyValue::Scalar(scalar) => AttrValue::Scalar(scalar),
            AnyValue::Array(elements) => uniform(elements)?.map_or(AttrValue::Unsupported(value), AttrValue::Array),
            AnyValue::KeyValues(_) | AnyValue::Bytes(_) | AnyValue::Unset => AttrValue::Unsupported(value),
        };
        Ok(Self { key, value })
    }

    /// The text of a text attribute.
    pub(crate) fn as_str(&self) -> Option<&'a [u8]> {
        match self.value {
            AttrValue::Scalar(Scalar::Str(text)) => Some(text),
            _ => None,
        }
    }
}

fn key_value(message: &[u8]) -> Result<(&[u8], &[u8]), WireError> {
    let (mut key, mut value): (&[u8], &[u8]) = (&[], &[]);
    let mut reader = Reader::new(message);
    while let Some(field) = reader.next_field()? {
        match field {
            (1, Value::Bytes(v)) => key = v,
            (2, Value::Bytes(v)) => value = v,
            (1 | 2, _) => return Err(reader.wrong_type(field.0)),
            _ => {}
        }
    }
    Ok((key, value))
}

/// The array if it can be stored in a column: scalars of one kind only.
fn uniform(message: &[u8]) -> Result<Option<Array<'_>>, WireError> {
    let mut kind = None;
    let mut len = 0;
    let mut reader = Reader::new(message);
    while let Some(field) = reader.next_field()? {
        match field {
            (1, Value::Bytes(element)) => {
                let AnyValue::Scalar(scalar) = AnyValue::read(element)? else { return Ok(None) };
                let this = std::mem::discriminant(&scalar);
                if *kind.get_or_insert(this) != this {
                    return Ok(None);
                }
                len += 1;
            }
            (1, _) => return Err(reader.wrong_type(1)),
            _ => {}
        }
    }
    Ok(Some(Array { message, len }))
}

/// An `AnyValue` message.
enum AnyValue<'a> {
    Scalar(Scalar<'a>),
    Array(&'a [u8]),
    KeyValues(&'a [u8]),
    Bytes(&'a [u8]),
    Unset,
}

impl<'a> AnyValue<'a> {
    #[inline]
    fn read(message: &'a [u8]) -> Result<Self, WireError> {
        let mut result = Self::Unset;
        let mut reader = Reader::new(message);
        while let Some(field) = reader.next_field()? {
            result = match field {
                (1, Value::Bytes(v)) => Self::Scalar(Scalar::Str(v)),
                (2, Value::Varint(v)) => Self::Scalar(Scalar::Bool(v != 0)),
                (3, Value::Varint(v)) => Self::Scalar(Scalar::Int(v as i64)),
                (4, Value::Fixed64(v)) => Self::Scalar(Scalar::Double(f64::from_bits(v))),
                (5, Value::Bytes(v)) => Self::Array(v),
                (6, Value::Bytes(v)) => Self::KeyValues(v),
                (7, Value::Bytes(v)) => Self::Bytes(v),
                (1..=7, _) => return Err(reader.wrong_type(field.0)),
                _ => continue,
            };
        }
        Ok(result)
    }
}

/// Values nested deeper than this are written as `{}`. Protobuf parsers stop at 100 messages; each level here is two.
const DEPTH_MAX: usize = 50;

/// The protobuf-JSON form of an `AnyValue` message, as `ValueUnsupported` holds it.
pub(crate) fn any_value_json(message: &[u8]) -> String {
    let mut out = String::new();
    put_any_value(&mut out, message, DEPTH_MAX);
    out
}

/// Parts that are no valid message come out as `{}`: they were refused or checked before.
fn put_any_value(out: &mut String, message: &[u8], depth: usize) {
    out.push('{');
    match AnyValue::read(message).unwrap_or(AnyValue::Unset) {
        _ if depth == 0 => {}
        AnyValue::Unset => {}
        AnyValue::Scalar(Scalar::Str(text)) => {
            out.push_str("\"stringValue\":");
            put_text(out, text);
        }
        AnyValue::Scalar(Scalar::Int(v)) => put(out, format_args!("\"intValue\":\"{v}\"")),
        AnyValue::Scalar(Scalar::Bool(v)) => put(out, format_args!("\"boolValue\":{v}")),
        AnyValue::Scalar(Scalar::Double(v)) => {
            out.push_str("\"doubleValue\":");
            match v {
                _ if v.is_nan() => out.push_str("\"NaN\""),
                f64::INFINITY => out.push_str("\"Infinity\""),
                f64::NEG_INFINITY => out.push_str("\"-Infinity\""),
                _ => out.push_str(&serde_json::to_string(&v).expect("a finite number is JSON")),
            }
        }
        AnyValue::Bytes(bytes) => put(out, format_args!("\"bytesValue\":\"{}\"", STANDARD.encode(bytes))),
        AnyValue::Array(elements) => {
            out.push_str("\"arrayValue\":{");
            put_repeated(out, elements, |out, element| put_any_value(out, element, depth - 1));
            out.push('}');
        }
        AnyValue::KeyValues(pairs) => {
            out.push_str("\"kvlistValue\":{");
            put_repeated(out, pairs, |out, pair| {
                let (key, value) = key_value(pair).unwrap_or_default();
                out.push('{');
                if !key.is_empty() {
                    out.push_str("\"key\":");
                    put_text(out, key);
                    out.push(',');
                }
                out.push_str("\"value\":");
                put_any_value(out, value, depth - 1);
                out.push('}');
            });
            out.push('}');
        }
    }
    out.push('}');
}

fn put_repeated(out: &mut String, message: &[u8], mut put_one: impl FnMut(&mut String, &[u8])) {
    let mut reader = Reader::new(message);
    let mut some = false;
    while let Ok(Some((field, value))) = reader.next_field() {
        if let (1, Value::Bytes(element)) = (field, value) {
            out.push_str(if some { "," } else { "\"values\":[" });
            put_one(out, element);
            some = true;
        }
    }
    if some {
        out.push(']');
    }
}

fn put(out: &mut String, text: std::fmt::Arguments<'_>) {
    out.write_fmt(text).expect("writing to a string succeeds");
}

fn put_text(out: &mut String, text: &[u8]) {
    let json = serde_json::to_string(&String::from_utf8_lossy(text)).expect("text is JSON");
    for c in json.chars() {
        match c {
            '<' => out.push_str("\\u003c"),
            '>' => out.push_str("\\u003e"),
            '&' => out.push_str("\\u0026"),
            _ => out.push(c),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use prost::Message;
    use vivace_proto::otlp::any_value::Value as V;
    use vivace_proto::otlp::{AnyValue as Any, ArrayValue, KeyValue, KeyValueList};

    fn any(value: V) -> Any {
        Any { value: Some(value) }
    }

    fn json(value: &Any) -> String {
        any_value_json(&value.encode_to_vec())
    }

    #[test]
    fn unsupported_values_are_protobuf_json() {
        let array = |values| any(V::ArrayValue(ArrayValue { values }));
        let pairs = |values| any(V::KvlistValue(KeyValueList { values }));
        let pair = |key: &str, value| KeyValue { key: key.to_owned(), value: Some(value) };
        let mixed = array(vec![any(V::StringValue("a<b".to_owned())), any(V::IntValue(1)), any(V::BoolValue(true))]);
        assert_eq!(json(&mixed), r#"{"arrayValue":{"values":[{"stringValue":"a\u003cb"},{"intValue":"1"},{"boolValue":true}]}}"#);
        let pairs_json = json(&pairs(vec![pair("a", any(V::DoubleValue(1.5))), pair("", any(V::DoubleValue(f64::NAN)))]));
        assert_eq!(pairs_json, r#"{"kvlistValue":{"values":[{"key":"a","value":{"doubleValue":1.5}},{"value":{"doubleValue":"NaN"}}]}}"#);
        assert_eq!(json(&pairs(vec![])), r#"{"kvlistValue":{}}"#);
        assert_eq!(json(&any(V::BytesValue(vec![0, 0x11, 0x22].into()))), r#"{"bytesValue":"ABEi"}"#);
        assert_eq!(json(&Any { value: None }), "{}");
    }

    #[test]
    fn deep_nesting_ends_somewhere() {
        let mut value = any(V::IntValue(1));
        for _ in 0..40 {
            value = any(V::ArrayValue(ArrayValue { values: vec![value] }));
        }
        assert!(json(&value).contains("intValue"));
        let mut bytes = value.encode_to_vec();
        for _ in 0..10_000 {
            let mut outer = Vec::new();
            vivace_core::wire::put_bytes(&mut outer, 1, &bytes);
            bytes = Vec::new();
            vivace_core::wire::put_bytes(&mut bytes, 5, &outer);
        }
        assert!(!any_value_json(&bytes).contains("intValue"));
    }

    #[test]
    fn usual_attributes_are_read_as_all_others_are() {
        let texts = [String::new(), "text".to_owned(), "x".repeat(127), "x".repeat(128), "x".repeat(20_000)];
        let mut values: Vec<Any> = texts.map(|text| any(V::StringValue(text))).into();
        values.extend([0, 1, 127, 128, -1, i64::MAX, i64::MIN, 1 << 56].map(|v| any(V::IntValue(v))));
        values.extend([any(V::BoolValue(true)), any(V::DoubleValue(-0.5)), any(V::BytesValue(vec![1].into())), Any { value: None }]);
        let mut usual = 0;
        for value in values {
            for key in ["", "key", &"k".repeat(200)] {
                let bytes = KeyValue { key: key.to_owned(), value: Some(value.clone()) }.encode_to_vec();
                // Also with every byte changed, cut at every place, and twice.
                let changed = (0..bytes.len().min(40)).flat_map(|at| [0, 1, 0x0a, 0x12, 0x80, 0xff].map(|byte| (at, byte)));
                let mut all: Vec<Vec<u8>> = changed
                    .map(|(at, byte)| {
                        let mut changed = bytes.clone();
                        changed[at] = byte;
                        changed
                    })
                    .collect();
                all.extend((0..bytes.len().min(40)).map(|end| bytes[..end].to_vec()));
                all.extend([[&bytes[..], &bytes].concat(), bytes]);
                for bytes in all {
                    if let Some(attr) = Attr::read_usual(&bytes) {
                        usual += 1;
                        assert_eq!(Attr::read_any(&bytes), Ok(attr), "{bytes:?}");
                    }
                }
            }
        }
        assert!(usual > 100, "{usual}");
    }
}
