//! Arithmetic between series.
//!
//! Source: docs/facts/traceql.md, "Later stages".

use std::sync::Arc;

use rustc_hash::FxHashMap;

use super::finish::{Line, Lines};
use super::groups::Key;
use super::series::Label;
use crate::Value;
use crate::ast::Arithmetic;

const NAME: &str = "__name__";

pub(crate) fn apply(op: Arithmetic, left: Lines, right: Lines) -> Lines {
    match (left, right) {
        (Lines::Constant(a), Lines::Constant(b)) => Lines::Constant(number(op, a, b)),
        (Lines::Of(lines), Lines::Constant(b)) => Lines::Of(each(lines, |a| number(op, a, b))),
        (Lines::Constant(a), Lines::Of(lines)) => Lines::Of(each(lines, |b| number(op, a, b))),
        (Lines::Of(left), Lines::Of(right)) => Lines::Of(pairs(op, left, right)),
    }
}

/// NaN where there is no result.
fn number(op: Arithmetic, a: f64, b: f64) -> f64 {
    match op {
        Arithmetic::Add => a + b,
        Arithmetic::Subtract => a - b,
        Arithmetic::Multiply => a * b,
        Arithmetic::Divide if b == 0.0 => f64::NAN,
        Arithmetic::Divide => a / b,
        Arithmetic::Modulo => a % b,
        Arithmetic::Power => a.powf(b),
    }
}

fn each(mut lines: Vec<Line>, of: impl Fn(f64) -> f64) -> Vec<Line> {
    for line in &mut lines {
        line.values.iter_mut().for_each(|value| *value = of(*value));
        line.exemplars.iter_mut().filter_map(|exemplar| exemplar.value.as_mut()).for_each(|value| *value = of(*value));
    }
    lines
}

/// Matches series of equal labels; one without labels goes with every series of the other side.
fn pairs(op: Arithmetic, left: Vec<Line>, right: Vec<Line>) -> Vec<Line> {
    let (one_left, one_right) = (is_unlabelled(&left), is_unlabelled(&right));
    match (one_left, one_right) {
        (_, true) => {
            let Some(b) = right.into_iter().next() else { return Vec::new() };
            left.into_iter().map(|a| combined(op, &a, &b, true, one_left)).collect()
        }
        (true, false) => {
            let Some(a) = left.into_iter().next() else { return Vec::new() };
            right.into_iter().map(|b| combined(op, &a, &b, false, true)).collect()
        }
        (false, false) => {
            let left: FxHashMap<Key, Line> = left.into_iter().map(|line| (identity(&line), line)).collect();
            right.iter().filter_map(|b| Some(combined(op, left.get(&identity(b))?, b, true, true))).collect()
        }
    }
}

fn labelled(line: &Line) -> impl Iterator<Item = &Label> {
    line.labels.iter().filter(|label| &*label.key != NAME)
}

fn is_unlabelled(lines: &[Line]) -> bool {
    matches!(lines, [line] if labelled(line).next().is_none())
}

/// The labels in an order of their own, without the name.
fn identity(line: &Line) -> Key {
    let mut labels: Vec<&Label> = labelled(line).collect();
    labels.sort_by(|a, b| a.key.cmp(&b.key));
    Key(labels.into_iter().flat_map(|label| [Value::Str(label.key.clone()), label.value.clone()]).collect())
}

/// `a op b`, with the exemplars of the sides that are asked for.
fn combined(op: Arithmetic, a: &Line, b: &Line, of_left: bool, of_right: bool) -> Line {
    let name = |line: &Line| line.labels.iter().find(|label| &*label.key == NAME).map(|label| label.value.clone());
    let mut labels: Vec<Label> = labelled(a).cloned().collect();
    let missing: Vec<Label> = labelled(b).filter(|label| labels.iter().all(|known| known.key != label.key)).cloned().collect();
    labels.extend(missing);
    if let (Some(Value::Str(a)), Some(Value::Str(b))) = (name(a), name(b)) {
        let both: Arc<str> = format!("({a} {} {b})", op.symbol()).into();
        labels.insert(0, Label { key: NAME.into(), value: Value::Str(both) });
    }
    let values = a.values.iter().zip(&b.values).map(|(a, b)| number(op, *a, *b)).collect();
    let mut exemplars = Vec::new();
    if of_left {
        exemplars.extend_from_slice(&a.exemplars);
    }
    if of_right {
        exemplars.extend_from_slice(&b.exemplars);
    }
    Line { labels, values, exemplars }
}
