//! Epoch of a hold or an export at a time.

use tidewater_client::Client;
use tidewater_common::ids::Epoch;
use tidewater_proto::v1::CollectionFrontiers;

use super::as_of::time_ms;
use crate::exit::{Exit, Failure};
use crate::text::as_of::AsOf;
use crate::text::moment::Moment;

/// Returns the epoch of a table that an export names; `None`: the cluster chooses it.
pub(super) async fn named_epoch(
    client: &Client,
    as_of: Option<AsOf>,
    table: &str,
) -> Result<Option<Epoch>, Failure> {
    match as_of {
        None => Ok(None),
        Some(AsOf::Epoch(epoch)) => Ok(Some(epoch)),
        Some(AsOf::Time(moment)) => epoch_of(client, moment, &[table.to_owned()]).await.map(Some),
    }
}

/// Returns the newest epoch of tables at or before a time that is before the one of the last barrier.
pub(super) async fn epoch_of(
    client: &Client,
    moment: Moment,
    tables: &[String],
) -> Result<Epoch, Failure> {
    let time_ms = time_ms(client, moment).await?;
    let frontiers = client.collection_frontiers(tables).await?;
    newest_at(time_ms, &frontiers).ok_or_else(|| {
        let text = "--as-of: the meta leader has not begun an epoch yet: retry in a second";
        Failure::new(Exit::Unavailable, text)
    })
}

/// Returns the newest epoch of tables at or before a time that is before the one of the last barrier; `None`: there was no
/// barrier. It may be incomplete in groups that lag. A refreshable table, whose upper is earlier, becomes complete at it by the hold.
fn newest_at(time_ms: u64, frontiers: &[CollectionFrontiers]) -> Option<Epoch> {
    let upper = Epoch(frontiers.iter().map(|of| of.upper).max()?);
    (upper > Epoch(0)).then(|| Epoch::at_ms(time_ms).min(upper.previous()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frontiers(upper: Epoch) -> CollectionFrontiers {
        CollectionFrontiers { upper: upper.get(), ..CollectionFrontiers::default() }
    }

    #[test]
    fn hold_is_before_the_epoch_of_the_last_barrier() {
        let ms = 1_800_000_000_000;
        let (early, late) = (Epoch::at_ms(ms), Epoch::at_ms(ms + 500));
        let of = [frontiers(late), frontiers(early)];
        assert_eq!(newest_at(ms - 1, &of), Some(Epoch::at_ms(ms - 1)));
        assert_eq!(newest_at(ms + 100, &of), Some(Epoch::at_ms(ms + 100)));
        for time_ms in [ms + 500, ms + 900] {
            assert_eq!(newest_at(time_ms, &of), Some(late.previous()));
        }
    }

    #[test]
    fn no_barrier_leaves_no_epoch_to_hold() {
        assert_eq!(newest_at(1_800_000_000_000, &[frontiers(Epoch(0))]), None);
        assert_eq!(newest_at(1_800_000_000_000, &[]), None);
    }
}
