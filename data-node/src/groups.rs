//! Replicas of data groups on this node: started and stopped at runtime, found again after a
//! restart.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use openraft::async_runtime::WatchReceiver;
use openraft::errors::{InitializeError, RaftError};
use parking_lot::RwLock;
use tidewater_common::feature_level::FeatureLevel;
use tidewater_common::ids::{ClusterId, GroupId, NodeId};
use tidewater_common::refusal::Refusal;
use tidewater_proto::v1::Reason;
use tidewater_raft_store::{
    DataDirectory, DiskHealth, GroupKind, GroupNetworkFactory, Member, NetworkFactory, Raft,
    RaftHost, raft_config,
};
use tidewater_region_engine::env::RegionEnv;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio_util::task::TaskTracker;
use tracing::{error, info, warn};

use crate::catalog::WatchedCatalog;
use crate::compactors::Compactors;
use crate::group::batcher;
use crate::group::replica::GroupReplica;
use crate::group::shared::ReplicaState;
use crate::group::state_machine::{GroupStateMachine, SnapshotFiles};
use crate::group::{loader, memtable_merger};
use crate::group_records::GroupRecords;
use crate::leadership::{self, OwnerContext, file_check, housekeeping};
use crate::node_events::NodeEvents;
use crate::options::GroupOptions;
use crate::owner_request::REQUEST_QUEUE;
use crate::peers::Peers;

#[doc(hidden)]
pub mod set_aside;
#[cfg(test)]
pub(crate) mod tests;

/// Error of starting or stopping a replica.
#[derive(Debug, thiserror::Error)]
pub enum GroupError {
    /// The replica's snapshots or log cannot be used.
    #[error("the replica of group {group} cannot {action}: {detail}")]
    Failed {
        /// Id of the group.
        group: GroupId,
        /// Attempted action.
        action: &'static str,
        /// Detail of the failure.
        detail: String,
    },
}

impl From<GroupError> for Refusal {
    fn from(error: GroupError) -> Self {
        Self::new(Reason::Internal, error.to_string())
    }
}

/// Parts of the node that its groups use.
#[derive(Debug, Clone)]
pub struct NodeContext {
    /// Id of the cluster.
    pub cluster: ClusterId,
    /// Id of this node.
    pub node: NodeId,
    /// Log store and snapshot directories.
    pub directory: Arc<DataDirectory>,
    /// Receiver of calls from other replicas.
    pub host: Arc<RaftHost>,
    /// Connections to other replicas.
    pub network: NetworkFactory,
    /// Environment of regions: store, clock, memory, options.
    pub env: RegionEnv,
    /// Compactor nodes.
    pub compactors: Arc<Compactors>,
    /// The catalog as this node's watch delivers it.
    pub catalog: Arc<WatchedCatalog>,
    /// Feature level of the cluster, as the meta leader reports it: groups that this node leads follow.
    pub cluster_level: Arc<watch::Sender<FeatureLevel>>,
    /// The meta group's records of groups.
    pub records: Arc<dyn GroupRecords>,
    /// Events of the node.
    pub events: Arc<NodeEvents>,
    /// Limits and intervals.
    pub options: GroupOptions,
}

/// The replicas of this node. Lives as long as the node.
#[derive(Debug)]
pub struct Groups {
    context: NodeContext,
    peers: Peers,
    replicas: RwLock<BTreeMap<GroupId, Arc<GroupReplica>>>,
    // Serializes starts and stops.
    changing: tokio::sync::Mutex<()>,
    failed: watch::Sender<Option<String>>,
}

impl Groups {
    /// Creates the node's groups, without replicas.
    pub fn new(context: NodeContext) -> Arc<Self> {
        let peers = Peers::new(context.cluster, context.node, context.network.addresses().clone());
        Arc::new(Self {
            context,
            peers,
            replicas: RwLock::default(),
            changing: tokio::sync::Mutex::new(()),
            failed: watch::Sender::new(None),
        })
    }

    /// Id of this node.
    pub fn node(&self) -> NodeId {
        self.context.node
    }

    /// Returns the parts of the node that the groups use.
    pub fn context(&self) -> &NodeContext {
        &self.context
    }

    /// Reason of the first permanent failure of a replica; the node must exit.
    pub fn failed(&self) -> watch::Receiver<Option<String>> {
        self.failed.subscribe()
    }

    /// Makes [`failed`](Self::failed) resolve, unless there was an earlier failure.
    pub fn fail(&self, reason: String) {
        fail(&self.failed, reason);
    }

    /// Health of the disk.
    pub fn disk(&self) -> DiskHealth {
        self.context.directory.log_store().health().borrow().clone()
    }

    /// Returns the replica of a group.
    pub fn get(&self, group: GroupId) -> Result<Arc<GroupReplica>, Refusal> {
        self.replicas.read().get(&group).cloned().ok_or_else(|| {
            Refusal::new(
                Reason::GroupNotHosted,
                format!("node {} hosts no replica of group {group}", self.context.node),
            )
        })
    }

    /// Returns whether this node has a replica of a group, or the log of one.
    pub fn has_log(&self, group: GroupId) -> bool {
        self.get(group).is_ok() || self.context.directory.log_store().groups().contains(&group)
    }

    /// Returns all replicas, by group.
    pub fn all(&self) -> Vec<Arc<GroupReplica>> {
        self.replicas.read().values().cloned().collect()
    }

    /// Starts the replicas whose logs are on this node.
    pub async fn start_local(self: &Arc<Self>) -> Result<(), GroupError> {
        for group in self.context.directory.log_store().groups() {
            if group != GroupId::META {
                self.start(group).await?;
            }
        }
        Ok(())
    }

    /// Starts a replica; returns a running one unchanged. Continues if the caller is cancelled.
    pub async fn start(self: &Arc<Self>, group: GroupId) -> Result<Arc<GroupReplica>, GroupError> {
        let this = Arc::clone(self);
        run_detached(group, "start", async move { this.start_now(group).await }).await
    }

    async fn start_now(&self, group: GroupId) -> Result<Arc<GroupReplica>, GroupError> {
        let _changing = self.changing.lock().await;
        if let Ok(running) = self.get(group) {
            return Ok(running);
        }
        let folder = self.snapshot_folder(group).await?;
        let files = {
            let folder = folder.clone();
            tokio::task::spawn_blocking(move || SnapshotFiles::open(folder))
                .await
                .map_err(|error| failed(group, "start", error))?
                .map_err(|error| failed(group, "open its snapshots", error))?
        };
        // Its members may count on the replica from now on: after a restart, the node must find it.
        let log = self.context.directory.log_store().group(group);
        log.establish().await.map_err(|error| failed(group, "store its log", error))?;
        let replica = Arc::new(self.launch(group, files).await?);
        self.context.host.add(group, Arc::new(replica.raft.clone()), &folder);
        self.replicas.write().insert(group, replica.clone());
        info!(%group, "replica started");
        Ok(replica)
    }

    /// Writes the first membership, unless the group has one.
    pub async fn initialize(
        &self,
        replica: &GroupReplica,
        members: BTreeMap<u64, Member>,
    ) -> Result<(), GroupError> {
        match replica.raft.initialize(members).await {
            Ok(()) | Err(RaftError::APIError(InitializeError::NotAllowed(_))) => Ok(()),
            Err(error) => Err(failed(replica.group(), "be initialized", error)),
        }
    }

    /// Stops a replica and sets its log aside. Continues if the caller is cancelled.
    pub async fn remove(self: &Arc<Self>, group: GroupId) -> Result<(), GroupError> {
        let this = Arc::clone(self);
        run_detached(group, "be removed", async move { this.remove_now(group).await }).await
    }

    async fn remove_now(&self, group: GroupId) -> Result<(), GroupError> {
        let _changing = self.changing.lock().await;
        let replica = self.replicas.write().remove(&group);
        self.context.host.remove(group);
        if let Some(replica) = replica {
            replica.stop().await;
        }
        let directory = &self.context.directory;
        if directory.log_store().groups().contains(&group) {
            set_aside::set_aside(directory.clone(), group, self.context.env.clock.now_ms())
                .await
                .map_err(|error| failed(group, "set its log aside", error))?;
        }
        // The log is deleted first: a log without the snapshot that it continues must never be
        // found, while a snapshot without a log is deleted when the group is started again.
        self.context
            .directory
            .log_store()
            .remove_group(group)
            .await
            .map_err(|error| failed(group, "be removed", error))?;
        self.clear_snapshots(group).await?;
        info!(%group, "replica removed");
        Ok(())
    }

    /// Deletes the logs of removed replicas that were set aside for longer than the options say.
    pub async fn delete_expired_logs(&self) {
        let directory = self.context.directory.clone();
        let now_ms = self.context.env.clock.now_ms();
        let keep = self.context.options.keep_removed_logs;
        let deleted = tokio::task::spawn_blocking(move || {
            set_aside::remove_expired(directory.path(), now_ms, keep)
        });
        match deleted.await.unwrap_or_else(|error| Err(std::io::Error::other(error))) {
            Ok(()) => {}
            Err(error) => warn!(%error, "failed to look for logs of removed replicas"),
        }
    }

    /// Stops all replicas.
    pub async fn stop_all(&self) {
        let _changing = self.changing.lock().await;
        let replicas = std::mem::take(&mut *self.replicas.write());
        for group in replicas.keys() {
            self.context.host.remove(*group);
        }
        futures::future::join_all(replicas.values().map(|replica| replica.stop())).await;
    }

    /// Returns the directory of a group's snapshots, after deleting those of an earlier replica.
    async fn snapshot_folder(&self, group: GroupId) -> Result<PathBuf, GroupError> {
        if !self.context.directory.log_store().groups().contains(&group) {
            self.clear_snapshots(group).await?;
        }
        let directory = self.context.directory.clone();
        tokio::task::spawn_blocking(move || directory.snapshot_dir(group))
            .await
            .map_err(|error| failed(group, "start", error))?
            .map_err(|error| failed(group, "make its snapshot folder", error))
    }

    async fn clear_snapshots(&self, group: GroupId) -> Result<(), GroupError> {
        let directory = self.context.directory.clone();
        let cleared = tokio::task::spawn_blocking(move || -> std::io::Result<()> {
            let folder = directory.snapshot_dir(group).map_err(std::io::Error::other)?;
            std::fs::remove_dir_all(folder)
        });
        cleared
            .await
            .map_err(|error| failed(group, "clear its snapshots", error))?
            .map_err(|error| failed(group, "clear its snapshots", error))
    }

    async fn launch(
        &self,
        group: GroupId,
        files: SnapshotFiles,
    ) -> Result<GroupReplica, GroupError> {
        let options = &self.context.options;
        let shared = ReplicaState::new(
            group,
            self.context.node,
            self.context.env.clone(),
            self.context.events.event_tables().clone(),
            options.log_tail_bytes,
        );
        let tasks = TaskTracker::new();
        // Before the log is replayed: flushed rows are dropped as their manifests are read.
        tasks.spawn(loader::run(shared.clone()));
        tasks.spawn(memtable_merger::run(shared.clone()));
        let network = self.context.network.group(group);
        let confirmations = network.confirmations().clone();
        let raft = match self.launch_raft(&shared, network, files).await {
            Ok(raft) => raft,
            Err(error) => {
                shared.stopping.cancel();
                return Err(error);
            }
        };
        shared.set_replayed();
        let (batcher, batching) = batcher::start(shared.clone(), raft.clone(), options.batch);
        let (owner_requests, requests) = mpsc::channel(REQUEST_QUEUE);
        let (compact_requests, compact) = mpsc::channel(REQUEST_QUEUE);
        let context = OwnerContext {
            shared: shared.clone(),
            raft: raft.clone(),
            flush_policy: options.flush,
            compaction_policy: options.compactions,
            hold_limits: options.hold_limits,
            compactors: self.context.compactors.clone(),
            host: self.context.host.clone(),
            cluster_level: self.context.cluster_level.subscribe(),
            events: self.context.events.clone(),
            tasks: tasks.clone(),
        };
        tasks.spawn(batching);
        tasks.spawn(leadership::run(context.clone(), requests, compact));
        tasks.spawn(housekeeping::run(
            context,
            options.snapshot_bytes,
            self.peers.clone(),
            owner_requests.clone(),
        ));
        tasks.spawn(file_check::run(shared.clone(), options.check_files_every));
        tasks.spawn(watch_core(group, raft.clone(), shared.clone(), self.failed.clone()));
        Ok(GroupReplica {
            shared,
            raft,
            confirmations,
            batcher,
            owner_requests,
            compact_requests,
            tasks,
            barrier_slot: Arc::new(Semaphore::new(1)),
        })
    }

    async fn launch_raft(
        &self,
        shared: &Arc<ReplicaState>,
        network: GroupNetworkFactory,
        files: SnapshotFiles,
    ) -> Result<Raft<GroupStateMachine>, GroupError> {
        let group = shared.group;
        let config = raft_config(GroupKind::Data);
        let config = openraft::Config {
            // Purged by bytes, not by entries: see `group::log_bytes`.
            max_in_snapshot_log_to_keep: u64::MAX,
            ..(*config).clone()
        };
        let machine = GroupStateMachine::new(
            shared.clone(),
            Arc::new(files),
            self.context.directory.log_store().health(),
            self.context.options.snapshot_bytes,
        );
        Raft::new(
            self.context.node.get(),
            Arc::new(config),
            network,
            self.context.directory.log_store().group(group),
            machine,
        )
        .await
        .map_err(|error| failed(group, "start", error))
    }
}

/// Runs `work` in a task of its own. A cancelled stop would leave an unknown log behind and an
/// openraft core that cannot be awaited again; a cancelled start would leave its tasks running.
async fn run_detached<T: Send + 'static>(
    group: GroupId,
    action: &'static str,
    work: impl Future<Output = Result<T, GroupError>> + Send + 'static,
) -> Result<T, GroupError> {
    tokio::spawn(work).await.unwrap_or_else(|error| Err(failed(group, action, error)))
}

/// Reports a Raft that a storage error has stopped permanently, so that the node exits.
async fn watch_core(
    group: GroupId,
    raft: Raft<GroupStateMachine>,
    shared: Arc<ReplicaState>,
    failed: watch::Sender<Option<String>>,
) {
    // Server metrics end with the core, and report only changes of leaders and members: the full
    // metrics would wake this task several times per entry.
    let mut metrics = raft.server_metrics();
    loop {
        tokio::select! {
            () = shared.stopping.cancelled() => return,
            changed = metrics.changed() => if changed.is_err() { break },
        }
    }
    if shared.stopping.is_cancelled() {
        return;
    }
    let fatal = match &raft.metrics().borrow_watched().running_state {
        Err(fatal) => fatal.to_string(),
        Ok(()) => "it stopped without an error".to_owned(),
    };
    error!(%group, fatal, "replica failed permanently");
    fail(&failed, format!("the replica of group {group} has failed: {fatal}"));
}

/// Records a failure; the first one is kept.
fn fail(failed: &watch::Sender<Option<String>>, reason: String) {
    failed.send_if_modified(|first| {
        let modified = first.is_none();
        first.get_or_insert(reason);
        modified
    });
}

fn failed(group: GroupId, action: &'static str, error: impl std::fmt::Display) -> GroupError {
    GroupError::Failed { group, action, detail: error.to_string() }
}
