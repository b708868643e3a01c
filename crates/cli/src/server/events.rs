//! Events of a process: options of its recorder, which all nodes of the process share.
//!
//! - [`late`]: recorder whose spool is opened later when it cannot be opened at the start; `health`: problem of an open
//!   recorder.
//! - [`cluster_table`]: handler that connects to the cluster when it has the first events.

pub(crate) mod cluster_table;
mod health;
pub(crate) mod late;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use tidewater_common::problems::ProcessProblems;
use tidewater_event_recorder::{EventRecorderImpl, EventRecorderOptions, RecorderEnv};
use tidewater_events::{
    EventHandler, EventHandlerOptions, EventRecorderRef, JsonLinesHandler, NoRecorder, TypeFilter,
};

use self::cluster_table::ClusterTableHandler;
use self::late::{LateRecorder, Opener, UpkeepIntervals};
use crate::exit::Failure;
use crate::text::size::{Size, SizeError};
use crate::text::time_span::{TimeSpan, TimeSpanError};

/// Directory of a process's events below its data directory.
const EVENTS: &str = "events";

/// Directory of the spool below that of the events.
const SPOOL: &str = "spool";

/// Longest time that an event waits for its batch to fill. A follower sees it within 2 s.
pub(crate) const BATCH_INTERVAL: Duration = Duration::from_secs(1);

/// Time that a process that stops waits until its events are written. The spool keeps the others.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// Intervals in which a spool is opened again, and a recorder is checked.
const UPKEEP: UpkeepIntervals =
    UpkeepIntervals { reopen: Duration::from_secs(30), check: Duration::from_secs(5) };

/// Options of the event recorder.
#[derive(Debug, Clone, Args)]
pub(crate) struct EventArgs {
    /// Destination of the events of this process; a compactor needs --event-dir as well [default: table]
    #[arg(long, env = "TIDEWATER_EVENTS", value_enum)]
    pub(crate) events: Option<EventTarget>,

    /// Directory of the event spool, for this process alone. A compactor has no data directory: without this
    /// option, data nodes record its slow compactions, and the suspensions of its hooks are recorded nowhere
    /// [default: events in the data directory]
    #[arg(long, env = "TIDEWATER_EVENT_DIR", value_name = "DIR")]
    pub(crate) event_dir: Option<PathBuf>,

    /// Event types to record, or with ! to leave out, separated by commas, e.g. `!slow_operation,!hook_*`
    /// [default: all]
    #[arg(long, env = "TIDEWATER_EVENT_TYPES", value_name = "FILTER", value_parser = TypeFilter::parse)]
    pub(crate) event_types: Option<TypeFilter>,

    /// Time to live of the events table that is created with the first event
    #[arg(long, env = "TIDEWATER_EVENT_TTL", value_name = "TIME", default_value = "90d",
          value_parser = event_ttl)]
    pub(crate) event_ttl: TimeSpan,

    /// Disk space of the event spool; when it is full, the oldest events of the lowest priority are
    /// dropped
    #[arg(long, env = "TIDEWATER_EVENT_SPOOL", value_name = "SIZE", default_value = "256MiB",
          value_parser = event_spool)]
    pub(crate) event_spool: Size,
}

/// Destination of events.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum EventTarget {
    /// The table `events` of the cluster.
    #[default]
    Table,
    /// The file `events.jsonl` in the event directory.
    Jsonl,
    /// Record no events.
    Off,
}

impl EventTarget {
    fn as_str(self) -> &'static str {
        match self {
            Self::Table => "table",
            Self::Jsonl => "jsonl",
            Self::Off => "off",
        }
    }
}

/// A destination of events for which the process has no directory.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "--events {} needs --event-dir: this node has no data directory. Give it a directory for this process alone that \
     survives restarts, or leave --events out to record no events",
    .0.as_str()
)]
pub(crate) struct NoEventDirectory(EventTarget);

impl From<NoEventDirectory> for Failure {
    fn from(error: NoEventDirectory) -> Self {
        Self::usage(error.to_string())
    }
}

/// An invalid time to live of events.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum EventTtlError {
    #[error(transparent)]
    TimeSpan(#[from] TimeSpanError),
    #[error("{0} is too short for events (minimum 1s)")]
    TooShort(TimeSpan),
}

/// An invalid size of the event spool.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum EventSpoolError {
    #[error(transparent)]
    Size(#[from] SizeError),
    #[error("{size} is too small for the event spool (minimum {minimum})")]
    TooSmall { size: Size, minimum: Size },
}

/// Parses a time to live. Tables count it in seconds.
fn event_ttl(text: &str) -> Result<TimeSpan, EventTtlError> {
    let span: TimeSpan = text.parse()?;
    if span.duration() < Duration::from_secs(1) {
        return Err(EventTtlError::TooShort(span));
    }
    Ok(span)
}

/// Parses the size of a spool, which has room for two events of the largest size.
fn event_spool(text: &str) -> Result<Size, EventSpoolError> {
    let size: Size = text.parse()?;
    let minimum = Size(2 * EventRecorderOptions::default().max_event_bytes as u64);
    if size.0 < minimum.0 {
        return Err(EventSpoolError::TooSmall { size, minimum });
    }
    Ok(size)
}

impl EventArgs {
    /// Starts the recorder of the process. `data_dir`: that of its node; `meta`: addresses of meta nodes;
    /// `problems`: has a problem while events are not recorded.
    pub(crate) async fn start(
        &self,
        data_dir: Option<&Path>,
        meta: &[String],
        problems: ProcessProblems,
    ) -> Result<EventRecorderRef, Failure> {
        let Some(directory) = self.directory(data_dir)? else {
            if self.target() != EventTarget::Off {
                tracing::info!("events of this process are not recorded without --event-dir");
            }
            return Ok(Arc::new(NoRecorder));
        };
        let options = self.options();
        options.check().map_err(|error| Failure::usage(error.to_string()))?;
        self.table_options().check().map_err(|error| Failure::usage(error.to_string()))?;
        let handler: Arc<dyn EventHandler> = match self.target() {
            EventTarget::Jsonl => Arc::new(JsonLinesHandler::new(&directory)),
            EventTarget::Table | EventTarget::Off => {
                Arc::new(ClusterTableHandler::new(meta.to_vec(), self.table_options()))
            }
        };
        let spool = directory.join(SPOOL);
        let filter = self.event_types.clone().unwrap_or_default();
        let env = RecorderEnv::default();
        let opener: Opener = Arc::new(move || {
            let handler = Arc::clone(&handler);
            EventRecorderImpl::open(&spool, handler, filter.clone(), options.clone(), env.clone())
        });
        Ok(Arc::new(LateRecorder::start(opener, problems, UPKEEP).await))
    }

    /// Returns the directory of the process's events; `None`: it records none.
    ///
    /// # Errors
    /// [`NoEventDirectory`]: events were asked for, but there is no directory of them.
    pub(crate) fn directory(
        &self,
        data_dir: Option<&Path>,
    ) -> Result<Option<PathBuf>, NoEventDirectory> {
        if self.target() == EventTarget::Off {
            return Ok(None);
        }
        let of_data = || data_dir.map(|data_dir| data_dir.join(EVENTS));
        match (self.event_dir.clone().or_else(of_data), self.events) {
            (Some(directory), _) => Ok(Some(directory)),
            (None, Some(target)) => Err(NoEventDirectory(target)),
            (None, None) => Ok(None),
        }
    }

    fn target(&self) -> EventTarget {
        self.events.unwrap_or_default()
    }

    fn options(&self) -> EventRecorderOptions {
        EventRecorderOptions {
            spool_bytes: self.event_spool.0,
            batch_interval: BATCH_INTERVAL,
            close_timeout: CLOSE_TIMEOUT,
            ..EventRecorderOptions::default()
        }
    }

    fn table_options(&self) -> EventHandlerOptions {
        EventHandlerOptions {
            ttl: Some(self.event_ttl.duration()),
            ..EventHandlerOptions::default()
        }
    }
}

#[cfg(test)]
mod tests;
