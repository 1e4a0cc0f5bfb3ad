//! A querier whose answers a test makes up.

use std::sync::Arc;

use parking_lot::Mutex;
use prost::Message as _;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_stream::wrappers::ReceiverStream;
use vivace_proto::otlp::{ResourceSpans, ScopeSpans, Span};
use vivace_proto::tempopb::{SearchResponse, Trace, TraceByIdResponse, TraceSearchMetadata};
use vivace_proto::vivace::v1::job::Work;
use vivace_proto::vivace::v1::job_queue_client::JobQueueClient;
use vivace_proto::vivace::v1::{
    Failure, FromQuerier, Hello, Job, JobResult, SeriesPartial, SeriesResponse, StagePartial, from_querier, job_result, to_querier,
};

/// What becomes of a job.
pub(crate) enum Outcome {
    Result(job_result::Outcome),
    /// Well done, but something could not be looked at.
    Incomplete(job_result::Outcome, &'static str),
    /// Well done, but these traces are in several places.
    Split(job_result::Outcome, Vec<u8>),
    /// Never answered.
    Hang,
    /// The stream breaks.
    Break,
}

type Answer = Arc<dyn Fn(&Job) -> Outcome + Send + Sync>;

/// A connected querier; dropped, it disconnects.
pub(crate) struct Querier {
    pub(crate) jobs: Arc<Mutex<Vec<Job>>>,
    pub(crate) cancelled: Arc<Mutex<Vec<u64>>>,
    sender: mpsc::Sender<FromQuerier>,
    _stream: JoinSet<()>,
}

impl Querier {
    pub(crate) async fn connect(grpc: &str, name: &str, concurrency: u32, answer: Answer) -> Self {
        let (sender, outgoing) = mpsc::channel(100);
        let hello = from_querier::Message::Hello(Hello { querier: name.to_owned(), concurrency });
        sender.send(FromQuerier { message: Some(hello) }).await.unwrap();
        let mut client = JobQueueClient::connect(grpc.to_owned()).await.unwrap();
        let mut incoming = client.pull(ReceiverStream::new(outgoing)).await.unwrap().into_inner();
        let jobs = Arc::new(Mutex::new(Vec::<Job>::new()));
        let cancelled = Arc::new(Mutex::new(Vec::new()));
        let to_frontend = sender.clone();
        let (seen, gone) = (jobs.clone(), cancelled.clone());
        let mut stream = JoinSet::new();
        stream.spawn(async move {
            while let Ok(Some(message)) = incoming.message().await {
                let job = match message.message {
                    Some(to_querier::Message::Job(job)) => job,
                    Some(to_querier::Message::Cancel(id)) => {
                        gone.lock().push(id);
                        continue;
                    }
                    None => continue,
                };
                seen.lock().push(job.clone());
                // An answer may block, which must not hold up the runtime.
                let (answer, asked) = (answer.clone(), job.clone());
                let answered = tokio::task::spawn_blocking(move || answer(&asked)).await.unwrap();
                let (outcome, warnings, split) = match answered {
                    Outcome::Result(outcome) => (outcome, Vec::new(), Vec::new()),
                    Outcome::Incomplete(outcome, warning) => (outcome, vec![warning.to_owned()], Vec::new()),
                    Outcome::Split(outcome, split) => (outcome, Vec::new(), split.iter().flat_map(|id| [*id; 16]).collect()),
                    Outcome::Hang => continue,
                    Outcome::Break => return,
                };
                let result = JobResult { id: job.id, outcome: Some(outcome), warnings, split: split.into(), ..Default::default() };
                sender.send(FromQuerier { message: Some(from_querier::Message::Result(result.encode_to_vec().into())) }).await.unwrap();
            }
        });
        Self { jobs, cancelled, sender: to_frontend, _stream: stream }
    }

    /// Wants no further job.
    pub(crate) async fn leave(&self) {
        let hello = from_querier::Message::Hello(Hello::default());
        self.sender.send(FromQuerier { message: Some(hello) }).await.unwrap();
    }
}

/// Nothing is found anywhere.
pub(crate) fn nothing(job: &Job) -> Outcome {
    Outcome::Result(match job.work.as_ref().expect("a job has work") {
        Work::FindRecent(_) | Work::FindInBlocks(_) => job_result::Outcome::Trace(TraceByIdResponse::default()),
        Work::SearchRecent(_) | Work::SearchBlock(_) | Work::SearchRecentTraces(_) | Work::SearchTraces(_) => {
            job_result::Outcome::Search(SearchResponse::default())
        }
        Work::TagsRecent(_) | Work::TagsBlock(_) => job_result::Outcome::Tags(Default::default()),
        Work::TagValuesRecent(_) | Work::TagValuesBlock(_) => job_result::Outcome::TagValues(Default::default()),
        Work::SeriesRecent(_) | Work::SeriesBlock(_) | Work::SeriesTraces(_) => {
            // Of a query with one first stage.
            let partial = SeriesPartial { stages: vec![StagePartial::default()], ..Default::default() };
            job_result::Outcome::Series(SeriesResponse { partial: Some(partial), ..Default::default() })
        }
    })
}

pub(crate) fn failure(message: &str, retryable: bool) -> Outcome {
    Outcome::Result(job_result::Outcome::Failure(Failure { code: 13, message: message.to_owned(), retryable, holds_much: false }))
}

pub(crate) fn found(traces: &[(&str, u64, &str)]) -> Outcome {
    let trace = |(id, start, root): &(&str, u64, &str)| TraceSearchMetadata {
        trace_id: (*id).to_owned(),
        start_time_unix_nano: *start,
        root_service_name: (*root).to_owned(),
        ..Default::default()
    };
    Outcome::Result(job_result::Outcome::Search(SearchResponse { traces: traces.iter().map(trace).collect(), metrics: None }))
}

/// A part of a trace, with a span per id.
pub(crate) fn part(ids: &[u8]) -> job_result::Outcome {
    let span = |id: &u8| Span {
        trace_id: vec![7; 16].into(),
        span_id: vec![*id; 8].into(),
        name: format!("span {id}"),
        start_time_unix_nano: 10,
        end_time_unix_nano: 3,
        ..Default::default()
    };
    let scope = ScopeSpans { spans: ids.iter().map(span).collect(), ..Default::default() };
    let trace = Trace { resource_spans: vec![ResourceSpans { scope_spans: vec![scope], ..Default::default() }] };
    job_result::Outcome::Trace(TraceByIdResponse { trace: Some(trace), ..Default::default() })
}
