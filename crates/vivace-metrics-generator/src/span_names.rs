//! Names of spans made to patterns: what varies in them becomes `<_>`, so that names with ids in them make one series.
//!
//! A name is taken apart into words and what stands between them. A number, a UUID or a long hexadecimal word varies at once; other
//! words vary where more different ones were seen in one place than anybody would name by hand.
//!
//! Source: docs/facts/components.md, "Limits of 3.x".

use hashbrown::HashMap;

/// Stands for what varies.
const VARIES: &str = "<_>";

/// Different words in one place, beyond which they vary.
const WORDS_MAX: usize = 128;

/// Parts of a name that are looked at; what comes after varies.
const PARTS_MAX: usize = 64;

/// Words of all names of a tenant. When there are more, words that are new vary.
const NODES_MAX: usize = 50_000;

/// The names of a tenant's spans, by service.
#[derive(Debug, Default)]
pub(crate) struct SpanNames {
    root: Node,
    nodes: usize,
    pattern: String,
}

/// What was seen after the same beginning.
#[derive(Debug, Default)]
struct Node {
    words: HashMap<Box<str>, Node>,
    /// There is but one word, which stands for all.
    varies: bool,
}

impl SpanNames {
    /// The pattern of a name, which is the name itself if nothing in it varies.
    pub(crate) fn pattern(&mut self, service: &str, name: &str) -> &str {
        self.pattern.clear();
        let Self { root, nodes, pattern } = self;
        // Services are told apart, whatever they are called.
        let mut node = root.follow(service, nodes);
        for (number, part) in parts(name).enumerate() {
            let next = node.filter(|_| number < PARTS_MAX).and_then(|node| node.step(part, nodes));
            let Some((next, word)) = next else {
                pattern.push_str(VARIES);
                break;
            };
            pattern.push_str(word);
            node = Some(next);
        }
        pattern
    }
}

impl Node {
    /// Goes on with a part, or with what stands for it. None where there is no room for it.
    fn step<'n, 'p>(&'n mut self, part: &'p str, nodes: &mut usize) -> Option<(&'n mut Self, &'p str)> {
        if !part.starts_with(is_word) {
            return Some((self.follow(part, nodes)?, part));
        }
        if !self.varies && !is_id(part) && !self.words.contains_key(part) && self.words.len() >= WORDS_MAX {
            *nodes -= self.words.values().map(Self::count).sum::<usize>();
            self.words.clear();
            self.varies = true;
        }
        let word = if self.varies || is_id(part) { VARIES } else { part };
        Some((self.follow(word, nodes)?, word))
    }

    /// Goes on with exactly this, if there is room for it.
    fn follow(&mut self, part: &str, nodes: &mut usize) -> Option<&mut Self> {
        if !self.words.contains_key(part) {
            if *nodes >= NODES_MAX {
                return None;
            }
            *nodes += 1;
            self.words.insert(part.into(), Self::default());
        }
        self.words.get_mut(part)
    }

    fn count(&self) -> usize {
        1 + self.words.values().map(Self::count).sum::<usize>()
    }
}

/// Words, UUIDs, and single characters that stand between.
fn parts(name: &str) -> impl Iterator<Item = &str> {
    let mut rest = name;
    std::iter::from_fn(move || {
        let first = rest.chars().next()?;
        let end = match rest.get(..36).filter(|start| is_uuid(start)) {
            Some(uuid) => uuid.len(),
            None if is_word(first) => rest.find(|c| !is_word(c)).unwrap_or(rest.len()),
            None => first.len_utf8(),
        };
        let (part, after) = rest.split_at(end);
        rest = after;
        Some(part)
    })
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

fn is_id(word: &str) -> bool {
    let has_digit = word.bytes().any(|byte| byte.is_ascii_digit());
    let is_number = word.bytes().all(|byte| byte.is_ascii_digit());
    is_number || is_uuid(word) || has_digit && word.len() >= 8 && word.bytes().all(|byte| byte.is_ascii_hexdigit())
}

fn is_uuid(text: &str) -> bool {
    let is_dash = |at: usize| matches!(at, 8 | 13 | 18 | 23);
    text.len() == 36 && text.bytes().enumerate().all(|(at, byte)| if is_dash(at) { byte == b'-' } else { byte.is_ascii_hexdigit() })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn ids_vary_at_once() {
        let mut names = SpanNames::default();
        for (name, pattern) in [
            ("GET /users/123", "GET /users/<_>"),
            ("GET /users/{id}", "GET /users/{id}"),
            ("GET /api/v1/orders", "GET /api/v1/orders"),
            ("job 3f2504e0-4f89-11d3-9a0c-0305e82c3301 done", "job <_> done"),
            ("get:deadbeef01/x", "get:<_>/x"),
            ("cafe babe decade", "cafe babe decade"),
            ("größe/7", "größe/<_>"),
            ("", ""),
            ("<_>", "<_>"),
        ] {
            assert_eq!(names.pattern("shop", name), pattern, "{name}");
        }
    }

    #[test]
    fn words_vary_where_there_are_many_of_them() {
        let mut names = SpanNames::default();
        let word = |number: usize| -> String { format!("{number:04}").bytes().map(|digit| char::from(digit - b'0' + b'a')).collect() };
        let mut seen = BTreeSet::new();
        for number in 0..2 * WORDS_MAX {
            seen.insert(names.pattern("shop", &format!("query-{}-end", word(number))).to_owned());
        }
        assert_eq!(seen.len(), WORDS_MAX + 1);
        assert_eq!(names.pattern("shop", &format!("query-{}-end", word(0))), "query-<_>-end");
        assert_eq!(names.pattern("shop", "query all"), "query all");
        assert_eq!(names.pattern("bank", "query-abc-end"), "query-abc-end", "another service's names are its own");
    }

    #[test]
    fn words_are_bounded_in_number() {
        let mut names = SpanNames::default();
        for number in 0..100_000 {
            names.pattern(&format!("service-{}", number % 5000), &"a/b.c ".repeat(number % 40));
        }
        assert!(names.nodes <= NODES_MAX);
        assert_eq!(names.nodes + 1, names.root.count());
        assert_eq!(names.pattern("one more", "word"), "<_>");
    }

    proptest! {
        #[test]
        fn a_pattern_differs_from_the_name_where_something_varies_only(name in "[a-z0-9/ .-]{0,60}|\\PC{0,40}") {
            let mut names = SpanNames::default();
            let pattern = names.pattern("shop", &name).to_owned();
            // Read as a pattern, it matches the name.
            let escaped = regex::escape(&pattern).replace("<_>", "(?s:.*)");
            prop_assert!(regex::Regex::new(&format!("^{escaped}$")).expect("a pattern").is_match(&name), "{pattern}");
            prop_assert_eq!(names.pattern("shop", &name), &pattern, "the same one each time");
            prop_assert_eq!(names.nodes + 1, names.root.count());
        }
    }
}
