//! The kinds of values: how each is read from a node, and written again without its secrets. Numbers and booleans are taken in
//! the spellings of Go's YAML. A value that is refused stays what it was, and the reader has the problem.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde_yaml::Value as Yaml;

use crate::error::quoted;
use crate::node::{Kind, Node, is_secret};
use crate::reader::Reader;

/// A part of the configuration: one value, or a block of them.
pub(crate) trait Value {
    /// Takes over what the file says; what it does not say stays as it is.
    fn read(&mut self, node: &Node, reader: &mut Reader);

    /// The value as it is shown: secrets masked.
    fn write(&self) -> Yaml;

    /// The keys of a block.
    fn fields(&self) -> Vec<Field<'_>> {
        vec![]
    }

    /// The value of a key of a block, and what the key does.
    fn child(&mut self, _key: &str) -> Option<(Effect, &mut dyn Value)> {
        None
    }
}

/// What it does to set a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Effect {
    /// What the key says.
    Used,
    /// Nothing: accepted, with a warning, because Tempo has the key.
    Idle,
    /// Nothing, as what it switches on is always on.
    Always,
    /// It stops the start: what it asks for is not built, and nobody would be safe who believed that it were.
    Refused,
}

/// A key of a block.
pub(crate) struct Field<'v> {
    pub(crate) key: &'static str,
    pub(crate) doc: &'static str,
    pub(crate) effect: Effect,
    pub(crate) value: &'v dyn Value,
}

pub(crate) fn write_fields(block: &dyn Value) -> Yaml {
    Yaml::Mapping(block.fields().iter().map(|field| (Yaml::from(field.key), field.value.write())).collect())
}

/// A duration that never passes: the longest that Go can express.
pub(crate) const INFINITE: Duration = Duration::from_nanos(i64::MAX as u64);

pub(crate) fn default<T: Default>() -> T {
    T::default()
}

pub(crate) fn text(text: &str) -> String {
    text.to_owned()
}

pub(crate) const fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

pub(crate) const fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

pub(crate) const fn mins(mins: u64) -> Duration {
    Duration::from_secs(60 * mins)
}

pub(crate) const fn hours(hours: u64) -> Duration {
    Duration::from_secs(3600 * hours)
}

/// A text that is never shown: `Debug` and the status pages print `<secret>`.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// The text itself.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Whether nothing was set.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl From<String> for Secret {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl From<&str> for Secret {
    fn from(text: &str) -> Self {
        Self(text.to_owned())
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_empty() { "\"\"" } else { "<secret>" })
    }
}

impl Value for Secret {
    fn read(&mut self, node: &Node, reader: &mut Reader) {
        self.0.read(node, reader);
    }

    fn write(&self) -> Yaml {
        if self.0.is_empty() { Yaml::from("") } else { Yaml::from("<secret>") }
    }
}

/// A URL whose password is never shown.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct SecretUrl(String);

impl SecretUrl {
    /// The URL itself.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Whether nothing was set.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The URL with its password masked.
    #[must_use]
    pub fn masked(&self) -> String {
        // One that lacks its scheme has a password all the same.
        let (scheme, rest) = self.0.split_once("://").map_or(("", self.0.as_str()), |(_, rest)| self.0.split_at(self.0.len() - rest.len()));
        let host_ends = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        match rest[..host_ends].rfind('@') {
            Some(at) => {
                let user = rest[..at].split(':').next().unwrap_or_default();
                format!("{scheme}{user}:<secret>{}", &rest[at..])
            }
            None => self.0.clone(),
        }
    }
}

impl From<&str> for SecretUrl {
    fn from(text: &str) -> Self {
        Self(text.to_owned())
    }
}

impl fmt::Debug for SecretUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.masked())
    }
}

impl Value for SecretUrl {
    fn read(&mut self, node: &Node, reader: &mut Reader) {
        self.0.read(node, reader);
    }

    fn write(&self) -> Yaml {
        self.masked().into()
    }
}

/// A size that is written with a unit: `64KiB`, `1MB`, `65535B`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ByteString(pub u64);

impl Value for ByteString {
    fn read(&mut self, node: &Node, reader: &mut Reader) {
        let Some(text) = reader.text(node) else { return };
        match crate::duration::parse_bytes(text) {
            Some(bytes) => self.0 = bytes,
            None => reader.problem(node, format!("expected a size with a unit, such as 64KiB or 1MB; got {}", quoted(text))),
        }
    }

    fn write(&self) -> Yaml {
        format!("{}B", self.0).into()
    }
}

/// Words that Tempo takes as one text with commas; a list is taken too.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CommaList(Vec<String>);

impl Value for CommaList {
    fn read(&mut self, node: &Node, reader: &mut Reader) {
        if matches!(node.kind, Kind::List(_)) {
            return self.0.read(node, reader);
        }
        if let Some(text) = reader.text(node) {
            self.0 = text.split(',').map(str::trim).filter(|word| !word.is_empty()).map(str::to_owned).collect();
        }
    }

    fn write(&self) -> Yaml {
        self.0.join(",").into()
    }
}

/// A part of Tempo's configuration that Vivace takes as it is and does not use.
#[derive(Clone, Default, PartialEq)]
pub struct Ignored(Option<Yaml>);

impl fmt::Debug for Ignored {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            None => f.write_str("None"),
            Some(_) => f.write_str("<ignored>"),
        }
    }
}

impl Value for Ignored {
    fn read(&mut self, node: &Node, _reader: &mut Reader) {
        self.0 = Some(shown(node));
    }

    fn write(&self) -> Yaml {
        self.0.clone().unwrap_or(Yaml::Null)
    }
}

/// A tree as it is shown on status pages: what sounds like a secret is masked already here, so it is not even kept.
fn shown(node: &Node) -> Yaml {
    match &node.kind {
        Kind::Null => Yaml::Null,
        Kind::Scalar { text, plain: true } => serde_yaml::from_str(text).unwrap_or_else(|_| text.as_str().into()),
        Kind::Scalar { text, plain: false } => text.as_str().into(),
        Kind::List(items) => Yaml::Sequence(items.iter().map(|item| shown(item)).collect()),
        Kind::Map(entries) => Yaml::Mapping(
            entries
                .iter()
                .map(|(key, _, value)| {
                    let masked = is_secret(key) && !value.is_null();
                    (key.as_str().into(), if masked { "<secret>".into() } else { shown(value) })
                })
                .collect(),
        ),
    }
}

impl Value for bool {
    fn read(&mut self, node: &Node, reader: &mut Reader) {
        const EXPECTED: &str = "true or false without quotes";
        let Some(text) = reader.plain(node, EXPECTED) else { return };
        match text.to_ascii_lowercase().as_str() {
            "true" | "yes" | "on" | "y" => *self = true,
            "false" | "no" | "off" | "n" => *self = false,
            _ => reader.problem(node, format!("expected {EXPECTED}; got {}", quoted(text))),
        }
    }

    fn write(&self) -> Yaml {
        (*self).into()
    }
}

macro_rules! whole_number {
    ($($type:ty),*) => { $(
        impl Value for $type {
            fn read(&mut self, node: &Node, reader: &mut Reader) {
                let expected = if <$type>::MAX as u64 == u64::MAX {
                    "a whole number that is not negative".to_owned()
                } else {
                    format!("a whole number from 0 to {}", <$type>::MAX)
                };
                let Some(text) = reader.plain(node, &expected) else { return };
                match whole(text).and_then(|number| <$type>::try_from(number).ok()) {
                    Some(number) => *self = number,
                    None => reader.problem(node, format!("expected {expected}; got {}", quoted(text))),
                }
            }

            fn write(&self) -> Yaml {
                (*self as u64).into()
            }
        }
    )* };
}
whole_number!(u16, u32, u64, usize);

/// A whole number as YAML 1.1 and Go write it: `0x1f`, `0o17`, `017`, `0b1`, `5_000_000`, and floats without a fraction (`6e+06`).
fn whole(text: &str) -> Option<i128> {
    let digits = text.replace('_', "");
    let (negative, digits) = match digits.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, digits.strip_prefix('+').unwrap_or(&digits)),
    };
    let lower = digits.to_ascii_lowercase();
    let radix = |prefix: &str, radix| lower.strip_prefix(prefix).map(|rest| i128::from_str_radix(rest, radix).ok());
    let unsigned = |text: &str| if text.starts_with(['+', '-']) { None } else { Some(()) };
    unsigned(digits)?;
    let number = if let Some(number) = radix("0x", 16).or_else(|| radix("0o", 8)).or_else(|| radix("0b", 2)) {
        number?
    } else if lower.len() > 1 && lower.starts_with('0') && lower.bytes().all(|byte| byte.is_ascii_digit()) {
        i128::from_str_radix(&lower, 8).ok()?
    } else if lower.bytes().all(|byte| byte.is_ascii_digit()) {
        lower.parse().ok()?
    } else {
        let number: f64 =
            if lower.starts_with(|first: char| first.is_ascii_digit() || first == '.') { lower.parse().ok()? } else { return None };
        #[expect(clippy::cast_possible_truncation, reason = "it has no fraction and is in range, as was just checked")]
        if number.fract() == 0.0 && number.abs() < 1e18 { number as i128 } else { return None }
    };
    Some(if negative { -number } else { number })
}

impl Value for f64 {
    fn read(&mut self, node: &Node, reader: &mut Reader) {
        let Some(text) = reader.plain(node, "a number") else { return };
        match text.replace('_', "").parse::<f64>() {
            Ok(number) if number.is_finite() => *self = number,
            _ => reader.problem(node, format!("expected a number; got {}", quoted(text))),
        }
    }

    fn write(&self) -> Yaml {
        #[expect(clippy::cast_possible_truncation, reason = "it has no fraction and is small, as was just checked")]
        if self.fract() == 0.0 && self.abs() < 1e15 { (*self as i64).into() } else { (*self).into() }
    }
}

impl Value for String {
    fn read(&mut self, node: &Node, reader: &mut Reader) {
        if let Some(text) = reader.text(node) {
            text.clone_into(self);
        }
    }

    fn write(&self) -> Yaml {
        self.as_str().into()
    }
}

impl Value for Duration {
    fn read(&mut self, node: &Node, reader: &mut Reader) {
        let Some(text) = reader.text(node) else { return };
        match crate::duration::parse(text) {
            Ok(duration) => *self = duration,
            Err(why) => reader.problem(node, format!("expected a duration such as 30s, 5m or 1h30m; got {}, {why}", quoted(text))),
        }
    }

    fn write(&self) -> Yaml {
        crate::duration::format(*self).into()
    }
}

impl<T: Value + Default> Value for Vec<T> {
    fn read(&mut self, node: &Node, reader: &mut Reader) {
        if let Some(items) = reader.items(node, "") {
            *self = items;
        }
    }

    fn write(&self) -> Yaml {
        Yaml::Sequence(self.iter().map(Value::write).collect())
    }
}

impl<T: Value + Default> Value for Option<T> {
    fn read(&mut self, node: &Node, reader: &mut Reader) {
        self.get_or_insert_default().read(node, reader);
    }

    fn write(&self) -> Yaml {
        self.as_ref().map_or(Yaml::Null, Value::write)
    }
}

impl<T: Value + Default> Value for BTreeMap<String, T> {
    fn read(&mut self, node: &Node, reader: &mut Reader) {
        self.clear();
        for entry in reader.entries(node, &[]) {
            let mut value = T::default();
            reader.field(&entry, Effect::Used, &mut value);
            self.insert(entry.key, value);
        }
    }

    fn write(&self) -> Yaml {
        Yaml::Mapping(self.iter().map(|(key, value)| (key.as_str().into(), value.write())).collect())
    }
}
