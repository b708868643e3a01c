//! Epochs of reads: which ones a region has completed, and which ones a refreshable table has published.
//!
//! A client may know of a publication before this node. A read of an epoch that may have been published therefore waits for
//! the node's catalog. All other reads of an epoch at which the table is not published are refused at once.

use std::time::Duration;

use tidewater_common::ids::Epoch;
use tidewater_common::refusal::Refusal;
use tidewater_proto::v1::Reason;
use tidewater_region_engine::AsOf;

use crate::group::hosted::HostedRegion;
use crate::group::refresh::PublishedEpochs;
use crate::group::replica::GroupReplica;
use crate::groups::Groups;

/// Confirms the leadership for a read that may name an epoch. Waits for a publication that this node does not know yet.
///
/// # Errors
/// [`Reason::CatalogBehind`]: the publication may exist, and the watch of the catalog is interrupted; and those of
/// [`GroupReplica::confirm`].
pub(super) async fn confirm(
    groups: &Groups,
    replica: &GroupReplica,
    hosted: &HostedRegion,
    requested: Option<u64>,
    limit: Duration,
) -> Result<(), Refusal> {
    replica.confirm(limit).await?;
    let descriptor = &hosted.descriptor;
    let Some(epoch) = requested.map(Epoch).filter(|_| descriptor.options.refreshable) else {
        return Ok(());
    };
    if publication(groups, replica, hosted, epoch) != Publication::Unknown {
        return Ok(());
    }
    groups.context().catalog.wait_for_publication(descriptor.table_id.get(), epoch).await?;
    // Its rows may be those of another leader.
    replica.confirm(limit).await
}

/// Returns the engine's form of the epoch that a read names. Call it after [`confirm`]: rows of a complete epoch are in the
/// region from then on.
///
/// # Errors
/// [`Reason::EpochRequired`] for a refreshable table, whose rows as of other epochs than the published ones may be of an
/// incomplete refresh; [`Reason::EpochIncomplete`] in a group that has applied no barrier; those of
/// [`GroupReplica::check_recorded`]. The engine checks the bounds.
pub(super) fn as_of(
    groups: &Groups,
    replica: &GroupReplica,
    hosted: &HostedRegion,
    requested: Option<u64>,
) -> Result<Option<AsOf>, Refusal> {
    let is_refreshable = hosted.descriptor.options.refreshable;
    let Some(epoch) = requested.map(Epoch) else {
        return if is_refreshable {
            Err(epoch_required(hosted, latest(groups, replica, hosted)))
        } else {
            Ok(None)
        };
    };
    let region = hosted.descriptor.region_id;
    if is_refreshable && publication(groups, replica, hosted, epoch) != Publication::Published {
        return Err(not_published(hosted, epoch, latest(groups, replica, hosted)));
    }
    let (_, upper) = replica.shared.state.read().readable_epochs(region).unwrap_or_default();
    if !is_refreshable {
        replica.check_recorded(hosted)?;
    }
    // No row of a refreshable table is of epoch 0: merges wait for the first one.
    let upper = if is_refreshable { upper.max(Epoch(1)) } else { upper };
    if upper == Epoch(0) {
        let text = format!(
            "group {} has no epochs yet: barriers begin at feature level 5 (`tidewater cluster status` shows the level)",
            replica.group()
        );
        return Err(Refusal::new(Reason::EpochIncomplete, text));
    }
    Ok(Some(AsOf { epoch, upper }))
}

/// Relation of an epoch to the publications of a refreshable table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Publication {
    /// The table is readable as of the epoch, or was until a short time ago.
    Published,
    /// The epoch may have been published since this node has received the catalog.
    Unknown,
    /// The epoch was not published, or its time for readers is over.
    Never,
}

fn publication(
    groups: &Groups,
    replica: &GroupReplica,
    hosted: &HostedRegion,
    epoch: Epoch,
) -> Publication {
    let latest = catalog_epoch(groups, hosted);
    let state = replica.shared.state.read();
    let region = state.regions.get(&hosted.descriptor.region_id);
    let kept = region.map(|region| &region.published);
    compare(epoch, latest, kept.unwrap_or(&PublishedEpochs::default()), state.epoch)
}

/// Returns the published epoch of the table in this node's catalog; 0: none.
fn catalog_epoch(groups: &Groups, hosted: &HostedRegion) -> Epoch {
    let table = hosted.descriptor.table_id.get();
    groups.context().catalog.read(|records| {
        records.tables.get(&table).map_or(Epoch(0), |table| Epoch(table.published_epoch))
    })
}

/// Returns the latest published epoch that this node knows; 0: none.
fn latest(groups: &Groups, replica: &GroupReplica, hosted: &HostedRegion) -> Epoch {
    let latest = catalog_epoch(groups, hosted);
    let state = replica.shared.state.read();
    let region = state.regions.get(&hosted.descriptor.region_id);
    region.map_or(latest, |region| latest.max(region.published.last()))
}

/// Compares the epoch of a read with the published ones. `latest`: the one in this node's catalog, which a region learns
/// later. `kept`: those that the region keeps readable. `reached`: that of the group, which all published ones precede.
fn compare(epoch: Epoch, latest: Epoch, kept: &PublishedEpochs, reached: Epoch) -> Publication {
    if epoch == latest || kept.contains(epoch) {
        Publication::Published
    } else if epoch > latest.max(kept.last()) && epoch < reached {
        Publication::Unknown
    } else {
        Publication::Never
    }
}

fn not_published(hosted: &HostedRegion, epoch: Epoch, latest: Epoch) -> Refusal {
    let table = &hosted.descriptor.table_name;
    let text = format!(
        "table {table} is refreshable and not published at epoch {epoch}, or no longer readable as of it: its latest \
         published epoch is {latest}; read it again as of that one"
    );
    Refusal::new(Reason::EpochRequired, text)
}

fn epoch_required(hosted: &HostedRegion, latest: Epoch) -> Refusal {
    let table = &hosted.descriptor.table_name;
    let text = format!(
        "table {table} is refreshable and read as of its published epoch, {latest}: refresh the catalog, or use a client of \
         this release"
    );
    Refusal::new(Reason::EpochRequired, text)
}

#[cfg(test)]
mod tests;
