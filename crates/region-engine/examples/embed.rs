//! A region in the local directory that is named, and a hook that sees its files come and go.
use std::{error::Error, sync::Arc};

use arrow::array::{ArrayRef, Int64Array, RecordBatch};
use tidewater_common::{clock::SystemClock, ids::*, keys::KeyRange, schema::*};
use tidewater_region_engine::{compaction::*, env::*, hooks::*, storage::Storage, *};

#[derive(Debug, Default)]
struct Seen(parking_lot::Mutex<Vec<String>>);

#[async_trait::async_trait]
impl RegionHook for Seen {
    async fn on_manifest_updated(
        &self,
        _: RegionId,
        actions: &RegionMetaActionList,
        version: ManifestVersion,
        _: ManifestKind,
    ) -> Result<(), HookError> {
        let (more, less) = (actions.files_added().count(), actions.files_removed().count());
        self.0.lock().push(format!("version {version}: {more} files more, {less} less"));
        Ok(())
    }
}

async fn embed(dir: &str) -> Result<Vec<String>, Box<dyn Error>> {
    let (seen, plugins) = (Arc::new(Seen::default()), Plugins::default());
    plugins.insert(seen.clone() as RegionHookRef)?;
    let storage = Storage::open(&format!("file://{dir}")).await?;
    let (clock, ids) = (Arc::new(SystemClock), Arc::new(SystemIds));
    let memory = MemoryBudget::new(64 << 20);
    let env = RegionEnv::new(storage, clock, ids, memory, EngineOptions::default());
    let (id, name, data_type) = (ColumnId(1), "n".to_owned(), ColumnType::Int64);
    let columns = vec![Column { id, name, data_type, nullable: false, default: None }];
    let schema = TableSchema::new(SchemaVersion(1), columns, vec![id], None, ColumnId(2))?;
    let (options, range) = (TableOptions::upsert(), KeyRange::whole());
    let (region_id, table_id, incarnation) = (RegionId(1), TableId(1), Incarnation(1));
    let spec = RegionSpec { region_id, table_id, incarnation, schema, options, range };
    let region = Region::new(env.with_plugins(plugins), spec, Sequence(1), Sequence(0))?;
    region.take_ownership(OwnerEpoch::default(), GroupId(1)).await?;
    for sequence in (region.last_sequence().get() + 1..).take(2).map(Sequence) {
        let column: ArrayRef = Arc::new(Int64Array::from_iter_values([sequence.get() as i64]));
        let batch = RecordBatch::try_from_iter([("n", column)])?;
        region.apply(RowsWrite { sequence, epoch: Epoch(0), op: RowOp::Put, batch })?;
        region.flush().await?;
    }
    region.compact(Scope::Whole, Epoch(0), &Attempt::default()).await?;
    Ok(std::mem::take(&mut seen.0.lock()))
}
#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let dir = std::env::args().nth(1).ok_or("usage: embed DIR")?;
    embed(&dir).await.map(|seen| println!("{}", seen.join("\n")))
}
#[tokio::test]
async fn the_hook_sees_every_change() {
    let seen = embed(tempfile::tempdir().unwrap().path().to_str().unwrap()).await.unwrap();
    assert_eq!(seen.last().unwrap(), "version 5: 1 files more, 2 less");
}
