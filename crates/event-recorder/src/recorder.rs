//! The recorder.

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::thread;

use async_trait::async_trait;
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout_at};
use tracing::warn;

use crate::counters::{Counters, EventCounts};
use crate::env::RecorderEnv;
use crate::event::Event;
use crate::filter::TypeFilter;
use crate::handler::EventHandler;
use crate::intake::Intake;
use crate::options::{EventRecorderOptions, OptionError};
use crate::problem_log::ProblemLog;
use crate::queue::Queue;
use crate::receipt::{Receipt, RecordOutcome};
use crate::recorded::RecordedEvent;
use crate::set_aside::SetAsideFile;
use crate::shipper::{self, Shipper};
use crate::spool::{Spool, SpoolError};

/// Records events.
#[async_trait]
pub trait EventRecorder: fmt::Debug + Send + Sync + 'static {
    /// Records an event. Returns without waiting; the receipt may be ignored.
    fn record(&self, event: &dyn Event) -> Receipt;

    /// Refuses later events, moves those in the queue to the spool, and waits until the handler has persisted those
    /// in the spool, for a limited time. What is left stays in the spool.
    async fn close(&self);
}

/// A shared recorder.
pub type EventRecorderRef = Arc<dyn EventRecorder>;

/// Recorder that filters all events.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoRecorder;

#[async_trait]
impl EventRecorder for NoRecorder {
    fn record(&self, _event: &dyn Event) -> Receipt {
        Receipt::known(RecordOutcome::Filtered)
    }

    async fn close(&self) {}
}

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
    spool: Arc<Spool>,
    counters: Arc<Counters>,
    problems: Arc<ProblemLog>,
    closing: watch::Sender<bool>,
    tasks: Mutex<Option<Tasks>>,
}

#[derive(Debug)]
struct Tasks {
    intake: thread::JoinHandle<()>,
    shipper: JoinHandle<()>,
}

impl EventRecorderImpl {
    /// Opens the spool of a directory, creating it if missing, and starts the recorder in the current runtime.
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
        let set_aside = SetAsideFile::new(spool, options.set_aside_bytes);
        let spool = Arc::new(Spool::open(spool, options.spool_bytes)?);
        let queue = Arc::new(Queue::new(options.queue_events, options.queue_bytes));
        let counters = Arc::new(Counters::default());
        let problems = Arc::new(ProblemLog::new(Arc::clone(&env.monotonic)));
        let (added, added_receiver) = watch::channel(0);
        let (closing, closing_receiver) = watch::channel(false);
        let intake = Intake {
            queue: Arc::clone(&queue),
            spool: Arc::clone(&spool),
            counters: Arc::clone(&counters),
            env: env.clone(),
            added,
            problems: Arc::clone(&problems),
        };
        let intake = thread::Builder::new()
            .name("event-intake".to_owned())
            .spawn(move || intake.run())
            .map_err(|error| OpenError::Thread(error.to_string()))?;
        let shipper = Shipper {
            spool: Arc::clone(&spool),
            handler,
            options: options.clone(),
            counters: Arc::clone(&counters),
            set_aside,
            problems: Arc::clone(&problems),
            added: added_receiver,
            closing: closing_receiver,
        };
        let shipper = tokio::spawn(shipper::run(Arc::new(shipper)));
        let tasks = Mutex::new(Some(Tasks { intake, shipper }));
        Ok(Self { options, filter, env, queue, spool, counters, problems, closing, tasks })
    }

    /// Counters since the recorder was opened.
    pub fn counts(&self) -> EventCounts {
        self.counters.counts()
    }

    /// Events in the spool.
    pub fn spooled_events(&self) -> u64 {
        self.spool.size().events
    }

    /// Bytes of the events in the spool.
    pub fn spooled_bytes(&self) -> u64 {
        self.spool.size().bytes
    }
}

#[async_trait]
impl EventRecorder for EventRecorderImpl {
    fn record(&self, event: &dyn Event) -> Receipt {
        self.counters.count_recorded();
        if !self.filter.records(event.event_type()) {
            self.counters.count_filtered();
            return Receipt::known(RecordOutcome::Filtered);
        }
        let now_ns = self.env.next_timestamp_ns();
        let id = self.env.id_at(now_ns);
        match RecordedEvent::new(event, id, now_ns, self.options.max_event_bytes) {
            Ok(recorded) => self.queue.push(recorded),
            Err(error) => {
                self.counters.count_filtered();
                self.problems.log(event.event_type(), "an event was not recorded", &error);
                Receipt::known(RecordOutcome::Filtered)
            }
        }
    }

    async fn close(&self) {
        self.queue.close();
        let Some(tasks) = self.tasks.lock().take() else { return };
        let Tasks { intake, mut shipper } = tasks;
        let until = Instant::now() + self.options.close_timeout;
        let joined = tokio::task::spawn_blocking(move || intake.join());
        if timeout_at(until, joined).await.is_err() {
            warn!("the queue of events is not in the spool yet, and its events may be lost");
        }
        self.closing.send_replace(true);
        if timeout_at(until, &mut shipper).await.is_err() {
            shipper.abort();
            let _ = shipper.await;
        }
    }
}

impl Drop for EventRecorderImpl {
    fn drop(&mut self) {
        self.queue.close();
        if let Some(tasks) = self.tasks.lock().take() {
            tasks.shipper.abort();
        }
    }
}
