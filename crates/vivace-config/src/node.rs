//! YAML as a tree whose values know their line. Scalars stay text until a key says what it expects. Depth and number of values
//! are bounded, and what an alias repeats counts each time: a few lines could else stand for more than memory holds.

use std::collections::HashMap;
use std::rc::Rc;

use saphyr_parser::{Event, Parser, ScalarStyle, Span};

use crate::error::{Problem, Problems, WarningKind, quoted};
use crate::reader::Reader;

/// Deepest nesting of a file.
const DEPTH_MAX: usize = 64;

/// Most values in a file, those that aliases and merge keys repeat counted each time: enough for some limits of each of a
/// hundred thousand tenants. A few lines of aliases can stand for more values than there are atoms.
const VALUES_MAX: u64 = 4_000_000;

/// Words in a key's name whose value is not shown.
const SECRETS: [&str; 6] = ["secret", "password", "token", "credential", "key", "auth"];

/// A place in a file; both count from 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Position {
    pub(crate) line: usize,
    pub(crate) column: usize,
}

/// A value of a YAML file, with its place.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub(crate) at: Position,
    pub(crate) kind: Kind,
}

/// What a value is. Scalars keep their text: what it means depends on what is read from it.
#[derive(Clone, Debug)]
pub(crate) enum Kind {
    Null,
    Scalar { text: String, plain: bool },
    List(Vec<Rc<Node>>),
    Map(Vec<(String, Position, Rc<Node>)>),
}

impl Node {
    pub(crate) fn null() -> Self {
        Self { at: Position::default(), kind: Kind::Null }
    }

    pub(crate) fn plain(text: &str) -> Self {
        Self { at: Position::default(), kind: Kind::Scalar { text: text.to_owned(), plain: true } }
    }

    pub(crate) fn is_null(&self) -> bool {
        matches!(self.kind, Kind::Null)
    }

    /// The value of a key, if this is a block that has it.
    pub(crate) fn get(&self, key: &str) -> Option<&Node> {
        match &self.kind {
            Kind::Map(entries) => entries.iter().find(|(name, _, _)| name == key).map(|(_, _, value)| value.as_ref()),
            _ => None,
        }
    }

    /// What this is, for an error message about the value of the key at `path`. What may be a secret in the wrong place is not
    /// shown.
    pub(crate) fn describe(&self, path: &str) -> String {
        match &self.kind {
            Kind::Null => "nothing".to_owned(),
            Kind::Scalar { text, .. } if path.is_empty() || is_secret(path) || text.contains(['@', ' ']) => {
                format!("a text of {} bytes", text.len())
            }
            Kind::Scalar { text, .. } => quoted(text),
            Kind::List(_) => "a list".to_owned(),
            Kind::Map(_) => "a block with keys".to_owned(),
        }
    }
}

/// Whether the name of a key says that its value is not to be shown.
pub(crate) fn is_secret(key: &str) -> bool {
    let key = key.to_lowercase();
    SECRETS.iter().any(|word| key.contains(word))
}

/// Reads the first document of a YAML text. Aliases and merge keys (`<<`) are resolved, duplicate keys are problems; further
/// documents are warned of. None where the text is no YAML, which is a problem too.
pub(crate) fn parse(text: &str, reader: &mut Reader) -> Option<Node> {
    let mut builder = Builder { stack: vec![], anchors: HashMap::new(), root: None, values: 0, problems: &mut reader.problems };
    let mut parser = Parser::new_from_str(text);
    let mut further = None;
    while let Some(event) = parser.next() {
        match event {
            Ok((Event::DocumentEnd, _)) => {
                further = parser.next().and_then(Result::ok).filter(|(event, _)| matches!(event, Event::DocumentStart(_)));
                break;
            }
            Ok((event, span)) => {
                if !builder.event(event, span) {
                    return None;
                }
            }
            Err(error) => {
                let at = Position { line: error.marker().line(), column: error.marker().col() + 1 };
                builder.problems.push(Problem::new("", at, format!("this is not YAML: {}", error.info())));
                return None;
            }
        }
    }
    let root = builder.root;
    if let Some((_, span)) = further {
        let at = Position { line: span.start.line(), column: span.start.col() + 1 };
        reader.warn(WarningKind::NoEffect, at, "a further YAML document begins here: only the first one is read".to_owned());
    }
    Some(root.map_or_else(Node::null, |root| Rc::try_unwrap(root).unwrap_or_else(|root| (*root).clone())))
}

/// A list or block that is not complete yet.
struct Open {
    at: Position,
    anchor: usize,
    content: Content,
    /// Values counted before it.
    values_before: u64,
}

enum Content {
    List(Vec<Rc<Node>>),
    Map(Map),
}

#[derive(Default)]
struct Map {
    entries: Vec<(String, Position, Rc<Node>)>,
    /// Where its keys are set.
    places: HashMap<String, Position>,
    merged: Vec<Rc<Node>>,
    key: Option<(String, Position, bool)>,
}

struct Builder<'p> {
    stack: Vec<Open>,
    /// What anchors name, and how many values that is.
    anchors: HashMap<usize, (Rc<Node>, u64)>,
    root: Option<Rc<Node>>,
    /// Values so far.
    values: u64,
    problems: &'p mut Problems,
}

impl Builder<'_> {
    /// Takes in one event; false when reading on makes no sense.
    fn event(&mut self, event: Event<'_>, span: Span) -> bool {
        let at = Position { line: span.start.line(), column: span.start.col() + 1 };
        match event {
            Event::Scalar(text, style, anchor, tag) => {
                let plain = style == ScalarStyle::Plain && tag.is_none();
                let null = plain && matches!(text.as_ref(), "" | "~" | "null" | "Null" | "NULL");
                if self.is_key() {
                    return self.key(text.into_owned(), at, plain);
                }
                let kind = if null { Kind::Null } else { Kind::Scalar { text: text.into_owned(), plain } };
                self.values += 1;
                self.value(Rc::new(Node { at, kind }), anchor, 1);
            }
            Event::Alias(anchor) => match self.anchors.get(&anchor).cloned() {
                Some((node, values)) => {
                    self.values = self.values.saturating_add(values);
                    self.value(node, 0, 0);
                }
                None => return self.stop(at, "this alias has no anchor, or lies within what it names"),
            },
            Event::SequenceStart(..) | Event::MappingStart(..) if self.is_key() || self.stack.len() >= DEPTH_MAX => {
                let why = if self.is_key() { "a key must be a text" } else { "this is nested too deeply; 64 levels are the most" };
                return self.stop(at, why);
            }
            Event::SequenceStart(anchor, _) => self.open(at, anchor, Content::List(vec![])),
            Event::MappingStart(anchor, _) => self.open(at, anchor, Content::Map(Map::default())),
            Event::SequenceEnd | Event::MappingEnd => self.close(),
            _ => {}
        }
        if self.values > VALUES_MAX {
            return self.stop(at, "this is more than 4 million values, those counted again that aliases repeat");
        }
        true
    }

    fn stop(&mut self, at: Position, why: &str) -> bool {
        self.problems.push(Problem::new("", at, why.to_owned()));
        false
    }

    fn open(&mut self, at: Position, anchor: usize, content: Content) {
        self.stack.push(Open { at, anchor, content, values_before: self.values });
        self.values += 1;
    }

    fn is_key(&self) -> bool {
        matches!(self.stack.last(), Some(Open { content: Content::Map(Map { key: None, .. }), .. }))
    }

    fn key(&mut self, text: String, at: Position, plain: bool) -> bool {
        if let Some(Open { content: Content::Map(map), .. }) = self.stack.last_mut() {
            let merge = plain && text == "<<";
            if !merge {
                match map.places.get(&text) {
                    Some(before) => {
                        let message = format!("this key is already set in line {}", before.line);
                        self.problems.push(Problem::new(&text, at, message));
                    }
                    None => drop(map.places.insert(text.clone(), at)),
                }
            }
            map.key = Some((text, at, merge));
        }
        true
    }

    /// Puts a value where it belongs. Those within are counted already; an anchor names so many.
    fn value(&mut self, node: Rc<Node>, anchor: usize, values: u64) {
        if anchor != 0 {
            self.anchors.insert(anchor, (node.clone(), values));
        }
        match self.stack.last_mut() {
            None => self.root = Some(node),
            Some(Open { content: Content::List(items), .. }) => items.push(node),
            Some(Open { content: Content::Map(map), .. }) => match map.key.take() {
                Some((_, _, true)) => match &node.kind {
                    Kind::List(nodes) => map.merged.extend(nodes.iter().cloned()),
                    _ => map.merged.push(node),
                },
                Some((name, at, false)) => map.entries.push((name, at, node)),
                None => {}
            },
        }
    }

    fn close(&mut self) {
        let Some(Open { at, anchor, content, values_before }) = self.stack.pop() else { return };
        let kind = match content {
            Content::List(items) => Kind::List(items),
            Content::Map(Map { mut entries, mut places, merged, .. }) => {
                for other in merged {
                    let Kind::Map(theirs) = &other.kind else {
                        self.problems.push(Problem::new("<<", at, "a merge key takes a block, or a list of blocks".to_owned()));
                        continue;
                    };
                    for their in theirs {
                        if !places.contains_key(&their.0) {
                            places.insert(their.0.clone(), their.1);
                            entries.push(their.clone());
                        }
                    }
                }
                Kind::Map(entries)
            }
        };
        self.value(Rc::new(Node { at, kind }), anchor, self.values - values_before);
    }
}
