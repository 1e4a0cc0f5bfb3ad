//! OTLP in the JSON form of its specification: ids in hexadecimal and enumerations as numbers, where the general mapping of
//! protobuf has base64 and names.

use serde_json::{Value, json};
use vivace_proto::otlp::{ResourceSpans, Span, TracesData};

/// One `TracesData` on one line.
///
/// # Errors
/// None that is known of: the messages are trees of texts and numbers.
pub(crate) fn line(resource_spans: Vec<ResourceSpans>) -> serde_json::Result<String> {
    let message = TracesData { resource_spans };
    let mut json = serde_json::to_value(&message)?;
    for (i, resource) in message.resource_spans.iter().enumerate() {
        for (j, scope) in resource.scope_spans.iter().enumerate() {
            for (k, span) in scope.spans.iter().enumerate() {
                amend(&mut json["resourceSpans"][i]["scopeSpans"][j]["spans"][k], span);
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
    for (i, link) in span.links.iter().enumerate() {
        set(&mut json["links"][i], "traceId", hex(&link.trace_id));
        set(&mut json["links"][i], "spanId", hex(&link.span_id));
    }
}

fn hex(bytes: &[u8]) -> Value {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>().into()
}

#[cfg(test)]
mod tests {
    use vivace_proto::otlp::{ScopeSpans, Status, span::Link};

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
}
