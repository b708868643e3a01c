use std::sync::Arc;

use tempfile::TempDir;
use tidewater_common::feature_level::FeatureLevel;
use tidewater_common::ids::{RegionId, Sequence};
use tidewater_common::schema::TableOptions;
use tidewater_proto::v1::{self, watch_event::Event};
use tokio::time::{sleep, timeout};

use super::*;
use crate::group::entry;
use crate::group::testing::{options, region};
use crate::groups::tests::{GROUP, members, node, stop, until};

const LIMIT: Duration = Duration::from_secs(30);

/// The catalog, in which table 3 is published at this epoch.
fn publication(revision: u64, published_epoch: u64) -> Event {
    let table = v1::Table { table_id: 3, published_epoch, ..v1::Table::default() };
    let tables = vec![table];
    Event::Snapshot(v1::CatalogSnapshot { revision, tables, ..v1::CatalogSnapshot::default() })
}

/// A node that leads group 5 at epoch 1,000, with region 7 of table 3, which is refreshable and published at epoch 500.
async fn serving(directory: &TempDir) -> (Arc<Groups>, Arc<GroupReplica>) {
    let groups = node(directory.path());
    let replica = groups.start(GROUP).await.unwrap();
    groups.initialize(&replica, members()).await.unwrap();
    until("the replica leads", async || replica.require_leader().is_ok()).await;
    for level in 2..=FeatureLevel::HIGHEST.get() {
        replica.propose(entry::level_raised(FeatureLevel::new(level)), LIMIT).await.unwrap();
    }
    let options = TableOptions { refreshable: true, ..options() };
    let wire = v1::RegionDescriptor { options: Some((&options).into()), ..region(7, None, None) };
    replica.propose(entry::opened(wire, Sequence(0)), LIMIT).await.unwrap();
    let barrier = v1::GroupBarrier { epoch: 1_000, ..v1::GroupBarrier::default() };
    replica.propose(entry::barrier(barrier), LIMIT).await.unwrap();
    assert_eq!(replica.shared.epoch(), Epoch(1_000));
    groups.context().catalog.follow(&publication(1, 500));
    (groups, replica)
}

/// Returns the epoch of a read, or the reason why it is refused.
async fn read(
    groups: &Groups,
    replica: &GroupReplica,
    epoch: Option<u64>,
) -> Result<Epoch, Refusal> {
    let hosted = replica.region(RegionId(7))?;
    confirm(groups, replica, &hosted, epoch, LIMIT).await?;
    Ok(as_of(groups, replica, &hosted, epoch)?.unwrap().epoch)
}

#[test]
fn refreshable_table_is_read_as_of_published_epochs_only() {
    use Publication::{Never, Published, Unknown};
    let mut kept = PublishedEpochs::default();
    for epoch in [100, 200] {
        kept.publish(Epoch(epoch), Epoch(1_000));
    }
    for (epoch, latest, expected) in [
        (300, 300, Published),
        (200, 300, Published),
        (100, 300, Published),
        (200, 0, Published),
        (250, 300, Never),
        (150, 300, Never),
        (99, 200, Never),
        (301, 300, Unknown),
        (201, 0, Unknown),
        (399, 300, Unknown),
        // All publications precede the epoch of the group.
        (400, 300, Never),
        (u64::MAX, 300, Never),
        // The group is that of another leader.
        (400, 400, Published),
    ] {
        let found = compare(Epoch(epoch), Epoch(latest), &kept, Epoch(400));
        assert_eq!(found, expected, "{epoch} {latest}");
    }
}

#[tokio::test]
async fn unpublished_epochs_are_refused_with_the_latest_one() {
    let directory = tempfile::tempdir().unwrap();
    let (groups, replica) = serving(&directory).await;
    assert_eq!(read(&groups, &replica, Some(500)).await.unwrap(), Epoch(500));
    for epoch in [None, Some(400), Some(1_000), Some(u64::MAX)] {
        // Without a wait for the catalog.
        let refused = timeout(Duration::from_secs(2), read(&groups, &replica, epoch)).await;
        let refused = refused.unwrap().unwrap_err();
        assert_eq!(refused.reason, Reason::EpochRequired, "{epoch:?}");
        assert!(refused.message.contains("published epoch") && refused.message.contains("500"));
    }
    drop(replica);
    stop(groups).await;
}

#[tokio::test]
async fn read_waits_for_a_publication_of_its_epoch() {
    let directory = tempfile::tempdir().unwrap();
    let (groups, replica) = serving(&directory).await;
    let publish = async {
        sleep(Duration::from_millis(100)).await;
        groups.context().catalog.follow(&publication(2, 900));
    };
    let (found, ()) = tokio::join!(read(&groups, &replica, Some(900)), publish);
    assert_eq!(found.unwrap(), Epoch(900));
    drop(replica);
    stop(groups).await;
}

#[tokio::test]
async fn unknown_epoch_is_refused_when_the_watch_is_alive() {
    let directory = tempfile::tempdir().unwrap();
    let (groups, replica) = serving(&directory).await;
    let refused = read(&groups, &replica, Some(900)).await.unwrap_err();
    assert_eq!(refused.reason, Reason::CatalogBehind, "{refused}");
    let alive = async {
        sleep(Duration::from_millis(100)).await;
        groups.context().catalog.follow(&Event::CurrentRevision(1));
    };
    let (refused, ()) = tokio::join!(read(&groups, &replica, Some(900)), alive);
    assert_eq!(refused.unwrap_err().reason, Reason::EpochRequired);
    drop(replica);
    stop(groups).await;
}
