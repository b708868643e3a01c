//! The owner's commits in a split or merge: seal of a region, birth of its children, its removal. Those of a move are
//! in `moves`.

use std::sync::Arc;

use tidewater_common::ids::{ManifestVersion, RegionId};
use tidewater_common::keys::KeyRange;
use tidewater_common::refusal::Refusal;
use tidewater_proto::v1::Reason;
use tidewater_region_engine::layout::RegionDir;
use tidewater_region_engine::manifest::ProcedureStep;
use tidewater_region_engine::{EngineError, Region};
use tracing::info;

use super::moves::check_owner;
use super::owner::{Owner, OwnerError};
use crate::group::admits::ServingState;
use crate::group::state::RegionState;
use crate::owner_request::RouteWork;

impl Owner {
    /// Carries out work of a split, merge or move and returns the manifest version that has it.
    pub(super) async fn change_route(
        &self,
        id: RegionId,
        work: RouteWork,
    ) -> Result<ManifestVersion, OwnerError> {
        let region = self.region(id)?;
        match work {
            RouteWork::Seal(step) => {
                let empty = KeyRange { start: Vec::new(), end: Some(Vec::new()) };
                // A seal that is delayed beyond the abandonment has no effect.
                let is_wanted = |of: &RegionState| of.held && of.step == Some(step);
                self.set_range(id, &region, empty, Some(step), is_wanted).await
            }
            RouteWork::Unseal(step) => {
                let range = region.spec().range.clone();
                self.set_range(id, &region, range, Some(step), |_| true).await
            }
            RouteWork::Restore => {
                let range = region.spec().range.clone();
                let is_wanted = |of: &RegionState| of.serving() == ServingState::Active;
                self.set_range(id, &region, range, None, is_wanted).await
            }
            RouteWork::Begin => {
                self.fence(id, &region).await?;
                Ok(region.stats().manifest_version)
            }
            RouteWork::Remove(children) => self.remove_replaced(id, &region, &children).await,
            RouteWork::Reclaim(move_epoch) => self.reclaim(id, &region, move_epoch).await,
            RouteWork::CheckOwner(group, move_epoch) => {
                check_owner(&region, group, move_epoch).await
            }
        }
    }

    /// Records a key range, if the state of the region still wants it, and returns the manifest version that has it. The
    /// empty range seals the region: the version of the seal.
    async fn set_range(
        &self,
        id: RegionId,
        region: &Arc<Region>,
        range: KeyRange,
        step: Option<ProcedureStep>,
        is_wanted: impl FnOnce(&RegionState) -> bool,
    ) -> Result<ManifestVersion, OwnerError> {
        self.fence(id, region).await?;
        let is_wanted = || {
            let state = self.context.shared.state.read();
            state.regions.get(&id).is_some_and(is_wanted)
        };
        let Some(version) = region.set_range_if(range, step, is_wanted).await? else {
            let text = format!("a later step of region {id} has superseded this one");
            return Err(OwnerError::Log(Refusal::new(Reason::ProcedureSuperseded, text)));
        };
        // Followers read the seal, so that the children can serve without a read.
        self.record_committed(id, region, region.stats().manifest_version);
        self.propose_pending_advance(id).await?;
        Ok(version)
    }

    /// Removes a region that its children have replaced. They flush first: a replica that applies the log late
    /// begins them without rows in memory once the region is removed.
    async fn remove_replaced(
        &self,
        id: RegionId,
        region: &Arc<Region>,
        children: &[RegionId],
    ) -> Result<ManifestVersion, OwnerError> {
        let version = || region.stats().manifest_version;
        // Without an advance of the log, which takes none of a region that was replaced.
        match region.take_ownership(self.epoch(id), self.group()).await {
            Err(EngineError::Removed { .. }) => return Ok(version()),
            owned => owned?,
        };
        for child in children {
            // A child that was itself replaced has flushed these rows: it was flushed before it was held.
            if !self.context.shared.regions.is_replaced(*child) {
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
        info!(group = %self.group(), region = %id, "replaced region removed");
        Ok(version())
    }
}
