//! A compactor node as a process sees it.

use std::time::Duration;

use tidewater_common::ids::{ClusterId, NodeId};
use tidewater_proto::v1::{HeartbeatRequest, NodeRole, Reason, RegisterRequest};
use tidewater_raft_store::{MetaLink, RegisterError};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::service::RoutesBuilder;
use tracing::{info, warn};
use uuid::Uuid;

#[cfg(test)]
mod tests;

/// How a compactor node runs.
#[derive(Debug, Clone)]
pub struct CompactorOptions {
    /// What others are told to connect to: host:port.
    pub advertise: String,
    /// Meta nodes; at least one.
    pub meta: Vec<String>,
    /// How often the meta service hears from this node.
    pub heartbeat: Duration,
}

impl CompactorOptions {
    /// Default intervals.
    pub fn new(advertise: impl Into<String>, meta: Vec<String>) -> Self {
        Self { advertise: advertise.into(), meta, heartbeat: Duration::from_secs(1) }
    }
}

/// Why a compactor node did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The meta service does not take this node.
    #[error(transparent)]
    Register(#[from] RegisterError),
    /// The meta service gave an answer that makes no sense.
    #[error("the meta service answered a registration with {0}")]
    Answer(String),
}

/// A running compactor node.
#[derive(Debug)]
pub struct CompactorNode {
    cluster: ClusterId,
    node: NodeId,
    closing: CancellationToken,
    failed: watch::Receiver<Option<String>>,
    tasks: TaskTracker,
}

impl CompactorNode {
    /// Registers, asking until a meta node answers, and begins to send heartbeats. The process is
    /// the identity: a restarted compactor is a new node.
    pub async fn start(options: CompactorOptions) -> Result<Self, StartError> {
        let link = MetaLink::new(options.meta.clone());
        let answer = link
            .register(RegisterRequest {
                directory_id: Uuid::new_v4().to_string(),
                role: NodeRole::Compactor.into(),
                address: options.advertise.clone(),
                ..Default::default()
            })
            .await?;
        let cluster: ClusterId = answer
            .cluster_id
            .parse()
            .map_err(|_| StartError::Answer(format!("cluster id {:?}", answer.cluster_id)))?;
        if answer.node_id == 0 {
            return Err(StartError::Answer("node id 0".to_owned()));
        }
        let node = NodeId(answer.node_id);
        info!(%cluster, %node, "registered");
        let closing = CancellationToken::new();
        let tasks = TaskTracker::new();
        let (fail, failed) = watch::channel(None);
        let request = HeartbeatRequest {
            cluster_id: cluster.to_string(),
            node_id: node.get(),
            role: NodeRole::Compactor.into(),
            address: options.advertise.clone(),
            ..Default::default()
        };
        tasks.spawn(beat(link, request, options.heartbeat, closing.clone(), fail));
        Ok(Self { cluster, node, closing, failed, tasks })
    }

    /// The cluster.
    pub fn cluster_id(&self) -> ClusterId {
        self.cluster
    }

    /// The node's id, given by the meta service.
    pub fn node_id(&self) -> NodeId {
        self.node
    }

    /// Adds this role's services: none before remote compaction.
    pub fn add_services(&self, _routes: &mut RoutesBuilder) {}

    /// Resolves, in words, when the process must exit: the cluster has removed this node.
    pub async fn failed(&self) -> String {
        let mut failed = self.failed.clone();
        match failed.wait_for(Option::is_some).await {
            Ok(reason) => reason.clone().unwrap_or_default(),
            Err(_) => std::future::pending().await,
        }
    }

    /// Drains: takes no job any more, waits for those that run, stops.
    pub async fn shutdown(&self) {
        self.closing.cancel();
        self.tasks.close();
        self.tasks.wait().await;
        info!(node = %self.node, "compactor node stopped");
    }
}

async fn beat(
    link: MetaLink,
    request: HeartbeatRequest,
    interval: Duration,
    closing: CancellationToken,
    fail: watch::Sender<Option<String>>,
) {
    let mut every = tokio::time::interval(interval);
    every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut heard = true;
    loop {
        tokio::select! {
            () = closing.cancelled() => return,
            _ = every.tick() => {}
        }
        let answer = tokio::select! {
            () = closing.cancelled() => return,
            answer = link.heartbeat(&request) => answer,
        };
        match answer {
            Ok(_) => heard = true,
            Err(problem) if problem.reason == Reason::NodeRemoved => {
                fail.send_replace(Some(format!(
                    "this node was removed from the cluster: {problem}"
                )));
                closing.cancelled().await;
                return;
            }
            Err(problem) if heard => {
                heard = false;
                warn!(
                    tried = link.addresses().join(", "),
                    reason = ?problem.reason,
                    %problem,
                    "the meta service does not take this node's heartbeats"
                );
            }
            Err(_) => {}
        }
    }
}
