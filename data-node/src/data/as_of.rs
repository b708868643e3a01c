//! Epochs of reads: which ones a region has completed.

use tidewater_common::ids::Epoch;
use tidewater_common::refusal::Refusal;
use tidewater_proto::v1::Reason;
use tidewater_region_engine::AsOf;

use crate::group::hosted::HostedRegion;
use crate::group::replica::GroupReplica;

/// Returns the engine's form of the epoch that a read names. Call it after the leader's confirmation: rows of a complete
/// epoch are in the region from then on.
///
/// # Errors
/// [`Reason::EpochRequired`] for a refreshable table, whose newest rows may be of an incomplete refresh;
/// [`Reason::EpochIncomplete`] in a group that has applied no barrier. The engine checks the bounds.
pub(super) fn as_of(
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

fn epoch_required(hosted: &HostedRegion) -> Refusal {
    let table = &hosted.descriptor.table_name;
    let text = format!(
        "table {table} is refreshable and read as of its published epoch: refresh the catalog, or use a client of this release"
    );
    Refusal::new(Reason::EpochRequired, text)
}
