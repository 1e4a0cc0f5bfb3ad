//! Rules of one receiver that change the labels of series, or leave series out: Prometheus' `write_relabel_configs`.
//!
//! Source: docs/facts/components.md, "Remote write".

use std::borrow::Cow;

use anyhow::Context as _;
use md5::{Digest as _, Md5};
use regex::{Captures, Regex};
use vivace_config::{RelabelAction, RelabelConfig};
use vivace_proto::prometheus::{Label, TimeSeries};

/// The rules, in the order in which they are followed.
#[derive(Debug, Clone, Default)]
pub(crate) struct Rules(Vec<Rule>);

#[derive(Debug, Clone)]
struct Rule {
    of: RelabelConfig,
    pattern: Regex,
}

impl Rules {
    /// # Errors
    /// A pattern cannot be understood; the configuration's check refuses it before.
    pub(crate) fn new(configs: &[RelabelConfig]) -> anyhow::Result<Self> {
        let rule = |of: &RelabelConfig| {
            let pattern = of.pattern().with_context(|| format!("write_relabel_configs: expected a pattern; got {:?}", of.regex))?;
            Ok(Rule { of: of.clone(), pattern })
        };
        configs.iter().map(rule).collect::<anyhow::Result<_>>().map(Self)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The series that are left, with their new labels: sorted by name, none empty.
    pub(crate) fn apply(&self, series: &[TimeSeries]) -> Vec<TimeSeries> {
        series.iter().filter_map(|series| Some(TimeSeries { labels: self.relabel(series.labels.clone())?, ..series.clone() })).collect()
    }

    fn relabel(&self, mut labels: Vec<Label>) -> Option<Vec<Label>> {
        for rule in &self.0 {
            rule.apply(&mut labels).then_some(())?;
        }
        labels.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        (!labels.is_empty()).then_some(labels)
    }
}

impl Rule {
    /// False if the series is left out.
    fn apply(&self, labels: &mut Vec<Label>) -> bool {
        let RelabelConfig { target_label, replacement, .. } = &self.of;
        match self.of.action {
            RelabelAction::Keep => return self.pattern.is_match(&self.source(labels)),
            RelabelAction::Drop => return !self.pattern.is_match(&self.source(labels)),
            RelabelAction::KeepEqual => return value(labels, target_label) == self.source(labels),
            RelabelAction::DropEqual => return value(labels, target_label) != self.source(labels),
            RelabelAction::Replace => self.replace(labels),
            RelabelAction::Lowercase => {
                let small = self.source(labels).to_lowercase();
                set(labels, target_label, small);
            }
            RelabelAction::Uppercase => {
                let capital = self.source(labels).to_uppercase();
                set(labels, target_label, capital);
            }
            RelabelAction::HashMod => {
                let part = hash(&self.source(labels)) % self.of.modulus.max(1);
                set(labels, target_label, part.to_string());
            }
            RelabelAction::LabelMap => {
                let mapped = |label: &Label| {
                    let captures = self.pattern.captures(&label.name)?;
                    Some((expand(&captures, replacement), label.value.clone()))
                };
                for (name, value) in labels.iter().filter_map(mapped).collect::<Vec<_>>() {
                    set(labels, &name, value);
                }
            }
            RelabelAction::LabelDrop => labels.retain(|label| !self.pattern.is_match(&label.name)),
            RelabelAction::LabelKeep => labels.retain(|label| self.pattern.is_match(&label.name)),
        }
        true
    }

    fn replace(&self, labels: &mut Vec<Label>) {
        let source = self.source(labels).into_owned();
        let Some(captures) = self.pattern.captures(&source) else { return };
        let name = expand(&captures, &self.of.target_label);
        if is_name(&name) {
            set(labels, &name, expand(&captures, &self.of.replacement));
        }
    }

    /// The values of the source labels, joined. A label that is not there is empty.
    fn source<'l>(&self, labels: &'l [Label]) -> Cow<'l, str> {
        match &self.of.source_labels[..] {
            [name] => value(labels, name).into(),
            names => names.iter().map(|name| value(labels, name)).collect::<Vec<_>>().join(&self.of.separator).into(),
        }
    }
}

fn value<'l>(labels: &'l [Label], name: &str) -> &'l str {
    labels.iter().find(|label| label.name == name).map_or("", |label| &label.value)
}

/// Sets a label; to set it to nothing removes it.
fn set(labels: &mut Vec<Label>, name: &str, value: String) {
    let at = labels.iter().position(|label| label.name == name);
    match at {
        Some(at) if value.is_empty() => drop(labels.swap_remove(at)),
        Some(at) => labels[at].value = value,
        None if value.is_empty() || name.is_empty() => {}
        None => labels.push(Label { name: name.to_owned(), value }),
    }
}

fn expand(captures: &Captures<'_>, template: &str) -> String {
    let mut text = String::new();
    captures.expand(template, &mut text);
    text
}

/// As Prometheus has names of labels.
fn is_name(name: &str) -> bool {
    let is_letter = |c: char| c.is_ascii_alphabetic() || c == '_';
    name.starts_with(is_letter) && name.chars().all(|c| is_letter(c) || c.is_ascii_digit())
}

/// The last eight bytes of the MD5 sum, so that other programs with the same rule put a series into the same part.
fn hash(text: &str) -> u64 {
    let sum: [u8; 16] = Md5::digest(text).into();
    u64::from_be_bytes(std::array::from_fn(|i| sum[8 + i]))
}

#[cfg(test)]
mod tests;
