//! The owner's commits in a move between groups. The manifest decides who has the region: the first of both groups that
//! fences it with the move epoch.

use std::sync::Arc;

use tidewater_common::ids::{GroupId, ManifestVersion, OwnerEpoch, RegionId};
use tidewater_common::refusal::Refusal;
use tidewater_proto::v1::Reason;
use tidewater_region_engine::manifest::{ManifestContext, RequiredProgress, Void};
use tidewater_region_engine::{EngineError, Region};
use tracing::info;

use super::owner::{Owner, OwnerError};
use crate::owner_request::TakeOver;

impl Owner {
    /// Fences the manifest of a region that another group has fenced for its move, and returns the version of the fence.
    ///
    /// # Errors
    /// [`Reason::ProcedureSuperseded`] if the other group has kept the region.
    pub(super) async fn take_over(&self, from: TakeOver) -> Result<ManifestVersion, OwnerError> {
        let TakeOver { region: dir, move_epoch, required } = from;
        // The region is not hosted before the log has its state.
        let manifest = ManifestContext::new(self.context.shared.env.clone(), dir);
        let own = OwnerEpoch { move_epoch, term: self.term() };
        let fenced = manifest.take_over(own, self.group(), required).await;
        let id = dir.region_id;
        let version = fenced.map_err(|error| match error {
            EngineError::Refused { reason: Void::OwnedByGroup { .. }, .. } => {
                let text = format!("its group has kept region {id}");
                OwnerError::Log(Refusal::new(Reason::ProcedureSuperseded, text))
            }
            error => error.into(),
        })?;
        info!(group = %self.group(), region = %id, move_epoch, %version, "region taken over");
        Ok(version)
    }

    /// Fences the manifest for an abandoned move, and returns its version.
    ///
    /// # Errors
    /// [`Reason::RouteMoved`] if the target group has taken the region over.
    pub(super) async fn reclaim(
        &self,
        id: RegionId,
        region: &Arc<Region>,
        move_epoch: u64,
    ) -> Result<ManifestVersion, OwnerError> {
        let own = OwnerEpoch { move_epoch, term: self.term() };
        let fenced = region.take_over(own, self.group(), RequiredProgress::default()).await;
        fenced.map_err(|error| match error {
            EngineError::Refused { reason: Void::OwnedByGroup { group, .. }, .. } => {
                let text = format!("group {group} has taken region {id} over");
                OwnerError::Log(Refusal::new(Reason::RouteMoved, text))
            }
            error => error.into(),
        })
    }
}

/// Checks that the manifest of a region belongs to a group by a move, and returns its version.
pub(super) async fn check_owner(
    region: &Arc<Region>,
    group: GroupId,
    move_epoch: u64,
) -> Result<ManifestVersion, OwnerError> {
    let version = region.load().await?;
    let owner = region.manifest_owner();
    if owner.is_some_and(|owner| owner.group == group && owner.epoch.move_epoch == move_epoch) {
        return Ok(version);
    }
    let text = format!("group {group} has not taken region {} over", region.id());
    Err(OwnerError::Log(Refusal::new(Reason::RouteBusy, text)))
}
