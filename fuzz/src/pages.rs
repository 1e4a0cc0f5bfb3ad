//! Blocks with some things changed and everything around them made right again: pages, their headers and locations, and
//! the footer. What the decoders and all that stands on them have to notice themselves.

use bytes::Bytes;

use crate::ask::{Question, checked};
use crate::file::{BLOCKS, File, Page, open};
use crate::input::Input;
use crate::thrift::Node;

/// Changes of one input.
const CHANGES_MAX: usize = 12;

/// Reads what to ask, which block to start from and what to change, and does it.
pub fn run(input: &[u8]) {
    let mut input = Input::new(input);
    let question = Question::read(&mut input);
    let base = &BLOCKS[input.index(BLOCKS.len())];
    let mut file = base.clone();
    let mut lies = Vec::new();
    for _ in 0..CHANGES_MAX {
        if input.is_empty() {
            break;
        }
        change(&mut file, &mut input, &mut lies);
    }
    let bytes = file.bytes(|footer| lies.iter().for_each(|lie| lie.tell(footer)));
    if let Some(block) = checked(open(&base.meta, bytes)) {
        question.ask(&block);
    }
}

/// Another value somewhere in the footer.
struct Lie {
    at: usize,
    value: i64,
    is_removed: bool,
}

impl Lie {
    fn read(input: &mut Input<'_>) -> Self {
        Self { at: usize::from(input.u16()), value: input.number(), is_removed: input.u8() < 16 }
    }

    fn tell(&self, tree: &mut Node) {
        let mut at = self.at % tree.count();
        match tree.nth(&mut at) {
            Some(Node::Int(_, value)) => *value = self.value,
            Some(Node::Bool(value)) => *value = self.value & 1 == 1,
            Some(Node::Binary(bytes)) if self.is_removed => bytes.clear(),
            Some(Node::Binary(bytes)) => {
                let at = usize::try_from(self.value).unwrap_or_default() % bytes.len().max(1);
                if let Some(byte) = bytes.get_mut(at) {
                    *byte ^= (self.value >> 8) as u8 | 1;
                }
            }
            Some(Node::List(_, elements)) => {
                let at = usize::try_from(self.value).unwrap_or_default() % elements.len().max(1);
                if self.is_removed {
                    elements.truncate(at);
                } else if let Some(element) = elements.get(at).cloned() {
                    elements.push(element);
                }
            }
            Some(Node::Struct(fields)) if !fields.is_empty() => {
                let at = usize::try_from(self.value).unwrap_or_default() % fields.len();
                let field = fields.remove(at);
                if !self.is_removed {
                    // The same field at another place, where the order of fields does not allow it.
                    fields.push(field);
                }
            }
            _ => {}
        }
    }
}

fn change(file: &mut File, input: &mut Input<'_>, lies: &mut Vec<Lie>) {
    let kind = input.u8();
    if kind >= 0xe0 {
        lies.push(Lie::read(input));
        return;
    }
    let group = usize::from(kind & 1) % file.chunks.len().max(1);
    let leaf = input.index(file.chunks[group].len());
    let Some(chunk) = file.chunk_mut(group, leaf) else { return };
    let (codec, count) = (chunk.codec, chunk.pages.len());
    let page = input.index(count);
    match (kind >> 1) % 8 {
        // The body as it is before compression.
        0..=2 => {
            if let Some(page) = chunk.pages.get_mut(page)
                && let Some(plain) = page.plain(codec)
            {
                page.set_plain(codec, &edited(plain, input));
            }
        }
        // The body as stored.
        3 => {
            if let Some(page) = chunk.pages.get_mut(page) {
                page.body = Bytes::from(edited(page.body.to_vec(), input));
                page.header.set(3, Some(Node::i32(page.body.len() as i64)));
            }
        }
        4 => {
            if let Some(page) = chunk.pages.get_mut(page) {
                Lie::read(input).tell(&mut page.header);
            }
        }
        5 => {
            if let Some(index) = &mut chunk.index {
                Lie::read(input).tell(index);
            }
        }
        6 if kind & 0x10 == 0 => pages(&mut chunk.pages, page, input),
        // All rows, with more or fewer elements in them than the columns beside it have.
        6 => {
            let other = input.index(file.chunks[group].len());
            let from = file.chunks[group][other].clone();
            let meta = file.column_mut(group, other).and_then(|column| column.get(3).cloned());
            if let Some(column) = file.column_mut(group, leaf) {
                column.set(3, meta);
            }
            file.chunks[group][leaf] = from;
        }
        _ => {
            // Only what the file says of the column.
            let lie = Lie::read(input);
            if let Some(column) = file.column_mut(group, leaf) {
                lie.tell(column);
            }
        }
    }
}

/// Pages twice, left out, changed places, or without a right checksum.
fn pages(pages: &mut Vec<Page>, at: usize, input: &mut Input<'_>) {
    let Some(page) = pages.get(at).cloned() else { return };
    match input.u8() % 4 {
        0 => pages.insert(at, page),
        1 => drop(pages.remove(at)),
        2 => {
            let other = input.index(pages.len());
            pages.swap(at, other);
        }
        _ => pages[at].is_sealed = false,
    }
}

/// Some bytes overwritten, left out or put in.
fn edited(mut bytes: Vec<u8>, input: &mut Input<'_>) -> Vec<u8> {
    let at = input.index(bytes.len() + 1);
    let kind = input.u8();
    let len = usize::from(kind >> 2);
    match kind & 3 {
        0 => {
            let new = input.take(len.max(1));
            for (old, new) in bytes[at..].iter_mut().zip(new) {
                *old = *new;
            }
        }
        1 => drop(bytes.drain(at..(at + len + 1).min(bytes.len()))),
        2 => drop(bytes.splice(at..at, input.take(len + 1).iter().copied())),
        _ => bytes.truncate(at),
    }
    bytes
}
