//! Load of a source: it is listed once, its splits are loaded by data nodes, and their files are staged in the regions.

mod pending;
mod progress;
mod staging;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures::stream::{self, TryStreamExt};
use parking_lot::Mutex;
use tidewater_common::ids::{NodeId, SourceId};
use tidewater_common::refusal::Refusal;
use tidewater_proto::v1::{
    self, LoadSplitsResponse, NodeRole, NodeState, Reason, SourceRecord, SourceSplit,
};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use self::pending::PendingFiles;
use self::progress::Progress;
use super::splits::{ATTEMPTS, BACKOFF, grouped, is_retried};
use crate::catalog::{MetaState, Procedure};
use crate::commands::procedures::refresh::plan;
use crate::leader::attempts::FailingRegions;
use crate::leader::leader_term::LeaderTerm;

/// Calls at a time, for each data node that is up.
const CALLS_PER_NODE: usize = 2;
/// Time of an attempt after which its source counts as unreadable: the next attempt would take as long.
const LONG_ATTEMPT: Duration = Duration::from_secs(5 * 60);
/// Longest time without a message of a node that loads splits.
const SILENCE: Duration = Duration::from_secs(15);

/// A load in progress.
struct Load<'a> {
    term: &'a LeaderTerm,
    procedure: &'a Procedure,
    source: SourceRecord,
    /// Number of the next call, which chooses the node.
    calls: AtomicUsize,
    /// Files of complete splits.
    pending: Mutex<PendingFiles>,
    /// Regions in which files cannot be staged.
    failing: Mutex<FailingRegions>,
    progress: Mutex<Progress>,
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
            // The loads of different tables begin at different nodes.
            calls: AtomicUsize::new(usize::try_from(procedure.table.get()).unwrap_or(0)),
            pending: Mutex::new(PendingFiles::new(Instant::now())),
            failing: Mutex::new(FailingRegions::new(Instant::now())),
            progress: Mutex::default(),
        };
        let loaded = load.run().await?;
        self.complete(procedure, &loaded).await
    }
}

impl Load<'_> {
    async fn run(&self) -> Result<v1::RefreshStepResult, Refusal> {
        let v1::ListSourceResponse { splits, snapshot } = self.list().await?;
        self.progress.lock().begin(&splits);
        self.report();
        tokio::select! {
            loaded = self.load_and_stage(splits) => loaded?,
            never = self.follow_failures() => match never {},
        }
        let source_rows = self.progress.lock().total().rows;
        Ok(v1::RefreshStepResult { snapshot, source_rows, ..v1::RefreshStepResult::default() })
    }

    async fn load_and_stage(&self, splits: Vec<SourceSplit>) -> Result<(), Refusal> {
        let nodes = data_nodes(&self.term.group.view.read()).len().max(1);
        let at_once = nodes * CALLS_PER_NODE;
        let groups = grouped(splits, at_once).into_iter().enumerate().map(Ok);
        let loaded = CancellationToken::new();
        let load = async {
            let groups = stream::iter(groups);
            let load = |(number, splits)| self.load_group(number, splits);
            groups.try_for_each_concurrent(at_once, load).await?;
            loaded.cancel();
            Ok(())
        };
        tokio::try_join!(load, self.stage_until(&loaded))?;
        let rest = self.pending.lock().take();
        self.stage(rest).await
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

    /// Loads splits. Files of an attempt without its last message are unreferenced objects.
    async fn load_group(&self, number: usize, splits: Vec<SourceSplit>) -> Result<(), Refusal> {
        let last = self.retried(|node| self.attempt_group(node, number, &splits)).await?;
        self.progress.lock().complete(number, &splits, last.rows);
        self.pending.lock().add(last.files)?;
        self.report();
        Ok(())
    }

    async fn attempt_group(
        &self,
        node: NodeId,
        number: usize,
        splits: &[SourceSplit],
    ) -> Result<LoadSplitsResponse, Refusal> {
        let request = v1::LoadSplitsRequest {
            table_id: self.procedure.table.get(),
            source: Some(self.source.clone()),
            splits: splits.to_vec(),
            ..v1::LoadSplitsRequest::default()
        };
        let name = splits.first().map(|split| split.name.as_str()).unwrap_or_default();
        let mut messages = self.term.control.load_splits(node, request).await?;
        loop {
            let silent = |_| {
                let text = format!("node {node} sent no progress of split {name:?}");
                Refusal::new(Reason::DeadlineExceeded, text)
            };
            let message = timeout(SILENCE, messages.try_next()).await.map_err(silent)?;
            match message.map_err(|status| Refusal::from_status(&status))? {
                Some(message) if message.done => return Ok(message),
                Some(message) => {
                    self.progress.lock().read(number, message.rows);
                    self.report();
                }
                None => {
                    let text = format!("node {node} ended the load of split {name:?} early");
                    return Err(Refusal::new(Reason::Unavailable, text));
                }
            }
        }
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
            let begun = Instant::now();
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
            let is_stalled =
                problem.reason == Reason::SourceUnreadable && begun.elapsed() >= LONG_ATTEMPT;
            if attempt >= ATTEMPTS || is_stalled || !is_retried(&problem) {
                return Err(problem);
            }
            self.wait(attempt.max(1), &problem).await;
        }
    }

    /// Waits before another attempt.
    async fn wait(&self, attempt: u32, problem: &Refusal) {
        let table = &self.procedure.table_name;
        tracing::debug!(%table, %problem, attempt, "attempt on a source failed; retrying");
        sleep(BACKOFF.wait(attempt, problem.retry_after, self.term.timing.jitter.bits())).await;
    }

    /// Reports the progress for the status of the refresh.
    fn report(&self) {
        let progress = self.progress.lock().total();
        self.term.observations.loads_of_sources.lock().insert(self.procedure.table, progress);
    }
}

/// Returns the data nodes that are up.
fn data_nodes(state: &MetaState) -> Vec<NodeId> {
    let up =
        state.nodes().filter(|node| node.role == NodeRole::Data && node.state == NodeState::Up);
    up.map(|node| node.id).collect()
}
