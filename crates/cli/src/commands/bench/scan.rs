//! `bench scan`

use std::time::Instant;

use clap::Args;
use tidewater_client::ScanSpec;

use super::figures::Figures;
use crate::commands::client::ClientArgs;
use crate::exit::Failure;
use crate::output::fact;

/// Options of `bench scan`.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  tidewater bench scan --table bench --output json\n  tidewater bench scan --count"
)]
pub(crate) struct Options {
    /// Table to read
    #[arg(long, value_name = "TABLE", default_value = "bench", env = "TIDEWATER_TABLE")]
    table: String,

    /// Columns to read [default: all]
    #[arg(long, value_name = "COLUMN", value_delimiter = ',')]
    columns: Option<Vec<String>>,

    /// Count the rows on the data nodes instead of reading them
    #[arg(long, conflicts_with = "columns")]
    count: bool,

    #[command(flatten)]
    client: ClientArgs,
}

/// Reads or counts a whole table and prints the rate at which its rows arrived or were counted.
pub(crate) async fn run(options: Options) -> Result<(), Failure> {
    let client = options.client.connect().await?;
    let mut spec = ScanSpec::all(&options.table);
    spec.columns = options.columns;
    let started = Instant::now();
    if options.count {
        let rows = client.count(spec).await?;
        let elapsed = started.elapsed();
        let figures = Figures::new("count", 1, rows, elapsed, &mut [elapsed]);
        return fact(options.client.output, &figures, Figures::text);
    }
    let mut stream = client.scan(spec).await?;
    let mut rows = 0;
    let mut times = Vec::new();
    let mut last_batch = started;
    while let Some(batch) = stream.next_batch().await {
        rows += batch?.num_rows() as u64;
        times.push(last_batch.elapsed());
        last_batch = Instant::now();
    }
    let figures = Figures::new("scan", 1, rows, started.elapsed(), &mut times);
    fact(options.client.output, &figures, Figures::text)
}
