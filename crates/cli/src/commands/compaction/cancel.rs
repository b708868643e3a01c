//! `compaction cancel JOB`

use clap::Args;
use serde::Serialize;

use crate::commands::client::ClientArgs;
use crate::exit::Failure;
use crate::output::fact;

/// Options of `compaction cancel`.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  tidewater compaction cancel \
                        01938e21-7c4f-7cc2-9a39-5b1d1d7a1b02\n\nA job that is already committing still \
                        commits. Background compaction of its region pauses for five minutes. \
                        Cancelling a quarantined job ends its quarantine: its files may be compacted \
                        again. `tidewater compaction list` shows the ids.")]
pub(crate) struct Options {
    /// Id of the job
    #[arg(value_name = "JOB")]
    job: String,

    #[command(flatten)]
    client: ClientArgs,
}

/// A cancelled job. The JSON field names are stable.
#[derive(Debug, Serialize)]
struct Cancelled {
    job_id: String,
}

/// Cancels a compaction.
pub(crate) async fn run(options: Options) -> Result<(), Failure> {
    options.client.connect().await?.cancel_compaction(&options.job).await?;
    let cancelled = Cancelled { job_id: options.job };
    fact(options.client.output, &cancelled, |job| format!("compaction {} cancelled", job.job_id))
}
