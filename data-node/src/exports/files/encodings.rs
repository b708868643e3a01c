//! Encodings of the columns of a file.
//!
//! The engine chooses encodings by the types of columns. An export also considers the first rows of a file. If the floats
//! of a column repeat, a dictionary of them costs less time than their compression, and the file is smaller. If each text
//! of a column is different, its dictionary is work without effect.

use std::collections::HashSet;
use std::hash::Hash;

use arrow::array::{ArrayRef, AsArray, RecordBatch};
use arrow::datatypes::{DataType, Float32Type, Float64Type};
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::{WriterProperties, WriterPropertiesBuilder};
use parquet::schema::types::ColumnPath;
use tidewater_common::schema::TableSchema;
use tidewater_region_engine::sst::with_column_encodings;

/// Maximum number of rows of a row group.
const ROW_GROUP_ROWS: usize = 1 << 20;
/// Rows of a sample.
const SAMPLE_ROWS: usize = 4_096;
/// Values of a column below which a sample decides nothing.
const SAMPLE_VALUES: usize = 1_024;
/// Bytes of a dictionary of floats after which a row group continues without it. Lookups in a larger one miss the caches
/// of the processor.
const FLOAT_DICTIONARY_BYTES: usize = 256 << 10;

/// Returns the properties of a file that begins with these rows. `schema`: columns of the table.
pub(super) fn properties(schema: &TableSchema, first: &RecordBatch) -> WriterProperties {
    let builder = WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::default()))
        .set_max_row_group_row_count(Some(ROW_GROUP_ROWS));
    let builder = with_column_encodings(builder, schema);
    let sample = first.slice(0, first.num_rows().min(SAMPLE_ROWS));
    let fields = sample.schema_ref().fields().iter();
    let builder = fields.zip(sample.columns()).fold(builder, |builder, (field, column)| {
        with_dictionary(builder, ColumnPath::new(vec![field.name().clone()]), column)
    });
    builder.build()
}

/// Enables or disables the dictionary of a column as its sample demands.
fn with_dictionary(
    builder: WriterPropertiesBuilder,
    path: ColumnPath,
    sample: &ArrayRef,
) -> WriterPropertiesBuilder {
    match (sample.data_type(), Variety::of(sample)) {
        (DataType::Float32 | DataType::Float64, Some(Variety::Repeated)) => builder
            .set_column_dictionary_enabled(path.clone(), true)
            .set_column_dictionary_page_size_limit(path, FLOAT_DICTIONARY_BYTES),
        (DataType::Utf8 | DataType::Binary, Some(Variety::Distinct)) => {
            builder.set_column_dictionary_enabled(path, false)
        }
        _ => builder,
    }
}

/// Variety of the values of a column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Variety {
    /// About 14,000 different values at most, if the rows of the sample are random ones.
    Repeated,
    /// Between the others.
    Mixed,
    /// About 100,000 different values at least.
    Distinct,
}

impl Variety {
    /// Returns the variety of a sample; `None`: the sample is small, or values of its type are not counted.
    fn of(sample: &ArrayRef) -> Option<Self> {
        match sample.data_type() {
            DataType::Float32 => {
                let values = sample.as_primitive::<Float32Type>();
                Self::from_values(values.iter().flatten().map(f32::to_bits))
            }
            DataType::Float64 => {
                let values = sample.as_primitive::<Float64Type>();
                Self::from_values(values.iter().flatten().map(f64::to_bits))
            }
            DataType::Utf8 => Self::from_values(sample.as_string::<i32>().iter().flatten()),
            DataType::Binary => Self::from_values(sample.as_binary::<i32>().iter().flatten()),
            _ => None,
        }
    }

    fn from_values<T: Eq + Hash>(values: impl Iterator<Item = T>) -> Option<Self> {
        let mut number = 0;
        let distinct = values.inspect(|_| number += 1).collect::<HashSet<T>>().len();
        Self::from_counts(distinct, number)
    }

    /// Returns the variety of a number of values of which some are different.
    fn from_counts(distinct: usize, number: usize) -> Option<Self> {
        if number < SAMPLE_VALUES {
            None
        } else if distinct * 8 <= number * 7 {
            Some(Self::Repeated)
        } else if distinct * 50 <= number * 49 {
            Some(Self::Mixed)
        } else {
            Some(Self::Distinct)
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{Float64Array, Int64Array, StringArray};
    use arrow::compute::concat_batches;
    use bytes::Bytes;
    use parquet::arrow::ArrowWriter;
    use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
    use parquet::basic::{Encoding, PageType};

    use super::*;
    use crate::group::testing::schema;

    const ROWS: i64 = 50_000;

    /// Rows with these numbers of different names and measures, in the order of a pseudorandom walk.
    fn batch(names: i64, measures: i64) -> RecordBatch {
        let spread = |row: i64, of: i64| (row * 7_919) % of;
        let ids = Int64Array::from_iter_values(0..ROWS);
        let texts = (0..ROWS).map(|row| format!("name {}", spread(row, names)));
        let values = (0..ROWS).map(|row| spread(row, measures) as f64 / 100.0);
        let columns: [(&str, ArrayRef); 3] = [
            ("id", Arc::new(ids)),
            ("name", Arc::new(StringArray::from_iter_values(texts))),
            ("measure", Arc::new(Float64Array::from_iter_values(values))),
        ];
        RecordBatch::try_from_iter(columns).unwrap()
    }

    fn has_dictionary(properties: &WriterProperties, column: &str) -> bool {
        properties.dictionary_enabled(&ColumnPath::from(column))
    }

    #[test]
    fn counts_decide_the_variety() {
        assert_eq!(Variety::from_counts(1, SAMPLE_VALUES - 1), None);
        for (distinct, expected) in [
            (1, Variety::Repeated),
            (3_584, Variety::Repeated),
            (3_585, Variety::Mixed),
            (4_014, Variety::Mixed),
            (4_015, Variety::Distinct),
            (4_096, Variety::Distinct),
        ] {
            assert_eq!(Variety::from_counts(distinct, 4_096), Some(expected), "{distinct}");
        }
    }

    #[test]
    fn nulls_are_not_counted() {
        let values = (0..4_096).map(|row| (row % 8 == 0).then_some(1.0));
        let sparse: ArrayRef = Arc::new(Float64Array::from_iter(values));
        assert_eq!(Variety::of(&sparse), None);
        let ids: ArrayRef = Arc::new(Int64Array::from_iter_values(0..4_096));
        assert_eq!(Variety::of(&ids), None);
    }

    #[test]
    fn sample_enables_and_disables_dictionaries() {
        let table = schema(1);
        let repeated = properties(&table, &batch(100, 100));
        assert!(has_dictionary(&repeated, "name") && has_dictionary(&repeated, "measure"));
        let limit = repeated.column_dictionary_page_size_limit(&ColumnPath::from("measure"));
        assert_eq!(limit, FLOAT_DICTIONARY_BYTES);
        let distinct = properties(&table, &batch(ROWS, ROWS));
        assert!(!has_dictionary(&distinct, "name"));
        // Numbers keep the encoding of their type.
        for properties in [repeated, distinct] {
            assert!(!has_dictionary(&properties, "id"));
            let encoding = properties.encoding(&ColumnPath::from("id"));
            assert_eq!(encoding, Some(Encoding::DELTA_BINARY_PACKED));
        }
    }

    #[test]
    fn encoded_values_are_read_again() {
        // The floats of the last batch do not fit into the dictionary that the first rows demand.
        let batches = [batch(100, 100), batch(ROWS, ROWS)];
        let properties = properties(&schema(1), &batches[0]);
        let columns = batches[0].schema();
        let mut writer =
            ArrowWriter::try_new(Vec::new(), columns.clone(), Some(properties)).unwrap();
        for batch in &batches {
            writer.write(batch).unwrap();
        }
        let metadata = writer.finish().unwrap();
        let pages = metadata.row_group(0).column(2).page_encoding_stats().unwrap();
        let pages = pages.iter().filter(|pages| pages.page_type == PageType::DATA_PAGE);
        let measures: Vec<Encoding> = pages.map(|pages| pages.encoding).collect();
        assert_eq!(measures, [Encoding::RLE_DICTIONARY, Encoding::PLAIN]);
        let bytes = Bytes::from(std::mem::take(writer.inner_mut()));
        let reader = ParquetRecordBatchReaderBuilder::try_new(bytes).unwrap().build().unwrap();
        let read: Vec<RecordBatch> = reader.map(Result::unwrap).collect();
        let read = concat_batches(&columns, &read).unwrap();
        assert_eq!(read, concat_batches(&columns, &batches).unwrap());
    }
}
