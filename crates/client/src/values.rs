//! Validation of textual values by the rules of the server.

use arrow::array::StringArray;
use arrow::compute::{CastOptions, cast_with_options};
use tidewater_common::schema::ColumnType;

/// Checks that `text` is a canonical value of the type. Binary values are hexadecimal digits.
///
/// # Errors
/// A description of the problem, for users.
pub fn check_value(data_type: &ColumnType, text: &str) -> Result<(), String> {
    match data_type {
        ColumnType::Utf8 => Ok(()),
        ColumnType::Binary => {
            if text.len().is_multiple_of(2) && text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
                Ok(())
            } else {
                Err("use two hexadecimal digits for each byte".to_owned())
            }
        }
        other => {
            let options = CastOptions { safe: false, ..CastOptions::default() };
            let text = StringArray::from(vec![text]);
            match cast_with_options(&text, &other.arrow(), &options) {
                Ok(_) => Ok(()),
                Err(error) => Err(without_error_kind(&error.to_string()).to_owned()),
            }
        }
    }
}

/// Returns the reason without Arrow's name of the error kind.
fn without_error_kind(message: &str) -> &str {
    message.split_once("error: ").map_or(message, |(_, reason)| reason)
}
