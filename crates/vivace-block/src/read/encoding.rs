//! The encodings of Parquet: bytes in, vectors out. Every function checks what it is told against what is there.
//!
//! The `parquet` crate has these too, but keeps most to itself and reserves what a page claims to hold; a few bytes of a foreign
//! page can claim millions of values. Here memory grows with what has been decoded, and codes are given out as codes.

use vivace_core::wire::{self, VarintError};

use super::fault::Fault;

fn short() -> Fault {
    Fault::corrupt("a page ends before its last value")
}

/// A type that runs and bit-packed values decode to.
pub(crate) trait Unpacked: Copy + Default {
    fn from_bits(bits: u64) -> Self;
}

macro_rules! unpacked {
    ($($t:ty)*) => {$(impl Unpacked for $t {
        #[inline]
        fn from_bits(bits: u64) -> Self {
            bits as $t
        }
    })*};
}
unpacked!(u8 u32 u64);

impl Unpacked for bool {
    #[inline]
    fn from_bits(bits: u64) -> Self {
        bits != 0
    }
}

/// Values of `width` bits each, lowest bit first. `packed` holds at least `count` of them.
fn unpack<T: Unpacked>(packed: &[u8], width: usize, count: usize, out: &mut Vec<T>) {
    let want = out.len() + count;
    match width {
        0 => out.resize(want, T::default()),
        1 => groups::<T, 1>(packed, out),
        2 => groups::<T, 2>(packed, out),
        3 => groups::<T, 3>(packed, out),
        4 => groups::<T, 4>(packed, out),
        5 => groups::<T, 5>(packed, out),
        6 => groups::<T, 6>(packed, out),
        7 => groups::<T, 7>(packed, out),
        8 => out.extend(packed.iter().map(|b| T::from_bits(u64::from(*b)))),
        _ => wide(packed, width, count, out),
    }
    out.truncate(want);
}

/// Eight values of `W` bits are `W` bytes.
fn groups<T: Unpacked, const W: usize>(packed: &[u8], out: &mut Vec<T>) {
    let mask = (1u64 << W) - 1;
    let mut group = |bytes: [u8; W]| {
        let mut word = [0u8; 8];
        word[..W].copy_from_slice(&bytes);
        let bits = u64::from_le_bytes(word);
        let values: [T; 8] = std::array::from_fn(|i| T::from_bits((bits >> (i * W)) & mask));
        out.extend_from_slice(&values);
    };
    let (whole, rest) = packed.as_chunks::<W>();
    for bytes in whole {
        group(*bytes);
    }
    if !rest.is_empty() {
        let mut bytes = [0; W];
        bytes[..rest.len()].copy_from_slice(rest);
        group(bytes);
    }
}

fn wide<T: Unpacked>(packed: &[u8], width: usize, count: usize, out: &mut Vec<T>) {
    let mask = if width >= 64 { u64::MAX } else { (1u64 << width) - 1 };
    out.reserve(count);
    for i in 0..count {
        let (byte, shift) = (i * width / 8, i * width % 8);
        let bits = match packed.get(byte..byte + 8) {
            Some(word) if width + shift <= 64 => u64::from_le_bytes(word.try_into().unwrap_or_default()) >> shift,
            _ => {
                let tail = packed.get(byte..packed.len().min(byte + 16)).unwrap_or_default();
                let mut word = [0u8; 16];
                word[..tail.len()].copy_from_slice(tail);
                (u128::from_le_bytes(word) >> shift) as u64
            }
        };
        out.push(T::from_bits(bits & mask));
    }
}

fn varint(bytes: &mut &[u8]) -> Result<u64, Fault> {
    let (value, len) = wire::varint(bytes).map_err(|error| match error {
        VarintError::Ends => short(),
        VarintError::TooLong => Fault::corrupt("a number in a page has more than 64 bits"),
    })?;
    *bytes = &bytes[len..];
    Ok(value)
}

fn zigzag(bytes: &mut &[u8]) -> Result<i64, Fault> {
    let raw = varint(bytes)?;
    Ok((raw >> 1).cast_signed() ^ -((raw & 1).cast_signed()))
}

fn take<'a>(bytes: &mut &'a [u8], len: usize) -> Result<&'a [u8], Fault> {
    let (head, rest) = bytes.split_at_checked(len).ok_or_else(short)?;
    *bytes = rest;
    Ok(head)
}

/// Appends exactly `count` values of the run-length and bit-packed mix that levels and dictionary codes are in.
pub(crate) fn hybrid<T: Unpacked>(mut bytes: &[u8], width: usize, count: usize, out: &mut Vec<T>) -> Result<(), Fault> {
    if width > 32 {
        return Err(Fault::corrupt(format!("values of {width} bits where at most 32 are possible")));
    }
    let mut left = count;
    // Runs make much of little: what is not there yet is not reserved for.
    out.reserve(count.min(1 << 16));
    while left > 0 {
        let head = varint(&mut bytes)?;
        if head & 1 == 0 {
            let run = usize::try_from(head >> 1).unwrap_or(usize::MAX).min(left);
            let mut word = [0u8; 8];
            let value = take(&mut bytes, width.div_ceil(8))?;
            word[..value.len()].copy_from_slice(value);
            if run == 0 {
                return Err(Fault::corrupt("a run of length zero"));
            }
            out.resize(out.len() + run, T::from_bits(u64::from_le_bytes(word)));
            left -= run;
        } else {
            let groups = usize::try_from(head >> 1).unwrap_or(usize::MAX);
            let values = groups.saturating_mul(8).min(left);
            if values == 0 {
                return Err(Fault::corrupt("a run of length zero"));
            }
            // The last group may be cut short after the last value.
            let len = groups.saturating_mul(width).min(bytes.len());
            if len < (values * width).div_ceil(8) {
                return Err(short());
            }
            let packed = take(&mut bytes, len)?;
            unpack(&packed[..len.min(values.div_ceil(8) * width)], width, values, out);
            left -= values;
        }
    }
    Ok(())
}

/// Appends `count` plain booleans.
pub(crate) fn plain_bool(bytes: &[u8], count: usize, out: &mut Vec<bool>) -> Result<(), Fault> {
    let packed = bytes.get(..count.div_ceil(8)).ok_or_else(short)?;
    unpack(packed, 1, count, out);
    Ok(())
}

/// Appends `count` plain fixed-width values.
pub(crate) fn plain<T, const W: usize>(bytes: &[u8], count: usize, from: fn([u8; W]) -> T, out: &mut Vec<T>) -> Result<(), Fault> {
    let len = count.checked_mul(W).ok_or_else(short)?;
    let (values, _) = bytes.get(..len).ok_or_else(short)?.as_chunks::<W>();
    out.extend(values.iter().map(|value| from(*value)));
    Ok(())
}

/// Appends exactly `count` numbers and returns how many bytes they took. Sums wrap; 32-bit values are their low half.
pub(crate) fn delta(bytes: &[u8], count: usize, out: &mut Vec<i64>) -> Result<usize, Fault> {
    if count == 0 && bytes.is_empty() {
        return Ok(0);
    }
    let mut rest = bytes;
    let block = usize::try_from(varint(&mut rest)?).unwrap_or(usize::MAX);
    let minis = usize::try_from(varint(&mut rest)?).unwrap_or(usize::MAX);
    let total = varint(&mut rest)?;
    if count == 0 && total == 0 {
        let _first = zigzag(&mut rest);
        return Ok(bytes.len() - rest.len());
    }
    if block > 1 << 16 || minis == 0 || block % minis != 0 || (block / minis) % 8 != 0 || block == 0 {
        return Err(Fault::corrupt(format!("delta blocks of {block} values in {minis} parts")));
    }
    if total != count as u64 {
        return Err(Fault::corrupt(format!("{total} delta values where there should be {count}")));
    }
    let mut value = zigzag(&mut rest)?;
    out.reserve(count.min(1 << 16));
    out.push(value);
    let per_mini = block / minis;
    let mut left = count - 1;
    let mut deltas: Vec<u64> = Vec::with_capacity(per_mini);
    while left > 0 {
        let min = zigzag(&mut rest)?;
        let widths = take(&mut rest, minis)?;
        for width in widths {
            if left == 0 {
                break;
            }
            let width = usize::from(*width);
            if width > 64 {
                return Err(Fault::corrupt(format!("delta values of {width} bits")));
            }
            let now = left.min(per_mini);
            // Some writers cut the padding of the very last part.
            let len = (per_mini * width / 8).min(rest.len());
            if len < (now * width).div_ceil(8) {
                return Err(short());
            }
            let packed = take(&mut rest, len)?;
            if width == 0 {
                out.extend((0..now).map(|_| {
                    value = value.wrapping_add(min);
                    value
                }));
            } else {
                deltas.clear();
                unpack(packed, width, now, &mut deltas);
                out.extend(deltas.iter().map(|delta| {
                    value = value.wrapping_add(min).wrapping_add(delta.cast_signed());
                    value
                }));
            }
            left -= now;
        }
    }
    Ok(bytes.len() - rest.len())
}

/// What strings that stand once in a page and often in a column may take, bytes: a few bytes of a page can repeat a long one
/// millions of times. Row groups are of 100 MB before they are encoded.
const REPEATED_BYTES_MAX: usize = 1 << 27;

/// Byte strings one after the other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Strings {
    /// String `i` is `data[offsets[i]..offsets[i + 1]]`.
    offsets: Vec<u32>,
    data: Vec<u8>,
}

impl Default for Strings {
    fn default() -> Self {
        Self { offsets: vec![0], data: Vec::new() }
    }
}

impl Strings {
    pub(crate) fn len(&self) -> usize {
        self.offsets.len() - 1
    }

    pub(crate) fn get(&self, index: usize) -> &[u8] {
        match (self.offsets.get(index), self.offsets.get(index + 1)) {
            (Some(start), Some(end)) => &self.data[*start as usize..*end as usize],
            _ => &[],
        }
    }

    /// The bytes of neighbours and the offset of each among all bytes, with the end of the last. None if they are not there.
    pub(crate) fn part(&self, range: std::ops::Range<usize>) -> Option<(&[u8], &[u32])> {
        let offsets = self.offsets.get(range.start..=range.end)?;
        let (first, end) = (offsets.first()?, offsets.last()?);
        Some((&self.data[*first as usize..*end as usize], offsets))
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &[u8]> {
        (0..self.len()).map(|i| self.get(i))
    }

    pub(crate) fn push(&mut self, value: &[u8]) -> Result<(), Fault> {
        self.data.extend_from_slice(value);
        self.close()
    }

    /// As [`Strings::push`], for a string that may stand once in the page and be pushed often.
    pub(crate) fn push_repeated(&mut self, value: &[u8]) -> Result<(), Fault> {
        self.room_for(value.len())?;
        self.push(value)
    }

    fn room_for(&self, bytes: usize) -> Result<(), Fault> {
        if bytes > 0 && self.data.len() + bytes > REPEATED_BYTES_MAX {
            return Err(Fault::corrupt(format!("repeated strings of more than {REPEATED_BYTES_MAX} bytes in one column of a row group")));
        }
        Ok(())
    }

    fn close(&mut self) -> Result<(), Fault> {
        let end = u32::try_from(self.data.len()).map_err(|_| Fault::corrupt("strings of more than 4 GiB in one column of a row group"))?;
        self.offsets.push(end);
        Ok(())
    }

    /// Appends a range of another's strings.
    pub(crate) fn extend(&mut self, other: &Self, range: std::ops::Range<usize>) -> Result<(), Fault> {
        let (Some(first), Some(end)) = (other.offsets.get(range.start), other.offsets.get(range.end)) else { return Err(short()) };
        let base = self.data.len();
        self.data.extend_from_slice(&other.data[*first as usize..*end as usize]);
        if u32::try_from(self.data.len()).is_err() {
            return Err(Fault::corrupt("strings of more than 4 GiB in one column of a row group"));
        }
        self.offsets.extend(other.offsets[range.start + 1..=range.end].iter().map(|offset| (base + (*offset - *first) as usize) as u32));
        Ok(())
    }

    /// Appends `count` plain strings.
    pub(crate) fn plain(&mut self, mut bytes: &[u8], count: usize) -> Result<(), Fault> {
        self.data.reserve(bytes.len().saturating_sub(count.saturating_mul(4)));
        self.offsets.reserve(count.min(bytes.len() / 4));
        for _ in 0..count {
            let len = take(&mut bytes, 4)?;
            let len = u32::from_le_bytes(len.try_into().unwrap_or_default());
            self.push(take(&mut bytes, len as usize)?)?;
        }
        Ok(())
    }

    /// Appends `count` strings whose lengths stand before them.
    pub(crate) fn delta_length(&mut self, bytes: &[u8], count: usize) -> Result<(), Fault> {
        let mut lengths = Vec::new();
        let used = delta(bytes, count, &mut lengths)?;
        let rest = &bytes[used..];
        let mut end = 0usize;
        let base = self.data.len();
        for len in lengths {
            let len = usize::try_from(len).map_err(|_| Fault::corrupt("a string of negative length"))?;
            end = end.checked_add(len).filter(|end| *end <= rest.len()).ok_or_else(short)?;
            let offset =
                u32::try_from(base + end).map_err(|_| Fault::corrupt("strings of more than 4 GiB in one column of a row group"))?;
            self.offsets.push(offset);
        }
        self.data.extend_from_slice(&rest[..end]);
        Ok(())
    }

    /// Appends `count` strings that share the starts of their predecessors.
    pub(crate) fn delta_shared(&mut self, bytes: &[u8], count: usize) -> Result<(), Fault> {
        let mut prefixes = Vec::new();
        let used = delta(bytes, count, &mut prefixes)?;
        let mut suffixes = Self::default();
        suffixes.delta_length(&bytes[used..], count)?;
        let mut last = self.data.len()..self.data.len();
        for (prefix, suffix) in prefixes.into_iter().zip(suffixes.iter()) {
            let prefix = usize::try_from(prefix).ok().filter(|len| *len <= last.len());
            let prefix = prefix.ok_or_else(|| Fault::corrupt("a string shares more with the one before than that has"))?;
            self.room_for(if prefix > 0 { prefix + suffix.len() } else { 0 })?;
            let start = self.data.len();
            self.data.extend_from_within(last.start..last.start + prefix);
            self.data.extend_from_slice(suffix);
            self.close()?;
            last = start..self.data.len();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_and_packed_values_mix() {
        // A run of 5 fours, then one group of 3-bit values 0..=7.
        let bytes = [10, 4, 3, 0b1000_1000, 0b1100_0110, 0b1111_1010];
        let mut out: Vec<u32> = Vec::new();
        hybrid(&bytes, 3, 13, &mut out).expect("decodes");
        assert_eq!(out, [4, 4, 4, 4, 4, 0, 1, 2, 3, 4, 5, 6, 7]);
        assert!(hybrid(&bytes, 3, 14, &mut Vec::<u32>::new()).is_err());
    }

    #[test]
    fn packed_values_of_any_width() {
        for width in 1..=64usize {
            let values: Vec<u64> = (0..37u64).map(|i| i.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (64 - width)).collect();
            let mut packed = vec![0u8; (37 * width).div_ceil(8)];
            for (i, value) in values.iter().enumerate() {
                for bit in 0..width {
                    let at = i * width + bit;
                    packed[at / 8] |= (((value >> bit) & 1) as u8) << (at % 8);
                }
            }
            let mut out: Vec<u64> = Vec::new();
            unpack(&packed, width, 37, &mut out);
            assert_eq!(out, values, "width {width}");
        }
    }

    #[test]
    fn deltas_wrap() {
        // Block of 128 in 4 parts, 3 values, first i64::MAX, smallest delta 1, all parts 0 bits wide.
        let mut bytes = vec![128, 1, 4, 3];
        bytes.extend([0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01]);
        bytes.extend([2, 0, 0, 0, 0]);
        let mut out = Vec::new();
        assert_eq!(delta(&bytes, 3, &mut out), Ok(bytes.len()));
        assert_eq!(out, [i64::MAX, i64::MIN, i64::MIN + 1]);
    }

    #[test]
    fn repeated_strings_have_a_limit() {
        let mut strings = Strings::default();
        let long = vec![b'x'; 1 << 20];
        let pushed = (0..1000).take_while(|_| strings.push_repeated(&long).is_ok()).count();
        assert_eq!(pushed, REPEATED_BYTES_MAX >> 20);
    }
}
