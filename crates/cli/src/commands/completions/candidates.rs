//! Names and ids of a cluster, fetched within a short deadline. Without an answer there are none: a
//! completion must not print errors between the words of the user.

use std::time::Duration;

use clap_complete::CompletionCandidate;
use tidewater_client::{Client, ClientError, ClientOptions};
use tidewater_proto::v1::ListedExport;

use crate::commands::client::ClientArgs;

/// Deadline of a completion.
const DEADLINE: Duration = Duration::from_secs(1);
/// Beginning of the names of holds that are tokens of exports.
const TOKEN_PREFIX: &str = "export-token:";

/// Kind of the candidates.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Candidates {
    /// Names of tables.
    Tables,
    /// Ids of regions, with the names of their tables as help.
    Regions,
    /// Names of hooks.
    Hooks,
    /// Names of holds, with their holders as help.
    Holds,
    /// Names of exports, with their tables as help.
    Exports,
    /// Tokens of exports that are created later, with their holders as help.
    ExportTokens,
}

/// Returns the candidates; none if the cluster does not answer in time.
pub(super) fn candidates(client: &ClientArgs, kind: Candidates) -> Vec<CompletionCandidate> {
    let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else {
        return Vec::new();
    };
    let options = client.options();
    let options = ClientOptions {
        deadline: options.deadline.min(DEADLINE),
        connect_deadline: options.connect_deadline.min(DEADLINE),
        ..options
    };
    let fetched = runtime
        .block_on(async { tokio::time::timeout(DEADLINE, Box::pin(fetch(options, kind))).await });
    // No caller waits for the tasks that still run.
    runtime.shutdown_background();
    fetched.ok().and_then(Result::ok).unwrap_or_default()
}

async fn fetch(
    options: ClientOptions,
    kind: Candidates,
) -> Result<Vec<CompletionCandidate>, ClientError> {
    let client = Client::connect(options).await?;
    let catalog = client.catalog();
    Ok(match kind {
        Candidates::Tables => {
            catalog.tables().map(|table| CompletionCandidate::new(&table.name)).collect()
        }
        Candidates::Regions => catalog
            .routes()
            .map(|route| {
                let table = catalog.table(route.table).map(|table| table.name.clone().into());
                CompletionCandidate::new(route.region.to_string()).help(table)
            })
            .collect(),
        Candidates::Hooks => {
            let hooks = client.hooks().await?.into_iter().filter_map(|info| info.hook);
            hooks.map(|hook| CompletionCandidate::new(hook.name)).collect()
        }
        Candidates::Holds | Candidates::ExportTokens => {
            let holds = client.read_holds(None).await?.into_iter().filter_map(|held| held.hold);
            holds
                .filter(|hold| kind == Candidates::Holds || hold.name.starts_with(TOKEN_PREFIX))
                .map(|hold| CompletionCandidate::new(hold.name).help(Some(hold.holder.into())))
                .collect()
        }
        Candidates::Exports => {
            let candidate = |listed: ListedExport| {
                let name = CompletionCandidate::new(listed.export?.name);
                Some(name.help(Some(listed.table.into())))
            };
            client.exports().await?.into_iter().filter_map(candidate).collect()
        }
    })
}
