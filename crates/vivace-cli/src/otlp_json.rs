//! OTLP in the JSON form of its specification: ids in hexadecimal and enumerations as numbers, where the general mapping of
//! protobuf has base64 and names; and doubles that JSON has no numbers for as texts.

use serde_json::{Value, json};
use vivace_proto::otlp::any_value::Value as AnyKind;
use vivace_proto::otlp::{AnyValue, KeyValue, ResourceSpans, Span, TracesData};

/// One `TracesData` on one line.
///
/// # Errors
/// None that is known of: the messages are trees of texts and numbers.
pub(crate) fn line(resource_spans: Vec<ResourceSpans>) -> serde_json::Result<String> {
    let message = TracesData { resource_spans };
    let mut json = serde_json::to_value(&message)?;
    for (i, resource_spans) in message.resource_spans.iter().enumerate() {
        let json = &mut json["resourceSpans"][i];
        if let Some(resource) = &resource_spans.resource {
            amend_attributes(&mut json["resource"], &resource.attributes);
        }
        for (j, scope_spans) in resource_spans.scope_spans.iter().enumerate() {
            let json = &mut json["scopeSpans"][j];
            if let Some(scope) = &scope_spans.scope {
                amend_attributes(&mut json["scope"], &scope.attributes);
            }
            for (k, span) in scope_spans.spans.iter().enumerate() {
                amend(&mut json["spans"][k], span);
            }
        }
    }
    serde_json::to_string(&json)
}

fn amend(json: &mut Value, span: &Span) {
    let set = |json: &mut Value, key: &str, value: Value| {
        if let Some(old) = json.get_mut(key) {
            *old = value;
        }
    };
    set(json, "traceId", hex(&span.trace_id));
    set(json, "spanId", hex(&span.span_id));
    set(json, "parentSpanId", hex(&span.parent_span_id));
    // The general mapping knows no numbers without a name.
    if span.kind != 0 {
        json["kind"] = json!(span.kind);
    }
    if let Some(status) = span.status.as_ref().filter(|status| status.code != 0) {
        json["status"]["code"] = json!(status.code);
    }
    amend_attributes(json, &span.attributes);
    for (i, event) in span.events.iter().enumerate() {
        amend_attributes(&mut json["events"][i], &event.attributes);
    }
    for (i, link) in span.links.iter().enumerate() {
        let json = &mut json["links"][i];
        set(json, "traceId", hex(&link.trace_id));
        set(json, "spanId", hex(&link.span_id));
        amend_attributes(json, &link.attributes);
    }
}

/// `json` is what has the attributes.
fn amend_attributes(json: &mut Value, attributes: &[KeyValue]) {
    for (i, attribute) in attributes.iter().enumerate() {
        if let Some(value) = &attribute.value {
            amend_value(&mut json["attributes"][i]["value"], value);
        }
    }
}

fn amend_value(json: &mut Value, value: &AnyValue) {
    match &value.value {
        Some(AnyKind::DoubleValue(number)) if !number.is_finite() => {
            json["doubleValue"] = match *number {
                f64::INFINITY => "Infinity".into(),
                f64::NEG_INFINITY => "-Infinity".into(),
                _ => "NaN".into(),
            };
        }
        Some(AnyKind::ArrayValue(array)) => {
            for (i, element) in array.values.iter().enumerate() {
                amend_value(&mut json["arrayValue"]["values"][i], element);
            }
        }
        Some(AnyKind::KvlistValue(list)) => {
            for (i, pair) in list.values.iter().enumerate() {
                if let Some(value) = &pair.value {
                    amend_value(&mut json["kvlistValue"]["values"][i]["value"], value);
                }
            }
        }
        _ => {}
    }
}

fn hex(bytes: &[u8]) -> Value {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>().into()
}

#[cfg(test)]
mod tests {
    use vivace_proto::otlp::span::{Event, Link};
    use vivace_proto::otlp::{ArrayValue, InstrumentationScope, KeyValueList, Resource, ScopeSpans, Status};

    use super::*;

    #[test]
    fn ids_are_hexadecimal_and_enumerations_numbers() {
        let link = Link { trace_id: vec![0xab; 16].into(), span_id: vec![1; 8].into(), ..Link::default() };
        let span = Span {
            trace_id: vec![0xff; 16].into(),
            span_id: vec![0xef; 8].into(),
            name: "pay".to_owned(),
            kind: 3,
            start_time_unix_nano: 1_700_000_000_000_000_001,
            status: Some(Status { code: 2, message: "declined".to_owned() }),
            links: vec![link],
            ..Span::default()
        };
        let scope_spans = vec![ScopeSpans { spans: vec![span], ..ScopeSpans::default() }];
        let line = line(vec![ResourceSpans { scope_spans, ..ResourceSpans::default() }]).expect("JSON");
        let json: Value = serde_json::from_str(&line).expect("JSON");
        let span = &json["resourceSpans"][0]["scopeSpans"][0]["spans"][0];
        assert_eq!(span["traceId"], "ff".repeat(16));
        assert_eq!((&span["spanId"], &span["kind"]), (&json!("ef".repeat(8)), &json!(3)));
        assert_eq!(span["startTimeUnixNano"], "1700000000000000001");
        assert_eq!(span["status"], json!({"message": "declined", "code": 2}));
        assert_eq!(span["links"][0]["traceId"], "ab".repeat(16));
        assert!(!line.contains('\n') && span.get("parentSpanId").is_none(), "{line}");
    }

    #[test]
    fn doubles_without_a_number_are_texts_everywhere() {
        let wrap = |kind| AnyValue { value: Some(kind) };
        let infinite = ArrayValue { values: vec![wrap(AnyKind::DoubleValue(f64::INFINITY)), wrap(AnyKind::DoubleValue(0.5))] };
        let pair = |key: &str, kind| KeyValue { key: key.to_owned(), value: Some(wrap(kind)) };
        let list = KeyValueList { values: vec![pair("a", AnyKind::DoubleValue(f64::NEG_INFINITY))] };
        let attributes = vec![
            pair("n", AnyKind::DoubleValue(f64::NAN)),
            pair("a", AnyKind::ArrayValue(infinite)),
            pair("l", AnyKind::KvlistValue(list)),
        ];
        let event = Event { attributes: attributes.clone(), ..Event::default() };
        let link = Link { attributes: attributes.clone(), ..Link::default() };
        let span = Span { attributes: attributes.clone(), events: vec![event], links: vec![link], ..Span::default() };
        let scope = Some(InstrumentationScope { attributes: attributes.clone(), ..InstrumentationScope::default() });
        let scope_spans = vec![ScopeSpans { scope, spans: vec![span], ..ScopeSpans::default() }];
        let resource = Some(Resource { attributes, ..Resource::default() });
        let line = line(vec![ResourceSpans { resource, scope_spans, ..ResourceSpans::default() }]).expect("JSON");
        for text in
            [r#"{"doubleValue":"NaN"}"#, r#"{"values":[{"doubleValue":"Infinity"},{"doubleValue":0.5}]}"#, r#"{"doubleValue":"-Infinity"}"#]
        {
            assert_eq!(line.matches(text).count(), 5, "{text} in {line}");
        }
        assert!(!line.contains("null"), "{line}");
    }
}
