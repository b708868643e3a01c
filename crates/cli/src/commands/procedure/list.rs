//! `procedure list`

use clap::Args;

use super::ProcedureLine;
use crate::commands::client::ClientArgs;
use crate::exit::Failure;
use crate::output::{self, Listed};

/// Options of `procedure list`.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  tidewater procedure list --output json")]
pub(crate) struct Options {
    /// Number of ended procedures to list, of the last 24 hours, up to 1,000
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    ended: u32,

    #[command(flatten)]
    client: ClientArgs,
}

impl Listed for ProcedureLine {
    const HEADINGS: &'static [&'static str] =
        &["PROCEDURE", "KIND", "TABLE", "STATE", "STEP", "REGIONS", "ERROR"];

    fn cells(&self) -> Vec<String> {
        let regions = match self.ended_ms {
            Some(_) => "-".to_owned(),
            None => format!("{} of {}", self.regions_done, self.regions),
        };
        vec![
            self.procedure_id.clone(),
            self.kind.clone(),
            self.table.clone(),
            self.state.to_owned(),
            self.step.to_string(),
            regions,
            self.error.clone().unwrap_or_else(|| "-".to_owned()),
        ]
    }
}

/// Lists running procedures, then the last ended ones.
pub(crate) async fn run(options: Options) -> Result<(), Failure> {
    let found = options.client.connect().await?.procedures(options.ended).await?;
    let lines: Vec<ProcedureLine> = found.into_iter().map(ProcedureLine::from).collect();
    output::list(options.client.output, &lines)
}
