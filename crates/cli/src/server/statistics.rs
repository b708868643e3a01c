//! Statistics of collections, written by the process of the meta leader.

use std::time::Duration;

use tidewater_client::{Client, ClientOptions};
use tidewater_meta_node::MetaLeadership;
use tidewater_system_tables::{STATISTICS, StatisticsTable, SystemTableError, Written};
use tokio::time::{MissedTickBehavior, interval};

/// Deadline of an operation of the client.
const DEADLINE: Duration = Duration::from_secs(30);

/// Writes the statistics in this interval while the node leads the meta group; never returns. `meta`: addresses of meta nodes.
pub(crate) async fn keep(every: Duration, meta: Vec<String>, leadership: MetaLeadership) {
    let mut ticks = interval(every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // The first tick is at once; a cluster that was just created has no tables.
    ticks.tick().await;
    let mut connected = None;
    let mut last = Outcome::Written;
    loop {
        ticks.tick().await;
        if leadership.leading().is_none() {
            continue;
        }
        let outcome = Outcome::of(&update(&mut connected, &meta).await);
        if outcome != last {
            outcome.log();
            last = outcome;
        }
    }
}

async fn update(
    connected: &mut Option<StatisticsTable>,
    meta: &[String],
) -> Result<Option<Written>, SystemTableError> {
    let table = match connected {
        Some(table) => table,
        None => {
            let options = ClientOptions {
                meta: meta.to_vec(),
                deadline: DEADLINE,
                ..ClientOptions::default()
            };
            connected.insert(StatisticsTable::new(Client::connect(options).await?))
        }
    };
    table.update().await
}

/// Outcome of a round. Only a change is logged.
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

    fn log(&self) {
        match self {
            Self::Written => tracing::info!(table = STATISTICS, "statistics are written"),
            Self::TooMany => {
                tracing::warn!(
                    table = STATISTICS,
                    "statistics are not written: the cluster has more than 10,000 tables"
                );
            }
            Self::Failed(problem) => {
                tracing::warn!(
                    table = STATISTICS,
                    problem,
                    "statistics are not written; the next round repeats it"
                );
            }
        }
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

    #[tokio::test]
    async fn unreachable_cluster_is_a_failed_round() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let meta = vec![listener.local_addr().unwrap().to_string()];
        drop(listener);
        let mut connected = None;
        let outcome = Outcome::of(&update(&mut connected, &meta).await);
        assert!(matches!(outcome, Outcome::Failed(_)), "{outcome:?}");
        assert!(connected.is_none());
    }
}
