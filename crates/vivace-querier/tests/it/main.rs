//! A querier between a query-frontend and ingesters that the test plays, over a bucket in memory.

mod blocks;
mod recent;
mod system;
mod whole_traces;

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use parking_lot::Mutex;
use prost::Message;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::{Request, Response, Status, Streaming};
use vivace_config::Config;
use vivace_core::TenantId;
use vivace_proto::otlp::{Span, TracesData};
use vivace_proto::tempopb::querier_server::{Querier, QuerierServer};
use vivace_proto::tempopb::{
    SearchRequest, SearchResponse, SearchTagValuesRequest, SearchTagValuesV2Response, SearchTagsRequest, SearchTagsV2Response,
    SearchTagsV2Scope, Trace, TraceByIdRequest, TraceByIdResponse, TraceSearchMetadata,
};
use vivace_proto::vivace::v1::job_queue_server::{JobQueue, JobQueueServer};
use vivace_proto::vivace::v1::job_result::Outcome;
use vivace_proto::vivace::v1::recent_server::{Recent, RecentServer};
use vivace_proto::vivace::v1::{
    CountPlacesRequest, CountPlacesResponse, Failure, FromQuerier, Hello, Job, JobResult, SearchPartsRequest, SearchPartsResponse,
    SeriesFromIngester, SeriesToIngester, SpansRequest, SpansResponse, ToQuerier, TracePart, from_querier, job::Work, to_querier,
};
use vivace_ring::{Instance, Ring, Role, State};
use vivace_server::{Process, Shutdown, clock};
use vivace_storage::{Bucket, PollOptions, Poller};
use vivace_testkit::TraceBuilder;

/// Longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(20);

/// Gives out jobs and takes results, as a query-frontend does.
struct Frontend {
    hello: Hello,
    jobs: mpsc::Sender<Result<ToQuerier, Status>>,
    results: Streaming<FromQuerier>,
    next_id: u64,
}

type Stream = (mpsc::Sender<Result<ToQuerier, Status>>, Streaming<FromQuerier>);

struct Queue {
    streams: mpsc::Sender<Stream>,
}

#[tonic::async_trait]
impl JobQueue for Queue {
    type PullStream = ReceiverStream<Result<ToQuerier, Status>>;

    async fn pull(&self, request: Request<Streaming<FromQuerier>>) -> Result<Response<Self::PullStream>, Status> {
        let (jobs, outgoing) = mpsc::channel(100);
        self.streams.send((jobs, request.into_inner())).await.map_err(|_| Status::unavailable("the test is over"))?;
        Ok(Response::new(ReceiverStream::new(outgoing)))
    }
}

impl Frontend {
    async fn accept(streams: &mut mpsc::Receiver<Stream>) -> Self {
        let (jobs, mut results) = tokio::time::timeout(PATIENCE, streams.recv()).await.expect("a querier comes").expect("a stream");
        match results.message().await.expect("a message").and_then(|m| m.message) {
            Some(from_querier::Message::Hello(hello)) => Self { hello, jobs, results, next_id: 1 },
            other => panic!("expected hello, got {other:?}"),
        }
    }

    async fn send(&mut self, message: to_querier::Message) {
        self.jobs.send(Ok(ToQuerier { message: Some(message) })).await.expect("the querier listens");
    }

    async fn give(&mut self, work: Work) -> u64 {
        let id = self.next_id;
        self.next_id += 1;
        self.send(to_querier::Message::Job(Job { id, tenant: "single-tenant".to_owned(), work: Some(work), ..Job::default() })).await;
        id
    }

    async fn result(&mut self) -> JobResult {
        let message = tokio::time::timeout(PATIENCE, self.results.next()).await.expect("a result in time").expect("a message");
        match message.expect("no error").message {
            Some(from_querier::Message::Result(result)) => JobResult::decode(result).expect("a result"),
            other => panic!("expected a result, got {other:?}"),
        }
    }

    async fn run(&mut self, work: Work) -> JobResult {
        let id = self.give(work).await;
        let result = self.result().await;
        assert_eq!(result.id, id);
        result
    }
}

fn failure(result: JobResult) -> Failure {
    match result.outcome {
        Some(Outcome::Failure(failure)) => failure,
        other => panic!("expected a failure, got {other:?}"),
    }
}

/// What an ingester says.
#[derive(Debug, Default)]
struct Says {
    own: Vec<TracesData>,
    /// By primary.
    held: HashMap<String, Vec<TracesData>>,
    fails: bool,
    /// Never answers.
    hangs: bool,
    /// The `answering` of every request.
    asked: Vec<Vec<String>>,
}

type Messages<T> = Pin<Box<dyn futures::Stream<Item = Result<T, Status>> + Send>>;

fn messages<T: Send + 'static>(messages: impl Iterator<Item = T> + Send + 'static) -> Messages<T> {
    Box::pin(futures::stream::iter(messages.map(Ok)))
}

#[derive(Clone, Default)]
struct Ingester(Arc<Mutex<Says>>);

impl Ingester {
    async fn answer(&self, answering: Vec<String>) -> Result<Vec<TracesData>, Status> {
        if self.0.lock().hangs {
            std::future::pending::<()>().await;
        }
        let mut says = self.0.lock();
        says.asked.push(answering.clone());
        if says.fails {
            return Err(Status::internal("the disk is on fire"));
        }
        let held = says.held.iter().filter(|(primary, _)| !answering.contains(primary)).flat_map(|(_, held)| held);
        Ok(says.own.iter().chain(held).cloned().collect())
    }
}

#[tonic::async_trait]
impl Querier for Ingester {
    async fn find_trace_by_id(&self, request: Request<TraceByIdRequest>) -> Result<Response<TraceByIdResponse>, Status> {
        let tenant = request.metadata().get("x-scope-orgid").and_then(|t| t.to_str().ok()).map(str::to_owned);
        assert_eq!(tenant.as_deref(), Some("single-tenant"));
        let resource_spans = self.answer(request.into_inner().answering).await?.into_iter().flat_map(|d| d.resource_spans).collect();
        Ok(Response::new(TraceByIdResponse { trace: Some(Trace { resource_spans }), ..Default::default() }))
    }

    async fn search_recent(&self, request: Request<SearchRequest>) -> Result<Response<SearchResponse>, Status> {
        let request = request.into_inner();
        if request.query == "{" {
            return Err(Status::invalid_argument("a brace is missing"));
        }
        let data = self.answer(request.answering).await?;
        let traces = data.iter().flat_map(|d| &d.resource_spans).flat_map(|r| &r.scope_spans).flat_map(|s| &s.spans);
        let traces = traces
            .map(|span| TraceSearchMetadata {
                trace_id: format!("{:x?}", span.trace_id),
                root_trace_name: if span.parent_span_id.is_empty() { span.name.clone() } else { String::new() },
                start_time_unix_nano: span.start_time_unix_nano,
                ..Default::default()
            })
            .collect();
        Ok(Response::new(SearchResponse { traces, metrics: None }))
    }

    async fn search_tags_v2(&self, request: Request<SearchTagsRequest>) -> Result<Response<SearchTagsV2Response>, Status> {
        let tags = self.answer(request.into_inner().answering).await?;
        let tags = tags.iter().flat_map(|d| &d.resource_spans).flat_map(|r| r.resource.iter().flat_map(|r| &r.attributes));
        let tags = tags.map(|a| a.key.clone()).collect();
        let scopes = vec![SearchTagsV2Scope { name: "resource".to_owned(), tags }];
        Ok(Response::new(SearchTagsV2Response { scopes, metrics: None }))
    }

    async fn search_tag_values_v2(&self, _: Request<SearchTagValuesRequest>) -> Result<Response<SearchTagValuesV2Response>, Status> {
        Ok(Response::new(SearchTagValuesV2Response::default()))
    }
}

#[tonic::async_trait]
impl Recent for Ingester {
    type SearchStream = Messages<SearchResponse>;

    /// A message for each trace.
    async fn search(&self, request: Request<SearchRequest>) -> Result<Response<Self::SearchStream>, Status> {
        let SearchResponse { traces, metrics } = self.search_recent(request).await?.into_inner();
        let last = SearchResponse { traces: Vec::new(), metrics };
        let pieces = traces.into_iter().map(|trace| SearchResponse { traces: vec![trace], metrics: None });
        Ok(Response::new(messages(pieces.chain([last]))))
    }

    type SearchPartsStream = Messages<SearchPartsResponse>;

    /// Takes every trace for one that matches.
    async fn search_parts(&self, request: Request<SearchPartsRequest>) -> Result<Response<Self::SearchPartsStream>, Status> {
        let data = self.answer(request.into_inner().request.unwrap_or_default().answering).await?;
        let spans = data.iter().flat_map(|d| &d.resource_spans).flat_map(|r| &r.scope_spans).flat_map(|s| &s.spans);
        let part = |span: &Span| TracePart {
            trace_id: span.trace_id.clone(),
            start_unix_nanos: span.start_time_unix_nano,
            end_unix_nanos: span.end_time_unix_nano,
        };
        let candidates: Vec<TracePart> = spans.map(part).collect();
        let trace = |part: &TracePart| TraceSearchMetadata {
            trace_id: vivace_core::TraceId::from_slice(&part.trace_id).trimmed_hex(),
            start_time_unix_nano: part.start_unix_nanos,
            ..Default::default()
        };
        let found = candidates.iter().map(trace).map(|trace| SearchPartsResponse {
            found: Some(SearchResponse { traces: vec![trace], metrics: None }),
            ..SearchPartsResponse::default()
        });
        let found: Vec<_> = found.collect();
        let last = SearchPartsResponse { candidates, places: 1, ..SearchPartsResponse::default() };
        Ok(Response::new(messages(found.into_iter().chain([last]))))
    }

    async fn count_places(&self, request: Request<CountPlacesRequest>) -> Result<Response<CountPlacesResponse>, Status> {
        let CountPlacesRequest { trace_ids, answering, .. } = request.into_inner();
        let data = self.answer(answering).await?;
        let spans = data.iter().flat_map(|d| &d.resource_spans).flat_map(|r| &r.scope_spans).flat_map(|s| &s.spans);
        let held: Vec<&[u8]> = spans.map(|span| &span.trace_id[..]).collect();
        let counts = trace_ids.chunks(16).map(|id| u8::from(held.contains(&id))).collect::<Vec<u8>>();
        Ok(Response::new(CountPlacesResponse { counts: counts.into() }))
    }

    type SeriesStream = Messages<SeriesFromIngester>;

    async fn series(&self, _: Request<Streaming<SeriesToIngester>>) -> Result<Response<Self::SeriesStream>, Status> {
        Err(Status::unimplemented("no test asks a made up ingester to count"))
    }

    type SpansStream = Messages<SpansResponse>;

    async fn spans(&self, request: Request<SpansRequest>) -> Result<Response<Self::SpansStream>, Status> {
        let SpansRequest { trace_ids, answering, .. } = request.into_inner();
        let mut data = self.answer(answering).await?;
        let scopes = data.iter_mut().flat_map(|d| &mut d.resource_spans).flat_map(|r| &mut r.scope_spans);
        scopes.for_each(|scope| scope.spans.retain(|span| trace_ids.chunks(16).any(|id| id == &span.trace_id[..])));
        Ok(Response::new(messages(data.into_iter().map(|data| SpansResponse { spans: data.encode_to_vec().into(), ..Default::default() }))))
    }
}

/// A running querier and everything around it.
struct Cluster {
    frontend: Frontend,
    ingesters: Vec<Ingester>,
    bucket: Bucket,
    poller: Poller,
    shutdown: Shutdown,
    tasks: JoinSet<()>,
}

impl Cluster {
    /// Ingesters `ingester-0`, `ingester-1`, …; those in `dead` are in the ring and gone.
    async fn start(ingesters: usize, dead: &[usize], replication_factor: usize) -> Self {
        Self::start_with(ingesters, dead, |config| config.ingester.lifecycler.ring.replication_factor = replication_factor).await
    }

    async fn start_with(ingesters: usize, dead: &[usize], change: impl FnOnce(&mut Config)) -> Self {
        let mut tasks = JoinSet::new();
        let mut members = Vec::new();
        let mut fakes = Vec::new();
        for n in 0..ingesters {
            let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
            members.push(Instance {
                id: format!("ingester-{n}"),
                role: Role::Ingester,
                addr: listener.local_addr().expect("bound").to_string(),
                zone: String::new(),
                state: State::Active,
                alive: !dead.contains(&n),
                registered_unix_seconds: 0,
                last_heartbeat_unix_nanos: 0,
            });
            let ingester = Ingester::default();
            fakes.push(ingester.clone());
            let server = tonic::transport::Server::builder()
                .add_service(QuerierServer::new(ingester.clone()))
                .add_service(RecentServer::new(ingester));
            tasks.spawn(async move { server.serve_with_incoming(TcpListenerStream::new(listener)).await.expect("serves") });
        }
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("bound").to_string();
        let (streams, mut accepted) = mpsc::channel(4);
        let server = tonic::transport::Server::builder().add_service(JobQueueServer::new(Queue { streams }));
        tasks.spawn(async move { server.serve_with_incoming(TcpListenerStream::new(listener)).await.expect("serves") });

        let mut config = Config::default();
        config.querier.frontend_worker.frontend_address = address;
        change(&mut config);
        let bucket = Bucket::memory();
        let poller = Poller::reader(bucket.clone(), PollOptions::from(&config.storage.trace), clock::unix_nanos);
        poller.poll_once().await.expect("polled");
        let mut process = Box::pin(Process::test_with(&config, "vivace-querier")).await.expect("starts");
        let ring = Ring::fixed(Role::Ingester, members);
        vivace_querier::start(&config, "querier-a", ring, bucket.clone(), poller.clone(), &mut process);
        let shutdown = process.shutdown();
        tasks.spawn(async move { process.run().await.expect("ends well") });
        let frontend = Frontend::accept(&mut accepted).await;
        Self { frontend, ingesters: fakes, bucket, poller, shutdown, tasks }
    }

    /// Ends the querier, which must end by itself.
    async fn stop(mut self) {
        self.shutdown.begin();
        drop(self.frontend);
        let querier_ended = self.tasks.join_next();
        tokio::time::timeout(PATIENCE, querier_ended).await.expect("the querier ends").expect("a task").expect("no panic");
    }
}

/// Spans `first..end` of a trace; equal numbers are equal spans.
fn trace(number: u64, first: usize, end: usize) -> TracesData {
    let mut builder = TraceBuilder::new(number, "shop", 1_800_000_000_000_000_000);
    for n in 0..end {
        builder = builder.span(&format!("span {n}"), &[vivace_testkit::attribute("n", &n.to_string())]);
    }
    let mut data = builder.build();
    data.resource_spans[0].scope_spans[0].spans.drain(..first);
    data
}

fn id(number: u64) -> vivace_proto::Bytes {
    TraceBuilder::new(number, "", 0).trace_id().to_vec().into()
}

/// The names of a found trace's spans, sorted.
fn names(result: &JobResult) -> Vec<String> {
    let Some(Outcome::Trace(answer)) = &result.outcome else { panic!("expected a trace, got {result:?}") };
    let resources = answer.trace.iter().flat_map(|t| &t.resource_spans);
    let mut names: Vec<String> = resources.flat_map(|r| &r.scope_spans).flat_map(|s| &s.spans).map(|s| s.name.clone()).collect();
    names.sort();
    names
}

/// Stores a block and gives its meta.
async fn store(bucket: &Bucket, block: u8, traces: &[TracesData]) -> vivace_block::BlockMeta {
    let bytes: Vec<Vec<u8>> = traces.iter().map(Message::encode_to_vec).collect();
    let mut by_id: std::collections::BTreeMap<_, Vec<_>> = Default::default();
    for bytes in &bytes {
        vivace_core::otlp::walk_spans(bytes, |at, span| {
            let span_ref = vivace_block::SpanRef { resource: at.resource, scope: at.scope, span: span.bytes };
            by_id.entry(span.trace()).or_default().push(span_ref);
        })
        .expect("valid");
    }
    let file = tempfile::NamedTempFile::new().expect("a file");
    let out = std::fs::File::create(file.path()).expect("a file");
    let block_id = vivace_core::BlockId([block; 16]);
    let mut writer = vivace_block::BlockWriter::new(Default::default(), TenantId::single(), block_id, out, 10).expect("starts");
    by_id.iter().for_each(|(id, spans)| writer.push_trace(*id, spans).expect("ascending"));
    let finished = writer.finish().expect("finished");
    bucket.put_block(&finished.meta, file.path(), finished.blooms, finished.index).await.expect("stored");
    finished.meta
}
