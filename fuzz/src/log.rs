//! Files of the ingester's log: records of any content under right checksums, damage between them, and segments whose
//! payload is not what their header says.

use std::fs;

use crate::input::Input;

const MAGIC: &[u8] = b"VIVALOG\x01";
const SALT: u32 = 0x5eed_1e55;

/// Builds a file from what the input says, replays it twice and reads every segment.
pub fn run(input: &[u8]) {
    let mut input = Input::new(input);
    let head = input.u8();
    let mut file = if head == 0xff { input.take(12).to_vec() } else { [MAGIC, &SALT.to_le_bytes()].concat() };
    while !input.is_empty() {
        put(&mut file, &mut input);
    }
    let folder = tempfile::tempdir().expect("a folder");
    fs::write(folder.path().join("0000000001.log"), &file).expect("writable");
    // Names that are no log's, or odd ones of it.
    if head & 0xfe == 0xfc {
        fs::write(folder.path().join("x.log"), &file).expect("writable");
        fs::write(folder.path().join("2.log"), &file).expect("writable");
    }
    let first = vivace_ingester::fuzzing::replay(folder.path());
    let second = vivace_ingester::fuzzing::replay(folder.path());
    assert_eq!(first, second, "what is cut off was not needed");
}

fn put(file: &mut Vec<u8>, input: &mut Input<'_>) {
    let kind = input.u8();
    match kind % 6 {
        0 => file.extend(input.part()),
        1 => record(file, input.part()),
        2 => {
            let content = segment(input);
            record(file, &content);
        }
        3 => {
            // One wrong bit.
            let start = file.len();
            let content = segment(input);
            record(file, &content);
            let at = start + input.index(file.len() - start);
            file[at] ^= 1 << (kind >> 5);
        }
        4 => {
            // Not finished.
            let start = file.len();
            let content = segment(input);
            record(file, &content);
            let len = input.index(file.len() - start);
            file.truncate(start + len);
        }
        _ => file.resize(file.len() + usize::from(input.u8()), 0),
    }
}

fn record(file: &mut Vec<u8>, content: &[u8]) {
    let len = (content.len() as u32).to_le_bytes();
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&len);
    hasher.update(content);
    file.extend(len);
    file.extend((hasher.finalize() ^ SALT).to_le_bytes());
    file.extend(content);
}

/// The content of a segment's record.
fn segment(input: &mut Input<'_>) -> Vec<u8> {
    let flags = input.u8();
    let mut out = vec![1];
    out.extend([7; 16]);
    out.extend(u64::from(input.u8()).to_le_bytes());
    out.push(flags & 3);
    let claimed = input.number() as u32;
    let text = |text: &[u8]| [&(text.len() as u16).to_le_bytes(), text].concat();
    let (tenant, primary) = if flags & 4 == 4 { (input.part(), input.part()) } else { (&b"single-tenant"[..], &b"ingester-0"[..]) };
    let refused = usize::from(flags >> 3 & 3);
    let refused_claimed = if flags & 0x20 == 0x20 { input.number() as u32 } else { refused as u32 };
    let refused: Vec<u8> = (0..refused).flat_map(|_| [input.take(16), &[1, 1, 0, 0, 0]].concat()).collect();
    let payload = input.part();
    let payload = if flags & 0x43 == 0x41 { lz4_flex::block::compress(payload) } else { payload.to_vec() };
    let claimed = if flags & 0x80 == 0x80 { claimed } else { payload.len() as u32 };
    out.extend(claimed.to_le_bytes());
    out.extend(1u32.to_le_bytes());
    out.extend(1_700_000_000u64.to_le_bytes());
    out.extend(text(tenant));
    out.extend(text(primary));
    out.extend(refused_claimed.to_le_bytes());
    out.extend(refused);
    out.extend(payload);
    out
}
