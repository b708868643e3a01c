//! `hook remove NAME`

use clap::Args;

use super::HookChange;
use crate::commands::client::ClientArgs;
use crate::exit::Failure;
use crate::output::fact;

/// Options of `hook remove`.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  tidewater hook remove audit")]
pub(crate) struct Options {
    /// Name of the hook
    name: String,

    #[command(flatten)]
    client: ClientArgs,
}

/// Removes a hook. Calls that it has not delivered yet are lost.
pub(crate) async fn run(options: Options) -> Result<(), Failure> {
    options.client.connect().await?.remove_hook(&options.name).await?;
    let removed = HookChange { name: options.name, state: "removed" };
    fact(options.client.output, &removed, |removed| format!("hook {} removed", removed.name))
}
