//! The task behind a writer: hands rows to lanes and keeps the books.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::RecordBatch;
use parking_lot::Mutex;
use tidewater_common::refusal::Refusal;
use tidewater_proto::v1::{Reason, RowOp};
use tokio::sync::{mpsc, oneshot};
use tokio::task::{Id, JoinError, JoinSet};

use super::lane::{Lane, Shared};
use super::report::WriteReport;
use super::seats::{Part, Seat};

/// What a writer asks of its task.
#[derive(Debug)]
pub(crate) enum Job {
    /// Rows, and whoever waits for just these.
    Write { op: RowOp, rows: Rows, done: Option<oneshot::Sender<WriteReport>> },
    /// Answered when everything before it is settled.
    Flush(oneshot::Sender<WriteReport>),
}

/// Which lanes rows are for.
#[derive(Debug)]
pub(crate) enum Rows {
    /// For any that is idle; batches may overtake each other.
    Any(RecordBatch),
    /// For the lane of each part, behind all that it was given before.
    Dealt(Vec<(usize, RecordBatch)>),
}

/// What a lane is working on.
#[derive(Debug, Clone, Copy)]
struct Work {
    seat: usize,
    rows: u64,
    ticket: Option<u64>,
}

/// A batch that somebody waits for.
struct Awaited {
    parts_left: usize,
    report: WriteReport,
    done: oneshot::Sender<WriteReport>,
}

/// Ends when the queue is closed and everything is settled.
pub(crate) struct Driver {
    shared: Shared,
    jobs: mpsc::Receiver<Job>,
    /// Whether rows are dealt by key.
    by_key: bool,
    seats: Vec<Seat>,
    total: Arc<Mutex<WriteReport>>,
    running: JoinSet<(Lane, WriteReport)>,
    work: HashMap<Id, Work>,
    awaited: HashMap<u64, Awaited>,
    next_ticket: u64,
}

impl Driver {
    pub(crate) fn new(
        shared: Shared,
        jobs: mpsc::Receiver<Job>,
        lanes: usize,
        by_key: bool,
        total: Arc<Mutex<WriteReport>>,
    ) -> Self {
        Self {
            shared,
            jobs,
            by_key,
            seats: (0..lanes).map(|_| Seat::default()).collect(),
            total,
            running: JoinSet::new(),
            work: HashMap::new(),
            awaited: HashMap::new(),
            next_ticket: 0,
        }
    }

    pub(crate) async fn run(mut self) {
        let mut flush: Option<oneshot::Sender<WriteReport>> = None;
        let mut open = true;
        while open || !self.running.is_empty() {
            let takes = open && flush.is_none() && self.has_room();
            tokio::select! {
                Some(done) = self.running.join_next_with_id(), if !self.running.is_empty() => {
                    self.settled(done);
                }
                job = self.jobs.recv(), if takes => match job {
                    None => open = false,
                    Some(Job::Flush(waiting)) => flush = Some(waiting),
                    Some(Job::Write { op, rows, done }) => self.take(op, rows, done),
                },
            }
            self.start();
            if self.running.is_empty()
                && let Some(waiting) = flush.take()
            {
                let _ = waiting.send(self.total.lock().clone());
            }
        }
    }

    /// One full lane keeps the others waiting: what is handed in next may be for that one, and must
    /// not pile up in front of it.
    fn has_room(&self) -> bool {
        if self.by_key {
            self.seats.iter().all(Seat::has_room)
        } else {
            self.seats.iter().any(Seat::is_idle)
        }
    }

    fn take(&mut self, op: RowOp, rows: Rows, done: Option<oneshot::Sender<WriteReport>>) {
        let parts = match rows {
            Rows::Dealt(parts) => parts,
            Rows::Any(rows) => {
                let idle = self.seats.iter().position(Seat::is_idle).unwrap_or(0);
                vec![(idle, rows)]
            }
        };
        let ticket = done.map(|done| {
            self.next_ticket += 1;
            let report = WriteReport::default();
            let awaited = Awaited { parts_left: parts.len(), report, done };
            self.awaited.insert(self.next_ticket, awaited);
            self.next_ticket
        });
        for (lane, rows) in parts {
            if let Some(seat) = self.seats.get_mut(lane) {
                seat.push(Part { op, rows, ticket });
            }
        }
        self.tell(ticket, None);
    }

    /// Sets every lane to work that is here and has something to do.
    fn start(&mut self) {
        for (seat, place) in self.seats.iter_mut().enumerate() {
            let Some((mut lane, batch, ticket)) = place.next(self.shared.limits) else { continue };
            let (shared, rows) = (self.shared.clone(), batch.num_rows());
            let task = self.running.spawn(async move {
                let report = lane.write(&shared, batch).await;
                (lane, report)
            });
            self.work.insert(task.id(), Work { seat, rows, ticket });
        }
    }

    fn settled(&mut self, done: Result<(Id, (Lane, WriteReport)), JoinError>) {
        let (id, lane, report) = match done {
            Ok((id, (lane, report))) => (id, lane, Ok(report)),
            // A lane that fell over: what it had sent is in doubt, and its streams are spent.
            Err(error) => (error.id(), Lane::default(), Err(format!("the writer: {error}"))),
        };
        let Some(work) = self.work.remove(&id) else { return };
        if let Some(seat) = self.seats.get_mut(work.seat) {
            seat.lane = Some(lane);
        }
        let report = report.unwrap_or_else(|cause| {
            let mut report = WriteReport { unknown: work.rows, ..WriteReport::default() };
            report.add_cause(Refusal::new(Reason::Internal, cause));
            report
        });
        self.total.lock().add(report.clone());
        self.tell(work.ticket, Some(report));
    }

    /// Adds a part's outcome to that of its batch; the last one is passed on to whoever waits.
    fn tell(&mut self, ticket: Option<u64>, part: Option<WriteReport>) {
        let Some(ticket) = ticket else { return };
        let Some(awaited) = self.awaited.get_mut(&ticket) else { return };
        if let Some(part) = part {
            awaited.parts_left = awaited.parts_left.saturating_sub(1);
            awaited.report.add(part);
        }
        if awaited.parts_left == 0
            && let Some(awaited) = self.awaited.remove(&ticket)
        {
            let _ = awaited.done.send(awaited.report);
        }
    }
}
