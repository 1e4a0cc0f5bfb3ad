//! Regular expressions in the syntax of Go, run by the `regex` crate. Alternatives that are plain texts need no expression: they are
//! a set.

use std::collections::HashSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, Mutex, PoisonError, Weak};

use regex::{Regex, RegexBuilder};
use rustc_hash::FxHashMap;

use crate::error::{QueryError, in_a_line};

/// A pattern that would take more memory than this once compiled is refused. `\p{L}{2,64}` takes a quarter of it.
pub const MAX_PATTERN_BYTES: usize = 16 << 20;

/// What the different patterns of one query may take together.
pub const MAX_PATTERNS_BYTES: usize = 32 << 20;

/// What all patterns of the process may take, those of queries that run included. A query that needs more has to wait.
const ALL_BYTES: u64 = 64 << 20;

/// What is kept of patterns that no query uses any more: dashboards ask the same again and again.
const KEPT_BYTES: u64 = MAX_PATTERNS_BYTES as u64;

/// How large a pattern is found out by what it fits into; what the smallest one takes is counted for each.
const SIZES: [usize; 6] = [8 << 10, 64 << 10, 512 << 10, 2 << 20, 8 << 20, MAX_PATTERN_BYTES];

/// Patterns by their text. One that several queries, or jobs of one query, use is there once.
static KNOWN: LazyLock<Mutex<Known>> = LazyLock::new(Mutex::default);

/// Bytes of all patterns there are.
static BYTES: AtomicU64 = AtomicU64::new(0);

#[derive(Default)]
struct Known {
    all: FxHashMap<Box<str>, Weak<Pattern>>,
    /// The latest last.
    kept: Vec<Arc<Pattern>>,
    kept_bytes: u64,
    /// How many texts there were when those of patterns that are gone were last forgotten.
    swept: usize,
}

/// A pattern that must match the whole of a text.
#[derive(Debug)]
pub struct Pattern {
    text: Box<str>,
    /// Texts that match.
    literals: HashSet<Box<str>>,
    /// Decides all others; none where no other text matches.
    regex: Option<Regex>,
    bytes: u64,
}

impl Pattern {
    fn new(text: &str, literals: HashSet<Box<str>>, regex: Option<Regex>, regex_bytes: usize) -> Self {
        let of_literals: usize = literals.iter().map(|literal| literal.len() + 32).sum();
        let bytes = (regex_bytes + of_literals + 2 * text.len()) as u64;
        BYTES.fetch_add(bytes, Ordering::Relaxed);
        Self { text: text.into(), literals, regex, bytes }
    }

    /// A pattern that matches where `part` stands somewhere in the text.
    pub(crate) fn of_part(part: &str) -> Self {
        let escaped = regex::escape(part);
        match build(&escaped) {
            Ok((regex, bytes)) => Self::new(&escaped, HashSet::new(), Some(regex), bytes),
            Err(_) => Self::new(&escaped, HashSet::from([part.into()]), None, 0),
        }
    }

    /// Whether the pattern matches the whole of a text.
    #[must_use]
    pub fn is_match(&self, text: &str) -> bool {
        self.literals.contains(text) || self.regex.as_ref().is_some_and(|regex| regex.is_match(text))
    }

    /// The pattern as an expression that is not anchored.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

impl Drop for Pattern {
    fn drop(&mut self) {
        BYTES.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// Compiles a pattern that must match the whole value, as if written `^(?s:…)$`.
///
/// # Errors
/// What is wrong with the pattern, or that it is larger than [`MAX_PATTERN_BYTES`].
///
/// Source: docs/facts/traceql.md, "Regular expressions".
pub fn compile(pattern: &str) -> Result<Pattern, regex::Error> {
    let anchored = |pattern: &str| format!("^(?s:{})$", from_go(pattern));
    let Some((literals, others)) = alternatives(pattern) else {
        let (translated, anchored) = (from_go(pattern), anchored(pattern));
        // `a)(b` must not escape from the group it is put in, so what may is looked at alone first.
        if !is_balanced(&translated) {
            build(&translated)?;
        }
        let (regex, bytes) = build(&anchored)?;
        return Ok(Pattern::new(&anchored, HashSet::new(), Some(regex), bytes));
    };
    let (regex, bytes) = match others.is_empty() {
        true => (None, 0),
        false => build(&anchored(&others.join("|"))).map(|(regex, bytes)| (Some(regex), bytes))?,
    };
    Ok(Pattern::new(&anchored(pattern), literals, regex, bytes))
}

/// The same, remembered, with what clients are told.
pub(crate) fn compiled(pattern: &str) -> Result<Arc<Pattern>, QueryError> {
    let known = || KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(pattern) = known().find(pattern) {
        return Ok(pattern);
    }
    if BYTES.load(Ordering::Relaxed) > ALL_BYTES {
        known().forget();
        if BYTES.load(Ordering::Relaxed) > ALL_BYTES {
            return Err(QueryError::Busy(format!(
                "queries that run use more than {ALL_BYTES} bytes for regular expressions: try again later"
            )));
        }
    }
    let compiled = compile(pattern).map_err(|error| QueryError::Invalid(refusal(pattern, &error)))?;
    Ok(known().add(pattern, compiled))
}

/// The patterns of one query.
#[derive(Default)]
pub(crate) struct Patterns {
    /// Held, so that they are compiled once.
    of_query: FxHashMap<Box<str>, Arc<Pattern>>,
    bytes: u64,
}

impl Patterns {
    /// Takes one more.
    ///
    /// # Errors
    /// All of them are too large together. What else is wrong with a pattern is said where it is used.
    pub(crate) fn add(&mut self, pattern: &str) -> Result<(), String> {
        if self.of_query.contains_key(pattern) {
            return Ok(());
        }
        let Ok(compiled) = compiled(pattern) else { return Ok(()) };
        self.bytes += compiled.bytes;
        if self.bytes > MAX_PATTERNS_BYTES as u64 {
            return Err(format!("the regular expressions of the query would take more than {MAX_PATTERNS_BYTES} bytes together"));
        }
        self.of_query.insert(pattern.into(), compiled);
        Ok(())
    }
}

impl Known {
    fn find(&mut self, text: &str) -> Option<Arc<Pattern>> {
        let found = self.all.get(text)?.upgrade()?;
        if let Some(place) = self.kept.iter().rposition(|kept| Arc::ptr_eq(kept, &found)) {
            self.kept[place..].rotate_left(1);
        }
        Some(found)
    }

    /// Another thread may have been faster: then it is its pattern.
    fn add(&mut self, text: &str, pattern: Pattern) -> Arc<Pattern> {
        if let Some(found) = self.find(text) {
            return found;
        }
        let pattern = Arc::new(pattern);
        self.all.insert(text.into(), Arc::downgrade(&pattern));
        self.kept_bytes += pattern.bytes;
        self.kept.push(pattern.clone());
        let mut gone = 0;
        while self.kept_bytes > KEPT_BYTES && gone < self.kept.len() {
            self.kept_bytes -= self.kept[gone].bytes;
            gone += 1;
        }
        self.kept.drain(..gone);
        if self.all.len() > 2 * self.swept + 1000 {
            self.all.retain(|_, pattern| pattern.strong_count() > 0);
            self.swept = self.all.len();
        }
        pattern
    }

    /// Drops what no query uses.
    fn forget(&mut self) {
        (self.kept, self.kept_bytes) = (Vec::new(), 0);
        self.all.retain(|_, pattern| pattern.strong_count() > 0);
        self.swept = self.all.len();
    }
}

/// An expression, and what it takes at most.
fn build(pattern: &str) -> Result<(Regex, usize), regex::Error> {
    let mut refused = None;
    for bytes in SIZES {
        match RegexBuilder::new(pattern).size_limit(bytes).build() {
            Ok(regex) => return Ok((regex, bytes)),
            Err(error @ regex::Error::CompiledTooBig(_)) => refused = Some(error),
            Err(error) => return Err(error),
        }
    }
    Err(refused.unwrap_or(regex::Error::CompiledTooBig(MAX_PATTERN_BYTES)))
}

/// What is said of a pattern that cannot be compiled.
fn refusal(pattern: &str, error: &regex::Error) -> String {
    let text = in_a_line(&crate::Value::Str(pattern.into()).to_string());
    match error {
        regex::Error::CompiledTooBig(max) => format!("invalid regex: {text}: it would take more than {max} bytes"),
        _ => format!("invalid regex: {text}"),
    }
}

/// The alternatives that are plain texts, and the others as they are written. None where there are none of the first, or where it
/// takes more to tell what the alternatives are.
fn alternatives(pattern: &str) -> Option<(HashSet<Box<str>>, Vec<&str>)> {
    // Flags reach beyond the alternative they stand in; a quoted text may hold anything.
    if pattern.contains("(?") || pattern.contains("\\Q") {
        return None;
    }
    let whole = pattern.strip_prefix('(').and_then(|rest| rest.strip_suffix(')')).filter(|inner| !inner.contains(['(', ')', '\\', '[']));
    let (mut literals, mut others) = (HashSet::new(), Vec::new());
    for alternative in split(whole.unwrap_or(pattern))? {
        match literal(alternative) {
            Some(text) => {
                literals.insert(text.into());
            }
            None => others.push(alternative),
        }
    }
    (!literals.is_empty()).then_some((literals, others))
}

/// The alternatives outside of all groups; none where groups or classes are not closed.
fn split(pattern: &str) -> Option<Vec<&str>> {
    let (mut parts, mut start) = (Vec::new(), 0);
    let (mut depth, mut is_escaped) = (0usize, false);
    for (at, c) in pattern.char_indices() {
        match c {
            _ if is_escaped => is_escaped = false,
            '\\' => is_escaped = true,
            // Where a class ends is told by more than the next bracket.
            '[' => return None,
            '(' => depth += 1,
            ')' => depth = depth.checked_sub(1)?,
            '|' if depth == 0 => {
                parts.push(&pattern[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&pattern[start..]);
    (depth == 0 && !is_escaped).then_some(parts)
}

/// The only text that an alternative matches, if there is only one.
fn literal(alternative: &str) -> Option<String> {
    let mut text = String::with_capacity(alternative.len());
    let mut chars = alternative.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => text.push(chars.next().filter(char::is_ascii_punctuation)?),
            '.' | '+' | '*' | '?' | '(' | ')' | '[' | ']' | '{' | '}' | '^' | '$' | '|' => return None,
            c => text.push(c),
        }
    }
    Some(text)
}

/// Whether parentheses outside of classes close only what they opened, for certain.
fn is_balanced(pattern: &str) -> bool {
    let (mut depth, mut class, mut escaped) = (0usize, 0usize, false);
    let mut previous = ' ';
    for c in pattern.chars() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '[' => class += 1,
            ']' => class = class.saturating_sub(1),
            '(' if class == 0 => depth += 1,
            // Flags may turn spaces and comments into nothing.
            '?' if previous == '(' => return false,
            ')' if class == 0 => match depth.checked_sub(1) {
                Some(less) => depth = less,
                None => return false,
            },
            _ => {}
        }
        previous = c;
    }
    depth == 0 && class == 0
}

/// Rewrites what Go and the `regex` crate read differently: ASCII classes, `\Q…\E`, lone braces, set operators.
fn from_go(pattern: &str) -> String {
    let mut out = String::with_capacity(pattern.len());
    let mut rest = pattern;
    // Inside `[…]`, and whether a `]` would still be a literal member.
    let mut class: Option<bool> = None;
    while let Some(c) = rest.chars().next() {
        let tail = &rest[c.len_utf8()..];
        rest = tail;
        match (c, class) {
            ('\\', _) => {
                let Some(escaped) = tail.chars().next() else {
                    out.push('\\');
                    break;
                };
                rest = &tail[escaped.len_utf8()..];
                class = class.map(|_| false);
                match (escaped, class.is_some()) {
                    ('Q', false) => {
                        let (literal, after) = rest.split_once("\\E").unwrap_or((rest, ""));
                        out.push_str(&regex::escape(literal));
                        rest = after;
                    }
                    ('d', false) => out.push_str("[0-9]"),
                    ('w', false) => out.push_str("[0-9A-Za-z_]"),
                    ('s', false) => out.push_str(r"[\t\n\f\r ]"),
                    ('d', true) => out.push_str("0-9"),
                    ('w', true) => out.push_str("0-9A-Za-z_"),
                    ('s', true) => out.push_str(r"\t\n\f\r "),
                    ('D', _) => out.push_str("[^0-9]"),
                    ('W', _) => out.push_str("[^0-9A-Za-z_]"),
                    ('S', _) => out.push_str(r"[^\t\n\f\r ]"),
                    ('b', false) => out.push_str(r"(?-u:\b)"),
                    ('<' | '>', _) => out.push(escaped),
                    _ => {
                        out.push('\\');
                        out.push(escaped);
                    }
                }
                // `\p{…}` and `\x{…}` keep their braces.
                if matches!(escaped, 'p' | 'P' | 'x')
                    && let Some(end) = rest.starts_with('{').then(|| rest.find('}')).flatten()
                {
                    out.push_str(&rest[..=end]);
                    rest = &rest[end + 1..];
                }
            }
            ('[', None) => {
                class = Some(true);
                out.push('[');
                if let Some(after) = rest.strip_prefix('^') {
                    out.push('^');
                    rest = after;
                }
            }
            ('[', Some(_)) if tail.starts_with(':') && tail.contains(":]") => {
                let end = tail.find(":]").map_or(0, |at| at + 2);
                out.push('[');
                out.push_str(&tail[..end]);
                rest = &tail[end..];
                class = Some(false);
            }
            (']', Some(true)) => {
                out.push_str(r"\]");
                class = Some(false);
            }
            (']', Some(false)) => {
                out.push(']');
                class = None;
            }
            ('[' | '&' | '~', Some(_)) => {
                out.push('\\');
                out.push(c);
                class = Some(false);
            }
            (_, Some(_)) => {
                out.push(c);
                class = Some(false);
            }
            ('{', None) if !is_repetition(tail) => out.push_str(r"\{"),
            ('{', None) => {
                let end = tail.find('}').map_or(0, |at| at + 1);
                out.push('{');
                out.push_str(&tail[..end]);
                rest = &tail[end..];
            }
            ('}', None) => out.push_str(r"\}"),
            _ => out.push(c),
        }
    }
    out
}

/// Whether what follows a `{` makes it a repetition count; otherwise Go takes the brace literally.
fn is_repetition(tail: &str) -> bool {
    let Some((inside, _)) = tail.split_once('}') else { return false };
    let (min, max) = inside.split_once(',').unwrap_or((inside, "0"));
    !min.is_empty() && min.bytes().chain(max.bytes()).all(|b| b.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_whole_value_must_match() {
        let is_match = |pattern: &str, value: &str| compile(pattern).expect("a pattern").is_match(value);
        assert!(is_match("a|bc", "bc"));
        assert!(!is_match("a|b", "bc"));
        assert!(is_match("a.b", "a\nb"));
        assert!(is_match("", ""));
        assert!(!is_match("", "x"));
        assert!(is_match("(?i)get", "GET"));
        assert!(compile("a)(b").is_err());
        assert!(compile("(").is_err());
        assert!(compile("*").is_err());
    }

    #[test]
    fn nothing_escapes_from_its_group() {
        for bad in ["a)(b", "a)|(b", "[)](a))((b", "(?x)a #)(\n)|(b", "[[:alpha:])(]a)(b", "\\)a)(b", "a)", "(a"] {
            assert!(compile(bad).is_err() || !compile(bad).expect("checked").is_match("zb"), "{bad}");
        }
        assert!(compile("(a)(b|[)(]+)").expect("a pattern").is_match("a)("));
        assert!(compiled("a)(b").is_err());
    }

    #[test]
    fn patterns_are_remembered() {
        let first = compiled("some pattern").expect("a pattern");
        assert!(Arc::ptr_eq(&first, &compiled("some pattern").expect("a pattern")));
        for i in 0..100 {
            assert_eq!(compiled(&format!("x{i}")).expect("a pattern").is_match("x7"), i == 7);
        }
        for i in 0..5 {
            assert!(compiled(&format!(r"x{i}\p{{L}}{{2,120}}")).expect("a pattern").is_match(&format!("x{i}äöü")));
        }
        drop(first);
        let kept = KNOWN.lock().expect("no panic").kept_bytes;
        assert!(kept <= KEPT_BYTES, "{kept}");
    }

    #[test]
    fn alternatives_that_are_texts_are_a_set() {
        let words: Vec<String> = (0..1200).map(|n| format!("{n:037}")).collect();
        for pattern in [words.join("|"), format!("({})", words.join("|"))] {
            let set = compile(&pattern).expect("a pattern");
            assert!(set.regex.is_none() && set.is_match(&words[1199]) && !set.is_match("0") && !set.is_match(&words[0][1..]));
        }
        let mixed = compile(&format!("{}|x.*y|a\\.b|", words.join("|"))).expect("a pattern");
        assert!(
            mixed.regex.is_some() && mixed.is_match(&words[7]) && mixed.is_match("x\ny") && mixed.is_match("a.b") && mixed.is_match("")
        );
        assert!(!mixed.is_match("acb") && !mixed.is_match("xy|") && !mixed.is_match("x"));
        for (pattern, is_match, text) in [
            ("(?i)a|b", true, "B"),
            ("a|(?i)b|c", true, "C"),
            ("a|[|]|b", true, "|"),
            ("(a|b)|c", true, "b"),
            ("(a|b)(c|d)", true, "ad"),
            ("(a|b)(c|d)", false, "a"),
            ("\\Qa|b\\E", true, "a|b"),
            ("a\\|b", true, "a|b"),
            ("a|b{2}", true, "bb"),
            ("a|^b$", true, "b"),
            ("a\\d|b", true, "a7"),
        ] {
            assert_eq!(compile(pattern).expect(pattern).is_match(text), is_match, "{pattern} {text}");
        }
        assert!(compile("a|b)|(c").is_err() && compile("a|*").is_err() && compile("a|\\").is_err());
    }

    #[test]
    fn large_patterns_are_refused() {
        let error = compile(r"\pL{500}{10}").expect_err("large");
        assert_eq!(refusal("x", &error), "invalid regex: `x`: it would take more than 16777216 bytes");
        assert!(compile(r"\p{L}{2,64}").expect("a pattern").is_match("äöü"));
        let error = compiled(&format!("({}", "x|".repeat(20_000))).expect_err("not closed").to_string();
        assert!(error.len() < 300 && error.starts_with("invalid regex: `(x|x|"), "{error}");
        assert!(compile(&"(".repeat(10_000)).is_err());
        assert!(compile(&"a|".repeat(1000)).is_ok());
    }

    #[test]
    fn patterns_mean_what_they_mean_in_go() {
        let is_match = |pattern: &str, value: &str| compile(pattern).expect(pattern).is_match(value);
        assert!(is_match("/api/{id}", "/api/{id}"));
        assert!(is_match("a{2}", "aa"));
        assert!(is_match(r"a{2,}\d", "aaa7"));
        assert!(!is_match(r"\d", "٣"), "digits are ASCII");
        assert!(is_match(r"\Qa.b\E+", "a.bb"));
        assert!(!is_match(r"\Qa.b\E", "axb"));
        assert!(is_match(r"[[a]+", "[a["));
        assert!(is_match(r"[^\d]", "x"));
        assert!(is_match(r"[\w-]+", "a-b_1"));
        assert!(is_match("[[:alpha:]]+", "abc"));
        assert!(is_match(r"[]a]", "]"));
        assert!(is_match(r"[a&&b]+", "a&b"));
        assert!(is_match(r"\pL+\x{41}", "äA"));
        assert!(is_match(r"a\b b", "a b"));
    }
}
