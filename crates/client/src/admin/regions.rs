//! Calls for regions: list, flush, compact, files and manifests.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures::stream::{self, StreamExt};
use tidewater_common::ids::{GroupId, NodeId, RegionId};
use tidewater_common::refusal::{Effect, Refusal};
use tidewater_proto::v1::{self, NodeRole, Reason};
use tidewater_rpc::{attempt, timed};
use tokio::time::Instant;
use tonic::transport::Channel;
use tonic::{Request, Response, Status};

use crate::client::Client;
use crate::core::Repeat;
use crate::error::ClientError;
use crate::outcome::RetryAction;
use crate::stale::{ExpectedChange, StaleWaits, UsedCatalog};

/// Timeout of an attempt to flush a region, which writes and uploads the whole memtable.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(120);

/// Maximum time between two progress reports of a compaction. A node sends two per second.
const PROGRESS_TIMEOUT: Duration = Duration::from_secs(60);

/// Maximum number of data nodes that are asked for their regions at the same time.
const NODES_AT_ONCE: usize = 32;

/// Maximum number of groups whose regions are flushed at the same time: each flush takes memory and
/// bandwidth of its data node.
const CONCURRENT_GROUPS: usize = 16;

/// Maximum number of times that an operation on all regions of a table continues with regions that replace others.
pub const MAX_REPLACED: u32 = 8;

/// Filter of a list of regions.
#[derive(Debug, Clone, Default)]
pub struct RegionFilter {
    /// Only regions of this table.
    pub table: Option<String>,
    /// Only this region.
    pub region: Option<RegionId>,
    /// Includes followers.
    pub include_followers: bool,
    /// Includes a digest of the replicated state, to compare replicas. Costs a pass over the rows.
    pub with_digest: bool,
    /// Includes the bounds of the time column. Costs a pass over the times in memory.
    pub with_times: bool,
}

/// Result of a table's flush for one region.
#[derive(Debug)]
pub struct TableFlush {
    /// Id of the region.
    pub region: RegionId,
    /// Flushed rows and files, or the error.
    pub outcome: Result<v1::FlushRegionResponse, ClientError>,
}

impl TableFlush {
    fn is_gone(&self) -> bool {
        self.outcome.as_ref().is_err_and(ClientError::is_gone)
    }
}

impl Client {
    /// Lists the regions of all data nodes. Also returns the nodes that did not respond, with the reason:
    /// without them an incomplete list would look complete.
    ///
    /// # Errors
    /// No data node is known.
    #[allow(clippy::type_complexity, reason = "regions, and nodes with their reasons")]
    pub async fn list_regions(
        &self,
        filter: RegionFilter,
    ) -> Result<(Vec<v1::RegionInfo>, Vec<(NodeId, String)>), ClientError> {
        let nodes = self.core.refresh_catalog().await?.addresses(NodeRole::Data);
        let longest = Duration::from_secs(if filter.with_digest { 60 } else { 10 });
        let timeout = longest.min(self.options().deadline);
        let calls = nodes.into_iter().map(|(node, address)| {
            let request = v1::ListRegionsRequest {
                table: filter.table.clone(),
                region_id: filter.region.map(RegionId::get),
                include_followers: filter.include_followers,
                with_digest: filter.with_digest,
                with_times: filter.with_times,
                confirmed: false,
            };
            async move {
                let router = &self.core.router;
                let channel = match router.channel(&address) {
                    Ok(channel) => channel,
                    Err(failure) => return (node, Err(failure)),
                };
                let mut client = router.region_admin(channel);
                (
                    node,
                    attempt(&address, timeout, client.list_regions(timed(request, timeout))).await,
                )
            }
        });
        let responses: Vec<_> = stream::iter(calls).buffer_unordered(NODES_AT_ONCE).collect().await;
        let mut regions = Vec::new();
        let mut silent = Vec::new();
        for (node, response) in responses {
            match response {
                Ok(response) => regions.extend(response.regions),
                Err(failure) => silent.push((node, failure.refusal.message)),
            }
        }
        regions.sort_by_key(|region| (region.region_id, region.node_id));
        Ok((regions, silent))
    }

    /// Flushes a region; returns when the flush is committed.
    ///
    /// # Errors
    /// [`ClientError::RegionNotFound`]; [`ClientError::RetriesExhausted`] while the object store is down.
    pub async fn flush_region(
        &self,
        region: RegionId,
    ) -> Result<v1::FlushRegionResponse, ClientError> {
        let router = &self.core.router;
        let what = format!("flush of region {region}");
        // A repeated flush has no effect.
        self.on_region(region, &what, Repeat::Read, FLUSH_TIMEOUT, |group, channel, timeout| {
            let mut client = router.region_admin(channel);
            let request = v1::FlushRegionRequest {
                group_id: group.get(),
                region_id: region.get(),
                by_node: false,
            };
            async move { client.flush_region(timed(request, timeout)).await }
        })
        .await
    }

    /// Compacts files of a region: all files into one run, or with `due_only` only those that are due. Calls
    /// `on_progress` with each progress report. Returns `None` if there was nothing to compact. Dropping the
    /// future cancels the compaction.
    ///
    /// # Errors
    /// [`ClientError::RegionNotFound`]; [`ClientError::Refused`] when it failed and changed nothing.
    pub async fn compact_region(
        &self,
        region: RegionId,
        due_only: bool,
        place: v1::CompactionPlace,
        mut on_progress: impl FnMut(v1::CompactionProgress) + Send,
    ) -> Result<Option<v1::CompactionReport>, ClientError> {
        let options = self.options();
        let deadline = Instant::now() + options.deadline;
        let mut failures: u32 = 0;
        loop {
            let compacted = self.compact_once(region, due_only, place, &mut on_progress).await;
            let Err(ClientError::Refused { refusal, .. }) = &compacted else { return compacted };
            // The owner changed: nothing was compacted.
            let is_moved = refusal.retry_action() == RetryAction::FindLeader;
            if !is_moved || Instant::now() >= deadline {
                return compacted;
            }
            failures = failures.saturating_add(1);
            let group = self.core.route(region).await?.group;
            match &refusal.leader {
                Some(leader) => self.core.router.leaders.learn(group, &leader.address),
                None => self.core.router.leaders.forget_group(group),
            }
            let wait = options.backoff.wait(failures, refusal.retry_after, options.ids.bits());
            tokio::time::sleep(wait).await;
        }
    }

    async fn compact_once(
        &self,
        region: RegionId,
        due_only: bool,
        place: v1::CompactionPlace,
        mut on_progress: impl FnMut(v1::CompactionProgress) + Send,
    ) -> Result<Option<v1::CompactionReport>, ClientError> {
        let router = &self.core.router;
        let what = format!("compaction of region {region}");
        let mut events = self
            .on_region(region, &what, Repeat::Read, PROGRESS_TIMEOUT, |group, channel, _| {
                let mut client = router.region_admin(channel);
                let request = v1::CompactRegionRequest {
                    group_id: group.get(),
                    region_id: region.get(),
                    due_only,
                    place: place.into(),
                };
                // The whole compaction has no timeout, as long as it makes progress.
                async move { client.compact_region(Request::new(request)).await }
            })
            .await?;
        let started = Instant::now();
        let broken = |status: Status| {
            let what = what.clone();
            let cause = Box::new(Refusal::from_status(&status));
            match cause.effect() {
                Effect::None => ClientError::Refused { what, refusal: cause },
                _ => {
                    let elapsed = started.elapsed();
                    ClientError::OutcomeUnknown { what, attempts: 1, elapsed, cause }
                }
            }
        };
        loop {
            let next = tokio::time::timeout(PROGRESS_TIMEOUT, events.message())
                .await
                .unwrap_or_else(|_| {
                    Err(Status::deadline_exceeded(format!(
                        "no progress was reported for {PROGRESS_TIMEOUT:?}"
                    )))
                });
            match next {
                Ok(Some(event)) if event.done => return Ok(event.report),
                Ok(Some(event)) => event.progress.into_iter().for_each(&mut on_progress),
                Ok(None) => {
                    return Err(broken(Status::deadline_exceeded(
                        "the stream ended without a report",
                    )));
                }
                Err(status) => return Err(broken(status)),
            }
        }
    }

    /// Flushes all regions of a table, those of different groups concurrently. A region that is replaced before
    /// its flush is left out for those that replace it.
    ///
    /// # Errors
    /// [`ClientError::TableNotFound`]; the list contains the errors of single regions.
    pub async fn flush_table(&self, table: &str) -> Result<Vec<TableFlush>, ClientError> {
        let mut flushes: Vec<TableFlush> = Vec::new();
        let mut known = BTreeSet::new();
        for _ in 0..MAX_REPLACED {
            let current: BTreeSet<RegionId> =
                self.table_region_ids(table).await?.into_iter().collect();
            flushes.retain(|flush| !flush.is_gone() || current.contains(&flush.region));
            let regions: Vec<RegionId> = current.difference(&known).copied().collect();
            known.extend(&regions);
            flushes.extend(self.flush_regions(&regions).await);
            if regions.is_empty() || !flushes.iter().any(TableFlush::is_gone) {
                break;
            }
        }
        flushes.sort_by_key(|flush| flush.region);
        Ok(flushes)
    }

    /// Flushes regions, those of different groups concurrently.
    async fn flush_regions(&self, regions: &[RegionId]) -> Vec<TableFlush> {
        let catalog = self.core.catalog();
        let mut groups: BTreeMap<Option<GroupId>, Vec<RegionId>> = BTreeMap::new();
        for region in regions {
            let group = catalog.route(*region).map(|route| route.group);
            groups.entry(group).or_default().push(*region);
        }
        let by_group = stream::iter(groups.into_values().map(|regions| async move {
            let mut flushes = Vec::with_capacity(regions.len());
            for region in regions {
                flushes.push(TableFlush { region, outcome: self.flush_region(region).await });
            }
            flushes
        }));
        let by_group: Vec<Vec<TableFlush>> =
            by_group.buffer_unordered(CONCURRENT_GROUPS).collect().await;
        by_group.into_iter().flatten().collect()
    }

    /// Returns the live files of a region.
    ///
    /// # Errors
    /// [`ClientError::RegionNotFound`] and others.
    pub async fn region_files(&self, region: RegionId) -> Result<Vec<v1::SstFile>, ClientError> {
        let router = &self.core.router;
        let what = format!("files of region {region}");
        let longest = Duration::from_secs(15);
        let response = self
            .on_region(region, &what, Repeat::Read, longest, |group, channel, timeout| {
                let mut client = router.region_admin(channel);
                let request =
                    v1::ListFilesRequest { group_id: group.get(), region_id: region.get() };
                async move { client.list_files(timed(request, timeout)).await }
            })
            .await?;
        Ok(response.files)
    }

    /// Returns a region's manifest as JSON text.
    ///
    /// # Errors
    /// [`ClientError::RegionNotFound`] and others.
    pub async fn region_manifest(&self, region: RegionId) -> Result<String, ClientError> {
        let router = &self.core.router;
        let what = format!("manifest of region {region}");
        let longest = Duration::from_secs(30);
        let response = self
            .on_region(region, &what, Repeat::Read, longest, |group, channel, timeout| {
                let mut client = router.region_admin(channel);
                let request =
                    v1::ShowManifestRequest { group_id: group.get(), region_id: region.get() };
                async move { client.show_manifest(timed(request, timeout)).await }
            })
            .await?;
        Ok(response.json)
    }

    /// Calls the owner of a region; follows changes of its route until the deadline.
    pub(crate) async fn on_region<T, F>(
        &self,
        region: RegionId,
        what: &str,
        repeat: Repeat,
        longest: Duration,
        call: impl Fn(GroupId, Channel, Duration) -> F,
    ) -> Result<T, ClientError>
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        let deadline = Instant::now() + self.options().deadline;
        let mut failures: u32 = 0;
        let mut stale = StaleWaits::default();
        loop {
            let catalog = self.catalog();
            let route = self.core.route(region).await?;
            let group = route.group;
            let result = self
                .core
                .call(group, what, repeat, longest, |channel, timeout| {
                    call(group, channel, timeout)
                })
                .await;
            let Err(ClientError::Refused { refusal, .. }) = &result else { return result };
            // Another route does not make a request with a stale schema valid.
            let schema_is_stale = refusal.reason == Reason::SchemaVersionStale;
            let route_is_stale =
                refusal.retry_action() == RetryAction::RefreshCatalog && !schema_is_stale;
            if !route_is_stale || Instant::now() >= deadline {
                return result;
            }
            failures = failures.saturating_add(1);
            let options = self.options();
            let wait = options.backoff.wait(failures, None, options.ids.bits());
            let used = UsedCatalog::new(&catalog, None, Some(&route));
            let change = ExpectedChange::new(refusal, &used);
            self.core.wait_for_change(&change, &mut stale, wait, deadline).await?;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake::FakeCluster;

    #[tokio::test]
    async fn compaction_follows_a_change_of_the_leader() {
        let cluster = FakeCluster::start(&[], 1).await;
        let client = cluster.client().await;
        let region = RegionId(*cluster.state.lock().regions.keys().next().unwrap());
        for (reasons, is_done) in [
            (&[Reason::NotLeader, Reason::NotLeader][..], true),
            (&[Reason::NotLeader, Reason::NoCompactors][..], false),
        ] {
            cluster.state.lock().compaction_refusals =
                reasons.iter().map(|reason| Refusal::new(*reason, "injected")).collect();
            let place = v1::CompactionPlace::Any;
            let compacted = client.compact_region(region, false, place, |_| {}).await;
            assert_eq!(compacted.is_ok(), is_done, "{compacted:?}");
            assert!(cluster.state.lock().compaction_refusals.is_empty());
        }
    }
}
