use arrow::array::{
    BooleanArray, Date32Array, Decimal128Array, Float32Array, Float64Array, Int8Array, Int64Array,
    StringArray, TimestampMillisecondArray,
};
use arrow::datatypes::DataType;
use arrow::util::display::array_value_to_string;
use tidewater_common::ids::{ColumnId, Epoch, SchemaVersion, TableId};
use tidewater_common::keys::KeyCodec;
use tidewater_common::schema::{Column, TableOptions, TableSchema};
use tidewater_proto::v1::TableState;

use super::*;

const COLUMNS: [(&str, &str); 11] = [
    ("id", "int64"),
    ("small", "int8"),
    ("large", "uint64"),
    ("price", "decimal128(10, 2)"),
    ("wide", "decimal128(38, 0)"),
    ("f", "float64"),
    ("g", "float32"),
    ("name", "utf8"),
    ("at", "timestamp(ms, UTC)"),
    ("day", "date32"),
    ("flag", "bool"),
];

fn table() -> TableInfo {
    let columns = COLUMNS
        .iter()
        .zip(1..)
        .map(|((name, data_type), id)| Column {
            id: ColumnId(id),
            name: (*name).to_owned(),
            data_type: data_type.parse().unwrap(),
            nullable: id > 1,
            default: None,
        })
        .collect();
    let next = ColumnId(COLUMNS.len() as u32 + 1);
    let schema =
        TableSchema::new(SchemaVersion(1), columns, vec![ColumnId(1)], None, next).unwrap();
    let options = TableOptions::upsert();
    let codec = KeyCodec::new(&schema, &options).unwrap();
    let state = TableState::Active;
    TableInfo {
        id: TableId(1),
        name: "t".to_owned(),
        state,
        schema,
        options,
        codec,
        published: Epoch(0),
        complete: Epoch(0),
    }
}

fn of(function: ColumnFunction, column: &str) -> Aggregate {
    Aggregate::Column { function, column: column.to_owned() }
}

fn all_of(column: &str) -> Vec<Aggregate> {
    use ColumnFunction::{Avg, Count, Max, Min, Sum};
    [Count, Sum, Min, Max, Avg].map(|function| of(function, column)).to_vec()
}

/// Returns the texts of the aggregates of a column with these batches; NULL is `-`.
fn computed(aggregates: &[Aggregate], batches: &[ArrayRef]) -> Result<Vec<String>, AggregateError> {
    let mut aggregation = Aggregation::new(&table(), aggregates)?;
    let name = aggregation.columns().first().cloned().unwrap_or_default();
    for array in batches {
        let array = Arc::clone(array);
        aggregation.push(&RecordBatch::try_from_iter([(&name, array)]).unwrap())?;
    }
    let result = aggregation.result()?;
    assert_eq!(result.num_rows(), 1);
    Ok(result
        .columns()
        .iter()
        .map(|column| {
            let text = column.is_valid(0).then(|| array_value_to_string(column, 0).unwrap());
            text.unwrap_or_else(|| "-".to_owned())
        })
        .collect())
}

fn values(column: &str, batches: &[ArrayRef]) -> Vec<String> {
    computed(&all_of(column), batches).unwrap()
}

fn extremes(column: &str, batches: &[ArrayRef]) -> Vec<String> {
    let aggregates = [ColumnFunction::Min, ColumnFunction::Max].map(|found| of(found, column));
    computed(&aggregates, batches).unwrap()
}

#[test]
fn integers_are_summed_beyond_their_type() {
    let small = Int8Array::from(vec![Some(127), None, Some(127), Some(-128)]);
    let small: ArrayRef = Arc::new(small);
    let found = values("small", &[small.clone(), small]);
    assert_eq!(found, ["6", "252", "-128", "127", "42.0"]);
    let large: ArrayRef = Arc::new(UInt64Array::from(vec![u64::MAX, u64::MAX]));
    let found = values("large", &[large]);
    assert_eq!(found[1], "36893488147419103230");
    let id: ArrayRef = Arc::new(Int64Array::from(vec![i64::MIN, i64::MIN, 1]));
    assert_eq!(values("id", &[id])[1], "-18446744073709551615");
}

#[test]
fn decimals_keep_their_scale() {
    let array = Decimal128Array::from(vec![Some(150), Some(-25), None])
        .with_precision_and_scale(10, 2)
        .unwrap();
    let found = values("price", &[Arc::new(array)]);
    assert_eq!(found, ["2", "1.25", "-0.25", "1.50", "0.625"]);
}

#[test]
fn sum_beyond_38_digits_is_an_error() {
    let largest = 10_i128.pow(38) - 1;
    // The first sum fits in 128 bits, the others do not.
    for values in [vec![largest, 1], vec![largest; 2], vec![-largest; 10]] {
        let extreme =
            [values.iter().min(), values.iter().max()].map(|value| value.unwrap().to_string());
        let array = Decimal128Array::from(values).with_precision_and_scale(38, 0).unwrap();
        let array: ArrayRef = Arc::new(array);
        let error =
            computed(&[of(ColumnFunction::Sum, "wide")], std::slice::from_ref(&array)).unwrap_err();
        assert!(matches!(&error, AggregateError::Overflow(name) if name == "sum(wide)"));
        assert_eq!(extremes("wide", &[array]), extreme);
    }
}

#[test]
fn float_sums_are_compensated() {
    let array: ArrayRef = Arc::new(Float64Array::from(vec![1e100, 1.0, -1e100]));
    assert_eq!(values("f", &[array])[1], "1.0");
    let tenths: ArrayRef = Arc::new(Float64Array::from(vec![0.1; 1_000]));
    let found = values("f", &vec![tenths; 100]);
    assert_eq!((found[1].as_str(), found[4].as_str()), ("10000.0", "0.1"));
    let narrow: ArrayRef = Arc::new(Float32Array::from(vec![Some(1.5), None, Some(-0.5)]));
    assert_eq!(values("g", &[narrow]), ["2", "1.0", "-0.5", "1.5", "0.5"]);
}

#[test]
fn nan_is_the_maximum_and_the_sum() {
    let array: ArrayRef = Arc::new(Float64Array::from(vec![1.0, -f64::NAN, f64::INFINITY]));
    assert_eq!(values("f", &[array]), ["3", "NaN", "1.0", "NaN", "NaN"]);
    let infinite: ArrayRef = Arc::new(Float64Array::from(vec![f64::INFINITY, 1.0]));
    assert_eq!(values("f", &[infinite]), ["2", "inf", "1.0", "inf", "inf"]);
    let only_nan: ArrayRef = Arc::new(Float64Array::from(vec![f64::NAN]));
    assert_eq!(extremes("f", &[only_nan]), ["NaN", "NaN"]);
}

#[test]
fn nulls_are_ignored_and_no_values_are_null() {
    let none: ArrayRef = Arc::new(Int8Array::from(vec![None, None]));
    assert_eq!(values("small", std::slice::from_ref(&none)), ["0", "-", "-", "-", "-"]);
    assert_eq!(values("small", &[]), ["0", "-", "-", "-", "-"]);
    let some: ArrayRef = Arc::new(Int8Array::from(vec![None, Some(-3)]));
    assert_eq!(values("small", &[none.clone(), some, none]), ["1", "-3", "-3", "-3", "-3.0"]);
    let name: ArrayRef = Arc::new(StringArray::from(vec![None::<&str>]));
    assert_eq!(extremes("name", &[name]), ["-", "-"]);
}

#[test]
fn extremes_have_the_type_of_their_column() {
    let names: ArrayRef = Arc::new(StringArray::from(vec![Some("b"), None, Some("")]));
    let more: ArrayRef = Arc::new(StringArray::from(vec!["ba", "a"]));
    assert_eq!(extremes("name", &[names, more]), ["", "ba"]);
    let times: ArrayRef =
        Arc::new(TimestampMillisecondArray::from(vec![1_000, 0]).with_timezone("UTC"));
    let mut aggregation = Aggregation::new(&table(), &[of(ColumnFunction::Min, "at")]).unwrap();
    aggregation.push(&RecordBatch::try_from_iter([("at", times.clone())]).unwrap()).unwrap();
    assert_eq!(aggregation.result().unwrap().column(0), &times.slice(1, 1));
    let day: ArrayRef = Arc::new(Date32Array::from(vec![3, 1, 2]));
    assert_eq!(extremes("day", &[day]), ["1970-01-02", "1970-01-04"]);
    let flag: ArrayRef = Arc::new(BooleanArray::from(vec![true, false]));
    assert_eq!(extremes("flag", &[flag]), ["false", "true"]);
}

#[test]
fn texts_have_no_sum() {
    for column in ["name", "at", "day", "flag"] {
        for function in [ColumnFunction::Sum, ColumnFunction::Avg] {
            let error = Aggregation::new(&table(), &[of(function, column)]).unwrap_err();
            let message = error.to_string();
            assert!(matches!(error, AggregateError::NotANumber { .. }), "{message}");
            assert!(message.contains(&format!("{function}({column})")), "{message}");
        }
    }
    let error = Aggregation::new(&table(), &[of(ColumnFunction::Min, "nmae")]).unwrap_err();
    assert!(error.to_string().contains("did you mean \"name\"?"), "{error}");
}

#[test]
fn columns_are_read_once() {
    let aggregates = [&[Aggregate::Rows][..], &all_of("f"), &all_of("id"), &all_of("f")].concat();
    let aggregation = Aggregation::new(&table(), &aggregates).unwrap();
    assert_eq!(aggregation.columns(), ["f", "id"]);
    assert!(Aggregation::new(&table(), &[Aggregate::Rows]).unwrap().columns().is_empty());
}

#[test]
fn rows_are_counted_with_and_without_columns() {
    let rows = [Aggregate::Rows, of(ColumnFunction::Count, "small")];
    let some: ArrayRef = Arc::new(Int8Array::from(vec![None, Some(-3)]));
    assert_eq!(computed(&rows, &[some.clone(), some]).unwrap(), ["4", "2"]);
    let mut aggregation = Aggregation::new(&table(), &rows[..1]).unwrap();
    aggregation.add_row_count(7);
    let result = aggregation.result().unwrap();
    assert_eq!(result.schema().field(0).data_type(), &DataType::UInt64);
    assert_eq!(array_value_to_string(result.column(0), 0).unwrap(), "7");
}
