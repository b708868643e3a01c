//! `procedure cancel ID`

use clap::Args;

use super::ProcedureLine;
use crate::commands::client::ClientArgs;
use crate::exit::Failure;
use crate::output::fact;

/// Options of `procedure cancel`.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  tidewater procedure cancel 0197a1b2-0000-7000-8000-000000000001\n\nAn \
                  operation past its point of no return cannot be cancelled (exit status 4): it continues \
                  to its end."
)]
pub(crate) struct Options {
    /// Id of the procedure, from `procedure list`
    id: String,

    #[command(flatten)]
    client: ClientArgs,
}

/// Abandons a procedure.
pub(crate) async fn run(options: Options) -> Result<(), Failure> {
    let found = options.client.connect().await?.cancel_procedure(&options.id).await?;
    fact(options.client.output, &ProcedureLine::from(found), |procedure| {
        format!("{} of table {}: {}", procedure.kind, procedure.table, procedure.state)
    })
}
