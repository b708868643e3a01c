//! Epochs of reads: which ones a region has completed, and which publication of a refreshable table they have.
//!
//! A refreshable table is read as of the last publication at or before the epoch of the read. Publications after its complete
//! epoch are later than that, so that a read returns the same rows at any time. A client may know of a publication, or of a
//! complete epoch, before this node: a read of an epoch that may be complete therefore waits for the node's catalog. Later
//! epochs are refused at once.

use std::time::Duration;

use tidewater_common::ids::Epoch;
use tidewater_common::refusal::Refusal;
use tidewater_proto::v1::Reason;
use tidewater_region_engine::AsOf;

use crate::group::hosted::HostedRegion;
use crate::group::refresh::PublishedEpochs;
use crate::group::replica::GroupReplica;
use crate::group::state::RegionState;
use crate::groups::Groups;

/// Epochs of a refreshable table in this node's catalog. Regions learn of a publication later.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct CatalogEpochs {
    /// Published epoch of the table; 0: none.
    published: Epoch,
    /// Epoch that later publications are after; 0: the published one.
    complete: Epoch,
}

impl CatalogEpochs {
    /// Reads them. 0 for a table that is not refreshable.
    pub(crate) fn of(groups: &Groups, hosted: &HostedRegion) -> Self {
        let table = hosted.descriptor.table_id.get();
        let found = |table: &tidewater_proto::v1::Table| Self {
            published: Epoch(table.published_epoch),
            complete: Epoch(table.complete_epoch),
        };
        let read = |tables: &crate::catalog::CatalogRecords| tables.tables.get(&table).map(found);
        groups.context().catalog.read(read).unwrap_or_default()
    }

    /// Returns the epochs of a region that reads can name, those of its group being these.
    pub(crate) fn readable(
        self,
        region: &RegionState,
        (since, upper): (Epoch, Epoch),
    ) -> (Epoch, Epoch) {
        if !region.descriptor.options.refreshable {
            return (since, upper);
        }
        // A publication before since has lost rows.
        (region.published.from(since), self.upper(&region.published))
    }

    /// Returns the first epoch as of which a table with these publications in its regions is not readable yet.
    pub(crate) fn upper(self, kept: &PublishedEpochs) -> Epoch {
        self.published.max(self.complete).max(kept.last()).next()
    }
}

/// Confirms the leadership for a read that may name an epoch. Waits for a publication that this node does not know yet. Returns
/// the epochs of the table in a catalog from before the confirmation: the region has the publications before the last one of them.
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
) -> Result<CatalogEpochs, Refusal> {
    let known = CatalogEpochs::of(groups, hosted);
    replica.confirm(limit).await?;
    let descriptor = &hosted.descriptor;
    let Some(epoch) = requested.map(Epoch).filter(|_| descriptor.options.refreshable) else {
        return Ok(known);
    };
    if publication(replica, hosted, known, epoch) != Publication::Unknown {
        return Ok(known);
    }
    groups.context().catalog.wait_for_publication(descriptor.table_id.get(), epoch).await?;
    let known = CatalogEpochs::of(groups, hosted);
    // Its rows may be those of another leader.
    replica.confirm(limit).await?;
    Ok(known)
}

/// Returns the engine's form of the epoch that a read names. `known`: the outcome of [`confirm`]; rows of a complete epoch are
/// in the region from then on.
///
/// # Errors
/// [`Reason::EpochRequired`] for a refreshable table without an epoch, or with one that is not complete: its rows may be of an
/// incomplete refresh; [`Reason::EpochBelowSince`]: its publication was forgotten; [`Reason::EpochIncomplete`] in a group that has applied no barrier; those of
/// [`GroupReplica::check_recorded`]. The engine checks the bounds.
pub(super) fn as_of(
    replica: &GroupReplica,
    hosted: &HostedRegion,
    known: CatalogEpochs,
    requested: Option<u64>,
) -> Result<Option<AsOf>, Refusal> {
    let is_refreshable = hosted.descriptor.options.refreshable;
    let Some(epoch) = requested.map(Epoch) else {
        return if is_refreshable {
            Err(epoch_required(hosted, latest(replica, hosted, known)))
        } else {
            Ok(None)
        };
    };
    let region = hosted.descriptor.region_id;
    let epoch = if is_refreshable {
        match publication(replica, hosted, known, epoch) {
            Publication::At(published) => published,
            Publication::Unknown | Publication::Never => {
                return Err(not_published(hosted, epoch, latest(replica, hosted, known)));
            }
            Publication::Forgotten => return Err(forgotten(hosted, epoch)),
        }
    } else {
        replica.check_recorded(hosted)?;
        epoch
    };
    let (_, upper) = replica.shared.state.read().readable_epochs(region).unwrap_or_default();
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
    /// The table is read as of this one, if the region still has its rows.
    At(Epoch),
    /// The epoch may have been published, or become complete, since this node has received the catalog.
    Unknown,
    /// The epoch is not complete.
    Never,
    /// The region no longer has its publication.
    Forgotten,
}

fn publication(
    replica: &GroupReplica,
    hosted: &HostedRegion,
    known: CatalogEpochs,
    epoch: Epoch,
) -> Publication {
    let state = replica.shared.state.read();
    let region = state.regions.get(&hosted.descriptor.region_id);
    let kept = region.map(|region| &region.published);
    find(epoch, known, kept.unwrap_or(&PublishedEpochs::default()), state.epoch)
}

/// Returns the latest published epoch that this node knows; 0: none.
fn latest(replica: &GroupReplica, hosted: &HostedRegion, known: CatalogEpochs) -> Epoch {
    let state = replica.shared.state.read();
    let region = state.regions.get(&hosted.descriptor.region_id);
    region.map_or(known.published, |region| known.published.max(region.published.last()))
}

/// Finds the publication that a table is read as of. `kept`: those that the region has not forgotten. `reached`: epoch of the
/// group, which all publications precede.
fn find(epoch: Epoch, known: CatalogEpochs, kept: &PublishedEpochs, reached: Epoch) -> Publication {
    if epoch >= known.upper(kept) {
        return if epoch < reached { Publication::Unknown } else { Publication::Never };
    }
    // The region learns of the last one when the refresh ends, which the next one waits for.
    if known.published > kept.last() && known.published <= epoch {
        return Publication::At(known.published);
    }
    kept.at(epoch).map_or(Publication::Forgotten, Publication::At)
}

fn not_published(hosted: &HostedRegion, epoch: Epoch, latest: Epoch) -> Refusal {
    let table = &hosted.descriptor.table_name;
    let text = format!(
        "table {table} is refreshable, and epoch {epoch} is after its latest publication: its latest published epoch is {latest}; \
         read it again as of that one"
    );
    Refusal::new(Reason::EpochRequired, text)
}

fn forgotten(hosted: &HostedRegion, epoch: Epoch) -> Refusal {
    let table = &hosted.descriptor.table_name;
    let text = format!(
        "epoch {epoch} of table {table} can no longer be read: its publication is below since (`tidewater table describe`)"
    );
    Refusal::new(Reason::EpochBelowSince, text)
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
