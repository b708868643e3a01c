//! Names of types, tables and columns of events.

use crate::event::EventError;

/// Table of events that name no other.
pub const DEFAULT_TABLE: &str = "events";

/// Columns of all events, in the order of the table.
pub const COMMON_COLUMNS: [&str; 4] = ["id", "type", "payload", "timestamp"];

/// Most characters of the name of a type, a table or a column.
pub const MAX_NAME: usize = 64;

/// Checks a name: a lower-case letter, then lower-case letters, digits and underscores.
pub(crate) fn check_name(what: &'static str, name: &str) -> Result<(), EventError> {
    let mut bytes = name.bytes();
    let valid = bytes.next().is_some_and(|first| first.is_ascii_lowercase())
        && bytes.all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_')
        && name.len() <= MAX_NAME;
    if valid {
        return Ok(());
    }
    let shown: String = name.chars().take(MAX_NAME).collect();
    Err(EventError::Name { what, name: shown, max: MAX_NAME })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_identifiers() {
        for name in ["a", "node_up", "t2", "compaction_2_done"] {
            assert_eq!(check_name("type", name), Ok(()), "{name}");
        }
        let long = "a".repeat(MAX_NAME + 1);
        for name in ["", "2a", "_a", "A", "node-up", "node up", "nodé", "a;drop", long.as_str()] {
            let error = check_name("type", name).unwrap_err();
            assert!(matches!(error, EventError::Name { what: "type", .. }), "{name}");
            assert!(error.to_string().len() < 250, "{error}");
        }
    }
}
