//! One try of all ingesters to count for a metrics query: first each names its traces, then it counts those that nobody else has.

use std::time::Duration;

use bytes::Bytes;
use futures::stream::{FuturesUnordered, StreamExt};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Request, Status, Streaming};
use vivace_core::TenantId;
use vivace_proto::vivace::v1::recent_client::RecentClient;
use vivace_proto::vivace::v1::{
    LeaveOut, SeriesFromIngester, SeriesRequest, SeriesResponse, SeriesToIngester, series_from_ingester, series_to_ingester,
};
use vivace_ring::Instance;

use crate::JobError;
use crate::counting::{NamedTraces, Shares};
use crate::ingesters::{Ingesters, Missing, answering, not_answering, report};
use crate::wire::{ids_of, packed};

/// Ids in one message, bytes.
const PIECE_BYTES: usize = 1 << 20;

/// Ingesters that have named what they have, and wait to be told what to count of it.
pub(crate) struct CountingRound {
    calls: Vec<SeriesCall>,
    missing: Vec<Missing>,
}

/// The call of one ingester, which stays open between naming and counting.
struct SeriesCall {
    instance: Instance,
    requests: mpsc::Sender<SeriesToIngester>,
    answers: Streaming<SeriesFromIngester>,
    named: Vec<NamedTraces>,
    served: Vec<Bytes>,
}

impl CountingRound {
    /// What each of them has named; to be taken once.
    pub(crate) fn take_named(&mut self) -> Vec<Vec<NamedTraces>> {
        self.calls.iter_mut().map(|call| std::mem::take(&mut call.named)).collect()
    }

    /// meta.json of the blocks that they answer from and that the query does not know.
    pub(crate) fn served(&self) -> impl Iterator<Item = &Bytes> {
        self.calls.iter().flat_map(|call| &call.served)
    }
}

/// What ingesters have counted, and what may be missing.
pub(crate) struct Counts {
    pub(crate) parts: Vec<SeriesResponse>,
    pub(crate) warning: Option<String>,
}

impl Ingesters {
    /// Lets all live ingesters name the traces that they have and those that they hold for others who do not answer.
    ///
    /// `failed` are those that cannot be counted on while one query is answered: were one to fail between naming and counting, others
    /// would have to count what they hold for it, so the query begins a new round without it.
    ///
    /// # Errors
    /// [`JobError::Unavailable`] when no ingester answers; what one says is wrong with the query.
    pub(crate) async fn begin_counting(
        &self,
        failed: &mut Vec<Missing>,
        tenant: &TenantId,
        request: &SeriesRequest,
        timeout: Duration,
    ) -> Result<CountingRound, JobError> {
        loop {
            let snapshot = self.ring.snapshot();
            let mut missing = not_answering(&snapshot);
            let others: Vec<Missing> = failed.iter().filter(|failed| missing.iter().all(|m| m.id != failed.id)).cloned().collect();
            missing.extend(others);
            let all = answering(&snapshot, &missing)?;
            let request = SeriesRequest { answering: all.iter().map(|instance| instance.id.clone()).collect(), ..request.clone() };
            let mut begun: FuturesUnordered<_> = all
                .iter()
                .map(|instance| {
                    let call = self.begin(instance, tenant, request.clone(), timeout);
                    async move { (*instance, self.within(instance, timeout, call).await) }
                })
                .collect();
            let (mut calls, mut failed_now) = (Vec::new(), Vec::new());
            while let Some((instance, call)) = begun.next().await {
                match call {
                    Ok(call) => calls.push(call),
                    Err(status) => failed_now.push(self.missing_for(instance, &status)?),
                }
            }
            if failed_now.is_empty() {
                calls.sort_by(|a: &SeriesCall, b| a.instance.id.cmp(&b.instance.id));
                return Ok(CountingRound { calls, missing });
            }
            report(failed_now, failed);
        }
    }

    async fn begin(&self, instance: &Instance, tenant: &TenantId, request: SeriesRequest, timeout: Duration) -> Result<SeriesCall, Status> {
        let channel = self.pool.connection(&instance.addr).map_err(|e| Status::unavailable(e.to_string()))?;
        let (requests, outgoing) = mpsc::channel(2);
        let begin = SeriesToIngester { message: Some(series_to_ingester::Message::Begin(request)) };
        requests.send(begin).await.map_err(|_| Status::internal("the call is over"))?;
        let mut call = Request::new(ReceiverStream::new(outgoing));
        vivace_server::tenant::insert(call.metadata_mut(), tenant);
        call.set_timeout(timeout * 2);
        let mut client = RecentClient::new(channel).max_decoding_message_size(self.max_answer_bytes);
        let mut answers = client.series(call).await?.into_inner();
        let mut named = Vec::new();
        let (oldest_arrival, served) = loop {
            match answers.message().await?.and_then(|message| message.message) {
                Some(series_from_ingester::Message::Named(some)) => named.push(some),
                Some(series_from_ingester::Message::AllNamed(all)) => break (all.oldest_arrival, all.served),
                _ => return Err(Status::internal("it ended before it had named its traces")),
            }
        };
        let oldest_arrival_unix_nanos = oldest_arrival.saturating_mul(1_000_000_000);
        let named = named.into_iter().map(|some| NamedTraces {
            traces: ids_of(&some.trace_ids).collect(),
            held_segments: some.held_segments,
            start_unix_nanos: some.start,
            end_unix_nanos: some.end,
            oldest_arrival_unix_nanos,
        });
        Ok(SeriesCall { instance: instance.clone(), requests, answers, named: named.collect(), served })
    }

    /// Lets those that have named their traces count, each what is its share. None when one has failed since then: they have to be
    /// named once more without it.
    ///
    /// # Errors
    /// What an ingester says is wrong with the query.
    pub(crate) async fn count(
        &self,
        failed: &mut Vec<Missing>,
        round: CountingRound,
        shares: Shares,
        timeout: Duration,
    ) -> Result<Option<Counts>, JobError> {
        let CountingRound { calls, missing } = round;
        let split: Bytes = packed(&shares.split).into();
        let mut counting: FuturesUnordered<_> = calls
            .into_iter()
            .zip(shares.of_others)
            .map(|(call, of_others)| {
                let instance = call.instance.clone();
                let counted = call.count(split.clone(), packed(&of_others).into());
                async move {
                    let counted = self.within(&instance, timeout, counted).await;
                    (instance, counted)
                }
            })
            .collect();
        let (mut parts, mut failed_now) = (Vec::new(), Vec::new());
        while let Some((instance, counted)) = counting.next().await {
            match counted {
                Ok(part) => parts.push(part),
                Err(status) => failed_now.push(self.missing_for(&instance, &status)?),
            }
        }
        if !failed_now.is_empty() {
            report(failed_now, failed);
            return Ok(None);
        }
        Ok(Some(Counts { parts, warning: self.warning(&missing) }))
    }

    /// The call's result, unless the instance is lost meanwhile or it takes too long.
    async fn within<T>(&self, instance: &Instance, timeout: Duration, call: impl Future<Output = Result<T, Status>>) -> Result<T, Status> {
        tokio::select! {
            result = tokio::time::timeout(timeout, call) => {
                result.map_err(|_| Status::deadline_exceeded(format!("no answer within {timeout:?}"))).flatten()
            }
            () = self.lost(instance) => Err(Status::unavailable("died, or was replaced, before it answered")),
        }
    }

    pub(crate) fn missing_for(&self, instance: &Instance, status: &Status) -> Result<Missing, JobError> {
        match self.is_final(instance, status) {
            Some(error) => Err(error),
            None => Ok(Missing { id: instance.id.clone(), why: format!("answered {}: {}", status.code(), status.message()) }),
        }
    }

    /// Whether every other ingester would say so too, or could not send its answer either.
    fn is_final(&self, instance: &Instance, status: &Status) -> Option<JobError> {
        match status.code() {
            Code::InvalidArgument => Some(JobError::Invalid(status.message().to_owned())),
            Code::ResourceExhausted => {
                // Only what may fit later comes with details: when to try again.
                let retryable = !status.details().is_empty();
                let holds_much = vivace_server::warning::holds_much(status.metadata());
                Some(JobError::TooMuch { why: format!("ingester {}: {}", instance.id, status.message()), retryable, holds_much })
            }
            Code::OutOfRange => {
                let why = too_large_answer(&instance.id, status.message(), self.max_answer_bytes);
                Some(JobError::TooMuch { why, retryable: false, holds_much: true })
            }
            _ => None,
        }
    }
}

/// Whose limit kept an answer back: the library says in the same words that it did not send a message as that it did not take one, but
/// for this one.
fn too_large_answer(ingester: &str, said: &str, max_answer_bytes: usize) -> String {
    let limit = match said.contains("encoded message length") {
        true => format!("that ingester's server.grpc_server_max_send_msg_size ({said})"),
        false => format!("the {max_answer_bytes} bytes of the querier's ingester_client.grpc_client_config.max_recv_msg_size"),
    };
    format!("the answer of ingester {ingester} is larger than {limit}: ask for less at a time, or raise it")
}

impl SeriesCall {
    async fn count(mut self, split: Bytes, of_others: Bytes) -> Result<SeriesResponse, Status> {
        let pieces = split.len().max(of_others.len()).div_ceil(PIECE_BYTES).max(1);
        let piece = |bytes: &Bytes, at: usize| bytes.slice(bytes.len().min(at * PIECE_BYTES)..bytes.len().min((at + 1) * PIECE_BYTES));
        for at in 0..pieces {
            let leave_out = LeaveOut { split: piece(&split, at), of_others: piece(&of_others, at), is_last: at + 1 == pieces };
            let message = SeriesToIngester { message: Some(series_to_ingester::Message::LeaveOut(leave_out)) };
            // It has ended where nobody takes this, and says why.
            if self.requests.send(message).await.is_err() {
                break;
            }
        }
        match self.answers.message().await?.and_then(|message| message.message) {
            Some(series_from_ingester::Message::Counted(counted)) => Ok(counted),
            _ => Err(Status::internal("it ended before it had counted")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_that_kept_an_answer_back_is_named() {
        let said = |what: &str| format!("Error, {what} message length too large: found 18 bytes, the limit is: 16 bytes");
        let sent = too_large_answer("i-1", &said("encoded"), 100);
        assert!(sent.contains("server.grpc_server_max_send_msg_size") && sent.contains("found 18") && sent.contains("i-1"), "{sent}");
        let taken = too_large_answer("i-1", &said("decoded"), 100);
        assert!(taken.contains("the 100 bytes of the querier's ingester_client.grpc_client_config.max_recv_msg_size"), "{taken}");
    }
}
