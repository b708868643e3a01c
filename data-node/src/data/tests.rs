//! Calls to a node that holds its group alone, while the region is altered.

use arrow::array::{ArrayRef, Int64Array};
use tempfile::TempDir;
use tidewater_common::ids::{Epoch, GroupId, RegionId, Sequence};
use tidewater_proto::v1;
use tidewater_region_engine::manifest::AreaId;
use tidewater_region_engine::region::{
    Cause, Obligation, PendingObligation, Publication, PublicationContent,
};
use uuid::Uuid;

use super::*;
use crate::group::entry;
use crate::group::replica::GroupReplica;
use crate::group::testing::{options, region, schema, write};
use crate::groups::tests::{GROUP, members, node, stop, until};

const LIMIT: std::time::Duration = std::time::Duration::from_secs(30);

/// A node that leads group 5, and in it region 7 at schema version 1.
async fn serving(folder: &TempDir) -> (Arc<Groups>, Arc<GroupReplica>) {
    let groups = node(folder.path());
    let replica = groups.start(GROUP).await.unwrap();
    groups.initialize(&replica, members()).await.unwrap();
    until("it leads", async || replica.require_leader().is_ok()).await;
    let opened = entry::opened(region(7, None, None), Sequence(0));
    replica.propose(opened, LIMIT).await.unwrap();
    assert_eq!(replica.group(), GroupId(5));
    (groups, replica)
}

/// Asks region 7 for the row of key 1.
fn get_1() -> GetRequest {
    let ids: Vec<ArrayRef> = vec![Arc::new(Int64Array::from(vec![1]))];
    let keys = RecordBatch::try_new(schema(1).key_arrow(), ids).unwrap();
    GetRequest {
        group_id: 5,
        region_id: 7,
        catalog_version: 1,
        schema_version: 1,
        keys: encode(&keys).unwrap(),
        projection: vec![1],
    }
}

/// Region 7 comes to schema version 2.
async fn alter(replica: &GroupReplica) {
    let altered = entry::altered(v1::RegionAltered {
        region_id: 7,
        schema: Some((&schema(2)).into()),
        options: Some((&options()).into()),
        step: Some(v1::ProcedureStep { number: 1, step: 1 }),
    });
    replica.propose(altered, LIMIT).await.unwrap();
    let hosted = replica.region(RegionId(7)).unwrap();
    assert_eq!(hosted.descriptor.schema_version().get(), 2);
}

// Its columns would be looked up in a schema that its client does not know of.
#[tokio::test]
async fn a_get_is_refused_when_the_region_is_altered_while_it_is_confirmed() {
    let folder = tempfile::tempdir().unwrap();
    let (groups, replica) = serving(&folder).await;
    {
        let mut get = Box::pin(get::call(&groups, get_1()));
        // It is admitted, and has asked for the confirmation.
        assert!(futures::poll!(&mut get).is_pending());
        alter(&replica).await;
        assert_eq!(get.await.unwrap_err().reason, Reason::SchemaVersionStale);
    }
    drop(replica);
    stop(groups).await;
}

// Its first answer was lost: a refusal would say that nothing was done.
#[tokio::test]
async fn a_write_that_is_repeated_after_an_alter_gets_its_first_answer() {
    let folder = tempfile::tempdir().unwrap();
    let (groups, replica) = serving(&folder).await;
    let opening = write::call(&groups, write(1, 1, &[])).await.unwrap().sequence;
    let numbered = |serial| WriteRequest { opening, ..write(1, serial, &[5]) };
    let first = write::call(&groups, numbered(2)).await.unwrap();
    assert!(!first.repeated);
    alter(&replica).await;
    let again = write::call(&groups, numbered(2)).await.unwrap();
    assert_eq!(again, WriteResponse { repeated: true, ..first });
    let next = write::call(&groups, numbered(3)).await.unwrap_err();
    assert_eq!(next.reason, Reason::SchemaVersionStale);
    drop(replica);
    stop(groups).await;
}

// They are in no replica's memory, and their loader may have been told already, by the owner before.
#[tokio::test]
async fn nothing_is_read_that_may_lack_published_files() {
    let folder = tempfile::tempdir().unwrap();
    let (groups, replica) = serving(&folder).await;
    let area = AreaId(Uuid::from_u128(4));
    let publication = Publication { area, epoch: Epoch(0), content: PublicationContent::Files };
    let cause = Cause { sequence: Sequence(1 << 40), procedure: None };
    let obligation = Obligation::Publish(publication);
    let hosted = replica.region(RegionId(7)).unwrap();
    until("it is read", async || hosted.region.load().await.is_ok()).await;
    hosted.region.apply_obligation(PendingObligation { cause, obligation }).unwrap();
    assert_eq!(get::call(&groups, get_1()).await.unwrap_err().reason, Reason::RegionLoading);
    let scan = ScanRequest { group_id: 5, region_id: 7, schema_version: 1, ..Default::default() };
    let scans = Arc::new(Semaphore::new(1));
    let refused = scan::call(&groups, &scans, scan).await.err().unwrap();
    assert_eq!(refused.reason, Reason::RegionLoading);
    drop((hosted, replica));
    stop(groups).await;
}
