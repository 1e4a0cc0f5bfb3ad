//! `tempopb.StreamingQuerier`: the same queries, answered in steps. Source: docs/facts/grpc-api.md, "Streaming queries".

use std::collections::{HashMap, VecDeque};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::pin::Pin;
use std::time::{Duration, Instant};

use futures::stream::Stream;
use prost::Message;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tonic::{Request, Response, Status};
use vivace_core::TenantId;
use vivace_core::budget::Charge;
use vivace_core::pieces::Pieces;
use vivace_proto::otlp::KeyValue;
use vivace_proto::tempopb::streaming_querier_server::StreamingQuerier;
use vivace_proto::tempopb::{
    InstantSeries, MetadataMetrics, QueryInstantRequest, QueryInstantResponse, QueryRangeRequest, QueryRangeResponse, SearchRequest,
    SearchResponse, SearchTagValuesRequest, SearchTagValuesResponse, SearchTagValuesV2Response, SearchTagsRequest, SearchTagsResponse,
    SearchTagsV2Response, SearchTagsV2Scope, TimeSeries,
};
use vivace_server::tenant;

use crate::combine::{TagCombiner, ValueCombiner, ValueTypes, flat, untyped, with_first_set};
use crate::error::QueryError;
use crate::frontend::{Search, TagValues, Tags, attribute_of_v1, intrinsics, intrinsics_v1};
use crate::http::QueryApi;
use crate::metrics::Op;
use crate::metrics_query::{Counted, MetricsQuery, Series};

/// Least pause between two messages.
const INTERVAL: Duration = Duration::from_millis(500);
/// Clients refuse messages above 4 MiB.
const MAX_MESSAGE_BYTES: usize = 1 << 20;
/// How long nobody may read before the query is ended, and what it holds is given back.
const UNREAD: Duration = Duration::from_secs(60);

type Messages<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl StreamingQuerier for QueryApi {
    type SearchStream = Messages<SearchResponse>;
    type SearchTagsStream = Messages<SearchTagsResponse>;
    type SearchTagsV2Stream = Messages<SearchTagsV2Response>;
    type SearchTagValuesStream = Messages<SearchTagValuesResponse>;
    type SearchTagValuesV2Stream = Messages<SearchTagValuesV2Response>;
    type MetricsQueryRangeStream = Messages<QueryRangeResponse>;
    type MetricsQueryInstantStream = Messages<QueryInstantResponse>;

    async fn metrics_query_range(&self, request: Request<QueryRangeRequest>) -> Result<Response<Self::MetricsQueryRangeStream>, Status> {
        let (tenants, request) = self.open(request)?;
        let query = MetricsQuery::range_message(request, self.frontend.now());
        let series = query.and_then(|query| self.frontend.series(&tenants, query)).map_err(|error| error.grpc_status())?;
        Ok(self.stream(tenants, Op::Metrics, |outlet| run_series(series, outlet, Counted::into_range)))
    }

    async fn metrics_query_instant(
        &self,
        request: Request<QueryInstantRequest>,
    ) -> Result<Response<Self::MetricsQueryInstantStream>, Status> {
        let (tenants, request) = self.open(request)?;
        let query = MetricsQuery::instant_message(request, self.frontend.now());
        let series = query.and_then(|query| self.frontend.series(&tenants, query)).map_err(|error| error.grpc_status())?;
        Ok(self.stream(tenants, Op::Metrics, |outlet| run_series(series, outlet, Counted::into_instant)))
    }

    async fn search(&self, request: Request<SearchRequest>) -> Result<Response<Self::SearchStream>, Status> {
        let (tenants, request) = self.open(request)?;
        let search = self.frontend.search(&tenants, request).map_err(|error| error.grpc_status())?;
        Ok(self.stream(tenants, Op::Search, |outlet| run_search(search, outlet)))
    }

    async fn search_tags(&self, request: Request<SearchTagsRequest>) -> Result<Response<Self::SearchTagsStream>, Status> {
        let (tenants, request) = self.open(request)?;
        let (scope, tags) = self.frontend.tags(&tenants, request).map_err(|error| error.grpc_status())?;
        let added = intrinsics_v1(scope);
        let message = move |mut answer: SearchTagsV2Response, is_last: bool| {
            answer.scopes.extend(added.clone().filter(|_| is_last));
            SearchTagsResponse { tag_names: flat(answer.scopes), metrics: answer.metrics }
        };
        Ok(self.stream(tenants, Op::Metadata, |outlet| run_tags(tags, outlet, message)))
    }

    async fn search_tags_v2(&self, request: Request<SearchTagsRequest>) -> Result<Response<Self::SearchTagsV2Stream>, Status> {
        let (tenants, request) = self.open(request)?;
        let (scope, tags) = self.frontend.tags(&tenants, request).map_err(|error| error.grpc_status())?;
        let added = intrinsics(scope);
        let message = move |mut answer: SearchTagsV2Response, is_last: bool| {
            answer.scopes.extend(added.clone().filter(|_| is_last));
            answer
        };
        Ok(self.stream(tenants, Op::Metadata, |outlet| run_tags(tags, outlet, message)))
    }

    async fn search_tag_values(&self, request: Request<SearchTagValuesRequest>) -> Result<Response<Self::SearchTagValuesStream>, Status> {
        let (tenants, mut request) = self.open(request)?;
        let (identifier, added) = attribute_of_v1(&request.tag_name);
        request.tag_name = identifier;
        let values = self.frontend.tag_values(&tenants, request).map_err(|error| error.grpc_status())?;
        let message = move |answer: SearchTagValuesV2Response, is_last: bool| {
            let added = if is_last { added } else { &[] };
            SearchTagValuesResponse { tag_values: untyped(answer.tag_values, added), metrics: answer.metrics }
        };
        Ok(self.stream(tenants, Op::Metadata, |outlet| run_values(values, outlet, message)))
    }

    async fn search_tag_values_v2(
        &self,
        request: Request<SearchTagValuesRequest>,
    ) -> Result<Response<Self::SearchTagValuesV2Stream>, Status> {
        let (tenants, request) = self.open(request)?;
        let values = self.frontend.tag_values(&tenants, request).map_err(|error| error.grpc_status())?;
        Ok(self.stream(tenants, Op::Metadata, |outlet| run_values(values, outlet, |answer, _| answer)))
    }
}

impl QueryApi {
    fn open<T>(&self, request: Request<T>) -> Result<(Vec<TenantId>, T), Status> {
        let tenants = self.tenants(request.metadata().as_ref()).map_err(|error| tenant::grpc_error(&error))?;
        Ok((tenants, request.into_inner()))
    }

    /// Messages of a query that ends when whoever reads them leaves, or does not read on. The query yields the bytes it has inspected.
    fn stream<T: Message + 'static, F>(&self, tenants: Vec<TenantId>, op: Op, query: impl FnOnce(Outlet<T>) -> F) -> Response<Messages<T>>
    where
        F: Future<Output = Result<u64, QueryError>> + Send + 'static,
    {
        let (messages, receiver) = mpsc::channel(1);
        let query = query(Outlet { messages: messages.clone(), max_bytes: self.max_message_bytes, waiting: VecDeque::new() });
        let api = self.clone();
        // A task of its own, since a stream that nobody reads is not polled. It ends with the stream, which owns it.
        let mut task = JoinSet::new();
        task.spawn(async move {
            if let Err(error) = api.timed(&tenants, op, |inspected| *inspected, query).await {
                let _ = tokio::time::timeout(UNREAD, messages.send(Err(error.grpc_status()))).await;
            }
        });
        let next = |(mut receiver, mut task): (mpsc::Receiver<_>, JoinSet<()>)| async move {
            let message = match receiver.recv().await {
                Some(message) => message,
                None => Err(Status::internal(task.join_next().await?.err()?.to_string())),
            };
            Some((message, (receiver, task)))
        };
        Response::new(Box::pin(futures::stream::unfold((receiver, task), next)))
    }
}

/// Where a query's messages go.
struct Outlet<T> {
    messages: mpsc::Sender<Result<T, Status>>,
    max_bytes: usize,
    /// Messages that are to go before all others.
    waiting: VecDeque<T>,
}

impl<T: Message> Outlet<T> {
    /// Whether the client has taken what it was sent, so that there may be more before the query is over. A query that goes on does
    /// not wait for its client.
    fn is_free(&mut self) -> bool {
        while let Some(message) = self.waiting.pop_front() {
            match self.messages.try_reserve() {
                Ok(place) => place.send(Ok(message)),
                Err(_) => {
                    self.waiting.push_front(message);
                    return false;
                }
            }
        }
        self.messages.capacity() > 0
    }

    /// Takes a message that is sent when the client has room for it.
    ///
    /// # Errors
    /// The message is too large to be sent.
    fn add(&mut self, message: T) -> Result<(), QueryError> {
        let (bytes, max_bytes) = (message.encoded_len(), self.max_bytes);
        if bytes > max_bytes {
            return Err(QueryError::TooLarge(format!(
                "a single result has {bytes} bytes, more than the {max_bytes} of server.grpc_server_max_send_msg_size: \
                 ask for fewer or shorter attributes, or for fewer spans per spanset"
            )));
        }
        self.waiting.push_back(message);
        self.is_free();
        Ok(())
    }

    /// Sends all that is left.
    ///
    /// # Errors
    /// The client has left, or it does not read.
    async fn finish(mut self) -> Result<(), QueryError> {
        while let Some(message) = self.waiting.pop_front() {
            match tokio::time::timeout(UNREAD, self.messages.send(Ok(message))).await {
                Ok(sent) => sent.map_err(|_| QueryError::Gone("it has left".to_owned()))?,
                Err(_) => return Err(QueryError::Gone(format!("nothing of it was read for {} s", UNREAD.as_secs()))),
            }
        }
        Ok(())
    }
}

async fn run_search(mut search: Search, mut outlet: Outlet<SearchResponse>) -> Result<u64, QueryError> {
    let mut types = ValueTypes::default();
    let mut last = Instant::now();
    while search.step().await? {
        if last.elapsed() >= INTERVAL && outlet.is_free() {
            let metrics = Some(search.result.metrics());
            let mut traces = search.result.take_presentable();
            types.reconcile(&mut traces);
            packets(traces).into_iter().try_for_each(|traces| outlet.add(SearchResponse { traces, metrics }))?;
            last = Instant::now();
        }
    }
    // Others may begin while the client reads.
    let mut result = search.into_result();
    let warning = result.warning();
    let sent = result.take_sent();
    let (SearchResponse { mut traces, metrics }, _held) = result.finish();
    // They were known as a whole when they were sent.
    traces.retain(|trace| !sent.contains(&trace.trace_id));
    types.reconcile(&mut traces);
    for traces in packets(traces) {
        let traces = traces.iter().map(with_first_set).collect();
        outlet.add(SearchResponse { traces, metrics })?;
    }
    outlet.finish().await?;
    // No message has a place for it.
    match warning {
        Some(warning) => Err(QueryError::OutOfMemory { reason: warning, holds_much: true }),
        None => Ok(metrics.map_or(0, |metrics| metrics.inspected_bytes)),
    }
}

/// Cuts results into messages that clients take; at least one message.
fn packets<T: Message>(results: Vec<T>) -> Vec<Vec<T>> {
    Pieces::of(results, MAX_MESSAGE_BYTES).with_last().map(|(packet, _)| packet).collect()
}

/// The same for the names of scopes, each of which may be cut.
fn scope_packets(scopes: Vec<SearchTagsV2Scope>) -> Vec<Vec<SearchTagsV2Scope>> {
    let mut packets: Vec<Vec<SearchTagsV2Scope>> = vec![Vec::new()];
    let mut bytes = 0;
    for SearchTagsV2Scope { name, tags } in scopes {
        for tag in tags {
            if bytes > 0 && bytes + tag.len() > MAX_MESSAGE_BYTES {
                packets.push(Vec::new());
                bytes = 0;
            }
            bytes += tag.len();
            let packet = packets.last_mut().expect("there is one from the start");
            match packet.last_mut() {
                Some(scope) if scope.name == name => scope.tags.push(tag),
                _ => packet.push(SearchTagsV2Scope { name: name.clone(), tags: vec![tag] }),
            }
        }
    }
    packets
}

async fn run_tags<T: Message>(
    mut tags: Tags,
    mut outlet: Outlet<T>,
    message: impl Fn(SearchTagsV2Response, bool) -> T,
) -> Result<u64, QueryError> {
    let add = |result: &mut TagCombiner, outlet: &mut Outlet<T>, is_over: bool| {
        let metrics = Some(MetadataMetrics { inspected_bytes: result.inspected_bytes, ..Default::default() });
        let packets = scope_packets(result.take_unsent());
        let last = packets.len() - 1;
        let messages = packets.into_iter().enumerate();
        messages.map(|(i, scopes)| message(SearchTagsV2Response { scopes, metrics }, is_over && i == last)).try_for_each(|m| outlet.add(m))
    };
    let mut last = Instant::now();
    while tags.step().await? {
        if last.elapsed() >= INTERVAL && outlet.is_free() {
            add(&mut tags.result, &mut outlet, false)?;
            last = Instant::now();
        }
    }
    let mut result = tags.into_result();
    add(&mut result, &mut outlet, true)?;
    outlet.finish().await?;
    Ok(result.inspected_bytes)
}

async fn run_values<T: Message>(
    mut values: TagValues,
    mut outlet: Outlet<T>,
    message: impl Fn(SearchTagValuesV2Response, bool) -> T,
) -> Result<u64, QueryError> {
    let add = |result: &mut ValueCombiner, outlet: &mut Outlet<T>, is_over: bool| {
        let metrics = Some(MetadataMetrics { inspected_bytes: result.inspected_bytes, ..Default::default() });
        let packets = packets(result.take_unsent());
        let last = packets.len() - 1;
        let messages = packets.into_iter().enumerate();
        let message = |(i, tag_values)| message(SearchTagValuesV2Response { tag_values, metrics }, is_over && i == last);
        messages.map(message).try_for_each(|message| outlet.add(message))
    };
    let mut last = Instant::now();
    while values.step().await? {
        if last.elapsed() >= INTERVAL && outlet.is_free() {
            add(&mut values.result, &mut outlet, false)?;
            last = Instant::now();
        }
    }
    let mut result = values.into_result();
    add(&mut result, &mut outlet, true)?;
    outlet.finish().await?;
    Ok(result.inspected_bytes)
}

/// Messages between have the series that changed since the last one, and the last ones all series: clients keep the last value of
/// each sample.
async fn run_series<T: OfSeries>(
    mut series: Series,
    mut outlet: Outlet<T>,
    message: impl Fn(Counted) -> (T, Charge),
) -> Result<u64, QueryError> {
    let add = |mut answer: T, outlet: &mut Outlet<T>| {
        packets(std::mem::take(answer.series())).into_iter().try_for_each(|series| {
            let mut message = answer.clone();
            *message.series() = series;
            outlet.add(message)
        })
    };
    let mut last = Instant::now();
    let mut sent = Sent::default();
    while series.step().await? {
        if last.elapsed() >= INTERVAL && outlet.is_free() {
            let (mut answer, _held) = message(series.result.counted().await?);
            answer.series().retain(|series| sent.is_news(T::labels(series), series));
            add(answer, &mut outlet)?;
            last = Instant::now();
        }
    }
    let (answer, _held) = message(series.result.counted().await?);
    let inspected_bytes = series.result.inspected_bytes();
    drop(series);
    add(answer, &mut outlet)?;
    outlet.finish().await?;
    Ok(inspected_bytes)
}

/// An answer that has series.
trait OfSeries: Message + Clone + 'static {
    type One: Message;

    fn series(&mut self) -> &mut Vec<Self::One>;

    fn labels(one: &Self::One) -> &[KeyValue];
}

impl OfSeries for QueryRangeResponse {
    type One = TimeSeries;

    fn series(&mut self) -> &mut Vec<TimeSeries> {
        &mut self.series
    }

    fn labels(one: &TimeSeries) -> &[KeyValue] {
        &one.labels
    }
}

impl OfSeries for QueryInstantResponse {
    type One = InstantSeries;

    fn series(&mut self) -> &mut Vec<InstantSeries> {
        &mut self.series
    }

    fn labels(one: &InstantSeries) -> &[KeyValue] {
        &one.labels
    }
}

/// What was sent of each series, by hashes of its labels and of all of it.
#[derive(Default)]
struct Sent(HashMap<u64, u64>);

impl Sent {
    /// Whether a series is not as it was sent last; then it counts as sent.
    fn is_news(&mut self, labels: &[KeyValue], series: &impl Message) -> bool {
        let mut of_labels = DefaultHasher::new();
        labels.iter().for_each(|label| label.encode_to_vec().hash(&mut of_labels));
        let mut of_all = DefaultHasher::new();
        series.encode_to_vec().hash(&mut of_all);
        let of_all = of_all.finish();
        self.0.insert(of_labels.finish(), of_all) != Some(of_all)
    }
}

#[cfg(test)]
mod tests {
    use vivace_proto::otlp::{AnyValue, any_value};
    use vivace_proto::tempopb::{Sample, TraceSearchMetadata};

    use super::*;

    /// Source: docs/facts/clients.md, "Streamed messages are small".
    #[test]
    fn messages_stay_far_below_what_clients_refuse() {
        let trace = |n: usize| TraceSearchMetadata { trace_id: n.to_string(), root_trace_name: "x".repeat(300_000), ..Default::default() };
        let packets = packets((0..10).map(trace).collect());
        assert_eq!(packets.iter().map(Vec::len).sum::<usize>(), 10);
        assert!(packets.iter().all(|traces| traces.iter().map(Message::encoded_len).sum::<usize>() <= MAX_MESSAGE_BYTES));
        assert_eq!(super::packets(Vec::<TraceSearchMetadata>::new()).len(), 1);
        let tags = |scope: &str| SearchTagsV2Scope {
            name: scope.to_owned(),
            tags: (0..5).map(|n| format!("{n}{}", "x".repeat(300_000))).collect(),
        };
        let packets = scope_packets(vec![tags("span"), tags("resource")]);
        assert!(packets.len() > 2 && packets.iter().flatten().flat_map(|scope| &scope.tags).count() == 10);
        assert_eq!(scope_packets(Vec::new()).len(), 1);
    }

    #[test]
    fn only_news_are_sent_between() {
        let series = |name: &str, value| {
            let label = Some(AnyValue { value: Some(any_value::Value::StringValue(name.to_owned())) });
            let labels = vec![KeyValue { key: "k".to_owned(), value: label }];
            TimeSeries { labels, samples: vec![Sample { value, timestamp_ms: 1 }], exemplars: Vec::new() }
        };
        let mut sent = Sent::default();
        let mut is_news = |series: &TimeSeries| sent.is_news(&series.labels, series);
        assert!(is_news(&series("a", 1.0)) && is_news(&series("b", 1.0)));
        assert!(!is_news(&series("a", 1.0)) && is_news(&series("b", 2.0)) && !is_news(&series("b", 2.0)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_does_not_read_ends_its_query() {
        let (messages, mut receiver) = mpsc::channel(1);
        let mut outlet = Outlet::<SearchResponse> { messages, max_bytes: 100, waiting: VecDeque::new() };
        assert!(outlet.is_free());
        outlet.add(SearchResponse::default()).unwrap();
        outlet.add(SearchResponse::default()).unwrap();
        assert!(!outlet.is_free(), "the query goes on meanwhile");
        receiver.recv().await.unwrap().unwrap();
        assert!(!outlet.is_free(), "the second one takes its place");
        outlet.add(SearchResponse::default()).unwrap();
        let trace = TraceSearchMetadata { root_trace_name: "x".repeat(200), ..Default::default() };
        let error = outlet.add(SearchResponse { traces: vec![trace], ..Default::default() }).unwrap_err();
        assert!(error.to_string().contains("more than the 100 of server.grpc_server_max_send_msg_size"), "{error}");
        let error = outlet.finish().await.unwrap_err();
        assert_eq!(error.to_string(), "the client does not take the answer: nothing of it was read for 60 s");
    }
}
