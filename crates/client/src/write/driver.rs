//! Task of a writer: distributes rows to lanes and accounts for their outcomes.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::RecordBatch;
use parking_lot::Mutex;
use tidewater_common::refusal::Refusal;
use tidewater_proto::v1::{Reason, RowOp};
use tokio::sync::{mpsc, oneshot};
use tokio::task::{Id, JoinError, JoinSet};

use super::lane::{Lane, WriterContext};
use super::lane_slots::{LaneBatch, LaneSlot};
use super::report::WriteReport;

/// Request of a writer to its task.
#[derive(Debug)]
pub(crate) enum WriterRequest {
    /// Write rows; `reply` receives the outcome of just these rows.
    Write { op: RowOp, rows: BatchRows, reply: Option<oneshot::Sender<WriteReport>> },
    /// Reply when all earlier rows are settled.
    Flush(oneshot::Sender<WriteReport>),
}

/// Rows of a batch with their assignment to lanes.
#[derive(Debug)]
pub(crate) enum BatchRows {
    /// For any idle lane; such batches may be applied in any order.
    AnyLane(RecordBatch),
    /// For the lane of each part, after all earlier rows of that lane.
    Partitioned(Vec<(usize, RecordBatch)>),
}

/// Lane write in progress.
#[derive(Debug, Clone, Copy)]
struct RunningWrite {
    /// Index of the lane.
    lane: usize,
    rows: u64,
    ticket: Option<u64>,
}

/// Batch whose caller waits for the outcome.
struct AwaitedBatch {
    /// Lane batches that are not settled.
    pending: usize,
    report: WriteReport,
    reply: oneshot::Sender<WriteReport>,
}

/// Task of a writer; ends when the queue is closed and all rows are settled.
pub(crate) struct Driver {
    context: WriterContext,
    requests: mpsc::Receiver<WriterRequest>,
    /// Batches are partitioned by key.
    by_key: bool,
    slots: Vec<LaneSlot>,
    total: Arc<Mutex<WriteReport>>,
    running: JoinSet<(Lane, WriteReport)>,
    running_writes: HashMap<Id, RunningWrite>,
    awaited: HashMap<u64, AwaitedBatch>,
    next_ticket: u64,
}

impl Driver {
    pub(crate) fn new(
        context: WriterContext,
        requests: mpsc::Receiver<WriterRequest>,
        lanes: usize,
        by_key: bool,
        total: Arc<Mutex<WriteReport>>,
    ) -> Self {
        Self {
            context,
            requests,
            by_key,
            slots: (0..lanes).map(|_| LaneSlot::default()).collect(),
            total,
            running: JoinSet::new(),
            running_writes: HashMap::new(),
            awaited: HashMap::new(),
            next_ticket: 0,
        }
    }

    pub(crate) async fn run(mut self) {
        let mut flush: Option<oneshot::Sender<WriteReport>> = None;
        let mut open = true;
        while open || !self.running.is_empty() {
            let accepts = open && flush.is_none() && self.has_room();
            tokio::select! {
                Some(done) = self.running.join_next_with_id(), if !self.running.is_empty() => {
                    self.finish_write(done);
                }
                request = self.requests.recv(), if accepts => match request {
                    None => open = false,
                    Some(WriterRequest::Flush(reply)) => flush = Some(reply),
                    Some(WriterRequest::Write { op, rows, reply }) => self.enqueue(op, rows, reply),
                },
            }
            self.start_lanes();
            if self.running.is_empty()
                && let Some(reply) = flush.take()
            {
                let _ = reply.send(self.total.lock().clone());
            }
        }
    }

    /// One full lane holds back all lanes: the next batch may have rows for the full one, which must
    /// not accumulate in its queue.
    fn has_room(&self) -> bool {
        if self.by_key {
            self.slots.iter().all(LaneSlot::has_room)
        } else {
            self.slots.iter().any(LaneSlot::is_idle)
        }
    }

    fn enqueue(&mut self, op: RowOp, rows: BatchRows, reply: Option<oneshot::Sender<WriteReport>>) {
        let parts = match rows {
            BatchRows::Partitioned(parts) => parts,
            BatchRows::AnyLane(rows) => {
                let idle = self.slots.iter().position(LaneSlot::is_idle).unwrap_or(0);
                vec![(idle, rows)]
            }
        };
        let ticket = reply.map(|reply| {
            self.next_ticket += 1;
            let report = WriteReport::default();
            let awaited = AwaitedBatch { pending: parts.len(), report, reply };
            self.awaited.insert(self.next_ticket, awaited);
            self.next_ticket
        });
        for (lane, rows) in parts {
            if let Some(slot) = self.slots.get_mut(lane) {
                slot.push(LaneBatch { op, rows, ticket });
            }
        }
        self.update_awaited(ticket, None);
    }

    /// Starts the next write of each idle lane.
    fn start_lanes(&mut self) {
        for (index, slot) in self.slots.iter_mut().enumerate() {
            let Some((mut lane, write, ticket)) = slot.next(self.context.limits) else { continue };
            let context = self.context.clone();
            let rows = write.num_rows();
            let task = self.running.spawn(async move {
                let report = lane.write(&context, write).await;
                (lane, report)
            });
            self.running_writes.insert(task.id(), RunningWrite { lane: index, rows, ticket });
        }
    }

    fn finish_write(&mut self, done: Result<(Id, (Lane, WriteReport)), JoinError>) {
        let (id, lane, report) = match done {
            Ok((id, (lane, report))) => (id, lane, Ok(report)),
            // The lane's task panicked: the outcome of its rows is unknown, and its streams are lost.
            Err(error) => {
                (error.id(), Lane::default(), Err(format!("writer task failed: {error}")))
            }
        };
        let Some(write) = self.running_writes.remove(&id) else { return };
        if let Some(slot) = self.slots.get_mut(write.lane) {
            slot.lane = Some(lane);
        }
        let report = report.unwrap_or_else(|cause| {
            let mut report = WriteReport { unknown: write.rows, ..WriteReport::default() };
            report.add_cause(Refusal::new(Reason::Internal, cause));
            report
        });
        self.total.lock().add(report.clone());
        self.update_awaited(write.ticket, Some(report));
    }

    /// Adds the outcome of a lane batch to that of its batch. Replies to the caller after the last one.
    fn update_awaited(&mut self, ticket: Option<u64>, settled: Option<WriteReport>) {
        let Some(ticket) = ticket else { return };
        let Some(awaited) = self.awaited.get_mut(&ticket) else { return };
        if let Some(settled) = settled {
            awaited.pending = awaited.pending.saturating_sub(1);
            awaited.report.add(settled);
        }
        if awaited.pending == 0
            && let Some(awaited) = self.awaited.remove(&ticket)
        {
            let _ = awaited.reply.send(awaited.report);
        }
    }
}
