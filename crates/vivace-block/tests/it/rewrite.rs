//! Files written anew by another library, row by row: in another order, under other ids, as other writers encode them.

use std::sync::Arc;

use bytes::Bytes;
use parquet::column::reader::ColumnReader;
use parquet::column::writer::ColumnWriter;
use parquet::file::properties::WriterPropertiesBuilder;
use parquet::file::reader::{FileReader as _, SerializedFileReader};
use parquet::file::writer::SerializedFileWriter;
use vivace_block::BlockMeta;
use vivace_core::TraceId;

use crate::made::Made;

/// One column of a file, cut into rows.
pub(crate) enum Rows {
    Bool(Vec<Cut<bool>>),
    I32(Vec<Cut<i32>>),
    I64(Vec<Cut<i64>>),
    F64(Vec<Cut<f64>>),
    Bytes(Vec<Cut<parquet::data_type::ByteArray>>),
}

/// A row's levels and values.
#[derive(Clone, Default)]
pub(crate) struct Cut<T> {
    definition: Vec<i16>,
    repetition: Vec<i16>,
    pub(crate) values: Vec<T>,
}

fn cut<T: Clone + Default>(max_definition: i16, (definition, repetition, values): (&[i16], &[i16], &[T])) -> Vec<Cut<T>> {
    if definition.is_empty() {
        return values.iter().map(|value| Cut { values: vec![value.clone()], ..Cut::default() }).collect();
    }
    let mut rows: Vec<Cut<T>> = Vec::new();
    let mut values = values.iter();
    for (at, level) in definition.iter().enumerate() {
        if repetition.get(at).is_none_or(|level| *level == 0) {
            rows.push(Cut::default());
        }
        let row = rows.last_mut().expect("a row");
        row.definition.push(*level);
        row.repetition.extend(repetition.get(at));
        row.values.extend((*level == max_definition).then(|| values.next().expect("a value").clone()));
    }
    rows
}

/// The rows of one column in all row groups.
pub(crate) fn rows_of(file: &SerializedFileReader<Bytes>, leaf: usize) -> Rows {
    let mut rows: Option<Rows> = None;
    for group in 0..file.num_row_groups() {
        let group = file.get_row_group(group).expect("a row group");
        let count = group.metadata().num_rows() as usize;
        let max_definition = group.metadata().column(leaf).column_descr().max_def_level();
        let (mut definition, mut repetition) = (Vec::new(), Vec::new());
        macro_rules! read {
            ($reader:ident, $kind:ident) => {{
                let mut values = Vec::new();
                $reader.read_records(count, Some(&mut definition), Some(&mut repetition), &mut values).expect("reads");
                let mut more = cut(max_definition, (&definition, &repetition, &values));
                match &mut rows {
                    Some(Rows::$kind(rows)) => rows.append(&mut more),
                    none => *none = Some(Rows::$kind(more)),
                }
            }};
        }
        match group.get_column_reader(leaf).expect("a column") {
            ColumnReader::BoolColumnReader(mut reader) => read!(reader, Bool),
            ColumnReader::Int32ColumnReader(mut reader) => read!(reader, I32),
            ColumnReader::Int64ColumnReader(mut reader) => read!(reader, I64),
            ColumnReader::DoubleColumnReader(mut reader) => read!(reader, F64),
            ColumnReader::ByteArrayColumnReader(mut reader) => read!(reader, Bytes),
            _ => panic!("no block has such a column"),
        }
    }
    rows.expect("row groups")
}

/// The rows of a block in this order, with these ids, in row groups of so many rows.
pub(crate) fn rewritten(
    made: &Made,
    order: &[usize],
    ids: Option<&[TraceId]>,
    rows_per_group: usize,
    properties: WriterPropertiesBuilder,
) -> (BlockMeta, Bytes) {
    let file = SerializedFileReader::new(made.data.clone()).expect("a file");
    let schema = file.metadata().file_metadata().schema_descr().root_schema_ptr();
    let mut columns: Vec<Rows> =
        (0..file.metadata().file_metadata().schema_descr().num_columns()).map(|leaf| rows_of(&file, leaf)).collect();
    if let Some(ids) = ids {
        let cut = |id: &TraceId| Cut { values: vec![id.0.to_vec().into()], ..Cut::default() };
        columns[0] = Rows::Bytes(ids.iter().map(cut).collect());
    }
    fn levels(levels: &[i16]) -> Option<&[i16]> {
        (!levels.is_empty()).then_some(levels)
    }
    let mut writer = SerializedFileWriter::new(Vec::new(), schema, Arc::new(properties.build())).expect("starts");
    for order in order.chunks(rows_per_group) {
        let mut group = writer.next_row_group().expect("starts");
        for column in &columns {
            let mut out = group.next_column().expect("a column").expect("a column");
            macro_rules! write {
                ($writer:ident, $rows:ident) => {
                    for row in order {
                        let Cut { definition, repetition, values } = &$rows[*row];
                        $writer.write_batch(values, levels(definition), levels(repetition)).expect("writes");
                    }
                };
            }
            match (out.untyped(), column) {
                (ColumnWriter::BoolColumnWriter(writer), Rows::Bool(rows)) => write!(writer, rows),
                (ColumnWriter::Int32ColumnWriter(writer), Rows::I32(rows)) => write!(writer, rows),
                (ColumnWriter::Int64ColumnWriter(writer), Rows::I64(rows)) => write!(writer, rows),
                (ColumnWriter::DoubleColumnWriter(writer), Rows::F64(rows)) => write!(writer, rows),
                (ColumnWriter::ByteArrayColumnWriter(writer), Rows::Bytes(rows)) => write!(writer, rows),
                _ => panic!("the types of columns do not change"),
            }
            out.close().expect("closes");
        }
        group.close().expect("closes");
    }
    let bytes = writer.into_inner().expect("finishes");
    let footer = bytes[bytes.len() - 8..][..4].try_into().map(u32::from_le_bytes).expect("a length");
    let meta = BlockMeta {
        size_bytes: bytes.len() as u64,
        footer_bytes: footer,
        row_groups: order.len().div_ceil(rows_per_group) as u32,
        total_objects: order.len() as u64,
        ..made.meta.clone()
    };
    (meta, bytes.into())
}
