//! Names of attributes and their values in recent data: live segments, then served blocks, newest first, until a limit is reached.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::{ControlFlow, Range};
use std::sync::Arc;

use rustc_hash::FxHashSet;
use vivace_block::{BlockReader, ReadError, live};
use vivace_core::{TenantId, TraceId};
use vivace_proto::tempopb::{SearchTagValuesRequest, SearchTagValuesV2Response, SearchTagsRequest, SearchTagsV2Response};
use vivace_traceql::{
    Attribute, Fetch, Intrinsic, Scope, TagFilter, TagScope, TagValue, Value, fixed_tag_values, parse_attribute, tag_limit,
    tag_names_answer, tag_values_answer,
};

use super::Recent;
use super::error::QueryError;
use super::left_out::LeftOut;
use super::reader::Reader;
use super::sources::Sources;
use crate::segment::Segment;

/// Traces brought together at a time, where values of whole traces are asked for.
const TRACES_AT_ONCE: usize = 128;

impl Recent {
    /// The names of attributes that a tenant's spans here have. Those of intrinsics need no data: the query-frontend has them.
    ///
    /// # Errors
    /// [`QueryError::Invalid`] for an unknown scope, [`QueryError::Unavailable`] where a flushed block cannot be read.
    pub(crate) async fn tag_names(
        &self,
        tenant: &TenantId,
        request: SearchTagsRequest,
    ) -> Result<(SearchTagsV2Response, LeftOut), QueryError> {
        let scope = match TagScope::of_request(&request.scope).map_err(invalid)? {
            TagScope::All => None,
            TagScope::Attributes(scope) => Some(scope),
            TagScope::Intrinsics => return Ok((tag_names_answer(BTreeMap::new(), 0), LeftOut::default())),
        };
        let filter = TagFilter::of_names_request(&request).map_err(invalid)?;
        let mut names =
            Names { found: BTreeMap::new(), per_scope_max: tag_limit(request.max_tags_per_scope), bytes_left: self.tag_bytes(tenant) };
        let (names, inspected_bytes, left_out) = self
            .look_for_tags(tenant, &request.answering, move |search| {
                if filter.passes_nothing() {
                    return Ok(names);
                }
                let wanted = filter.span_filter();
                search.live(|reader, segment| {
                    let Some(data) = reader.read(segment) else { return ControlFlow::Continue(()) };
                    live::tag_names(&Reader::spans(segment, &data), scope, wanted, &mut |scope, name| names.add(scope, name));
                    names.flow()
                });
                let in_blocks = (!filter.passes_everything()).then_some(wanted);
                search.blocks(|block, group, is_over| {
                    let mut add = |scope, name: &str| if is_over() { ControlFlow::Break(()) } else { names.add(scope, name) };
                    let bytes = block.tag_names(scope, in_blocks, group, &mut add)?.bytes;
                    Ok((bytes, names.flow()))
                })?;
                Ok(names)
            })
            .await?;
        Ok((tag_names_answer(names.found, inspected_bytes), left_out))
    }

    /// The values that an attribute or intrinsic has on a tenant's spans here.
    ///
    /// # Errors
    /// [`QueryError::Invalid`] for a name that is no attribute, [`QueryError::Unavailable`] where a flushed block cannot be read.
    pub(crate) async fn tag_values(
        &self,
        tenant: &TenantId,
        request: SearchTagValuesRequest,
    ) -> Result<(SearchTagValuesV2Response, LeftOut), QueryError> {
        let attribute = parse_attribute(&request.tag_name).map_err(|error| invalid(error.into()))?;
        let mut values = Values { found: BTreeSet::new(), max: tag_limit(request.max_tag_values), bytes_left: self.tag_bytes(tenant) };
        if let Some(fixed) = fixed_tag_values(&attribute) {
            values.found.extend(fixed);
            return Ok((tag_values_answer(values.found, 0), LeftOut::default()));
        }
        let filter = TagFilter::of_values_request(&request, &attribute).map_err(invalid)?;
        // What is pinned does not need to occur.
        let _ = filter.pinned().iter().try_for_each(|value| values.add(value));
        let (values, inspected_bytes, left_out) = self
            .look_for_tags(tenant, &request.answering, move |search| {
                if filter.passes_nothing() {
                    return Ok(values);
                }
                search.live_values(&attribute, &filter, &mut values);
                let in_blocks = (!filter.passes_everything()).then_some(filter.span_filter());
                search.blocks(|block, group, is_over| {
                    let mut add = |value| if is_over() { ControlFlow::Break(()) } else { values.add(&value) };
                    let bytes = block.tag_values(&attribute, in_blocks, group, &mut add)?.bytes;
                    Ok((bytes, values.flow()))
                })?;
                Ok(values)
            })
            .await?;
        Ok((tag_values_answer(values.found, inspected_bytes), left_out))
    }

    /// Bytes of names or values at which an answer ends: one more than is allowed, so that an answer that ended is over it.
    fn tag_bytes(&self, tenant: &TenantId) -> usize {
        match self.limits.read(tenant).max_bytes_per_tag_values_query {
            0 => usize::MAX,
            max => max.saturating_add(1),
        }
    }
}

fn invalid(error: vivace_traceql::QueryError) -> QueryError {
    QueryError::Invalid(error.to_string())
}

/// Names found so far. The first one that goes over the limit of bytes is still given: from it the query-frontend, which
/// counts again, sees that there was more.
struct Names {
    found: BTreeMap<Scope, BTreeSet<String>>,
    per_scope_max: usize,
    bytes_left: usize,
}

impl Names {
    fn add(&mut self, scope: Scope, name: &str) -> ControlFlow<()> {
        let names = self.found.entry(scope).or_default();
        if names.contains(name) {
            return self.flow();
        }
        if names.len() >= self.per_scope_max || self.bytes_left == 0 {
            self.bytes_left = 0;
            return ControlFlow::Break(());
        }
        self.bytes_left = self.bytes_left.saturating_sub(name.len());
        names.insert(name.to_owned());
        self.flow()
    }

    fn flow(&self) -> ControlFlow<()> {
        if self.bytes_left == 0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }
}

/// Values found so far; see [`Names`].
struct Values {
    found: BTreeSet<TagValue>,
    max: usize,
    bytes_left: usize,
}

impl Values {
    fn add(&mut self, value: &Value) -> ControlFlow<()> {
        for value in TagValue::of(value) {
            if self.found.contains(&value) {
                continue;
            }
            if self.found.len() >= self.max || self.bytes_left == 0 {
                self.bytes_left = 0;
                return ControlFlow::Break(());
            }
            self.bytes_left = self.bytes_left.saturating_sub(value.value.len());
            self.found.insert(value);
        }
        self.flow()
    }

    fn flow(&self) -> ControlFlow<()> {
        if self.bytes_left == 0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }
}

/// Looks for names or values in everything there is of a tenant, whatever the time: as the reference does.
struct TagSearch {
    sources: Sources,
    reader: Reader,
    /// Flushed blocks looked at, at most.
    blocks_max: usize,
    inspected_bytes: u64,
    left_out: LeftOut,
    /// A limit was reached.
    is_full: bool,
}

impl Recent {
    /// Runs `look` off the async threads; stops when the client has gone away. Also tells how many bytes it read, and what it
    /// could not read.
    async fn look_for_tags<T: Send + 'static>(
        &self,
        tenant: &TenantId,
        answering: &[String],
        look: impl FnOnce(&mut TagSearch) -> Result<T, QueryError> + Send + 'static,
    ) -> Result<(T, u64, LeftOut), QueryError> {
        let blocks_max = match self.limits.read(tenant).max_blocks_per_tag_values_query {
            0 => usize::MAX,
            max => max,
        };
        self.look(tenant, answering, &[], move |mut sources| {
            let reader = sources.index_held()?;
            let mut search = TagSearch { sources, reader, blocks_max, inspected_bytes: 0, left_out: LeftOut::default(), is_full: false };
            let found = look(&mut search)?;
            search.left_out.add(search.reader.left_out);
            Ok((found, search.inspected_bytes + search.reader.inspected_bytes, search.left_out))
        })
        .await
    }
}

impl TagSearch {
    fn is_over(&self) -> bool {
        self.is_full || self.sources.stop.is_cancelled()
    }

    /// Looks at live segments, newest first, until `look` breaks.
    fn live(&mut self, mut look: impl FnMut(&mut Reader, &Arc<Segment>) -> ControlFlow<()>) {
        for segment in self.sources.view.windows().concat() {
            if self.is_over() {
                return;
            }
            self.is_full = look(&mut self.reader, &segment).is_break();
        }
    }

    /// Looks for values on live spans that may pass the filter.
    fn live_values(&mut self, attribute: &Attribute, filter: &TagFilter, values: &mut Values) {
        match attribute {
            Attribute::Intrinsic(of_trace @ (Intrinsic::RootName | Intrinsic::RootService)) => {
                self.roots(filter.fetch(), *of_trace, values)
            }
            Attribute::Named { .. }
            | Attribute::Intrinsic(
                Intrinsic::Name
                | Intrinsic::Duration
                | Intrinsic::Status
                | Intrinsic::StatusMessage
                | Intrinsic::Kind
                | Intrinsic::SpanId
                | Intrinsic::ParentId
                | Intrinsic::ChildCount
                | Intrinsic::TraceId
                | Intrinsic::TraceDuration
                | Intrinsic::EventName
                | Intrinsic::EventTimeSinceStart
                | Intrinsic::LinkTraceId
                | Intrinsic::LinkSpanId
                | Intrinsic::ScopeName
                | Intrinsic::ScopeVersion
                | Intrinsic::NestedSetLeft
                | Intrinsic::NestedSetRight
                | Intrinsic::NestedSetParent,
            ) => self.live(|reader, segment| {
                let Some(data) = reader.read(segment) else { return ControlFlow::Continue(()) };
                let spans = Reader::spans(segment, &data);
                live::tag_values(&spans, attribute, filter.span_filter(), &mut |value| values.add(value));
                values.flow()
            }),
        }
    }

    /// Looks at flushed blocks, newest first, a row group at a time, until `look` breaks. It is given a way to see that the client has
    /// gone away, and says how many bytes it read too.
    fn blocks(
        &mut self,
        mut look: impl FnMut(&BlockReader, Range<usize>, &dyn Fn() -> bool) -> Result<(u64, ControlFlow<()>), ReadError>,
    ) -> Result<(), QueryError> {
        let sources = &self.sources;
        for block in sources.view.served.iter().rev().take(self.blocks_max) {
            if self.is_full || sources.stop.is_cancelled() {
                return Ok(());
            }
            let looked = sources.open(block).and_then(|opened| {
                let mut bytes = 0;
                for group in 0..opened.row_groups() {
                    if self.is_full || sources.stop.is_cancelled() {
                        break;
                    }
                    let (read, flow) = look(&opened, group..group + 1, &|| sources.stop.is_cancelled())?;
                    bytes += read;
                    self.is_full = flow.is_break();
                }
                Ok(bytes)
            });
            match looked {
                Ok(bytes) => self.inspected_bytes += bytes,
                Err(error) => self.left_out.block(block, error)?,
            }
        }
        Ok(())
    }

    /// Names or services of the roots of live traces that may pass the filter.
    fn roots(&mut self, fetch: &Fetch, of_trace: Intrinsic, values: &mut Values) {
        let ids: FxHashSet<TraceId> = self
            .sources
            .view
            .heads
            .iter()
            .flat_map(|head| head.read(|contents| contents.index.keys().copied().collect::<Vec<_>>()))
            .collect();
        let ids: Vec<TraceId> = ids.into_iter().collect();
        let mut rest = &ids[..];
        while !rest.is_empty() {
            if self.is_over() {
                return;
            }
            let chunk;
            (chunk, rest) = rest.split_at(self.reader.at_once(&self.sources.view, rest.iter().copied(), TRACES_AT_ONCE));
            let gathered = self.reader.gather(&self.sources.view.heads, chunk);
            for trace in live::batch(fetch, &gathered.traces()).traces {
                let root = if of_trace == Intrinsic::RootName { trace.root_name } else { trace.root_service };
                if values.add(&Value::Str(root)).is_break() {
                    self.is_full = true;
                }
            }
        }
    }
}
