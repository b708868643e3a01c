//! Epochs of reads: which ones a region has completed, and which ones a refreshable table has published.

use std::time::Duration;

use tidewater_common::ids::Epoch;
use tidewater_common::refusal::Refusal;
use tidewater_proto::v1::Reason;
use tidewater_region_engine::AsOf;

use crate::group::hosted::HostedRegion;
use crate::group::refresh::PublishedEpochs;
use crate::group::replica::GroupReplica;
use crate::groups::Groups;

/// Time in which this node's catalog most likely has a publication that a client knows.
const PUBLICATION_TIME: Duration = Duration::from_millis(50);

/// Returns the engine's form of the epoch that a read names. Call it after the leader's confirmation: rows of a complete
/// epoch are in the region from then on.
///
/// # Errors
/// [`Reason::EpochRequired`] and [`Reason::CatalogBehind`] for a refreshable table, whose rows as of other epochs than the
/// published ones may be of an incomplete refresh; [`Reason::EpochIncomplete`] in a group that has applied no barrier. The engine checks the bounds.
pub(super) fn as_of(
    groups: &Groups,
    replica: &GroupReplica,
    hosted: &HostedRegion,
    requested: Option<u64>,
) -> Result<Option<AsOf>, Refusal> {
    let Some(epoch) = requested.map(Epoch) else {
        return if hosted.descriptor.options.refreshable {
            Err(epoch_required(hosted))
        } else {
            Ok(None)
        };
    };
    let region = hosted.descriptor.region_id;
    if hosted.descriptor.options.refreshable {
        let table = hosted.descriptor.table_id.get();
        let latest = groups.context().catalog.read(|records| {
            records.tables.get(&table).map_or(Epoch(0), |table| Epoch(table.published_epoch))
        });
        let state = replica.shared.state.read();
        let kept = state.regions.get(&region).map(|region| &region.published);
        check_published(epoch, latest, kept.unwrap_or(&PublishedEpochs::default()))
            .map_err(|reason| not_published(hosted, epoch, reason))?;
    }
    let (_, upper) = replica.shared.state.read().readable_epochs(region).unwrap_or_default();
    // No row of a refreshable table is of epoch 0: merges wait for the first one.
    let upper = if hosted.descriptor.options.refreshable { upper.max(Epoch(1)) } else { upper };
    if upper == Epoch(0) {
        let text = format!(
            "group {} has no epochs yet: barriers begin at feature level 5 (`tidewater cluster status` shows the level)",
            replica.group()
        );
        return Err(Refusal::new(Reason::EpochIncomplete, text));
    }
    Ok(Some(AsOf { epoch, upper }))
}

/// Checks the epoch of a read of a refreshable table. `latest`: the one in this node's catalog, which a region learns later.
/// `kept`: those that the region keeps readable.
///
/// # Errors
/// [`Reason::CatalogBehind`]: this node may not know of the publication yet; [`Reason::EpochRequired`]: the epoch was not
/// published, or its time for readers is over.
fn check_published(epoch: Epoch, latest: Epoch, kept: &PublishedEpochs) -> Result<(), Reason> {
    if epoch == latest || kept.contains(epoch) {
        Ok(())
    } else if epoch > latest.max(kept.last()) {
        Err(Reason::CatalogBehind)
    } else {
        Err(Reason::EpochRequired)
    }
}

fn not_published(hosted: &HostedRegion, epoch: Epoch, reason: Reason) -> Refusal {
    let table = &hosted.descriptor.table_name;
    if reason == Reason::CatalogBehind {
        let text = format!("this node knows no publication of table {table} at epoch {epoch}");
        return Refusal::new(reason, text).retry_after(PUBLICATION_TIME);
    }
    let text = format!(
        "table {table} is refreshable and not published at epoch {epoch}, or no longer readable as of it: read it again"
    );
    Refusal::new(reason, text)
}

fn epoch_required(hosted: &HostedRegion) -> Refusal {
    let table = &hosted.descriptor.table_name;
    let text = format!(
        "table {table} is refreshable and read as of its published epoch: refresh the catalog, or use a client of this release"
    );
    Refusal::new(Reason::EpochRequired, text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refreshable_table_is_read_as_of_published_epochs_only() {
        let mut kept = PublishedEpochs::default();
        for epoch in [100, 200] {
            kept.publish(Epoch(epoch), Epoch(1_000));
        }
        for (epoch, latest, expected) in [
            (300, 300, Ok(())),
            (200, 300, Ok(())),
            (100, 300, Ok(())),
            (200, 0, Ok(())),
            (250, 300, Err(Reason::EpochRequired)),
            (150, 300, Err(Reason::EpochRequired)),
            (99, 200, Err(Reason::EpochRequired)),
            (301, 300, Err(Reason::CatalogBehind)),
            (201, 0, Err(Reason::CatalogBehind)),
        ] {
            assert_eq!(check_published(Epoch(epoch), Epoch(latest), &kept), expected, "{epoch}");
        }
    }
}
