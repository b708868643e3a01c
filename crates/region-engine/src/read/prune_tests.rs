use std::sync::Arc;

use arrow::array::*;
use arrow::datatypes::TimeUnit;
use tidewater_common::ids::{ColumnId, SchemaVersion};
use tidewater_common::schema::{Column, ColumnType, TableSchema};

use super::super::filter::{Filter, Predicate};
use super::*;

fn term(data_type: ColumnType, op: CompareOp, values: &[&str]) -> Term {
    let column = |id, data_type, nullable| Column {
        id: ColumnId(id),
        name: format!("c{id}"),
        data_type,
        nullable,
        default: None,
    };
    let columns = vec![column(1, ColumnType::Int8, false), column(2, data_type, true)];
    let schema =
        TableSchema::new(SchemaVersion(1), columns, vec![ColumnId(1)], None, ColumnId(3)).unwrap();
    let values = values.iter().map(|value| (*value).to_owned()).collect();
    let predicate = Predicate { column: ColumnId(2), op, values };
    Filter::bind(&schema, &[predicate]).unwrap().terms()[0].clone()
}

fn bounds(min: impl Array + 'static, max: impl Array + 'static) -> ColumnBounds {
    ColumnBounds {
        mins: Arc::new(min),
        maxes: Arc::new(max),
        nulls: vec![Some(0)],
        rows: vec![10],
        nan_free: true,
    }
}

fn admitted(data_type: &ColumnType, op: CompareOp, values: &[&str], bounds: &ColumnBounds) -> bool {
    let results = admits(&term(data_type.clone(), op, values), bounds);
    assert_eq!(results.len(), 1);
    results[0]
}

use CompareOp::{Eq, Ge, Gt, In, IsNotNull, IsNull, Le, Lt, Ne};

type Case<'a> = (CompareOp, &'a [&'a str], bool);

fn check(data_type: ColumnType, bounds: &ColumnBounds, cases: &[Case<'_>]) {
    for (op, values, expected) in cases {
        let actual = admitted(&data_type, *op, values, bounds);
        assert_eq!(actual, *expected, "{data_type}: {op:?} {values:?}");
    }
}

#[test]
fn number_bounds_admit_matching_terms() {
    let cases: &[Case<'_>] = &[
        (Eq, &["-6"], false),
        (Eq, &["-5"], true),
        (Eq, &["7"], true),
        (Eq, &["8"], false),
        (Ne, &["-5"], true),
        (Lt, &["-5"], false),
        (Lt, &["-4"], true),
        (Le, &["-6"], false),
        (Le, &["-5"], true),
        (Gt, &["7"], false),
        (Gt, &["6"], true),
        (Ge, &["8"], false),
        (Ge, &["7"], true),
        (In, &[], false),
        (In, &["-9", "9"], false),
        (In, &["-9", "0"], true),
        (IsNull, &[], false),
        (IsNotNull, &[], true),
    ];
    check(ColumnType::Int32, &bounds(Int32Array::from(vec![-5]), Int32Array::from(vec![7])), cases);
    let nanos = |v| TimestampNanosecondArray::from(vec![v]);
    let data_type = ColumnType::Timestamp(TimeUnit::Nanosecond, None);
    let at = |ns: &str| format!("1970-01-01T00:00:00.{ns}");
    check(
        data_type,
        &bounds(nanos(5), nanos(7)),
        &[
            (Lt, &[&at("000000005")], false),
            (Lt, &[&at("000000006")], true),
            (Gt, &[&at("000000007")], false),
            (Eq, &[&at("000000006")], true),
        ],
    );
    let zoned = |v| TimestampSecondArray::from(vec![v]).with_timezone("+01:00");
    check(
        ColumnType::Timestamp(TimeUnit::Second, Some("+01:00".into())),
        &bounds(zoned(0), zoned(60)),
        &[(Ge, &["1970-01-01T01:01:00+01:00"], true), (Ge, &["1970-01-01T01:01:01+01:00"], false)],
    );
    let decimal = |v| Decimal128Array::from(vec![v]).with_precision_and_scale(9, 2).unwrap();
    check(
        ColumnType::Decimal128(9, 2),
        &bounds(decimal(-150), decimal(250)),
        &[
            (Lt, &["-1.50"], false),
            (Le, &["-1.50"], true),
            (Gt, &["2.49"], true),
            (Eq, &["2.51"], false),
        ],
    );
    let date = |v| Date32Array::from(vec![v]);
    let cases: &[Case<'_>] = &[(Eq, &["1970-01-01"], true), (Gt, &["1970-01-02"], false)];
    check(ColumnType::Date32, &bounds(date(0), date(1)), cases);
    let flag = |v| BooleanArray::from(vec![v]);
    let cases: &[Case<'_>] =
        &[(Eq, &["true"], false), (Ne, &["false"], false), (Eq, &["false"], true)];
    check(ColumnType::Bool, &bounds(flag(false), flag(false)), cases);
}

#[test]
fn unsigned_bounds_are_compared_as_unsigned() {
    let high = u64::MAX - 1;
    let bounds = bounds(UInt64Array::from(vec![3]), UInt64Array::from(vec![high]));
    check(
        ColumnType::UInt64,
        &bounds,
        &[
            (Gt, &["9223372036854775808"], true),
            (Gt, &["18446744073709551614"], false),
            (Lt, &["3"], false),
            (Eq, &["18446744073709551615"], false),
        ],
    );
}

#[test]
fn equal_bounds_exclude_not_equal_terms() {
    let single = bounds(StringArray::from(vec!["a"]), StringArray::from(vec!["a"]));
    check(ColumnType::Utf8, &single, &[(Ne, &["a"], false), (Ne, &["b"], true)]);
}

/// A truncated minimum is below the lowest value, a truncated maximum above the highest.
#[test]
fn truncated_bounds_still_exclude_ranges() {
    // Values from "abcd" to "abzz", stored as two bytes: "ab" and "ac".
    let cut = bounds(StringArray::from(vec!["ab"]), StringArray::from(vec!["ac"]));
    check(
        ColumnType::Utf8,
        &cut,
        &[
            (Eq, &["abcd"], true),
            (Eq, &["ab"], true),
            (Lt, &["ab"], false),
            (Ge, &["ac"], true),
            (Gt, &["ac"], false),
            (Ne, &["ab"], true),
            (Eq, &["b"], false),
        ],
    );
    let bytes = |v: &[u8]| BinaryArray::from(vec![v]);
    check(
        ColumnType::Binary,
        &bounds(bytes(&[0x7f, 0xff]), bytes(&[0x80])),
        &[
            (Eq, &["7fff01"], true),
            (Gt, &["80"], false),
            (Eq, &["ff"], false),
            (Lt, &["01"], false),
        ],
    );
}

#[test]
fn unknown_bounds_admit_every_term() {
    let all: &[Case<'_>] = &[
        (Eq, &["1"], true),
        (Ne, &["1"], true),
        (Lt, &["1"], true),
        (Le, &["1"], true),
        (Gt, &["1"], true),
        (Ge, &["1"], true),
        (In, &["1"], true),
        (IsNull, &[], true),
        (IsNotNull, &[], true),
    ];
    let none = || Int32Array::from(vec![None]);
    let unknown = ColumnBounds { nulls: vec![None], ..bounds(none(), none()) };
    check(ColumnType::Int32, &unknown, all);
    // More nulls than rows: the count is invalid.
    let absurd = ColumnBounds { nulls: vec![Some(11)], ..bounds(none(), none()) };
    check(ColumnType::Int32, &absurd, all);
    // Statistics of another type than the column's.
    let other = bounds(Int64Array::from(vec![5]), Int64Array::from(vec![6]));
    check(ColumnType::Int32, &other, &[(Eq, &["1"], true), (Lt, &["1"], true)]);
    // One side only.
    let above = bounds(Int32Array::from(vec![5]), none());
    check(
        ColumnType::Int32,
        &above,
        &[(Lt, &["5"], false), (Eq, &["4"], false), (Gt, &["9"], true)],
    );
    check(ColumnType::Int32, &above, &[(Ne, &["5"], true), (Eq, &["5"], true)]);
}

#[test]
fn null_ranges_match_no_comparison() {
    let none = || Int32Array::from(vec![None]);
    let nulls = ColumnBounds { nulls: vec![Some(10)], ..bounds(none(), none()) };
    check(
        ColumnType::Int32,
        &nulls,
        &[(Eq, &["1"], false), (Ne, &["1"], false), (IsNull, &[], true), (IsNotNull, &[], false)],
    );
    let some = ColumnBounds {
        nulls: vec![Some(3)],
        ..bounds(Int32Array::from(vec![1]), Int32Array::from(vec![1]))
    };
    check(
        ColumnType::Int32,
        &some,
        &[(IsNull, &[], true), (Ne, &["1"], false), (Eq, &["1"], true)],
    );
}

#[test]
fn nan_is_outside_every_bound() {
    let floats = |v| Float64Array::from(vec![v]);
    let cases: &[Case<'_>] =
        &[(Gt, &["2"], false), (Lt, &["1"], false), (Eq, &["NaN"], false), (Lt, &["NaN"], true)];
    check(ColumnType::Float64, &bounds(floats(1.0), floats(2.0)), cases);
    // A NaN may be among the values: above 2, or below 1.
    let uncertain = ColumnBounds { nan_free: false, ..bounds(floats(1.0), floats(2.0)) };
    let cases: &[Case<'_>] =
        &[(Gt, &["2"], true), (Lt, &["1"], true), (Eq, &["NaN"], true), (IsNull, &[], false)];
    check(ColumnType::Float64, &uncertain, cases);
    // A bound that is NaN.
    let useless = bounds(floats(f64::NAN), floats(f64::NAN));
    check(ColumnType::Float64, &useless, &[(Lt, &["0"], true), (Eq, &["7"], true)]);
    // Zeros of either sign.
    let zero = bounds(floats(0.0), floats(-0.0));
    check(ColumnType::Float64, &zero, &[(Eq, &["-0.0"], true), (Eq, &["0.0"], true)]);
    check(ColumnType::Float64, &zero, &[(Lt, &["0.0"], true), (Gt, &["-0.0"], true)]);
    let small = |v| Float32Array::from(vec![v]);
    let zero = bounds(small(0.0), small(-0.0));
    check(ColumnType::Float32, &zero, &[(Lt, &["0.0"], true), (Ne, &["0.0"], true)]);
}

#[test]
fn row_ranges_are_pruned_independently() {
    let bounds = ColumnBounds {
        mins: Arc::new(Int32Array::from(vec![Some(0), Some(10), None, Some(20)])),
        maxes: Arc::new(Int32Array::from(vec![Some(9), Some(19), None, Some(29)])),
        nulls: vec![Some(0), Some(5), None, Some(10)],
        rows: vec![10; 4],
        nan_free: false,
    };
    let results = admits(&term(ColumnType::Int32, Ge, &["15"]), &bounds);
    assert_eq!(results, [false, true, true, false]);
}
