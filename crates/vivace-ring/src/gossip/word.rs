//! What a process says of itself: its name, its place in each ring, and which dead are to be forgotten. It is JSON, and what a
//! later version adds to it is ignored, so that versions can run beside each other.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

use super::Run;
use crate::{Instance, Role, State};

/// The longest word, bytes. All six roles of one process take less than half of it.
pub(crate) const WORD_MAX: usize = 4 << 10;
/// Runs that one process can say are forgotten.
pub(crate) const FORGOTTEN_MAX: usize = 64;

/// What a process says of itself. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Word(Arc<Spoken>);

#[derive(Debug)]
struct Spoken {
    text: String,
    digest: u64,
    content: Content,
}

/// A word that has been understood.
#[derive(Debug, Clone, Default)]
pub(crate) struct Content {
    /// The process's name, for people.
    pub(crate) name: String,
    /// The rings it is in.
    pub(crate) entries: BTreeMap<Role, Entry>,
    /// Dead runs that people want forgotten.
    pub(crate) forgotten: Vec<Run>,
}

/// How a process appears in one ring.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Entry {
    pub(crate) id: String,
    pub(crate) addr: String,
    pub(crate) zone: String,
    pub(crate) state: State,
    pub(crate) registered: u64,
    /// Said as the last thing: this process answers nobody any more.
    #[serde(default)]
    pub(crate) ended: bool,
}

/// As on the wire. What a later version adds is ignored.
#[derive(Serialize, Deserialize)]
struct Raw {
    name: String,
    #[serde(default)]
    roles: BTreeMap<String, serde_json::Value>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    forgotten: Vec<u64>,
}

impl Word {
    /// None where it would be longer than [`WORD_MAX`].
    pub(crate) fn new(content: &Content) -> Option<Self> {
        let entry = |(role, entry): (&Role, &Entry)| Some((role.as_str().to_owned(), serde_json::to_value(entry).ok()?));
        let raw = Raw {
            name: content.name.clone(),
            roles: content.entries.iter().filter_map(entry).collect(),
            forgotten: content.forgotten.iter().map(|run| run.0).collect(),
        };
        Self::parse(&serde_json::to_string(&raw).ok()?)
    }

    /// None where it is no word, or too long.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        if text.len() > WORD_MAX {
            return None;
        }
        let raw: Raw = serde_json::from_str(text).ok()?;
        // A role or state of a later version does not hide the others.
        let entry = |(role, entry): (String, serde_json::Value)| Some((role.parse().ok()?, serde_json::from_value(entry).ok()?));
        let content = Content {
            name: raw.name,
            entries: raw.roles.into_iter().filter_map(entry).collect(),
            forgotten: raw.forgotten.into_iter().take(FORGOTTEN_MAX).map(Run).collect(),
        };
        Some(Self(Arc::new(Spoken { text: text.to_owned(), digest: xxh3_64(text.as_bytes()), content })))
    }

    pub(crate) fn text(&self) -> &str {
        &self.0.text
    }

    pub(crate) fn digest(&self) -> u64 {
        self.0.digest
    }

    pub(crate) fn content(&self) -> &Content {
        &self.0.content
    }

    /// Whether every id that is claimed here is claimed there too, in whatever state.
    pub(crate) fn claims_no_more_than(&self, other: &Self) -> bool {
        let claimed = &other.content().entries;
        self.content().entries.iter().all(|(role, entry)| claimed.get(role).is_some_and(|known| known.id == entry.id))
    }
}

impl PartialEq for Word {
    fn eq(&self, other: &Self) -> bool {
        self.0.text == other.0.text
    }
}

impl Entry {
    pub(crate) fn instance(&self, role: Role, alive: bool, last_heartbeat_unix_nanos: u64) -> Instance {
        let Self { id, addr, zone, state, registered, ended: _ } = self.clone();
        Instance { id, role, addr, zone, state, alive, registered_unix_seconds: registered, last_heartbeat_unix_nanos }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_later_version_adds_is_ignored() {
        let text = r#"{"name":"x","colour":"red","roles":{"juggler":{"id":"x"},"compactor":{"id":"x","addr":"a","zone":"","state":"DREAMING",
            "registered":1},"ingester":{"id":"x","addr":"a","zone":"","state":"ACTIVE","registered":1,"mood":2}}}"#;
        let word = Word::parse(text).expect("a word");
        assert_eq!(word.content().entries.keys().copied().collect::<Vec<_>>(), [Role::Ingester]);
    }

    #[test]
    fn long_words_and_nonsense_are_refused() {
        assert!(Word::parse("").is_none());
        assert!(Word::parse("[1]").is_none());
        let content = Content { name: "x".repeat(WORD_MAX), ..Content::default() };
        assert!(Word::new(&content).is_none());
    }
}
