//! Names and ids of a cluster, fetched within a short deadline. Without an answer there are none: a
//! completion must not print errors between the words of the user.

use std::time::Duration;

use clap_complete::CompletionCandidate;
use tidewater_client::{Client, ClientError, ClientOptions};
use tidewater_common::schema::dropped_table_name;
use tidewater_meta_node::catalog::EXPORT_TOKEN_PREFIX;
use tidewater_proto::v1::{ListedExport, ReadHold};

use crate::commands::client::ClientArgs;
use crate::commands::hold::has_lease;

/// Deadline of a completion.
const DEADLINE: Duration = Duration::from_secs(1);

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
    /// Names of holds with a lease, with their holders as help. Commands can neither renew, move nor release those of exports.
    LeasedHolds,
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
            let named = catalog.tables().filter(|table| table.name != dropped_table_name(table.id));
            named.map(|table| CompletionCandidate::new(&table.name)).collect()
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
        Candidates::Holds | Candidates::LeasedHolds | Candidates::ExportTokens => {
            let holds = client.read_holds(None).await?.into_iter().filter_map(|held| held.hold);
            holds
                .filter(|hold| is_candidate(hold, kind))
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

/// Returns whether a hold is of a kind of candidates.
fn is_candidate(hold: &ReadHold, kind: Candidates) -> bool {
    match kind {
        Candidates::LeasedHolds => has_lease(hold),
        Candidates::ExportTokens => hold.name.starts_with(EXPORT_TOKEN_PREFIX),
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn candidates_leave_out_holds_of_exports() {
        let hold = |name: &str, lease_ms| ReadHold {
            name: name.to_owned(),
            lease_ms,
            ..ReadHold::default()
        };
        let holds = [
            hold("nightly", 60_000),
            hold("export:lake", u64::MAX),
            hold("export-token:6f0c", 60_000),
        ];
        for (kind, expected) in [
            (Candidates::Holds, &["nightly", "export:lake", "export-token:6f0c"][..]),
            (Candidates::LeasedHolds, &["nightly", "export-token:6f0c"]),
            (Candidates::ExportTokens, &["export-token:6f0c"]),
        ] {
            let found = holds.iter().filter(|hold| is_candidate(hold, kind));
            let found: Vec<&str> = found.map(|hold| hold.name.as_str()).collect();
            assert_eq!(found, expected, "{kind:?}");
        }
    }
}
