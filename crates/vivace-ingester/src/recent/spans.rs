//! `vivace.v1.Recent/Spans`: all live spans of some traces, in the clients' own bytes.

use futures::Stream;
use prost::bytes::Bytes;
use tonic::Status;
use vivace_core::{TenantId, TraceId};
use vivace_proto::vivace::v1::{SpansRequest, SpansResponse};

use super::error::QueryError;
use super::reader::Reader;
use super::sources::{Sources, blocking};
use super::{Recent, ids_of};

/// Spans in one message, bytes, about: far below what clients take.
const MESSAGE_BYTES: usize = 1 << 20;
/// Traces that are looked for at a time.
const TRACES_AT_ONCE: usize = 256;

/// A look-up under way.
struct LookUp {
    sources: Sources,
    reader: Reader,
    ids: Vec<TraceId>,
    /// How many of them have been looked for.
    next: usize,
    served: Vec<Bytes>,
}

impl Recent {
    /// The live spans of some traces, a message at a time, as they are read: dropping the stream ends it.
    ///
    /// # Errors
    /// [`QueryError::Invalid`] for ids that are none, [`QueryError::Joining`].
    pub(crate) fn spans(
        &self,
        tenant: &TenantId,
        request: &SpansRequest,
        status: impl Fn(&QueryError) -> Status + Send + 'static,
    ) -> Result<impl Stream<Item = Result<SpansResponse, Status>> + Send + 'static, QueryError> {
        let ids: Vec<TraceId> = ids_of(&request.trace_ids)?.map(TraceId).collect();
        let (mut sources, guard) = self.sources(tenant, &request.answering, &request.known_blocks)?;
        let served = std::mem::take(&mut sources.view.served).iter().map(|block| block.meta.to_json().into()).collect();
        let reader = Reader::within(&sources.budget)?;
        let look_up = Some(LookUp { sources, reader, ids, next: 0, served });
        let messages = futures::stream::try_unfold((look_up, guard, status), |(look_up, guard, status)| async move {
            let Some(mut look_up) = look_up else { return Ok::<_, Status>(None) };
            let read = blocking(move || {
                let messages = look_up.some();
                (messages, look_up)
            });
            let (messages, look_up) = read.await.map_err(|error| status(&error))?;
            let rest = (look_up.next < look_up.ids.len()).then_some(look_up);
            let messages = futures::stream::iter(messages.into_iter().map(Ok));
            Ok(Some((messages, (rest, guard, status))))
        });
        Ok(futures::TryStreamExt::try_flatten(messages))
    }
}

impl LookUp {
    /// Looks for the next traces.
    fn some(&mut self) -> Vec<SpansResponse> {
        let Sources { view, stop, .. } = &mut self.sources;
        // The first time: then nothing is held any more.
        view.index_held(&mut self.reader, stop);
        let rest = &self.ids[self.next..];
        let ids = &rest[..self.reader.at_once(view, rest.iter().copied(), TRACES_AT_ONCE).min(rest.len())];
        self.next += ids.len();
        let before = self.reader.inspected_bytes;
        let gathered = self.reader.gather(&view.heads, ids);
        let mut messages: Vec<SpansResponse> =
            gathered.messages(MESSAGE_BYTES).into_iter().map(|spans| SpansResponse { spans: spans.into(), ..Default::default() }).collect();
        let first = SpansResponse {
            served: std::mem::take(&mut self.served),
            inspected_bytes: self.reader.inspected_bytes - before,
            warning: std::mem::take(&mut self.reader.left_out).warning().unwrap_or_default(),
            ..SpansResponse::default()
        };
        messages.insert(0, first);
        messages
    }
}
