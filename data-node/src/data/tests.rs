//! Calls to a node that holds its group alone, while the region is altered.

use arrow::array::{ArrayRef, Int64Array};
use tempfile::TempDir;
use tidewater_common::ids::{GroupId, RegionId, Sequence};
use tidewater_proto::v1;

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
    let ids: Vec<ArrayRef> = vec![Arc::new(Int64Array::from(vec![1]))];
    let keys = RecordBatch::try_new(schema(1).key_arrow(), ids).unwrap();
    let request = GetRequest {
        group_id: 5,
        region_id: 7,
        catalog_version: 1,
        schema_version: 1,
        keys: encode(&keys).unwrap(),
        projection: vec![1],
    };
    {
        let mut get = Box::pin(get::call(&groups, request));
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
