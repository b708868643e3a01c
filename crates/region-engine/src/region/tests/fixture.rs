//! Test fixture: a region of the test table, its log, and a naive model of its expected rows.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{Int32Type, Int64Type};
use futures::TryStreamExt;
use tidewater_common::ids::{ColumnId, Epoch, FileId, SchemaVersion, Sequence};
use tidewater_common::keys::KeyRange;
use tidewater_common::schema::{SchemaChange, TableSchema, WriteMode};

use super::replayed::replayed;
pub(super) use super::table::*;
use crate::bulk::BulkWriter;
use crate::compaction::{Attempt, Scope};
use crate::env::RegionEnv;
use crate::manifest::AreaId;
use crate::region::{Publication, PublicationContent};
use crate::row_versions::RowOp;
use crate::storage::Storage;
use crate::{AsOf, CompactionReport, EngineError, Region, RegionSpec, RowsWrite, ScanOptions};

/// A region over a store, the log of its changes, and a model of its rows.
pub(super) struct RegionFixture {
    pub(super) storage: Storage,
    pub(super) clock: Arc<ManualClock>,
    pub(super) spec: RegionSpec,
    pub(super) region: Arc<Region>,
    pub(super) log: Vec<RowsWrite>,
    pub(super) term: u64,
    /// Epoch of the next writes.
    pub(super) epoch: u64,
    /// Oldest epoch that can be read.
    pub(super) since: u64,
    /// Rows at the end of each epoch.
    history: BTreeMap<u64, Vec<Row>>,
    /// Open staging area: the schema under which its files were written, and the rows of each file.
    pub(super) staged: Option<(AreaId, SchemaVersion, Vec<Vec<Row>>)>,
    /// Counter that makes the notes of bulk-loaded rows unique.
    pub(super) serial: u64,
    /// Log entries other than writes, in order.
    changes: Vec<(Sequence, LogChange)>,
    /// Spec of the region when the log began.
    first_spec: RegionSpec,
    model: Model,
}

#[derive(Debug, Clone)]
enum LogChange {
    Alter(TableSchema),
    Truncate,
    OpenArea(AreaId),
    Publish(Publication),
    Abandon(AreaId),
}

/// Deadline long after the time of the test clocks.
pub(super) const DEADLINE: u64 = 1_800_000_000_000;

/// Writes sorted rows to bulk-load files, which no manifest contains.
pub(super) async fn bulk_files(storage: &Storage, spec: &RegionSpec, rows: &[Row]) -> Vec<FileId> {
    write_bulk(env(storage.clone()), spec, rows).await
}

async fn write_bulk(env: RegionEnv, spec: &RegionSpec, rows: &[Row]) -> Vec<FileId> {
    let batch = put_batch(rows, spec);
    BulkWriter::new(env, spec).unwrap().write([batch]).await.unwrap()
}

/// Key range of a sealed region.
pub(super) fn sealed_range() -> KeyRange {
    KeyRange::new(Vec::new(), Some(Vec::new()))
}

pub(super) fn new_area() -> AreaId {
    AreaId(uuid::Uuid::new_v4())
}

/// Expected rows, by row key.
#[derive(Default)]
struct Model {
    upsert: BTreeMap<Vec<u8>, Row>,
    appended: Vec<(Vec<u8>, u64, usize, Row)>,
    /// Schema version under which a row was written, by its note.
    written_under: HashMap<String, SchemaVersion>,
}

impl RegionFixture {
    pub(super) async fn new(storage: Storage, mode: WriteMode, hashed: bool) -> Self {
        Self::with_clock(storage, Arc::default(), spec(mode, hashed)).await
    }

    pub(super) async fn with_clock(
        storage: Storage,
        clock: Arc<ManualClock>,
        spec: RegionSpec,
    ) -> Self {
        Self::with_env(env_with(storage, clock.clone()), clock, spec).await
    }

    /// Creates a region of a process. `clock`: that of the environment.
    pub(super) async fn with_env(
        env: RegionEnv,
        clock: Arc<ManualClock>,
        spec: RegionSpec,
    ) -> Self {
        let storage = env.storage.clone();
        let region = Region::new(env, spec.clone(), Sequence(0), Sequence(0)).unwrap();
        region.take_ownership(owner(1), GROUP).await.unwrap();
        Self {
            storage,
            clock,
            first_spec: spec.clone(),
            spec,
            region,
            log: Vec::new(),
            staged: None,
            serial: 0,
            changes: Vec::new(),
            term: 1,
            epoch: 0,
            since: 0,
            history: BTreeMap::new(),
            model: Model::default(),
        }
    }

    pub(super) fn fresh(storage: &Storage, spec: &RegionSpec) -> Arc<Region> {
        Region::new(env(storage.clone()), spec.clone(), Sequence(0), Sequence(0)).unwrap()
    }

    /// Returns the environment of another process over the same store.
    pub(super) fn env(&self) -> RegionEnv {
        env_with(self.storage.clone(), self.clock.clone())
    }

    fn replica(&self, spec: &RegionSpec) -> Arc<Region> {
        Region::new(self.env(), spec.clone(), Sequence(0), Sequence(0)).unwrap()
    }

    /// Writes sorted rows to bulk-load files of this region.
    pub(super) async fn bulk_files(&self, rows: &[Row]) -> Vec<FileId> {
        write_bulk(self.env(), &self.spec, rows).await
    }

    pub(super) fn last_write(&self) -> u64 {
        self.log.last().map_or(0, |write| write.sequence.get())
    }

    fn next_sequence(&self) -> u64 {
        (self.log.len() as u64 + self.changes.len() as u64 + 1) * 10
    }

    pub(super) fn put(&mut self, rows: &[Row]) {
        let sequence = self.next_sequence();
        self.expect_rows(rows, sequence);
        self.write(RowOp::Put, put_batch(rows, &self.spec), sequence);
    }

    fn expect_rows(&mut self, rows: &[Row], sequence: u64) {
        let keys: Vec<Key> = rows.iter().map(|row| row.0.clone()).collect();
        let keys = row_keys(&self.spec, &keys);
        for (position, (row, key)) in rows.iter().zip(keys).enumerate() {
            self.model.written_under.insert(row.2.clone(), self.spec.schema.version());
            self.model.upsert.insert(key.clone(), row.clone());
            self.model.appended.push((key, u64::MAX - sequence, position, row.clone()));
        }
    }

    fn append_change(&mut self, change: LogChange) {
        let sequence = Sequence(self.next_sequence());
        self.replay_change(&self.region, &(sequence, change.clone()));
        self.changes.push((sequence, change));
    }

    /// Appends the publication of a staging area to the log; reads show it once it is recorded.
    pub(super) fn publish(
        &mut self,
        area: AreaId,
        content: PublicationContent,
        files: &[Vec<Row>],
    ) {
        for (sequence, rows) in (self.next_sequence()..).zip(files) {
            self.expect_rows(rows, sequence);
        }
        let epoch = Epoch(self.epoch);
        self.append_change(LogChange::Publish(Publication { area, epoch, content }));
    }

    pub(super) fn open_area(&mut self) -> AreaId {
        let area = new_area();
        self.append_change(LogChange::OpenArea(area));
        area
    }

    pub(super) fn abandon(&mut self, area: AreaId) {
        self.append_change(LogChange::Abandon(area));
    }

    /// Adopts a bulk-load file of rows with distinct keys and publishes it in the log. The publication is
    /// not recorded in the manifest yet.
    pub(super) async fn adopt(&mut self, rows: &[Row]) {
        self.region.record_obligations().await.unwrap();
        let files = self.bulk_files(rows).await;
        let area = new_area();
        let staged = self.region.adopt(area, &files, DEADLINE).await.unwrap();
        // A repeated call changes nothing.
        let version = self.region.load().await.unwrap();
        assert_eq!(self.region.adopt(area, &files, DEADLINE).await.unwrap(), staged);
        assert_eq!(self.region.load().await.unwrap(), version);
        assert_eq!(staged.files, 1);
        self.publish(area, PublicationContent::Files, &[rows.to_vec()]);
    }

    pub(super) fn delete(&mut self, keys: &[Key]) {
        let sequence = self.next_sequence();
        for key in keys {
            self.model.upsert.remove(&row_key(&self.spec, key));
        }
        self.write(RowOp::Delete, delete_batch(keys, &self.spec), sequence);
    }

    /// Truncates the region.
    pub(super) fn truncate(&mut self) {
        let sequence = Sequence(self.next_sequence());
        self.model.upsert.clear();
        self.model.appended.clear();
        self.changes.push((sequence, LogChange::Truncate));
        self.region.truncate(cause(sequence)).unwrap();
        self.advance_since(self.epoch);
    }

    /// Begins an epoch. The last `kept` ones can be read.
    pub(super) fn begin_epoch(&mut self, kept: u64) {
        self.history.insert(self.epoch, self.expected_rows());
        self.epoch += 1;
        self.advance_since(self.epoch.saturating_sub(kept));
    }

    fn advance_since(&mut self, since: u64) {
        self.since = self.since.max(since);
        self.region.advance_since(Epoch(self.since));
    }

    pub(super) fn alter(&mut self, changes: &[SchemaChange]) {
        let sequence = Sequence(self.next_sequence());
        self.spec.schema = self.spec.schema.altered(changes).unwrap();
        let schema = self.spec.schema.clone();
        self.changes.push((sequence, LogChange::Alter(schema.clone())));
        self.region.alter(cause(sequence), schema, self.spec.options.clone()).unwrap();
    }

    /// Returns a replica that starts from a snapshot of the region's state, without its rows.
    pub(super) fn snapshot_replica(&self) -> Arc<Region> {
        let replica = self.replica(&self.spec);
        for pending in self.region.obligations() {
            replica.apply_obligation(pending).unwrap();
        }
        replica.advance_since(Epoch(self.since));
        replica
    }

    /// Returns a replica that starts at the beginning of the log.
    pub(super) fn log_replica(&self) -> Arc<Region> {
        self.replica(&self.first_spec)
    }

    fn write(&mut self, op: RowOp, batch: RecordBatch, sequence: u64) {
        let epoch = Epoch(self.epoch);
        let write = RowsWrite { sequence: Sequence(sequence), epoch, op, batch };
        self.log.push(write.clone());
        self.region.apply(write).unwrap();
    }

    /// Compacts locally; `None` if there was nothing to compact.
    pub(super) async fn compact(&self, scope: Scope) -> Option<CompactionReport> {
        self.region.compact(scope, self.region.since(), &Attempt::default()).await.unwrap()
    }

    /// Opens the region in another process: only the store and the log survive.
    pub(super) async fn reopen(&mut self) -> Result<(), EngineError> {
        self.term += 1;
        self.region = self.log_replica();
        self.region.load().await?;
        self.replay(&self.region);
        self.region.take_ownership(owner(self.term), GROUP).await?;
        Ok(())
    }

    pub(super) fn replay(&self, region: &Region) {
        let mut changes = self.changes.iter().peekable();
        for write in &self.log {
            while let Some(change) = changes.next_if(|(sequence, _)| *sequence < write.sequence) {
                self.replay_change(region, change);
            }
            region.apply(write.clone()).unwrap();
        }
        changes.for_each(|change| self.replay_change(region, change));
        region.advance_since(Epoch(self.since));
    }

    fn replay_change(&self, region: &Region, (sequence, change): &(Sequence, LogChange)) {
        let cause = cause(*sequence);
        match change {
            LogChange::Truncate => region.truncate(cause),
            LogChange::Alter(schema) => {
                region.alter(cause, schema.clone(), self.spec.options.clone())
            }
            LogChange::OpenArea(area) => region.open_area(cause, *area, DEADLINE),
            LogChange::Publish(publication) => region.publish(cause, publication.clone()),
            LogChange::Abandon(area) => region.abandon(cause, *area),
        }
        .unwrap();
    }

    /// Returns the expected rows with their row keys, in scan order.
    pub(super) fn expected(&self) -> Vec<(Vec<u8>, Row)> {
        match self.spec.options.write_mode {
            WriteMode::Upsert => {
                self.model.upsert.iter().map(|(key, row)| (key.clone(), row.clone())).collect()
            }
            WriteMode::AppendOnly => {
                let mut rows = self.model.appended.clone();
                rows.sort_by(|a, b| (&a.0, a.1, a.2).cmp(&(&b.0, b.1, b.2)));
                rows.into_iter().map(|(key, _, _, row)| (key, row)).collect()
            }
        }
    }

    pub(super) fn expected_rows(&self) -> Vec<Row> {
        self.expected().into_iter().map(|(_, row)| row).collect()
    }

    pub(super) async fn check(&self) {
        assert_eq!(scan(&self.region, &all()).await.unwrap(), self.expected_rows());
        for column in &self.spec.schema.columns()[4..] {
            self.check_added(column.id).await;
        }
        self.check_epochs_of(&self.region).await;
    }

    /// Checks that reads of a replica as of each epoch return the rows at its end.
    pub(super) async fn check_epochs_of(&self, region: &Region) {
        let upper = Epoch(self.epoch);
        let at = |epoch| ScanOptions { as_of: Some(AsOf { epoch: Epoch(epoch), upper }), ..all() };
        let mut readable = self.history.range(self.since..self.epoch);
        // The others are between them.
        for (epoch, rows) in readable.next().into_iter().chain(readable.next_back()) {
            assert_eq!(&scan(region, &at(*epoch)).await.unwrap(), rows, "as of {epoch}");
        }
        let mut readable = self.history.range(self.since..self.epoch);
        if let (Some((first, _)), Some((last, rows))) = (readable.next(), readable.next_back()) {
            let mut expected = rows.clone();
            expected.sort();
            let replayed = replayed(region, [*first, *last].map(Epoch), upper).await;
            assert_eq!(replayed, expected, "changes from {first} to {last}");
        }
        if self.history.is_empty() {
            return;
        }
        let incomplete = region.scan(&at(self.epoch)).err();
        assert!(matches!(incomplete, Some(EngineError::EpochIncomplete { .. })), "{incomplete:?}");
        if let Some(before) = self.since.checked_sub(1) {
            let dropped = region.scan(&at(before)).err();
            assert!(matches!(dropped, Some(EngineError::BelowSince { .. })), "{dropped:?}");
        }
    }

    /// Checks that rows written without a column show its default.
    async fn check_added(&self, column: ColumnId) {
        let has_column = |(_, change): &&(Sequence, LogChange)| match change {
            LogChange::Alter(schema) => schema.column(column).is_some(),
            _ => false,
        };
        let Some((_, LogChange::Alter(added))) = self.changes.iter().find(has_column) else {
            return;
        };
        let stream = self.region.scan(&ScanOptions::all(vec![NOTE, column])).unwrap();
        let batches: Vec<RecordBatch> = stream.try_collect().await.unwrap();
        for batch in batches {
            let notes = batch.column(0).as_string::<i32>();
            let values = batch.column(1).as_primitive::<Int64Type>();
            for (note, value) in notes.iter().flatten().zip(values) {
                let late = self.model.written_under[note] >= added.version();
                assert_eq!(value, Some(if late { WRITTEN } else { DEFAULT }), "{note}");
            }
        }
    }
}

/// Options of a scan of all rows, with the columns in an order other than the schema's.
pub(super) fn all() -> ScanOptions {
    ScanOptions::all(vec![NOTE, NUMBER, VALUE, NAME])
}

pub(super) fn rows_of(batch: &RecordBatch) -> Vec<Row> {
    let notes = batch.column_by_name("note").unwrap().as_string::<i32>();
    let names = batch.column_by_name("name").unwrap().as_string::<i32>();
    let numbers = batch.column_by_name("number").unwrap().as_primitive::<Int32Type>();
    let values = batch.column_by_name("value").unwrap().as_primitive::<Int64Type>();
    (0..batch.num_rows())
        .map(|row| {
            let key = (names.value(row).to_owned(), numbers.value(row));
            let value = values.is_valid(row).then(|| values.value(row));
            (key, value, notes.value(row).to_owned())
        })
        .collect()
}

pub(super) async fn scan(region: &Region, options: &ScanOptions) -> Result<Vec<Row>, EngineError> {
    let mut stream = region.scan(options)?;
    let mut rows = Vec::new();
    while let Some(batch) = stream.try_next().await? {
        assert!(batch.num_rows() > 0 && batch.num_rows() <= options.batch_rows);
        rows.extend(rows_of(&batch));
    }
    Ok(rows)
}
