//! The task behind a writer: hands batches to idle lanes and keeps the books.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use tidewater_common::refusal::Refusal;
use tidewater_proto::v1::Reason;
use tokio::sync::{mpsc, oneshot};
use tokio::task::{Id, JoinError, JoinSet};

use super::lane::{Batch, Lane, Shared};
use super::report::WriteReport;

/// What a writer asks of its task.
#[derive(Debug)]
pub(crate) enum Job {
    /// Rows, and whoever waits for just these.
    Write { batch: Batch, done: Option<oneshot::Sender<WriteReport>> },
    /// Answered when everything before it is settled.
    Flush(oneshot::Sender<WriteReport>),
}

type Done = (Lane, WriteReport, Option<oneshot::Sender<WriteReport>>);

/// Ends when the queue is closed and everything is settled.
pub(crate) struct Driver {
    pub(crate) shared: Shared,
    pub(crate) jobs: mpsc::Receiver<Job>,
    pub(crate) idle: Vec<Lane>,
    pub(crate) total: Arc<Mutex<WriteReport>>,
}

impl Driver {
    pub(crate) async fn run(mut self) {
        let mut running: JoinSet<Done> = JoinSet::new();
        let mut rows_of: HashMap<Id, u64> = HashMap::new();
        let mut flush: Option<oneshot::Sender<WriteReport>> = None;
        let mut open = true;
        while open || !running.is_empty() {
            tokio::select! {
                Some(done) = running.join_next_with_id(), if !running.is_empty() => {
                    self.settled(done, &mut rows_of);
                }
                job = self.jobs.recv(), if open && flush.is_none() && !self.idle.is_empty() => {
                    match job {
                        None => open = false,
                        Some(Job::Flush(waiting)) => flush = Some(waiting),
                        Some(Job::Write { batch, done }) => {
                            let mut lane = self.idle.pop().unwrap_or_default();
                            let shared = self.shared.clone();
                            let rows = batch.rows.num_rows() as u64;
                            let task = running.spawn(async move {
                                let report = lane.write(&shared, batch).await;
                                (lane, report, done)
                            });
                            rows_of.insert(task.id(), rows);
                        }
                    }
                }
            }
            if running.is_empty()
                && let Some(waiting) = flush.take()
            {
                let _ = waiting.send(self.total.lock().clone());
            }
        }
    }

    fn settled(&mut self, done: Result<(Id, Done), JoinError>, rows_of: &mut HashMap<Id, u64>) {
        match done {
            Ok((id, (lane, report, waiting))) => {
                rows_of.remove(&id);
                self.idle.push(lane);
                if let Some(waiting) = waiting {
                    let _ = waiting.send(report.clone());
                }
                self.total.lock().add(report);
            }
            Err(error) => {
                // A lane that fell over: what it had sent is in doubt, and its streams are spent.
                let rows = rows_of.remove(&error.id()).unwrap_or(0);
                self.idle.push(Lane::default());
                let mut report = WriteReport { unknown: rows, ..WriteReport::default() };
                report.add_cause(Refusal::new(Reason::Internal, format!("the writer: {error}")));
                self.total.lock().add(report);
            }
        }
    }
}
