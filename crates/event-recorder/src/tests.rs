//! The recorder with handlers that fail, panic and hang.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use parking_lot::Mutex;
use tidewater_events::testing::TestEvent;
use tidewater_events::*;

use crate::*;

/// Behaviour of a handler for a batch.
type Behaviour = Box<dyn Fn(&EventBatch) -> Reaction + Send + Sync>;

enum Reaction {
    Persist,
    SetAside(usize),
    Fail,
    Panic,
    Hang,
}

/// Handler that keeps the payloads of the events that it persists.
struct TestHandler {
    behaviour: Behaviour,
    persisted: Mutex<Vec<String>>,
    calls: AtomicUsize,
}

impl std::fmt::Debug for TestHandler {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("TestHandler")
    }
}

impl TestHandler {
    fn new(behaviour: impl Fn(&EventBatch) -> Reaction + Send + Sync + 'static) -> Arc<Self> {
        Arc::new(Self {
            behaviour: Box::new(behaviour),
            persisted: Mutex::default(),
            calls: AtomicUsize::new(0),
        })
    }

    fn persisted(&self) -> Vec<String> {
        self.persisted.lock().clone()
    }
}

#[async_trait]
impl EventHandler for TestHandler {
    async fn handle(&self, batch: &EventBatch) -> Result<Handled, HandlerError> {
        self.calls.fetch_add(1, Ordering::Relaxed);
        let mut handled = Handled::default();
        match (self.behaviour)(batch) {
            Reaction::Persist => {}
            Reaction::SetAside(at) => {
                handled.set_aside.push((batch.events()[at].id, "it does not fit".to_owned()));
            }
            Reaction::Fail => return Err(HandlerError("no cluster".to_owned())),
            Reaction::Panic => panic!("a defect of the handler"),
            Reaction::Hang => std::future::pending().await,
        }
        let set_aside: BTreeSet<_> = handled.set_aside.iter().map(|(id, _)| *id).collect();
        let events = batch.events().iter().filter(|event| !set_aside.contains(&event.id));
        self.persisted.lock().extend(events.map(|event| event.payload.clone()));
        Ok(handled)
    }
}

fn options() -> EventRecorderOptions {
    EventRecorderOptions {
        batch_interval: Duration::from_millis(10),
        first_backoff: Duration::from_millis(1),
        max_backoff: Duration::from_millis(2),
        pause: Duration::from_millis(5),
        handle_timeout: Duration::from_millis(200),
        ..EventRecorderOptions::default()
    }
}

fn open_with(
    directory: &Path,
    handler: &Arc<TestHandler>,
    options: EventRecorderOptions,
) -> EventRecorderImpl {
    let handler: Arc<dyn EventHandler> = handler.clone();
    let filter = TypeFilter::parse("!noise").unwrap();
    EventRecorderImpl::open(directory, handler, filter, options, RecorderEnv::default()).unwrap()
}

fn open(directory: &Path, handler: &Arc<TestHandler>) -> EventRecorderImpl {
    open_with(directory, handler, options())
}

/// Opens the spool of a recorder whose tasks end on their own.
async fn reopen(
    directory: &Path,
    handler: &Arc<TestHandler>,
    options: EventRecorderOptions,
) -> EventRecorderImpl {
    let begun = Instant::now();
    loop {
        let shared: Arc<dyn EventHandler> = handler.clone();
        let (filter, env) = (TypeFilter::default(), RecorderEnv::default());
        match EventRecorderImpl::open(directory, shared, filter, options.clone(), env) {
            Ok(recorder) => return recorder,
            Err(OpenError::Spool(SpoolError::InUse { .. }))
                if begun.elapsed() < Duration::from_secs(20) =>
            {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            Err(error) => panic!("{error}"),
        }
    }
}

async fn record_all(recorder: &EventRecorderImpl, numbers: std::ops::Range<usize>) {
    for number in numbers {
        let outcome = recorder.record(&TestEvent::numbered(number)).await;
        assert_eq!(outcome, RecordOutcome::Spooled);
    }
}

fn texts(numbers: impl IntoIterator<Item = usize>) -> Vec<String> {
    numbers.into_iter().map(|number| number.to_string()).collect()
}

async fn until(condition: impl Fn() -> bool) {
    let begun = Instant::now();
    while !condition() {
        assert!(begun.elapsed() < Duration::from_secs(20), "the condition was not met");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

#[tokio::test]
async fn recorded_events_are_persisted_in_order() {
    let directory = tempfile::tempdir().unwrap();
    let handler = TestHandler::new(|_| Reaction::Persist);
    let recorder = open(directory.path(), &handler);
    record_all(&recorder, 0..250).await;
    recorder.close().await;
    assert_eq!(handler.persisted(), texts(0..250));
    let counts = recorder.counts();
    assert_eq!((counts.recorded, counts.spooled, counts.written), (250, 250, 250));
    assert_eq!(recorder.record(&TestEvent::numbered(1)).await, RecordOutcome::Closed);
    recorder.close().await;
}

#[tokio::test]
async fn closing_without_events_calls_no_handler() {
    let directory = tempfile::tempdir().unwrap();
    let handler = TestHandler::new(|_| Reaction::Panic);
    let recorder = open(directory.path(), &handler);
    recorder.close().await;
    assert_eq!(handler.calls.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn spooled_events_survive_a_dropped_recorder() {
    let directory = tempfile::tempdir().unwrap();
    let failing = TestHandler::new(|_| Reaction::Fail);
    let recorder = open(directory.path(), &failing);
    record_all(&recorder, 0..30).await;
    until(|| failing.calls.load(Ordering::Relaxed) > 5).await;
    assert!(recorder.counts().retried > 4);
    drop(recorder);

    let handler = TestHandler::new(|_| Reaction::Persist);
    let recorder = reopen(directory.path(), &handler, options()).await;
    record_all(&recorder, 30..40).await;
    recorder.close().await;
    assert_eq!(handler.persisted(), texts(0..40));
    assert_eq!(recorder.spooled_events(), 0);
}

#[tokio::test]
async fn invalid_and_filtered_events_are_counted() {
    let directory = tempfile::tempdir().unwrap();
    let handler = TestHandler::new(|_| Reaction::Persist);
    let recorder = open(directory.path(), &handler);
    for event in [
        TestEvent::new("noise"),
        TestEvent::new("no type"),
        TestEvent { fails: true, ..TestEvent::new("a") },
        TestEvent { payload: "{".to_owned(), ..TestEvent::new("a") },
        TestEvent { payload: format!("\"{}\"", "x".repeat(10 << 20)), ..TestEvent::new("a") },
    ] {
        assert_eq!(recorder.record(&event).await, RecordOutcome::Filtered);
    }
    recorder.close().await;
    assert_eq!((recorder.counts().filtered, recorder.counts().spooled), (5, 0));
}

#[tokio::test]
async fn event_that_cannot_be_written_holds_up_no_other() {
    let directory = tempfile::tempdir().unwrap();
    let position =
        |batch: &EventBatch| batch.events().iter().position(|event| event.payload == "13");
    let handler = TestHandler::new(move |batch| match position(batch) {
        Some(at) => Reaction::SetAside(at),
        None => Reaction::Persist,
    });
    let recorder = open(directory.path(), &handler);
    record_all(&recorder, 0..30).await;
    recorder.close().await;
    assert_eq!(handler.persisted(), texts((0..30).filter(|number| *number != 13)));
    assert_eq!((recorder.counts().written, recorder.counts().set_aside), (29, 1));
    let file = directory.path().join(set_aside::SET_ASIDE_FILE);
    let text = std::fs::read_to_string(file).unwrap();
    assert!(text.contains("it does not fit") && text.contains("\"payload\":13"), "{text}");
}

#[tokio::test]
async fn event_that_panics_the_handler_is_set_aside() {
    let directory = tempfile::tempdir().unwrap();
    let handler = TestHandler::new(|batch| {
        let has_poison = batch.events().iter().any(|event| event.payload == "13");
        if has_poison { Reaction::Panic } else { Reaction::Persist }
    });
    let recorder = open(directory.path(), &handler);
    record_all(&recorder, 0..30).await;
    until(|| recorder.spooled_events() == 0).await;
    recorder.close().await;
    assert_eq!(handler.persisted(), texts((0..30).filter(|number| *number != 13)));
    assert_eq!(recorder.counts().set_aside, 1);
}

#[tokio::test]
async fn hanging_table_holds_up_no_other_table() {
    let directory = tempfile::tempdir().unwrap();
    let handler = TestHandler::new(|batch| match batch.table() {
        "events" => Reaction::Persist,
        _ => Reaction::Hang,
    });
    let options = EventRecorderOptions { close_timeout: Duration::from_millis(500), ..options() };
    let recorder = open_with(directory.path(), &handler, options);
    let hanging = TestEvent { table: "audit".to_owned(), ..TestEvent::numbered(1) };
    assert_eq!(recorder.record(&hanging).await, RecordOutcome::Spooled);
    record_all(&recorder, 0..300).await;
    until(|| handler.persisted().len() == 300).await;
    until(|| recorder.counts().retried > 0).await;
    recorder.close().await;
    assert_eq!(recorder.spooled_events(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_for_a_table_do_not_overlap() {
    let directory = tempfile::tempdir().unwrap();
    let active = Arc::new(AtomicUsize::new(0));
    let most = Arc::new(AtomicUsize::new(0));
    let (now, greatest) = (Arc::clone(&active), Arc::clone(&most));
    let calls = AtomicUsize::new(0);
    let handler = TestHandler::new(move |_| {
        greatest.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
        if calls.fetch_add(1, Ordering::SeqCst) == 0 {
            // Blocks its thread beyond the timeout of the call.
            std::thread::sleep(Duration::from_millis(500));
        }
        now.fetch_sub(1, Ordering::SeqCst);
        Reaction::Persist
    });
    let recorder = open(directory.path(), &handler);
    record_all(&recorder, 0..5).await;
    until(|| recorder.spooled_events() == 0).await;
    assert_eq!(most.load(Ordering::SeqCst), 1);
    recorder.close().await;
}

#[tokio::test]
async fn flood_stays_within_the_limits() {
    let directory = tempfile::tempdir().unwrap();
    let handler = TestHandler::new(|_| Reaction::Hang);
    let options = EventRecorderOptions {
        queue_events: 100,
        max_event_bytes: 10_000,
        spool_bytes: 40_000,
        handle_timeout: Duration::from_secs(60),
        close_timeout: Duration::from_millis(1_500),
        ..options()
    };
    // Summaries have some room of their own.
    let limit = options.spool_bytes + 65_536;
    let recorder = open_with(directory.path(), &handler, options.clone());
    let payload = format!("\"{}\"", "x".repeat(1_000));
    let event =
        |priority| TestEvent { payload: payload.clone(), priority, ..TestEvent::new("flood") };
    let mut outcomes = Vec::new();
    for n in 0..3_000 {
        let priority = if n % 3 == 0 { Priority::Normal } else { Priority::Low };
        outcomes.push(recorder.record(&event(priority)));
        assert!(recorder.spooled_bytes() <= limit);
        if n % 50 == 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
    let mut dropped = 0;
    let mut spooled = 0;
    for outcome in outcomes {
        match outcome.await {
            RecordOutcome::Dropped => dropped += 1,
            RecordOutcome::Spooled => spooled += 1,
            other => panic!("{other:?}"),
        }
    }
    recorder.close().await;
    let counts = recorder.counts();
    assert_eq!((counts.recorded, counts.spooled), (3_000, spooled));
    assert!(dropped > 1_000, "{dropped}");
    // Events that were spooled and evicted later are counted as well.
    assert!(counts.dropped >= dropped, "{counts:?}");
    drop(recorder);

    let summaries = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&summaries);
    let handler = TestHandler::new(move |batch| {
        let dropped =
            batch.events().iter().filter(|event| event.event_type == intake::DROPPED_TYPE);
        seen.lock().extend(dropped.map(|event| event.payload.clone()));
        Reaction::Persist
    });
    let recorder = reopen(directory.path(), &handler, options).await;
    recorder.close().await;
    let reported: u64 = summaries
        .lock()
        .iter()
        .map(|payload| serde_json::from_str::<serde_json::Value>(payload).unwrap())
        .map(|payload| payload["dropped"].as_u64().unwrap())
        .sum();
    assert_eq!(reported, counts.dropped);
    assert_eq!(recorder.spooled_events(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn recording_does_not_wait_for_the_handler() {
    let directory = tempfile::tempdir().unwrap();
    let handler = TestHandler::new(|_| Reaction::Hang);
    let recorder = open(directory.path(), &handler);
    let mut times: Vec<Duration> = (0..5_000)
        .map(|number| {
            let event = TestEvent::numbered(number);
            let begun = Instant::now();
            let _receipt = recorder.record(&event);
            begun.elapsed()
        })
        .collect();
    times.sort();
    let (median, p99) = (times[times.len() / 2], times[times.len() * 99 / 100]);
    eprintln!("5,000 events were recorded within {median:?} (median) and {p99:?} (99 %) each");
    // 20 us for 99 % when optimized (V2). This build is not, and its thread loses the processor to other tests.
    assert!(median < Duration::from_millis(1), "{median:?}");
}
