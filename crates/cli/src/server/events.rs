//! Events of a process: options of its recorder, which all nodes of the process share.
//!
//! - [`late`]: recorder whose spool is opened later when it cannot be opened at the start.
//! - [`cluster_table`]: handler that connects to the cluster when it has the first events.

pub(crate) mod cluster_table;
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
use self::late::{LateRecorder, Opener};
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

/// Interval of attempts to open a spool.
const REOPEN_INTERVAL: Duration = Duration::from_secs(30);

/// Options of the event recorder.
#[derive(Debug, Clone, Args)]
pub(crate) struct EventArgs {
    /// Destination of the events of this process
    #[arg(long, env = "TIDEWATER_EVENTS", value_enum, default_value = "table")]
    pub(crate) events: EventTarget,

    /// Directory of the event spool, for this process alone; a compactor has no default, and records no
    /// events without it [default: events in the data directory]
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
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum EventTarget {
    /// The table `events` of the cluster.
    Table,
    /// The file `events.jsonl` in the event directory.
    Jsonl,
    /// Record no events.
    Off,
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
    /// `problems`: has a problem while the spool cannot be opened.
    pub(crate) async fn start(
        &self,
        data_dir: Option<&Path>,
        meta: &[String],
        problems: ProcessProblems,
    ) -> Result<EventRecorderRef, Failure> {
        let Some(directory) = self.directory(data_dir) else {
            if self.events != EventTarget::Off {
                tracing::info!("events of this process are not recorded without --event-dir");
            }
            return Ok(Arc::new(NoRecorder));
        };
        let options = self.options();
        options.check().map_err(|error| Failure::usage(error.to_string()))?;
        self.table_options().check().map_err(|error| Failure::usage(error.to_string()))?;
        let handler: Arc<dyn EventHandler> = match self.events {
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
        Ok(Arc::new(LateRecorder::start(opener, problems, REOPEN_INTERVAL).await))
    }

    /// Returns the directory of the process's events; `None`: it records none.
    pub(crate) fn directory(&self, data_dir: Option<&Path>) -> Option<PathBuf> {
        if self.events == EventTarget::Off {
            return None;
        }
        self.event_dir.clone().or_else(|| data_dir.map(|data_dir| data_dir.join(EVENTS)))
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
mod tests {
    use clap::Parser;
    use tidewater_events::RecordOutcome;
    use tidewater_events::testing::TestEvent;

    use super::*;

    #[derive(Debug, Parser)]
    struct Node {
        #[command(flatten)]
        events: EventArgs,
    }

    fn parse(arguments: &[&str]) -> Result<EventArgs, clap::Error> {
        Node::try_parse_from([&["node"][..], arguments].concat()).map(|node| node.events)
    }

    #[test]
    fn wrong_event_options_are_refused() {
        for (arguments, words) in [
            (["--events", "kafka"], "table, jsonl, off"),
            (["--event-types", "node-up"], "is not a filter of event types"),
            (["--event-ttl", "0s"], "0ms is too short for events (minimum 1s)"),
            (["--event-ttl", "soon"], "is not a duration"),
            (["--event-spool", "0"], "0 is too small for the event spool (minimum 2MiB)"),
            (["--event-spool", "much"], "is not a size"),
        ] {
            let error = parse(&arguments).unwrap_err().to_string();
            assert!(error.contains(words), "{arguments:?}: {error}");
        }
    }

    #[test]
    fn default_options_are_those_of_the_recorder() {
        let args = parse(&[]).unwrap();
        let defaults = EventRecorderOptions::default();
        assert_eq!(args.options().check(), Ok(()));
        assert_eq!(args.options().spool_bytes, defaults.spool_bytes);
        assert_eq!(args.table_options(), EventHandlerOptions::default());
        assert!(args.event_types.is_none());
    }

    #[test]
    fn smallest_spool_passes_the_check_of_the_recorder() {
        let args = parse(&["--event-spool", "2MiB", "--event-ttl", "1s"]).unwrap();
        assert_eq!(args.options().check(), Ok(()));
    }

    #[test]
    fn event_directory_follows_from_the_options() {
        let data = Some(Path::new("d"));
        let cases: [(&[&str], Option<&Path>, Option<&str>); 5] = [
            (&[], data, Some("d/events")),
            (&[], None, None),
            (&["--event-dir", "e"], data, Some("e")),
            (&["--event-dir", "e"], None, Some("e")),
            (&["--event-dir", "e", "--events", "off"], data, None),
        ];
        for (arguments, data_dir, expected) in cases {
            let found = parse(arguments).unwrap().directory(data_dir);
            assert_eq!(found.as_deref(), expected.map(Path::new), "{arguments:?}");
        }
    }

    #[tokio::test]
    async fn json_lines_have_recorded_events() {
        let data_dir = tempfile::tempdir().unwrap();
        let args = parse(&["--events", "jsonl", "--event-types", "!noise"]).unwrap();
        let problems = ProcessProblems::default();
        let recorder = args.start(Some(data_dir.path()), &[], problems.clone()).await.unwrap();
        let outcome = recorder.record(&TestEvent::new("kept")).await;
        assert_eq!(outcome, RecordOutcome::Spooled);
        assert_eq!(recorder.record(&TestEvent::new("noise")).await, RecordOutcome::Filtered);
        recorder.close().await;
        let lines = std::fs::read_to_string(data_dir.path().join("events/events.jsonl")).unwrap();
        assert_eq!(lines.lines().count(), 1);
        assert!(lines.contains(r#""type":"kept""#), "{lines}");
        assert_eq!(problems.list(), []);
    }
}
