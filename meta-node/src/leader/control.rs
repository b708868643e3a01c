//! Calls to data nodes, with one connection for each address and a deadline for each call.

mod exports;
mod refresh;

use std::time::Duration;

use tidewater_common::agreed_limits::REGION_STATE_BYTES;
use tidewater_common::header::CallSender;
use tidewater_common::ids::{ClusterId, LogIndex, NodeId, Term};
use tidewater_common::refusal::Refusal;
use tidewater_proto::v1::barriers_client::BarriersClient;
use tidewater_proto::v1::group_control_client::GroupControlClient;
use tidewater_proto::v1::region_admin_client::RegionAdminClient;
use tidewater_proto::v1::{self, CallHeader, Reason};
use tidewater_rpc::{Channels, ConnectPolicy, attempt, timed};
use tonic::transport::Channel;
use tonic::{Request, Response, Status, Streaming};

use crate::machine::CatalogView;

/// Deadline of a call. Starting a replica opens files; opening a region reads a manifest.
const CALL_DEADLINE: Duration = Duration::from_secs(10);
/// Deadline of a barrier: the data node reports groups that have not applied it.
const BARRIER_DEADLINE: Duration = Duration::from_secs(2);
/// Largest list of the regions of a node, in bytes: about 300,000 regions.
const LISTED_REGIONS_BYTES: usize = 64 << 20;

/// Client for calls to data nodes, addressed by node id.
#[derive(Debug)]
pub(crate) struct Control {
    sender: CallSender,
    view: CatalogView,
    channels: Channels,
}

type GroupClient = GroupControlClient<Channel>;

impl Control {
    pub(crate) fn new(cluster_id: ClusterId, source: NodeId, view: CatalogView) -> Self {
        let sender = CallSender { cluster: cluster_id, node: source };
        Self { sender, view, channels: Channels::new(ConnectPolicy::CONTROL) }
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
        let mut client = RegionAdminClient::new(self.channel(node)?);
        Ok(attempt(target(node), CALL_DEADLINE, client.flush_region(request)).await?)
    }

    pub(crate) async fn hold_region(
        &self,
        node: NodeId,
        request: v1::HoldRegionRequest,
    ) -> Result<(), Refusal> {
        let request = v1::HoldRegionRequest { header: self.header(node), ..request };
        self.call(node, request, async |mut to, ask| to.hold_region(ask).await).await.map(drop)
    }

    pub(crate) async fn split_region(
        &self,
        node: NodeId,
        request: v1::SplitRegionRequest,
    ) -> Result<(), Refusal> {
        let request = v1::SplitRegionRequest { header: self.header(node), ..request };
        self.call(node, request, async |mut to, ask| to.split_region(ask).await).await.map(drop)
    }

    pub(crate) async fn merge_regions(
        &self,
        node: NodeId,
        request: v1::MergeRegionsRequest,
    ) -> Result<(), Refusal> {
        let request = v1::MergeRegionsRequest { header: self.header(node), ..request };
        self.call(node, request, async |mut to, ask| to.merge_regions(ask).await).await.map(drop)
    }

    pub(crate) async fn prepare_region(
        &self,
        node: NodeId,
        request: v1::PrepareRegionRequest,
    ) -> Result<(), Refusal> {
        let request = v1::PrepareRegionRequest { header: self.header(node), ..request };
        self.call(node, request, async |mut to, ask| to.prepare_region(ask).await).await.map(drop)
    }

    pub(crate) async fn receive_region(
        &self,
        node: NodeId,
        request: v1::ReceiveRegionRequest,
    ) -> Result<(), Refusal> {
        let request = v1::ReceiveRegionRequest { header: self.header(node), ..request };
        self.call(node, request, async |mut to, ask| to.receive_region(ask).await).await.map(drop)
    }

    pub(crate) async fn release_region(
        &self,
        node: NodeId,
        request: v1::ReleaseRegionRequest,
    ) -> Result<(), Refusal> {
        let request = v1::ReleaseRegionRequest { header: self.header(node), ..request };
        self.call(node, request, async |mut to, ask| to.release_region(ask).await).await.map(drop)
    }

    pub(crate) async fn activate_region(
        &self,
        node: NodeId,
        request: v1::ActivateRegionRequest,
    ) -> Result<(), Refusal> {
        let request = v1::ActivateRegionRequest { header: self.header(node), ..request };
        self.call(node, request, async |mut to, ask| to.activate_region(ask).await).await.map(drop)
    }

    pub(crate) async fn get_departing_region(
        &self,
        node: NodeId,
        request: v1::GetDepartingRegionRequest,
    ) -> Result<v1::GetDepartingRegionResponse, Refusal> {
        let request = v1::GetDepartingRegionRequest { header: self.header(node), ..request };
        self.call(node, request, async |mut to, ask| to.get_departing_region(ask).await).await
    }

    pub(crate) async fn close_region(
        &self,
        node: NodeId,
        request: v1::CloseRegionRequest,
    ) -> Result<(), Refusal> {
        let request = v1::CloseRegionRequest { header: self.header(node), ..request };
        self.call(node, request, async |mut to, ask| to.close_region(ask).await).await.map(drop)
    }

    pub(crate) async fn drop_region(
        &self,
        node: NodeId,
        request: v1::DropRegionRequest,
    ) -> Result<(), Refusal> {
        let request = v1::DropRegionRequest { header: self.header(node), ..request };
        self.call(node, request, async |mut to, ask| to.drop_region(ask).await).await.map(drop)
    }

    /// Begins an epoch in the groups that a node leads.
    pub(crate) async fn inject_barrier(
        &self,
        node: NodeId,
        request: v1::InjectBarrierRequest,
    ) -> Result<v1::InjectBarrierResponse, Refusal> {
        let request = v1::InjectBarrierRequest { header: self.header(node), ..request };
        let mut client = BarriersClient::new(self.channel(node)?);
        let request = timed(request, BARRIER_DEADLINE);
        Ok(attempt(target(node), BARRIER_DEADLINE, client.inject_barrier(request)).await?)
    }

    /// Starts a garbage collection pass. The pass has no deadline: its last event reports the end.
    pub(crate) async fn sweep(
        &self,
        node: NodeId,
        request: v1::SweepStoreRequest,
    ) -> Result<Streaming<v1::GarbageEvent>, Refusal> {
        let request = v1::SweepStoreRequest { header: self.header(node), ..request };
        let mut client = RegionAdminClient::new(self.channel(node)?);
        Ok(attempt(target(node), CALL_DEADLINE, client.sweep_store(request)).await?)
    }

    /// Lists the regions of the replicas on a node.
    pub(crate) async fn list_regions(&self, node: NodeId) -> Result<Vec<v1::RegionInfo>, Refusal> {
        let mut client = RegionAdminClient::new(self.channel(node)?)
            .max_decoding_message_size(LISTED_REGIONS_BYTES);
        let request =
            v1::ListRegionsRequest { include_followers: true, ..v1::ListRegionsRequest::default() };
        let listed = attempt(target(node), CALL_DEADLINE, client.list_regions(request)).await?;
        Ok(listed.regions)
    }

    /// Lists the regions of a table that a node leads, as leader that has confirmed it.
    pub(crate) async fn led_regions(
        &self,
        node: NodeId,
        table: &str,
    ) -> Result<Vec<v1::RegionInfo>, Refusal> {
        let mut client = RegionAdminClient::new(self.channel(node)?)
            .max_decoding_message_size(LISTED_REGIONS_BYTES);
        let request = v1::ListRegionsRequest {
            table: Some(table.to_owned()),
            confirmed: true,
            ..v1::ListRegionsRequest::default()
        };
        let listed = attempt(target(node), CALL_DEADLINE, client.list_regions(request)).await?;
        Ok(listed.regions)
    }

    /// Sends one call, with the deadline.
    async fn call<Q, A>(
        &self,
        node: NodeId,
        request: Q,
        send: impl AsyncFnOnce(GroupClient, Request<Q>) -> Result<Response<A>, Status>,
    ) -> Result<A, Refusal> {
        let client = GroupControlClient::new(self.channel(node)?)
            .max_decoding_message_size(REGION_STATE_BYTES)
            .max_encoding_message_size(REGION_STATE_BYTES);
        let request = timed(request, CALL_DEADLINE);
        Ok(attempt(target(node), CALL_DEADLINE, send(client, request)).await?)
    }

    fn header(&self, target: NodeId) -> Option<CallHeader> {
        let catalog_revision = self.view.read().header().revision.get();
        Some(CallHeader { catalog_revision, ..self.sender.header(target) })
    }

    fn channel(&self, node: NodeId) -> Result<Channel, Refusal> {
        let address = self.view.read().node(node).map(|node| node.address.clone());
        let address = address.ok_or_else(|| {
            Refusal::new(Reason::NodeNotFound, format!("node {node} does not exist"))
        })?;
        self.channels.to(&address)
    }
}

fn target(node: NodeId) -> String {
    format!("node {node}")
}
