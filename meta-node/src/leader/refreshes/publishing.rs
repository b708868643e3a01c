//! Publication of a refresh: an epoch at or above that of every merged row, once all groups of the table have completed it.

use std::collections::BTreeSet;
use std::time::Duration;

use futures::stream::{self, StreamExt, TryStreamExt};
use tidewater_common::ids::{Epoch, GroupId};
use tidewater_common::refusal::Refusal;
use tidewater_proto::v1::{self, MergeCounts, Reason, RefreshOutcome, RegionMerge};
use tokio::time::timeout;

use crate::catalog::Procedure;
use crate::commands::procedures::refresh::area;
use crate::leader::leader_term::LeaderTerm;

/// Regions whose counts are read at a time.
const CONCURRENT_REGIONS: usize = 16;
/// Longest wait for the groups of the table; the next attempt waits again.
const EPOCH_WITHIN: Duration = Duration::from_secs(60);
/// Time for which readers that have begun with the previous epoch may read, in milliseconds. As long as a scan lives.
const READERS_MS: u64 = 30 * 60_000;

impl LeaderTerm {
    /// Publishes a refresh whose regions are merged, and completes the step.
    pub(super) async fn publish(&self, procedure: &Procedure) -> Result<(), Refusal> {
        let counts = self.merged_counts(procedure).await?;
        if let Some(epoch) = self.unchanged_since(procedure, &counts) {
            let counts = Some(counts);
            let epoch = epoch.get();
            let result = v1::RefreshStepResult { epoch, counts, ..Default::default() };
            return self.complete(procedure, &result).await;
        }
        // Later than the epoch of each barrier so far, and with it than that of each merged row.
        let epoch = self.allocate_epoch().await?;
        let groups: BTreeSet<GroupId> = {
            let state = self.group.view.read();
            state.routes_of(procedure.table).map(|route| route.group_id).collect()
        };
        self.wait_for_epoch(&groups, epoch).await?;
        let until_ms = epoch.ms().unwrap_or_default().saturating_add(READERS_MS);
        let result = v1::RefreshStepResult {
            epoch: epoch.get(),
            previous_until: Epoch::at_ms(until_ms).get(),
            counts: Some(counts),
            ..v1::RefreshStepResult::default()
        };
        self.complete(procedure, &result).await
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

    /// Returns the counts of all regions, whose merges are complete.
    async fn merged_counts(&self, procedure: &Procedure) -> Result<MergeCounts, Refusal> {
        let merges = self.region_merges(procedure).await?;
        let mut total = MergeCounts::default();
        for part in merges.iter().flat_map(|(_, merge)| &merge.parts) {
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

    /// Returns the progress of all regions of a refresh.
    async fn region_merges(
        &self,
        procedure: &Procedure,
    ) -> Result<Vec<(u64, RegionMerge)>, Refusal> {
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
            let response = self.at_leader(group, call).await?;
            Ok::<_, Refusal>((region.get(), response.merge.unwrap_or_default()))
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
