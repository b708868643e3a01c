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
        let mut dirs = Vec::with_capacity(children.len());
        for child in children {
            self.flush(*child).await?;
            let spec = self.region(*child)?.spec().clone();
            dirs.push(RegionDir {
                table_id: spec.table_id,
                region_id: spec.region_id,
                incarnation: spec.incarnation,
            });
        }
        let removed = async {
            // Without an advance of the log, which takes none of a region that was replaced.
            region.take_ownership(self.epoch(), self.group()).await?;
            region.remove_parent(&dirs).await
        };
        match removed.await {
            Ok(()) | Err(EngineError::Removed { .. }) => {}
            Err(error) => return Err(error.into()),
        }
        info!(group = %self.group(), region = %id, "split region removed");
        Ok(region.stats().manifest_version)
    }
}
