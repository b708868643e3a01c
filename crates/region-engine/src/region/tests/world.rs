//! A table of two key columns and two others, its log, and a naive model of what it must hold.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int32Array, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{Int32Type, Int64Type};
use futures::TryStreamExt;
use tidewater_common::clock::Clock;
use tidewater_common::ids::{
    ColumnId, Epoch, FileId, GroupId, Incarnation, OwnerEpoch, RegionId, SchemaVersion, Sequence,
    TableId, Term,
};
use tidewater_common::keys::{KeyCodec, KeyRange};
use tidewater_common::schema::{
    Column, ColumnType, HashDistribution, SchemaChange, TableOptions, TableSchema, WriteMode,
};

use crate::bulk::BulkWriter;
use crate::compaction::{Attempt, CompactionOptions, Scope};
use crate::env::{EngineOptions, RegionEnv, SystemIds};
use crate::manifest::AreaId;
use crate::memory::MemoryBudget;
use crate::region::{Cause, Content, Publication};
use crate::row_versions::RowOp;
use crate::storage::Storage;
use crate::{CompactionReport, EngineError, Region, RegionSpec, RowsWrite, ScanOptions};

#[derive(Debug)]
pub(super) struct FixedClock;

impl Clock for FixedClock {
    fn now_ms(&self) -> u64 {
        1_700_000_000_000
    }
}

pub(super) const GROUP: GroupId = GroupId(1);
pub(super) const NAME: ColumnId = ColumnId(1);
pub(super) const NUMBER: ColumnId = ColumnId(2);
pub(super) const VALUE: ColumnId = ColumnId(3);
pub(super) const NOTE: ColumnId = ColumnId(4);

/// What writes put into columns that were added, and what older rows show there.
pub(super) const WRITTEN: i64 = 8;
pub(super) const DEFAULT: i64 = 7;

pub(super) type Key = (String, i32);
/// Key, value, note.
pub(super) type Row = (Key, Option<i64>, String);

pub(super) fn column(id: ColumnId, name: &str, data_type: ColumnType, nullable: bool) -> Column {
    Column { id, name: name.to_owned(), data_type, nullable, default: None }
}

pub(super) fn cause(sequence: Sequence) -> Cause {
    Cause { sequence, procedure: None }
}

/// The change that adds a column which [`World::check`] looks at.
pub(super) fn added(name: &str) -> SchemaChange {
    SchemaChange::AddColumn {
        name: name.to_owned(),
        data_type: ColumnType::Int64,
        nullable: false,
        default: Some(DEFAULT.to_string()),
    }
}

pub(super) fn spec(mode: WriteMode, hashed: bool) -> RegionSpec {
    let columns = vec![
        column(VALUE, "value", ColumnType::Int64, true),
        column(NAME, "name", ColumnType::Utf8, false),
        column(NUMBER, "number", ColumnType::Int32, false),
        column(NOTE, "note", ColumnType::Utf8, false),
    ];
    let schema =
        TableSchema::new(SchemaVersion(1), columns, vec![NAME, NUMBER], None, ColumnId(5)).unwrap();
    let hash = hashed.then(|| HashDistribution { columns: vec![NAME], vnode_count: 8 });
    RegionSpec {
        region_id: RegionId(12),
        table_id: TableId(3),
        incarnation: Incarnation(1),
        schema,
        options: TableOptions { write_mode: mode, hash, ttl_ms: None },
        range: KeyRange::whole(),
    }
}

pub(super) fn env(storage: Storage) -> RegionEnv {
    // Two runs of a level are too many, and what takes a kilobyte is worth a sub-job.
    let compaction =
        CompactionOptions { fan_in: 2, parallelism: 3, ..CompactionOptions::default() };
    let options =
        EngineOptions { target_file_bytes: 4_000, compaction, ..EngineOptions::default() };
    RegionEnv::new(
        storage,
        Arc::new(FixedClock),
        Arc::new(SystemIds),
        MemoryBudget::new(1 << 30),
        options,
    )
}

pub(super) fn owner(term: u64) -> OwnerEpoch {
    OwnerEpoch { move_epoch: 0, term: Term(term) }
}

pub(super) fn key_batch(keys: &[Key], spec: &RegionSpec) -> RecordBatch {
    let names = StringArray::from_iter_values(keys.iter().map(|key| &key.0));
    let numbers = Int32Array::from_iter_values(keys.iter().map(|key| key.1));
    let arrays: Vec<ArrayRef> = vec![Arc::new(names), Arc::new(numbers)];
    RecordBatch::try_new(spec.schema.key_arrow(), arrays).unwrap()
}

pub(super) fn codec(spec: &RegionSpec) -> KeyCodec {
    KeyCodec::new(&spec.schema, &spec.options).unwrap()
}

pub(super) fn row_key(spec: &RegionSpec, key: &Key) -> Vec<u8> {
    codec(spec).row_key(key_batch(std::slice::from_ref(key), spec).columns(), 0).unwrap()
}

/// The rows as a client sends them: stably sorted by row key.
pub(super) fn put_batch(rows: &[Row], spec: &RegionSpec) -> RecordBatch {
    let mut rows = rows.to_vec();
    rows.sort_by_cached_key(|row| row_key(spec, &row.0));
    let mut arrays: Vec<ArrayRef> = vec![
        Arc::new(Int64Array::from_iter(rows.iter().map(|row| row.1))),
        Arc::new(StringArray::from_iter_values(rows.iter().map(|row| &row.0.0))),
        Arc::new(Int32Array::from_iter_values(rows.iter().map(|row| row.0.1))),
        Arc::new(StringArray::from_iter_values(rows.iter().map(|row| &row.2))),
    ];
    for _ in &spec.schema.columns()[4..] {
        arrays.push(Arc::new(Int64Array::from_value(WRITTEN, rows.len())));
    }
    RecordBatch::try_new(spec.schema.arrow(), arrays).unwrap()
}

pub(super) fn delete_batch(keys: &[Key], spec: &RegionSpec) -> RecordBatch {
    let mut keys = keys.to_vec();
    keys.sort_by_cached_key(|key| row_key(spec, key));
    key_batch(&keys, spec)
}

/// A region over a store, with the log of all that was written to it.
pub(super) struct World {
    pub(super) storage: Storage,
    pub(super) spec: RegionSpec,
    pub(super) region: Arc<Region>,
    pub(super) log: Vec<RowsWrite>,
    pub(super) term: u64,
    /// Epoch of the writes to come.
    pub(super) epoch: u64,
    /// The rows of each file in an area, with the schema that they were written under.
    pub(super) staged: Option<(AreaId, SchemaVersion, Vec<Vec<Row>>)>,
    /// Makes the notes of rows unique that no write brought.
    pub(super) serial: u64,
    /// What the log holds beside writes, in order.
    changes: Vec<(Sequence, LogChange)>,
    /// As it was when the log began.
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

/// Long after the clock of these tests.
pub(super) const DEADLINE: u64 = 1_800_000_000_000;

/// A region's rows as another writer brings them: files that no manifest names. The rows are sorted.
pub(super) async fn bulk_files(storage: &Storage, spec: &RegionSpec, rows: &[Row]) -> Vec<FileId> {
    let batch = put_batch(rows, spec);
    BulkWriter::new(env(storage.clone()), spec).unwrap().write([batch]).await.unwrap()
}

/// The range of a region that is sealed.
pub(super) fn sealed() -> KeyRange {
    KeyRange::new(Vec::new(), Some(Vec::new()))
}

pub(super) fn new_area() -> AreaId {
    AreaId(uuid::Uuid::new_v4())
}

/// All that was written, by row key.
#[derive(Default)]
struct Model {
    upsert: BTreeMap<Vec<u8>, Row>,
    appended: Vec<(Vec<u8>, u64, usize, Row)>,
    /// The schema under which a row was written, by its note.
    written_under: HashMap<String, SchemaVersion>,
}

impl World {
    pub(super) async fn new(storage: Storage, mode: WriteMode, hashed: bool) -> Self {
        let spec = spec(mode, hashed);
        let region = Self::fresh(&storage, &spec);
        region.take_ownership(owner(1), GROUP).await.unwrap();
        Self {
            storage,
            first_spec: spec.clone(),
            spec,
            region,
            log: Vec::new(),
            staged: None,
            serial: 0,
            changes: Vec::new(),
            term: 1,
            epoch: 0,
            model: Model::default(),
        }
    }

    pub(super) fn fresh(storage: &Storage, spec: &RegionSpec) -> Arc<Region> {
        Region::new(env(storage.clone()), spec.clone(), Sequence(0), Sequence(0)).unwrap()
    }

    pub(super) fn last_write(&self) -> u64 {
        self.log.last().map_or(0, |write| write.sequence.get())
    }

    fn next_sequence(&self) -> u64 {
        (self.log.len() as u64 + self.changes.len() as u64 + 1) * 10
    }

    pub(super) fn put(&mut self, rows: &[Row]) {
        let sequence = self.next_sequence();
        self.expect(rows, sequence);
        self.write(RowOp::Put, put_batch(rows, &self.spec), sequence);
    }

    fn expect(&mut self, rows: &[Row], sequence: u64) {
        for (position, row) in rows.iter().enumerate() {
            let key = row_key(&self.spec, &row.0);
            self.model.written_under.insert(row.2.clone(), self.spec.schema.version());
            self.model.upsert.insert(key.clone(), row.clone());
            self.model.appended.push((key, u64::MAX - sequence, position, row.clone()));
        }
    }

    fn decide(&mut self, change: LogChange) {
        let sequence = Sequence(self.next_sequence());
        self.replay_change(&self.region, &(sequence, change.clone()));
        self.changes.push((sequence, change));
    }

    /// The log publishes what was staged in an area; reads show it once that is settled.
    pub(super) fn publish(&mut self, area: AreaId, content: Content, files: &[Vec<Row>]) {
        for (sequence, rows) in (self.next_sequence()..).zip(files) {
            self.expect(rows, sequence);
        }
        let epoch = Epoch(self.epoch);
        self.decide(LogChange::Publish(Publication { area, epoch, content }));
    }

    pub(super) fn open_area(&mut self) -> AreaId {
        let area = new_area();
        self.decide(LogChange::OpenArea(area));
        area
    }

    pub(super) fn abandon(&mut self, area: AreaId) {
        self.decide(LogChange::Abandon(area));
    }

    /// Rows with distinct keys are brought as a file and published; whoever owns the region then
    /// has yet to settle it.
    pub(super) async fn adopt(&mut self, rows: &[Row]) {
        self.region.settle().await.unwrap();
        let files = bulk_files(&self.storage, &self.spec, rows).await;
        let area = new_area();
        let staged = self.region.adopt(area, &files, DEADLINE).await.unwrap();
        // A repeat changes nothing.
        let version = self.region.load().await.unwrap();
        assert_eq!(self.region.adopt(area, &files, DEADLINE).await.unwrap(), staged);
        assert_eq!(self.region.load().await.unwrap(), version);
        assert_eq!(staged.files, 1);
        self.publish(area, Content::Files, &[rows.to_vec()]);
    }

    pub(super) fn delete(&mut self, keys: &[Key]) {
        let sequence = self.next_sequence();
        for key in keys {
            self.model.upsert.remove(&row_key(&self.spec, key));
        }
        self.write(RowOp::Delete, delete_batch(keys, &self.spec), sequence);
    }

    /// Forgets all rows.
    pub(super) fn truncate(&mut self) {
        let sequence = Sequence(self.next_sequence());
        self.model.upsert.clear();
        self.model.appended.clear();
        self.changes.push((sequence, LogChange::Truncate));
        self.region.truncate(cause(sequence)).unwrap();
    }

    pub(super) fn alter(&mut self, changes: &[SchemaChange]) {
        let sequence = Sequence(self.next_sequence());
        self.spec.schema = self.spec.schema.altered(changes).unwrap();
        let schema = self.spec.schema.clone();
        self.changes.push((sequence, LogChange::Alter(schema.clone())));
        self.region.alter(cause(sequence), schema, self.spec.options.clone()).unwrap();
    }

    /// A replica that gets what the region is from a snapshot, without its rows.
    pub(super) fn snapshot_replica(&self) -> Arc<Region> {
        let replica = Self::fresh(&self.storage, &self.spec);
        for pending in self.region.obligations() {
            replica.decide(pending).unwrap();
        }
        replica
    }

    /// A replica that begins with the log.
    pub(super) fn log_replica(&self) -> Arc<Region> {
        Self::fresh(&self.storage, &self.first_spec)
    }

    fn write(&mut self, op: RowOp, batch: RecordBatch, sequence: u64) {
        let epoch = Epoch(self.epoch);
        let write = RowsWrite { sequence: Sequence(sequence), epoch, op, batch };
        self.log.push(write.clone());
        self.region.apply(write).unwrap();
    }

    /// Compacts; the report, if there was anything to do.
    pub(super) async fn compact(&self, scope: Scope) -> Option<CompactionReport> {
        self.region.compact(scope, Epoch(0), &Attempt::default()).await.unwrap()
    }

    /// Another process takes the region up: nothing but store and log is left.
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

    /// What there must be, with row keys, in the order of a scan.
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
    }

    /// Rows that were written without a column show its default.
    async fn check_added(&self, column: ColumnId) {
        let with = |(_, change): &&(Sequence, LogChange)| match change {
            LogChange::Alter(schema) => schema.column(column).is_some(),
            _ => false,
        };
        let Some((_, LogChange::Alter(added))) = self.changes.iter().find(with) else { return };
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

/// All rows with all columns, in an order other than the schema's.
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
