//! `scan NAME`

use std::path::PathBuf;

use clap::Args;
use serde::Serialize;
use tidewater_client::{Client, ScanSpec, predicate};

use super::client::ClientArgs;
use super::get::column_names;
use crate::exit::{Exit, Failure};
use crate::output::rows::{RowFormat, RowWriter};
use crate::output::{Output, fact};

/// Options of `scan`.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  tidewater scan flights --where 'distance > 1000 and origin = \
                        \"JFK\"' --limit 10\n  tidewater scan flights --count --output json\n  \
                        tidewater scan flights --format parquet --out flights.parquet\n\nConditions \
                        are comparisons joined by `and`: =, !=, <, <=, >, >=, in (...), is null, is \
                        not null.")]
pub(crate) struct Options {
    /// Name of the table
    name: String,

    /// Columns, in the order wanted [default: all]
    #[arg(long, value_name = "COLUMN", value_delimiter = ',', conflicts_with = "count")]
    columns: Option<Vec<String>>,

    /// Only rows for which this holds
    #[arg(long = "where", value_name = "CONDITION")]
    condition: Option<String>,

    /// Most rows
    #[arg(long, value_name = "N")]
    limit: Option<u64>,

    /// Only the number of rows
    #[arg(long)]
    count: bool,

    /// How rows are written [default: table, or json with --output json]
    #[arg(long, value_enum, conflicts_with = "count")]
    format: Option<RowFormat>,

    /// Write to a file instead of stdout
    #[arg(long, value_name = "FILE", conflicts_with = "count")]
    out: Option<PathBuf>,

    #[command(flatten)]
    client: ClientArgs,
}

/// The JSON field name is stable.
#[derive(Debug, Serialize)]
struct Count {
    rows: u64,
}

/// Reads the rows of a table.
pub(crate) async fn run(options: Options) -> Result<(), Failure> {
    let client = options.client.connect().await?;
    let spec = spec(&client, &options).await?;
    if options.count {
        let rows = client.count(spec).await?;
        return fact(options.client.output, &Count { rows }, |count| count.rows.to_string());
    }
    let format = options.format.unwrap_or(match options.client.output {
        Output::Table => RowFormat::Table,
        Output::Json => RowFormat::Json,
    });
    let mut stream = client.scan(spec).await?;
    let mut writer = RowWriter::create(format, options.out.as_deref(), stream.schema())?;
    while let Some(batch) = stream.next_batch().await {
        writer.write(&batch?)?;
    }
    writer.finish()
}

async fn spec(client: &Client, options: &Options) -> Result<ScanSpec, Failure> {
    let table = client.table(&options.name).await?;
    let mut spec = ScanSpec::all(&options.name);
    spec.columns = options.columns.as_deref().map(column_names);
    if let Some(condition) = &options.condition {
        spec.predicates = predicate::parse(&table.schema, condition).map_err(|error| {
            let exit = match error.problem {
                // As for a column named with --columns.
                predicate::PredicateProblem::UnknownColumn { .. } => Exit::NotFound,
                _ => Exit::Usage,
            };
            Failure::new(exit, format!("--where: {error}"))
        })?;
    }
    spec.limit = options.limit;
    Ok(spec)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn field_names_are_stable() {
        assert_eq!(serde_json::to_string(&Count { rows: 7 }).unwrap(), r#"{"rows":7}"#);
    }
}
