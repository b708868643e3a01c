//! Columns of the query and columns of the table (pure).

use tidewater_common::quote::quoted;
use tidewater_common::schema::TableSchema;
use tokio_postgres::types::Type;

use super::values::{ColumnBuilder, column_builder};

/// Problems that one message lists.
const MAX_PROBLEMS: usize = 5;

/// A column that the query returns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct QueryColumn {
    /// Name of the column.
    pub(super) name: String,
    /// Type of its values.
    pub(super) data_type: Type,
}

/// Source of the values of a column of the table.
pub(super) enum ColumnSource {
    /// A field of each row.
    Field {
        /// Position of the field.
        index: usize,
        /// Builder of the column.
        builder: Box<dyn ColumnBuilder>,
    },
    /// Nulls: the query lacks the column.
    Null,
}

/// Returns the source of each column of the table, in its order.
///
/// # Errors
/// The text of the problems.
pub(super) fn match_columns(
    table: &TableSchema,
    query: &[QueryColumn],
) -> Result<Vec<ColumnSource>, String> {
    let mut problems = name_problems(table, query);
    let mut sources = Vec::with_capacity(table.columns().len());
    for column in table.columns() {
        let found = query.iter().enumerate().find(|(_, found)| found.name == column.name);
        let Some((index, found)) = found else {
            if !column.nullable {
                problems.push(format!(
                    "the query lacks the column {}, which is not null: add it to the query",
                    quoted(&column.name)
                ));
            }
            sources.push(ColumnSource::Null);
            continue;
        };
        match column_builder(&found.data_type, &column.data_type) {
            Some(builder) => sources.push(ColumnSource::Field { index, builder }),
            None => problems.push(format!(
                "the column {} has the PostgreSQL type {}, which does not convert to the table's \
                 type {} without loss: cast it in the query",
                quoted(&column.name),
                found.data_type,
                column.data_type
            )),
        }
    }
    if problems.is_empty() { Ok(sources) } else { Err(join(&problems)) }
}

fn name_problems(table: &TableSchema, query: &[QueryColumn]) -> Vec<String> {
    let mut problems = Vec::new();
    for (index, column) in query.iter().enumerate() {
        let name = quoted(&column.name);
        let is_repeated = query[..index].iter().any(|earlier| earlier.name == column.name);
        if is_repeated {
            problems.push(format!("the query names the column {name} twice: rename one with AS"));
        } else if table.column_named(&column.name).is_none() {
            problems.push(format!(
                "the table lacks the column {name} of the query: remove it from the query, or rename \
                 it with AS"
            ));
        }
    }
    problems
}

fn join(problems: &[String]) -> String {
    let shown = &problems[..problems.len().min(MAX_PROBLEMS)];
    let text = shown.join("; ");
    match problems.len() - shown.len() {
        0 => text,
        more => format!("{text}; and {more} more problems"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::table;
    use super::*;

    fn matched(query: &[(&str, Type)]) -> Result<Vec<Option<usize>>, String> {
        let table =
            table(&[("id", "int64", false), ("name", "utf8", true), ("at", "date32", true)]);
        let query: Vec<QueryColumn> = query
            .iter()
            .map(|(name, data_type)| QueryColumn {
                name: (*name).to_owned(),
                data_type: data_type.clone(),
            })
            .collect();
        let sources = match_columns(&table, &query)?;
        let index = |source: &ColumnSource| match source {
            ColumnSource::Field { index, .. } => Some(*index),
            ColumnSource::Null => None,
        };
        Ok(sources.iter().map(index).collect())
    }

    #[test]
    fn columns_match_by_name_in_any_order() {
        let query = [("at", Type::DATE), ("id", Type::INT4), ("name", Type::VARCHAR)];
        assert_eq!(matched(&query), Ok(vec![Some(1), Some(2), Some(0)]));
        assert_eq!(matched(&[("id", Type::INT8)]), Ok(vec![Some(0), None, None]));
    }

    #[test]
    fn column_problems_name_the_column_and_remedy() {
        for (query, expected) in [
            (vec![], "lacks the column \"id\", which is not null: add it"),
            (vec![("id", Type::INT8), ("x", Type::INT8)], "the table lacks the column \"x\""),
            (vec![("id", Type::INT8), ("id", Type::INT8)], "names the column \"id\" twice"),
            (vec![("id", Type::FLOAT8)], "\"id\" has the PostgreSQL type float8"),
            (vec![("id", Type::FLOAT8)], "type int64 without loss: cast it in the query"),
            (vec![("id", Type::INT8), ("at", Type::INTERVAL)], "type interval"),
        ] {
            let error = matched(&query).expect_err(expected);
            assert!(error.contains(expected), "{error}");
        }
    }

    #[test]
    fn many_column_problems_are_counted() {
        let names: Vec<String> = (0..20).map(|i| format!("x{i}")).collect();
        let query: Vec<(&str, Type)> =
            names.iter().map(|name| (name.as_str(), Type::INT8)).collect();
        let error = matched(&query).unwrap_err();
        assert!(error.contains("\"x4\"") && !error.contains("\"x5\""), "{error}");
        assert!(error.ends_with("and 16 more problems"), "{error}");
    }
}
