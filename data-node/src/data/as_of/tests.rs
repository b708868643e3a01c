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
    let known = confirm(groups, replica, &hosted, epoch, LIMIT).await?;
    Ok(as_of(replica, &hosted, known, epoch)?.unwrap().epoch)
}

#[test]
fn refreshable_table_is_read_as_of_the_last_publication() {
    use Publication::{At, Forgotten, Never, Unknown};
    let mut kept = PublishedEpochs::default();
    for epoch in [50, 100, 200] {
        kept.publish(Epoch(epoch), Epoch(1_000));
    }
    kept.forget(Some(Epoch(100)));
    let at = |epoch| At(Epoch(epoch));
    for (epoch, published, complete, expected) in [
        (300, 300, 0, at(300)),
        (299, 300, 0, at(200)),
        (200, 300, 0, at(200)),
        (150, 300, 0, at(100)),
        (100, 0, 0, at(100)),
        // It was forgotten, also if the catalog of the node is of that time.
        (99, 300, 0, Forgotten),
        (99, 50, 0, Forgotten),
        (250, 200, 0, Unknown),
        (301, 300, 0, Unknown),
        (201, 0, 0, Unknown),
        (399, 300, 0, Unknown),
        // Later publications are after the complete epoch.
        (250, 200, 250, at(200)),
        (350, 300, 350, at(300)),
        (250, 300, 350, at(200)),
        (351, 300, 350, Unknown),
        // All publications precede the epoch of the group.
        (400, 300, 350, Never),
        (u64::MAX, 300, 0, Never),
        // The group is that of another leader.
        (400, 400, 0, at(400)),
    ] {
        let known = CatalogEpochs { published: Epoch(published), complete: Epoch(complete) };
        let found = find(Epoch(epoch), known, &kept, Epoch(400));
        assert_eq!(found, expected, "{epoch} {published} {complete}");
    }
}

#[tokio::test]
async fn unpublished_epochs_are_refused_with_the_latest_one() {
    let directory = tempfile::tempdir().unwrap();
    let (groups, replica) = serving(&directory).await;
    assert_eq!(read(&groups, &replica, Some(500)).await.unwrap(), Epoch(500));
    for epoch in [None, Some(1_000), Some(u64::MAX)] {
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
