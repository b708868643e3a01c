//! Fixtures of the group's tests: a table, its rows, a recording sink.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, Decimal128Array, Int64Array, RecordBatch, StringArray, TimestampSecondArray,
};
use arrow::datatypes::TimeUnit;
use bytes::Bytes;
use parking_lot::Mutex;
use tidewater_common::clock::SystemClock;
use tidewater_common::ids::{
    ColumnId, Epoch, GroupId, LogIndex, NodeId, RegionId, SchemaVersion, Sequence,
};
use tidewater_common::keys::KeyCodec;
use tidewater_common::rows::encode_batch;
use tidewater_common::schema::{Column, ColumnType, TableOptions, TableSchema};
use tidewater_hook_kinds::EventTables;
use tidewater_proto::v1::{self, RowOp, WriteRequest, group_entry};
use tidewater_region_engine::env::{EngineOptions, RegionEnv, SystemIds};
use tidewater_region_engine::storage::Storage;
use tidewater_region_engine::{MemoryBudget, Region};

use super::apply::{Applied, RowSink, SinkError, WritePoint, apply};
use super::descriptor::Descriptor;
use super::entry::EntryOutcome;
use super::shared::ReplicaState;
use super::state::GroupState;

/// Table `t (id int64 primary key, name utf8)`.
pub(crate) fn schema(version: u32) -> TableSchema {
    let column = |id, name: &str, data_type, nullable| Column {
        id: ColumnId(id),
        name: name.to_owned(),
        data_type,
        nullable,
        default: None,
    };
    TableSchema::new(
        SchemaVersion(version),
        vec![column(1, "id", ColumnType::Int64, false), column(2, "name", ColumnType::Utf8, true)],
        vec![ColumnId(1)],
        None,
        ColumnId(3),
    )
    .unwrap()
}

pub(crate) fn options() -> TableOptions {
    TableOptions::upsert()
}

/// The row key of an id.
pub(crate) fn key(id: i64) -> Vec<u8> {
    let codec = KeyCodec::new(&schema(1), &options()).unwrap();
    codec.row_key(&[Arc::new(Int64Array::from(vec![id]))], 0).unwrap()
}

/// Region `id` of table 3 at schema version 1, with keys `start` to `end`.
pub(crate) fn region(id: u64, start: Option<i64>, end: Option<i64>) -> v1::RegionDescriptor {
    v1::RegionDescriptor {
        region_id: id,
        table_id: 3,
        table_name: "t".to_owned(),
        start: start.map(key).unwrap_or_default().into(),
        end: end.map(|end| key(end).into()),
        schema: Some((&schema(1)).into()),
        options: Some((&options()).into()),
        incarnation: 1,
    }
}

/// Region `id` with all keys, of a table that is append-only.
pub(crate) fn append_only(id: u64) -> v1::RegionDescriptor {
    let options = TableOptions::append_only();
    v1::RegionDescriptor { options: Some((&options).into()), ..region(id, None, None) }
}

/// Table `ledger (id int64, at timestamp(s), price decimal128(9, 2))`, with primary key (id,
/// price): files cannot store every timestamp and every decimal.
fn ledger_schema() -> TableSchema {
    let column = |id, name: &str, data_type| Column {
        id: ColumnId(id),
        name: name.to_owned(),
        data_type,
        nullable: false,
        default: None,
    };
    let columns = vec![
        column(1, "id", ColumnType::Int64),
        column(2, "at", ColumnType::Timestamp(TimeUnit::Second, None)),
        column(3, "price", ColumnType::Decimal128(9, 2)),
    ];
    let key = vec![ColumnId(1), ColumnId(3)];
    TableSchema::new(SchemaVersion(1), columns, key, None, ColumnId(4)).unwrap()
}

/// Region `id` of the ledger, with all keys.
pub(crate) fn ledger(id: u64) -> v1::RegionDescriptor {
    let schema = Some((&ledger_schema()).into());
    v1::RegionDescriptor { table_name: "ledger".to_owned(), schema, ..region(id, None, None) }
}

fn prices(price: i128) -> ArrayRef {
    let prices = Decimal128Array::from(vec![price]);
    Arc::new(prices.with_precision_and_scale(9, 2).unwrap())
}

/// A row of the ledger with id 1, this time in seconds and this price in hundredths.
pub(crate) fn ledger_row(at: i64, price: i128) -> RecordBatch {
    let columns: Vec<ArrayRef> = vec![
        Arc::new(Int64Array::from(vec![1])),
        Arc::new(TimestampSecondArray::from(vec![at])),
        prices(price),
    ];
    RecordBatch::try_new(ledger_schema().arrow(), columns).unwrap()
}

/// A write of that row to region 7 of group 5.
pub(crate) fn ledger_write(producer: u8, serial: u64, at: i64, price: i128) -> WriteRequest {
    let rows = encode_batch(&ledger_row(at, price)).unwrap();
    WriteRequest { rows, ..write(producer, serial, &[1]) }
}

/// A delete of that row from region 7 of group 5.
pub(crate) fn ledger_delete(producer: u8, serial: u64, price: i128) -> WriteRequest {
    let keys: Vec<ArrayRef> = vec![Arc::new(Int64Array::from(vec![1])), prices(price)];
    let keys = RecordBatch::try_new(ledger_schema().key_arrow(), keys).unwrap();
    let rows = encode_batch(&keys).unwrap();
    WriteRequest { op: RowOp::Delete.into(), rows, ..write(producer, serial, &[1]) }
}

pub(crate) fn batch(ids: &[i64]) -> RecordBatch {
    let names: Vec<String> = ids.iter().map(|id| format!("name {id}")).collect();
    RecordBatch::try_new(
        schema(1).arrow(),
        vec![Arc::new(Int64Array::from(ids.to_vec())), Arc::new(StringArray::from(names))],
    )
    .unwrap()
}

pub(crate) fn rows(ids: &[i64]) -> Bytes {
    encode_batch(&batch(ids)).unwrap()
}

/// Placeholder for the opening: [`TestGroup::apply`] replaces it by the outcome of the producer's
/// last opening write.
const LAST_OPENING: u64 = u64::MAX;

/// A write of producer `producer` to region 7 of group 5.
pub(crate) fn write(producer: u8, serial: u64, ids: &[i64]) -> WriteRequest {
    WriteRequest {
        group_id: 5,
        region_id: 7,
        catalog_version: 1,
        schema_version: 1,
        producer_id: Bytes::copy_from_slice(&[producer; 16]),
        serial,
        origin_region_id: 7,
        op: RowOp::Put.into(),
        row_count: u32::try_from(ids.len()).unwrap(),
        opening: if serial == 1 { 0 } else { LAST_OPENING },
        rows: if ids.is_empty() { Bytes::new() } else { rows(ids) },
    }
}

/// A delete of producer `producer` from region 7 of group 5.
pub(crate) fn delete(producer: u8, serial: u64, ids: &[i64]) -> WriteRequest {
    let keys: ArrayRef = Arc::new(Int64Array::from(ids.to_vec()));
    let keys = RecordBatch::try_new(schema(1).key_arrow(), vec![keys]).unwrap();
    WriteRequest {
        op: RowOp::Delete.into(),
        rows: encode_batch(&keys).unwrap(),
        ..write(producer, serial, ids)
    }
}

pub(crate) fn opened(region: v1::RegionDescriptor) -> group_entry::Entry {
    group_entry::Entry::Opened(v1::RegionOpened { region: Some(region), base: 0 })
}

pub(crate) fn writes(writes: Vec<WriteRequest>) -> group_entry::Entry {
    group_entry::Entry::Writes(v1::RegionWrites {
        writes,
        eviction: super::producers::Eviction::CURRENT.to_wire(),
    })
}

/// A replica of group 5 on node 1 without Raft, with this memory limit for rows in bytes.
pub(crate) fn shared(storage: Storage, memory: u64) -> Arc<ReplicaState> {
    let env = RegionEnv::new(
        storage,
        Arc::new(SystemClock),
        Arc::new(SystemIds),
        MemoryBudget::new(memory),
        EngineOptions::default(),
    );
    ReplicaState::new(GroupId(5), NodeId(1), env, EventTables::default(), 1 << 20)
}

/// Hosts region `id` with all keys.
pub(crate) fn host(shared: &ReplicaState, id: u64) -> Arc<Region> {
    let descriptor = Descriptor::new(&region(id, None, None)).unwrap();
    shared.host(descriptor, Sequence(0), Sequence(0), Vec::new()).unwrap()
}

/// Sink that records (region, sequence, ids) of applied rows, and their epochs.
#[derive(Debug, Default)]
pub(crate) struct RecordingSink {
    pub(crate) rows: Mutex<Vec<(RegionId, Sequence, Vec<i64>)>>,
    /// Numbers of columns of the same rows.
    pub(crate) columns: Mutex<Vec<usize>>,
    epochs: Mutex<Vec<Epoch>>,
}

impl RecordingSink {
    pub(crate) fn epochs(&self) -> Vec<Epoch> {
        self.epochs.lock().clone()
    }
}

impl RowSink for RecordingSink {
    fn rows(
        &self,
        region: RegionId,
        point: WritePoint,
        _op: RowOp,
        batch: RecordBatch,
    ) -> Result<(), SinkError> {
        let ids = batch.column(0).as_any().downcast_ref::<Int64Array>().unwrap();
        self.rows.lock().push((region, point.sequence, ids.values().to_vec()));
        self.epochs.lock().push(point.epoch);
        self.columns.lock().push(batch.num_columns());
        Ok(())
    }
}

/// A group with region 7 (all keys) open, and its sink.
#[derive(Debug, Default)]
pub(crate) struct TestGroup {
    pub(crate) state: GroupState,
    pub(crate) seen: RecordingSink,
    pub(crate) index: u64,
    /// Sequences of opening writes, by producer.
    pub(crate) openings: BTreeMap<Bytes, u64>,
}

impl TestGroup {
    pub(crate) fn with_region() -> Self {
        let mut group = Self::default();
        group.apply(opened(region(7, None, None)));
        group
    }

    pub(crate) fn apply(&mut self, mut entry: group_entry::Entry) -> Applied {
        self.index += 1;
        let mut openings = Vec::new();
        if let group_entry::Entry::Writes(entry) = &mut entry {
            for write in &mut entry.writes {
                openings.push((write.producer_id.clone(), write.serial == 1));
                if write.opening == LAST_OPENING {
                    write.opening = self.openings.get(&write.producer_id).copied().unwrap_or(1);
                }
            }
        }
        let applied = apply(&mut self.state, LogIndex(self.index), entry, &self.seen).unwrap();
        for ((producer, opens), outcome) in openings.into_iter().zip(&applied.outcomes) {
            if let (true, EntryOutcome::Done { sequence, .. }) = (opens, outcome) {
                self.openings.insert(producer, sequence.get());
            }
        }
        applied
    }
}
