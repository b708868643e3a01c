//! `compaction cancel JOB`

use clap::Args;
use serde::Serialize;

use crate::commands::client::ClientArgs;
use crate::exit::Failure;
use crate::output::fact;

/// Options of `compaction cancel`.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  tidewater compaction cancel \
                        01938e21-7c4f-7cc2-9a39-5b1d1d7a1b02\n\nWhat is committing already is \
                        committed. By itself its region is compacted again after five minutes; one that \
                        is quarantined is forgotten, so that its files may be chosen again. \
                        `tidewater compaction list` shows the ids.")]
pub(crate) struct Options {
    /// Id of the job
    #[arg(value_name = "JOB")]
    job: String,

    #[command(flatten)]
    client: ClientArgs,
}

/// What was cancelled. The JSON field names are stable.
#[derive(Debug, Serialize)]
struct Cancelled {
    job_id: String,
}

/// Ends a compaction.
pub(crate) async fn run(options: Options) -> Result<(), Failure> {
    options.client.connect().await?.cancel_compaction(&options.job).await?;
    let cancelled = Cancelled { job_id: options.job };
    fact(options.client.output, &cancelled, |one| format!("compaction {} is cancelled", one.job_id))
}
