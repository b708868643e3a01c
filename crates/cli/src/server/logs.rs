//! Logging of a server on stderr, with a filter that can change while the server runs.

use std::io::IsTerminal;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use parking_lot::Mutex;
use tidewater_common::quote::quoted;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::reload::{self, Handle};
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, Registry, fmt};

use crate::exit::Failure;

/// Default log filter. openraft logs every step of its engine at info. Its module `raft_core` warns about
/// each message of a vote that the node itself has replaced, which happens in healthy elections, also in
/// the first one. Its module `heartbeat` warns about each heartbeat without an answer in time, about ten each
/// second for each group of a node that is down; the meta leader reports such nodes, and elections are logged
/// by the groups. The other warnings of openraft report failed replication.
pub(crate) const DEFAULT_FILTER: &str =
    "info,openraft=warn,openraft::core::raft_core=error,openraft::core::heartbeat=error";

/// Format of log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum LogFormat {
    /// For people.
    Text,
    /// One JSON object per line.
    Json,
}

/// Log options of every server.
#[derive(Debug, Clone, Args)]
pub(crate) struct LogOptions {
    /// Log filter: a level, or levels by module, e.g. info,tidewater_data_node=debug
    #[arg(
        long,
        env = "TIDEWATER_LOG_FILTER",
        value_name = "FILTER",
        default_value = DEFAULT_FILTER
    )]
    pub(crate) log_filter: String,

    /// Format of log lines on stderr
    #[arg(long, env = "TIDEWATER_LOG_FORMAT", value_enum, default_value = "text")]
    pub(crate) log_format: LogFormat,

    /// Accept changes of the log filter (`node log-level`) from other machines, without authorization
    #[arg(long, env = "TIDEWATER_REMOTE_LOG_FILTER")]
    pub(crate) remote_log_filter: bool,
}

/// Time after which a changed log filter ends and the configured one applies again: a forgotten `trace`
/// fills the disk, a forgotten `off` hides errors.
pub(crate) const CHANGED_FILTER_FOR: Duration = Duration::from_secs(60 * 60);

/// The current log filter.
#[derive(Debug, Clone)]
pub(crate) struct LogFilter {
    handle: Handle<EnvFilter, Registry>,
    /// Configured filter, which applies at the start and after a change has ended.
    configured: Arc<str>,
    current: Arc<Mutex<CurrentFilter>>,
}

#[derive(Debug)]
struct CurrentFilter {
    text: String,
    /// Number of changes, so that the end of a change does not end a later one.
    changes: u64,
}

impl LogFilter {
    /// Starts logging. Must be called once per process.
    pub(crate) fn start(options: &LogOptions) -> Result<Self, Failure> {
        let filter = parse(&options.log_filter)
            .map_err(|problem| Failure::usage(format!("--log-filter: {problem}")))?;
        let (filter, handle) = reload::Layer::new(filter);
        let lines = match options.log_format {
            LogFormat::Text => fmt::layer()
                .with_writer(std::io::stderr)
                .with_ansi(std::io::stderr().is_terminal())
                .boxed(),
            LogFormat::Json => {
                fmt::layer().json().flatten_event(true).with_writer(std::io::stderr).boxed()
            }
        };
        tracing_subscriber::registry()
            .with(filter)
            .with(lines)
            .try_init()
            .map_err(|error| Failure::other(format!("cannot start logging: {error}")))?;
        let current = CurrentFilter { text: options.log_filter.clone(), changes: 0 };
        let configured = options.log_filter.as_str().into();
        Ok(Self { handle, configured, current: Arc::new(Mutex::new(current)) })
    }

    /// Replaces the filter for [`CHANGED_FILTER_FOR`]; returns the previous one, or the problem with the
    /// new one.
    pub(crate) fn set(&self, text: &str) -> Result<String, String> {
        let mut current = self.current.lock();
        let previous = self.replace(&mut current, text)?;
        let change = current.changes;
        drop(current);
        let logs = self.clone();
        tokio::spawn(async move {
            tokio::time::sleep(CHANGED_FILTER_FOR).await;
            logs.end_change(change);
        });
        Ok(previous)
    }

    /// Restores the configured filter, unless there was a later change.
    fn end_change(&self, change: u64) {
        let mut current = self.current.lock();
        if current.changes != change || *current.text == *self.configured {
            return;
        }
        match self.replace(&mut current, &self.configured) {
            Ok(ended) => tracing::info!(filter = %self.configured, %ended, "log filter restored"),
            Err(problem) => tracing::warn!(%problem, "failed to restore the log filter"),
        }
    }

    fn replace(&self, current: &mut CurrentFilter, text: &str) -> Result<String, String> {
        let filter = parse(text)?;
        self.handle.reload(filter).map_err(|error| error.to_string())?;
        current.changes += 1;
        Ok(std::mem::replace(&mut current.text, text.to_owned()))
    }
}

fn parse(text: &str) -> Result<EnvFilter, String> {
    if text.trim().is_empty() {
        return Err("the filter is empty: name a level, e.g. info".to_owned());
    }
    EnvFilter::try_new(text).map_err(|error| {
        let text = quoted(text);
        format!("{text} is not a log filter ({error}): write e.g. info,tidewater_data_node=debug")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn changed_log_filter_ends_after_an_hour() {
        let (layer, handle) = reload::Layer::<EnvFilter, Registry>::new(parse("info").unwrap());
        let current = CurrentFilter { text: "info".to_owned(), changes: 0 };
        let current = Arc::new(Mutex::new(current));
        let logs = LogFilter { handle, configured: "info".into(), current };
        let filter = || logs.current.lock().text.clone();
        let minutes = |number: u64| tokio::time::sleep(Duration::from_secs(60 * number));
        assert_eq!(logs.set("off").unwrap(), "info");
        minutes(50).await;
        assert_eq!((filter(), logs.set("trace").unwrap()), ("off".to_owned(), "off".to_owned()));
        minutes(50).await;
        assert_eq!(filter(), "trace", "the end of the first change ends the second");
        minutes(20).await;
        assert_eq!(filter(), "info");
        drop(layer);
    }

    /// Returns whether the default filter admits an event.
    macro_rules! is_logged {
        ($target:literal, $level:ident) => {
            tracing::enabled!(target: $target, tracing::Level::$level)
        };
    }

    #[test]
    fn default_log_filter_hides_votes_and_heartbeats_only() {
        let filtered = tracing_subscriber::registry().with(parse(DEFAULT_FILTER).unwrap());
        let _guard = tracing::subscriber::set_default(filtered);
        assert!(is_logged!("openraft::replication", WARN));
        assert!(!is_logged!("openraft::core::heartbeat::worker", WARN));
        assert!(is_logged!("openraft::core::heartbeat::worker", ERROR));
        assert!(!is_logged!("openraft::engine::engine_impl", INFO));
        assert!(!is_logged!("openraft::core::raft_core", WARN));
        assert!(is_logged!("openraft::core::raft_core", ERROR));
        assert!(is_logged!("tidewater_data_node::group", INFO));
    }

    #[test]
    fn invalid_log_filters_are_rejected() {
        assert!(parse("info,tidewater_data_node=debug").is_ok());
        for wrong in ["", "info,tidewater=loudly", "a=b=c"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}
