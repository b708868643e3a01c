//! Seals: the content of a sealed region stays the same, and what would change it waits or is refused.

use std::sync::atomic::{AtomicBool, Ordering};

use futures::FutureExt;
use object_store::path::Path;
use tidewater_common::ids::{Epoch, Sequence};
use tidewater_common::keys::KeyRange;
use tidewater_common::refusal::Refusal;
use tidewater_common::schema::WriteMode;
use tidewater_proto::v1::Reason;

use super::begin::{fixture, rows};
use crate::EngineError;
use crate::bulk::AdoptError;
use crate::compaction::{Attempt, Scope};
use crate::manifest::{ProcedureStep, Void};
use crate::region::tests::fixture::*;
use crate::storage::testing::{Fault, FaultyStore};
use crate::storage::{Operation, Storage};

fn is_sealed_error(error: &EngineError) -> bool {
    matches!(error, EngineError::Refused { reason: Void::Sealed, .. })
}

async fn objects(storage: &Storage) -> Vec<Path> {
    let listed = storage.list(&Path::default(), None).await.unwrap();
    listed.into_iter().map(|object| object.location).collect()
}

#[tokio::test]
async fn sealed_region_refuses_flushes_until_range_is_restored() {
    let mut fixture = fixture(Storage::memory()).await;
    fixture.truncate();
    fixture.put(&rows(5..8));
    let step = |number| Some(ProcedureStep { number, step: 1 });
    let version = fixture.region.set_range(sealed_range(), step(3)).await.unwrap();
    assert_eq!(fixture.region.obligations(), []);
    assert!(fixture.region.is_sealed());
    // Idempotent, also for a repeated procedure step and after a later fence.
    fixture.region.take_ownership(owner(2), GROUP).await.unwrap();
    assert_eq!(fixture.region.set_range(sealed_range(), step(3)).await.unwrap(), version);
    fixture.check().await;
    let before = objects(&fixture.storage).await;
    let error = fixture.region.flush().await.unwrap_err();
    assert!(is_sealed_error(&error), "{error}");
    let refusal = Refusal::from(&error);
    assert_eq!(refusal.reason, Reason::RouteWriteFenced);
    assert!(refusal.retry_after.is_some());
    // No file was written.
    assert_eq!(objects(&fixture.storage).await, before);
    fixture.check().await;
    let late = fixture.region.set_range(KeyRange::whole(), step(2)).await.unwrap_err();
    let stale = matches!(late, EngineError::Refused { reason: Void::StaleStep { .. }, .. });
    assert!(stale, "{late}");
    fixture.region.set_range(KeyRange::whole(), step(4)).await.unwrap();
    assert_eq!(fixture.region.flush().await.unwrap().rows, 3);
    fixture.check().await;
    let follower = fixture.log_replica();
    follower.load().await.unwrap();
    let error = follower.set_range(sealed_range(), None).await.unwrap_err();
    assert!(matches!(error, EngineError::NotOwner { .. }), "{error}");
}

// R11.
#[tokio::test]
async fn delayed_seal_is_void_after_a_restoration() {
    let mut fixture = fixture(Storage::memory()).await;
    let step = |step| Some(ProcedureStep { number: 3, step });
    // The split was abandoned before it sealed the region.
    fixture.region.set_range(KeyRange::whole(), step(3)).await.unwrap();
    let late = fixture.region.set_range(sealed_range(), step(1)).await.unwrap_err();
    let stale = matches!(late, EngineError::Refused { reason: Void::StaleStep { .. }, .. });
    assert!(stale, "{late}");
    // Idempotent.
    let version = fixture.region.set_range(KeyRange::whole(), step(3)).await.unwrap();
    assert_eq!(fixture.region.set_range(KeyRange::whole(), step(3)).await.unwrap(), version);
    fixture.put(&rows(5..8));
    assert_eq!(fixture.region.flush().await.unwrap().rows, 3);
    fixture.check().await;
}

#[tokio::test]
async fn sealed_region_is_not_compacted() {
    let mut fixture = fixture(Storage::memory()).await;
    fixture.put(&rows(10..30));
    fixture.region.flush().await.unwrap();
    assert!(!fixture.region.compactions_due().is_empty());
    let late = fixture.region.plan_compaction(Scope::Whole, Epoch(0)).await.unwrap().unwrap();
    fixture.region.set_range(sealed_range(), None).await.unwrap();
    let slot = fixture.region.env.compactions.acquire().await;
    let error = late.run(&slot, &Attempt::default()).await.unwrap_err();
    assert!(is_sealed_error(&error), "{error}");
    drop((slot, late));
    assert_eq!(fixture.region.compactions_due(), []);
    assert_eq!(fixture.compact(Scope::Whole).await, None);
    fixture.region.set_range(KeyRange::whole(), None).await.unwrap();
    assert!(fixture.compact(Scope::Whole).await.is_some());
    fixture.check().await;
}

#[tokio::test]
async fn seal_reports_a_change_that_the_log_has_decided() {
    let mut fixture = fixture(Storage::memory()).await;
    fixture.region.set_range(sealed_range(), None).await.unwrap();
    fixture.truncate();
    for _ in 0..2 {
        let error = fixture.region.set_range(sealed_range(), None).await.unwrap_err();
        assert!(is_sealed_error(&error), "{error}");
    }
    // The change is recorded once the division is abandoned.
    fixture.region.set_range(KeyRange::whole(), None).await.unwrap();
    fixture.region.record_obligations().await.unwrap();
    assert_eq!(fixture.region.obligations(), []);
    fixture.region.set_range(sealed_range(), None).await.unwrap();
    fixture.check().await;
}

#[tokio::test]
async fn change_decided_while_the_seal_is_committed_is_reported() {
    let store = FaultyStore::new();
    let fixture = fixture(store.storage()).await;
    let region = fixture.region.clone();
    store.plan(move |call| {
        if call.operation == Operation::PutIfAbsent {
            region.truncate(cause(Sequence(500))).unwrap();
        }
        Fault::None
    });
    let error = fixture.region.set_range(sealed_range(), None).await.unwrap_err();
    assert!(is_sealed_error(&error), "{error}");
    store.plan(|_| Fault::None);
    assert!(fixture.region.is_sealed());
    fixture.region.set_range(KeyRange::whole(), None).await.unwrap();
    fixture.region.record_obligations().await.unwrap();
    assert_eq!(fixture.region.obligations(), []);
}

#[tokio::test]
async fn region_is_sealed_after_its_staging_areas_are_closed() {
    let storage = Storage::memory();
    let mut fixture = RegionFixture::new(storage, WriteMode::Upsert, false).await;
    let area = new_area();
    let files = fixture.bulk_files(&rows(0..5)).await;
    fixture.region.adopt(area, &files, DEADLINE).await.unwrap();
    let error = fixture.region.set_range(sealed_range(), None).await.unwrap_err();
    let is_open = matches!(error, EngineError::Refused { reason: Void::AreaOpen { .. }, .. });
    assert!(is_open, "{error}");
    assert_eq!(Refusal::from(&error).reason, Reason::TableBusy);
    let content = crate::region::PublicationContent::Files;
    fixture.publish(area, content, &[rows(0..5)]);
    fixture.region.set_range(sealed_range(), None).await.unwrap();
    fixture.check().await;
    let files = fixture.bulk_files(&rows(5..9)).await;
    let late = fixture.region.adopt(new_area(), &files, DEADLINE).await.unwrap_err();
    let refused = matches!(&late, AdoptError::Engine(error) if is_sealed_error(error));
    assert!(refused, "{late}");
}

// R11.
#[tokio::test]
async fn seal_that_is_not_wanted_changes_nothing() {
    let fixture = fixture(Storage::memory()).await;
    let region = fixture.region.clone();
    let before = region.stats().manifest_version;
    let step = Some(ProcedureStep { number: 3, step: 1 });
    assert_eq!(region.set_range_if(sealed_range(), step, || false).await.unwrap(), None);
    assert_eq!((region.is_sealed(), region.stats().manifest_version), (false, before));
    // Decided after the change of the range that is in progress.
    let flushing = region.flushing.lock().await;
    let is_wanted = AtomicBool::new(true);
    let late = region.set_range_if(sealed_range(), step, || is_wanted.load(Ordering::Relaxed));
    let mut late = std::pin::pin!(late);
    assert!(late.as_mut().now_or_never().is_none());
    is_wanted.store(false, Ordering::Relaxed);
    drop(flushing);
    assert_eq!(late.await.unwrap(), None);
    assert!(!region.is_sealed());
    let sealed = region.set_range_if(sealed_range(), step, || true).await.unwrap();
    assert!(sealed > Some(before) && region.is_sealed());
}
