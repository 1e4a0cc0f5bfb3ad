//! A door for fuzz targets.

use std::path::Path;

use crate::log;
use crate::segment::Segment;

/// Replays a folder of log files, reads every segment again, and tells what was found: payloads, none for those that are
/// not what their header says.
///
/// # Panics
/// A segment is not the same when it is read again.
#[must_use]
pub fn replay(folder: &Path) -> Vec<Option<Vec<u8>>> {
    let mut found = Vec::new();
    let replayed = log::replay(folder, |header, payload, at| {
        let again = at.read().expect("what is replayed can be read back");
        assert!(again.ends_with(&payload));
        let segment = Segment { header, at };
        found.push(segment.traces_data().ok().map(|bytes| bytes.to_vec()));
    });
    let replayed = replayed.expect("the files can be read");
    assert!(replayed.iter().map(|file| file.records).sum::<u64>() >= found.len() as u64);
    found
}
