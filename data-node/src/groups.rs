//! The data groups of this node: started and stopped at runtime, found again after a restart.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use openraft::async_runtime::WatchReceiver;
use openraft::errors::{InitializeError, RaftError};
use parking_lot::RwLock;
use tidewater_common::ids::{ClusterId, GroupId, NodeId};
use tidewater_common::refusal::Refusal;
use tidewater_proto::v1::Reason;
use tidewater_raft_store::{
    DataDirectory, DiskHealth, GroupKind, GroupNetworkFactory, Member, NetworkFactory, Raft,
    RaftHost, raft_config,
};
use tidewater_region_engine::env::RegionEnv;
use tokio::sync::{mpsc, watch};
use tokio_util::task::TaskTracker;
use tracing::{error, info};

use crate::compactors::Compactors;
use crate::group::batcher;
use crate::group::replica::GroupReplica;
use crate::group::shared::Shared;
use crate::group::state_machine::{GroupStateMachine, SnapshotFiles};
use crate::group::{loader, merger};
use crate::leadership::{self, Context, REQUESTS, housekeeping};
use crate::options::GroupOptions;
use crate::peers::Peers;

#[cfg(test)]
pub(crate) mod tests;

/// Why a replica could not be started or stopped.
#[derive(Debug, thiserror::Error)]
pub enum GroupError {
    /// Its snapshots or its log cannot be used.
    #[error("the replica of group {group} cannot {action}: {detail}")]
    Failed {
        /// Which group.
        group: GroupId,
        /// What was attempted.
        action: &'static str,
        /// What is wrong.
        detail: String,
    },
}

impl From<GroupError> for Refusal {
    fn from(error: GroupError) -> Self {
        Self::new(Reason::Internal, error.to_string())
    }
}

/// What groups are given by their node.
#[derive(Debug, Clone)]
pub struct NodeParts {
    /// The cluster.
    pub cluster: ClusterId,
    /// This node.
    pub node: NodeId,
    /// Log store and snapshot folders.
    pub directory: Arc<DataDirectory>,
    /// Answers other replicas.
    pub host: Arc<RaftHost>,
    /// Calls other replicas.
    pub network: NetworkFactory,
    /// What regions are given.
    pub env: RegionEnv,
    /// Compactor nodes.
    pub compactors: Arc<Compactors>,
    /// Limits and intervals.
    pub options: GroupOptions,
}

/// See the module's head.
#[derive(Debug)]
pub struct Groups {
    parts: NodeParts,
    peers: Peers,
    replicas: RwLock<BTreeMap<GroupId, Arc<GroupReplica>>>,
    // One start or stop at a time.
    changing: tokio::sync::Mutex<()>,
    failed: watch::Sender<Option<String>>,
}

impl Groups {
    /// No group yet.
    pub fn new(parts: NodeParts) -> Arc<Self> {
        let peers = Peers::new(parts.cluster, parts.node, parts.network.addresses().clone());
        Arc::new(Self {
            parts,
            peers,
            replicas: RwLock::default(),
            changing: tokio::sync::Mutex::new(()),
            failed: watch::Sender::new(None),
        })
    }

    /// This node.
    pub fn node(&self) -> NodeId {
        self.parts.node
    }

    /// What the groups were given.
    pub fn parts(&self) -> &NodeParts {
        &self.parts
    }

    /// The first replica that failed for good, in words: the node must exit.
    pub fn failed(&self) -> watch::Receiver<Option<String>> {
        self.failed.subscribe()
    }

    /// Makes [`failed`](Self::failed) resolve, unless something failed before.
    pub fn fail(&self, reason: String) {
        fail(&self.failed, reason);
    }

    /// Whether the disk takes writes.
    pub fn disk(&self) -> DiskHealth {
        self.parts.directory.log_store().health().borrow().clone()
    }

    /// The replica of a group.
    pub fn get(&self, group: GroupId) -> Result<Arc<GroupReplica>, Refusal> {
        self.replicas.read().get(&group).cloned().ok_or_else(|| {
            Refusal::new(
                Reason::GroupNotHosted,
                format!("node {} holds no replica of group {group}", self.parts.node),
            )
        })
    }

    /// All replicas, by group.
    pub fn all(&self) -> Vec<Arc<GroupReplica>> {
        self.replicas.read().values().cloned().collect()
    }

    /// Starts the replicas whose logs are on this node.
    pub async fn start_local(self: &Arc<Self>) -> Result<(), GroupError> {
        for group in self.parts.directory.log_store().groups() {
            if group != GroupId::META {
                self.start(group).await?;
            }
        }
        Ok(())
    }

    /// Starts a replica; one that runs is returned as it is. Goes on when the caller goes away.
    pub async fn start(self: &Arc<Self>, group: GroupId) -> Result<Arc<GroupReplica>, GroupError> {
        let this = Arc::clone(self);
        to_the_end(group, "start", async move { this.start_now(group).await }).await
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
        let replica = Arc::new(self.launch(group, files).await?);
        self.parts.host.add(group, Arc::new(replica.raft.clone()), &folder);
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

    /// Stops a replica and forgets its log. Goes on when the caller goes away.
    pub async fn remove(self: &Arc<Self>, group: GroupId) -> Result<(), GroupError> {
        let this = Arc::clone(self);
        to_the_end(group, "be forgotten", async move { this.remove_now(group).await }).await
    }

    async fn remove_now(&self, group: GroupId) -> Result<(), GroupError> {
        let _changing = self.changing.lock().await;
        let replica = self.replicas.write().remove(&group);
        self.parts.host.remove(group);
        if let Some(replica) = replica {
            replica.stop().await;
        }
        // The log first: a log without the snapshot that it continues must never be found, while a
        // snapshot without a log is cleared when the group is started again.
        self.parts
            .directory
            .log_store()
            .remove_group(group)
            .await
            .map_err(|error| failed(group, "be forgotten", error))?;
        self.clear_snapshots(group).await?;
        info!(%group, "replica stopped and forgotten");
        Ok(())
    }

    /// Stops all replicas.
    pub async fn stop_all(&self) {
        let _changing = self.changing.lock().await;
        let replicas = std::mem::take(&mut *self.replicas.write());
        for group in replicas.keys() {
            self.parts.host.remove(*group);
        }
        futures::future::join_all(replicas.values().map(|replica| replica.stop())).await;
    }

    /// The folder of a group's snapshots, without those of an earlier life of the replica.
    async fn snapshot_folder(&self, group: GroupId) -> Result<PathBuf, GroupError> {
        if !self.parts.directory.log_store().groups().contains(&group) {
            self.clear_snapshots(group).await?;
        }
        let directory = self.parts.directory.clone();
        tokio::task::spawn_blocking(move || directory.snapshot_dir(group))
            .await
            .map_err(|error| failed(group, "start", error))?
            .map_err(|error| failed(group, "make its snapshot folder", error))
    }

    async fn clear_snapshots(&self, group: GroupId) -> Result<(), GroupError> {
        let directory = self.parts.directory.clone();
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
        let options = &self.parts.options;
        let shared =
            Shared::new(group, self.parts.node, self.parts.env.clone(), options.log_tail_bytes);
        let tasks = TaskTracker::new();
        // Before the log is replayed: flushed rows are dropped as their manifests are read.
        tasks.spawn(loader::run(shared.clone()));
        tasks.spawn(merger::run(shared.clone()));
        let network = self.parts.network.group(group);
        let confirmations = network.confirmations().clone();
        let raft = match self.launch_raft(&shared, network, files).await {
            Ok(raft) => raft,
            Err(error) => {
                shared.stopping.cancel();
                return Err(error);
            }
        };
        shared.set_replayed();
        let (batcher, batching) =
            batcher::start(group, raft.clone(), options.batch, shared.stopping.clone());
        let (flush_requests, requests) = mpsc::channel(REQUESTS);
        let (compact_requests, compact) = mpsc::channel(REQUESTS);
        let context = Context {
            shared: shared.clone(),
            raft: raft.clone(),
            policy: options.flush,
            compactions: options.compactions,
            compactors: self.parts.compactors.clone(),
            tasks: tasks.clone(),
        };
        tasks.spawn(batching);
        tasks.spawn(leadership::run(context.clone(), requests, compact));
        tasks.spawn(housekeeping::run(
            context,
            options.snapshot_bytes,
            self.peers.clone(),
            flush_requests.clone(),
        ));
        tasks.spawn(watch_core(group, raft.clone(), shared.clone(), self.failed.clone()));
        Ok(GroupReplica {
            shared,
            raft,
            confirmations,
            batcher,
            flush_requests,
            compact_requests,
            tasks,
        })
    }

    async fn launch_raft(
        &self,
        shared: &Arc<Shared>,
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
            self.parts.directory.log_store().health(),
            self.parts.options.snapshot_bytes,
        );
        Raft::new(
            self.parts.node.get(),
            Arc::new(config),
            network,
            self.parts.directory.log_store().group(group),
            machine,
        )
        .await
        .map_err(|error| failed(group, "start", error))
    }
}

/// Detached: cut off half-way, a stop would leave a log behind that nobody knows of, and openraft
/// with a core that it can wait for no more; a start would leave its tasks running.
async fn to_the_end<T: Send + 'static>(
    group: GroupId,
    action: &'static str,
    work: impl Future<Output = Result<T, GroupError>> + Send + 'static,
) -> Result<T, GroupError> {
    tokio::spawn(work).await.unwrap_or_else(|error| Err(failed(group, action, error)))
}

/// A storage error stops a group's Raft for good: the node says so and exits.
async fn watch_core(
    group: GroupId,
    raft: Raft<GroupStateMachine>,
    shared: Arc<Shared>,
    failed: watch::Sender<Option<String>>,
) {
    // These end with the core, and until then tell of leaders and members only: the whole metrics
    // would wake this task several times for each entry.
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
        Ok(()) => "it ended without a reason".to_owned(),
    };
    error!(%group, fatal, "the group's replica has failed for good");
    fail(&failed, format!("the replica of group {group} has failed: {fatal}"));
}

/// The first reason stays.
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
