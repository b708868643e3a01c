//! Adoption of existing files: the manifest names them in a staging area, then the log publishes the
//! area.
//!
//! A staging area that is never published blocks nothing, but its files stay: the owner abandons it
//! some time after its deadline. Log entries of an earlier term are applied before this owner begins,
//! and this node proposes the later ones; so the owner spares only areas whose publication it proposed
//! with an unknown outcome.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tidewater_common::ids::RegionId;
use tidewater_common::refusal::{Effect, Refusal};
use tidewater_proto::v1::{AreaContent, AreaPublished, Reason};
use tidewater_region_engine::Region;
use tidewater_region_engine::bulk::AdoptError;
use tidewater_region_engine::manifest::{AreaId, ProcedureStep};
use tidewater_region_engine::region::{StagedFiles, StagingAreaStatus};
use tokio::time::{MissedTickBehavior, interval};
use tracing::{info, warn};

use super::OwnerContext;
use super::owner::{Owner, OwnerError};
use crate::group::admits::Operation;
use crate::group::apply::check_not_dropped;
use crate::group::batcher::propose_entry;
use crate::group::entry;
use crate::group::obligation::{area_from_wire, area_to_wire, step_to_wire};
use crate::group::refusals;
use crate::group::staging_work::UnknownPublications;
use crate::owner_request::{Adoption, AdoptionSource};

/// Interval between checks for overdue staging areas.
const OVERDUE_CHECK: Duration = Duration::from_secs(60);
/// Deadline of a staging area of its own, in ms, for the log to publish it.
const PUBLISH_WITHIN_MS: u64 = 10 * 60_000;
/// Time after which a group has most likely reached the epoch of another one.
const EPOCH_TIME: Duration = Duration::from_millis(200);
/// Limit for committing a publication to the log.
const PROPOSAL_TIMEOUT: Duration = Duration::from_secs(10);

impl Owner {
    /// Adopts files and returns their number.
    pub(super) async fn adopt(&self, adoption: Adoption) -> Result<u32, OwnerError> {
        let id = adoption.region;
        let _slot = adoption.slot;
        let mut undecided = self.context.shared.staging_work.lock(id).await;
        let region = self.region(id)?;
        self.fence(id, &region).await?;
        let now_ms = self.context.shared.env.clock.now_ms();
        let deadline_ms = now_ms.saturating_add(PUBLISH_WITHIN_MS);
        let count = |files: usize| u32::try_from(files).unwrap_or(u32::MAX);
        match adoption.source {
            AdoptionSource::Staged { area, files } => {
                Ok(count(region.stage_files(area, &files).await?.files))
            }
            AdoptionSource::Files { area, files } => {
                if !region.check_published(area).await? {
                    self.check_admitted(id)?;
                    let staged = region.adopt(area, &files, deadline_ms).await?;
                    let publication = publication(id, &staged, AreaContent::Files, None);
                    self.publish(&region, publication, &mut undecided).await?;
                }
                undecided.remove(&area);
                self.settle(id).await.map_err(not_recorded)?;
                Ok(count(files.len()))
            }
            AdoptionSource::Copies { source, step } => {
                let taken = self
                    .context
                    .shared
                    .state
                    .read()
                    .regions
                    .get(&id)
                    .and_then(|region| region.earlier_step(step));
                if let Some(outcome) = taken {
                    outcome.into_result()?;
                } else {
                    let wire_step = Some(step_to_wire(step));
                    let earlier = undecided.values().find(|entry| entry.step == wire_step).cloned();
                    let publication = match earlier {
                        Some(earlier) => earlier,
                        None => {
                            let staged = region.copy_from(source, deadline_ms).await?;
                            self.check_epoch(&staged)?;
                            publication(id, &staged, AreaContent::Copies, Some(step))
                        }
                    };
                    self.publish(&region, publication, &mut undecided).await?;
                }
                undecided.retain(|_, earlier| earlier.step != Some(step_to_wire(step)));
                self.settle(id).await.map_err(not_recorded)?;
                Ok(0)
            }
        }
    }

    /// Refuses copies of rows of epochs that this group has yet to reach: its own rows must be of later ones.
    fn check_epoch(&self, staged: &StagedFiles) -> Result<(), OwnerError> {
        let (needed, reached) = (staged.max_epoch, self.context.shared.epoch());
        if needed <= reached {
            return Ok(());
        }
        let text =
            format!("the rows are of epoch {needed}, and the group is at epoch {reached}: retry");
        Err(Refusal::new(Reason::RouteBusy, text).retry_after(EPOCH_TIME).into())
    }

    /// Refuses files that the log would refuse, before they are staged: an open staging area delays a split.
    fn check_admitted(&self, id: RegionId) -> Result<(), OwnerError> {
        let state = self.context.shared.state.read();
        let Some(region) = state.regions.get(&id) else { return Ok(()) };
        let admitted = region.admit(Operation::Decide).map(drop);
        let admitted = admitted.and_then(|()| check_not_dropped(&region.descriptor));
        admitted.map_err(|refused| refused.into_refusal().into())
    }

    /// Proposes the publication of an area to the log and records it in the manifest.
    async fn publish(
        &self,
        region: &Region,
        publication: AreaPublished,
        undecided: &mut UnknownPublications,
    ) -> Result<(), OwnerError> {
        let id = region.id();
        let area = area_from_wire(&publication.area_id).ok_or(OwnerError::NotHosted)?;
        // An earlier proposal may still commit, whatever the outcome of this one.
        let is_repeat = undecided.insert(area, publication.clone()).is_some();
        if let Err(refused) = self.propose_publication(publication).await {
            if refused.effect() == Effect::None && !is_repeat {
                undecided.remove(&area);
                self.abandon_area(region, area).await;
            }
            return Err(refused.into());
        }
        undecided.remove(&area);
        self.settle(id).await.map_err(not_recorded)?;
        // The manifest decides: files that are not live were not adopted, even if the log has the
        // publication.
        if region.check_published(area).await.map_err(OwnerError::from).map_err(not_recorded)? {
            Ok(())
        } else {
            Err(AdoptError::Abandoned { area }.into())
        }
    }

    async fn propose_publication(&self, publication: AreaPublished) -> Result<(), Refusal> {
        let group = self.context.shared.group;
        let proposed = propose_entry(
            &self.context.shared,
            &self.context.raft,
            entry::area_published(publication),
        );
        let outcomes = tokio::time::timeout(PROPOSAL_TIMEOUT, proposed)
            .await
            .unwrap_or_else(|_| Err(refusals::deadline_exceeded("a publication", group)))?;
        outcomes.into_iter().try_for_each(|outcome| outcome.into_result().map(drop))
    }

    /// Abandons a staging area that will not be published. After a failure a later check tries again.
    async fn abandon_area(&self, region: &Region, area: AreaId) {
        let id = region.id();
        match region.withdraw_area(area).await {
            Ok(()) => info!(region = %id, %area, "staging area abandoned"),
            Err(AdoptError::Decided { .. }) => {}
            Err(problem) => {
                warn!(region = %id, %area, %problem, "failed to abandon staging area; retrying later")
            }
        }
    }

    /// Abandons the staging areas of a region that are overdue and will not be published.
    async fn abandon_overdue(&self, id: RegionId) -> Result<(), OwnerError> {
        // The lock excludes concurrent proposals.
        let undecided = self.context.shared.staging_work.lock(id).await;
        let region = self.region(id)?;
        self.fence(id, &region).await?;
        let logged = match self.context.shared.state.read().regions.get(&id) {
            Some(state) => state.areas.clone(),
            None => return Ok(()),
        };
        for area in areas_to_abandon(&region.staging_areas(), &logged, &undecided) {
            self.abandon_area(&region, area).await;
        }
        Ok(())
    }
}

/// Returns the log entry that publishes an area.
fn publication(
    id: RegionId,
    staged: &StagedFiles,
    content: AreaContent,
    step: Option<ProcedureStep>,
) -> AreaPublished {
    AreaPublished {
        region_id: id.get(),
        area_id: area_to_wire(staged.area),
        content: content.into(),
        schema_version: staged.schema_version.get(),
        start: staged.range.start.clone().into(),
        end: staged.range.end.clone().map(Into::into),
        step: step.map(step_to_wire),
        only_if_unwritten: content == AreaContent::Copies,
        epoch: 0,
    }
}

/// Wraps an error that occurred after the log has decided.
fn not_recorded(error: OwnerError) -> OwnerError {
    match error {
        OwnerError::Adopt(AdoptError::Abandoned { .. }) => error,
        error => OwnerError::NotRecorded(Box::new(error)),
    }
}

/// Returns the staging_areas that are overdue, unknown to the log, and without a proposed publication of
/// unknown outcome.
fn areas_to_abandon(
    areas: &[StagingAreaStatus],
    logged: &BTreeSet<AreaId>,
    undecided: &UnknownPublications,
) -> Vec<AreaId> {
    let may_publish = |area: &AreaId| logged.contains(area) || undecided.contains_key(area);
    let overdue = areas.iter().filter(|area| area.overdue).map(|area| area.area);
    overdue.filter(|area| !may_publish(area)).collect()
}

/// Abandons overdue staging areas, until it is dropped: the term has ended, or the replica stops.
pub async fn run(context: &OwnerContext, owner: Arc<Owner>) {
    let mut tick = interval(OVERDUE_CHECK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        for hosted in context.shared.regions.current() {
            if !hosted.region.staging_areas().iter().any(|area| area.overdue) {
                continue;
            }
            let owner = owner.clone();
            let id = hosted.descriptor.region_id;
            // A task of its own: like all commits it runs to its end even when the term ends first.
            let work = context.tasks.spawn(async move { owner.abandon_overdue(id).await });
            match work.await {
                Ok(Ok(())) => {}
                Ok(Err(problem)) => {
                    warn!(region = %id, %problem, "failed to abandon overdue staging areas; retrying later")
                }
                Err(problem) => {
                    warn!(region = %id, %problem, "task that abandons overdue staging areas failed")
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use tidewater_proto::v1::Reason;
    use tidewater_region_engine::EngineError;
    use uuid::Uuid;

    use super::*;

    #[test]
    fn errors_after_the_log_has_decided_have_unknown_effect() {
        let region = RegionId(7);
        let errors = [
            OwnerError::Engine(EngineError::NotOwner { region }),
            OwnerError::Engine(EngineError::Closed { region }),
            OwnerError::Log(Refusal::new(Reason::NotLeader, "another one leads")),
            OwnerError::NotHosted,
        ];
        for error in errors {
            assert_eq!(error.refusal(region).effect(), Effect::None, "{error}");
            let wrapped = not_recorded(error).refusal(region);
            assert_eq!(wrapped.effect(), Effect::Unknown, "{wrapped}");
        }
        // An abandoned area is certain never to be published.
        let abandoned = AdoptError::Abandoned { area: AreaId(Uuid::from_u128(1)) };
        assert_eq!(not_recorded(abandoned.into()).refusal(region).effect(), Effect::None);
    }

    #[test]
    fn overdue_area_is_abandoned_unless_it_may_be_published() {
        let area = |number| AreaId(Uuid::from_u128(number));
        let status = |number, overdue| StagingAreaStatus {
            area: area(number),
            logged: true,
            deadline_ms: 5,
            overdue,
            files: 1,
        };
        let areas = [status(1, false), status(2, true), status(3, true), status(4, true)];
        let logged = BTreeSet::from([area(3)]);
        let undecided = UnknownPublications::from([(area(4), AreaPublished::default())]);
        assert_eq!(areas_to_abandon(&areas, &logged, &undecided), [area(2)]);
        assert_eq!(
            areas_to_abandon(&areas, &BTreeSet::new(), &UnknownPublications::new()).len(),
            3
        );
    }
}
