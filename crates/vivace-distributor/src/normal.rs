//! A request as all who read it later understand it alike. Protobuf lets a message that stands once come in pieces, which are to be
//! joined, and a value be sent several times, of which the last counts; readers that look for what they need would each make something
//! else of it. Hardly a client sends such: it is found by [`crate::message`], and written anew here.

use vivace_core::otlp::{INSTRUMENTATION_LIBRARY_SPANS, SCOPE_SPANS};
use vivace_core::wire::{Reader, Value, WireError};
use vivace_server::RequestCharge;

use crate::error::PushError;
use crate::message::{Field, Message, VALUE_DEPTH_MAX};
use crate::receiver::output::{NoRoom, Output};

/// Bytes of the smallest piece of a message that is joined of several: a key, a length and a field.
const PIECE_BYTES_MIN: u64 = 4;

/// The request, an `ExportTraceServiceRequest` that has passed the checks, in its usual form:
/// - resources, scopes, values and status come in one piece,
/// - values have the field that counts and no other,
/// - instrumentation library spans are scope spans,
/// - there are no groups.
///
/// It is no longer than before. What lies too deep stays as it is.
///
/// # Errors
/// It is no such request, or there is no memory for it; `charge` then holds what it did.
pub(crate) fn normal(request: &[u8], charge: &mut RequestCharge) -> Result<Vec<u8>, PushError> {
    // All the lists of pieces that there can be at once.
    let _lists = {
        let mut lists = charge.another();
        lists.grow(request.len() as u64 / PIECE_BYTES_MIN * size_of::<&[u8]>() as u64)?;
        lists
    };
    let mut out = Output::new(charge.another());
    match rewrite(Message::TracesData, &[request], 0, &mut out) {
        Ok(()) => {}
        Err(Failure::Malformed(error)) => {
            return Err(PushError::Malformed(format!("the request is no ExportTraceServiceRequest: {error}")));
        }
        Err(Failure::NoRoom(why)) => return Err(why.into()),
    }
    let (bytes, of_bytes) = out.finish();
    charge.absorb(of_bytes);
    Ok(bytes)
}

enum Failure {
    Malformed(WireError),
    NoRoom(NoRoom),
}

impl From<WireError> for Failure {
    fn from(error: WireError) -> Self {
        Self::Malformed(error)
    }
}

impl From<NoRoom> for Failure {
    fn from(why: NoRoom) -> Self {
        Self::NoRoom(why)
    }
}

/// Writes the content of a message that comes in these pieces.
fn rewrite(message: Message, pieces: &[&[u8]], depth: u32, out: &mut Output) -> Result<(), Failure> {
    let depth = depth + u32::from(message == Message::AnyValue);
    if depth > VALUE_DEPTH_MAX {
        return Ok(pieces.iter().try_for_each(|piece| out.raw(piece))?);
    }
    let counts = if message == Message::AnyValue { last_known(message, pieces)? } else { None };
    let (mut at, mut has_one) = (0usize, false);
    for piece in pieces {
        let mut reader = Reader::new(piece);
        while let Some((number, value)) = reader.next_field()? {
            at += 1;
            if message == Message::AnyValue && counts != Some(at) {
                continue;
            }
            match (message.field(number), value) {
                (Field::Message(inner), Value::Bytes(content)) if message == Message::AnyValue || !message.has_one(number) => {
                    let number = if number == INSTRUMENTATION_LIBRARY_SPANS { SCOPE_SPANS } else { number };
                    write(number, inner, &[content], depth, out)?;
                }
                // It stands where its first piece does. No message has two kinds of them.
                (Field::Message(_), Value::Bytes(_)) if std::mem::replace(&mut has_one, true) => {}
                (Field::Message(inner), Value::Bytes(_)) => write(number, inner, &pieces_of(number, pieces)?, depth, out)?,
                (_, Value::Group) => {}
                _ => out.raw(reader.field_bytes())?,
            }
        }
    }
    Ok(())
}

fn write(number: u32, message: Message, pieces: &[&[u8]], depth: u32, out: &mut Output) -> Result<(), Failure> {
    let start = out.begin(number)?;
    rewrite(message, pieces, depth, out)?;
    Ok(out.end(start)?)
}

/// Which field of a message, counted from 1, is the last that is known.
fn last_known(message: Message, pieces: &[&[u8]]) -> Result<Option<usize>, WireError> {
    let (mut at, mut last) = (0, None);
    for piece in pieces {
        let mut reader = Reader::new(piece);
        while let Some((number, _)) = reader.next_field()? {
            at += 1;
            if message.field(number) != Field::Unknown {
                last = Some(at);
            }
        }
    }
    Ok(last)
}

/// The pieces of a message in a field, without empty ones, which add nothing.
fn pieces_of<'a>(field: u32, pieces: &[&'a [u8]]) -> Result<Vec<&'a [u8]>, WireError> {
    let mut found = Vec::new();
    for piece in pieces {
        let mut reader = Reader::new(piece);
        while let Some((number, value)) = reader.next_field()? {
            if let Value::Bytes(content) = value
                && number == field
                && !content.is_empty()
            {
                found.push(content);
            }
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use prost::Message as _;
    use vivace_core::budget::Budget;
    use vivace_core::wire::put_bytes;
    use vivace_proto::otlp::any_value::Value as Any;
    use vivace_proto::otlp::{AnyValue, ArrayValue, InstrumentationScope, KeyValue, Resource, ScopeSpans, Span, Status, TracesData};
    use vivace_server::RequestBudget;

    use super::*;
    use crate::message::check;

    fn field(number: u32, content: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        put_bytes(&mut out, number, content);
        out
    }

    fn value(value: Any) -> Vec<u8> {
        AnyValue { value: Some(value) }.encode_to_vec()
    }

    fn attribute(key: &str, any: Any) -> KeyValue {
        KeyValue { key: key.to_owned(), value: Some(AnyValue { value: Some(any) }) }
    }

    fn list(numbers: &[i64]) -> Any {
        Any::ArrayValue(ArrayValue { values: numbers.iter().map(|n| AnyValue { value: Some(Any::IntValue(*n)) }).collect() })
    }

    /// The request of these `ResourceSpans`, written anew, and all that it holds in memory.
    fn rewritten(resource_spans: &[u8]) -> TracesData {
        let request = field(1, resource_spans);
        let budget = Budget::new(1 << 30);
        let mut charge = RequestBudget::whole(&budget).open();
        let bytes = normal(&request, &mut charge).expect("is read");
        assert!(bytes.len() <= request.len(), "{} of {}", bytes.len(), request.len());
        assert!(charge.bytes() >= bytes.len() as u64);
        assert!(!check(Message::TracesData, &bytes).expect("is read").unusual);
        drop(charge);
        assert_eq!(budget.used(), 0);
        TracesData::decode(bytes.as_slice()).expect("is read")
    }

    #[test]
    fn resources_scopes_and_status_in_pieces_are_joined() {
        let resource = |key: &str| Resource { attributes: vec![attribute(key, Any::BoolValue(true))], ..Resource::default() };
        let scope = |name: &str, version: &str| InstrumentationScope { name: name.into(), version: version.into(), ..Default::default() };
        let status = |code, message: &str| Status { code, message: message.into() }.encode_to_vec();
        let span = [field(15, &status(0, "why")), field(5, b"name"), field(15, &status(2, ""))].concat();
        let scopes = [field(1, &scope("n", "").encode_to_vec()), field(2, &span), field(1, &scope("", "v").encode_to_vec())].concat();
        let resources = [field(1, &resource("a").encode_to_vec()), field(2, &scopes), field(1, &resource("b").encode_to_vec())].concat();
        let read = rewritten(&resources).resource_spans.remove(0);
        let keys: Vec<_> = read.resource.expect("there").attributes.into_iter().map(|attribute| attribute.key).collect();
        assert_eq!(keys, ["a", "b"]);
        assert_eq!(read.scope_spans[0].scope, Some(scope("n", "v")));
        let span = &read.scope_spans[0].spans[0];
        assert_eq!((span.name.as_str(), span.status.clone()), ("name", Some(Status { code: 2, message: "why".into() })));
    }

    #[test]
    fn of_a_value_the_last_field_counts_wherever_it_is() {
        let values = [
            (vec![value(Any::StringValue("a".into())), value(Any::IntValue(1))], Some(Any::IntValue(1))),
            (vec![value(list(&[1])), value(list(&[2]))], Some(list(&[2]))),
            (vec![[value(list(&[1])), value(Any::IntValue(7))].concat()], Some(Any::IntValue(7))),
            (vec![value(Any::StringValue("a".into())), Vec::new()], Some(Any::StringValue("a".into()))),
            (vec![[value(Any::IntValue(3)), field(99, b"later")].concat()], Some(Any::IntValue(3))),
            (vec![field(99, b"later"), Vec::new()], None),
        ];
        for (pieces, want) in values {
            let in_pieces = [field(1, b"k"), pieces.iter().flat_map(|piece| field(2, piece)).collect()].concat();
            let nested = field(5, &field(1, &field(6, &field(1, &in_pieces))));
            let span = [field(9, &in_pieces), field(9, &field(2, &nested))].concat();
            let read = rewritten(&field(2, &field(2, &span))).resource_spans.remove(0).scope_spans.remove(0).spans.remove(0);
            let shallow = read.attributes[0].value.clone().expect("there").value;
            assert_eq!(shallow, want);
            let Some(Any::ArrayValue(mut values)) = read.attributes[1].value.clone().expect("there").value else { panic!("{read:?}") };
            let Some(Any::KvlistValue(map)) = values.values.remove(0).value else { panic!("{read:?}") };
            assert_eq!(map.values[0].value.clone().expect("there").value, want);
        }
    }

    #[test]
    fn spans_of_the_old_field_become_scope_spans_and_groups_go() {
        let of = |name: &str| {
            let scope = Some(InstrumentationScope { name: name.into(), ..Default::default() });
            ScopeSpans { scope, spans: vec![Span { name: name.into(), ..Default::default() }], schema_url: name.into() }
        };
        let group = [9 << 3 | 3, 0x08, 1, 9 << 3 | 4];
        let bytes = [field(1000, &of("old").encode_to_vec()), group.to_vec(), field(2, &of("new").encode_to_vec())].concat();
        assert_eq!(rewritten(&bytes).resource_spans[0].scope_spans, [of("old"), of("new")]);
    }

    #[test]
    fn what_is_usual_and_what_is_not_known_stay_as_they_are() {
        let span = [Span { name: "a".into(), kind: 3, ..Default::default() }.encode_to_vec(), field(99, b"later"), vec![0x25, 1, 0, 0, 0]];
        let request = field(1, &[field(2, &[field(2, &span.concat()), field(3, b"url")].concat()), field(1, b"")].concat());
        let mut charge = RequestBudget::whole(&Budget::unlimited()).open();
        assert_eq!(normal(&request, &mut charge).expect("is read"), request);
    }

    #[test]
    fn a_value_that_lies_too_deep_goes_if_another_takes_its_place() {
        let deep = (0..100).fold(value(Any::IntValue(1)), |inner, _| field(5, &field(1, &inner)));
        let span = |any: &[u8]| field(2, &field(2, &field(9, &[field(1, b"k"), field(2, any)].concat())));
        let read = rewritten(&span(&[deep.clone(), value(Any::IntValue(2))].concat()));
        let attribute = &read.resource_spans[0].scope_spans[0].spans[0].attributes[0];
        assert_eq!(attribute.value.clone().expect("there").value, Some(Any::IntValue(2)));
        let request = field(1, &span(&[value(Any::IntValue(2)), deep].concat()));
        let mut charge = RequestBudget::whole(&Budget::unlimited()).open();
        let bytes = normal(&request, &mut charge).expect("is read");
        assert!(check(Message::TracesData, &bytes).expect("is read").too_deep, "the deep one counts");
    }

    #[test]
    fn there_must_be_memory_for_it() {
        let request = field(1, &field(1, &[]).repeat(1 << 20));
        let mut charge = RequestBudget::whole(&Budget::new(1 << 20)).open();
        assert!(matches!(normal(&request, &mut charge), Err(PushError::Overloaded(_))));
        assert_eq!(charge.bytes(), 0);
    }
}
