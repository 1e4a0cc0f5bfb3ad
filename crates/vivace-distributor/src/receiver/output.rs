//! Protobuf as it is written, in memory that is paid for before it is taken.

use vivace_core::budget::OverBudget;
use vivace_core::wire::{bytes_field_len, put_bytes, put_key, put_varint};
use vivace_server::RequestCharge;

/// How much more memory is asked for at once, bytes.
const STEP_BYTES: u64 = 64 << 10;
/// Protobuf's wire types.
const VARINT: u64 = 0;
pub(crate) const FIXED64: u64 = 1;
pub(crate) const FIXED32: u64 = 5;
/// As long as a key and a number, or a key and a fixed value, can be.
const FIELD_BYTES_MAX: usize = 20;
/// As long as a protobuf length can be for what a request may be.
const LENGTH_BYTES_MAX: usize = 5;

/// A value of an attribute, in OTLP's types.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Value<'a> {
    /// Should be UTF-8; those who read it later mend what is not.
    Text(&'a [u8]),
    Bool(bool),
    Int(i64),
    Double(f64),
}

/// Why no more can be written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NoRoom {
    #[error(transparent)]
    Memory(#[from] OverBudget),
    /// It would be longer than what it is made of explains.
    #[error("what was sent would become more than {limit_bytes} bytes of OTLP, many times of what it is")]
    Grows { limit_bytes: usize },
}

impl NoRoom {
    /// No memory for a part of a request that holds so many bytes beside it: whether it ever fits depends on all of it.
    pub(crate) fn of_request(over: OverBudget, beside: u64) -> Self {
        let (asked, used) = (over.asked.saturating_add(beside), over.used.saturating_sub(beside));
        Self::Memory(OverBudget { asked, used, ..over })
    }
}

/// What is written so far.
pub(crate) struct Output {
    bytes: Vec<u8>,
    /// No more than so many bytes are written.
    bytes_max: usize,
    charge: RequestCharge,
    /// What the same request holds beside it, bytes.
    beside: u64,
    /// Why there was no more room.
    refused: Option<NoRoom>,
}

impl Output {
    /// Nothing yet. What is written is added to the charge.
    pub(crate) fn new(charge: RequestCharge) -> Self {
        Self { bytes: Vec::new(), bytes_max: usize::MAX, charge, beside: 0, refused: None }
    }

    /// Of a request that holds so many bytes beside it.
    pub(crate) fn beside(mut self, bytes: u64) -> Self {
        self.beside = bytes;
        self
    }

    /// From now on it grows by so many bytes at most.
    pub(crate) fn grow_by_at_most(&mut self, bytes: usize) {
        self.bytes_max = self.bytes.len().saturating_add(bytes);
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Why it could not grow, if it could not.
    pub(crate) fn refused(&self) -> Option<NoRoom> {
        self.refused.clone()
    }

    /// What was written, and what is charged for it.
    pub(crate) fn finish(self) -> (Vec<u8>, RequestCharge) {
        (self.bytes, self.charge)
    }

    /// Forgets all but the first bytes. The memory stays, and stays charged.
    pub(crate) fn truncate(&mut self, len: usize) {
        self.bytes.truncate(len);
    }

    pub(crate) fn number(&mut self, field: u32, value: u64) -> Result<(), NoRoom> {
        self.reserve(FIELD_BYTES_MAX)?;
        self.key(field, VARINT);
        put_varint(&mut self.bytes, value);
        Ok(())
    }

    pub(crate) fn fixed(&mut self, field: u32, wire_type: u64, value: &[u8]) -> Result<(), NoRoom> {
        self.reserve(FIELD_BYTES_MAX)?;
        self.key(field, wire_type);
        self.bytes.extend_from_slice(value);
        Ok(())
    }

    /// Text, bytes, or a message that is complete.
    pub(crate) fn text(&mut self, field: u32, value: &[u8]) -> Result<(), NoRoom> {
        self.reserve(value.len() + FIELD_BYTES_MAX)?;
        put_bytes(&mut self.bytes, field, value);
        Ok(())
    }

    /// Bytes that are no field.
    pub(crate) fn raw(&mut self, bytes: &[u8]) -> Result<(), NoRoom> {
        self.reserve(bytes.len())?;
        self.bytes.extend_from_slice(bytes);
        Ok(())
    }

    /// An attribute: a `KeyValue`. The field's number is below 16.
    #[inline]
    pub(crate) fn attribute(&mut self, field: u32, key: &[u8], value: Value<'_>) -> Result<(), NoRoom> {
        let value_len = match value {
            Value::Text(text) => bytes_field_len(text.len()),
            Value::Bool(_) => 2,
            Value::Int(number) => 1 + varint_len(number.cast_unsigned()),
            Value::Double(_) => 9,
        };
        let len = bytes_field_len(key.len()) + bytes_field_len(value_len);
        self.reserve(bytes_field_len(len))?;
        let out = &mut self.bytes;
        put_key(out, field, len);
        put_bytes(out, 1, key);
        put_key(out, 2, value_len);
        match value {
            Value::Text(text) => put_bytes(out, 1, text),
            Value::Bool(value) => out.extend([2 << 3, u8::from(value)]),
            Value::Int(number) => {
                out.push(3 << 3);
                put_varint(out, number.cast_unsigned());
            }
            Value::Double(number) => {
                out.push(4 << 3 | FIXED64 as u8);
                out.extend_from_slice(&number.to_le_bytes());
            }
        }
        Ok(())
    }

    /// Begins a message, whose length is known, and put before it, when it [ends](Output::end).
    pub(crate) fn begin(&mut self, field: u32) -> Result<usize, NoRoom> {
        self.reserve(FIELD_BYTES_MAX)?;
        self.key(field, 2);
        Ok(self.bytes.len())
    }

    /// Ends the message that began there.
    pub(crate) fn end(&mut self, start: usize) -> Result<(), NoRoom> {
        self.reserve(LENGTH_BYTES_MAX)?;
        let len = self.bytes.len() - start;
        put_varint(&mut self.bytes, len as u64);
        let digits = self.bytes.len() - start - len;
        self.bytes[start..].rotate_right(digits);
        Ok(())
    }

    /// Room for so many bytes more, paid for before it is taken.
    #[inline]
    fn reserve(&mut self, more: usize) -> Result<(), NoRoom> {
        if self.bytes.len() + more > self.bytes_max {
            return self.refuse(NoRoom::Grows { limit_bytes: self.bytes_max });
        }
        if self.bytes.capacity() - self.bytes.len() >= more {
            return Ok(());
        }
        self.grow(more)
    }

    #[cold]
    fn grow(&mut self, more: usize) -> Result<(), NoRoom> {
        let (len, before) = (self.bytes.len(), self.bytes.capacity());
        let wanted = (before as u64 * 2).max(STEP_BYTES).min(self.bytes_max as u64).max((len + more) as u64);
        // While it grows, there are both.
        if let Err(over) = self.charge.grow(wanted) {
            return self.refuse(NoRoom::of_request(over, self.beside));
        }
        self.bytes.reserve_exact(usize::try_from(wanted).unwrap_or(usize::MAX) - len);
        self.charge.give_back(before as u64);
        Ok(())
    }

    #[cold]
    fn refuse(&mut self, why: NoRoom) -> Result<(), NoRoom> {
        self.refused = Some(why.clone());
        Err(why)
    }

    fn key(&mut self, field: u32, wire_type: u64) {
        put_varint(&mut self.bytes, u64::from(field) << 3 | wire_type);
    }
}

/// Bytes of a base-128 number.
fn varint_len(value: u64) -> usize {
    let bits = u64::BITS - (value | 1).leading_zeros();
    bits.div_ceil(7) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_of_numbers_are_foretold() {
        for value in [0, 1, 127, 128, 16_383, 16_384, u64::MAX >> 1, u64::MAX] {
            let mut bytes = Vec::new();
            put_varint(&mut bytes, value);
            assert_eq!(bytes.len(), varint_len(value), "{value}");
        }
    }
}
