//! Rows built here from a data set's requests equal the rows that the reference wrote for the same requests.

use std::io::Read;

use serde_json::{Value, json};

use super::*;
use crate::BlockMeta;
use crate::testdata::{EDGE_A, EQUAL_KEYS, TWO_PARTS, traces};

fn rows(gz: &[u8]) -> Vec<Value> {
    let mut text = String::new();
    flate2::read::GzDecoder::new(gz).read_to_string(&mut text).expect("gzip");
    text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

fn text(bytes: &[u8]) -> Value {
    json!(String::from_utf8_lossy(bytes))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

fn double(v: f64) -> Value {
    match v {
        _ if v.is_nan() => json!("NaN"),
        f64::INFINITY => json!("Infinity"),
        f64::NEG_INFINITY => json!("-Infinity"),
        _ => json!(v),
    }
}

fn attrs(attrs: &[Attr<'_>]) -> Value {
    let one = |attr: &Attr<'_>| {
        let (mut strings, mut ints, mut doubles, mut bools) = (vec![], vec![], vec![], vec![]);
        let mut push = |scalar| match scalar {
            Scalar::Str(v) => strings.push(text(v)),
            Scalar::Int(v) => ints.push(json!(v)),
            Scalar::Double(v) => doubles.push(double(v)),
            Scalar::Bool(v) => bools.push(json!(v)),
        };
        let mut unsupported = Value::Null;
        match attr.value {
            AttrValue::Scalar(scalar) => push(scalar),
            AttrValue::Array(array) => array.elements().for_each(push),
            AttrValue::Unsupported(message) => unsupported = json!(any_value_json(message)),
        }
        json!({
            "Key": text(attr.key), "IsArray": matches!(attr.value, AttrValue::Array(_)), "Value": strings, "ValueInt": ints,
            "ValueDouble": doubles, "ValueBool": bools, "ValueUnsupported": unsupported,
        })
    };
    attrs.iter().map(one).collect()
}

/// The optional columns from `first` on, under these names.
fn columns(into: &mut Value, columns: &[(Leaf, &[u8])], first: Leaf, names: &[String]) {
    for (i, name) in names.iter().enumerate() {
        let value = columns.iter().find(|(leaf, _)| leaf.index() == first.index() + i);
        into[name] = value.map_or(Value::Null, |(_, v)| text(v));
    }
}

fn to_json(row: &Row<'_>) -> Value {
    let slots: Vec<String> = (1..=10).map(|n| format!("String{n:02}")).collect();
    let named = |names: &[&str]| names.iter().map(|n| (*n).to_owned()).collect::<Vec<_>>();
    let event = |e: &Event<'_>| {
        json!({"TimeSinceStartNano": e.time_since_start, "Name": text(e.name), "Attrs": attrs(&row.event_attrs[e.attrs.clone()]),
               "DroppedAttributesCount": e.dropped_attrs})
    };
    let link = |l: &Link<'_>| {
        json!({"TraceID": hex(l.trace_id), "SpanID": hex(l.span_id), "TraceState": text(l.trace_state),
               "Attrs": attrs(&row.link_attrs[l.attrs.clone()]), "DroppedAttributesCount": l.dropped_attrs})
    };
    let span = |s: &Span<'_>| {
        let mut json = json!({
            "SpanID": hex(s.id), "ParentSpanID": hex(s.parent_id), "ParentID": s.position.parent, "NestedSetLeft": s.position.left,
            "NestedSetRight": s.position.right, "Name": text(s.name), "Kind": s.kind, "TraceState": text(s.trace_state),
            "StartTimeUnixNano": s.start, "DurationNano": s.duration, "StatusCode": s.status_code,
            "StatusMessage": text(s.status_message), "Attrs": attrs(&row.span_attrs[s.attrs.clone()]),
            "DroppedAttributesCount": s.dropped_attrs,
            "Events": row.events[s.events.clone()].iter().map(event).collect::<Vec<_>>(), "DroppedEventsCount": s.dropped_events,
            "Links": row.links[s.links.clone()].iter().map(link).collect::<Vec<_>>(), "DroppedLinksCount": s.dropped_links,
        });
        let values = &row.span_columns[s.columns.clone()];
        columns(&mut json, values, Leaf::HTTP_METHOD, &named(&["HttpMethod", "HttpUrl"]));
        json["HttpStatusCode"] = json!(s.http_status_code);
        json["DedicatedAttributes"] = json!({});
        columns(&mut json["DedicatedAttributes"], values, Leaf::span_dedicated(0), &slots);
        json
    };
    let scope = |s: &Scope<'_>| {
        json!({
            "Scope": {"Name": text(s.name), "Version": text(s.version), "Attrs": attrs(&row.scope_attrs[s.attrs.clone()]),
                      "DroppedAttributesCount": s.dropped_attrs},
            "Spans": row.spans[s.spans.clone()].iter().map(span).collect::<Vec<_>>(),
        })
    };
    let resource = |r: &Resource<'_>| {
        let mut json = json!({
            "Attrs": attrs(&row.resource_attrs[r.attrs.clone()]), "DroppedAttributesCount": r.dropped_attrs,
            "ServiceName": text(r.service_name), "DedicatedAttributes": {},
        });
        let values = &row.resource_columns[r.columns.clone()];
        let well_known =
            ["Cluster", "Namespace", "Pod", "Container", "K8sClusterName", "K8sNamespaceName", "K8sPodName", "K8sContainerName"];
        columns(&mut json, values, Leaf::resource_column(0), &named(&well_known));
        columns(&mut json["DedicatedAttributes"], values, Leaf::resource_dedicated(0), &slots);
        json!({"Resource": json, "ss": row.scopes[r.scopes.clone()].iter().map(scope).collect::<Vec<_>>()})
    };
    let stat = |s: &ServiceCount<'_>| json!([text(s.service), {"SpanCount": s.spans, "ErrorCount": s.errors}]);
    json!({
        "TraceID": row.trace_id.to_string(), "TraceIDText": row.trace_id.trimmed_hex(), "StartTimeUnixNano": row.start,
        "EndTimeUnixNano": row.end, "DurationNano": row.end.wrapping_sub(row.start), "RootServiceName": text(row.root_service),
        "RootSpanName": text(row.root_name), "ServiceStats": row.stats.iter().map(stat).collect::<Vec<_>>(),
        "rs": row.resources.iter().map(resource).collect::<Vec<_>>(),
    })
}

/// Makes equal what may differ: JSON texts need only mean the same, and doubles that are whole numbers come without a fraction from some libraries.
fn normalize(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            if let Some(unsupported) = fields.get_mut("ValueUnsupported").filter(|v| v.is_string()) {
                *unsupported = serde_json::from_str(unsupported.as_str().expect("text")).expect("JSON text");
            }
            if let Some(Value::Array(doubles)) = fields.get_mut("ValueDouble") {
                doubles.iter_mut().filter(|v| v.is_number()).for_each(|v| *v = json!(v.as_f64().expect("a double")));
            }
            fields.values_mut().for_each(normalize);
            // Key order plays no part.
            fields.sort_keys();
        }
        Value::Array(values) => values.iter_mut().for_each(normalize),
        _ => {}
    }
}

/// In the order of the key the reference sorts by when it combines parts of a trace.
fn sort_spans(row: &mut Value) {
    let key = |span: &Value| (span["StartTimeUnixNano"].as_u64(), span["SpanID"].as_str().map(str::to_owned));
    for resource in row["rs"].as_array_mut().expect("resources") {
        for scope in resource["ss"].as_array_mut().expect("scopes") {
            scope["Spans"].as_array_mut().expect("spans").sort_by_key(key);
        }
        resource["ss"].as_array_mut().expect("scopes").sort_by_key(|scope| key(&scope["Spans"][0]));
    }
    row["rs"].as_array_mut().expect("resources").sort_by_key(|resource| key(&resource["ss"][0]["Spans"][0]));
}

#[track_caller]
fn equals_the_reference(meta: &[u8], rows_gz: &[u8]) {
    let meta = BlockMeta::from_json(meta, "meta.json").expect("a meta");
    let layout = Layout::vparquet4(&meta.dedicated_columns);
    let traces = traces(EDGE_A);
    let expected = rows(rows_gz);
    let mut cache = ResourceCache::default();
    assert_eq!(traces.len(), expected.len());
    for ((id, spans), mut expected) in traces.iter().zip(expected) {
        let row = Row::build(&layout, &mut cache, *id, spans);
        assert!(row.invalid.is_empty());
        let mut row = to_json(&row);
        // The reference sorts spans when it combines parts.
        if id.to_string() == TWO_PARTS {
            sort_spans(&mut row);
            for row in [&mut row, &mut expected] {
                forget_positions(row);
            }
        }
        normalize(&mut row);
        normalize(&mut expected);
        if id.to_string() == EQUAL_KEYS {
            put_first_of_equal_keys(&mut expected);
        }
        assert_eq!(row, expected, "trace {id}");
    }
}

/// The reference keeps the last of equal keys that have a column. Here the first counts, and the others stay beside it.
fn put_first_of_equal_keys(row: &mut Value) {
    let attribute = |key: &str, text: &str| {
        json!({
            "IsArray": false, "Key": key, "Value": [text], "ValueBool": [], "ValueDouble": [], "ValueInt": [], "ValueUnsupported": null,
        })
    };
    for stat in row["ServiceStats"].as_array_mut().expect("stats").iter_mut().filter(|stat| stat[0] == "dup-two") {
        stat[0] = json!("dup-one");
    }
    for resource in row["rs"].as_array_mut().expect("resources").iter_mut().filter(|r| r["Resource"]["ServiceName"] == "dup-two") {
        resource["Resource"]["ServiceName"] = json!("dup-one");
        resource["Resource"]["Attrs"].as_array_mut().expect("attributes").insert(0, attribute("service.name", "dup-two"));
        let spans = resource["ss"].as_array_mut().expect("scopes").iter_mut().flat_map(|s| s["Spans"].as_array_mut().expect("spans"));
        for span in spans.filter(|span| span["HttpMethod"] == "PUT") {
            span["HttpMethod"] = json!("GET");
            span["Attrs"].as_array_mut().expect("attributes").push(attribute("http.method", "PUT"));
        }
    }
}

/// Numbers follow the order of spans, and the test above has just changed it.
fn forget_positions(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.retain(|key, _| !matches!(key.as_str(), "ParentID" | "NestedSetLeft" | "NestedSetRight"));
            fields.values_mut().for_each(forget_positions);
        }
        Value::Array(values) => values.iter_mut().for_each(forget_positions),
        _ => {}
    }
}

#[test]
fn rows_with_default_columns_are_the_references() {
    equals_the_reference(
        include_bytes!("../../testdata/v4-edge-default/meta.json"),
        include_bytes!("../../testdata/v4-edge-default/rows.jsonl.gz"),
    );
}

#[test]
fn rows_with_dedicated_columns_are_the_references() {
    equals_the_reference(
        include_bytes!("../../testdata/v4-edge-dedicated/meta.json"),
        include_bytes!("../../testdata/v4-edge-dedicated/rows.jsonl.gz"),
    );
}
