//! A compactor node as a component of a process: start, services, draining.
//!
//! Start: the node probes the object store and registers, retrying until a meta node replies and a
//! data node has registered the cluster's store. Draining: the node accepts no new jobs and waits a
//! while for running ones, then aborts the rest, which their owners retry. The node sends
//! heartbeats until its last job has ended.

mod heartbeat;
mod hooks;

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tidewater_common::backoff::Jitter;
use tidewater_common::clock::{ClusterClock, SystemClock};
use tidewater_common::feature_level::Release;
use tidewater_common::ids::{ClusterId, NodeId};
use tidewater_proto::v1::{NodeRole, RegisterRequest, RegisterResponse};
use tidewater_region_engine::MemoryBudget;
use tidewater_region_engine::env::{RegionEnv, SystemIds};
use tidewater_region_engine::hooks::{HookHome, HookSets};
use tidewater_region_engine::storage::{Storage, StoreDisk, StoreError};
use tidewater_rpc::{MetaLink, RegisterError};
use tokio::net::TcpListener;
use tokio::sync::{Notify, Semaphore, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::service::{Routes, RoutesBuilder};
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tracing::{info, warn};
use uuid::Uuid;

use crate::context::{CONCURRENT_READS, CompactorContext};
use crate::events::CompactorEvents;
use crate::handles::HandleTable;
use crate::jobs::JobTable;
use crate::options::CompactorOptions;
use crate::service::CompactionService;

#[cfg(test)]
mod tests;

/// Time limit for aborted jobs to end: a committing job completes.
const ABORT_LIMIT: Duration = Duration::from_secs(10);
/// Time limit for the last events to reach the callers after the last job.
const CLOSE_LIMIT: Duration = Duration::from_secs(2);
/// Time limit for hooks to deliver their queues.
const DELIVERY_LIMIT: Duration = Duration::from_secs(5);
/// Interval of checks of the hooks' queues.
const DELIVERY_POLL: Duration = Duration::from_millis(50);

/// Error of starting a compactor node.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The object store cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The meta service refuses this node.
    #[error(transparent)]
    Register(#[from] RegisterError),
    /// The meta service's reply is invalid.
    #[error("the meta service replied to the registration with an invalid {0}")]
    InvalidReply(String),
}

/// Error of serving a compactor node.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The port cannot be served.
    #[error("the listener failed: {0}")]
    Listener(#[from] tonic::transport::Error),
    /// The node failed permanently; see [`CompactorNode::failed`].
    #[error("the node failed: {0}")]
    Node(String),
}

/// A running compactor node.
#[derive(Debug)]
pub struct CompactorNode {
    pub(crate) context: Arc<CompactorContext>,
    drain: Duration,
    /// Notified to send a heartbeat immediately.
    beat_now: Arc<Notify>,
    closing: CancellationToken,
    failed: watch::Receiver<Option<String>>,
    beats: TaskTracker,
}

impl CompactorNode {
    /// Opens the object store, registers (retrying until a meta node replies), and starts to send
    /// heartbeats. The process is the identity: a restarted compactor is a new node.
    ///
    /// # Errors
    /// [`StartError`].
    pub async fn start(options: CompactorOptions) -> Result<Self, StartError> {
        let storage = Storage::start(&options.object_store).await?;
        let object_store_id = storage.id().await?;
        let link = MetaLink::new(options.meta.clone(), Jitter::system());
        let registration = RegisterRequest {
            directory_id: Uuid::new_v4().to_string(),
            role: NodeRole::Compactor.into(),
            address: options.advertise.clone(),
            object_store_id: object_store_id.to_string(),
            release: Some((&Release::own()).into()),
            ..Default::default()
        };
        let reply = link.register(registration).await?;
        let (cluster, node) = identity(&reply)?;
        info!(%cluster, %node, slots = options.capacity().slots, "registered");
        let context = Arc::new(node_context(&options, cluster, node, storage, object_store_id));
        context.clock.record(reply.replicated_ms, reply.clocks_ms);
        context.observe();
        let closing = CancellationToken::new();
        let beat_now = Arc::new(Notify::new());
        let beats = TaskTracker::new();
        let (fail, failed) = watch::channel(None);
        let this = Self { context, drain: options.drain, beat_now, closing, failed, beats };
        let heartbeats = heartbeat::HeartbeatLoop {
            context: this.context.clone(),
            link,
            address: options.advertise,
            problems: options.problems,
            history: Mutex::default(),
            interval: options.heartbeat,
            beat_now: this.beat_now.clone(),
        };
        this.beats.spawn(heartbeats.run(this.closing.clone(), fail));
        Ok(this)
    }

    /// Id of the cluster.
    pub fn cluster_id(&self) -> ClusterId {
        self.context.cluster
    }

    /// Id of the node, assigned by the meta service.
    pub fn node_id(&self) -> NodeId {
        self.context.node
    }

    /// Adds the service `Compaction`.
    pub fn add_services(&self, routes: &mut RoutesBuilder) {
        routes.add_service(CompactionService::new(self.context.clone()).into_server());
    }

    /// Serves a port until `stop` resolves, for a program without a server of its own; then drains
    /// and stops.
    ///
    /// # Errors
    /// [`ServeError`]. The node has stopped in that case too.
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
            served = &mut server => return self.shutdown_after(served).await,
        };
        // Serves while draining: callers receive refusals, and running jobs send their last events.
        tokio::select! {
            () = self.shutdown() => {}
            served = &mut server => return self.shutdown_after(served).await,
        }
        closed.cancel();
        let _ = tokio::time::timeout(CLOSE_LIMIT, server).await;
        ended
    }

    async fn shutdown_after(
        &self,
        served: Result<(), tonic::transport::Error>,
    ) -> Result<(), ServeError> {
        self.shutdown().await;
        Ok(served?)
    }

    /// Resolves with the reason when the process must exit: the cluster has removed this node.
    pub async fn failed(&self) -> String {
        let mut failed = self.failed.clone();
        let reason = failed.wait_for(Option::is_some).await.ok().map(|reason| reason.clone());
        match reason {
            Some(reason) => reason.unwrap_or_default(),
            None => std::future::pending().await,
        }
    }

    /// Maximum duration of [`shutdown`](Self::shutdown).
    pub fn longest_shutdown(&self) -> Duration {
        self.drain
            .saturating_add(ABORT_LIMIT)
            .saturating_add(CLOSE_LIMIT)
            .saturating_add(DELIVERY_LIMIT)
    }

    /// Drains: accepts no more jobs, waits for the running ones, aborts those that exceed the drain
    /// time, stops.
    pub async fn shutdown(&self) {
        let jobs = &self.context.jobs;
        jobs.drain();
        let running = jobs.in_use().jobs;
        info!(node = %self.context.node, running, "compactor takes no more jobs; draining");
        self.beat_now.notify_one();
        if tokio::time::timeout(self.drain, jobs.wait_idle()).await.is_err() {
            let jobs_left = jobs.abort_all();
            warn!(
                jobs = jobs_left,
                "jobs exceeded the drain time; aborting them for retry by their owners"
            );
            if tokio::time::timeout(ABORT_LIMIT, jobs.wait_idle()).await.is_err() {
                warn!(
                    "jobs still running at shutdown; their manifests record whether they committed"
                );
            }
        }
        // The jobs' tasks send the last events to their callers.
        self.context.tasks.close();
        let _ = tokio::time::timeout(CLOSE_LIMIT, self.context.tasks.wait()).await;
        let _ = tokio::time::timeout(DELIVERY_LIMIT, self.wait_delivered()).await;
        self.closing.cancel();
        self.beats.close();
        self.beats.wait().await;
        self.context.observe();
        info!(node = %self.context.node, "compactor node stopped");
    }

    /// Resolves when no hook has a backlog. The backlog at the end of the process is lost.
    async fn wait_delivered(&self) {
        while self.context.sets.status().iter().any(|(_, hook)| hook.backlog > 0) {
            tokio::time::sleep(DELIVERY_POLL).await;
        }
    }
}

fn node_context(
    options: &CompactorOptions,
    cluster: ClusterId,
    node: NodeId,
    storage: Storage,
    object_store_id: Uuid,
) -> CompactorContext {
    let home = HookHome { role: "compactor", node_id: node };
    let system = Arc::new(SystemClock);
    let clock = ClusterClock::new(system.clone(), system, options.max_clock_difference);
    let clock = Arc::new(clock);
    let ids = Arc::new(SystemIds);
    // A compactor holds no unflushed rows.
    let memory = MemoryBudget::new(0);
    let events = Arc::new(CompactorEvents::new(options, node));
    let sets = HookSets::new(options.hook_kinds.clone(), home, options.hook_limits);
    CompactorContext {
        cluster,
        node,
        object_store_id,
        env: RegionEnv::new(storage, clock.clone(), ids, memory, options.engine()),
        clock,
        sets: sets.with_callback(events.clone()),
        events,
        disk: StoreDisk::new(&options.object_store, options.disk_reserve),
        jobs: JobTable::new(options.capacity()),
        handles: Mutex::new(HandleTable::new(options.handle_life)),
        reading: Semaphore::new(CONCURRENT_READS),
        tasks: TaskTracker::new(),
    }
}

fn identity(reply: &RegisterResponse) -> Result<(ClusterId, NodeId), StartError> {
    let cluster = reply
        .cluster_id
        .parse()
        .map_err(|_| StartError::InvalidReply(format!("cluster id {:?}", reply.cluster_id)))?;
    if reply.node_id == 0 {
        return Err(StartError::InvalidReply("node id 0".to_owned()));
    }
    Ok((cluster, NodeId(reply.node_id)))
}
