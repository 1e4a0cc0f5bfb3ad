//! Bodies of answers: what was made and is not sent yet is paid for, and given up when the client does not take it.

use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Body;
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use http_body::{Body as HttpBody, Frame, SizeHint};
use parking_lot::Mutex;
use tokio::time::Instant;
use tonic::Status;
use vivace_core::budget::{Account, Budget, Charge, OverBudget};

use crate::activity::InFlight;
use crate::request_budget::{RETRY_AFTER, count_refusal, over_budget_status};
use crate::room::HeldUntilSent;

/// Larger pieces of an answer are cut, so that little of it waits where it cannot be given up any more, bytes. Up to this size
/// answers are never refused: what tells of a write that it is stored, or of this process that it is well, is small, and a
/// client holds no more of them than it has requests in flight.
const PIECE_BYTES: usize = 32 << 10;

/// Marks an answer of any size that is never refused.
#[derive(Debug, Clone, Copy)]
pub(crate) struct AlwaysSent;

/// Why an answer ends too early.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AnswerError {
    #[error(transparent)]
    OverBudget(#[from] OverBudget),
    #[error("the client takes nothing of its answer")]
    NotTaken,
    #[error(transparent)]
    Body(axum::Error),
}

/// An answer that is paid for until it is sent.
pub(crate) struct Answer {
    unsent: Arc<Mutex<Unsent>>,
    _in_flight: InFlight,
}

/// What of an answer is not sent yet.
pub(crate) struct Unsent {
    /// None: given up.
    body: Option<Body>,
    /// Made, and too large to be handed over at once.
    rest: Option<(Bytes, Charge)>,
    /// For the only piece of an answer whose size was known from the start.
    prepaid: Option<Charge>,
    /// Since when the client could have taken what was handed over. None: it waits for more.
    since: Option<Instant>,
    budget: Budget,
    is_grpc: bool,
    held: Option<HeldUntilSent>,
}

/// A piece of an answer, and what was paid for it: given back when it was written to the socket.
struct Piece {
    bytes: Bytes,
    _charge: Option<Charge>,
}

impl AsRef<[u8]> for Piece {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Answer {
    /// Pays for an answer. One whose size is known and does not fit is refused as a whole.
    pub(crate) fn of(mut response: Response, is_grpc: bool, budget: &Budget, in_flight: InFlight) -> http::Response<Self> {
        let held = response.extensions_mut().remove::<HeldUntilSent>();
        let is_always_sent = response.extensions().get::<AlwaysSent>().is_some();
        let known_bytes = response.body().size_hint().exact().filter(|bytes| *bytes > 0);
        let (response, prepaid) = match known_bytes.map(|bytes| pay(budget, bytes, is_always_sent)) {
            None => (response, None),
            Some(Ok(charge)) => (response, Some(charge)),
            Some(Err(over)) => (refusal(&over, is_grpc), None),
        };
        response.map(|body| {
            let unsent = Unsent { body: Some(body), rest: None, prepaid, since: None, budget: budget.clone(), is_grpc, held };
            Self { unsent: Arc::new(Mutex::new(unsent)), _in_flight: in_flight }
        })
    }

    /// For those who watch over it.
    pub(crate) fn watched(&self) -> Weak<Mutex<Unsent>> {
        Arc::downgrade(&self.unsent)
    }
}

fn pay(budget: &Budget, bytes: u64, is_always_sent: bool) -> Result<Charge, OverBudget> {
    if !is_always_sent && bytes > PIECE_BYTES as u64 {
        return budget.charge(Account::Answers, bytes);
    }
    let mut charge = budget.open(Account::Answers);
    charge.set_held(bytes);
    Ok(charge)
}

/// The answer in place of one that does not fit.
fn refusal(over: &OverBudget, is_grpc: bool) -> Response {
    count_refusal(over);
    if is_grpc {
        return over_budget_status(over).into_http();
    }
    let mut response = (StatusCode::TOO_MANY_REQUESTS, format!("{over}\n")).into_response();
    if !over.never_fits() {
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(RETRY_AFTER.as_secs()));
    }
    response
}

impl Unsent {
    /// Gives the answer up if the client has taken nothing of it for so long, and frees what is left of it.
    pub(crate) fn give_up(&mut self, timeout: Duration, now: Instant) -> bool {
        let is_stalled = self.since.is_some_and(|since| now.saturating_duration_since(since) > timeout);
        if is_stalled {
            (self.body, self.rest, self.prepaid, self.held) = (None, None, None, None);
        }
        is_stalled
    }

    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, AnswerError>>> {
        let Some(body) = &mut self.body else { return Poll::Ready(Some(self.end(AnswerError::NotTaken))) };
        if let Some((rest, _)) = &mut self.rest {
            // A copy, so that the whole is freed when the client does not come for it.
            let piece = Bytes::copy_from_slice(&rest.split_to(rest.len().min(PIECE_BYTES)));
            if rest.is_empty() {
                self.rest = None;
            }
            // At most one piece for each request is written unpaid, where the account is full of the rest.
            let charge = self.budget.charge(Account::Answers, piece.len() as u64).ok();
            return Poll::Ready(Some(Ok(Frame::data(Bytes::from_owner(Piece { bytes: piece, _charge: charge })))));
        }
        let frame = match std::task::ready!(Pin::new(body).poll_frame(context)) {
            None => {
                self.held = None;
                return Poll::Ready(None);
            }
            Some(Err(error)) => return Poll::Ready(Some(Err(AnswerError::Body(error)))),
            Some(Ok(frame)) => frame,
        };
        let data = match frame.into_data() {
            Ok(data) => data,
            Err(other) => return Poll::Ready(Some(Ok(other))),
        };
        let bytes = data.len() as u64;
        let charge = match self.prepaid.take().filter(|charge| charge.bytes() >= bytes) {
            Some(charge) => Ok(charge),
            None => pay(&self.budget, bytes, false),
        };
        let charge = match charge {
            Ok(charge) => charge,
            Err(over) => {
                count_refusal(&over);
                self.body = None;
                return Poll::Ready(Some(self.end(over.into())));
            }
        };
        if data.len() > PIECE_BYTES {
            self.rest = Some((data, charge));
            return self.poll(context);
        }
        Poll::Ready(Some(Ok(Frame::data(Bytes::from_owner(Piece { bytes: data, _charge: Some(charge) })))))
    }

    /// The last frame of an answer that cannot go on: gRPC has a place for the reason, HTTP has not.
    fn end(&self, error: AnswerError) -> Result<Frame<Bytes>, AnswerError> {
        if !self.is_grpc {
            return Err(error);
        }
        let status = match &error {
            AnswerError::OverBudget(over) => over_budget_status(over),
            AnswerError::NotTaken => Status::deadline_exceeded(error.to_string()),
            AnswerError::Body(_) => return Err(error),
        };
        let mut trailers = HeaderMap::new();
        status.add_header(&mut trailers).map_err(|_| error)?;
        Ok(Frame::trailers(trailers))
    }
}

impl HttpBody for Answer {
    type Data = Bytes;
    type Error = AnswerError;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, AnswerError>>> {
        let mut unsent = self.unsent.lock();
        let polled = unsent.poll(context);
        unsent.since = polled.is_ready().then(Instant::now);
        polled
    }

    fn is_end_stream(&self) -> bool {
        let unsent = self.unsent.lock();
        unsent.rest.is_none() && unsent.body.as_ref().is_some_and(HttpBody::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        let unsent = self.unsent.lock();
        let Some(body) = &unsent.body else { return SizeHint::default() };
        let rest = unsent.rest.as_ref().map_or(0, |(rest, _)| rest.len() as u64);
        let of_body = body.size_hint();
        let mut hint = SizeHint::new();
        hint.set_lower(of_body.lower() + rest);
        if let Some(upper) = of_body.upper() {
            hint.set_upper(upper + rest);
        }
        hint
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::BodyExt as _;

    use crate::activity::Activity;

    fn answer(body: Body, is_grpc: bool, budget: &Budget) -> http::Response<Answer> {
        Answer::of(Response::new(body), is_grpc, budget, Activity::new(Instant::now()).enter())
    }

    fn stream(pieces: Vec<Bytes>) -> Body {
        Body::from_stream(futures::stream::iter(pieces.into_iter().map(Ok::<_, std::io::Error>)))
    }

    #[tokio::test]
    async fn what_is_made_is_paid_until_it_is_written() {
        let budget = Budget::new(1 << 20);
        let text = Bytes::from(vec![7; 100_000]);
        let response = answer(Body::from(text.clone()), false, &budget);
        assert_eq!(response.body().size_hint().exact(), Some(100_000));
        assert_eq!(budget.used_by(Account::Answers), 100_000);
        let mut body = response.into_body();
        let mut pieces = Vec::new();
        while let Some(frame) = body.frame().await {
            pieces.push(frame.expect("a piece").into_data().expect("data"));
        }
        assert!(pieces.iter().all(|piece| piece.len() <= PIECE_BYTES));
        assert_eq!(pieces.concat(), text);
        assert_eq!(budget.used(), 100_000, "copies of all that is not written");
        drop(pieces);
        assert_eq!(budget.used(), 0);
    }

    #[tokio::test]
    async fn what_does_not_fit_is_refused_by_name() {
        let budget = Budget::new(500_000); // a fifth for answers
        let held = budget.charge(Account::Answers, 60_000).expect("fits");
        let response = answer(Body::from(vec![7; 50_000]), false, &budget);
        assert_eq!((response.status(), &response.headers()["retry-after"]), (StatusCode::TOO_MANY_REQUESTS, &HeaderValue::from(1)));
        let text = response.into_body().collect().await.expect("a text").to_bytes();
        assert!(text.starts_with(b"out of memory for answers: 50000 bytes"), "{text:?}");

        let never = answer(Body::from(vec![7; 100_001]), false, &budget);
        assert_eq!((never.status(), never.headers().get("retry-after")), (StatusCode::TOO_MANY_REQUESTS, None));

        let mut streamed = answer(stream(vec![vec![7; 1000].into(), vec![7; 50_000].into()]), true, &budget).into_body();
        assert!(streamed.frame().await.expect("more").expect("fits").is_data());
        let trailers = streamed.frame().await.expect("more").expect("a status").into_trailers().expect("trailers");
        assert_eq!(trailers["grpc-status"], "8");
        drop((held, text, never, streamed));
        assert_eq!(budget.used(), 0);
    }

    #[tokio::test]
    async fn what_is_small_or_tells_how_the_process_is_doing_is_always_sent() {
        let budget = Budget::new(500_000); // a fifth for answers
        let _held = budget.charge(Account::Answers, 100_000).expect("fits");
        assert_eq!(answer(Body::from("ready"), false, &budget).status(), StatusCode::OK);
        let mut streamed = answer(stream(vec![vec![7; 1000].into()]), true, &budget).into_body();
        assert!(streamed.frame().await.expect("more").expect("small").is_data());
        let mut page = Response::new(Body::from(vec![7; 50_000]));
        assert_eq!(answer(Body::from(vec![7; 50_000]), false, &budget).status(), StatusCode::TOO_MANY_REQUESTS);
        page.extensions_mut().insert(AlwaysSent);
        let page = Answer::of(page, false, &budget, Activity::new(Instant::now()).enter());
        assert_eq!(page.status(), StatusCode::OK);
        assert!(budget.used_by(Account::Answers) >= 150_000, "it is in the books all the same");
    }

    #[tokio::test]
    async fn what_nobody_takes_is_given_up() {
        let budget = Budget::new(10 << 20);
        let mut body = answer(stream(vec![vec![7; 1 << 20].into()]), false, &budget).into_body();
        let first = body.frame().await.expect("a piece").expect("fits");
        let watched = body.watched().upgrade().expect("alive");
        assert!(!watched.lock().give_up(Duration::from_secs(30), Instant::now()));
        assert!(watched.lock().give_up(Duration::from_secs(30), Instant::now() + Duration::from_secs(31)));
        assert!(budget.used() <= PIECE_BYTES as u64, "{}", budget.used());
        assert!(matches!(body.frame().await, Some(Err(AnswerError::NotTaken))));
        drop(first);
        assert_eq!(budget.used(), 0);
    }
}
