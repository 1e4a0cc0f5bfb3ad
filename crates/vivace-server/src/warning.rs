//! What is missing in an answer of a gRPC service whose message has no place for it: as metadata `x-vivace-warnings`.

use tonic::metadata::{MetadataMap, MetadataValue};

/// The key. The header of that name does the same for answers over HTTP.
pub const HEADER: &str = "x-vivace-warnings";

/// Says it in an outgoing answer. Where it has text that metadata cannot carry it is escaped.
pub fn insert(metadata: &mut MetadataMap, warning: &str) {
    let visible = |c: char| c == ' ' || c.is_ascii_graphic();
    let text: String = warning.chars().flat_map(|c| if visible(c) { vec![c] } else { c.escape_default().collect() }).collect();
    metadata.insert(HEADER, MetadataValue::try_from(text).expect("visible ASCII"));
}

/// The key under which a refusal for want of memory says that the query itself held a good part of it.
const HOLDS_MUCH: &str = "x-vivace-holds-much";

/// Says so in a refusal.
pub fn insert_holds_much(metadata: &mut MetadataMap) {
    metadata.insert(HOLDS_MUCH, MetadataValue::from_static("1"));
}

/// Whether a refusal says so.
#[must_use]
pub fn holds_much(metadata: &MetadataMap) -> bool {
    metadata.contains_key(HOLDS_MUCH)
}

/// What an answer says, if anything.
#[must_use]
pub fn of(metadata: &MetadataMap) -> Option<String> {
    metadata.get(HEADER).and_then(|value| value.to_str().ok()).map(ToOwned::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_text_comes_through() {
        let mut metadata = MetadataMap::new();
        assert_eq!(of(&metadata), None);
        insert(&mut metadata, "ended early: 3 of 5, \u{e4}\n");
        assert_eq!(of(&metadata).as_deref(), Some("ended early: 3 of 5, \\u{e4}\\n"));
    }
}
