//! The recorder with handlers that fail, panic and hang.

mod failures;
mod flood;
mod late_notes;
mod recording;

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
        let filter = TypeFilter::default();
        let env = RecorderEnv::default();
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
