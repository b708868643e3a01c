//! Seals of regions, and the first deltas of children.

use std::sync::Arc;

use tidewater_common::ids::{RegionId, Sequence};
use tidewater_common::keys::KeyRange;
use tidewater_common::schema::WriteMode;

use crate::bulk::AdoptError;
use crate::bulk::error::NotShared;
use crate::manifest::{ProcedureStep, Void};
use crate::region::tests::fixture::*;
use crate::storage::Storage;
use crate::{EngineError, Region, RegionSpec};

fn rows(numbers: std::ops::Range<i32>) -> Vec<Row> {
    numbers.map(|n| (("k".to_owned(), n), Some(i64::from(n)), format!("row {n}"))).collect()
}

async fn fixture() -> RegionFixture {
    let mut fixture = RegionFixture::new(Storage::memory(), WriteMode::Upsert, false).await;
    fixture.put(&rows(0..20));
    fixture.region.flush().await.unwrap();
    fixture
}

fn child(fixture: &RegionFixture, id: u64, range: KeyRange) -> Arc<Region> {
    let spec = RegionSpec { region_id: RegionId(id), range, ..fixture.spec.clone() };
    Region::new(env(fixture.storage.clone()), spec, Sequence(100), Sequence(0)).unwrap()
}

async fn refusal_reason(child: &Region, parent: &Region) -> NotShared {
    match child.begin_from(&[parent.dir]).await {
        Err(AdoptError::NotShared { reason, .. }) => reason,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn sealed_region_refuses_flushes_until_range_is_restored() {
    let mut fixture = fixture().await;
    fixture.truncate();
    fixture.put(&rows(5..8));
    let step = |number| Some(ProcedureStep { number, step: 1 });
    let version = fixture.region.set_range(sealed_range(), step(3)).await.unwrap();
    assert_eq!(fixture.region.obligations(), []);
    // Idempotent, also for a repeated procedure step.
    assert_eq!(fixture.region.set_range(sealed_range(), step(3)).await.unwrap(), version);
    fixture.check().await;
    let error = fixture.region.flush().await.unwrap_err();
    let refused = matches!(error, EngineError::Refused { reason: Void::Sealed, .. });
    assert!(refused, "{error}");
    fixture.check().await;
    let late = fixture.region.set_range(KeyRange::whole(), step(2)).await.unwrap_err();
    let stale = matches!(late, EngineError::Refused { reason: Void::StaleStep { .. }, .. });
    assert!(stale, "{late}");
    fixture.region.set_range(KeyRange::whole(), step(4)).await.unwrap();
    fixture.region.flush().await.unwrap();
    fixture.check().await;
    let follower = fixture.log_replica();
    follower.load().await.unwrap();
    let error = follower.set_range(sealed_range(), None).await.unwrap_err();
    assert!(matches!(error, EngineError::NotOwner { .. }), "{error}");
}

#[tokio::test]
async fn split_children_reference_their_parts_of_parent_files() {
    let fixture = fixture().await;
    fixture.region.set_range(sealed_range(), None).await.unwrap();
    let cut = row_key(&fixture.spec, &("k".to_owned(), 7));
    let low = child(&fixture, 20, KeyRange::new(Vec::new(), Some(cut.clone())));
    let high = child(&fixture, 21, KeyRange::new(cut, None));
    for (child, numbers) in [(low, 0..7), (high, 7..20)] {
        let version = child.begin_from(&[fixture.region.dir]).await.unwrap();
        assert_eq!(version.get(), 1);
        assert_eq!(child.begin_from(&[fixture.region.dir]).await.unwrap(), version);
        let late = Region::new(
            env(fixture.storage.clone()),
            child.spec().clone(),
            Sequence(100),
            Sequence(0),
        )
        .unwrap();
        assert_eq!(late.begin_from(&[fixture.region.dir]).await.unwrap(), version);
        child.take_ownership(owner(1), GROUP).await.unwrap();
        assert_eq!(child.flushed_sequence(), fixture.region.flushed_sequence());
        assert_eq!(scan(&child, &all()).await.unwrap(), rows(numbers));
        let clips = child.files().into_iter().all(|file| file.clip == child.spec().range);
        assert!(clips);
    }
}

#[tokio::test]
async fn merged_child_has_files_of_both_parents() {
    let parent = fixture().await;
    let cut = row_key(&parent.spec, &("k".to_owned(), 7));
    let low = child(&parent, 20, KeyRange::new(Vec::new(), Some(cut.clone())));
    let high = child(&parent, 21, KeyRange::new(cut, None));
    parent.region.set_range(sealed_range(), None).await.unwrap();
    for half in [&low, &high] {
        half.begin_from(&[parent.region.dir]).await.unwrap();
        half.take_ownership(owner(1), GROUP).await.unwrap();
        half.set_range(sealed_range(), None).await.unwrap();
    }
    // The file that was split is referenced twice, once for each half.
    let whole = child(&parent, 22, KeyRange::whole());
    whole.begin_from(&[low.dir, high.dir]).await.unwrap();
    assert_eq!(whole.files().len(), low.files().len() + high.files().len());
    assert_eq!(scan(&whole, &all()).await.unwrap(), parent.expected_rows());
}

#[tokio::test]
async fn child_of_unsuitable_parent_is_refused() {
    let fixture = fixture().await;
    let fit = child(&fixture, 20, KeyRange::whole());
    assert_eq!(refusal_reason(&fit, &fixture.region).await, NotShared::NotSealed);
    assert_eq!(
        refusal_reason(&fit, &child(&fixture, 11, KeyRange::whole())).await,
        NotShared::ManifestEmpty
    );
    fixture.region.set_range(sealed_range(), None).await.unwrap();
    assert_eq!(
        refusal_reason(&child(&fixture, 3, KeyRange::whole()), &fixture.region).await,
        NotShared::NotLower
    );
    let schema = fixture.spec.schema.altered(&[added("more")]).unwrap();
    let spec = RegionSpec { region_id: RegionId(21), schema, ..fixture.spec.clone() };
    let other =
        Region::new(env(fixture.storage.clone()), spec, Sequence(100), Sequence(0)).unwrap();
    assert_eq!(refusal_reason(&other, &fixture.region).await, NotShared::OtherTable);
    fixture.region.set_range(KeyRange::whole(), None).await.unwrap();
    fixture.region.remove().await.unwrap();
    let error = fit.begin_from(&[fixture.region.dir]).await.unwrap_err();
    assert!(matches!(error, AdoptError::Engine(EngineError::Removed { .. })), "{error}");
    assert_eq!(fit.stats().manifest_version.get(), 0);
}
