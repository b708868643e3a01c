//! Parts of steps that this node writes: one for each region that it leads.
//!
//! A part is written by a task, which goes on when its caller leaves: the next meta leader repeats the call and finds it. Rows
//! as of a complete epoch never change, so that a part remains valid when another node leads.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tidewater_common::ids::RegionId;
use tidewater_common::refusal::Refusal;
use tidewater_proto::v1::{ExportRegionResponse, Reason};
use tokio::sync::{Semaphore, watch};
use tokio::task::AbortHandle;
use uuid::Uuid;

use super::layout::StepFile;

/// Parts that are written at a time.
const CONCURRENT_PARTS: usize = 2;
/// Parts that wait or are written at most.
const MAX_PARTS: usize = 1_000;
/// Longest wait of a call for the end of its part.
const ANSWER_WITHIN: Duration = Duration::from_millis(300);

/// Identity of a part.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct PartKey {
    pub(super) export: Uuid,
    pub(super) step: u64,
    pub(super) region: RegionId,
}

/// Parts in progress.
#[derive(Debug)]
pub(super) struct Parts {
    running: Mutex<BTreeMap<PartKey, RunningPart>>,
    permits: Arc<Semaphore>,
}

type PartEnd = Option<Result<Vec<StepFile>, Refusal>>;

#[derive(Debug, Clone)]
struct RunningPart {
    rows: Arc<AtomicU64>,
    ended: watch::Receiver<PartEnd>,
    task: AbortHandle,
}

impl Default for Parts {
    fn default() -> Self {
        Self { running: Mutex::default(), permits: Arc::new(Semaphore::new(CONCURRENT_PARTS)) }
    }
}

impl Parts {
    /// Begins or continues a part, waits for a short time, and returns the progress. `write` gets the counter of the rows. An
    /// end is reported once: the next call begins the part again.
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
        let part = self.running(key, write)?;
        let rows = || part.rows.load(Ordering::Relaxed);
        let mut ended = part.ended.clone();
        let end = match tokio::time::timeout(ANSWER_WITHIN, ended.wait_for(Option::is_some)).await {
            Err(_) => return Ok(ExportRegionResponse { rows: rows(), ..Default::default() }),
            Ok(end) => end.ok().and_then(|end| end.clone()),
        };
        self.running.lock().retain(|_, known| !known.ended.same_channel(&ended));
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

    /// Returns the part that runs, which is started if there is none. Parts of earlier steps of the export are of no use.
    fn running<W, F>(&self, key: PartKey, write: W) -> Result<RunningPart, Refusal>
    where
        W: FnOnce(Arc<AtomicU64>) -> F,
        F: Future<Output = Result<Vec<StepFile>, Refusal>> + Send + 'static,
    {
        let mut running = self.running.lock();
        running.retain(|known, part| {
            let is_old = known.export == key.export && known.step < key.step;
            if is_old {
                part.task.abort();
            }
            !is_old
        });
        if let Some(known) = running.get(&key) {
            return Ok(known.clone());
        }
        if running.len() >= MAX_PARTS {
            // Those whose end was not asked for.
            running.retain(|_, part| part.ended.borrow().is_none());
        }
        if running.len() >= MAX_PARTS {
            let text = format!("this node exports {MAX_PARTS} regions already");
            return Err(Refusal::new(Reason::Overloaded, text));
        }
        let rows = Arc::new(AtomicU64::new(0));
        let (sender, ended) = watch::channel(None);
        let permits = Arc::clone(&self.permits);
        let work = write(Arc::clone(&rows));
        let task = tokio::spawn(async move {
            // Closed never.
            let _permit = permits.acquire_owned().await;
            sender.send_replace(Some(work.await));
        });
        let part = RunningPart { rows, ended, task: task.abort_handle() };
        running.insert(key, part.clone());
        Ok(part)
    }
}

impl Drop for Parts {
    fn drop(&mut self) {
        self.running.get_mut().values().for_each(|part| part.task.abort());
    }
}

#[cfg(test)]
mod tests;
