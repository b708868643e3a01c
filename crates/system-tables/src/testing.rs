//! Catalogs and rows of tests.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::datatypes::{Field, Schema, UInt64Type};
use tidewater_client::Catalog;
use tidewater_client::admin::NewTable;
use tidewater_common::schema::ColumnType;
use tidewater_proto::v1;

/// Returns an active upsert table.
pub(crate) fn table(table_id: u32, name: &str) -> v1::Table {
    let column = |id, name: &str| v1::Column {
        id,
        name: name.to_owned(),
        r#type: "int64".to_owned(),
        nullable: false,
        default: None,
    };
    let schema = v1::TableSchema {
        version: 1,
        columns: vec![column(1, "k")],
        primary_key: vec![1],
        time_column: None,
        next_column_id: 2,
    };
    let options =
        v1::TableOptions { write_mode: v1::WriteMode::Upsert.into(), ..Default::default() };
    v1::Table {
        table_id,
        name: name.to_owned(),
        state: v1::TableState::Active.into(),
        schema: Some(schema),
        options: Some(options),
        ..v1::Table::default()
    }
}

/// Returns a catalog of tables.
pub(crate) fn catalog(tables: Vec<v1::Table>) -> Catalog {
    let cluster_id = "00000000-0000-0000-0000-000000000001".to_owned();
    let snapshot = v1::CatalogSnapshot { cluster_id, tables, ..v1::CatalogSnapshot::default() };
    Catalog::from_snapshot(&snapshot).unwrap()
}

/// Returns rows with the columns of a definition, whose types and nulls are checked.
pub(crate) fn batch(definition: &NewTable, columns: Vec<ArrayRef>) -> RecordBatch {
    let fields = definition.columns.iter().map(|column| {
        let data_type: ColumnType = column.data_type.parse().unwrap();
        Field::new(&column.name, data_type.arrow(), column.nullable)
    });
    let schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
    RecordBatch::try_new(schema, columns).unwrap()
}

/// Returns a number of a row; `None`: null.
pub(crate) fn number(batch: &RecordBatch, column: &str, row: usize) -> Option<u64> {
    let values = batch.column_by_name(column).unwrap().as_primitive::<UInt64Type>();
    (!values.is_null(row)).then(|| values.value(row))
}

/// Returns a text of a row; `None`: null.
pub(crate) fn text<'a>(batch: &'a RecordBatch, column: &str, row: usize) -> Option<&'a str> {
    let values = batch.column_by_name(column).unwrap().as_string::<i32>();
    if values.is_null(row) { None } else { Some(values.value(row)) }
}
