//! Values of one attribute in the results of a search, where they are of several types.
//!
//! Source: docs/facts/clients.md, "A column has one type".

use std::collections::HashMap;
use std::mem::{Discriminant, discriminant};

use vivace_proto::otlp::any_value::Value;
use vivace_proto::otlp::{AnyValue, KeyValue};
use vivace_proto::tempopb::{SpanSet, TraceSearchMetadata};

/// What types the values of each key had so far.
#[derive(Default)]
pub(crate) struct ValueTypes(HashMap<String, Seen>);

enum Seen {
    One(Discriminant<Value>),
    Several,
}

impl ValueTypes {
    /// Makes texts of all values whose key has values of several types among texts, numbers and bools. Lists and maps stay.
    pub(crate) fn reconcile(&mut self, traces: &mut [TraceSearchMetadata]) {
        each_attribute(traces, |attribute| {
            let Some(found) = type_of(attribute) else { return };
            match self.0.get_mut(&attribute.key) {
                None => {
                    self.0.insert(attribute.key.clone(), Seen::One(found));
                }
                Some(seen) => {
                    if matches!(seen, Seen::One(known) if *known != found) {
                        *seen = Seen::Several;
                    }
                }
            }
        });
        if self.0.values().any(|seen| matches!(seen, Seen::Several)) {
            each_attribute(traces, |attribute| {
                if type_of(attribute).is_some()
                    && matches!(self.0.get(&attribute.key), Some(Seen::Several))
                    && let Some(value) = attribute.value.take()
                {
                    attribute.value = Some(AnyValue { value: Some(Value::StringValue(text(value))) });
                }
            });
        }
    }
}

fn each_attribute(traces: &mut [TraceSearchMetadata], mut visit: impl FnMut(&mut KeyValue)) {
    let mut each = |set: &mut SpanSet| {
        set.attributes.iter_mut().for_each(&mut visit);
        set.spans.iter_mut().flat_map(|span| &mut span.attributes).for_each(&mut visit);
    };
    for trace in traces {
        trace.span_sets.iter_mut().for_each(&mut each);
        trace.span_set.iter_mut().for_each(&mut each);
    }
}

/// None for what is no text, number or bool.
fn type_of(attribute: &KeyValue) -> Option<Discriminant<Value>> {
    match attribute.value.as_ref()?.value.as_ref()? {
        Value::IntValue(_) => Some(discriminant(&Value::DoubleValue(0.0))),
        value @ (Value::StringValue(_) | Value::DoubleValue(_) | Value::BoolValue(_)) => Some(discriminant(value)),
        Value::ArrayValue(_) | Value::KvlistValue(_) | Value::BytesValue(_) => None,
    }
}

/// As it would be written in JSON.
fn text(value: AnyValue) -> String {
    match value.value {
        Some(Value::StringValue(text)) => text,
        Some(Value::IntValue(number)) => number.to_string(),
        Some(Value::DoubleValue(number)) => number.to_string(),
        Some(Value::BoolValue(is_true)) => is_true.to_string(),
        None | Some(Value::ArrayValue(_) | Value::KvlistValue(_) | Value::BytesValue(_)) => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use vivace_proto::otlp::ArrayValue;
    use vivace_proto::tempopb::Span;

    use super::*;

    fn trace(values: &[(&str, Value)]) -> TraceSearchMetadata {
        let attribute =
            |(key, value): &(&str, Value)| KeyValue { key: (*key).to_owned(), value: Some(AnyValue { value: Some(value.clone()) }) };
        let spans = values.iter().map(|value| Span { attributes: vec![attribute(value)], ..Default::default() }).collect();
        let set = SpanSet { spans, matched: 1, attributes: Vec::new() };
        TraceSearchMetadata { span_set: Some(set.clone()), span_sets: vec![set], ..Default::default() }
    }

    #[test]
    fn values_of_several_types_are_texts() {
        let text = |text: &str| Value::StringValue(text.to_owned());
        let mut types = ValueTypes::default();
        let mut traces = [
            trace(&[("code", Value::IntValue(7)), ("n", Value::IntValue(1)), ("flag", Value::BoolValue(true))]),
            trace(&[("code", text("seven")), ("n", Value::DoubleValue(0.5)), ("flag", Value::BoolValue(false))]),
            trace(&[("code", Value::DoubleValue(0.5)), ("code", Value::BoolValue(true))]),
        ];
        types.reconcile(&mut traces);
        let want = [
            trace(&[("code", text("7")), ("n", Value::IntValue(1)), ("flag", Value::BoolValue(true))]),
            trace(&[("code", text("seven")), ("n", Value::DoubleValue(0.5)), ("flag", Value::BoolValue(false))]),
            trace(&[("code", text("0.5")), ("code", text("true"))]),
        ];
        assert_eq!(traces, want);
        // Lists stay as they are, beside texts too.
        let list = Value::ArrayValue(ArrayValue { values: vec![AnyValue { value: Some(text("red")) }] });
        let mut mixed = [trace(&[("words", text("red")), ("words", list.clone())])];
        types.reconcile(&mut mixed);
        assert_eq!(mixed, [trace(&[("words", text("red")), ("words", list)])]);
        // What comes later is told by what came before.
        let mut later = [trace(&[("code", Value::IntValue(8)), ("n", Value::IntValue(2))])];
        types.reconcile(&mut later);
        assert_eq!(later, [trace(&[("code", text("8")), ("n", Value::IntValue(2))])]);
    }
}
