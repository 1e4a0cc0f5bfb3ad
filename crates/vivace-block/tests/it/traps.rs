//! What a foreign writer must get right for Tempo to find what it wrote, one test per trap.
//!
//! Source: docs/facts/blocks.md, "What a foreign writer must keep to" and "What is wrong in real blocks".

use std::collections::BTreeSet;

use parquet::basic::{Compression, ConvertedType, Encoding, PageType, Repetition, Type};
use parquet::column::page::Page;
use parquet::column::reader::ColumnReader;
use parquet::data_type::ByteArray;
use parquet::file::metadata::{PageIndexPolicy, ParquetMetaData, ParquetMetaDataReader};
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::file::statistics::Statistics;
use parquet::schema::types::{ColumnDescriptor, SchemaDescriptor};
use vivace_block::schema::Leaf;
use vivace_block::verify::Verdict;
use vivace_block::{BlockMeta, BlockOptions, bloom};
use vivace_core::TraceId;
use vivace_proto::otlp::any_value::Value as AnyKind;
use vivace_proto::otlp::{AnyValue, KeyValue, Resource, ResourceSpans, ScopeSpans, Span};

use crate::made::{Made, of_every_case, of_otlp};
use crate::read::data;

/// Several row groups.
fn small_groups() -> BlockOptions {
    BlockOptions { row_group_size_bytes: 12_000, ..BlockOptions::default() }
}

fn file(made: &Made) -> SerializedFileReader<bytes::Bytes> {
    SerializedFileReader::new(made.data.clone()).expect("a Parquet file")
}

fn attribute(key: String, value: String) -> KeyValue {
    KeyValue { key, value: Some(AnyValue { value: Some(AnyKind::StringValue(value)) }) }
}

/// Texts that do not repeat, several MiB of them in one row group: what makes writers give a dictionary up.
fn mostly_unique() -> Made {
    let long = |number: u64| format!("{number:020}-{}", "x".repeat(40));
    let traces: Vec<_> = (0..60u64)
        .map(|trace| {
            let spans = (0..20u64).map(|span| {
                let number = trace * 100_000 + span * 1_000;
                let attributes = (0..25).map(|i| attribute(long(number + i), long(number + 500 + i))).collect();
                Span {
                    span_id: (number + 1).to_be_bytes().to_vec().into(),
                    name: long(number),
                    attributes,
                    start_time_unix_nano: 1_795_176_000_000_000_000,
                    end_time_unix_nano: 1_795_176_000_000_000_500,
                    ..Span::default()
                }
            });
            let scope_spans = vec![ScopeSpans { spans: spans.collect(), ..ScopeSpans::default() }];
            let resource = Some(Resource { attributes: vec![attribute(long(trace), long(trace))], ..Resource::default() });
            let of_resource = ResourceSpans { resource, scope_spans, ..ResourceSpans::default() };
            (TraceId::from_slice(&(trace + 1).to_be_bytes()), vec![of_resource])
        })
        .collect();
    of_otlp(BlockOptions::default(), &traces)
}

/// All pages of a column of a row group, the dictionary first.
fn pages(file: &SerializedFileReader<bytes::Bytes>, group: usize, leaf: usize) -> Vec<Page> {
    let group = file.get_row_group(group).expect("a row group");
    group.get_column_page_reader(leaf).expect("pages").map(|page| page.expect("a page")).collect()
}

/// Calls `each` with every column of every row group.
fn each_chunk(file: &SerializedFileReader<bytes::Bytes>, mut each: impl FnMut(usize, usize, &ColumnDescriptor)) {
    let schema = file.metadata().file_metadata().schema_descr();
    for group in 0..file.num_row_groups() {
        for leaf in 0..schema.num_columns() {
            each(group, leaf, &schema.column(leaf));
        }
    }
}

fn texts(file: &SerializedFileReader<bytes::Bytes>, group: usize, leaf: usize) -> Vec<ByteArray> {
    let group = file.get_row_group(group).expect("a row group");
    let Ok(ColumnReader::ByteArrayColumnReader(mut reader)) = group.get_column_reader(leaf) else { panic!("a text column") };
    let (mut values, mut def, mut rep) = (Vec::new(), Vec::new(), Vec::new());
    while reader.read_records(1 << 20, Some(&mut def), Some(&mut rep), &mut values).expect("values").0 > 0 {}
    values
}

/// The values of a column of any type, nulls left out: numbers as their little-endian bytes.
fn plain(file: &SerializedFileReader<bytes::Bytes>, group: usize, leaf: usize) -> Vec<Vec<u8>> {
    let group = file.get_row_group(group).expect("a row group");
    let (mut def, mut rep) = (Vec::new(), Vec::new());
    macro_rules! read {
        ($reader:expr, $bytes:expr) => {{
            let mut values = Vec::new();
            while $reader.read_records(1 << 20, Some(&mut def), Some(&mut rep), &mut values).expect("values").0 > 0 {}
            values.iter().map($bytes).collect()
        }};
    }
    match group.get_column_reader(leaf).expect("a column") {
        ColumnReader::BoolColumnReader(mut reader) => read!(reader, |value: &bool| vec![u8::from(*value)]),
        ColumnReader::Int32ColumnReader(mut reader) => read!(reader, |value: &i32| value.to_le_bytes().to_vec()),
        ColumnReader::Int64ColumnReader(mut reader) => read!(reader, |value: &i64| value.to_le_bytes().to_vec()),
        ColumnReader::DoubleColumnReader(mut reader) => read!(reader, |value: &f64| value.to_le_bytes().to_vec()),
        ColumnReader::ByteArrayColumnReader(mut reader) => read!(reader, |value: &ByteArray| value.data().to_vec()),
        _ => panic!("a type that no block has"),
    }
}

/// Values or bounds of one column in the order that Tempo compares them in: unsigned where the column is.
fn ordered(column: &ColumnDescriptor, mut values: Vec<Vec<u8>>) -> Vec<Vec<u8>> {
    let is_unsigned = matches!(column.converted_type(), ConvertedType::UINT_32 | ConvertedType::UINT_64);
    let double = |bytes: &[u8]| f64::from_le_bytes(bytes.try_into().expect("eight bytes"));
    let number = |bytes: &[u8]| match <[u8; 8]>::try_from(bytes) {
        Ok(bytes) => i64::from_le_bytes(bytes),
        Err(_) => i64::from(i32::from_le_bytes(bytes.try_into().expect("four bytes"))),
    };
    match column.physical_type() {
        Type::BYTE_ARRAY | Type::BOOLEAN => values.sort(),
        Type::DOUBLE => values.sort_by(|a, b| double(a).total_cmp(&double(b))),
        _ if is_unsigned => values.sort_by_key(|value| number(value).cast_unsigned()),
        _ => values.sort_by_key(|value| number(value)),
    }
    values
}

fn with_page_index(made: &Made) -> ParquetMetaData {
    ParquetMetaDataReader::new()
        .with_column_index_policy(PageIndexPolicy::Skip)
        .with_offset_index_policy(PageIndexPolicy::Required)
        .parse_and_finish(&made.data)
        .expect("an offset index")
}

/// Position, path, types, repetition and levels.
fn described(schema: &SchemaDescriptor) -> Vec<String> {
    let describe = |column: &ColumnDescriptor| {
        format!(
            "{} {} {:?} {:?} {:?} r{} d{}",
            column.path().string(),
            column.physical_type(),
            column.converted_type(),
            column.logical_type_ref(),
            column.self_type().get_basic_info().repetition(),
            column.max_rep_level(),
            column.max_def_level(),
        )
    };
    schema.columns().iter().map(|column| describe(column)).collect()
}

/// 17.1: trace-by-id and compaction pair columns by position, so a leaf too few shifts all that follow.
#[test]
fn every_leaf_is_where_and_what_it_is_in_a_real_block() {
    let (ours, real) = (file(&of_every_case(BlockOptions::default())), SerializedFileReader::new(data("v4-edge-default")).expect("a file"));
    let of = |file: &SerializedFileReader<bytes::Bytes>| described(file.metadata().file_metadata().schema_descr());
    for (position, (ours, real)) in of(&ours).iter().zip(of(&real)).enumerate() {
        assert_eq!(*ours, real, "column {position}");
    }
    assert_eq!((of(&ours).len(), of(&real).len()), (103, 103));
    // The groups between, and the name of the root.
    let printed = |file: &SerializedFileReader<bytes::Bytes>| {
        let mut out = Vec::new();
        parquet::schema::printer::print_schema(&mut out, file.metadata().file_metadata().schema());
        String::from_utf8(out).expect("text")
    };
    assert_eq!(printed(&ours), printed(&real));
    // A block has all of them, whatever its columns are configured to be.
    let none = of_every_case(BlockOptions { dedicated_columns: Vec::new(), ..BlockOptions::default() });
    assert_eq!(of(&file(&none)), of(&real));
}

/// 17.2: tag names are listed from these dictionaries alone.
#[test]
fn attribute_keys_are_always_in_a_dictionary() {
    for made in [of_every_case(small_groups()), mostly_unique()] {
        let file = file(&made);
        let mut with_values = 0;
        each_chunk(&file, |group, leaf, column| {
            if column.name() != "Key" || texts(&file, group, leaf).is_empty() {
                return;
            }
            with_values += 1;
            let pages = pages(&file, group, leaf);
            assert_eq!(pages[0].page_type(), PageType::DICTIONARY_PAGE, "{}", column.path());
            assert!(pages[1..].iter().all(|page| page.encoding() == Encoding::RLE_DICTIONARY), "{}", column.path());
        });
        assert!(with_values >= 2);
    }
}

/// 17.2: from the dictionary Tempo decides for the whole chunk.
#[test]
fn no_chunk_mixes_pages_with_and_without_the_dictionary() {
    for made in [of_every_case(small_groups()), mostly_unique()] {
        let file = file(&made);
        let mut large = 0;
        each_chunk(&file, |group, leaf, column| {
            let pages = pages(&file, group, leaf);
            let (dictionaries, data): (Vec<&Page>, Vec<&Page>) = pages.iter().partition(|p| p.page_type() == PageType::DICTIONARY_PAGE);
            let encodings: BTreeSet<_> = data.iter().map(|page| page.encoding().to_string()).collect();
            assert_eq!(encodings.len(), 1, "{}: {encodings:?}", column.path());
            assert_eq!(encodings.contains("RLE_DICTIONARY"), dictionaries.len() == 1, "{}", column.path());
            large += usize::from(dictionaries.iter().any(|page| page.buffer().len() > 1 << 20));
            // What the footer says is what is there.
            let chunk = file.metadata().row_group(group).column(leaf);
            assert_eq!(chunk.dictionary_page_offset().is_some(), dictionaries.len() == 1, "{}", column.path());
        });
        // Other writers give up at 1 MiB.
        assert!(large > 0 || made.meta.row_groups > 1);
    }
}

/// 17.2: every entry is reported as a tag's name or value.
#[test]
fn no_dictionary_has_an_entry_that_no_row_has() {
    for made in [of_every_case(small_groups()), mostly_unique()] {
        let file = file(&made);
        let mut dictionaries = 0;
        each_chunk(&file, |group, leaf, column| {
            let Some(Page::DictionaryPage { buf, num_values, .. }) = pages(&file, group, leaf).into_iter().next() else { return };
            let mut rest = &buf[..];
            let mut entries = BTreeSet::new();
            while !rest.is_empty() {
                let len = match column.physical_type() {
                    Type::BYTE_ARRAY => {
                        let (len, tail) = rest.split_first_chunk::<4>().expect("a length");
                        rest = tail;
                        u32::from_le_bytes(*len) as usize
                    }
                    Type::INT32 => 4,
                    _ => 8,
                };
                let (entry, tail) = rest.split_at(len);
                assert!(entries.insert(entry.to_vec()), "{}: an entry is there twice", column.path());
                rest = tail;
            }
            let values: BTreeSet<Vec<u8>> = plain(&file, group, leaf).into_iter().collect();
            assert!(entries == values && entries.len() == num_values as usize, "{}", column.path());
            dictionaries += 1;
        });
        assert!(dictionaries > 10);
    }
}

/// 17.3: both releases read these, and one page may not hold half a row.
#[test]
fn pages_are_of_a_kind_that_both_releases_read_and_begin_with_a_row() {
    for made in [of_every_case(small_groups()), mostly_unique()] {
        let file = file(&made);
        let index = with_page_index(&made);
        let mut cut = 0;
        each_chunk(&file, |group, leaf, column| {
            let chunk = file.metadata().row_group(group).column(leaf);
            assert!(matches!(chunk.compression(), Compression::UNCOMPRESSED | Compression::SNAPPY | Compression::ZSTD(_)), "{chunk:?}");
            let of_group = index.page_index_for_row_group(group);
            let locations = of_group.offset_index(leaf).expect("page locations").page_locations();
            let pages = pages(&file, group, leaf);
            let data: Vec<&Page> = pages.iter().filter(|page| page.page_type() != PageType::DICTIONARY_PAGE).collect();
            assert_eq!(data.len(), locations.len(), "{}", column.path());
            assert_eq!(locations[0].first_row_index, 0);
            assert!(locations.windows(2).all(|pair| pair[0].first_row_index < pair[1].first_row_index), "{}", column.path());
            cut += data.len() - 1;
            for page in data {
                let allowed = [
                    Encoding::PLAIN,
                    Encoding::RLE_DICTIONARY,
                    Encoding::DELTA_BINARY_PACKED,
                    Encoding::DELTA_LENGTH_BYTE_ARRAY,
                    Encoding::DELTA_BYTE_ARRAY,
                    Encoding::BYTE_STREAM_SPLIT,
                ];
                assert!(allowed.contains(&page.encoding()), "{}: {}", column.path(), page.encoding());
                if column.max_rep_level() > 0 {
                    assert_eq!(first_repetition_level(page, column.max_rep_level()), 0, "{}", column.path());
                }
            }
        });
        assert!(cut > 0 || made.meta.row_groups > 1, "a column has several pages");
    }
}

/// Of a page of either version: the level is the first of a run, or the lowest bits of packed ones.
fn first_repetition_level(page: &Page, max: i16) -> u8 {
    let levels = match page {
        Page::DataPage { buf, .. } => &buf[4..],
        Page::DataPageV2 { buf, .. } => &buf[..],
        Page::DictionaryPage { .. } => panic!("no data page"),
    };
    let is_packed = levels[0] & 1 == 1;
    let header = levels.iter().position(|byte| *byte < 0x80).expect("a number ends") + 1;
    let width = 16 - (max as u16).leading_zeros();
    if is_packed { levels[header] & ((1 << width) - 1) } else { levels[header] }
}

/// 17.3 and 6: a checksum that is there is compared.
#[test]
fn checksums_are_right_or_absent() {
    for made in [of_every_case(small_groups()), mostly_unique()] {
        let report = made.verify();
        assert_eq!(report.check("pages").expect("the check").verdict, Verdict::Ok, "{report:#?}");
    }
}

/// 17.4: Tempo 2.x reads the standard's `false` as `true`, and blob columns without bounds lose hits.
#[test]
fn there_is_no_column_index() {
    for made in [of_every_case(small_groups()), mostly_unique()] {
        let metadata = with_page_index(&made);
        let chunks = metadata.row_groups().iter().flat_map(|group| group.columns());
        assert!(chunks.clone().count() >= 103);
        for chunk in chunks {
            assert!(chunk.column_index_offset().is_none() && chunk.column_index_length().is_none(), "{}", chunk.column_path());
            assert!(chunk.offset_index_offset().is_some(), "{}", chunk.column_path());
        }
    }
}

/// 17.4: without it Tempo uses the first row group's indexes for all.
#[test]
fn row_groups_have_their_ordinal() {
    let made = of_every_case(small_groups());
    let metadata = with_page_index(&made);
    assert!(metadata.num_row_groups() > 1);
    for (index, group) in metadata.row_groups().iter().enumerate() {
        assert_eq!(group.ordinal().map(i64::from), Some(index as i64));
    }
}

/// 17.4 and 18.2: chunks are skipped by their bounds; unsigned columns are in unsigned order.
#[test]
fn bounds_of_chunks_are_true() {
    for made in [of_every_case(small_groups()), mostly_unique()] {
        let file = file(&made);
        let mut bounded = 0;
        each_chunk(&file, |group, leaf, column| {
            let Some(statistics) = file.metadata().row_group(group).column(leaf).statistics() else { return };
            let (Some(min), Some(max)) = (statistics.min_bytes_opt(), statistics.max_bytes_opt()) else {
                assert!(statistics.min_bytes_opt().is_none() && statistics.max_bytes_opt().is_none(), "{}", column.path());
                return;
            };
            let values = ordered(column, plain(&file, group, leaf));
            // The value itself, not one below or above: none is cut.
            let found = (values.first().map(Vec::as_slice), values.last().map(Vec::as_slice));
            assert_eq!(found, (Some(min), Some(max)), "row group {group}, {}", column.path());
            bounded += 1;
        });
        assert!(bounded > 4, "trace ids and times have bounds");
    }
}

/// 17.4: what has no values may be left unread, so it must have none.
#[test]
fn counts_of_nulls_are_right() {
    let made = of_every_case(small_groups());
    let file = file(&made);
    let mut counted = 0;
    each_chunk(&file, |group, leaf, column| {
        let chunk = file.metadata().row_group(group).column(leaf);
        let Some(nulls) = chunk.statistics().and_then(Statistics::null_count_opt) else { return };
        assert_eq!(chunk.num_values() as u64 - nulls, plain(&file, group, leaf).len() as u64, "{}", column.path());
        counted += 1;
    });
    assert!(counted > 100);
}

/// 17.5: readers seek, shard and skip by what the meta says.
#[test]
fn the_meta_is_exact() {
    let mut options = small_groups();
    options.bloom_shard_size_bytes = 64;
    let made = of_every_case(options);
    let (meta, len) = (&made.meta, made.data.len());
    let metadata = with_page_index(&made);
    assert_eq!(meta.size_bytes, len as u64);
    assert_eq!(meta.footer_bytes.to_le_bytes(), made.data[len - 8..len - 4]);
    assert_eq!(meta.row_groups as usize, metadata.num_row_groups());
    assert_eq!(meta.total_objects, metadata.file_metadata().num_rows() as u64);
    assert_eq!(meta.bloom_shards as usize, made.blooms.len());
    assert!(meta.bloom_shards > 1 && meta.row_groups > 1);
    let report = made.verify();
    for name in ["file", "row groups", "trace ids", "bloom filter", "index", "block times"] {
        assert_eq!(report.check(name).expect("the check").verdict, Verdict::Ok, "{report:#?}");
    }
    // Key by key what 2.x wrote, with these differences only: what the block is, and an end that is rounded up.
    let text = String::from_utf8(meta.to_json()).expect("text");
    let real = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/testdata/v4-edge-default/meta.json")).expect("a meta");
    let keys = |json: &str| -> Vec<String> {
        let json: serde_json::Map<String, serde_json::Value> = serde_json::from_str(json).expect("an object");
        json.keys().cloned().collect()
    };
    assert_eq!(keys(&text), keys(&real));
    assert!(text.contains(r#""encoding":"none""#) && text.contains(r#""dataEncoding":"""#) && text.contains(r#""format":"vParquet4""#));
    let real = BlockMeta::from_json(real.as_bytes(), "meta.json").expect("a meta");
    assert_eq!(meta.dedicated_columns, real.dedicated_columns);
    assert_eq!((meta.start_unix_nanos, meta.end_unix_nanos), (real.start_unix_nanos, real.end_unix_nanos + 1_000_000_000));
}

/// 17.5: 0 is left out, and makes 2.x answer trace lookups from the block; 1 its metrics.
#[test]
fn the_replication_factor_is_what_was_asked_for() {
    for (replication_factor, written) in [(0, false), (1, true)] {
        let made = of_every_case(BlockOptions { replication_factor, ..BlockOptions::default() });
        let json = String::from_utf8(made.meta.to_json()).expect("text");
        assert_eq!(json.contains(r#""replicationFactor":1"#), written, "{json}");
        assert_eq!(json.contains("replicationFactor"), written, "{json}");
    }
}

/// 17.6: a lookup searches row groups by their first ids, and takes the first row that fits.
#[test]
fn ids_are_sixteen_bytes_and_ascend_over_all_row_groups() {
    let made = of_every_case(small_groups());
    let file = file(&made);
    let ids: Vec<Vec<u8>> = (0..file.num_row_groups()).flat_map(|group| texts(&file, group, 0)).map(|id| id.data().to_vec()).collect();
    assert_eq!(ids.len(), 86);
    assert!(ids.iter().all(|id| id.len() == 16));
    assert!(ids.windows(2).all(|pair| pair[0] < pair[1]));
}

/// 17.6: `required` leaves have a value for every element of their list, even if the client sent nothing.
#[test]
fn required_leaves_always_have_a_value() {
    let nothing = |id: u8| Span { span_id: vec![id].into(), ..Span::default() };
    let bare = |spans| vec![ResourceSpans { scope_spans: vec![ScopeSpans { spans, ..ScopeSpans::default() }], ..ResourceSpans::default() }];
    let empty_event =
        Span { events: vec![Default::default()], links: vec![Default::default()], attributes: vec![KeyValue::default()], ..nothing(3) };
    let traces = [(TraceId([1; 16]), bare(vec![nothing(1), nothing(2)])), (TraceId([2; 16]), bare(vec![empty_event]))];
    for made in [of_otlp(BlockOptions::default(), &traces), of_every_case(small_groups())] {
        let file = file(&made);
        let schema = file.metadata().file_metadata().schema_descr();
        for group in 0..file.num_row_groups() {
            // Leaves of one list by its path; each has as many values as the others.
            let mut by_list: std::collections::BTreeMap<String, Vec<(String, usize)>> = std::collections::BTreeMap::new();
            for leaf in 0..schema.num_columns() {
                let column = schema.column(leaf);
                if column.self_type().get_basic_info().repetition() != Repetition::REQUIRED {
                    continue;
                }
                let path = column.path().string();
                let list = path.rfind(".list.element").map_or("", |end| &path[..end]).to_owned();
                let list = if path.starts_with("ServiceStats") { "ServiceStats".to_owned() } else { list };
                by_list.entry(list).or_default().push((path, plain(&file, group, leaf).len()));
            }
            for (list, leaves) in by_list {
                assert!(leaves.iter().all(|(_, count)| *count == leaves[0].1), "{list}: {leaves:?}");
                if list.is_empty() {
                    assert_eq!(leaves[0].1 as i64, file.metadata().row_group(group).num_rows());
                }
            }
        }
        let report = made.verify();
        assert!(!report.is_bad(), "{report:#?}");
    }
}

/// 17.6: structural operators, root filters and search results rely on what is derived from spans.
#[test]
fn derived_columns_are_right() {
    let report = of_every_case(small_groups()).verify();
    for check in &report.checks {
        // Not even a note: services are in order.
        assert_eq!(check.verdict, Verdict::Ok, "{check:#?}");
    }
}

/// 18.2: Tempo skips a chunk by a bound that a wrapped duration makes look negative, so such a chunk has none.
#[test]
fn a_chunk_with_a_span_that_ends_before_it_starts_has_no_bounds_of_durations() {
    let made = of_every_case(small_groups());
    let file = file(&made);
    let number = |bytes: Vec<u8>| u64::from_le_bytes(bytes.try_into().expect("eight bytes"));
    let (mut spans, mut wrapped, mut bounded) = (0, 0, 0);
    for group in 0..file.num_row_groups() {
        let leaf = Leaf::SPAN_DURATION.index();
        let durations: Vec<u64> = plain(&file, group, leaf).into_iter().map(number).collect();
        let statistics = file.metadata().row_group(group).column(leaf).statistics();
        let has_bounds = statistics.is_some_and(|statistics| statistics.min_bytes_opt().is_some() || statistics.max_bytes_opt().is_some());
        let has_wrapped = durations.iter().any(|duration| *duration > 1 << 62);
        assert_eq!(has_bounds, !has_wrapped, "row group {group}");
        spans += durations.len();
        wrapped += usize::from(has_wrapped);
        bounded += usize::from(has_bounds);
    }
    assert_eq!(spans, 537);
    assert!(wrapped > 0 && bounded > 0, "{wrapped} {bounded}");
}

/// 4: readers take the size from the object, so a small block need not carry 100 kB of zeros.
#[test]
fn the_bloom_filter_of_a_small_block_is_small() {
    let made = of_every_case(BlockOptions::default());
    assert_eq!(made.blooms.len(), 1);
    assert!(made.blooms[0].len() < 512, "{} bytes", made.blooms[0].len());
    let filter = bloom::Shard::from_bytes(&made.blooms[0]).expect("a filter");
    let absent = (0..10_000u32).filter(|i| filter.may_contain(TraceId::from_slice(&(i * 7_919 + 1).to_be_bytes()))).count();
    assert!(absent < 300, "{absent} of 10000 absent ids pass");
}

/// 6: what the reference library wants of a file.
#[test]
fn the_file_looks_like_one_of_the_reference() {
    let made = of_every_case(small_groups());
    let metadata = with_page_index(&made);
    assert_eq!((&made.data[..4], &made.data[made.data.len() - 4..]), (&b"PAR1"[..], &b"PAR1"[..]));
    assert!(metadata.file_metadata().key_value_metadata().is_none_or(Vec::is_empty));
    assert_eq!(metadata.file_metadata().schema_descr().root_schema().name(), "Trace");
    let mut end = 4;
    for group in metadata.row_groups() {
        for chunk in group.columns() {
            // One behind the other, in the order of the schema.
            let (start, len) = chunk.byte_range();
            assert_eq!(start, end, "{}", chunk.column_path());
            end = start + len;
        }
        assert!(group.num_rows() > 0);
        assert_eq!(group.compressed_size(), group.columns().iter().map(|chunk| chunk.compressed_size()).sum::<i64>());
    }
}
