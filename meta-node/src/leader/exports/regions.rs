//! Regions of a step: data nodes write them, and return their files.

use std::collections::BTreeMap;
use std::time::Duration;

use futures::stream::{FuturesUnordered, StreamExt};
use tidewater_common::ids::{GroupId, RegionId};
use tidewater_common::refusal::Refusal;
use tidewater_proto::v1::{self, Reason};
use tokio::time::{Instant, sleep, timeout_at};

use super::due::{StepEpochs, WrittenRegions, is_transient};
use super::progress::StepPart;
use super::step::StepFailed;
use crate::catalog::{Export, MetaState};
use crate::leader::leader_term::LeaderTerm;

/// Regions of a step that are written at a time. Their calls have no permits of groups: the number of attempts limits them.
const CONCURRENT_REGIONS: usize = 8;
/// Pause before another call of a region.
const POLL: Duration = Duration::from_millis(300);
/// Time for which transient errors are no failure of the step, unless a region is written.
const TRANSIENT_WITHIN: Duration = Duration::from_secs(30);
/// Time in which other regions can end after a region has failed. Data nodes continue them until the next attempt.
const ENDS_WITHIN: Duration = Duration::from_secs(5);

/// Result of one call of each region.
#[derive(Debug, Default)]
struct Round {
    /// A region was written, or found written.
    has_progress: bool,
    /// Time of the first failure of a region.
    failed_at: Option<Instant>,
    /// Last transient error, with its region.
    transient: Option<(RegionId, Refusal)>,
}

/// Returns the regions of the table of an export, with their groups.
pub(super) fn routes_of(state: &MetaState, export: &Export) -> BTreeMap<RegionId, GroupId> {
    state.routes_of(export.table).map(|route| (route.route_id, route.group_id)).collect()
}

impl LeaderTerm {
    /// Has all regions of the table written, and returns the files.
    pub(super) async fn write_regions(
        &self,
        export: &Export,
        epochs: StepEpochs,
    ) -> Result<Vec<v1::ExportFile>, StepFailed> {
        let mut written = WrittenRegions::default();
        let mut waiting_since: Option<Instant> = None;
        loop {
            let routes = routes_of(&self.group.view.read(), export);
            let mut missing = written.missing(&routes);
            self.observe(export, &routes, &mut missing);
            if missing.is_empty() {
                return Ok(written.files_of(&routes));
            }
            let round = self.write_round(export, epochs, missing, &mut written).await;
            if round.failed_at.is_some() {
                return Err(StepFailed);
            }
            if round.has_progress {
                waiting_since = None;
            }
            let Some((region, problem)) = round.transient else { continue };
            let since = *waiting_since.get_or_insert_with(Instant::now);
            if since.elapsed() >= TRANSIENT_WITHIN {
                return self.note_part(export, StepPart::Region(region), Err(problem));
            }
            if problem.reason == Reason::EpochIncomplete {
                self.barrier_wanted.notify_one();
            }
            sleep(POLL).await;
        }
    }

    /// Has regions written that are missing. After a failure, no other region begins, and those in progress have little time
    /// left: a target that does not answer takes the slot of the attempt for about one timeout.
    async fn write_round(
        &self,
        export: &Export,
        epochs: StepEpochs,
        missing: Vec<(RegionId, GroupId)>,
        written: &mut WrittenRegions,
    ) -> Round {
        let mut round = Round::default();
        let mut waiting = missing.into_iter();
        let mut writing = FuturesUnordered::new();
        loop {
            while round.failed_at.is_none()
                && writing.len() < CONCURRENT_REGIONS
                && let Some((region, group)) = waiting.next()
            {
                let write = self.write_region(export, epochs, region, group);
                writing.push(async move { (region, write.await) });
            }
            let ended = match round.failed_at {
                None => writing.next().await,
                Some(at) => timeout_at(at + ENDS_WITHIN, writing.next()).await.ok().flatten(),
            };
            let Some((region, result)) = ended else { return round };
            match result {
                Err(problem) if is_transient(&problem) => {
                    round.transient = Some((region, problem));
                }
                result => match self.note_part(export, StepPart::Region(region), result) {
                    Ok(files) => {
                        written.add(region, files);
                        round.has_progress = true;
                    }
                    Err(StepFailed) => {
                        round.failed_at.get_or_insert_with(Instant::now);
                    }
                },
            }
        }
    }

    async fn write_region(
        &self,
        export: &Export,
        epochs: StepEpochs,
        region: RegionId,
        group: GroupId,
    ) -> Result<Vec<v1::ExportFile>, Refusal> {
        let request = v1::ExportRegionRequest {
            target: Some(self.export_target(export)),
            step: export.steps + 1,
            group_id: group.get(),
            region_id: region.get(),
            after: epochs.after.map(|epoch| epoch.get()),
            as_of: epochs.as_of.get(),
            ..v1::ExportRegionRequest::default()
        };
        loop {
            let call = |node| self.control.export_region(node, request.clone());
            let response = self.follow_leader(group, call).await?;
            self.record_rows(export, region, response.rows);
            if response.done {
                return Ok(response.files);
            }
            sleep(POLL).await;
        }
    }

    /// Records the regions of the table. The regions that fail are written last, so that others do not wait for them.
    fn observe(
        &self,
        export: &Export,
        routes: &BTreeMap<RegionId, GroupId>,
        missing: &mut [(RegionId, GroupId)],
    ) {
        let mut exports = self.observations.exports.lock();
        let progress = exports.entry(export.id).or_default();
        progress.observe(routes, missing.len());
        missing.sort_by_key(|(region, _)| progress.is_failing(*region));
    }

    fn record_rows(&self, export: &Export, region: RegionId, rows: u64) {
        let mut exports = self.observations.exports.lock();
        exports.entry(export.id).or_default().record_rows(region, rows);
    }
}
