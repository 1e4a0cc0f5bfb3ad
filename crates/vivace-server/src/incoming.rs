//! Bodies of requests, paid for as they arrive.

use std::error::Error;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use hyper::body::Incoming;
use parking_lot::Mutex;
use tokio::time::{Instant, Sleep};
use tonic::Status;
use vivace_core::budget::OverBudget;

use crate::activity::{Activity, UnfinishedBody};
use crate::request_budget::{RequestBudget, RequestCharge, over_budget_status};

/// How slowly something may come where no time is set for the whole of it: this long, and a second more for so many bytes that
/// have come.
const PATIENCE: Duration = Duration::from_secs(60);
const BYTES_PER_SECOND_MIN: u64 = 1 << 10;

/// What is kept for a body of announced length from its first byte on, at most, so that who was let in can end; of more it is only seen
/// whether it would fit, since who announces much and sends it slowly shall not keep others out.
const RESERVED_BYTES_MAX: u64 = 512 << 10;
/// Frames below this are copied out of the connection's read buffer, which they would keep whole, bytes.
const COPIED_BYTES_MAX: usize = 64 << 10;

/// Why a request's body was not read to its end.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    /// There is no memory for it.
    #[error("{over}")]
    OverBudget {
        /// What did not fit.
        over: OverBudget,
        /// The same as a gRPC status.
        #[source]
        status: Status,
    },
    /// The client takes too long.
    #[error("the request did not arrive within {timeout:?}")]
    TooSlow {
        /// How long was waited.
        timeout: Duration,
        /// The same as a gRPC status.
        #[source]
        status: Status,
    },
    /// The messages in it are not as gRPC has them.
    #[error("{}", .0.message())]
    Grpc(#[source] Status),
    /// The connection has ended.
    #[error(transparent)]
    Connection(#[from] hyper::Error),
}

impl BodyError {
    /// In the chain of an error that reading a body ended with.
    #[must_use]
    pub fn of<'e>(error: &'e (dyn Error + 'static)) -> Option<&'e Self> {
        let mut next = Some(error);
        while let Some(error) = next {
            if let Some(found) = error.downcast_ref() {
                return Some(found);
            }
            next = error.source();
        }
        None
    }

    pub(crate) fn too_slow(timeout: Duration) -> Self {
        Self::TooSlow { timeout, status: Status::deadline_exceeded(format!("the request did not arrive within {timeout:?}")) }
    }
}

impl From<OverBudget> for BodyError {
    fn from(over: OverBudget) -> Self {
        Self::OverBudget { status: over_budget_status(&over), over }
    }
}

/// What a request holds: shared between its body and whoever works on it, so that it is given back when both are done.
pub(crate) type Held = Arc<Mutex<RequestCharge>>;

/// A body of HTTP, of known length or in chunks.
pub(crate) struct PlainBody {
    inner: Incoming,
    held: Held,
    /// Of what is held, so much was taken before it came.
    reserved_bytes: u64,
    /// For what the connection reads ahead until the end has come.
    read_ahead: Option<RequestCharge>,
    /// Does not fit from the start.
    refused: Option<OverBudget>,
    /// What comes after a refusal is not charged: it is there to be thrown away.
    is_waste: bool,
    received_bytes: u64,
    deadline: Deadline,
    /// Until the end has come.
    unfinished: Option<UnfinishedBody>,
}

impl PlainBody {
    /// `timeout`: for the whole body; zero is no limit. `read_ahead_bytes`: what the connection may hold of it unread.
    pub(crate) fn new(
        inner: Incoming,
        budget: &RequestBudget,
        held: Held,
        timeout: Duration,
        activity: &Arc<Activity>,
        read_ahead_bytes: u64,
    ) -> Self {
        let announced = inner.size_hint().exact().unwrap_or_default();
        let reserved_bytes = announced.min(RESERVED_BYTES_MAX);
        let is_open = !inner.is_end_stream();
        let taken = budget
            .check(announced)
            .and_then(|()| budget.charge(if is_open { read_ahead_bytes } else { 0 }))
            .and_then(|read_ahead| held.lock().grow(reserved_bytes).map(|()| read_ahead));
        let (read_ahead, refused) = match taken {
            Ok(read_ahead) => (Some(read_ahead), None),
            Err(over) => (None, Some(over)),
        };
        let unfinished = is_open.then(|| activity.begin_body());
        Self {
            inner,
            held,
            reserved_bytes,
            read_ahead,
            refused,
            is_waste: false,
            received_bytes: 0,
            deadline: Deadline::new(timeout),
            unfinished,
        }
    }
}

impl HttpBody for PlainBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = &mut *self;
        if let Some(over) = this.refused.take() {
            this.is_waste = true;
            return Poll::Ready(Some(Err(over.into())));
        }
        let Poll::Ready(frame) = Pin::new(&mut this.inner).poll_frame(context)? else {
            return this.deadline.wait(this.received_bytes, context).map(|error| Some(Err(error)));
        };
        if frame.is_none() || this.inner.is_end_stream() {
            this.unfinished = None;
            this.read_ahead = None;
        }
        let frame = frame.map(|frame| if this.is_waste { frame } else { frame.map_data(apart) });
        let before = this.received_bytes;
        this.received_bytes += frame.as_ref().and_then(Frame::data_ref).map_or(0, |data| data.len() as u64);
        if !this.is_waste {
            let mut held = this.held.lock();
            if let Err(over) = held.grow(this.received_bytes.max(this.reserved_bytes) - before.max(this.reserved_bytes)) {
                this.is_waste = true;
                held.clear();
                // It is of this request too: whether waiting is of any use depends on all of it.
                let ahead = this.read_ahead.take().map_or(0, |read_ahead| read_ahead.bytes());
                let over = OverBudget { asked: over.asked + ahead, used: over.used.saturating_sub(ahead), ..over };
                return Poll::Ready(Some(Err(over.into())));
            }
        }
        Poll::Ready(frame.map(Ok))
    }

    fn is_end_stream(&self) -> bool {
        self.refused.is_none() && self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

/// Bytes that keep no more memory than they are.
fn apart(bytes: Bytes) -> Bytes {
    if bytes.len() < COPIED_BYTES_MAX { Bytes::copy_from_slice(&bytes) } else { bytes }
}

/// Until when something must have come.
pub(crate) struct Deadline {
    /// For all of it; zero: it may take long if it keeps coming.
    timeout: Duration,
    begun: Option<Instant>,
    sleep: Option<Pin<Box<Sleep>>>,
}

impl Deadline {
    pub(crate) fn new(timeout: Duration) -> Self {
        Self { timeout, begun: None, sleep: None }
    }

    /// Begins anew, with the next wait.
    pub(crate) fn restart(&mut self) {
        (self.begun, self.sleep) = (None, None);
    }

    /// Waits for more than the bytes that have come since the first wait.
    pub(crate) fn wait(&mut self, received_bytes: u64, context: &mut Context<'_>) -> Poll<BodyError> {
        let begun = *self.begun.get_or_insert_with(Instant::now);
        let timeout =
            if self.timeout.is_zero() { PATIENCE + Duration::from_secs(received_bytes / BYTES_PER_SECOND_MIN) } else { self.timeout };
        let until = begun + timeout;
        let sleep = self.sleep.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(until)));
        if sleep.deadline() != until {
            sleep.as_mut().reset(until);
        }
        sleep.as_mut().poll(context).map(|()| BodyError::too_slow(timeout))
    }
}
