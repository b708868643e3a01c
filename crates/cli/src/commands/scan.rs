//! `scan NAME`

mod request;

use std::path::PathBuf;

use clap::Args;
use serde::Serialize;
use tidewater_client::catalog::TableInfo;
use tidewater_client::{Client, ScanSpec, predicate};
use tidewater_common::ids::Epoch;
use tidewater_common::schema::TableSchema;
use tidewater_proto::v1::Predicate;

use self::request::{RequestOptions, ScanRequest, request};
use super::as_of::{read_epoch, with_bounds};
use super::client::ClientArgs;
use super::get::column_names;
use crate::exit::{Exit, Failure};
use crate::output::rows::{RowFormat, RowWriter};
use crate::output::{Output, fact};
use crate::query::aggregate::{Aggregate, Aggregation};
use crate::query::sort_key::SortKey;
use crate::query::sorter::{RowSorter, SORT_MEMORY};
use crate::text::as_of::AsOf;
use crate::text::size::Size;

/// Options of `scan`.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  tidewater scan flights --where 'distance > 1000 and origin = \
                        \"JFK\"' --limit 10\n  tidewater scan flights --order-by dep_delay:desc,carrier \
                        --limit 5\n  tidewater scan flights --count --output json\n  tidewater scan \
                        flights --count --as-of 5962137600000000\n  tidewater scan \
                        flights --count --as-of 5m\n  tidewater scan \
                        flights --count --columns dep_time,tailnum\n  tidewater scan flights --count \
                        --sum distance --avg dep_delay --where 'origin = \"JFK\"'\n  tidewater scan \
                        flights --format parquet --out flights.parquet\n\nConditions are comparisons \
                        joined by `and`: =, !=, <, <=, >, >=, in (...), is null, is not null.\n\n\
                        Order: this command sorts the rows. NULLs are last, or first with :desc. NaN is \
                        above all other numbers. Rows with equal values stay in the order of a scan without --order-by. With --limit \
                        N only the first N rows are kept in memory.\n\nAggregates: this command computes \
                        them from the columns that they need and prints one row, with columns such as \
                        count and sum(distance). Counts are first, then sums, least and greatest values \
                        and averages. NULLs are ignored; an aggregate without values is NULL. Sums of \
                        integers and decimals are exact; sums of floats and averages are float64. NaN \
                        is the greatest value, and a sum with NaN is NaN.")]
pub(crate) struct Options {
    /// Name of the table
    name: String,

    /// Columns to return, in this order [default: all]; with --count, columns whose values to count
    #[arg(long, value_name = "COLUMN", value_delimiter = ',')]
    columns: Option<Vec<String>>,

    /// Return only rows that satisfy this condition
    #[arg(long = "where", value_name = "CONDITION")]
    condition: Option<String>,

    /// Sort the rows by these columns [default: by key]
    #[arg(long, value_name = "COLUMN[:desc]", value_delimiter = ',')]
    order_by: Vec<SortKey>,

    /// Maximum memory of the rows to sort [default: 512MiB]
    #[arg(long, value_name = "SIZE", requires = "order_by")]
    sort_memory: Option<Size>,

    /// Maximum number of rows
    #[arg(long, value_name = "N")]
    limit: Option<u64>,

    /// Read the rows of a complete epoch: its number, a duration before now (by the time of the cluster, e.g. 5m), or a time;
    /// later writes are not visible. `tidewater table describe` shows the epochs
    #[arg(long, value_name = "EPOCH|TIME")]
    as_of: Option<AsOf>,

    /// Print the number of rows only; with --columns, the number of values that are not NULL of each
    #[arg(long)]
    count: bool,

    /// Print the sum of a column; may be repeated
    #[arg(long, value_name = "COLUMN", value_delimiter = ',')]
    sum: Vec<String>,

    /// Print the least value of a column; may be repeated
    #[arg(long, value_name = "COLUMN", value_delimiter = ',')]
    min: Vec<String>,

    /// Print the greatest value of a column; may be repeated
    #[arg(long, value_name = "COLUMN", value_delimiter = ',')]
    max: Vec<String>,

    /// Print the average of a column; may be repeated
    #[arg(long, value_name = "COLUMN", value_delimiter = ',')]
    avg: Vec<String>,

    /// Row format [default: table, or json with --output json]
    #[arg(long, value_enum)]
    format: Option<RowFormat>,

    /// Write to a file instead of stdout
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,

    #[command(flatten)]
    client: ClientArgs,
}

/// Number of rows. The JSON field name is stable.
#[derive(Debug, Serialize)]
struct Count {
    rows: u64,
}

/// Reads the rows of a table.
pub(crate) async fn run(options: Options) -> Result<(), Failure> {
    let request = request(&options.request_options())?;
    let client = options.client.connect().await?;
    let table = client.table(&options.name).await?;
    let as_of = read_epoch(&client, &table, options.as_of).await?;
    let spec = options.spec(&table, as_of)?;
    match scan(&client, &options, &table, spec, request).await {
        Err(failure) if as_of.is_some() => Err(with_bounds(&client, &table.name, failure).await),
        result => result,
    }
}

async fn scan(
    client: &Client,
    options: &Options,
    table: &TableInfo,
    spec: ScanSpec,
    request: ScanRequest,
) -> Result<(), Failure> {
    match request {
        ScanRequest::Rows => rows(client, options, spec).await,
        ScanRequest::Sorted(keys) => sorted_rows(client, options, table, spec, &keys).await,
        ScanRequest::RowCount => {
            let rows = client.count(spec).await?;
            fact(options.client.output, &Count { rows }, |count| count.rows.to_string())
        }
        ScanRequest::Aggregates(aggregates) => {
            aggregated(client, options, table, spec, &aggregates).await
        }
    }
}

impl Options {
    fn request_options(&self) -> RequestOptions {
        RequestOptions {
            columns: self.columns.as_deref().map(column_names),
            order_by: self.order_by.clone(),
            limit: self.limit,
            count: self.count,
            sum: column_names(&self.sum),
            min: column_names(&self.min),
            max: column_names(&self.max),
            avg: column_names(&self.avg),
            as_rows: self.format.is_some() || self.out.is_some(),
        }
    }

    fn spec(&self, table: &TableInfo, as_of: Option<Epoch>) -> Result<ScanSpec, Failure> {
        let mut spec = ScanSpec::all(&self.name);
        spec.columns = self.columns.as_deref().map(column_names);
        if let Some(condition) = &self.condition {
            spec.predicates = conditions(&table.schema, condition)?;
        }
        spec.limit = self.limit;
        spec.as_of = as_of;
        Ok(spec)
    }

    fn format(&self) -> RowFormat {
        self.format.unwrap_or(match self.client.output {
            Output::Table => RowFormat::Table,
            Output::Json => RowFormat::Json,
        })
    }
}

/// Parses the value of `--where`.
pub(super) fn conditions(schema: &TableSchema, text: &str) -> Result<Vec<Predicate>, Failure> {
    predicate::parse(schema, text).map_err(|error| {
        let exit = match error.problem {
            // The same status as for an unknown column in --columns.
            predicate::PredicateProblem::UnknownColumn { .. } => Exit::NotFound,
            _ => Exit::Usage,
        };
        Failure::new(exit, format!("--where: {error}"))
    })
}

async fn rows(client: &Client, options: &Options, spec: ScanSpec) -> Result<(), Failure> {
    let mut stream = client.scan(spec).await?;
    let out = options.out.as_deref();
    let mut writer = RowWriter::create(options.format(), out, stream.schema())?;
    while let Some(batch) = stream.next_batch().await {
        writer.write(&batch?)?;
    }
    writer.finish()
}

async fn sorted_rows(
    client: &Client,
    options: &Options,
    table: &TableInfo,
    mut spec: ScanSpec,
    keys: &[SortKey],
) -> Result<(), Failure> {
    for key in keys {
        tidewater_client::column(table, &key.column)?;
    }
    // Columns that are only sorted by follow those to return.
    let returned = spec.columns.as_ref().map_or(table.schema.columns().len(), Vec::len);
    if let Some(columns) = &mut spec.columns {
        for key in keys {
            if !columns.contains(&key.column) {
                columns.push(key.column.clone());
            }
        }
    }
    // The first rows are known when all are sorted.
    spec.limit = options.limit.filter(|limit| *limit == 0);
    let returned: Vec<usize> = (0..returned).collect();
    let mut stream = client.scan(spec).await?;
    let max = options.sort_memory.unwrap_or(SORT_MEMORY);
    let mut sorter = RowSorter::new(stream.schema(), keys, options.limit, max)?;
    let schema = stream.schema().project(&returned).map_err(arrow_failure)?.into();
    let mut writer = RowWriter::create(options.format(), options.out.as_deref(), &schema)?;
    while let Some(batch) = stream.next_batch().await {
        sorter.push(batch?)?;
    }
    for batch in sorter.finish() {
        writer.write(&batch?.project(&returned).map_err(arrow_failure)?)?;
    }
    writer.finish()
}

async fn aggregated(
    client: &Client,
    options: &Options,
    table: &TableInfo,
    mut spec: ScanSpec,
    aggregates: &[Aggregate],
) -> Result<(), Failure> {
    let mut aggregation = Aggregation::new(table, aggregates)?;
    if aggregation.columns().is_empty() {
        spec.columns = None;
        aggregation.add_row_count(client.count(spec).await?);
    } else {
        spec.columns = Some(aggregation.columns().to_vec());
        spec.unordered = true;
        let mut stream = client.scan(spec).await?;
        while let Some(batch) = stream.next_batch().await {
            aggregation.push(&batch?)?;
        }
    }
    let result = aggregation.result()?;
    let out = options.out.as_deref();
    let mut writer = RowWriter::create(options.format(), out, &result.schema())?;
    writer.write(&result)?;
    writer.finish()
}

fn arrow_failure(error: arrow::error::ArrowError) -> Failure {
    Failure::other(format!("cannot select the columns: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn row_count_has_stable_json_field() {
        assert_eq!(serde_json::to_string(&Count { rows: 7 }).unwrap(), r#"{"rows":7}"#);
    }

    #[test]
    fn help_names_the_default_sort_memory() {
        let command = <Options as Args>::augment_args(clap::Command::new("scan"));
        let argument = command.get_arguments().find(|found| found.get_id() == "sort_memory");
        let help = argument.and_then(clap::Arg::get_help).unwrap().to_string();
        assert!(help.contains(&format!("[default: {SORT_MEMORY}]")), "{help}");
    }
}
