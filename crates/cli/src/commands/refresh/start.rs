//! `refresh start NAME`

use std::time::Duration;

use clap::Args;
use tidewater_client::{Client, ClientError};
use tidewater_proto::v1::{Reason, RefreshOutcome, RefreshRun};
use tokio::time::sleep;

use super::run_line::RunLine;
use super::status::StatusLine;
use crate::commands::client::ClientArgs;
use crate::exit::{Exit, Failure, exit_of};
use crate::output::amount::grouped;
use crate::output::fact;
use crate::output::progress::Progress;
use crate::output::terminal::note;

/// Interval of the questions for the progress.
const POLL: Duration = Duration::from_millis(100);

/// Options of `refresh start`.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  tidewater refresh start airlines\n  tidewater refresh start airlines --no-wait\n\n\
                  Returns when the refresh is published and cleaned up. When the command is interrupted, the \
                  refresh continues: `tidewater refresh cancel` ends it."
)]
pub(crate) struct Options {
    /// Name of the table
    table: String,

    /// Publish also if the source is empty or has shrunk
    #[arg(long)]
    force: bool,

    /// Wait for a refresh that is already in progress, instead of an error
    #[arg(long, conflicts_with = "no_wait")]
    join: bool,

    /// Return when the refresh has begun
    #[arg(long)]
    no_wait: bool,

    #[command(flatten)]
    client: ClientArgs,
}

/// Begins a refresh, and waits for its end.
pub(crate) async fn run(options: Options) -> Result<(), Failure> {
    let client = options.client.connect().await?;
    let table = &options.table;
    let generation = match client.start_refresh(table, options.force).await {
        Ok(generation) => generation.get(),
        Err(ClientError::Refused { refusal, .. })
            if options.join && refusal.reason == Reason::AlreadyRefreshing =>
        {
            let found = client.refreshes(Some(table), false).await?;
            let record = found.into_iter().next().and_then(|info| info.record);
            record.map_or(0, |record| record.generation)
        }
        Err(error) => return Err(error.into()),
    };
    if options.no_wait {
        let run = RefreshRun { generation, ..RefreshRun::default() };
        return fact(options.client.output, &RunLine::from(&run), |run| {
            format!("refresh {} of table {table} has begun", run.generation)
        });
    }
    let run = wait(&client, table, generation).await?;
    let line = RunLine::from(&run);
    if run.outcome() != RefreshOutcome::Published {
        let error = line.error.clone().unwrap_or_else(|| "by a user".to_owned());
        let text = format!("refresh {generation} of table {table} {}: {error}", line.outcome);
        let reason = Reason::try_from(run.error_reason).unwrap_or(Reason::Unspecified);
        let exit = if run.outcome() == RefreshOutcome::Cancelled {
            Exit::Conflict
        } else {
            exit_of(reason)
        };
        return Err(Failure::new(exit, text));
    }
    fact(options.client.output, &line, |run| {
        let rows = grouped(run.source_rows);
        format!("table {table} refreshed from {rows} rows: {}", run.counts())
    })
}

/// Waits for the end of a refresh, and shows its progress: a line for each phase, and the rows of a long one.
async fn wait(client: &Client, table: &str, generation: u64) -> Result<RefreshRun, Failure> {
    let mut shown: Option<(String, Progress)> = None;
    loop {
        let found = client.refreshes(Some(table), true).await?;
        let record = found.first().and_then(|info| info.record.clone()).unwrap_or_default();
        let ended = record.history.iter().find(|run| run.generation == generation);
        if let Some(ended) = ended {
            return Ok(ended.clone());
        }
        if record.current.is_none_or(|current| current.generation != generation) {
            let text = format!(
                "the outcome of refresh {generation} of table {table} is not kept any more"
            );
            return Err(Failure::new(Exit::Conflict, text));
        }
        for status in found.iter().map(StatusLine::from) {
            let known = shown.take_if(|(state, _)| *state == status.state);
            let (state, mut progress) = known.unwrap_or_else(|| {
                let activity = format!("refresh {generation} of table {table}: {}", status.state);
                if let Some((_, last)) = shown.take() {
                    last.finish();
                }
                note(&activity);
                (status.state.clone(), Progress::start(activity))
            });
            let (rows, share) = status.work();
            progress.set_note(status.completed_parts());
            progress.update(rows, share);
            shown = Some((state, progress));
        }
        sleep(POLL).await;
    }
}
