//! `export list`

use clap::Args;

use super::export_line::ExportLine;
use crate::commands::client::ClientArgs;
use crate::exit::Failure;
use crate::output;

/// Options of `export list`.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  tidewater export list\n  tidewater export list --output json\n\nSTATE is `contents` with the \
                  regions that are written until the first step is complete, then the epoch of the last completed step and \
                  the regions of a step in progress, or the last failure of a step, which is repeated. FILES, ROWS and SIZE \
                  are those of the completed steps. LAG is the time between the epochs of the last completed step and the \
                  last barrier: at most --every and the time of a step, unless the export fails or is too slow."
)]
pub(crate) struct Options {
    #[command(flatten)]
    client: ClientArgs,
}

/// Lists the exports.
pub(crate) async fn run(options: Options) -> Result<(), Failure> {
    let exports = options.client.connect().await?.exports().await?;
    let lines: Vec<ExportLine> = exports.into_iter().map(ExportLine::from).collect();
    output::list(options.client.output, &lines)
}
