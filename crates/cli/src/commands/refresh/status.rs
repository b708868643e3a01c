//! `refresh status [NAME]`

use clap::Args;
use serde::Serialize;
use tidewater_proto::v1::{RefreshInfo, RegionMergePart};

use super::run_line::RunLine;
use crate::commands::client::ClientArgs;
use crate::exit::Failure;
use crate::output::amount::{duration_text, grouped};
use crate::output::{self, Listed, Output, line};

/// Options of `refresh status`.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  tidewater refresh status\n  tidewater refresh status airlines")]
pub(crate) struct Options {
    /// Name of the table [default: all refreshable tables]
    table: Option<String>,

    #[command(flatten)]
    client: ClientArgs,
}

/// Refreshes of a table. The JSON field names are stable; times are in milliseconds.
#[derive(Debug, Serialize)]
pub(crate) struct StatusLine {
    pub(crate) table: String,
    /// `idle`, `refreshing`, `merging`, `publishing`, `cleanup` or `cancelling`.
    pub(crate) state: String,
    pub(super) paused: bool,
    pub(crate) generation: u64,
    pub(crate) published_epoch: Option<u64>,
    pub(crate) source_kind: String,
    pub(crate) source_config: String,
    pub(super) interval_ms: Option<u64>,
    pub(super) next_ms: Option<u64>,
    pub(super) failures: u32,
    pub(super) current: Option<RunLine>,
    pub(super) last: Option<RunLine>,
    /// Progress of the load of the source.
    pub(super) load: Option<LoadLine>,
    /// Progress of the merge, by region and part.
    pub(super) parts: Vec<PartLine>,
    /// Failure of the step in progress, which is repeated.
    pub(super) error: Option<String>,
}

#[derive(Debug, Serialize)]
pub(super) struct LoadLine {
    pub(super) splits_done: u32,
    pub(super) splits: u32,
    pub(super) rows: u64,
    pub(super) bytes_done: u64,
    pub(super) bytes: u64,
}

#[derive(Debug, Serialize)]
pub(super) struct PartLine {
    pub(super) region_id: u64,
    pub(super) part: usize,
    pub(super) rows: u64,
    pub(super) changed: u64,
    pub(super) is_complete: bool,
}

impl From<&RefreshInfo> for StatusLine {
    fn from(info: &RefreshInfo) -> Self {
        let some = |number: u64| (number != 0).then_some(number);
        let record = info.record.clone().unwrap_or_default();
        let source = info.source.clone().unwrap_or_default();
        let parts = info.merges.iter().flat_map(|region| {
            let parts = region.merge.iter().flat_map(|merge| &merge.parts).enumerate();
            parts.map(move |(part, of)| PartLine::new(region.region_id, part, of))
        });
        Self {
            table: info.table.clone(),
            state: info.state.clone(),
            paused: record.paused,
            generation: record.generation,
            published_epoch: some(info.published_epoch),
            source_kind: source.kind,
            source_config: source.config,
            interval_ms: record.settings.and_then(|settings| some(settings.interval_ms)),
            next_ms: some(record.next_ms),
            failures: record.failures,
            current: record.current.as_ref().map(RunLine::from),
            last: record.history.first().map(RunLine::from),
            load: info.load.as_ref().map(|load| LoadLine {
                splits_done: load.splits_done,
                splits: load.splits,
                rows: load.rows,
                bytes_done: load.bytes_done,
                bytes: load.bytes,
            }),
            parts: parts.collect(),
            error: info.failure.as_ref().map(|failure| failure.message.clone()),
        }
    }
}

impl PartLine {
    fn new(region_id: u64, part: usize, of: &RegionMergePart) -> Self {
        let counts = of.counts.unwrap_or_default();
        let changed = counts.inserted + counts.updated + counts.deleted;
        let rows = changed + counts.unchanged;
        Self { region_id, part, rows, changed, is_complete: of.is_complete }
    }
}

impl StatusLine {
    /// Returns the progress of the step in progress, for people; empty: none.
    pub(super) fn progress(&self) -> String {
        let parts = self.completed_parts();
        if parts.is_empty() { parts } else { format!("{parts}, {} rows", grouped(self.work().0)) }
    }

    /// Returns the parts of the step in progress that are complete, for people; empty: it has no parts.
    pub(super) fn completed_parts(&self) -> String {
        if let Some(load) = &self.load {
            return format!("{} of {} splits", load.splits_done, load.splits);
        }
        if self.parts.is_empty() {
            return String::new();
        }
        let complete = self.parts.iter().filter(|part| part.is_complete).count();
        let changed = grouped(self.parts.iter().map(|part| part.changed).sum());
        format!("{complete} of {} parts, {changed} rows changed", self.parts.len())
    }

    /// Returns the rows that the step in progress has processed, and the (part, whole) of its work that is done.
    pub(super) fn work(&self) -> (u64, (u64, u64)) {
        if let Some(load) = &self.load {
            return (load.rows, (load.bytes_done, load.bytes));
        }
        let rows = self.parts.iter().map(|part| part.rows).sum();
        let source_rows = |run: &Option<RunLine>| run.as_ref().map_or(0, |run| run.source_rows);
        // Rows that only one side has are compared, too.
        let expected = source_rows(&self.current).max(source_rows(&self.last)).max(rows);
        (rows, (rows, expected))
    }

    fn text(&self) -> String {
        let paused = if self.paused { " (paused)" } else { "" };
        let mut text = format!(
            "table {}: {}{paused}\n  source: {} {}\n  generation: {}",
            self.table, self.state, self.source_kind, self.source_config, self.generation
        );
        let mut add = |name: &str, value: String| text.push_str(&format!("\n  {name}: {value}"));
        match self.published_epoch {
            Some(epoch) => add("published epoch", epoch.to_string()),
            None => add(
                "published epoch",
                "none: the table is empty until its first refresh".to_owned(),
            ),
        }
        if let Some(interval_ms) = self.interval_ms {
            add("interval", duration_text(std::time::Duration::from_millis(interval_ms)));
        }
        if !self.progress().is_empty() {
            add("progress", self.progress());
        }
        if let Some(error) = &self.error {
            add("last error, repeated", error.clone());
        }
        if let Some(last) = &self.last {
            let error = last.error.as_ref().map(|error| format!(": {error}")).unwrap_or_default();
            let counts = if last.outcome == "published" { last.counts() } else { String::new() };
            add(
                "last refresh",
                format!("{} {}{error} {counts}", last.generation, last.outcome).trim().to_owned(),
            );
        }
        if self.failures > 0 {
            add("failures in a row", self.failures.to_string());
        }
        text
    }
}

impl Listed for StatusLine {
    const HEADINGS: &'static [&'static str] =
        &["TABLE", "STATE", "GENERATION", "LAST", "SOURCE", "PROGRESS", "ERROR"];

    fn cells(&self) -> Vec<String> {
        let dash = |text: String| if text.is_empty() { "-".to_owned() } else { text };
        let last = self.last.as_ref();
        let error = self.error.clone().or_else(|| last.and_then(|last| last.error.clone()));
        let paused = if self.paused { ", paused" } else { "" };
        vec![
            self.table.clone(),
            format!("{}{paused}", self.state),
            self.generation.to_string(),
            last.map_or("-", |last| last.outcome).to_owned(),
            self.source_kind.clone(),
            dash(self.progress()),
            dash(error.unwrap_or_default()),
        ]
    }
}

/// Shows the refreshes of one table, or of all.
pub(crate) async fn run(options: Options) -> Result<(), Failure> {
    let client = options.client.connect().await?;
    let found = client.refreshes(options.table.as_deref(), options.table.is_some()).await?;
    let lines: Vec<StatusLine> = found.iter().map(StatusLine::from).collect();
    match (options.client.output, options.table.is_some(), lines.first()) {
        (Output::Table, true, Some(only)) => line(&only.text()),
        (output, _, _) => output::list(output, &lines),
    }
}
