//! Tasks of exports, which end with the node.

use tokio::task::AbortHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Spawns the tasks of exports. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct ExportTasks {
    /// Tasks that the shutdown of the node waits for.
    pub(super) tracker: TaskTracker,
    /// Cancelled when the node shuts down.
    pub(super) closing: CancellationToken,
}

impl ExportTasks {
    /// Spawns a task that ends when its work is complete, or when the node shuts down.
    pub(super) fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) -> AbortHandle {
        let closing = self.closing.clone();
        let task = self.tracker.spawn(async move {
            closing.run_until_cancelled(work).await;
        });
        task.abort_handle()
    }
}
