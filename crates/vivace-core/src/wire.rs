//! A reader for protobuf messages that borrows and copies nothing, and the base-128 numbers that other formats have too.

/// Why bytes are no protobuf message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// The message ends inside a field.
    #[error("message ends inside a field that starts at byte {offset}")]
    Truncated {
        /// Where the field starts, from the start of the message that was given to the reader.
        offset: usize,
    },
    /// A number of more than 64 bits.
    #[error("number at byte {offset} is too long")]
    Varint {
        /// Where the number starts.
        offset: usize,
    },
    /// A wire type that does not exist, or field number zero.
    #[error("invalid field key {key:#x} at byte {offset}")]
    Key {
        /// The key as read.
        key: u64,
        /// Where it starts.
        offset: usize,
    },
    /// The field exists, with another wire type than the message's definition says.
    #[error("field {field} at byte {offset} has the wrong type")]
    Type {
        /// Its number.
        field: u32,
        /// Where it starts.
        offset: usize,
    },
    /// The message ends inside a group.
    #[error("group {field} that starts at byte {offset} has no end")]
    GroupWithoutEnd {
        /// Its number.
        field: u32,
        /// Where it starts.
        offset: usize,
    },
    /// A group ends that was not begun, or before one within it does.
    #[error("end of group {field} at byte {offset}, where no such group is open")]
    GroupEnd {
        /// Its number.
        field: u32,
        /// Where its end is.
        offset: usize,
    },
    /// Groups lie too deep within groups.
    #[error("group at byte {offset} lies more than {GROUP_DEPTH_MAX} groups deep")]
    GroupDepth {
        /// Where the first that is too deep starts.
        offset: usize,
    },
}

impl WireError {
    /// The same error in a message that has these bytes before the one that was read.
    #[must_use]
    pub fn after(mut self, bytes: usize) -> Self {
        match &mut self {
            Self::Truncated { offset }
            | Self::Varint { offset }
            | Self::Key { offset, .. }
            | Self::Type { offset, .. }
            | Self::GroupWithoutEnd { offset, .. }
            | Self::GroupEnd { offset, .. }
            | Self::GroupDepth { offset } => *offset += bytes,
        }
        self
    }
}

/// Where a part of a message starts in it; 0 for what is no part of it.
#[must_use]
pub fn offset_in(message: &[u8], part: &[u8]) -> usize {
    let offset = part.as_ptr().addr().wrapping_sub(message.as_ptr().addr());
    if offset <= message.len() { offset } else { 0 }
}

/// How many groups may lie within each other.
pub const GROUP_DEPTH_MAX: usize = 32;
/// Bytes of the longest base-128 number of 64 bits.
const VARINT_BYTES_MAX: usize = 10;

/// One field's value.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Value<'a> {
    /// Wire type 0.
    Varint(u64),
    /// Wire type 1.
    Fixed64(u64),
    /// Wire type 2: text, bytes, or a message.
    Bytes(&'a [u8]),
    /// Wire types 3 and 4: what messages were in the first version of the format. No message that is read here has one, but a field
    /// that is not known may be one; what is in it was skipped.
    Group,
    /// Wire type 5.
    Fixed32(u32),
}

/// Walks over a message's fields.
#[derive(Debug, Clone)]
pub struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
    field_start: usize,
}

impl<'a> Reader<'a> {
    /// Reads `bytes` from the start.
    #[must_use]
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0, field_start: 0 }
    }

    /// Where the field that was read last starts.
    #[must_use]
    pub fn field_start(&self) -> usize {
        self.field_start
    }

    /// The field that was read last, its key included.
    #[must_use]
    pub fn field_bytes(&self) -> &'a [u8] {
        &self.bytes[self.field_start..self.at]
    }

    /// The next field, or none at the end. Inlined, since a call costs as much as most fields do.
    ///
    /// # Errors
    /// [`WireError`] with the offset of the offending field.
    #[inline(always)]
    pub fn next_field(&mut self) -> Result<Option<(u32, Value<'a>)>, WireError> {
        if self.at >= self.bytes.len() {
            return Ok(None);
        }
        self.field_start = self.at;
        let key = self.varint()?;
        let bad_key = WireError::Key { key, offset: self.field_start };
        let field = u32::try_from(key >> 3).map_err(|_| bad_key)?;
        if field == 0 {
            return Err(bad_key);
        }
        let value = match key & 7 {
            0 => Value::Varint(self.varint()?),
            1 => Value::Fixed64(u64::from_le_bytes(self.array()?)),
            2 => {
                let len = usize::try_from(self.varint()?).map_err(|_| WireError::Truncated { offset: self.field_start })?;
                Value::Bytes(self.take(len)?)
            }
            5 => Value::Fixed32(u32::from_le_bytes(self.array()?)),
            _ => return self.group(key, field),
        };
        Ok(Some((field, value)))
    }

    /// Goes to the end of a group whose key was read, if it is that of a group.
    #[cold]
    #[inline(never)]
    fn group(&mut self, key: u64, field: u32) -> Result<Option<(u32, Value<'a>)>, WireError> {
        let outermost = self.field_start;
        match key & 7 {
            3 => {}
            4 => return Err(WireError::GroupEnd { field, offset: outermost }),
            _ => return Err(WireError::Key { key, offset: outermost }),
        }
        let mut open = vec![(field, outermost)];
        while let Some(&(group, offset)) = open.last() {
            if self.at >= self.bytes.len() {
                return Err(WireError::GroupWithoutEnd { field: group, offset });
            }
            self.field_start = self.at;
            let key = self.varint()?;
            let bad_key = WireError::Key { key, offset: self.field_start };
            let field = u32::try_from(key >> 3).ok().filter(|field| *field != 0).ok_or(bad_key)?;
            match key & 7 {
                3 if open.len() == GROUP_DEPTH_MAX => return Err(WireError::GroupDepth { offset: self.field_start }),
                3 => open.push((field, self.field_start)),
                4 if field == group => drop(open.pop()),
                _ => {
                    self.at = self.field_start;
                    self.next_field()?;
                }
            }
        }
        self.field_start = outermost;
        Ok(Some((field, Value::Group)))
    }

    /// The error for a field of this message that has an unexpected wire type.
    #[must_use]
    pub fn wrong_type(&self, field: u32) -> WireError {
        WireError::Type { field, offset: self.field_start }
    }

    /// Most numbers have one or two bytes.
    #[inline]
    fn varint(&mut self) -> Result<u64, WireError> {
        match self.bytes.get(self.at..) {
            Some([byte @ ..0x80, ..]) => {
                self.at += 1;
                Ok(u64::from(*byte))
            }
            Some([low, high @ ..0x80, ..]) => {
                self.at += 2;
                Ok(u64::from(low & 0x7f) | u64::from(*high) << 7)
            }
            _ => self.long_varint(),
        }
    }

    #[cold]
    fn long_varint(&mut self) -> Result<u64, WireError> {
        match varint(self.bytes.get(self.at..).unwrap_or_default()) {
            Ok((value, len)) => {
                self.at += len;
                Ok(value)
            }
            Err(VarintError::Ends) => Err(WireError::Truncated { offset: self.field_start }),
            Err(VarintError::TooLong) => Err(WireError::Varint { offset: self.at }),
        }
    }

    #[inline]
    fn take(&mut self, len: usize) -> Result<&'a [u8], WireError> {
        let end = self.at.checked_add(len).filter(|end| *end <= self.bytes.len());
        let end = end.ok_or(WireError::Truncated { offset: self.field_start })?;
        let slice = &self.bytes[self.at..end];
        self.at = end;
        Ok(slice)
    }

    #[inline]
    fn array<const N: usize>(&mut self) -> Result<[u8; N], WireError> {
        Ok(self.take(N)?.try_into().expect("take gives exactly the asked length"))
    }
}

/// The fields of a message, however they are read.
pub trait Fields<'a> {
    /// The next field, or none at the end.
    ///
    /// # Errors
    /// The bytes are no message, or not of the kind that this reads.
    fn next_field(&mut self) -> Result<Option<(u32, Value<'a>)>, WireError>;

    /// The error for a field that has an unexpected wire type.
    fn wrong_type(&self, field: u32) -> WireError;
}

impl<'a> Fields<'a> for Reader<'a> {
    #[inline]
    fn next_field(&mut self) -> Result<Option<(u32, Value<'a>)>, WireError> {
        self.next_field()
    }

    fn wrong_type(&self, field: u32) -> WireError {
        self.wrong_type(field)
    }
}

/// Fields as they nearly always are: with keys of one or two bytes, numbers of one, shorter than 16 KiB. Everything else is an
/// error, which does not say where: a [`Reader`] then has to look.
#[derive(Debug, Clone)]
pub struct UsualFields<'a> {
    rest: &'a [u8],
}

impl<'a> UsualFields<'a> {
    /// Reads `bytes` from the start.
    #[must_use]
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    #[inline(always)]
    fn next(&mut self) -> Option<(u32, Value<'a>)> {
        let (key, rest) = usual_len(self.rest)?;
        let value = match (key & 7, rest) {
            (0, [number @ ..0x80, rest @ ..]) => {
                self.rest = rest;
                Value::Varint(u64::from(*number))
            }
            (1, _) => {
                let (number, rest) = rest.split_first_chunk()?;
                self.rest = rest;
                Value::Fixed64(u64::from_le_bytes(*number))
            }
            (2, _) => {
                let (len, rest) = usual_len(rest)?;
                let (bytes, rest) = rest.split_at_checked(len)?;
                self.rest = rest;
                Value::Bytes(bytes)
            }
            (5, _) => {
                let (number, rest) = rest.split_first_chunk()?;
                self.rest = rest;
                Value::Fixed32(u32::from_le_bytes(*number))
            }
            _ => return None,
        };
        (key >> 3 != 0).then_some(((key >> 3) as u32, value))
    }
}

impl<'a> Fields<'a> for UsualFields<'a> {
    #[inline(always)]
    fn next_field(&mut self) -> Result<Option<(u32, Value<'a>)>, WireError> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        self.next().map(Some).ok_or(WireError::Truncated { offset: 0 })
    }

    fn wrong_type(&self, field: u32) -> WireError {
        WireError::Type { field, offset: 0 }
    }
}

/// A number of one or two bytes, and what follows it.
#[inline]
#[must_use]
pub fn usual_len(bytes: &[u8]) -> Option<(usize, &[u8])> {
    match bytes {
        [len @ ..0x80, rest @ ..] => Some((usize::from(*len), rest)),
        [low, high @ ..0x80, rest @ ..] => Some((usize::from(low & 0x7f) | usize::from(*high) << 7, rest)),
        _ => None,
    }
}

/// Appends a length-delimited field.
pub fn put_bytes(out: &mut Vec<u8>, field: u32, bytes: &[u8]) {
    put_key(out, field, bytes.len());
    out.extend_from_slice(bytes);
}

/// Appends the key and length of a length-delimited field whose `len` bytes the caller appends next.
pub fn put_key(out: &mut Vec<u8>, field: u32, len: usize) {
    put_varint(out, u64::from(field) << 3 | 2);
    put_varint(out, len as u64);
}

/// Bytes that [`put_bytes`] appends for a field below 16 with `len` bytes of content.
#[must_use]
pub fn bytes_field_len(len: usize) -> usize {
    let digits = (64 - (len as u64 | 1).leading_zeros() as usize).div_ceil(7);
    1 + digits + len
}

/// Why bytes do not start with a base-128 number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VarintError {
    /// They end before it does.
    Ends,
    /// It has more than 64 bits.
    TooLong,
}

/// The base-128 number that bytes start with, least significant digits first, and how many of them it has.
///
/// # Errors
/// [`VarintError`]; a number of more than 64 bits is none, as other readers of the format have it.
#[inline]
pub fn varint(bytes: &[u8]) -> Result<(u64, usize), VarintError> {
    let mut value = 0u64;
    for (at, byte) in bytes.iter().enumerate().take(VARINT_BYTES_MAX) {
        if at == VARINT_BYTES_MAX - 1 && *byte > 1 {
            return Err(VarintError::TooLong);
        }
        value |= u64::from(byte & 0x7f) << (7 * at);
        if *byte < 0x80 {
            return Ok((value, at + 1));
        }
    }
    Err(VarintError::Ends)
}

/// Appends a base-128 number.
pub fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_of_every_wire_type_are_read() {
        let mut bytes = vec![0x08, 0xac, 0x02, 0x11, 1, 0, 0, 0, 0, 0, 0, 0];
        put_bytes(&mut bytes, 3, b"abc");
        bytes.extend([0x25, 7, 0, 0, 0]);
        let mut reader = Reader::new(&bytes);
        let mut fields = Vec::new();
        while let Some(field) = reader.next_field().expect("valid") {
            fields.push(field);
        }
        assert_eq!(fields, [(1, Value::Varint(300)), (2, Value::Fixed64(1)), (3, Value::Bytes(b"abc")), (4, Value::Fixed32(7))]);
    }

    #[test]
    fn broken_messages_name_the_place() {
        let error = |bytes: &[u8]| Reader::new(bytes).next_field().expect_err("broken");
        assert_eq!(error(&[0x0a, 5, 1]), WireError::Truncated { offset: 0 });
        assert_eq!(error(&[0x0e]), WireError::Key { key: 0x0e, offset: 0 });
        assert_eq!(error(&[0x08, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1]), WireError::Varint { offset: 1 });
        assert_eq!(error(&[0x0a, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f]), WireError::Truncated { offset: 0 });
    }

    #[test]
    fn groups_are_skipped_and_their_ends_must_match() {
        let [start, end] = [3, 4].map(|wire_type| move |field: u8| field << 3 | wire_type);
        type TwoFields<'a> = (Option<(u32, Value<'a>)>, usize, Option<(u32, Value<'a>)>);
        fn read(bytes: &[u8]) -> Result<TwoFields<'_>, WireError> {
            let mut reader = Reader::new(bytes);
            let first = reader.next_field()?;
            Ok((first, reader.field_bytes().len(), reader.next_field()?))
        }
        let group = [start(9), 0x08, 1, start(7), 0x12, 1, 0xff, end(7), end(9)];
        let followed = [&group[..], &[0x08, 5]].concat();
        assert_eq!(read(&followed), Ok((Some((9, Value::Group)), group.len(), Some((1, Value::Varint(5))))));
        for len in 1..group.len() {
            assert!(read(&group[..len]).is_err(), "{len}");
        }
        assert_eq!(read(&group[..8]), Err(WireError::GroupWithoutEnd { field: 9, offset: 0 }));
        assert_eq!(read(&[start(9), start(7), end(9)]), Err(WireError::GroupEnd { field: 9, offset: 2 }));
        assert_eq!(read(&[0x08, 1, end(9)]), Err(WireError::GroupEnd { field: 9, offset: 2 }));
        let nested = |depth: usize| [vec![start(9); depth], vec![end(9); depth]].concat();
        assert_eq!(read(&nested(GROUP_DEPTH_MAX)), Ok((Some((9, Value::Group)), 2 * GROUP_DEPTH_MAX, None)));
        assert_eq!(read(&nested(GROUP_DEPTH_MAX + 1)), Err(WireError::GroupDepth { offset: GROUP_DEPTH_MAX }));
    }

    #[test]
    fn numbers_are_read_as_they_were_written() {
        for value in [0, 1, 127, 128, 16_383, 16_384, u64::MAX >> 1, u64::MAX] {
            let mut bytes = Vec::new();
            put_varint(&mut bytes, value);
            let len = bytes.len();
            assert_eq!(varint(&bytes[..len - 1]), Err(VarintError::Ends), "{value}");
            bytes.push(0x55);
            assert_eq!(varint(&bytes), Ok((value, len)));
        }
        let above = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2];
        assert_eq!(varint(&above), Err(VarintError::TooLong));
        assert_eq!(varint(&[0x80; 11]), Err(VarintError::TooLong));
    }

    #[test]
    fn field_lengths_are_foretold() {
        for len in [0usize, 1, 127, 128, 16_383, 16_384, 3_000_000] {
            let mut out = Vec::new();
            put_bytes(&mut out, 2, &vec![0; len]);
            assert_eq!(out.len(), bytes_field_len(len), "{len}");
        }
    }
}
