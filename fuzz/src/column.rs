//! One column of a block, all of whose pages an input makes up: levels, values, dictionary, in any encoding and codec.

use vivace_block::BlockReader;

use crate::ask::{Question, checked};
use crate::file::{BLOCKS, DATA_V1, DATA_V2, DICTIONARY, Page, ZSTD, open};
use crate::input::Input;
use crate::thrift::Node;

const PAGES_MAX: usize = 8;

/// Reads what to ask and which column of which block to make up, then its pages.
pub fn run(input: &[u8]) {
    if let Some((question, block)) = made(input) {
        question.ask(&block);
    }
}

fn made(input: &[u8]) -> Option<(Question, BlockReader)> {
    let mut input = Input::new(input);
    let question = Question::read(&mut input);
    let base = &BLOCKS[input.index(BLOCKS.len())];
    let mut file = base.clone();
    let leaf = input.index(file.chunks[0].len());
    let codec = [0, 1, ZSTD, 2][input.index(4)];
    let (flags, entries) = (input.u8(), input.number());
    let mut pages = Vec::new();
    while pages.len() < PAGES_MAX && !input.is_empty() {
        pages.push(page(&mut input, codec));
    }
    let claimed: i64 = pages.iter().filter_map(|page| page.header.get(5).or(page.header.get(8))?.int(1)).fold(0, i64::saturating_add);
    let chunk = file.chunk_mut(0, leaf)?;
    chunk.pages = pages;
    if flags & 1 == 1 {
        chunk.index = None;
    }
    if let Some(meta) = file.column_mut(0, leaf).and_then(|column| column.get_mut(3)) {
        meta.set(4, Some(Node::i32(codec)));
        // Honest, lying, or as many as there were.
        match flags >> 1 & 3 {
            0 | 1 => meta.set(5, Some(Node::i64(claimed))),
            2 => meta.set(5, Some(Node::i64(entries))),
            _ => {}
        }
        // Statistics may say that there is nothing to read.
        meta.set(12, None);
    }
    Some((question, checked(open(&base.meta, file.bytes(|_| {})))?))
}

fn page(input: &mut Input<'_>, codec: i64) -> Page {
    let flags = input.u8();
    let encoding = Node::i32([0, 2, 8, 3, 5, 6, 7, 4][input.index(8)]);
    let entries = Node::i32(input.number());
    match flags & 3 {
        0 => Page::new(DICTIONARY, Node::Struct(vec![(1, entries), (2, encoding)]), codec, input.part()),
        1 => {
            // Levels with right lengths in front.
            let mut body = Vec::new();
            for _ in 0..flags >> 2 & 3 {
                let levels = input.part();
                body.extend((levels.len() as u32).to_le_bytes());
                body.extend(levels);
            }
            body.extend(input.part());
            let details = Node::Struct(vec![(1, entries), (2, encoding), (3, Node::i32(3)), (4, Node::i32(3))]);
            Page::new(DATA_V1, details, codec, &body)
        }
        _ => {
            let (rep, def, values) = (input.part(), input.part(), input.part());
            let is_plain = flags & 4 == 4;
            let mut details = Node::Struct(vec![(1, entries), (4, encoding)]);
            details.set(5, Some(Node::i32(def.len() as i64)));
            details.set(6, Some(Node::i32(rep.len() as i64)));
            if is_plain {
                details.set(7, Some(Node::Bool(false)));
            }
            Page::new(DATA_V2, details, codec, &[rep, def, values].concat())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::file::Chunk;

    fn put_number(out: &mut Vec<u8>, number: i64) {
        out.push(0xc0);
        out.extend(number.to_le_bytes());
    }

    fn put_part(out: &mut Vec<u8>, part: &[u8]) {
        out.extend((part.len() as u16).to_le_bytes());
        out.extend(part);
    }

    /// The input that makes up a column just as it is.
    fn input(base: usize, leaf: usize, chunk: &Chunk) -> Option<Vec<u8>> {
        let mut out = vec![0, 0, 0, 6, base as u8, leaf as u8];
        out.push([0, 1, ZSTD].iter().position(|codec| *codec == chunk.codec)? as u8);
        out.push(0);
        put_number(&mut out, 0);
        for page in &chunk.pages {
            let plain = page.plain(chunk.codec)?;
            let (kind, details) = [5, 7, 8].iter().find_map(|field| Some((*field, page.header.get(*field)?)))?;
            let is_plain = details.get(7) == Some(&Node::Bool(false));
            out.push(match kind {
                7 => 0,
                5 => 1,
                _ => 2 | u8::from(is_plain) << 2,
            });
            let encoding = details.int(if kind == 8 { 4 } else { 2 })?;
            out.push([0, 2, 8, 3, 5, 6, 7].iter().position(|known| *known == encoding)? as u8);
            put_number(&mut out, details.int(1)?);
            if kind == 8 {
                let (rep, def) = page.level_lens();
                put_part(&mut out, &plain[..rep]);
                put_part(&mut out, &plain[rep..rep + def]);
                put_part(&mut out, &plain[rep + def..]);
            } else {
                put_part(&mut out, &plain);
            }
        }
        Some(out)
    }

    #[test]
    fn real_columns_can_be_made_up() {
        let mut made_up = 0;
        for (base, file) in BLOCKS.iter().enumerate().take(2) {
            for (leaf, chunk) in file.chunks[0].iter().enumerate() {
                let Some(input) = input(base, leaf, chunk).filter(|input| input.len() < 4096) else { continue };
                let block = made(&input).expect("opens");
                assert!(block.1.traces().all(|trace| trace.is_ok()), "block {base}, column {leaf}");
                made_up += 1;
            }
        }
        assert!(made_up > 150, "{made_up}");
    }

    /// A column of the small block, without the `list.element` of its path, and how many values it has.
    fn column(path: &str) -> (usize, u32) {
        let name = |node: &Node| if let Node::Binary(name) = node { String::from_utf8_lossy(name).into_owned() } else { String::new() };
        let columns = BLOCKS[0].footer.list(4)[0].list(1);
        let meta = |column: &Node| column.get(3).cloned().expect("metadata");
        let is_it = |column| meta(column).list(3).iter().map(name).collect::<Vec<_>>().join(".").replace(".list.element", "") == path;
        let leaf = columns.iter().position(is_it).expect("a column");
        let meta = meta(&columns[leaf]);
        let nulls = meta.get(12).and_then(|statistics| statistics.int(3)).expect("statistics");
        (leaf, (meta.int(5).expect("a count") - nulls) as u32)
    }

    fn run_of(count: u32, value: u8) -> Vec<u8> {
        let mut out = Vec::new();
        let mut left = count << 1;
        while left >= 0x80 {
            out.push(left as u8 | 0x80);
            left >>= 7;
        }
        out.extend([left as u8, value]);
        out
    }

    /// The error of reading a block in which a column has these pages.
    fn error(leaf: usize, flags: u8, entries: i64, pages: &[Vec<u8>]) -> String {
        let mut input = vec![0, 0, 0, 6, 0, leaf as u8, 0, flags];
        put_number(&mut input, entries);
        pages.iter().for_each(|page| input.extend(page));
        let (_, block) = made(&input).expect("opens");
        block.traces().find_map(Result::err).expect("is wrong").to_string()
    }

    fn data_page(encoding: u8, rep: &[(u32, u8)], def: u8, values: &[u8]) -> Vec<u8> {
        let entries = rep.iter().map(|(count, _)| count).sum();
        let mut out = vec![9, encoding];
        put_number(&mut out, i64::from(entries));
        put_part(&mut out, &rep.iter().flat_map(|(count, level)| run_of(*count, *level)).collect::<Vec<_>>());
        put_part(&mut out, &run_of(entries, def));
        put_part(&mut out, values);
        out
    }

    #[test]
    fn a_page_has_no_more_entries_than_its_column() {
        let (leaf, _) = column("rs.ss.Spans.Name");
        let error = error(leaf, 4, 100, &[data_page(0, &[(1 << 26, 0)], 3, &[0])]);
        assert!(error.contains("Spans.Name: a page claims 67108864 entries, 100 are left"), "{error}");
    }

    #[test]
    fn one_long_text_does_not_become_gigabytes() {
        let (leaf, _) = column("rs.ss.Spans.Attrs.Value");
        let (_, keys) = column("rs.ss.Spans.Attrs.Key");
        let mut dictionary = vec![0, 0, 1];
        put_part(&mut dictionary, &[&60_000u32.to_le_bytes()[..], &[b'x'; 60_000]].concat());
        // Every attribute has a text, the last one an array of them.
        let rep = [(3, 0), (keys - 3, 4), ((1 << 16) - keys, 5)];
        let coded = data_page(2, &rep, 5, &[&[1][..], &run_of(1 << 16, 0)].concat());
        let alone = error(leaf, 0, 0, &[dictionary.clone(), coded.clone()]);
        assert!(alone.contains("Attrs.Value: texts of 393") && alone.contains("bytes in one row group"), "{alone}");
        // A plain page behind it, so that the codes before are written out.
        let mixed = error(leaf, 0, 0, &[dictionary, coded, data_page(0, &[(4, 5)], 5, &[0; 16])]);
        assert!(mixed.contains("Attrs.Value: repeated strings of more than"), "{mixed}");
    }
}
