//! Recorder of a process that starts also when the event spool cannot be opened, and reports what it does not record.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use async_trait::async_trait;
use tidewater_common::problem::Problem;
use tidewater_common::problems::ProcessProblems;
use tidewater_event_recorder::{EventRecorderImpl, OpenError};
use tidewater_events::{Event, EventRecorder, Receipt, RecordOutcome};
use tidewater_proto::v1::ProblemKind;
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::task::AbortOnDropHandle;

use super::health::RecorderHealth;
use crate::server::meters;

/// Part of the process that reports the problem.
const PART: &str = "events";

/// Opens the recorder. Blocking.
pub(crate) type Opener = Arc<dyn Fn() -> Result<EventRecorderImpl, OpenError> + Send + Sync>;

/// Intervals of a recorder's upkeep.
#[derive(Debug, Clone, Copy)]
pub(crate) struct UpkeepIntervals {
    /// Interval of attempts to open the spool.
    pub(crate) reopen: Duration,
    /// Interval of checks of the open recorder.
    pub(crate) check: Duration,
}

/// Recorder that drops events while its spool cannot be opened, and tries to open it again.
#[derive(Debug)]
pub(crate) struct LateRecorder {
    state: Arc<State>,
    upkeep: AbortOnDropHandle<()>,
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
    /// Opens the recorder. If that fails, the problem is reported, and a task tries again. The task also reports the
    /// problems of the open recorder.
    pub(crate) async fn start(
        opener: Opener,
        problems: ProcessProblems,
        intervals: UpkeepIntervals,
    ) -> Self {
        let state = Arc::<State>::default();
        let failing = match open(&opener).await {
            Ok(recorder) => {
                // The state is new.
                let _ = state.recorder.set(recorder);
                None
            }
            Err(reason) => {
                let failing = Failing { begun: Instant::now(), reason };
                failing.log();
                problems.set(PART, Some(failing.problem(0)));
                Some(failing)
            }
        };
        let shared = Arc::clone(&state);
        let upkeep = async move {
            if let Some(failing) = failing {
                reopen(&shared, opener, &problems, intervals.reopen, failing).await;
            }
            check(&shared, &problems, intervals.check).await;
        };
        Self { state, upkeep: AbortOnDropHandle::new(tokio::spawn(upkeep)) }
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
        self.upkeep.abort();
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
    state: &State,
    opener: Opener,
    problems: &ProcessProblems,
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

/// Reports the problems of the open recorder.
async fn check(state: &State, problems: &ProcessProblems, interval: Duration) {
    let Some(recorder) = state.recorder.get() else { return };
    let mut health = RecorderHealth::default();
    let mut ticks = tokio::time::interval(interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let failing = recorder.failing_table();
        let dropped = recorder.counts().dropped;
        problems.set(PART, health.problem(dropped, failing.as_ref(), Instant::now()));
    }
}

#[cfg(test)]
mod tests;
