//! A set of labels: built anew for each span in buffers that are kept, so that a series that is known costs no allocation.

use std::fmt::{Display, Write as _};

/// Stands between names and values in a key. No UTF-8 text has it.
const BETWEEN: u8 = 0xff;

/// Names that dimensions and attributes must not take from a processor's own labels.
pub(crate) const SPAN_LABELS: &[&str] = &["service", "span_name", "span_kind", "status_code", "status_message"];

/// The metric's name, the bound of a bucket, and what marks overflow.
const GIVEN_LABELS: &[&str] = &["__name__", "le", "metric_overflow"];

/// Collects the labels of one series and gives its key: names and values, sorted by name, each name once, none empty.
#[derive(Debug)]
pub(crate) struct LabelSet {
    text: String,
    labels: Vec<Range>,
    key: Vec<u8>,
    name_bytes_max: usize,
    value_bytes_max: usize,
    /// Names that all series of the tenant have already: what spans say cannot take their place.
    constant: Vec<String>,
}

/// Where a label is in the text.
#[derive(Debug, Clone, Copy)]
struct Range {
    start: usize,
    value: usize,
    end: usize,
}

impl LabelSet {
    /// Cuts longer names and values; leaves out the given names.
    pub(crate) fn new(name_bytes_max: usize, value_bytes_max: usize, constant: Vec<String>) -> Self {
        Self { text: String::new(), labels: Vec::new(), key: Vec::new(), name_bytes_max, value_bytes_max, constant }
    }

    /// Begins a new set.
    pub(crate) fn clear(&mut self) {
        self.text.clear();
        self.labels.clear();
    }

    /// Adds a label unless its name or value is empty. Of equal names the first counts.
    pub(crate) fn push(&mut self, name: &str, value: impl Display) {
        if name.is_empty() {
            return;
        }
        let whole = name;
        let name = cut(whole, self.name_bytes_max);
        let is_given = name.len() < whole.len() && GIVEN_LABELS.contains(&name);
        let start = self.text.len();
        self.text.push_str(name);
        let at = self.text.len();
        // Writing to a text cannot fail.
        let _ = write!(self.text, "{value}");
        let end = at + cut(&self.text[at..], self.value_bytes_max).len();
        self.text.truncate(end);
        if end == at || is_given || self.constant.iter().any(|constant| constant == name) {
            self.text.truncate(start);
        } else {
            self.labels.push(Range { start, value: at, end });
        }
    }

    /// Replaces the values of which `is_replaced` says so, given name and value. How many.
    pub(crate) fn replace(&mut self, by: &str, mut is_replaced: impl FnMut(&str, &str) -> bool) -> u64 {
        let mut replaced = 0;
        for label in &mut self.labels {
            let (name, value) = (&self.text[label.start..label.value], &self.text[label.value..label.end]);
            if is_replaced(name, value) {
                let (start, value) = (self.text.len(), self.text.len() + name.len());
                self.text.extend_from_within(label.start..label.value);
                self.text.push_str(by);
                *label = Range { start, value, end: self.text.len() };
                replaced += 1;
            }
        }
        replaced
    }

    /// What tells this set from others.
    pub(crate) fn key(&mut self) -> &[u8] {
        let text = &self.text;
        self.labels.sort_unstable_by(|a, b| text[a.start..a.value].cmp(&text[b.start..b.value]).then(a.start.cmp(&b.start)));
        self.key.clear();
        let mut last = "";
        for label in &self.labels {
            let name = &text[label.start..label.value];
            if name == last {
                continue;
            }
            last = name;
            self.key.extend_from_slice(name.as_bytes());
            self.key.push(BETWEEN);
            self.key.extend_from_slice(&text.as_bytes()[label.value..label.end]);
            self.key.push(BETWEEN);
        }
        &self.key
    }
}

/// The names and values in a key.
pub(crate) fn labels_of(key: &[u8]) -> impl Iterator<Item = (&str, &str)> {
    let mut parts = key.split(|byte| *byte == BETWEEN).map(|part| std::str::from_utf8(part).unwrap_or_default());
    std::iter::from_fn(move || {
        let name = parts.next().filter(|name| !name.is_empty())?;
        Some((name, parts.next()?))
    })
}

/// An attribute's key as a label: other characters than letters, digits and `_` become `_`. Names that begin with a digit, those in
/// `taken`, and those that Prometheus itself gives get `__` in front.
pub(crate) fn label_name(key: &str, taken: &[&str]) -> String {
    let name: String = key.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect();
    let is_taken = taken.contains(&name.as_str()) || GIVEN_LABELS.contains(&name.as_str());
    if is_taken || name.starts_with(|c: char| c.is_ascii_digit()) { format!("__{name}") } else { name }
}

/// A label, and what its value is made of. Of those with the same label, the first that has a value counts.
pub(crate) type Made = (String, String);

/// The labels that are made no longer, or of something else. None if all are made as before, and no others.
pub(crate) fn changed_labels(before: &[Made], after: &[Made]) -> Option<Vec<String>> {
    let made = |all: &[Made], label: &str| -> Vec<String> {
        let of_label = all.iter().filter(|(other, _)| other == label);
        of_label.map(|(_, of)| of.clone()).collect()
    };
    let changed = before.iter().map(|(label, _)| label).filter(|label| made(before, label) != made(after, label));
    (before != after).then(|| changed.cloned().collect())
}

/// The beginning of a text, so many bytes at most.
pub(crate) fn cut(text: &str, bytes_max: usize) -> &str {
    &text[..text.floor_char_boundary(bytes_max)]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(labels: &[(&str, &str)]) -> Vec<(String, String)> {
        let mut set = LabelSet::new(1024, 2048, vec!["cluster".to_owned()]);
        set.push("left", "over");
        set.clear();
        labels.iter().for_each(|(name, value)| set.push(name, value));
        labels_of(set.key()).map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
    }

    fn pairs(labels: &[(&str, &str)]) -> Vec<(String, String)> {
        labels.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn a_set_is_sorted_and_has_each_name_once() {
        assert_eq!(of(&[("b", "2"), ("a", "1"), ("ab", "3"), ("a", "other")]), pairs(&[("a", "1"), ("ab", "3"), ("b", "2")]));
        assert_eq!(of(&[]), []);
    }

    #[test]
    fn empty_values_and_constant_labels_are_left_out() {
        assert_eq!(of(&[("b", ""), ("cluster", "forged"), ("a", "1"), ("", "nameless")]), pairs(&[("a", "1")]));
    }

    #[test]
    fn long_values_are_cut_between_characters() {
        assert_eq!(of(&[("k", &"é".repeat(2000))])[0].1.len(), 2048);
        assert_eq!(of(&[(&"n".repeat(2000), "v")])[0].0.len(), 1024);
    }

    #[test]
    fn dimensions_cannot_hide_intrinsic_labels() {
        assert_eq!(label_name("k8s.pod/name", SPAN_LABELS), "k8s_pod_name");
        assert_eq!(label_name("service", SPAN_LABELS), "__service");
        assert_eq!(label_name("9lives", SPAN_LABELS), "__9lives");
        assert_eq!(["__name__", "  name..", "le", ""].map(|key| label_name(key, &[])), ["____name__", "____name__", "__le", ""]);
    }
}
