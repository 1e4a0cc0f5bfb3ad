//! OTLP in JSON: the proto3 mapping, but with ids in hex. Source: OTLP specification, "JSON Protobuf Encoding".

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use prost::Message;
use serde_json::Value;
use vivace_proto::otlp::TracesData;

use crate::error::PushError;

/// Turns a JSON request into protobuf.
///
/// # Errors
/// It is no JSON, an id is not hex, or a field has the wrong type. Unknown fields are ignored.
pub(crate) fn to_protobuf(body: &[u8]) -> Result<Bytes, PushError> {
    let malformed = |error: &dyn std::fmt::Display| PushError::Malformed(format!("the request is no OTLP in JSON: {error}"));
    let mut value: Value = serde_json::from_slice(body).map_err(|error| malformed(&error))?;
    if !value.is_object() {
        return Err(malformed(&"expected an object"));
    }
    normalise(&mut value, true).map_err(|error| malformed(&error))?;
    let traces: TracesData = serde_json::from_value(value).map_err(|error| malformed(&error))?;
    Ok(traces.encode_to_vec().into())
}

/// Makes ids base64, as the proto3 mapping has bytes, and drops nulls, which stand for absent fields.
///
/// `ids` is off within attribute values, where everything is the client's own.
fn normalise(value: &mut Value, ids: bool) -> Result<(), String> {
    match value {
        Value::Object(fields) => {
            fields.retain(|_, value| !value.is_null());
            for (key, value) in fields {
                let is_id = matches!(key.as_str(), "traceId" | "trace_id" | "spanId" | "span_id" | "parentSpanId" | "parent_span_id");
                match value {
                    Value::String(text) if ids && is_id => {
                        let bytes = hex::decode(&*text).map_err(|error| format!("{key} {text:?}: {error}"))?;
                        *text = BASE64_STANDARD.encode(bytes);
                    }
                    other => normalise(other, ids && key != "attributes")?,
                }
            }
            Ok(())
        }
        Value::Array(values) => values.iter_mut().try_for_each(|value| normalise(value, ids)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_hex_and_numbers_and_enums_come_in_both_forms() {
        let body = br#"{"resourceSpans":[{"resource":{"attributes":[{"key":"service.name","value":{"stringValue":"shop"}}]},
            "somethingNew":{"a":[1]},
            "scopeSpans":[{"spans":[
              {"traceId":"5B8EFFF798038103D269B633813FC60C","spanId":"EEE19B7EC3C1B174","parentSpanId":"","name":"a","kind":2,
               "startTimeUnixNano":"1544712660000000000","endTimeUnixNano":1544712661000000000,
               "attributes":[{"key":"n","value":{"intValue":"7"}},{"key":"m","value":{"intValue":8}}],"status":{"code":2}},
              {"traceId":"5b8efff798038103d269b633813fc60c","spanId":"eee19b7ec3c1b175","parentSpanId":null,"kind":"SPAN_KIND_SERVER",
               "status":{"code":"STATUS_CODE_ERROR"}}]}]}]}"#;
        let bytes = to_protobuf(body).expect("valid");
        let traces = TracesData::decode(bytes).expect("decodes");
        let spans = &traces.resource_spans[0].scope_spans[0].spans;
        assert_eq!(hex::encode(&spans[0].trace_id), "5b8efff798038103d269b633813fc60c");
        assert_eq!((spans[0].span_id[0], spans[0].parent_span_id.len()), (0xee, 0));
        assert_eq!(spans[0].end_time_unix_nano - spans[0].start_time_unix_nano, 1_000_000_000);
        assert_eq!(spans[0].attributes.len(), 2);
        assert_eq!((spans[0].kind, spans[1].kind), (2, 2));
        assert_eq!(spans[0].status, spans[1].status);
    }

    #[test]
    fn what_is_no_otlp_is_refused_by_name() {
        let error = |body: &str| to_protobuf(body.as_bytes()).expect_err(body).to_string();
        assert!(error(r#"{"resourceSpans":[{"scopeSpans":[{"spans":[{"traceId":"xyz"}]}]}]}"#).contains("traceId"));
        assert!(error("[]").contains("expected an object"));
        assert!(error("{").contains("no OTLP in JSON"));
    }
}
