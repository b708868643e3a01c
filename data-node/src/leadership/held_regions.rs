//! Regions that wait too long for the next step of their split, merge or move, and seals that no step needs. A fenced
//! region takes no writes, and a sealed one does not flush: if the step does not follow, their group abandons the split
//! or merge without the meta service, and a move if the target group does not own the manifest.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use parking_lot::Mutex;
use tidewater_common::agreed_limits::{MERGE_ABANDON_STEP, MOVE_ABANDON_STEP, SPLIT_ABANDON_STEP};
use tidewater_common::ids::{RegionId, TableId};
use tidewater_proto::v1;
use tidewater_region_engine::manifest::ProcedureStep;
use tokio::time::Instant;
use tracing::{debug, warn};

use super::OwnerContext;
use super::owner::Owner;
use crate::group::admits::ServingState;
use crate::group::batcher::propose_entry;
use crate::group::entry::{self, EntryOutcome};
use crate::group::obligation::step_to_wire;
use crate::owner_request::RouteWork;

/// Interval between checks.
const TICK: Duration = Duration::from_secs(1);
const DECIDE_TIMEOUT: Duration = Duration::from_secs(10);

/// Longest times in one term for which a region waits for a step.
#[derive(Debug, Clone, Copy)]
pub struct HoldLimits {
    /// A fence before a merge or move. It needs a fraction of a second, and a new meta leader a few seconds.
    pub fence: Duration,
    /// A seal before a split.
    pub seal: Duration,
}

impl Default for HoldLimits {
    fn default() -> Self {
        Self { fence: Duration::from_secs(10), seal: Duration::from_secs(30) }
    }
}

/// Region that is held or sealed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct HeldRegion {
    region: RegionId,
    table: TableId,
    step: ProcedureStep,
    serving: ServingState,
    is_sealed: bool,
}

impl HeldRegion {
    /// Returns the limit of its wait, and the step that abandons its split or merge.
    fn limit(&self, limits: &HoldLimits) -> Option<(Duration, u32)> {
        match self.serving {
            ServingState::Fenced => Some((limits.fence, MERGE_ABANDON_STEP)),
            ServingState::Departing => Some((limits.fence, MOVE_ABANDON_STEP)),
            // A region is sealed without a fence before its split only.
            ServingState::Held if self.is_sealed => Some((limits.seal, SPLIT_ABANDON_STEP)),
            ServingState::Active
            | ServingState::Held
            | ServingState::Arriving
            | ServingState::Replaced => None,
        }
    }

    /// Returns whether both wait for steps of one procedure.
    fn is_partner(&self, other: &Self) -> bool {
        let waits = matches!(self.serving, ServingState::Held | ServingState::Fenced);
        waits && self.table == other.table && self.step.number == other.step.number
    }
}

/// Work on held regions of a group.
#[derive(Debug, Default, PartialEq, Eq)]
struct HeldWork {
    /// Regions whose split or merge is abandoned, under these steps.
    abandon: BTreeMap<RegionId, ProcedureStep>,
    /// Regions whose manifests are restored: they were sealed while they were held.
    restore: Vec<RegionId>,
    /// Regions whose move is abandoned, under these steps.
    keep: BTreeMap<RegionId, ProcedureStep>,
}

/// Held regions of a group in one term, with the time at which each was first seen.
#[derive(Debug, Default)]
struct HeldRegions {
    limits: HoldLimits,
    since: BTreeMap<RegionId, (ProcedureStep, Instant)>,
}

impl HeldRegions {
    /// Returns the work that is due at `now`. `held`: all regions that are held or sealed.
    fn due(&mut self, held: &[HeldRegion], now: Instant) -> HeldWork {
        self.since.retain(|region, (step, _)| {
            held.iter().any(|of| of.region == *region && of.step == *step)
        });
        let mut due = HeldWork::default();
        for of in held {
            if of.is_sealed && of.serving == ServingState::Active {
                due.restore.push(of.region);
            }
            let Some((limit, step)) = of.limit(&self.limits) else { continue };
            let (_, since) = *self.since.entry(of.region).or_insert((of.step, now));
            if now.duration_since(since) < limit {
                continue;
            }
            if of.serving == ServingState::Departing {
                due.keep.insert(of.region, ProcedureStep { step, ..of.step });
                continue;
            }
            // The other region of a merge, too: it would be fenced for nothing.
            for partner in held.iter().filter(|partner| partner.is_partner(of)) {
                due.abandon.insert(partner.region, ProcedureStep { step, ..of.step });
            }
        }
        due
    }
}

/// Checks the group's regions until the term ends.
pub(super) async fn run(context: &OwnerContext, owner: Arc<Owner>) {
    let mut known = HeldRegions { limits: context.hold_limits, ..HeldRegions::default() };
    let restoring: Arc<Mutex<BTreeSet<RegionId>>> = Arc::default();
    loop {
        tokio::time::sleep(TICK).await;
        let due = known.due(&held(context), Instant::now());
        let abandoned = due.abandon.into_iter();
        join_all(abandoned.map(|(region, step)| abandon(context, region, step))).await;
        let restored = due.restore.into_iter().map(|region| (region, None));
        let kept = due.keep.into_iter().map(|(region, step)| (region, Some(step)));
        for (region, step) in restored.chain(kept) {
            if restoring.lock().insert(region) {
                // A task of its own: a store that does not answer keeps no fence of other regions.
                let (owner, restoring) = (owner.clone(), restoring.clone());
                let context = context.clone();
                context.tasks.clone().spawn(async move {
                    match step {
                        Some(step) => keep(&context, &owner, region, step).await,
                        None => restore(&owner, region).await,
                    }
                    restoring.lock().remove(&region);
                });
            }
        }
    }
}

fn held(context: &OwnerContext) -> Vec<HeldRegion> {
    let hosted = context.shared.regions.all();
    let state = context.shared.state.read();
    let held = hosted.iter().filter_map(|hosted| {
        let region = hosted.descriptor.region_id;
        let of = state.regions.get(&region)?;
        let (serving, is_sealed) = (of.serving(), hosted.region.is_sealed());
        let step = of.step.filter(|_| is_sealed || of.held)?;
        let table = hosted.descriptor.table_id;
        Some(HeldRegion { region, table, step, serving, is_sealed })
    });
    held.collect()
}

/// Abandons a move, unless the target group has taken the region over: the manifest decides.
async fn keep(context: &OwnerContext, owner: &Owner, region: RegionId, step: ProcedureStep) {
    match owner.change_route(region, RouteWork::Reclaim(step.number)).await {
        Ok(_) => abandon(context, region, step).await,
        Err(error) => debug!(group = %owner.group(), %region, %error, "move was not abandoned"),
    }
}

/// Lets the log decide: a split or merge that comes later has no effect.
async fn abandon(context: &OwnerContext, region: RegionId, step: ProcedureStep) {
    let group = context.shared.group;
    let held = v1::RegionHeld {
        region_id: region.get(),
        step: Some(step_to_wire(step)),
        move_epoch: if step.step == MOVE_ABANDON_STEP { step.number } else { 0 },
        ..v1::RegionHeld::default()
    };
    let proposed = propose_entry(&context.shared, &context.raft, entry::held(held));
    match tokio::time::timeout(DECIDE_TIMEOUT, proposed).await {
        Ok(Ok(outcomes)) if outcomes == [EntryOutcome::DONE] => {
            let procedure = step.number;
            warn!(%group, %region, procedure, "region was held for too long; abandoned its split, merge or move");
        }
        Ok(Ok(outcomes)) => {
            debug!(%group, %region, ?outcomes, "split, merge or move was not abandoned")
        }
        Ok(Err(problem)) => {
            debug!(%group, %region, %problem, "failed to abandon a split, merge or move")
        }
        Err(_) => {
            debug!(%group, %region, "abandonment of a split, merge or move was not decided in time")
        }
    }
}

async fn restore(owner: &Owner, region: RegionId) {
    if let Err(error) = owner.change_route(region, RouteWork::Restore).await {
        debug!(group = %owner.group(), %region, %error, "failed to restore a sealed region");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held(region: u64, serving: ServingState, number: u64, is_sealed: bool) -> HeldRegion {
        let (region, table) = (RegionId(region), TableId(3));
        let step = ProcedureStep { number, step: 2 };
        HeldRegion { region, table, step, serving, is_sealed }
    }

    fn abandoned(work: &HeldWork) -> Vec<(u64, u64, u32)> {
        let abandoned = work.abandon.iter();
        abandoned.map(|(region, step)| (region.get(), step.number, step.step)).collect()
    }

    #[test]
    fn held_region_waits_for_a_limited_time() {
        let HoldLimits { fence, seal } = HoldLimits::default();
        for (serving, limit, step) in [
            (ServingState::Fenced, fence, MERGE_ABANDON_STEP),
            (ServingState::Held, seal, SPLIT_ABANDON_STEP),
        ] {
            let start = Instant::now();
            let mut known = HeldRegions::default();
            let first = held(7, serving, 4, true);
            let none = HeldWork::default();
            assert_eq!(known.due(&[first], start), none);
            assert_eq!(known.due(&[first], start + limit - TICK), none);
            assert_eq!(abandoned(&known.due(&[first], start + limit)), [(7, 4, step)]);
            // Another procedure has a time of its own, also without a check between them.
            let next = held(7, serving, 5, true);
            assert_eq!(known.due(&[next], start + limit), none);
            assert_eq!(known.due(&[], start + limit + TICK), none);
            assert_eq!(known.due(&[next], start + 2 * limit), none);
            assert_eq!(abandoned(&known.due(&[next], start + 3 * limit)), [(7, 5, step)]);
        }
    }

    #[test]
    fn both_regions_of_a_merge_are_abandoned() {
        let start = Instant::now();
        let fenced = held(7, ServingState::Fenced, 4, true);
        let other_table =
            HeldRegion { table: TableId(9), ..held(10, ServingState::Held, 4, false) };
        let all = [
            fenced,
            held(8, ServingState::Held, 4, false),
            held(9, ServingState::Held, 5, false),
            other_table,
            held(11, ServingState::Replaced, 4, true),
        ];
        let mut known = HeldRegions::default();
        assert_eq!(known.due(&all, start), HeldWork::default());
        let due = known.due(&all, start + HoldLimits::default().fence);
        assert_eq!(abandoned(&due), [(7, 4, MERGE_ABANDON_STEP), (8, 4, MERGE_ABANDON_STEP)]);
        // A region that is held and not fenced waits for the meta leader.
        let later = start + 100 * HoldLimits::default().seal;
        assert_eq!(known.due(&all[1..2], later), HeldWork::default());
    }

    #[test]
    fn departing_region_is_kept_after_a_limited_time() {
        let start = Instant::now();
        let mut known = HeldRegions::default();
        let all =
            [held(7, ServingState::Departing, 4, false), held(8, ServingState::Arriving, 5, false)];
        assert_eq!(known.due(&all, start), HeldWork::default());
        let due = known.due(&all, start + HoldLimits::default().fence);
        let step = ProcedureStep { number: 4, step: MOVE_ABANDON_STEP };
        assert_eq!(due, HeldWork { keep: [(RegionId(7), step)].into(), ..HeldWork::default() });
    }

    #[test]
    fn sealed_region_is_restored_when_it_is_not_held() {
        let mut known = HeldRegions::default();
        for (serving, is_restored) in [
            (ServingState::Active, true),
            (ServingState::Held, false),
            (ServingState::Fenced, false),
            (ServingState::Replaced, false),
        ] {
            let due = known.due(&[held(7, serving, 4, true)], Instant::now());
            let expected = is_restored.then_some(RegionId(7));
            assert_eq!(due.restore, Vec::from_iter(expected), "{serving:?}");
        }
    }
}
