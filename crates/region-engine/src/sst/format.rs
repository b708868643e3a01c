//! Format of our Parquet files: columns, encodings, metadata.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use parquet::basic::{Compression, Encoding, ZstdLevel};
use parquet::file::metadata::{KeyValue, SortingColumn};
use parquet::file::properties::{
    EnabledStatistics, WriterProperties, WriterPropertiesBuilder, WriterVersion,
};
use parquet::schema::types::ColumnPath;
use tidewater_common::ids::{ColumnId, RegionId};
use tidewater_common::schema::{ColumnType, FIELD_ID_KEY, TableSchema};

use super::convert::stored_type;
use super::units::StoredUnits;
use crate::EngineError;

/// Sequence of each row version (uint64).
pub const SEQUENCE_COLUMN: &str = "_tw_seq";
/// Epoch of each row version (uint64).
pub const EPOCH_COLUMN: &str = "_tw_epoch";
/// Operation of each row version (uint8): 0 put, 1 delete.
pub const OP_COLUMN: &str = "_tw_op";

/// Field ids of the internal columns. Iceberg reserves those above 2147483447 for its own columns.
pub(crate) const SEQUENCE_ID: ColumnId = ColumnId(2_147_483_401);
pub(crate) const EPOCH_ID: ColumnId = ColumnId(2_147_483_402);
pub(crate) const OP_ID: ColumnId = ColumnId(2_147_483_403);

/// Field ids of the internal columns in files of format 1, which Iceberg reserves for others:
/// 2147483645 is its position of a row, 2147483646 its path of the file.
const FORMAT_1_IDS: [(u32, ColumnId); 3] =
    [(i32::MAX as u32 - 2, SEQUENCE_ID), (i32::MAX as u32 - 1, EPOCH_ID), (i32::MAX as u32, OP_ID)];

/// Returns the column with a field id in a file of `format`.
pub(crate) fn column_of(format: u32, field_id: u32) -> ColumnId {
    let known = FORMAT_1_IDS.iter().find(|(own, _)| format == 1 && *own == field_id);
    known.map_or(ColumnId(field_id), |(_, column)| *column)
}

/// Rows of a row group. Small in tests, like those of a page, so that they cross the boundaries.
pub(crate) const ROW_GROUP_ROWS: usize = if cfg!(test) { 40 } else { 131_072 };
/// Size at which a row group ends before it has all its rows, encoded or not, in bytes: twice the
/// size of usual rows.
pub(crate) const ROW_GROUP_BYTES: usize = 32 << 20;
/// Bytes of rows that are encoded in one step: pages and row groups end only between steps.
pub(crate) const SLICE_BYTES: usize = 4 << 20;
/// Rows of a page, and of an entry of the key index.
pub(crate) const PAGE_ROWS: usize = if cfg!(test) { 8 } else { 8_192 };

/// Returns whether a row group of `rows` rows and `bytes` bytes of memory must end. It is in memory
/// until then, and rows may be wide.
pub(crate) fn group_is_full(rows: usize, bytes: usize) -> bool {
    rows >= ROW_GROUP_ROWS || bytes >= ROW_GROUP_BYTES
}

/// Key-value metadata: format of the file, a number.
pub(crate) const FORMAT_KEY: &str = "tidewater.format";
pub(crate) const REGION_KEY: &str = "tidewater.region";
pub(crate) const SCHEMA_VERSION_KEY: &str = "tidewater.schema_version";
pub(crate) const WRITER_KEY: &str = "tidewater.writer";
/// Key-value metadata: field ids of the float columns that contain a NaN, decimal, separated by
/// commas. Parquet's statistics ignore NaN, which sorts above or below all else, depending on its
/// sign. Without this list, no statistics of floats are usable.
pub(crate) const NAN_KEY: &str = "tidewater.nan_columns";
/// Key-value metadata: crc32c of every block of the data, hexadecimal.
pub(crate) const BLOCKS_KEY: &str = "tidewater.block_crc32c";
/// Key-value metadata: first row key of every [`PAGE_ROWS`] rows of each row group, hexadecimal.
pub(crate) const KEY_INDEX_KEY: &str = "tidewater.key_index";

/// The format that this release writes, and the newest that it reads. Format 1 had other field ids
/// of the internal columns and stored other units and zones of instants ([`super::convert`]).
pub(crate) const FORMAT: u32 = 2;
/// Version of the writer. The same in all tests, so that the bytes of a file can be frozen.
const WRITER: &str = if cfg!(test) { "test" } else { env!("CARGO_PKG_VERSION") };

/// Returns the columns of a file that stores its columns in these units. Deletes have nulls in all
/// but the key columns, whatever the schema allows.
pub(crate) fn file_schema(
    schema: &TableSchema,
    units: &StoredUnits,
    with_deletes: bool,
) -> SchemaRef {
    let table = schema.arrow();
    let mut fields: Vec<Field> = table
        .fields()
        .iter()
        .zip(units.iter())
        .enumerate()
        .map(|(index, (field, unit))| {
            let nullable =
                field.is_nullable() || (with_deletes && !schema.key_indices().contains(&index));
            let data_type = stored_type(field.data_type(), unit);
            field.as_ref().clone().with_nullable(nullable).with_data_type(data_type)
        })
        .collect();
    for (name, data_type, id) in [
        (SEQUENCE_COLUMN, DataType::UInt64, SEQUENCE_ID),
        (EPOCH_COLUMN, DataType::UInt64, EPOCH_ID),
        (OP_COLUMN, DataType::UInt8, OP_ID),
    ] {
        let metadata = [(FIELD_ID_KEY.to_owned(), id.to_string())].into();
        fields.push(Field::new(name, data_type, false).with_metadata(metadata));
    }
    Arc::new(Schema::new(fields))
}

/// Returns the encoding of a file. `sorting`: the file is sorted by its key columns, which is false
/// for hash-distributed tables, whose keys begin with the vnode.
pub(crate) fn properties(
    schema: &TableSchema,
    region: RegionId,
    sorting: bool,
) -> Result<WriterProperties, EngineError> {
    let level = ZstdLevel::try_new(1)
        .map_err(|error| EngineError::Internal { detail: error.to_string() })?;
    let pair = |key: &str, value: String| KeyValue::new(key.to_owned(), value);
    let builder = WriterProperties::builder()
        .set_writer_version(WriterVersion::PARQUET_1_0)
        .set_created_by(format!("tidewater {WRITER}"))
        .set_compression(Compression::ZSTD(level))
        .set_statistics_enabled(EnabledStatistics::Page)
        .set_max_row_group_row_count(Some(ROW_GROUP_ROWS))
        .set_data_page_row_count_limit(PAGE_ROWS)
        // The limit is checked between batches only.
        .set_write_batch_size(PAGE_ROWS.min(1_024))
        .set_sorting_columns(sorting.then(|| sorting_columns(schema)))
        .set_key_value_metadata(Some(vec![
            pair(FORMAT_KEY, FORMAT.to_string()),
            pair(REGION_KEY, region.to_string()),
            pair(SCHEMA_VERSION_KEY, schema.version().to_string()),
            pair(WRITER_KEY, WRITER.to_owned()),
        ]));
    let sequence = ColumnPath::new(vec![SEQUENCE_COLUMN.to_owned()]);
    Ok(with_column_encodings(builder, schema)
        .set_column_dictionary_enabled(sequence.clone(), false)
        .set_column_encoding(sequence, Encoding::DELTA_BINARY_PACKED)
        .build())
}

/// Sets the encodings of a table's columns in files that the columns have under their names.
pub fn with_column_encodings(
    builder: WriterPropertiesBuilder,
    schema: &TableSchema,
) -> WriterPropertiesBuilder {
    let columns = schema.columns().iter();
    columns.fold(builder, |builder, column| {
        let path = ColumnPath::new(vec![column.name.clone()]);
        match encoding_of(&column.data_type) {
            None => builder.set_column_dictionary_enabled(path, true),
            Some(encoding) => builder
                .set_column_dictionary_enabled(path.clone(), false)
                .set_column_encoding(path, encoding),
        }
    })
}

/// Encoding of a column; `None`: a dictionary while it is efficient. Floats hardly repeat, and a
/// dictionary costs four fifths of the writer's speed. Numbers and times are close together, which
/// suits delta encoding.
fn encoding_of(data_type: &ColumnType) -> Option<Encoding> {
    match data_type {
        ColumnType::Float32 | ColumnType::Float64 | ColumnType::Bool => Some(Encoding::PLAIN),
        ColumnType::Int32
        | ColumnType::Int64
        | ColumnType::UInt32
        | ColumnType::UInt64
        | ColumnType::Timestamp(..) => Some(Encoding::DELTA_BINARY_PACKED),
        ColumnType::Int8
        | ColumnType::Int16
        | ColumnType::UInt8
        | ColumnType::UInt16
        | ColumnType::Date32
        | ColumnType::Decimal128(..)
        | ColumnType::Utf8
        | ColumnType::Binary => None,
    }
}

/// Key columns ascending, then sequence descending.
fn sorting_columns(schema: &TableSchema) -> Vec<SortingColumn> {
    let column = |index: usize, descending: bool| {
        i32::try_from(index).ok().map(|column_idx| SortingColumn {
            column_idx,
            descending,
            nulls_first: false,
        })
    };
    schema
        .key_indices()
        .iter()
        .map(|index| column(*index, false))
        .chain([column(schema.columns().len(), true)])
        .flatten()
        .collect()
}

/// Encodes row keys as text.
pub(crate) fn encode_keys(keys: &[Vec<u8>]) -> String {
    let mut text = String::with_capacity(keys.iter().map(|key| 8 + 2 * key.len()).sum());
    for key in keys {
        push_hex(&mut text, &u32::try_from(key.len()).unwrap_or(u32::MAX).to_be_bytes());
        push_hex(&mut text, key);
    }
    text
}

/// The inverse of [`encode_keys`]; `None` for anything else.
pub(crate) fn decode_keys(text: &str) -> Option<Vec<Vec<u8>>> {
    let bytes = from_hex(text)?;
    let mut rest = bytes.as_slice();
    let mut keys = Vec::new();
    while !rest.is_empty() {
        let (length, tail) = rest.split_first_chunk::<4>()?;
        let length = usize::try_from(u32::from_be_bytes(*length)).ok()?;
        keys.push(tail.get(..length)?.to_vec());
        rest = &tail[length..];
    }
    Some(keys)
}

/// Encodes the ids of columns with a NaN as text.
pub(crate) fn encode_ids(ids: &[ColumnId]) -> String {
    let ids: Vec<String> = ids.iter().map(ToString::to_string).collect();
    ids.join(",")
}

/// The inverse of [`encode_ids`]; `None` for anything else.
pub(crate) fn decode_ids(text: &str) -> Option<Vec<ColumnId>> {
    text.split(',').filter(|_| !text.is_empty()).map(|id| id.parse().ok().map(ColumnId)).collect()
}

/// Encodes checksums as text.
pub(crate) fn encode_checksums(checksums: &[u32]) -> String {
    let mut text = String::with_capacity(8 * checksums.len());
    for checksum in checksums {
        push_hex(&mut text, &checksum.to_be_bytes());
    }
    text
}

/// The inverse of [`encode_checksums`]; `None` for anything else.
pub(crate) fn decode_checksums(text: &str) -> Option<Vec<u32>> {
    let bytes = from_hex(text)?;
    let (checksums, rest) = bytes.as_chunks::<4>();
    rest.is_empty().then(|| checksums.iter().map(|bytes| u32::from_be_bytes(*bytes)).collect())
}

fn push_hex(text: &mut String, bytes: &[u8]) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    for byte in bytes {
        text.push(char::from(DIGITS[usize::from(byte >> 4)]));
        text.push(char::from(DIGITS[usize::from(byte & 15)]));
    }
}

fn from_hex(text: &str) -> Option<Vec<u8>> {
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    let digit = |byte: u8| char::from(byte).to_digit(16);
    if !rest.is_empty() {
        return None;
    }
    pairs.iter().map(|[high, low]| u8::try_from(digit(*high)? << 4 | digit(*low)?).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn footer_text_encodings_are_frozen() {
        let keys = vec![vec![], vec![1, 0xab]];
        assert_eq!(encode_keys(&keys), "000000000000000201ab");
        assert_eq!(decode_keys("000000000000000201ab"), Some(keys));
        assert_eq!(encode_checksums(&[1, 0xdead_beef]), "00000001deadbeef");
        assert_eq!(decode_checksums("00000001deadbeef"), Some(vec![1, 0xdead_beef]));
        assert_eq!(encode_ids(&[]), "");
        assert_eq!(decode_ids(""), Some(vec![]));
        assert_eq!(encode_ids(&[ColumnId(4), ColumnId(17)]), "4,17");
        assert_eq!(decode_ids("4,17"), Some(vec![ColumnId(4), ColumnId(17)]));
    }

    #[test]
    fn internal_field_ids_are_below_those_of_iceberg() {
        let ids = [SEQUENCE_ID, EPOCH_ID, OP_ID];
        assert!(ids.iter().all(|id| id.get() <= 2_147_483_447), "{ids:?}");
        let old = [2_147_483_645, 2_147_483_646, 2_147_483_647];
        assert_eq!(old.map(|id| column_of(1, id)), ids);
        assert_eq!(old.map(|id| column_of(2, id)), old.map(ColumnId));
        for format in [1, 2] {
            assert_eq!(ids.map(|id| column_of(format, id.get())), ids);
            assert_eq!(column_of(format, 7), ColumnId(7));
        }
    }

    #[test]
    fn row_group_ends_at_row_or_memory_limit() {
        assert!(!group_is_full(ROW_GROUP_ROWS - 1, ROW_GROUP_BYTES - 1));
        assert!(group_is_full(ROW_GROUP_ROWS, 0));
        assert!(group_is_full(1, ROW_GROUP_BYTES));
    }

    #[test]
    fn invalid_footer_text_is_refused() {
        for text in ["0", "zz", "000000", "0000000201", "00000002010203ff", "ffffffff00"] {
            assert_eq!(decode_keys(text), None, "{text}");
        }
        for text in [",", "1,", "x", "-1"] {
            assert_eq!(decode_ids(text), None, "{text}");
        }
        for text in ["0", "000000", "0000000x"] {
            assert_eq!(decode_checksums(text), None, "{text}");
        }
    }
}
