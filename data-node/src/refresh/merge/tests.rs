use tempfile::TempDir;
use tidewater_common::ids::Sequence;
use tidewater_proto::v1;
use tidewater_region_engine::memory::Admission;
use tokio::time::sleep;
use uuid::Uuid;

use super::*;
use crate::group::entry;
use crate::group::obligation::area_to_wire;
use crate::group::testing::region;
use crate::groups::tests::{GROUP, members, node, stop, until};

const REGION: RegionId = RegionId(7);
const AREA: AreaId = AreaId(Uuid::from_u128(4));
const LIMIT: Duration = Duration::from_secs(30);

/// A node that leads group 5, and in it region 7 with a staging area.
async fn serving(directory: &TempDir) -> (Arc<Groups>, Arc<GroupReplica>) {
    let groups = node(directory.path());
    let replica = groups.start(GROUP).await.unwrap();
    groups.initialize(&replica, members()).await.unwrap();
    until("the replica leads", async || replica.require_leader().is_ok()).await;
    let opened = entry::opened(region(7, None, None), Sequence(0));
    replica.propose(opened, LIMIT).await.unwrap();
    let area = v1::AreaOpened {
        region_id: REGION.get(),
        area_id: area_to_wire(AREA),
        deadline_ms: 4_000_000_000_000,
        step: None,
    };
    replica.propose(entry::area_opened(area), LIMIT).await.unwrap();
    assert!(is_open(&replica, REGION, AREA));
    // From then on, entries do not wait for memory.
    until("the replica works as leader", async || replica.shared.leads()).await;
    (groups, replica)
}

async fn end_refresh(replica: &GroupReplica) {
    let abandoned = v1::AreaAbandoned {
        region_id: REGION.get(),
        area_id: area_to_wire(AREA),
        ..v1::AreaAbandoned::default()
    };
    replica.propose(entry::area_abandoned(abandoned), LIMIT).await.unwrap();
}

/// Takes more than twice the memory for rows.
async fn all_memory(replica: &GroupReplica) -> Admission {
    let memory = replica.shared.memory();
    memory.admit(3 * memory.limit(), LIMIT).await.unwrap()
}

/// Starts a merge whose first chunk needs memory.
fn start(groups: &Arc<Groups>, replica: &Arc<GroupReplica>) -> Running {
    let groups = groups.clone();
    let merge = Merge { groups, replica: replica.clone(), region: REGION, area: AREA };
    let merge = Arc::new(merge);
    let chunk = merge.clone();
    Running::spawn(merge, async move { chunk.admit(1_000).await.map(drop) })
}

/// Returns the end of a merge.
async fn end(running: &mut Running) -> Result<(), Refusal> {
    let ended = tokio::time::timeout(LIMIT, running.ended.wait_for(Option::is_some));
    ended.await.unwrap().unwrap().clone().unwrap()
}

#[tokio::test]
async fn merge_waiting_for_memory_ends_with_its_replica() {
    let directory = tempfile::tempdir().unwrap();
    let (groups, replica) = serving(&directory).await;
    let held = all_memory(&replica).await;
    let running = start(&groups, &replica);
    sleep(Duration::from_millis(300)).await;
    assert!(!running.task.is_finished());
    groups.stop_all().await;
    assert!(running.task.is_finished());
    assert!(running.ended.borrow().is_none(), "it has not failed");
    drop((held, replica));
    stop(groups).await;
}

#[tokio::test]
async fn chunk_is_admitted_once_memory_is_free() {
    let directory = tempfile::tempdir().unwrap();
    let (groups, replica) = serving(&directory).await;
    let held = all_memory(&replica).await;
    let mut running = start(&groups, &replica);
    sleep(Duration::from_millis(300)).await;
    assert!(!running.task.is_finished());
    drop(held);
    end(&mut running).await.unwrap();
    drop(replica);
    stop(groups).await;
}

// It would keep its files and its place in the queue for memory until the next refresh of the table.
#[tokio::test]
async fn waiting_merge_ends_with_its_refresh() {
    let directory = tempfile::tempdir().unwrap();
    let (groups, replica) = serving(&directory).await;
    let held = all_memory(&replica).await;
    let mut running = start(&groups, &replica);
    end_refresh(&replica).await;
    let ended = end(&mut running).await.unwrap_err();
    assert_eq!(ended.reason, Reason::ProcedureSuperseded, "{ended}");
    drop((held, replica));
    stop(groups).await;
}

#[tokio::test]
async fn merges_of_ended_refreshes_are_forgotten() {
    let directory = tempfile::tempdir().unwrap();
    let (groups, replica) = serving(&directory).await;
    let merges = Merges::default();
    let next = |region| {
        let groups = groups.clone();
        drop(merges.running(Merge { groups, replica: replica.clone(), region, area: AREA }));
        merges.running.lock().keys().copied().collect::<Vec<_>>()
    };
    assert_eq!(next(REGION), [REGION]);
    assert_eq!(next(RegionId(8)), [REGION, RegionId(8)]);
    end_refresh(&replica).await;
    assert_eq!(next(RegionId(9)), [RegionId(9)]);
    drop((merges, replica));
    stop(groups).await;
}
