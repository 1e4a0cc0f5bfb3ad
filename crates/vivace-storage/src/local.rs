//! Listings of a bucket that is a folder, entry by entry: one that has an odd name or cannot be looked at hides nothing else.
//!
//! Blocks the calling thread.

use std::fs::{self, Metadata};
use std::io::{self, ErrorKind};
use std::path::Path;
use std::time::UNIX_EPOCH;

use vivace_block::objects;
use vivace_core::BlockId;

use crate::keys;
use crate::listing::{Collector, Listing};

/// What lies in the bucket's own folder.
pub(crate) struct Top {
    /// Folders.
    pub(crate) folders: Vec<String>,
    /// Entries that are or may be folders and cannot be used, with what is wrong.
    pub(crate) odd: Vec<(String, String)>,
}

/// # Errors
/// The folder itself cannot be read.
pub(crate) fn top(root: &Path) -> io::Result<Top> {
    let mut top = Top { folders: Vec::new(), odd: Vec::new() };
    for entry in fs::read_dir(root)? {
        let entry = entry?;
        let shown = entry.file_name().to_string_lossy().into_owned();
        // Follows links: a tenant's folder may lie on another disk.
        match fs::metadata(entry.path()) {
            Ok(metadata) if !metadata.is_dir() => {}
            Ok(_) => match entry.file_name().into_string() {
                Ok(name) => top.folders.push(name),
                Err(_) => top.odd.push((shown, "its name is not UTF-8".to_owned())),
            },
            Err(error) => top.odd.extend(odd(&entry.path(), &error).map(|why| (shown, why))),
        }
    }
    Ok(top)
}

/// What lies in a tenant's folder; nothing where there is none.
///
/// # Errors
/// The tenant's folder cannot be read.
pub(crate) fn tenant(folder: &Path) -> io::Result<Listing> {
    let mut found = Collector::default();
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => return Ok(found.finish()),
        Err(error) => return Err(error),
    };
    for entry in entries {
        let entry = entry?;
        let Ok(name) = entry.file_name().into_string() else {
            found.foreign(&entry.file_name().to_string_lossy(), modified(&entry.path()));
            continue;
        };
        match name.parse::<BlockId>() {
            Ok(id) if id.to_string() == name => block(&entry.path(), &name, &mut found),
            _ if matches!(name.as_str(), keys::INDEX_PROTOBUF | keys::INDEX_JSON) => found.object(&name, modified(&entry.path())),
            _ => found.foreign(&name, modified(&entry.path())),
        }
    }
    Ok(found.finish())
}

fn block(folder: &Path, id: &str, found: &mut Collector) {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) => {
            if let Some(why) = odd(folder, &error) {
                found.unreadable(id.to_owned(), why);
            }
            return;
        }
    };
    for entry in entries {
        let entry = match entry {
            Ok(entry) => entry,
            Err(error) => return found.unreadable(id.to_owned(), error.to_string()),
        };
        let name = entry.file_name().to_string_lossy().into_owned();
        let is_meta = matches!(name.as_str(), objects::META | objects::META_COMPACTED);
        match fs::metadata(entry.path()) {
            Ok(metadata) if is_meta && !metadata.is_file() => found.unreadable(format!("{id}/{name}"), "it is no file".to_owned()),
            Ok(metadata) => found.object(&format!("{id}/{name}"), written(&metadata)),
            Err(error) => {
                if let Some(why) = odd(&entry.path(), &error) {
                    found.unreadable(format!("{id}/{name}"), why);
                }
            }
        }
    }
}

/// Why an entry that was listed cannot be looked at. None: it has been deleted since.
fn odd(path: &Path, error: &io::Error) -> Option<String> {
    match (error.kind(), fs::symlink_metadata(path)) {
        (ErrorKind::NotFound, Err(_)) => None,
        (ErrorKind::NotFound, Ok(_)) => Some("it is a link to nothing".to_owned()),
        (ErrorKind::NotADirectory, _) => Some("it is a file where a block's folder is expected".to_owned()),
        _ => Some(error.to_string()),
    }
}

fn modified(path: &Path) -> u64 {
    fs::symlink_metadata(path).map(|metadata| written(&metadata)).unwrap_or_default()
}

/// Nanoseconds since the epoch; 0 is unknown.
fn written(metadata: &Metadata) -> u64 {
    let since = metadata.modified().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
    since.and_then(|since| u64::try_from(since.as_nanos()).ok()).unwrap_or_default()
}
