//! Which spans count: policies of attributes that must match, or must not.
//!
//! Source: docs/facts/components.md, "Span metrics".

use regex::Regex;
use vivace_config::{FilterPolicy, MatchType, PolicyMatch};

use crate::spans::{MeasuredResource, MeasuredSpan, Scalar};

/// Policies, all of which a span must pass.
#[derive(Debug, Default)]
pub(crate) struct Filter(Vec<Policy>);

#[derive(Debug)]
struct Policy {
    include: Option<Match>,
    include_any: Vec<Match>,
    exclude: Option<Match>,
}

/// Conditions, all of which must hold; none at all if they cannot be understood, which the configuration's check refuses.
#[derive(Debug)]
struct Match(Option<Vec<(Subject, Wanted)>>);

#[derive(Debug)]
enum Subject {
    Kind,
    Name,
    Status,
    Resource(String),
    Span(String),
}

#[derive(Debug)]
enum Wanted {
    Text(String),
    Pattern(Regex),
}

impl Filter {
    /// Reads the policies.
    pub(crate) fn new(policies: &[FilterPolicy]) -> Self {
        let policy = |policy: &FilterPolicy| Policy {
            include: policy.include.as_ref().map(Match::new),
            include_any: policy.include_any.iter().map(Match::new).collect(),
            exclude: policy.exclude.as_ref().map(Match::new),
        };
        Self(policies.iter().map(policy).collect())
    }

    /// The attributes that are compared.
    pub(crate) fn keys(&self) -> impl Iterator<Item = &str> {
        let matches = self.0.iter().flat_map(|policy| policy.include.iter().chain(&policy.include_any).chain(&policy.exclude));
        matches.filter_map(|of| of.0.as_ref()).flatten().filter_map(|(subject, _)| match subject {
            Subject::Resource(key) | Subject::Span(key) => Some(key.as_str()),
            Subject::Kind | Subject::Name | Subject::Status => None,
        })
    }

    /// Whether a span counts.
    pub(crate) fn passes(&self, resource: &MeasuredResource<'_>, span: &MeasuredSpan<'_>) -> bool {
        let matches = |of: &Match| of.matches(resource, span);
        self.0.iter().all(|policy| {
            policy.include.as_ref().is_none_or(matches)
                && (policy.include_any.is_empty() || policy.include_any.iter().any(matches))
                && !policy.exclude.as_ref().is_some_and(matches)
        })
    }
}

impl Match {
    fn new(of: &PolicyMatch) -> Self {
        let condition = |key: &str, value: &str| {
            let subject = match key {
                "kind" => Subject::Kind,
                "name" => Subject::Name,
                "status" => Subject::Status,
                key => match (key.strip_prefix("resource."), key.strip_prefix("span.")) {
                    (Some(key), _) => Subject::Resource(key.to_owned()),
                    (_, Some(key)) => Subject::Span(key.to_owned()),
                    _ => return None,
                },
            };
            let wanted = match of.match_type {
                MatchType::Strict => Wanted::Text(value.to_owned()),
                MatchType::Regex => Wanted::Pattern(Regex::new(value).ok()?),
            };
            Some((subject, wanted))
        };
        Self(of.attributes.iter().map(|attribute| condition(&attribute.key, &attribute.value)).collect())
    }

    fn matches(&self, resource: &MeasuredResource<'_>, span: &MeasuredSpan<'_>) -> bool {
        let matches = |(subject, wanted): &(Subject, Wanted)| match subject {
            Subject::Kind => wanted.is(span.kind_name()),
            Subject::Name => wanted.is(&span.name),
            Subject::Status => wanted.is(span.status_name()),
            Subject::Resource(key) => resource.attributes.get(key).is_some_and(|value| wanted.is_value(value)),
            Subject::Span(key) => span.attributes.get(key).is_some_and(|value| wanted.is_value(value)),
        };
        self.0.as_ref().is_some_and(|conditions| conditions.iter().all(matches))
    }
}

impl Wanted {
    fn is(&self, text: &str) -> bool {
        match self {
            Self::Text(wanted) => wanted == text,
            Self::Pattern(pattern) => pattern.is_match(text),
        }
    }

    fn is_value(&self, value: &Scalar<'_>) -> bool {
        match value {
            Scalar::Text(text) => self.is(text),
            other => self.is(&other.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use prost::Message;
    use vivace_config::Config;
    use vivace_testkit::{TraceBuilder, attribute};

    use super::*;
    use crate::spans::{Interest, measure};

    /// The names of the spans that count, of a trace with a server span `pay` and a failed internal span `store` of a database.
    fn passing(policies: &str) -> Vec<String> {
        let text = format!("metrics_generator: {{processor: {{span_metrics: {{filter_policies: [{policies}]}}}}}}");
        let (config, _) = Config::parse(&text, "t").expect("it is right");
        let filter = Filter::new(&config.metrics_generator.processor.span_metrics.filter_policies);
        let trace = TraceBuilder::new(7, "shop", 0).span("pay", &[]).span("store", &[attribute("db.system", "redis")]).failed("full");
        let mut names = Vec::new();
        let read = measure(&trace.build().encode_to_vec(), &Interest::all(), |resource, span| {
            names.extend(filter.passes(resource, span).then(|| span.name.to_string()));
        });
        assert_eq!(read, Ok(0));
        names
    }

    #[test]
    fn all_attributes_of_a_match_must_match() {
        let attributes = "[{key: kind, value: SPAN_KIND_SERVER}, {key: resource.service.name, value: shop}]";
        assert_eq!(passing(&format!("{{include: {{match_type: strict, attributes: {attributes}}}}}")), ["pay"]);
        let attributes = "[{key: kind, value: SPAN_KIND_SERVER}, {key: resource.service.name, value: sho}]";
        assert_eq!(passing(&format!("{{include: {{match_type: strict, attributes: {attributes}}}}}")), [""; 0]);
        assert_eq!(passing(&format!("{{include: {{match_type: regex, attributes: {attributes}}}}}")), ["pay"]);
    }

    #[test]
    fn what_is_excluded_does_not_count() {
        let failed = "{exclude: {match_type: strict, attributes: [{key: status, value: STATUS_CODE_ERROR}]}}";
        assert_eq!(passing(failed), ["pay"]);
        let other = "{exclude: {match_type: regex, attributes: [{key: span.db.system, value: 'red|post'}]}}";
        assert_eq!(passing(other), ["pay"]);
        assert_eq!(passing(&format!("{failed}, {{include: {{attributes: [{{key: name, value: store}}]}}}}")), [""; 0]);
    }

    #[test]
    fn one_of_several_may_match() {
        let any = "{include_any: [{attributes: [{key: name, value: pay}]}, {attributes: [{key: span.db.system, value: redis}]}]}";
        assert_eq!(passing(any), ["pay", "store"]);
    }
}
