//! The groups of spans that become series, and finding a span's group without looking at texts.

use std::hash::{Hash, Hasher};
use std::ops::ControlFlow;
use std::sync::Arc;

use rustc_hash::FxHashMap;

use crate::Value;
use crate::compare::Val;
use crate::expr::{At, Operand};
use crate::group::GroupKey;
use crate::held::Held;

/// What the spans of a group have in common: scalars, or nil. Equal are values of the same type and the same bits.
#[derive(Debug, Clone)]
pub(crate) struct Key(pub(crate) Arc<[Value]>);

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        self.0.len() == other.0.len() && self.0.iter().zip(&*other.0).all(|(a, b)| GroupKey(a.into()) == GroupKey(b.into()))
    }
}

impl Eq for Key {}

impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.iter().for_each(|value| GroupKey(value.into()).hash(state));
    }
}

/// What a group takes beside its key's values and its cells: list and map entries with their slack, and what a batch remembers of it.
const GROUP_BYTES: usize = 192;

impl Key {
    /// Memory of a group with this key, without its cells.
    pub(crate) fn group_bytes(&self) -> u64 {
        let texts = self.0.iter().map(|value| if let Value::Str(text) = value { text.len() + 16 } else { 0 });
        (GROUP_BYTES + self.0.len() * size_of::<Value>() + texts.sum::<usize>()) as u64
    }
}

/// Groups by their keys, numbered in the order in which they appeared.
#[derive(Debug, Clone, Default)]
pub(crate) struct Groups {
    keys: Vec<Key>,
    numbers: FxHashMap<Key, u32>,
}

impl Groups {
    pub(crate) fn len(&self) -> usize {
        self.keys.len()
    }

    pub(crate) fn keys(&self) -> &[Key] {
        &self.keys
    }

    /// The number of a group; none if it would be one more than `max`, or there is no room for it.
    pub(crate) fn number(&mut self, key: Key, max: usize, held: &mut Held) -> Option<u32> {
        if let Some(number) = self.numbers.get(&key) {
            return Some(*number);
        }
        if self.keys.len() >= max || !held.add(key.group_bytes()) {
            return None;
        }
        let number = u32::try_from(self.keys.len()).ok()?;
        self.keys.push(key.clone());
        self.numbers.insert(key, number);
        Some(number)
    }
}

/// Number of a value that does not survive grouping.
const NIL: u32 = 0;
const SPOTS: usize = 64;

/// Numbers for the values of one column, as long as one batch lasts.
///
/// Spans of a batch share their texts, so the address of a text says which one it is; only a text that is seen for the
/// first time is hashed.
pub(crate) struct ValueNumbers<'a> {
    spots: [Spot; SPOTS],
    numbers: FxHashMap<GroupKey<'a>, u32>,
    values: Vec<Val<'a>>,
}

#[derive(Clone, Copy, Default)]
struct Spot {
    kind: u8,
    bits: u64,
    len: usize,
    number: u32,
}

impl<'a> ValueNumbers<'a> {
    pub(crate) fn new() -> Self {
        Self { spots: [Spot::default(); SPOTS], numbers: FxHashMap::default(), values: vec![Val::Nil] }
    }

    #[inline]
    pub(crate) fn number(&mut self, value: Val<'a>) -> u32 {
        // All that is no number is one value.
        let value = if matches!(value, Val::Float(v) if v.is_nan()) { Val::Float(f64::NAN) } else { value };
        let (kind, bits, len) = match value {
            Val::Str(text) => (1, text.as_ptr().addr() as u64, text.len()),
            Val::Int(v) => (2, v.cast_unsigned(), 0),
            Val::Float(v) => (3, v.to_bits(), 0),
            Val::Bool(v) => (4, u64::from(v), 0),
            Val::Status(v) => (5, v as u64, 0),
            Val::Kind(v) => (6, v as u64, 0),
            Val::Duration(v) => (7, v.cast_unsigned(), 0),
            Val::Hex(_) => return self.look_up(value),
            Val::Nil | Val::Opaque | Val::Ints(_) | Val::Floats(_) | Val::Strs(_) | Val::Bools(_) => return NIL,
        };
        let spot = (bits.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 58) as usize % SPOTS;
        let known = self.spots[spot];
        if known.bits == bits && known.kind == kind && known.len == len {
            return known.number;
        }
        let number = self.look_up(value);
        self.spots[spot] = Spot { kind, bits, len, number };
        number
    }

    fn look_up(&mut self, value: Val<'a>) -> u32 {
        let values = &mut self.values;
        *self.numbers.entry(GroupKey(value)).or_insert_with(|| {
            values.push(value);
            u32::try_from(values.len() - 1).unwrap_or(u32::MAX)
        })
    }

    pub(crate) fn value(&self, number: u32) -> Value {
        self.values.get(number as usize).map_or(Value::Nil, |value| value.to_value())
    }

    /// The numbers given are less than this.
    pub(crate) fn len(&self) -> usize {
        self.values.len()
    }
}

/// At most so many attributes make a group.
pub(crate) const BY_MAX: usize = 5;

/// Numbers of a span's values, and of its bucket at the end.
type Numbers = [u32; BY_MAX + 1];

const UNKNOWN: u32 = u32::MAX;
const DROPPED: u32 = u32::MAX - 1;

/// Finds the group of each span of a batch.
pub(crate) struct Lookup<'a, 'p> {
    by: &'p [Operand],
    is_bucketed: bool,
    groups: &'p mut Groups,
    groups_max: usize,
    /// Of the whole query.
    pub(crate) held: &'p mut Held,
    /// Some span had to be left out.
    pub(crate) is_truncated: bool,
    columns: Vec<ValueNumbers<'a>>,
    last: Option<(Numbers, u32)>,
    /// Of one value alone, by its number.
    single: Vec<u32>,
    many: FxHashMap<Numbers, u32>,
}

impl<'a, 'p> Lookup<'a, 'p> {
    pub(crate) fn new(by: &'p [Operand], is_bucketed: bool, groups: &'p mut Groups, groups_max: usize, held: &'p mut Held) -> Self {
        let by = &by[..by.len().min(BY_MAX)];
        Self {
            by,
            is_bucketed,
            groups,
            groups_max,
            held,
            is_truncated: false,
            columns: by.iter().map(|_| ValueNumbers::new()).collect(),
            last: None,
            single: Vec::new(),
            many: FxHashMap::default(),
        }
    }

    /// The number of the span's group; none if there are too many.
    #[inline]
    pub(crate) fn group(&mut self, at: &At<'a>, bucket: u32) -> Option<u32> {
        let group = if let ([of], false) = (self.by, self.is_bucketed) {
            let number = self.columns[0].number(of.get(at));
            match self.single.get(number as usize) {
                Some(group) if *group != UNKNOWN => *group,
                _ => self.new_single(number),
            }
        } else {
            let mut numbers = Numbers::default();
            for ((number, column), of) in numbers.iter_mut().zip(&mut self.columns).zip(self.by) {
                *number = column.number(of.get(at));
            }
            numbers[BY_MAX] = bucket;
            match self.last {
                Some((last, group)) if last == numbers => group,
                _ => self.another(numbers),
            }
        };
        (group != DROPPED).then_some(group)
    }

    #[cold]
    fn new_single(&mut self, number: u32) -> u32 {
        let mut numbers = Numbers::default();
        numbers[0] = number;
        let group = self.create(numbers);
        self.single.resize(self.columns[0].len(), UNKNOWN);
        self.single[number as usize] = group;
        group
    }

    fn another(&mut self, numbers: Numbers) -> u32 {
        let group = match self.many.get(&numbers) {
            Some(group) => *group,
            None => {
                let group = self.create(numbers);
                self.many.insert(numbers, group);
                group
            }
        };
        self.last = Some((numbers, group));
        group
    }

    fn create(&mut self, numbers: Numbers) -> u32 {
        let mut key: Vec<Value> = self.columns.iter().zip(numbers).map(|(column, number)| column.value(number)).collect();
        if self.is_bucketed {
            key.push(Value::Int(numbers[BY_MAX].into()));
        } else if key.iter().all(|value| *value == Value::Nil)
            && let Some(first) = key.first_mut()
        {
            // Where nothing is left to tell a series by, the first label says so.
            *first = Value::Str("nil".into());
        }
        self.groups.number(Key(key.into()), self.groups_max, self.held).unwrap_or_else(|| {
            self.is_truncated = true;
            DROPPED
        })
    }

    /// Breaks when there is no room for more groups, whatever their number.
    pub(crate) fn flow(&self) -> ControlFlow<()> {
        if self.held.is_over() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }

    /// How many groups there are.
    pub(crate) fn len(&self) -> usize {
        self.groups.len()
    }

    pub(crate) fn key(&self, group: u32) -> Key {
        self.groups.keys()[group as usize].clone()
    }
}
