//! `hook pause NAME`

use clap::Args;

use super::HookChange;
use crate::commands::client::ClientArgs;
use crate::exit::Failure;
use crate::output::fact;

/// Options of `hook pause`.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  tidewater hook pause audit")]
pub(crate) struct Options {
    /// Name of the hook
    name: String,

    #[command(flatten)]
    client: ClientArgs,
}

/// Pauses a hook.
pub(crate) async fn run(options: Options) -> Result<(), Failure> {
    options.client.connect().await?.set_hook_paused(&options.name, true).await?;
    let changed = HookChange { name: options.name, state: "paused" };
    fact(options.client.output, &changed, |changed| format!("hook {} paused", changed.name))
}
