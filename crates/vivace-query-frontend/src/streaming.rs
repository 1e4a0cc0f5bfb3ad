//! `tempopb.StreamingQuerier`: the same queries, answered in steps. Source: gRPC API facts, 3.

use std::pin::Pin;
use std::time::{Duration, Instant};

use futures::stream::{Stream, StreamExt as _};
use prost::Message;
use tokio::sync::mpsc;
use tonic::{Request, Response, Status};
use vivace_core::TenantId;
use vivace_proto::tempopb::streaming_querier_server::StreamingQuerier;
use vivace_proto::tempopb::{
    MetadataMetrics, QueryInstantRequest, QueryInstantResponse, QueryRangeRequest, QueryRangeResponse, SearchRequest, SearchResponse,
    SearchTagValuesRequest, SearchTagValuesResponse, SearchTagValuesV2Response, SearchTagsRequest, SearchTagsResponse,
    SearchTagsV2Response, TraceSearchMetadata,
};
use vivace_server::tenant;

use crate::combine::{flat, untyped};
use crate::error::QueryError;
use crate::frontend::{Search, TagValues, Tags, attribute_of_v1, intrinsics};
use crate::http::Door;
use crate::metrics::Op;
use crate::query_range::{self, Counted, Series};

/// Least pause between two messages.
const INTERVAL: Duration = Duration::from_millis(500);
/// Clients refuse messages above 4 MiB.
const MAX_MESSAGE_BYTES: usize = 1 << 20;

type Messages<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl StreamingQuerier for Door {
    type SearchStream = Messages<SearchResponse>;
    type SearchTagsStream = Messages<SearchTagsResponse>;
    type SearchTagsV2Stream = Messages<SearchTagsV2Response>;
    type SearchTagValuesStream = Messages<SearchTagValuesResponse>;
    type SearchTagValuesV2Stream = Messages<SearchTagValuesV2Response>;
    type MetricsQueryRangeStream = Messages<QueryRangeResponse>;
    type MetricsQueryInstantStream = Messages<QueryInstantResponse>;

    async fn metrics_query_range(&self, request: Request<QueryRangeRequest>) -> Result<Response<Self::MetricsQueryRangeStream>, Status> {
        let (tenants, request) = self.open(request)?;
        let asked = query_range::Asked::range_message(request, self.frontend.now());
        let series = asked.and_then(|asked| self.frontend.series(&tenants, asked)).map_err(|error| error.grpc_status())?;
        Ok(self.stream(tenants, Op::Metrics, |messages| run_series(series, messages, Counted::into_range)))
    }

    async fn metrics_query_instant(
        &self,
        request: Request<QueryInstantRequest>,
    ) -> Result<Response<Self::MetricsQueryInstantStream>, Status> {
        let (tenants, request) = self.open(request)?;
        let asked = query_range::Asked::instant_message(request, self.frontend.now());
        let series = asked.and_then(|asked| self.frontend.series(&tenants, asked)).map_err(|error| error.grpc_status())?;
        Ok(self.stream(tenants, Op::Metrics, |messages| run_series(series, messages, Counted::into_instant)))
    }

    async fn search(&self, request: Request<SearchRequest>) -> Result<Response<Self::SearchStream>, Status> {
        let (tenants, request) = self.open(request)?;
        let search = self.frontend.search(&tenants, request).map_err(|error| error.grpc_status())?;
        Ok(self.stream(tenants, Op::Search, |messages| run_search(search, messages)))
    }

    async fn search_tags(&self, request: Request<SearchTagsRequest>) -> Result<Response<Self::SearchTagsStream>, Status> {
        let (tenants, request) = self.open(request)?;
        let added = intrinsics(&request.scope).filter(|_| request.scope == "intrinsic");
        let tags = self.frontend.tags(&tenants, request).map_err(|error| error.grpc_status())?;
        let message = move |mut answer: SearchTagsV2Response, is_last: bool| {
            answer.scopes.extend(added.clone().filter(|_| is_last));
            SearchTagsResponse { tag_names: flat(answer.scopes), metrics: answer.metrics }
        };
        Ok(self.stream(tenants, Op::Metadata, |messages| run_tags(tags, messages, message)))
    }

    async fn search_tags_v2(&self, request: Request<SearchTagsRequest>) -> Result<Response<Self::SearchTagsV2Stream>, Status> {
        let (tenants, request) = self.open(request)?;
        let added = intrinsics(&request.scope);
        let tags = self.frontend.tags(&tenants, request).map_err(|error| error.grpc_status())?;
        let message = move |mut answer: SearchTagsV2Response, is_last: bool| {
            answer.scopes.extend(added.clone().filter(|_| is_last));
            answer
        };
        Ok(self.stream(tenants, Op::Metadata, |messages| run_tags(tags, messages, message)))
    }

    async fn search_tag_values(&self, request: Request<SearchTagValuesRequest>) -> Result<Response<Self::SearchTagValuesStream>, Status> {
        let (tenants, mut request) = self.open(request)?;
        let (identifier, added) = attribute_of_v1(&request.tag_name);
        request.tag_name = identifier;
        let values = self.frontend.tag_values(&tenants, request).map_err(|error| error.grpc_status())?;
        let message = move |answer: SearchTagValuesV2Response, is_last: bool| {
            let mut tag_values = untyped(answer.tag_values);
            tag_values.extend(added.iter().filter(|_| is_last).map(|value| (*value).to_owned()));
            tag_values.sort_unstable();
            tag_values.dedup();
            SearchTagValuesResponse { tag_values, metrics: answer.metrics }
        };
        Ok(self.stream(tenants, Op::Metadata, |messages| run_values(values, messages, message)))
    }

    async fn search_tag_values_v2(
        &self,
        request: Request<SearchTagValuesRequest>,
    ) -> Result<Response<Self::SearchTagValuesV2Stream>, Status> {
        let (tenants, request) = self.open(request)?;
        let values = self.frontend.tag_values(&tenants, request).map_err(|error| error.grpc_status())?;
        Ok(self.stream(tenants, Op::Metadata, |messages| run_values(values, messages, |answer, _| answer)))
    }
}

impl Door {
    fn open<T>(&self, request: Request<T>) -> Result<(Vec<TenantId>, T), Status> {
        let tenants = self.tenants(request.metadata().as_ref()).map_err(|error| tenant::grpc_error(&error))?;
        Ok((tenants, request.into_inner()))
    }

    /// Messages of a query that is driven by whoever reads them: a client that leaves ends the query.
    /// The query yields the bytes it has inspected.
    fn stream<T: Send + 'static, F>(
        &self,
        tenants: Vec<TenantId>,
        op: Op,
        query: impl FnOnce(mpsc::Sender<T>) -> F,
    ) -> Response<Messages<T>>
    where
        F: Future<Output = Result<u64, QueryError>> + Send + 'static,
    {
        let (sender, mut receiver) = mpsc::channel(1);
        let (door, query) = (self.clone(), query(sender));
        let run = async move { door.timed(&tenants, op, |inspected| *inspected, query).await };
        // The query and its messages end together: the query holds the only sender.
        let end = futures::stream::once(run).filter_map(|result| async move { result.err().map(|error| Err(error.grpc_status())) });
        let messages = futures::stream::poll_fn(move |context| receiver.poll_recv(context)).map(Ok);
        Response::new(Box::pin(futures::stream::select(messages, end)))
    }
}

async fn run_search(mut search: Search, messages: mpsc::Sender<SearchResponse>) -> Result<u64, QueryError> {
    let mut last = Instant::now();
    while search.step().await? {
        if last.elapsed() >= INTERVAL {
            let metrics = Some(search.result.metrics());
            for traces in packets(search.result.take_presentable()) {
                send(&messages, SearchResponse { traces, metrics }).await;
            }
            last = Instant::now();
        }
    }
    let SearchResponse { traces, metrics } = search.result.finish();
    for traces in packets(traces) {
        send(&messages, SearchResponse { traces, metrics }).await;
    }
    Ok(metrics.map_or(0, |metrics| metrics.inspected_bytes))
}

/// Cuts traces into messages that clients take; at least one message.
fn packets(traces: Vec<TraceSearchMetadata>) -> Vec<Vec<TraceSearchMetadata>> {
    let mut packets = vec![Vec::new()];
    let mut bytes = 0;
    for trace in traces {
        let size = trace.encoded_len();
        if bytes > 0 && bytes + size > MAX_MESSAGE_BYTES {
            packets.push(Vec::new());
            bytes = 0;
        }
        bytes += size;
        packets.last_mut().expect("there is one from the start").push(trace);
    }
    packets
}

async fn run_tags<T>(
    mut tags: Tags,
    messages: mpsc::Sender<T>,
    message: impl Fn(SearchTagsV2Response, bool) -> T,
) -> Result<u64, QueryError> {
    let mut last = Instant::now();
    loop {
        let more = tags.step().await?;
        if !more || last.elapsed() >= INTERVAL {
            let metrics = Some(MetadataMetrics { inspected_bytes: tags.result.inspected_bytes, ..Default::default() });
            let scopes = tags.result.take_unsent();
            send(&messages, message(SearchTagsV2Response { scopes, metrics }, !more)).await;
            last = Instant::now();
        }
        if !more {
            return Ok(tags.result.inspected_bytes);
        }
    }
}

async fn run_values<T>(
    mut values: TagValues,
    messages: mpsc::Sender<T>,
    message: impl Fn(SearchTagValuesV2Response, bool) -> T,
) -> Result<u64, QueryError> {
    let mut last = Instant::now();
    loop {
        let more = values.step().await?;
        if !more || last.elapsed() >= INTERVAL {
            let metrics = Some(MetadataMetrics { inspected_bytes: values.result.inspected_bytes, ..Default::default() });
            let tag_values = values.result.take_unsent();
            send(&messages, message(SearchTagValuesV2Response { tag_values, metrics }, !more)).await;
            last = Instant::now();
        }
        if !more {
            return Ok(values.result.inspected_bytes);
        }
    }
}

/// Every message has all series as far as they are counted: clients keep the last value of each sample.
async fn run_series<T>(mut series: Series, messages: mpsc::Sender<T>, message: impl Fn(Counted) -> T) -> Result<u64, QueryError> {
    let mut last = Instant::now();
    loop {
        let more = series.step().await?;
        if !more || last.elapsed() >= INTERVAL {
            send(&messages, message(series.result.counted().await?)).await;
            last = Instant::now();
        }
        if !more {
            return Ok(series.result.inspected_bytes());
        }
    }
}

/// A client that has left takes no more; its query is dropped with the stream.
async fn send<T>(messages: &mpsc::Sender<T>, message: T) {
    let _ = messages.send(message).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Client facts, trap 7.
    #[test]
    fn messages_stay_far_below_what_clients_refuse() {
        let trace = |n: usize| TraceSearchMetadata { trace_id: n.to_string(), root_trace_name: "x".repeat(300_000), ..Default::default() };
        let packets = packets((0..10).map(trace).collect());
        assert_eq!(packets.iter().map(Vec::len).sum::<usize>(), 10);
        assert!(packets.iter().all(|traces| traces.iter().map(Message::encoded_len).sum::<usize>() <= MAX_MESSAGE_BYTES));
        assert_eq!(super::packets(Vec::new()).len(), 1);
    }
}
