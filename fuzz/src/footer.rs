//! Any bytes as the footer of a file, or as an offset index or a page header in it.

use crate::ask::{Question, checked};
use crate::file::{BLOCKS, open};
use crate::input::Input;
use crate::thrift::Node;

/// Bytes before the footer that columns may claim.
const DATA_BYTES: usize = 4096;

/// Reads what to ask and what the bytes are to be; the rest are the bytes.
pub fn run(input: &[u8]) {
    let mut input = Input::new(input);
    let kind = input.u8();
    let question = Question::read(&mut input);
    let base = &BLOCKS[input.index(3)];
    let bytes = match kind % 4 {
        0 | 1 => {
            let footer = input.rest();
            let mut file = b"PAR1".to_vec();
            file.resize(DATA_BYTES, 0);
            file.extend(footer);
            file.extend((footer.len() as u32).to_le_bytes());
            file.extend(b"PAR1");
            file
        }
        // In place of some column's pages or page locations, behind a footer that is right about where they are.
        kind => {
            let file = base.clone();
            let leaf = input.index(file.chunks[0].len());
            let raw = input.rest();
            let mut bytes = b"PAR1".to_vec();
            bytes.extend(raw);
            let start = bytes.len();
            let whole = file.bytes(|footer| shift(footer, start as i64 - 4, leaf, kind == 2, raw.len() as i64));
            bytes.extend(&whole[4..]);
            bytes
        }
    };
    if let Some(block) = checked(open(&base.meta, bytes)) {
        question.ask(&block);
    }
}

/// Moves everything by `by` bytes; one column's pages or offset index are at the start of the file instead.
fn shift(footer: &mut Node, by: i64, leaf: usize, is_index: bool, len: i64) {
    let Some(Node::List(_, groups)) = footer.get_mut(4) else { return };
    for (index, column) in groups.iter_mut().flat_map(|group| match group.get_mut(1) {
        Some(Node::List(_, columns)) => columns.iter_mut().enumerate(),
        _ => [].iter_mut().enumerate(),
    }) {
        let is_it = index == leaf;
        let moved = |at: Option<i64>| at.map(|at| Node::i64(at + by));
        // The others' page locations are not moved, so they are left out.
        column.set(4, (is_it && is_index).then(|| Node::i64(4)));
        column.set(5, (is_it && is_index).then(|| Node::i32(len)));
        let Some(meta) = column.get_mut(3) else { continue };
        if is_it && !is_index {
            meta.set(7, Some(Node::i64(len)));
            meta.set(9, Some(Node::i64(4)));
            meta.set(11, None);
            continue;
        }
        meta.set(9, moved(meta.int(9)));
        meta.set(11, moved(meta.int(11)));
    }
}
