//! A server process from its port to its end.

use std::time::Duration;

use futures::future::select_all;
use tidewater_raft_store::RaftService;
use tonic::service::Routes;

use super::host::Host;
use super::listen::Listen;
use super::logs::LogOptions;
use super::node::RunningNode;
use super::signals::StopSignals;
use crate::exit::Failure;

/// How long nodes may take to stop: handing leadership over, finishing what is under way. Jobs of a
/// compactor have a limit of their own beside it.
const STOP: Duration = Duration::from_secs(20);

/// A process with its port open, and the nodes that were started in it.
pub(crate) struct Process {
    host: Host,
    raft: RaftService,
    nodes: Vec<RunningNode>,
    signals: StopSignals,
    stopped: bool,
}

impl Process {
    /// Takes the port, so that nothing else is touched when it is taken already.
    pub(crate) async fn start(listen: &Listen, logs: &LogOptions) -> Result<Self, Failure> {
        let signals = StopSignals::listen()?;
        let host = Host::start(listen, logs).await?;
        Ok(Self { host, raft: RaftService::new(), nodes: Vec::new(), signals, stopped: false })
    }

    /// What others are told to connect to.
    pub(crate) fn advertised(&self) -> &str {
        self.host.advertised()
    }

    /// The address listened on, for nodes of this process that call each other.
    pub(crate) fn bound(&self) -> std::net::SocketAddr {
        self.host.bound()
    }

    /// The Raft service of all nodes of the process.
    pub(crate) fn raft(&self) -> RaftService {
        self.raft.clone()
    }

    /// Starts a node and puts its services behind the port. Being told to stop meanwhile ends the
    /// start, and everything that would follow.
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
                tracing::info!(signal, "stopping before the start was over");
                self.stopped = true;
                return Ok(());
            }
        };
        match node {
            Ok(node) => {
                self.nodes.push(node);
                self.host.install(self.routes());
            }
            Err(failure) => {
                shut_down(std::mem::take(&mut self.nodes)).await;
                return Err(failure);
            }
        }
        self.last_joined().await
    }

    /// Waits until the node started last belongs to its cluster.
    async fn last_joined(&mut self) -> Result<(), Failure> {
        let Some(node) = self.nodes.last() else { return Ok(()) };
        let joined = tokio::select! {
            joined = node.joined() => joined,
            failure = self.host.failed() => Err(failure),
            signal = self.signals.next() => {
                tracing::info!(signal, "stopping before the node had joined its cluster");
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
            ended = self.host.ready(role, &ids.join(",")).await;
            if ended.is_ok() {
                ended = self.until_told().await;
            }
        }
        self.host.draining().await;
        let nodes = std::mem::take(&mut self.nodes);
        let longer = nodes.iter().map(RunningNode::longest_stop).max().unwrap_or_default();
        let limit = STOP.saturating_add(longer);
        tokio::select! {
            stopped = tokio::time::timeout(limit, shut_down(nodes)) => {
                if stopped.is_err() {
                    tracing::warn!(seconds = limit.as_secs(), "nodes did not stop in time");
                }
            }
            signal = self.signals.next() => {
                return Err(Failure::other(format!("stopped at once by a second {signal}")));
            }
        }
        self.host.stop().await;
        ended
    }

    async fn until_told(&mut self) -> Result<(), Failure> {
        let failures = self.nodes.iter().map(|node| Box::pin(node.failed()));
        tokio::select! {
            signal = self.signals.next() => {
                tracing::info!(signal, "stopping");
                Ok(())
            }
            failure = self.host.failed() => Err(failure),
            (failure, _, _) = select_all(failures) => {
                tracing::error!(%failure, "the node cannot go on");
                Err(Failure::other(failure))
            }
        }
    }
}

/// The last one started stops first: data nodes hand over while their meta node still answers.
async fn shut_down(nodes: Vec<RunningNode>) {
    for node in nodes.into_iter().rev() {
        node.shutdown().await;
    }
}
