//! Regions: what there is, flush, files, manifests.

use std::collections::BTreeSet;
use std::time::Duration;

use futures::future::join_all;
use tidewater_common::ids::{GroupId, NodeId, RegionId};
use tidewater_common::keys::KeyRange;
use tidewater_common::refusal::{Effect, Refusal};
use tidewater_proto::v1::{self, NodeRole, Reason};
use tokio::time::Instant;
use tonic::transport::Channel;
use tonic::{Request, Response, Status};

use crate::client::Client;
use crate::core::Repeat;
use crate::error::ClientError;
use crate::outcome::{RetryAction, retry_action};
use crate::pool::attempt;
use crate::router::timed;

/// A flush writes and uploads the whole memtable.
const FLUSH: Duration = Duration::from_secs(120);

/// The node says twice a second how far a compaction is; after so long it is given up.
const COMPACTION: Duration = Duration::from_secs(60);

/// Which regions to list.
#[derive(Debug, Clone, Default)]
pub struct RegionFilter {
    /// Of this table only.
    pub table: Option<String>,
    /// This region only.
    pub region: Option<RegionId>,
    /// Also the replicas that do not lead.
    pub include_followers: bool,
    /// With a digest of the replicated state, for comparing replicas. Costs a pass over the rows.
    pub with_digest: bool,
}

/// What flushing a table did to one of its regions.
#[derive(Debug)]
pub struct TableFlush {
    /// The region.
    pub region: RegionId,
    /// What was flushed, or why not.
    pub outcome: Result<v1::FlushRegionResponse, ClientError>,
}

impl Client {
    /// Asks every data node for its regions. Also returns the nodes that did not answer, with the
    /// reason: a list that silently lacks them would look whole.
    ///
    /// # Errors
    /// No data node is known.
    #[allow(clippy::type_complexity, reason = "regions, and nodes with their reasons")]
    pub async fn list_regions(
        &self,
        filter: RegionFilter,
    ) -> Result<(Vec<v1::RegionInfo>, Vec<(NodeId, String)>), ClientError> {
        let nodes = self.core.refresh_catalog().await?.addresses(NodeRole::Data);
        let timeout = Duration::from_secs(if filter.with_digest { 60 } else { 10 });
        let answers = join_all(nodes.into_iter().map(|(node, address)| {
            let request = v1::ListRegionsRequest {
                table: filter.table.clone(),
                region_id: filter.region.map(RegionId::get),
                include_followers: filter.include_followers,
                with_digest: filter.with_digest,
            };
            async move {
                let router = &self.core.router;
                let channel = match router.pool.channel(&address) {
                    Ok(channel) => channel,
                    Err(miss) => return (node, Err(miss)),
                };
                let mut client = router.region_admin(channel);
                (node, attempt(timeout, client.list_regions(timed(request, timeout))).await)
            }
        }))
        .await;
        let (mut regions, mut silent) = (Vec::new(), Vec::new());
        for (node, answer) in answers {
            match answer {
                Ok(answer) => regions.extend(answer.regions),
                Err(miss) => silent.push((node, miss.refusal.message)),
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
        // Flushing twice finds nothing to do.
        self.on_region(region, &what, Repeat::Read, FLUSH, |group, channel, timeout| {
            let mut client = router.region_admin(channel);
            let request = v1::FlushRegionRequest { group_id: group.get(), region_id: region.get() };
            async move { client.flush_region(timed(request, timeout)).await }
        })
        .await
    }

    /// Merges files of a region: all into one run, or with `due_only` what is worth it. `seen` is
    /// called with the progress as it comes. `None`: there was nothing to merge. Dropping the
    /// future cancels the compaction.
    ///
    /// # Errors
    /// [`ClientError::RegionNotFound`]; [`ClientError::Refused`] when it failed: nothing changed.
    pub async fn compact_region(
        &self,
        region: RegionId,
        due_only: bool,
        place: v1::CompactionPlace,
        mut seen: impl FnMut(v1::CompactionProgress) + Send,
    ) -> Result<Option<v1::CompactionReport>, ClientError> {
        let router = &self.core.router;
        let what = format!("compaction of region {region}");
        let mut events = self
            .on_region(region, &what, Repeat::Read, COMPACTION, |group, channel, _| {
                let mut client = router.region_admin(channel);
                let request = v1::CompactRegionRequest {
                    group_id: group.get(),
                    region_id: region.get(),
                    due_only,
                    place: place.into(),
                };
                // Without a limit on the whole: it takes as long as there is progress.
                async move { client.compact_region(Request::new(request)).await }
            })
            .await?;
        let started = Instant::now();
        let broken = |status: Status| {
            let (what, cause) = (what.clone(), Box::new(Refusal::from_status(&status)));
            match cause.effect() {
                Effect::None => ClientError::Refused { what, refusal: cause },
                _ => {
                    let elapsed = started.elapsed();
                    ClientError::OutcomeUnknown { what, attempts: 1, elapsed, cause }
                }
            }
        };
        loop {
            let next =
                tokio::time::timeout(COMPACTION, events.message()).await.unwrap_or_else(|_| {
                    Err(Status::deadline_exceeded("nothing was heard for a minute"))
                });
            match next {
                Ok(Some(event)) if event.done => return Ok(event.report),
                Ok(Some(event)) => event.progress.into_iter().for_each(&mut seen),
                Ok(None) => {
                    return Err(broken(Status::deadline_exceeded("the answer ended too early")));
                }
                Err(status) => return Err(broken(status)),
            }
        }
    }

    /// Flushes all regions of a table, those of different groups at once.
    ///
    /// # Errors
    /// [`ClientError::TableNotFound`]; what happened to each region is in the list.
    pub async fn flush_table(&self, table: &str) -> Result<Vec<TableFlush>, ClientError> {
        let table = self.table(table).await?;
        let catalog = self.core.refresh_catalog().await?;
        let routes: Vec<_> = catalog.routes_in(table.id, &KeyRange::whole()).cloned().collect();
        let groups: BTreeSet<GroupId> = routes.iter().map(|route| route.group).collect();
        let by_group = join_all(groups.into_iter().map(|group| {
            let regions: Vec<RegionId> =
                routes.iter().filter(|one| one.group == group).map(|one| one.region).collect();
            async move {
                let mut done = Vec::with_capacity(regions.len());
                for region in regions {
                    done.push(TableFlush { region, outcome: self.flush_region(region).await });
                }
                done
            }
        }))
        .await;
        let mut flushes: Vec<TableFlush> = by_group.into_iter().flatten().collect();
        flushes.sort_by_key(|flush| flush.region);
        Ok(flushes)
    }

    /// The files that a region consists of.
    ///
    /// # Errors
    /// [`ClientError::RegionNotFound`] and others.
    pub async fn region_files(&self, region: RegionId) -> Result<Vec<v1::SstFile>, ClientError> {
        let router = &self.core.router;
        let what = format!("files of region {region}");
        let longest = Duration::from_secs(15);
        let answer = self
            .on_region(region, &what, Repeat::Read, longest, |group, channel, timeout| {
                let mut client = router.region_admin(channel);
                let request =
                    v1::ListFilesRequest { group_id: group.get(), region_id: region.get() };
                async move { client.list_files(timed(request, timeout)).await }
            })
            .await?;
        Ok(answer.files)
    }

    /// A region's manifest as JSON text.
    ///
    /// # Errors
    /// [`ClientError::RegionNotFound`] and others.
    pub async fn region_manifest(&self, region: RegionId) -> Result<String, ClientError> {
        let router = &self.core.router;
        let what = format!("manifest of region {region}");
        let longest = Duration::from_secs(30);
        let answer = self
            .on_region(region, &what, Repeat::Read, longest, |group, channel, timeout| {
                let mut client = router.region_admin(channel);
                let request =
                    v1::ShowManifestRequest { group_id: group.get(), region_id: region.get() };
                async move { client.show_manifest(timed(request, timeout)).await }
            })
            .await?;
        Ok(answer.json)
    }

    /// Calls the owner of a region, wherever its route leads meanwhile.
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
        let until = Instant::now() + self.options().deadline;
        let mut misses: u32 = 0;
        loop {
            let group = self.core.route(region).await?.group;
            let result = self
                .core
                .call(group, what, repeat, longest, |channel, timeout| {
                    call(group, channel, timeout)
                })
                .await;
            let Err(ClientError::Refused { refusal, .. }) = &result else { return result };
            // Under another schema, the same request will not do.
            let outdated = refusal.reason == Reason::SchemaVersionStale;
            let elsewhere = retry_action(refusal) == RetryAction::RefreshCatalog && !outdated;
            if !elsewhere || Instant::now() >= until {
                return result;
            }
            misses = misses.saturating_add(1);
            let options = self.options();
            tokio::time::sleep(options.backoff.wait(misses, None, options.ids.bits())).await;
            self.core.refresh_catalog().await?;
        }
    }
}
