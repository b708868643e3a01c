//! `refresh history NAME`

use clap::Args;

use super::run_line::RunLine;
use crate::commands::client::ClientArgs;
use crate::exit::Failure;
use crate::output::amount::{duration_text, grouped};
use crate::output::{self, Listed};

/// Options of `refresh history`.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  tidewater refresh history airlines --output json")]
pub(crate) struct Options {
    /// Name of the table
    table: String,

    #[command(flatten)]
    client: ClientArgs,
}

impl Listed for RunLine {
    const HEADINGS: &'static [&'static str] = &[
        "GENERATION",
        "TRIGGER",
        "OUTCOME",
        "TIME",
        "ROWS",
        "INSERTED",
        "UPDATED",
        "DELETED",
        "ERROR",
    ];

    fn cells(&self) -> Vec<String> {
        let time = self.ended_ms.map(|ended_ms| {
            duration_text(std::time::Duration::from_millis(ended_ms.saturating_sub(self.begun_ms)))
        });
        vec![
            self.generation.to_string(),
            self.trigger.to_owned(),
            self.outcome.to_owned(),
            time.unwrap_or_else(|| "-".to_owned()),
            grouped(self.source_rows),
            grouped(self.inserted),
            grouped(self.updated),
            grouped(self.deleted),
            self.error.clone().unwrap_or_else(|| "-".to_owned()),
        ]
    }
}

/// Lists the refresh in progress and the ended ones, the last one first.
pub(crate) async fn run(options: Options) -> Result<(), Failure> {
    let found = options.client.connect().await?.refreshes(Some(&options.table), false).await?;
    let record = found.into_iter().next().and_then(|info| info.record).unwrap_or_default();
    let runs = record.current.iter().chain(&record.history);
    output::list(options.client.output, &runs.map(RunLine::from).collect::<Vec<_>>())
}
