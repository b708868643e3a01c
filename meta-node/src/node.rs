//! A meta node: options, start, services, shutdown.
//!
//! A node *belongs* to a cluster when its data directory records the cluster's id. Before that it serves
//! only `JoinCluster` and rejects all other calls. [`Meta::start`] returns before the node belongs to a
//! cluster, because the handshake needs the node's own listener: add the services to a router, serve it,
//! then wait for [`Meta::joined`].
//!
//! # Layout
//!
//! - `options`: validated options of a node; `replica`: its replica of group 0; `bootstrap`: creation
//!   of a cluster; `monitor`: detection of errors on which the process must exit.

mod bootstrap;
mod monitor;
mod options;
mod replica;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tidewater_cluster_events::RecordedCalls;
use tidewater_common::clock::{Clock, SystemClock};
use tidewater_common::ids::{ClusterId, GroupId, NodeId, Term};
use tidewater_common::refusal::Refusal;
use tidewater_raft_store::{
    DataDirectory, Identity, IdentityError, LogStoreOptions, RaftHost, RaftService, Role,
};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tonic::service::RoutesBuilder;

pub use self::options::{Bootstrap, MetaOptions, OptionsError};
use self::replica::MetaReplica;
use crate::join::{JoinRequest, Joiner};
use crate::machine::{STATE_FAMILY, StateError};
use crate::services::{
    AdminService, CursorService, HookService, MemberService, MetaService, ProcedureService,
    RefreshService, ReplicaSlot, StorageService,
};

/// Maximum time that a stopping leader waits for its successor.
const TRANSFER_TIMEOUT: Duration = Duration::from_secs(2);

/// Error on which a meta node cannot start or continue.
#[derive(Debug, thiserror::Error)]
pub enum MetaError {
    /// The options contradict each other.
    #[error(transparent)]
    Options(#[from] OptionsError),
    /// The data directory cannot be used.
    #[error(transparent)]
    Directory(#[from] IdentityError),
    /// The stored state cannot be used.
    #[error(transparent)]
    State(#[from] StateError),
    /// The node was started with `--bootstrap`, but already belongs to a cluster.
    #[error(
        "{path} already belongs to cluster {cluster_id}: start without --bootstrap",
        path = path.display()
    )]
    AlreadyBootstrapped {
        /// Path of the data directory.
        path: PathBuf,
        /// Cluster in the data directory.
        cluster_id: ClusterId,
    },
    /// A peer rejects a cluster with this node.
    #[error("cannot form a cluster with meta node {peer} at {address}: {refusal}")]
    PeerRefused {
        /// Id of the peer.
        peer: NodeId,
        /// Address of the peer.
        address: String,
        /// RPC error of the peer.
        refusal: Refusal,
    },
    /// Raft has stopped permanently.
    #[error("the meta group has stopped on this node: {0}")]
    Raft(String),
    /// The disk failed.
    #[error("the log store of the meta node has failed: {0}")]
    Disk(String),
    /// A background task ended.
    #[error("a task of the meta node has ended: {0}")]
    Task(String),
}

/// A running meta node.
#[derive(Debug)]
pub struct Meta {
    node_id: NodeId,
    slot: ReplicaSlot,
    meta: MetaService,
    admin: AdminService,
    hooks: HookService,
    cursors: CursorService,
    procedures: ProcedureService,
    refreshes: RefreshService,
    storage: StorageService,
    members: MemberService,
    failed: watch::Receiver<Option<Arc<MetaError>>>,
    joined: watch::Receiver<Option<Identity>>,
    stop: CancellationToken,
    main: JoinHandle<Option<MetaReplica>>,
}

/// Handle to the leadership of the meta group, as a node knows it.
#[derive(Debug, Clone)]
pub struct MetaLeadership {
    slot: ReplicaSlot,
}

impl MetaLeadership {
    /// The term in which the node leads, if it does.
    pub fn leading(&self) -> Option<Term> {
        self.slot.get().ok().and_then(|running| running.group.leading())
    }
}

impl Meta {
    /// Opens the data directory and starts the node. `raft_service`, which the process serves, receives
    /// the Raft calls of other nodes.
    pub async fn start(
        options: MetaOptions,
        raft_service: RaftService,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, MetaError> {
        options.validate()?;
        let directory = open(options.data_dir.clone()).await?;
        let identity = directory.identity();
        let has_log = !directory.log_store().is_empty();
        if let (Some(identity), true, Bootstrap::Once) = (identity, has_log, options.bootstrap) {
            return Err(MetaError::AlreadyBootstrapped {
                path: options.data_dir,
                cluster_id: identity.cluster_id,
            });
        }
        // The directory's identity overrides the options. A bootstrap interrupted by a crash continues.
        let node_id = identity.map_or(options.node_id, |identity| identity.node_id);
        let bootstraps = options.bootstrap != Bootstrap::Never && !has_log;
        let cluster_id = identity.map(|identity| identity.cluster_id);
        let (joiner, join_requests) =
            Joiner::new(node_id, options.peers.clone(), bootstraps, cluster_id);
        let joiner = Arc::new(joiner);
        let slot = ReplicaSlot::default();
        let meta = MetaService::new(slot.clone(), Arc::clone(&joiner), options.max_data_nodes);
        let calls = RecordedCalls::new(Arc::clone(&options.events), Arc::new(SystemClock));
        let admin = AdminService::new(slot.clone(), options.retention(), calls.clone());
        let kinds = options.hook_kinds.clone();
        let hooks = HookService::new(slot.clone(), kinds, calls.clone());
        let cursors = CursorService::new(slot.clone());
        let procedures = ProcedureService::new(slot.clone(), calls.clone());
        let refreshes = RefreshService::new(slot.clone(), calls.clone());
        let storage = StorageService::new(slot.clone(), admin.clone(), options.barriers, calls);
        let members = MemberService { node_id, max_level: options.max_level };
        let (failed_tx, failed) = watch::channel(None);
        let (joined_tx, joined) = watch::channel(None);
        let stop = CancellationToken::new();
        let main_task = MainTask {
            node_id,
            options,
            directory,
            bootstraps,
            joiner,
            slot: slot.clone(),
            raft_service,
            clock,
            joined: joined_tx,
            failed: Arc::new(failed_tx),
            stop: stop.clone(),
        };
        let main = tokio::spawn(main_task.run(join_requests));
        Ok(Self {
            node_id,
            slot,
            meta,
            admin,
            hooks,
            cursors,
            procedures,
            refreshes,
            storage,
            members,
            failed,
            joined,
            stop,
            main,
        })
    }

    /// Id of this node.
    pub fn node_id(&self) -> NodeId {
        self.node_id
    }

    /// Adds the services `Meta`, `Admin`, `HookAdmin`, `HookCursors`, `Procedures`, `RefreshAdmin` and
    /// `MetaMembers` to a router.
    pub fn add_services(&self, routes: &mut RoutesBuilder) {
        routes.add_service(self.meta.clone().into_server());
        routes.add_service(self.admin.clone().into_server());
        routes.add_service(self.hooks.clone().into_server());
        routes.add_service(self.cursors.clone().into_server());
        routes.add_service(self.procedures.clone().into_server());
        routes.add_service(self.refreshes.clone().into_server());
        routes.add_service(self.storage.clone().into_server());
        routes.add_service(self.members.into_server());
    }

    /// Waits until the node belongs to a cluster and its replica runs; returns the error on which it
    /// cannot.
    pub async fn joined(&self) -> Result<Identity, Arc<MetaError>> {
        let mut joined = self.joined.clone();
        let joined = async {
            match joined.wait_for(Option::is_some).await.map(|identity| *identity) {
                Ok(Some(identity)) => identity,
                // The main task has ended: `failed` returns the error.
                _ => std::future::pending().await,
            }
        };
        tokio::select! {
            identity = joined => Ok(identity),
            error = self.failed() => Err(error),
        }
    }

    /// Waits for the error on which the process must exit; pending while there is none.
    pub async fn failed(&self) -> Arc<MetaError> {
        let mut failed = self.failed.clone();
        match failed.wait_for(Option::is_some).await.map(|error| error.clone()) {
            Ok(Some(error)) => error,
            _ => std::future::pending().await,
        }
    }

    /// The term in which this node leads the meta group, if it does.
    pub fn leading(&self) -> Option<Term> {
        self.leadership().leading()
    }

    /// Returns a handle to the leadership of this node, for tasks of its process.
    pub fn leadership(&self) -> MetaLeadership {
        MetaLeadership { slot: self.slot.clone() }
    }

    /// Transfers leadership, then stops the node. The node rejects further calls.
    pub async fn shutdown(self) {
        self.stop.cancel();
        match self.main.await {
            Ok(Some(replica)) => replica.stop(TRANSFER_TIMEOUT).await,
            Ok(None) => {}
            Err(error) => tracing::warn!(%error, "main task of the meta node failed"),
        }
        self.slot.clear();
        tracing::info!(node = %self.node_id, "meta node stopped");
    }

    #[cfg(test)]
    pub(crate) fn slot(&self) -> &ReplicaSlot {
        &self.slot
    }
}

async fn open(path: PathBuf) -> Result<DataDirectory, MetaError> {
    let options = LogStoreOptions::default().with_column_family(STATE_FAMILY);
    let opening = move || DataDirectory::open(path, Role::Meta, options);
    let opened = tokio::task::spawn_blocking(opening).await;
    Ok(opened.map_err(|error| MetaError::Task(error.to_string()))??)
}

/// Main task of the node: obtains an identity, starts the replica, and waits for the shutdown.
struct MainTask {
    node_id: NodeId,
    options: MetaOptions,
    directory: DataDirectory,
    bootstraps: bool,
    joiner: Arc<Joiner>,
    slot: ReplicaSlot,
    raft_service: RaftService,
    clock: Arc<dyn Clock>,
    joined: watch::Sender<Option<Identity>>,
    failed: Arc<watch::Sender<Option<Arc<MetaError>>>>,
    stop: CancellationToken,
}

impl MainTask {
    async fn run(mut self, mut join_requests: mpsc::Receiver<JoinRequest>) -> Option<MetaReplica> {
        let stop = self.stop.clone();
        let started = tokio::select! {
            () = stop.cancelled() => return None,
            started = self.begin(&mut join_requests) => started,
        };
        let replica = match started {
            Ok(replica) => replica,
            Err(error) => {
                tracing::error!(%error, "meta node failed to start");
                self.failed.send_replace(Some(Arc::new(error)));
                stop.cancelled().await;
                return None;
            }
        };
        // The joiner answers repeated requests without the main task.
        drop(join_requests);
        stop.cancelled().await;
        Some(replica)
    }

    /// Obtains an identity, by bootstrap or by joining a cluster, and starts the replica.
    async fn begin(
        &mut self,
        join_requests: &mut mpsc::Receiver<JoinRequest>,
    ) -> Result<MetaReplica, MetaError> {
        match self.directory.identity() {
            Some(identity) if self.bootstraps => {
                bootstrap::join_peers(&self.options.peers, &identity).await?;
                let replica = self.start_replica(identity).await?;
                replica.initialize(&self.options.peers).await?;
                Ok(replica)
            }
            Some(identity) => self.start_replica(identity).await,
            None if self.bootstraps => {
                let cluster_id = ClusterId(uuid::Uuid::now_v7());
                bootstrap::check_peers(&self.options.peers, cluster_id, self.node_id).await?;
                let identity = self.adopt(cluster_id).await?;
                tracing::info!(%cluster_id, "bootstrapping a new cluster");
                bootstrap::join_peers(&self.options.peers, &identity).await?;
                let replica = self.start_replica(identity).await?;
                replica.initialize(&self.options.peers).await?;
                Ok(replica)
            }
            None => {
                tracing::info!("waiting for the bootstrapping peer to add this node to a cluster");
                let request = tokio::select! {
                    biased;
                    request = join_requests.recv() => request,
                    error = bootstrap::wait_until_ineligible(&self.options.peers, self.node_id) => {
                        return Err(error);
                    }
                };
                let Some(request) = request else {
                    let text = "the handler of join requests has stopped";
                    return Err(MetaError::Task(text.to_owned()));
                };
                let identity = self.adopt(request.cluster_id).await?;
                let replica = self.start_replica(identity).await?;
                // A caller that has disconnected retries.
                let _ = request.done.send(Ok(()));
                Ok(replica)
            }
        }
    }

    async fn adopt(&mut self, cluster_id: ClusterId) -> Result<Identity, MetaError> {
        let node_id = self.node_id;
        // Blocking, but only a few small synced writes, once in a node's lifetime, before it serves calls.
        let identity = self.directory.adopt(cluster_id, node_id)?;
        Ok(identity)
    }

    async fn start_replica(&self, identity: Identity) -> Result<MetaReplica, MetaError> {
        let snapshots = self.directory.snapshot_dir(GroupId::META)?;
        let store = Arc::clone(self.directory.log_store());
        let host = RaftHost::new(identity.cluster_id, identity.node_id, Arc::clone(&store));
        let replica = MetaReplica::start(
            identity,
            &self.options,
            store,
            snapshots,
            host,
            &self.raft_service,
            Arc::clone(&self.clock),
        )
        .await?;
        monitor::watch(&replica, Arc::clone(&self.failed), self.stop.child_token());
        self.joiner.set_joined(identity.cluster_id);
        self.slot.set(replica.running());
        self.joined.send_replace(Some(identity));
        Ok(replica)
    }
}

#[cfg(test)]
mod tests;
