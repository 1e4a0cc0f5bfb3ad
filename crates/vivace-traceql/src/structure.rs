//! Relations between spans of one trace, decided by nested set numbers.
//!
//! Source: docs/facts/traceql.md, "Operators between sets of spans" and "The tree, roots and nested sets".

use rustc_hash::{FxHashMap, FxHashSet};

use crate::SpanRow;
use crate::ast::{Mode, Relation};

/// `left op right`; spans are indices into `rows`, ascending. So is the result.
pub(crate) fn structural(rows: &[SpanRow], relation: Relation, mode: Mode, left: &[u32], right: &[u32]) -> Vec<u32> {
    let related = related(rows, relation, left, right);
    match mode {
        Mode::Plain => related,
        Mode::Negated => difference(right, &related),
        Mode::Union => {
            let inverse = match relation {
                Relation::Child => Relation::Parent,
                Relation::Parent => Relation::Child,
                Relation::Descendant => Relation::Ancestor,
                Relation::Ancestor => Relation::Descendant,
                Relation::Sibling => Relation::Sibling,
            };
            union(&related, &self::related(rows, inverse, right, left))
        }
    }
}

/// Those of `right` that stand in the relation to some span of `left`.
fn related(rows: &[SpanRow], relation: Relation, left: &[u32], right: &[u32]) -> Vec<u32> {
    if left.is_empty() || right.is_empty() {
        return Vec::new();
    }
    let row = |span: &u32| &rows[*span as usize];
    let keep = |test: &dyn Fn(&SpanRow) -> bool| right.iter().copied().filter(|span| test(row(span))).collect();
    match relation {
        Relation::Child => {
            let parents: FxHashSet<i32> = left.iter().map(|span| row(span).nested_set_left).filter(|left| *left != 0).collect();
            keep(&|span| parents.contains(&span.nested_set_parent))
        }
        Relation::Parent => {
            let parents: FxHashSet<i32> = left.iter().map(|span| row(span).nested_set_parent).collect();
            keep(&|span| span.nested_set_left != 0 && parents.contains(&span.nested_set_left))
        }
        Relation::Descendant => {
            // Intervals nest or are disjoint: of those that begin before a span, the one that reaches furthest decides.
            let mut reach: Vec<(i32, i32)> =
                left.iter().map(row).filter(|span| span.nested_set_left != 0).map(|s| (s.nested_set_left, s.nested_set_right)).collect();
            reach.sort_unstable();
            let mut furthest = 0;
            for (_, right) in &mut reach {
                furthest = furthest.max(*right);
                *right = furthest;
            }
            keep(&|span| {
                let before = reach.partition_point(|(left, _)| *left < span.nested_set_left);
                span.nested_set_right != 0 && before > 0 && reach[before - 1].1 > span.nested_set_right
            })
        }
        Relation::Ancestor => {
            let mut starts: Vec<i32> = left.iter().map(|span| row(span).nested_set_left).filter(|left| *left != 0).collect();
            starts.sort_unstable();
            keep(&|span| {
                let next = starts.partition_point(|left| *left <= span.nested_set_left);
                span.nested_set_left != 0 && starts.get(next).is_some_and(|left| *left < span.nested_set_right)
            })
        }
        Relation::Sibling => {
            let mut children: FxHashMap<i32, (u32, u32)> = FxHashMap::default();
            for span in left {
                let entry = children.entry(row(span).nested_set_parent).or_default();
                *entry = (entry.0 + 1, *span);
            }
            let has_sibling = |span: u32| {
                let parent = row(&span).nested_set_parent;
                // One child that is the span itself is no sibling.
                parent != 0 && children.get(&parent).is_some_and(|(count, last)| *count > 1 || *last != span)
            };
            right.iter().copied().filter(|span| has_sibling(*span)).collect()
        }
    }
}

/// All of both, ascending, each once, as each of them is.
pub(crate) fn union(a: &[u32], b: &[u32]) -> Vec<u32> {
    let mut all = Vec::with_capacity(a.len() + b.len());
    let (mut i, mut j) = (0, 0);
    while let (Some(x), Some(y)) = (a.get(i), b.get(j)) {
        all.push(*x.min(y));
        i += usize::from(x <= y);
        j += usize::from(y <= x);
    }
    all.extend_from_slice(&a[i..]);
    all.extend_from_slice(&b[j..]);
    all
}

/// What of `a` is not in `b`; both are ascending.
fn difference(a: &[u32], b: &[u32]) -> Vec<u32> {
    let mut rest = b.iter().copied().peekable();
    let mut missing = Vec::with_capacity(a.len());
    for span in a {
        while rest.next_if(|other| other < span).is_some() {}
        if rest.peek() != Some(span) {
            missing.push(*span);
        }
    }
    missing
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A tree, numbered as stored traces are; `parents[i] < i`, `None` is a root, orphans have no numbers.
    fn number(parents: &[Option<usize>], orphan: &[bool]) -> Vec<SpanRow> {
        fn visit(span: usize, parent: i32, parents: &[Option<usize>], orphan: &[bool], next: &mut i32, rows: &mut [SpanRow]) {
            if orphan[span] {
                return;
            }
            rows[span].nested_set_left = *next;
            rows[span].nested_set_parent = parent;
            *next += 1;
            let left = rows[span].nested_set_left;
            for child in (0..parents.len()).filter(|child| parents[*child] == Some(span)) {
                visit(child, left, parents, orphan, next, rows);
            }
            rows[span].nested_set_right = *next;
            *next += 1;
        }
        let mut rows = vec![SpanRow::default(); parents.len()];
        let mut next = 1;
        for root in (0..parents.len()).filter(|span| parents[*span].is_none()) {
            visit(root, -1, parents, orphan, &mut next, &mut rows);
        }
        rows
    }

    fn holds(relation: Relation, x: (usize, &SpanRow), y: (usize, &SpanRow)) -> bool {
        let child = |x: &SpanRow, y: &SpanRow| x.nested_set_parent == y.nested_set_left && y.nested_set_left != 0;
        let below = |x: &SpanRow, y: &SpanRow| {
            x.nested_set_left > y.nested_set_left
                && x.nested_set_right < y.nested_set_right
                && x.nested_set_left != 0
                && y.nested_set_left != 0
        };
        match relation {
            Relation::Child => child(x.1, y.1),
            Relation::Parent => child(y.1, x.1),
            Relation::Descendant => below(x.1, y.1),
            Relation::Ancestor => below(y.1, x.1),
            Relation::Sibling => x.0 != y.0 && x.1.nested_set_parent == y.1.nested_set_parent && x.1.nested_set_parent != 0,
        }
    }

    proptest! {
        /// The quick ways give what the definitions give.
        #[test]
        fn relations_equal_their_definitions(
            seeds in prop::collection::vec((any::<u8>(), prop::bool::weighted(0.1), any::<bool>(), any::<bool>()), 1..20),
        ) {
            let parents: Vec<_> = seeds.iter().enumerate().map(|(i, s)| (i > 0 && s.0 % 8 != 0).then(|| usize::from(s.0) % i)).collect();
            let rows = number(&parents, &seeds.iter().map(|s| s.1).collect::<Vec<_>>());
            let pick = |side: &dyn Fn(usize) -> bool| (0..seeds.len()).filter(|i| side(*i)).map(|i| u32::try_from(i).expect("few")).collect::<Vec<_>>();
            let (left, right) = (pick(&|i| seeds[i].2), pick(&|i| seeds[i].3));
            let row = |span: &u32| (*span as usize, &rows[*span as usize]);
            for relation in [Relation::Child, Relation::Parent, Relation::Descendant, Relation::Ancestor, Relation::Sibling] {
                let plain: Vec<u32> = right.iter().copied().filter(|r| left.iter().any(|l| holds(relation, row(r), row(l)))).collect();
                let from: Vec<u32> = left.iter().copied().filter(|l| right.iter().any(|r| holds(relation, row(r), row(l)))).collect();
                prop_assert_eq!(&structural(&rows, relation, Mode::Plain, &left, &right), &plain);
                prop_assert_eq!(structural(&rows, relation, Mode::Negated, &left, &right), difference(&right, &plain));
                prop_assert_eq!(structural(&rows, relation, Mode::Union, &left, &right), union(&plain, &from));
            }
        }
    }
}
