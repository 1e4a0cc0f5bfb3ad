//! Thrift's compact protocol, reading only.
//!
//! The parquet crate's own footer reader recurses over the schema and reserves memory by the counts it is told, so bytes
//! that others wrote could overflow the stack or exhaust memory. Here depth is bounded and every count is checked against
//! the bytes that are left.

use vivace_core::wire::{self, VarintError};

use super::fault::Fault;

const MAX_DEPTH: u32 = 16;

/// The type of a field or element, as its number on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Kind(u8);

impl Kind {
    pub(crate) const TRUE: Self = Self(1);
    pub(crate) const FALSE: Self = Self(2);
    const BYTE: Self = Self(3);
    const I16: Self = Self(4);
    const I32: Self = Self(5);
    const I64: Self = Self(6);
    const DOUBLE: Self = Self(7);
    pub(crate) const BINARY: Self = Self(8);
    pub(crate) const LIST: Self = Self(9);
    const SET: Self = Self(10);
    const MAP: Self = Self(11);
    pub(crate) const STRUCT: Self = Self(12);

    fn is_integer(self) -> bool {
        matches!(self, Self::BYTE | Self::I16 | Self::I32 | Self::I64)
    }
}

/// A position in bytes.
#[derive(Debug, Clone)]
pub(crate) struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// Bytes read so far.
    pub(crate) fn position(&self) -> usize {
        self.at
    }

    fn byte(&mut self) -> Result<u8, Fault> {
        let byte = *self.bytes.get(self.at).ok_or_else(|| self.ends())?;
        self.at += 1;
        Ok(byte)
    }

    fn ends(&self) -> Fault {
        Fault::corrupt("metadata ends in the middle of a field")
    }

    fn varint(&mut self) -> Result<u64, Fault> {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        let (value, len) = wire::varint(rest).map_err(|error| match error {
            VarintError::Ends => self.ends(),
            VarintError::TooLong => Fault::corrupt("a number in the metadata has more than 64 bits"),
        })?;
        self.at += len;
        Ok(value)
    }

    fn zigzag(&mut self) -> Result<i64, Fault> {
        let raw = self.varint()?;
        Ok((raw >> 1).cast_signed() ^ -((raw & 1).cast_signed()))
    }

    /// The next field of a struct: its id and type; none at the struct's end. `last` is the id before, 0 at the start.
    pub(crate) fn field(&mut self, last: &mut i16) -> Result<Option<(i16, Kind)>, Fault> {
        let head = self.byte()?;
        if head == 0 {
            return Ok(None);
        }
        let kind = Kind(head & 0x0f);
        *last = match head >> 4 {
            0 => i16::try_from(self.zigzag()?).map_err(|_| Fault::corrupt("a field number in the metadata is out of range"))?,
            delta => last.saturating_add(i16::from(delta)),
        };
        Ok(Some((*last, kind)))
    }

    /// Any integer.
    pub(crate) fn int(&mut self, kind: Kind) -> Result<i64, Fault> {
        match kind.0 {
            3 => Ok(i64::from(self.byte()?.cast_signed())),
            _ if kind.is_integer() => self.zigzag(),
            _ => Err(Fault::corrupt("a field of the metadata is no number")),
        }
    }

    /// An integer that cannot be negative.
    pub(crate) fn unsigned(&mut self, kind: Kind) -> Result<u64, Fault> {
        u64::try_from(self.int(kind)?).map_err(|_| Fault::corrupt("a size or count in the metadata is negative"))
    }

    /// A count or size that fits memory.
    pub(crate) fn size(&mut self, kind: Kind) -> Result<usize, Fault> {
        usize::try_from(self.unsigned(kind)?).map_err(|_| Fault::corrupt("a size in the metadata is out of range"))
    }

    /// Bytes.
    pub(crate) fn binary(&mut self, kind: Kind) -> Result<&'a [u8], Fault> {
        if kind != Kind::BINARY {
            return Err(Fault::corrupt("a field of the metadata is no text"));
        }
        let len = usize::try_from(self.varint()?).map_err(|_| self.ends())?;
        let end = self.at.checked_add(len).ok_or_else(|| self.ends())?;
        let bytes = self.bytes.get(self.at..end).ok_or_else(|| self.ends())?;
        self.at = end;
        Ok(bytes)
    }

    /// The number of elements of a list of structs; every one of them takes a byte or more, so the count is bounded.
    pub(crate) fn structs(&mut self, kind: Kind) -> Result<usize, Fault> {
        if kind != Kind::LIST {
            return Err(Fault::corrupt("a field of the metadata is no list"));
        }
        let (element, len) = self.list()?;
        if len > 0 && element != Kind::STRUCT {
            return Err(Fault::corrupt("a list of the metadata does not hold structs"));
        }
        Ok(len)
    }

    fn list(&mut self) -> Result<(Kind, usize), Fault> {
        let head = self.byte()?;
        let len = match head >> 4 {
            15 => self.varint()?,
            short => u64::from(short),
        };
        let len = usize::try_from(len).ok().filter(|len| *len <= self.bytes.len() - self.at);
        Ok((Kind(head & 0x0f), len.ok_or_else(|| Fault::corrupt("a list in the metadata is longer than the metadata"))?))
    }

    /// Passes over a value.
    pub(crate) fn skip(&mut self, kind: Kind) -> Result<(), Fault> {
        self.skip_at(kind, 0)
    }

    fn skip_at(&mut self, kind: Kind, depth: u32) -> Result<(), Fault> {
        if depth > MAX_DEPTH {
            return Err(Fault::corrupt("the metadata is nested more than 16 deep"));
        }
        match kind {
            Kind::TRUE | Kind::FALSE => {}
            Kind::BYTE => {
                self.byte()?;
            }
            Kind::I16 | Kind::I32 | Kind::I64 => {
                self.varint()?;
            }
            Kind::DOUBLE => {
                for _ in 0..8 {
                    self.byte()?;
                }
            }
            Kind::BINARY => {
                self.binary(kind)?;
            }
            Kind::LIST | Kind::SET => {
                let (element, len) = self.list()?;
                for _ in 0..len {
                    self.skip_element(element, depth)?;
                }
            }
            Kind::MAP => {
                let len = self.varint()?;
                if len > 0 {
                    let kinds = self.byte()?;
                    // Keys and values take a byte or more each.
                    if len > (self.bytes.len() - self.at) as u64 / 2 {
                        return Err(Fault::corrupt("a map in the metadata is longer than the metadata"));
                    }
                    for _ in 0..len {
                        self.skip_element(Kind(kinds >> 4), depth)?;
                        self.skip_element(Kind(kinds & 0x0f), depth)?;
                    }
                }
            }
            Kind::STRUCT => {
                let mut last = 0;
                while let Some((_, kind)) = self.field(&mut last)? {
                    self.skip_at(kind, depth + 1)?;
                }
            }
            Kind(other) => return Err(Fault::corrupt(format!("the metadata has a value of unknown type {other}"))),
        }
        Ok(())
    }

    /// Passes over a value in a list or map, where booleans, which otherwise stand in their field's type, take a byte.
    fn skip_element(&mut self, kind: Kind, depth: u32) -> Result<(), Fault> {
        match kind {
            Kind::TRUE | Kind::FALSE | Kind::BYTE => self.byte().map(|_| ()),
            _ => self.skip_at(kind, depth + 1),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn collections_are_no_longer_than_their_bytes() {
        let skip = |kind, bytes: &[u8]| {
            let mut reader = Reader::new(bytes);
            reader.skip(Kind(kind)).map(|()| reader.position())
        };
        // Two entries from booleans to i32.
        assert_eq!(skip(11, &[2, 0x15, 1, 7, 2, 9, 0]), Ok(6));
        assert_eq!(skip(11, &[0, 9]), Ok(1));
        assert_eq!(skip(9, &[0x31, 1, 2, 1, 9]), Ok(4));
        // 2^56 entries of booleans.
        assert!(skip(11, &[0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 1, 0x11, 0, 0]).is_err());
        assert!(skip(9, &[0xf1, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 1, 0, 0]).is_err());
        assert!(skip(9, &[0x19; 100]).is_err(), "too deep");
    }
}
