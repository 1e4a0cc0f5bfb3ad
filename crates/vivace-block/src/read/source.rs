//! Where the bytes of a block come from.

use std::fs::File;
use std::io;
use std::ops::Range;

use bytes::Bytes;

/// Bytes that can be read from any place: a file, an object in a bucket, memory.
///
/// Calls block; they belong on threads that may.
pub trait ReadAt: Send + Sync {
    /// Exactly the bytes of `range`.
    ///
    /// # Errors
    /// The range is not all there, or the store failed.
    fn read(&self, range: Range<u64>) -> io::Result<Bytes>;

    /// The length of the whole.
    fn len(&self) -> u64;

    /// Whether there are no bytes at all.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Two ranges closer than this are better read as one.
    fn gap_bytes(&self) -> u64 {
        64 << 10
    }

    /// Several ranges, ascending and apart from each other. A store with latency reads them at the same time.
    ///
    /// # Errors
    /// As for [`ReadAt::read`].
    fn read_many(&self, ranges: &[Range<u64>]) -> io::Result<Vec<Bytes>> {
        ranges.iter().map(|range| self.read(range.clone())).collect()
    }
}

fn out_of_bounds(range: &Range<u64>, len: u64) -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, format!("bytes {}..{} of {len}", range.start, range.end))
}

impl ReadAt for Bytes {
    fn read(&self, range: Range<u64>) -> io::Result<Bytes> {
        let bounds = usize::try_from(range.start).ok().zip(usize::try_from(range.end).ok());
        match bounds {
            Some((start, end)) if start <= end && end <= Bytes::len(self) => Ok(self.slice(start..end)),
            _ => Err(out_of_bounds(&range, Bytes::len(self) as u64)),
        }
    }

    fn len(&self) -> u64 {
        Bytes::len(self) as u64
    }

    fn gap_bytes(&self) -> u64 {
        0
    }
}

impl ReadAt for File {
    fn read(&self, range: Range<u64>) -> io::Result<Bytes> {
        use std::os::unix::fs::FileExt;
        let len = ReadAt::len(self);
        if range.start > range.end || range.end > len {
            return Err(out_of_bounds(&range, len));
        }
        let size = usize::try_from(range.end - range.start).map_err(|_| out_of_bounds(&range, len))?;
        let mut bytes = vec![0; size];
        self.read_exact_at(&mut bytes, range.start)?;
        Ok(bytes.into())
    }

    /// Asked from the system at every call; 0 when it cannot say.
    fn len(&self) -> u64 {
        self.metadata().map_or(0, |m| m.len())
    }

    fn gap_bytes(&self) -> u64 {
        2 << 10
    }
}
