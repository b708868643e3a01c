//! `load NAME FILE...`

mod bulk;
mod create;
pub(crate) mod plan;
mod summary;

use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;
use tidewater_client::{Client, TableWriter, WriterOptions};
use tidewater_common::keys::KeyCodec;
use tidewater_common::schema::TableSchema;

use self::create::CreateArgs;
use self::summary::Summary;
use super::client::ClientArgs;
use crate::exit::Failure;
use crate::load::stdin::inspect_inputs;
use crate::output::fact;
use crate::output::progress::Progress;
use crate::output::terminal::note;
use tidewater_readers::ReadOptions;
use tidewater_readers::bad_rows::BadRows;
use tidewater_readers::delimiter::Delimiter;
use tidewater_readers::input::Input;
use tidewater_readers::pipeline::{Event, Pipeline, check_all};

/// Options of `load`.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  tidewater load flights flights.csv.zip --null NA\n  tidewater \
                        load flights a.parquet b.ndjson.gz --skip-bad 100\n  tidewater load planes \
                        planes.csv --create --primary-key tailnum --null NA\n  zcat trips.tsv.gz | \
                        tidewater load trips - --delimiter tab\n\nFiles are CSV with a \
                        header or NDJSON, optionally compressed with gzip or in a zip archive, or \
                        Parquet. Columns are matched by name. In CSV, an empty cell is a missing \
                        value, and so is a cell that equals a --null text; in a text column that is \
                        `not null`, an empty cell is the empty text. Times without an offset are \
                        UTC. Every file is read completely and checked before the first row is \
                        written, so that a bad file changes nothing; --unchecked skips this \
                        check.\n\nA CSV quote that is not closed before the end of the file fails \
                        the load: --skip-bad does not skip it, and with --unchecked rows before it \
                        may have been written.\n\nWith --bulk, rows are written directly as files, \
                        bypassing the log and the memtable: faster for large data. Each batch \
                        becomes visible with its file. With --atomic, files are staged first and published together: each \
                        region shows all rows of the load or none, and an aborted load leaves \
                        nothing. During an atomic load the table accepts writes, but no alter, \
                        truncate, clone or other atomic load.\n\nWith --create, the columns are \
                        inferred from all rows of all files, which must have the same columns: bool, \
                        int64, float64, date32, timestamp (RFC 3339), otherwise utf8; Parquet files \
                        keep their types. --columns replaces inferred types. Columns of the primary \
                        key are not null, others are nullable, and keys must be unique. Without \
                        --primary-key the table is append-only, sorted by the time column or by the \
                        first column without missing values. When a row does not fit, no table is \
                        created."
)]
pub(crate) struct Options {
    /// Name of the table
    name: String,

    /// Files to load; `-` reads from standard input and detects the format by content
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,

    /// Rows per batch
    #[arg(long, value_name = "N", env = "TIDEWATER_BATCH_ROWS", default_value_t = 8192,
          value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    batch_rows: u32,

    /// Text that represents a missing value; may be repeated
    #[arg(long = "null", value_name = "TEXT", env = "TIDEWATER_NULL")]
    nulls: Vec<String>,

    /// Delimiter of CSV cells: a character, or `tab`
    #[arg(long, value_name = "CHAR", env = "TIDEWATER_DELIMITER", default_value_t)]
    delimiter: Delimiter,

    /// Skip up to this many bad rows
    #[arg(long, value_name = "N", env = "TIDEWATER_SKIP_BAD", default_value_t = 0)]
    skip_bad: u64,

    /// Skip the check before the load: rows before a bad row are written
    #[arg(long, env = "TIDEWATER_UNCHECKED")]
    unchecked: bool,

    /// Concurrent writes; of several rows with the same key, the last one in the files still wins
    #[arg(long, value_name = "N", env = "TIDEWATER_IN_FLIGHT", default_value_t = 4,
          value_parser = clap::value_parser!(u32).range(1..=256))]
    in_flight: u32,

    /// Write rows directly as files, bypassing the log and the memtable
    #[arg(long, env = "TIDEWATER_BULK", conflicts_with_all = ["atomic", "in_flight"])]
    bulk: bool,

    /// Like --bulk, but publish all rows together
    #[arg(long, env = "TIDEWATER_ATOMIC", conflicts_with = "in_flight")]
    atomic: bool,

    #[command(flatten)]
    create: CreateArgs,

    #[command(flatten)]
    client: ClientArgs,
}

impl Options {
    fn read_options(&self, table: TableSchema, codec: KeyCodec) -> ReadOptions {
        ReadOptions {
            table: Arc::new(table),
            codec,
            nulls: self.nulls.clone().into(),
            batch_rows: self.batch_rows as usize,
            delimiter: self.delimiter,
        }
    }
}

/// Loads files into a table.
pub(crate) async fn run(options: Options) -> Result<(), Failure> {
    let files = options.files.clone();
    let (inputs, _spool) = blocking(move || inspect_inputs(&files, std::io::stdin())).await??;
    let client = options.client.connect().await?;
    if !options.create.is_wanted() {
        return load(&options, &client, inputs).await;
    }
    create::run(&options, &client, &inputs).await?;
    load(&options, &client, inputs).await.map_err(with_created_table)
}

/// Loads the inputs into the existing table.
async fn load(options: &Options, client: &Client, inputs: Vec<Input>) -> Result<(), Failure> {
    let table = client.table(&options.name).await?;
    let read = options.read_options(table.schema.clone(), table.codec.clone());
    let inputs_to_check = inputs.clone();
    let check_options = read.clone();
    blocking(move || check_all(&inputs_to_check, &check_options)).await??;
    // All rows were checked before the table was created.
    if !options.unchecked && !options.create.is_wanted() {
        read_through(options, inputs.clone(), read.clone())
            .await
            .map_err(|error| with_written_rows(error, 0))?;
    }
    if options.bulk || options.atomic {
        return bulk::run(options, client, table, inputs, read).await;
    }
    let lanes = options.in_flight as usize;
    let settings = WriterOptions { lanes, ..WriterOptions::default() };
    let writer = client.writer_for(table, settings)?;
    copy(options, &writer, inputs, read).await
}

/// Adds to the error of a load that its table exists now.
fn with_created_table(failure: Failure) -> Failure {
    let state = "the table was created; load again without --create";
    Failure::new(failure.exit, format!("{}\n  {state}", failure.message))
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Failure> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|error| Failure::other(format!("reading the files failed: {error}")))
}

fn start(options: &Options, inputs: Vec<Input>, read: ReadOptions) -> Result<Pipeline, Failure> {
    Pipeline::start(inputs, read, options.skip_bad)
        .map_err(|error| Failure::other(format!("cannot start a thread: {error}")))
}

/// Reads all inputs and writes nothing, so that errors are found before the first change.
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

/// Writes the rows of all inputs, until the end, the first error, or the first rows that were not
/// acknowledged.
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
        let written = writer.progress();
        progress.update(written.acknowledged, pipeline.progress());
        if !written.is_whole() {
            break (BadRows::new(0), Ok(()));
        }
    };
    // The reader thread stops when the channel closes.
    drop(pipeline);
    let report = writer.flush().await?;
    let seconds = progress.finish();
    for row in bad.kept() {
        note(&format!("skipped: {row}"));
    }
    let summary = Summary::new(&options.name, &report, bad.count(), seconds);
    fact(options.client.output, &summary, Summary::text)?;
    let written = report.into_result(&options.name);
    match (written, ended) {
        (Err(error), _) => Err(error.into()),
        (Ok(_), Err(failure)) => Err(with_written_rows(failure, summary.acknowledged)),
        (Ok(_), Ok(())) => Ok(()),
    }
}

/// Adds to the error of an interrupted load how many rows were written.
fn with_written_rows(failure: Failure, acknowledged: u64) -> Failure {
    let state = match acknowledged {
        0 => "nothing was written".to_owned(),
        rows => format!(
            "{rows} rows before it were written; loading the repaired file again rewrites them, \
             which changes nothing unless the table is append-only"
        ),
    };
    Failure::new(failure.exit, format!("{}\n  {state}", failure.message))
}
