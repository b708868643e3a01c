//! `load --bulk` and `load --atomic`.

use arrow::array::RecordBatch;
use arrow::compute::concat_batches;
use tidewater_client::{BulkLoader, Client, WriteReport};

use super::summary::Summary;
use super::{Options, start};
use crate::exit::{Exit, Failure};
use crate::load::ReadOptions;
use crate::load::bad_rows::BadRows;
use crate::load::input::Input;
use crate::load::pipeline::{Event, Pipeline};
use crate::output::fact;
use crate::output::progress::Progress;

/// Bytes of rows in memory that become files together.
const CHUNK_BYTES: usize = 64 << 20;

/// Loads the inputs as files.
pub(super) async fn run(
    options: &Options,
    client: &Client,
    inputs: Vec<Input>,
    read: ReadOptions,
) -> Result<(), Failure> {
    let loader = match options.atomic {
        true => client.atomic_loader(&options.name).await?,
        false => client.bulk_loader(&options.name).await?,
    };
    let mut copy = Copy {
        loader,
        progress: Progress::start(format!("loading {}", options.name)),
        chunk: Vec::new(),
        bytes: 0,
        rows: 0,
    };
    let same = copy.loader.table().schema == *read.table;
    let copied = match (same, start(options, inputs, read)) {
        (false, _) => Err(Failure::other(format!(
            "table {:?} was altered meanwhile: load again",
            options.name
        ))),
        (true, Err(failure)) => Err(failure),
        (true, Ok(pipeline)) => tokio::select! {
            copied = copy.all(pipeline) => copied,
            _ = tokio::signal::ctrl_c() => Err(Failure::other("interrupted")),
        },
    };
    let Copy { loader, progress, rows, .. } = copy;
    let (bad, rows) = match (copied, options.atomic) {
        (Ok(bad), true) => {
            loader.publish().await?;
            (bad, rows)
        }
        (Ok(bad), false) => (bad, rows),
        (Err(failure), true) => return Err(given_up(loader, failure).await),
        (Err(failure), false) => return Err(cut_off(failure, rows)),
    };
    let seconds = progress.finish();
    for row in bad.kept() {
        eprintln!("skipped: {row}");
    }
    let report = WriteReport { acknowledged: rows, ..WriteReport::default() };
    let summary = Summary::new(&options.name, &report, bad.count(), seconds);
    fact(options.client.output, &summary, Summary::text)
}

/// A load that ended early says what is there now: of the rows that were sent last, some regions may
/// show theirs.
fn cut_off(failure: Failure, rows: u64) -> Failure {
    let state = format!(
        "{rows} rows before it were written, and some of the next ones may have been; loading the \
         files again writes them once more, which changes nothing unless the table is append-only"
    );
    Failure::new(failure.exit, format!("{}\n  {state}", failure.message))
}

/// The load is over, and nothing of it shows.
async fn given_up(loader: BulkLoader, failure: Failure) -> Failure {
    let state = match loader.abandon().await {
        Ok(()) => "the load was given up, and the table is as it was".to_owned(),
        Err(error) => format!(
            "the load will be given up in some minutes, and the table be as it was; until then it \
             takes no other change: {error}"
        ),
    };
    Failure::new(failure.exit, format!("{}\n  {state}", failure.message))
}

/// From the reading thread to the loader, a chunk at a time.
struct Copy {
    loader: BulkLoader,
    progress: Progress,
    chunk: Vec<RecordBatch>,
    bytes: usize,
    /// That are in files which the cluster has taken over.
    rows: u64,
}

impl Copy {
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
