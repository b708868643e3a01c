//! Events of a region that its hooks observe.

use std::sync::Arc;

use tidewater_common::ids::OwnerEpoch;

use super::payload::{
    FilesRemoved, GcPass, ManifestKind, RegionMetaActionList, RegionRole, RegionSnapshot,
    SstFileInfo,
};
use crate::region::RegionSpec;

/// Events that hooks observe.
#[derive(Debug)]
pub(super) enum HookEvent {
    SstFilesWritten { metadata: Arc<RegionSpec>, files: Arc<[SstFileInfo]> },
    ManifestUpdated { actions: RegionMetaActionList, manifest: ManifestKind },
    Opened { metadata: Arc<RegionSpec> },
    Closed { metadata: Arc<RegionSpec> },
    Dropped { metadata: Arc<RegionSpec> },
    RoleChanged { old: RegionRole, new: RegionRole, epoch: OwnerEpoch },
    FilesRemoved(FilesRemoved),
    Gc(GcPass),
    Bootstrap(RegionSnapshot),
}
