//! `event record`: records events of standard input, for tests.

use std::any::Any;
use std::io::{self, BufRead, BufReader, Read};
use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use serde::Deserialize;
use serde_json::Value;
use tidewater_event_recorder::{
    EventRecorderImpl, EventRecorderOptions, OpenError, RecorderEnv, SpoolError,
};
use tidewater_events::{
    DEFAULT_TABLE, Event, EventError, EventHandlerOptions, EventRecorder, RecordOutcome, TypeFilter,
};
use tokio::sync::mpsc;

use crate::commands::client::ClientArgs;
use crate::exit::{Exit, Failure};
use crate::output::line;
use crate::output::terminal::note;
use crate::server::events::BATCH_INTERVAL;
use crate::server::events::cluster_table::ClusterTableHandler;

/// Most bytes of a line: those of an event, and its JSON.
const MAX_LINE: u64 = 2 << 20;

/// Most events without an outcome: fewer than the queue of a recorder takes.
const MAX_PENDING: usize = 1_000;

/// Options of `event record`.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  tidewater event record --spool ./spool --type note --payload '{}'\n  echo \
                  '{\"type\": \"note\", \"payload\": {\"text\": \"hello\"}}' | tidewater event record --spool \
                  ./spool\n\nFor tests: a spool is opened, as a node does, and each line is recorded. The \
                  number and the outcome of each line are printed once it is known."
)]
pub(crate) struct Options {
    /// Directory of the spool
    #[arg(long, value_name = "DIR")]
    spool: PathBuf,

    /// Record one event of this type instead of those of standard input
    #[arg(long = "type", value_name = "TYPE")]
    event_type: Option<String>,

    /// Payload of this event, in JSON
    #[arg(long, value_name = "JSON", requires = "event_type", value_parser = payload)]
    payload: Option<Value>,

    /// Table of the events
    #[arg(long, value_name = "TABLE", default_value = DEFAULT_TABLE)]
    table: String,

    #[command(flatten)]
    client: ClientArgs,
}

/// A line of the input.
#[derive(Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
struct InputLine {
    r#type: String,
    #[serde(default)]
    payload: Option<Value>,
    /// Nanoseconds since the Unix epoch; without it, the time at which the line is recorded.
    #[serde(default)]
    timestamp_ns: Option<i64>,
}

/// Event of a line.
#[derive(Debug)]
struct InputEvent {
    table: String,
    line: InputLine,
}

impl Event for InputEvent {
    fn table_name(&self) -> &str {
        &self.table
    }

    fn event_type(&self) -> &str {
        &self.line.r#type
    }

    fn timestamp(&self) -> Option<i64> {
        self.line.timestamp_ns
    }

    fn json_payload(&self) -> Result<String, EventError> {
        Ok(self.line.payload.as_ref().map(ToString::to_string).unwrap_or_default())
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

fn payload(text: &str) -> Result<Value, String> {
    serde_json::from_str(text).map_err(|error| error.to_string())
}

/// Records events, and prints their outcomes.
pub(crate) async fn run(options: Options) -> Result<(), Failure> {
    let meta = options.client.meta.clone();
    let handler = Arc::new(ClusterTableHandler::new(meta, EventHandlerOptions::default()));
    let spool = options.spool.clone();
    let open = move || {
        let settings = EventRecorderOptions {
            batch_interval: BATCH_INTERVAL,
            ..EventRecorderOptions::default()
        };
        let env = RecorderEnv::default();
        EventRecorderImpl::open(&spool, handler, TypeFilter::default(), settings, env)
    };
    let opened = tokio::task::spawn_blocking(open).await;
    let recorder = opened
        .map_err(|error| Failure::other(error.to_string()))?
        .map_err(|error| open_failure(&error))?;
    let recorded = match options.event_type {
        Some(event_type) => {
            let line =
                InputLine { r#type: event_type, payload: options.payload, timestamp_ns: None };
            let event = InputEvent { table: options.table, line };
            print_outcome(1, recorder.record(&event).await)
        }
        None => {
            let lines = read_lines(BufReader::new(io::stdin()));
            record_lines(&recorder, &options.table, lines).await
        }
    };
    recorder.close().await;
    let left = recorder.spooled_events();
    if left > 0 {
        note(&format!("{left} events are left in the spool"));
    }
    recorded
}

fn open_failure(error: &OpenError) -> Failure {
    let exit = match error {
        OpenError::Spool(SpoolError::InUse { .. } | SpoolError::NewerFormat { .. }) => {
            Exit::Conflict
        }
        _ => Exit::Other,
    };
    Failure::new(exit, error.to_string())
}

/// Records the lines until their end, and prints the outcome of each once it is known.
async fn record_lines(
    recorder: &EventRecorderImpl,
    table: &str,
    mut lines: mpsc::Receiver<io::Result<String>>,
) -> Result<(), Failure> {
    let mut receipts = FuturesUnordered::new();
    let mut number = 0;
    let mut is_open = true;
    while is_open || !receipts.is_empty() {
        tokio::select! {
            text = lines.recv(), if is_open && receipts.len() < MAX_PENDING => {
                let Some(text) = text else {
                    is_open = false;
                    continue;
                };
                number += 1;
                let text = text
                    .map_err(|error| Failure::other(format!("stdin: line {number}: {error}")))?;
                let line = parse(&text)
                    .map_err(|error| Failure::usage(format!("stdin: line {number}: {error}")))?;
                let receipt = recorder.record(&InputEvent { table: table.to_owned(), line });
                let line_number = number;
                receipts.push(async move { (line_number, receipt.await) });
            }
            Some((number, outcome)) = receipts.next() => print_outcome(number, outcome)?,
        }
    }
    Ok(())
}

fn parse(text: &str) -> Result<InputLine, serde_json::Error> {
    serde_json::from_str(text)
}

fn print_outcome(number: u64, outcome: RecordOutcome) -> Result<(), Failure> {
    line(&format!("{number} {}", outcome_text(outcome)))
}

fn outcome_text(outcome: RecordOutcome) -> &'static str {
    match outcome {
        RecordOutcome::Spooled => "spooled",
        RecordOutcome::Filtered => "filtered",
        RecordOutcome::Dropped => "dropped",
        RecordOutcome::Closed => "closed",
    }
}

/// Reads lines in a thread of its own, until the first error.
fn read_lines(mut input: impl BufRead + Send + 'static) -> mpsc::Receiver<io::Result<String>> {
    let (sender, receiver) = mpsc::channel(64);
    tokio::task::spawn_blocking(move || {
        while let Some(line) = next_line(&mut input).transpose() {
            let is_last = line.is_err();
            if sender.blocking_send(line).is_err() || is_last {
                return;
            }
        }
    });
    receiver
}

/// Returns the next line, without its end; `None` after the last one.
fn next_line(input: &mut impl BufRead) -> io::Result<Option<String>> {
    let mut line = String::new();
    if input.take(MAX_LINE).read_line(&mut line)? == 0 {
        return Ok(None);
    }
    if line.len() as u64 == MAX_LINE && !line.ends_with('\n') {
        return Err(io::Error::other(format!("it is longer than {MAX_LINE} bytes")));
    }
    Ok(Some(line.trim_end().to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_events() {
        let line = parse(r#"{"type":"note","payload":{"n":1}}"#).unwrap();
        let event = InputEvent { table: "events".to_owned(), line };
        assert_eq!((event.event_type(), event.table_name()), ("note", "events"));
        assert_eq!(event.json_payload().unwrap(), r#"{"n":1}"#);
        let plain = InputEvent { line: parse(r#"{"type":"note"}"#).unwrap(), ..event };
        assert_eq!(plain.json_payload().unwrap(), "");
        for text in ["", "{}", r#"{"type":"a","pay":1}"#, "note"] {
            parse(text).unwrap_err();
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 1)]
    async fn lines_are_read_until_their_end() {
        let mut lines = read_lines(io::Cursor::new("a\n\nb"));
        let mut found = Vec::new();
        while let Some(line) = lines.recv().await {
            found.push(line.unwrap());
        }
        assert_eq!(found, ["a", "", "b"]);
    }

    #[test]
    fn long_line_is_an_error() {
        let limit = usize::try_from(MAX_LINE).unwrap();
        let mut longest = io::Cursor::new("x".repeat(limit - 1) + "\ny");
        assert_eq!(next_line(&mut longest).unwrap().unwrap().len(), limit - 1);
        assert_eq!(next_line(&mut longest).unwrap().unwrap(), "y");
        assert!(next_line(&mut longest).unwrap().is_none());
        let error = next_line(&mut io::Cursor::new("x".repeat(limit + 1))).unwrap_err();
        assert!(error.to_string().contains("longer than"), "{error}");
    }
}
