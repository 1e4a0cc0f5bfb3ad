//! Moving out of the way what is in the place of something that can be made anew.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::{fs, io};

/// Renames a file or folder to the same name with `.corrupt` behind it, in place of what was there before. Returns the new path.
///
/// # Errors
/// It cannot be renamed.
pub(super) fn set_aside(path: &Path) -> io::Result<PathBuf> {
    let mut name = OsString::from(path);
    name.push(".corrupt");
    let aside = PathBuf::from(name);
    let is_folder = fs::symlink_metadata(&aside).is_ok_and(|kept| kept.is_dir());
    // Where this fails renaming does.
    let _ = if is_folder { fs::remove_dir_all(&aside) } else { fs::remove_file(&aside) };
    fs::rename(path, &aside)?;
    Ok(aside)
}
