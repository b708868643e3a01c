//! Tables about the cluster, written by the process of the meta leader.

use std::collections::BTreeMap;
use std::time::Duration;

use futures::future::join_all;
use tidewater_client::{Client, ClientError, ClientOptions};
use tidewater_meta_node::MetaLeadership;
use tidewater_system_tables::{SystemTable, SystemTableError, SystemTables, Written};
use tokio::time::{MissedTickBehavior, interval};

/// Deadline of an operation of the client.
const DEADLINE: Duration = Duration::from_secs(30);

/// Writes the tables in this interval while the node leads the meta group; never returns. `meta`: addresses of meta nodes.
pub(crate) async fn keep(every: Duration, meta: Vec<String>, leadership: MetaLeadership) {
    let mut ticks = interval(every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // The first tick is at once; a cluster that was just created has no tables.
    ticks.tick().await;
    let mut connected = None;
    let mut last = LastOutcomes::default();
    loop {
        ticks.tick().await;
        if leadership.leading().is_none() {
            continue;
        }
        for (table, outcome) in update(&mut connected, &meta).await {
            if last.record(table, &outcome) {
                outcome.log(table);
            }
        }
    }
}

/// Updates all tables at the same time, so that the failure of one does not prevent the others. Returns their
/// outcomes.
async fn update(
    connected: &mut Option<SystemTables>,
    meta: &[String],
) -> Vec<(SystemTable, Outcome)> {
    let tables = match connected {
        Some(tables) => tables,
        None => match connect(meta).await {
            Ok(tables) => connected.insert(tables),
            Err(error) => {
                let failed = |table| (table, Outcome::Failed(error.to_string()));
                return SystemTable::ALL.map(failed).to_vec();
            }
        },
    };
    let tables = &*tables;
    join_all(SystemTable::ALL.map(|table| update_table(tables, table))).await
}

async fn connect(meta: &[String]) -> Result<SystemTables, ClientError> {
    let options =
        ClientOptions { meta: meta.to_vec(), deadline: DEADLINE, ..ClientOptions::default() };
    Ok(SystemTables::new(Client::connect(options).await?))
}

async fn update_table(tables: &SystemTables, table: SystemTable) -> (SystemTable, Outcome) {
    (table, Outcome::of(&tables.update(table).await))
}

/// Outcome of a round for a table. Only a change is logged.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Outcome {
    Written,
    TooMany,
    Failed(String),
}

impl Outcome {
    fn of(written: &Result<Option<Written>, SystemTableError>) -> Self {
        match written {
            Ok(Some(_)) => Self::Written,
            Ok(None) => Self::TooMany,
            Err(error) => Self::Failed(error.to_string()),
        }
    }

    fn log(&self, table: SystemTable) {
        let name = table.name();
        match self {
            Self::Written => tracing::info!(table = name, "system table is written"),
            Self::TooMany => {
                tracing::warn!(
                    table = name,
                    "system table is not written: the cluster has more than {}",
                    table.limit()
                );
            }
            Self::Failed(problem) => {
                tracing::warn!(
                    table = name,
                    problem,
                    "system table is not written; the next round repeats it"
                );
            }
        }
    }
}

/// Outcomes of the last round.
#[derive(Debug, Default)]
struct LastOutcomes(BTreeMap<SystemTable, Outcome>);

impl LastOutcomes {
    /// Records the outcome for a table, and returns whether it has changed. Before its first round, a table counts as
    /// written.
    fn record(&mut self, table: SystemTable, outcome: &Outcome) -> bool {
        let last = self.0.insert(table, outcome.clone());
        last.unwrap_or(Outcome::Written) != *outcome
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_changes_of_the_outcome_differ() {
        let written = Outcome::of(&Ok(Some(Written { puts: 3, deletes: 0 })));
        assert_eq!(written, Outcome::of(&Ok(Some(Written::default()))));
        assert_ne!(written, Outcome::of(&Ok(None)));
    }

    #[test]
    fn outcome_is_compared_with_that_of_its_table() {
        let mut last = LastOutcomes::default();
        let failed = Outcome::Failed("no leader".to_owned());
        let rounds = [failed.clone(), failed, Outcome::TooMany, Outcome::Written];
        let changed = rounds.map(|outcome| {
            let is_changed = last.record(SystemTable::Statistics, &outcome);
            (is_changed, last.record(SystemTable::Progress, &Outcome::Written))
        });
        assert_eq!(changed, [(true, false), (false, false), (true, false), (true, false)]);
    }

    #[tokio::test]
    async fn unreachable_cluster_fails_the_round_of_each_table() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let meta = vec![listener.local_addr().unwrap().to_string()];
        drop(listener);
        let mut connected = None;
        let outcomes = update(&mut connected, &meta).await;
        let tables: Vec<SystemTable> = outcomes.iter().map(|(table, _)| *table).collect();
        assert_eq!(tables, SystemTable::ALL);
        let are_failed = outcomes.iter().all(|(_, of)| matches!(of, Outcome::Failed(_)));
        assert!(are_failed, "{outcomes:?}");
        assert!(connected.is_none());
    }
}
