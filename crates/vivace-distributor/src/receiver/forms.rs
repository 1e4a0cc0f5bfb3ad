//! What OpenTelemetry's exporters make a text of, where Zipkin has nothing like it: links, attributes of events, and where the name of
//! a service came from. The table is in docs/compatibility.md, "Jaeger and Zipkin as OTLP".

use serde_json::{Map, Value as Json};

use super::output::Value;

/// The service of spans whose resource has no name of one.
pub(crate) const NO_SERVICE_NAME: &[u8] = b"OTLPResourceNoServiceName";
/// A tag: which attribute of the resource the service's name is of.
pub(crate) const SERVICE_NAME_SOURCE: &[u8] = b"otlp.service.name.source";
/// A tag: the span came without a start.
pub(crate) const ABSENT_START: &[u8] = b"otel.zipkin.absentField.startTime";

const LINK_PREFIX: &[u8] = b"otlp.link.";
/// Longer texts stay what they are: in JSON that is read there may be many small things.
const TEXT_BYTES_MAX: usize = 256 << 10;

/// Attributes in JSON, and how many were left out of them.
pub(crate) struct Attributes {
    json: Map<String, Json>,
    pub(crate) dropped: u32,
}

/// A link of a span: a tag `otlp.link.N`.
pub(crate) struct Link<'t> {
    pub(crate) trace_id: [u8; 16],
    pub(crate) span_id: [u8; 8],
    pub(crate) trace_state: &'t [u8],
    pub(crate) attributes: Attributes,
}

impl<'t> Link<'t> {
    /// A tag that is a link: `trace id|span id|trace state|{attributes}|dropped`, with the ids in hex. None: it is none.
    pub(crate) fn of_tag(key: &[u8], text: &'t [u8]) -> Option<Self> {
        let number = key.strip_prefix(LINK_PREFIX)?;
        if number.is_empty() || !number.iter().all(u8::is_ascii_digit) {
            return None;
        }
        let (trace, rest) = text.split_at_checked(32)?;
        let (span, rest) = rest.strip_prefix(b"|")?.split_at_checked(16)?;
        let (mut trace_id, mut span_id) = ([0; 16], [0; 8]);
        hex::decode_to_slice(trace, &mut trace_id).ok()?;
        hex::decode_to_slice(span, &mut span_id).ok()?;
        let (trace_state, attributes) = Attributes::after(rest.strip_prefix(b"|")?)?;
        Some(Self { trace_id, span_id, trace_state, attributes })
    }
}

impl Attributes {
    /// A text before attributes: `text|{attributes}|dropped`. None: there are none.
    pub(crate) fn after(text: &[u8]) -> Option<(&[u8], Self)> {
        if text.len() > TEXT_BYTES_MAX || !text.last()?.is_ascii_digit() {
            return None;
        }
        let start = text.windows(2).position(|two| two == b"|{")?;
        let end = text.iter().rposition(|byte| *byte == b'|').filter(|end| *end > start)?;
        let dropped = std::str::from_utf8(&text[end + 1..]).ok()?.parse().ok()?;
        let json = serde_json::from_slice(&text[start + 1..end]).ok()?;
        Some((&text[..start], Self { json, dropped }))
    }

    /// Hands over each attribute, until that fails. Lists and maps are texts in JSON; null is nothing.
    pub(crate) fn each<E>(&self, mut take: impl FnMut(&[u8], Value<'_>) -> Result<(), E>) -> Result<(), E> {
        for (key, value) in &self.json {
            let key = key.as_bytes();
            match value {
                Json::Null => {}
                Json::Bool(value) => take(key, Value::Bool(*value))?,
                Json::String(text) => take(key, Value::Text(text.as_bytes()))?,
                Json::Number(number) => match number.as_i64() {
                    Some(integer) => take(key, Value::Int(integer))?,
                    None => take(key, Value::Double(number.as_f64().unwrap_or_default()))?,
                },
                Json::Array(_) | Json::Object(_) => take(key, Value::Text(value.to_string().as_bytes()))?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_exact_form_is_read() {
        let (name, attributes) = Attributes::after(br#"a|b|{"k":"v|{}","n":2.5,"l":[1]}|3"#).expect("a name and attributes");
        assert_eq!((name, attributes.dropped), (&b"a|b"[..], 3));
        let mut read = Vec::new();
        let each: Result<(), ()> = attributes.each(|key, value| {
            read.push(format!("{} {value:?}", String::from_utf8_lossy(key)));
            Ok(())
        });
        assert_eq!(each, Ok(()));
        let text = |text: &str| format!("{:?}", Value::Text(text.as_bytes()));
        assert_eq!(read, [format!("k {}", text("v|{}")), "n Double(2.5)".to_owned(), format!("l {}", text("[1]"))]);
        for text in ["", "a", "a|b", "a|{}", "a|{}|", "a|{}|-1", "a|{}|x", "a|{|1", "a|[]|0", "|{}", "a|{} |{}|0", "1|2"] {
            assert!(Attributes::after(text.as_bytes()).is_none(), "{text}");
        }
        let (trace, span) = ("0a".repeat(16), "0b".repeat(8));
        let link = |key: &str, text: String| Link::of_tag(key.as_bytes(), text.as_bytes()).map(|link| link.trace_state.to_vec());
        assert_eq!(link("otlp.link.0", format!("{trace}|{span}|a=b,c=|d|{{}}|0")).as_deref(), Some(&b"a=b,c=|d"[..]));
        assert_eq!(link("otlp.link.10", format!("{trace}|{span}||{{}}|0")).as_deref(), Some(&b""[..]));
        for (key, text) in [
            ("otlp.link.", format!("{trace}|{span}||{{}}|0")),
            ("otlp.link.x", format!("{trace}|{span}||{{}}|0")),
            ("otlp.link.1", format!("{span}|{span}||{{}}|0")),
            ("otlp.link.1", format!("{trace}|{span}|{{}}|0")),
            ("otlp.link.1", format!("{trace}|{trace}||{{}}|0")),
            ("otlp.link.1", format!("{trace}|{span}||{{}}")),
        ] {
            assert_eq!(link(key, text.clone()), None, "{key} {text}");
        }
    }
}
