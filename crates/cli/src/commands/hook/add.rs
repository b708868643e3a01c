//! `hook add NAME --kind KIND --config JSON`

use clap::Args;
use tidewater_client::NewHook;

use super::Changed;
use crate::commands::client::ClientArgs;
use crate::exit::Failure;
use crate::output::fact;

/// Options of `hook add`.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  tidewater hook add mirror --kind webhook --config '{\"url\": \
                  \"https://example.org/in\", \"secret_file\": \"/etc/tidewater/mirror\"}' \
                  --table flights\n\nKinds:\n  jsonl    {\"path\": FILE}\n  webhook  {\"url\": URL, \
                  \"secret_file\": FILE, \"queue\": N, \"timeout_ms\": N}")]
pub(crate) struct Options {
    /// Name of the hook: letters, digits, '-', '_' and '.'
    name: String,

    /// What makes it: jsonl or webhook
    #[arg(long)]
    kind: String,

    /// What the kind needs to know
    #[arg(long, value_name = "JSON")]
    config: String,

    /// The only table that it sees
    #[arg(long, value_name = "TABLE")]
    table: Option<String>,

    #[command(flatten)]
    client: ClientArgs,
}

/// Adds a hook.
pub(crate) async fn run(options: Options) -> Result<(), Failure> {
    let hook = NewHook {
        name: options.name.clone(),
        kind: options.kind,
        config: options.config,
        table: options.table,
    };
    options.client.connect().await?.add_hook(hook).await?;
    let added = Changed { name: options.name, state: "active" };
    fact(options.client.output, &added, |added| format!("hook {} is added", added.name))
}
