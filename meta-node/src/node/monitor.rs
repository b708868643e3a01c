//! On what the process must exit: Raft has stopped, or the disk has failed.

use std::sync::Arc;

use openraft::async_runtime::WatchReceiver;
use tidewater_raft_store::DiskHealth;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::MetaError;
use super::replica::Replica;

/// Watches a replica until `stop`.
pub(super) fn watch(
    replica: &Replica,
    failed: Arc<watch::Sender<Option<Arc<MetaError>>>>,
    stop: CancellationToken,
) {
    let group = Arc::clone(&replica.running().group);
    tokio::spawn(async move {
        let mut health = group.health.clone();
        let disk = async {
            loop {
                if let DiskHealth::Failed(error) = &*health.borrow_and_update() {
                    return MetaError::Disk(error.clone());
                }
                if health.changed().await.is_err() {
                    return MetaError::Disk("it was closed".to_owned());
                }
            }
        };
        let raft = async {
            // These end with the core, and until then tell of leaders and members only: the whole
            // metrics would wake this task several times for each command.
            let mut metrics = group.raft.server_metrics();
            while metrics.changed().await.is_ok() {}
            match &group.raft.metrics().borrow_watched().running_state {
                Err(fatal) => MetaError::Raft(fatal.to_string()),
                Ok(()) => MetaError::Raft("it ended without a reason".to_owned()),
            }
        };
        let error = tokio::select! {
            () = stop.cancelled() => return,
            error = disk => error,
            error = raft => error,
        };
        tracing::error!(%error, "the meta node cannot go on");
        failed.send_replace(Some(Arc::new(error)));
    });
}
