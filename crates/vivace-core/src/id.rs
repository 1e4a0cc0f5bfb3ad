//! Ids as bytes and as text, and the hashes that are made of them. Trace and span ids of the wrong length are not treated alike:
//! a trace id keeps its end and is filled up in front, a span id keeps its beginning and is filled up behind.

use std::fmt;
use std::str::FromStr;

/// 16 bytes, shown as 32 lowercase hex digits. Shorter ids are padded with zeros on the left.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct TraceId(pub [u8; 16]);

/// 8 bytes, shown as 16 lowercase hex digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct SpanId(pub [u8; 8]);

/// The UUID of a block, shown lowercase with hyphens. Ordered by its bytes, as job ranges are.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct BlockId(pub [u8; 16]);

/// A place on the hash ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Token(pub u32);

/// Why a text is no id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseIdError {
    /// Empty, or more digits than the id has.
    #[error("an id has 1 to {max} hex digits, this one has {len}")]
    Length {
        /// Digits that an id of this kind can have.
        max: usize,
        /// Digits that the text has.
        len: usize,
    },
    /// Something that is no hex digit.
    #[error("{character:?} at position {position} is not a hex digit")]
    Digit {
        /// The offending character.
        character: char,
        /// Counted from 1.
        position: usize,
    },
    /// Not of the form `8-4-4-4-12` hex digits.
    #[error("{text:?} is not a UUID")]
    Uuid {
        /// What was given.
        text: String,
    },
}

fn parse_padded<const N: usize>(text: &str) -> Result<[u8; N], ParseIdError> {
    let digits = text.chars().count();
    if digits == 0 || digits > 2 * N {
        return Err(ParseIdError::Length { max: 2 * N, len: digits });
    }
    let mut bytes = [0u8; N];
    if let Some((i, character)) = text.chars().enumerate().find(|(_, c)| !c.is_ascii_hexdigit()) {
        return Err(ParseIdError::Digit { character, position: i + 1 });
    }
    for (i, digit) in text.chars().rev().filter_map(|c| c.to_digit(16)).enumerate() {
        bytes[N - 1 - i / 2] |= u8::try_from(digit).expect("a hex digit is below 16") << (4 * (i % 2));
    }
    Ok(bytes)
}

impl TraceId {
    /// Takes at most 16 bytes, padded with zeros on the left; of longer input the last 16.
    #[must_use]
    pub fn from_slice(bytes: &[u8]) -> Self {
        let tail = &bytes[bytes.len().saturating_sub(16)..];
        let mut id = [0u8; 16];
        id[16 - tail.len()..].copy_from_slice(tail);
        Self(id)
    }

    /// Hex without leading zeros, as search results carry it. The zero id gives an empty text.
    #[must_use]
    pub fn trimmed_hex(&self) -> String {
        hex::encode(self.0).trim_start_matches('0').to_owned()
    }

    /// The place of a tenant's trace on the ring: 32-bit FNV-1 over tenant and trace id.
    ///
    /// Source: docs/facts/components.md, "Regrouping".
    #[must_use]
    pub fn token(&self, tenant: &crate::TenantId) -> Token {
        Token(fnv1_32(fnv1_32(FNV_OFFSET, tenant.as_str().as_bytes()), &self.0))
    }

    /// 32-bit FNV-1 over the id alone: picks a bloom filter's shard.
    #[must_use]
    pub fn fnv1_32(&self) -> u32 {
        fnv1_32(FNV_OFFSET, &self.0)
    }
}

const FNV_OFFSET: u32 = 0x811c_9dc5;

fn fnv1_32(start: u32, bytes: &[u8]) -> u32 {
    bytes.iter().fold(start, |hash, b| hash.wrapping_mul(0x0100_0193) ^ u32::from(*b))
}

impl SpanId {
    /// The first 8 bytes, padded with zeros on the right: how spans are told apart.
    #[must_use]
    pub fn from_slice(bytes: &[u8]) -> Self {
        let head = &bytes[..bytes.len().min(8)];
        let mut id = [0u8; 8];
        id[..head.len()].copy_from_slice(head);
        Self(id)
    }
}

impl FromStr for TraceId {
    type Err = ParseIdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        parse_padded(text).map(Self)
    }
}

impl FromStr for SpanId {
    type Err = ParseIdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        parse_padded(text).map(Self)
    }
}

impl FromStr for BlockId {
    type Err = ParseIdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let error = || ParseIdError::Uuid { text: text.to_owned() };
        let parts: Vec<&str> = text.split('-').collect();
        if parts.iter().map(|p| p.len()).ne([8, 4, 4, 4, 12]) {
            return Err(error());
        }
        let mut bytes = [0u8; 16];
        hex::decode_to_slice(parts.concat(), &mut bytes).map_err(|_| error())?;
        Ok(Self(bytes))
    }
}

macro_rules! hex_text {
    ($($name:ident)*) => {$(
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&hex::encode(self.0))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }
    )*};
}

hex_text!(TraceId SpanId);

impl fmt::Display for BlockId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = hex::encode(self.0);
        write!(f, "{}-{}-{}-{}-{}", &text[..8], &text[8..12], &text[12..16], &text[16..20], &text[20..])
    }
}

impl fmt::Debug for BlockId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl serde::Serialize for BlockId {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> serde::Deserialize<'de> for BlockId {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_trace_ids_are_padded_on_the_left() {
        let id: TraceId = "1F".parse().expect("an id");
        assert_eq!(id.to_string(), "0000000000000000000000000000001f");
        assert_eq!(id.trimmed_hex(), "1f");
        assert_eq!("abc".parse::<TraceId>().expect("odd length").trimmed_hex(), "abc");
    }

    #[test]
    fn what_is_no_id_is_refused_by_name() {
        assert_eq!("".parse::<TraceId>(), Err(ParseIdError::Length { max: 32, len: 0 }));
        assert_eq!("12g4".parse::<TraceId>(), Err(ParseIdError::Digit { character: 'g', position: 3 }));
        assert_eq!("xyz".parse::<TraceId>(), Err(ParseIdError::Digit { character: 'x', position: 1 }));
        assert!("4c6fb1a2".parse::<BlockId>().is_err());
    }

    /// Source: docs/facts/blocks.md, "Test vectors".
    #[test]
    fn shard_hash_is_fnv1() {
        let hash = |text: &str| text.parse::<TraceId>().expect("an id").fnv1_32();
        assert_eq!(hash("1"), 0x6969_1904);
        assert_eq!(hash("4e7e1fa916da4b9d2a8868fa593cf519"), 0xa2df_44c8);
        assert_eq!(hash("ffffffffffffffffffffffffffffffff"), 0xfc2a_8055);
    }

    #[test]
    fn block_ids_round_trip() {
        let text = "fe34adef-c8eb-4b04-8d80-f7775f3e83ba";
        assert_eq!(text.parse::<BlockId>().expect("a UUID").to_string(), text);
    }
}
