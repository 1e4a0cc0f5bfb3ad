/// The bytes of an input, taken from the front. At the end all numbers are 0 and all parts empty.
#[derive(Debug, Clone)]
pub(crate) struct Input<'a> {
    bytes: &'a [u8],
}

impl<'a> Input<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    pub(crate) fn take(&mut self, len: usize) -> &'a [u8] {
        let (head, rest) = self.bytes.split_at(len.min(self.bytes.len()));
        self.bytes = rest;
        head
    }

    pub(crate) fn rest(&mut self) -> &'a [u8] {
        self.take(usize::MAX)
    }

    pub(crate) fn u8(&mut self) -> u8 {
        self.take(1).first().copied().unwrap_or_default()
    }

    pub(crate) fn u16(&mut self) -> u16 {
        u16::from(self.u8()) | u16::from(self.u8()) << 8
    }

    /// One of `count` choices; 0 where there are none.
    pub(crate) fn index(&mut self, count: usize) -> usize {
        let number = usize::from(if count > 256 { self.u16() } else { u16::from(self.u8()) });
        if count == 0 { 0 } else { number % count }
    }

    /// A part with its length in front.
    pub(crate) fn part(&mut self) -> &'a [u8] {
        let len = self.u16();
        self.take(usize::from(len))
    }

    /// Small numbers, powers of two and their neighbours, and any others: what counts and sizes go wrong with.
    pub(crate) fn number(&mut self) -> i64 {
        let kind = self.u8();
        let small = i64::from(kind & 0x3f);
        match kind >> 6 {
            0 => small,
            1 => (1i64 << small.min(62)) + i64::from(self.u8().cast_signed()),
            2 => -small,
            _ => {
                let mut bytes = [0; 8];
                let part = self.take(8);
                bytes[..part.len()].copy_from_slice(part);
                i64::from_le_bytes(bytes)
            }
        }
    }
}
