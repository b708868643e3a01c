//! Key of a row as messages show it.

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::datatypes::DataType;
use arrow::util::display::array_value_to_string;
use tidewater_common::quote::cut;

use crate::EngineError;

/// Returns the key of a row, such as `(a=1, b='x')`. Long values are cut. `keys`: the key columns.
///
/// # Errors
/// [`EngineError::Internal`] for a value without a text.
pub(super) fn key_text(keys: &RecordBatch, row: usize) -> Result<String, EngineError> {
    let schema = keys.schema();
    let columns = schema.fields().iter().zip(keys.columns());
    let value = |(field, array): (&_, &ArrayRef)| {
        let field: &arrow::datatypes::FieldRef = field;
        Ok(format!("{}={}", cut(field.name()), value_text(array, row)?))
    };
    let values = columns.map(value).collect::<Result<Vec<_>, EngineError>>()?;
    Ok(format!("({})", values.join(", ")))
}

fn value_text(array: &ArrayRef, row: usize) -> Result<String, EngineError> {
    match array.data_type() {
        DataType::Utf8 => {
            let text = cut(array.as_string::<i32>().value(row)).escape_debug().to_string();
            // In single quotes, double ones need no escape.
            Ok(format!("'{}'", text.replace("\\\"", "\"")))
        }
        DataType::Binary => Ok(format!("x'{}'", cut(&array_value_to_string(array, row)?))),
        data_type if data_type.is_temporal() => {
            Ok(format!("'{}'", array_value_to_string(array, row)?))
        }
        _ => Ok(array_value_to_string(array, row)?),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{
        BinaryArray, BooleanArray, Date32Array, Decimal128Array, Int64Array, StringArray,
        TimestampMillisecondArray,
    };

    use super::*;

    #[test]
    fn key_text_names_each_column() {
        let batch = RecordBatch::try_from_iter([
            ("a", Arc::new(Int64Array::from(vec![7, -1])) as ArrayRef),
            ("b", Arc::new(StringArray::from(vec!["", "it's \"x\"\n"]))),
            ("c", Arc::new(BinaryArray::from_vec(vec![b"", &[0, 255]]))),
            ("d", Arc::new(Date32Array::from(vec![0, 20_000]))),
            ("e", Arc::new(BooleanArray::from(vec![true, false]))),
            ("t", Arc::new(TimestampMillisecondArray::from(vec![0, 1_500]))),
            (
                "n",
                Arc::new(
                    Decimal128Array::from(vec![0, -150]).with_precision_and_scale(9, 2).unwrap(),
                ),
            ),
        ])
        .unwrap();
        assert_eq!(
            key_text(&batch, 1).unwrap(),
            "(a=-1, b='it\\'s \"x\"\\n', c=x'00ff', d='2024-10-04', e=false, \
             t='1970-01-01T00:00:01.500', n=-1.50)"
        );
        let long: ArrayRef = Arc::new(StringArray::from(vec!["x".repeat(10_000)]));
        let batch = RecordBatch::try_from_iter([("k", long)]).unwrap();
        assert_eq!(key_text(&batch, 0).unwrap(), format!("(k='{}...')", "x".repeat(100)));
    }
}
