//! Columns as the Parquet library reads them: what the block's own reader does not hand out, or derives.

use std::sync::Arc;

use parquet::basic::Type;
use parquet::column::reader::{ColumnReader, ColumnReaderImpl};
use parquet::data_type::{ByteArray, DataType};
use parquet::errors::ParquetError;
use parquet::file::reader::{FileReader, RowGroupReader, SerializedFileReader};
use rustc_hash::FxHashMap;

use crate::{ParquetSource, ReadAt};

/// The block's file.
pub(super) struct RawFile {
    file: SerializedFileReader<ParquetSource>,
    by_path: FxHashMap<String, usize>,
}

/// One row group of it.
pub(super) struct RawGroup<'f> {
    file: &'f RawFile,
    group: Box<dyn RowGroupReader + 'f>,
}

impl RawFile {
    pub(super) fn open(source: Arc<dyn ReadAt>) -> Result<Self, ParquetError> {
        let file = SerializedFileReader::new(ParquetSource(source))?;
        let columns = file.metadata().file_metadata().schema_descr().columns().iter().enumerate();
        let by_path = columns.map(|(i, column)| (column.path().string().replace(".list.element", ""), i)).collect();
        Ok(Self { file, by_path })
    }

    pub(super) fn group(&self, index: usize) -> Result<RawGroup<'_>, ParquetError> {
        Ok(RawGroup { file: self, group: self.file.get_row_group(index)? })
    }
}

impl RawGroup<'_> {
    fn reader(&self, path: &str) -> Result<ColumnReader, ParquetError> {
        let index = self.file.by_path.get(path).ok_or_else(|| ParquetError::General(format!("there is no column {path}")))?;
        self.group.get_column_reader(*index)
    }

    fn rows(&self) -> usize {
        usize::try_from(self.group.metadata().num_rows()).unwrap_or_default()
    }

    /// The values of an integer column.
    pub(super) fn ints(&self, path: &str) -> Result<Vec<i64>, ParquetError> {
        match self.reader(path)? {
            ColumnReader::Int32ColumnReader(mut reader) => Ok(self.values(&mut reader)?.0.into_iter().map(i64::from).collect()),
            ColumnReader::Int64ColumnReader(mut reader) => Ok(self.values(&mut reader)?.0),
            other => Err(wrong_type(path, &other)),
        }
    }

    /// The values of a text column.
    pub(super) fn texts(&self, path: &str) -> Result<Vec<ByteArray>, ParquetError> {
        match self.reader(path)? {
            ColumnReader::ByteArrayColumnReader(mut reader) => Ok(self.values(&mut reader)?.0),
            other => Err(wrong_type(path, &other)),
        }
    }

    /// The values of a text column that stands in one list, and how many of them each row has.
    pub(super) fn text_lists(&self, path: &str) -> Result<(Vec<ByteArray>, Vec<usize>), ParquetError> {
        let ColumnReader::ByteArrayColumnReader(mut reader) = self.reader(path)? else {
            return Err(ParquetError::General(format!("column {path} is no text")));
        };
        let (values, def, rep) = self.values(&mut reader)?;
        let mut counts: Vec<usize> = Vec::with_capacity(self.rows());
        for (def, rep) in def.iter().zip(&rep) {
            if *rep == 0 {
                counts.push(0);
            }
            if let Some(last) = counts.last_mut() {
                *last += usize::from(*def > 0);
            }
        }
        Ok((values, counts))
    }

    #[expect(clippy::type_complexity, reason = "values, definition levels, repetition levels")]
    fn values<T: DataType>(&self, reader: &mut ColumnReaderImpl<T>) -> Result<(Vec<T::T>, Vec<i16>, Vec<i16>), ParquetError> {
        let (mut values, mut def, mut rep) = (Vec::new(), Vec::new(), Vec::new());
        loop {
            let left = self.rows();
            let (records, _, _) = reader.read_records(left.max(1), Some(&mut def), Some(&mut rep), &mut values)?;
            if records == 0 {
                return Ok((values, def, rep));
            }
        }
    }
}

fn wrong_type(path: &str, reader: &ColumnReader) -> ParquetError {
    let kind = match reader {
        ColumnReader::BoolColumnReader(_) => Type::BOOLEAN,
        ColumnReader::Int32ColumnReader(_) => Type::INT32,
        ColumnReader::Int64ColumnReader(_) => Type::INT64,
        ColumnReader::Int96ColumnReader(_) => Type::INT96,
        ColumnReader::FloatColumnReader(_) => Type::FLOAT,
        ColumnReader::DoubleColumnReader(_) => Type::DOUBLE,
        ColumnReader::ByteArrayColumnReader(_) => Type::BYTE_ARRAY,
        ColumnReader::FixedLenByteArrayColumnReader(_) => Type::FIXED_LEN_BYTE_ARRAY,
    };
    ParquetError::General(format!("column {path} has type {kind}"))
}
