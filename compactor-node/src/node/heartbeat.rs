//! Heartbeats: that the node lives, what it has to give, how its hooks do. They go on while it
//! drains, or owners would take it for dead and its jobs for lost.

use std::sync::Arc;
use std::time::Duration;

use tidewater_proto::v1::{HeartbeatRequest, NodeRole, Reason};
use tidewater_raft_store::MetaLink;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::hooks;
use crate::parts::NodeParts;

/// See the module's head.
pub(super) struct Beat {
    pub(super) parts: Arc<NodeParts>,
    pub(super) link: MetaLink,
    pub(super) address: String,
    pub(super) every: Duration,
    /// Somebody wants the meta service to know at once.
    pub(super) news: Arc<Notify>,
}

impl Beat {
    /// Runs until the node closes, or has been removed from the cluster.
    pub(super) async fn run(self, closing: CancellationToken, fail: watch::Sender<Option<String>>) {
        let mut every = tokio::time::interval(self.every);
        every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut heard = true;
        loop {
            tokio::select! {
                () = closing.cancelled() => return,
                () = self.news.notified() => {}
                _ = every.tick() => {}
            }
            self.parts.handles.lock().expire(Instant::now());
            self.parts.sets.forget_unused(Instant::now());
            self.parts.observe();
            let request = self.request().await;
            let answer = tokio::select! {
                () = closing.cancelled() => return,
                answer = self.link.heartbeat(&request) => answer,
            };
            match answer {
                Ok(_) => {
                    if !heard {
                        info!("the meta service answers again");
                    }
                    heard = true;
                }
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
                        tried = self.link.addresses().join(", "),
                        reason = ?problem.reason,
                        %problem,
                        "the meta service does not take this node's heartbeats"
                    );
                }
                Err(problem) => debug!(%problem, "a heartbeat was not taken"),
            }
        }
    }

    async fn request(&self) -> HeartbeatRequest {
        let load = self.parts.load().await;
        HeartbeatRequest {
            cluster_id: self.parts.cluster.to_string(),
            node_id: self.parts.node.get(),
            role: NodeRole::Compactor.into(),
            address: self.address.clone(),
            problems: problem(load.disk_free_bytes).into_iter().collect(),
            hooks: hooks::reports(self.parts.sets.status()),
            compactor: Some(load),
            groups: Vec::new(),
        }
    }
}

fn problem(room: Option<u64>) -> Option<String> {
    (room == Some(0)).then(|| {
        "the disk of the object store is full: it takes no jobs until there is room".to_owned()
    })
}
