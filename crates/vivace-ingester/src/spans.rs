//! `vivace.v1.Recent/Spans`: all live spans of some traces, in the clients' own bytes.

use std::sync::Arc;

use futures::Stream;
use prost::bytes::Bytes;
use tokio_util::sync::CancellationToken;
use tonic::Status;
use vivace_core::{TenantId, TraceId};
use vivace_proto::vivace::v1::{SpansRequest, SpansResponse};

use crate::ingester::Ingester;
use crate::parts::ids_of;
use crate::query::{QueryError, Sources, blocking};
use crate::scan::Reader;
use crate::store::View;

/// Spans in one message, bytes, about: far below what clients take.
const MESSAGE_BYTES: usize = 1 << 20;
/// Traces that are looked for at a time.
const TRACES_AT_ONCE: usize = 256;

/// A look-up under way.
struct LookUp {
    view: View,
    reader: Reader,
    ids: Vec<TraceId>,
    /// How many of them have been looked for.
    next: usize,
    served: Vec<Bytes>,
    stop: CancellationToken,
}

impl Ingester {
    /// The live spans of some traces, a message at a time, as they are read: dropping the stream ends it.
    ///
    /// # Errors
    /// [`QueryError::Invalid`] for ids that are none, [`QueryError::Joining`].
    pub(crate) fn spans(
        self: &Arc<Self>,
        tenant: &TenantId,
        request: &SpansRequest,
        status: impl Fn(&QueryError) -> Status + Send + 'static,
    ) -> Result<impl Stream<Item = Result<SpansResponse, Status>> + Send + 'static, QueryError> {
        let ids: Vec<TraceId> = ids_of(&request.trace_ids)?.map(TraceId).collect();
        let Sources { mut view, held } = self.sources_without(tenant, &request.answering, &request.known_blocks)?;
        let served = std::mem::take(&mut view.served).iter().map(|block| block.meta.to_json().into()).collect();
        let stop = CancellationToken::new();
        let guard = stop.clone().drop_guard();
        let reader = Reader::within(&self.settings.budget)?;
        let look_up = Some((LookUp { view, reader, ids, next: 0, served, stop }, held));
        let messages = futures::stream::try_unfold((look_up, guard, status), |(look_up, guard, status)| async move {
            let Some((mut look_up, held)) = look_up else { return Ok::<_, Status>(None) };
            let read = blocking(move || {
                if !held.is_empty() {
                    look_up.view.add_held(&held, &mut look_up.reader, &look_up.stop);
                }
                let messages = look_up.some();
                (messages, look_up)
            });
            let (messages, look_up) = read.await.map_err(|error| status(&error))?;
            let rest = (look_up.next < look_up.ids.len()).then_some((look_up, Vec::new()));
            let messages = futures::stream::iter(messages.into_iter().map(Ok));
            Ok(Some((messages, (rest, guard, status))))
        });
        Ok(futures::TryStreamExt::try_flatten(messages))
    }
}

impl LookUp {
    /// Looks for the next traces.
    fn some(&mut self) -> Vec<SpansResponse> {
        let rest = &self.ids[self.next..];
        let ids = &rest[..self.reader.at_once(&self.view, rest.iter().copied(), TRACES_AT_ONCE).min(rest.len())];
        self.next += ids.len();
        let before = self.reader.inspected_bytes;
        let gathered = self.reader.gather(&self.view.heads, ids);
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
