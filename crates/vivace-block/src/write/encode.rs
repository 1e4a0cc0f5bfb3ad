//! Parquet's encodings, as far as blocks need them. All append to `out`.
//!
//! Source: Apache Parquet, "Data encoding".

use vivace_core::wire::put_varint;

/// Bits that hold every number up to `max`.
pub(super) fn bit_width(max: u64) -> u32 {
    64 - max.leading_zeros()
}

/// Runs and bit-packed groups of eight: levels and dictionary codes. What ends is whole: one may follow another.
pub(super) fn hybrid<T: Copy + PartialEq + Into<u64>>(values: &[T], width: u32, out: &mut Vec<u8>) {
    let mut at = 0;
    while at < values.len() {
        let run = run_length(&values[at..]);
        // Groups are filled up by whoever reads them, so the last few values are runs.
        if run >= 8 || values.len() - at < 8 {
            put_run(values[at].into(), run, width, out);
            at += run;
            continue;
        }
        let start = at;
        while values.len() - at >= 8 && (at == start || !starts_with_run(&values[at..])) {
            at += 8;
        }
        put_varint(out, ((at - start) / 8) as u64 * 2 + 1);
        pack(&values[start..at], width, out);
    }
}

/// The hybrid encoding of one value, `count` times.
pub(super) fn put_run(value: u64, count: usize, width: u32, out: &mut Vec<u8>) {
    put_varint(out, (count as u64) << 1);
    out.extend_from_slice(&value.to_le_bytes()[..width.div_ceil(8) as usize]);
}

fn run_length<T: Copy + PartialEq>(values: &[T]) -> usize {
    values.iter().position(|v| *v != values[0]).unwrap_or(values.len())
}

fn starts_with_run<T: Copy + PartialEq>(values: &[T]) -> bool {
    values.len() >= 8 && values[1..8].iter().all(|v| *v == values[0])
}

/// Puts numbers side by side in `width` bits each, lowest bits first. They come in groups of eight.
fn pack<T: Copy + Into<u64>>(values: &[T], width: u32, out: &mut Vec<u8>) {
    let value = |v: &T| -> u64 { (*v).into() };
    match width {
        0 => {}
        1..8 => {
            for group in values.as_chunks::<8>().0 {
                let bits = group.iter().rev().fold(0, |bits, v| bits << width | value(v));
                out.extend_from_slice(&bits.to_le_bytes()[..width as usize]);
            }
        }
        8 => out.extend(values.iter().map(|v| value(v) as u8)),
        16 => out.extend(values.iter().flat_map(|v| (value(v) as u16).to_le_bytes())),
        _ => {
            let mut packer = Packer::new(width, out);
            values.iter().for_each(|v| packer.push(value(v)));
            packer.finish();
        }
    }
}

/// Puts numbers of equal width side by side, lowest bits first.
struct Packer<'a> {
    width: u32,
    buffer: u128,
    filled: u32,
    out: &'a mut Vec<u8>,
}

impl<'a> Packer<'a> {
    fn new(width: u32, out: &'a mut Vec<u8>) -> Self {
        Self { width, buffer: 0, filled: 0, out }
    }

    #[inline]
    fn push(&mut self, value: u64) {
        self.buffer |= u128::from(value) << self.filled;
        self.filled += self.width;
        if self.filled >= 64 {
            self.out.extend_from_slice(&(self.buffer as u64).to_le_bytes());
            self.buffer >>= 64;
            self.filled -= 64;
        }
    }

    fn finish(self) {
        self.out.extend_from_slice(&self.buffer.to_le_bytes()[..self.filled.div_ceil(8) as usize]);
    }
}

const BLOCK: usize = 128;
const MINIBLOCK: usize = 32;

/// `DELTA_BINARY_PACKED` for 64-bit numbers.
pub(super) fn delta_i64(values: &[i64], out: &mut Vec<u8>) {
    delta(values.len(), |i| values[i], i64::wrapping_sub, out);
}

/// `DELTA_BINARY_PACKED` for 32-bit numbers; differences wrap at 32 bits, so no width exceeds 32.
pub(super) fn delta_i32(values: &[i32], out: &mut Vec<u8>) {
    let subtract = |a: i64, b: i64| i64::from((a as i32).wrapping_sub(b as i32));
    delta_with(
        values.len(),
        |i| i64::from(values[i]),
        subtract,
        |difference, least| u64::from((difference as i32).wrapping_sub(least as i32) as u32),
        out,
    );
}

fn delta(len: usize, value: impl Fn(usize) -> i64, subtract: impl Fn(i64, i64) -> i64, out: &mut Vec<u8>) {
    delta_with(len, value, subtract, |difference, least| difference.wrapping_sub(least) as u64, out);
}

fn delta_with(
    len: usize,
    value: impl Fn(usize) -> i64,
    subtract: impl Fn(i64, i64) -> i64,
    above: impl Fn(i64, i64) -> u64,
    out: &mut Vec<u8>,
) {
    put_varint(out, BLOCK as u64);
    put_varint(out, (BLOCK / MINIBLOCK) as u64);
    put_varint(out, len as u64);
    put_varint(out, zigzag(if len > 0 { value(0) } else { 0 }));
    let mut differences = [0i64; BLOCK];
    let mut at = 1;
    while at < len {
        let count = (len - at).min(BLOCK);
        for (i, difference) in differences[..count].iter_mut().enumerate() {
            *difference = subtract(value(at + i), value(at + i - 1));
        }
        at += count;
        let block = &differences[..count];
        let least = block.iter().copied().min().unwrap_or(0);
        put_varint(out, zigzag(least));
        let width = |miniblock: &[i64]| bit_width(miniblock.iter().fold(0, |bits, d| bits | above(*d, least)));
        let widths_at = out.len();
        out.extend_from_slice(&[0; BLOCK / MINIBLOCK]);
        for (i, miniblock) in block.chunks(MINIBLOCK).enumerate() {
            let width = width(miniblock);
            out[widths_at + i] = width as u8;
            let mut packer = Packer::new(width, out);
            miniblock.iter().for_each(|d| packer.push(above(*d, least)));
            (miniblock.len()..MINIBLOCK).for_each(|_| packer.push(0));
            packer.finish();
        }
    }
}

fn zigzag(v: i64) -> u64 {
    ((v << 1) ^ (v >> 63)) as u64
}

/// `PLAIN` booleans: bits, lowest first.
pub(super) fn plain_bools(values: &[bool], out: &mut Vec<u8>) {
    out.extend(values.chunks(8).map(|chunk| chunk.iter().enumerate().fold(0u8, |byte, (i, v)| byte | u8::from(*v) << i)));
}

/// `PLAIN` numbers of 64 bits.
pub(super) fn plain_i64(values: &[i64], out: &mut Vec<u8>) {
    out.extend(values.iter().flat_map(|v| v.to_le_bytes()));
}

/// `PLAIN` doubles.
pub(super) fn plain_f64(values: &[f64], out: &mut Vec<u8>) {
    out.extend(values.iter().flat_map(|v| v.to_le_bytes()));
}

/// `PLAIN` byte arrays: each behind its length of four bytes.
pub(super) fn plain_bytes<'a>(values: impl Iterator<Item = &'a [u8]>, out: &mut Vec<u8>) {
    for value in values {
        out.extend_from_slice(&(value.len() as u32).to_le_bytes());
        out.extend_from_slice(value);
    }
}

/// `DELTA_LENGTH_BYTE_ARRAY`: all lengths, then all bytes.
pub(super) fn delta_length_bytes<'a>(values: impl Iterator<Item = &'a [u8]> + Clone, out: &mut Vec<u8>) {
    let lengths: Vec<i32> = values.clone().map(|v| v.len() as i32).collect();
    delta_i32(&lengths, out);
    values.for_each(|v| out.extend_from_slice(v));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_every_width_lie_side_by_side() {
        for width in 0..=32u32 {
            let mask = (1u64 << width) - 1;
            let values: Vec<u64> = (0..24u64).map(|i| i.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 7 & mask).collect();
            let mut packed = Vec::new();
            pack(&values, width, &mut packed);
            assert_eq!(packed.len(), 3 * width as usize, "width {width}");
            for (i, value) in values.iter().enumerate() {
                let bit = |at: usize| u64::from(packed[at / 8] >> (at % 8) & 1);
                let got = (0..width as usize).fold(0, |got, at| got | bit(i * width as usize + at) << at);
                assert_eq!(got, *value, "width {width}");
            }
        }
    }
}
