use arrow::util::display::array_value_to_string;
use proptest::prelude::*;

use super::*;

const TYPES: [&str; 20] = [
    "bool",
    "int8",
    "int16",
    "int32",
    "int64",
    "uint8",
    "uint16",
    "uint32",
    "uint64",
    "float32",
    "float64",
    "utf8",
    "binary",
    "date32",
    "timestamp(s)",
    "timestamp(ms)",
    "timestamp(us)",
    "timestamp(ns)",
    "timestamp(us, +00:00)",
    "decimal128(5, 2)",
];

const SOURCES: [Type; 19] = [
    Type::BOOL,
    Type::INT2,
    Type::INT4,
    Type::INT8,
    Type::FLOAT4,
    Type::FLOAT8,
    Type::NUMERIC,
    Type::TEXT,
    Type::VARCHAR,
    Type::BPCHAR,
    Type::NAME,
    Type::JSON,
    Type::JSONB,
    Type::UUID,
    Type::BYTEA,
    Type::DATE,
    Type::TIMESTAMP,
    Type::TIMESTAMPTZ,
    Type::INTERVAL,
];

/// Converts one field, and returns the value as text.
fn convert(from: &Type, to: &str, field: &[u8]) -> Result<String, ValueError> {
    let to: ColumnType = to.parse().unwrap();
    let mut builder = column_builder(from, &to).unwrap_or_else(|| panic!("{from} to {to}"));
    builder.append(field)?;
    let array = builder.finish(1);
    assert_eq!((array.len(), array.data_type()), (1, &to.arrow()));
    Ok(array_value_to_string(&array, 0).unwrap())
}

#[test]
fn convertible_types_are_those_without_loss() {
    let integers = "int8 int16 int32 int64 uint8 uint16 uint32 uint64";
    let numbers = format!("{integers} float32 float64 decimal128(5, 2)");
    let naive = "timestamp(s) timestamp(ms) timestamp(us) timestamp(ns)";
    for from in SOURCES {
        let expected = match from {
            Type::BOOL => "bool".to_owned(),
            Type::INT2 | Type::INT4 | Type::INT8 => numbers.clone(),
            Type::FLOAT4 => "float32 float64".to_owned(),
            Type::FLOAT8 => "float64".to_owned(),
            Type::NUMERIC => format!("{integers} float64 decimal128(5, 2)"),
            Type::UUID => "utf8 binary".to_owned(),
            Type::BYTEA => "binary".to_owned(),
            Type::DATE => format!("date32 {naive}"),
            Type::TIMESTAMP => naive.to_owned(),
            Type::TIMESTAMPTZ => "timestamp(us, +00:00)".to_owned(),
            Type::INTERVAL => String::new(),
            _ => "utf8".to_owned(),
        };
        let found: Vec<&str> = TYPES
            .into_iter()
            .filter(|to| column_builder(&from, &to.parse().unwrap()).is_some())
            .collect();
        assert_eq!(found.join(" "), expected, "{from}");
    }
}

#[test]
fn extreme_values_convert() {
    let int8 = |value: i64| value.to_be_bytes().to_vec();
    let days = |days: i32| (days - 10_957).to_be_bytes().to_vec();
    let micros = |micros: i64| (micros - 946_684_800_000_000).to_be_bytes().to_vec();
    for (from, to, field, expected) in [
        (Type::BOOL, "bool", vec![1], "true"),
        (Type::INT2, "int32", i16::MIN.to_be_bytes().to_vec(), "-32768"),
        (Type::INT4, "int8", 127_i32.to_be_bytes().to_vec(), "127"),
        (Type::INT8, "int32", int8(i32::MIN.into()), "-2147483648"),
        (Type::INT8, "int64", int8(i64::MIN), "-9223372036854775808"),
        (Type::INT8, "uint64", int8(i64::MAX), "9223372036854775807"),
        (Type::INT8, "float64", int8(1 << 53), "9007199254740992.0"),
        (Type::INT8, "float64", int8(i64::MIN), "-9.223372036854776e18"),
        (Type::INT4, "float32", (1_i32 << 24).to_be_bytes().to_vec(), "16777216.0"),
        (Type::INT4, "decimal128(5, 2)", 999_i32.to_be_bytes().to_vec(), "999.00"),
        (Type::FLOAT4, "float64", f32::MAX.to_be_bytes().to_vec(), "3.4028234663852886e38"),
        (Type::FLOAT8, "float64", f64::NAN.to_be_bytes().to_vec(), "NaN"),
        (Type::FLOAT8, "float64", f64::NEG_INFINITY.to_be_bytes().to_vec(), "-inf"),
        (Type::TEXT, "utf8", Vec::new(), ""),
        (Type::JSONB, "utf8", b"\x01{}".to_vec(), "{}"),
        (Type::UUID, "utf8", vec![0xab; 16], "abababab-abab-abab-abab-abababababab"),
        (Type::UUID, "binary", vec![0xab; 16], "abababababababababababababababab"),
        (Type::BYTEA, "binary", vec![0, 255], "00ff"),
        (Type::DATE, "date32", days(-1), "1969-12-31"),
        (Type::DATE, "timestamp(ms)", days(-1), "1969-12-31T00:00:00"),
        (Type::TIMESTAMP, "timestamp(s)", micros(-1_000_000), "1969-12-31T23:59:59"),
        (Type::TIMESTAMP, "timestamp(ms)", micros(1_000), "1970-01-01T00:00:00.001"),
        (Type::TIMESTAMP, "timestamp(ns)", micros(1), "1970-01-01T00:00:00.000001"),
        (Type::TIMESTAMPTZ, "timestamp(us, +00:00)", micros(-1), "1969-12-31T23:59:59.999999Z"),
    ] {
        assert_eq!(convert(&from, to, &field), Ok(expected.to_owned()), "{from} to {to}");
    }
}

#[test]
fn values_that_do_not_fit_are_named() {
    let int8 = |value: i64| value.to_be_bytes().to_vec();
    let micros = |micros: i64| (micros - 946_684_800_000_000).to_be_bytes().to_vec();
    for (from, to, field, expected) in [
        (Type::INT8, "int32", int8(1 << 31), "2147483648"),
        (Type::INT2, "uint8", (-1_i16).to_be_bytes().to_vec(), "-1"),
        (Type::INT8, "uint64", int8(-1), "-1"),
        (Type::INT8, "float64", int8((1 << 53) + 1), "9007199254740993"),
        (Type::INT8, "float64", int8(i64::MAX), "9223372036854775807"),
        (Type::INT4, "float32", 16_777_217_i32.to_be_bytes().to_vec(), "16777217"),
        (Type::INT4, "decimal128(5, 2)", 1_000_i32.to_be_bytes().to_vec(), "1000"),
        (Type::INT8, "decimal128(38, 38)", int8(1), "1"),
        (Type::DATE, "date32", i32::MAX.to_be_bytes().to_vec(), "infinity"),
        (Type::DATE, "date32", i32::MIN.to_be_bytes().to_vec(), "-infinity"),
        (Type::TIMESTAMP, "timestamp(us)", i64::MAX.to_be_bytes().to_vec(), "infinity"),
        (Type::TIMESTAMPTZ, "timestamp(us, +00:00)", i64::MIN.to_be_bytes().to_vec(), "-infinity"),
        (Type::TIMESTAMP, "timestamp(s)", micros(1_500), "1970-01-01 00:00:00.001500"),
        (Type::TIMESTAMP, "timestamp(ms)", micros(1), "1970-01-01 00:00:00.000001"),
        (
            Type::TIMESTAMP,
            "timestamp(ns)",
            micros(9_223_372_036_854_776),
            "2262-04-11 23:47:16.854776",
        ),
    ] {
        let error = convert(&from, to, &field).unwrap_err();
        assert_eq!(error, ValueError::DoesNotFit(expected.to_owned()), "{from} to {to}");
    }
    assert_eq!(convert(&Type::TEXT, "utf8", b"\xff"), Err(ValueError::NotUtf8));
}

#[test]
fn fields_of_wrong_length_are_damage() {
    for (from, to, field) in [
        (Type::BOOL, "bool", &b"\x02"[..]),
        (Type::BOOL, "bool", b""),
        (Type::INT2, "int16", b"\0"),
        (Type::INT4, "int64", b"\0\0\0\0\0\0\0\0"),
        (Type::FLOAT8, "float64", b"\0\0\0\0"),
        (Type::JSONB, "utf8", b""),
        (Type::JSONB, "utf8", b"\x02{}"),
        (Type::UUID, "utf8", b"0123456789abcde"),
        (Type::UUID, "binary", b"0123456789abcdef0"),
        (Type::DATE, "date32", b"\x7f\xff\xff\xfe"),
        (Type::TIMESTAMP, "timestamp(us)", b"\x7f\xff\xff\xff\xff\xff\xff\xfe"),
    ] {
        let error = convert(&from, to, field).unwrap_err();
        assert!(matches!(error, ValueError::Damaged(_)), "{from} to {to}: {error}");
    }
}

#[test]
fn column_builders_begin_again_when_finished() {
    for from in SOURCES {
        for to in TYPES {
            let to: ColumnType = to.parse().unwrap();
            let Some(mut builder) = column_builder(&from, &to) else { continue };
            for rows in [0_usize, 3, 1] {
                (0..rows).for_each(|_| builder.append_null());
                let array = builder.finish(rows);
                assert_eq!((array.len(), array.null_count()), (rows, rows), "{from} to {to}");
                assert_eq!(array.data_type(), &to.arrow());
            }
        }
    }
}

proptest! {
    #[test]
    fn conversions_accept_any_field_without_panic(
        from in prop::sample::select(SOURCES.to_vec()),
        to in prop::sample::select(TYPES.to_vec()),
        field in prop::collection::vec(any::<u8>(), 0..20),
    ) {
        if let Some(mut builder) = column_builder(&from, &to.parse().unwrap()) {
            let is_ok = builder.append(&field).is_ok();
            prop_assert_eq!(builder.finish(1).len(), usize::from(is_ok));
        }
    }
}
