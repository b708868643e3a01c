//! A data node without storage: it registers, sends heartbeats, watches the catalog, lists cursors of
//! durable hooks, and serves its calls from the [`StubWorld`].

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use tidewater_common::backoff::Jitter;
use tidewater_common::feature_level::Release;
use tidewater_common::ids::NodeId;
use tidewater_proto::v1::barriers_server::BarriersServer;
use tidewater_proto::v1::data_server::DataServer;
use tidewater_proto::v1::group_control_server::GroupControlServer;
use tidewater_proto::v1::region_admin_server::RegionAdminServer;
use tidewater_proto::v1::{NodeRole, RegisterRequest, RegisterResponse};
use tidewater_rpc::{ConnectPolicy, MetaLink};
use tokio::net::TcpListener;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tonic::transport::Server;
use uuid::Uuid;

use super::cursors;
use super::listener::accept;
use super::node_core::{Condition, NodeCore};
use super::services::{BarrierService, ControlService, DataService, RegionService};
use super::world::StubWorld;
use crate::{HarnessError, Result};

/// A data node without storage.
#[derive(Debug)]
pub struct StubDataNode {
    core: Arc<NodeCore>,
    /// Id of the data directory that a data node would have.
    directory: Uuid,
    dead: CancellationToken,
}

impl StubDataNode {
    /// Registers a new node at an address and runs it. `source`: local address of its connections to the meta
    /// nodes.
    pub(super) async fn start(
        world: Arc<StubWorld>,
        metas: &[String],
        listener: TcpListener,
        source: IpAddr,
    ) -> Result<Self> {
        let address = listener.local_addr().map_err(HarnessError::io("read an address"))?;
        let policy = ConnectPolicy { source: Some(source), ..ConnectPolicy::META };
        let link = MetaLink::with_policy(metas.iter().cloned(), Jitter::system(), policy);
        let directory = Uuid::new_v4();
        let reply = register(&link, &world, directory, address, None).await?;
        let cluster = reply.cluster_id.parse().map_err(|_| {
            HarnessError::violated(format!("registered in cluster {:?}", reply.cluster_id))
        })?;
        let node = NodeId(reply.node_id);
        let core = Arc::new(NodeCore::new(world, (cluster, node), link, address));
        let dead = run(&core, listener);
        Ok(Self { core, directory, dead })
    }

    /// Id of the node.
    pub fn id(&self) -> NodeId {
        self.core.node
    }

    /// Address of the node.
    pub fn address(&self) -> SocketAddr {
        self.core.address
    }

    /// Revision of the catalog that the node has received last.
    pub fn revision(&self) -> u64 {
        self.core.revision()
    }

    /// Returns whether the meta service has accepted a heartbeat after a time, and the catalog watch has had
    /// an event since then, and the node has the revision.
    pub fn is_served(&self, since: Instant, revision: u64) -> bool {
        self.core.is_served(since) && self.revision() >= revision
    }

    /// Returns whether the node runs.
    pub fn is_running(&self) -> bool {
        self.core.condition() == Condition::Running
    }

    /// Returns whether the node was killed and not restarted.
    pub fn is_dead(&self) -> bool {
        self.core.condition() == Condition::Dead
    }

    /// Ends the node as SIGKILL does. Its groups keep their state.
    pub(super) fn kill(&self) {
        self.core.set(Condition::Dead);
        self.dead.cancel();
    }

    /// Freezes the node as SIGSTOP does, except that its connections still answer pings.
    pub(super) fn freeze(&self) {
        if self.is_running() {
            self.core.set(Condition::Frozen);
        }
    }

    /// Continues the frozen node.
    pub(super) fn thaw(&self) {
        if self.core.condition() == Condition::Frozen {
            self.core.set(Condition::Running);
        }
    }

    /// Runs the dead node again, at its address and with its id.
    pub(super) async fn restart(&mut self) -> Result<()> {
        let core = &self.core;
        let listener = TcpListener::bind(core.address)
            .await
            .map_err(HarnessError::io(format!("listen on {}", core.address)))?;
        register(&core.link, &core.world, self.directory, core.address, Some(core)).await?;
        core.forget_catalog();
        self.dead = run(&self.core, listener);
        Ok(())
    }
}

impl Drop for StubDataNode {
    fn drop(&mut self) {
        self.kill();
    }
}

async fn register(
    link: &MetaLink,
    world: &StubWorld,
    directory: Uuid,
    address: SocketAddr,
    known: Option<&NodeCore>,
) -> Result<RegisterResponse> {
    let request = RegisterRequest {
        directory_id: directory.to_string(),
        role: NodeRole::Data.into(),
        address: address.to_string(),
        cluster_id: known.map(|known| known.cluster.to_string()).unwrap_or_default(),
        node_id: known.map_or(0, |known| known.node.get()),
        object_store_id: world.object_store.to_string(),
        release: Some((&Release::own()).into()),
        ..RegisterRequest::default()
    };
    let registered = link.register(request).await;
    registered.map_err(|error| HarnessError::violated(format!("register a stub node: {error}")))
}

/// Starts the tasks of a node; they end with the token.
fn run(core: &Arc<NodeCore>, listener: TcpListener) -> CancellationToken {
    core.set(Condition::Running);
    let dead = CancellationToken::new();
    let server = Server::builder()
        .add_service(GroupControlServer::new(ControlService { node: core.clone() }))
        .add_service(BarriersServer::new(BarrierService { node: core.clone() }))
        .add_service(DataServer::new(DataService { node: core.clone() }))
        .add_service(RegionAdminServer::new(RegionService { node: core.clone() }))
        .serve_with_incoming(accept(listener, dead.clone()));
    let ends = dead.clone();
    tokio::spawn(async move {
        tokio::select! {
            () = ends.cancelled() => {}
            // Connections have their own tasks, which end with the token, too.
            _ = server => {}
        }
    });
    let ends = dead.clone();
    let core = core.clone();
    tokio::spawn(async move {
        let work = async {
            tokio::join!(
                core.while_running(core.send_heartbeats()),
                core.while_running(core.watch_catalog()),
                core.while_running(cursors::follow(&core)),
            )
        };
        tokio::select! {
            () = ends.cancelled() => {}
            _ = Box::pin(work) => {}
        }
    });
    dead
}
