//! Joins the parts of traces that lie in several places: many traces at a time, in the order of their ids, block beside block, and
//! what is live of them.

use std::collections::BTreeMap;
use std::collections::hash_map::Entry;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use rustc_hash::{FxHashMap, FxHashSet};
use tokio_util::sync::CancellationToken;
use vivace_block::{BlockMeta, BlockReader, JoinedFetch, ReadError, SpanRef, live};
use vivace_core::budget::{Account, Budget};
use vivace_core::otlp::walk_spans;
use vivace_core::{BlockId, TenantId, TraceId};
use vivace_proto::vivace::v1::{Places, SpansRequest};
use vivace_traceql::{Attribute, Batch, Fetch, Scope, SpanFilter, SpanRow, Value};

use crate::JobError;
use crate::blocks::{Found, skipped};
use crate::error::{BlockFault, add_new};
use crate::ingesters::LiveSpans;
use crate::querier::Querier;
use crate::wire::packed;

/// Traces that are joined first; then as many as have about so many spans, so that what is held does not depend on how
/// large the traces are.
const TRACES_FIRST: usize = 128;
const TRACES_MAX: usize = 4096;
const SPANS_AT_ONCE: usize = 100_000;

/// Where the parts of some traces are.
pub(crate) struct TracesToJoin {
    /// Ascending.
    pub(crate) ids: Vec<TraceId>,
    /// Those of them that ingesters are asked for, ascending.
    pub(crate) live: Vec<TraceId>,
    /// Blocks, each with those of the traces that are taken from it, ascending.
    pub(crate) blocks: Vec<(BlockMeta, Vec<TraceId>)>,
    pub(crate) known_blocks: Bytes,
    /// Traces that turn out to be in one place only are left out.
    pub(crate) only_split: bool,
}

/// What joining traces took.
#[derive(Debug, Default)]
pub(crate) struct JoinStats {
    pub(crate) traces: u32,
    pub(crate) bytes: u64,
}

/// What is asked of traces whose parts are joined.
pub(crate) trait JoinedQuery: Send + Sync + Sized + 'static {
    /// What the answer is made in.
    type State: Send + 'static;

    fn fetch(&self) -> &Fetch;

    /// Takes whole traces in; breaks when it has enough.
    fn take(&self, state: &mut Self::State, batch: &Batch, stop: &dyn Fn() -> bool) -> ControlFlow<()>;

    /// The same query about all attributes that there are, where it is about all.
    fn with_attributes(&self, _names: &dyn Fn() -> Vec<Attribute>) -> Option<Self> {
        None
    }
}

/// Blocks that have been opened; none for those that cannot be read.
type Opened = FxHashMap<BlockId, Option<Arc<BlockReader>>>;

/// One of several pieces.
struct Piece {
    live: Vec<LiveSpans>,
    blocks: Vec<(Arc<BlockReader>, Vec<TraceId>)>,
    only_split: bool,
}

impl Querier {
    /// Asks the query about the traces, whole, and gives back what it has made of `state`.
    pub(crate) async fn join_traces<Q: JoinedQuery>(
        &self,
        tenant: &TenantId,
        mut wanted: TracesToJoin,
        query: Arc<Q>,
        mut state: Q::State,
        call: Duration,
    ) -> Result<Found<(Q::State, JoinStats)>, JobError> {
        let mut so_far = Found { result: JoinStats::default(), warnings: Vec::new() };
        let mut opened = Opened::default();
        let (mut next, mut at_once) = (0, TRACES_FIRST);
        while next < wanted.ids.len() {
            let ids = wanted.ids[next..wanted.ids.len().min(next + at_once)].to_vec();
            next += ids.len();
            let live = self.live_parts(tenant, &mut wanted, &ids, call, &mut so_far).await?;
            let blocks = self.blocks_with(&wanted, &ids, &mut opened, &mut so_far).await?;
            let piece = Piece { live, blocks, only_split: wanted.only_split };
            let (query, budget) = (query.clone(), self.budget.clone());
            let joined = self.blocks.work(move |stop| {
                let names = || piece.attributes(stop);
                let about_all = query.with_attributes(&names);
                let query = about_all.as_ref().unwrap_or(&*query);
                let joined = piece.join(&JoinedFetch::new(query.fetch()), &budget, stop);
                let is_over = joined.as_ref().is_ok_and(|joined| query.take(&mut state, &joined.batch, &|| stop.is_cancelled()).is_break());
                (state, joined, is_over)
            });
            let (taken, joined, is_over) = joined.await?;
            state = taken;
            let joined: Joined = joined?;
            let stats = &mut so_far.result;
            stats.bytes += joined.bytes;
            stats.traces = stats.traces.saturating_add(u32::try_from(joined.batch.traces.len()).unwrap_or(u32::MAX));
            for (meta, error) in joined.faults {
                add_new(&mut so_far.warnings, vec![skipped(&meta, BlockFault::from(error))?]);
            }
            let spans = joined.spans.max(1);
            at_once = (at_once * SPANS_AT_ONCE / spans).clamp(1, (at_once * 4).min(TRACES_MAX));
            if is_over {
                break;
            }
        }
        Ok(Found { result: (state, so_far.result), warnings: so_far.warnings })
    }

    /// What ingesters have of those of `ids`, ascending, that they are asked for. Blocks that they answer from and that were not known
    /// are among the wanted from now on.
    async fn live_parts(
        &self,
        tenant: &TenantId,
        wanted: &mut TracesToJoin,
        ids: &[TraceId],
        call: Duration,
        so_far: &mut Found<JoinStats>,
    ) -> Result<Vec<LiveSpans>, JobError> {
        let asked = within(&wanted.live, ids);
        if asked.is_empty() {
            return Ok(Vec::new());
        }
        let request = SpansRequest { trace_ids: packed(asked).into(), known_blocks: wanted.known_blocks.clone(), answering: Vec::new() };
        let answers = self.ingesters.spans(tenant, request, call).await?;
        add_new(&mut so_far.warnings, answers.warnings);
        let live = answers.parts;
        so_far.result.bytes += live.iter().map(|spans| spans.inspected_bytes).sum::<u64>();
        // What was live a moment ago may be in a block by now that nobody has listed.
        for meta in served(tenant, live.iter().flat_map(|spans| &spans.served))? {
            if wanted.blocks.iter().any(|(known, _)| known.block_id == meta.block_id) {
                continue;
            }
            let held = self.blocks.holding(meta.clone(), wanted.live.clone().into(), &mut so_far.result.bytes).await?;
            wanted.blocks.push((meta, held));
        }
        Ok(live)
    }

    /// The wanted blocks that have any of `ids`, ascending, open, each with those that it has.
    async fn blocks_with(
        &self,
        wanted: &TracesToJoin,
        ids: &[TraceId],
        opened: &mut Opened,
        so_far: &mut Found<JoinStats>,
    ) -> Result<Vec<(Arc<BlockReader>, Vec<TraceId>)>, JobError> {
        let mut blocks = Vec::new();
        for (meta, held) in &wanted.blocks {
            let held = within(held, ids);
            if held.is_empty() {
                continue;
            }
            let reader = match opened.entry(meta.block_id) {
                Entry::Occupied(known) => known.get().clone(),
                Entry::Vacant(new) => new.insert(self.open(meta, so_far).await?).clone(),
            };
            blocks.extend(reader.map(|reader| (reader, held.to_vec())));
        }
        Ok(blocks)
    }

    async fn open(&self, meta: &BlockMeta, so_far: &mut Found<JoinStats>) -> Result<Option<Arc<BlockReader>>, JobError> {
        match self.blocks.with_block(meta.clone(), |block, _| Ok(block.clone())).await? {
            Ok((reader, bytes)) => {
                so_far.result.bytes += bytes;
                Ok(Some(reader))
            }
            Err(fault) => {
                so_far.warnings.push(skipped(meta, fault)?);
                Ok(None)
            }
        }
    }

    /// All places of these traces.
    pub(crate) async fn all_places(
        &self,
        tenant: &TenantId,
        ids: Vec<TraceId>,
        places: &Places,
        bytes: &mut u64,
    ) -> Result<TracesToJoin, JobError> {
        let metas = self.blocks.metas(tenant, &places.blocks).await?;
        let blocks = self.blocks.all_holding(metas, &ids, bytes).await?;
        let live = if places.ingesters { ids.clone() } else { Vec::new() };
        Ok(TracesToJoin { ids, live, blocks, known_blocks: places.known_blocks.clone(), only_split: false })
    }
}

/// Those of `all` that lie between the first and the last of `ids`; both ascend, and there are some ids.
fn within<'a>(all: &'a [TraceId], ids: &[TraceId]) -> &'a [TraceId] {
    &all[all.partition_point(|id| *id < ids[0])..all.partition_point(|id| *id <= ids[ids.len() - 1])]
}

/// What a piece came to.
struct Joined {
    batch: Batch,
    /// Spans that were read, copies included.
    spans: usize,
    bytes: u64,
    faults: Vec<(BlockMeta, ReadError)>,
}

impl Piece {
    /// The attributes of spans, resources and scopes that there are. Of blocks, those of the row groups that are read.
    fn attributes(&self, stop: &CancellationToken) -> Vec<Attribute> {
        let mut known: FxHashSet<(Scope, Box<str>)> = FxHashSet::default();
        let mut add = |scope, name: &str| {
            if matches!(scope, Scope::Span | Scope::Resource | Scope::Instrumentation) && !known.contains(&(scope, name.into())) {
                known.insert((scope, name.into()));
            }
            if stop.is_cancelled() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        };
        for message in self.live.iter().flat_map(|spans| &spans.messages) {
            let mut spans = Vec::new();
            // What is no message is said to be when the spans are read.
            let _ = walk_spans(message, |at, span| spans.push(SpanRef { resource: at.resource, scope: at.scope, span: span.bytes }));
            live::tag_names(&spans, None, &SpanFilter::And(Vec::new()), &mut add);
        }
        for (reader, held) in &self.blocks {
            for (group, wanted) in groups_of(reader, held) {
                if !wanted.is_empty() && !stop.is_cancelled() {
                    // A block that cannot be read is left out when its rows are.
                    let _ = reader.tag_names(None, None, group..group + 1, &mut add);
                }
            }
        }
        known.into_iter().map(|(scope, key)| Attribute::Named { scope, key: key.into() }).collect()
    }

    /// Reads all parts and joins them. Burns CPU.
    fn join(&self, joining: &JoinedFetch, budget: &Budget, stop: &CancellationToken) -> Result<Joined, JobError> {
        let live_bytes = self.live.iter().flat_map(|spans| &spans.messages).map(|message| message.len() as u64).sum();
        let mut held = budget.charge(Account::Queries, live_bytes)?;
        let mut joined = Joined { batch: Batch::default(), spans: 0, bytes: 0, faults: Vec::new() };
        let mut live_spans: BTreeMap<TraceId, Vec<SpanRef<'_>>> = BTreeMap::new();
        let mut places: FxHashMap<TraceId, u32> = FxHashMap::default();
        for spans in &self.live {
            let mut here: FxHashSet<TraceId> = FxHashSet::default();
            for message in &spans.messages {
                let walked = walk_spans(message, |at, span| {
                    let id = span.trace();
                    here.insert(id);
                    live_spans.entry(id).or_default().push(SpanRef { resource: at.resource, scope: at.scope, span: span.bytes });
                });
                walked.map_err(|error| JobError::Internal(format!("an ingester's spans: {error}")))?;
            }
            here.into_iter().for_each(|id| *places.entry(id).or_default() += 1);
        }
        self.blocks.iter().flat_map(|(_, held)| held).for_each(|id| *places.entry(*id).or_default() += 1);
        let is_wanted = |id: &TraceId| !self.only_split || places.get(id).is_some_and(|places| *places > 1);
        let live_spans: Vec<(TraceId, Vec<SpanRef<'_>>)> = live_spans.into_iter().filter(|(id, _)| is_wanted(id)).collect();
        let mut parts = vec![live::batch(joining.of_parts(), &live_spans)];
        held.grow(parts.iter().map(bytes_of).sum())?;
        for (reader, ids) in &self.blocks {
            if stop.is_cancelled() {
                break;
            }
            let ids: Vec<TraceId> = ids.iter().copied().filter(is_wanted).collect();
            match rows(reader, joining.of_parts(), &ids, stop) {
                Ok((batches, bytes)) => {
                    held.grow(batches.iter().map(bytes_of).sum())?;
                    parts.extend(batches);
                    joined.bytes += bytes;
                }
                // Nothing of it counts: a part of a block looks like all of it.
                Err(error) => joined.faults.push((reader.meta().clone(), error)),
            }
        }
        joined.spans = parts.iter().map(|part| part.spans.len()).sum();
        joined.batch = joining.join(parts);
        Ok(joined)
    }
}

/// About what a batch takes; texts are mostly shared.
fn bytes_of(batch: &Batch) -> u64 {
    let columns = batch.columns.iter().chain(&batch.events.columns).chain(&batch.links.columns);
    let values: usize = columns.map(Vec::len).sum();
    (batch.traces.len() * 256 + batch.spans.len() * size_of::<SpanRow>() + values * 2 * size_of::<Value>()) as u64
}

/// The row groups of a block, each with those of the ids, ascending, that it may have.
fn groups_of<'i>(reader: &BlockReader, ids: &'i [TraceId]) -> impl Iterator<Item = (usize, &'i [TraceId])> {
    reader.id_bounds().into_iter().enumerate().map(move |(group, bounds)| match bounds {
        Some((first, last)) => (group, &ids[ids.partition_point(|id| *id < first)..ids.partition_point(|id| *id <= last)]),
        None => (group, ids),
    })
}

/// The rows of some traces.
fn rows(reader: &BlockReader, fetch: &Fetch, ids: &[TraceId], stop: &CancellationToken) -> Result<(Vec<Batch>, u64), ReadError> {
    let mut batches = Vec::new();
    let stats = reader.batches_of(ids, fetch, &mut |batch| {
        batches.push(batch);
        if stop.is_cancelled() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    })?;
    Ok((batches, stats.bytes))
}

/// The metas of blocks that ingesters answer from, each once.
pub(crate) fn served<'m>(tenant: &TenantId, metas: impl Iterator<Item = &'m Bytes>) -> Result<Vec<BlockMeta>, JobError> {
    let mut known: FxHashSet<BlockId> = FxHashSet::default();
    let mut served = Vec::new();
    for json in metas {
        let meta = BlockMeta::from_json(json, "an ingester's answer").map_err(|error| JobError::Internal(error.to_string()))?;
        if meta.tenant_id == *tenant && known.insert(meta.block_id) {
            served.push(meta);
        }
    }
    Ok(served)
}
