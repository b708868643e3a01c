//! Errors of the inference, each with a remedy.

use super::Place;
use super::value_kind::ValueKind;
use tidewater_readers::error::{LoadError, listed};

/// Columns that cannot be inferred from the files.
#[derive(Debug, thiserror::Error)]
pub(crate) enum InferError {
    #[error("column `{column}` has no value: give its type with --columns '{column} utf8'")]
    NoValue { column: String },
    #[error(
        "column `{column}` has values of two kinds: {first} has {first_kind}, {second} has \
         {second_kind}: convert them to one kind"
    )]
    Mixed {
        column: String,
        first: Place,
        first_kind: ValueKind,
        second: Place,
        second_kind: ValueKind,
    },
    #[error(
        "{place}, column `{column}`: nested value: found {found}, which a table does not store: \
         flatten the column or remove it"
    )]
    Nested { column: String, place: Place, found: &'static str },
    #[error(
        "{place}, column `{column}`: the integer is not exact as a float, and the column has \
         fractions: give its type with --columns '{column} float64' or '{column} decimal128(38, 9)'"
    )]
    Inexact { column: String, place: Place },
    #[error(
        "{file}: column `{column}` has the Parquet type {found}, which a table does not store: \
         convert the column or remove it"
    )]
    ParquetType { file: String, column: String, found: String },
    #[error(
        "column `{column}` has type {one} in one file and {two} in another: convert one of them, or \
         give the type with --columns"
    )]
    Differs { column: String, one: String, two: String },
    #[error("{}", names_message(first, file, lacking, extra))]
    Names { first: String, file: String, lacking: Vec<String>, extra: Vec<String> },
    #[error("{file}: more than {limit} columns, the most of a table: split the file by columns")]
    TooManyColumns { file: String, limit: usize },
    #[error(transparent)]
    Load(#[from] LoadError),
}

fn names_message(first: &str, file: &str, lacking: &[String], extra: &[String]) -> String {
    let part = |verb: &str, names: &[String]| {
        (!names.is_empty()).then(|| format!("{verb} column {}", listed(names)))
    };
    let parts: Vec<String> =
        [part("lacks", lacking), part("adds", extra)].into_iter().flatten().collect();
    format!(
        "{file}: its columns differ from those of {first}: it {}: load the files into separate \
         tables, or create the table first with `tidewater table create`",
        parts.join(" and ")
    )
}
