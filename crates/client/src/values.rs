//! Validation of textual values by the rules of the server.

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
        other => match other.operand(text) {
            Ok(_) => Ok(()),
            Err(error) => Err(without_error_kind(&error.why).to_owned()),
        },
    }
}

/// Returns the reason without Arrow's name of the error kind.
fn without_error_kind(message: &str) -> &str {
    message.split_once("error: ").map_or(message, |(_, reason)| reason)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_of_zoned_columns_are_values() {
        let zoned: ColumnType = "timestamp(ns, UTC)".parse().unwrap();
        for text in ["2026-01-31T10:00:00.5Z", "2026-01-31 10:00:00", "2026-01-31"] {
            assert_eq!(check_value(&zoned, text), Ok(()), "{text}");
        }
        let wrong = check_value(&zoned, "soon").unwrap_err();
        assert!(wrong.contains("soon") && !wrong.contains("Parser error"), "{wrong}");
    }
}
