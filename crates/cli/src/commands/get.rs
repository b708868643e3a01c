//! `get NAME KEY...`

use arrow::array::RecordBatch;
use clap::Args;
use tidewater_common::schema::TableSchema;

use super::as_of::{read_epoch, with_bounds};
use super::client::ClientArgs;
use crate::exit::Failure;
use crate::output::Output;
use crate::output::rows::{RowFormat, RowWriter};
use crate::text::as_of::AsOf;
use crate::text::key::key_values;
use tidewater_readers::value::rows::RowsBuilder;

/// Options of `get`.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  tidewater get airlines UA DL\n  tidewater get flights \
                        2013-01-01T10:00:00Z,EWR,1545 --columns dest,distance --output \
                        json\n\nA key is a list of values \
                        separated by commas, in the order of the primary key. Quote a value that \
                        contains a comma with double quotes.")]
pub(crate) struct Options {
    /// Name of the table
    name: String,

    /// Keys of the rows to read
    #[arg(required = true, allow_negative_numbers = true, value_name = "KEY")]
    keys: Vec<String>,

    /// Columns to return, in this order [default: all]
    #[arg(long, value_name = "COLUMN", value_delimiter = ',')]
    columns: Option<Vec<String>>,

    /// Read the rows of a complete epoch: its number, a duration before now (by the time of the cluster, e.g. 5m), or a time;
    /// later writes are not visible. `tidewater table describe` shows the epochs
    #[arg(long, value_name = "EPOCH|TIME")]
    as_of: Option<AsOf>,

    #[command(flatten)]
    client: ClientArgs,
}

/// Reads rows by their keys. Fails with *not found* if none of the keys has a row.
pub(crate) async fn run(options: Options) -> Result<(), Failure> {
    let client = options.client.connect().await?;
    let table = client.table(&options.name).await?;
    let keys = keys(&table.schema, &options.keys)?;
    let columns = options.columns.as_deref().map(column_names);
    let as_of = read_epoch(&client, &table, options.as_of).await?;
    let rows = match client.get_as_of(&options.name, &keys, columns.as_deref(), as_of).await {
        Ok(rows) => rows,
        Err(error) if as_of.is_some() => {
            return Err(with_bounds(&client, &options.name, error.into()).await);
        }
        Err(error) => return Err(error.into()),
    };
    if rows.num_rows() == 0 {
        return Err(Failure::not_found(match options.keys.as_slice() {
            [key] => format!("table {} has no row with key {key}", options.name),
            keys => {
                format!("table {} has no row with any of the {} keys", options.name, keys.len())
            }
        }));
    }
    let format = match options.client.output {
        Output::Table => RowFormat::Table,
        Output::Json => RowFormat::Json,
    };
    let mut writer = RowWriter::create(format, None, &rows.schema())?;
    writer.write(&rows)?;
    writer.finish()
}

/// Trims the column names of a comma-separated list.
pub(crate) fn column_names(texts: &[String]) -> Vec<String> {
    texts.iter().map(|name| name.trim().to_owned()).collect()
}

/// Parses keys into a batch of the key columns.
pub(crate) fn keys(table: &TableSchema, texts: &[String]) -> Result<RecordBatch, Failure> {
    let names: Vec<&str> = table
        .key_indices()
        .iter()
        .filter_map(|index| table.columns().get(*index))
        .map(|column| column.name.as_str())
        .collect();
    let mut rows = RowsBuilder::for_keys(table);
    for text in texts {
        let bad = |problem: String| Failure::usage(format!("key `{text}`: {problem}"));
        let values = key_values(text).map_err(|error| bad(error.to_string()))?;
        if values.len() != names.len() {
            return Err(bad(format!(
                "found {} values, but the primary key has {} columns: {}",
                values.len(),
                names.len(),
                names.join(", ")
            )));
        }
        for value in &values {
            rows.text(value)
                .map_err(|cell| bad(format!("column `{}`: {}", cell.column, cell.problem)))?;
        }
        rows.end_row();
    }
    rows.finish()
        .map_err(|error| Failure::other(format!("failed to build a batch of the keys: {error}")))?
        .ok_or_else(|| Failure::usage("no key given: name at least one"))
}

#[cfg(test)]
mod tests {
    use arrow::util::display::array_value_to_string;
    use tidewater_common::ids::{ColumnId, SchemaVersion};
    use tidewater_common::schema::{Column, ColumnType};

    use super::*;

    fn table() -> TableSchema {
        let column = |id: u32, name: &str, data_type: ColumnType| Column {
            id: ColumnId(id),
            name: name.into(),
            data_type,
            nullable: false,
            default: None,
        };
        TableSchema::new(
            SchemaVersion(1),
            vec![column(1, "flight", ColumnType::Int64), column(2, "day", ColumnType::Date32)],
            vec![ColumnId(2), ColumnId(1)],
            None,
            ColumnId(3),
        )
        .unwrap()
    }

    #[test]
    fn keys_parse_in_primary_key_order() {
        let found = keys(&table(), &["2013-01-01,-5".into(), "2013-01-02,7".into()]).unwrap();
        assert_eq!(found.num_rows(), 2);
        assert_eq!(array_value_to_string(found.column(0), 1).unwrap(), "2013-01-02");
        assert_eq!(array_value_to_string(found.column(1), 0).unwrap(), "-5");
    }

    #[test]
    fn invalid_keys_name_the_bad_value() {
        let wrong = |text: &str| keys(&table(), &[text.to_owned()]).unwrap_err().message;
        assert!(wrong("7").contains("2 columns: day, flight"));
        assert!(wrong("2013-01-01,x").contains("column `flight`: `x`"));
        assert!(wrong("\"2013").contains("not closed"));
    }
}
