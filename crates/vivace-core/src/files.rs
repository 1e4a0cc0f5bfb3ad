//! Opening files that foreign hands may have touched.

use std::fs::{self, File};
use std::io;
use std::path::Path;

/// Opens a file to be read. What is none, such as a named pipe that nobody writes to, is an error and never waited for.
///
/// # Errors
/// As [`File::open`]; [`io::ErrorKind::InvalidInput`] for what is no regular file.
pub fn open(path: &Path) -> io::Result<File> {
    check(path)?;
    File::open(path)
}

/// Makes the names in the folder of a file, or folder, survive a power cut: that of the file itself too.
///
/// # Errors
/// The folder cannot be opened or written.
pub fn sync_folder_of(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => File::open(folder)?.sync_all(),
        _ => File::open(".")?.sync_all(),
    }
}

/// Whether there is a regular file, or a link to one.
///
/// # Errors
/// As [`open`].
pub fn check(path: &Path) -> io::Result<()> {
    if fs::metadata(path)?.is_file() {
        return Ok(());
    }
    Err(io::Error::new(io::ErrorKind::InvalidInput, "it is no regular file"))
}
