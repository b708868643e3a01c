//! Calls to data nodes, with one connection for each address and a deadline for each call.

use std::collections::BTreeMap;
use std::time::Duration;

use parking_lot::Mutex;
use tidewater_common::ids::{ClusterId, LogIndex, NodeId, Term};
use tidewater_common::refusal::Refusal;
use tidewater_proto::v1::group_control_client::GroupControlClient;
use tidewater_proto::v1::region_admin_client::RegionAdminClient;
use tidewater_proto::v1::{self, CallHeader, Reason};
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Response, Status, Streaming};

use crate::machine::CatalogView;

/// Deadline of a call. Starting a replica opens files; opening a region reads a manifest.
const CALL_DEADLINE: Duration = Duration::from_secs(10);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// Client for calls to data nodes, addressed by node id.
#[derive(Debug)]
pub(crate) struct Control {
    cluster_id: ClusterId,
    source: NodeId,
    view: CatalogView,
    channels: Mutex<BTreeMap<String, Channel>>,
}

type GroupClient = GroupControlClient<Channel>;

impl Control {
    pub(crate) fn new(cluster_id: ClusterId, source: NodeId, view: CatalogView) -> Self {
        Self { cluster_id, source, view, channels: Mutex::default() }
    }

    pub(crate) async fn start_group(
        &self,
        node: NodeId,
        request: v1::StartGroupRequest,
    ) -> Result<(), Refusal> {
        let request = v1::StartGroupRequest { header: self.header(node), ..request };
        self.call(node, request, async |mut to, ask| to.start_group(ask).await).await.map(drop)
    }

    pub(crate) async fn change_membership(
        &self,
        node: NodeId,
        request: v1::ChangeMembershipRequest,
    ) -> Result<v1::ChangeMembershipResponse, Refusal> {
        let request = v1::ChangeMembershipRequest { header: self.header(node), ..request };
        self.call(node, request, async |mut to, ask| to.change_membership(ask).await).await
    }

    pub(crate) async fn transfer_leader(
        &self,
        node: NodeId,
        request: v1::TransferLeaderRequest,
    ) -> Result<(), Refusal> {
        let request = v1::TransferLeaderRequest { header: self.header(node), ..request };
        self.call(node, request, async |mut to, ask| to.transfer_leader(ask).await).await.map(drop)
    }

    pub(crate) async fn stop_replica(
        &self,
        node: NodeId,
        group_id: u64,
        (term, index): (Term, LogIndex),
    ) -> Result<(), Refusal> {
        let request = v1::StopReplicaRequest {
            header: self.header(node),
            group_id,
            membership_term: term.get(),
            membership_index: index.get(),
        };
        self.call(node, request, async |mut to, ask| to.stop_replica(ask).await).await.map(drop)
    }

    pub(crate) async fn open_region(
        &self,
        node: NodeId,
        request: v1::OpenRegionRequest,
    ) -> Result<(), Refusal> {
        let request = v1::OpenRegionRequest { header: self.header(node), ..request };
        self.call(node, request, async |mut to, ask| to.open_region(ask).await).await.map(drop)
    }

    pub(crate) async fn alter_region(
        &self,
        node: NodeId,
        request: v1::AlterRegionRequest,
    ) -> Result<(), Refusal> {
        let request = v1::AlterRegionRequest { header: self.header(node), ..request };
        self.call(node, request, async |mut to, ask| to.alter_region(ask).await).await.map(drop)
    }

    pub(crate) async fn truncate_region(
        &self,
        node: NodeId,
        request: v1::TruncateRegionRequest,
    ) -> Result<(), Refusal> {
        let request = v1::TruncateRegionRequest { header: self.header(node), ..request };
        self.call(node, request, async |mut to, ask| to.truncate_region(ask).await).await.map(drop)
    }

    pub(crate) async fn open_area(
        &self,
        node: NodeId,
        request: v1::OpenAreaRequest,
    ) -> Result<(), Refusal> {
        let request = v1::OpenAreaRequest { header: self.header(node), ..request };
        self.call(node, request, async |mut to, ask| to.open_area(ask).await).await.map(drop)
    }

    pub(crate) async fn close_area(
        &self,
        node: NodeId,
        request: v1::CloseAreaRequest,
    ) -> Result<(), Refusal> {
        let request = v1::CloseAreaRequest { header: self.header(node), ..request };
        self.call(node, request, async |mut to, ask| to.close_area(ask).await).await.map(drop)
    }

    pub(crate) async fn copy_region(
        &self,
        node: NodeId,
        request: v1::CopyRegionRequest,
    ) -> Result<(), Refusal> {
        let request = v1::CopyRegionRequest { header: self.header(node), ..request };
        self.call(node, request, async |mut to, ask| to.copy_region(ask).await).await.map(drop)
    }

    /// Flushes a region. A flush that exceeds the deadline continues on the data node; a retry finds it
    /// completed.
    pub(crate) async fn flush_region(
        &self,
        node: NodeId,
        request: v1::FlushRegionRequest,
    ) -> Result<v1::FlushRegionResponse, Refusal> {
        let mut client = RegionAdminClient::new(self.channel(&self.address(node)?)?);
        match tokio::time::timeout(CALL_DEADLINE, client.flush_region(request)).await {
            Ok(Ok(response)) => Ok(response.into_inner()),
            Ok(Err(status)) => Err(Refusal::from_status(&status)),
            Err(_) => Err(late(node)),
        }
    }

    pub(crate) async fn drop_region(
        &self,
        node: NodeId,
        request: v1::DropRegionRequest,
    ) -> Result<(), Refusal> {
        let request = v1::DropRegionRequest { header: self.header(node), ..request };
        self.call(node, request, async |mut to, ask| to.drop_region(ask).await).await.map(drop)
    }

    /// Starts a garbage collection pass. The pass has no deadline: its last event reports the end.
    pub(crate) async fn sweep(
        &self,
        node: NodeId,
        request: v1::SweepStoreRequest,
    ) -> Result<Streaming<v1::GarbageEvent>, Refusal> {
        let request = v1::SweepStoreRequest { header: self.header(node), ..request };
        let mut client = RegionAdminClient::new(self.channel(&self.address(node)?)?);
        match tokio::time::timeout(CALL_DEADLINE, client.sweep_store(request)).await {
            Ok(Ok(response)) => Ok(response.into_inner()),
            Ok(Err(status)) => Err(Refusal::from_status(&status)),
            Err(_) => Err(late(node)),
        }
    }

    /// Sends one call, with the deadline.
    async fn call<Q, A>(
        &self,
        node: NodeId,
        request: Q,
        send: impl AsyncFnOnce(GroupClient, Request<Q>) -> Result<Response<A>, Status>,
    ) -> Result<A, Refusal> {
        let client = self.client(node)?;
        let mut request = Request::new(request);
        // The data node then stops at the deadline, too.
        request.set_timeout(CALL_DEADLINE);
        match tokio::time::timeout(CALL_DEADLINE, send(client, request)).await {
            Ok(Ok(response)) => Ok(response.into_inner()),
            Ok(Err(status)) => Err(Refusal::from_status(&status)),
            Err(_) => Err(late(node)),
        }
    }

    fn header(&self, target: NodeId) -> Option<CallHeader> {
        Some(CallHeader {
            cluster_id: self.cluster_id.to_string(),
            source_node: self.source.get(),
            target_node: target.get(),
            catalog_revision: self.view.read().header().revision.get(),
        })
    }

    fn client(&self, node: NodeId) -> Result<GroupClient, Refusal> {
        Ok(GroupControlClient::new(self.channel(&self.address(node)?)?))
    }

    fn address(&self, node: NodeId) -> Result<String, Refusal> {
        let address = self.view.read().node(node).map(|node| node.address.clone());
        address.ok_or_else(|| {
            Refusal::new(Reason::NodeNotFound, format!("node {node} does not exist"))
        })
    }

    fn channel(&self, address: &str) -> Result<Channel, Refusal> {
        let mut channels = self.channels.lock();
        if let Some(channel) = channels.get(address) {
            return Ok(channel.clone());
        }
        let channel = connect_lazily(address)?;
        // Entries of removed nodes are never deleted: clear the cache when it is large.
        if channels.len() >= 1_024 {
            channels.clear();
        }
        channels.insert(address.to_owned(), channel.clone());
        Ok(channel)
    }
}

fn late(node: NodeId) -> Refusal {
    Refusal::new(
        Reason::DeadlineExceeded,
        format!("node {node} did not answer within {} s", CALL_DEADLINE.as_secs()),
    )
}

/// Returns a channel that connects at the first call, and reconnects when the connection breaks.
pub(crate) fn connect_lazily(address: &str) -> Result<Channel, Refusal> {
    let endpoint = Endpoint::from_shared(format!("http://{address}")).map_err(|error| {
        Refusal::new(Reason::InvalidArgument, format!("{address:?} is not an address: {error}"))
    })?;
    Ok(endpoint
        .connect_timeout(CONNECT_TIMEOUT)
        .timeout(CALL_DEADLINE)
        .tcp_nodelay(true)
        .http2_keep_alive_interval(Duration::from_secs(10))
        .keep_alive_timeout(Duration::from_secs(5))
        .connect_lazy())
}
