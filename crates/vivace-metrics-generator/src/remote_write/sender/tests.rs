//! What is lost, and what is not, when a receiver does not take one series.

use axum::body::Bytes;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::post;
use parking_lot::Mutex;
use prost::Message as _;
use vivace_config::{Config, Limits};
use vivace_proto::prometheus::{Label, TimeSeries, WriteRequest};

use super::super::Room;
use super::*;

/// Answers with a status while a request has the series "bad", or with another one to the first requests; remembers what it took.
#[derive(Debug, Default)]
struct Receiver {
    status: u16,
    first: Mutex<Vec<u16>>,
    taken: Mutex<Vec<Vec<String>>>,
    refused: AtomicU64,
}

async fn write(State(receiver): State<Arc<Receiver>>, body: Bytes) -> StatusCode {
    let message = snap::raw::Decoder::new().decompress_vec(&body).expect("snappy");
    let series = WriteRequest::decode(message.as_slice()).expect("a write request").timeseries;
    let names: Vec<String> = series.into_iter().map(|series| series.labels[0].value.clone()).collect();
    let first = receiver.first.lock().pop();
    let status = first.unwrap_or(if names.iter().any(|name| name == "bad") { receiver.status } else { 200 });
    if status == 200 {
        receiver.taken.lock().push(names);
    } else {
        receiver.refused.fetch_add(1, Ordering::Relaxed);
    }
    StatusCode::from_u16(status).expect("a status")
}

/// Sends the requests, each of one collection, until none is left.
async fn send(receiver: Receiver, requests: &[&[&str]]) -> Arc<Receiver> {
    let receiver = Arc::new(receiver);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("bound"));
    let router = axum::Router::new().route("/", post(write)).with_state(receiver.clone());
    let mut serving = JoinSet::new();
    serving.spawn(async move { axum::serve(listener, router).await.expect("serves") });

    let text = format!(
        "metrics_generator: {{storage: {{remote_write: [{{url: '{url}', queue_config: {{min_backoff: 1ms, max_backoff: 5ms}}}}]}}}}"
    );
    let (config, _) = Config::parse(&text, "t").expect("it is right");
    let mut target = Target::new(&config.metrics_generator.storage.remote_write[0]).expect("usable");
    target.patience = Duration::from_millis(20);
    let folder = tempfile::tempdir().expect("a folder");
    let backlog = Arc::new(Backlog::open(folder.path().join("a"), Room::new(1 << 20, 1 << 20)).expect("opened"));
    let series = |name: &&str| {
        let label = Label { name: "__name__".to_owned(), value: (*name).to_owned() };
        TimeSeries { labels: vec![label], ..TimeSeries::default() }
    };
    for (unix_millis, names) in (1..).zip(requests) {
        let body = encode(names.iter().map(series).collect(), Vec::new());
        backlog.put(unix_millis, names.len() as u64, &body).expect("written");
    }
    backlog.close();
    let sender = Sender {
        target: Arc::new(target),
        tenant: TenantId::single(),
        overrides: Overrides::fixed(Limits::default()),
        names_tenant: false,
        backlog,
        taken: Arc::default(),
        takes_no_parts: Arc::default(),
    };
    tokio::time::timeout(Duration::from_secs(30), sender.run(CancellationToken::new())).await.expect("nothing is in the way for ever");
    receiver
}

fn taken(receiver: &Receiver) -> Vec<String> {
    receiver.taken.lock().concat()
}

/// Prometheus says 400 to a sample that is out of order, and 500 to some that it never takes.
#[tokio::test]
async fn a_series_that_is_never_taken_costs_no_other() {
    for status in [400, 413, 422, 500] {
        let receiver = Receiver { status, ..Receiver::default() };
        let receiver = send(receiver, &[&["a", "b", "bad", "c", "d"], &["next"]]).await;
        assert_eq!(taken(&receiver), ["a", "b", "c", "d", "next"], "{status}");
    }
}

#[tokio::test]
async fn a_receiver_that_refuses_everything_is_not_asked_for_parts_again() {
    // The first request and its halves, and the two after it.
    let receiver = Receiver { first: Mutex::new(vec![400; 5]), ..Receiver::default() };
    let receiver = send(receiver, &[&["a", "b"], &["c", "d"], &["e", "f"], &["g", "h"]]).await;
    assert_eq!(taken(&receiver), ["g", "h"], "halves of the first are asked for, and none of the others");
    // What says nothing of the content is refused as a whole.
    let receiver = send(Receiver { first: Mutex::new(vec![404]), ..Receiver::default() }, &[&["a", "b"], &["c"]]).await;
    assert_eq!((taken(&receiver).concat(), receiver.refused.load(Ordering::Relaxed)), ("c".to_owned(), 1));
}

/// One that is overloaded, or starts, gets all in the end.
#[tokio::test]
async fn a_receiver_that_fails_for_a_while_loses_nothing() {
    for status in [500, 503] {
        let receiver = Receiver { first: Mutex::new(vec![status; 60]), ..Receiver::default() };
        let receiver = send(receiver, &[&["a", "b", "c"], &["d"]]).await;
        let mut names = taken(&receiver);
        names.dedup();
        names.sort();
        names.dedup();
        assert_eq!(names, ["a", "b", "c", "d"], "{status}");
        assert_eq!(receiver.taken.lock().last(), Some(&vec!["d".to_owned()]), "in its order");
    }
}
