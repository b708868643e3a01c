use tidewater_common::ids::{ColumnId, SchemaVersion};
use tidewater_common::schema::{Column, ColumnType};

use super::*;

fn table() -> TableSchema {
    let column = |id: u32, name: &str, data_type: ColumnType, nullable: bool| Column {
        id: ColumnId(id),
        name: name.into(),
        data_type,
        nullable,
        default: None,
    };
    TableSchema::new(
        SchemaVersion(1),
        vec![
            column(1, "name", ColumnType::Utf8, false),
            column(2, "count", ColumnType::Int64, true),
            column(3, "note", ColumnType::Utf8, false),
            column(4, "id", ColumnType::Utf8, false),
        ],
        vec![ColumnId(4), ColumnId(1)],
        None,
        ColumnId(5),
    )
    .unwrap()
}

#[test]
fn rows_builder_returns_a_batch() {
    let mut rows = RowsBuilder::new(&table(), 4);
    for name in ["a", "b"] {
        rows.text(name).unwrap();
        rows.empty().unwrap();
        rows.empty().unwrap();
        rows.text("k").unwrap();
        rows.end_row();
    }
    let batch = rows.finish().unwrap().unwrap();
    assert_eq!(batch.num_rows(), 2);
    assert_eq!(batch.column(1).null_count(), 2);
    assert_eq!(
        batch.column(2).null_count(),
        0,
        "an empty cell of a not null text column is the empty text"
    );
    assert!(rows.finish().unwrap().is_none());
}

#[test]
fn rows_builder_removes_bad_rows() {
    let mut rows = RowsBuilder::new(&table(), 4);
    for (name, count) in [("a", "1"), ("b", "x"), ("c", "3"), ("d", "y")] {
        rows.text(name).unwrap();
        match rows.text(count) {
            Ok(()) => {
                rows.text("n").unwrap();
                rows.text("k").unwrap();
                rows.end_row();
            }
            Err(problem) => {
                assert_eq!(problem.column, "count");
                rows.abandon_row();
            }
        }
    }
    assert_eq!(rows.rows(), 4);
    let batch = rows.finish().unwrap().unwrap();
    assert_eq!(batch.num_rows(), 2);
    assert_eq!(batch.column(1).null_count(), 0);
}

#[test]
fn rows_builder_returns_none_without_good_rows() {
    let mut rows = RowsBuilder::new(&table(), 4);
    rows.abandon_row();
    assert!(rows.finish().unwrap().is_none());
}

#[test]
fn missing_key_differs_from_missing_value() {
    let mut rows = RowsBuilder::new(&table(), 1);
    let error = rows.empty().unwrap_err();
    assert_eq!(error, CellProblem { column: "name".into(), problem: CellError::MissingKey });
    rows.text("a").unwrap();
    rows.null().unwrap();
    let error = rows.null().unwrap_err();
    assert_eq!(error, CellProblem { column: "note".into(), problem: CellError::Missing });
}

#[test]
fn key_builder_uses_primary_key_order() {
    let mut rows = RowsBuilder::for_keys(&table());
    rows.text("id1").unwrap();
    rows.text("name1").unwrap();
    rows.end_row();
    let batch = rows.finish().unwrap().unwrap();
    assert_eq!(batch.schema().field(0).name(), "id");
    assert_eq!(batch.num_columns(), 2);
}
