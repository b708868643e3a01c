//! Sample rows of the benchmarks: time series of hosts in regions, with ten measures each.
//!
//! Row *n* is always the same row, so that several runs and readers agree on the content.

use std::sync::Arc;

use arrow::array::{ArrayRef, Float64Array, RecordBatch, StringArray, TimestampMillisecondArray};
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;
use tidewater_client::admin::{NewColumn, NewTable};
use tidewater_common::schema::WriteMode;

/// Hosts that report in turn.
const HOSTS: u64 = 1_000;
const REGIONS: u64 = 10;
/// 2024-01-01T00:00:00Z.
const START_MS: i64 = 1_704_067_200_000;
/// Time between two reports of a host.
const STEP_MS: i64 = 1_000;

/// Names of the measure columns.
pub(super) const MEASURES: [&str; 10] = [
    "usage_user",
    "usage_system",
    "usage_idle",
    "usage_nice",
    "usage_iowait",
    "usage_irq",
    "usage_softirq",
    "usage_steal",
    "usage_guest",
    "usage_guest_nice",
];

/// Definition of the table: 2 text columns, 1 timestamp, 10 doubles.
pub(super) fn table(name: &str, regions: u32, append_only: bool) -> NewTable {
    let mut columns = vec![
        NewColumn::new("host", "utf8", false),
        NewColumn::new("region", "utf8", false),
        NewColumn::new("time", "timestamp(ms)", false),
    ];
    columns.extend(MEASURES.map(|name| NewColumn::new(name, "float64", true)));
    NewTable {
        name: name.to_owned(),
        columns,
        primary_key: vec!["host".to_owned(), "time".to_owned()],
        time_column: Some("time".to_owned()),
        write_mode: if append_only { WriteMode::AppendOnly } else { WriteMode::Upsert },
        hash_columns: vec!["host".to_owned()],
        vnode_count: 0,
        regions,
        ttl_ms: None,
        compaction_window: None,
        holds_events: false,
        refresh: None,
    }
}

/// Generates the rows `first..first + count`. `keys`: number of distinct keys, after which rows have the keys of earlier ones,
/// with other measures; `None`: each row has a key of its own.
pub(super) fn rows(
    schema: &SchemaRef,
    first: u64,
    count: usize,
    keys: Option<u64>,
) -> Result<RecordBatch, ArrowError> {
    let numbers = first..first + count as u64;
    let of_keys =
        numbers.clone().map(move |n| keys.and_then(|keys| n.checked_rem(keys)).unwrap_or(n));
    let hosts = of_keys.clone().map(|n| format!("host_{:04}", n % HOSTS));
    let regions = of_keys.clone().map(|n| format!("region-{}", n % HOSTS % REGIONS));
    let times = of_keys
        .map(|n| START_MS + i64::try_from(n / HOSTS).unwrap_or(i64::MAX / STEP_MS) * STEP_MS);
    let mut columns: Vec<ArrayRef> = vec![
        Arc::new(StringArray::from_iter_values(hosts)),
        Arc::new(StringArray::from_iter_values(regions)),
        Arc::new(TimestampMillisecondArray::from_iter_values(times)),
    ];
    for measure in 0..MEASURES.len() as u64 {
        let values = numbers.clone().map(|n| value(n, measure));
        columns.push(Arc::new(Float64Array::from_iter_values(values)));
    }
    RecordBatch::try_new(schema.clone(), columns)
}

/// Returns a measure between 0 and 100 with two decimals, as monitoring data has them. It is neither
/// constant, which would compress to nothing, nor noise to the last bit.
fn value(row: u64, measure: u64) -> f64 {
    let mut bits =
        row.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ measure.wrapping_mul(0xd1b5_4a32_d192_ed03);
    bits ^= bits >> 32;
    bits = bits.wrapping_mul(0xd6e8_feb8_6659_fd93);
    bits ^= bits >> 32;
    (bits % 10_000) as f64 / 100.0
}

#[cfg(test)]
mod tests {
    use arrow::datatypes::{DataType, Field, Schema, TimeUnit};

    use super::*;

    fn schema() -> SchemaRef {
        let time = DataType::Timestamp(TimeUnit::Millisecond, None);
        let mut fields = vec![
            Field::new("host", DataType::Utf8, false),
            Field::new("region", DataType::Utf8, false),
            Field::new("time", time, false),
        ];
        fields.extend(MEASURES.map(|name| Field::new(name, DataType::Float64, true)));
        Arc::new(Schema::new(fields))
    }

    #[test]
    fn sample_row_depends_only_on_its_number() {
        let all = rows(&schema(), 0, 2_000, None).unwrap();
        let tail = rows(&schema(), 1_500, 500, None).unwrap();
        assert_eq!(all.slice(1_500, 500), tail);
        assert_eq!(all.num_columns(), 13);
    }

    #[test]
    fn rows_overwrite_keys_with_other_measures() {
        let all = rows(&schema(), 0, 100, Some(50)).unwrap();
        let keys = |first| all.slice(first, 50).project(&[0, 1, 2]).unwrap();
        assert_eq!(keys(0), keys(50));
        assert_ne!(all.slice(0, 50), all.slice(50, 50));
        assert_eq!(all.slice(0, 50), rows(&schema(), 0, 50, None).unwrap());
    }

    #[test]
    fn sample_table_has_the_columns_of_its_rows() {
        let table = table("bench", 2, false);
        let names: Vec<&str> = table.columns.iter().map(|column| column.name.as_str()).collect();
        let expected: Vec<String> =
            schema().fields().iter().map(|field| field.name().clone()).collect();
        assert_eq!(names, expected);
    }
}
