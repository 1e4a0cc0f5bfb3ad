//! Regular expressions in the syntax of Go, run by the `regex` crate.

use regex::Regex;

/// Compiles a pattern that must match the whole value, as if written `^(?s:…)$`.
///
/// # Errors
/// What is wrong with the pattern.
///
/// Source: TraceQL description, "Regular expressions".
pub fn compile(pattern: &str) -> Result<Regex, regex::Error> {
    // The pattern alone first, so that `a)(b` cannot escape from the group it is put in.
    let translated = from_go(pattern);
    Regex::new(&translated)?;
    Regex::new(&format!("^(?s:{translated})$"))
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
