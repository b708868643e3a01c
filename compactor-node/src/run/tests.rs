use std::sync::Arc;
use std::task::{Context, Wake, Waker};

use parking_lot::Mutex;
use tidewater_common::ids::{Epoch, ManifestVersion, NodeId};
use tidewater_region_engine::compaction::{CompactionLimits, Scope};
use tidewater_region_engine::layout::RegionObject;
use tidewater_region_engine::storage::Operation;
use tidewater_region_engine::storage::testing::{Fault, FaultyStore};
use tokio::time::Instant;

use super::*;
use crate::admission::Capacity;
use crate::jobs::Jobs;
use crate::testing::{job, plan, region};

async fn slot() -> (Arc<Jobs>, Slot) {
    let jobs = Jobs::new(Capacity { slots: 1, memory_bytes: 1 << 30 });
    let wanted = CompactionLimits { parallelism: 1, memory_bytes: u64::MAX };
    let slot = jobs.begin(&job().await, wanted, None, (1, NodeId(101)), Instant::now()).unwrap();
    (jobs, slot)
}

fn nothing() -> Committed {
    CommittedCompaction { manifest_version: ManifestVersion(7), outputs: Vec::new() }
}

async fn last(mut events: mpsc::Receiver<Sent>) -> (usize, Event) {
    let (mut count, mut last) = (0, None);
    while let Some(event) = events.recv().await {
        (count, last) = (count + 1, event.unwrap().event);
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
async fn a_panic_frees_the_slot_and_is_told() {
    let (jobs, slot) = slot().await;
    let (events, receiver) = Events::channel();
    let work = async { panic!("a bug") };
    assert!(!run(work, slot, &Disk::of("memory:///", 0), events).await, "nothing is in doubt");
    assert_eq!(jobs.in_use().jobs, 0);
    let (_, event) = last(receiver).await;
    let (reason, may_be_written, message) = failure(event);
    assert_eq!((reason, may_be_written), (Reason::Internal, false));
    assert!(message.contains("panicked"), "{message}");
}

#[tokio::test]
async fn a_panic_while_it_commits_leaves_the_outcome_open() {
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
        Ok(nothing())
    };
    let (events, receiver) = Events::channel();
    assert!(run(work, slot, &Disk::of("memory:///", 0), events).await, "in doubt");
    let (reason, may_be_written, message) = failure(last(receiver).await.1);
    assert_eq!((reason, may_be_written), (Reason::Internal, true), "{message}");
}

/// Notes how many jobs there are whenever it is woken.
struct Woken(Arc<Jobs>, Mutex<Vec<usize>>);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.1.lock().push(self.0.in_use().jobs);
    }
}

#[tokio::test]
async fn the_slot_is_free_before_anybody_is_told() {
    let (jobs, slot) = slot().await;
    let (events, mut receiver) = Events::channel();
    let woken = Arc::new(Woken(jobs, Mutex::default()));
    let waker = Waker::from(woken.clone());
    let mut context = Context::from_waker(&waker);
    let work = async {
        // It was accepted; then nothing is there yet.
        assert!(receiver.poll_recv(&mut context).is_ready());
        assert!(receiver.poll_recv(&mut context).is_pending());
        Ok(nothing())
    };
    let _ = run(work, slot, &Disk::of("memory:///", 0), events).await;
    assert_eq!(*woken.1.lock(), [0]);
}

#[tokio::test]
async fn a_caller_that_does_not_read_hears_the_end() {
    let (_, slot) = slot().await;
    tokio::time::pause();
    let (events, receiver) = Events::channel();
    let work = async {
        tokio::time::sleep(PROGRESS * 100).await;
        Ok(nothing())
    };
    let _ = run(work, slot, &Disk::of("memory:///", 0), events).await;
    let (count, event) = last(receiver).await;
    assert_eq!(count, EVENTS);
    assert!(matches!(event, Event::Committed(committed) if committed.manifest_version == 7));
}

#[tokio::test]
async fn a_job_goes_on_when_its_caller_has_gone_away() {
    let (_, slot) = slot().await;
    let job = slot.job.clone();
    tokio::time::pause();
    let (events, receiver) = Events::channel();
    drop(receiver);
    let work = async {
        tokio::time::sleep(PROGRESS * 10).await;
        assert!(!job.attempt.cancel.is_cancelled());
        Ok(nothing())
    };
    let _ = run(work, slot, &Disk::of("memory:///", 0), events).await;
    assert_eq!(job.ended_by(), None);
}

#[tokio::test]
async fn a_disk_that_fills_up_ends_the_job() {
    let (_, slot) = slot().await;
    let job = slot.job.clone();
    let dir = tempfile::tempdir().unwrap();
    let disk = Disk::of(&format!("file://{}", dir.path().display()), u64::MAX);
    let (events, receiver) = Events::channel();
    let work = async {
        job.attempt.cancel.cancelled().await;
        Err(EngineError::Cancelled { region: job.dir.region_id, job: job.id })
    };
    let _ = run(work, slot, &disk, events).await;
    let (reason, may_be_written, _) = failure(last(receiver).await.1);
    assert_eq!((reason, may_be_written), (Reason::DiskFull, false));
}

#[tokio::test]
async fn every_end_has_its_reason_and_its_name() {
    let (_, slot) = slot().await;
    let (job, region) = (&slot.job, slot.job.dir.region_id);
    let ended = |error| {
        let outcome = outcome(job, Some(Err(error)), true);
        let (reason, may_be_written, _) = failure(outcome.event);
        (outcome.name, reason, may_be_written)
    };
    let cancelled = || EngineError::Cancelled { region, job: job.id };
    assert_eq!(ended(cancelled()), ("cancelled", Reason::JobCancelled, false));
    let damaged = EngineError::Damaged { object: "o".into(), detail: "x".into() };
    assert_eq!(ended(damaged), ("failed", Reason::Corrupt, false));
    job.end(EndedBy::Drain);
    assert_eq!(ended(cancelled()), ("cancelled", Reason::ShuttingDown, false));
    // It was told to end, and failed by itself.
    let removed = ended(EngineError::Removed { region });
    assert_eq!(removed, ("inputs_gone", Reason::RegionNotFound, false));
    let version = ManifestVersion(9);
    let in_doubt = EngineError::Unknown { region, version, detail: "x".into() };
    assert_eq!(ended(in_doubt), ("unknown", Reason::Unavailable, true));
    assert_eq!(outcome(job, Some(Ok(nothing())), true).name, "committed");
    for committing in [false, true] {
        let panicked = failure(outcome(job, None, committing).event);
        assert_eq!((panicked.0, panicked.1), (Reason::Internal, committing));
    }
    for (reason, unknown, expected) in [
        (Reason::InputsGone, false, "inputs_gone"),
        (Reason::BelowFloor, false, "below_floor"),
        (Reason::RegionNotFound, false, "inputs_gone"),
        (Reason::Unavailable, true, "unknown"),
        (Reason::Unavailable, false, "failed"),
    ] {
        assert_eq!(name(reason, unknown), expected);
    }
}
