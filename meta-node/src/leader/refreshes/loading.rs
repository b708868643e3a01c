//! Load of a source: it is listed once, its splits are loaded by data nodes, and their files are staged in the regions.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures::stream::{self, TryStreamExt};
use parking_lot::Mutex;
use tidewater_common::ids::{NodeId, RegionId, SourceId};
use tidewater_common::refusal::Refusal;
use tidewater_proto::v1::{
    self, LoadProgress, LoadSplitResponse, NodeRole, NodeState, Reason, RegionFiles, SourceRecord,
    SourceSplit,
};
use tokio::time::{sleep, timeout};

use super::splits::{ATTEMPTS, BACKOFF, is_retried};
use crate::catalog::{MetaState, Procedure};
use crate::commands::procedures::refresh::{area, plan};
use crate::leader::leader_term::LeaderTerm;

/// Splits that are loaded at a time, for each data node that is up.
const SPLITS_PER_NODE: usize = 2;
/// Regions in which files are staged at a time.
const CONCURRENT_REGIONS: usize = 8;
/// Longest time without a message of a node that loads a split.
const SILENCE: Duration = Duration::from_secs(15);

/// A load in progress.
struct Load<'a> {
    term: &'a LeaderTerm,
    procedure: &'a Procedure,
    source: SourceRecord,
    /// Number of the next call, which chooses the node.
    calls: AtomicUsize,
    /// Files that were written for each region, of complete splits.
    files: Mutex<BTreeMap<RegionId, Vec<Bytes>>>,
    /// Rows of the splits.
    progress: Mutex<LoadProgress>,
}

impl LeaderTerm {
    /// Has the source of a refresh loaded, and completes the step.
    pub(super) async fn load(&self, procedure: &Procedure) -> Result<(), Refusal> {
        let source = {
            let state = self.group.view.read();
            let id = SourceId(plan(procedure)?.source_id);
            let source = state.source(id).ok_or_else(|| {
                Refusal::new(Reason::SourceNotFound, format!("source {id} does not exist"))
            })?;
            SourceRecord::from(source.as_ref())
        };
        let load = Load {
            term: self,
            procedure,
            source,
            calls: AtomicUsize::new(0),
            files: Mutex::default(),
            progress: Mutex::default(),
        };
        let loaded = load.run().await?;
        self.complete(procedure, &loaded).await
    }
}

impl Load<'_> {
    async fn run(&self) -> Result<v1::RefreshStepResult, Refusal> {
        let listing = self.list().await?;
        let count = |length: usize| u32::try_from(length).unwrap_or(u32::MAX);
        {
            let mut progress = self.progress.lock();
            progress.splits = count(listing.splits.len());
            progress.bytes = listing.splits.iter().map(|split| split.bytes).sum();
        }
        self.report();
        let nodes = data_nodes(&self.term.group.view.read()).len().max(1);
        stream::iter(listing.splits.into_iter().map(Ok))
            .try_for_each_concurrent(nodes * SPLITS_PER_NODE, |split| self.load_split(split))
            .await?;
        let files = std::mem::take(&mut *self.files.lock());
        stream::iter(files.into_iter().map(Ok))
            .try_for_each_concurrent(CONCURRENT_REGIONS, |(region, files)| {
                self.stage(region, files)
            })
            .await?;
        let source_rows = self.progress.lock().rows;
        let snapshot = listing.snapshot;
        Ok(v1::RefreshStepResult { snapshot, source_rows, ..v1::RefreshStepResult::default() })
    }

    async fn list(&self) -> Result<v1::ListSourceResponse, Refusal> {
        self.retried(|node| {
            let request = v1::ListSourceRequest {
                table_id: self.procedure.table.get(),
                source: Some(self.source.clone()),
                ..v1::ListSourceRequest::default()
            };
            self.term.control.list_source(node, request)
        })
        .await
    }

    /// Loads a split. Files of an attempt without its last message are unreferenced objects.
    async fn load_split(&self, split: SourceSplit) -> Result<(), Refusal> {
        let last = self.retried(|node| self.attempt_split(node, split.clone())).await?;
        {
            let mut files = self.files.lock();
            for RegionFiles { region_id, file_ids } in last.files {
                files.entry(RegionId(region_id)).or_default().extend(file_ids);
            }
            let mut progress = self.progress.lock();
            progress.rows += last.rows;
            progress.splits_done += 1;
            progress.bytes_done += split.bytes;
        }
        self.report();
        Ok(())
    }

    async fn attempt_split(
        &self,
        node: NodeId,
        split: SourceSplit,
    ) -> Result<LoadSplitResponse, Refusal> {
        let request = v1::LoadSplitRequest {
            table_id: self.procedure.table.get(),
            source: Some(self.source.clone()),
            split: Some(split.clone()),
            ..v1::LoadSplitRequest::default()
        };
        let mut messages = self.term.control.load_split(node, request).await?;
        loop {
            let silent = |_| {
                let text = format!("node {node} sent no progress of split {:?}", split.name);
                Refusal::new(Reason::DeadlineExceeded, text)
            };
            let message = timeout(SILENCE, messages.try_next()).await.map_err(silent)?;
            match message.map_err(|status| Refusal::from_status(&status))? {
                Some(message) if message.done => return Ok(message),
                Some(_) => {}
                None => {
                    let text =
                        format!("node {node} ended the load of split {:?} early", split.name);
                    return Err(Refusal::new(Reason::Unavailable, text));
                }
            }
        }
    }

    /// Stages the files of a region. Repeated, it has no effect.
    async fn stage(&self, region: RegionId, files: Vec<Bytes>) -> Result<(), Refusal> {
        let mut attempt = 0;
        loop {
            let staged = self.attempt_stage(region, &files).await;
            let Err(problem) = staged else { return Ok(()) };
            attempt += 1;
            if attempt >= ATTEMPTS || !is_retried(&problem) {
                return Err(problem);
            }
            sleep(BACKOFF.wait(attempt, problem.retry_after, self.term.timing.jitter.bits())).await;
        }
    }

    async fn attempt_stage(&self, region: RegionId, files: &[Bytes]) -> Result<(), Refusal> {
        let (group, schema_version) = {
            let state = self.term.group.view.read();
            let table = state.table(self.procedure.table);
            let version = table.map_or(0, |table| table.schema.version().get());
            let route = state.route(region).ok_or_else(|| {
                Refusal::new(Reason::ProcedureSuperseded, format!("route {region} has ended"))
            })?;
            (route.group_id, version)
        };
        let request = v1::AdoptFilesRequest {
            group_id: group.get(),
            region_id: region.get(),
            schema_version,
            area_id: area(self.procedure),
            file_ids: files.to_vec(),
            stage: true,
            ..v1::AdoptFilesRequest::default()
        };
        self.term
            .at_leader(group, |node| self.term.control.stage_files(node, request.clone()))
            .await
    }

    /// Makes attempts on different data nodes.
    async fn retried<F, T>(&self, call: impl Fn(NodeId) -> F) -> Result<T, Refusal>
    where
        F: Future<Output = Result<T, Refusal>>,
    {
        let mut attempt = 0;
        loop {
            let nodes = data_nodes(&self.term.group.view.read());
            let at = self.calls.fetch_add(1, Ordering::Relaxed);
            let called = match at.checked_rem(nodes.len()).and_then(|at| nodes.get(at)) {
                Some(node) => call(*node).await,
                None => Err(Refusal::new(Reason::NoDataNodes, "no data node is up")),
            };
            let problem = match called {
                Ok(returned) => return Ok(returned),
                Err(problem) => problem,
            };
            // A node that is busy with other loads is no failure of this one.
            if problem.reason != Reason::Overloaded {
                attempt += 1;
            }
            if attempt >= ATTEMPTS || !is_retried(&problem) {
                return Err(problem);
            }
            let table = &self.procedure.table_name;
            tracing::debug!(%table, %problem, attempt, "attempt on a source failed; retrying");
            sleep(BACKOFF.wait(
                attempt.max(1),
                problem.retry_after,
                self.term.timing.jitter.bits(),
            ))
            .await;
        }
    }

    /// Reports the progress for the status of the refresh.
    fn report(&self) {
        let progress = *self.progress.lock();
        self.term.observations.loads_of_sources.lock().insert(self.procedure.table, progress);
    }
}

/// Returns the data nodes that are up.
fn data_nodes(state: &MetaState) -> Vec<NodeId> {
    let up =
        state.nodes().filter(|node| node.role == NodeRole::Data && node.state == NodeState::Up);
    up.map(|node| node.id).collect()
}
