//! The numbers that Parquet gives to its encodings, types and fields, under the names that it gives them.
//!
//! Source: Apache Parquet, `parquet.thrift` of the repository `parquet-format`.

/// How values or levels are encoded.
pub(crate) mod encoding {
    pub(crate) const PLAIN: i64 = 0;
    pub(crate) const PLAIN_DICTIONARY: i64 = 2;
    pub(crate) const RLE: i64 = 3;
    pub(crate) const BIT_PACKED: i64 = 4;
    pub(crate) const DELTA_BINARY_PACKED: i64 = 5;
    pub(crate) const DELTA_LENGTH_BYTE_ARRAY: i64 = 6;
    pub(crate) const DELTA_BYTE_ARRAY: i64 = 7;
    pub(crate) const RLE_DICTIONARY: i64 = 8;
    pub(crate) const BYTE_STREAM_SPLIT: i64 = 9;
}

/// What values are stored as. INT96 (3), FLOAT (4) and FIXED_LEN_BYTE_ARRAY (7) occur in no block.
pub(crate) mod physical_type {
    pub(crate) const BOOLEAN: i64 = 0;
    pub(crate) const INT32: i64 = 1;
    pub(crate) const INT64: i64 = 2;
    pub(crate) const DOUBLE: i64 = 5;
    pub(crate) const BYTE_ARRAY: i64 = 6;
}

/// Whether a value must be there, may be, or may be several times.
pub(crate) mod repetition {
    pub(crate) const REQUIRED: i64 = 0;
    pub(crate) const REPEATED: i64 = 2;
}

/// How pages are compressed.
pub(crate) mod codec {
    pub(crate) const UNCOMPRESSED: i64 = 0;
    pub(crate) const SNAPPY: i64 = 1;
    pub(crate) const GZIP: i64 = 2;
    pub(crate) const LZO: i64 = 3;
    pub(crate) const BROTLI: i64 = 4;
    pub(crate) const LZ4: i64 = 5;
    pub(crate) const ZSTD: i64 = 6;
    pub(crate) const LZ4_RAW: i64 = 7;
}

/// What a page is.
pub(crate) mod page_type {
    pub(crate) const DATA_PAGE: i64 = 0;
    pub(crate) const INDEX_PAGE: i64 = 1;
    pub(crate) const DICTIONARY_PAGE: i64 = 2;
    pub(crate) const DATA_PAGE_V2: i64 = 3;
}

/// Fields by their structs; those that are not named are passed over.
pub(crate) mod field {
    pub(crate) mod file_metadata {
        pub(crate) const SCHEMA: i16 = 2;
        pub(crate) const ROW_GROUPS: i16 = 4;
        pub(crate) const CREATED_BY: i16 = 6;
    }

    pub(crate) mod schema_element {
        pub(crate) const TYPE: i16 = 1;
        pub(crate) const REPETITION_TYPE: i16 = 3;
        pub(crate) const NAME: i16 = 4;
        pub(crate) const NUM_CHILDREN: i16 = 5;
    }

    pub(crate) mod row_group {
        pub(crate) const COLUMNS: i16 = 1;
        pub(crate) const NUM_ROWS: i16 = 3;
    }

    pub(crate) mod column_chunk {
        pub(crate) const FILE_PATH: i16 = 1;
        pub(crate) const META_DATA: i16 = 3;
        pub(crate) const OFFSET_INDEX_OFFSET: i16 = 4;
        pub(crate) const OFFSET_INDEX_LENGTH: i16 = 5;
    }

    pub(crate) mod column_metadata {
        pub(crate) const CODEC: i16 = 4;
        pub(crate) const NUM_VALUES: i16 = 5;
        pub(crate) const TOTAL_COMPRESSED_SIZE: i16 = 7;
        pub(crate) const DATA_PAGE_OFFSET: i16 = 9;
        pub(crate) const DICTIONARY_PAGE_OFFSET: i16 = 11;
        pub(crate) const STATISTICS: i16 = 12;
    }

    pub(crate) mod statistics {
        pub(crate) const NULL_COUNT: i16 = 3;
        pub(crate) const MAX_VALUE: i16 = 5;
        pub(crate) const MIN_VALUE: i16 = 6;
    }

    pub(crate) mod offset_index {
        pub(crate) const PAGE_LOCATIONS: i16 = 1;
    }

    pub(crate) mod page_location {
        pub(crate) const OFFSET: i16 = 1;
        pub(crate) const COMPRESSED_PAGE_SIZE: i16 = 2;
        pub(crate) const FIRST_ROW_INDEX: i16 = 3;
    }

    pub(crate) mod page_header {
        pub(crate) const TYPE: i16 = 1;
        pub(crate) const UNCOMPRESSED_PAGE_SIZE: i16 = 2;
        pub(crate) const COMPRESSED_PAGE_SIZE: i16 = 3;
        pub(crate) const CRC: i16 = 4;
        pub(crate) const DATA_PAGE_HEADER: i16 = 5;
        pub(crate) const DICTIONARY_PAGE_HEADER: i16 = 7;
        pub(crate) const DATA_PAGE_HEADER_V2: i16 = 8;
    }

    /// A dictionary page's header has the first two as well.
    pub(crate) mod data_page_header {
        pub(crate) const NUM_VALUES: i16 = 1;
        pub(crate) const ENCODING: i16 = 2;
        pub(crate) const DEFINITION_LEVEL_ENCODING: i16 = 3;
        pub(crate) const REPETITION_LEVEL_ENCODING: i16 = 4;
    }

    pub(crate) mod data_page_header_v2 {
        pub(crate) const NUM_VALUES: i16 = 1;
        pub(crate) const ENCODING: i16 = 4;
        pub(crate) const DEFINITION_LEVELS_BYTE_LENGTH: i16 = 5;
        pub(crate) const REPETITION_LEVELS_BYTE_LENGTH: i16 = 6;
        pub(crate) const IS_COMPRESSED: i16 = 7;
    }
}
