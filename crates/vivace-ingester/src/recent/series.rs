//! Counting live spans for metrics queries, together with other ingesters and with blocks: each names its traces, is told which
//! of them are not for it to count, and counts the others. All of it is about what was live when the call began.

use std::collections::VecDeque;
use std::hash::{BuildHasher, BuildHasherDefault};
use std::ops::ControlFlow;
use std::sync::Arc;

use futures::Stream;
use rustc_hash::{FxHashMap, FxHashSet, FxHasher};
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::{Status, Streaming};
use vivace_block::{TRACE_SPREAD_NANOS, TracePart, live};
use vivace_core::{TenantId, TimeRange, TraceId};
use vivace_proto::tempopb::SearchMetrics;
use vivace_proto::vivace::v1::{
    AllNamed, NamedTraces, SeriesFromIngester, SeriesRequest, SeriesResponse, SeriesToIngester, series_from_ingester, series_to_ingester,
};
use vivace_storage::near_range;
use vivace_traceql::{MetricsPlan, Partial, TraceFilter};

use super::error::QueryError;
use super::reader::Reader;
use super::sources::{Sources, blocking};
use super::{Recent, ids_of};
use crate::segment::Segment;
use crate::store::{Contents, View};

/// Traces that are named in one message: they start at about the same time, so that blocks of other times need not be compared.
const NAMED_AT_ONCE: usize = 4096;

/// Why a count has ended early.
type Ended = Box<Status>;

/// One metrics query under way.
struct Session {
    plan: MetricsPlan,
    /// Its view has what is live, and first what was held for others; no blocks.
    sources: Sources,
    reader: Reader,
    _stops_with_the_client: DropGuard,
}

/// Traces that this ingester does not count.
#[derive(Default)]
struct LeaveOut {
    /// They are brought together elsewhere.
    split: FxHashSet<TraceId>,
    of_others: FxHashSet<TraceId>,
}

enum Step {
    Begin(TenantId),
    Name(VecDeque<SeriesFromIngester>, Box<Session>),
    Count(Box<Session>),
    Over,
}

impl Recent {
    /// Answers one metrics query, step by step, as it is asked. Dropping the stream ends it.
    pub(crate) fn series(
        self: &Arc<Self>,
        tenant: TenantId,
        asked: Streaming<SeriesToIngester>,
        status: impl Fn(&QueryError) -> Status + Send + 'static,
    ) -> impl Stream<Item = Result<SeriesFromIngester, Status>> + Send + 'static {
        let begin = (Arc::clone(self), asked, Step::Begin(tenant), status);
        futures::stream::try_unfold(begin, |(recent, mut asked, mut step, status)| async move {
            loop {
                step = match step {
                    Step::Begin(tenant) => {
                        let request = begun(&mut asked).await.map_err(|ended| *ended)?;
                        let (named, session) = recent.name(&tenant, request).await.map_err(|error| status(&error))?;
                        Step::Name(named, Box::new(session))
                    }
                    Step::Name(mut named, session) => match named.pop_front() {
                        Some(message) => return Ok(Some((message, (recent, asked, Step::Name(named, session), status)))),
                        None => Step::Count(session),
                    },
                    Step::Count(session) => {
                        let leave_out = LeaveOut::read(&mut asked).await.map_err(|ended| *ended)?;
                        let counted = session.count(leave_out).await.map_err(|error| status(&error))?;
                        let message = SeriesFromIngester { message: Some(series_from_ingester::Message::Counted(counted)) };
                        return Ok(Some((message, (recent, asked, Step::Over, status))));
                    }
                    Step::Over => return Ok(None),
                };
            }
        })
    }

    /// The traces in the time of a query.
    async fn name(&self, tenant: &TenantId, request: SeriesRequest) -> Result<(VecDeque<SeriesFromIngester>, Session), QueryError> {
        let plan = MetricsPlan::of_request(&request).map_err(|e| QueryError::Invalid(e.to_string()))?;
        let (mut sources, guard) = self.sources(tenant, &request.answering, &request.known_blocks)?;
        let range = plan.fetch().range;
        let served = std::mem::take(&mut sources.view.served);
        let served = served.iter().filter(|block| near_range(&block.meta, range)).map(|block| block.meta.to_json().into()).collect();
        let named = blocking(move || {
            // A trace of which a part is out of the range is named too where the whole decides.
            let spread = if plan.needs_whole_traces() { TRACE_SPREAD_NANOS } else { 0 };
            let mut reader = Reader::within(&sources.budget)?;
            let named = name_all(&mut sources, range.widened(spread), &mut reader);
            let all_named = AllNamed { oldest_arrival: oldest_arrival(&sources.view), served };
            let messages = named.into_iter().map(series_from_ingester::Message::Named);
            let messages = messages.chain([series_from_ingester::Message::AllNamed(all_named)]);
            let messages = messages.map(|message| SeriesFromIngester { message: Some(message) }).collect();
            // It may take a while until it is said what is counted here.
            reader.pause();
            Ok::<_, QueryError>((messages, plan, sources, reader))
        });
        let (messages, plan, sources, reader) = named.await??;
        Ok((messages, Session { plan, sources, reader, _stops_with_the_client: guard }))
    }
}

/// Names what is live and what is held for others, and brings that among the live segments.
fn name_all(sources: &mut Sources, range: TimeRange, reader: &mut Reader) -> Vec<NamedTraces> {
    let Sources { view, stop, .. } = sources;
    let mut all = named(view, range, None);
    let mut of_others = View { held: std::mem::take(&mut view.held), ..View::default() };
    if !of_others.held.is_empty() {
        of_others.index_held(reader, stop);
        let segments = held_segments(&of_others);
        all.extend(named(&of_others, range, Some(&segments)));
        view.heads.splice(0..0, of_others.heads);
    }
    // Only now: what has come in between was named and is not counted.
    reader.look_no_further(view);
    all
}

/// When the oldest live segment came, seconds since the epoch.
fn oldest_arrival(view: &View) -> u64 {
    let sizes = view.heads.iter().map(|head| head.size()).filter(|size| size.segments > 0);
    sizes.map(|size| size.oldest_unix_seconds).min().unwrap_or(u64::MAX)
}

async fn begun(asked: &mut Streaming<SeriesToIngester>) -> Result<SeriesRequest, Ended> {
    match asked.message().await?.and_then(|message| message.message) {
        Some(series_to_ingester::Message::Begin(request)) => Ok(request),
        _ => Err(Box::new(Status::invalid_argument("a count does not begin with its request"))),
    }
}

impl LeaveOut {
    async fn read(asked: &mut Streaming<SeriesToIngester>) -> Result<Self, Ended> {
        let mut all = Self::default();
        loop {
            let Some(series_to_ingester::Message::LeaveOut(some)) = asked.message().await?.and_then(|message| message.message) else {
                return Err(Box::new(Status::invalid_argument("a count ended before it was said what is left out")));
            };
            let ids = |bytes: &[u8]| ids_of(bytes).map(|ids| ids.map(TraceId).collect::<Vec<_>>());
            let ids = |bytes: &[u8]| ids(bytes).map_err(|e| Box::new(Status::invalid_argument(e.to_string())));
            all.split.extend(ids(&some.split)?);
            all.of_others.extend(ids(&some.of_others)?);
            if some.is_last {
                return Ok(all);
            }
        }
    }
}

/// The traces of these heads that overlap a range, in messages of such that start at about the same time.
fn named(view: &View, range: TimeRange, held_segments: Option<&FxHashMap<TraceId, u64>>) -> Vec<NamedTraces> {
    let ids: FxHashSet<TraceId> = view.heads.iter().flat_map(|head| head.read(Contents::traces)).collect();
    let mut parts = view.parts(ids.iter().copied(), range);
    parts.sort_unstable_by_key(|part| (part.start_unix_nanos, part.end_unix_nanos, part.trace_id));
    let held_segments_of = |part: &TracePart| held_segments.map(|segments| segments.get(&part.trace_id).copied().unwrap_or_default());
    let message = |parts: &[TracePart]| NamedTraces {
        trace_ids: parts.iter().flat_map(|part| part.trace_id.0).collect::<Vec<u8>>().into(),
        held_segments: parts.iter().filter_map(held_segments_of).collect(),
        start: parts.first().map_or(0, |part| part.start_unix_nanos),
        end: parts.iter().map(|part| part.end_unix_nanos).max().unwrap_or_default(),
    };
    parts.chunks(NAMED_AT_ONCE).map(message).collect()
}

/// Of each trace, a number that says which segments it is in.
fn held_segments(view: &View) -> FxHashMap<TraceId, u64> {
    let mut numbers: FxHashMap<TraceId, u64> = FxHashMap::default();
    let number = |segment: &Arc<Segment>| {
        let hash = BuildHasherDefault::<FxHasher>::default().hash_one((&segment.header.primary, segment.header.id));
        mixed(hash)
    };
    for head in &view.heads {
        head.read(|contents| {
            let of_segments: Vec<u64> = contents.segments.iter().map(number).collect();
            for (id, entry) in &contents.index {
                // In whatever order they came.
                let sum = entry.segments().iter().fold(0, |sum: u64, place| sum.wrapping_add(of_segments[*place as usize]));
                numbers.insert(*id, sum);
            }
        });
    }
    numbers
}

/// Spreads a hash, so that sums of several say which they were: the last steps of MurmurHash3.
fn mixed(hash: u64) -> u64 {
    let hash = (hash ^ hash >> 33).wrapping_mul(0xff51_afd7_ed55_8ccd);
    let hash = (hash ^ hash >> 33).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    hash ^ hash >> 33
}

impl Session {
    async fn count(self: Box<Self>, leave_out: LeaveOut) -> Result<SeriesResponse, QueryError> {
        let Self { plan, sources: Sources { view, budget, stop, .. }, mut reader, _stops_with_the_client } = *self;
        blocking(move || {
            let mut count = Count {
                partial: plan.partial_within(&budget),
                plan,
                leave_out,
                split: Vec::new(),
                stop,
                metrics: SearchMetrics::default(),
            };
            count.live(&view, &mut reader);
            count.metrics.inspected_bytes += reader.inspected_bytes;
            let split = count.split.iter().flat_map(|id| id.0).collect::<Vec<u8>>().into();
            count.partial.check()?;
            let warnings = reader.left_out.warning().into_iter().collect();
            Ok(SeriesResponse { partial: Some(count.partial.to_message()), metrics: Some(count.metrics), split, warnings })
        })
        .await?
    }
}

/// A count under way.
struct Count {
    plan: MetricsPlan,
    leave_out: LeaveOut,
    partial: Partial,
    /// Those that are left out, and may count.
    split: Vec<TraceId>,
    stop: CancellationToken,
    metrics: SearchMetrics,
}

impl Count {
    /// First which traces may count, by their raw spans; then those traces exactly, with all their spans, so that copies are known
    /// as such.
    fn live(&mut self, view: &View, reader: &mut Reader) {
        let (fetch, stop) = (self.plan.fetch().clone(), self.stop.clone());
        if fetch.filter == TraceFilter::Nothing {
            return;
        }
        view.candidates(&fetch, &stop, reader, &mut |reader, candidates| {
            let mut alone = Vec::with_capacity(candidates.len());
            for (id, may_count_alone) in candidates {
                if self.leave_out.split.contains(&id) {
                    self.split.push(id);
                } else if may_count_alone && !self.leave_out.of_others.contains(&id) {
                    alone.push(id);
                }
            }
            self.traces(view, reader, alone)
        });
    }

    fn traces(&mut self, view: &View, reader: &mut Reader, ids: Vec<TraceId>) -> ControlFlow<()> {
        let fetch = self.plan.fetch();
        let parts = view.parts(ids.iter().copied(), fetch.range);
        let ids: Vec<TraceId> = parts.into_iter().map(|part| part.trace_id).collect();
        let mut rest = &ids[..];
        while !rest.is_empty() {
            let some;
            (some, rest) = rest.split_at(reader.at_once(view, rest.iter().copied(), usize::MAX));
            let gathered = reader.gather(&view.heads, some);
            let stop = || self.stop.is_cancelled();
            live::observe(&self.plan, &mut self.partial, &gathered.traces(), &stop)?;
            self.metrics.inspected_traces += u32::try_from(some.len()).unwrap_or(u32::MAX);
        }
        ControlFlow::Continue(())
    }
}
