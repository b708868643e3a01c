//! Load of a split: its rows become files of the table's regions.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{ArrayRef, RecordBatch};
use arrow::util::display::array_value_to_string;
use bytes::Bytes;
use tidewater_common::ids::FileId;
use tidewater_common::keys::KeyCodec;
use tidewater_common::refusal::Refusal;
use tidewater_common::schema::TableSchema;
use tidewater_proto::v1::{self, LoadSplitResponse, Reason, RegionFiles, RowOp};
use tidewater_region_engine::bulk::BulkWriter;
use tidewater_region_engine::env::RegionEnv;
use tidewater_source_kinds::{RowSender, Source, Split};
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio::time::{MissedTickBehavior, interval};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use super::rows::CollectedRows;
use super::{LoadStream, source_error};
use crate::catalog::CatalogRecords;
use crate::group::descriptor::Descriptor;

/// Batches between the source and the files.
const BUFFERED_BATCHES: usize = 4;
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

/// Starts the load of a split. It ends when the stream is dropped.
pub(super) fn start(
    env: RegionEnv,
    table: LoadedTable,
    source: Box<dyn Source>,
    split: Split,
    slot: OwnedSemaphorePermit,
) -> LoadStream {
    let (messages, receiver) = mpsc::channel(2);
    tokio::spawn(async move {
        let _slot = slot;
        let load = Load { env, table, rows: 0, files: BTreeMap::new() };
        let sender = messages.clone();
        tokio::select! {
            ended = load.run(source, split, &messages) => {
                let last = ended.map_err(Status::from);
                let _ = sender.send(last).await;
            }
            () = sender.closed() => {}
        }
    });
    Box::pin(ReceiverStream::new(receiver))
}

struct Load {
    env: RegionEnv,
    table: LoadedTable,
    rows: u64,
    files: BTreeMap<usize, Vec<FileId>>,
}

impl Load {
    /// Reads the split and returns the last message.
    async fn run(
        mut self,
        source: Box<dyn Source>,
        split: Split,
        messages: &mpsc::Sender<Result<LoadSplitResponse, Status>>,
    ) -> Result<LoadSplitResponse, Refusal> {
        let (sender, mut batches): (RowSender, _) = mpsc::channel(BUFFERED_BATCHES);
        let read = async move { source.read(&split, sender).await.map_err(source_error) };
        let mut ticks = interval(PROGRESS_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let write = async {
            let mut collected = CollectedRows::default();
            loop {
                tokio::select! {
                    batch = batches.recv() => {
                        let Some(batch) = batch else { break };
                        self.rows += batch.num_rows() as u64;
                        if collected.push(&self.table, batch).map_err(source_error)? {
                            self.write(&mut collected).await?;
                        }
                    }
                    _ = ticks.tick() => {
                        let progress = LoadSplitResponse { rows: self.rows, ..Default::default() };
                        // The reader is alive as long as it takes messages.
                        let _ = messages.try_send(Ok(progress));
                    }
                }
            }
            self.write(&mut collected).await
        };
        // A source that ends with an error has closed its channel, too: the files are unreferenced then.
        tokio::try_join!(read, write)?;
        let files = self.files.iter().filter_map(|(at, files)| {
            let region = self.table.regions.get(*at)?.region_id.get();
            let ids = files.iter().map(|file| Bytes::copy_from_slice(file.0.as_bytes()));
            Some(RegionFiles { region_id: region, file_ids: ids.collect() })
        });
        Ok(LoadSplitResponse { rows: self.rows, done: true, files: files.collect() })
    }

    /// Writes the collected rows to files of their regions.
    async fn write(&mut self, collected: &mut CollectedRows) -> Result<(), Refusal> {
        let mut rows = std::mem::take(collected);
        let table = self.table.clone();
        let sorting = tokio::task::spawn_blocking(move || rows.take(&table));
        let interrupted = |error: tokio::task::JoinError| {
            Refusal::new(Reason::ShuttingDown, format!("the load was interrupted: {error}"))
        };
        let parts = sorting.await.map_err(interrupted)?.map_err(source_error)?;
        for (at, rows) in parts {
            let Some(region) = self.table.regions.get(at) else { continue };
            let refused = |error| Refusal::from(&error);
            let writer = BulkWriter::new(self.env.clone(), &region.spec()).map_err(refused)?;
            let written = writer.write([rows]).await.map_err(refused)?;
            self.files.entry(at).or_default().extend(written);
        }
        Ok(())
    }
}
