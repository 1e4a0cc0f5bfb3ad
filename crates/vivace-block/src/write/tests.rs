//! What is written, as an independent reader sees it.

use std::collections::BTreeMap;

use bytes::Bytes;
use parquet::basic::{Encoding, PageType};
use parquet::file::metadata::{PageIndexPolicy, ParquetMetaDataReader};
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::record::Row as Record;
use vivace_core::wire::{put_bytes, put_key, put_varint};

use super::*;
use crate::testdata::{EDGE_A, EQUAL_KEYS, TWO_PARTS, traces};

fn write(options: BlockOptions, traces: &BTreeMap<TraceId, Vec<SpanRef<'_>>>) -> FinishedBlock<Vec<u8>> {
    let block_id = "fe34adef-c8eb-4b04-8d80-f7775f3e83ba".parse().expect("a UUID");
    let mut writer = BlockWriter::new(options, TenantId::single(), block_id, Vec::new(), traces.len() as u64).expect("starts");
    for (id, spans) in traces {
        writer.push_trace(*id, spans).expect("takes the trace");
    }
    writer.finish().expect("finishes")
}

fn records(file: &Bytes) -> Vec<Record> {
    let reader = SerializedFileReader::new(file.clone()).expect("a Parquet file");
    reader.get_row_iter(None).expect("rows").map(|row| row.expect("a row")).collect()
}

/// Compares what an independent reader assembles from our levels and values with what it assembles from the reference's.
#[test]
fn an_independent_reader_sees_the_references_rows() {
    let traces = traces(EDGE_A);
    let ours = records(&write(BlockOptions::default(), &traces).out.into());
    let reference = records(&Bytes::from_static(include_bytes!("../../testdata/v4-edge-default/data.parquet")));
    assert_eq!(ours.len(), reference.len());
    let mut compared = 0;
    for ((ours, reference), id) in ours.iter().zip(&reference).zip(traces.keys()) {
        // Spans are in another order, or others of equal keys count; the tests of rows look into these.
        if ![TWO_PARTS, EQUAL_KEYS].contains(&id.to_string().as_str()) {
            assert_eq!(ours.to_string(), reference.to_string(), "trace {id}");
            compared += 1;
        }
    }
    assert_eq!(compared, 84);
}

#[test]
fn row_groups_do_not_change_rows() {
    let traces = traces(EDGE_A);
    let one = write(BlockOptions::default(), &traces);
    let options = BlockOptions { row_group_traces: 7, row_group_otlp_bytes: 8, zstd_level: 3, ..BlockOptions::default() };
    let many = write(options, &traces);
    assert_eq!(one.meta.row_groups, 1);
    assert_eq!(many.meta.row_groups, 86);
    let text = |records: Vec<Record>| records.iter().map(Record::to_string).collect::<Vec<_>>();
    assert_eq!(text(records(&one.out.into())), text(records(&many.out.into())));
    let index = RowGroupIndex::from_json(&many.index).expect("an index");
    assert!(index.last_ids.iter().eq(traces.keys()));
}

#[test]
fn the_meta_describes_the_file() {
    let traces = traces(EDGE_A);
    let options =
        BlockOptions { row_group_size_bytes: 12_000, bloom_shard_size_bytes: 64, replication_factor: 1, ..BlockOptions::default() };
    let block = write(options, &traces);
    let meta = &block.meta;
    let file = Bytes::from(block.out);
    let reader = SerializedFileReader::new(file.clone()).expect("a Parquet file");
    assert_eq!(meta.size_bytes, file.len() as u64);
    assert_eq!(meta.footer_bytes.to_le_bytes(), file[file.len() - 8..file.len() - 4]);
    assert_eq!(meta.row_groups as usize, reader.num_row_groups());
    assert!(meta.row_groups > 1);
    assert_eq!(meta.total_objects, 86);
    assert_eq!(reader.metadata().file_metadata().num_rows(), 86);
    assert_eq!(meta.bloom_shards as usize, block.blooms.len());
    assert_eq!(crate::rfc3339(meta.start_unix_nanos), "2026-11-20T12:00:00Z");
    assert_eq!(meta.dedicated_columns.len(), 5);
    assert_eq!(meta.replication_factor, 1);
    assert_eq!(BlockMeta::from_json(&meta.to_json(), "meta.json").as_ref(), Ok(meta));
    for id in traces.keys() {
        let shard = &block.blooms[bloom::shard_of(*id, meta.bloom_shards) as usize];
        assert!(bloom::Shard::from_bytes(shard).expect("a filter").may_contain(*id));
    }
}

/// A span with `attrs` texts under changing keys.
fn span(id: u64, attrs: usize) -> Vec<u8> {
    let mut out = Vec::new();
    put_bytes(&mut out, 2, &id.to_be_bytes());
    put_bytes(&mut out, 5, b"work");
    put_varint(&mut out, 7 << 3 | 1);
    out.extend((1_795_176_000_000_000_000 + id).to_le_bytes());
    put_varint(&mut out, 8 << 3 | 1);
    out.extend((1_795_176_000_000_000_000 + 2 * id).to_le_bytes());
    for i in 0..attrs {
        let (mut value, mut attr) = (Vec::new(), Vec::new());
        put_bytes(&mut value, 1, format!("value {id} {i}").as_bytes());
        put_bytes(&mut attr, 1, format!("key {i}").as_bytes());
        put_bytes(&mut attr, 2, &value);
        put_bytes(&mut out, 9, &attr);
    }
    out
}

#[test]
fn pages_are_cut_between_rows_and_never_mix_encodings() {
    let spans: Vec<Vec<Vec<u8>>> = (0..700).map(|t| (0..30).map(|s| span(t * 100 + s, 5)).collect()).collect();
    fn refs(spans: &[Vec<u8>]) -> Vec<SpanRef<'_>> {
        spans.iter().map(|span| SpanRef { resource: &[], scope: &[], span }).collect()
    }
    let traces = spans.iter().enumerate().map(|(i, spans)| (TraceId::from_slice(&(i as u32 + 1).to_be_bytes()), refs(spans))).collect();
    let file = Bytes::from(write(BlockOptions::default(), &traces).out);
    let metadata = ParquetMetaDataReader::new()
        .with_column_index_policy(PageIndexPolicy::Skip)
        .with_offset_index_policy(PageIndexPolicy::Required)
        .parse_and_finish(&file)
        .expect("an offset index");
    // A column index that a reader could misjudge is left out.
    assert!(metadata.row_groups().iter().flat_map(|g| g.columns()).all(|c| c.column_index_offset().is_none()));
    let index = metadata.page_index_for_row_group(0);
    let pages = |leaf: Leaf| index.offset_index(leaf.index()).expect("an offset index").page_locations();
    assert!(pages(Leaf::SPAN_ID).len() > 3);
    assert!(pages(Leaf::SPAN_ATTRS.key).len() > 2);
    for leaf in Leaf::all() {
        let rows: Vec<i64> = pages(leaf).iter().map(|page| page.first_row_index).collect();
        assert!(rows[0] == 0 && rows.windows(2).all(|pair| pair[0] < pair[1]), "{}", leaf.column().path());
    }
    let reader = SerializedFileReader::new(file).expect("a Parquet file");
    let row_group = reader.get_row_group(0).expect("a row group");
    for leaf in Leaf::all() {
        let mut encodings = Vec::new();
        let mut rows = 0;
        let mut pages = row_group.get_column_page_reader(leaf.index()).expect("pages");
        while let Some(page) = pages.get_next_page().expect("a page") {
            if page.page_type() == PageType::DATA_PAGE {
                encodings.push(page.encoding());
            }
            rows += usize::from(page.page_type() == PageType::DATA_PAGE);
        }
        encodings.dedup();
        assert_eq!(encodings.len(), 1, "{}", leaf.column().path());
        assert_eq!(rows, index.offset_index(leaf.index()).expect("an offset index").page_locations().len());
        let expected = match leaf {
            _ if leaf == Leaf::SPAN_ATTRS.key || leaf == Leaf::SPAN_NAME => Encoding::RLE_DICTIONARY,
            _ if leaf == Leaf::SPAN_ATTRS.string => Encoding::DELTA_LENGTH_BYTE_ARRAY,
            _ => continue,
        };
        assert_eq!(encodings[0], expected, "{}", leaf.column().path());
    }
}

#[test]
fn traces_out_of_order_are_refused() {
    let span = span(1, 0);
    let refs = [SpanRef { resource: &[], scope: &[], span: &span }];
    let mut writer = BlockWriter::new(BlockOptions::default(), TenantId::single(), BlockId::default(), Vec::new(), 1).expect("starts");
    writer.push_trace(TraceId([2; 16]), &refs).expect("the first");
    assert!(matches!(writer.push_trace(TraceId([2; 16]), &refs), Err(WriteError::Order { .. })));
    assert!(matches!(writer.push_trace(TraceId([1; 16]), &refs), Err(WriteError::Order { .. })));
    assert_eq!(writer.finish().expect("the first is kept").meta.total_objects, 1);
}

#[test]
fn bytes_that_are_no_span_are_left_out_and_counted() {
    let good = span(1, 2);
    let mut bad = span(2, 0);
    // An attribute that ends inside its value.
    put_key(&mut bad, 9, 4);
    bad.extend([0x12, 9, 0, 0]);
    fn refs(span: &[u8]) -> SpanRef<'_> {
        SpanRef { resource: &[], scope: &[], span }
    }
    let mut writer = BlockWriter::new(BlockOptions::default(), TenantId::single(), BlockId::default(), Vec::new(), 1).expect("starts");
    writer.push_trace(TraceId([1; 16]), &[refs(&bad), refs(&good)]).expect("the good one");
    writer.push_trace(TraceId([2; 16]), &[refs(&bad)]).expect("nothing");
    writer.push_trace(TraceId([3; 16]), &[SpanRef { resource: &[0xff], scope: &[], span: &good }]).expect("nothing");
    let block = writer.finish().expect("a block");
    assert_eq!((block.meta.total_objects, block.spans, block.invalid_spans), (1, 1, 3));
    let empty = BlockWriter::new(BlockOptions::default(), TenantId::single(), BlockId::default(), Vec::new(), 1).expect("starts");
    assert!(matches!(empty.finish(), Err(WriteError::Empty { invalid_spans: 0 })));
}

/// Clients send again, and some number their spans badly.
#[test]
fn of_spans_with_one_id_and_kind_the_first_stays_and_others_are_counted() {
    let (first, mut other) = (span(1, 2), span(1, 2));
    put_bytes(&mut other, 5, b"another name");
    fn refs(span: &[u8]) -> SpanRef<'_> {
        SpanRef { resource: &[], scope: &[], span }
    }
    let mut writer = BlockWriter::new(BlockOptions::default(), TenantId::single(), BlockId::default(), Vec::new(), 1).expect("starts");
    writer.push_trace(TraceId([1; 16]), &[refs(&first), refs(&first), refs(&other)]).expect("is taken");
    let block = writer.finish().expect("a block");
    assert_eq!((block.spans, block.conflicting_spans), (1, 1), "a copy is no conflict");
}

/// A disk that is full from the start, behind a buffer that takes everything.
#[test]
fn what_a_buffer_holds_back_is_written_before_a_block_is_finished() {
    struct Full;
    impl Write for Full {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::StorageFull.into())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let traces = traces(EDGE_A);
    let buffer = io::BufWriter::with_capacity(16 << 20, Full);
    let mut writer = BlockWriter::new(BlockOptions::default(), TenantId::single(), BlockId([1; 16]), buffer, 86).expect("starts");
    for (id, spans) in &traces {
        writer.push_trace(*id, spans).expect("the buffer takes it");
    }
    assert!(matches!(writer.finish(), Err(WriteError::Io { .. })));
}

/// Numbers of 32 bits are misread by Tempo where they are negative and in a dictionary; it writes none itself.
#[test]
fn numbers_of_32_bits_have_no_dictionary_as_the_reference_writes_them() {
    use parquet::basic::Type;
    let ours: Bytes = write(BlockOptions::default(), &traces(EDGE_A)).out.into();
    let reference = Bytes::from_static(include_bytes!("../../testdata/v4-edge-default/data.parquet"));
    let [ours, reference] = [ours, reference].map(|file| SerializedFileReader::new(file).expect("a Parquet file").metadata().clone());
    let mut compared = Vec::new();
    for (ours, reference) in ours.row_group(0).columns().iter().zip(reference.row_group(0).columns()) {
        let path = reference.column_path().string();
        assert_eq!(ours.column_type(), reference.column_type(), "{path}");
        if ours.column_type() != Type::INT32 {
            continue;
        }
        let encodings = |column: &parquet::file::metadata::ColumnChunkMetaData| -> Vec<Encoding> {
            column.encodings().filter(|encoding| *encoding != Encoding::RLE).collect()
        };
        assert_eq!((ours.dictionary_page_offset(), reference.dictionary_page_offset()), (None, None), "{path}");
        assert_eq!(encodings(ours), [Encoding::DELTA_BINARY_PACKED], "{path}");
        // What cannot be negative there it leaves plain.
        if encodings(reference) != [Encoding::PLAIN] {
            assert_eq!(encodings(ours), encodings(reference), "{path}");
        }
        compared.push(path.rsplit('.').next().unwrap_or_default().to_owned());
    }
    for column in ["ParentID", "NestedSetLeft", "NestedSetRight", "DroppedAttributesCount", "DroppedEventsCount", "SpanCount"] {
        assert!(compared.iter().any(|compared| compared == column), "{column} is not among {compared:?}");
    }
}
