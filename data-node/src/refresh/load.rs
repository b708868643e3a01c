//! Load of splits: their rows become files of the table's regions.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use arrow::array::{ArrayRef, RecordBatch};
use arrow::util::display::array_value_to_string;
use bytes::Bytes;
use futures::stream::{self, StreamExt, TryStreamExt};
use tidewater_common::ids::FileId;
use tidewater_common::keys::KeyCodec;
use tidewater_common::refusal::Refusal;
use tidewater_common::schema::TableSchema;
use tidewater_proto::v1::{self, LoadSplitsResponse, Reason, RegionFiles, RowOp};
use tidewater_region_engine::bulk::BulkWriter;
use tidewater_region_engine::env::RegionEnv;
use tidewater_source_kinds::{RowSender, Source, Split};
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout, timeout_at};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use super::loads::OpenLoad;
use super::rows::CollectedRows;
use super::{LoadStream, source_error};
use crate::catalog::CatalogRecords;
use crate::group::descriptor::Descriptor;

/// Batches between the source and the files.
const BUFFERED_BATCHES: usize = 1;
/// Files that are written at a time.
const CONCURRENT_FILES: usize = 4;
/// Time after which a load without rows gives its slot back.
const SLOT_WITHOUT_ROWS: Duration = Duration::from_secs(30);
/// Longest wait for the first rows: a query may sort or aggregate for long.
const FIRST_ROWS_WITHIN: Duration = Duration::from_secs(60 * 60);
/// Longest wait for further rows.
const ROWS_WITHIN: Duration = Duration::from_secs(10 * 60);
/// Bytes of rows that a load keeps without a slot. The files of more rows are not too small.
const KEPT_BYTES: usize = 1 << 20;
/// Interval of the messages about progress, which also show that the node is alive.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(500);
/// Longest text of a value in a message, in characters.
const MAX_VALUE: usize = 64;

/// A table and its regions, in key order, at least one.
#[derive(Debug, Clone)]
pub(super) struct LoadedTable {
    regions: Vec<Arc<Descriptor>>,
    first: Arc<Descriptor>,
}

impl LoadedTable {
    /// Returns a refreshable table of the catalog.
    pub(super) fn new(catalog: &CatalogRecords, id: u32) -> Result<Self, Refusal> {
        let table = catalog.tables.get(&id).ok_or_else(|| {
            Refusal::new(Reason::TableNotFound, format!("the catalog has no table {id}"))
        })?;
        if !table.options.as_ref().is_some_and(|options| options.refreshable) {
            let text = format!("table {} is not refreshable", table.name);
            return Err(Refusal::new(Reason::NotRefreshable, text));
        }
        let of_table = catalog.regions.iter().filter(|(_, place)| place.table_id == id);
        let descriptor = |(region, place): (&u64, &crate::catalog::RegionPlace)| {
            Descriptor::new(&v1::RegionDescriptor {
                region_id: *region,
                table_id: id,
                table_name: table.name.clone(),
                start: place.start.clone().into(),
                end: place.end.clone().map(Bytes::from),
                schema: table.schema.clone(),
                options: table.options.clone(),
                incarnation: place.incarnation,
            })
        };
        let regions: Result<Vec<_>, _> = of_table.map(descriptor).collect();
        let mut regions =
            regions.map_err(|error| Refusal::new(Reason::Internal, error.to_string()))?;
        regions.sort_by(|one, other| one.range.start.cmp(&other.range.start));
        let first = regions.first().cloned().ok_or_else(|| {
            Refusal::new(Reason::RegionNotFound, format!("table {} has no regions", table.name))
        })?;
        Ok(Self { regions, first })
    }

    /// Returns a table of the catalog that is being loaded.
    pub(super) fn loading(catalog: &CatalogRecords, id: u32) -> Result<Self, Refusal> {
        let change = catalog.tables.get(&id).and_then(|table| table.change.as_ref());
        if !change.is_some_and(|change| change.is_refresh && !change.load_abandoning) {
            let text = format!("the catalog refreshes no table {id}");
            return Err(Refusal::new(Reason::ProcedureSuperseded, text));
        }
        Self::new(catalog, id)
    }

    pub(super) fn schema(&self) -> Arc<TableSchema> {
        Arc::new(self.first.schema.clone())
    }

    pub(super) fn codec(&self) -> &KeyCodec {
        self.first.codec()
    }

    pub(super) fn key_columns(&self, op: RowOp, rows: &RecordBatch) -> Vec<ArrayRef> {
        self.first.key_columns(op, rows)
    }

    /// Returns the positions of the regions, with their ends.
    pub(super) fn region_ends(&self) -> impl Iterator<Item = (usize, Option<&[u8]>)> {
        self.regions.iter().enumerate().map(|(at, region)| (at, region.range.end.as_deref()))
    }

    /// Returns the text about a key that two rows have.
    pub(super) fn repeated_key(&self, rows: &RecordBatch, row: usize) -> String {
        let schema = &self.first.schema;
        let key = schema.key_indices().iter().map(|index| {
            let value = rows.columns().get(*index).map(|column| array_value_to_string(column, row));
            let value = value.and_then(Result::ok).unwrap_or_default();
            let name = schema.columns().get(*index).map_or("?", |column| column.name.as_str());
            format!("{name}={}", value.chars().take(MAX_VALUE).collect::<String>())
        });
        let key = key.collect::<Vec<_>>().join(", ");
        format!("the source has the key ({key}) more than once")
    }
}

/// Starts the load of splits. It ends when the stream is dropped.
pub(super) fn start(
    env: RegionEnv,
    table: LoadedTable,
    source: Box<dyn Source>,
    splits: Vec<Split>,
    open: OpenLoad,
) -> LoadStream {
    let (messages, receiver) = mpsc::channel(2);
    tokio::spawn(async move {
        let load = Load { env, table, rows: AtomicU64::new(0) };
        tokio::select! {
            ended = load.run(source, splits, open) => {
                let last = ended.map_err(Status::from);
                let _ = messages.send(last).await;
            }
            () = load.report(&messages) => {}
        }
    });
    Box::pin(ReceiverStream::new(receiver))
}

struct Load {
    env: RegionEnv,
    table: LoadedTable,
    /// Rows that the source has sent.
    rows: AtomicU64,
}

/// Files of the splits, by the position of their region in the table.
type SplitFiles = BTreeMap<usize, Vec<FileId>>;

impl Load {
    /// Reads the splits and returns the last message.
    async fn run(
        &self,
        source: Box<dyn Source>,
        splits: Vec<Split>,
        mut open: OpenLoad,
    ) -> Result<LoadSplitsResponse, Refusal> {
        open.take_slot().await;
        let (sender, batches): (RowSender, _) = mpsc::channel(BUFFERED_BATCHES);
        let read = async move {
            for split in splits {
                source.read(&split, sender.clone()).await.map_err(source_error)?;
            }
            Ok(())
        };
        // A source that ends with an error has closed its channel, too: the files are unreferenced then.
        let ((), files) = tokio::try_join!(read, self.write_all(batches, open))?;
        let files = files.iter().filter_map(|(at, files)| {
            let region = self.table.regions.get(*at)?.region_id.get();
            let ids = files.iter().map(|file| Bytes::copy_from_slice(file.0.as_bytes()));
            Some(RegionFiles { region_id: region, file_ids: ids.collect() })
        });
        let rows = self.rows.load(Ordering::Relaxed);
        Ok(LoadSplitsResponse { rows, done: true, files: files.collect() })
    }

    /// Sends the progress until the receiver is closed.
    async fn report(&self, messages: &mpsc::Sender<Result<LoadSplitsResponse, Status>>) {
        let mut ticks = interval(PROGRESS_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = messages.closed() => return,
                _ = ticks.tick() => {
                    let rows = self.rows.load(Ordering::Relaxed);
                    // The receiver is alive as long as it takes messages.
                    let _ = messages.try_send(Ok(LoadSplitsResponse { rows, ..Default::default() }));
                }
            }
        }
    }

    /// Writes all rows to files of their regions.
    async fn write_all(
        &self,
        mut batches: mpsc::Receiver<RecordBatch>,
        mut open: OpenLoad,
    ) -> Result<SplitFiles, Refusal> {
        let mut files = SplitFiles::new();
        let mut collected = CollectedRows::default();
        let mut limit = FIRST_ROWS_WITHIN;
        loop {
            let until = Instant::now() + limit;
            let next = match timeout(SLOT_WITHOUT_ROWS, batches.recv()).await {
                Ok(next) => next,
                Err(_) => {
                    if collected.bytes() > KEPT_BYTES {
                        self.write(std::mem::take(&mut collected), &mut files).await?;
                    }
                    open.release_slot();
                    let next = timeout_at(until, batches.recv()).await;
                    next.map_err(|_| stalled(limit))?
                }
            };
            let Some(batch) = next else { break };
            open.take_slot().await;
            self.rows.fetch_add(batch.num_rows() as u64, Ordering::Relaxed);
            if collected.push(&self.table, batch).map_err(source_error)? {
                self.write(std::mem::take(&mut collected), &mut files).await?;
            }
            limit = ROWS_WITHIN;
        }
        self.write(collected, &mut files).await?;
        Ok(files)
    }

    /// Writes collected rows to one file for each region that has some.
    async fn write(&self, mut rows: CollectedRows, files: &mut SplitFiles) -> Result<(), Refusal> {
        let table = self.table.clone();
        let sorting = tokio::task::spawn_blocking(move || rows.take(&table));
        let interrupted = |error: tokio::task::JoinError| {
            Refusal::new(Reason::ShuttingDown, format!("the load was interrupted: {error}"))
        };
        let parts = sorting.await.map_err(interrupted)?.map_err(source_error)?;
        let write = |(at, rows): (usize, RecordBatch)| async move {
            let Some(region) = self.table.regions.get(at) else { return Ok((at, Vec::new())) };
            let refused = |error| Refusal::from(&error);
            let writer = BulkWriter::new(self.env.clone(), &region.spec()).map_err(refused)?;
            Ok::<_, Refusal>((at, writer.write([rows]).await.map_err(refused)?))
        };
        let mut written = stream::iter(parts).map(write).buffer_unordered(CONCURRENT_FILES);
        while let Some((at, written)) = written.try_next().await? {
            files.entry(at).or_default().extend(written);
        }
        Ok(())
    }
}

fn stalled(limit: Duration) -> Refusal {
    let text = format!(
        "the source has sent no rows for {} minutes: is its query waiting for a lock?",
        limit.as_secs() / 60
    );
    Refusal::new(Reason::SourceUnreadable, text)
}

#[cfg(test)]
mod tests;
