use std::sync::Arc;

use arrow::array::{Int64Array, StringArray};
use tidewater_common::ids::SchemaVersion;
use tidewater_common::schema::ColumnType;

use super::*;
use crate::row_versions::{Numbers, Ops, RowOp, Stamps};

fn schema() -> TableSchema {
    let column = |id, name: &str, data_type, nullable| Column {
        id: ColumnId(id),
        name: name.to_owned(),
        data_type,
        nullable,
        default: None,
    };
    let columns = vec![
        column(1, "k", ColumnType::Int64, false),
        column(2, "s", ColumnType::Utf8, true),
        column(3, "b", ColumnType::Binary, true),
    ];
    TableSchema::new(SchemaVersion(1), columns, vec![ColumnId(1)], None, ColumnId(4)).unwrap()
}

fn rows() -> RowVersions {
    let stamps =
        Stamps { sequences: Numbers::All(1), epochs: Numbers::All(0), ops: Ops::All(RowOp::Put) };
    let arrays: Vec<ArrayRef> = vec![
        Arc::new(Int64Array::from(vec![1, 2, 3, 4])),
        Arc::new(StringArray::from(vec![Some("a"), None, Some("b"), Some("")])),
    ];
    RowVersions::new([ColumnId(1), ColumnId(2)].into(), arrays, 4, stamps)
}

fn term(column: u32, op: CompareOp, values: &[&str]) -> Predicate {
    let values = values.iter().map(|value| (*value).to_owned()).collect();
    Predicate { column: ColumnId(column), op, values }
}

#[test]
fn filter_keeps_exactly_the_matching_rows() {
    use CompareOp::{Eq, Ge, Gt, In, IsNotNull, IsNull, Le, Lt, Ne};
    let cases: Vec<(Vec<Predicate>, Vec<i64>)> = vec![
        (vec![], vec![1, 2, 3, 4]),
        (vec![term(1, Eq, &["2"])], vec![2]),
        (vec![term(1, Ne, &["2"])], vec![1, 3, 4]),
        (vec![term(1, Lt, &["2"])], vec![1]),
        (vec![term(1, Le, &["2"])], vec![1, 2]),
        (vec![term(1, Gt, &["2"])], vec![3, 4]),
        (vec![term(1, Ge, &["2"])], vec![2, 3, 4]),
        (vec![term(1, In, &["4", "1", "9"])], vec![1, 4]),
        (vec![term(2, IsNull, &[])], vec![2]),
        (vec![term(2, IsNotNull, &[])], vec![1, 3, 4]),
        // A comparison with null never holds, not even "not equal".
        (vec![term(2, Ne, &["a"])], vec![3, 4]),
        (vec![term(2, In, &["", "b"])], vec![3, 4]),
        (vec![term(1, Gt, &["1"]), term(2, Ge, &["a"])], vec![3]),
    ];
    for (terms, expected) in cases {
        let filter = Filter::bind(&schema(), &terms).unwrap();
        let kept = filter.apply(rows()).unwrap();
        let keys = kept.arrays()[0].as_any().downcast_ref::<Int64Array>().unwrap();
        assert_eq!(keys.values().to_vec(), expected, "{terms:?}");
    }
}

#[test]
fn invalid_predicates_are_refused() {
    let cases = [
        (term(9, CompareOp::Eq, &["1"]), "column id 9"),
        (term(1, CompareOp::Eq, &["x"]), "column \"k\": \"x\" is not a valid int64"),
        (term(1, CompareOp::Eq, &["99999999999999999999"]), "is not a valid int64"),
        (term(1, CompareOp::Eq, &[]), "has 0 values"),
        (term(1, CompareOp::Lt, &["1", "2"]), "has 2 values"),
        (term(2, CompareOp::IsNull, &["1"]), "has 1 values"),
        (term(3, CompareOp::Eq, &["0g"]), "use hexadecimal digits"),
        (term(3, CompareOp::Eq, &["000"]), "use hexadecimal digits"),
    ];
    for (predicate, expected) in cases {
        match Filter::bind(&schema(), &[predicate]) {
            Err(EngineError::BadRows { detail }) => {
                assert!(detail.contains(expected), "{detail}");
            }
            other => panic!("{expected}: {other:?}"),
        }
    }
}
