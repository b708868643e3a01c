//! The background task of a writer: assigns rows to lanes and collects their reports.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::RecordBatch;
use parking_lot::Mutex;
use tidewater_common::refusal::Refusal;
use tidewater_proto::v1::{Reason, RowOp};
use tokio::sync::{mpsc, oneshot};
use tokio::task::{Id, JoinError, JoinSet};

use super::lane::{Lane, WriterContext};
use super::lane_slot::{LaneBatch, LaneSlot};
use super::report::WriteReport;

/// A request to the writer's task.
#[derive(Debug)]
pub(crate) enum WriterRequest {
    /// Writes rows; `done` receives the report of just these rows.
    Write { op: RowOp, rows: QueuedRows, done: Option<oneshot::Sender<WriteReport>> },
    /// Answered when every earlier request is settled.
    Flush(oneshot::Sender<WriteReport>),
}

/// Queued rows with their lanes.
#[derive(Debug)]
pub(crate) enum QueuedRows {
    /// For any idle lane; batches may be reordered.
    AnyLane(RecordBatch),
    /// One lane batch per lane, to run after all earlier batches of that lane.
    ByLane(Vec<(usize, RecordBatch)>),
}

/// A lane write in progress.
#[derive(Debug, Clone, Copy)]
struct RunningWrite {
    /// Index of the lane.
    lane: usize,
    rows: u64,
    ticket: Option<u64>,
}

/// A batch whose caller waits for its report.
struct PendingReport {
    pending_parts: usize,
    report: WriteReport,
    done: oneshot::Sender<WriteReport>,
}

/// The writer's task. Ends when the request queue is closed and every write is settled.
pub(crate) struct WriteDriver {
    context: WriterContext,
    requests: mpsc::Receiver<WriterRequest>,
    /// Set when batches are partitioned by key.
    by_key: bool,
    slots: Vec<LaneSlot>,
    total: Arc<Mutex<WriteReport>>,
    running: JoinSet<(Lane, WriteReport)>,
    running_writes: HashMap<Id, RunningWrite>,
    pending_reports: HashMap<u64, PendingReport>,
    next_ticket: u64,
}

impl WriteDriver {
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
            pending_reports: HashMap::new(),
            next_ticket: 0,
        }
    }

    pub(crate) async fn run(mut self) {
        let mut flush: Option<oneshot::Sender<WriteReport>> = None;
        let mut open = true;
        while open || !self.running.is_empty() {
            let accepts = open && flush.is_none() && self.has_capacity();
            tokio::select! {
                Some(done) = self.running.join_next_with_id(), if !self.running.is_empty() => {
                    self.handle_completed(done);
                }
                request = self.requests.recv(), if accepts => match request {
                    None => open = false,
                    Some(WriterRequest::Flush(reply)) => flush = Some(reply),
                    Some(WriterRequest::Write { op, rows, done }) => self.assign(op, rows, done),
                },
            }
            self.start_idle_lanes();
            if self.running.is_empty()
                && let Some(reply) = flush.take()
            {
                let _ = reply.send(self.total.lock().clone());
            }
        }
    }

    /// Returns whether another batch can be accepted. By key, one full lane blocks all: the next
    /// batch may be for that lane and must not accumulate in its queue.
    fn has_capacity(&self) -> bool {
        if self.by_key {
            self.slots.iter().all(LaneSlot::has_capacity)
        } else {
            self.slots.iter().any(LaneSlot::is_idle)
        }
    }

    fn assign(&mut self, op: RowOp, rows: QueuedRows, done: Option<oneshot::Sender<WriteReport>>) {
        let lane_batches = match rows {
            QueuedRows::ByLane(lane_batches) => lane_batches,
            QueuedRows::AnyLane(rows) => {
                let idle = self.slots.iter().position(LaneSlot::is_idle).unwrap_or(0);
                vec![(idle, rows)]
            }
        };
        let ticket = done.map(|done| {
            self.next_ticket += 1;
            let report = WriteReport::default();
            let pending = PendingReport { pending_parts: lane_batches.len(), report, done };
            self.pending_reports.insert(self.next_ticket, pending);
            self.next_ticket
        });
        for (lane, rows) in lane_batches {
            if let Some(slot) = self.slots.get_mut(lane) {
                slot.push(LaneBatch { op, rows, ticket });
            }
        }
        self.add_to_report(ticket, None);
    }

    /// Starts the next write of every idle lane with queued batches.
    fn start_idle_lanes(&mut self) {
        for (index, slot) in self.slots.iter_mut().enumerate() {
            let Some((mut lane, write, ticket)) = slot.next(self.context.limits) else {
                continue;
            };
            let context = self.context.clone();
            let rows = write.num_rows();
            let task = self.running.spawn(async move {
                let report = lane.run(&context, write).await;
                (lane, report)
            });
            self.running_writes.insert(task.id(), RunningWrite { lane: index, rows, ticket });
        }
    }

    fn handle_completed(&mut self, done: Result<(Id, (Lane, WriteReport)), JoinError>) {
        let (id, lane, report) = match done {
            Ok((id, (lane, report))) => (id, lane, Ok(report)),
            // The lane panicked: its requests have an unknown outcome, and its streams are unusable.
            Err(error) => (error.id(), Lane::default(), Err(format!("the writer: {error}"))),
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
        self.add_to_report(write.ticket, Some(report));
    }

    /// Adds a part's report to that of its batch, and sends the report to the caller when complete.
    fn add_to_report(&mut self, ticket: Option<u64>, part: Option<WriteReport>) {
        let Some(ticket) = ticket else { return };
        let Some(pending) = self.pending_reports.get_mut(&ticket) else { return };
        if let Some(part) = part {
            pending.pending_parts = pending.pending_parts.saturating_sub(1);
            pending.report.add(part);
        }
        if pending.pending_parts == 0
            && let Some(pending) = self.pending_reports.remove(&ticket)
        {
            let _ = pending.done.send(pending.report);
        }
    }
}
