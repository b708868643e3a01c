//! `load NAME FILE...`

mod bulk;
mod summary;

use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;
use tidewater_client::{TableWriter, WriterOptions};

use self::summary::Summary;
use super::client::ClientArgs;
use crate::exit::Failure;
use crate::load::ReadOptions;
use crate::load::bad_rows::BadRows;
use crate::load::input::Input;
use crate::load::pipeline::{Event, Pipeline, check_all, inspect_all};
use crate::output::fact;
use crate::output::progress::Progress;

/// Options of `load`.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  tidewater load flights flights.csv.zip --null NA\n  tidewater \
                        load flights a.parquet b.ndjson.gz --skip-bad 100\n\nFiles are CSV with a \
                        header, ndjson, both also with gzip or in a zip archive, or Parquet. \
                        Columns are matched by name. In CSV an empty cell is a missing value, and \
                        so is one that equals a text given with --null; in a text column that is \
                        `not null`, an empty cell is the empty text. Times without an offset are \
                        UTC. Every file is read to its end and checked before the first row is \
                        written, so that a bad one changes nothing; --unchecked leaves that \
                        out.\n\nWith --bulk, rows become files at once, past log and memory: \
                        faster for much data, and each batch shows when its file does. With \
                        --atomic the files are staged first, and published only when all of them \
                        are there: each region shows all of the load or nothing, and a load that \
                        ends early leaves nothing. Meanwhile the table takes writes, but no alter, \
                        truncate, clone or other atomic load."
)]
pub(crate) struct Options {
    /// Name of the table
    name: String,

    /// Files
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,

    /// Rows of a batch
    #[arg(long, value_name = "N", env = "TIDEWATER_BATCH_ROWS", default_value_t = 8192,
          value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    batch_rows: u32,

    /// A text that stands for a missing value; may be repeated
    #[arg(long = "null", value_name = "TEXT", env = "TIDEWATER_NULL")]
    nulls: Vec<String>,

    /// Go on past this many bad rows
    #[arg(long, value_name = "N", env = "TIDEWATER_SKIP_BAD", default_value_t = 0)]
    skip_bad: u64,

    /// Read the files once only: a bad row is found after those before it were written
    #[arg(long, env = "TIDEWATER_UNCHECKED")]
    unchecked: bool,

    /// Writes in flight. Of several rows with one key, the last of the files wins all the same
    #[arg(long, value_name = "N", env = "TIDEWATER_IN_FLIGHT", default_value_t = 4,
          value_parser = clap::value_parser!(u32).range(1..=256))]
    in_flight: u32,

    /// Write the rows as files at once, past log and memory
    #[arg(long, env = "TIDEWATER_BULK", conflicts_with_all = ["atomic", "in_flight"])]
    bulk: bool,

    /// As --bulk, and show nothing until everything is there
    #[arg(long, env = "TIDEWATER_ATOMIC", conflicts_with = "in_flight")]
    atomic: bool,

    #[command(flatten)]
    client: ClientArgs,
}

/// Loads files into a table.
pub(crate) async fn run(options: Options) -> Result<(), Failure> {
    let files = options.files.clone();
    let inputs = blocking(move || inspect_all(&files)).await??;
    let client = options.client.connect().await?;
    let table = client.table(&options.name).await?;
    let read = ReadOptions {
        table: Arc::new(table.schema.clone()),
        nulls: options.nulls.clone().into(),
        batch_rows: options.batch_rows as usize,
    };
    let (checked, check_options) = (inputs.clone(), read.clone());
    blocking(move || check_all(&checked, &check_options)).await??;
    if !options.unchecked {
        read_through(&options, inputs.clone(), read.clone())
            .await
            .map_err(|error| after(error, 0))?;
    }
    if options.bulk || options.atomic {
        return bulk::run(&options, &client, inputs, read).await;
    }
    let lanes = options.in_flight as usize;
    let settings = WriterOptions { lanes, ..WriterOptions::default() };
    let writer = client.writer(&options.name, settings).await?;
    copy(&options, &writer, inputs, read).await
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Failure> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|error| Failure::other(format!("reading the files stopped: {error}")))
}

fn start(options: &Options, inputs: Vec<Input>, read: ReadOptions) -> Result<Pipeline, Failure> {
    Pipeline::start(inputs, read, options.skip_bad)
        .map_err(|error| Failure::other(format!("no thread can be started: {error}")))
}

/// Reads everything and writes nothing, so that whatever is wrong is found before there is a change.
async fn read_through(
    options: &Options,
    inputs: Vec<Input>,
    read: ReadOptions,
) -> Result<(), Failure> {
    let mut progress = Progress::start("checking");
    let mut pipeline = start(options, inputs, read)?;
    let mut rows = 0;
    let result = loop {
        match pipeline.next().await? {
            Event::Rows(batch) => rows += batch.num_rows() as u64,
            Event::End { result, .. } => break result,
        }
        progress.update(rows, pipeline.progress());
    };
    progress.finish();
    Ok(result?)
}

/// Sends what is read until the end, the first error, or the first rows that were not written.
async fn copy(
    options: &Options,
    writer: &TableWriter,
    inputs: Vec<Input>,
    read: ReadOptions,
) -> Result<(), Failure> {
    let mut progress = Progress::start(format!("loading {}", options.name));
    let mut pipeline = start(options, inputs, read)?;
    let (bad, ended) = loop {
        let rows = match pipeline.next().await {
            Ok(Event::Rows(rows)) => rows,
            Ok(Event::End { bad, result }) => break (bad, result.map_err(Failure::from)),
            Err(error) => break (BadRows::new(0), Err(Failure::from(error))),
        };
        if let Err(error) = writer.write(rows).await {
            break (BadRows::new(0), Err(Failure::from(error)));
        }
        let so_far = writer.progress();
        progress.update(so_far.acknowledged, pipeline.progress());
        if !so_far.is_complete() {
            break (BadRows::new(0), Ok(()));
        }
    };
    // The reading thread stops when nobody listens.
    drop(pipeline);
    let report = writer.flush().await?;
    let seconds = progress.finish();
    for row in bad.kept() {
        eprintln!("skipped: {row}");
    }
    let summary = Summary::new(&options.name, &report, bad.count(), seconds);
    fact(options.client.output, &summary, Summary::text)?;
    let written = report.into_result(&options.name);
    match (written, ended) {
        (Err(error), _) => Err(error.into()),
        (Ok(_), Err(failure)) => Err(after(failure, summary.acknowledged)),
        (Ok(_), Ok(())) => Ok(()),
    }
}

/// A load that ended early says what is there now.
fn after(failure: Failure, acknowledged: u64) -> Failure {
    let state = match acknowledged {
        0 => "nothing was written".to_owned(),
        rows => format!(
            "{rows} rows before it were written; loading the repaired file again writes them once \
             more, which changes nothing unless the table is append-only"
        ),
    };
    Failure::new(failure.exit, format!("{}\n  {state}", failure.message))
}
