//! `collection capabilities TABLE`

use std::slice;

use clap::{ArgGroup, Args};
use serde::Serialize;
use tidewater_client::ClientError;
use tidewater_common::quote::quoted;
use tidewater_proto::v1::{CapabilityChange, CapabilityChanges, Reason};

use super::list::CollectionLine;
use crate::commands::client::ClientArgs;
use crate::exit::{Exit, Failure};
use crate::output::amount::grouped;
use crate::output::fact;

/// Options of `collection capabilities`.
#[derive(Debug, Args)]
#[command(
    group = ArgGroup::new("changes").required(true).multiple(true).args(["add", "remove"]),
    after_help = "Example:\n  tidewater collection capabilities flights --add 5962137600000000\n  tidewater collection capabilities \
                  flights --add 5962157195263999 --remove 5962137600000000\n\nCapabilities are for programs. They have neither a lease \
                  nor a name: for work by hand, acquire a hold instead (`tidewater hold acquire`). The table remains readable as of its \
                  least epoch with a capability and all later ones, and is neither truncated nor dropped. A program that loses its count \
                  leaves epochs kept: `tidewater collection list` shows the number of capabilities.\n\nChanges of one epoch are joined, \
                  and all changes are made or none. They are not repeated after an unknown outcome (exit status 5), because they would be \
                  made twice."
)]
pub(crate) struct Options {
    /// Name of the table
    table: String,

    /// Add a capability at this epoch; repeat the option for more
    #[arg(long, value_name = "EPOCH")]
    add: Vec<u64>,

    /// Take away a capability at this epoch; repeat the option for more
    #[arg(long, value_name = "EPOCH")]
    remove: Vec<u64>,

    #[command(flatten)]
    client: ClientArgs,
}

impl Options {
    /// Returns the changes, each of one capability: the cluster joins those of an epoch.
    fn changes(&self) -> CapabilityChanges {
        let added = self.add.iter().map(|epoch| (*epoch, 1));
        let removed = self.remove.iter().map(|epoch| (*epoch, -1));
        let changes = added.chain(removed);
        let changes = changes.map(|(epoch, difference)| CapabilityChange { epoch, difference });
        CapabilityChanges { table: self.table.clone(), changes: changes.collect() }
    }
}

/// A table that was dropped after the change: it had the empty policy, or was dropped by another command. The JSON field names
/// are stable.
#[derive(Debug, Serialize)]
struct DroppedTable {
    table: String,
    /// `dropped`
    state: &'static str,
}

/// Adds and takes away capabilities of a table.
pub(crate) async fn run(options: Options) -> Result<(), Failure> {
    let client = options.client.connect().await?;
    let changed = client.update_read_capabilities(vec![options.changes()]).await;
    changed.map_err(|error| not_changed(error, &options.table))?;
    let frontiers = match client.collection_frontiers(slice::from_ref(&options.table)).await {
        Ok(found) => found.into_iter().next(),
        Err(error) if is_dropped(&error) => None,
        Err(error) => return Err(changed_unseen(&error, &options.table)),
    };
    match frontiers {
        Some(frontiers) => fact(options.client.output, &CollectionLine::from(frontiers), text),
        None => {
            let dropped = DroppedTable { table: options.table, state: "dropped" };
            fact(options.client.output, &dropped, |DroppedTable { table, .. }| {
                format!("capabilities of table {table} changed; the table was dropped since then")
            })
        }
    }
}

fn text(line: &CollectionLine) -> String {
    let capabilities = capabilities_text(line.capabilities);
    format!("table {} has {capabilities}; {}", line.table, line.bounds())
}

/// Returns the text of a number of capabilities.
pub(crate) fn capabilities_text(number: u64) -> String {
    match number {
        1 => "1 capability".to_owned(),
        number => format!("{} capabilities", grouped(number)),
    }
}

/// Returns true if the table does not exist.
fn is_dropped(error: &ClientError) -> bool {
    error.refusal().is_some_and(|refusal| refusal.reason == Reason::TableNotFound)
}

/// Returns the failure of a change. The changes may be made after an error with unknown outcome.
fn not_changed(error: ClientError, table: &str) -> Failure {
    let is_unknown = error.maybe_done();
    let failure = Failure::from(error);
    if !is_unknown {
        return failure;
    }
    let table = quoted(table);
    failure.with_note(&format!(
        "the capabilities of table {table} may be changed, now or later: a repetition may change them twice; `tidewater collection list` shows their number"
    ))
}

/// Returns the failure of a command that has changed capabilities and cannot show the frontiers.
fn changed_unseen(error: &ClientError, table: &str) -> Failure {
    let table = quoted(table);
    let text = format!("the capabilities of table {table} are changed: do not repeat the command");
    // The status of the error would be that of a command without effect.
    Failure::new(Exit::Unavailable, format!("{error}\n  {text}"))
}

#[cfg(test)]
mod tests;
