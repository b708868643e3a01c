//! The recorder.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use async_trait::async_trait;
use tidewater_events::{
    Event, EventHandler, EventRecorder, Receipt, RecordOutcome, RecordedEvent, TypeFilter,
};
use tokio::sync::{Mutex, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout, timeout_at};

use crate::counters::{Counters, EventCounts};
use crate::env::RecorderEnv;
use crate::failing::{FailingTable, FailingTables};
use crate::intake::Intake;
use crate::options::{EventRecorderOptions, OptionError};
use crate::problem_log::ProblemLog;
use crate::queue::Queue;
use crate::set_aside::SetAsideFile;
use crate::shipper::{self, Shipper};
use crate::spool::{Spool, SpoolError, SpoolSizes};

/// Time that an aborted task has to end: until its next await.
const ABORT: Duration = Duration::from_secs(1);

/// Longest wait until no thread uses the spool any more.
const CLOSE_DATABASE: Duration = Duration::from_secs(5);

/// Reason why a recorder cannot be opened.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// An option is out of its range.
    #[error(transparent)]
    Option(#[from] OptionError),
    /// The spool cannot be opened.
    #[error(transparent)]
    Spool(#[from] SpoolError),
    /// The system has no room for a thread.
    #[error("no thread for the event recorder: {0}")]
    Thread(String),
}

/// Recorder with a spool on disk. Dropping it leaves the events in the spool.
#[derive(Debug)]
pub struct EventRecorderImpl {
    options: EventRecorderOptions,
    filter: TypeFilter,
    env: RecorderEnv,
    queue: Arc<Queue>,
    sizes: watch::Receiver<SpoolSizes>,
    counters: Arc<Counters>,
    problems: Arc<ProblemLog>,
    failing: Arc<FailingTables>,
    closing: watch::Sender<bool>,
    intake_ended: watch::Receiver<()>,
    /// `None` when the recorder is closed.
    shipper: Mutex<Option<JoinHandle<()>>>,
}

impl EventRecorderImpl {
    /// Opens the spool of a directory, creating it if missing, and starts the recorder in the current runtime of tokio.
    /// The events that the spool has are passed to the handler first. Blocking.
    ///
    /// # Errors
    /// [`OpenError`] for options out of range, and for a spool that is in use, damaged or of a later release.
    pub fn open(
        spool: &Path,
        handler: Arc<dyn EventHandler>,
        filter: TypeFilter,
        options: EventRecorderOptions,
        env: RecorderEnv,
    ) -> Result<Self, OpenError> {
        options.check()?;
        let set_aside = Arc::new(SetAsideFile::new(spool, options.set_aside_bytes));
        let spool = Arc::new(Spool::open(spool, options.spool_bytes)?);
        let sizes = spool.sizes();
        let queue = Arc::new(Queue::new(options.queue_events, options.queue_bytes));
        let counters = Arc::new(Counters::default());
        let problems = Arc::new(ProblemLog::new(Arc::clone(&env.monotonic)));
        let failing = Arc::new(FailingTables::new(Arc::clone(&env.monotonic)));
        let (ended, intake_ended) = watch::channel(());
        let (closing, closing_receiver) = watch::channel(false);
        let intake = Intake {
            queue: Arc::clone(&queue),
            spool: Arc::clone(&spool),
            counters: Arc::clone(&counters),
            env: env.clone(),
            problems: Arc::clone(&problems),
            ended,
        };
        thread::Builder::new()
            .name("event-intake".to_owned())
            .spawn(move || intake.run())
            .map_err(|error| OpenError::Thread(error.to_string()))?;
        let shipper = Shipper {
            spool,
            handler,
            options: options.clone(),
            counters: Arc::clone(&counters),
            set_aside,
            problems: Arc::clone(&problems),
            failing: Arc::clone(&failing),
            closing: closing_receiver,
        };
        let shipper = Mutex::new(Some(tokio::spawn(shipper::run(Arc::new(shipper)))));
        Ok(Self {
            options,
            filter,
            env,
            queue,
            sizes,
            counters,
            problems,
            failing,
            closing,
            intake_ended,
            shipper,
        })
    }

    /// Counters since the recorder was opened.
    pub fn counts(&self) -> EventCounts {
        self.counters.counts()
    }

    /// Events in the spool.
    pub fn spooled_events(&self) -> u64 {
        self.sizes.borrow().total.events
    }

    /// Bytes of the events in the spool.
    pub fn spooled_bytes(&self) -> u64 {
        self.sizes.borrow().total.bytes
    }

    /// Table that has taken no events for the longest time while attempts failed.
    pub fn failing_table(&self) -> Option<FailingTable> {
        self.failing.longest()
    }

    /// Takes the values of an event; `None`: it is not recorded.
    fn recorded(&self, event: &dyn Event) -> Option<RecordedEvent> {
        let limit = self.options.max_event_bytes;
        let take = || {
            if !self.filter.records(event.event_type()) {
                return None;
            }
            let now_ns = self.env.next_timestamp_ns();
            let id = self.env.id_at(now_ns);
            match RecordedEvent::new(event, id, now_ns, limit) {
                Ok(recorded) => Some(recorded),
                Err(error) => {
                    self.problems.log(event.event_type(), "an event was not recorded", &error);
                    None
                }
            }
        };
        // A defect of an event does not end the work that it is about.
        catch_unwind(AssertUnwindSafe(take)).unwrap_or_else(|_| {
            self.problems.log("panic", "an event was not recorded", &"it panicked");
            None
        })
    }
}

#[async_trait]
impl EventRecorder for EventRecorderImpl {
    fn record(&self, event: &dyn Event) -> Receipt {
        self.counters.count_recorded();
        match self.recorded(event) {
            Some(recorded) => self.queue.push(recorded).unwrap_or_else(|| {
                self.counters.count_closed();
                Receipt::known(RecordOutcome::Closed)
            }),
            None => {
                self.counters.count_filtered();
                Receipt::known(RecordOutcome::Filtered)
            }
        }
    }

    async fn close(&self) {
        self.queue.close();
        let until = Instant::now() + self.options.close_timeout;
        let mut guard = self.shipper.lock().await;
        let Some(shipper) = guard.as_mut() else { return };
        let mut intake_ended = self.intake_ended.clone();
        let ended = async { while intake_ended.changed().await.is_ok() {} };
        if timeout_at(until, ended).await.is_err() {
            self.problems.log("spool", "the last events are not in the spool yet", &"timeout");
        }
        self.closing.send_replace(true);
        if timeout_at(until, &mut *shipper).await.is_err() {
            shipper.abort();
            let _ = timeout(ABORT, shipper).await;
        }
        *guard = None;
        // Aborted tasks leave work to threads. A process that exits while one of them uses or closes the database may crash.
        let mut sizes = self.sizes.clone();
        let closed = async { while sizes.changed().await.is_ok() {} };
        if timeout(CLOSE_DATABASE, closed).await.is_err() {
            self.problems.log("spool", "the spool is still in use", &"timeout");
        }
    }
}

impl Drop for EventRecorderImpl {
    fn drop(&mut self) {
        self.queue.close();
        if let Some(shipper) = self.shipper.get_mut().take() {
            shipper.abort();
        }
    }
}
