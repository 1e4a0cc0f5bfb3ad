//! The columns of one row group while rows are added.
//!
//! Leaves below one list share its levels, so levels are kept once per list. All leaves of a list are cut into stretches
//! together, between rows; a page of a leaf is one or more of them.
//!
//! The `parquet` crate's column writers would take levels and values one column at a time, encode the levels of a list once for
//! each of its leaves, and choose encodings and page ends without knowing which leaves are read together. They would look up
//! texts in a dictionary that the block they are copied from has looked up already. So pages are made here and in
//! [`super::chunk`], and the crate puts them into the file.

use std::sync::{Arc, LazyLock};

use parquet::basic::Type;
use vivace_core::TraceId;

use super::encode;
use super::values::{Strings, Text, Values};
use crate::nested_set::Position;
use crate::row::{Attr, AttrValue, Scalar, any_value_json};
use crate::schema::{AttrLeaves, Leaf};

/// The lists of the schema. `Root` is no list; it is where columns with one value per row stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum List {
    Root,
    Stats,
    Resources,
    ResourceAttrs,
    Scopes,
    ScopeAttrs,
    Spans,
    SpanAttrs,
    Events,
    EventAttrs,
    Links,
    LinkAttrs,
}

pub(super) const LISTS: usize = 12;

impl List {
    fn is_of_attrs(self) -> bool {
        matches!(self, Self::ResourceAttrs | Self::ScopeAttrs | Self::SpanAttrs | Self::EventAttrs | Self::LinkAttrs)
    }
}

/// Entries of a stretch.
const STRETCH_ENTRIES: usize = 512;
/// The same for lists of attributes, of which a span has several.
const STRETCH_ATTRS: usize = 2048;
/// A stretch also ends after so many bytes of text in all leaves of its list together.
const STRETCH_BYTES: usize = 64 * 1024;

/// The levels of a list's entries since its last stretch.
#[derive(Debug, Default)]
pub(super) struct Levels {
    pub(super) repetition: Vec<u8>,
    pub(super) definition: Vec<u8>,
    max_repetition: u8,
    max_definition: u8,
    /// A stretch is cut at the first row border after so many entries.
    stretch_entries: usize,
    /// Rows and bytes of text since the last stretch.
    rows: u32,
    pub(super) bytes: usize,
}

/// One column.
#[derive(Debug)]
pub(super) struct Column {
    pub(super) list: List,
    /// None: every entry of the list that exists has a value. Otherwise the entries that have, since the last stretch;
    /// one that is named several times has several.
    pub(super) present: Option<Vec<u32>>,
    pub(super) max_repetition: u8,
    pub(super) max_definition: u8,
    pub(super) values: Values,
    pub(super) stretches: Vec<Stretch>,
}

/// Consecutive rows of a column whose values are not encoded: dictionaries are only known at the end of the row group.
#[derive(Debug)]
pub(super) struct Stretch {
    /// Hybrid encoding; empty where the column has a single level. One stretch's may follow another's.
    pub(super) repetition: Arc<[u8]>,
    /// The same.
    pub(super) definition: Arc<[u8]>,
    /// Entries, nulls included.
    pub(super) entries: u32,
    pub(super) rows: u32,
    /// The values end here; they start where those of the stretch before end.
    pub(super) values_end: usize,
}

/// All columns of a row group.
#[derive(Debug)]
pub(super) struct Columns {
    pub(super) lists: [Levels; LISTS],
    pub(super) columns: Vec<Column>,
    /// Counts row groups: dictionaries begin anew with each.
    generation: u64,
}

impl Columns {
    pub(super) fn new() -> Self {
        let columns: Vec<Column> = Leaf::all().map(Column::new).collect();
        let mut lists: [Levels; LISTS] = Default::default();
        for column in columns.iter().filter(|column| column.present.is_none()) {
            let list = &mut lists[column.list as usize];
            list.max_repetition = column.max_repetition;
            list.max_definition = column.max_definition;
            list.stretch_entries = if column.list.is_of_attrs() { STRETCH_ATTRS } else { STRETCH_ENTRIES };
        }
        Self { lists, columns, generation: 0 }
    }

    /// Forgets all rows.
    pub(super) fn clear(&mut self) {
        self.generation += 1;
        for column in &mut self.columns {
            column.values.clear();
            column.stretches.clear();
        }
    }

    /// What a row says of its trace as a whole.
    pub(super) fn trace(&mut self, id: TraceId, start: u64, end: u64, root_service: &[u8], root_name: &[u8]) {
        self.entry(List::Root, 0, 0);
        self.ids(Leaf::TRACE_ID, &id.0);
        self.text(Leaf::TRACE_ID_TEXT, id.trimmed_hex().as_bytes());
        self.i64(Leaf::START, start as i64);
        self.i64(Leaf::END, end as i64);
        self.i64(Leaf::DURATION, end.wrapping_sub(start) as i64);
        self.text(Leaf::ROOT_SERVICE_NAME, root_service);
        self.text(Leaf::ROOT_SPAN_NAME, root_name);
    }

    /// The entry with this number of the row's service stats.
    pub(super) fn service_stat(&mut self, number: usize, service: &[u8], spans: i32, errors: i32) {
        self.entry(List::Stats, u8::from(number > 0), 1);
        self.text(Leaf::STATS_SERVICE, service);
        self.i32(Leaf::STATS_SPANS, spans);
        self.i32(Leaf::STATS_ERRORS, errors);
    }

    /// A span's place in the nested sets of its trace.
    pub(super) fn position(&mut self, position: Position) {
        self.i32(Leaf::NESTED_SET_PARENT, position.parent);
        self.i32(Leaf::NESTED_SET_LEFT, position.left);
        self.i32(Leaf::NESTED_SET_RIGHT, position.right);
    }

    /// To be called after each row.
    pub(super) fn end_row(&mut self) {
        for list in 0..LISTS {
            let levels = &mut self.lists[list];
            levels.rows += 1;
            if levels.definition.len() >= levels.stretch_entries || levels.bytes >= STRETCH_BYTES {
                self.cut(list);
            }
        }
    }

    pub(super) fn generation(&self) -> u64 {
        self.generation
    }

    /// Adds entries to a list.
    pub(super) fn extend_levels(&mut self, list: List, repetition: &[u8], definition: &[u8]) {
        let levels = &mut self.lists[list as usize];
        levels.repetition.extend_from_slice(repetition);
        levels.definition.extend_from_slice(definition);
    }

    /// Makes stretches of what is left. To be called before the columns are written.
    pub(super) fn cut_rest(&mut self) {
        for list in 0..LISTS {
            if self.lists[list].rows > 0 {
                self.cut(list);
            }
        }
    }

    /// Entries of a list since its last stretch.
    pub(super) fn entries(&self, list: List) -> usize {
        self.lists[list as usize].definition.len()
    }

    /// Bytes of text below a list since its last stretch.
    pub(super) fn bytes(&self, list: List) -> usize {
        self.lists[list as usize].bytes
    }

    /// Adds the entries of one list of attributes, without their values, and says where the first stands.
    pub(super) fn extend_attrs(&mut self, list: List, level: u8, entries: u32, has_attrs: bool, bytes: usize) -> u32 {
        let levels = &mut self.lists[list as usize];
        let first = levels.definition.len();
        let last = first + entries as usize;
        levels.bytes += bytes;
        levels.repetition.push(level);
        levels.repetition.resize(last, levels.max_repetition);
        levels.definition.resize(last, levels.max_definition - u8::from(!has_attrs));
        first as u32
    }

    /// Adds the attributes of one element.
    pub(super) fn attrs(&mut self, list: List, leaves: &AttrLeaves, level: u8, attrs: &[Attr<'_>]) {
        let (repetition, definition) = (self.lists[list as usize].max_repetition, self.lists[list as usize].max_definition);
        if attrs.is_empty() {
            self.entry(list, level, definition - 1);
            return;
        }
        let levels = &mut self.lists[list as usize];
        let first = levels.definition.len();
        levels.repetition.push(level);
        levels.repetition.resize(first + attrs.len(), repetition);
        levels.definition.resize(first + attrs.len(), definition);
        levels.bytes += attrs.iter().map(|attr| attr.key.len()).sum::<usize>();
        match &mut self.columns[leaves.key.index()].values {
            Values::Text(keys) => attrs.iter().for_each(|attr| keys.push(attr.key)),
            other => wrong_type(leaves.key, other),
        }
        match &mut self.columns[leaves.is_array.index()].values {
            Values::Bool(are) => are.extend(attrs.iter().map(|attr| matches!(attr.value, AttrValue::Array(_)))),
            other => wrong_type(leaves.is_array, other),
        }
        for (attr, at) in attrs.iter().zip(first as u32..) {
            match attr.value {
                AttrValue::Scalar(scalar) => self.scalar(leaves, at, scalar),
                AttrValue::Array(array) => array.elements().for_each(|scalar| self.scalar(leaves, at, scalar)),
                AttrValue::Unsupported(message) => {
                    self.present(leaves.unsupported, at);
                    self.text(leaves.unsupported, any_value_json(message).as_bytes());
                }
            }
        }
    }

    fn scalar(&mut self, leaves: &AttrLeaves, at: u32, scalar: Scalar<'_>) {
        match scalar {
            Scalar::Str(v) => {
                self.present(leaves.string, at);
                self.text(leaves.string, v);
            }
            Scalar::Int(v) => {
                self.present(leaves.int, at);
                self.i64(leaves.int, v);
            }
            Scalar::Double(v) => {
                self.present(leaves.double, at);
                match &mut self.columns[leaves.double.index()].values {
                    Values::F64(values) => values.push(v),
                    other => wrong_type(leaves.double, other),
                }
            }
            Scalar::Bool(v) => {
                self.present(leaves.bool, at);
                self.bool(leaves.bool, v);
            }
        }
    }

    /// Adds an entry to a list and says where it stands in the current stretch.
    #[inline]
    pub(super) fn entry(&mut self, list: List, repetition: u8, definition: u8) -> u32 {
        let levels = &mut self.lists[list as usize];
        levels.repetition.push(repetition);
        levels.definition.push(definition);
        levels.definition.len() as u32 - 1
    }

    /// Says of a column that is optional, or a list, that this entry has a value.
    #[inline]
    pub(super) fn present(&mut self, leaf: Leaf, at: u32) {
        self.columns[leaf.index()].present.as_mut().expect("the column is optional or a list").push(at);
    }

    #[inline]
    pub(super) fn text(&mut self, leaf: Leaf, value: &[u8]) {
        let column = &mut self.columns[leaf.index()];
        self.lists[column.list as usize].bytes += value.len();
        match &mut column.values {
            Values::Text(values) => values.push(value),
            other => wrong_type(leaf, other),
        }
    }

    #[inline]
    pub(super) fn ids(&mut self, leaf: Leaf, value: &[u8]) {
        let column = &mut self.columns[leaf.index()];
        self.lists[column.list as usize].bytes += value.len();
        match &mut column.values {
            Values::Ids(values) => values.push(value),
            other => wrong_type(leaf, other),
        }
    }

    #[inline]
    pub(super) fn i64(&mut self, leaf: Leaf, value: i64) {
        match &mut self.columns[leaf.index()].values {
            Values::I64(values) => values.push(value),
            other => wrong_type(leaf, other),
        }
    }

    #[inline]
    pub(super) fn i32(&mut self, leaf: Leaf, value: i32) {
        match &mut self.columns[leaf.index()].values {
            Values::I32(values) => values.push(value),
            other => wrong_type(leaf, other),
        }
    }

    #[inline]
    fn bool(&mut self, leaf: Leaf, value: bool) {
        match &mut self.columns[leaf.index()].values {
            Values::Bool(values) => values.push(value),
            other => wrong_type(leaf, other),
        }
    }

    fn cut(&mut self, list: usize) {
        let levels = &mut self.lists[list];
        let (mut repetition, mut definition) = (Shared::new(&levels.repetition), Shared::new(&levels.definition));
        for column in self.columns.iter_mut().filter(|column| column.list as usize == list) {
            let (max_repetition, max_definition) = (column.max_repetition, column.max_definition);
            let (repetition, definition, entries) = match &mut column.present {
                Some(present) if !present.is_empty() => {
                    let own = levels.with_values(present, max_repetition, max_definition);
                    present.clear();
                    let repetition = match own.repetition {
                        Some(own) => encoded(&own, max_repetition),
                        None => repetition.of(max_repetition),
                    };
                    (repetition, encoded(&own.definition, max_definition), own.definition.len())
                }
                _ => (repetition.of(max_repetition), definition.of(max_definition), levels.definition.len()),
            };
            let values_end = column.values.len();
            let stretch = Stretch { repetition, definition, entries: entries as u32, rows: levels.rows, values_end };
            column.stretches.push(stretch);
        }
        levels.repetition.clear();
        levels.definition.clear();
        levels.rows = 0;
        levels.bytes = 0;
    }
}

/// Levels of all columns of a list that have no other, encoded once for each width.
struct Shared<'a> {
    levels: &'a [u8],
    by_width: [Option<Arc<[u8]>>; 4],
}

impl<'a> Shared<'a> {
    fn new(levels: &'a [u8]) -> Self {
        Self { levels, by_width: Default::default() }
    }

    fn of(&mut self, max: u8) -> Arc<[u8]> {
        let (levels, width) = (self.levels, encode::bit_width(u64::from(max)) as usize);
        Arc::clone(self.by_width[width].get_or_insert_with(|| encoded(levels, max)))
    }
}

fn encoded(levels: &[u8], max: u8) -> Arc<[u8]> {
    let mut out = Vec::new();
    if max > 0 {
        out.reserve(16 + levels.len() / 4);
        encode::hybrid(levels, encode::bit_width(u64::from(max)), &mut out);
    }
    out.into()
}

#[cold]
fn wrong_type(leaf: Leaf, values: &Values) -> ! {
    panic!("column {} holds other values: {values:?}", leaf.column().path())
}

/// Levels of a column whose entries have values or none.
struct OwnLevels {
    /// None: those of its list.
    repetition: Option<Vec<u8>>,
    definition: Vec<u8>,
}

impl Levels {
    /// `present` are the entries with a value; see [`Column::present`].
    fn with_values(&self, present: &[u32], max_repetition: u8, max_definition: u8) -> OwnLevels {
        let is_array = present.windows(2).any(|pair| pair[0] == pair[1]);
        if !is_array {
            let mut definition = self.definition.clone();
            present.iter().for_each(|at| definition[*at as usize] = max_definition);
            return OwnLevels { repetition: None, definition };
        }
        let mut repetition = Vec::with_capacity(self.repetition.len() + present.len());
        let mut definition = Vec::with_capacity(self.repetition.len() + present.len());
        let mut present = present.iter().copied().peekable();
        for at in 0..self.definition.len() {
            repetition.push(self.repetition[at]);
            if present.next_if_eq(&(at as u32)).is_none() {
                definition.push(self.definition[at]);
                continue;
            }
            definition.push(max_definition);
            while present.next_if_eq(&(at as u32)).is_some() {
                repetition.push(max_repetition);
                definition.push(max_definition);
            }
        }
        OwnLevels { repetition: Some(repetition), definition }
    }
}

impl Column {
    fn new(leaf: Leaf) -> Self {
        let descriptor = leaf.column();
        let path = descriptor.path().string();
        let list = list_of(leaf);
        let is_required = {
            let in_value_list =
                ["Value", "ValueInt", "ValueDouble", "ValueBool"].iter().any(|name| path.ends_with(&format!(".{name}.list.element")));
            !in_value_list && !descriptor.self_type().is_optional()
        };
        let values = match descriptor.physical_type() {
            Type::BOOLEAN => Values::Bool(Vec::new()),
            Type::INT32 => Values::I32(Vec::new()),
            Type::INT64 => Values::I64(Vec::new()),
            Type::DOUBLE => Values::F64(Vec::new()),
            _ if descriptor.logical_type_ref().is_some() => Values::Text(Text::default()),
            _ => Values::Ids(Strings::default()),
        };
        Self {
            list,
            present: (!is_required).then(Vec::new),
            max_repetition: descriptor.max_rep_level() as u8,
            max_definition: descriptor.max_def_level() as u8,
            values,
            stretches: Vec::new(),
        }
    }
}

/// The innermost list of entries that a column describes; the lists of values below an attribute belong to it.
pub(super) fn list_of(leaf: Leaf) -> List {
    static LISTS: LazyLock<Vec<List>> = LazyLock::new(|| Leaf::all().map(|leaf| list_at(&leaf.column().path().string())).collect());
    LISTS[leaf.index()]
}

fn list_at(path: &str) -> List {
    let has = |part: &str| path.contains(part);
    match () {
        () if has("Links.list") && has("Attrs.list") => List::LinkAttrs,
        () if has("Links.list") => List::Links,
        () if has("Events.list") && has("Attrs.list") => List::EventAttrs,
        () if has("Events.list") => List::Events,
        () if has("Spans.list") && has("Attrs.list") => List::SpanAttrs,
        () if has("Spans.list") => List::Spans,
        () if has("Scope.Attrs.list") => List::ScopeAttrs,
        () if has("ss.list") => List::Scopes,
        () if has("Resource.Attrs.list") => List::ResourceAttrs,
        () if has("rs.list") => List::Resources,
        () if has("ServiceStats") => List::Stats,
        () => List::Root,
    }
}
