//! A compactor node as a process sees it: started, asked for its services, drained.
//!
//! Starting: the object store is probed, the node registered (asking until a meta node answers and
//! a data node has said which store is the cluster's). Draining: nothing new is taken, jobs get a
//! while to end, those that have not are handed back to their owners. The meta service hears of the
//! node until its last job has ended.

mod heartbeat;
mod hooks;

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tidewater_common::clock::SystemClock;
use tidewater_common::ids::{ClusterId, NodeId};
use tidewater_proto::v1::{NodeRole, RegisterRequest, RegisterResponse};
use tidewater_raft_store::{MetaLink, RegisterError};
use tidewater_region_engine::MemoryBudget;
use tidewater_region_engine::env::{RegionEnv, SystemIds};
use tidewater_region_engine::hooks::{HookHome, HookSets};
use tidewater_region_engine::storage::{Storage, StoreError};
use tokio::net::TcpListener;
use tokio::sync::{Notify, Semaphore, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::service::{Routes, RoutesBuilder};
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tracing::{info, warn};
use uuid::Uuid;

use crate::disk::Disk;
use crate::handles::Handles;
use crate::jobs::Jobs;
use crate::options::CompactorOptions;
use crate::parts::{NodeParts, READING};
use crate::service::CompactionService;

#[cfg(test)]
mod tests;

/// How long jobs may take to end that were handed back: one that is committing goes on.
const HAND_BACK: Duration = Duration::from_secs(10);
/// How long what tells callers of the end may take after the last job.
const CLOSE: Duration = Duration::from_secs(2);
/// How long hooks may take to deliver what they have queued.
const DELIVER: Duration = Duration::from_secs(5);
/// How often what they have queued is looked at.
const LOOK: Duration = Duration::from_millis(50);

/// Why a compactor node did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The object store cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The meta service does not take this node.
    #[error(transparent)]
    Register(#[from] RegisterError),
    /// The meta service gave an answer that makes no sense.
    #[error("the meta service answered a registration with {0}")]
    Answer(String),
}

/// Why a compactor node does not serve any more.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The port cannot be served.
    #[error("the listener failed: {0}")]
    Listener(#[from] tonic::transport::Error),
    /// See [`CompactorNode::failed`].
    #[error("the node cannot go on: {0}")]
    Node(String),
}

/// A running compactor node.
#[derive(Debug)]
pub struct CompactorNode {
    pub(crate) parts: Arc<NodeParts>,
    drain: Duration,
    /// Has a heartbeat sent at once.
    news: Arc<Notify>,
    closing: CancellationToken,
    failed: watch::Receiver<Option<String>>,
    beats: TaskTracker,
}

impl CompactorNode {
    /// Opens the object store, registers, asking until a meta node answers, and begins to send
    /// heartbeats. The process is the identity: a restarted compactor is a new node.
    ///
    /// # Errors
    /// [`StartError`].
    pub async fn start(options: CompactorOptions) -> Result<Self, StartError> {
        let storage = Storage::start(&options.object_store).await?;
        let object_store_id = storage.id().await?;
        let link = MetaLink::new(options.meta.clone());
        let registration = RegisterRequest {
            directory_id: Uuid::new_v4().to_string(),
            role: NodeRole::Compactor.into(),
            address: options.advertise.clone(),
            object_store_id: object_store_id.to_string(),
            ..Default::default()
        };
        let (cluster, node) = identity(&link.register(registration).await?)?;
        info!(%cluster, %node, slots = options.capacity().slots, "registered");
        let parts = Arc::new(parts(&options, cluster, node, storage, object_store_id));
        parts.observe();
        let (closing, news, beats) = Default::default();
        let (fail, failed) = watch::channel(None);
        let this = Self { parts, drain: options.drain, news, closing, failed, beats };
        let beat = heartbeat::Beat {
            parts: this.parts.clone(),
            link,
            address: options.advertise,
            every: options.heartbeat,
            news: this.news.clone(),
        };
        this.beats.spawn(beat.run(this.closing.clone(), fail));
        Ok(this)
    }

    /// The cluster.
    pub fn cluster_id(&self) -> ClusterId {
        self.parts.cluster
    }

    /// The node's id, given by the meta service.
    pub fn node_id(&self) -> NodeId {
        self.parts.node
    }

    /// Adds the service `Compaction`.
    pub fn add_services(&self, routes: &mut RoutesBuilder) {
        routes.add_service(CompactionService::new(self.parts.clone()).into_server());
    }

    /// Serves a port, for a program that has no server of its own, until `stop` resolves; then
    /// drains and stops.
    ///
    /// # Errors
    /// [`ServeError`]. The node has stopped then, too.
    pub async fn serve(
        &self,
        listener: TcpListener,
        stop: impl Future<Output = ()>,
    ) -> Result<(), ServeError> {
        let mut routes = Routes::builder();
        self.add_services(&mut routes);
        let closed = CancellationToken::new();
        let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
        let server = Server::builder()
            .add_routes(routes.routes())
            .serve_with_incoming_shutdown(incoming, closed.clone().cancelled_owned());
        tokio::pin!(server);
        let ended = tokio::select! {
            () = stop => Ok(()),
            failed = self.failed() => Err(ServeError::Node(failed)),
            served = &mut server => return self.stopped(served).await,
        };
        // Whoever asks while it drains is told so, and running jobs have their say.
        tokio::select! {
            () = self.shutdown() => {}
            served = &mut server => return self.stopped(served).await,
        }
        closed.cancel();
        let _ = tokio::time::timeout(CLOSE, server).await;
        ended
    }

    async fn stopped(&self, served: Result<(), tonic::transport::Error>) -> Result<(), ServeError> {
        self.shutdown().await;
        Ok(served?)
    }

    /// Resolves, in words, when the process must exit: the cluster has removed this node.
    pub async fn failed(&self) -> String {
        let mut failed = self.failed.clone();
        let reason = failed.wait_for(Option::is_some).await.ok().map(|reason| reason.clone());
        match reason {
            Some(reason) => reason.unwrap_or_default(),
            None => std::future::pending().await,
        }
    }

    /// Longest time that [`shutdown`](Self::shutdown) takes.
    pub fn longest_shutdown(&self) -> Duration {
        self.drain.saturating_add(HAND_BACK).saturating_add(CLOSE).saturating_add(DELIVER)
    }

    /// Drains: takes no job any more, waits for those that run, hands back those that take too long,
    /// stops.
    pub async fn shutdown(&self) {
        let jobs = &self.parts.jobs;
        jobs.drain();
        let running = jobs.in_use().jobs;
        info!(node = %self.parts.node, running, "the compactor takes no more jobs");
        self.news.notify_one();
        if tokio::time::timeout(self.drain, jobs.idle()).await.is_err() {
            let jobs_left = jobs.hand_back();
            warn!(jobs = jobs_left, "jobs did not end in time: they are handed back");
            if tokio::time::timeout(HAND_BACK, jobs.idle()).await.is_err() {
                warn!("some jobs go down with this process: their manifests say what they did");
            }
        }
        // Their callers hear of their end.
        self.parts.tasks.close();
        let _ = tokio::time::timeout(CLOSE, self.parts.tasks.wait()).await;
        let _ = tokio::time::timeout(DELIVER, self.delivered()).await;
        self.closing.cancel();
        self.beats.close();
        self.beats.wait().await;
        self.parts.observe();
        info!(node = %self.parts.node, "compactor node stopped");
    }

    /// Resolves when no hook has anything queued. What is left when the process ends is lost.
    async fn delivered(&self) {
        while self.parts.sets.status().iter().any(|(_, hook)| hook.backlog > 0) {
            tokio::time::sleep(LOOK).await;
        }
    }
}

fn parts(
    options: &CompactorOptions,
    cluster: ClusterId,
    node: NodeId,
    storage: Storage,
    object_store_id: Uuid,
) -> NodeParts {
    let home = HookHome { role: "compactor", node_id: node };
    let (clock, ids) = (Arc::new(SystemClock), Arc::new(SystemIds));
    // No rows are kept in memory that have yet to be flushed.
    let memory = MemoryBudget::new(0);
    NodeParts {
        cluster,
        node,
        object_store_id,
        env: RegionEnv::new(storage, clock, ids, memory, options.engine()),
        sets: HookSets::new(options.hook_kinds.clone(), home, options.hook_limits),
        disk: Disk::of(&options.object_store, options.disk_reserve),
        jobs: Jobs::new(options.capacity()),
        handles: Mutex::new(Handles::new(options.handle_life)),
        reading: Semaphore::new(READING),
        tasks: TaskTracker::new(),
    }
}

fn identity(answer: &RegisterResponse) -> Result<(ClusterId, NodeId), StartError> {
    let cluster = answer
        .cluster_id
        .parse()
        .map_err(|_| StartError::Answer(format!("cluster id {:?}", answer.cluster_id)))?;
    if answer.node_id == 0 {
        return Err(StartError::Answer("node id 0".to_owned()));
    }
    Ok((cluster, NodeId(answer.node_id)))
}
