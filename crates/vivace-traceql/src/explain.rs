//! How a query will be answered, in words.

use std::fmt::{self, Display, Formatter};

use crate::ast::{Field, FirstStage, Metrics, Pipeline, Query, Root, Spansets, Stage};
use crate::error::QueryError;
use crate::metrics::{MetricsRange, Release};
use crate::{Attribute, Comparison, Condition, Fetch, SpanFilter, TraceFilter, Value, need, whole};
use vivace_core::TimeRange;

/// How a query will be answered: what storage reads and decides, what is left to evaluation, and whether traces must be
/// seen whole. Shown as lines of text.
#[derive(Debug, Clone)]
pub struct Explanation {
    lines: Vec<(&'static str, String)>,
}

impl Query {
    /// Explains the plan of a search or a metrics query.
    ///
    /// # Errors
    /// Those of planning.
    pub fn explain(&self) -> Result<Explanation, QueryError> {
        let mut explanation = Explanation { lines: Vec::new() };
        explanation.add("query", self.to_string());
        match &self.root {
            Root::Pipeline(pipeline) => {
                let plan = self.search_plan(TimeRange::ALL)?;
                explanation.fetch(plan.fetch());
                explanation.pipeline(pipeline);
                if plan.most_recent() {
                    explanation.add("order", "exactly the newest traces: all candidates are read".to_owned());
                }
            }
            Root::Metrics(metrics) => {
                let range = MetricsRange::range(0, 3_600_000_000_000, None, Release::default())?;
                let plan = self.metrics_plan(range, 0)?;
                explanation.fetch(plan.fetch());
                if plan.wants_all_attributes() {
                    explanation.add("reads", "every attribute that a place holds".to_owned());
                }
                explanation.metrics(metrics);
            }
        }
        Ok(explanation)
    }
}

impl Explanation {
    fn add(&mut self, name: &'static str, text: String) {
        self.lines.push((name, text));
    }

    fn fetch(&mut self, fetch: &Fetch) {
        self.add("traces", fetch.filter.to_string());
        let lists = [("of spans", &fetch.span_attributes), ("of events", &fetch.event_attributes), ("of links", &fetch.link_attributes)];
        for (of, attributes) in lists.into_iter().filter(|(_, attributes)| !attributes.is_empty()) {
            self.add("reads", format!("{of}: {}", list(attributes)));
        }
    }

    fn pipeline(&mut self, pipeline: &Pipeline) {
        let mut parts = Vec::new();
        left_to_evaluation(pipeline, &mut parts);
        if parts.is_empty() {
            self.add("second pass", "none: what storage finds is the answer".to_owned());
        }
        for part in parts {
            self.add("second pass", part);
        }
        let together: Vec<String> =
            pipeline.stages.iter().filter(|stage| whole::stage_needs_whole_traces(stage)).map(ToString::to_string).collect();
        if together.is_empty() {
            self.add("spans", "decided one by one".to_owned());
        }
        for stage in together {
            self.add("whole traces", format!("for {stage}"));
        }
    }

    fn metrics(&mut self, metrics: &Metrics) {
        match metrics {
            Metrics::Constant(_) => {}
            Metrics::First { pipeline, stage } => {
                self.pipeline(pipeline);
                if whole::first_stage_needs_whole_traces(stage) {
                    self.add("whole traces", format!("for {stage}"));
                }
                let by = match stage {
                    FirstStage::Over { by, .. } if !by.is_empty() => format!("; a series for each {}", list(by)),
                    _ => String::new(),
                };
                self.add("counts", format!("{stage}{by}"));
            }
            Metrics::Later { of, stage } => {
                self.metrics(of);
                // The text of a later stage ends that of the whole.
                let (before, all) = (of.to_string(), Metrics::Later { of: of.clone(), stage: stage.clone() }.to_string());
                self.add("at the end", all.get(before.len()..).unwrap_or_default().trim_start_matches(['|', ' ']).to_owned());
            }
            Metrics::Binary { op, left, right } => {
                self.metrics(left);
                self.metrics(right);
                self.add("at the end", format!("series {} series", op.symbol()));
            }
        }
    }
}

fn list(attributes: &[Attribute]) -> String {
    attributes.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// What storage does not decide for good.
fn left_to_evaluation(pipeline: &Pipeline, parts: &mut Vec<String>) {
    // The first filter alone is decided where a span is read; what follows it looks at what that leaves.
    for (i, stage) in pipeline.stages.iter().enumerate() {
        match stage {
            Stage::Spansets(Spansets::Filter(field)) if i == 0 || is_true(field) => {
                let mut fields = Vec::new();
                need::undecided(field, &mut fields);
                parts.extend(fields.into_iter().map(|field| format!("{{ {field} }}")));
            }
            Stage::Spansets(Spansets::Pipeline(inner)) if i == 0 => left_to_evaluation(inner, parts),
            Stage::Select(_) => {}
            stage => parts.push(stage.to_string()),
        }
    }
}

fn is_true(field: &Field) -> bool {
    *field == Field::Literal(Value::Bool(true))
}

impl Display for Explanation {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let mut last = "";
        for (name, text) in &self.lines {
            writeln!(f, "{:13}{text}", if *name == last { "" } else { name })?;
            last = name;
        }
        Ok(())
    }
}

fn joined<T: Display>(f: &mut Formatter<'_>, items: &[T], separator: &str) -> fmt::Result {
    for (i, item) in items.iter().enumerate() {
        if i > 0 {
            f.write_str(separator)?;
        }
        write!(f, "{item}")?;
    }
    Ok(())
}

impl Display for TraceFilter {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => f.write_str("all"),
            Self::Nothing => f.write_str("none: nothing can match"),
            Self::AnySpan(filter) => write!(f, "with a span where {filter}"),
            Self::And(filters) => joined(f, filters, ", and "),
            Self::Or(filters) => joined(f, filters, ", or "),
        }
    }
}

impl Display for SpanFilter {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let operands = |f: &mut Formatter<'_>, filters: &[Self], separator| {
            let operand = |filter: &Self| match filter {
                Self::And(_) | Self::Or(_) => format!("({filter})"),
                _ => filter.to_string(),
            };
            joined(f, &filters.iter().map(operand).collect::<Vec<_>>(), separator)
        };
        match self {
            Self::Maybe => f.write_str("anything"),
            Self::Leaf(condition) => write!(f, "{condition}"),
            Self::And(filters) => operands(f, filters, " && "),
            Self::Or(filters) => operands(f, filters, " || "),
        }
    }
}

impl Display for Condition {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.attribute, self.comparison)
    }
}

impl Display for Comparison {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Equal(value) => write!(f, "= {value}"),
            Self::NotEqual(value) => write!(f, "!= {value}"),
            Self::Less(value) => write!(f, "< {value}"),
            Self::LessEqual(value) => write!(f, "<= {value}"),
            Self::Greater(value) => write!(f, "> {value}"),
            Self::GreaterEqual(value) => write!(f, ">= {value}"),
            Self::Regex(pattern) => write!(f, "=~ `{}`", pattern.as_str()),
            Self::NotRegex(pattern) => write!(f, "!~ `{}`", pattern.as_str()),
            Self::Exists => f.write_str("!= nil"),
            Self::NotExists => f.write_str("= nil"),
        }
    }
}
