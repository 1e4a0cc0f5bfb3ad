//! What is done with finished series: the largest, the smallest, and those that pass a comparison.
//!
//! Source: docs/facts/traceql.md, "Later stages".

use std::cmp::Ordering;

use super::finish::Line;
use super::series::Label;
use crate::Value;
use crate::ast::LaterStage;
use crate::compare::{CompareOp, Val, compare};
use crate::value::exact;

pub(crate) fn apply(lines: Vec<Line>, stage: &LaterStage) -> Vec<Line> {
    match stage {
        LaterStage::Top(k) => best(lines, *k, Ordering::reverse),
        LaterStage::Bottom(k) => best(lines, *k, |order| order),
        LaterStage::Compare(op, constant) => filter(lines, *op, constant),
    }
}

/// Keeps, of each interval, the values of the `k` series that come first when values are ordered by `direction`.
fn best(mut lines: Vec<Line>, k: i64, direction: fn(Ordering) -> Ordering) -> Vec<Line> {
    let k = usize::try_from(k).unwrap_or(usize::MAX);
    if lines.len() <= k {
        return lines;
    }
    // Ties are decided by the labels, in the same direction.
    lines.sort_by(|a, b| direction(by_labels(&a.labels, &b.labels)));
    let intervals = lines.iter().map(|line| line.values.len()).max().unwrap_or(0);
    let mut has_won = vec![false; lines.len()];
    let mut present: Vec<(f64, usize)> = Vec::with_capacity(lines.len());
    for interval in 0..intervals {
        present.clear();
        present.extend(lines.iter().enumerate().map(|(i, line)| (line.values[interval], i)).filter(|(value, _)| !value.is_nan()));
        let order = |a: &(f64, usize), b: &(f64, usize)| direction(a.0.partial_cmp(&b.0).unwrap_or(Ordering::Equal)).then(a.1.cmp(&b.1));
        if present.len() > k {
            present.select_nth_unstable_by(k, order);
            for (_, loser) in &present[k..] {
                lines[*loser].values[interval] = f64::NAN;
            }
            present.truncate(k);
        }
        present.iter().for_each(|(_, winner)| has_won[*winner] = true);
    }
    let mut has_won = has_won.into_iter();
    lines.retain(|_| has_won.next() == Some(true));
    lines
}

/// Which of two series with equal values is the smaller one.
fn by_labels(a: &[Label], b: &[Label]) -> Ordering {
    let mut places = (0..a.len().max(b.len())).map(|i| {
        let (a, b) = (a.get(i), b.get(i));
        // Texts that come later are smaller; so `topk` keeps those that come earlier.
        let text = text_of(b).cmp(text_of(a));
        let key = || name_of(b).cmp(name_of(a));
        text.then_with(key).then_with(|| number_of(a).cmp(&number_of(b)))
    });
    places.find(|order| *order != Ordering::Equal).unwrap_or(Ordering::Equal)
}

fn text_of(label: Option<&Label>) -> &str {
    match label.map(|label| &label.value) {
        Some(Value::Str(text)) => text,
        _ => "",
    }
}

fn name_of(label: Option<&Label>) -> &str {
    label.map_or("", |label| &label.key)
}

fn number_of(label: Option<&Label>) -> (u8, u64) {
    label.map_or((0, 0), |label| exact(&label.value))
}

fn filter(mut lines: Vec<Line>, op: CompareOp, constant: &Value) -> Vec<Line> {
    let constant = match Val::from(constant) {
        #[allow(clippy::cast_precision_loss)]
        Val::Duration(nanos) => nanos as f64 / 1e9,
        other => other.number().unwrap_or(f64::NAN),
    };
    let passes = |value: f64| !value.is_nan() && compare(op, Val::Float(value), Val::Float(constant));
    for line in &mut lines {
        line.values.iter_mut().filter(|value| !passes(**value)).for_each(|value| *value = f64::NAN);
        line.exemplars.retain(|exemplar| exemplar.value.is_none_or(passes));
    }
    lines.retain(|line| line.values.iter().any(|value| !value.is_nan()));
    lines
}
