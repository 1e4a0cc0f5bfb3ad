//! Rows of one trace, from several blocks that are read, become one row, column by column.
//!
//! ```text
//!    row of source 0     row of source 1
//!    resource a          resource a           Copies of a span go, the first stays: span 4 of source 1 is that of
//!      scope x             scope x            source 0.
//!        span 2              span 1
//!        span 4              span 4           Resources and scopes that have spans left are described as words, column
//!            \               /                by column, and get numbers, equal ones the same (`Groups`). Here both rows
//!             row of the output               have one resource and one scope.
//!             resource a
//!               scope x                       What is left is put in order (`Order`): spans by start in their scopes,
//!                 span 1   source 1           scopes and resources by their first span. Each is an `Element`: a source,
//!                 span 2 ┐ source 0,          and its number in the row of that.
//!                 span 4 ┘ in one piece
//!                                             List by list and column by column, elements are copied with all that is
//!                                             below them. Neighbours that stay neighbours go in one piece, a `Run`.
//! ```
//!
//! What a row says of its trace as a whole, statistics of services and nested sets are made anew. Where a row is unusual, as with
//! a resource that has no spans, nothing is added, and the trace is combined as OTLP.
//!
//! Source: docs/facts/blocks.md, "Combining rows and compaction".

use std::collections::BTreeMap;
use std::hash::BuildHasher;
use std::ops::Range;

use hashbrown::{DefaultHashBuilder, HashTable, hash_table};
use rustc_hash::FxHashSet;
use vivace_core::{SpanId, TraceId};

use super::columns::{Columns, List};
use super::copy::{Copied, Mismatch, REPRESENTATIVES, RowSource, Shares, Side, leaves_of, mark_present};
use super::estimate;
use crate::nested_set::{self, Node};
use crate::schema::Leaf;

/// The combination of the current rows of several sources, all of one trace.
pub(super) enum Combined {
    /// All spans of the others are copies of those of this one.
    Same(usize),
    /// Not combined: something in a row is unusual.
    Unusual,
    /// Combined and added.
    Copied(Copied),
}

/// Working memory, kept from trace to trace.
#[derive(Debug, Default)]
pub(super) struct Combiner {
    seen: FxHashSet<(SpanId, i64)>,
    spans: Vec<SpanAt>,
    resources: Groups,
    scopes: Groups,
    order: Order,
    /// By source: where the elements of the list at hand start, in its representative and in another column.
    starts: Vec<Starts>,
    own_starts: Vec<Starts>,
    runs: Vec<Run>,
}

/// A span of one of the rows that are combined.
#[derive(Debug, Clone, Copy)]
struct SpanAt {
    source: u32,
    /// Counted in its row, as are the others; after [`Combiner::group`] the number of what is equal.
    resource: u32,
    scope: u32,
    span: u32,
    id: SpanId,
    start: u64,
}

/// Elements of rows, those of equal content as one.
#[derive(Debug, Default)]
struct Groups {
    /// By number: an element that has the content, by its row and its number there.
    firsts: Vec<(u32, u32)>,
    /// By number: where its content ends in `words`.
    ends: Vec<usize>,
    words: Vec<u32>,
    by_content: HashTable<u32>,
    hasher: DefaultHashBuilder,
    /// Of the source at hand, by element: the number, or one of these.
    numbers: Vec<u32>,
    contents: Vec<Vec<u32>>,
}

/// The number of an element that no span is left of.
const UNUSED: u32 = u32::MAX;
/// The number of an element that has none yet.
const WANTED: u32 = u32::MAX - 1;

/// Elements of rows in the order in which they are to stand.
#[derive(Debug, Default)]
struct Order {
    resources: Vec<Element>,
    scopes: Vec<Element>,
    spans: Vec<Element>,
    /// Spans of one scope and of one resource while they are sorted: first span, and what belongs to it.
    of_scope: Vec<((u64, SpanId), Range<usize>)>,
    of_resource: Vec<((u64, SpanId), Range<usize>)>,
}

/// By its row and its number there, with the repetition level it begins with.
#[derive(Debug, Clone, Copy)]
struct Element {
    source: u32,
    number: u32,
    repetition: u8,
}

/// Neighbours in a row that stay neighbours.
#[derive(Debug)]
struct Run {
    source: usize,
    elements: Range<usize>,
    /// Where their entries start in the output's list.
    base: u32,
}

/// Where the elements of a column start in its row, one more at the end: entry and value.
type Starts = Vec<(usize, usize)>;

impl Side {
    /// `level` is the deepest repetition level at which an element begins.
    fn starts(&self, list: List, level: u8, starts: &mut Starts) {
        let (repetition, definition) = self.levels(self.entries.clone());
        starts.clear();
        if self.entries.len() == self.values.len() && matches!(list, List::Resources | List::Scopes | List::Spans) {
            // Every element has its one entry and its one value.
            starts.extend((0..=self.entries.len()).map(|at| (self.entries.start + at, self.values.start + at)));
            return;
        }
        let mut value = self.values.start;
        for (at, (repetition, definition)) in repetition.iter().zip(definition).enumerate() {
            if *repetition <= level {
                starts.push((self.entries.start + at, value));
            }
            value += usize::from(*definition == self.max_definition);
        }
        starts.push((self.entries.end, value));
    }

    /// The same for a column whose entries are those of its list, where they start in that.
    fn starts_as(&self, list: &Starts, starts: &mut Starts) {
        starts.clear();
        let mut value = self.values.start;
        let mut last = self.entries.start;
        for (entry, _) in list {
            let before = self.column.levels.def.get(last..*entry).unwrap_or_default();
            value += before.iter().map(|definition| usize::from(*definition == self.max_definition)).sum::<usize>();
            starts.push((*entry, value));
            last = *entry;
        }
    }
}

impl Combiner {
    /// Adds one row of the current rows of several sources, which are parts of one trace.
    pub(super) fn combine(&mut self, columns: &mut Columns, parts: &mut [&mut RowSource]) -> Result<Combined, Mismatch> {
        self.seen.clear();
        self.spans.clear();
        let mut contributors = Vec::with_capacity(parts.len());
        for (source, part) in parts.iter().enumerate() {
            let (ids, kinds, starts) = (part.side(Leaf::SPAN_ID)?, part.side(Leaf::SPAN_KIND)?, part.side(Leaf::SPAN_START)?);
            let (repetition, definition) = ids.levels(ids.entries.clone());
            if definition.iter().any(|definition| *definition != 3) {
                return Ok(Combined::Unusual);
            }
            let before = self.spans.len();
            let (mut resource, mut scope) = (0, 0);
            for (span, repetition) in repetition.iter().enumerate() {
                resource += u32::from(*repetition == 1);
                scope += u32::from(matches!(repetition, 1 | 2));
                let id = SpanId::from_slice(ids.column.values.bytes(ids.values.start + span));
                let kind = kinds.column.values.i64(kinds.values.start + span);
                if self.seen.insert((id, if (0..=7).contains(&kind) { kind } else { 0 })) {
                    let start = starts.column.values.i64(starts.values.start + span).cast_unsigned();
                    self.spans.push(SpanAt { source: source as u32, resource, scope, span: span as u32, id, start });
                }
            }
            if self.spans.len() > before {
                contributors.push((source, self.spans.len() - before == repetition.len()));
            }
        }
        match contributors[..] {
            [(0, true)] => return Ok(Combined::Same(0)),
            [_] | [] => return Ok(Combined::Unusual),
            _ => {}
        }
        self.starts.resize_with(parts.len().max(self.starts.len()), Vec::new);
        self.own_starts.resize_with(parts.len().max(self.own_starts.len()), Vec::new);
        self.group(columns, parts)?;
        self.order.sort(&mut self.spans, &self.resources, &self.scopes);
        self.add(columns, parts).map(Combined::Copied)
    }

    /// Gives every span the numbers of its resource's and its scope's content.
    fn group(&mut self, columns: &mut Columns, parts: &mut [&mut RowSource]) -> Result<(), Mismatch> {
        let Self { spans, resources, scopes, starts, own_starts, .. } = self;
        resources.clear();
        scopes.clear();
        for spans in spans.chunk_by_mut(|a, b| a.source == b.source) {
            let source = spans[0].source as usize;
            let part = &mut *parts[source];
            let (starts, own_starts) = (&mut starts[source], &mut own_starts[source]);
            resources.want(spans.iter().map(|span| span.resource));
            resources.describe(columns, part, [List::Resources, List::ResourceAttrs], starts, own_starts)?;
            for span in spans.iter_mut() {
                span.resource = resources.number(source as u32, span.resource, 0);
            }
            scopes.want(spans.iter().map(|span| span.scope));
            scopes.describe(columns, part, [List::Scopes, List::ScopeAttrs], starts, own_starts)?;
            for span in spans.iter_mut() {
                span.scope = scopes.number(source as u32, span.scope, span.resource);
            }
        }
        Ok(())
    }

    fn add(&mut self, columns: &mut Columns, parts: &mut [&mut RowSource]) -> Result<Copied, Mismatch> {
        let mut copied = add_trace_columns(columns, parts, &self.order)?;
        add_positions(columns, parts, &self.order)?;
        for (list, representative) in REPRESENTATIVES {
            let level = depth(list);
            let elements = match level {
                0 => continue,
                1 => &self.order.resources,
                2 => &self.order.scopes,
                _ => &self.order.spans,
            };
            for (part, starts) in parts.iter().zip(&mut self.starts) {
                part.side(representative)?.starts(list, level, starts);
            }
            let wanted = add_levels(columns, list, representative, parts, elements, &self.starts, &mut self.runs)?;
            copied.estimate += estimate::unit(list) * wanted as u64;
            for leaf in leaves_of(list) {
                if !POSITIONS.contains(leaf) {
                    let own = &mut self.own_starts;
                    copied.bytes += add_values(columns, *leaf, level, parts, &self.runs, wanted, &self.starts, own)?;
                }
            }
        }
        columns.end_row();
        Ok(copied)
    }
}

/// Adds a list's entries, says in `runs` where they stand, and returns how many of them have a value.
fn add_levels(
    columns: &mut Columns,
    list: List,
    leaf: Leaf,
    parts: &[&mut RowSource],
    elements: &[Element],
    starts: &[Starts],
    runs: &mut Vec<Run>,
) -> Result<usize, Mismatch> {
    runs.clear();
    let mut wanted = 0;
    for Element { source, number, repetition } in elements {
        let (source, number) = (*source as usize, *number as usize);
        let (Some((entry, value)), Some((entry_end, value_end))) = (starts[source].get(number), starts[source].get(number + 1)) else {
            return Err(Mismatch(leaf));
        };
        let base = columns.entries(list);
        let (repetitions, definitions) = parts[source].side(leaf)?.levels(*entry..*entry_end);
        if definitions.is_empty() {
            return Err(Mismatch(leaf));
        }
        columns.extend_levels(list, repetitions, definitions);
        columns.lists[list as usize].repetition[base] = *repetition;
        wanted += value_end - value;
        match runs.last_mut() {
            Some(run) if run.source == source && run.elements.end == number => run.elements.end += 1,
            _ => runs.push(Run { source, elements: number..number + 1, base: base as u32 }),
        }
    }
    Ok(wanted)
}

/// Adds what a column has below these elements and returns about how many bytes it takes. `starts` are those of its list.
#[allow(clippy::too_many_arguments, reason = "one step of a loop over columns")]
fn add_values(
    columns: &mut Columns,
    leaf: Leaf,
    level: u8,
    parts: &mut [&mut RowSource],
    runs: &[Run],
    wanted: usize,
    starts: &[Starts],
    own_starts: &mut [Starts],
) -> Result<u64, Mismatch> {
    let generation = columns.generation();
    let column = &mut columns.columns[leaf.index()];
    let list = &mut columns.lists[column.list as usize];
    for ((part, starts), own) in parts.iter().zip(starts).zip(&mut *own_starts) {
        match &part.sides[leaf.index()] {
            Some(side) if side.values.is_empty() => {}
            Some(side) if side.shares == Shares::Entries => side.starts_as(starts, own),
            Some(side) if side.shares == Shares::Nothing => side.starts(column.list, level, own),
            _ => {}
        }
    }
    let (mut values, mut bytes) = (0, 0);
    for Run { source, elements, base } in runs {
        let Some(side) = parts[*source].sides[leaf.index()].as_mut().filter(|side| !side.values.is_empty()) else { continue };
        let own = if side.shares == Shares::All { &starts[*source] } else { &own_starts[*source] };
        let (Some((entry, value)), Some((entry_end, value_end))) = (own.get(elements.start), own.get(elements.end)) else {
            return Err(Mismatch(leaf));
        };
        if let Some(present) = &mut column.present {
            let (repetition, definition) = side.levels(*entry..*entry_end);
            let in_list = starts[*source][elements.end].0 - starts[*source][elements.start].0;
            if !mark_present(present, *base, repetition, definition, column.max_repetition, column.max_definition, in_list) {
                return Err(Mismatch(leaf));
            }
        }
        bytes += side.copy_values(*value..*value_end, &mut column.values, generation).ok_or(Mismatch(leaf))?;
        values += value_end - value;
    }
    if column.present.is_none() && values != wanted {
        return Err(Mismatch(leaf));
    }
    list.bytes += bytes;
    Ok((bytes + 8 * values) as u64)
}

/// What a row says of its trace as a whole.
fn add_trace_columns(columns: &mut Columns, parts: &[&mut RowSource], order: &Order) -> Result<Copied, Mismatch> {
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
    columns.trace(trace_id, start, end, first_text(Leaf::ROOT_SERVICE_NAME)?, first_text(Leaf::ROOT_SPAN_NAME)?);

    let mut stats: BTreeMap<&[u8], (i32, i32)> = BTreeMap::new();
    let mut resources = order.resources.iter();
    for spans in order.spans.chunk_by(|_, next| next.repetition > 1) {
        let resource = resources.next().ok_or(Mismatch(Leaf::SERVICE_NAME))?;
        let names = parts[resource.source as usize].side(Leaf::SERVICE_NAME)?;
        let service = names.column.values.bytes(names.values.start + resource.number as usize);
        let count = stats.entry(service).or_default();
        for span in spans {
            let codes = parts[span.source as usize].side(Leaf::STATUS_CODE)?;
            count.0 += 1;
            count.1 += i32::from(codes.column.values.i64(codes.values.start + span.number as usize) == 2);
        }
    }
    for (number, (service, (spans, errors))) in stats.into_iter().enumerate() {
        columns.service_stat(number, service, spans, errors);
    }
    let spans = order.spans.len() as u64;
    Ok(Copied { trace_id, start_unix_nanos: start, end_unix_nanos: end, spans, bytes: 0, estimate: estimate::unit(List::Root) })
}

/// Nested sets are those of the whole trace.
fn add_positions(columns: &mut Columns, parts: &[&mut RowSource], order: &Order) -> Result<(), Mismatch> {
    let mut nodes = Vec::with_capacity(order.spans.len());
    for Element { source, number, .. } in &order.spans {
        let (part, span) = (&parts[*source as usize], *number as usize);
        let (ids, parents, kinds) = (part.side(Leaf::SPAN_ID)?, part.side(Leaf::PARENT_SPAN_ID)?, part.side(Leaf::SPAN_KIND)?);
        let parent = parents.column.values.bytes(parents.values.start + span);
        nodes.push(Node {
            id: SpanId::from_slice(ids.column.values.bytes(ids.values.start + span)),
            parent: (!parent.is_empty()).then(|| SpanId::from_slice(parent)),
            kind: kinds.column.values.i64(kinds.values.start + span),
        });
    }
    nested_set::number(&nodes).into_iter().for_each(|position| columns.position(position));
    Ok(())
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

impl Order {
    /// Spans by start and id in their scopes; scopes by their first span in their resources; resources by theirs.
    fn sort(&mut self, spans: &mut [SpanAt], resource_groups: &Groups, scope_groups: &Groups) {
        let Self { resources, scopes, spans: sorted, of_scope, of_resource } = self;
        resources.clear();
        scopes.clear();
        sorted.clear();
        of_scope.clear();
        of_resource.clear();
        let key = |span: &SpanAt| (span.start, span.id);
        spans.sort_by_key(|span| (span.resource, span.scope, key(span)));
        let mut at = 0;
        for spans in spans.chunk_by(|a, b| a.scope == b.scope) {
            of_scope.push((key(&spans[0]), at..at + spans.len()));
            at += spans.len();
        }
        let resource = |range: &Range<usize>| spans[range.start].resource;
        of_scope.sort_by_key(|(first, range)| (resource(range), *first));
        let mut at = 0;
        for scopes in of_scope.chunk_by(|a, b| resource(&a.1) == resource(&b.1)) {
            of_resource.push((scopes[0].0, at..at + scopes.len()));
            at += scopes.len();
        }
        of_resource.sort_by_key(|(first, _)| *first);
        for (at, (_, of)) in of_resource.iter().enumerate() {
            let level = u8::from(at > 0);
            let of_scope = &of_scope[of.clone()];
            let (source, number) = resource_groups.firsts[resource(&of_scope[0].1) as usize];
            resources.push(Element { source, number, repetition: level });
            for (at, (_, of)) in of_scope.iter().enumerate() {
                let level = if at > 0 { 2 } else { level };
                let (source, number) = scope_groups.firsts[spans[of.start].scope as usize];
                scopes.push(Element { source, number, repetition: level });
                for (at, span) in spans[of.clone()].iter().enumerate() {
                    sorted.push(Element { source: span.source, number: span.span, repetition: if at > 0 { 3 } else { level } });
                }
            }
        }
    }
}

impl Groups {
    fn clear(&mut self) {
        self.firsts.clear();
        self.ends.clear();
        self.words.clear();
        self.by_content.clear();
    }

    /// Begins with another source: its elements that have spans.
    fn want(&mut self, elements: impl Iterator<Item = u32>) {
        self.numbers.clear();
        for element in elements {
            let element = element as usize;
            if element >= self.numbers.len() {
                self.numbers.resize(element + 1, UNUSED);
            }
            self.numbers[element] = WANTED;
        }
        let contents = self.numbers.len().max(self.contents.len());
        self.contents.resize_with(contents, Vec::new);
        self.contents.iter_mut().for_each(Vec::clear);
    }

    /// Column by column what the wanted elements hold: equal for equal elements, whichever source they are of.
    fn describe(
        &mut self,
        columns: &mut Columns,
        part: &mut RowSource,
        lists: [List; 2],
        starts: &mut Starts,
        own_starts: &mut Starts,
    ) -> Result<(), Mismatch> {
        let generation = columns.generation();
        for list in lists {
            let level = depth(list);
            part.side(REPRESENTATIVES[list as usize].1)?.starts(list, level, starts);
            for leaf in leaves_of(list) {
                let Some(side) = part.sides[leaf.index()].as_mut().filter(|side| !side.values.is_empty()) else { continue };
                let own_starts = match side.shares {
                    Shares::All => &*starts,
                    Shares::Entries => {
                        side.starts_as(starts, own_starts);
                        &*own_starts
                    }
                    Shares::Nothing => {
                        side.starts(list, level, own_starts);
                        &*own_starts
                    }
                };
                let column = &mut columns.columns[leaf.index()];
                for (element, content) in self.contents[..self.numbers.len()].iter_mut().enumerate() {
                    if self.numbers[element] == UNUSED {
                        continue;
                    }
                    let places = (own_starts.get(element), own_starts.get(element + 1), starts.get(element), starts.get(element + 1));
                    let (Some((entry, value)), Some((entry_end, value_end)), Some((start, _)), Some((end, _))) = places else {
                        return Err(Mismatch(*leaf));
                    };
                    if value == value_end {
                        continue;
                    }
                    content.extend([leaf.index() as u32, (value_end - value) as u32]);
                    if side.shares != Shares::All {
                        let (repetition, definition) = side.levels(*entry..*entry_end);
                        let (max_repetition, max_definition) = (column.max_repetition, column.max_definition);
                        mark_present(content, 0, repetition, definition, max_repetition, max_definition, end - start);
                    }
                    side.put_words(*value..*value_end, &mut column.values, generation, content).ok_or(Mismatch(*leaf))?;
                }
            }
        }
        Ok(())
    }

    /// The number of an element that was described. Elements that are `within` others are not equal to those in others.
    fn number(&mut self, source: u32, element: u32, within: u32) -> u32 {
        let at = element as usize;
        if self.numbers[at] < WANTED {
            return self.numbers[at];
        }
        let content = &mut self.contents[at];
        content.push(within);
        let Self { firsts, ends, words, by_content, hasher, .. } = self;
        let of = |number: u32| {
            let number = number as usize;
            let start = if number == 0 { 0 } else { ends[number - 1] };
            &words[start..ends[number]]
        };
        let hash = hasher.hash_one(&content[..]);
        let number = match by_content.entry(hash, |number| of(*number) == &content[..], |number| hasher.hash_one(of(*number))) {
            hash_table::Entry::Occupied(entry) => *entry.get(),
            hash_table::Entry::Vacant(entry) => {
                let number = firsts.len() as u32;
                entry.insert(number);
                firsts.push((source, element));
                words.extend_from_slice(content);
                ends.push(words.len());
                number
            }
        };
        self.numbers[at] = number;
        number
    }
}
