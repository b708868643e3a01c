//! A data node as a component of a process: start, services, shutdown.
//!
//! Start: the node locks and reads the data directory, probes the object store, registers (retrying
//! until a meta node replies), and starts its groups from their logs. Shutdown: the node refuses
//! new calls, transfers the leadership of each led group to another voter, and stops its replicas;
//! it flushes no memtables, since the log keeps their rows.

mod conditions;
mod handover;
mod heartbeat;
mod load_windows;
mod log_growth;

use std::sync::Arc;
use std::time::Duration;

use tidewater_common::backoff::Jitter;
use tidewater_common::clock::{Clock, ClusterClock, SystemClock};
use tidewater_common::feature_level::Release;
use tidewater_common::ids::{ClusterId, Incarnation, NodeId};
use tidewater_proto::v1::{NodeRole, RegisterRequest, RegisterResponse};
use tidewater_raft_store::{
    DataDirectory, DiskHealth, IdentityError, NetworkFactory, RaftHost, RaftService, Role,
};
use tidewater_region_engine::env::{IdSource, SystemIds};
use tidewater_region_engine::hooks::HookHome;
use tidewater_region_engine::storage::{Storage, StoreError};
use tidewater_region_engine::{MemoryBudget, Plugins, env::RegionEnv};
use tidewater_rpc::{AddressBook, MetaLink, RegisterError};
use tidewater_source_kinds::{ExportTargets, SourceKinds};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::service::RoutesBuilder;
use tracing::{info, warn};
use uuid::Uuid;

use crate::barriers::BarrierService;
use crate::catalog::WatchedCatalog;
use crate::compactors::Compactors;
use crate::control::{ControlService, transfer};
use crate::data::DataService;
use crate::durable_hooks::{self, MetaCursorStore};
use crate::exports::ExportService;
use crate::group::replica::GroupReplica;
use crate::group_records::MetaGroupRecords;
use crate::groups::{GroupError, Groups, NodeContext};
use crate::hooks::NodeHooks;
use crate::node_events::NodeEvents;
use crate::options::DataOptions;
use crate::refresh::RefreshService;
use crate::region_admin::RegionAdminService;

/// Time limit for the transfer of one group's leadership.
const TRANSFER_LIMIT: Duration = Duration::from_secs(3);

/// Interval between searches for logs of removed replicas that are no longer kept.
const REMOVED_LOGS_INTERVAL: Duration = Duration::from_secs(600);

/// Error of starting a data node.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The data directory cannot be used.
    #[error(transparent)]
    Directory(#[from] IdentityError),
    /// The object store cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The meta service refuses this node.
    #[error(transparent)]
    Register(#[from] RegisterError),
    /// The meta service's reply is invalid.
    #[error("the meta service replied to the registration with an invalid {0}")]
    InvalidReply(String),
    /// A group found in the data directory cannot be started.
    #[error(transparent)]
    Group(#[from] GroupError),
    /// The runtime is shutting down.
    #[error("start was interrupted: {0}")]
    Interrupted(#[from] tokio::task::JoinError),
}

/// A running data node.
#[derive(Debug)]
pub struct DataNode {
    cluster: ClusterId,
    node: NodeId,
    groups: Arc<Groups>,
    raft_service: RaftService,
    directory: Arc<DataDirectory>,
    source_kinds: SourceKinds,
    export_targets: ExportTargets,
    closing: CancellationToken,
    tasks: TaskTracker,
}

impl DataNode {
    /// Starts a node. `raft_service` serves all nodes of the process: this node is added to it.
    pub async fn start(
        options: DataOptions,
        raft_service: RaftService,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, StartError> {
        // Before the directory: a wrong URL must not leave a directory behind.
        let storage = Storage::start(&options.object_store).await?;
        let mut directory = open_directory(&options).await?;
        let object_store_id = storage.id().await?;
        // Before the registration: the meta service accepts each number from one process only.
        let mut directory =
            tokio::task::spawn_blocking(move || directory.count_start().map(|_| directory))
                .await??;
        let start_id = SystemIds.random();
        let link = MetaLink::new(options.meta.clone(), Jitter::system());
        let request = registration(&options, &directory, object_store_id, start_id);
        let reply = link.register(request).await?;
        let (cluster, node, _incarnation) = identity(&reply)?;
        let clock = ClusterClock::new(clock, Arc::new(SystemClock), options.max_clock_difference);
        let clock = Arc::new(clock);
        clock.record(reply.replicated_ms, reply.clocks_ms);
        let directory = tokio::task::spawn_blocking(move || {
            directory.adopt(cluster, node).map(|_| Arc::new(directory))
        })
        .await??;
        info!(%cluster, %node, "registered");
        let events = NodeEvents::new(
            node,
            options.events.clone(),
            options.event_tables.clone(),
            options.slow_operation,
            Arc::new(SystemClock),
        );
        let plugins = Plugins::with_callback(options.hook_limits, events.clone());
        let home = HookHome { role: "data", node_id: node };
        let hooks = Arc::new(NodeHooks::new(options.hook_kinds.clone(), home, plugins.clone()));
        let env = RegionEnv::new(
            storage,
            clock.clone(),
            Arc::new(SystemIds),
            MemoryBudget::new(options.row_budget()),
            options.engine(),
        )
        .with_plugins(plugins);
        let compactors = Compactors::new(cluster, node, object_store_id, hooks.clone());
        let addresses = Arc::new(AddressBook::new());
        let catalog = Arc::new(WatchedCatalog::default());
        let host = RaftHost::new(cluster, node, directory.log_store().clone());
        host.set_addresses(addresses.clone());
        host.set_records(catalog.clone());
        let groups = Groups::new(NodeContext {
            cluster,
            node,
            directory: directory.clone(),
            host: host.clone(),
            network: NetworkFactory::of_start(cluster, (node, directory.boot()), addresses.clone()),
            env,
            compactors,
            catalog: catalog.clone(),
            cluster_level: Arc::default(),
            records: Arc::new(MetaGroupRecords::new(link.clone(), cluster)),
            events: events.clone(),
            options: options.groups.clone(),
        });
        groups.start_local().await?;
        raft_service.add_host(host);
        let closing = CancellationToken::new();
        let tasks = TaskTracker::new();
        let beats = heartbeat::run(
            groups.clone(),
            hooks.clone(),
            link.clone(),
            options.clone(),
            clock,
            closing.clone(),
        );
        tasks.spawn(beats);
        tasks.spawn(crate::hooks::retry_broken(hooks.clone(), closing.clone()));
        let cursors = MetaCursorStore::new(link.clone(), cluster);
        tasks.spawn(durable_hooks::run(groups.clone(), hooks.clone(), cursors, closing.clone()));
        let stop = closing.clone();
        tasks.spawn(async move {
            tokio::select! {
                () = stop.cancelled() => {}
                () = link.follow_catalog(cluster, &addresses, |event| {
                    events.follow(event);
                    catalog.follow(event);
                    hooks.follow(event);
                }) => {}
            }
        });
        tasks.spawn(delete_expired_logs(groups.clone(), closing.clone()));
        let source_kinds = options.source_kinds.clone();
        let export_targets = options.export_targets.clone();
        Ok(Self {
            cluster,
            node,
            groups,
            raft_service,
            directory,
            source_kinds,
            export_targets,
            closing,
            tasks,
        })
    }

    /// Id of the cluster.
    pub fn cluster_id(&self) -> ClusterId {
        self.cluster
    }

    /// Id of the node, assigned by the meta service.
    pub fn node_id(&self) -> NodeId {
        self.node
    }

    /// Groups of the node.
    pub fn groups(&self) -> &Arc<Groups> {
        &self.groups
    }

    /// Adds `Data`, `GroupControl`, `Barriers`, `RefreshWork`, `ExportWork` and `RegionAdmin`; the process adds `Raft`.
    pub fn add_services(&self, routes: &mut RoutesBuilder) {
        let data = DataService::new(self.groups.clone(), self.closing.clone());
        routes
            .add_service(data.into_server())
            .add_service(ControlService::new(self.groups.clone()).into_server())
            .add_service(BarrierService::new(self.groups.clone()).into_server())
            .add_service(
                RefreshService::new(self.groups.clone(), self.source_kinds.clone()).into_server(),
            )
            .add_service(self.exports().into_server())
            .add_service(RegionAdminService::new(self.groups.clone()).into_server());
    }

    fn exports(&self) -> ExportService {
        let targets = self.export_targets.clone();
        ExportService::new(self.groups.clone(), targets, self.tasks.clone(), self.closing.clone())
    }

    /// Resolves with the reason when the process must exit: a replica or the disk has failed
    /// permanently.
    pub async fn failed(&self) -> String {
        let mut groups = self.groups.failed();
        let mut disk = self.directory.log_store().health();
        let group_failed = async {
            match groups.wait_for(Option::is_some).await {
                Ok(failed) => failed.clone().unwrap_or_default(),
                Err(_) => std::future::pending().await,
            }
        };
        let disk_failed = async {
            match disk.wait_for(|health| matches!(health, DiskHealth::Failed(_))).await {
                Ok(health) => match &*health {
                    DiskHealth::Failed(detail) => format!("the disk has failed: {detail}"),
                    DiskHealth::Ok | DiskHealth::Full => String::new(),
                },
                Err(_) => std::future::pending().await,
            }
        };
        tokio::select! {
            failed = group_failed => failed,
            failed = disk_failed => failed,
        }
    }

    /// Stops the node: refuses new calls, transfers leadership, stops the replicas, closes the log
    /// store.
    pub async fn shutdown(&self) {
        self.closing.cancel();
        let replicas = self.groups.all();
        let transfers = replicas.iter().map(|replica| transfer_leadership(replica));
        futures::future::join_all(transfers).await;
        self.directory.log_store().fail_pending_if_full();
        self.groups.stop_all().await;
        self.raft_service.remove_host(self.node);
        self.tasks.close();
        self.tasks.wait().await;
        let store = self.directory.log_store().clone();
        if let Err(error) = tokio::task::spawn_blocking(move || store.shutdown()).await {
            warn!(%error, "failed to close the log store");
        }
        info!(node = %self.node, "data node stopped");
    }
}

/// Deletes the logs of removed replicas once their time is over.
async fn delete_expired_logs(groups: Arc<Groups>, closing: CancellationToken) {
    let mut ticks = tokio::time::interval(REMOVED_LOGS_INTERVAL);
    loop {
        tokio::select! {
            () = closing.cancelled() => return,
            _ = ticks.tick() => groups.delete_expired_logs().await,
        }
    }
}

/// Transfers the leadership of a led group to the voter with the longest log.
async fn transfer_leadership(replica: &GroupReplica) {
    if !replica.leadership().is_leader {
        return;
    }
    let Some(successor) = replica.successor(&[]) else { return };
    match transfer(replica, successor, TRANSFER_LIMIT).await {
        Ok(()) => info!(group = %replica.group(), to = %successor, "leadership transferred"),
        Err(problem) => {
            warn!(group = %replica.group(), to = %successor, %problem, "leadership transfer failed");
        }
    }
}

async fn open_directory(options: &DataOptions) -> Result<DataDirectory, StartError> {
    let path = options.data_dir.clone();
    let log_store = options.log_store();
    let opened =
        tokio::task::spawn_blocking(move || DataDirectory::open(path, Role::Data, log_store));
    Ok(opened.await??)
}

fn registration(
    options: &DataOptions,
    directory: &DataDirectory,
    object_store_id: Uuid,
    start_id: Uuid,
) -> RegisterRequest {
    let identity = directory.identity();
    RegisterRequest {
        directory_id: directory.directory_id().to_string(),
        role: NodeRole::Data.into(),
        address: options.advertise.clone(),
        cluster_id: identity
            .as_ref()
            .map(|identity| identity.cluster_id.to_string())
            .unwrap_or_default(),
        node_id: identity.map_or(0, |identity| identity.node_id.get()),
        object_store_id: object_store_id.to_string(),
        boot: directory.boot().get(),
        start_id: start_id.to_string(),
        release: Some((&Release::own()).into()),
    }
}

fn identity(reply: &RegisterResponse) -> Result<(ClusterId, NodeId, Incarnation), StartError> {
    let cluster = reply
        .cluster_id
        .parse()
        .map_err(|_| StartError::InvalidReply(format!("cluster id {:?}", reply.cluster_id)))?;
    if reply.node_id == 0 {
        return Err(StartError::InvalidReply("node id 0".to_owned()));
    }
    Ok((cluster, NodeId(reply.node_id), Incarnation(reply.incarnation)))
}
