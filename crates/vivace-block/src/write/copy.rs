//! Rows of a block that is read, taken over column by column: no text is hashed again, nothing becomes OTLP in between.

use std::collections::BTreeMap;
use std::ops::Range;
use std::rc::Rc;

use memchr::{memchr, memchr_iter};
use rustc_hash::{FxHashMap, FxHashSet};
use vivace_core::{SpanId, TraceId};

use super::columns::{Columns, LISTS, List, list_of};
use super::values::Values;
use crate::nested_set::{self, Node};
use crate::read::{self, Column};
use crate::schema::Leaf;

/// A leaf of each list that has a value for every element, so that its levels are those of the list.
const REPRESENTATIVES: [(List, Leaf); LISTS] = [
    (List::Root, Leaf::TRACE_ID),
    (List::Stats, Leaf::STATS_SERVICE),
    (List::Resources, Leaf::SERVICE_NAME),
    (List::ResourceAttrs, Leaf::RESOURCE_ATTRS.key),
    (List::Scopes, Leaf::SCOPE_NAME),
    (List::ScopeAttrs, Leaf::SCOPE_ATTRS.key),
    (List::Spans, Leaf::SPAN_ID),
    (List::SpanAttrs, Leaf::SPAN_ATTRS.key),
    (List::Events, Leaf::EVENT_NAME),
    (List::EventAttrs, Leaf::EVENT_ATTRS.key),
    (List::Links, Leaf::LINK_TRACE_ID),
    (List::LinkAttrs, Leaf::LINK_ATTRS.key),
];

/// Columns whose levels must be known even if they have no value.
pub(crate) fn is_representative(leaf: Leaf) -> bool {
    REPRESENTATIVES.iter().any(|(_, representative)| *representative == leaf)
}

/// One column disagrees with the others of its row group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Mismatch(pub(crate) Leaf);

/// A decoded row group to take rows from, in ascending order.
pub(crate) struct RowSource {
    sides: Vec<Option<Side>>,
}

/// One column of it, and where the current row is.
struct Side {
    column: Rc<Column>,
    entries: Range<usize>,
    values: Range<usize>,
    /// By code of the column's dictionary: the code in the output's, plus one; 0 where it is not known yet.
    codes: Vec<u32>,
    /// The row group of the output that `codes` are of.
    generation: u64,
}

/// What a row added.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Copied {
    pub(super) trace_id: TraceId,
    pub(super) start_unix_nanos: u64,
    pub(super) end_unix_nanos: u64,
    pub(super) spans: u64,
    /// About what the columns took in memory.
    pub(super) bytes: u64,
    /// In the unit of `parquet_row_group_size_bytes`.
    pub(super) estimate: u64,
}

impl RowSource {
    /// `columns` are those of all leaves, in their order; none for those without any value.
    pub(crate) fn new(columns: Vec<Option<Rc<Column>>>) -> Self {
        let side = |column| Side { column, entries: 0..0, values: 0..0, codes: Vec::new(), generation: u64::MAX };
        Self { sides: columns.into_iter().map(|column| column.map(side)).collect() }
    }

    /// Goes to the row after the current one; to the first at first.
    pub(crate) fn next_row(&mut self) {
        for (side, leaf) in self.sides.iter_mut().zip(Leaf::all()) {
            if let Some(side) = side {
                side.next_row(leaf);
            }
        }
    }

    /// Spans in the current row.
    pub(crate) fn spans(&self) -> u64 {
        self.sides[Leaf::SPAN_ID.index()].as_ref().map_or(0, |side| side.values.len() as u64)
    }

    fn side(&self, leaf: Leaf) -> Result<&Side, Mismatch> {
        self.sides[leaf.index()].as_ref().ok_or(Mismatch(leaf))
    }

    fn i64(&self, leaf: Leaf) -> Result<u64, Mismatch> {
        let side = self.side(leaf)?;
        Ok(side.column.values.i64(side.values.start).cast_unsigned())
    }
}

impl Side {
    fn next_row(&mut self, leaf: Leaf) {
        let levels = &*self.column.levels;
        let (entry, value) = (self.entries.end, self.values.end);
        if levels.def.is_empty() {
            (self.entries, self.values) = (entry..entry + 1, value..value + 1);
            return;
        }
        let len = levels.def.len();
        let end = match levels.rep.get(entry + 1..) {
            Some(rest) => memchr(0, rest).map_or(len, |at| entry + 1 + at),
            None => len,
        };
        self.entries = entry.min(len)..end;
        let here = levels.def.get(self.entries.clone()).unwrap_or_default();
        self.values = value..value + memchr_iter(max_definition(leaf), here).count();
    }

    fn levels(&self, entries: Range<usize>) -> (&[u8], &[u8]) {
        let levels = &*self.column.levels;
        (levels.rep.get(entries.clone()).unwrap_or_default(), levels.def.get(entries).unwrap_or_default())
    }
}

fn max_definition(leaf: Leaf) -> u8 {
    leaf.column().max_def_level() as u8
}

impl Columns {
    /// Adds the current row of `rows` as it is.
    pub(super) fn copy_row(&mut self, rows: &mut RowSource) -> Result<Copied, Mismatch> {
        let start_unix_nanos = rows.i64(Leaf::START)?;
        let end_unix_nanos = rows.i64(Leaf::END)?;
        let ids = rows.side(Leaf::TRACE_ID)?;
        let trace_id = TraceId::from_slice(ids.column.values.bytes(ids.values.start));
        let spans = rows.side(Leaf::SPAN_ID)?.values.len() as u64;
        let mut copied = Copied { trace_id, start_unix_nanos, end_unix_nanos, spans, bytes: 0, estimate: 7 };

        let mut bases = [0u32; LISTS];
        let mut elements = [0; LISTS];
        for (list, leaf) in REPRESENTATIVES {
            bases[list as usize] = self.entries(list) as u32;
            let side = rows.side(leaf)?;
            elements[list as usize] = side.values.len();
            if list == List::Root {
                self.entry(list, 0, 0);
                continue;
            }
            let (repetition, definition) = side.levels(side.entries.clone());
            if definition.is_empty() {
                return Err(Mismatch(leaf));
            }
            self.extend_levels(list, repetition, definition);
            copied.estimate += unit(list) * side.values.len() as u64;
        }
        let generation = self.generation();
        for (index, leaf) in Leaf::all().enumerate() {
            let column = &mut self.columns[index];
            let wanted = elements[column.list as usize];
            let Some(side) = &mut rows.sides[index] else {
                // Statistics that claim of a required column that it has no value.
                if column.present.is_none() && wanted > 0 {
                    return Err(Mismatch(leaf));
                }
                continue;
            };
            if column.present.is_none() && side.values.len() != wanted {
                return Err(Mismatch(leaf));
            }
            let base = bases[column.list as usize];
            if let Some(present) = &mut column.present {
                let (repetition, definition) = side.levels(side.entries.clone());
                let in_list = self.lists[column.list as usize].definition.len() - base as usize;
                if !mark_present(present, base, repetition, definition, column.max_repetition, column.max_definition, in_list) {
                    return Err(Mismatch(leaf));
                }
            }
            let bytes = side.copy_values(side.values.clone(), &mut column.values, generation).ok_or(Mismatch(leaf))?;
            self.lists[column.list as usize].bytes += bytes;
            copied.bytes += (bytes + 8 * side.values.len()) as u64;
        }
        self.end_row();
        Ok(copied)
    }
}

/// A span of one of the rows that are combined.
struct SpanAt<'a> {
    source: usize,
    /// Counted in its row, as are the others; after [`Groups::number`] of what is equal the first.
    resource: usize,
    scope: usize,
    span: usize,
    id: &'a [u8],
    start: u64,
}

/// Resources and scopes of rows: those of equal content become one.
struct Groups {
    /// By number: an element that has the content, by its row and its number there.
    resources: Vec<(usize, usize)>,
    scopes: Vec<(usize, usize)>,
}

/// Elements of rows in the order in which they are to stand, each by its row and its number there, with the repetition
/// level it begins with.
#[derive(Default)]
struct Order {
    resources: Vec<(usize, usize, u8)>,
    scopes: Vec<(usize, usize, u8)>,
    spans: Vec<(usize, usize, u8)>,
}

/// The combination of the current rows of several sources, all of one trace.
pub(super) enum Combined {
    /// All spans of the others are copies of those of this one.
    Same(usize),
    /// Not combined: something in a row is unusual.
    Unusual,
    /// Combined and added.
    Copied(Copied),
}

/// Where the elements of a column start in its row, one more at the end: entry and value.
type Starts = Vec<(usize, usize)>;

impl Side {
    /// `level` is the deepest repetition level at which an element begins.
    fn starts(&self, leaf: Leaf, level: u8, starts: &mut Starts) {
        let (repetition, definition) = self.levels(self.entries.clone());
        let max_definition = max_definition(leaf);
        starts.clear();
        if self.entries.len() == self.values.len() && matches!(list_of(leaf), List::Resources | List::Scopes | List::Spans) {
            // Every element has its one entry and its one value.
            starts.extend((0..=self.entries.len()).map(|at| (self.entries.start + at, self.values.start + at)));
            return;
        }
        let mut value = self.values.start;
        for (at, (repetition, definition)) in repetition.iter().zip(definition).enumerate() {
            if *repetition <= level {
                starts.push((self.entries.start + at, value));
            }
            value += usize::from(*definition == max_definition);
        }
        starts.push((self.entries.end, value));
    }
}

impl Columns {
    /// Adds one row of the current rows of several sources, which are parts of one trace.
    ///
    /// Source: block format description, "Combining rows and compaction".
    pub(super) fn copy_combined(&mut self, parts: &mut [&mut RowSource]) -> Result<Combined, Mismatch> {
        let mut seen: FxHashSet<(SpanId, i64)> = FxHashSet::default();
        let mut spans: Vec<SpanAt<'_>> = Vec::new();
        let mut contributors = Vec::new();
        for (source, part) in parts.iter().enumerate() {
            let (ids, kinds, starts) = (part.side(Leaf::SPAN_ID)?, part.side(Leaf::SPAN_KIND)?, part.side(Leaf::SPAN_START)?);
            let (repetition, definition) = ids.levels(ids.entries.clone());
            if definition.iter().any(|definition| *definition != 3) {
                return Ok(Combined::Unusual);
            }
            let before = spans.len();
            let (mut resource, mut scope) = (0, 0);
            for (span, repetition) in repetition.iter().enumerate() {
                resource += usize::from(*repetition == 1);
                scope += usize::from(matches!(repetition, 1 | 2));
                let id = ids.column.values.bytes(ids.values.start + span);
                let kind = kinds.column.values.i64(kinds.values.start + span);
                if seen.insert((SpanId::from_slice(id), if (0..=7).contains(&kind) { kind } else { 0 })) {
                    let start = starts.column.values.i64(starts.values.start + span).cast_unsigned();
                    spans.push(SpanAt { source, resource, scope, span, id, start });
                }
            }
            if spans.len() > before {
                contributors.push((source, spans.len() - before == repetition.len()));
            }
        }
        match contributors[..] {
            [(0, true)] => return Ok(Combined::Same(0)),
            [_] | [] => return Ok(Combined::Unusual),
            _ => {}
        }
        let groups = Groups::number(parts, &mut spans);
        let order = order(spans, &groups);
        self.add_combined(parts, &order).map(Combined::Copied)
    }

    fn add_combined(&mut self, parts: &mut [&mut RowSource], order: &Order) -> Result<Copied, Mismatch> {
        let mut copied = self.add_trace_columns(parts, order)?;
        self.add_positions(parts, order)?;
        let generation = self.generation();
        let mut starts: Vec<Starts> = vec![Vec::new(); parts.len()];
        for level in 1..=3u8 {
            let elements = match level {
                1 => &order.resources,
                2 => &order.scopes,
                _ => &order.spans,
            };
            // Where each element's entries start in its list, and how many they are.
            let mut places: Vec<Vec<(u32, u32)>> = vec![Vec::new(); LISTS];
            let mut wanted = [0; LISTS];
            for (list, leaf) in REPRESENTATIVES {
                if depth(list) != level {
                    continue;
                }
                find_starts(parts, leaf, level, &mut starts);
                for (source, element, repetition) in elements {
                    let entries = entries(&starts[*source], *element, leaf)?;
                    let base = self.entries(list) as u32;
                    let side = parts[*source].side(leaf)?;
                    let (repetitions, definitions) = side.levels(entries.clone());
                    self.extend_levels(list, repetitions, definitions);
                    self.lists[list as usize].repetition[base as usize] = *repetition;
                    places[list as usize].push((base, entries.len() as u32));
                    let values = memchr_iter(max_definition(leaf), definitions).count();
                    wanted[list as usize] += values;
                    copied.estimate += unit(list) * values as u64;
                }
            }
            for (index, leaf) in Leaf::all().enumerate() {
                let list = self.columns[index].list;
                if depth(list) != level || POSITIONS.contains(&leaf) {
                    continue;
                }
                let mut values = 0;
                find_starts(parts, leaf, level, &mut starts);
                for ((source, element, _), (base, in_list)) in elements.iter().zip(&places[list as usize]) {
                    let Some(side) = &mut parts[*source].sides[index] else { continue };
                    let (Some((entry, value)), Some((entry_end, value_end))) =
                        (starts[*source].get(*element), starts[*source].get(*element + 1))
                    else {
                        return Err(Mismatch(leaf));
                    };
                    let column = &mut self.columns[index];
                    if let Some(present) = &mut column.present {
                        let (repetition, definition) = side.levels(*entry..*entry_end);
                        let (max_repetition, max_definition) = (column.max_repetition, column.max_definition);
                        if !mark_present(present, *base, repetition, definition, max_repetition, max_definition, *in_list as usize) {
                            return Err(Mismatch(leaf));
                        }
                    }
                    let bytes = side.copy_values(*value..*value_end, &mut column.values, generation).ok_or(Mismatch(leaf))?;
                    self.lists[list as usize].bytes += bytes;
                    copied.bytes += (bytes + 8 * (value_end - value)) as u64;
                    values += value_end - value;
                }
                if self.columns[index].present.is_none() && values != wanted[list as usize] {
                    return Err(Mismatch(leaf));
                }
            }
        }
        self.end_row();
        Ok(copied)
    }

    /// What a row says of its trace as a whole.
    fn add_trace_columns(&mut self, parts: &[&mut RowSource], order: &Order) -> Result<Copied, Mismatch> {
        let first_text = |leaf| -> Result<&[u8], Mismatch> {
            for part in parts {
                let side = part.side(leaf)?;
                let text = side.column.values.bytes(side.values.start);
                if !text.is_empty() {
                    return Ok(text);
                }
            }
            Ok(&[])
        };
        let (mut start, mut end) = (0, 0);
        for part in parts {
            let part_start = part.i64(Leaf::START)?;
            start = if start == 0 { part_start } else { start.min(part_start) };
            end = end.max(part.i64(Leaf::END)?);
        }
        let ids = parts[0].side(Leaf::TRACE_ID)?;
        let trace_id = TraceId::from_slice(ids.column.values.bytes(ids.values.start));
        self.trace(trace_id, start, end, first_text(Leaf::ROOT_SERVICE_NAME)?, first_text(Leaf::ROOT_SPAN_NAME)?);

        let mut stats: BTreeMap<&[u8], (i32, i32)> = BTreeMap::new();
        let mut resources = order.resources.iter();
        let mut service: &[u8] = &[];
        for (source, span, repetition) in &order.spans {
            if *repetition < 2 {
                let (source, resource, _) = resources.next().ok_or(Mismatch(Leaf::SERVICE_NAME))?;
                let names = parts[*source].side(Leaf::SERVICE_NAME)?;
                service = names.column.values.bytes(names.values.start + resource);
            }
            let codes = parts[*source].side(Leaf::STATUS_CODE)?;
            let count = stats.entry(service).or_default();
            count.0 += 1;
            count.1 += i32::from(codes.column.values.i64(codes.values.start + span) == 2);
        }
        for (number, (service, (spans, errors))) in stats.into_iter().enumerate() {
            self.service_stat(number, service, spans, errors);
        }
        let spans = order.spans.len() as u64;
        Ok(Copied { trace_id, start_unix_nanos: start, end_unix_nanos: end, spans, bytes: 0, estimate: 7 })
    }

    /// Nested sets are those of the whole trace.
    fn add_positions(&mut self, parts: &[&mut RowSource], order: &Order) -> Result<(), Mismatch> {
        let mut nodes = Vec::with_capacity(order.spans.len());
        for (source, span, _) in &order.spans {
            let part = &parts[*source];
            let (ids, parents, kinds) = (part.side(Leaf::SPAN_ID)?, part.side(Leaf::PARENT_SPAN_ID)?, part.side(Leaf::SPAN_KIND)?);
            let parent = parents.column.values.bytes(parents.values.start + span);
            nodes.push(Node {
                id: SpanId::from_slice(ids.column.values.bytes(ids.values.start + span)),
                parent: (!parent.is_empty()).then(|| SpanId::from_slice(parent)),
                kind: kinds.column.values.i64(kinds.values.start + span),
            });
        }
        nested_set::number(&nodes).into_iter().for_each(|position| self.position(position));
        Ok(())
    }
}

/// Columns that are made anew for a combined row.
const POSITIONS: [Leaf; 3] = [Leaf::NESTED_SET_PARENT, Leaf::NESTED_SET_LEFT, Leaf::NESTED_SET_RIGHT];

/// How many lists below the row the elements are that a list's entries belong to: resources, scopes, spans.
fn depth(list: List) -> u8 {
    match list {
        List::Root | List::Stats => 0,
        List::Resources | List::ResourceAttrs => 1,
        List::Scopes | List::ScopeAttrs => 2,
        List::Spans | List::SpanAttrs | List::Events | List::EventAttrs | List::Links | List::LinkAttrs => 3,
    }
}

/// Of each source; empty for those without any value.
fn find_starts(parts: &[&mut RowSource], leaf: Leaf, level: u8, starts: &mut [Starts]) {
    for (part, starts) in parts.iter().zip(starts) {
        match &part.sides[leaf.index()] {
            Some(side) => side.starts(leaf, level, starts),
            None => starts.clear(),
        }
    }
}

fn entries(starts: &Starts, element: usize, leaf: Leaf) -> Result<Range<usize>, Mismatch> {
    match (starts.get(element), starts.get(element + 1)) {
        (Some((start, _)), Some((end, _))) if start < end => Ok(*start..*end),
        _ => Err(Mismatch(leaf)),
    }
}

/// Spans sorted by start and id in their scopes; scopes by their first span in their resources; resources by theirs.
fn order(mut spans: Vec<SpanAt<'_>>, groups: &Groups) -> Order {
    let key = |span: &SpanAt<'_>| (span.start, SpanId::from_slice(span.id));
    spans.sort_by_key(|span| (span.resource, span.scope, key(span)));
    let mut scopes: Vec<&[SpanAt<'_>]> = spans.chunk_by(|a, b| a.scope == b.scope).collect();
    scopes.sort_by_key(|scope| (scope[0].resource, key(&scope[0])));
    let mut resources: Vec<&[&[SpanAt<'_>]]> = scopes.chunk_by(|a, b| a[0].resource == b[0].resource).collect();
    resources.sort_by_key(|scopes| key(&scopes[0][0]));
    let mut order = Order::default();
    for (at, scopes) in resources.into_iter().enumerate() {
        let level = u8::from(at > 0);
        let (source, resource) = groups.resources[scopes[0][0].resource];
        order.resources.push((source, resource, level));
        for (at, scope) in scopes.iter().enumerate() {
            let level = if at > 0 { 2 } else { level };
            let (source, number) = groups.scopes[scope[0].scope];
            order.scopes.push((source, number, level));
            let spans = scope.iter().enumerate();
            order.spans.extend(spans.map(|(at, span)| (span.source, span.span, if at > 0 { 3 } else { level })));
        }
    }
    order
}

impl Groups {
    /// Gives every span the numbers of its resource's and its scope's content.
    fn number(parts: &[&mut RowSource], spans: &mut [SpanAt<'_>]) -> Self {
        let (resources, scopes) = (contents(parts, 1), contents(parts, 2));
        let mut groups = Self { resources: Vec::new(), scopes: Vec::new() };
        let mut resource_numbers: FxHashMap<&[u8], usize> = FxHashMap::default();
        let mut scope_numbers: FxHashMap<(usize, &[u8]), usize> = FxHashMap::default();
        for span in spans {
            let content = resources[span.source].get(span.resource).map_or(&[][..], Vec::as_slice);
            let resource = *resource_numbers.entry(content).or_insert_with(|| {
                groups.resources.push((span.source, span.resource));
                groups.resources.len() - 1
            });
            let content = scopes[span.source].get(span.scope).map_or(&[][..], Vec::as_slice);
            let scope = *scope_numbers.entry((resource, content)).or_insert_with(|| {
                groups.scopes.push((span.source, span.scope));
                groups.scopes.len() - 1
            });
            (span.resource, span.scope) = (resource, scope);
        }
        groups
    }
}

/// Row by row and element by element what its columns hold, levels included: equal for equal elements.
fn contents(parts: &[&mut RowSource], level: u8) -> Vec<Vec<Vec<u8>>> {
    let mut contents = Vec::with_capacity(parts.len());
    for part in parts {
        let mut of_part: Vec<Vec<u8>> = Vec::new();
        let mut starts = Vec::new();
        for (leaf, side) in Leaf::all().zip(&part.sides) {
            let Some(side) = side.as_ref().filter(|_| depth(list_of(leaf)) == level) else { continue };
            side.starts(leaf, level, &mut starts);
            of_part.resize(of_part.len().max(starts.len() - 1), Vec::new());
            for (content, bounds) in of_part.iter_mut().zip(starts.windows(2)) {
                let ((entry, value), (entry_end, value_end)) = (bounds[0], bounds[1]);
                let (repetition, definition) = side.levels(entry..entry_end);
                if value_end > value {
                    content.push(leaf.index() as u8);
                    // Where an element begins says nothing about it.
                    content.extend_from_slice(repetition.get(1..).unwrap_or_default());
                    content.extend_from_slice(definition);
                    (value..value_end).for_each(|index| side.column.values.put(index, content));
                }
            }
        }
        contents.push(of_part);
    }
    contents
}

/// What an element counts in the unit of `parquet_row_group_size_bytes`.
///
/// Source: block format description, "Row order, row groups, pages".
fn unit(list: List) -> u64 {
    match list {
        List::Resources => 10,
        List::Scopes => 2,
        List::Spans => 14,
        List::Events => 4,
        List::ResourceAttrs | List::SpanAttrs | List::EventAttrs => 7,
        List::Root | List::Stats | List::ScopeAttrs | List::Links | List::LinkAttrs => 0,
    }
}

/// Adds the entries that have a value, several times where they have several. False if there are not `in_list` entries.
fn mark_present(
    present: &mut Vec<u32>,
    base: u32,
    repetition: &[u8],
    definition: &[u8],
    max_repetition: u8,
    max_definition: u8,
    in_list: usize,
) -> bool {
    if definition.len() == in_list {
        present.extend(memchr_iter(max_definition, definition).map(|at| base + at as u32));
        return true;
    }
    // Arrays: further elements are no entries of the list.
    let mut next = 0;
    for (repetition, definition) in repetition.iter().zip(definition) {
        next += u32::from(*repetition < max_repetition || next == 0);
        if *definition == max_definition {
            present.push(base + next - 1);
        }
    }
    next as usize == in_list
}

impl Side {
    /// Appends values and returns how many bytes of text they have. None if they are of another type or not there.
    fn copy_values(&mut self, range: Range<usize>, out: &mut Values, generation: u64) -> Option<usize> {
        use read::Values as From;
        match (&self.column.values, out) {
            (From::Codes { codes, dictionary }, Values::Text(text)) => {
                if self.generation != generation {
                    self.generation = generation;
                    self.codes.clear();
                    self.codes.resize(dictionary.len(), 0);
                }
                let mut bytes = 0;
                for code in codes.get(range)? {
                    let known = &mut self.codes[*code as usize];
                    if *known == 0 {
                        *known = text.intern(dictionary.strings.get(*code as usize)) + 1;
                    }
                    bytes += text.push_code(*known - 1);
                }
                return Some(bytes);
            }
            (From::Strings(_), Values::Text(text)) => {
                return self.each_text(range, |value| text.push(value));
            }
            (From::Codes { .. } | From::Strings(_), Values::Ids(ids)) => {
                return self.each_text(range, |value| ids.push(value));
            }
            (From::I64(from), Values::I64(to)) => to.extend_from_slice(from.get(range)?),
            (From::I32(from), Values::I32(to)) => to.extend_from_slice(from.get(range)?),
            (From::F64(from), Values::F64(to)) => to.extend_from_slice(from.get(range)?),
            (From::Bool(from), Values::Bool(to)) => to.extend_from_slice(from.get(range)?),
            _ => return None,
        }
        Some(0)
    }

    fn each_text(&self, range: Range<usize>, mut push: impl FnMut(&[u8])) -> Option<usize> {
        let values = &self.column.values;
        if range.end > values.len() {
            return None;
        }
        Some(
            range
                .map(|index| {
                    let value = values.bytes(index);
                    push(value);
                    value.len()
                })
                .sum(),
        )
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use bytes::Bytes;

    use super::*;
    use crate::{BlockMeta, BlockReader};

    fn rows(without: Option<Leaf>) -> RowSource {
        let object = |name: &str| std::fs::read(format!("{}/testdata/v4-pages/{name}", env!("CARGO_MANIFEST_DIR"))).expect(name);
        let meta = BlockMeta::from_json(&object("meta.json"), "v4-pages").expect("a meta");
        let block = BlockReader::open(meta, Arc::new(Bytes::from(object("data.parquet")))).expect("opens");
        let mut columns = block.row_group(0).expect("reads");
        without.into_iter().for_each(|leaf| columns[leaf.index()] = None);
        let mut rows = RowSource::new(columns);
        rows.next_row();
        rows
    }

    #[test]
    fn a_required_column_without_its_values_is_noticed() {
        assert!(Columns::new().copy_row(&mut rows(None)).is_ok());
        for leaf in [Leaf::SPAN_KIND, Leaf::RESOURCE_DROPPED_ATTRS, Leaf::SPAN_ATTRS.is_array, Leaf::SCOPE_VERSION] {
            let copied = Columns::new().copy_row(&mut rows(Some(leaf)));
            assert_eq!(copied.map(|_| ()), Err(Mismatch(leaf)));
        }
        let leaf = Leaf::SPAN_DROPPED_ATTRS;
        let (mut first, mut second) = (rows(Some(leaf)), rows(None));
        second.next_row();
        assert!(matches!(Columns::new().copy_combined(&mut [&mut first, &mut second]), Err(Mismatch(at)) if at == leaf));
    }
}
