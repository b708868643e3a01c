//! Publication of a refresh: an epoch at or above that of every merged row, once all groups of the table have completed it.

use std::collections::BTreeSet;
use std::time::Duration;

use futures::stream::{self, StreamExt, TryStreamExt};
use tidewater_common::ids::{Epoch, GroupId};
use tidewater_common::refusal::Refusal;
use tidewater_proto::v1::{self, MergeCounts, MergeRegionResponse, Reason, RefreshOutcome};
use tokio::time::timeout;

use crate::catalog::Procedure;
use crate::commands::procedures::refresh::{area, is_after_complete};
use crate::leader::leader_term::LeaderTerm;

/// Regions whose counts are read at a time.
const CONCURRENT_REGIONS: usize = 16;
/// Longest wait for the groups of the table; the next attempt waits again.
const EPOCH_WITHIN: Duration = Duration::from_secs(60);
/// Publications of a region from which on no other follows: it forgets the oldest ones beyond `MAX_HELD` of data nodes.
const MAX_PUBLICATIONS: u32 = 16_000;
/// Time for which readers that have begun with the previous epoch may read, in milliseconds. As long as a scan lives.
const READERS_MS: u64 = 30 * 60_000;

impl LeaderTerm {
    /// Publishes a refresh whose regions are merged, and completes the step.
    pub(super) async fn publish(&self, procedure: &Procedure) -> Result<(), Refusal> {
        let regions = self.region_merges(procedure).await?;
        let counts = merged_counts(&regions)?;
        if let Some(epoch) = self.unchanged_since(procedure, &counts) {
            let counts = Some(counts);
            let epoch = epoch.get();
            let result = v1::RefreshStepResult { epoch, counts, ..Default::default() };
            return self.complete(procedure, &result).await;
        }
        check_publications(&regions)?;
        // Later than the epoch of each barrier so far, and with it than that of each merged row.
        let epoch = self.allocate_epoch().await?;
        let groups: BTreeSet<GroupId> = {
            let state = self.group.view.read();
            state.routes_of(procedure.table).map(|route| route.group_id).collect()
        };
        self.wait_for_epoch(&groups, epoch).await?;
        self.check_after_complete(procedure, epoch)?;
        let until_ms = epoch.ms().unwrap_or_default().saturating_add(READERS_MS);
        let result = v1::RefreshStepResult {
            epoch: epoch.get(),
            previous_until: Epoch::at_ms(until_ms).get(),
            counts: Some(counts),
            ..v1::RefreshStepResult::default()
        };
        self.complete(procedure, &result).await
    }

    /// Checks that no reader has seen the table as of an epoch. The next attempt has a later one.
    fn check_after_complete(&self, procedure: &Procedure, epoch: Epoch) -> Result<(), Refusal> {
        let state = self.group.view.read();
        if state.table(procedure.table).is_none_or(|table| is_after_complete(table, epoch)) {
            return Ok(());
        }
        let text = format!("the table was held at epoch {epoch} or later during its publication");
        Err(Refusal::new(Reason::TableBusy, text))
    }

    /// Returns the published epoch if no row has changed since: it stays, and so do its readers. A refresh that was cancelled
    /// or has failed may have changed rows that no reader has seen.
    fn unchanged_since(&self, procedure: &Procedure, counts: &MergeCounts) -> Option<Epoch> {
        let state = self.group.view.read();
        let published = state.table(procedure.table)?.published;
        let last = state.refreshes_of(procedure.table)?.history.first()?.outcome();
        let is_unchanged = counts.inserted + counts.updated + counts.deleted == 0;
        (is_unchanged && last == RefreshOutcome::Published && published > Epoch(0))
            .then_some(published)
    }

    /// Returns the progress of all regions of a refresh.
    async fn region_merges(
        &self,
        procedure: &Procedure,
    ) -> Result<Vec<MergeRegionResponse>, Refusal> {
        let routes: Vec<_> = {
            let state = self.group.view.read();
            state.routes_of(procedure.table).map(|route| (route.group_id, route.route_id)).collect()
        };
        let merge_of = |(group, region): (GroupId, tidewater_common::ids::RegionId)| async move {
            let request = v1::MergeRegionRequest {
                group_id: group.get(),
                region_id: region.get(),
                area_id: area(procedure),
                observe: true,
                ..v1::MergeRegionRequest::default()
            };
            let call = |node| self.control.merge_region(node, request.clone());
            self.at_leader(group, call).await
        };
        stream::iter(routes).map(merge_of).buffer_unordered(CONCURRENT_REGIONS).try_collect().await
    }

    /// Waits until the groups have begun an epoch after this one, which begins at once.
    async fn wait_for_epoch(
        &self,
        groups: &BTreeSet<GroupId>,
        epoch: Epoch,
    ) -> Result<(), Refusal> {
        let reached = async {
            loop {
                let changed = self.epochs_changed.notified();
                let late = self.epochs.lock().late_for(groups, epoch);
                if late.is_empty() {
                    return;
                }
                self.barrier_wanted.notify_one();
                let _ = timeout(Duration::from_millis(500), changed).await;
            }
        };
        timeout(EPOCH_WITHIN, reached).await.map_err(|_| {
            let late = self.epochs.lock().late_for(groups, epoch);
            let late: Vec<String> = late.iter().map(ToString::to_string).collect();
            let text = format!("groups without a barrier since the merge: {}", late.join(", "));
            Refusal::new(Reason::EpochIncomplete, text)
        })
    }
}

/// Returns the counts of all regions, whose merges are complete.
fn merged_counts(regions: &[MergeRegionResponse]) -> Result<MergeCounts, Refusal> {
    let mut total = MergeCounts::default();
    for part in regions.iter().filter_map(|of| of.merge.as_ref()).flat_map(|of| &of.parts) {
        if !part.is_complete {
            let text = "a region has lost the progress of its merge";
            return Err(Refusal::new(Reason::Internal, text));
        }
        let counts = part.counts.unwrap_or_default();
        total.inserted += counts.inserted;
        total.updated += counts.updated;
        total.deleted += counts.deleted;
        total.unchanged += counts.unchanged;
    }
    Ok(total)
}

/// Refuses a publication that would make a region forget one that a hold, a policy or a capability keeps.
fn check_publications(regions: &[MergeRegionResponse]) -> Result<(), Refusal> {
    let most = regions.iter().map(|of| of.publications).max().unwrap_or_default();
    if most < MAX_PUBLICATIONS {
        return Ok(());
    }
    let text = format!(
        "a region keeps {most} publications: release old holds (`tidewater hold list`), shorten the read policy, or refresh less often"
    );
    Err(Refusal::new(Reason::TableBusy, text))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn region(is_complete: bool, updated: u64, publications: u32) -> MergeRegionResponse {
        let counts = Some(MergeCounts { updated, ..MergeCounts::default() });
        let part = v1::RegionMergePart { counts, is_complete, ..v1::RegionMergePart::default() };
        let merge = Some(v1::RegionMerge { parts: vec![part], ..v1::RegionMerge::default() });
        MergeRegionResponse { merge, is_complete, publications }
    }

    #[test]
    fn counts_are_those_of_all_regions() {
        let counts = merged_counts(&[region(true, 2, 0), region(true, 3, 0)]).unwrap();
        assert_eq!(counts.updated, 5);
        let refused = merged_counts(&[region(true, 2, 0), region(false, 3, 0)]).unwrap_err();
        assert_eq!(refused.reason, Reason::Internal);
    }

    #[test]
    fn held_publications_are_bounded() {
        let few = region(true, 0, MAX_PUBLICATIONS - 1);
        assert!(check_publications(&[few.clone(), few.clone()]).is_ok());
        let refused = check_publications(&[few, region(true, 0, MAX_PUBLICATIONS)]).unwrap_err();
        assert!(refused.message.contains("16000 publications"), "{refused}");
    }
}
