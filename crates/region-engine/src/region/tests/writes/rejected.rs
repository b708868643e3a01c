//! Writes that are refused because no file can store them.

use tidewater_common::ids::{Epoch, Sequence};
use tidewater_common::schema::WriteMode;

use crate::region::tests::fixture::{RegionFixture, delete_batch};
use crate::row_versions::RowOp;
use crate::storage::Storage;
use crate::{EngineError, RowsWrite};

#[tokio::test]
async fn append_only_region_refuses_deletes_and_still_flushes() {
    let mut fixture = RegionFixture::new(Storage::memory(), WriteMode::AppendOnly, false).await;
    let key = ("k".to_owned(), 1);
    fixture.put(&[(key.clone(), Some(1), "note".to_owned())]);
    let batch = delete_batch(&[key], &fixture.spec);
    let write = RowsWrite { sequence: Sequence(15), epoch: Epoch(0), op: RowOp::Delete, batch };
    let error = fixture.region.apply(write).unwrap_err();
    assert!(
        matches!(&error, EngineError::BadRows { detail } if detail.contains("append-only")),
        "{error}"
    );
    fixture.region.flush().await.unwrap();
    fixture.check().await;
}
