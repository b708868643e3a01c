use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Float64Array, Int64Array, StringArray};
use arrow::datatypes::Int64Type;

use super::*;

/// Returns a batch with the columns `key`, `name` and `row`; `row` is the order of arrival.
fn batch(first: i64, rows: &[(Option<i64>, Option<&str>)]) -> RecordBatch {
    let keys: ArrayRef = Arc::new(rows.iter().map(|row| row.0).collect::<Int64Array>());
    let names: ArrayRef = Arc::new(rows.iter().map(|row| row.1).collect::<StringArray>());
    let numbers: ArrayRef = Arc::new((first..).take(rows.len()).collect::<Int64Array>());
    RecordBatch::try_from_iter_with_nullable([
        ("key", keys, true),
        ("name", names, true),
        ("row", numbers, false),
    ])
    .unwrap()
}

fn keys(texts: &[&str]) -> Vec<SortKey> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

/// Returns the values of the column `row` in sorted order.
fn sorted(batches: &[RecordBatch], by: &[&str], limit: Option<u64>) -> Vec<i64> {
    let mut sorter = RowSorter::new(&batches[0].schema(), &keys(by), limit, SORT_MEMORY).unwrap();
    for batch in batches {
        sorter.push(batch.clone()).unwrap();
    }
    rows_of(sorter)
}

fn rows_of(sorter: RowSorter) -> Vec<i64> {
    sorter
        .finish()
        .flat_map(|batch| {
            let batch = batch.unwrap();
            batch.column_by_name("row").unwrap().as_primitive::<Int64Type>().values().to_vec()
        })
        .collect()
}

#[test]
fn nulls_are_last_ascending_and_first_descending() {
    let batches = [
        batch(0, &[(Some(2), Some("b")), (None, Some("a")), (Some(1), None)]),
        batch(3, &[(Some(2), Some("a")), (Some(1), Some("c"))]),
    ];
    for (by, expected) in [
        (&["key"][..], [2, 4, 0, 3, 1]),
        (&["key:desc"], [1, 0, 3, 2, 4]),
        (&["key", "name"], [4, 2, 3, 0, 1]),
        (&["key", "name:desc"], [2, 4, 0, 3, 1]),
        (&["name", "key:desc"], [1, 3, 0, 4, 2]),
    ] {
        assert_eq!(sorted(&batches, by, None), expected, "{by:?}");
        for limit in 0..6 {
            let first = &expected[..expected.len().min(limit)];
            assert_eq!(sorted(&batches, by, Some(limit as u64)), first, "{by:?} {limit}");
        }
    }
}

#[test]
fn equal_keys_keep_the_order_of_arrival() {
    let batches: Vec<RecordBatch> = (0..50)
        .map(|number| {
            let rows: Vec<_> = (0..10).map(|row| (Some((number + row) % 3), None)).collect();
            batch(number * 10, &rows)
        })
        .collect();
    let mut expected: Vec<i64> = (0..500).collect();
    expected.sort_by_key(|row| (row / 10 + row % 10) % 3);
    assert_eq!(sorted(&batches, &["key"], None), expected);
    for limit in [1, 7, 100, 499, 500, 1_000] {
        let first = &expected[..expected.len().min(limit)];
        assert_eq!(sorted(&batches, &["key"], Some(limit as u64)), first, "{limit}");
    }
    expected.sort_by_key(|row| std::cmp::Reverse((row / 10 + row % 10) % 3));
    assert_eq!(sorted(&batches, &["key:desc"], Some(90)), expected[..90]);
}

#[test]
fn nan_is_above_infinity_and_zeros_are_equal() {
    let values = [f64::INFINITY, -f64::NAN, 0.0, f64::NAN, -0.0, -1.0];
    let floats: ArrayRef = Arc::new(Float64Array::from(values.to_vec()));
    let numbers: ArrayRef = Arc::new((0..6).collect::<Int64Array>());
    let batch = RecordBatch::try_from_iter([("key", floats), ("row", numbers)]).unwrap();
    assert_eq!(sorted(std::slice::from_ref(&batch), &["key"], None), [5, 2, 4, 0, 1, 3]);
    assert_eq!(sorted(&[batch], &["key:desc"], None), [1, 3, 0, 2, 4, 5]);
}

#[test]
fn sorter_with_limit_keeps_few_rows() {
    let schema = batch(0, &[]).schema();
    let mut sorter = RowSorter::new(&schema, &keys(&["key:desc"]), Some(10), SORT_MEMORY).unwrap();
    let mut most = 0;
    for number in 0..100 {
        // Later rows sort before earlier ones, so that each batch replaces the rows.
        let rows: Vec<_> = (0..100).map(|row| (Some(number * 100 + row), Some("text"))).collect();
        sorter.push(batch(number * 100, &rows)).unwrap();
        most = most.max(sorter.rows);
    }
    assert!(most <= 20, "{most} rows");
    assert_eq!(rows_of(sorter), (9_990..10_000).rev().collect::<Vec<_>>());
}

#[test]
fn rows_beyond_the_memory_limit_are_an_error() {
    let rows = vec![(Some(1), Some("a text of some length")); 1_000];
    let max = Size(200_000);
    let filled = |limit: Option<u64>| {
        let schema = batch(0, &[]).schema();
        let mut sorter = RowSorter::new(&schema, &keys(&["key"]), limit, max).unwrap();
        (0..20).try_for_each(|number| sorter.push(batch(number * 1_000, &rows)))?;
        Ok::<_, SortError>(rows_of(sorter).len())
    };
    for limit in [None, Some(19_000)] {
        let error = filled(limit).unwrap_err();
        assert!(matches!(&error, SortError::Memory { rows, .. } if *rows < 20_000), "{error}");
        for part in ["200000", "--limit", "--where", "--sort-memory"] {
            assert!(error.to_string().contains(part), "{error}");
        }
    }
    assert_eq!(filled(Some(1_000)).unwrap(), 1_000);
}

#[test]
fn sorted_rows_come_in_batches() {
    let rows: Vec<_> = (0..20_000).map(|row| (Some(-row), None)).collect();
    let schema = batch(0, &[]).schema();
    let mut sorter = RowSorter::new(&schema, &keys(&["key"]), None, SORT_MEMORY).unwrap();
    sorter.push(batch(0, &rows)).unwrap();
    let sizes: Vec<usize> = sorter.finish().map(|batch| batch.unwrap().num_rows()).collect();
    assert_eq!(sizes, [8_192, 8_192, 3_616]);
}
