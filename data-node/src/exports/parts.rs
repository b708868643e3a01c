//! Parts of steps that this node writes: one for each region that it leads.
//!
//! - *Part*: written by a task. Each call waits for it for a short time. The next meta leader repeats the call and finds the
//!   task. Rows as of a complete epoch never change, so that a part remains valid when another node leads the group.
//! - *Permits*: a part is written with a permit of its export and a permit of the node. An export has one permit, so that a
//!   target that does not respond leaves the other permit of the node to other exports.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tidewater_common::ids::RegionId;
use tidewater_common::refusal::Refusal;
use tidewater_proto::v1::{ExportRegionResponse, Reason};
use tokio::sync::{Notify, Semaphore, watch};
use tokio::task::AbortHandle;
use tokio::time::timeout;
use uuid::Uuid;

use super::layout::StepFile;
use super::tasks::ExportTasks;

/// Parts that the node writes at a time.
const PARTS_OF_NODE: usize = 2;
/// Parts of an export that the node writes at a time.
const PARTS_OF_EXPORT: usize = 1;
/// Maximum number of parts that wait or are written.
const MAX_PARTS: usize = 1_000;
/// Time after which a refused call is repeated.
const RETRY_TIME: Duration = Duration::from_millis(500);
/// Longest wait of a call for the end of its part.
const ANSWER_WITHIN: Duration = Duration::from_millis(300);
/// Time without a call after which a part ends: its export was dropped, or another node leads the group.
const UNASKED_FOR: Duration = Duration::from_secs(120);

/// Identity of a part.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct PartKey {
    pub(super) export: Uuid,
    pub(super) step: u64,
    pub(super) region: RegionId,
}

/// Parts that wait, are written, or have an end that no call has received yet.
#[derive(Debug)]
pub(super) struct Parts {
    known: Mutex<BTreeMap<PartKey, KnownPart>>,
    permits: Arc<Semaphore>,
    tasks: ExportTasks,
}

/// Result of a part; `None`: it has not ended.
type PartEnd = Option<Result<Vec<StepFile>, Refusal>>;

/// Part that waits, is written, or has ended.
#[derive(Debug, Clone)]
struct KnownPart {
    /// Rows that were written so far.
    rows: Arc<AtomicU64>,
    ended: watch::Receiver<PartEnd>,
    /// Notified by each call.
    asked: Arc<Notify>,
    /// Permits of the export, which its parts share.
    export_permits: Arc<Semaphore>,
    task: AbortHandle,
}

impl KnownPart {
    /// Returns whether the task has stopped without a result.
    fn has_stopped(&self) -> bool {
        self.ended.has_changed().is_err() && self.ended.borrow().is_none()
    }
}

impl Parts {
    pub(super) fn new(tasks: ExportTasks) -> Self {
        let permits = Arc::new(Semaphore::new(PARTS_OF_NODE));
        Self { known: Mutex::default(), permits, tasks }
    }

    /// Begins or continues a part, waits for a short time, and returns the progress. `write` receives the counter of the
    /// rows. An end is returned once: the next call begins the part again.
    ///
    /// # Errors
    /// Those of `write`; [`Reason::Overloaded`] if too many parts wait.
    pub(super) async fn advance<W, F>(
        &self,
        key: PartKey,
        write: W,
    ) -> Result<ExportRegionResponse, Refusal>
    where
        W: FnOnce(Arc<AtomicU64>) -> F,
        F: Future<Output = Result<Vec<StepFile>, Refusal>> + Send + 'static,
    {
        let part = self.find_or_begin(key, write)?;
        let rows = || part.rows.load(Ordering::Relaxed);
        let mut ended = part.ended.clone();
        let end = match timeout(ANSWER_WITHIN, ended.wait_for(Option::is_some)).await {
            Err(_) => return Ok(ExportRegionResponse { rows: rows(), ..Default::default() }),
            Ok(end) => end.ok().and_then(|end| end.clone()),
        };
        self.known.lock().retain(|_, known| !known.ended.same_channel(&ended));
        match end {
            Some(Ok(files)) => {
                let files = files.into_iter().map(Into::into).collect();
                Ok(ExportRegionResponse { rows: rows(), done: true, files })
            }
            Some(Err(refusal)) => Err(refusal),
            None => {
                let text = format!("the export of region {} was interrupted", key.region);
                Err(Refusal::new(Reason::ShuttingDown, text))
            }
        }
    }

    /// Returns a part. Begins it if the node does not know it. Aborts parts of earlier steps of the export: their step is
    /// complete.
    fn find_or_begin<W, F>(&self, key: PartKey, write: W) -> Result<KnownPart, Refusal>
    where
        W: FnOnce(Arc<AtomicU64>) -> F,
        F: Future<Output = Result<Vec<StepFile>, Refusal>> + Send + 'static,
    {
        let mut known = self.known.lock();
        known.retain(|other, part| {
            let is_earlier = other.export == key.export && other.step < key.step;
            if is_earlier {
                part.task.abort();
            }
            !is_earlier && !part.has_stopped()
        });
        if let Some(part) = known.get(&key) {
            part.asked.notify_one();
            return Ok(part.clone());
        }
        if known.len() >= MAX_PARTS {
            // Ends that no call has received.
            known.retain(|_, part| part.ended.borrow().is_none());
        }
        if known.len() >= MAX_PARTS {
            let text = format!("this node already exports {MAX_PARTS} regions: retry");
            return Err(Refusal::new(Reason::Overloaded, text).retry_after(RETRY_TIME));
        }
        let of_export = known.iter().find(|(other, _)| other.export == key.export);
        let export_permits = match of_export {
            Some((_, part)) => Arc::clone(&part.export_permits),
            None => Arc::new(Semaphore::new(PARTS_OF_EXPORT)),
        };
        let part = self.spawn(key, export_permits, write);
        known.insert(key, part.clone());
        Ok(part)
    }

    /// Spawns the task of a part.
    fn spawn<W, F>(&self, key: PartKey, export_permits: Arc<Semaphore>, write: W) -> KnownPart
    where
        W: FnOnce(Arc<AtomicU64>) -> F,
        F: Future<Output = Result<Vec<StepFile>, Refusal>> + Send + 'static,
    {
        let rows = Arc::new(AtomicU64::new(0));
        let asked = Arc::new(Notify::new());
        let (sender, ended) = watch::channel(None);
        let work = write(Arc::clone(&rows));
        let permits = [&export_permits, &self.permits].map(Arc::clone);
        let calls = Arc::clone(&asked);
        let task = self.tasks.spawn(async move {
            tokio::select! {
                end = with_permits(permits, work) => drop(sender.send_replace(Some(end))),
                () = last_call(&calls) => {
                    tracing::debug!(export = %key.export, region = %key.region, "part without calls ended");
                }
            }
        });
        KnownPart { rows, ended, asked, export_permits, task }
    }
}

impl Drop for Parts {
    fn drop(&mut self) {
        self.known.get_mut().values().for_each(|part| part.task.abort());
    }
}

/// Does work once these permits are available.
async fn with_permits<T>(permits: [Arc<Semaphore>; 2], work: impl Future<Output = T>) -> T {
    let [of_export, of_node] = permits;
    // The semaphores are never closed.
    let _of_export = of_export.acquire_owned().await;
    let _of_node = of_node.acquire_owned().await;
    work.await
}

/// Waits until no call has arrived for a time.
async fn last_call(calls: &Notify) {
    while timeout(UNASKED_FOR, calls.notified()).await.is_ok() {}
}

#[cfg(test)]
mod tests;
