//! Writes that are refused because no file could ever hold them.

use tidewater_common::ids::{Epoch, Sequence};
use tidewater_common::schema::WriteMode;

use super::world::{World, delete_batch};
use crate::row_versions::RowOp;
use crate::storage::Storage;
use crate::{EngineError, RowsWrite};

#[tokio::test]
async fn an_append_only_region_takes_no_delete_and_is_flushed_as_before() {
    let mut world = World::new(Storage::memory(), WriteMode::AppendOnly, false).await;
    let key = ("k".to_owned(), 1);
    world.put(&[(key.clone(), Some(1), "note".to_owned())]);
    let batch = delete_batch(&[key], &world.spec);
    let write = RowsWrite { sequence: Sequence(15), epoch: Epoch(0), op: RowOp::Delete, batch };
    let error = world.region.apply(write).unwrap_err();
    assert!(
        matches!(&error, EngineError::BadRows { detail } if detail.contains("append-only")),
        "{error}"
    );
    world.region.flush().await.unwrap();
    world.check().await;
}
