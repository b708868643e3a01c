//! `bench ingest`

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use arrow::array::RecordBatch;
use clap::Args;
use tidewater_client::{Client, ClientError, TableWriter, WriterOptions};
use tokio::task::JoinSet;

use super::figures::Figures;
use super::sample;
use crate::commands::client::ClientArgs;
use crate::exit::Failure;
use crate::output::{fact, progress::Progress};

/// Options of `bench ingest`.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  tidewater bench ingest --rows 4000000 --output json\n  tidewater \
                        bench ingest --single-row --rows 5000 --clients 8\n\nRows are generated \
                        before the measurement starts. The table has 2 text columns, 1 timestamp and \
                        10 doubles; it is created if it does not exist."
)]
pub(crate) struct Options {
    /// Rows to write
    #[arg(long, value_name = "N", default_value_t = 4_000_000, env = "TIDEWATER_ROWS")]
    rows: u64,

    /// Number of the first row; a number always generates the same row
    #[arg(long, value_name = "N", default_value_t = 0)]
    first: u64,

    /// Number of distinct keys: rows from this number on overwrite earlier ones with other values [default:
    /// each row has a key of its own]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    keys: Option<u64>,

    /// Concurrent clients, each with one call in flight
    #[arg(long, value_name = "N", default_value_t = 4, env = "TIDEWATER_CLIENTS",
          value_parser = clap::value_parser!(u32).range(1..=1024))]
    clients: u32,

    /// Rows per batch
    #[arg(long, value_name = "N", default_value_t = 8192, env = "TIDEWATER_BATCH_ROWS",
          value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    batch_rows: u32,

    /// Write one row per call and wait for each
    #[arg(long, conflicts_with = "batch_rows")]
    single_row: bool,

    /// Table to write to
    #[arg(long, value_name = "TABLE", default_value = "bench", env = "TIDEWATER_TABLE")]
    table: String,

    /// Regions of a newly created table [default: chosen by the cluster]
    #[arg(long, value_name = "N", default_value_t = 0, env = "TIDEWATER_REGIONS")]
    regions: u32,

    /// Create the table as append-only
    #[arg(long)]
    append_only: bool,

    #[command(flatten)]
    client: ClientArgs,
}

/// Batches generated before the measurement, handed out in order.
struct Work {
    batches: Vec<RecordBatch>,
    next: AtomicU64,
    rows: AtomicU64,
}

impl Work {
    fn take(&self) -> Option<RecordBatch> {
        let index = self.next.fetch_add(1, Ordering::Relaxed);
        self.batches.get(usize::try_from(index).ok()?).cloned()
    }
}

/// Writes rows and prints the rate at which they were acknowledged.
pub(crate) async fn run(options: Options) -> Result<(), Failure> {
    let client = options.client.connect().await?;
    ensure_table(&client, &options).await?;
    let clients = options.clients as usize;
    // Open the writers first: the opening write of a producer is not part of the measurement.
    let mut writers = VecDeque::new();
    for _ in 0..clients {
        let settings = WriterOptions { lanes: 1, queue_batches: 1, ..WriterOptions::default() };
        writers.push_back(client.writer(&options.table, settings).await?);
    }
    let work = Arc::new(work(&client, &options).await?);
    let (elapsed, mut times) = drive(writers, work.clone(), options.rows).await?;
    let rows = work.rows.load(Ordering::Relaxed);
    let name = if options.single_row { "single-row ingest" } else { "ingest" };
    let figures = Figures::new(name, clients, rows, elapsed, &mut times);
    fact(options.client.output, &figures, Figures::text)
}

async fn ensure_table(client: &Client, options: &Options) -> Result<(), Failure> {
    match client.table(&options.table).await {
        Ok(_) => Ok(()),
        Err(ClientError::TableNotFound(_)) => {
            let table = sample::table(&options.table, options.regions, options.append_only);
            client.create_table(table).await?;
            Ok(())
        }
        Err(error) => Err(error.into()),
    }
}

async fn work(client: &Client, options: &Options) -> Result<Work, Failure> {
    let schema = client.table(&options.table).await?.schema.arrow();
    let mut first = options.first;
    let end = options.first.saturating_add(options.rows);
    let keys = options.keys;
    let per_batch = if options.single_row { 1 } else { u64::from(options.batch_rows) };
    let generated = tokio::task::spawn_blocking(move || {
        let mut batches = Vec::new();
        while first < end {
            let count = usize::try_from(per_batch.min(end - first)).unwrap_or(1);
            batches.push(sample::rows(&schema, first, count, keys)?);
            first += count as u64;
        }
        Ok::<_, arrow::error::ArrowError>(batches)
    })
    .await
    .map_err(|error| Failure::other(format!("generating rows failed: {error}")))?;
    let batches = generated.map_err(|error| {
        Failure::usage(format!(
            "table {} has a schema that this benchmark cannot write ({error}): drop it, or name \
             another table with --table",
            options.table
        ))
    })?;
    Ok(Work { batches, next: AtomicU64::new(0), rows: AtomicU64::new(0) })
}

/// Runs all writers until no batch is left. Returns the total time and the time of each call.
async fn drive(
    writers: VecDeque<TableWriter>,
    work: Arc<Work>,
    total: u64,
) -> Result<(Duration, Vec<Duration>), Failure> {
    let mut progress = Progress::start("writing");
    let started = Instant::now();
    let mut tasks: JoinSet<Result<Vec<Duration>, ClientError>> = JoinSet::new();
    for writer in writers {
        let work = work.clone();
        tasks.spawn(async move {
            let mut times = Vec::new();
            while let Some(batch) = work.take() {
                let rows = batch.num_rows() as u64;
                let begun = Instant::now();
                writer.put_rows(batch).await?;
                times.push(begun.elapsed());
                work.rows.fetch_add(rows, Ordering::Relaxed);
            }
            Ok(times)
        });
    }
    let mut times = Vec::new();
    let mut tick = tokio::time::interval(Duration::from_millis(250));
    loop {
        tokio::select! {
            done = tasks.join_next() => match done {
                Some(Ok(part)) => times.extend(part?),
                Some(Err(error)) => return Err(Failure::other(format!("a writer task failed: {error}"))),
                None => break,
            },
            _ = tick.tick() => {
                let rows = work.rows.load(Ordering::Relaxed);
                progress.update(rows, (rows, total));
            }
        }
    }
    let elapsed = started.elapsed();
    progress.finish();
    Ok((elapsed, times))
}
