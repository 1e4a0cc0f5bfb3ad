//! Values of attributes in the JSON of other systems' APIs.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value as Json};
use vivace_proto::otlp::any_value::Value;
use vivace_proto::otlp::{AnyValue, KeyValue};

/// Whole numbers beyond this are no exact numbers in a browser.
pub(crate) const EXACT_INT: u64 = (1 << 53) - 1;

/// The value as plain JSON: bytes as base64, lists as arrays, maps as objects.
pub(crate) fn plain(value: Option<&Value>) -> Json {
    match value {
        None => Json::Null,
        Some(Value::StringValue(text)) => text.as_str().into(),
        Some(Value::BoolValue(value)) => (*value).into(),
        Some(Value::IntValue(value)) => (*value).into(),
        // Infinity has no number in JSON.
        Some(Value::DoubleValue(value)) => serde_json::Number::from_f64(*value).map_or_else(|| value.to_string().into(), Json::Number),
        Some(Value::BytesValue(bytes)) => STANDARD.encode(bytes).into(),
        Some(Value::ArrayValue(list)) => list.values.iter().map(|value| plain(value.value.as_ref())).collect(),
        Some(Value::KvlistValue(list)) => Json::Object(object(&list.values)),
    }
}

/// The same as a text.
pub(crate) fn text(value: Option<&Value>) -> String {
    match plain(value) {
        Json::String(text) => text,
        Json::Null => String::new(),
        other => other.to_string(),
    }
}

/// Attributes as an object; of several with one key the last counts.
pub(crate) fn object(attributes: &[KeyValue]) -> Map<String, Json> {
    attributes.iter().map(|attribute| (attribute.key.clone(), plain(value_of(attribute)))).collect()
}

pub(crate) fn value_of(attribute: &KeyValue) -> Option<&Value> {
    attribute.value.as_ref().and_then(|AnyValue { value }| value.as_ref())
}
