//! A single value of a column's type, given as text: defaults of columns, operands of predicates.
//!
//! The text is the type's canonical one; binary values are hexadecimal digits.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BinaryArray, Scalar, StringArray, make_array, new_null_array};
use arrow::compute::{CastOptions, cast_with_options};

use super::{Column, ColumnType};
use crate::quote::quoted;

/// Text that is not a value of a type.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{shown} is not a valid {data_type}{why}", shown = quoted(.text))]
pub struct ConstantError {
    /// The text as given.
    pub text: String,
    /// The expected type.
    pub data_type: ColumnType,
    /// Empty, or a description of the problem.
    pub why: String,
}

impl ColumnType {
    /// Parses a text as a value of this type; never null.
    ///
    /// # Errors
    /// [`ConstantError`] for text that is not a value of this type, or out of its range.
    pub fn constant(&self, text: &str) -> Result<Scalar<ArrayRef>, ConstantError> {
        let wrong =
            |why: String| ConstantError { text: text.to_owned(), data_type: self.clone(), why };
        let array: ArrayRef = match self {
            Self::Utf8 => Arc::new(StringArray::from(vec![text])),
            Self::Binary => {
                let bytes =
                    unhex(text).ok_or_else(|| wrong(": use hexadecimal digits".to_owned()))?;
                Arc::new(BinaryArray::from(vec![bytes.as_slice()]))
            }
            other => {
                let options = CastOptions { safe: false, ..CastOptions::default() };
                cast_with_options(&StringArray::from(vec![text]), &other.arrow(), &options)
                    .map_err(|error| wrong(format!(": {error}")))?
            }
        };
        if array.null_count() > 0 {
            return Err(wrong(String::new()));
        }
        Ok(Scalar::new(array))
    }

    /// Parses a text as an operand of a predicate: as [`Self::constant`], and as a time of a column with a zone by name. A
    /// time without an offset is then in UTC, as in files that are loaded.
    ///
    /// Not for defaults: nodes of earlier releases refuse those of such columns, and all replicas apply a change alike.
    ///
    /// # Errors
    /// See [`Self::constant`].
    pub fn operand(&self, text: &str) -> Result<Scalar<ArrayRef>, ConstantError> {
        let Self::Timestamp(unit, Some(zone)) = self else { return self.constant(text) };
        if zone.starts_with(['+', '-']) {
            return self.constant(text);
        }
        // Arrow knows zones by offset only. A time has the same number in every zone.
        let utc = Self::Timestamp(*unit, Some("+00:00".into()));
        let wrong =
            |why: String| ConstantError { text: text.to_owned(), data_type: self.clone(), why };
        let time = utc.constant(text).map_err(|error| wrong(error.why))?.into_inner();
        let typed = time.into_data().into_builder().data_type(self.arrow()).build();
        typed.map(|time| Scalar::new(make_array(time))).map_err(|error| wrong(format!(": {error}")))
    }
}

impl Column {
    /// Returns the value of rows that were written without the column, as an array of length 1.
    ///
    /// # Errors
    /// [`ConstantError`] for a default that is not a value of the column's type: a damaged schema.
    pub fn missing_value(&self) -> Result<ArrayRef, ConstantError> {
        match &self.default {
            None => Ok(new_null_array(&self.data_type.arrow(), 1)),
            Some(text) => Ok(self.data_type.constant(text)?.into_inner()),
        }
    }
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    if !text.len().is_multiple_of(2) || !text.is_ascii() {
        return None;
    }
    (0..text.len()).step_by(2).map(|i| u8::from_str_radix(&text[i..i + 2], 16).ok()).collect()
}

#[cfg(test)]
mod tests {
    use arrow::array::{AsArray, Datum};
    use arrow::datatypes::{Int16Type, TimestampMillisecondType};

    use super::*;

    fn value(data_type: &str, text: &str) -> Result<ArrayRef, ConstantError> {
        let data_type: ColumnType = data_type.parse().unwrap();
        data_type.constant(text).map(|scalar| scalar.get().0.slice(0, 1))
    }

    #[test]
    fn constant_text_parses_to_its_type() {
        assert_eq!(value("int16", "-7").unwrap().as_primitive::<Int16Type>().value(0), -7);
        assert_eq!(value("utf8", "").unwrap().as_string::<i32>().value(0), "");
        assert_eq!(value("binary", "00ff").unwrap().as_binary::<i32>().value(0), [0, 255]);
        let time = value("timestamp(ms)", "1970-01-01T00:00:01").unwrap();
        assert_eq!(time.as_primitive::<TimestampMillisecondType>().value(0), 1_000);
    }

    #[test]
    fn operand_of_a_zoned_column_is_an_instant() {
        for (data_type, text) in [
            ("timestamp(ms, UTC)", "1970-01-01T00:00:01Z"),
            ("timestamp(ms, UTC)", "1970-01-01 00:00:01"),
            ("timestamp(ms, Europe/Berlin)", "1970-01-01T01:00:01+01:00"),
            ("timestamp(ms, +01:00)", "1970-01-01T00:00:01Z"),
            ("timestamp(ms)", "1970-01-01T00:00:01"),
        ] {
            let data_type: ColumnType = data_type.parse().unwrap();
            let time = data_type.operand(text).unwrap().into_inner();
            assert_eq!(time.as_primitive::<TimestampMillisecondType>().value(0), 1_000, "{text}");
            assert_eq!(*time.data_type(), data_type.arrow());
        }
        let zoned: ColumnType = "timestamp(ms, UTC)".parse().unwrap();
        assert_eq!(zoned.operand("soon").unwrap_err().data_type, zoned);
    }

    #[test]
    fn invalid_constant_text_names_the_type() {
        for (data_type, text) in [
            ("int8", "128"),
            ("uint8", "-1"),
            ("bool", "perhaps"),
            ("binary", "0"),
            ("binary", "zz"),
            ("date32", "yesterday"),
            ("decimal128(3, 1)", "1000"),
        ] {
            let error = value(data_type, text).unwrap_err();
            assert_eq!(error.data_type.to_string(), data_type);
            assert_eq!(error.text, text);
        }
    }
}
