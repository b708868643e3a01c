//! The owner's commits in a split: seal of the region, birth of its children, its removal.

use std::sync::Arc;

use tidewater_common::ids::{ManifestVersion, RegionId};
use tidewater_common::keys::KeyRange;
use tidewater_region_engine::layout::RegionDir;
use tidewater_region_engine::manifest::ProcedureStep;
use tidewater_region_engine::{EngineError, Region};
use tracing::info;

use super::owner::{Owner, OwnerError};
use crate::owner_request::SplitWork;

impl Owner {
    /// Carries out work of a split and returns the manifest version that has it.
    pub(super) async fn split(
        &self,
        id: RegionId,
        work: SplitWork,
    ) -> Result<ManifestVersion, OwnerError> {
        let region = self.region(id)?;
        match work {
            SplitWork::Seal(step) => {
                let empty = KeyRange { start: Vec::new(), end: Some(Vec::new()) };
                self.set_range(id, &region, empty, step).await
            }
            SplitWork::Unseal(step) => {
                let range = region.spec().range.clone();
                self.set_range(id, &region, range, step).await
            }
            SplitWork::Begin => {
                self.fence(id, &region).await?;
                Ok(region.stats().manifest_version)
            }
            SplitWork::Remove(children) => self.remove_divided(id, &region, &children).await,
        }
    }

    /// Records a key range. The empty one seals the region; the version is that of the seal then.
    async fn set_range(
        &self,
        id: RegionId,
        region: &Arc<Region>,
        range: KeyRange,
        step: ProcedureStep,
    ) -> Result<ManifestVersion, OwnerError> {
        self.fence(id, region).await?;
        let version = region.set_range(range, Some(step)).await?;
        // Followers read the seal, so that the children can serve without a read.
        self.record_committed(id, region, region.stats().manifest_version);
        self.propose_pending_advance(id).await?;
        Ok(version)
    }

    /// Removes a region that its children have replaced. They flush first: a replica that applies the log late
    /// begins them without rows in memory once the region is removed.
    async fn remove_divided(
        &self,
        id: RegionId,
        region: &Arc<Region>,
        children: &[RegionId],
    ) -> Result<ManifestVersion, OwnerError> {
        let version = || region.stats().manifest_version;
        // Without an advance of the log, which takes none of a region that was replaced.
        match region.take_ownership(self.epoch(), self.group()).await {
            Err(EngineError::Removed { .. }) => return Ok(version()),
            owned => owned?,
        };
        for child in children {
            // A child that was itself replaced has flushed these rows: it was flushed before it was held.
            if !self.context.shared.regions.is_divided(*child) {
                match self.flush(*child).await {
                    // Dropped since.
                    Err(
                        OwnerError::NotHosted | OwnerError::Engine(EngineError::Removed { .. }),
                    ) => {}
                    flushed => {
                        flushed?;
                    }
                }
            }
        }
        let spec = region.spec();
        let dir = |child: &RegionId| RegionDir {
            table_id: spec.table_id,
            region_id: *child,
            incarnation: spec.incarnation,
        };
        let dirs: Vec<RegionDir> = children.iter().map(dir).collect();
        region.remove_parent(&dirs).await?;
        info!(group = %self.group(), region = %id, "split region removed");
        Ok(version())
    }
}
