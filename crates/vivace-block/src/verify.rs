//! Checks a block: its bytes against their checksums, its objects against each other, and what its columns say about a
//! trace against the trace's spans.
//!
//! Rows are read twice, by [`BlockReader`] and by the Parquet library. What real blocks of Tempo are known to get wrong is
//! a note, not a failure.
//!
//! Source: docs/facts/blocks.md, "`meta.json`", "Bloom filters", "`index` object", "OTLP to row rules", "What a foreign writer must keep to",
//! "What is wrong in real blocks".

mod columns;
mod objects;
mod raw;
mod rows;

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use vivace_core::TraceId;

use crate::read::Physical;
use crate::{BlockMeta, BlockReader, Format, ReadAt, ReadError};

/// Cases of one check that are named; of others only the number is given.
const EXAMPLES: usize = 5;

/// The small objects of a block, as far as they could be had.
#[derive(Debug, Clone, Default)]
pub struct SmallObjects {
    /// `bloom-0`, `bloom-1`, …; none for one that is missing.
    pub blooms: Vec<Option<Bytes>>,
    /// `index`.
    pub index: Option<Bytes>,
}

/// How a check ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    /// As it should be.
    Ok,
    /// Not as it should be, harmless, and known of blocks that Tempo wrote.
    Note,
    /// Wrong.
    Failed,
    /// Could not be looked at because of another failure.
    Skipped,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Ok => "ok",
            Self::Note => "note",
            Self::Failed => "FAILED",
            Self::Skipped => "skipped",
        })
    }
}

/// One check and what came of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    /// What was looked at, in two or three words.
    pub name: &'static str,
    /// How it ended.
    pub verdict: Verdict,
    /// What was compared, or how many cases there are of what is wrong.
    pub summary: String,
    /// Some of the cases, with trace ids or columns. The worst first.
    pub examples: Vec<String>,
}

/// All checks of a block.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// In the order of the file: the outside first, then the rows.
    pub checks: Vec<Check>,
    /// Traces that could be read.
    pub traces: u64,
    /// Their spans.
    pub spans: u64,
}

impl Report {
    /// Whether any check failed.
    #[must_use]
    pub fn is_bad(&self) -> bool {
        self.checks.iter().any(|check| check.verdict == Verdict::Failed)
    }

    /// The check with this name.
    #[must_use]
    pub fn check(&self, name: &str) -> Option<&Check> {
        self.checks.iter().find(|check| check.name == name)
    }
}

/// Collects the cases of one check.
pub(crate) struct Tally {
    name: &'static str,
    failed: Cases,
    noted: Cases,
}

#[derive(Default)]
struct Cases {
    count: u64,
    examples: Vec<String>,
}

impl Cases {
    fn add(&mut self, case: String) {
        self.count += 1;
        if self.examples.len() < EXAMPLES {
            self.examples.push(case);
        }
    }
}

impl Tally {
    pub(crate) fn new(name: &'static str) -> Self {
        Self { name, failed: Cases::default(), noted: Cases::default() }
    }

    pub(crate) fn fail(&mut self, case: impl Into<String>) {
        self.failed.add(case.into());
    }

    pub(crate) fn note(&mut self, case: impl Into<String>) {
        self.noted.add(case.into());
    }

    /// `summary` is for when all is well.
    pub(crate) fn finish(self, summary: impl Into<String>) -> Check {
        let (verdict, summary) = match (self.failed.count, self.noted.count) {
            (0, 0) => (Verdict::Ok, summary.into()),
            (0, notes) => (Verdict::Note, format!("{}, {}", summary.into(), plural(notes, "note"))),
            (failures, 0) => (Verdict::Failed, plural(failures, "failure")),
            (failures, notes) => (Verdict::Failed, format!("{}, {}", plural(failures, "failure"), plural(notes, "note"))),
        };
        let examples = self.failed.examples.into_iter().chain(self.noted.examples).collect();
        Check { name: self.name, verdict, summary, examples }
    }

    /// For what could not be looked at to its end. What was found before stays.
    pub(crate) fn finish_early(self) -> Check {
        if self.failed.count > 0 {
            return self.finish("");
        }
        Check {
            name: self.name,
            verdict: Verdict::Skipped,
            summary: "not all rows could be read".to_owned(),
            examples: self.noted.examples,
        }
    }
}

fn plural(count: u64, noun: &str) -> String {
    format!("{count} {noun}{}", if count == 1 { "" } else { "s" })
}

/// Checks everything that can be checked of one block. `source` must know the true length of `data.parquet`.
///
/// `progress` is told how many traces have been checked, now and then. Holds one row group in memory.
pub fn verify(meta: &BlockMeta, source: &Arc<dyn ReadAt>, small: &SmallObjects, progress: &mut dyn FnMut(u64)) -> Report {
    let mut report = Report::default();
    if !matches!(meta.format, Format::VParquet4 | Format::VParquet5) {
        let mut tally = Tally::new("format");
        tally.fail(ReadError::Format { block: meta.block_id, format: meta.format.as_str().to_owned() }.to_string());
        report.checks.push(tally.finish(""));
        return report;
    }
    let (reader, check) = open(meta, source);
    report.checks.push(check);
    let Some(reader) = reader else { return report };
    report.checks.push(row_groups(meta, &reader));
    report.checks.push(columns::check(meta, &reader));
    report.checks.extend(pages(&reader));
    let rows = rows::check(meta, &reader, source, progress);
    report.traces = rows.ids.len() as u64;
    report.spans = rows.spans;
    let stopped = rows.stopped.is_some();
    report.checks.push(objects::traces(meta, &rows.ids, reader.file.is_written_in_order(), rows.stopped.as_deref()));
    report.checks.push(objects::blooms(meta, &small.blooms, &rows.ids, stopped));
    report.checks.push(objects::index(small.index.as_ref(), &rows.last_ids, stopped));
    report.checks.extend(rows.checks);
    report
}

/// Opens the file by its own end, whatever the meta says of it.
fn open(meta: &BlockMeta, source: &Arc<dyn ReadAt>) -> (Option<BlockReader>, Check) {
    let mut tally = Tally::new("file");
    let len = source.len();
    if meta.size_bytes != len {
        tally.fail(format!("meta.json says {} bytes, data.parquet has {len}; readers seek by what it says", meta.size_bytes));
    }
    let tail = len.checked_sub(8).and_then(|start| source.read(start..start + 4).ok());
    let footer = tail.and_then(|tail| <[u8; 4]>::try_from(&tail[..]).ok()).map_or(0, u32::from_le_bytes);
    if meta.footer_bytes != footer {
        tally.fail(format!("meta.json says {} bytes of footer, data.parquet {footer}; readers cannot open it", meta.footer_bytes));
    }
    match BlockReader::open(BlockMeta { size_bytes: len, footer_bytes: footer, ..meta.clone() }, Arc::clone(source)) {
        Ok(reader) => (Some(reader), tally.finish(format!("{len} bytes, {footer} of them the footer, as meta.json says"))),
        Err(error) => {
            tally.fail(chain(&error));
            (None, tally.finish(""))
        }
    }
}

fn row_groups(meta: &BlockMeta, reader: &BlockReader) -> Check {
    let mut tally = Tally::new("row groups");
    let (said, found) = (u64::from(meta.row_groups), reader.row_groups() as u64);
    if said == found + 1 {
        tally.note(format!("meta.json says {said} where there are {found}; Tempo sometimes counts one too many"));
    } else if said != found {
        tally.fail(format!("meta.json says {said} where there are {found}; searches look at what it says"));
    }
    for (index, group) in reader.file.footer.groups.iter().enumerate().filter(|(_, group)| group.rows == 0) {
        tally.fail(format!("row group {index} has {} rows", group.rows));
    }
    tally.finish(found.to_string())
}

/// Every page of every column; then what dictionaries must be for Tempo to find what is in them.
fn pages(reader: &BlockReader) -> [Check; 2] {
    let mut pages = Tally::new("pages");
    let mut dictionaries = Tally::new("dictionaries");
    let (mut count, mut with_checksum, mut with_dictionary) = (0, 0, 0u64);
    for group in 0..reader.row_groups() {
        for (id, leaf) in reader.file.footer.leaves.iter().enumerate() {
            let found = match reader.walk_pages(group, id) {
                Ok(found) => found,
                Err(error) => {
                    pages.fail(chain(&error));
                    continue;
                }
            };
            count += found.pages;
            with_checksum += found.with_checksum;
            with_dictionary += u64::from(found.has_dictionary);
            if found.has_dictionary && found.plain > 0 {
                dictionaries.fail(format!(
                    "row group {group}, column {}: {} pages without the dictionary; Tempo overlooks what is in them",
                    leaf.path, found.plain
                ));
            }
            if found.has_dictionary && leaf.physical == Physical::Int32 {
                dictionaries.note(format!(
                    "row group {group}, column {}: Tempo misreads negative numbers in a dictionary; compaction writes them anew",
                    leaf.path
                ));
            }
            if leaf.path.ends_with("Attrs.Key") && !found.has_dictionary && found.values > 0 {
                dictionaries.fail(format!("row group {group}, column {}: no dictionary; Tempo lists tag names from it", leaf.path));
            }
        }
    }
    let checksums = match with_checksum {
        0 => "without checksums of their own".to_owned(),
        all if all == count => "with the right checksums".to_owned(),
        some => format!("{some} of them with the right checksums"),
    };
    let of_chunks = reader.file.footer.groups.len() * reader.file.footer.leaves.len();
    [
        pages.finish(format!("{count} decompressed, {checksums}")),
        dictionaries.finish(format!("{with_dictionary} of {of_chunks} column chunks have one, each for all its pages")),
    ]
}

/// An error with its causes.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text = format!("{text}: {cause}");
        next = cause.source();
    }
    text
}

/// What is known of the rows after all of them were looked at, or some.
pub(crate) struct Rows {
    /// In the order of the file.
    pub(crate) ids: Vec<TraceId>,
    /// Of every row group that was read.
    pub(crate) last_ids: Vec<TraceId>,
    pub(crate) spans: u64,
    pub(crate) checks: Vec<Check>,
    /// Why there is no more.
    pub(crate) stopped: Option<String>,
}

#[cfg(test)]
mod tests;
