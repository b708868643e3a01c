//! `hook resume NAME`

use clap::Args;

use super::Changed;
use crate::commands::client::ClientArgs;
use crate::exit::Failure;
use crate::output::fact;

/// Options of `hook resume`.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  tidewater hook resume audit")]
pub(crate) struct Options {
    /// Name of the hook
    name: String,

    #[command(flatten)]
    client: ClientArgs,
}

/// Has a paused hook called again.
pub(crate) async fn run(options: Options) -> Result<(), Failure> {
    options.client.connect().await?.set_hook_paused(&options.name, false).await?;
    let changed = Changed { name: options.name, state: "active" };
    fact(options.client.output, &changed, |changed| {
        format!("hook {} is called again", changed.name)
    })
}
