//! `--as-of`: the epoch of a read or of a hold.
//!
//! A time becomes the newest complete epoch at or before it. A duration counts back from the timestamps of the cluster, from
//! which epochs are made, so that the clock of the machine that the command runs on has no effect.

use tidewater_client::Client;
use tidewater_client::admin::TableEpochs;
use tidewater_client::catalog::TableInfo;
use tidewater_common::ids::Epoch;
use tidewater_common::quote::quoted;
use tidewater_proto::v1::Reason;

use crate::exit::{Exit, Failure};
use crate::text::as_of::AsOf;
use crate::text::moment::Moment;

/// A time without a complete epoch that can be read.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
enum EpochError {
    #[error(
        "epoch {requested} of table {table} can no longer be read: it is below since {since} (upper is {upper}); name a later time",
        since = .epochs.since, upper = .epochs.upper
    )]
    BelowSince { table: String, requested: Epoch, epochs: TableEpochs },
    #[error(
        "epoch {requested} of table {table} is not complete yet: it is not below upper {upper} (since is {since}); name an earlier time",
        since = .epochs.since, upper = .epochs.upper
    )]
    Incomplete { table: String, requested: Epoch, epochs: TableEpochs },
    #[error(
        "no epoch of table {table} can be read: since is {since}, and upper is {upper}; `tidewater collection policy` keeps later ones",
        since = .epochs.since, upper = .epochs.upper
    )]
    NoEpoch { table: String, epochs: TableEpochs },
}

impl From<EpochError> for Failure {
    fn from(error: EpochError) -> Self {
        // The same status as for an epoch that is named by its number.
        Self::new(Exit::Conflict, format!("--as-of: {error}"))
    }
}

/// Returns the epoch that a read names; `None`: the newest rows are read.
pub(crate) async fn read_epoch(
    client: &Client,
    table: &TableInfo,
    as_of: Option<AsOf>,
) -> Result<Option<Epoch>, Failure> {
    let moment = match as_of {
        None => return Ok(None),
        Some(AsOf::Epoch(epoch)) => return Ok(Some(epoch)),
        Some(AsOf::Time(moment)) => moment,
    };
    let time_ms = time_ms(client, moment).await?;
    let epochs = client.table_epochs(&table.name).await?;
    Ok(Some(epoch_at(&table.name, moment, time_ms, epochs)?))
}

/// Returns a time in milliseconds since the Unix epoch, by the timestamps of the cluster.
pub(super) async fn time_ms(client: &Client, moment: Moment) -> Result<u64, Failure> {
    let now_ms = match moment {
        Moment::Ago(_) => client.next_timestamp().await?.ms(),
        // The time now has no effect.
        Moment::At(_) => 0,
    };
    Ok(moment.ms(now_ms))
}

/// Returns the newest complete epoch at or before a time. A duration may end in an incomplete epoch, before which the newest
/// complete one is; a time that is given as such always has the same epoch.
fn epoch_at(
    table: &str,
    moment: Moment,
    time_ms: u64,
    epochs: TableEpochs,
) -> Result<Epoch, EpochError> {
    let table = quoted(table).to_string();
    let Some(newest) = epochs.newest() else { return Err(EpochError::NoEpoch { table, epochs }) };
    let at_time = Epoch::at_ms(time_ms);
    let requested = match moment {
        Moment::Ago(_) => at_time.min(newest),
        Moment::At(_) if at_time > newest => {
            return Err(EpochError::Incomplete { table, requested: at_time, epochs });
        }
        Moment::At(_) => at_time,
    };
    if requested < epochs.since {
        return Err(EpochError::BelowSince { table, requested, epochs });
    }
    Ok(requested)
}

/// Adds the readable epochs of a table to the failure of a read of an incomplete epoch: a node names only upper.
pub(crate) async fn with_bounds(client: &Client, table: &str, failure: Failure) -> Failure {
    if failure.reason() != Some(Reason::EpochIncomplete) {
        return failure;
    }
    // The failure is clear without them.
    let Ok(epochs) = client.table_epochs(table).await else { return failure };
    failure.with_note(&bounds(table, epochs))
}

fn bounds(table: &str, epochs: TableEpochs) -> String {
    let TableEpochs { since, upper } = epochs;
    format!("since of table {} is {since}, and upper is {upper}", quoted(table))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::time_span::TimeSpan;

    const BEGIN_MS: u64 = 1_800_000_000_000;
    const AGO: Moment = Moment::Ago(TimeSpan(0));
    const AT: Moment = Moment::At(0);

    fn epochs() -> TableEpochs {
        let (since, upper) = (Epoch::at_ms(BEGIN_MS), Epoch::at_ms(BEGIN_MS + 300_000));
        TableEpochs { since, upper }
    }

    #[test]
    fn time_has_the_epoch_that_began_before_it() {
        for moment in [AGO, AT] {
            for ms in [BEGIN_MS, BEGIN_MS + 1_500, BEGIN_MS + 299_999] {
                assert_eq!(epoch_at("t", moment, ms, epochs()), Ok(Epoch::at_ms(ms)));
            }
        }
    }

    #[test]
    fn duration_has_the_newest_complete_epoch() {
        let newest = epochs().upper.previous();
        for ms in [BEGIN_MS + 300_000, BEGIN_MS + 900_000] {
            assert_eq!(epoch_at("t", AGO, ms, epochs()), Ok(newest));
        }
    }

    #[test]
    fn incomplete_epoch_of_a_time_is_refused() {
        let refused = epoch_at("t", AT, BEGIN_MS + 300_000, epochs()).unwrap_err();
        assert!(matches!(refused, EpochError::Incomplete { .. }), "{refused}");
        let text = refused.to_string();
        let expected = format!("not below upper {} (since is {})", epochs().upper, epochs().since);
        assert!(text.contains("\"t\" is not complete yet") && text.contains(&expected), "{text}");
        assert_eq!(Failure::from(refused).exit, Exit::Conflict);
    }

    #[test]
    fn time_before_since_is_refused() {
        for moment in [AGO, AT] {
            let refused = epoch_at("t", moment, BEGIN_MS - 1, epochs()).unwrap_err();
            let text = refused.to_string();
            let expected = format!("below since {} (upper is {})", epochs().since, epochs().upper);
            assert!(text.contains(&expected), "{text}");
        }
    }

    #[test]
    fn table_without_history_has_no_epoch() {
        let none = TableEpochs { since: epochs().upper, ..epochs() };
        for moment in [AGO, AT] {
            let refused = epoch_at("t", moment, BEGIN_MS, none);
            assert!(matches!(refused, Err(EpochError::NoEpoch { .. })), "{refused:?}");
        }
    }

    #[test]
    fn bounds_name_both_sides() {
        let text = bounds("t", TableEpochs { since: Epoch(5), upper: Epoch(9) });
        assert_eq!(text, "since of table \"t\" is 5, and upper is 9");
    }
}
