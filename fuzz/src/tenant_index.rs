//! A tenant's index in both encodings, as it is in the bucket and with right compression around any content.

use std::io::Write;

use vivace_storage::TenantIndex;

use crate::input::Input;

/// The first byte says which; the rest is the object. What can be read must be the same after it is written and read.
pub fn run(input: &[u8]) {
    let mut input = Input::new(input);
    let kind = input.u8();
    let bytes = input.rest();
    let mut left_out = 0;
    let mut bad = |reason: &str| {
        assert!(!reason.is_empty());
        left_out += 1;
    };
    let read = match kind % 4 {
        0 => TenantIndex::from_protobuf(bytes, &mut bad),
        1 => TenantIndex::from_protobuf(&zstd::encode_all(bytes, 1).expect("memory takes all"), &mut bad),
        2 => TenantIndex::from_json(bytes, &mut bad),
        _ => TenantIndex::from_json(&gzip(bytes), &mut bad),
    };
    let Ok(index) = read else { return };
    let all_good = |reason: &str| panic!("{reason}");
    assert_eq!(TenantIndex::from_protobuf(&index.to_protobuf(), all_good).as_ref(), Ok(&index));
    assert_eq!(TenantIndex::from_json(&index.to_json(), all_good).as_ref(), Ok(&index));
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).and_then(|()| encoder.finish()).expect("memory takes all")
}
