//! An answer's bytes: written in pieces that are charged until they are sent, compressed where that is worth it, and not written on
//! once nobody waits for them.

use std::io::{self, Write};

use axum::body::Body;
use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use tokio_util::sync::CancellationToken;
use vivace_core::budget::{Account, Budget, Charge, OverBudget};

use crate::coding::Coding;

/// Bytes of a piece. What has been sent is given back in steps of this.
const PIECE_BYTES: usize = 256 << 10;
/// Bodies below this are sent as they are.
const MIN_COMPRESSED_BYTES: usize = 1024;

/// Takes an answer as it is written.
pub(crate) struct Writer {
    coding: Coding,
    /// As long as it is not known whether compressing is worth it.
    head: Vec<u8>,
    sink: Sink,
}

enum Sink {
    Undecided(Pieces),
    Plain(Pieces),
    Gzip(Box<GzEncoder<Pieces>>),
    /// While it changes.
    None,
}

/// What has been written.
pub(crate) struct Written {
    pieces: Vec<(Bytes, Charge)>,
    pub(crate) is_gzip: bool,
}

struct Pieces {
    budget: Budget,
    stop: CancellationToken,
    done: Vec<(Bytes, Charge)>,
    current: Vec<u8>,
}

/// Why an answer was not written to its end.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WriteError {
    #[error(transparent)]
    OverBudget(OverBudget),
    #[error("the answer is larger than the {limit} bytes that answers may take: ask for fewer results, series or attributes")]
    TooLarge { limit: u64 },
    #[error("nobody waits for it any more")]
    Stopped,
    #[error("{0}")]
    Other(String),
}

impl From<io::Error> for WriteError {
    fn from(error: io::Error) -> Self {
        match error.downcast::<Self>() {
            Ok(own) => own,
            Err(other) => Self::Other(other.to_string()),
        }
    }
}

impl Writer {
    pub(crate) fn new(budget: &Budget, stop: CancellationToken, coding: Coding) -> Self {
        let pieces = Pieces { budget: budget.clone(), stop, done: Vec::new(), current: Vec::new() };
        Self { coding, head: Vec::new(), sink: Sink::Undecided(pieces) }
    }

    /// All that was written.
    ///
    /// # Errors
    /// The last of it does not fit, or nobody waits for it.
    pub(crate) fn finish(mut self) -> Result<Written, WriteError> {
        if matches!(self.sink, Sink::Undecided(_)) {
            self.decide(self.coding == Coding::GzipOnly)?;
        }
        let (mut pieces, is_gzip) = match self.sink {
            Sink::Plain(pieces) | Sink::Undecided(pieces) => (pieces, false),
            Sink::Gzip(encoder) => (encoder.finish()?, true),
            Sink::None => return Err(WriteError::Other("an answer was written on after it failed".to_owned())),
        };
        pieces.cut()?;
        Ok(Written { pieces: pieces.done, is_gzip })
    }

    fn decide(&mut self, gzip: bool) -> io::Result<()> {
        if let Sink::Undecided(pieces) = std::mem::replace(&mut self.sink, Sink::None) {
            self.sink = match gzip {
                true => Sink::Gzip(Box::new(GzEncoder::new(pieces, Compression::fast()))),
                false => Sink::Plain(pieces),
            };
        }
        let head = std::mem::take(&mut self.head);
        self.write_all(&head)
    }
}

impl Write for Writer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if matches!(self.sink, Sink::Undecided(_)) {
            if self.head.len() + bytes.len() < MIN_COMPRESSED_BYTES {
                self.head.extend_from_slice(bytes);
                return Ok(bytes.len());
            }
            self.decide(self.coding != Coding::Plain)?;
        }
        match &mut self.sink {
            Sink::Plain(pieces) | Sink::Undecided(pieces) => pieces.write(bytes),
            Sink::Gzip(encoder) => encoder.write(bytes),
            Sink::None => Err(io::Error::other("an answer was written on after it failed")),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Pieces {
    fn cut(&mut self) -> Result<(), WriteError> {
        if self.stop.is_cancelled() {
            return Err(WriteError::Stopped);
        }
        if !self.current.is_empty() {
            let bytes = Bytes::from(std::mem::take(&mut self.current));
            let charge = self.budget.charge(Account::Answers, bytes.len() as u64).map_err(|over| {
                let own: u64 = self.done.iter().map(|(_, charge)| charge.bytes()).sum();
                if own + over.asked > over.limit { WriteError::TooLarge { limit: over.limit } } else { WriteError::OverBudget(over) }
            })?;
            self.done.push((bytes, charge));
        }
        Ok(())
    }
}

impl Write for Pieces {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.current.is_empty() {
            self.current.reserve_exact(PIECE_BYTES.min(bytes.len().max(4 << 10)));
        }
        let some = bytes.len().min(PIECE_BYTES - self.current.len());
        self.current.extend_from_slice(&bytes[..some]);
        if self.current.len() == PIECE_BYTES {
            self.cut().map_err(io::Error::other)?;
        }
        Ok(some)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Written {
    /// A message as it is, in one piece.
    ///
    /// # Errors
    /// It does not fit.
    pub(crate) fn message(budget: &Budget, message: &impl prost::Message) -> Result<Self, WriteError> {
        let charge = budget.charge(Account::Answers, message.encoded_len() as u64).map_err(WriteError::OverBudget)?;
        Ok(Self { pieces: vec![(message.encode_to_vec().into(), charge)], is_gzip: false })
    }

    /// Writes it on, giving back what has been written.
    ///
    /// # Errors
    /// As writing there.
    pub(crate) fn write_to(self, to: &mut impl Write) -> io::Result<()> {
        self.pieces.into_iter().try_for_each(|(bytes, _charge)| to.write_all(&bytes))
    }

    pub(crate) fn len(&self) -> usize {
        self.pieces.iter().map(|(bytes, _)| bytes.len()).sum()
    }

    /// The pieces as they are asked for; each is given back when it goes out.
    pub(crate) fn into_body(self) -> Body {
        Body::from_stream(futures::stream::iter(self.pieces.into_iter().map(|(bytes, _)| Ok::<_, std::convert::Infallible>(bytes))))
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use http_body_util::BodyExt as _;

    use super::*;

    async fn bytes(written: Written) -> Vec<u8> {
        written.into_body().collect().await.unwrap().to_bytes().to_vec()
    }

    #[tokio::test]
    async fn long_answers_are_compressed_and_given_back_as_they_are_sent() {
        let budget = Budget::new(100 << 20);
        let text: Vec<u8> = (0..3_000_000_u32).flat_map(u32::to_le_bytes).collect();
        for gzip in [false, true] {
            let coding = if gzip { Coding::Gzip } else { Coding::Plain };
            let mut writer = Writer::new(&budget, CancellationToken::new(), coding);
            text.chunks(1000).for_each(|some| writer.write_all(some).unwrap());
            let written = writer.finish().unwrap();
            assert_eq!(written.is_gzip, gzip);
            assert_eq!(budget.used_by(Account::Answers), written.len() as u64);
            let mut body = written.into_body();
            body.frame().await.unwrap().unwrap();
            assert!(budget.used() > 0);
            let mut rest = Vec::new();
            while let Some(frame) = body.frame().await {
                rest.push(frame.unwrap().into_data().unwrap());
            }
            assert!(rest.len() > 3);
            assert_eq!(budget.used(), 0);
        }
        let mut writer = Writer::new(&budget, CancellationToken::new(), Coding::Gzip);
        writer.write_all(&text).unwrap();
        let mut plain = Vec::new();
        flate2::read::GzDecoder::new(&*bytes(writer.finish().unwrap()).await).read_to_end(&mut plain).unwrap();
        assert!(plain == text);
    }

    #[tokio::test]
    async fn short_answers_are_sent_as_they_are() {
        for text in ["", "short"] {
            let mut writer = Writer::new(&Budget::unlimited(), CancellationToken::new(), Coding::Gzip);
            writer.write_all(text.as_bytes()).unwrap();
            let written = writer.finish().unwrap();
            assert!(!written.is_gzip);
            assert_eq!(bytes(written).await, text.as_bytes());
        }
    }

    #[test]
    fn what_does_not_fit_or_is_not_wanted_is_not_written() {
        let stop = CancellationToken::new();
        let budget = Budget::new(5 << 20); // one for answers
        let mut writer = Writer::new(&budget, stop.clone(), Coding::Plain);
        let error = (0..10).find_map(|_| writer.write_all(&[0; 256 << 10]).err()).expect("too much");
        assert!(matches!(WriteError::from(error), WriteError::TooLarge { limit } if limit == 1 << 20), "it is too large by itself");
        drop(writer);
        let _others = budget.charge(Account::Answers, 900_000).expect("fits");
        let mut writer = Writer::new(&budget, stop.clone(), Coding::Plain);
        let error = (0..10).find_map(|_| writer.write_all(&[0; 256 << 10]).err()).expect("too much");
        assert!(matches!(WriteError::from(error), WriteError::OverBudget(_)), "others hold the rest");
        let mut writer = Writer::new(&Budget::unlimited(), stop.clone(), Coding::Gzip);
        stop.cancel();
        let error = (0..10_000_u32).find_map(|n| writer.write_all(&n.wrapping_mul(2_654_435_761).to_le_bytes().repeat(1000)).err());
        assert!(matches!(error.map(WriteError::from), Some(WriteError::Stopped) | None));
        assert!(writer.finish().is_err());
    }
}
