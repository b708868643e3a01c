//! Taking over files that others wrote: named in the manifest as staged, then published by the log.
//!
//! An area that nobody publishes holds up nothing, but its files stay: the owner withdraws it some
//! time after its deadline. Log entries of an earlier term are applied before this owner begins, and
//! later ones are proposed by this node; so it need only spare what is in doubt here.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tidewater_common::ids::{FileId, RegionId};
use tidewater_common::refusal::{Effect, Refusal};
use tidewater_proto::v1::{AreaContent, AreaPublished};
use tidewater_region_engine::Region;
use tidewater_region_engine::bulk::AdoptError;
use tidewater_region_engine::layout::RegionDir;
use tidewater_region_engine::manifest::{AreaId, ProcedureStep};
use tidewater_region_engine::region::{AreaStatus, Staged};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{MissedTickBehavior, interval};
use tracing::{info, warn};

use super::Context;
use super::owner::{Owner, OwnerError};
use crate::group::batcher::propose_entry;
use crate::group::entry;
use crate::group::obligation::{area_from_wire, area_to_wire, step_to_wire};
use crate::group::refusals;
use crate::group::staging_work::UnknownPublications;
use crate::group::state::RegionState;

/// How often overdue areas are looked for.
const EVERY: Duration = Duration::from_secs(60);
/// How long files may be staged in an area of their own before the log publishes them.
const PUBLISHED_WITHIN_MS: u64 = 10 * 60_000;
const DECIDE: Duration = Duration::from_secs(10);

/// Files to be taken over.
#[derive(Debug)]
pub struct Adoption {
    /// By which region.
    pub region: RegionId,
    /// Which files, and when they are to be live.
    pub what: What,
    /// Held to the end, also when the caller is gone.
    pub slot: Option<OwnedSemaphorePermit>,
}

/// Which files are taken over, and when they are live.
#[derive(Debug, Clone)]
pub enum What {
    /// In an area of their own, live at once.
    Files {
        /// A fresh area.
        area: AreaId,
        /// In the order in which their rows count.
        files: Vec<FileId>,
    },
    /// In an open area, live when that is published.
    Staged {
        /// The open area.
        area: AreaId,
        /// In the order in which their rows count.
        files: Vec<FileId>,
    },
    /// Another region's live files, live at once as a step of a procedure.
    Copies {
        /// The other region.
        source: RegionDir,
        /// The step, known to the log once it is taken.
        step: ProcedureStep,
    },
}

impl Owner {
    /// Takes files over; returns how many there are.
    pub(super) async fn adopt(&self, adoption: Adoption) -> Result<u32, OwnerError> {
        let (id, _slot) = (adoption.region, adoption.slot);
        let mut in_doubt = self.context.shared.staging_work.lock(id).await;
        let region = self.region(id)?;
        self.take(id, &region).await?;
        let now_ms = self.context.shared.env.clock.now_ms();
        let deadline_ms = now_ms.saturating_add(PUBLISHED_WITHIN_MS);
        let count = |files: usize| u32::try_from(files).unwrap_or(u32::MAX);
        match adoption.what {
            What::Staged { area, files } => {
                Ok(count(region.stage_files(area, &files).await?.files))
            }
            What::Files { area, files } => {
                if !region.published(area).await? {
                    let staged = region.adopt(area, &files, deadline_ms).await?;
                    let publication = publication(id, &staged, AreaContent::Files, None);
                    self.publish(&region, publication, &mut in_doubt).await?;
                }
                in_doubt.remove(&area);
                self.settle(id).await.map_err(not_done)?;
                Ok(count(files.len()))
            }
            What::Copies { source, step } => {
                let taken = |region: &RegionState| region.has_taken(step);
                if !self.context.shared.state.read().regions.get(&id).is_some_and(taken) {
                    let wanted = Some(step_to_wire(step));
                    let before = in_doubt.values().find(|before| before.step == wanted).cloned();
                    let publication = match before {
                        Some(before) => before,
                        None => {
                            let staged = region.copy_from(source, deadline_ms).await?;
                            publication(id, &staged, AreaContent::Copies, Some(step))
                        }
                    };
                    self.publish(&region, publication, &mut in_doubt).await?;
                }
                in_doubt.retain(|_, before| before.step != Some(step_to_wire(step)));
                self.settle(id).await.map_err(not_done)?;
                Ok(0)
            }
        }
    }

    /// Has the log publish an area, and the manifest record it.
    async fn publish(
        &self,
        region: &Region,
        publication: AreaPublished,
        in_doubt: &mut UnknownPublications,
    ) -> Result<(), OwnerError> {
        let (id, area) = (region.id(), area_from_wire(&publication.area_id));
        let area = area.ok_or(OwnerError::Gone)?;
        // Proposed before, it may be decided yet, whatever this attempt is answered.
        let before = in_doubt.insert(area, publication.clone()).is_some();
        if let Err(refused) = self.decide(publication).await {
            if refused.effect() == Effect::None && !before {
                in_doubt.remove(&area);
                self.withdraw(region, area).await;
            }
            return Err(refused.into());
        }
        in_doubt.remove(&area);
        self.settle(id).await.map_err(not_done)?;
        // Whatever the log says, what is not live was not taken over.
        match region.published(area).await.map_err(OwnerError::from).map_err(not_done)? {
            true => Ok(()),
            false => Err(AdoptError::Abandoned { area }.into()),
        }
    }

    async fn decide(&self, publication: AreaPublished) -> Result<(), Refusal> {
        let group = self.context.shared.group;
        let proposed = propose_entry(group, &self.context.raft, entry::area_published(publication));
        let outcomes = tokio::time::timeout(DECIDE, proposed)
            .await
            .unwrap_or_else(|_| Err(refusals::deadline_exceeded("a publication", group)))?;
        outcomes.into_iter().try_for_each(|outcome| outcome.into_result().map(drop))
    }

    /// Gives up what nobody will publish; what cannot be given up now is left for later.
    async fn withdraw(&self, region: &Region, area: AreaId) {
        let id = region.id();
        match region.withdraw(area).await {
            Ok(()) => info!(region = %id, %area, "a staging area was given up"),
            Err(AdoptError::Decided { .. }) => {}
            Err(problem) => warn!(region = %id, %area, %problem, "a staging area was not given up"),
        }
    }

    /// Withdraws the areas of a region that nobody will publish.
    async fn withdraw_overdue(&self, id: RegionId) -> Result<(), OwnerError> {
        // Nobody proposes anything meanwhile.
        let in_doubt = self.context.shared.staging_work.lock(id).await;
        let region = self.region(id)?;
        self.take(id, &region).await?;
        let logged = match self.context.shared.state.read().regions.get(&id) {
            Some(state) => state.areas.clone(),
            None => return Ok(()),
        };
        for area in abandoned(&region.areas(), &logged, &in_doubt) {
            self.withdraw(&region, area).await;
        }
        Ok(())
    }
}

/// What the log is asked to decide.
fn publication(
    id: RegionId,
    staged: &Staged,
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
    }
}

/// An error after the log has decided.
fn not_done(error: OwnerError) -> OwnerError {
    match error {
        OwnerError::Adopt(AdoptError::Abandoned { .. }) => error,
        error => OwnerError::NotDone(Box::new(error)),
    }
}

/// The areas that are overdue, that the log does not know, and whose publication is not in doubt.
fn abandoned(
    areas: &[AreaStatus],
    logged: &BTreeSet<AreaId>,
    in_doubt: &UnknownPublications,
) -> Vec<AreaId> {
    let nobody = |area: &AreaId| !logged.contains(area) && !in_doubt.contains_key(area);
    areas.iter().filter(|area| area.overdue).map(|area| area.area).filter(nobody).collect()
}

/// Gives up areas that are overdue, until it is dropped: the term has ended, or the replica stops.
pub async fn run(context: &Context, owner: Arc<Owner>) {
    let mut tick = interval(EVERY);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        for hosted in context.shared.regions.all() {
            if !hosted.region.areas().iter().any(|area| area.overdue) {
                continue;
            }
            let (owner, id) = (owner.clone(), hosted.descriptor.region_id);
            // To its end, like all commits.
            let work = context.tasks.spawn(async move { owner.withdraw_overdue(id).await });
            match work.await {
                Ok(Ok(())) => {}
                Ok(Err(problem)) => warn!(region = %id, %problem, "staging areas stay for now"),
                Err(problem) => {
                    warn!(region = %id, %problem, "giving up staging areas did not end")
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
    fn after_the_log_has_decided_no_error_says_that_nothing_happened() {
        let region = RegionId(7);
        let errors = [
            OwnerError::Engine(EngineError::NotOwner { region }),
            OwnerError::Engine(EngineError::Closed { region }),
            OwnerError::Log(Refusal::new(Reason::NotLeader, "another one leads")),
            OwnerError::Gone,
        ];
        for error in errors {
            assert_eq!(error.refusal(region).effect(), Effect::None, "{error}");
            let later = not_done(error).refusal(region);
            assert_eq!(later.effect(), Effect::Unknown, "{later}");
        }
        // But that somebody gave the area up is certain.
        let given_up = AdoptError::Abandoned { area: AreaId(Uuid::from_u128(1)) };
        assert_eq!(not_done(given_up.into()).refusal(region).effect(), Effect::None);
    }

    #[test]
    fn an_area_is_given_up_when_it_is_overdue_and_nobody_may_publish_it() {
        let area = |number| AreaId(Uuid::from_u128(number));
        let status = |number, overdue| AreaStatus {
            area: area(number),
            logged: true,
            deadline_ms: 5,
            overdue,
            files: 1,
        };
        let areas = [status(1, false), status(2, true), status(3, true), status(4, true)];
        let logged = BTreeSet::from([area(3)]);
        let in_doubt = UnknownPublications::from([(area(4), AreaPublished::default())]);
        assert_eq!(abandoned(&areas, &logged, &in_doubt), [area(2)]);
        assert_eq!(abandoned(&areas, &BTreeSet::new(), &UnknownPublications::new()).len(), 3);
    }
}
