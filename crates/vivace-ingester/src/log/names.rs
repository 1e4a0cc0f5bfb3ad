//! The names of the log's files, each of which repeats what the file's head says.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use super::MAGIC;

/// Extension of a file that is kept only because something in it is damaged.
pub(super) const SET_ASIDE: &str = "corrupt";
/// No log comes this far; a larger number in a name is damage to that name.
const NUMBER_MAX: u64 = 1_000_000_000_000_000;

/// A file that an earlier process left.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) number: u64,
    pub(super) path: PathBuf,
    /// As the name says; files of earlier versions say none.
    pub(super) salt: Option<u32>,
}

/// The path of a log file: its number, and the salt of its records once more.
pub(crate) fn file_path(folder: &Path, number: u64, salt: u32) -> PathBuf {
    folder.join(format!("{number:010}-{salt:08x}.log"))
}

/// What a name says of a file: its number and salt. None for a name that this log gives no file.
fn parse(name: &str) -> Option<(u64, Option<u32>)> {
    let stem = name.strip_suffix(".log")?;
    let (number, salt) = match stem.split_once('-') {
        Some((number, salt)) => (number, Some(u32::from_str_radix(salt, 16).ok()?)),
        None => (stem, None),
    };
    let number = number.parse().ok().filter(|number| *number <= NUMBER_MAX)?;
    let again = match salt {
        Some(salt) => format!("{number:010}-{salt:08x}.log"),
        None => format!("{number:010}.log"),
    };
    (again == name).then_some((number, salt))
}

/// The log's files by number. One whose name is damaged is known by its head and comes last; what else is in the folder is left alone.
pub(super) fn list(folder: &Path) -> io::Result<Vec<Found>> {
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let (mut found, mut misnamed, mut foreign): (Vec<Found>, Vec<PathBuf>, Vec<PathBuf>) = Default::default();
    for entry in entries {
        let entry = entry?;
        let path = entry.path();
        if path.extension().is_some_and(|extension| extension == SET_ASIDE) {
            continue;
        }
        let is_file = entry.file_type().is_ok_and(|kind| kind.is_file());
        match path.file_name().and_then(|name| name.to_str()).and_then(parse) {
            Some((number, salt)) if is_file => found.push(Found { number, path, salt }),
            _ if is_file && has_magic(&path) => misnamed.push(path),
            _ => foreign.push(path),
        }
    }
    if let Some(example) = foreign.first() {
        tracing::warn!(folder = %folder.display(), count = foreign.len(), example = %example.display(), "what is no file of the log is left alone");
    }
    found.sort_by(|a, b| (a.number, &a.path).cmp(&(b.number, &b.path)));
    let twice: Vec<PathBuf> = found.chunk_by(|a, b| a.number == b.number).flat_map(|same| &same[1..]).map(|f| f.path.clone()).collect();
    found.dedup_by_key(|file| file.number);
    misnamed.extend(twice);
    misnamed.sort();
    for path in misnamed {
        let number = found.last().map_or(1, |last| last.number + 1);
        tracing::warn!(path = %path.display(), number, "file of the log under a wrong name is read as the last one");
        found.push(Found { number, path, salt: None });
    }
    Ok(found)
}

fn has_magic(path: &Path) -> bool {
    let mut head = [0; MAGIC.len()];
    File::open(path).and_then(|mut file| file.read_exact(&mut head)).is_ok() && head == *MAGIC
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_read_only_as_it_is_written() {
        assert_eq!(parse("0000000012-0000beef.log"), Some((12, Some(0xbeef))));
        assert_eq!(parse("0000000012.log"), Some((12, None)), "from before names had a salt");
        for other in ["12.log", "+000000012.log", "0000000012-beef.log", "0000000012-0000BEEF.log", "x.log", "18446744073709551615.log"] {
            assert_eq!(parse(other), None, "{other}");
        }
    }
}
