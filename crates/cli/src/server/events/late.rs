//! Recorder of a process that starts also when the event spool cannot be opened.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use async_trait::async_trait;
use tidewater_common::problem::Problem;
use tidewater_common::problems::ProcessProblems;
use tidewater_event_recorder::{EventRecorderImpl, OpenError};
use tidewater_events::{Event, EventRecorder, Receipt, RecordOutcome};
use tidewater_proto::v1::ProblemKind;
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

use crate::server::meters;

/// Part of the process that reports the problem.
const PART: &str = "events";

/// Opens the recorder. Blocking.
pub(crate) type Opener = Arc<dyn Fn() -> Result<EventRecorderImpl, OpenError> + Send + Sync>;

/// Recorder that drops events while its spool cannot be opened, and tries to open it again.
#[derive(Debug)]
pub(crate) struct LateRecorder {
    state: Arc<State>,
    /// `None`: the spool was opened at the start.
    reopening: Option<AbortOnDropHandle<()>>,
}

#[derive(Debug, Default)]
struct State {
    /// Set once the spool is open.
    recorder: OnceLock<EventRecorderImpl>,
    is_closed: AtomicBool,
    /// Events that were dropped because the spool was not open.
    dropped: AtomicU64,
}

impl LateRecorder {
    /// Opens the recorder. If that fails, the problem is reported, and a task tries again in this interval.
    pub(crate) async fn start(
        opener: Opener,
        problems: ProcessProblems,
        interval: Duration,
    ) -> Self {
        let state = Arc::<State>::default();
        let reopening = match open(&opener).await {
            Ok(recorder) => {
                // The state is new.
                let _ = state.recorder.set(recorder);
                None
            }
            Err(reason) => {
                let failing = Failing { begun: Instant::now(), reason };
                failing.log();
                problems.set(PART, Some(failing.problem(0)));
                let state = Arc::clone(&state);
                let task = reopen(state, opener, problems, interval, failing);
                Some(AbortOnDropHandle::new(tokio::spawn(task)))
            }
        };
        Self { state, reopening }
    }
}

#[async_trait]
impl EventRecorder for LateRecorder {
    fn record(&self, event: &dyn Event) -> Receipt {
        if let Some(recorder) = self.state.recorder.get() {
            return recorder.record(event);
        }
        if self.state.is_closed.load(Ordering::Relaxed) {
            return Receipt::known(RecordOutcome::Closed);
        }
        self.state.dropped.fetch_add(1, Ordering::Relaxed);
        meters::record_unspooled_event();
        Receipt::known(RecordOutcome::Dropped)
    }

    async fn close(&self) {
        self.state.is_closed.store(true, Ordering::Relaxed);
        if let Some(reopening) = &self.reopening {
            reopening.abort();
        }
        if let Some(recorder) = self.state.recorder.get() {
            recorder.close().await;
        }
    }
}

/// A spool that cannot be opened.
struct Failing {
    begun: Instant,
    reason: String,
}

impl Failing {
    fn log(&self) {
        let Self { reason, .. } = self;
        tracing::warn!(reason, "events are not recorded: the event spool cannot be opened");
    }

    fn problem(&self, dropped: u64) -> Problem {
        let detail =
            format!("its events are not recorded, {dropped} were dropped so far: {}", self.reason);
        Problem::new(ProblemKind::EventsNotRecorded, detail).lasting(self.begun.elapsed())
    }
}

async fn open(opener: &Opener) -> Result<EventRecorderImpl, String> {
    let opener = Arc::clone(opener);
    match tokio::task::spawn_blocking(move || opener()).await {
        Ok(opened) => opened.map_err(|error| error.to_string()),
        Err(error) => Err(error.to_string()),
    }
}

/// Opens the recorder as soon as that succeeds.
async fn reopen(
    state: Arc<State>,
    opener: Opener,
    problems: ProcessProblems,
    interval: Duration,
    mut failing: Failing,
) {
    loop {
        tokio::time::sleep(interval).await;
        let opened = open(&opener).await;
        let dropped = state.dropped.load(Ordering::Relaxed);
        match opened {
            Ok(recorder) => {
                // This task alone sets it.
                let _ = state.recorder.set(recorder);
                tracing::info!(dropped, "event spool opened: events are recorded");
                problems.set(PART, None);
                return;
            }
            Err(reason) => {
                if reason != failing.reason {
                    failing.reason = reason;
                    failing.log();
                }
                problems.set(PART, Some(failing.problem(dropped)));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use tidewater_event_recorder::{EventRecorderOptions, RecorderEnv};
    use tidewater_events::testing::TestEvent;
    use tidewater_events::{JsonLinesHandler, TypeFilter};

    use super::*;

    /// Opener of a spool.
    fn opener(directory: &Path) -> Opener {
        let handler = Arc::new(JsonLinesHandler::new(directory));
        let spool = directory.join("spool");
        Arc::new(move || {
            let options = EventRecorderOptions {
                batch_interval: Duration::from_millis(1),
                ..EventRecorderOptions::default()
            };
            let filter = TypeFilter::default();
            let env = RecorderEnv::default();
            EventRecorderImpl::open(&spool, handler.clone(), filter, options, env)
        })
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
        let interval = Duration::from_millis(5);
        let recorder = LateRecorder::start(opener, problems.clone(), interval).await;
        assert_eq!(recorded_outcome(&recorder).await, RecordOutcome::Dropped);
        let problem = problems.list().pop().unwrap();
        assert_eq!(problem.kind, ProblemKind::EventsNotRecorded);
        assert!(problem.detail.contains("is in use by another process"), "{}", problem.detail);
        other.close().await;
        drop(other);
        let begun = Instant::now();
        while recorded_outcome(&recorder).await != RecordOutcome::Spooled {
            assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", problems.list());
            tokio::time::sleep(interval).await;
        }
        while !problems.list().is_empty() {
            assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", problems.list());
            tokio::time::sleep(interval).await;
        }
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
        let interval = Duration::from_secs(60);
        let recorder =
            LateRecorder::start(opener(directory.path()), problems.clone(), interval).await;
        assert_eq!(recorded_outcome(&recorder).await, RecordOutcome::Dropped);
        assert_eq!(problems.list().len(), 1);
        recorder.close().await;
        assert_eq!(recorded_outcome(&recorder).await, RecordOutcome::Closed);
    }
}
