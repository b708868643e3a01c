//! Tests of a node with single-member groups.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use tidewater_common::clock::SystemClock;
use tidewater_raft_store::membership::is_joint;
use tidewater_raft_store::types::{EntryPayload, Membership};
use tidewater_raft_store::{LogStoreOptions, Role};
use tidewater_region_engine::MemoryBudget;
use tidewater_region_engine::env::{EngineOptions, SystemIds};
use tidewater_region_engine::storage::Storage;
use tidewater_rpc::AddressBook;
use uuid::Uuid;

use super::*;
use crate::group::entry::EncodedEntry;

pub(crate) const NODE: NodeId = NodeId(101);
pub(crate) const GROUP: GroupId = GroupId(5);

/// Records of a cluster without groups.
#[derive(Debug)]
struct NoRecords;

#[tonic::async_trait]
impl GroupRecords for NoRecords {
    async fn read(&self, _: GroupId) -> Result<Option<tidewater_proto::v1::Group>, Refusal> {
        Ok(None)
    }
}

/// Creates a node without groups.
pub(crate) fn node(folder: &Path) -> Arc<Groups> {
    node_over(folder, Storage::memory())
}

/// Creates a node without groups that uses this store.
pub(crate) fn node_over(folder: &Path, storage: Storage) -> Arc<Groups> {
    node_with(folder, storage, NodeEvents::none(NODE))
}

/// Creates a node without groups that uses this store and records events.
pub(crate) fn node_with(folder: &Path, storage: Storage, events: Arc<NodeEvents>) -> Arc<Groups> {
    let cluster = ClusterId(Uuid::from_u128(77));
    let mut directory =
        DataDirectory::open(folder, Role::Data, LogStoreOptions::default()).unwrap();
    directory.adopt(cluster, NODE).unwrap();
    let env = RegionEnv::new(
        storage,
        Arc::new(SystemClock),
        Arc::new(SystemIds),
        MemoryBudget::new(1 << 30),
        EngineOptions::default(),
    );
    Groups::new(NodeContext {
        cluster,
        node: NODE,
        host: RaftHost::new(cluster, NODE, directory.log_store().clone()),
        directory: Arc::new(directory),
        network: NetworkFactory::new(cluster, NODE, Arc::new(AddressBook::new())),
        env,
        compactors: Compactors::for_tests(cluster, NODE),
        catalog: Arc::default(),
        cluster_level: Arc::default(),
        records: Arc::new(NoRecords),
        events,
        options: GroupOptions::default(),
    })
}

pub(crate) fn members() -> BTreeMap<u64, Member> {
    BTreeMap::from([(NODE.get(), Member::new("127.0.0.1:1"))])
}

pub(crate) async fn stop(groups: Arc<Groups>) {
    groups.stop_all().await;
    let store = groups.context().directory.log_store().clone();
    tokio::task::spawn_blocking(move || store.shutdown()).await.unwrap();
}

/// Waits for a condition.
pub(crate) async fn until(expected: &str, mut condition: impl AsyncFnMut() -> bool) {
    let waited = tokio::time::timeout(Duration::from_secs(30), async {
        while !condition().await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    assert!(waited.await.is_ok(), "timed out: {expected}");
}

#[tokio::test(flavor = "multi_thread")]
async fn leader_completes_an_interrupted_membership_change() {
    let folder = tempfile::tempdir().unwrap();
    let groups = node(folder.path());
    let replica = groups.start(GROUP).await.unwrap();
    groups.initialize(&replica, members()).await.unwrap();
    // The joint membership that the first step of a change leaves; these voters alone are a quorum.
    let voters = BTreeSet::from([NODE.get()]);
    let joint = Membership::new(vec![voters.clone(), voters], members()).unwrap();
    let mut left = None;
    until("the first step is taken", async || {
        let taken = replica.raft.append_membership(joint.clone(), EntryPayload::Blank, []).await;
        left = taken.ok().map(|response| response.log_id);
        left.is_some()
    })
    .await;
    until("the second step follows", async || {
        let now = replica.membership();
        *now.log_id() > left && !is_joint(now.membership())
    })
    .await;
    stop(groups).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn start_and_removal_continue_after_their_callers_are_cancelled() {
    let folder = tempfile::tempdir().unwrap();
    let groups = node(folder.path());
    {
        let mut starting = Box::pin(groups.start(GROUP));
        assert!(futures::poll!(&mut starting).is_pending());
    }
    until("the replica runs", async || groups.get(GROUP).is_ok()).await;
    let replica = groups.get(GROUP).unwrap();
    groups.initialize(&replica, members()).await.unwrap();
    drop(replica);
    let has_log = || groups.context().directory.log_store().groups().contains(&GROUP);
    assert!(has_log());
    let snapshots = groups.context().directory.snapshot_dir(GROUP).unwrap();
    {
        let mut removing = Box::pin(groups.remove(GROUP));
        assert!(futures::poll!(&mut removing).is_pending());
    }
    until("log and snapshots are deleted", async || !has_log() && !snapshots.exists()).await;
    assert!(groups.get(GROUP).is_err());
    // The group can be started again.
    groups.start(GROUP).await.unwrap();
    stop(groups).await;
}

// The meta group counts on a replica as soon as its node has started it.
#[tokio::test(flavor = "multi_thread")]
async fn started_replica_is_found_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let groups = node(folder.path());
    groups.start(GROUP).await.unwrap();
    stop(groups).await;
    let groups = node(folder.path());
    groups.start_local().await.unwrap();
    let replica = groups.get(GROUP).unwrap();
    // It has no members, and becomes one of an existing group or of a new one.
    assert!(replica.membership().voter_ids().next().is_none());
    groups.initialize(&replica, members()).await.unwrap();
    until("the replica leads", async || replica.require_leader().is_ok()).await;
    drop(replica);
    stop(groups).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn group_follows_the_level_of_the_cluster() {
    let folder = tempfile::tempdir().unwrap();
    let groups = node(folder.path());
    let replica = groups.start(GROUP).await.unwrap();
    groups.initialize(&replica, members()).await.unwrap();
    until("the replica leads", async || replica.require_leader().is_ok()).await;
    // An entry of a later level is not proposed.
    let later =
        || EncodedEntry::from_bytes(Bytes::from_static(b"\xfa\x01\x00"), FeatureLevel::new(2));
    let limit = Duration::from_secs(30);
    let refused = replica.propose(later(), limit).await.unwrap_err();
    assert_eq!(refused.reason, Reason::Unsupported);
    assert!(refused.message.contains("cluster status"), "{refused}");
    assert_eq!(replica.shared.level(), FeatureLevel::FIRST);
    groups.context().cluster_level.send_replace(FeatureLevel::new(2));
    until("the group is raised", async || replica.shared.level() == FeatureLevel::new(2)).await;
    // From the log, after a restart, although the cluster's level is not known yet.
    drop(replica);
    stop(groups).await;
    let groups = node(folder.path());
    let replica = groups.start(GROUP).await.unwrap();
    until("the level is replayed", async || replica.shared.level() == FeatureLevel::new(2)).await;
    drop(replica);
    stop(groups).await;
}
