//! The columns a file must have, and their order: Tempo pairs columns with its own schema by position alone.

use std::collections::BTreeSet;

use super::{Check, Tally};
use crate::schema::vparquet4;
use crate::{BlockMeta, BlockReader, DedicatedColumn, DedicatedScope, DedicatedType, Format};

/// String slots per scope in vParquet5, by the releases of Tempo.
const VPARQUET5_STRINGS: [usize; 2] = [10, 20];
const VPARQUET5_INTS: usize = 5;

/// Path without the levels that lists add, greatest repetition level, greatest definition level.
type Leaf = (String, u8, u8);

pub(super) fn check(meta: &BlockMeta, reader: &BlockReader) -> Check {
    let mut tally = Tally::new("columns");
    let found: Vec<Leaf> = reader.file.footer.leaves.iter().map(|leaf| (leaf.path.clone(), leaf.max_rep, leaf.max_def)).collect();
    let want = match meta.format {
        Format::VParquet5 => of_vparquet5(&meta.dedicated_columns, &found),
        _ => of_vparquet4(),
    };
    if found.len() != want.len() {
        tally.fail(format!("{} columns, {} has {} with these dedicated columns", found.len(), meta.format.as_str(), want.len()));
    }
    for (position, (found, want)) in found.iter().zip(&want).enumerate().filter(|(_, (found, want))| found != want) {
        tally.fail(format!(
            "column {position} is {} with levels {}/{}, expected {} with {}/{}",
            found.0, found.1, found.2, want.0, want.1, want.2
        ));
    }
    tally.finish(format!("{}, in the order of {}", found.len(), meta.format.as_str()))
}

fn of_vparquet4() -> Vec<Leaf> {
    let level = |level: i16| u8::try_from(level).unwrap_or_default();
    let schema = vparquet4();
    let leaf = |column: &parquet::schema::types::ColumnDescPtr| {
        (column.path().string().replace(".list.element", ""), level(column.max_rep_level()), level(column.max_def_level()))
    };
    schema.columns().iter().map(leaf).collect()
}

/// The columns of a vParquet5 file depend on its meta. Releases differ in the number of slots, so the file decides that.
///
/// Source: docs/facts/blocks.md, "vParquet5".
fn of_vparquet5(dedicated: &[DedicatedColumn], found: &[Leaf]) -> Vec<Leaf> {
    let paths: BTreeSet<&str> = found.iter().map(|(path, _, _)| path.as_str()).collect();
    let mut leaves = Leaves { dedicated, paths, all: Vec::new() };
    let trace = ["TraceID", "TraceIDText", "StartTimeUnixNano", "EndTimeUnixNano", "DurationNano", "RootServiceName", "RootSpanName"];
    leaves.required("", 0, &trace);
    leaves.required("ServiceStats.", 1, &["ServiceName", "SpanCount", "ErrorCount"]);
    leaves.required("rs.Resource.", 1, &["ServiceName"]);
    leaves.attrs("rs.Resource.", 1);
    leaves.dedicated("rs.Resource.", 1, DedicatedScope::Resource);
    leaves.required("rs.ss.Scope.", 2, &["Name", "Version"]);
    leaves.attrs("rs.ss.Scope.", 2);
    let span = [
        "SpanID",
        "ParentSpanID",
        "ParentID",
        "NestedSetLeft",
        "NestedSetRight",
        "ChildCount",
        "Name",
        "Kind",
        "TraceState",
        "StartTimeUnixNano",
        "DurationNano",
        "StatusCode",
        "StatusMessage",
    ];
    leaves.required("rs.ss.Spans.", 3, &span);
    leaves.attrs("rs.ss.Spans.", 3);
    leaves.required("rs.ss.Spans.Events.", 4, &["TimeSinceStartNano", "Name"]);
    leaves.attrs("rs.ss.Spans.Events.", 4);
    leaves.dedicated("rs.ss.Spans.Events.", 4, DedicatedScope::Event);
    leaves.required("rs.ss.Spans.", 3, &["DroppedEventsCount"]);
    leaves.required("rs.ss.Spans.Links.", 4, &["TraceID", "SpanID", "TraceState"]);
    leaves.attrs("rs.ss.Spans.Links.", 4);
    leaves.required("rs.ss.Spans.", 3, &["DroppedLinksCount"]);
    leaves.dedicated("rs.ss.Spans.", 3, DedicatedScope::Span);
    let rounded = ["StartTimeRounded15", "StartTimeRounded60", "StartTimeRounded300", "StartTimeRounded3600"];
    leaves.required("rs.ss.Spans.", 3, &rounded);
    leaves.required("rs.ss.", 2, &["SpanCount"]);
    leaves.all
}

struct Leaves<'b> {
    dedicated: &'b [DedicatedColumn],
    /// Of the file.
    paths: BTreeSet<&'b str>,
    all: Vec<Leaf>,
}

impl Leaves<'_> {
    fn required(&mut self, parent: &str, depth: u8, names: &[&str]) {
        self.all.extend(names.iter().map(|name| (format!("{parent}{name}"), depth, depth)));
    }

    /// The generic attributes, and how many were dropped.
    fn attrs(&mut self, parent: &str, depth: u8) {
        self.required(&format!("{parent}Attrs."), depth + 1, &["Key", "IsArray"]);
        self.required(&format!("{parent}Attrs."), depth + 2, &["Value", "ValueInt", "ValueDouble", "ValueBool"]);
        self.all.push((format!("{parent}Attrs.ValueUnsupported"), depth + 1, depth + 2));
        self.required(parent, depth, &["DroppedAttributesCount"]);
    }

    fn dedicated(&mut self, parent: &str, depth: u8, scope: DedicatedScope) {
        let count = |kind| self.dedicated.iter().filter(|column| column.scope == scope && column.kind == kind).count();
        let path = |kind: &str, slot: usize| format!("{parent}DedicatedAttributes.{kind}{slot:02}");
        let [few, many] = VPARQUET5_STRINGS;
        let slots = if self.paths.contains(path("String", few + 1).as_str()) { many } else { few };
        let strings = (1..=count(DedicatedType::String).min(slots)).map(|slot| path("String", slot));
        let ints = (1..=count(DedicatedType::Int).min(VPARQUET5_INTS)).map(|slot| path("Int", slot));
        let all: Vec<Leaf> = strings.chain(ints).map(|path| (path, depth + 1, depth + 1)).collect();
        self.all.extend(all);
    }
}
