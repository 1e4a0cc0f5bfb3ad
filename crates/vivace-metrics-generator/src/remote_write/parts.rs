//! Parts of a request that a receiver refuses: one series that it does not take must not cost the others that are sent with it.
//!
//! Receivers take a request or refuse it as a whole, as Prometheus does for one sample that is out of order. What is in it twice is no
//! harm: a receiver that has a sample already takes it again.

use prost::Message as _;
use vivace_proto::prometheus::{TimeSeries, WriteRequest};

use super::encode;

/// Parts of one request that are tried, at most: enough to find five single series among two thousand.
const TRIES_MAX: usize = 120;

/// Halves, halves of halves, and so on, until each part is taken or is a single series.
#[derive(Debug)]
pub(crate) struct Parts {
    /// Those to try, the next one last.
    waiting: Vec<Vec<TimeSeries>>,
    tries: usize,
    /// Series that were taken.
    pub(crate) taken: u64,
    /// Single series that were refused.
    pub(crate) refused: Vec<TimeSeries>,
}

impl Parts {
    /// The halves of a request that was refused. None if it has no two series, or is not one of ours.
    pub(crate) fn of(body: &[u8]) -> Option<Self> {
        let message = snap::raw::Decoder::new().decompress_vec(body).ok()?;
        let series = WriteRequest::decode(message.as_slice()).ok()?.timeseries;
        (series.len() > 1).then(|| {
            let mut parts = Self { waiting: Vec::new(), tries: TRIES_MAX, taken: 0, refused: Vec::new() };
            parts.halve(series);
            parts
        })
    }

    /// The next part to try, and its body. None when there is none left, or enough were tried.
    pub(crate) fn next(&mut self) -> Option<(Vec<TimeSeries>, Vec<u8>)> {
        self.tries = self.tries.checked_sub(1)?;
        let part = self.waiting.pop()?;
        let body = encode(part.clone(), Vec::new());
        Some((part, body))
    }

    /// What became of a part.
    pub(crate) fn done(&mut self, part: Vec<TimeSeries>, is_taken: bool) {
        if is_taken {
            self.taken += part.len() as u64;
        } else if part.len() > 1 {
            self.halve(part);
        } else {
            self.refused.extend(part);
        }
    }

    /// Whether nothing is left to try.
    pub(crate) fn is_whole(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Series that were not taken.
    pub(crate) fn lost(&self) -> u64 {
        (self.waiting.iter().map(Vec::len).sum::<usize>() + self.refused.len()) as u64
    }

    fn halve(&mut self, mut series: Vec<TimeSeries>) {
        let second = series.split_off(series.len() / 2);
        self.waiting.extend([second, series]);
    }
}

/// A series as PromQL writes it, for logs: the beginning.
pub(crate) fn shown(series: &TimeSeries) -> String {
    let labels: Vec<String> = series.labels.iter().map(|label| format!("{}={:?}", label.name, label.value)).collect();
    format!("{{{}}}", labels.join(", ")).chars().take(300).collect()
}

#[cfg(test)]
mod tests {
    use vivace_proto::prometheus::Label;

    use super::*;

    fn series(number: usize) -> TimeSeries {
        TimeSeries { labels: vec![Label { name: "n".to_owned(), value: number.to_string() }], ..TimeSeries::default() }
    }

    /// A receiver that does not take some: which ones, of how many; how many requests it got.
    fn sent(count: usize, bad: &[usize]) -> (Parts, usize) {
        let body = encode((0..count).map(series).collect(), Vec::new());
        let mut parts = Parts::of(&body).expect("more than one");
        let mut tries = 0;
        while let Some((part, body)) = parts.next() {
            let message = snap::raw::Decoder::new().decompress_vec(&body).expect("snappy");
            assert_eq!(WriteRequest::decode(message.as_slice()).expect("a request").timeseries, part);
            let is_taken = !part.iter().any(|one| bad.iter().any(|bad| *one == series(*bad)));
            parts.done(part, is_taken);
            tries += 1;
        }
        (parts, tries)
    }

    #[test]
    fn all_but_the_bad_ones_are_taken() {
        for bad in [&[0][..], &[1999], &[700, 701, 702, 703], &[3, 1500]] {
            let (parts, tries) = sent(2000, bad);
            assert_eq!(
                (parts.refused.as_slice(), parts.taken),
                (&*bad.iter().map(|n| series(*n)).collect::<Vec<_>>(), 2000 - bad.len() as u64)
            );
            assert!(parts.is_whole() && tries <= 50, "{tries}");
        }
        assert_eq!(sent(2, &[]).0.taken, 2);
        assert_eq!(shown(&series(7)), "{n=\"7\"}");
    }

    #[test]
    fn a_receiver_that_takes_nothing_is_not_asked_for_ever() {
        let (parts, tries) = sent(2000, &(0..2000).collect::<Vec<_>>());
        assert_eq!((tries, parts.taken, parts.lost(), parts.is_whole()), (TRIES_MAX, 0, 2000, false));
        assert!(Parts::of(&encode(vec![series(1)], Vec::new())).is_none());
        assert!(Parts::of(b"what is this").is_none());
    }
}
