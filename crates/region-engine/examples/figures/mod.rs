//! The reference table of the engine's measurements: 13 columns (two strings, a time and ten
//! doubles) of hosts that report once a second.

use std::sync::Arc;

use arrow::array::{ArrayRef, Float64Array, RecordBatch, StringArray, TimestampMillisecondArray};
use arrow::datatypes::TimeUnit;
use arrow::error::ArrowError;
use tidewater_common::ids::{ColumnId, Incarnation, RegionId, SchemaVersion, TableId};
use tidewater_common::keys::KeyRange;
use tidewater_common::schema::{Column, ColumnType, SchemaError, TableOptions, TableSchema};
use tidewater_region_engine::RegionSpec;

/// Time of the first report, in milliseconds since the Unix epoch.
pub(crate) const FIRST_MS: i64 = 1_700_000_000_000;

/// Spec of a region with the whole table, in upsert mode.
pub(crate) fn spec() -> Result<RegionSpec, SchemaError> {
    let column = |id, name: &str, data_type| Column {
        id: ColumnId(id),
        name: name.to_owned(),
        data_type,
        nullable: id > 3,
        default: None,
    };
    let mut columns = vec![
        column(1, "host", ColumnType::Utf8),
        column(2, "zone", ColumnType::Utf8),
        column(3, "ts", ColumnType::Timestamp(TimeUnit::Millisecond, None)),
    ];
    columns.extend((0..10).map(|n| column(n + 4, &format!("v{n}"), ColumnType::Float64)));
    let key = vec![ColumnId(1), ColumnId(2), ColumnId(3)];
    let schema = TableSchema::new(SchemaVersion(1), columns, key, Some(ColumnId(3)), ColumnId(14))?;
    Ok(RegionSpec {
        region_id: RegionId(1),
        table_id: TableId(1),
        incarnation: Incarnation(1),
        schema,
        options: TableOptions::upsert(),
        range: KeyRange::whole(),
        parents: Vec::new(),
    })
}

/// Name of a host.
pub(crate) fn host(number: usize) -> String {
    format!("host_{number:03}")
}

/// Returns every `step`-th of the rows `from .. to` of the table in key order: every host reports
/// once a second.
pub(crate) fn rows(
    spec: &RegionSpec,
    (from, to, step): (usize, usize, usize),
    per_host: usize,
) -> Result<RecordBatch, ArrowError> {
    let chosen = || (from..to).step_by(step);
    let hosts = chosen().map(|row| host(row / per_host));
    let zones = chosen().map(|row| format!("eu-{}", row / per_host % 4));
    let times = chosen().map(|row| FIRST_MS + (row % per_host * 1_000) as i64);
    let mut arrays: Vec<ArrayRef> = vec![
        Arc::new(StringArray::from_iter_values(hosts)),
        Arc::new(StringArray::from_iter_values(zones)),
        Arc::new(TimestampMillisecondArray::from_iter_values(times)),
    ];
    arrays.extend((0..10).map(|column| {
        let value = |row: usize| ((row * 31 + column * 17) as f64).sin() * 100.0;
        Arc::new(Float64Array::from_iter_values(chosen().map(value))) as ArrayRef
    }));
    RecordBatch::try_new(spec.schema.arrow(), arrays)
}
