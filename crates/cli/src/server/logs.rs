//! Logging of a server on stderr, with a filter that can change while the server runs.

use std::io::IsTerminal;
use std::sync::Arc;

use clap::Args;
use parking_lot::Mutex;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::reload::{self, Handle};
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, Registry, fmt};

use crate::exit::Failure;

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
        default_value = "info,openraft=error"
    )]
    pub(crate) log_filter: String,

    /// Format of log lines on stderr
    #[arg(long, env = "TIDEWATER_LOG_FORMAT", value_enum, default_value = "text")]
    pub(crate) log_format: LogFormat,
}

/// The current log filter.
#[derive(Debug, Clone)]
pub(crate) struct LogFilter {
    handle: Handle<EnvFilter, Registry>,
    text: Arc<Mutex<String>>,
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
        Ok(Self { handle, text: Arc::new(Mutex::new(options.log_filter.clone())) })
    }

    /// Replaces the filter; returns the previous one, or the problem with the new one.
    pub(crate) fn set(&self, text: &str) -> Result<String, String> {
        let filter = parse(text)?;
        self.handle.reload(filter).map_err(|error| error.to_string())?;
        Ok(std::mem::replace(&mut *self.text.lock(), text.to_owned()))
    }
}

fn parse(text: &str) -> Result<EnvFilter, String> {
    if text.trim().is_empty() {
        return Err("the filter is empty: name a level, e.g. info".to_owned());
    }
    EnvFilter::try_new(text).map_err(|error| {
        format!("`{text}` is not a log filter ({error}): write e.g. info,tidewater_data_node=debug")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn invalid_log_filters_are_rejected() {
        assert!(parse("info,tidewater_data_node=debug").is_ok());
        for wrong in ["", "info,tidewater=loudly", "a=b=c"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}
