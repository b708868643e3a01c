//! An embedded region in a given local directory, with a hook that observes its files.
use std::{error::Error, sync::Arc};

use arrow::array::{ArrayRef, Int64Array, RecordBatch};
use tidewater_common::{clock::SystemClock, ids::*, keys::KeyRange, schema::*};
use tidewater_region_engine::{compaction::*, env::*, hooks::*, storage::Storage, *};

#[derive(Debug, Default)]
struct ChangeLog(parking_lot::Mutex<Vec<String>>);

#[async_trait::async_trait]
impl RegionHook for ChangeLog {
    async fn on_manifest_updated(
        &self,
        _: RegionId,
        actions: &RegionMetaActionList,
        version: ManifestVersion,
        _: ManifestKind,
    ) -> Result<(), HookError> {
        let added = actions.files_added().count();
        let removed = actions.files_removed().count();
        self.0.lock().push(format!("version {version}: {added} files added, {removed} removed"));
        Ok(())
    }
}

async fn embed(dir: &str) -> Result<Vec<String>, Box<dyn Error>> {
    let changes = Arc::new(ChangeLog::default());
    let plugins = Plugins::default();
    plugins.insert(changes.clone() as RegionHookRef)?;
    let storage = Storage::open(&format!("file://{dir}")).await?;
    let clock = Arc::new(SystemClock);
    let ids = Arc::new(SystemIds);
    let memory = MemoryBudget::new(64 << 20);
    let env = RegionEnv::new(storage, clock, ids, memory, EngineOptions::default());
    let id = ColumnId(1);
    let data_type = ColumnType::Int64;
    let columns =
        vec![Column { id, name: "n".to_owned(), data_type, nullable: false, default: None }];
    let schema = TableSchema::new(SchemaVersion(1), columns, vec![id], None, ColumnId(2))?;
    let spec = RegionSpec {
        region_id: RegionId(1),
        table_id: TableId(1),
        incarnation: Incarnation(1),
        schema,
        options: TableOptions::upsert(),
        range: KeyRange::whole(),
        parents: Vec::new(),
    };
    let region = Region::new(env.with_plugins(plugins), spec, Sequence(1), Sequence(0))?;
    region.take_ownership(OwnerEpoch::default(), GroupId(1)).await?;
    for sequence in (region.last_sequence().get() + 1..).take(2).map(Sequence) {
        let column: ArrayRef = Arc::new(Int64Array::from_iter_values([sequence.get() as i64]));
        let batch = RecordBatch::try_from_iter([("n", column)])?;
        region.apply(RowsWrite { sequence, epoch: Epoch(0), op: RowOp::Put, batch })?;
        region.flush().await?;
    }
    region.compact(Scope::Whole, Epoch(0), &Attempt::default()).await?;
    Ok(std::mem::take(&mut changes.0.lock()))
}
#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let dir = std::env::args().nth(1).ok_or("usage: embed DIR")?;
    embed(&dir).await.map(|changes| println!("{}", changes.join("\n")))
}
#[tokio::test]
async fn hook_observes_every_manifest_change() {
    let changes = embed(tempfile::tempdir().unwrap().path().to_str().unwrap()).await.unwrap();
    assert_eq!(changes.last().unwrap(), "version 5: 1 files added, 2 removed");
}
