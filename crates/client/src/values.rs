//! Validation of text values, by the rules of the server.

use arrow::array::StringArray;
use arrow::compute::{CastOptions, cast_with_options};
use tidewater_common::schema::ColumnType;

/// Checks that `text` is a value of the type in its canonical form; binary as hexadecimal digits.
///
/// # Errors
/// The reason, for display.
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
                Err(error) => Err(plain(&error.to_string()).to_owned()),
            }
        }
    }
}

/// Strips the name of the library's error kind from a message.
fn plain(message: &str) -> &str {
    message.split_once("error: ").map_or(message, |(_, reason)| reason)
}
