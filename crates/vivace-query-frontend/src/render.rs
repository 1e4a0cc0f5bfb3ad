//! Answers as JSON or protobuf, compressed where the client takes that. Source: docs/facts/http-api.md, "Compression", "`Accept`", "JSON".

use std::io::Write;

use axum::response::{IntoResponse as _, Response};
use http::{HeaderMap, HeaderValue, header};
use prost::Message as _;
use serde::{Serialize, Serializer};
use tokio_util::sync::CancellationToken;
use vivace_core::budget::{Budget, Charge};
use vivace_proto::otlp::ResourceSpans;
use vivace_proto::tempopb::{
    MetadataMetrics, PartialStatus, QueryInstantResponse, QueryRangeResponse, SearchMetrics, SearchResponse, SearchTagValuesResponse,
    SearchTagValuesV2Response, SearchTagsResponse, SearchTagsV2Response, SearchTagsV2Scope, Trace, TraceByIdMetrics, TraceByIdResponse,
    TraceSearchMetadata,
};
use vivace_server::warning;

use crate::body::{WriteError, Writer, Written};
use crate::coding::Coding;
use crate::combine::with_first_set;
use crate::error::QueryError;

/// How a client wants its answer.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Accepts {
    protobuf: bool,
    coding: Coding,
}

impl Accepts {
    pub(crate) fn of(headers: &HeaderMap) -> Self {
        let contains = |name, text: &str| headers.get_all(name).iter().any(|value| value.to_str().is_ok_and(|value| value.contains(text)));
        Self { protobuf: contains(header::ACCEPT, "application/protobuf"), coding: Coding::of(headers) }
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

/// The response, made off the async threads: the JSON of a large trace takes a while. Nobody goes on with it when the client has left.
/// `held` is what is charged for the answer itself.
pub(crate) async fn respond(budget: &Budget, answer: Answer, held: Option<Charge>, accepts: Accepts, warnings: &[String]) -> Response {
    let write = move |budget: &Budget, stop, (answer, _): &(Answer, _)| written(budget, stop, answer, accepts);
    match made(budget, (answer, held), write).await {
        Ok(written) => response(written, if accepts.protobuf { "application/protobuf" } else { "application/json" }, warnings),
        Err(error) => error.into_response(),
    }
}

/// The same for an answer that is JSON of another API, and whose errors are that API's too. What is charged for it belongs to it.
pub(crate) async fn respond_json<T>(budget: &Budget, answer: T, accepts: Accepts, warnings: &[String]) -> Result<Response, QueryError>
where
    T: Serialize + Send + Sync + 'static,
{
    let write = move |budget: &Budget, stop, answer: &T| {
        let mut writer = Writer::new(budget, stop, accepts.coding);
        let written = to_writer(&mut writer, answer).map_err(|error| WriteError::from(std::io::Error::from(error)));
        written.and_then(|()| writer.finish()).map_err(QueryError::from)
    };
    Ok(response(made(budget, answer, write).await?, "application/json", warnings))
}

async fn made<T: Send + Sync + 'static>(
    budget: &Budget,
    answer: T,
    write: impl FnOnce(&Budget, CancellationToken, &T) -> Result<Written, QueryError> + Send + 'static,
) -> Result<Written, QueryError> {
    let stop = CancellationToken::new();
    let _stops_with_the_client = stop.clone().drop_guard();
    let budget = budget.clone();
    let made = tokio::task::spawn_blocking(move || {
        let written = write(&budget, stop, &answer);
        drop(answer);
        written
    });
    made.await.map_err(|error| QueryError::Job(format!("the answer could not be written: {error}"))).flatten()
}

fn response(written: Written, content_type: &'static str, warnings: &[String]) -> Response {
    let (is_gzip, len) = (written.is_gzip, written.len());
    let mut response = Response::new(written.into_body());
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(len));
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    if is_gzip {
        headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    }
    warn(headers, warnings);
    response
}

/// Says what an answer lacks.
pub(crate) fn warn(headers: &mut HeaderMap, warnings: &[String]) {
    if warnings.is_empty() {
        return;
    }
    let text: String = warnings.join("; ").chars().map(|c| if c == ' ' || c.is_ascii_graphic() { c } else { '?' }).take(1000).collect();
    if let Ok(value) = HeaderValue::from_str(&text) {
        // The body has no place for it: unknown members break strict clients.
        headers.insert(warning::HEADER, value);
    }
}

fn written(budget: &Budget, stop: CancellationToken, answer: &Answer, accepts: Accepts) -> Result<Written, QueryError> {
    let write = || -> Result<Written, WriteError> {
        let mut writer = Writer::new(budget, stop.clone(), accepts.coding);
        if accepts.protobuf {
            let message = protobuf(budget, stop, answer)?;
            if accepts.coding == Coding::Plain {
                return Ok(message);
            }
            message.write_to(&mut writer)?;
        } else {
            json(answer, &mut writer).map_err(std::io::Error::from)?;
        }
        writer.finish()
    };
    write().map_err(QueryError::from)
}

impl From<WriteError> for QueryError {
    fn from(error: WriteError) -> Self {
        match error {
            WriteError::OverBudget(over) => over.into(),
            WriteError::TooLarge { .. } => Self::TooLarge(error.to_string()),
            WriteError::Stopped => Self::Gone(error.to_string()),
            WriteError::Other(error) => Self::Job(format!("the answer could not be written: {error}")),
        }
    }
}

fn protobuf(budget: &Budget, stop: CancellationToken, answer: &Answer) -> Result<Written, WriteError> {
    match answer {
        Answer::TraceV1(trace) => Written::message(budget, trace),
        Answer::Trace(answer) => Written::message(budget, answer),
        Answer::Search(answer) => search_protobuf(budget, stop, answer),
        Answer::Tags(answer) => Written::message(budget, answer),
        Answer::TagsV2(answer) => Written::message(budget, answer),
        Answer::TagValues(answer) => Written::message(budget, answer),
        Answer::TagValuesV2(answer) => Written::message(budget, answer),
        Answer::Range(answer) => Written::message(budget, answer),
        Answer::Instant(answer) => Written::message(budget, answer),
    }
}

/// Trace by trace: a message is what its parts are one after another.
fn search_protobuf(budget: &Budget, stop: CancellationToken, answer: &SearchResponse) -> Result<Written, WriteError> {
    let mut writer = Writer::new(budget, stop, Coding::Plain);
    for trace in &answer.traces {
        let one = SearchResponse { traces: vec![with_first_set(trace)], metrics: None };
        writer.write_all(&one.encode_to_vec())?;
    }
    writer.write_all(&SearchResponse { traces: Vec::new(), metrics: answer.metrics }.encode_to_vec())?;
    writer.finish()
}

fn json(answer: &Answer, to: &mut impl Write) -> serde_json::Result<()> {
    match answer {
        Answer::TraceV1(trace) => to_writer(to, &TraceV1Json { batches: &trace.resource_spans }),
        Answer::Trace(answer) => to_writer(
            to,
            &TraceJson {
                trace: answer.trace.as_ref().map(|trace| ResourceSpansJson { resource_spans: &trace.resource_spans }),
                metrics: answer.metrics.unwrap_or_default(),
                status: (answer.status() == PartialStatus::Partial).then_some("PARTIAL"),
                message: &answer.message,
            },
        ),
        Answer::Search(answer) => to_writer(to, &SearchJson { traces: &answer.traces, metrics: answer.metrics.unwrap_or_default() }),
        Answer::Tags(answer) => to_writer(to, &TagsJson { tag_names: &answer.tag_names, metrics: answer.metrics.unwrap_or_default() }),
        Answer::TagsV2(answer) => to_writer(to, &TagsV2Json { scopes: &answer.scopes, metrics: answer.metrics.unwrap_or_default() }),
        Answer::TagValues(answer) => {
            to_writer(to, &TagValuesJson { tag_values: &answer.tag_values, metrics: answer.metrics.unwrap_or_default() })
        }
        Answer::TagValuesV2(answer) => {
            to_writer(to, &TagValuesJson { tag_values: &answer.tag_values, metrics: answer.metrics.unwrap_or_default() })
        }
        Answer::Range(answer) => to_writer(to, &SeriesJson::of(&answer.series, answer.metrics, answer.status, &answer.message)),
        Answer::Instant(answer) => to_writer(to, &SeriesJson::of(&answer.series, answer.metrics, answer.status, &answer.message)),
    }
}

/// As [`serde_json::to_writer`], with whole numbers of type double as clients have always got them: `7`, not `7.0`.
fn to_writer<T: Serialize>(to: &mut impl Write, value: &T) -> serde_json::Result<()> {
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
    value.serialize(&mut serde_json::Serializer::with_formatter(to, Numbers))
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
    #[serde(serialize_with = "traces_with_first_sets")]
    traces: &'a [TraceSearchMetadata],
    metrics: SearchMetrics,
}

fn traces_with_first_sets<S: Serializer>(traces: &[TraceSearchMetadata], to: S) -> Result<S::Ok, S::Error> {
    to.collect_seq(traces.iter().map(with_first_set))
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
    use vivace_proto::otlp::{AnyValue, ArrayValue, KeyValue, KeyValueList, Resource, ScopeSpans, Span, Status, any_value, span};
    use vivace_proto::tempopb::{self, InstantSeries, Sample, TagValue, TimeSeries};

    fn text(answer: &Answer) -> String {
        let mut bytes = Vec::new();
        json(answer, &mut bytes).unwrap();
        String::from_utf8(bytes).unwrap()
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
        assert_eq!(text(&Answer::TraceV1(trace())), format!(r#"{{"batches":{spans}}}"#));
        let found =
            TraceByIdResponse { trace: Some(trace()), metrics: Some(TraceByIdMetrics { inspected_bytes: 7 }), ..Default::default() };
        assert_eq!(text(&Answer::Trace(found)), format!(r#"{{"trace":{{"resourceSpans":{spans}}},"metrics":{{"inspectedBytes":"7"}}}}"#));
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
            text(&Answer::Range(answer)),
            r#"{"series":[{"labels":[{"key":"p","value":{"doubleValue":1}},{"key":"p","value":{"intValue":"2"}}],"samples":[{"value":3,"timestampMs":"1000"},{"value":0.25,"timestampMs":"2000"},{"timestampMs":"3000"},{"value":1e+300,"timestampMs":"4000"}]}],"metrics":{},"status":"PARTIAL","message":"cut"}"#
        );
        assert_eq!(text(&Answer::Instant(QueryInstantResponse::default())), r#"{"series":[],"metrics":{}}"#);
    }

    #[test]
    fn empty_answers_keep_their_lists_and_messages() {
        let missing = TraceByIdResponse { trace: Some(Trace::default()), ..Default::default() };
        assert_eq!(text(&Answer::Trace(missing.clone())), r#"{"trace":{},"metrics":{}}"#);
        assert_eq!(missing.encode_to_vec(), [0x0a, 0], "an empty trace is present in protobuf too");
        let partial = TraceByIdResponse { status: PartialStatus::Partial as i32, message: "why".to_owned(), ..missing };
        assert_eq!(text(&Answer::Trace(partial)), r#"{"trace":{},"metrics":{},"status":"PARTIAL","message":"why"}"#);
        assert_eq!(text(&Answer::Search(SearchResponse::default())), r#"{"traces":[],"metrics":{}}"#);
        assert_eq!(text(&Answer::Tags(SearchTagsResponse::default())), r#"{"tagNames":[],"metrics":{}}"#);
        assert_eq!(text(&Answer::TagsV2(SearchTagsV2Response::default())), r#"{"scopes":[],"metrics":{}}"#);
        assert_eq!(text(&Answer::TagValuesV2(SearchTagValuesV2Response::default())), r#"{"tagValues":[],"metrics":{}}"#);
    }

    /// Strict clients know these members and no others. Source: docs/facts/clients.md, "JSON of searches is read strictly".
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
        let json = text(&Answer::Search(SearchResponse { traces: Vec::new(), metrics: Some(metrics) }));
        let known = r#"{"inspectedTraces":1,"inspectedBytes":"2","totalBlocks":3,"completedJobs":4,"totalJobs":5,"totalBlockBytes":"6","inspectedSpans":"7"}"#;
        assert_eq!(json, format!(r#"{{"traces":[],"metrics":{known}}}"#));
    }

    fn found() -> TraceByIdResponse {
        TraceByIdResponse { trace: Some(trace()), ..Default::default() }
    }

    fn message(answer: &Answer) -> Vec<u8> {
        let body = protobuf(&Budget::unlimited(), CancellationToken::new(), answer).unwrap().into_body();
        futures::FutureExt::now_or_never(http_body_util::BodyExt::collect(body)).unwrap().unwrap().to_bytes().to_vec()
    }

    /// Source: docs/facts/clients.md, "Messages must be there".
    #[test]
    fn protobuf_keeps_empty_messages() {
        let trace = TraceByIdResponse::decode(message(&Answer::Trace(found())).as_slice()).unwrap().trace.unwrap();
        let resource = &trace.resource_spans[0];
        assert!(resource.resource.is_some());
        assert!(resource.scope_spans[0].scope.is_some() && resource.scope_spans[0].spans[0].status.is_some());
    }

    /// An attribute of every kind of value, numbers that are none, and enums that have no such value.
    fn odd() -> Trace {
        use any_value::Value;
        let of = |value| AnyValue { value: Some(value) };
        let values = [
            None,
            Some(Value::StringValue("\u{0}\"\\\u{2028}é".to_owned())),
            Some(Value::BoolValue(false)),
            Some(Value::IntValue(i64::MIN)),
            Some(Value::DoubleValue(f64::INFINITY)),
            Some(Value::DoubleValue(f64::NEG_INFINITY)),
            Some(Value::DoubleValue(f64::MIN_POSITIVE)),
            Some(Value::DoubleValue(-0.0)),
            Some(Value::DoubleValue(9_007_199_254_740_993.0)),
            Some(Value::BytesValue(Vec::new().into())),
            Some(Value::BytesValue(vec![255; 3].into())),
            Some(Value::ArrayValue(ArrayValue::default())),
            Some(Value::ArrayValue(ArrayValue { values: vec![of(Value::DoubleValue(f64::INFINITY)), AnyValue::default()] })),
            Some(Value::KvlistValue(KeyValueList::default())),
            Some(Value::KvlistValue(KeyValueList { values: vec![KeyValue { key: String::new(), value: Some(of(Value::IntValue(0))) }] })),
        ];
        let attribute =
            |(i, value): (usize, &Option<Value>)| KeyValue { key: format!("k{i}"), value: Some(AnyValue { value: value.clone() }) };
        let attributes: Vec<KeyValue> = values.iter().enumerate().map(attribute).chain([KeyValue::default()]).collect();
        let mut trace = trace();
        let scope = &mut trace.resource_spans[0].scope_spans[0];
        scope.spans[0].attributes.clone_from(&attributes);
        scope.spans[0].events.push(span::Event { time_unix_nano: u64::MAX, attributes: attributes.clone(), ..Default::default() });
        scope.spans[0].links.push(span::Link {
            span_id: vec![1].into(),
            flags: u32::MAX,
            attributes: attributes.clone(),
            ..Default::default()
        });
        for kind in [0, 5, 6, 9, -1, i32::MAX] {
            let status = Some(Status { code: kind, message: String::new() });
            scope.spans.push(Span { kind, status, flags: 257, end_time_unix_nano: u64::MAX, ..Default::default() });
        }
        trace.resource_spans[0].resource = Some(Resource { attributes, dropped_attributes_count: u32::MAX });
        trace
    }

    /// Every endpoint says the same in both forms.
    #[test]
    fn json_and_protobuf_say_the_same() {
        fn same<T: prost::Message + Default + PartialEq + std::fmt::Debug + serde::de::DeserializeOwned>(answer: Answer) {
            let (json, bytes) = (text(&answer), message(&answer));
            let decoded = T::decode(bytes.as_slice()).unwrap();
            let read: T = serde_json::from_str(&json).unwrap_or_else(|error| panic!("{error}: {json}"));
            assert_eq!(read, decoded, "{json}");
        }
        let odd = odd();
        let attributes = odd.resource_spans[0].resource.clone().unwrap().attributes;
        let batches = text(&Answer::TraceV1(odd.clone())).replacen("\"batches\"", "\"resourceSpans\"", 1);
        assert_eq!(serde_json::from_str::<Trace>(&batches).unwrap(), odd, "the first version has another name for the list");
        let status = PartialStatus::Partial as i32;
        let metrics = Some(TraceByIdMetrics { inspected_bytes: u64::MAX });
        same::<TraceByIdResponse>(Answer::Trace(TraceByIdResponse { trace: Some(odd), metrics, status, message: "why".to_owned() }));
        let span =
            tempopb::Span { span_id: "1".to_owned(), duration_nanos: u64::MAX, attributes: attributes.clone(), ..Default::default() };
        let set = tempopb::SpanSet { spans: vec![span], matched: 1, attributes: attributes.clone() };
        let stats = [("".to_owned(), tempopb::ServiceStats { span_count: 0, error_count: u32::MAX })];
        let found = TraceSearchMetadata {
            span_sets: vec![set.clone(), Default::default()],
            span_set: Some(set),
            service_stats: stats.into(),
            start_time_unix_nano: u64::MAX,
            ..Default::default()
        };
        let metrics = SearchMetrics { inspected_bytes: u64::MAX, inspected_traces: u32::MAX, ..Default::default() };
        same::<SearchResponse>(Answer::Search(SearchResponse { traces: vec![found], metrics: Some(metrics) }));
        let metadata = Some(MetadataMetrics { inspected_bytes: u64::MAX, total_jobs: 1, ..Default::default() });
        same::<SearchTagsResponse>(Answer::Tags(SearchTagsResponse { tag_names: vec![String::new()], metrics: metadata }));
        let scope = SearchTagsV2Scope { name: "span".to_owned(), tags: vec!["a".to_owned()] };
        same::<SearchTagsV2Response>(Answer::TagsV2(SearchTagsV2Response { scopes: vec![scope], metrics: metadata }));
        same::<SearchTagValuesResponse>(Answer::TagValues(SearchTagValuesResponse {
            tag_values: vec!["NaN".to_owned()],
            metrics: metadata,
        }));
        let value = TagValue { r#type: "float".to_owned(), value: "NaN".to_owned() };
        same::<SearchTagValuesV2Response>(Answer::TagValuesV2(SearchTagValuesV2Response { tag_values: vec![value], metrics: metadata }));
        let values = [0.0, 7.0, 0.1, f64::INFINITY, f64::NEG_INFINITY, 1e300, f64::MIN_POSITIVE];
        let samples = values.iter().map(|value| Sample { value: *value, timestamp_ms: i64::MIN }).collect();
        let exemplar = |value: &f64| tempopb::Exemplar { labels: attributes.clone(), value: *value, timestamp_ms: i64::MAX };
        let series = vec![TimeSeries { labels: attributes.clone(), samples, exemplars: values.iter().map(exemplar).collect() }];
        same::<QueryRangeResponse>(Answer::Range(QueryRangeResponse { series, metrics: Some(metrics), status, message: "cut".to_owned() }));
        let series = values.iter().map(|value| InstantSeries { labels: attributes.clone(), value: *value }).collect();
        same::<QueryInstantResponse>(Answer::Instant(QueryInstantResponse {
            series,
            metrics: Some(metrics),
            status,
            message: String::new(),
        }));
    }

    /// The rules of 2.6 for doubles; enums as proto3 has them.
    #[test]
    fn numbers_that_are_none_and_unknown_enums_have_their_text() {
        let sample = |value| Sample { value, timestamp_ms: 0 };
        let samples = vec![sample(f64::NAN), sample(f64::INFINITY), sample(f64::NEG_INFINITY)];
        let answer = QueryRangeResponse { series: vec![TimeSeries { samples, ..Default::default() }], ..Default::default() };
        assert_eq!(
            text(&Answer::Range(answer)),
            r#"{"series":[{"samples":[{"value":"NaN"},{"value":"Infinity"},{"value":"-Infinity"}]}],"metrics":{}}"#
        );
        let nan = AnyValue { value: Some(any_value::Value::DoubleValue(f64::NAN)) };
        let span = Span { kind: 9, attributes: vec![KeyValue { key: "k".to_owned(), value: Some(nan) }], ..Default::default() };
        let spans = vec![span, Span { status: Some(Status { code: -3, ..Default::default() }), ..Default::default() }];
        let scope = ScopeSpans { spans, ..Default::default() };
        let trace = Trace { resource_spans: vec![ResourceSpans { scope_spans: vec![scope], ..Default::default() }] };
        let spans = r#"{"kind":9,"attributes":[{"key":"k","value":{"doubleValue":"NaN"}}]},{"status":{"code":-3}}"#;
        assert_eq!(text(&Answer::TraceV1(trace)), format!(r#"{{"batches":[{{"scopeSpans":[{{"spans":[{spans}]}}]}}]}}"#));
    }
}
