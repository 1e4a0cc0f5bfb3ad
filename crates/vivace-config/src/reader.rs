//! Knows where in the file the reading is, and collects what there is to say of it. Reading goes on behind an error, so that all
//! of them are told at once. What a value means is up to its `Value`.

use std::collections::HashMap;

use crate::error::{KEPT_MAX, Problem, Problems, Warning, WarningKind, quoted, shortened};
use crate::node::{Kind, Node, Position};
use crate::value::{Effect, Value};

/// Walks a YAML tree next to the configuration it fills, and collects everything there is to say.
pub(crate) struct Reader {
    path: Vec<String>,
    /// Above 0 within a part that was already said to have no effect.
    quiet: usize,
    places: HashMap<String, Position>,
    /// What is wrong so far.
    pub(crate) problems: Problems,
    /// What else is to be said.
    pub(crate) warnings: Vec<Warning>,
    /// So many further warnings were not kept.
    pub(crate) more_warnings: usize,
}

/// One key of a block.
pub(crate) struct Entry<'n> {
    pub(crate) key: String,
    pub(crate) at: Position,
    pub(crate) value: &'n Node,
}

impl Reader {
    pub(crate) fn new() -> Self {
        Self { path: vec![], quiet: 0, places: HashMap::new(), problems: Problems::default(), warnings: vec![], more_warnings: 0 }
    }

    /// The keys of a block. Nothing at all is a block without keys: its defaults stay.
    pub(crate) fn entries<'n>(&mut self, node: &'n Node, known: &[&str]) -> Vec<Entry<'n>> {
        match &node.kind {
            Kind::Map(entries) => {
                entries.iter().map(|(key, at, value)| Entry { key: key.clone(), at: *at, value: value.as_ref() }).collect()
            }
            Kind::Null => vec![],
            _ => {
                let keys = known.iter().take(4).copied().collect::<Vec<_>>().join(", ");
                let keys = if keys.is_empty() { String::new() } else { format!(" such as {keys}") };
                self.problem(node, format!("expected a block with keys{keys}; got {}", node.describe(&self.here())));
                vec![]
            }
        }
    }

    /// Reads the value of a key. Null keeps the default.
    pub(crate) fn field(&mut self, entry: &Entry<'_>, effect: Effect, value: &mut dyn Value) {
        self.path.push(entry.key.clone());
        self.places.insert(self.here(), entry.at);
        if !entry.value.is_null() {
            self.set(entry.value, entry.at, effect, value);
        }
        self.path.pop();
    }

    /// Reads a value, and says so where it does not do what it asks for.
    pub(crate) fn set(&mut self, node: &Node, at: Position, effect: Effect, value: &mut dyn Value) {
        let before = value.write();
        let said = self.warnings.len();
        self.quiet += usize::from(effect != Effect::Used);
        value.read(node, self);
        self.quiet -= usize::from(effect != Effect::Used);
        let after = value.write();
        // A switch that is left off asks for nothing.
        let is_off = after == serde_yaml::Value::Bool(false);
        match effect {
            Effect::Idle if !is_off => {
                debug_assert_eq!(said, self.warnings.len(), "a part without effect is warned of once");
                self.warn(WarningKind::NoEffect, at, "accepted, without effect in Vivace".to_owned());
            }
            Effect::Always if is_off && before != after => {
                self.warn(WarningKind::NoEffect, at, "accepted, without effect: this is always on in Vivace".to_owned());
            }
            // Within a part that does not run there is nothing to protect.
            Effect::Refused if before != after && self.quiet == 0 => {
                let path = self.here();
                let message = "is not supported yet, and it would not be safe to go on as if it were; leave it out if you can do without";
                self.problems.push(Problem::new(&path, at, message.to_owned()));
            }
            _ => {}
        }
    }

    /// Reads the value of a key's old spelling.
    pub(crate) fn renamed(&mut self, entry: &Entry<'_>, new: &str, effect: Effect, value: &mut dyn Value) {
        self.path.push(entry.key.clone());
        self.places.insert(self.here(), entry.at);
        if effect == Effect::Used {
            self.warn(WarningKind::Advice, entry.at, format!("this key is now called {new}; its value is taken"));
        } else {
            self.warn(
                WarningKind::NoEffect,
                entry.at,
                format!("accepted, without effect in Vivace: this key is now called {new}; remove it"),
            );
        }
        self.quiet += usize::from(effect == Effect::Idle);
        if !entry.value.is_null() {
            self.set(entry.value, entry.at, if effect == Effect::Idle { Effect::Used } else { effect }, value);
        }
        self.quiet -= usize::from(effect == Effect::Idle);
        self.path.pop();
    }

    /// Accepts a key of old.
    pub(crate) fn dropped(&mut self, entry: &Entry<'_>, why: &str) {
        self.path.push(entry.key.clone());
        self.warn(WarningKind::NoEffect, entry.at, format!("accepted, without effect: {why}"));
        self.path.pop();
    }

    /// Refuses a key.
    pub(crate) fn unknown(&mut self, entry: &Entry<'_>, known: &[&str]) {
        // To find out what was meant takes a while, and a file of another kind has millions of keys.
        if self.problems.are_enough() {
            return self.problems.push(Problem::new(&entry.key, entry.at, String::new()));
        }
        // Limits of 3.x, all of one purpose.
        if entry.key.contains("span_pruning_") {
            return self.dropped(entry, "of Tempo 3.x, spans are not pruned here; remove it");
        }
        self.path.push(entry.key.clone());
        let message = match crate::suggest::nearest(&entry.key, known) {
            Some(near) => format!("unknown key; did you mean {near}?"),
            None => match crate::suggest::elsewhere(&entry.key).as_slice() {
                [] => format!("unknown key; expected {}", one_of(known)),
                places => format!("unknown key here; there is {}", places.join(" and ")),
            },
        };
        let path = self.here();
        self.problems.push(Problem::new(&path, entry.at, message));
        self.path.pop();
    }

    /// Reads the items of a list into fresh values.
    pub(crate) fn items<T: Value + Default>(&mut self, node: &Node, what: &str) -> Option<Vec<T>> {
        let Kind::List(items) = &node.kind else {
            self.problem(node, format!("expected a list{what}, such as [a, b]; got {}", node.describe(&self.here())));
            return None;
        };
        let mut values = Vec::with_capacity(items.len());
        for (index, item) in items.iter().enumerate() {
            let mut value = T::default();
            self.path.push(format!("[{index}]"));
            self.places.insert(self.here(), item.at);
            value.read(item, self);
            self.path.pop();
            values.push(value);
        }
        Some(values)
    }

    /// The text of a scalar, whether quoted or not.
    pub(crate) fn text<'n>(&mut self, node: &'n Node) -> Option<&'n str> {
        match &node.kind {
            Kind::Scalar { text, .. } => Some(text),
            Kind::Null => None,
            _ => {
                self.problem(node, format!("expected a text; got {}", node.describe(&self.here())));
                None
            }
        }
    }

    /// The text of a scalar without quotes, for what is no text itself.
    pub(crate) fn plain<'n>(&mut self, node: &'n Node, expected: &str) -> Option<&'n str> {
        match &node.kind {
            Kind::Scalar { text, plain: true } => Some(text),
            Kind::Scalar { text, plain: false } => {
                self.problem(node, format!("expected {expected}; got the quoted text {}", quoted(text)));
                None
            }
            Kind::Null => None,
            _ => {
                self.problem(node, format!("expected {expected}; got {}", node.describe(&self.here())));
                None
            }
        }
    }

    pub(crate) fn not_one_of(&mut self, node: &Node, got: &str, words: &[&str]) {
        let near = crate::suggest::nearest(got, words).map(|near| format!("; did you mean {near}?")).unwrap_or_default();
        self.problem(node, format!("expected {}; got {}{near}", one_of(words), quoted(got)));
    }

    pub(crate) fn problem(&mut self, node: &Node, message: String) {
        let path = self.here();
        let at = if node.at.line > 0 { node.at } else { self.places.get(&path).copied().unwrap_or_default() };
        self.problems.push(Problem::new(&path, at, message));
    }

    pub(crate) fn warn(&mut self, kind: WarningKind, at: Position, message: String) {
        if self.quiet > 0 {
            return;
        }
        let path = self.here();
        self.keep(Warning { kind, path, line: at.line, message });
    }

    fn keep(&mut self, warning: Warning) {
        if self.warnings.len() < KEPT_MAX {
            self.warnings.push(Warning { path: shortened(&warning.path), ..warning });
        } else {
            self.more_warnings += 1;
        }
    }

    /// A problem found once everything was read: between keys, or with what is missing.
    pub(crate) fn problem_at(&mut self, path: &str, message: String) {
        let at = self.place(path);
        self.problems.push(Problem::new(path, at, message));
    }

    /// Advice found once everything was read.
    pub(crate) fn advise_at(&mut self, path: &str, message: String) {
        let at = self.place(path);
        self.keep(Warning { kind: WarningKind::Advice, path: path.to_owned(), line: at.line, message });
    }

    /// A key without effect, found once everything was read.
    pub(crate) fn note_at(&mut self, path: &str, message: String) {
        let at = self.place(path);
        self.keep(Warning { kind: WarningKind::NoEffect, path: path.to_owned(), line: at.line, message });
    }

    /// Whether a key's value was refused already.
    pub(crate) fn is_refused(&self, path: &str) -> bool {
        self.problems.names(path)
    }

    /// The line of a key, or of the nearest block around it.
    fn place(&self, path: &str) -> Position {
        let mut path = path;
        loop {
            match (self.places.get(path), path.rsplit_once('.')) {
                (Some(at), _) => return *at,
                (None, Some((parent, _))) => path = parent,
                (None, None) => return Position::default(),
            }
        }
    }

    pub(crate) fn within<T>(&mut self, key: &str, read: impl FnOnce(&mut Self) -> T) -> T {
        self.path.push(key.to_owned());
        let result = read(self);
        self.path.pop();
        result
    }

    fn here(&self) -> String {
        let mut path = String::new();
        for segment in &self.path {
            if !path.is_empty() && !segment.starts_with('[') {
                path.push('.');
            }
            path.push_str(segment);
        }
        path
    }
}

/// `a, b or c`.
fn one_of(words: &[&str]) -> String {
    let shown: Vec<&str> = words.iter().copied().filter(|word| !word.is_empty()).collect();
    match shown.as_slice() {
        [] => "no key".to_owned(),
        [one] => (*one).to_owned(),
        [first @ .., last] if first.len() < 12 => format!("{} or {last}", first.join(", ")),
        all => format!("{}, ... ({} in all)", all[..8].join(", "), all.len()),
    }
}
