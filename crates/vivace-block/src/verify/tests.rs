//! Blocks that are sound, and what each kind of damage is called.

use std::path::PathBuf;

use parquet::column::reader::ColumnReader;
use parquet::column::writer::ColumnWriter;
use parquet::data_type::ByteArray;
use parquet::file::properties::WriterProperties;
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::file::writer::SerializedFileWriter;

use super::*;
use crate::objects as names;
use crate::{DedicatedColumn, DedicatedScope, DedicatedType};

/// A real block with its small objects.
struct Block {
    meta: BlockMeta,
    data: Bytes,
    small: SmallObjects,
}

impl Block {
    fn golden(set: &str) -> Self {
        let file =
            |name: &str| std::fs::read(PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("testdata").join(set).join(name)).map(Bytes::from);
        let meta = BlockMeta::from_json(&file(names::META).expect("meta.json"), set).expect("a meta");
        let blooms = (0..meta.bloom_shards).map(|shard| file(&names::bloom(shard)).ok()).collect();
        Self { data: file(names::DATA).expect("data.parquet"), small: SmallObjects { blooms, index: file(names::INDEX).ok() }, meta }
    }

    fn verify(&self) -> Report {
        let source: Arc<dyn ReadAt> = Arc::new(self.data.clone());
        verify(&self.meta, &source, &self.small, &mut |_| {})
    }

    /// Takes other columns, with the meta of this file.
    fn with_data(mut self, data: Bytes) -> Self {
        self.meta.size_bytes = data.len() as u64;
        self.meta.footer_bytes = data[data.len() - 8..][..4].try_into().map(u32::from_le_bytes).expect("four bytes");
        self.data = data;
        self
    }
}

/// The names of the checks that did not end well.
fn bad(report: &Report, verdict: Verdict) -> Vec<&'static str> {
    report.checks.iter().filter(|check| check.verdict == verdict).map(|check| check.name).collect()
}

/// The values of a column.
enum Values<'v> {
    Ints(&'v mut Vec<i64>),
    Texts(&'v mut Vec<ByteArray>),
}

/// Writes a file anew by the Parquet library, with other values in one column.
fn rewritten(data: &Bytes, properties: WriterProperties, column: &str, change: &mut dyn FnMut(Values<'_>)) -> Bytes {
    let file = SerializedFileReader::new(data.clone()).expect("a file");
    let schema = file.metadata().file_metadata().schema_descr();
    let mut out = SerializedFileWriter::new(Vec::new(), schema.root_schema_ptr(), Arc::new(properties)).expect("a writer");
    for index in 0..file.num_row_groups() {
        let group = file.get_row_group(index).expect("a row group");
        let mut to = out.next_row_group().expect("a row group");
        for leaf in 0..schema.num_columns() {
            let is_it = schema.column(leaf).path().string().replace(".list.element", "") == column;
            let (mut def, mut rep) = (Vec::new(), Vec::new());
            let mut writer = to.next_column().expect("a column").expect("as many columns");
            macro_rules! copy {
                ($reader:expr, $writer:expr, $values:ident, $change:block) => {{
                    let mut $values = Vec::new();
                    while $reader.read_records(usize::MAX >> 1, Some(&mut def), Some(&mut rep), &mut $values).expect("values").0 > 0 {}
                    if is_it {
                        $change
                    }
                    let levels = |levels: &'_ [i16]| (!levels.is_empty()).then(|| levels.to_vec());
                    $writer.write_batch(&$values, levels(&def).as_deref(), levels(&rep).as_deref()).expect("is written");
                }};
            }
            match (group.get_column_reader(leaf).expect("a column"), writer.untyped()) {
                (ColumnReader::BoolColumnReader(mut r), ColumnWriter::BoolColumnWriter(w)) => copy!(r, w, values, {}),
                (ColumnReader::Int32ColumnReader(mut r), ColumnWriter::Int32ColumnWriter(w)) => copy!(r, w, values, {
                    let mut wide: Vec<i64> = values.iter().map(|v: &i32| i64::from(*v)).collect();
                    change(Values::Ints(&mut wide));
                    values = wide.into_iter().map(|v| v as i32).collect();
                }),
                (ColumnReader::Int64ColumnReader(mut r), ColumnWriter::Int64ColumnWriter(w)) => {
                    copy!(r, w, values, { change(Values::Ints(&mut values)) });
                }
                (ColumnReader::DoubleColumnReader(mut r), ColumnWriter::DoubleColumnWriter(w)) => copy!(r, w, values, {}),
                (ColumnReader::ByteArrayColumnReader(mut r), ColumnWriter::ByteArrayColumnWriter(w)) => {
                    copy!(r, w, values, { change(Values::Texts(&mut values)) });
                }
                _ => panic!("a type that no block has"),
            }
            writer.close().expect("is written");
        }
        to.close().expect("is written");
    }
    out.into_inner().expect("is written").into()
}

fn one_dictionary_per_chunk() -> WriterProperties {
    WriterProperties::builder().set_dictionary_page_size_limit(1 << 30).build()
}

/// Checks the block with one column changed. Everything else must be fine.
#[track_caller]
fn finds(set: &str, column: &str, check: &str, change: impl Fn(Values<'_>)) -> Check {
    let block = Block::golden(set);
    let data = rewritten(&block.data, one_dictionary_per_chunk(), column, &mut |values| change(values));
    let report = block.with_data(data).verify();
    assert_eq!(bad(&report, Verdict::Failed), [check], "{column}: {report:#?}");
    report.check(check).expect("the check").clone()
}

fn int(row: usize, change: impl Fn(i64) -> i64) -> impl Fn(Values<'_>) {
    move |values| match values {
        Values::Ints(values) => values[row] = change(values[row]),
        Values::Texts(_) => panic!("a text column"),
    }
}

fn text(row: usize, text: &'static str) -> impl Fn(Values<'_>) {
    move |values| match values {
        Values::Texts(values) => values[row] = text.into(),
        Values::Ints(_) => panic!("a column of numbers"),
    }
}

const SMALL: &str = "v4-three-blocks-1";

/// Every check, in order.
const CHECKS: [&str; 14] = [
    "file",
    "row groups",
    "columns",
    "pages",
    "dictionaries",
    "trace ids",
    "bloom filter",
    "index",
    "block times",
    "trace times",
    "roots",
    "service stats",
    "nested sets",
    "other columns",
];

/// Without the large filters, which are not kept here.
#[test]
fn real_blocks_are_right_but_for_what_is_known_of_them() {
    let last_second = "block times";
    for (set, notes) in [
        ("v4-edge-default", &[last_second][..]),
        ("v4-edge-dedicated", &[last_second]),
        ("v4-bulk-rowgroups", &[last_second]),
        ("v4-pages", &[last_second]),
        ("v4-compacted", &[last_second, "service stats"]),
        ("v4-three-blocks-1", &[last_second]),
        ("v4-three-blocks-2", &[last_second]),
        ("v4-three-blocks-3", &[last_second]),
        // One trace has no root.
        ("v5-edge-default", &[last_second, "nested sets"]),
        ("v5-edge-dedicated", &[last_second, "nested sets"]),
        ("v5-edge-by-2.10", &[last_second, "nested sets"]),
        ("v5-bulk-rowgroups", &[last_second]),
        ("v5-compacted", &[last_second]),
    ] {
        let block = Block::golden(set);
        let without_filter = block.small.blooms.iter().all(Option::is_none);
        let report = block.verify();
        assert_eq!(bad(&report, Verdict::Note), notes, "{set}: {report:#?}");
        assert_eq!(bad(&report, Verdict::Failed), if without_filter { &["bloom filter"][..] } else { &[] }, "{set}: {report:#?}");
        assert_eq!(report.traces, block.meta.total_objects, "{set}");
        assert!(report.checks.iter().map(|check| check.name).eq(CHECKS), "{set}: {report:#?}");
    }
}

#[test]
fn blocks_of_our_own_are_right() {
    let traces = crate::testdata::traces(crate::testdata::EDGE_A);
    let options = crate::BlockOptions { row_group_size_bytes: 12_000, bloom_shard_size_bytes: 64, ..Default::default() };
    let mut writer =
        crate::BlockWriter::new(options, vivace_core::TenantId::single(), vivace_core::BlockId([1; 16]), Vec::new(), 86).expect("starts");
    for (id, spans) in &traces {
        writer.push_trace(*id, spans).expect("takes the trace");
    }
    let block = writer.finish().expect("finishes");
    let blooms = block.blooms.into_iter().map(|bytes| Some(bytes.into())).collect();
    let block = Block { meta: block.meta, data: block.out.into(), small: SmallObjects { blooms, index: Some(block.index.into()) } };
    let mut seen = 0;
    let source: Arc<dyn ReadAt> = Arc::new(block.data.clone());
    let report = verify(&block.meta, &source, &block.small, &mut |done| seen = done);
    assert_eq!(bad(&report, Verdict::Failed), [""; 0], "{report:#?}");
    assert_eq!(bad(&report, Verdict::Note), [""; 0], "{report:#?}");
    assert_eq!((report.traces, report.spans), (86, 537));
}

#[test]
fn a_changed_byte_in_a_page_is_found_with_its_column() {
    let block = Block::golden(SMALL);
    let file = SerializedFileReader::new(block.data.clone()).expect("a file");
    for leaf in [0, 6, 12, 59, 102] {
        let chunk = file.metadata().row_group(0).column(leaf);
        let (start, len) = chunk.byte_range();
        let mut bytes = block.data.to_vec();
        bytes[(start + len - 1) as usize] ^= 4;
        let block = Block { data: bytes.into(), meta: block.meta.clone(), small: block.small.clone() };
        let report = block.verify();
        let check = report.check("pages").expect("the check");
        assert_eq!(check.verdict, Verdict::Failed, "{report:#?}");
        let path = chunk.column_path().string().replace(".list.element", "");
        assert!(check.examples[0].contains(&format!("column {path}: ")), "{check:?}");
        // What could not be looked at is not said to be right.
        let whole = report.traces == block.meta.total_objects;
        assert_eq!(bad(&report, Verdict::Skipped).is_empty(), whole, "{report:#?}");
        // These two are no part of a trace's spans.
        assert_eq!(whole, [6, 102].contains(&leaf), "{report:#?}");
    }
}

#[test]
fn a_wrong_meta_is_found() {
    type Change = fn(&mut BlockMeta);
    let changes: [(&str, Verdict, Change); 11] = [
        ("trace ids", Verdict::Failed, |meta| meta.total_objects += 1),
        ("file", Verdict::Failed, |meta| meta.size_bytes -= 1),
        ("file", Verdict::Failed, |meta| meta.footer_bytes += 8),
        ("row groups", Verdict::Note, |meta| meta.row_groups += 1),
        ("row groups", Verdict::Failed, |meta| meta.row_groups += 2),
        ("row groups", Verdict::Failed, |meta| meta.row_groups = 0),
        ("bloom filter", Verdict::Failed, |meta| meta.bloom_shards += 1),
        ("block times", Verdict::Failed, |meta| meta.start_unix_nanos += 3600 * 1_000_000_000),
        ("block times", Verdict::Failed, |meta| meta.end_unix_nanos = 0),
        ("format", Verdict::Failed, |meta| meta.format = Format::VParquet3),
        ("file", Verdict::Failed, |meta| meta.format = Format::VParquet5),
    ];
    for (name, verdict, change) in changes {
        let mut block = Block::golden(SMALL);
        change(&mut block.meta);
        let report = block.verify();
        assert_eq!(report.check(name).expect("the check").verdict, verdict, "{report:#?}");
        assert_eq!(report.is_bad(), verdict == Verdict::Failed);
    }
    let mut block = Block::golden(SMALL);
    block.meta.format = Format::VParquet3;
    let report = block.verify();
    assert!(report.checks[0].examples[0].contains("until its retention ends"), "{report:?}");
}

/// A dedicated column more or less than the file has: by position everything behind it would be another column.
#[test]
fn columns_that_the_meta_does_not_imply_are_found() {
    for change in [
        (|columns: &mut Vec<DedicatedColumn>| drop(columns.pop())) as fn(&mut Vec<DedicatedColumn>),
        |columns| columns.push(DedicatedColumn::new(DedicatedScope::Event, "another", DedicatedType::Int)),
        |columns| columns[0].scope = DedicatedScope::Event,
    ] {
        let mut block = Block::golden("v5-edge-dedicated");
        change(&mut block.meta.dedicated_columns);
        let report = block.verify();
        assert!(bad(&report, Verdict::Failed).contains(&"columns"), "{report:#?}");
    }
}

#[test]
fn wrong_small_objects_are_found() {
    let whole = Block::golden("v4-bulk-rowgroups");
    let with = |change: &dyn Fn(&mut SmallObjects)| {
        let mut small = whole.small.clone();
        change(&mut small);
        Block { meta: whole.meta.clone(), data: whole.data.clone(), small }.verify()
    };
    for change in [
        &|small: &mut SmallObjects| small.blooms.swap(0, 3) as _,
        &|small: &mut SmallObjects| small.blooms[2] = None,
        &|small: &mut SmallObjects| small.blooms[1] = small.blooms[1].as_ref().map(|bytes| bytes.slice(..40)),
        &|small: &mut SmallObjects| {
            small.blooms[0] =
                Some(crate::bloom::Builder::new(crate::bloom::Params { shards: 1, bits: 512, hashes: 7 }).finish().remove(0).into())
        },
    ] as [&dyn Fn(&mut SmallObjects); 4]
    {
        assert_eq!(bad(&with(change), Verdict::Failed), ["bloom filter"]);
    }
    let all_ones = |small: &mut SmallObjects| {
        for shard in small.blooms.iter_mut().flatten() {
            let mut bytes = shard.to_vec();
            bytes[24..].fill(0xff);
            *shard = bytes.into();
        }
    };
    assert!(bad(&with(&all_ones), Verdict::Note).contains(&"bloom filter"));
    let index = |json: &'static [u8]| with(&move |small: &mut SmallObjects| small.index = Some(Bytes::from_static(json)));
    assert_eq!(bad(&index(b"{}"), Verdict::Failed), ["index"]);
    assert_eq!(bad(&index(b"]"), Verdict::Failed), ["index"]);
    let of_another = Block::golden(SMALL).small.index;
    assert_eq!(bad(&with(&|small| small.index = of_another.clone()), Verdict::Failed), ["index"]);
    let without = with(&|small| small.index = None);
    assert!(!without.is_bad() && bad(&without, Verdict::Note).contains(&"index"));
}

#[test]
fn wrong_ids_are_found() {
    let swap = |values: Values<'_>| {
        let Values::Texts(values) = values else { panic!("ids") };
        values.swap(3, 4);
    };
    let block = Block::golden(SMALL);
    let data = rewritten(&block.data, one_dictionary_per_chunk(), "TraceID", &mut |values| swap(values));
    let report = block.with_data(data).verify();
    // The text of the id is another column.
    assert_eq!(bad(&report, Verdict::Failed), ["other columns"], "{report:#?}");
    // Tempo leaves blocks behind whose rows are out of order, and they are read.
    assert!(bad(&report, Verdict::Note).contains(&"trace ids"), "{report:#?}");
    let twice = |values: Values<'_>| {
        let Values::Texts(values) = values else { panic!("ids") };
        values[4] = values[3].clone();
    };
    let block = Block::golden(SMALL);
    let data = rewritten(&block.data, one_dictionary_per_chunk(), "TraceID", &mut |values| twice(values));
    let report = block.with_data(data).verify();
    assert!(report.check("trace ids").expect("the check").examples[0].ends_with("has 2 rows"), "{report:#?}");
    finds(SMALL, "TraceIDText", "other columns", text(2, "abc"));
}

#[test]
fn columns_that_contradict_the_spans_are_found() {
    finds(SMALL, "StartTimeUnixNano", "trace times", int(1, |start| start + 1));
    finds(SMALL, "EndTimeUnixNano", "trace times", int(1, |end| end - 1));
    finds(SMALL, "DurationNano", "trace times", int(1, |duration| duration + 1));
    finds(SMALL, "RootSpanName", "roots", text(1, "of another trace"));
    finds(SMALL, "RootServiceName", "roots", text(1, "of another trace"));
    finds(SMALL, "ServiceStats.key_value.key", "service stats", text(1, "of another trace"));
    finds(SMALL, "ServiceStats.key_value.value.SpanCount", "service stats", int(1, |count| count + 1));
    finds(SMALL, "ServiceStats.key_value.value.ErrorCount", "service stats", int(1, |count| count + 1));
    for column in ["NestedSetLeft", "NestedSetRight", "ParentID"] {
        finds(SMALL, &format!("rs.ss.Spans.{column}"), "nested sets", int(7, |place| place + 1));
    }
    finds("v5-compacted", "rs.ss.Spans.ChildCount", "nested sets", int(7, |count| count + 1));
    finds("v5-compacted", "rs.ss.SpanCount", "other columns", int(7, |count| count + 1));
    for seconds in [15, 60, 300, 3600] {
        finds("v5-compacted", &format!("rs.ss.Spans.StartTimeRounded{seconds}"), "other columns", int(7, |step| step + 1));
    }
    let check = finds(SMALL, "rs.ss.Spans.NestedSetLeft", "nested sets", |values| {
        let Values::Ints(values) = values else { panic!("numbers") };
        values.iter_mut().for_each(|value| *value += 1);
    });
    // Many cases are counted, a few are named.
    assert_eq!(check.examples.len(), EXAMPLES);
    assert!(check.summary.ends_with(" failures") && check.summary.len() > "9 failures".len(), "{check:?}");
}

#[test]
fn dictionaries_that_tempo_misreads_are_found() {
    for properties in [
        WriterProperties::builder().set_dictionary_enabled(false).build(),
        WriterProperties::builder().set_dictionary_page_size_limit(64).set_write_batch_size(16).build(),
    ] {
        let block = Block::golden(SMALL);
        let data = rewritten(&block.data, properties, "none", &mut |_| {});
        let report = block.with_data(data).verify();
        assert_eq!(bad(&report, Verdict::Failed), ["dictionaries"], "{report:#?}");
    }
}

/// Of pages without a checksum too, and of the footer.
#[test]
fn damaged_bytes_are_failures_or_harmless_but_never_panics() {
    use rand::rngs::StdRng;
    use rand::{Rng, SeedableRng};
    let mut random = StdRng::seed_from_u64(11);
    // The Parquet library writes no checksums.
    let without_checksums = {
        let block = Block::golden("v5-compacted");
        let data = rewritten(&block.data, one_dictionary_per_chunk(), "none", &mut |_| {});
        block.with_data(data)
    };
    let mut failed = 0;
    for block in [without_checksums, Block::golden(SMALL)] {
        let len = block.data.len();
        let footer = len - block.meta.footer_bytes as usize - 8;
        for place in [4..footer, footer..len - 8, footer..len - 8] {
            for _ in 0..60 {
                let mut bytes = block.data.to_vec();
                for _ in 0..random.random_range(1..6) {
                    bytes[random.random_range(place.clone())] ^= 1 << random.random_range(0..8);
                }
                let block = Block { meta: block.meta.clone(), data: bytes.into(), small: block.small.clone() };
                failed += u32::from(block.verify().is_bad());
            }
        }
    }
    assert!(failed > 150, "{failed} of 360 were noticed");
}
