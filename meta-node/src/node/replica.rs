//! This node's replica of group 0 and its tasks.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use openraft::errors::{InitializeError, RaftError};
use tidewater_common::clock::Clock;
use tidewater_common::ids::{GroupId, NodeId};
use tidewater_raft_store::{
    GroupKind, Identity, LogStore, Member, NetworkFactory, Raft, RaftHost, RaftService, raft_config,
};
use tidewater_rpc::AddressBook;
use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::{MetaError, MetaOptions};
use crate::feed::CatalogFeed;
use crate::group::MetaGroup;
use crate::join::MetaPeers;
use crate::leader::problems::{ProblemWatch, probe_nodes};
use crate::leader::{
    Control, GarbageOptions, LeaderEvents, LeaderTiming, Observations, PlacementOptions,
    watch_leadership,
};
use crate::machine::{MetaMachine, SnapshotPressure};
use crate::services::RunningReplica;

/// Interval of the checks whether a snapshot is due.
const SNAPSHOT_CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// A running replica.
#[derive(Debug)]
pub(crate) struct MetaReplica {
    running: RunningReplica,
    store: Arc<LogStore>,
    raft_service: RaftService,
    leadership: JoinHandle<()>,
    // Stops the leader tasks when the replica is dropped for any reason.
    stop: DropGuard,
}

impl MetaReplica {
    pub(super) async fn start(
        identity: Identity,
        options: &MetaOptions,
        store: Arc<LogStore>,
        snapshots: PathBuf,
        host: Arc<RaftHost>,
        raft_service: &RaftService,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, MetaError> {
        let log = Arc::clone(&store);
        let snapshot_dir = snapshots.clone();
        let opened =
            tokio::task::spawn_blocking(move || MetaMachine::open(log, snapshot_dir)).await;
        let machine = opened.map_err(|error| MetaError::Task(error.to_string()))??;
        let view = machine.view();
        let comparison = machine.comparison();
        let pressure = machine.pressure();
        let recent = machine.recent_events();
        let addresses = Arc::new(AddressBook::new());
        let network =
            NetworkFactory::new(identity.cluster_id, identity.node_id, Arc::clone(&addresses));
        let network = network.group(GroupId::META);
        let confirmations = Arc::clone(network.confirmations());
        let raft: Raft<MetaMachine> = openraft::Raft::new(
            identity.node_id.get(),
            raft_config(GroupKind::Meta),
            network,
            store.group(GroupId::META),
            machine,
        )
        .await
        .map_err(|fatal| MetaError::Raft(fatal.to_string()))?;
        host.set_addresses(Arc::clone(&addresses));
        host.add(GroupId::META, Arc::new(raft.clone()), &snapshots);
        raft_service.add_host(Arc::clone(&host));
        let group = Arc::new(MetaGroup {
            cluster_id: identity.cluster_id,
            node_id: identity.node_id,
            raft,
            confirmations,
            view: view.clone(),
            health: store.health(),
            addresses,
            clock,
            max_clock_difference: options.max_clock_difference,
            max_level: options.max_level,
            comparison,
            joining: tokio::sync::Mutex::default(),
            timestamps: parking_lot::Mutex::default(),
        });
        let control = Arc::new(Control::new(identity.cluster_id, identity.node_id, view));
        let feed = Arc::new(CatalogFeed::new(group.view.clone()));
        let observations = Arc::new(Observations::default());
        let stop = CancellationToken::new();
        let garbage = GarbageOptions { interval: options.gc_every, retention: options.retention() };
        let placement = PlacementOptions {
            settle: options.settle,
            replace_after: options.replace_after,
            groups_per_node: options.groups_per_node,
        };
        let timing =
            LeaderTiming::new(options.failure_timeout, placement, garbage, options.barriers);
        let events = LeaderEvents { recorder: Arc::clone(&options.events), recent };
        let leadership = tokio::spawn(watch_leadership(
            Arc::clone(&group),
            Arc::clone(&control),
            Arc::clone(&observations),
            timing,
            events,
            host,
            stop.clone(),
        ));
        let problems = Arc::new(ProblemWatch {
            group: Arc::clone(&group),
            observations: Arc::clone(&observations),
            of_process: options.problems.clone(),
            failure_timeout: options.failure_timeout,
        });
        tokio::spawn(trigger_snapshots(Arc::clone(&group), pressure, stop.clone()));
        tokio::spawn(Arc::clone(&problems).run(stop.clone()));
        tokio::spawn(probe_nodes(Arc::clone(&problems), stop.clone()));
        let running = RunningReplica { group, feed, control, observations, problems };
        let raft_service = raft_service.clone();
        Ok(Self { running, store, raft_service, leadership, stop: stop.drop_guard() })
    }

    pub(super) fn running(&self) -> RunningReplica {
        self.running.clone()
    }

    /// Writes the first membership, unless the group already has one.
    pub(super) async fn initialize(&self, peers: &MetaPeers) -> Result<(), MetaError> {
        let members: BTreeMap<u64, Member> =
            peers.iter().map(|(id, address)| (id.get(), Member::new(address.clone()))).collect();
        match self.running.group.raft.initialize(members).await {
            Ok(()) | Err(RaftError::APIError(InitializeError::NotAllowed(_))) => Ok(()),
            Err(error) => Err(MetaError::Raft(error.to_string())),
        }
    }

    /// Transfers leadership, for at most `transfer_timeout`, then stops the replica and its tasks.
    pub(super) async fn stop(self, transfer_timeout: Duration) {
        self.transfer_leadership(transfer_timeout).await;
        drop(self.stop);
        self.store.fail_pending_if_full();
        let group = &self.running.group;
        if let Err(error) = group.raft.shutdown().await {
            tracing::warn!(%error, "failed to stop the meta group cleanly");
        }
        self.raft_service.remove_host(group.node_id);
        // Ends with the token. A panic in the task has already been reported.
        let _ = self.leadership.await;
        let store = self.store;
        let _ = tokio::task::spawn_blocking(move || store.shutdown()).await;
    }

    /// Transfers leadership to the voter with the longest log.
    async fn transfer_leadership(&self, limit: Duration) {
        let group = &self.running.group;
        if group.leading().is_none() {
            return;
        }
        let members = group.members().members;
        let best = members
            .iter()
            .filter(|member| member.voter && member.node_id != group.node_id.get())
            .max_by_key(|member| member.matched_index);
        let Some(best) = best else { return };
        let to = NodeId(best.node_id);
        match tokio::time::timeout(limit, group.transfer_to(to)).await {
            Ok(Ok(())) => tracing::info!(%to, "leadership of the meta group transferred"),
            Ok(Err(error)) => {
                tracing::warn!(%to, %error, "failed to transfer leadership of the meta group")
            }
            Err(_) => tracing::warn!(%to, "transfer of leadership of the meta group timed out"),
        }
    }
}

/// Triggers a snapshot whenever one is due, until `stop`.
async fn trigger_snapshots(
    group: Arc<MetaGroup>,
    pressure: Arc<SnapshotPressure>,
    stop: CancellationToken,
) {
    let mut ticks = interval(SNAPSHOT_CHECK_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = ticks.tick() => {}
        }
        // Fails only when Raft has stopped, of which `monitor` learns.
        if pressure.is_due()
            && let Err(error) = group.raft.trigger().snapshot().await
        {
            tracing::debug!(%error, "failed to trigger a snapshot of the catalog");
        }
    }
}
