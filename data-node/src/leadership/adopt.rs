//! Taking over files that others wrote: named in the manifest as staged, then published by the log.
//!
//! An area that nobody publishes holds up nothing, but its files stay: the owner withdraws it some
//! time after its deadline. Log entries of an earlier term are applied before this owner begins, and
//! a later one's are its own; so it need only spare what it has proposed itself.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tidewater_common::ids::{FileId, RegionId};
use tidewater_common::refusal::{Effect, Refusal};
use tidewater_proto::v1::{self, AreaContent};
use tidewater_region_engine::bulk::AdoptError;
use tidewater_region_engine::layout::RegionDir;
use tidewater_region_engine::manifest::{AreaId, ProcedureStep};
use tidewater_region_engine::region::{AreaStatus, Staged};
use tokio::time::{MissedTickBehavior, interval};
use tracing::{info, warn};

use super::Context;
use super::owner::{Owner, OwnerError};
use crate::group::batcher::propose_entry;
use crate::group::entry;
use crate::group::obligation::{area_to_wire, step_to_wire};
use crate::group::refusals;
use crate::group::state::RegionState;

/// How often overdue areas are looked for.
const EVERY: Duration = Duration::from_secs(60);
/// How long files may be staged in an area of their own before the log publishes them.
const PUBLISHED_WITHIN_MS: u64 = 10 * 60_000;
const DECIDE: Duration = Duration::from_secs(10);

/// Files to be taken over.
#[derive(Debug, Clone)]
pub struct Adoption {
    /// By which region.
    pub region: RegionId,
    /// Which files, and when they are to be live.
    pub what: What,
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
        let id = adoption.region;
        let region = self.region(id)?;
        self.take(id, &region).await?;
        let deadline_ms =
            self.context.shared.env.clock.now_ms().saturating_add(PUBLISHED_WITHIN_MS);
        let count = |files: usize| u32::try_from(files).unwrap_or(u32::MAX);
        match adoption.what {
            What::Staged { area, files } => {
                Ok(count(region.stage_files(area, &files).await?.files))
            }
            What::Files { area, files } => {
                // From here on this term does not withdraw it.
                self.proposed.lock().await.insert(area);
                let staged = match region.adopted(area, &files).await {
                    Ok(false) => region.adopt(area, &files, deadline_ms).await.map(Some),
                    other => other.map(|_| None),
                };
                match staged {
                    Ok(Some(staged)) => {
                        self.publish(id, &staged, AreaContent::Files, None).await?;
                    }
                    // Taken over before, or never: nothing is proposed.
                    other => {
                        self.proposed.lock().await.remove(&area);
                        other?;
                    }
                }
                Ok(count(files.len()))
            }
            What::Copies { source, step } => {
                // Of an area whose name is not known yet: nothing is withdrawn meanwhile, and nobody
                // else copies.
                let mut proposed = self.proposed.lock().await;
                let taken = |region: &RegionState| region.took(step);
                if self.context.shared.state.read().regions.get(&id).is_some_and(taken) {
                    self.settle(id).await?;
                    return Ok(0);
                }
                let staged = region.copy_from(source, deadline_ms).await?;
                proposed.insert(staged.area);
                drop(proposed);
                self.publish(id, &staged, AreaContent::Copies, Some(step)).await?;
                Ok(count(staged.files))
            }
        }
    }

    /// Has the log publish an area, and the manifest record it.
    async fn publish(
        &self,
        id: RegionId,
        staged: &Staged,
        content: AreaContent,
        step: Option<ProcedureStep>,
    ) -> Result<(), OwnerError> {
        let published = v1::AreaPublished {
            region_id: id.get(),
            area_id: area_to_wire(staged.area),
            content: content.into(),
            schema_version: staged.schema_version.get(),
            start: staged.range.start.clone().into(),
            end: staged.range.end.clone().map(Into::into),
            step: step.map(step_to_wire),
        };
        match self.decide(published).await {
            Ok(()) => {}
            Err(refused) => {
                if refused.effect() == Effect::None {
                    self.proposed.lock().await.remove(&staged.area);
                    self.withdraw(id, staged.area).await;
                }
                return Err(refused.into());
            }
        }
        self.settle(id).await?;
        self.proposed.lock().await.remove(&staged.area);
        Ok(())
    }

    async fn decide(&self, published: v1::AreaPublished) -> Result<(), Refusal> {
        let group = self.context.shared.group;
        let proposed = propose_entry(group, &self.context.raft, entry::area_published(published));
        let outcomes = tokio::time::timeout(DECIDE, proposed)
            .await
            .unwrap_or_else(|_| Err(refusals::deadline("a publication", group)))?;
        outcomes.into_iter().try_for_each(|outcome| outcome.into_result().map(drop))
    }

    /// Gives up what nobody will publish; what cannot be given up now is left for later.
    async fn withdraw(&self, id: RegionId, area: AreaId) {
        let Ok(region) = self.region(id) else { return };
        match region.withdraw(area).await {
            Ok(()) => info!(region = %id, ?area, "a staging area was given up"),
            Err(AdoptError::Decided { .. }) => {}
            Err(problem) => warn!(region = %id, ?area, %problem, "a staging area was not given up"),
        }
    }

    /// Withdraws the areas of a region that nobody will publish.
    async fn withdraw_overdue(&self, id: RegionId) {
        let Ok(region) = self.region(id) else { return };
        // Nothing is proposed meanwhile.
        let proposed = self.proposed.lock().await;
        let logged = match self.context.shared.state.read().regions.get(&id) {
            Some(state) => state.areas.clone(),
            None => return,
        };
        for area in abandoned(&region.areas(), &logged, &proposed) {
            self.withdraw(id, area).await;
        }
    }
}

/// The areas that are overdue, that the log does not know, and whose publication is not proposed.
fn abandoned(
    areas: &[AreaStatus],
    logged: &BTreeSet<AreaId>,
    proposed: &BTreeSet<AreaId>,
) -> Vec<AreaId> {
    let nobody = |area: &AreaId| !logged.contains(area) && !proposed.contains(area);
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
            if let Err(problem) = work.await {
                warn!(region = %id, %problem, "giving up staging areas did not end");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

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
        let (logged, proposed) = (BTreeSet::from([area(3)]), BTreeSet::from([area(4)]));
        assert_eq!(abandoned(&areas, &logged, &proposed), [area(2)]);
        assert_eq!(abandoned(&areas, &BTreeSet::new(), &BTreeSet::new()).len(), 3);
    }
}
