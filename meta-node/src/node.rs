//! A meta node: options, start, services, stop.
//!
//! A node *belongs* to a cluster once its directory says so. Before that it only answers
//! `JoinCluster`; everything else is refused. [`Meta::start`] returns before that, because the
//! handshake needs the node's own listener: add the services to a router, serve it, then wait for
//! [`Meta::joined`].
//!
//! # Layout
//!
//! - `options`: what a node is started with, checked; `replica`: its replica of group 0;
//!   `bootstrap`: making a cluster; `monitor`: on what the process must exit.

mod bootstrap;
mod monitor;
mod options;
mod replica;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tidewater_common::clock::Clock;
use tidewater_common::ids::{ClusterId, GroupId, NodeId};
use tidewater_common::refusal::Refusal;
use tidewater_raft_store::{
    DataDirectory, Identity, IdentityError, LogStoreOptions, RaftHost, RaftService, Role,
};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tonic::service::RoutesBuilder;

pub use self::options::{Bootstrap, MetaOptions, OptionsError};
use self::replica::Replica;
use crate::join::{Adoption, Joiner};
use crate::machine::{STATE_FAMILY, StateError};
use crate::services::{AdminService, CursorService, HookService, MetaService, Slot};

/// How long a stopping leader waits for another one.
const HAND_OVER: Duration = Duration::from_secs(2);

/// Why a meta node cannot start, or cannot go on.
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
    /// A cluster is made once.
    #[error(
        "{path} belongs to cluster {cluster_id} already: start without --bootstrap",
        path = path.display()
    )]
    AlreadyBootstrapped {
        /// The data directory.
        path: PathBuf,
        /// The cluster in it.
        cluster_id: ClusterId,
    },
    /// A peer refused to be in a cluster with this node.
    #[error("cannot be in a cluster with meta node {peer} at {address}: {refusal}")]
    PeerRefused {
        /// Which peer.
        peer: NodeId,
        /// Where it is.
        address: String,
        /// Why.
        refusal: Refusal,
    },
    /// Raft stopped for good.
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
    slot: Slot,
    meta: MetaService,
    admin: AdminService,
    hooks: HookService,
    cursors: CursorService,
    failed: watch::Receiver<Option<Arc<MetaError>>>,
    joined: watch::Receiver<Option<Identity>>,
    stop: CancellationToken,
    main: JoinHandle<Option<Replica>>,
}

impl Meta {
    /// Opens the data directory and starts what can be started. Raft calls of other nodes arrive
    /// through `raft_service`, which the process serves.
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
        // What the directory says counts; a crash in the middle of bootstrapping is gone on with.
        let node_id = identity.map_or(options.node_id, |identity| identity.node_id);
        let bootstraps = options.bootstrap != Bootstrap::Never && !has_log;
        let cluster_id = identity.map(|identity| identity.cluster_id);
        let (joiner, adoptions) =
            Joiner::new(node_id, options.peers.clone(), bootstraps, cluster_id);
        let joiner = Arc::new(joiner);
        let slot = Slot::default();
        let meta = MetaService::new(slot.clone(), Arc::clone(&joiner));
        let admin = AdminService::new(slot.clone(), options.failure_timeout, options.retention());
        let hooks = HookService::new(slot.clone(), options.hook_kinds.clone());
        let cursors = CursorService::new(slot.clone());
        let (failed_tx, failed) = watch::channel(None);
        let (joined_tx, joined) = watch::channel(None);
        let stop = CancellationToken::new();
        let life = Life {
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
        let main = tokio::spawn(life.run(adoptions));
        Ok(Self { node_id, slot, meta, admin, hooks, cursors, failed, joined, stop, main })
    }

    /// This node's id.
    pub fn node_id(&self) -> NodeId {
        self.node_id
    }

    /// Adds the services `Meta`, `Admin` and `HookAdmin` to a router.
    pub fn add_services(&self, routes: &mut RoutesBuilder) {
        routes.add_service(self.meta.clone().into_server());
        routes.add_service(self.admin.clone().into_server());
        routes.add_service(self.hooks.clone().into_server());
        routes.add_service(self.cursors.clone().into_server());
    }

    /// Resolves when the node belongs to a cluster and its replica runs; with the error when it
    /// cannot.
    pub async fn joined(&self) -> Result<Identity, Arc<MetaError>> {
        let mut joined = self.joined.clone();
        let joined = async {
            match joined.wait_for(Option::is_some).await.map(|identity| *identity) {
                Ok(Some(identity)) => identity,
                // The main task has ended: the reason is told by `failed`.
                _ => std::future::pending().await,
            }
        };
        tokio::select! {
            identity = joined => Ok(identity),
            error = self.failed() => Err(error),
        }
    }

    /// Resolves with the error on which the process must exit; never otherwise.
    pub async fn failed(&self) -> Arc<MetaError> {
        let mut failed = self.failed.clone();
        match failed.wait_for(Option::is_some).await.map(|error| error.clone()) {
            Ok(Some(error)) => error,
            _ => std::future::pending().await,
        }
    }

    /// The term in which this node leads the meta group, if it does.
    pub fn leading(&self) -> Option<tidewater_common::ids::Term> {
        self.slot.get().ok().and_then(|running| running.group.leading())
    }

    /// Hands leadership over, then stops; what is asked meanwhile is refused.
    pub async fn shutdown(self) {
        self.stop.cancel();
        match self.main.await {
            Ok(Some(replica)) => replica.stop(HAND_OVER).await,
            Ok(None) => {}
            Err(error) => tracing::warn!(%error, "the meta node's main task ended badly"),
        }
        self.slot.empty();
        tracing::info!(node = %self.node_id, "the meta node has stopped");
    }

    #[cfg(test)]
    pub(crate) fn slot(&self) -> &Slot {
        &self.slot
    }
}

async fn open(path: PathBuf) -> Result<DataDirectory, MetaError> {
    let options = LogStoreOptions::default().with_column_family(STATE_FAMILY);
    let opening = move || DataDirectory::open(path, Role::Meta, options);
    let opened = tokio::task::spawn_blocking(opening).await;
    Ok(opened.map_err(|error| MetaError::Task(error.to_string()))??)
}

/// The node's main task: gets an identity, starts the replica, and waits for the end.
struct Life {
    node_id: NodeId,
    options: MetaOptions,
    directory: DataDirectory,
    bootstraps: bool,
    joiner: Arc<Joiner>,
    slot: Slot,
    raft_service: RaftService,
    clock: Arc<dyn Clock>,
    joined: watch::Sender<Option<Identity>>,
    failed: Arc<watch::Sender<Option<Arc<MetaError>>>>,
    stop: CancellationToken,
}

impl Life {
    async fn run(mut self, mut adoptions: mpsc::Receiver<Adoption>) -> Option<Replica> {
        let stop = self.stop.clone();
        let started = tokio::select! {
            () = stop.cancelled() => return None,
            started = self.begin(&mut adoptions) => started,
        };
        let replica = match started {
            Ok(replica) => replica,
            Err(error) => {
                tracing::error!(%error, "the meta node cannot go on");
                self.failed.send_replace(Some(Arc::new(error)));
                stop.cancelled().await;
                return None;
            }
        };
        // Those who ask again are told by the joiner itself.
        drop(adoptions);
        stop.cancelled().await;
        Some(replica)
    }

    /// Until the replica runs.
    async fn begin(
        &mut self,
        adoptions: &mut mpsc::Receiver<Adoption>,
    ) -> Result<Replica, MetaError> {
        match self.directory.identity() {
            Some(identity) if self.bootstraps => {
                bootstrap::let_join(&self.options.peers, &identity).await?;
                let replica = self.start_replica(identity).await?;
                replica.initialize(&self.options.peers).await?;
                Ok(replica)
            }
            Some(identity) => self.start_replica(identity).await,
            None if self.bootstraps => {
                let cluster_id = ClusterId(uuid::Uuid::now_v7());
                bootstrap::check(&self.options.peers, cluster_id, self.node_id).await?;
                let identity = self.adopt(cluster_id).await?;
                tracing::info!(%cluster_id, "bootstrapping a new cluster");
                bootstrap::let_join(&self.options.peers, &identity).await?;
                let replica = self.start_replica(identity).await?;
                replica.initialize(&self.options.peers).await?;
                Ok(replica)
            }
            None => {
                tracing::info!("waiting to be asked into a cluster by the peer that bootstraps it");
                let adoption = tokio::select! {
                    biased;
                    adoption = adoptions.recv() => adoption,
                    never = bootstrap::never_asked(&self.options.peers, self.node_id) => {
                        return Err(never);
                    }
                };
                let Some(adoption) = adoption else {
                    return Err(MetaError::Task("nobody can ask this node to join".to_owned()));
                };
                let identity = self.adopt(adoption.cluster_id).await?;
                let replica = self.start_replica(identity).await?;
                // A caller that is gone asks again.
                let _ = adoption.done.send(Ok(()));
                Ok(replica)
            }
        }
    }

    async fn adopt(&mut self, cluster_id: ClusterId) -> Result<Identity, MetaError> {
        let node_id = self.node_id;
        // A few small synced writes, once in a node's life, before it serves anything.
        let identity = self.directory.adopt(cluster_id, node_id)?;
        Ok(identity)
    }

    async fn start_replica(&self, identity: Identity) -> Result<Replica, MetaError> {
        let snapshots = self.directory.snapshot_dir(GroupId::META)?;
        let store = Arc::clone(self.directory.log_store());
        let host = RaftHost::new(identity.cluster_id, identity.node_id, Arc::clone(&store));
        let replica = Replica::start(
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
        self.joiner.joined(identity.cluster_id);
        self.slot.fill(replica.running());
        self.joined.send_replace(Some(identity));
        Ok(replica)
    }
}

#[cfg(test)]
mod tests;
