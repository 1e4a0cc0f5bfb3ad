//! Regular expressions in the syntax of Go, run by the `regex` crate.

use std::cell::RefCell;
use std::sync::Arc;

use regex::{Regex, RegexBuilder};

/// A pattern that would take more memory than this once compiled is refused.
pub const MAX_REGEX_BYTES: usize = 2 << 20;

/// Patterns that a query may have.
pub const MAX_REGEXES: usize = 100;

/// Patterns that a thread remembers, none of them longer than [`KNOWN_PATTERN_BYTES`]. Planning a query needs each of
/// its patterns several times, and dashboards ask the same again and again.
const KNOWN: usize = 16;
const KNOWN_PATTERN_BYTES: usize = 1 << 10;

thread_local! {
    static LATEST: RefCell<Vec<(Box<str>, Arc<Regex>)>> = const { RefCell::new(Vec::new()) };
}

/// Compiles a pattern that must match the whole value, as if written `^(?s:…)$`.
///
/// # Errors
/// What is wrong with the pattern, or that it is larger than [`MAX_REGEX_BYTES`].
///
/// Source: docs/facts/traceql.md, "Regular expressions".
pub fn compile(pattern: &str) -> Result<Regex, regex::Error> {
    let translated = from_go(pattern);
    let anchored = format!("^(?s:{translated})$");
    // `a)(b` must not escape from the group it is put in, so what may is looked at alone first.
    if !is_balanced(&translated) {
        build(&translated)?;
    }
    build(&anchored)
}

/// The same, remembered.
pub(crate) fn compiled(pattern: &str) -> Result<Arc<Regex>, regex::Error> {
    if pattern.len() > KNOWN_PATTERN_BYTES {
        return compile(pattern).map(Arc::new);
    }
    let known = LATEST.with_borrow_mut(|latest| {
        let place = latest.iter().position(|(known, _)| **known == *pattern)?;
        latest[..=place].rotate_right(1);
        latest.first().map(|(_, regex)| regex.clone())
    });
    if let Some(known) = known {
        return Ok(known);
    }
    let regex = Arc::new(compile(pattern)?);
    LATEST.with_borrow_mut(|latest| {
        latest.truncate(KNOWN - 1);
        latest.insert(0, (pattern.into(), regex.clone()));
    });
    Ok(regex)
}

fn build(pattern: &str) -> Result<Regex, regex::Error> {
    RegexBuilder::new(pattern).size_limit(MAX_REGEX_BYTES).build()
}

/// What is said of a pattern that cannot be compiled.
pub(crate) fn refusal(text: &dyn std::fmt::Display, error: &regex::Error) -> String {
    match error {
        regex::Error::CompiledTooBig(max) => format!("invalid regex: {text}: it would take more than {max} bytes"),
        _ => format!("invalid regex: {text}"),
    }
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
        assert!(!Arc::ptr_eq(&first, &compiled("some pattern").expect("a pattern")));
    }

    #[test]
    fn large_patterns_are_refused() {
        let error = compile(r"\pL{500}{10}").expect_err("large");
        assert_eq!(refusal(&"x", &error), "invalid regex: x: it would take more than 2097152 bytes");
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
