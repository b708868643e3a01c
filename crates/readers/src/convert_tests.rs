use std::sync::Arc;

use arrow::array::{
    Decimal128Array, Float64Array, Int64Array, LargeStringArray, StringArray,
    StringDictionaryBuilder, TimestampNanosecondArray, UInt64Array,
};
use arrow::datatypes::{Int32Type, TimeUnit};

use super::*;

fn converted(array: ArrayRef, to: &str) -> (Vec<String>, Vec<(usize, String)>) {
    let to: ColumnType = to.parse().unwrap();
    assert!(is_convertible(array.data_type(), &to), "{} to {to}", array.data_type());
    let converted = convert(&array, &to).unwrap();
    assert_eq!(converted.array.data_type(), &to.arrow());
    assert_eq!(converted.array.len(), array.len());
    let texts =
        (0..array.len()).map(|row| array_value_to_string(&converted.array, row).unwrap()).collect();
    let rejected = converted.rejected.into_iter().map(|(row, p)| (row, p.to_string())).collect();
    (texts, rejected)
}

#[test]
fn numbers_convert_when_nothing_is_lost() {
    let floats: ArrayRef = Arc::new(Float64Array::from(vec![Some(517.0), None, Some(1.5)]));
    let (texts, rejected) = converted(floats, "int32");
    assert_eq!(texts[..2], ["517", ""]);
    assert_eq!(rejected.len(), 1);
    assert_eq!(rejected[0].0, 2);
    assert!(rejected[0].1.contains("1.5"), "{rejected:?}");

    let wide: ArrayRef = Arc::new(Int64Array::from(vec![1, 300, -1]));
    let (_, rejected) = converted(wide, "uint8");
    assert_eq!(rejected.iter().map(|(row, _)| *row).collect::<Vec<_>>(), [1, 2]);
    assert!(rejected[0].1.contains("overflows uint8 (0 to 255)"), "{rejected:?}");

    let large: ArrayRef = Arc::new(UInt64Array::from(vec![u64::MAX]));
    assert_eq!(converted(large, "int64").1.len(), 1);

    let decimals: ArrayRef =
        Arc::new(Decimal128Array::from(vec![150, 155]).with_precision_and_scale(10, 2).unwrap());
    let (texts, rejected) = converted(decimals, "decimal128(10, 1)");
    assert_eq!(texts[0], "1.5");
    assert_eq!(rejected[0].0, 1);
}

#[test]
fn timestamps_keep_their_instants() {
    let nanos = 1_357_034_400_000_000_000;
    let zoned: ArrayRef =
        Arc::new(TimestampNanosecondArray::from(vec![nanos, nanos + 1]).with_timezone("+02:00"));
    let (texts, rejected) = converted(zoned.clone(), "timestamp(s)");
    assert_eq!(texts[0], "2013-01-01T10:00:00");
    assert_eq!(rejected[0].0, 1, "a fraction is not truncated");
    let (texts, _) = converted(zoned, "timestamp(ns, +00:00)");
    assert_eq!(texts[0], "2013-01-01T10:00:00Z");
}

#[test]
fn texts_are_parsed_row_by_row() {
    let texts: ArrayRef = Arc::new(LargeStringArray::from(vec![Some("5"), None, Some("x")]));
    let (found, rejected) = converted(texts, "int64");
    assert_eq!(found[..2], ["5", ""]);
    assert_eq!(rejected[0].0, 2);

    let mut builder = StringDictionaryBuilder::<Int32Type>::new();
    builder.append("a").unwrap();
    assert_eq!(converted(Arc::new(builder.finish()), "utf8").0, ["a"]);
    let dates: ArrayRef = Arc::new(StringArray::from(vec!["2013-01-01"]));
    assert_eq!(converted(dates, "date32").0, ["2013-01-01"]);
}

#[test]
fn incompatible_types_are_not_convertible() {
    let list = DataType::List(Arc::new(Field::new("item", DataType::Int64, true)));
    assert!(!is_convertible(&list, &ColumnType::Int64));
    assert!(!is_convertible(&DataType::Boolean, &ColumnType::Int64));
    assert!(!is_convertible(&DataType::Int64, &ColumnType::Utf8));
    assert!(!is_convertible(&DataType::Int64, &ColumnType::Timestamp(TimeUnit::Second, None)));
}
