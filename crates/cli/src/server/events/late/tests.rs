//! Spools that open late, and tables that take no events.

use std::path::Path;

use tidewater_common::clock::{MonotonicClock, SystemClock};
use tidewater_event_recorder::{EventRecorderOptions, RecorderEnv};
use tidewater_events::testing::TestEvent;
use tidewater_events::{
    EventBatch, EventHandler, Handled, HandlerError, JsonLinesHandler, TypeFilter,
};

use super::*;

/// Intervals of tests that wait for the next attempt.
const OFTEN: UpkeepIntervals =
    UpkeepIntervals { reopen: Duration::from_millis(5), check: Duration::from_millis(5) };

/// Opener of a spool.
fn opener(directory: &Path) -> Opener {
    opener_for(directory, Arc::new(JsonLinesHandler::new(directory)), RecorderEnv::default())
}

fn opener_for(directory: &Path, handler: Arc<dyn EventHandler>, env: RecorderEnv) -> Opener {
    let spool = directory.join("spool");
    Arc::new(move || {
        let options = EventRecorderOptions {
            batch_interval: Duration::from_millis(1),
            first_backoff: Duration::from_millis(5),
            max_backoff: Duration::from_millis(5),
            pause: Duration::from_millis(5),
            ..EventRecorderOptions::default()
        };
        let filter = TypeFilter::default();
        EventRecorderImpl::open(&spool, handler.clone(), filter, options, env.clone())
    })
}

/// Handler of a table that takes events once it is repaired.
#[derive(Debug, Default)]
struct BrokenTable {
    is_repaired: AtomicBool,
}

#[async_trait]
impl EventHandler for BrokenTable {
    async fn handle(&self, _batch: &EventBatch) -> Result<Handled, HandlerError> {
        if self.is_repaired.load(Ordering::Relaxed) {
            return Ok(Handled::default());
        }
        Err(HandlerError("its key is (id)".to_owned()))
    }
}

/// Clock on which an hour passes with each reading.
#[derive(Debug, Default)]
struct FastClock(AtomicU64);

impl MonotonicClock for FastClock {
    fn elapsed(&self) -> Duration {
        Duration::from_secs(3_600 * self.0.fetch_add(1, Ordering::Relaxed))
    }
}

/// Waits until the number of problems is `count`.
async fn wait_for_problems(problems: &ProcessProblems, count: usize) {
    let begun = Instant::now();
    while problems.list().len() != count {
        assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", problems.list());
        tokio::time::sleep(OFTEN.check).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn table_that_takes_no_events_is_reported() {
    let directory = tempfile::tempdir().unwrap();
    let table = Arc::new(BrokenTable::default());
    let env = RecorderEnv::new(Arc::new(SystemClock), Arc::new(FastClock::default()), || [0; 10]);
    let opener = opener_for(directory.path(), table.clone(), env);
    let problems = ProcessProblems::default();
    let recorder = LateRecorder::start(opener, problems.clone(), OFTEN).await;
    assert_eq!(recorded_outcome(&recorder).await, RecordOutcome::Spooled);
    wait_for_problems(&problems, 1).await;
    let problem = problems.list().pop().unwrap();
    assert_eq!(problem.kind, ProblemKind::EventsNotRecorded);
    assert!(problem.detail.ends_with("\"events\": its key is (id)"), "{}", problem.detail);
    table.is_repaired.store(true, Ordering::Relaxed);
    wait_for_problems(&problems, 0).await;
    recorder.close().await;
}

async fn recorded_outcome(recorder: &LateRecorder) -> RecordOutcome {
    recorder.record(&TestEvent::new("door_opened")).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn spool_in_use_is_opened_later() {
    let directory = tempfile::tempdir().unwrap();
    let opener = opener(directory.path());
    let other = opener().unwrap();
    let problems = ProcessProblems::default();
    let recorder = LateRecorder::start(opener, problems.clone(), OFTEN).await;
    assert_eq!(recorded_outcome(&recorder).await, RecordOutcome::Dropped);
    let problem = problems.list().pop().unwrap();
    assert_eq!(problem.kind, ProblemKind::EventsNotRecorded);
    assert!(problem.detail.contains("is in use by another process"), "{}", problem.detail);
    other.close().await;
    drop(other);
    let begun = Instant::now();
    while recorded_outcome(&recorder).await != RecordOutcome::Spooled {
        assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", problems.list());
        tokio::time::sleep(OFTEN.reopen).await;
    }
    wait_for_problems(&problems, 0).await;
    recorder.close().await;
    assert_eq!(recorded_outcome(&recorder).await, RecordOutcome::Closed);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn damaged_spool_does_not_stop_its_process() {
    let directory = tempfile::tempdir().unwrap();
    let spool = directory.path().join("spool");
    std::fs::create_dir(&spool).unwrap();
    std::fs::write(spool.join("CURRENT"), "MANIFEST-000009\n").unwrap();
    let problems = ProcessProblems::default();
    let seldom = UpkeepIntervals { reopen: Duration::from_secs(60), ..OFTEN };
    let recorder = LateRecorder::start(opener(directory.path()), problems.clone(), seldom).await;
    assert_eq!(recorded_outcome(&recorder).await, RecordOutcome::Dropped);
    assert_eq!(problems.list().len(), 1);
    recorder.close().await;
    assert_eq!(recorded_outcome(&recorder).await, RecordOutcome::Closed);
}
