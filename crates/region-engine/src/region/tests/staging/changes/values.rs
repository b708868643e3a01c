//! Values that are equal, and those that only look so.

use std::sync::Arc;

use arrow::array::{ArrayRef, Float64Array, Int32Array, RecordBatch, StringArray};
use arrow::compute::concat_batches;
use tidewater_common::ids::{ColumnId, Epoch, SchemaVersion, Sequence};
use tidewater_common::schema::{ColumnType, TableSchema, WriteMode};

use super::*;
use crate::bulk::BulkWriter;
use crate::row_versions::RowOp;
use crate::storage::Storage;
use crate::{Region, RowsWrite};

#[tokio::test]
async fn staged_rows_of_earlier_schema_show_defaults() {
    let mut fixture = fixture(false).await;
    fixture.put(&rows(0..20));
    let area = area_of(&mut fixture, &[rows(5..15)]).await;
    fixture.alter(&[added("more")]);
    fixture.put(&rows(10..12));
    fixture.region.record_obligations().await.unwrap();
    let chunks = changes(&fixture, area, whole()).await.unwrap();
    // Two rows have another value than the default in the new column.
    let expected = ChangeCounts { updated: 2, deleted: 10, unchanged: 8, ..Default::default() };
    assert_eq!(total(&chunks), expected);
    assert_eq!(chunks[0].puts.schema(), fixture.spec.schema.arrow());
}

/// Region's value, staged value, and whether they differ.
type Case = (Option<f64>, Option<f64>, bool);

fn float_batch(schema: &TableSchema, values: &[Option<f64>]) -> RecordBatch {
    let texts = values.iter().map(|value| value.map(|value| format!("{:x}", value.to_bits())));
    let keys = Int32Array::from_iter_values((0..).zip(values).map(|(key, _)| key));
    let arrays: Vec<ArrayRef> = vec![
        Arc::new(Float64Array::from(values.to_vec())),
        Arc::new(keys),
        Arc::new(StringArray::from_iter(texts)),
    ];
    RecordBatch::try_new(schema.arrow(), arrays).unwrap()
}

#[tokio::test]
async fn nulls_and_floats_are_compared_by_bits() {
    let nan = f64::from_bits(f64::NAN.to_bits() | 1);
    let cases: [Case; 11] = [
        (None, None, false),
        (None, Some(0.0), true),
        (Some(0.0), None, true),
        (Some(0.0), Some(0.0), false),
        (Some(0.0), Some(-0.0), true),
        (Some(-0.0), Some(-0.0), false),
        (Some(f64::NAN), Some(f64::NAN), false),
        (Some(f64::NAN), Some(nan), true),
        (Some(nan), Some(nan), false),
        (Some(f64::NAN), None, true),
        (Some(1.5), Some(1.5), false),
    ];
    let columns = vec![
        column(ColumnId(1), "float", ColumnType::Float64, true),
        column(ColumnId(2), "key", ColumnType::Int32, false),
        column(ColumnId(3), "bits", ColumnType::Utf8, true),
    ];
    let schema =
        TableSchema::new(SchemaVersion(1), columns, vec![ColumnId(2)], None, ColumnId(4)).unwrap();
    let spec = crate::RegionSpec { schema: schema.clone(), ..spec(WriteMode::Upsert, false) };
    let region =
        Region::new(env(Storage::memory()), spec.clone(), Sequence(0), Sequence(0)).unwrap();
    region.take_ownership(owner(1), GROUP).await.unwrap();
    let own = float_batch(&schema, &cases.map(|case| case.0));
    let staged = float_batch(&schema, &cases.map(|case| case.1));
    let area = new_area();
    region.open_unlogged_area(area, DEADLINE).await.unwrap();
    let writer = BulkWriter::new(region.env.clone(), &spec).unwrap();
    let files = writer.write([staged.clone()]).await.unwrap();
    region.stage_files(area, &files).await.unwrap();
    let write = RowsWrite { sequence: Sequence(1), epoch: Epoch(0), op: RowOp::Put, batch: own };
    region.apply(write).unwrap();
    for in_file in [false, true] {
        if in_file {
            region.flush().await.unwrap();
        }
        let mut stream = region.staged_changes(area, whole()).await.unwrap();
        let chunk = stream.next().await.unwrap().unwrap();
        let differing =
            (0..cases.len()).filter(|row| cases[*row].2).map(|row| staged.slice(row, 1));
        let differing: Vec<RecordBatch> = differing.collect();
        assert_eq!(chunk.puts, concat_batches(&schema.arrow(), &differing).unwrap());
        assert_eq!((chunk.counts.updated, chunk.counts.unchanged), (5, 6));
    }
}
