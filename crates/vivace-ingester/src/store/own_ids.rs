//! The names under which this instance has been a primary.

use std::path::Path;

use vivace_core::files;

use super::aside::set_aside;

/// File in the log's parent folder: ids under which this instance was a primary, one a line.
const FILE: &str = "instance-ids";

/// Whether no instance has kept its log in this folder before.
pub(super) fn is_new(wal: &Path) -> bool {
    std::fs::symlink_metadata(wal.join(FILE)).is_err()
}

/// Adds the id to those under which this folder's log was written, and returns all of them.
///
/// What an instance logged as a primary stays its own when it comes back under another name, as containers do. Where the file of
/// former ids cannot be read or written, what was logged under another name is held, and taken over when that name does not come.
pub(super) fn remember(wal: &Path, id: &str) -> Vec<String> {
    let path = wal.join(FILE);
    let text = match files::check(&path).and_then(|()| std::fs::read(&path)) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
        Err(error) => {
            let aside = set_aside(&path);
            tracing::warn!(path = %path.display(), %error, is_set_aside = aside.is_ok(), "former ids of this instance cannot be read: they are begun anew");
            String::new()
        }
        Ok(bytes) => String::from_utf8(bytes).unwrap_or_else(|error| {
            tracing::warn!(path = %path.display(), "former ids of this instance are no text: lines that are none are left out");
            let lines = error.as_bytes().split(|byte| *byte == b'\n').filter_map(|line| std::str::from_utf8(line).ok());
            lines.collect::<Vec<_>>().join("\n")
        }),
    };
    let mut ids: Vec<String> = text.lines().filter(|line| !line.is_empty()).map(str::to_owned).collect();
    let is_known = ids.iter().any(|former| former == id);
    if !is_known {
        ids.push(id.to_owned());
    }
    let wanted = ids.join("\n") + "\n";
    if wanted != text
        && let Err(error) = write_ids(&path, &wanted)
    {
        tracing::warn!(path = %path.display(), %error, "id of this instance not noted: under another name it does not know its log as its own");
    }
    ids
}

fn write_ids(path: &Path, text: &str) -> std::io::Result<()> {
    let new = path.with_extension("new");
    let written =
        std::fs::write(&new, text).and_then(|()| std::fs::File::open(&new)?.sync_all()).and_then(|()| std::fs::rename(&new, path));
    let written = written.and_then(|()| files::sync_folder_of(path));
    if written.is_err() {
        let _ = std::fs::remove_file(&new);
    }
    written
}
