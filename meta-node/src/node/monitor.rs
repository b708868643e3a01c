//! Detection of errors on which the process must exit: Raft has stopped, or the disk has failed.

use std::sync::Arc;

use openraft::async_runtime::WatchReceiver;
use tidewater_raft_store::DiskHealth;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::MetaError;
use super::replica::MetaReplica;

/// Monitors a replica until `stop`, and reports the first error to `failed`.
pub(super) fn watch(
    replica: &MetaReplica,
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
                    return MetaError::Disk("the log store was closed".to_owned());
                }
            }
        };
        let raft = async {
            // Server metrics end with the Raft core and change only with leaders and members: the full
            // metrics would wake this task several times for each command.
            let mut metrics = group.raft.server_metrics();
            while metrics.changed().await.is_ok() {}
            match &group.raft.metrics().borrow_watched().running_state {
                Err(fatal) => MetaError::Raft(fatal.to_string()),
                Ok(()) => MetaError::Raft("no reason reported".to_owned()),
            }
        };
        let error = tokio::select! {
            // Raft stops when the node does: that is no error, even if this task notices both at once.
            biased;
            () = stop.cancelled() => return,
            error = disk => error,
            error = raft => error,
        };
        tracing::error!(%error, "meta node failed");
        failed.send_replace(Some(Arc::new(error)));
    });
}
