//! `hook resume NAME`

use clap::Args;

use super::HookChange;
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

/// Resumes a paused hook.
pub(crate) async fn run(options: Options) -> Result<(), Failure> {
    options.client.connect().await?.set_hook_paused(&options.name, false).await?;
    let changed = HookChange { name: options.name, state: "active" };
    fact(options.client.output, &changed, |changed| format!("hook {} resumed", changed.name))
}
