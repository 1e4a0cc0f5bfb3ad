use std::collections::HashMap;
use std::rc::Rc;

use saphyr_parser::{Event, Parser, ScalarStyle, Span};

use crate::error::Problem;

/// Deepest nesting of a file.
const DEPTH_MAX: usize = 64;

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

    /// What this is, for an error message.
    pub(crate) fn describe(&self) -> String {
        match &self.kind {
            Kind::Null => "nothing".to_owned(),
            Kind::Scalar { text, .. } => format!("{text:?}"),
            Kind::List(_) => "a list".to_owned(),
            Kind::Map(_) => "a block with keys".to_owned(),
        }
    }
}

/// Reads the first document of a YAML text. Aliases and merge keys (`<<`) are resolved, duplicate keys are problems.
pub(crate) fn parse(text: &str, problems: &mut Vec<Problem>) -> Node {
    let mut builder = Builder { stack: vec![], anchors: HashMap::new(), root: None, problems };
    for event in Parser::new_from_str(text) {
        match event {
            Ok((Event::DocumentEnd, _)) => break,
            Ok((event, span)) => {
                if !builder.event(event, span) {
                    break;
                }
            }
            Err(error) => {
                let at = Position { line: error.marker().line(), column: error.marker().col() + 1 };
                builder.problems.push(Problem::new("", at, format!("this is not YAML: {}", error.info())));
                break;
            }
        }
    }
    builder.root.map_or_else(Node::null, |root| Rc::try_unwrap(root).unwrap_or_else(|root| (*root).clone()))
}

/// A list or block that is not complete yet.
struct Open {
    at: Position,
    anchor: usize,
    content: Content,
}

enum Content {
    List(Vec<Rc<Node>>),
    Map { entries: Vec<(String, Position, Rc<Node>)>, merged: Vec<Rc<Node>>, key: Option<(String, Position, bool)> },
}

struct Builder<'p> {
    stack: Vec<Open>,
    anchors: HashMap<usize, Rc<Node>>,
    root: Option<Rc<Node>>,
    problems: &'p mut Vec<Problem>,
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
                self.value(Rc::new(Node { at, kind }), anchor);
            }
            Event::Alias(anchor) => match self.anchors.get(&anchor).cloned() {
                Some(node) => self.value(node, 0),
                None => return self.stop(at, "this alias has no anchor, or lies within what it names"),
            },
            Event::SequenceStart(anchor, _) | Event::MappingStart(anchor, _) if self.is_key() || self.stack.len() >= DEPTH_MAX => {
                let _ = anchor;
                let why = if self.is_key() { "a key must be a text" } else { "this is nested too deeply; 64 levels are the most" };
                return self.stop(at, why);
            }
            Event::SequenceStart(anchor, _) => self.stack.push(Open { at, anchor, content: Content::List(vec![]) }),
            Event::MappingStart(anchor, _) => {
                self.stack.push(Open { at, anchor, content: Content::Map { entries: vec![], merged: vec![], key: None } });
            }
            Event::SequenceEnd | Event::MappingEnd => self.close(),
            _ => {}
        }
        true
    }

    fn stop(&mut self, at: Position, why: &str) -> bool {
        self.problems.push(Problem::new("", at, why.to_owned()));
        false
    }

    fn is_key(&self) -> bool {
        matches!(self.stack.last(), Some(Open { content: Content::Map { key: None, .. }, .. }))
    }

    fn key(&mut self, text: String, at: Position, plain: bool) -> bool {
        if let Some(Open { content: Content::Map { entries, key, .. }, .. }) = self.stack.last_mut() {
            let merge = plain && text == "<<";
            let before = entries.iter().find(|(name, _, _)| !merge && *name == text).map(|(_, at, _)| *at);
            *key = Some((text.clone(), at, merge));
            if let Some(before) = before {
                self.problems.push(Problem::new(&text, at, format!("this key is already set in line {}", before.line)));
            }
        }
        true
    }

    fn value(&mut self, node: Rc<Node>, anchor: usize) {
        if anchor != 0 {
            self.anchors.insert(anchor, node.clone());
        }
        match self.stack.last_mut() {
            None => self.root = Some(node),
            Some(Open { content: Content::List(items), .. }) => items.push(node),
            Some(Open { content: Content::Map { entries, merged, key }, .. }) => match key.take() {
                Some((_, _, true)) => match &node.kind {
                    Kind::List(nodes) => merged.extend(nodes.iter().cloned()),
                    _ => merged.push(node),
                },
                Some((name, at, false)) => entries.push((name, at, node)),
                None => {}
            },
        }
    }

    fn close(&mut self) {
        let Some(Open { at, anchor, content }) = self.stack.pop() else { return };
        let kind = match content {
            Content::List(items) => Kind::List(items),
            Content::Map { mut entries, merged, .. } => {
                for other in merged {
                    let Kind::Map(theirs) = &other.kind else {
                        self.problems.push(Problem::new("<<", at, "a merge key takes a block, or a list of blocks".to_owned()));
                        continue;
                    };
                    for their in theirs {
                        if !entries.iter().any(|(name, _, _)| *name == their.0) {
                            entries.push(their.clone());
                        }
                    }
                }
                Kind::Map(entries)
            }
        };
        self.value(Rc::new(Node { at, kind }), anchor);
    }
}
