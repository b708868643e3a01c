//! Matches the columns of a file with those of the table, by name.

use std::collections::HashMap;

use tidewater_common::schema::TableSchema;

use super::error::LoadError;

/// Position in the file of each column of the table; `None`: null in every row.
pub(crate) type Positions = Vec<Option<usize>>;

/// Finds each column of the table among the `names` of the file.
pub(crate) fn match_columns(
    file: &str,
    names: &[&str],
    table: &TableSchema,
) -> Result<Positions, LoadError> {
    let mut by_name = HashMap::new();
    for (position, name) in names.iter().enumerate() {
        if by_name.insert(*name, position).is_some() {
            return Err(LoadError::DuplicateColumn {
                file: file.to_owned(),
                name: (*name).to_owned(),
            });
        }
    }
    if !names.iter().any(|name| table.column_named(name).is_some()) {
        return Err(no_header(file, names, table));
    }
    let extra: Vec<String> = names
        .iter()
        .filter(|name| table.column_named(name).is_none())
        .map(|name| (*name).to_owned())
        .collect();
    if !extra.is_empty() {
        let hint = case_hint(&extra, table);
        return Err(LoadError::ExtraColumns { file: file.to_owned(), names: extra, hint });
    }
    let missing: Vec<String> = table
        .columns()
        .iter()
        .filter(|column| !column.nullable && !by_name.contains_key(column.name.as_str()))
        .map(|column| column.name.clone())
        .collect();
    if !missing.is_empty() {
        return Err(LoadError::MissingColumns { file: file.to_owned(), names: missing });
    }
    Ok(table.columns().iter().map(|column| by_name.get(column.name.as_str()).copied()).collect())
}

fn no_header(file: &str, names: &[&str], table: &TableSchema) -> LoadError {
    let first_line: String = names.join(",").chars().take(120).collect();
    let columns: Vec<&str> = table.columns().iter().map(|column| column.name.as_str()).collect();
    LoadError::NoHeader { file: file.to_owned(), first_line, columns: columns.join(", ") }
}

/// Returns a hint for names that differ only in case or surrounding blanks, the most frequent mistake.
fn case_hint(extra: &[String], table: &TableSchema) -> String {
    extra
        .iter()
        .find_map(|name| {
            let near = table
                .columns()
                .iter()
                .find(|column| column.name.eq_ignore_ascii_case(name.trim()))?;
            Some(format!(" (did you mean `{}` instead of `{name}`?)", near.name))
        })
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use tidewater_common::ids::{ColumnId, SchemaVersion};
    use tidewater_common::schema::{Column, ColumnType};

    use super::*;

    fn table() -> TableSchema {
        let column = |id: u32, name: &str, nullable: bool| Column {
            id: ColumnId(id),
            name: name.into(),
            data_type: ColumnType::Int64,
            nullable,
            default: None,
        };
        TableSchema::new(
            SchemaVersion(1),
            vec![column(1, "a", false), column(2, "b", true), column(3, "c", false)],
            vec![ColumnId(1)],
            None,
            ColumnId(4),
        )
        .unwrap()
    }

    fn message(names: &[&str]) -> String {
        match_columns("f.csv", names, &table()).unwrap_err().to_string()
    }

    #[test]
    fn columns_are_matched_by_name() {
        let found = match_columns("f.csv", &["c", "a", "b"], &table()).unwrap();
        assert_eq!(found, [Some(1), Some(2), Some(0)]);
        let found = match_columns("f.csv", &["c", "a"], &table()).unwrap();
        assert_eq!(found, [Some(1), None, Some(0)], "a nullable column may be missing");
    }

    #[test]
    fn unmatched_columns_are_named() {
        assert!(message(&["a", "b"]).contains("lacks column `c`"));
        assert!(message(&["a", "c", "x", "y"]).contains("no column `x`, `y`"));
        assert!(message(&["a", "c", " B"]).contains("did you mean `b`"));
        assert!(message(&["a", "a", "c"]).contains("`a` twice"));
        let none = message(&["1", "2", "3"]);
        assert!(none.contains("no header") && none.contains("1,2,3") && none.contains("a, b, c"));
    }
}
