//! What one span must have, as TraceQL: how searches of other APIs are asked.
//!
//! Texts of clients become literals and names of attributes here and nowhere else, by the language's own printer.

use vivace_traceql::{Attribute, Intrinsic, Kind, Scope, Status, Value};

/// Conditions that one span must meet.
#[derive(Debug, Default)]
pub(crate) struct Conditions(Vec<String>);

impl Conditions {
    /// Spans of one service.
    pub(crate) fn of_service(service: &str) -> Self {
        let mut conditions = Self::default();
        conditions.service(service);
        conditions
    }

    pub(crate) fn service(&mut self, service: &str) {
        self.0.push(text_is(&service_name(), service));
    }

    pub(crate) fn name(&mut self, name: &str) {
        self.0.push(text_is(&Attribute::Intrinsic(Intrinsic::Name), name));
    }

    pub(crate) fn kind(&mut self, kind: Kind) {
        self.any_of(&[kind_is(kind)]);
    }

    /// Nanoseconds, both included.
    pub(crate) fn duration(&mut self, min: Option<u64>, max: Option<u64>) {
        for (op, nanos) in [(">=", min), ("<=", max)] {
            if let Some(nanos) = nanos {
                let nanos = Value::Duration(i64::try_from(nanos).unwrap_or(i64::MAX));
                self.0.push(format!("{} {op} {nanos}", Attribute::Intrinsic(Intrinsic::Duration)));
            }
        }
    }

    /// A tag as Jaeger and Zipkin know it: an attribute of the span, its resource or one of its events, whatever its type, or what
    /// these systems make a tag of.
    pub(crate) fn tag(&mut self, key: &str, value: &str) {
        let values = values_of(value);
        let mut ways: Vec<String> = ATTRIBUTE_SCOPES
            .into_iter()
            .flat_map(|scope| values.iter().map(move |value| format!("{} = {value}", named(scope, key))))
            .collect();
        ways.extend(made_tag(key, value));
        self.any_of(&ways);
    }

    /// A tag that is there with any value, or an event of that name.
    pub(crate) fn has(&mut self, key: &str) {
        let mut ways: Vec<String> = ATTRIBUTE_SCOPES.into_iter().map(|scope| format!("{} != nil", named(scope, key))).collect();
        ways.push(text_is(&Attribute::Intrinsic(Intrinsic::EventName), key));
        if key == "error" {
            ways.push(status_is(Status::Error));
        }
        self.any_of(&ways);
    }

    pub(crate) fn any_of(&mut self, ways: &[String]) {
        match ways {
            [] => {}
            [one] => self.0.push(one.clone()),
            many => self.0.push(format!("({})", many.join(" || "))),
        }
    }

    /// The filter, which takes any span where there is no condition.
    pub(crate) fn filter(&self) -> String {
        if self.0.is_empty() { "{ }".to_owned() } else { format!("{{ {} }}", self.0.join(" && ")) }
    }
}

const ATTRIBUTE_SCOPES: [Scope; 3] = [Scope::Span, Scope::Resource, Scope::Event];

/// The attribute that names a service.
pub(crate) fn service_name() -> Attribute {
    named(Scope::Resource, "service.name")
}

pub(crate) fn kind_is(kind: Kind) -> String {
    format!("{} = {}", Attribute::Intrinsic(Intrinsic::Kind), Value::Kind(kind))
}

pub(crate) fn status_is(status: Status) -> String {
    format!("{} = {}", Attribute::Intrinsic(Intrinsic::Status), Value::Status(status))
}

pub(crate) fn text_is(attribute: &Attribute, text: &str) -> String {
    format!("{attribute} = {}", Value::Str(text.into()))
}

/// The kinds of spans and their names in the tag `span.kind`.
pub(crate) const KINDS: [(&str, Kind); 6] = [
    ("server", Kind::Server),
    ("client", Kind::Client),
    ("producer", Kind::Producer),
    ("consumer", Kind::Consumer),
    ("internal", Kind::Internal),
    ("unspecified", Kind::Unspecified),
];

fn named(scope: Scope, key: &str) -> Attribute {
    Attribute::Named { scope, key: key.into() }
}

/// The values that a client may mean, which has texts only.
fn values_of(text: &str) -> Vec<Value> {
    let mut values = vec![Value::Str(text.into())];
    match text {
        "true" => values.push(Value::Bool(true)),
        "false" => values.push(Value::Bool(false)),
        _ => {
            let is_decimal = text.bytes().all(|byte| byte.is_ascii_digit() || matches!(byte, b'-' | b'.'));
            values.extend(text.parse::<i64>().ok().map(Value::Int));
            // A whole number of type double is shown without a point.
            values.extend(text.parse::<f64>().ok().filter(|_| is_decimal).map(Value::Float));
        }
    }
    values
}

/// Tags that are no attributes: what stands in a span's own fields.
fn made_tag(key: &str, value: &str) -> Option<String> {
    let intrinsic = |intrinsic| Some(text_is(&Attribute::Intrinsic(intrinsic), value));
    match (key, value) {
        ("error", "true") | ("otel.status_code", "ERROR") => Some(status_is(Status::Error)),
        ("otel.status_code", "OK") => Some(status_is(Status::Ok)),
        ("otel.status_description", _) => intrinsic(Intrinsic::StatusMessage),
        ("otel.scope.name" | "otel.library.name", _) => intrinsic(Intrinsic::ScopeName),
        ("otel.scope.version" | "otel.library.version", _) => intrinsic(Intrinsic::ScopeVersion),
        ("event", _) => intrinsic(Intrinsic::EventName),
        ("span.kind", kind) => KINDS.iter().find(|(name, _)| *name == kind).map(|(_, kind)| kind_is(*kind)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use vivace_traceql::ast::{Field, FieldOp, Root, Spansets, Stage};
    use vivace_traceql::{CompareOp, parse};

    use super::*;

    #[test]
    fn tags_are_found_whatever_their_type_and_wherever_they_stand() {
        let filter = |key: &str, value: &str| {
            let mut conditions = Conditions::of_service("shop");
            conditions.tag(key, value);
            conditions.filter()
        };
        assert_eq!(
            filter("http.status_code", "200"),
            "{ resource.service.name = `shop` && (span.http.status_code = `200` || span.http.status_code = 200 || \
             span.http.status_code = 200.0 || resource.http.status_code = `200` || resource.http.status_code = 200 || \
             resource.http.status_code = 200.0 || event.http.status_code = `200` || event.http.status_code = 200 || \
             event.http.status_code = 200.0) }"
        );
        assert!(filter("error", "true").contains("span.error = true || ") && filter("error", "true").contains("status = error"));
        assert!(filter("span.kind", "server").contains("kind = server"));
        assert!(filter("otel.scope.name", "x").contains("instrumentation:name = `x`"));
        assert!(filter("n", "-1.50").contains("span.n = -1.5 "));
        assert!(!filter("n", "1e5").contains("= 1"), "a text alone");
        assert_eq!(parse(&Conditions::default().filter()).expect("it is a query").to_string(), "{ true }");
    }

    /// Names of attributes, and the constants they are equal to.
    fn comparisons(field: &Field, found: &mut Vec<(Attribute, Value)>) {
        match field {
            Field::Binary { op: FieldOp::And | FieldOp::Or, left, right } => {
                comparisons(left, found);
                comparisons(right, found);
            }
            Field::Binary { op: FieldOp::Compare(CompareOp::Equal), left, right } => match (&**left, &**right) {
                (Field::Attribute(attribute), Field::Literal(value)) => found.push((attribute.clone(), value.clone())),
                other => panic!("{other:?}"),
            },
            other => panic!("{other:?}"),
        }
    }

    proptest! {
        /// Whatever a client sends stays a text or a name, or the query is refused as a whole.
        #[test]
        fn no_text_becomes_a_part_of_the_query(service in any::<String>(), name in any::<String>(), key in any::<String>(), value in any::<String>()) {
            let mut conditions = Conditions::of_service(&service);
            conditions.name(&name);
            conditions.tag(&key, &value);
            let Ok(query) = parse(&conditions.filter()) else {
                // No attribute has such a name.
                prop_assert!(key.is_empty() || key.chars().any(char::is_control), "{:?}", conditions.filter());
                return Ok(());
            };
            let Root::Pipeline(pipeline) = query.root else { panic!("{query}") };
            let [Stage::Spansets(Spansets::Filter(field))] = &pipeline.stages[..] else { panic!("{pipeline}") };
            let mut found = Vec::new();
            comparisons(field, &mut found);
            prop_assert_eq!(&found[0], &(service_name(), Value::Str(service.as_str().into())));
            prop_assert_eq!(&found[1], &(Attribute::Intrinsic(Intrinsic::Name), Value::Str(name.as_str().into())));
            let of_span = (named(Scope::Span, &key), Value::Str(value.as_str().into()));
            prop_assert!(found[2..].contains(&of_span), "{:?}", found);
        }
    }
}
