//! Reasons why a text is not a value of its column.

use std::fmt;

use tidewater_common::schema::ColumnType;

/// Parse error of a text, independent of the column type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ParseError {
    /// The text does not have the form of the type.
    Form,
    /// The value is out of range.
    Range,
    /// The value has more decimal places than the type stores.
    Precision,
}

/// Reason why a cell was rejected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CellError {
    /// The text is not a value of the type.
    Value {
        /// Begin of the text.
        text: String,
        /// Type of the column.
        data_type: ColumnType,
        /// Reason.
        error: ParseError,
    },
    /// The column is not null and has no value.
    Missing,
    /// A column of the primary key has no value.
    MissingKey,
    /// The bytes are not UTF-8.
    NotUtf8,
    /// A JSON value of a kind that the column does not accept.
    Kind {
        /// Kind of the value, for people.
        found: &'static str,
        /// Type of the column.
        data_type: ColumnType,
    },
}

/// Hint of [`CellError::Value`] for texts that often represent a missing value. It names an option of `load`,
/// which other callers replace.
pub const NULL_HINT: &str = "; if it represents a missing value, add it with --null";

/// Characters of a cell that a message repeats.
const MAX_QUOTED: usize = 60;

impl CellError {
    /// Returns [`CellError::Value`] with the begin of `text`.
    pub fn value(text: &str, data_type: &ColumnType, error: ParseError) -> Self {
        let mut shown: String = text.chars().take(MAX_QUOTED).collect();
        if shown.len() < text.len() {
            shown.push_str("...");
        }
        Self::Value { text: shown, data_type: data_type.clone(), error }
    }
}

impl fmt::Display for CellError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Value { text, data_type, error } => match error {
                ParseError::Form => {
                    write!(f, "`{text}` is not a value of type {data_type}")?;
                    f.write_str(form_hint(text, data_type))
                }
                ParseError::Range => {
                    write!(f, "`{text}` overflows {data_type}")?;
                    match range(data_type) {
                        Some((min, max)) => write!(f, " ({min} to {max})"),
                        None => Ok(()),
                    }
                }
                ParseError::Precision => {
                    write!(f, "`{text}` has more decimal places than {data_type} stores")
                }
            },
            Self::Missing => f.write_str("the value is missing, and the column is not null"),
            Self::MissingKey => f.write_str("the primary key value is missing"),
            Self::NotUtf8 => f.write_str("the bytes are not valid UTF-8"),
            Self::Kind { found, data_type } => {
                write!(f, "found {found}, expected a value of type {data_type}")
            }
        }
    }
}

fn form_hint(text: &str, data_type: &ColumnType) -> &'static str {
    match data_type {
        _ if matches!(text, "NA" | "N/A" | "NULL" | "null" | "None" | "NaN" | "\\N" | "-") => {
            NULL_HINT
        }
        ColumnType::Date32 => "; dates are written YYYY-MM-DD",
        ColumnType::Timestamp(..) => {
            "; times are written YYYY-MM-DD HH:MM:SS or as RFC 3339, e.g. 2013-01-01T10:00:00Z"
        }
        ColumnType::Bool => "; write true or false",
        ColumnType::Binary => "; bytes are written in hexadecimal, e.g. 0x00ff",
        _ => "",
    }
}

fn range(data_type: &ColumnType) -> Option<(String, String)> {
    let (min, max): (i128, i128) = match data_type {
        ColumnType::Int8 => (i8::MIN.into(), i8::MAX.into()),
        ColumnType::Int16 => (i16::MIN.into(), i16::MAX.into()),
        ColumnType::Int32 => (i32::MIN.into(), i32::MAX.into()),
        ColumnType::Int64 => (i64::MIN.into(), i64::MAX.into()),
        ColumnType::UInt8 => (0, u8::MAX.into()),
        ColumnType::UInt16 => (0, u16::MAX.into()),
        ColumnType::UInt32 => (0, u32::MAX.into()),
        ColumnType::UInt64 => (0, u64::MAX.into()),
        _ => return None,
    };
    Some((min.to_string(), max.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn value_errors_name_the_text_and_the_type() {
        let overflow = CellError::value("300", &ColumnType::UInt8, ParseError::Range);
        assert_eq!(overflow.to_string(), "`300` overflows uint8 (0 to 255)");
        let form = CellError::value("NA", &ColumnType::Int64, ParseError::Form);
        assert!(form.to_string().contains("--null"), "{form}");
    }

    #[test]
    fn long_texts_are_truncated_in_messages() {
        let long = "é".repeat(500);
        let shown = CellError::value(&long, &ColumnType::Int64, ParseError::Form).to_string();
        assert!(shown.len() < 250 && shown.contains("..."), "{shown}");
    }
}
