//! Test table: its columns, its rows, and the environment of its regions.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arrow::array::{ArrayRef, Int32Array, Int64Array, RecordBatch, StringArray};
use tidewater_common::backoff::Backoff;
use tidewater_common::clock::Clock;
use tidewater_common::ids::{
    ColumnId, GroupId, Incarnation, OwnerEpoch, RegionId, SchemaVersion, Sequence, TableId, Term,
};
use tidewater_common::keys::{KeyCodec, KeyRange};
use tidewater_common::schema::{
    Column, ColumnType, HashDistribution, SchemaChange, TableOptions, TableSchema, WriteMode,
};

use crate::RegionSpec;
use crate::compaction::CompactionOptions;
use crate::env::{EngineOptions, RegionEnv, SystemIds};
use crate::manifest::ManifestOptions;
use crate::memory::MemoryBudget;
use crate::region::Cause;
use crate::storage::Storage;

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

/// Value that writes store in added columns.
pub(super) const WRITTEN: i64 = 8;
/// Default of added columns, which older rows show.
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

/// Schema change that adds a column which the fixture's `check` verifies.
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
        options: TableOptions { write_mode: mode, hash, ..TableOptions::upsert() },
        range: KeyRange::whole(),
        parents: Vec::new(),
    }
}

/// Clock that a test advances.
#[derive(Debug)]
pub(super) struct ManualClock(AtomicU64);

impl ManualClock {
    pub(super) fn advance(&self, by_ms: u64) {
        self.0.fetch_add(by_ms, Ordering::Relaxed);
    }
}

impl Default for ManualClock {
    fn default() -> Self {
        Self(AtomicU64::new(FixedClock.now_ms()))
    }
}

impl Clock for ManualClock {
    fn now_ms(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

pub(super) fn env(storage: Storage) -> RegionEnv {
    env_with(storage, Arc::new(FixedClock))
}

pub(super) fn env_with(storage: Storage, clock: Arc<dyn Clock>) -> RegionEnv {
    // Two runs of a level make a compaction due, and a kilobyte is worth a sub-job.
    let compaction =
        CompactionOptions { fan_in: 2, parallelism: 3, ..CompactionOptions::default() };
    // Retries without backoff: the store fails on purpose.
    let manifest = ManifestOptions { backoff: Backoff::NONE, ..ManifestOptions::default() };
    let options = EngineOptions {
        target_file_bytes: 4_000,
        compaction,
        manifest,
        ..EngineOptions::default()
    };
    RegionEnv::new(storage, clock, Arc::new(SystemIds), MemoryBudget::new(1 << 30), options)
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
    row_keys(spec, std::slice::from_ref(key)).remove(0)
}

/// Returns the row keys in the order of `keys`.
pub(super) fn row_keys(spec: &RegionSpec, keys: &[Key]) -> Vec<Vec<u8>> {
    codec(spec).row_keys(key_batch(keys, spec).columns()).unwrap()
}

/// Sorts items stably by row key.
fn sorted<T: Clone>(spec: &RegionSpec, items: &[T], key: impl Fn(&T) -> &Key) -> Vec<T> {
    let keys: Vec<Key> = items.iter().map(|item| key(item).clone()).collect();
    let mut sorted: Vec<(Vec<u8>, &T)> = row_keys(spec, &keys).into_iter().zip(items).collect();
    sorted.sort_by(|a, b| a.0.cmp(&b.0));
    sorted.into_iter().map(|(_, item)| item.clone()).collect()
}

/// Returns a batch of rows as a client sends it: stably sorted by row key.
pub(super) fn put_batch(rows: &[Row], spec: &RegionSpec) -> RecordBatch {
    let rows = sorted(spec, rows, |row| &row.0);
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
    key_batch(&sorted(spec, keys, |key| key), spec)
}
