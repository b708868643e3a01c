use std::sync::Arc;
use std::task::{Context, Wake, Waker};

use parking_lot::Mutex;
use tidewater_common::ids::{Epoch, ManifestVersion, NodeId};
use tidewater_region_engine::compaction::admission::JobCapacity;
use tidewater_region_engine::compaction::{CompactionLimits, Scope};
use tidewater_region_engine::layout::RegionObject;
use tidewater_region_engine::storage::Operation;
use tidewater_region_engine::storage::testing::{Fault, FaultyStore};
use tokio::time::Instant;

use super::*;
use crate::jobs::JobTable;
use crate::testing::{job, plan, region};

async fn slot() -> (Arc<JobTable>, JobSlot) {
    let jobs = JobTable::new(JobCapacity { slots: 1, sub_jobs: 1, memory_bytes: 1 << 30 });
    let requested = CompactionLimits { parallelism: 1, memory_bytes: u64::MAX };
    let slot = jobs.start(&job().await, requested, None, (1, NodeId(101)), Instant::now()).unwrap();
    (jobs, slot)
}

fn empty_commit() -> CommittedCompaction {
    CommittedCompaction { manifest_version: ManifestVersion(7), outputs: Vec::new() }
}

async fn last(mut events: mpsc::Receiver<EventMessage>) -> (usize, Event) {
    let mut count = 0;
    let mut last = None;
    while let Some(event) = events.recv().await {
        count += 1;
        last = event.unwrap().event;
    }
    (count, last.unwrap())
}

fn failure(event: Event) -> (Reason, bool, String) {
    match event {
        Event::Failed(failed) => (failed.reason(), failed.manifest_may_be_written, failed.message),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn panicked_job_releases_its_slot_and_reports_an_error() {
    let (jobs, slot) = slot().await;
    let (events, receiver) = EventSender::channel();
    let work = async { panic!("a bug") };
    assert!(
        !run(work, slot, &StoreDisk::new("memory:///", 0), events).await,
        "the outcome is known"
    );
    assert_eq!(jobs.in_use().jobs, 0);
    let (_, event) = last(receiver).await;
    let (reason, may_be_written, message) = failure(event);
    assert_eq!((reason, may_be_written), (Reason::Internal, false));
    assert!(message.contains("panicked"), "{message}");
}

#[tokio::test]
async fn panic_during_a_commit_has_an_unknown_outcome() {
    let (_, slot) = slot().await;
    let store = FaultyStore::new();
    let region = region(store.storage(), 9, &[0..10, 5..15]).await;
    let dir = plan(&region).await.dir;
    store.plan(move |call| {
        let writes_data = matches!(dir.object(&call.path), RegionObject::Data(_));
        assert!(writes_data || call.operation != Operation::PutIfAbsent, "a bug");
        Fault::None
    });
    let attempt = slot.job.attempt.clone();
    let work = async {
        region.compact(Scope::Whole, Epoch(0), &attempt).await?;
        Ok(empty_commit())
    };
    let (events, receiver) = EventSender::channel();
    assert!(
        run(work, slot, &StoreDisk::new("memory:///", 0), events).await,
        "the outcome is unknown"
    );
    let (reason, may_be_written, message) = failure(last(receiver).await.1);
    assert_eq!((reason, may_be_written), (Reason::Internal, true), "{message}");
}

/// Records the number of running jobs at each wake-up.
struct WakeRecorder(Arc<JobTable>, Mutex<Vec<usize>>);

impl Wake for WakeRecorder {
    fn wake(self: Arc<Self>) {
        self.1.lock().push(self.0.in_use().jobs);
    }
}

#[tokio::test]
async fn slot_is_released_before_the_last_event() {
    let (jobs, slot) = slot().await;
    let (events, mut receiver) = EventSender::channel();
    let woken = Arc::new(WakeRecorder(jobs, Mutex::default()));
    let waker = Waker::from(woken.clone());
    let mut context = Context::from_waker(&waker);
    let work = async {
        // Only the accepted event is in the queue.
        assert!(receiver.poll_recv(&mut context).is_ready());
        assert!(receiver.poll_recv(&mut context).is_pending());
        Ok(empty_commit())
    };
    let _ = run(work, slot, &StoreDisk::new("memory:///", 0), events).await;
    assert_eq!(*woken.1.lock(), [0]);
}

#[tokio::test]
async fn slow_caller_receives_the_last_event() {
    let (_, slot) = slot().await;
    tokio::time::pause();
    let (events, receiver) = EventSender::channel();
    let work = async {
        tokio::time::sleep(PROGRESS * 100).await;
        Ok(empty_commit())
    };
    let _ = run(work, slot, &StoreDisk::new("memory:///", 0), events).await;
    let (count, event) = last(receiver).await;
    assert_eq!(count, EVENTS);
    assert!(matches!(event, Event::Committed(committed) if committed.manifest_version == 7));
}

#[tokio::test]
async fn job_continues_after_its_caller_disconnects() {
    let (_, slot) = slot().await;
    let job = slot.job.clone();
    tokio::time::pause();
    let (events, receiver) = EventSender::channel();
    drop(receiver);
    let work = async {
        tokio::time::sleep(PROGRESS * 10).await;
        assert!(!job.attempt.cancel.is_cancelled());
        Ok(empty_commit())
    };
    let _ = run(work, slot, &StoreDisk::new("memory:///", 0), events).await;
    assert_eq!(job.ended_by(), None);
}

#[tokio::test]
async fn full_disk_aborts_the_job() {
    let (_, slot) = slot().await;
    let job = slot.job.clone();
    let dir = tempfile::tempdir().unwrap();
    let disk = StoreDisk::new(&format!("file://{}", dir.path().display()), u64::MAX);
    let (events, receiver) = EventSender::channel();
    let work = async {
        job.attempt.cancel.cancelled().await;
        Err(EngineError::Cancelled { region: job.dir.region_id, job: job.id })
    };
    let _ = run(work, slot, &disk, events).await;
    let (reason, may_be_written, _) = failure(last(receiver).await.1);
    assert_eq!((reason, may_be_written), (Reason::DiskFull, false));
}

#[tokio::test]
async fn job_outcomes_have_their_reasons_and_names() {
    let (_, slot) = slot().await;
    let job = &slot.job;
    let region = slot.job.dir.region_id;
    let ended = |error| {
        let outcome = job_outcome(job, Some(Err(error)), true);
        let (reason, may_be_written, _) = failure(outcome.event);
        (outcome.name, reason, may_be_written)
    };
    let cancelled = || EngineError::Cancelled { region, job: job.id };
    assert_eq!(ended(cancelled()), ("cancelled", Reason::JobCancelled, false));
    let damaged = EngineError::Damaged { object: "o".into(), detail: "x".into() };
    assert_eq!(ended(damaged), ("failed", Reason::FileDamaged, false));
    job.end(EndCause::Drain);
    assert_eq!(ended(cancelled()), ("cancelled", Reason::ShuttingDown, false));
    // The job was aborted, but failed for a reason of its own.
    let removed = ended(EngineError::Removed { region });
    assert_eq!(removed, ("inputs_gone", Reason::RegionNotFound, false));
    let version = ManifestVersion(9);
    let unknown = EngineError::Unknown { region, version, detail: "x".into() };
    assert_eq!(ended(unknown), ("unknown", Reason::Unavailable, true));
    assert_eq!(job_outcome(job, Some(Ok(empty_commit())), true).name, "committed");
    for committing in [false, true] {
        let panicked = failure(job_outcome(job, None, committing).event);
        assert_eq!((panicked.0, panicked.1), (Reason::Internal, committing));
    }
    for (reason, unknown, expected) in [
        (Reason::InputsGone, false, "inputs_gone"),
        (Reason::BelowFloor, false, "below_floor"),
        (Reason::RegionNotFound, false, "inputs_gone"),
        (Reason::RouteWriteFenced, false, "inputs_gone"),
        (Reason::Unavailable, true, "unknown"),
        (Reason::Unavailable, false, "failed"),
    ] {
        assert_eq!(outcome_name(reason, unknown), expected);
    }
}
