//! `procedure describe ID`

use clap::Args;

use super::ProcedureLine;
use crate::commands::client::ClientArgs;
use crate::exit::Failure;
use crate::output::fact;

/// Options of `procedure describe`.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  tidewater procedure describe 0197a1b2-0000-7000-8000-000000000001"
)]
pub(crate) struct Options {
    /// Id of the procedure, from `procedure list`
    id: String,

    #[command(flatten)]
    client: ClientArgs,
}

/// Shows a procedure.
pub(crate) async fn run(options: Options) -> Result<(), Failure> {
    let found = options.client.connect().await?.procedure(&options.id).await?;
    fact(options.client.output, &ProcedureLine::from(found), text)
}

fn text(procedure: &ProcedureLine) -> String {
    let cause = procedure.cause.map(|cause| format!(" ({cause})")).unwrap_or_default();
    let mut text = format!(
        "{} of table {}: {}{cause}\n  step: {}\n  regions: {} of {} completed",
        procedure.kind,
        procedure.table,
        procedure.state,
        procedure.step,
        procedure.regions_done,
        procedure.regions,
    );
    if let Some(error) = &procedure.error {
        text.push_str(&format!("\n  last error, repeated: {error}"));
    }
    if procedure.abandonable {
        let hint =
            format!("\n  `tidewater procedure cancel {}` abandons it", procedure.procedure_id);
        text.push_str(&hint);
    }
    text
}
