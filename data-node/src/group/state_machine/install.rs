//! Replaces a replica's state by that of a snapshot.

use std::collections::BTreeMap;
use std::io;

use tidewater_common::ids::RegionId;
use tidewater_region_engine::region::{Obligation, Pending};
use tidewater_region_engine::{Region, RunImage};

use crate::group::shared::Shared;
use crate::group::snapshot::SnapshotView;

/// Regions begin anew with the snapshot's rows; their manifests are opened at their tails in the
/// background, which may be newer than what the snapshot names: rows at or below the flushed
/// sequence found there are not read from runs.
pub(super) fn install(shared: &Shared, view: SnapshotView) -> io::Result<()> {
    if view.group != shared.group {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!(
                "a snapshot of group {} cannot be installed in group {}",
                view.group, shared.group
            ),
        ));
    }
    let mut runs: BTreeMap<RegionId, Vec<RunImage>> = BTreeMap::new();
    for (region, image) in view.runs {
        runs.entry(region).or_default().push(image);
    }
    shared.targets.clear();
    shared.regions.clear();
    for (id, state) in &view.state.regions {
        let region = shared.host(state.descriptor.clone(), state.base, state.flushed)?;
        if let Some(images) = runs.remove(id) {
            region.restore(images);
        }
        for pending in &state.obligations {
            owe(&region, pending)?;
        }
        shared.targets.want(*id, state.manifest_version);
    }
    *shared.state.write() = view.state;
    shared.housekeeping.notify_one();
    Ok(())
}

/// Hands over what the manifest has still to record: of what is truncated, the snapshot has no rows,
/// but files that are there yet.
fn owe(region: &Region, pending: &Pending) -> io::Result<()> {
    match &pending.obligation {
        Obligation::Truncate => region.truncate(pending.cause),
        Obligation::Alter { schema, options } => {
            region.alter(pending.cause, schema.as_ref().clone(), options.clone())
        }
    }
    .map_err(io::Error::other)
}
