//! One job's life: from `accepted` to its last event. It ends without its caller, and whatever it
//! ends with, its slot becomes free before anybody is told.

use std::panic::AssertUnwindSafe;
use std::time::Duration;

use futures::FutureExt;
use tidewater_common::refusal::Refusal;
use tidewater_proto::compaction::v1::compaction_event::Event;
use tidewater_proto::compaction::v1::{
    CompactionAccepted, CompactionCommitted, CompactionEvent, CompactionFailed,
};
use tidewater_proto::v1::Reason;
use tidewater_region_engine::EngineError;
use tidewater_region_engine::compaction::CommittedCompaction;
use tokio::sync::mpsc;
use tokio::time::MissedTickBehavior;
use tonic::Status;
use tracing::{info, warn};

use crate::disk::Disk;
use crate::jobs::{EndedBy, RunningJob, Slot};
use crate::meters;

/// How often a caller hears of a job, and the disk is looked at.
const PROGRESS: Duration = Duration::from_millis(500);
/// Events that a caller may be behind; of more, those in between are left out.
const EVENTS: usize = 8;

type Sent = Result<CompactionEvent, Status>;

/// The way to the caller. Never waits for it; the last event has a place of its own.
#[derive(Debug)]
pub(crate) struct Events {
    sender: mpsc::Sender<Sent>,
    last: Option<mpsc::OwnedPermit<Sent>>,
}

impl Events {
    /// With the end that the caller reads.
    pub(crate) fn channel() -> (Self, mpsc::Receiver<Sent>) {
        let (sender, receiver) = mpsc::channel(EVENTS);
        // Nobody has sent anything: there is a place.
        let last = sender.clone().try_reserve_owned().ok();
        (Self { sender, last }, receiver)
    }

    fn send(&self, job: &RunningJob, event: Event) {
        let _ = self.sender.try_send(Ok(message(job, event)));
    }

    fn finish(mut self, job: &RunningJob, event: Event) {
        if let Some(last) = self.last.take() {
            last.send(Ok(message(job, event)));
        }
    }
}

fn message(job: &RunningJob, event: Event) -> CompactionEvent {
    CompactionEvent { job_id: job.id.to_string(), event: Some(event) }
}

/// What came of a job.
#[derive(Debug)]
struct Outcome {
    /// As metrics and logs call it.
    name: &'static str,
    event: Event,
}

/// Carries a job out: `work` does it, with the attempt of `slot`. Whether it may have been committed,
/// and nobody knows.
pub(crate) async fn run(
    work: impl Future<Output = Result<CommittedCompaction, EngineError>>,
    slot: Slot,
    disk: &Disk,
    events: Events,
) -> bool {
    let job = slot.job.clone();
    info!(
        job = %job.id,
        region = %job.dir,
        source = %job.source,
        attempt = job.number,
        files_in = job.inputs.len(),
        bytes_in = job.bytes_in,
        parallelism = job.limits.parallelism,
        memory_bytes = job.limits.memory_bytes,
        "compaction begins"
    );
    events.send(&job, Event::Accepted(accepted(&job)));
    let work = AssertUnwindSafe(work).catch_unwind();
    tokio::pin!(work);
    let mut every = tokio::time::interval(PROGRESS);
    every.set_missed_tick_behavior(MissedTickBehavior::Delay);
    every.tick().await;
    let result = loop {
        tokio::select! {
            result = &mut work => break result.ok(),
            _ = every.tick() => {
                events.send(&job, Event::Progress(job.attempt.progress.snapshot().into()));
                if disk.room().await == Some(0) {
                    job.end(EndedBy::Disk);
                }
            }
        }
    };
    let outcome = outcome(&job, result, job.attempt.progress.is_committing());
    let done = job.attempt.progress.snapshot();
    meters::ended(outcome.name, done);
    report(&job, &outcome);
    drop(slot);
    let in_doubt =
        matches!(&outcome.event, Event::Failed(failed) if failed.manifest_may_be_written);
    events.finish(&job, outcome.event);
    in_doubt
}

fn accepted(job: &RunningJob) -> CompactionAccepted {
    CompactionAccepted {
        parallelism: u32::try_from(job.limits.parallelism).unwrap_or(u32::MAX),
        memory_bytes: job.limits.memory_bytes,
    }
}

/// `None`: the work has panicked; `committing`: when it had begun to commit.
fn outcome(
    job: &RunningJob,
    result: Option<Result<CommittedCompaction, EngineError>>,
    committing: bool,
) -> Outcome {
    let (name, refusal, unknown) = match result {
        Some(Ok(committed)) => {
            return Outcome { name: "committed", event: success(job, committed) };
        }
        Some(Err(error)) => {
            let refusal = refusal(job, &error);
            let unknown = matches!(error, EngineError::Unknown { .. });
            (name(refusal.reason, unknown), refusal, unknown)
        }
        None => {
            // What it had begun to commit may stand.
            let message = format!("job {} has panicked: the compactor's log says where", job.id);
            let refusal = Refusal::new(Reason::Internal, message);
            (name(refusal.reason, committing), refusal, committing)
        }
    };
    let event = CompactionFailed {
        reason: refusal.reason.into(),
        message: refusal.message,
        manifest_may_be_written: unknown,
    };
    Outcome { name, event: Event::Failed(event) }
}

/// A job that was ended from here says by what.
fn refusal(job: &RunningJob, error: &EngineError) -> Refusal {
    let refusal = Refusal::from(error);
    let ended_by = match error {
        EngineError::Cancelled { .. } => job.ended_by(),
        _ => None,
    };
    match ended_by {
        None | Some(EndedBy::Cancel) => refusal,
        Some(EndedBy::Drain) => Refusal::new(
            Reason::ShuttingDown,
            format!("job {} is handed back: this compactor stops", job.id),
        ),
        Some(EndedBy::Disk) => Refusal::new(
            Reason::DiskFull,
            format!("job {} was ended: the disk of the object store is filling up", job.id),
        ),
    }
}

fn name(reason: Reason, unknown: bool) -> &'static str {
    match reason {
        _ if unknown => "unknown",
        Reason::InputsGone | Reason::RegionNotFound => "inputs_gone",
        Reason::BelowFloor => "below_floor",
        Reason::JobCancelled | Reason::ShuttingDown => "cancelled",
        _ => "failed",
    }
}

fn success(job: &RunningJob, committed: Committed) -> Event {
    Event::Committed(CompactionCommitted {
        manifest_version: committed.manifest_version.get(),
        files_in: job.inputs.iter().map(Into::into).collect(),
        files_out: committed.outputs.iter().map(Into::into).collect(),
        done: Some(job.attempt.progress.snapshot().into()),
    })
}

fn report(job: &RunningJob, outcome: &Outcome) {
    let done = job.attempt.progress.snapshot();
    let took_ms = job.began.elapsed().as_millis() as u64;
    match &outcome.event {
        Event::Failed(failed) => warn!(
            job = %job.id,
            region = %job.dir,
            source = %job.source,
            outcome = outcome.name,
            reason = ?failed.reason(),
            rows_read = done.rows_read,
            rows_written = done.rows_written,
            took_ms,
            problem = failed.message,
            "compaction ended without a commit"
        ),
        Event::Committed(committed) => info!(
            job = %job.id,
            region = %job.dir,
            source = %job.source,
            outcome = outcome.name,
            manifest_version = committed.manifest_version,
            files_in = committed.files_in.len(),
            files_out = committed.files_out.len(),
            rows_read = done.rows_read,
            rows_written = done.rows_written,
            bytes_written = done.bytes_written,
            took_ms,
            "compaction committed"
        ),
        Event::Accepted(_) | Event::Progress(_) => {}
    }
}

#[cfg(test)]
mod tests;
