//! Sort keys: `distance`, `dep_time:desc`.

use std::str::FromStr;

use arrow::compute::SortOptions;

/// A column to sort by, and its direction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SortKey {
    pub(crate) column: String,
    pub(crate) descending: bool,
}

/// A text without a column.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` names no column: write COLUMN or COLUMN:desc")]
pub(crate) struct SortKeyError(String);

impl SortKey {
    /// Returns the order of the values. NULL is above every value, as in PostgreSQL: last in ascending
    /// order, first in descending order.
    pub(crate) fn options(&self) -> SortOptions {
        SortOptions { descending: self.descending, nulls_first: self.descending }
    }
}

impl FromStr for SortKey {
    type Err = SortKeyError;

    /// Parses a column name with an optional direction, `:asc` or `:desc`. Any other text after a colon
    /// is part of the name.
    fn from_str(text: &str) -> Result<Self, SortKeyError> {
        let direction = text.rsplit_once(':').and_then(|(column, direction)| {
            match direction.trim().to_ascii_lowercase().as_str() {
                "asc" => Some((column, false)),
                "desc" => Some((column, true)),
                _ => None,
            }
        });
        let (column, descending) = direction.unwrap_or((text, false));
        match column.trim() {
            "" => Err(SortKeyError(text.to_owned())),
            column => Ok(Self { column: column.to_owned(), descending }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sort_keys_have_a_column_and_a_direction() {
        for (text, column, descending) in [
            ("distance", "distance", false),
            (" distance : DESC ", "distance", true),
            ("distance:asc", "distance", false),
            ("a:b", "a:b", false),
            ("a:desc:asc", "a:desc", false),
        ] {
            let expected = SortKey { column: column.to_owned(), descending };
            assert_eq!(text.parse(), Ok(expected), "{text}");
        }
        for text in ["", " ", ":desc"] {
            assert_eq!(text.parse::<SortKey>(), Err(SortKeyError(text.to_owned())));
        }
    }
}
