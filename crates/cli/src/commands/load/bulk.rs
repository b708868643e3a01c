//! `load --bulk` and `load --atomic`

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::compute::concat_batches;
use tidewater_client::{BulkLoader, Client, TableInfo, WriteReport};

use super::summary::Summary;
use super::{Options, start};
use crate::exit::{Exit, Failure};
use crate::output::fact;
use crate::output::progress::Progress;
use crate::output::terminal::note;
use tidewater_readers::ReadOptions;
use tidewater_readers::bad_rows::BadRows;
use tidewater_readers::input::Input;
use tidewater_readers::pipeline::{Event, Pipeline};

/// Bytes of rows in memory that are written as files together.
const CHUNK_BYTES: usize = 64 << 20;

/// Loads the inputs as files. `table`: as it was when the inputs were checked.
pub(super) async fn run(
    options: &Options,
    client: &Client,
    table: Arc<TableInfo>,
    inputs: Vec<Input>,
    read: ReadOptions,
) -> Result<(), Failure> {
    let loader = if options.atomic {
        client.atomic_loader(&options.name).await?
    } else {
        client.bulk_loader_for(table)
    };
    let mut copy = BulkCopy {
        loader,
        progress: Progress::start(format!("loading {}", options.name)),
        chunk: Vec::new(),
        bytes: 0,
        rows: 0,
    };
    // An alter after the begin of an atomic load is refused, and a direct load continues after one.
    let same_schema = copy.loader.table().schema == *read.table;
    let copied = match (same_schema, start(options, inputs, read)) {
        (false, _) => Err(Failure::other(format!(
            "table {:?} was altered since the files were checked: load again",
            options.name
        ))),
        (true, Err(failure)) => Err(failure),
        (true, Ok(pipeline)) => tokio::select! {
            copied = copy.all(pipeline) => copied,
            _ = tokio::signal::ctrl_c() => Err(Failure::other("interrupted")),
        },
    };
    let BulkCopy { loader, progress, rows, .. } = copy;
    let (bad, rows) = match (copied, options.atomic) {
        (Ok(bad), true) => {
            loader.publish().await?;
            (bad, rows)
        }
        (Ok(bad), false) => (bad, rows),
        (Err(failure), true) => return Err(abandon(loader, failure).await),
        (Err(failure), false) => return Err(with_written_rows(failure, rows)),
    };
    let seconds = progress.finish();
    for row in bad.kept() {
        note(&format!("skipped: {row}"));
    }
    let report = WriteReport { acknowledged: rows, ..WriteReport::default() };
    let summary = Summary::new(&options.name, &report, bad.count(), seconds);
    fact(options.client.output, &summary, Summary::text)
}

/// Adds to the error of an interrupted load how many rows were written. Some regions may show rows of
/// the last chunk as well.
fn with_written_rows(failure: Failure, rows: u64) -> Failure {
    let state = format!(
        "{rows} rows before it were written, and some of the next rows may have been; loading the \
         files again rewrites them, which changes nothing unless the table is append-only"
    );
    Failure::new(failure.exit, format!("{}\n  {state}", failure.message))
}

/// Abandons an atomic load: none of its rows become visible. Adds the outcome to the error.
async fn abandon(loader: BulkLoader, failure: Failure) -> Failure {
    let state = match loader.abandon().await {
        Ok(()) => "the load was abandoned, and the table is unchanged".to_owned(),
        Err(error) => format!(
            "the load expires in a few minutes and leaves the table unchanged; until then the table \
             accepts no alter, truncate, clone or other atomic load: {error}"
        ),
    };
    Failure::new(failure.exit, format!("{}\n  {state}", failure.message))
}

/// Copies rows from the reader thread to the loader, one chunk at a time.
struct BulkCopy {
    loader: BulkLoader,
    progress: Progress,
    chunk: Vec<RecordBatch>,
    bytes: usize,
    /// Rows in files that the cluster has adopted.
    rows: u64,
}

impl BulkCopy {
    async fn all(&mut self, mut pipeline: Pipeline) -> Result<BadRows, Failure> {
        loop {
            match pipeline.next().await? {
                Event::Rows(batch) => {
                    self.bytes += batch.get_array_memory_size();
                    self.chunk.push(batch);
                    if self.bytes >= CHUNK_BYTES {
                        self.write().await?;
                    }
                }
                Event::End { bad, result } => {
                    result?;
                    self.write().await?;
                    return Ok(bad);
                }
            }
            self.progress.update(self.rows, pipeline.progress());
        }
    }

    async fn write(&mut self) -> Result<(), Failure> {
        self.bytes = 0;
        let chunk = std::mem::take(&mut self.chunk);
        let Some(first) = chunk.first() else { return Ok(()) };
        let batch = concat_batches(&first.schema(), &chunk)
            .map_err(|error| Failure::new(Exit::Other, error.to_string()))?;
        drop(chunk);
        let rows = batch.num_rows() as u64;
        self.loader.write(batch).await?;
        self.rows += rows;
        Ok(())
    }
}
