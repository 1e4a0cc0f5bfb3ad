//! Conditions decided on columns: once per dictionary entry where there is a dictionary, else once per value.
//!
//! What is decided errs on the side of passing: evaluation looks at the passing traces again.

use vivace_core::{SpanId, TraceId};
use vivace_traceql::{Attribute, Comparison, Condition, Intrinsic, Kind, Scope, Status, Value};

use super::bits::{Bits, Outcome};
use super::column::Values;
use super::fault::ReadError;
use super::group::Group;
use super::layout::LeafId;
use super::shape::{Node, part};

/// The column an attribute's value must be in to satisfy a comparison.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wanted {
    Text,
    Int,
    Double,
    Bool,
    /// Any or none.
    Presence,
    /// There is no such column.
    Nothing,
}

fn wanted(comparison: &Comparison) -> Wanted {
    use Comparison::{Equal, Exists, Greater, GreaterEqual, Less, LessEqual, NotEqual, NotExists, NotRegex, Regex};
    match comparison {
        Equal(v) | NotEqual(v) | Less(v) | LessEqual(v) | Greater(v) | GreaterEqual(v) => match v {
            Value::Str(_) => Wanted::Text,
            Value::Int(_) => Wanted::Int,
            Value::Float(_) => Wanted::Double,
            Value::Bool(_) => Wanted::Bool,
            _ => Wanted::Nothing,
        },
        Regex(_) | NotRegex(_) => Wanted::Text,
        Exists | NotExists => Wanted::Presence,
    }
}

/// Of an array every element must satisfy these, of others some.
fn asks_every(comparison: &Comparison) -> bool {
    matches!(comparison, Comparison::NotEqual(_) | Comparison::NotRegex(_))
}

/// [`Comparison::matches`] without making a value of every text.
pub(crate) fn text_matches(comparison: &Comparison, bytes: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return comparison.matches(&Value::Str(String::from_utf8_lossy(bytes).as_ref().into()));
    };
    match comparison {
        Comparison::Equal(Value::Str(want)) => text == &**want,
        Comparison::NotEqual(Value::Str(want)) => text != &**want,
        Comparison::Regex(pattern) => pattern.is_match(text),
        Comparison::NotRegex(pattern) => !pattern.is_match(text),
        other => other.matches(&Value::Str(text.into())),
    }
}

/// Decides texts: by code where there is a dictionary.
enum TextTest<'a> {
    Codes(Vec<bool>),
    Each(&'a Comparison),
}

impl TextTest<'_> {
    fn holds(&self, values: &Values, index: usize) -> bool {
        match (self, values) {
            (Self::Codes(passes), Values::Codes { codes, .. }) => passes[codes[index] as usize],
            (Self::Codes(_), _) => true,
            (Self::Each(comparison), values) => text_matches(comparison, values.bytes(index)),
        }
    }

    fn passes_nothing(&self) -> bool {
        matches!(self, Self::Codes(passes) if !passes.contains(&true))
    }

    fn passes_everything(&self) -> bool {
        matches!(self, Self::Codes(passes) if !passes.contains(&false))
    }
}

/// A comparison of durations, without making a value of each.
#[derive(Clone, Copy)]
enum NumberTest {
    Less(i64),
    LessEqual(i64),
    Greater(i64),
    GreaterEqual(i64),
}

impl NumberTest {
    /// Of the comparisons that are worth it.
    fn of(comparison: &Comparison) -> Option<Self> {
        match comparison {
            Comparison::Less(Value::Duration(nanos)) => Some(Self::Less(*nanos)),
            Comparison::LessEqual(Value::Duration(nanos)) => Some(Self::LessEqual(*nanos)),
            Comparison::Greater(Value::Duration(nanos)) => Some(Self::Greater(*nanos)),
            Comparison::GreaterEqual(Value::Duration(nanos)) => Some(Self::GreaterEqual(*nanos)),
            _ => None,
        }
    }

    /// Those that pass. Negative numbers, which are none, do.
    fn among(self, nanos: &[i64]) -> Bits {
        let among = |test: fn(i64, i64) -> bool, bound: i64| {
            Bits::where_true(nanos.len(), |index| {
                let nanos = nanos[index];
                (nanos < 0) | test(nanos, bound)
            })
        };
        match self {
            Self::Less(bound) => among(|nanos, bound| nanos < bound, bound),
            Self::LessEqual(bound) => among(|nanos, bound| nanos <= bound, bound),
            Self::Greater(bound) => among(|nanos, bound| nanos > bound, bound),
            Self::GreaterEqual(bound) => among(|nanos, bound| nanos >= bound, bound),
        }
    }
}

impl Group<'_> {
    /// The spans that may satisfy a condition.
    pub(crate) fn condition(&mut self, condition: &Condition) -> Result<Outcome, ReadError> {
        let comparison = &condition.comparison;
        match &condition.attribute {
            Attribute::Intrinsic(intrinsic) => self.intrinsic(*intrinsic, comparison),
            Attribute::Named { scope, key } => {
                let node = match scope {
                    Scope::Unscoped => return self.unscoped(key, comparison),
                    Scope::Span => Node::Span,
                    Scope::Resource => Node::Resource,
                    Scope::Instrumentation => Node::Scope,
                    Scope::Event => Node::Event,
                    Scope::Link => Node::Link,
                };
                let absent = comparison.matches(&Value::Nil);
                let (has, hit) = self.named(node, key, comparison, absent)?;
                let passes = if absent { hit.or(has.not()) } else { hit };
                self.spans_of(node, passes)
            }
        }
    }

    /// The span's attribute, or else the resource's.
    fn unscoped(&mut self, key: &str, comparison: &Comparison) -> Result<Outcome, ReadError> {
        let absent = comparison.matches(&Value::Nil);
        let (has, hit) = self.named(Node::Resource, key, comparison, absent)?;
        let by_resource = self.spans_of(Node::Resource, if absent { hit.or(has.not()) } else { hit })?;
        // Whether the span has the key matters only where its resource would pass.
        let (has, hit) = self.named(Node::Span, key, comparison, by_resource != Outcome::None)?;
        Ok(hit.or(by_resource.and(has.not())))
    }

    /// Elements that have the key, and those whose value may satisfy the comparison. The first is none if it is not asked for.
    fn named(&mut self, node: Node, key: &str, comparison: &Comparison, want_has: bool) -> Result<(Outcome, Outcome), ReadError> {
        if node == Node::Resource && key == "service.name" {
            let leaf = self.file.layout.service_name;
            // What is no text is among the other attributes, and the text is empty then.
            let (_, generic) = self.generic(node, key, comparison, false)?;
            return Ok((Outcome::All, self.texts(leaf, node, comparison)?.or(generic)));
        }
        let (mut has, mut hit) = (Outcome::None, Outcome::None);
        for leaf in self.own_leaves(node, key) {
            let (own_has, own_hit) = self.own(leaf, node, comparison, want_has)?;
            has = has.or(own_has);
            hit = hit.or(own_hit);
        }
        let (generic_has, generic_hit) = self.generic(node, key, comparison, want_has)?;
        Ok((has.or(generic_has), hit.or(generic_hit)))
    }

    fn text_test<'c>(&mut self, leaf: LeafId, comparison: &'c Comparison) -> Result<TextTest<'c>, ReadError> {
        Ok(match self.dictionary(leaf)? {
            Some(dictionary) => TextTest::Codes(dictionary.strings.iter().map(|text| text_matches(comparison, text)).collect()),
            None => TextTest::Each(comparison),
        })
    }

    /// A required column of texts: one per element.
    fn texts(&mut self, leaf: LeafId, node: Node, comparison: &Comparison) -> Result<Outcome, ReadError> {
        let test = self.text_test(leaf, comparison)?;
        if test.passes_nothing() {
            return Ok(Outcome::None);
        }
        if test.passes_everything() {
            return Ok(Outcome::All);
        }
        self.each(leaf, node, |values, index| test.holds(values, index))
    }

    /// A required column: one value per element.
    fn each(&mut self, leaf: LeafId, node: Node, mut test: impl FnMut(&Values, usize) -> bool) -> Result<Outcome, ReadError> {
        let column = self.column(leaf)?;
        let count = self.count(node)?;
        match column.values.len() {
            len if len == count => Ok(Bits::where_true(count, |index| test(&column.values, index)).into()),
            len => Err(self.miscounted(leaf, len, count)),
        }
    }

    /// An attribute's own column.
    fn own(&mut self, leaf: LeafId, node: Node, comparison: &Comparison, want_has: bool) -> Result<(Outcome, Outcome), ReadError> {
        let count = self.count(node)?;
        let test = self.value_test(leaf, comparison)?;
        if matches!(test, ValueTest::Nothing) && !want_has {
            return Ok((Outcome::None, Outcome::None));
        }
        let Some(lists) = self.lists(leaf, node.depth(), count)? else { return Ok((Outcome::None, Outcome::None)) };
        let has = if want_has { Bits::where_true(count, |i| !lists.of(i).is_empty()).into() } else { Outcome::None };
        let hit = Bits::where_true(count, |i| test.holds(&lists.column.values, lists.of(i)));
        Ok((has, hit.into()))
    }

    /// How values of a column are decided; reads its dictionary at most.
    fn value_test<'c>(&mut self, leaf: LeafId, comparison: &'c Comparison) -> Result<ValueTest<'c>, ReadError> {
        let physical = self.file.footer.leaves[leaf].physical;
        let every = asks_every(comparison);
        use super::footer::Physical;
        Ok(match (wanted(comparison), physical) {
            (Wanted::Presence, _) if matches!(comparison, Comparison::Exists) => ValueTest::Present,
            (Wanted::Text, Physical::ByteArray) => match self.text_test(leaf, comparison)? {
                test if test.passes_nothing() => ValueTest::Nothing,
                test => ValueTest::Text(test, every),
            },
            // As for texts, the dictionary is taken for all there is.
            (Wanted::Int, Physical::Int64) if self.any_number(leaf, |number| comparison.matches(&Value::Int(*number)))? == Some(false) => {
                ValueTest::Nothing
            }
            (Wanted::Int, Physical::Int64) | (Wanted::Double, Physical::Double) | (Wanted::Bool, Physical::Boolean) => {
                ValueTest::Each(comparison, every)
            }
            _ => ValueTest::Nothing,
        })
    }

    /// An attribute among others.
    fn generic(&mut self, node: Node, key: &str, comparison: &Comparison, want_has: bool) -> Result<(Outcome, Outcome), ReadError> {
        const NEITHER: (Outcome, Outcome) = (Outcome::None, Outcome::None);
        let Some(is_key) = self.key_test(node, key)? else { return Ok(NEITHER) };
        let leaves = self.attr_leaves(node);
        let value_leaf = match wanted(comparison) {
            Wanted::Text => Some(leaves.text),
            Wanted::Int => Some(leaves.int),
            Wanted::Double => Some(leaves.double),
            Wanted::Bool => Some(leaves.boolean),
            Wanted::Presence | Wanted::Nothing => None,
        };
        let test = match value_leaf {
            Some(leaf) if self.is_empty(leaf) => ValueTest::Nothing,
            Some(leaf) => self.value_test(leaf, comparison)?,
            None if matches!(comparison, Comparison::Exists) => ValueTest::Present,
            None => ValueTest::Nothing,
        };
        if matches!(test, ValueTest::Nothing) && !want_has {
            return Ok(NEITHER);
        }
        let of_parent = self.keys_of(node)?;
        let keys = self.column(leaves.key)?;
        let lists = match (value_leaf, &test) {
            (Some(leaf), ValueTest::Text(..) | ValueTest::Each(..)) => self.lists(leaf, node.depth() + 1, keys.values.len())?,
            _ => None,
        };
        let parents = of_parent.len() - 1;
        let (mut has, mut hit) = (Bits::none(parents), Bits::none(parents));
        let mut parent = 0;
        for index in 0..keys.values.len() {
            if !is_key.holds(&keys.values, index) {
                continue;
            }
            while parent < parents && part(&of_parent, parent).end <= index {
                parent += 1;
            }
            has.set(parent);
            let passes = match &lists {
                Some(lists) => test.holds(&lists.column.values, lists.of(index)),
                // Exists: an opaque value is let through.
                None => matches!(test, ValueTest::Present),
            };
            if passes {
                hit.set(parent);
            }
        }
        Ok((has.into(), hit.into()))
    }

    fn intrinsic(&mut self, intrinsic: Intrinsic, comparison: &Comparison) -> Result<Outcome, ReadError> {
        let layout = &self.file.layout;
        let matches = |value: Value| comparison.matches(&value);
        let (node, outcome) = match intrinsic {
            Intrinsic::Name => (Node::Span, self.texts(layout.name, Node::Span, comparison)?),
            Intrinsic::StatusMessage => (Node::Span, self.texts(layout.status_message, Node::Span, comparison)?),
            Intrinsic::ScopeName => (Node::Scope, self.texts(layout.scope_name, Node::Scope, comparison)?),
            Intrinsic::ScopeVersion => (Node::Scope, self.texts(layout.scope_version, Node::Scope, comparison)?),
            Intrinsic::RootName => (Node::Trace, self.texts(layout.root_name, Node::Trace, comparison)?),
            Intrinsic::RootService => (Node::Trace, self.texts(layout.root_service, Node::Trace, comparison)?),
            Intrinsic::EventName => (Node::Event, self.texts(layout.event_name, Node::Event, comparison)?),
            Intrinsic::Duration => (Node::Span, self.durations(layout.duration, Node::Span, comparison)?),
            Intrinsic::EventTimeSinceStart => (Node::Event, self.durations(layout.event_time, Node::Event, comparison)?),
            Intrinsic::Status => {
                let passes = |code| matches(Value::Status(Status::from_otlp(code)));
                (Node::Span, self.numbers(layout.status, Node::Span, passes)?)
            }
            Intrinsic::Kind => {
                let passes = |kind| matches(Value::Kind(Kind::from_otlp(kind)));
                (Node::Span, self.numbers(layout.kind, Node::Span, passes)?)
            }
            Intrinsic::NestedSetLeft => (Node::Span, self.each(layout.nested_left, Node::Span, |v, i| matches(Value::Int(v.i64(i))))?),
            Intrinsic::NestedSetRight => (Node::Span, self.each(layout.nested_right, Node::Span, |v, i| matches(Value::Int(v.i64(i))))?),
            Intrinsic::NestedSetParent => (Node::Span, self.each(layout.nested_parent, Node::Span, |v, i| matches(Value::Int(v.i64(i))))?),
            Intrinsic::TraceDuration => {
                let ends = self.column(layout.end)?;
                let passes = |starts: &Values, row| {
                    let nanos = ends.values.i64(row).wrapping_sub(starts.i64(row));
                    nanos < 0 || matches(Value::Duration(nanos))
                };
                (Node::Trace, self.each(layout.start, Node::Trace, passes)?)
            }
            Intrinsic::TraceId => (Node::Trace, self.trace_ids(layout.trace_id, Node::Trace, comparison)?),
            Intrinsic::LinkTraceId => (Node::Link, self.trace_ids(layout.link_trace, Node::Link, comparison)?),
            Intrinsic::SpanId => (Node::Span, self.span_ids(layout.span_id, Node::Span, comparison)?),
            Intrinsic::ParentId => (Node::Span, self.span_ids(layout.parent_span_id, Node::Span, comparison)?),
            Intrinsic::LinkSpanId => (Node::Link, self.span_ids(layout.link_span, Node::Link, comparison)?),
            // vParquet4 has no column of it, and in vParquet5 it cannot be trusted in traces without a root.
            Intrinsic::ChildCount => (Node::Span, Outcome::All),
        };
        self.spans_of(node, outcome)
    }

    /// Durations beyond 292 years are spans that end before they start; they are left to evaluation.
    fn durations(&mut self, leaf: LeafId, node: Node, comparison: &Comparison) -> Result<Outcome, ReadError> {
        let column = self.column(leaf)?;
        let (Some(test), Values::I64(nanos)) = (NumberTest::of(comparison), &column.values) else {
            return self.each(leaf, node, |values, index| {
                let nanos = values.i64(index);
                nanos < 0 || comparison.matches(&Value::Duration(nanos))
            });
        };
        match self.count(node)? {
            count if count == nanos.len() => Ok(test.among(nanos).into()),
            count => Err(self.miscounted(leaf, nanos.len(), count)),
        }
    }

    /// Numbers of which there are few different ones.
    fn numbers(&mut self, leaf: LeafId, node: Node, passes: impl Fn(i64) -> bool) -> Result<Outcome, ReadError> {
        let small: [bool; 8] = std::array::from_fn(|number| passes(number as i64));
        self.each(leaf, node, |values, index| {
            let number = values.i64(index);
            usize::try_from(number).ok().and_then(|n| small.get(n).copied()).unwrap_or_else(|| passes(number))
        })
    }

    fn trace_ids(&mut self, leaf: LeafId, node: Node, comparison: &Comparison) -> Result<Outcome, ReadError> {
        match comparison {
            Comparison::Equal(Value::Str(text)) => match hex(text, 32) {
                Some(digits) => {
                    let want = digits.parse::<TraceId>().unwrap_or_default();
                    self.each(leaf, node, |values, index| TraceId::from_slice(values.bytes(index)) == want)
                }
                None => Ok(Outcome::None),
            },
            _ => Ok(Outcome::All),
        }
    }

    fn span_ids(&mut self, leaf: LeafId, node: Node, comparison: &Comparison) -> Result<Outcome, ReadError> {
        match comparison {
            Comparison::Equal(Value::Str(text)) => match hex(text, 16) {
                Some(digits) => {
                    let want = digits.parse::<SpanId>().unwrap_or_default();
                    self.each(leaf, node, |values, index| SpanId::from_slice(values.bytes(index)) == want)
                }
                None => Ok(Outcome::None),
            },
            _ => Ok(Outcome::All),
        }
    }
}

/// The digits of an id without leading zeros, at least one; none when the text is no id of at most `max` digits.
fn hex(text: &str, max: usize) -> Option<String> {
    let digits = text.trim_start_matches('0');
    let fits = digits.len() <= max && digits.bytes().all(|b| b.is_ascii_hexdigit());
    fits.then(|| if digits.is_empty() { "0".to_owned() } else { digits.to_owned() })
}

/// Decides the values of one attribute.
enum ValueTest<'a> {
    /// No value can pass.
    Nothing,
    /// Every value passes.
    Present,
    /// With whether every element of an array must pass.
    Text(TextTest<'a>, bool),
    Each(&'a Comparison, bool),
}

impl ValueTest<'_> {
    fn holds(&self, values: &Values, at: std::ops::Range<usize>) -> bool {
        fn some_or_every(every: bool, at: std::ops::Range<usize>, test: impl Fn(usize) -> bool) -> bool {
            match at.len() {
                0 => false,
                1 => test(at.start),
                _ if every => at.into_iter().all(test),
                _ => at.into_iter().any(test),
            }
        }
        match self {
            Self::Nothing => false,
            Self::Present => !at.is_empty(),
            Self::Text(test, every) => some_or_every(*every, at, |i| test.holds(values, i)),
            Self::Each(comparison, every) => some_or_every(*every, at, |i| comparison.matches(&super::attrs::scalar(values, i))),
        }
    }
}
