//! Variables in the file, replaced while it is still text: the forms that Tempo knows, without a shell. What a variable holds is
//! asked of the caller; nothing here reads the environment.

use crate::error::shortened;

/// Why a text could not be expanded.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("failed to expand env vars: line {line}: {message}")]
pub struct ExpandError {
    /// Line of the text, from 1.
    pub line: usize,
    /// What is wrong.
    pub message: String,
}

/// What a text may become, bytes: a long variable can stand in it many times.
const EXPANDED_BYTES_MAX: usize = 128 << 20;

/// Nested defaults that are followed: `${A:-${B:-..}}`.
const DEPTH_MAX: usize = 16;

/// Replaces `${..}` by what `lookup` says, before the text is read as YAML.
///
/// Forms: `${A}`, `${A:-default}`, `${A:=default}`, `${A=default}`, `${A:0:3}`, `${#A}`, `${A^}` `${A^^}` `${A,}` `${A,,}`,
/// `${A#glob}` `##` `%` `%%`, `${A/from/to}` `//` `/#` `/%`; `$${A}` stays `${A}`, `$A` is left alone.
/// `${A:default}` is a default too (Tempo takes it for a part of the text and gives nothing), also when it is a number
/// beyond the end of the value, as in `${PORT:3200}`.
///
/// # Errors
/// For a `${` that is not closed, or that names nothing.
///
/// Source: docs/facts/configuration.md, "Variables in the file".
pub fn expand(text: &str, lookup: &dyn Fn(&str) -> Option<String>) -> Result<String, ExpandError> {
    expand_at(text, 1, DEPTH_MAX, lookup)
}

fn expand_at(text: &str, line: usize, depth: usize, lookup: &dyn Fn(&str) -> Option<String>) -> Result<String, ExpandError> {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    let mut line = line;
    while let Some(start) = rest.find("${") {
        line += rest[..start].matches('\n').count();
        let fail = |message: &str| Err(ExpandError { line, message: message.to_owned() });
        let body = &rest[start + 2..];
        let Some(end) = closing(body) else { return fail("this ${ is never closed") };
        if depth == 0 {
            return fail("defaults are nested too deeply");
        }
        if rest[..start].ends_with('$') {
            out.push_str(&rest[..start - 1]);
            out.push_str(&rest[start..start + 3 + end]);
        } else {
            out.push_str(&rest[..start]);
            let nested = |argument: &str| expand_at(argument, line, depth - 1, lookup);
            match replace(&body[..end], lookup, &nested)? {
                Some(value) => out.push_str(&value),
                // A default may be a secret, so only the name is shown.
                None => return fail(&format!("${{{}..}} is none of the known forms", shortened(name_of(&body[..end])))),
            }
        }
        if out.len() > EXPANDED_BYTES_MAX {
            return fail("with the variables in it the text is larger than 128 MiB");
        }
        line += body[..end].matches('\n').count();
        rest = &body[end + 1..];
    }
    out.push_str(rest);
    Ok(out)
}

/// What stands before the first character that no name has.
fn name_of(body: &str) -> &str {
    body.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').next().unwrap_or_default()
}

/// Where the brace that was opened before `body` is closed.
fn closing(body: &str) -> Option<usize> {
    let mut open = 1;
    let mut before = ' ';
    for (at, character) in body.char_indices() {
        match character {
            '{' if before == '$' => open += 1,
            '}' => open -= 1,
            _ => {}
        }
        if open == 0 {
            return Some(at);
        }
        before = character;
    }
    None
}

type Expanded = Result<String, ExpandError>;

/// The value of what stands between the braces; `None` if it has no known form.
fn replace(body: &str, lookup: &dyn Fn(&str) -> Option<String>, nested: &dyn Fn(&str) -> Expanded) -> Result<Option<String>, ExpandError> {
    let (length, body) = body.strip_prefix('#').map_or((false, body), |rest| (true, rest));
    let end = body.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(body.len());
    let (name, operator) = body.split_at(end);
    if name.is_empty() || name.starts_with(|c: char| c.is_ascii_digit()) {
        return Ok(None);
    }
    let value = lookup(name).unwrap_or_default();
    if length {
        return Ok(operator.is_empty().then(|| value.chars().count().to_string()));
    }
    let default = [":-", ":=", "="].iter().find_map(|prefix| operator.strip_prefix(prefix));
    if let Some(default) = default {
        return if value.is_empty() { nested(default).map(Some) } else { Ok(Some(value)) };
    }
    if let Some(part) = operator.strip_prefix(':') {
        return match part_of(&value, part) {
            Some(part) => Ok(Some(part)),
            None if value.is_empty() => nested(part).map(Some),
            None => Ok(Some(value)),
        };
    }
    let argument = |prefix: &str| operator.strip_prefix(prefix).map(nested).transpose();
    Ok(Some(match operator {
        "" => value,
        "^^" => value.to_uppercase(),
        ",," => value.to_lowercase(),
        "^" => first(&value, char::to_ascii_uppercase),
        "," => first(&value, char::to_ascii_lowercase),
        _ => {
            if let Some(pattern) = argument("##")? {
                trim_start(&value, &pattern, true)
            } else if let Some(pattern) = argument("#")? {
                trim_start(&value, &pattern, false)
            } else if let Some(pattern) = argument("%%")? {
                trim_end(&value, &pattern, true)
            } else if let Some(pattern) = argument("%")? {
                trim_end(&value, &pattern, false)
            } else if let Some(change) = argument("/")? {
                changed(&value, &change)
            } else {
                return Ok(None);
            }
        }
    }))
}

/// `offset` or `offset:length` of a value; `None` if `part` is neither, or an offset beyond the value.
fn part_of(value: &str, part: &str) -> Option<String> {
    let (offset, length) = part.split_once(':').map_or((part, None), |(offset, length)| (offset, Some(length)));
    let offset: i64 = offset.trim().parse().ok()?;
    let length = length.map(|length| length.trim().parse::<usize>()).transpose().ok()?;
    let count = i64::try_from(value.chars().count()).ok()?;
    let start = if offset < 0 { (count + offset).max(0) } else { offset };
    if length.is_none() && start >= count {
        return None;
    }
    let start = usize::try_from(start).ok()?;
    Some(value.chars().skip(start).take(length.unwrap_or(usize::MAX)).collect())
}

fn first(value: &str, change: fn(&char) -> char) -> String {
    let mut characters = value.chars();
    characters.next().map(|first| change(&first)).into_iter().chain(characters).collect()
}

fn trim_start(value: &str, pattern: &str, longest: bool) -> String {
    let mut ends: Vec<usize> = value.char_indices().map(|(at, _)| at).chain([value.len()]).collect();
    if longest {
        ends.reverse();
    }
    let cut = ends.into_iter().find(|end| matches_glob(pattern, &value[..*end])).unwrap_or(0);
    value[cut..].to_owned()
}

fn trim_end(value: &str, pattern: &str, longest: bool) -> String {
    let mut starts: Vec<usize> = value.char_indices().map(|(at, _)| at).chain([value.len()]).collect();
    if !longest {
        starts.reverse();
    }
    let cut = starts.into_iter().find(|start| matches_glob(pattern, &value[*start..])).unwrap_or(value.len());
    value[..cut].to_owned()
}

/// `/from/to` (all), `#from/to` (at the start), `%from/to` (at the end) or `from/to` (the first).
fn changed(value: &str, change: &str) -> String {
    let (kind, change) = match change.chars().next() {
        Some(kind @ ('/' | '#' | '%')) => (kind, &change[1..]),
        _ => (' ', change),
    };
    let (from, to) = change.split_once('/').unwrap_or((change, ""));
    match kind {
        _ if from.is_empty() => value.to_owned(),
        '/' => value.replace(from, to),
        '#' => value.strip_prefix(from).map_or_else(|| value.to_owned(), |rest| format!("{to}{rest}")),
        '%' => value.strip_suffix(from).map_or_else(|| value.to_owned(), |rest| format!("{rest}{to}")),
        _ => value.replacen(from, to, 1),
    }
}

/// Whether a pattern of `*`, `?` and plain characters describes the whole text.
fn matches_glob(pattern: &str, text: &str) -> bool {
    let (pattern, text): (Vec<char>, Vec<char>) = (pattern.chars().collect(), text.chars().collect());
    let (mut p, mut t, mut star) = (0, 0, None);
    while t < text.len() {
        if p < pattern.len() && (pattern[p] == '?' || pattern[p] == text[t]) && pattern[p] != '*' {
            (p, t) = (p + 1, t + 1);
        } else if p < pattern.len() && pattern[p] == '*' {
            star = Some((p, t));
            p += 1;
        } else if let Some((star_p, star_t)) = star {
            star = Some((star_p, star_t + 1));
            (p, t) = (star_p + 1, star_t + 1);
        } else {
            return false;
        }
    }
    pattern[p..].iter().all(|c| *c == '*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn expands(text: &str, want: &str) {
        let lookup = |name: &str| match name {
            "HOST" => Some("minio.local".to_owned()),
            "PORT" => Some("8080".to_owned()),
            "EMPTY" => Some(String::new()),
            _ => None,
        };
        assert_eq!(expand(text, &lookup).expect("it expands"), want, "{text}");
    }

    #[test]
    fn every_form_is_replaced() {
        for (text, want) in [
            ("a: ${HOST}:${PORT}", "a: minio.local:8080"),
            ("${NONE}|${EMPTY}", "|"),
            ("${NONE:-x} ${NONE:=y} ${NONE=z} ${EMPTY:-e} ${HOST:-x}", "x y z e minio.local"),
            ("${NONE:-${PORT}} ${NONE:-${EMPTY:-deep}}", "8080 deep"),
            ("${HOST:0:5} ${HOST: -5} ${HOST:6}", "minio local local"),
            ("${HOST^} ${HOST^^} ${HOST,,} ${#HOST}", "Minio.local MINIO.LOCAL minio.local 11"),
            ("${HOST#*.} ${HOST##*o} ${HOST%.*} ${HOST%%i*}", "local cal minio m"),
            ("${HOST/i/I} ${HOST//i/I} ${HOST/#mi/MI} ${HOST/%al/AL}", "mInio.local mInIo.local MInio.local minio.locAL"),
            ("$HOST $${HOST} $", "$HOST ${HOST} $"),
        ] {
            expands(text, want);
        }
    }

    #[test]
    fn a_colon_and_a_text_is_a_default() {
        expands("${NONE:minio:9000} ${HOST:other}", "minio:9000 minio.local");
        expands("port: ${NONE:3200} ${PORT:3200}", "port: 3200 8080");
    }

    #[test]
    fn broken_forms_name_their_line() {
        let none = |_: &str| None;
        for (text, line) in [("a: 1\nb: ${X", 2), ("a: ${}\n", 1), ("\n\nc: ${A!}", 3), ("${A:-${B}", 1)] {
            assert_eq!(expand(text, &none).expect_err(text).line, line, "{text}");
        }
    }
}
