//! Life of a server process, from binding its port to its exit.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures::future::select_all;
use tidewater_common::problems::ProcessProblems;
use tidewater_events::{EventRecorderRef, NoRecorder};
use tidewater_raft_store::RaftService;
use tokio_util::task::AbortOnDropHandle;
use tonic::service::Routes;

use super::events::EventArgs;
use super::host::Host;
use super::listen::Listen;
use super::logs::LogOptions;
use super::node::RunningNode;
use super::signals::StopSignals;
use super::system_tables;
use crate::exit::Failure;

/// Time for nodes to stop: to transfer leadership and complete work in progress. Jobs of a compactor
/// have additional time.
const STOP_TIMEOUT: Duration = Duration::from_secs(20);

/// Shortest interval in which system tables are written.
const SHORTEST_ROUND: Duration = Duration::from_secs(1);

/// A process with its open port and the nodes started in it.
pub(crate) struct Process {
    host: Host,
    raft: RaftService,
    events: EventRecorderRef,
    nodes: Vec<RunningNode>,
    /// Tasks that end before the nodes stop.
    tasks: Vec<AbortOnDropHandle<()>>,
    signals: StopSignals,
    stopped: bool,
}

impl Process {
    /// Binds the port first, so that nothing else changes if it is in use.
    pub(crate) async fn start(listen: &Listen, logs: &LogOptions) -> Result<Self, Failure> {
        let signals = StopSignals::listen()?;
        let host = Host::start(listen, logs).await?;
        let events = Arc::new(NoRecorder);
        let raft = RaftService::new();
        let (nodes, tasks) = (Vec::new(), Vec::new());
        Ok(Self { host, raft, events, nodes, tasks, signals, stopped: false })
    }

    /// Starts the event recorder that all nodes of the process share; returns it. `data_dir`: that of the process; `meta`:
    /// addresses of meta nodes.
    pub(crate) async fn record_events(
        &mut self,
        options: &EventArgs,
        data_dir: Option<&Path>,
        meta: &[String],
    ) -> Result<EventRecorderRef, Failure> {
        self.events = options.start(data_dir, meta, self.problems()).await?;
        self.host.record_calls(&self.events);
        Ok(Arc::clone(&self.events))
    }

    /// Starts to write the system tables in an interval, while the meta node of the process leads; zero: never. `meta`:
    /// addresses of meta nodes.
    pub(crate) fn keep_system_tables(&mut self, every: Duration, meta: Vec<String>) {
        if every.is_zero() {
            return;
        }
        let leaderships = self.nodes.iter().filter_map(RunningNode::meta_leadership);
        let every = every.max(SHORTEST_ROUND);
        let keep = |leadership| tokio::spawn(system_tables::keep(every, meta.clone(), leadership));
        self.tasks.extend(leaderships.map(keep).map(AbortOnDropHandle::new));
    }

    /// Returns the advertised address, HOST:PORT.
    pub(crate) fn advertised(&self) -> &str {
        self.host.advertised()
    }

    /// Returns the bound address, for calls between nodes of this process.
    pub(crate) fn bound(&self) -> std::net::SocketAddr {
        self.host.bound()
    }

    /// Returns the problems of the process, which its nodes report.
    pub(crate) fn problems(&self) -> ProcessProblems {
        self.host.problems()
    }

    /// Returns the Raft service that all nodes of the process share.
    pub(crate) fn raft(&self) -> RaftService {
        self.raft.clone()
    }

    /// Starts a node and installs its services. A stop signal during the start aborts it, and no
    /// further node starts.
    pub(crate) async fn add(
        &mut self,
        start: impl Future<Output = Result<RunningNode, Failure>>,
    ) -> Result<(), Failure> {
        if self.stopped {
            return Ok(());
        }
        let node = tokio::select! {
            node = start => node,
            failure = self.host.failed() => Err(failure),
            signal = self.signals.next() => {
                tracing::info!(signal, "stopping before the node has started");
                self.stopped = true;
                return Ok(());
            }
        };
        match node {
            Ok(node) => {
                self.nodes.push(node);
                self.host.install_first(self.routes());
            }
            Err(failure) => {
                shut_down(std::mem::take(&mut self.nodes)).await;
                return Err(failure);
            }
        }
        self.wait_until_joined().await
    }

    /// Waits until the node that started last belongs to its cluster.
    async fn wait_until_joined(&mut self) -> Result<(), Failure> {
        let Some(node) = self.nodes.last() else { return Ok(()) };
        let joined = tokio::select! {
            joined = node.joined() => joined,
            failure = self.host.failed() => Err(failure),
            signal = self.signals.next() => {
                tracing::info!(signal, "stopping before the node has joined its cluster");
                self.stopped = true;
                Ok(())
            }
        };
        if joined.is_err() {
            shut_down(std::mem::take(&mut self.nodes)).await;
        }
        joined
    }

    fn routes(&self) -> Routes {
        let mut routes = Routes::builder();
        routes.add_service(self.raft.clone().into_server());
        for node in &self.nodes {
            node.add_services(&mut routes);
        }
        routes.routes()
    }

    /// Serves until a signal or a failure, then stops.
    pub(crate) async fn run(mut self, role: &str) -> Result<(), Failure> {
        let mut ended = Ok(());
        if !self.stopped {
            let ids: Vec<String> =
                self.nodes.iter().map(|node| node.node_id().to_string()).collect();
            self.host.install(self.routes());
            ended = self.host.report_ready(role, &ids.join(",")).await;
            if ended.is_ok() {
                ended = self.serve_until_stopped().await;
            }
        }
        self.host.report_draining().await;
        self.tasks.clear();
        let nodes = std::mem::take(&mut self.nodes);
        let extra = nodes.iter().map(RunningNode::extra_stop_time).max().unwrap_or_default();
        let limit = STOP_TIMEOUT.saturating_add(extra);
        let events = Arc::clone(&self.events);
        let stop = async move {
            shut_down(nodes).await;
            // Last, so that it has the events of the stop. What the cluster does not take in time stays in the spool, e.g.
            // since this process has served the table.
            events.close().await;
        };
        tokio::select! {
            stopped = tokio::time::timeout(limit, stop) => {
                if stopped.is_err() {
                    tracing::warn!(seconds = limit.as_secs(), "nodes did not stop in time");
                }
            }
            signal = self.signals.next() => {
                return Err(Failure::other(format!("stopped immediately by a second {signal}")));
            }
        }
        self.host.stop().await;
        ended
    }

    /// Waits for a stop signal, or for the failure of the listener or a node.
    async fn serve_until_stopped(&mut self) -> Result<(), Failure> {
        let failures = self.nodes.iter().map(|node| Box::pin(node.failed()));
        tokio::select! {
            signal = self.signals.next() => {
                tracing::info!(signal, "stopping");
                Ok(())
            }
            failure = self.host.failed() => Err(failure),
            (failure, _, _) = select_all(failures) => {
                tracing::error!(%failure, "node failed");
                Err(Failure::other(failure))
            }
        }
    }
}

/// Stops the nodes in reverse order: data nodes transfer leadership while their meta node still answers.
async fn shut_down(nodes: Vec<RunningNode>) {
    for node in nodes.into_iter().rev() {
        node.shutdown().await;
    }
}
