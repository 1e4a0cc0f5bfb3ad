//! Answers as JSON or protobuf, compressed where the client takes that. Source: HTTP API facts, 2.4 to 2.6.

use std::io::Write as _;

use axum::body::Body;
use axum::response::Response;
use flate2::Compression;
use flate2::write::GzEncoder;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use prost::Message;
use serde::Serialize;
use vivace_proto::otlp::{AnyValue, KeyValue, ResourceSpans, any_value};
use vivace_proto::tempopb::{
    MetadataMetrics, PartialStatus, QueryInstantResponse, QueryRangeResponse, SearchMetrics, SearchResponse, SearchTagValuesResponse,
    SearchTagValuesV2Response, SearchTagsResponse, SearchTagsV2Response, SearchTagsV2Scope, Trace, TraceByIdMetrics, TraceByIdResponse,
    TraceSearchMetadata,
};

/// Bodies below this are sent as they are.
const MIN_COMPRESSED_BYTES: usize = 1024;
/// Says what a client did not get, where the body has no place for it: unknown members break strict clients.
const WARNINGS_HEADER: &str = "x-vivace-warnings";

/// How a client wants its answer.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Accepts {
    protobuf: bool,
    gzip: bool,
}

impl Accepts {
    pub(crate) fn of(headers: &HeaderMap) -> Self {
        let contains = |name, text: &str| headers.get_all(name).iter().any(|value| value.to_str().is_ok_and(|value| value.contains(text)));
        Self { protobuf: contains(header::ACCEPT, "application/protobuf"), gzip: contains(header::ACCEPT_ENCODING, "gzip") }
    }

    /// The same for an answer that exists as JSON only.
    pub(crate) fn json(self) -> Self {
        Self { protobuf: false, ..self }
    }
}

/// What the query API answers with.
pub(crate) enum Answer {
    /// Version 1: the bare trace.
    TraceV1(Trace),
    Trace(TraceByIdResponse),
    Search(SearchResponse),
    Tags(SearchTagsResponse),
    TagsV2(SearchTagsV2Response),
    TagValues(SearchTagValuesResponse),
    TagValuesV2(SearchTagValuesV2Response),
    Range(QueryRangeResponse),
    Instant(QueryInstantResponse),
}

/// The response, made off the async threads: the JSON of a large trace takes a while.
pub(crate) async fn respond(answer: Answer, accepts: Accepts, warnings: &[String]) -> Response {
    let made = tokio::task::spawn_blocking(move || body(answer, accepts)).await.map_err(|error| error.to_string()).flatten();
    let (body, content_type, is_gzip) = match made {
        Ok(made) => made,
        Err(error) => (error.into_bytes(), "text/plain; charset=utf-8", false),
    };
    let mut response = Response::new(Body::from(body));
    if content_type.starts_with("text/plain") {
        *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
    }
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    if is_gzip {
        headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    }
    if !warnings.is_empty() {
        let text: String = warnings.join("; ").chars().map(|c| if c == ' ' || c.is_ascii_graphic() { c } else { '?' }).take(1000).collect();
        if let Ok(value) = HeaderValue::from_str(&text) {
            headers.insert(WARNINGS_HEADER, value);
        }
    }
    response
}

fn body(answer: Answer, accepts: Accepts) -> Result<(Vec<u8>, &'static str, bool), String> {
    let (body, content_type) = if accepts.protobuf {
        (protobuf(answer), "application/protobuf")
    } else {
        (json(&answer).map_err(|e| e.to_string())?, "application/json")
    };
    if !accepts.gzip || body.len() < MIN_COMPRESSED_BYTES {
        return Ok((body, content_type, false));
    }
    let mut encoder = GzEncoder::new(Vec::with_capacity(body.len() / 4), Compression::fast());
    let compressed = encoder.write_all(&body).and_then(|()| encoder.finish()).map_err(|e| e.to_string())?;
    Ok((compressed, content_type, true))
}

fn protobuf(answer: Answer) -> Vec<u8> {
    match answer {
        Answer::TraceV1(mut trace) => {
            name_nameless(&mut trace.resource_spans);
            trace.encode_to_vec()
        }
        Answer::Trace(mut answer) => {
            if let Some(trace) = &mut answer.trace {
                name_nameless(&mut trace.resource_spans);
            }
            answer.encode_to_vec()
        }
        Answer::Search(answer) => answer.encode_to_vec(),
        Answer::Tags(answer) => answer.encode_to_vec(),
        Answer::TagsV2(answer) => answer.encode_to_vec(),
        Answer::TagValues(answer) => answer.encode_to_vec(),
        Answer::TagValuesV2(answer) => answer.encode_to_vec(),
        Answer::Range(answer) => answer.encode_to_vec(),
        Answer::Instant(answer) => answer.encode_to_vec(),
    }
}

/// Grafana, which asks for protobuf, drops all spans of a resource without attributes. OpenTelemetry's name for a service that
/// has none keeps them in sight.
///
/// Source: client facts, trap 3.
fn name_nameless(resource_spans: &mut [ResourceSpans]) {
    for resource in resource_spans.iter_mut().filter_map(|spans| spans.resource.as_mut()).filter(|resource| resource.attributes.is_empty())
    {
        let value = Some(AnyValue { value: Some(any_value::Value::StringValue("unknown_service".to_owned())) });
        resource.attributes.push(KeyValue { key: "service.name".to_owned(), value });
    }
}

fn json(answer: &Answer) -> serde_json::Result<Vec<u8>> {
    match answer {
        Answer::TraceV1(trace) => to_vec(&TraceV1Json { batches: &trace.resource_spans }),
        Answer::Trace(answer) => to_vec(&TraceJson {
            trace: answer.trace.as_ref().map(|trace| ResourceSpansJson { resource_spans: &trace.resource_spans }),
            metrics: answer.metrics.unwrap_or_default(),
            status: (answer.status() == PartialStatus::Partial).then_some("PARTIAL"),
            message: &answer.message,
        }),
        Answer::Search(answer) => to_vec(&SearchJson { traces: &answer.traces, metrics: answer.metrics.unwrap_or_default() }),
        Answer::Tags(answer) => to_vec(&TagsJson { tag_names: &answer.tag_names, metrics: answer.metrics.unwrap_or_default() }),
        Answer::TagsV2(answer) => to_vec(&TagsV2Json { scopes: &answer.scopes, metrics: answer.metrics.unwrap_or_default() }),
        Answer::TagValues(answer) => to_vec(&TagValuesJson { tag_values: &answer.tag_values, metrics: answer.metrics.unwrap_or_default() }),
        Answer::TagValuesV2(answer) => {
            to_vec(&TagValuesJson { tag_values: &answer.tag_values, metrics: answer.metrics.unwrap_or_default() })
        }
        Answer::Range(answer) => to_vec(&SeriesJson::of(&answer.series, answer.metrics, answer.status, &answer.message)),
        Answer::Instant(answer) => to_vec(&SeriesJson::of(&answer.series, answer.metrics, answer.status, &answer.message)),
    }
}

/// As [`serde_json::to_vec`], with whole numbers of type double as clients have always got them: `7`, not `7.0`.
fn to_vec<T: Serialize>(value: &T) -> serde_json::Result<Vec<u8>> {
    struct Numbers;
    impl serde_json::ser::Formatter for Numbers {
        fn write_f64<W: ?Sized + std::io::Write>(&mut self, writer: &mut W, value: f64) -> std::io::Result<()> {
            // Above 2^53 the shortest text that is read as the same number may have an exponent.
            if value.fract() == 0.0 && value.abs() < 9.0e15 {
                write!(writer, "{value:.0}")
            } else {
                serde_json::ser::CompactFormatter.write_f64(writer, value)
            }
        }
    }
    let mut bytes = Vec::with_capacity(1024);
    value.serialize(&mut serde_json::Serializer::with_formatter(&mut bytes, Numbers))?;
    Ok(bytes)
}

// The mapping of proto3 leaves empty lists out; these are the messages whose clients expect some of them.

#[derive(Serialize)]
struct TraceV1Json<'a> {
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    batches: &'a [ResourceSpans],
}

#[derive(Serialize)]
struct TraceJson<'a> {
    trace: Option<ResourceSpansJson<'a>>,
    metrics: TraceByIdMetrics,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<&'static str>,
    #[serde(skip_serializing_if = "str::is_empty")]
    message: &'a str,
}

#[derive(Serialize)]
struct ResourceSpansJson<'a> {
    #[serde(rename = "resourceSpans", skip_serializing_if = "<[_]>::is_empty")]
    resource_spans: &'a [ResourceSpans],
}

#[derive(Serialize)]
struct SearchJson<'a> {
    traces: &'a [TraceSearchMetadata],
    metrics: SearchMetrics,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct TagsJson<'a> {
    tag_names: &'a [String],
    metrics: MetadataMetrics,
}

#[derive(Serialize)]
struct TagsV2Json<'a> {
    scopes: &'a [SearchTagsV2Scope],
    metrics: MetadataMetrics,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct TagValuesJson<'a, T> {
    tag_values: &'a [T],
    metrics: MetadataMetrics,
}

#[derive(Serialize)]
struct SeriesJson<'a, T> {
    series: &'a [T],
    metrics: SearchMetrics,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<&'static str>,
    #[serde(skip_serializing_if = "str::is_empty")]
    message: &'a str,
}

impl<'a, T> SeriesJson<'a, T> {
    fn of(series: &'a [T], metrics: Option<SearchMetrics>, status: i32, message: &'a str) -> Self {
        let status = (status == PartialStatus::Partial as i32).then_some("PARTIAL");
        Self { series, metrics: metrics.unwrap_or_default(), status, message }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use vivace_proto::otlp::{Resource, ScopeSpans, Span, Status};
    use vivace_proto::tempopb::{Sample, TimeSeries};

    fn text(answer: Answer) -> String {
        String::from_utf8(json(&answer).unwrap()).unwrap()
    }

    fn trace() -> Trace {
        let attribute = |key: &str, value| KeyValue { key: key.to_owned(), value: Some(AnyValue { value }) };
        let span = Span {
            trace_id: [vec![0; 15], vec![1]].concat().into(),
            span_id: vec![0, 0, 0, 0, 0, 0, 0, 2].into(),
            name: "pay".to_owned(),
            kind: 3,
            start_time_unix_nano: 1_700_000_000_000_000_000,
            end_time_unix_nano: 1_700_000_000_005_000_000,
            attributes: vec![
                attribute("n", Some(any_value::Value::IntValue(3))),
                attribute("b", Some(any_value::Value::BytesValue(vec![1, 2, 255].into()))),
                attribute("none", None),
            ],
            status: Some(Status::default()),
            ..Default::default()
        };
        let scope = ScopeSpans { spans: vec![span], scope: Some(Default::default()), ..Default::default() };
        Trace {
            resource_spans: vec![ResourceSpans { resource: Some(Resource::default()), scope_spans: vec![scope], ..Default::default() }],
        }
    }

    /// The rules of 2.6: base64 ids, 64-bit numbers as text, enums by name, zero values absent, set messages present.
    #[test]
    fn traces_follow_the_rules_of_the_api() {
        let spans = r#"[{"resource":{},"scopeSpans":[{"scope":{},"spans":[{"traceId":"AAAAAAAAAAAAAAAAAAAAAQ==","spanId":"AAAAAAAAAAI=","name":"pay","kind":"SPAN_KIND_CLIENT","startTimeUnixNano":"1700000000000000000","endTimeUnixNano":"1700000000005000000","attributes":[{"key":"n","value":{"intValue":"3"}},{"key":"b","value":{"bytesValue":"AQL/"}},{"key":"none","value":{}}],"status":{}}]}]}]"#;
        assert_eq!(text(Answer::TraceV1(trace())), format!(r#"{{"batches":{spans}}}"#));
        let found =
            TraceByIdResponse { trace: Some(trace()), metrics: Some(TraceByIdMetrics { inspected_bytes: 7 }), ..Default::default() };
        assert_eq!(text(Answer::Trace(found)), format!(r#"{{"trace":{{"resourceSpans":{spans}}},"metrics":{{"inspectedBytes":"7"}}}}"#));
    }

    #[test]
    fn series_have_typed_labels_and_plain_numbers() {
        let label = |value| KeyValue { key: "p".to_owned(), value: Some(AnyValue { value: Some(value) }) };
        let sample = |value, timestamp_ms| Sample { value, timestamp_ms };
        let series = TimeSeries {
            labels: vec![label(any_value::Value::DoubleValue(1.0)), label(any_value::Value::IntValue(2))],
            samples: vec![sample(3.0, 1000), sample(0.25, 2000), sample(0.0, 3000), sample(1e300, 4000)],
            exemplars: Vec::new(),
        };
        let answer = QueryRangeResponse { series: vec![series], message: "cut".to_owned(), status: 1, metrics: None };
        assert_eq!(
            text(Answer::Range(answer)),
            r#"{"series":[{"labels":[{"key":"p","value":{"doubleValue":1}},{"key":"p","value":{"intValue":"2"}}],"samples":[{"value":3,"timestampMs":"1000"},{"value":0.25,"timestampMs":"2000"},{"timestampMs":"3000"},{"value":1e+300,"timestampMs":"4000"}]}],"metrics":{},"status":"PARTIAL","message":"cut"}"#
        );
        assert_eq!(text(Answer::Instant(QueryInstantResponse::default())), r#"{"series":[],"metrics":{}}"#);
    }

    #[test]
    fn empty_answers_keep_their_lists_and_messages() {
        let missing = TraceByIdResponse { trace: Some(Trace::default()), ..Default::default() };
        assert_eq!(text(Answer::Trace(missing.clone())), r#"{"trace":{},"metrics":{}}"#);
        assert_eq!(missing.encode_to_vec(), [0x0a, 0], "an empty trace is present in protobuf too");
        let partial = TraceByIdResponse { status: PartialStatus::Partial as i32, message: "why".to_owned(), ..missing };
        assert_eq!(text(Answer::Trace(partial)), r#"{"trace":{},"metrics":{},"status":"PARTIAL","message":"why"}"#);
        assert_eq!(text(Answer::Search(SearchResponse::default())), r#"{"traces":[],"metrics":{}}"#);
        assert_eq!(text(Answer::Tags(SearchTagsResponse::default())), r#"{"tagNames":[],"metrics":{}}"#);
        assert_eq!(text(Answer::TagsV2(SearchTagsV2Response::default())), r#"{"scopes":[],"metrics":{}}"#);
        assert_eq!(text(Answer::TagValuesV2(SearchTagValuesV2Response::default())), r#"{"tagValues":[],"metrics":{}}"#);
    }

    /// Client facts, trap 1: strict clients know these members and no others.
    #[test]
    fn search_has_no_member_that_clients_do_not_know() {
        let metrics = SearchMetrics {
            inspected_traces: 1,
            inspected_bytes: 2,
            total_blocks: 3,
            completed_jobs: 4,
            total_jobs: 5,
            total_block_bytes: 6,
            inspected_spans: 7,
        };
        let json = text(Answer::Search(SearchResponse { traces: Vec::new(), metrics: Some(metrics) }));
        let known = r#"{"inspectedTraces":1,"inspectedBytes":"2","totalBlocks":3,"completedJobs":4,"totalJobs":5,"totalBlockBytes":"6","inspectedSpans":"7"}"#;
        assert_eq!(json, format!(r#"{{"traces":[],"metrics":{known}}}"#));
    }

    /// Client facts, traps 2 and 3.
    #[test]
    fn protobuf_keeps_empty_messages_and_names_nameless_resources() {
        let bytes = protobuf(Answer::Trace(TraceByIdResponse { trace: Some(trace()), ..Default::default() }));
        let trace = TraceByIdResponse::decode(bytes.as_slice()).unwrap().trace.unwrap();
        let resource = &trace.resource_spans[0];
        assert_eq!(resource.resource.as_ref().unwrap().attributes[0].key, "service.name");
        assert!(resource.scope_spans[0].scope.is_some() && resource.scope_spans[0].spans[0].status.is_some());
    }
}
