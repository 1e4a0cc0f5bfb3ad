//! OTLP in JSON, written as protobuf while it is read: nothing is built of it in between, so it takes no more memory than what it
//! becomes. Unknown fields are skipped, whatever is in them. Values that lie too deep are cut where they do, so that the stack is bounded
//! and whoever checks the request finds them.
//!
//! Source: OTLP specification, "JSON Protobuf Encoding": the proto3 mapping, but with ids in hex. Other than there, null in a list is an
//! empty message, as it is for the OpenTelemetry Collector.

use std::fmt;

use base64::Engine;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use vivace_server::RequestCharge;

use super::output::{FIXED32, FIXED64, Output};
use super::schema::{Field, Kind, Message, TRACES_DATA};
use crate::error::PushError;
use crate::message::VALUE_DEPTH_MAX;

const OF_BOTH_ALPHABETS: GeneralPurposeConfig =
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent).with_decode_allow_trailing_bits(true);
const STANDARD: GeneralPurpose = GeneralPurpose::new(&alphabet::STANDARD, OF_BOTH_ALPHABETS);
const URL_SAFE: GeneralPurpose = GeneralPurpose::new(&alphabet::URL_SAFE, OF_BOTH_ALPHABETS);

/// Turns a JSON request into protobuf, and charges for it as it grows.
///
/// # Errors
/// It is no JSON, an id is not hex, a field has the wrong type, or there is no memory for it.
pub(crate) fn to_protobuf(body: &[u8], charge: &mut RequestCharge) -> Result<Vec<u8>, PushError> {
    let mut out = Output::new(charge.another());
    let mut json = serde_json::Deserializer::from_slice(body);
    let read = Fields { message: &TRACES_DATA, depth: 0, out: &mut out }.deserialize(&mut json).and_then(|()| json.end());
    if let Err(error) = read {
        return Err(match out.refused() {
            Some(why) => why.into(),
            None => PushError::Malformed(format!("the request is no OTLP in JSON: {error}")),
        });
    }
    let (bytes, of_bytes) = out.finish();
    charge.absorb(of_bytes);
    Ok(bytes)
}

/// Reads a JSON object as the fields of a message.
struct Fields<'o> {
    message: &'static Message,
    /// Values that it lies in.
    depth: u32,
    out: &'o mut Output,
}

impl<'de> DeserializeSeed<'de> for Fields<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Fields<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "an object, {}", self.message.name)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let depth = self.depth + u32::from(self.message.is_value());
        if depth > VALUE_DEPTH_MAX {
            // An empty value there is enough to be found. Skipping takes no stack.
            while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
            return Ok(());
        }
        while let Some(field) = map.next_key_seed(Name(self.message))? {
            match field {
                Some(field) => map.next_value_seed(Value { field, depth, out: &mut *self.out, in_list: false })?,
                None => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        Ok(())
    }
}

/// Reads the name of a message's field. None: it has no such field.
struct Name(&'static Message);

impl<'de> DeserializeSeed<'de> for Name {
    type Value = Option<&'static Field>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for Name {
    type Value = Option<&'static Field>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a field of {}", self.0.name)
    }

    fn visit_str<E: Error>(self, name: &str) -> Result<Self::Value, E> {
        Ok(self.0.field(name))
    }
}

/// Reads a JSON value as a field. Null stands for a field that is not there, in a list for an empty message.
struct Value<'o> {
    field: &'static Field,
    /// Values that it lies in.
    depth: u32,
    out: &'o mut Output,
    /// Within the array of a repeated field.
    in_list: bool,
}

impl Value<'_> {
    fn wrong<E: Error>(&self, found: impl fmt::Display) -> E {
        E::custom(format!("{}: expected {}, found {found}", self.field.name, self.field.kind))
    }

    fn integer<E: Error>(self, value: i128) -> Result<(), E> {
        let number = self.field.number;
        let wrong = |this: Self| Err(this.wrong(value));
        match self.field.kind {
            Kind::Fixed64 => match u64::try_from(value) {
                Ok(value) => self.out.fixed(number, FIXED64, &value.to_le_bytes()).map_err(E::custom),
                Err(_) => wrong(self),
            },
            Kind::Fixed32 => match u32::try_from(value) {
                Ok(value) => self.out.fixed(number, FIXED32, &value.to_le_bytes()).map_err(E::custom),
                Err(_) => wrong(self),
            },
            Kind::Uint32 => match u32::try_from(value) {
                Ok(value) => self.out.number(number, value.into()).map_err(E::custom),
                Err(_) => wrong(self),
            },
            Kind::Int64 => match i64::try_from(value) {
                Ok(value) => self.out.number(number, value.cast_unsigned()).map_err(E::custom),
                Err(_) => wrong(self),
            },
            Kind::Enum(_) => match i32::try_from(value) {
                Ok(value) => self.out.number(number, i64::from(value).cast_unsigned()).map_err(E::custom),
                Err(_) => wrong(self),
            },
            Kind::Double => self.out.fixed(number, FIXED64, &(value as f64).to_le_bytes()).map_err(E::custom),
            Kind::Bool | Kind::String | Kind::Bytes | Kind::Id | Kind::Message(_) => wrong(self),
        }
    }

    fn text<E: Error>(self, text: &str) -> Result<(), E> {
        let number = self.field.number;
        match self.field.kind {
            Kind::String => self.out.text(number, text.as_bytes()).map_err(E::custom),
            Kind::Id => match hex::decode(text) {
                Ok(id) => self.out.text(number, &id).map_err(E::custom),
                Err(error) => Err(E::custom(format!("{} {:?}: {error}", self.field.name, start_of(text)))),
            },
            Kind::Bytes => match STANDARD.decode(text).or_else(|_| URL_SAFE.decode(text)) {
                Ok(bytes) => self.out.text(number, &bytes).map_err(E::custom),
                Err(error) => Err(E::custom(format!("{} is not in base64: {error}", self.field.name))),
            },
            Kind::Enum(names) => match names.iter().position(|name| *name == text) {
                Some(value) => self.out.number(number, value as u64).map_err(E::custom),
                None => match text.parse::<i32>() {
                    Ok(value) => self.integer(value.into()),
                    Err(_) => Err(self.wrong(format!("{:?}", start_of(text)))),
                },
            },
            Kind::Double => match text.parse::<f64>() {
                // Rust takes "inf" and "nan" too, as Infinity and NaN are written in some languages.
                Ok(value) => self.out.fixed(number, FIXED64, &value.to_le_bytes()).map_err(E::custom),
                Err(_) => Err(self.wrong(format!("{:?}", start_of(text)))),
            },
            Kind::Fixed64 | Kind::Fixed32 | Kind::Uint32 | Kind::Int64 => match text.parse::<i128>() {
                Ok(value) => self.integer(value),
                Err(_) => match text.parse::<f64>() {
                    Ok(value) => self.visit_f64(value),
                    Err(_) => Err(self.wrong(format!("{:?}", start_of(text)))),
                },
            },
            Kind::Bool | Kind::Message(_) => Err(self.wrong(format!("{:?}", start_of(text)))),
        }
    }
}

/// Half a pair of surrogates comes as three bytes, and so does the character that stands for what is no character.
fn without_surrogates(text: &[u8]) -> Vec<u8> {
    let mut text = text.to_vec();
    for at in 0..text.len().saturating_sub(2) {
        if let [0xed, 0xa0..=0xbf, 0x80..=0xbf] = text[at..at + 3] {
            text[at..at + 3].copy_from_slice("\u{fffd}".as_bytes());
        }
    }
    text
}

/// What an error shows of a client's text.
fn start_of(text: &str) -> &str {
    text.char_indices().nth(40).map_or(text, |(end, _)| &text[..end])
}

impl<'de> DeserializeSeed<'de> for Value<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        match self.field.kind {
            Kind::String => deserializer.deserialize_option(self),
            _ => deserializer.deserialize_any(self),
        }
    }
}

impl<'de> Visitor<'de> for Value<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} for {}", self.field.kind, self.field.name)
    }

    fn visit_unit<E: Error>(self) -> Result<(), E> {
        // All lists are of messages.
        if self.in_list { self.out.text(self.field.number, &[]).map_err(E::custom) } else { Ok(()) }
    }

    fn visit_none<E: Error>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        // Texts as bytes, which half a pair of surrogates does not spoil: some clients cut texts within a character.
        deserializer.deserialize_bytes(self)
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<(), E> {
        match self.field.kind {
            Kind::Bool => self.out.number(self.field.number, value.into()).map_err(E::custom),
            _ => Err(self.wrong(value)),
        }
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<(), E> {
        self.integer(value.into())
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<(), E> {
        self.integer(value.into())
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<(), E> {
        match self.field.kind {
            Kind::Double => self.out.fixed(self.field.number, FIXED64, &value.to_le_bytes()).map_err(E::custom),
            _ if value.fract() == 0.0 => self.integer(value as i128),
            _ => Err(self.wrong(value)),
        }
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<(), E> {
        self.text(text)
    }

    fn visit_bytes<E: Error>(self, text: &[u8]) -> Result<(), E> {
        match std::str::from_utf8(text) {
            Ok(text) => self.text(text),
            Err(_) => self.text(&String::from_utf8_lossy(&without_surrogates(text))),
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<(), A::Error> {
        let Kind::Message(message) = self.field.kind else { return Err(self.wrong("an object")) };
        if self.field.is_repeated && !self.in_list {
            return Err(self.wrong("an object that is not in an array"));
        }
        let start = self.out.begin(self.field.number).map_err(A::Error::custom)?;
        Fields { message: message(), depth: self.depth, out: &mut *self.out }.visit_map(map)?;
        self.out.end(start).map_err(A::Error::custom)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        if !self.field.is_repeated || self.in_list {
            return Err(self.wrong("an array"));
        }
        while list.next_element_seed(Value { field: self.field, depth: self.depth, out: &mut *self.out, in_list: true })?.is_some() {}
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use prost::Message as _;
    use vivace_core::budget::Budget;
    use vivace_proto::otlp::{TracesData, any_value};
    use vivace_server::RequestBudget;

    use crate::message::check;

    fn read(body: &str) -> Result<TracesData, PushError> {
        let bytes = to_protobuf(body.as_bytes(), &mut RequestBudget::whole(&Budget::unlimited()).open())?;
        Ok(TracesData::decode(bytes.as_slice()).expect("what is written is protobuf"))
    }

    #[test]
    fn ids_are_hex_and_numbers_and_enums_come_in_both_forms() {
        let body = r#"{"resourceSpans":[{"resource":{"attributes":[{"key":"service.name","value":{"stringValue":"shop"}}]},
            "somethingNew":{"a":[1]},
            "scopeSpans":[{"spans":[
              {"traceId":"5B8EFFF798038103D269B633813FC60C","spanId":"EEE19B7EC3C1B174","parentSpanId":"","name":"a","kind":2,
               "startTimeUnixNano":"1544712660000000000","endTimeUnixNano":1544712661000000000,
               "attributes":[{"key":"n","value":{"intValue":"7"}},{"key":"m","value":{"intValue":8}}],"status":{"code":2}},
              {"traceId":"5b8efff798038103d269b633813fc60c","spanId":"eee19b7ec3c1b175","parentSpanId":null,"kind":"SPAN_KIND_SERVER",
               "status":{"code":"STATUS_CODE_ERROR"}}]}]}]}"#;
        let traces = read(body).expect("valid");
        let spans = &traces.resource_spans[0].scope_spans[0].spans;
        assert_eq!(hex::encode(&spans[0].trace_id), "5b8efff798038103d269b633813fc60c");
        assert_eq!((spans[0].span_id[0], spans[0].parent_span_id.len()), (0xee, 0));
        assert_eq!(spans[0].end_time_unix_nano - spans[0].start_time_unix_nano, 1_000_000_000);
        assert_eq!(spans[0].attributes.len(), 2);
        assert_eq!((spans[0].kind, spans[1].kind), (2, 2));
        assert_eq!(spans[0].status, spans[1].status);
    }

    #[test]
    fn every_field_is_written_in_its_place() {
        let body = r#"{"resource_spans":[{"schemaUrl":"r","resource":{"droppedAttributesCount":1},
            "scopeSpans":[{"schemaUrl":"s","scope":{"name":"n","version":"v","attributes":[],"droppedAttributesCount":2},"spans":[
              {"traceState":"t","flags":257,"droppedAttributesCount":3,"droppedEventsCount":4,"droppedLinksCount":5,
               "events":[{"timeUnixNano":"6","name":"e","droppedAttributesCount":7,"attributes":[{"key":"a","value":{"boolValue":true}}]}],
               "links":[{"traceId":"0102","spanId":"03","traceState":"l","flags":8,"droppedAttributesCount":9,"attributes":[{"key":"b"}]}],
               "status":{"message":"m","code":1},
               "attributes":[
                 {"key":"double","value":{"doubleValue":"NaN"}},{"key":"bytes","value":{"bytesValue":"_-8"}},
                 {"key":"list","value":{"arrayValue":{"values":[{"intValue":"-1"},{"stringValue":""}]}}},
                 {"key":"map","value":{"kvlistValue":{"values":[{"key":"k","value":{"doubleValue":1}}]}}}]}]}]}]}"#;
        let traces = read(body).expect("valid");
        let resource = &traces.resource_spans[0];
        let scope = &resource.scope_spans[0];
        let span = &scope.spans[0];
        assert_eq!((resource.schema_url.as_str(), scope.schema_url.as_str()), ("r", "s"));
        assert_eq!(resource.resource.as_ref().expect("there").dropped_attributes_count, 1);
        let named = scope.scope.as_ref().expect("there");
        assert_eq!((named.name.as_str(), named.version.as_str(), named.dropped_attributes_count), ("n", "v", 2));
        assert_eq!((span.trace_state.as_str(), span.flags), ("t", 257));
        assert_eq!((span.dropped_attributes_count, span.dropped_events_count, span.dropped_links_count), (3, 4, 5));
        let (event, link, status) = (&span.events[0], &span.links[0], span.status.as_ref().expect("there"));
        assert_eq!((event.time_unix_nano, event.name.as_str(), event.dropped_attributes_count), (6, "e", 7));
        assert_eq!((link.trace_id.as_ref(), link.span_id.as_ref(), link.trace_state.as_str()), (&[1, 2][..], &[3][..], "l"));
        assert_eq!((link.flags, link.dropped_attributes_count, link.attributes[0].key.as_str()), (8, 9, "b"));
        assert_eq!((status.message.as_str(), status.code), ("m", 1));
        let values: Vec<_> = span.attributes.iter().map(|a| a.value.clone().expect("there").value.expect("there")).collect();
        assert!(matches!(values[0], any_value::Value::DoubleValue(value) if value.is_nan()));
        assert_eq!(values[1], any_value::Value::BytesValue(vec![0xff, 0xef].into()));
        let any_value::Value::ArrayValue(list) = &values[2] else { panic!("{:?}", values[2]) };
        assert_eq!(list.values[0].value, Some(any_value::Value::IntValue(-1)));
        assert_eq!(list.values[1].value, Some(any_value::Value::StringValue(String::new())));
        let any_value::Value::KvlistValue(map) = &values[3] else { panic!("{:?}", values[3]) };
        assert_eq!(map.values[0].value.as_ref().expect("there").value, Some(any_value::Value::DoubleValue(1.0)));
    }

    #[test]
    fn what_is_no_otlp_is_refused_by_name() {
        let error = |body: &str| read(body).expect_err(body).to_string();
        let span = |fields: &str| format!(r#"{{"resourceSpans":[{{"scopeSpans":[{{"spans":[{{{fields}}}]}}]}}]}}"#);
        assert!(error(&span(r#""traceId":"xyz""#)).contains("traceId"));
        assert!(error("[]").contains("expected an object"));
        assert!(error("{").contains("no OTLP in JSON"));
        assert!(error("{} x").contains("trailing"));
        let text = error(&span(r#""startTimeUnixNano":{"a":1}"#));
        assert!(text.contains("startTimeUnixNano: expected a number") && text.contains("line 1 column"), "{text}");
        assert!(error(&span(r#""startTimeUnixNano":"-1""#)).contains("startTimeUnixNano"));
        assert!(error(&span(r#""kind":"SPAN_KIND_OTHER""#)).contains("SPAN_KIND_OTHER"));
        assert!(error(r#"{"resourceSpans":{}}"#).contains("resourceSpans"));
        assert!(error(r#"{"resourceSpans":[[]]}"#).contains("resourceSpans"));
    }

    #[test]
    fn what_lies_too_deep_is_cut_and_the_stack_is_bounded() {
        let list = (r#"{"arrayValue":{"values":["#, "]}}");
        let map = (r#"{"kvlistValue":{"values":[{"key":"k","value":"#, "}]}}");
        for (start, end) in [list, map] {
            for depth in [0, 1, 23, 24, 25, 100_000] {
                let value = format!(r#"{}{{"intValue":"1"}}{}"#, start.repeat(depth), end.repeat(depth));
                let deep = format!(r#"{{"attributes":[{{"key":"a","value":{value}}}]}}"#);
                let events = format!(r#"{{"resourceSpans":[{{"scopeSpans":[{{"spans":[{{"events":[{deep}],"new":{value}}}]}}]}}]}}"#);
                for body in [format!(r#"{{"resourceSpans":[{{"resource":{deep}}}]}}"#), events] {
                    let mut charge = RequestBudget::whole(&Budget::unlimited()).open();
                    let bytes = to_protobuf(body.as_bytes(), &mut charge).expect("valid");
                    let found = check(crate::message::Message::TracesData, &bytes).expect("what is written is protobuf");
                    assert_eq!(found.too_deep, depth >= 24, "{depth}");
                }
            }
        }
        let unknown = format!(r#"{{"new":{}{}}}"#, "[".repeat(100_000), "]".repeat(100_000));
        assert_eq!(read(&unknown).expect("whatever is in it"), TracesData::default());
    }

    #[test]
    fn null_in_a_list_is_an_empty_message() {
        let lists = read(
            r#"{"resourceSpans":[null,{"scopeSpans":[null,{"spans":[null,{"attributes":[null,{"key":"a","value":{"arrayValue":{"values":[null]}}}],
                "events":[null],"links":[null]}]}]}]}"#,
        );
        let lists = lists.expect("valid").resource_spans;
        assert_eq!((lists.len(), lists[1].scope_spans.len(), lists[1].scope_spans[1].spans.len()), (2, 2, 2));
        let span = &lists[1].scope_spans[1].spans[1];
        assert_eq!((span.attributes.len(), span.events.len(), span.links.len()), (2, 1, 1));
        let Some(any_value::Value::ArrayValue(list)) = &span.attributes[1].value.as_ref().expect("there").value else { panic!("{span:?}") };
        assert_eq!(list.values.len(), 1);
    }

    #[test]
    fn instrumentation_libraries_are_scopes() {
        let library = r#"{"instrumentationLibrary":{"name":"n","version":"v"},"spans":[{"name":"a"}],"schemaUrl":"u"}"#;
        let body = format!(r#"{{"resourceSpans":[{{"instrumentationLibrarySpans":[{library}]}}]}}"#);
        let bytes = to_protobuf(body.as_bytes(), &mut RequestBudget::whole(&Budget::unlimited()).open()).expect("valid");
        let mut names = Vec::new();
        vivace_core::otlp::walk_spans(&bytes, |at, span| names.push((at.scope.to_vec(), span.bytes.to_vec()))).expect("valid");
        assert_eq!(names, [(b"\x0a\x01n\x12\x01v".to_vec(), b"\x2a\x01a".to_vec())]);
    }

    #[test]
    fn what_a_client_makes_up_does_not_spoil_the_rest() {
        let span = |fields: &str| {
            let traces = read(&format!(r#"{{"resourceSpans":[{{"scopeSpans":[{{"spans":[{{{fields}}}]}}]}}]}}"#)).expect(fields);
            traces.resource_spans[0].scope_spans[0].spans[0].clone()
        };
        assert_eq!(span(r#""extra":{"traceId":"none"},"name":"a""#).name, "a", "an unknown field with an id that is none");
        assert_eq!(span(r#""name":"cut \ud83d""#).name, "cut \u{fffd}", "half a pair of surrogates");
        assert_eq!(span(r#""kind":9"#).kind, 9, "an enum is open");
        assert_eq!(span(r#""startTimeUnixNano":1.5e18"#).start_time_unix_nano, 1_500_000_000_000_000_000);
        assert_eq!(span(r#""attributes":[{"key":"a","value":null}]"#).attributes.len(), 1);
    }

    #[test]
    fn empty_objects_take_no_more_than_they_are() {
        let objects = 200_000;
        for (start, end) in [("{\"resourceSpans\":[", "]}"), ("{\"unknown\":[", "]}")] {
            let body = format!("{start}{}{{}}{end}", "{},".repeat(objects));
            let budget = Budget::new(8 << 20); // a quarter is for requests
            let mut charge = RequestBudget::whole(&budget).open();
            to_protobuf(body.as_bytes(), &mut charge).expect("fits");
            assert!(budget.used() <= 2 * body.len() as u64, "{} of {}", budget.used(), body.len());
        }
        let body = format!("{{\"resourceSpans\":[{}{{}}]}}", "{},".repeat(objects));
        let mut charge = RequestBudget::whole(&Budget::new(1 << 20)).open();
        assert!(matches!(to_protobuf(body.as_bytes(), &mut charge), Err(PushError::Overloaded(_))));
    }
}
