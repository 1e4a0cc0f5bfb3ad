//! Bodies of gRPC requests: messages are checked, paid for and decompressed before the library buffers them whole.
//!
//! Source: gRPC over HTTP/2, "Length-Prefixed-Message".

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Buf, Bytes};
use futures::FutureExt as _;
use http::HeaderName;
use http::request::Parts;
use http_body::{Body as HttpBody, Frame};
use hyper::body::Incoming;
use tokio::task::JoinHandle;
use tokio::time::{Instant, Sleep};
use tonic::Status;

use crate::encoding::{Encoding, EncodingError};
use crate::incoming::{BodyError, Deadline, Held};
use crate::request_budget::{RequestBudget, RequestCharge};

/// A flag and a length.
const PREFIX_BYTES: usize = 5;
/// Messages up to this size are decompressed where they arrive, bytes.
const INLINE_BYTES_MAX: usize = 4 << 10;
/// Decompressed messages are handed on in pieces, bytes.
const PIECE_BYTES: usize = 64 << 10;
/// A stream on which many jobs run would end all of them if one message did not fit: there the next one waits for memory.
const PATIENT_STREAM: &str = "/vivace.v1.JobQueue/Pull";
/// For so long, looking this often.
const PATIENCE: Duration = Duration::from_secs(10);
const RETRY_PERIOD: Duration = Duration::from_millis(5);
const GRPC_ENCODING: HeaderName = HeaderName::from_static("grpc-encoding");

/// A body of messages. What one holds is given back when the next one begins, or with the answer.
pub(crate) struct Messages {
    inner: Incoming,
    encoding: Option<Encoding>,
    message_bytes_max: usize,
    budget: RequestBudget,
    held: Held,
    /// Messages wait for memory, and are paid for as they begin.
    is_patient: bool,
    /// Arrived, and not looked at yet.
    arrived: Bytes,
    at: At,
    /// For the message that has begun.
    deadline: Deadline,
}

/// Where in a message.
enum At {
    /// In the prefix, of which so much is here.
    Prefix { bytes: [u8; PREFIX_BYTES], have: usize },
    /// One that does not fit yet has begun.
    Waiting { prefix: [u8; PREFIX_BYTES], until: Instant, sleep: Pin<Box<Sleep>> },
    /// In a plain message, of which so much is still to come.
    Plain { left: usize },
    /// In a compressed one.
    Packed { bytes: Vec<u8>, len: usize },
    /// A compressed one is complete.
    Unpacking(JoinHandle<Unpacked>),
    /// A compressed one is decompressed, and this is to be handed on.
    Unpacked { prefix: Option<Bytes>, message: Bytes, charge: RequestCharge },
    /// There was an error.
    Ended,
}

type Unpacked = Result<(Vec<u8>, RequestCharge), EncodingError>;

impl At {
    const START: Self = Self::Prefix { bytes: [0; PREFIX_BYTES], have: 0 };
}

impl Messages {
    /// Takes the encoding out of the headers if it is understood here; then the library sees plain messages.
    pub(crate) fn new(inner: Incoming, head: &mut Parts, message_bytes_max: usize, budget: RequestBudget, held: Held) -> Self {
        let is_patient = head.uri.path() == PATIENT_STREAM;
        let headers = &mut head.headers;
        let name = headers.get(GRPC_ENCODING).and_then(|name| name.to_str().ok()).unwrap_or_default();
        let encoding = Encoding::from_header(name).ok().flatten();
        if encoding.is_some() {
            headers.remove(GRPC_ENCODING);
        }
        Self {
            inner,
            encoding,
            message_bytes_max,
            budget,
            held,
            is_patient,
            arrived: Bytes::new(),
            at: At::START,
            deadline: Deadline::new(Duration::ZERO),
        }
    }

    /// Looks at what has arrived. None: more must come.
    fn step(&mut self, context: &mut Context<'_>) -> Result<Poll<Option<Bytes>>, BodyError> {
        loop {
            match &mut self.at {
                At::Prefix { bytes, have } => {
                    let take = self.arrived.len().min(PREFIX_BYTES - *have);
                    bytes[*have..*have + take].copy_from_slice(&self.arrived[..take]);
                    self.arrived.advance(take);
                    *have += take;
                    if *have < PREFIX_BYTES {
                        return Ok(Poll::Ready(None));
                    }
                    let prefix = *bytes;
                    if let Some(prefix) = self.begin(prefix, Instant::now() + PATIENCE)? {
                        return Ok(Poll::Ready(Some(prefix)));
                    }
                }
                At::Waiting { prefix, until, sleep } => {
                    if sleep.as_mut().poll(context).is_pending() {
                        return Ok(Poll::Pending);
                    }
                    let (prefix, until) = (*prefix, *until);
                    if let Some(prefix) = self.begin(prefix, until)? {
                        return Ok(Poll::Ready(Some(prefix)));
                    }
                }
                At::Plain { left } => {
                    let take = self.arrived.len().min(*left);
                    *left -= take;
                    let ends = *left == 0;
                    if ends {
                        self.at = At::START;
                        self.deadline.restart();
                    }
                    if take == 0 {
                        if ends {
                            continue;
                        }
                        return Ok(Poll::Ready(None));
                    }
                    self.pay(take)?;
                    return Ok(Poll::Ready(Some(self.arrived.split_to(take))));
                }
                At::Packed { bytes, len } => {
                    let take = self.arrived.len().min(*len - bytes.len());
                    if !self.is_patient {
                        self.held.lock().grow(take as u64)?;
                    }
                    bytes.extend_from_slice(&self.arrived[..take]);
                    self.arrived.advance(take);
                    if bytes.len() < *len {
                        return Ok(Poll::Ready(None));
                    }
                    let packed = std::mem::take(bytes);
                    self.unpack(packed)?;
                }
                At::Unpacking(work) => match work.poll_unpin(context) {
                    Poll::Pending => return Ok(Poll::Pending),
                    Poll::Ready(Ok(unpacked)) => self.unpacked(unpacked)?,
                    Poll::Ready(Err(error)) => {
                        return Err(BodyError::Grpc(Status::internal(format!("could not decompress a message: {error}"))));
                    }
                },
                At::Unpacked { prefix, message, charge } => {
                    if let Some(prefix) = prefix.take() {
                        return Ok(Poll::Ready(Some(prefix)));
                    }
                    if !message.is_empty() {
                        let piece = message.split_to(message.len().min(PIECE_BYTES));
                        self.held.lock().grow(piece.len() as u64)?;
                        return Ok(Poll::Ready(Some(piece)));
                    }
                    charge.clear();
                    self.at = At::START;
                    self.deadline.restart();
                }
                At::Ended => return Ok(Poll::Ready(None)),
            }
        }
    }

    /// Pays for bytes of a message, unless that was done as it began.
    fn pay(&self, bytes: usize) -> Result<(), BodyError> {
        if !self.is_patient {
            self.held.lock().grow(bytes as u64)?;
        }
        Ok(())
    }

    /// A message begins; the one before has been taken. Returns the prefix if it is for the library.
    fn begin(&mut self, prefix: [u8; PREFIX_BYTES], until: Instant) -> Result<Option<Bytes>, BodyError> {
        let [flag, len @ ..] = prefix;
        let len = u32::from_be_bytes(len) as usize;
        self.held.lock().clear();
        if len > self.message_bytes_max {
            return Err(too_large(format!("found {len} bytes"), self.message_bytes_max));
        }
        if self.is_patient {
            let paid = self.held.lock().grow(len as u64);
            match paid {
                Err(over) if !over.never_fits() && Instant::now() < until => {
                    self.at = At::Waiting { prefix, until, sleep: Box::pin(tokio::time::sleep(RETRY_PERIOD)) };
                    return Ok(None);
                }
                paid => paid?,
            }
        } else {
            self.budget.check(len as u64)?;
        }
        if flag == 1 && self.encoding.is_some() {
            self.at = At::Packed { bytes: Vec::new(), len };
            return Ok(None);
        }
        self.at = At::Plain { left: len };
        Ok(Some(Bytes::copy_from_slice(&prefix)))
    }

    fn unpack(&mut self, packed: Vec<u8>) -> Result<(), BodyError> {
        let Some(encoding) = self.encoding else { return Ok(()) };
        let (budget, limit) = (self.budget.clone(), self.message_bytes_max as u64);
        let is_small = packed.len() <= INLINE_BYTES_MAX;
        let work = move || -> Unpacked {
            let mut charge = budget.open();
            let message = encoding.decode(&packed, limit, &mut charge)?;
            Ok((message, charge))
        };
        if is_small {
            return self.unpacked(work());
        }
        self.at = At::Unpacking(tokio::task::spawn_blocking(work));
        Ok(())
    }

    fn unpacked(&mut self, unpacked: Unpacked) -> Result<(), BodyError> {
        let (message, charge) = unpacked.map_err(|error| match error {
            EncodingError::OverBudget(over) => over.into(),
            EncodingError::TooLarge { limit } => {
                too_large("found more once it is decompressed".to_owned(), usize::try_from(limit).unwrap_or(usize::MAX))
            }
            EncodingError::Damaged { .. } | EncodingError::Unknown(_) => {
                BodyError::Grpc(Status::invalid_argument(format!("could not decompress a message: {error}")))
            }
        })?;
        // The packed one is gone.
        self.held.lock().clear();
        let len = u32::try_from(message.len()).map_err(|_| too_large("found 4 GiB".to_owned(), self.message_bytes_max))?;
        let mut prefix = vec![0];
        prefix.extend_from_slice(&len.to_be_bytes());
        self.at = At::Unpacked { prefix: Some(prefix.into()), message: message.into(), charge };
        Ok(())
    }

    fn is_within_a_message(&self) -> bool {
        match &self.at {
            At::Prefix { have, .. } => *have > 0,
            At::Waiting { .. } | At::Plain { .. } | At::Packed { .. } => true,
            At::Unpacking(_) | At::Unpacked { .. } | At::Ended => false,
        }
    }
}

/// As the library says it, with its code.
fn too_large(found: String, limit: usize) -> BodyError {
    BodyError::Grpc(Status::out_of_range(format!("decoded message length too large: {found}, the limit is: {limit} bytes")))
}

impl HttpBody for Messages {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = &mut *self;
        loop {
            match this.step(context) {
                Ok(Poll::Pending) => return Poll::Pending,
                Ok(Poll::Ready(Some(data))) => return Poll::Ready(Some(Ok(Frame::data(data)))),
                Ok(Poll::Ready(None)) => {}
                Err(error) => {
                    this.at = At::Ended;
                    this.arrived = Bytes::new();
                    this.held.lock().clear();
                    return Poll::Ready(Some(Err(error)));
                }
            }
            if matches!(this.at, At::Ended) {
                return Poll::Ready(None);
            }
            match Pin::new(&mut this.inner).poll_frame(context)? {
                Poll::Ready(Some(frame)) => match frame.into_data() {
                    Ok(data) => this.arrived = data,
                    Err(trailers) => return Poll::Ready(Some(Ok(trailers))),
                },
                Poll::Ready(None) if this.is_within_a_message() => {
                    this.at = At::Ended;
                    let status = Status::internal("the request ends in the middle of a message");
                    return Poll::Ready(Some(Err(BodyError::Grpc(status))));
                }
                Poll::Ready(None) => return Poll::Ready(None),
                Poll::Pending if this.is_within_a_message() => {
                    let received_bytes = this.held.lock().bytes();
                    return this.deadline.wait(received_bytes, context).map(|error| Some(Err(error)));
                }
                Poll::Pending => return Poll::Pending,
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        let is_between = matches!(self.at, At::Prefix { have: 0, .. } | At::Ended) && self.arrived.is_empty();
        is_between && self.inner.is_end_stream()
    }
}
