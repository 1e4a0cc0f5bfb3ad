//! Long lists in several messages, so that no hop holds all of an answer a second time.

use prost::Message;

/// Bytes of a message between processes, about: far below what any of them takes.
pub const PIECE_BYTES: usize = 1 << 20;

/// Cuts a list into lists of about so many bytes once they are encoded, each at least one item long. Items leave memory as they
/// are taken.
#[derive(Debug)]
pub struct Pieces<T> {
    items: std::iter::Peekable<std::vec::IntoIter<T>>,
    bytes_max: usize,
}

impl<T: Message> Pieces<T> {
    /// Of a list; none where it is empty.
    #[must_use]
    pub fn of(items: Vec<T>, bytes_max: usize) -> Self {
        Self { items: items.into_iter().peekable(), bytes_max }
    }

    /// The same, at least one, with a word whether it is the last.
    pub fn with_last(mut self) -> impl Iterator<Item = (Vec<T>, bool)> {
        let mut is_over = false;
        std::iter::from_fn(move || {
            if is_over {
                return None;
            }
            let piece = self.next().unwrap_or_default();
            is_over = self.items.peek().is_none();
            Some((piece, is_over))
        })
    }
}

impl<T: Message> Iterator for Pieces<T> {
    type Item = Vec<T>;

    fn next(&mut self) -> Option<Vec<T>> {
        let first = self.items.next()?;
        let mut bytes = first.encoded_len();
        let mut piece = vec![first];
        while let Some(item) = self.items.next_if(|item| {
            bytes += item.encoded_len();
            bytes <= self.bytes_max
        }) {
            piece.push(item);
        }
        Some(piece)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_have_the_size_and_all_items_in_order() {
        let text = |bytes: usize| "x".repeat(bytes);
        let lens = |items: &[usize]| -> Vec<Vec<usize>> {
            let pieces = Pieces::of(items.iter().map(|bytes| text(*bytes)).collect(), 100);
            pieces.map(|piece: Vec<String>| piece.iter().map(String::len).collect()).collect()
        };
        assert_eq!(lens(&[]), [[0; 0]; 0]);
        let last: Vec<bool> = Pieces::of(vec![text(90), text(90)], 100).with_last().map(|(_, is_last)| is_last).collect();
        assert_eq!(last, [false, true]);
        assert_eq!(Pieces::of(Vec::<String>::new(), 100).with_last().collect::<Vec<_>>(), [(Vec::new(), true)]);
        assert_eq!(lens(&[500, 40, 40, 40, 500]), [vec![500], vec![40, 40], vec![40], vec![500]]);
    }
}
