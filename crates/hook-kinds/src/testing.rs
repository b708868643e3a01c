//! A region for the tests of hooks, with a file of two rows for each flush.

use std::sync::Arc;

use arrow::array::{ArrayRef, Float64Array, Int64Array, RecordBatch, StringArray};
use tidewater_common::clock::SystemClock;
use tidewater_common::ids::*;
use tidewater_common::keys::KeyRange;
use tidewater_common::schema::{Column, ColumnType, TableOptions, TableSchema};
use tidewater_region_engine::env::{EngineOptions, RegionEnv, SystemIds};
use tidewater_region_engine::hooks::{EventSource, FileStatisticsReader, HookHome};
use tidewater_region_engine::layout::RegionDir;
use tidewater_region_engine::storage::Storage;
use tidewater_region_engine::{MemoryBudget, Plugins, Region, RegionSpec, RowOp, RowsWrite};

pub(crate) const DIR: RegionDir =
    RegionDir { table_id: TableId(3), region_id: RegionId(7), incarnation: Incarnation(2) };

pub(crate) fn home() -> HookHome {
    HookHome { role: "data", node_id: NodeId(101) }
}

pub(crate) fn schema() -> TableSchema {
    let column = |id, name: &str, data_type, nullable| Column {
        id: ColumnId(id),
        name: name.to_owned(),
        data_type,
        nullable,
        default: None,
    };
    let columns = vec![
        column(1, "n", ColumnType::Int64, false),
        column(2, "text", ColumnType::Utf8, true),
        column(3, "x", ColumnType::Float64, true),
    ];
    TableSchema::new(SchemaVersion(1), columns, vec![ColumnId(1)], None, ColumnId(4)).unwrap()
}

pub(crate) fn env(plugins: Plugins) -> RegionEnv {
    let memory = MemoryBudget::new(64 << 20);
    let options = EngineOptions::default();
    let (clock, ids) = (Arc::new(SystemClock), Arc::new(SystemIds));
    RegionEnv::new(Storage::memory(), clock, ids, memory, options).with_plugins(plugins)
}

pub(crate) fn source(env: &RegionEnv) -> EventSource {
    let statistics = FileStatisticsReader::new(env.storage.clone(), env.footers.clone());
    let table_name = env.plugins.table_name(DIR.table_id);
    EventSource { dir: DIR, table_name, statistics: Some(statistics) }
}

pub(crate) async fn region(env: &RegionEnv) -> Arc<Region> {
    let spec = RegionSpec {
        region_id: DIR.region_id,
        table_id: DIR.table_id,
        incarnation: DIR.incarnation,
        schema: schema(),
        options: TableOptions::upsert(),
        range: KeyRange::whole(),
        parents: Vec::new(),
    };
    let region = Region::new(env.clone(), spec, Sequence(1), Sequence(0)).unwrap();
    region.take_ownership(OwnerEpoch::default(), GroupId(1)).await.unwrap();
    region
}

pub(crate) async fn flush(region: &Region, sequence: u64, text: &str) {
    let arrays: [ArrayRef; 3] = [
        Arc::new(Int64Array::from(vec![-4, 9])),
        Arc::new(StringArray::from(vec![Some(text), None])),
        Arc::new(Float64Array::from(vec![Some(0.5), Some(f64::NAN)])),
    ];
    let batch = RecordBatch::try_new(schema().arrow(), arrays.to_vec()).unwrap();
    let sequence = Sequence(sequence);
    region.apply(RowsWrite { sequence, epoch: Epoch(0), op: RowOp::Put, batch }).unwrap();
    region.flush().await.unwrap();
}
