//! Raw calls to one node, in the name of any other.

use std::net::SocketAddr;

use futures::stream;
use tidewater_cluster_tests::direct::RegionRef;
use tidewater_cluster_tests::{HarnessError, Result};
use tidewater_common::feature_level::Release;
use tidewater_common::refusal::Refusal;
use tidewater_proto::v1::change_membership_request::Change;
use tidewater_proto::v1::group_control_client::GroupControlClient;
use tidewater_proto::v1::hook_cursors_client::HookCursorsClient;
use tidewater_proto::v1::meta_client::MetaClient;
use tidewater_proto::v1::raft_client::RaftClient;
use tidewater_proto::v1::region_admin_client::RegionAdminClient;
use tidewater_proto::v1::*;
use tonic::Status;
use tonic::transport::{Channel, Endpoint};

/// A connection to a node, by which calls of other nodes are forged.
pub(super) struct Forger {
    pub(super) channel: Channel,
    cluster_id: String,
    /// Address of the node that is called.
    pub(super) address: SocketAddr,
    /// Its id.
    pub(super) id: u64,
}

impl Forger {
    pub(super) async fn new(address: SocketAddr, cluster_id: &str, id: u64) -> Result<Self> {
        let endpoint = Endpoint::from_shared(format!("http://{address}"))
            .map_err(|error| HarnessError::violated(format!("address {address}: {error}")))?
            .timeout(super::target::DEADLINE);
        let channel = endpoint
            .connect()
            .await
            .map_err(|error| HarnessError::violated(format!("{address}: {error}")))?;
        Ok(Self { channel, cluster_id: cluster_id.to_owned(), address, id })
    }

    fn raft(&self) -> RaftClient<Channel> {
        RaftClient::new(self.channel.clone())
    }

    fn control(&self) -> GroupControlClient<Channel> {
        GroupControlClient::new(self.channel.clone())
    }

    fn raft_header(&self, group_id: u64, source_node: u64) -> Option<RaftHeader> {
        let cluster_id = self.cluster_id.clone();
        let target_node = self.id;
        Some(RaftHeader { cluster_id, source_node, target_node, group_id, source_boot: 0 })
    }

    pub(super) fn header(&self) -> Option<CallHeader> {
        Some(CallHeader {
            cluster_id: self.cluster_id.clone(),
            source_node: 1,
            target_node: self.id,
            catalog_revision: 0,
        })
    }

    pub(super) async fn vote(
        &self,
        group: u64,
        candidate: u64,
        term: u64,
        leadership_transfer: bool,
    ) -> Result<VoteResponse, Status> {
        let request = self.candidacy(group, candidate, term, leadership_transfer);
        Ok(self.raft().vote(request).await?.into_inner())
    }

    pub(super) async fn pre_vote(
        &self,
        group: u64,
        candidate: u64,
        term: u64,
    ) -> Result<VoteResponse, Status> {
        let request = self.candidacy(group, candidate, term, false);
        Ok(self.raft().pre_vote(request).await?.into_inner())
    }

    fn candidacy(
        &self,
        group: u64,
        candidate: u64,
        term: u64,
        leadership_transfer: bool,
    ) -> VoteRequest {
        VoteRequest {
            header: self.raft_header(group, candidate),
            vote: Some(RaftVote { term, node_id: candidate, committed: false }),
            last_log_id: Some(RaftLogId { term: term.min(1 << 60), index: 1 << 40 }),
            leadership_transfer,
        }
    }

    /// Sends an append of the leader `(term, node)` with empty commands at these indexes.
    pub(super) async fn append(
        &self,
        group: u64,
        source: u64,
        leader: (u64, u64),
        indexes: Vec<u64>,
    ) -> Result<AppendEntriesResponse, Status> {
        let entry = |index| RaftEntry {
            log_id: Some(RaftLogId { term: leader.0, index }),
            payload: Some(raft_entry::Payload::Command(Vec::new().into())),
        };
        self.append_entries(group, source, leader, indexes.into_iter().map(entry).collect()).await
    }

    /// Sends an append with a command of a kind that does not exist.
    pub(super) async fn append_unknown_kind(
        &self,
        group: u64,
        leader: u64,
        term: u64,
    ) -> Result<AppendEntriesResponse, Status> {
        let command = vec![0xfa, 0x01, 0x00].into();
        let entry = RaftEntry {
            log_id: Some(RaftLogId { term, index: 0 }),
            payload: Some(raft_entry::Payload::Command(command)),
        };
        self.append_entries(group, leader, (term, leader), vec![entry]).await
    }

    async fn append_entries(
        &self,
        group: u64,
        source: u64,
        (term, node_id): (u64, u64),
        entries: Vec<RaftEntry>,
    ) -> Result<AppendEntriesResponse, Status> {
        let hello = AppendEntriesRequest {
            header: self.raft_header(group, source),
            ..AppendEntriesRequest::default()
        };
        let request = AppendEntriesRequest {
            vote: Some(RaftVote { term, node_id, committed: true }),
            entries,
            ..AppendEntriesRequest::default()
        };
        let mut answers =
            self.raft().append_entries(stream::iter([hello, request])).await?.into_inner();
        answers.message().await?.ok_or_else(|| Status::unknown("the stream ended"))
    }

    pub(super) async fn heartbeat(
        &self,
        group_id: u64,
        source: u64,
        (term, node_id): (u64, u64),
    ) -> Result<AppendEntriesResponse, Status> {
        let hello =
            HeartbeatBatch { header: self.raft_header(0, source), ..HeartbeatBatch::default() };
        let beat = GroupHeartbeat {
            group_id,
            number: 1,
            vote: Some(RaftVote { term, node_id, committed: true }),
            ..GroupHeartbeat::default()
        };
        let beats = HeartbeatBatch { header: None, heartbeats: vec![beat] };
        let mut answers = self.raft().heartbeats(stream::iter([hello, beats])).await?.into_inner();
        let answers = answers.message().await?.unwrap_or_default().answers;
        match answers.into_iter().next().and_then(|answer| answer.outcome) {
            Some(heartbeat_answer::Outcome::Result(result)) => Ok(result),
            Some(heartbeat_answer::Outcome::Refusal(refused)) => {
                let reason = Reason::try_from(refused.reason).unwrap_or(Reason::Internal);
                Err(Refusal::new(reason, refused.message).into())
            }
            None => Err(Status::unknown("the heartbeat has no answer")),
        }
    }

    /// Sends a snapshot of the leader `(term, node)` with this content and the right checksum.
    pub(super) async fn snapshot(
        &self,
        group: u64,
        source: u64,
        (term, node_id): (u64, u64),
        content: &'static [u8],
    ) -> Result<SnapshotResponse, Status> {
        let first = SnapshotChunk {
            header: self.raft_header(group, source),
            vote: Some(RaftVote { term, node_id, committed: true }),
            meta: Some(SnapshotMeta {
                last_log_id: Some(RaftLogId { term, index: 1 << 40 }),
                last_membership: None,
            }),
            ..SnapshotChunk::default()
        };
        let data = SnapshotChunk { data: content.into(), ..SnapshotChunk::default() };
        let checksum = crc32c::crc32c(content);
        let last = SnapshotChunk { last: true, checksum, ..SnapshotChunk::default() };
        let chunks = stream::iter([first, data, last]);
        Ok(self.raft().install_snapshot(chunks).await?.into_inner())
    }

    pub(super) async fn transfer(
        &self,
        group: u64,
        source: u64,
        (term, node_id): (u64, u64),
    ) -> Result<TransferLeaderAck, Status> {
        let message = TransferLeaderMessage {
            header: self.raft_header(group, source),
            from_leader: Some(RaftVote { term, node_id, committed: true }),
            to_node: self.id,
            last_log_id: None,
        };
        Ok(self.raft().transfer_leader(message).await?.into_inner())
    }

    /// Opens a region with the keys of the table's own region.
    pub(super) async fn open_region(
        &self,
        place: &RegionRef,
        table: &Table,
        region_id: u64,
        base: u64,
    ) -> Result<OpenRegionResponse, Status> {
        let region = RegionDescriptor {
            region_id,
            table_id: table.table_id,
            table_name: table.name.clone(),
            schema: table.schema.clone(),
            options: table.options.clone(),
            incarnation: 1,
            ..RegionDescriptor::default()
        };
        let header = self.header();
        let region = Some(region);
        let request = OpenRegionRequest { header, group_id: place.group_id, region, base };
        Ok(self.control().open_region(request).await?.into_inner())
    }

    pub(super) async fn drop_region(
        &self,
        place: &RegionRef,
        region_id: u64,
    ) -> Result<DropRegionResponse, Status> {
        let request =
            DropRegionRequest { header: self.header(), group_id: place.group_id, region_id };
        Ok(self.control().drop_region(request).await?.into_inner())
    }

    pub(super) async fn truncate_region(
        &self,
        place: &RegionRef,
        number: u64,
    ) -> Result<TruncateRegionResponse, Status> {
        let request = TruncateRegionRequest {
            header: self.header(),
            group_id: place.group_id,
            region_id: place.region_id,
            step: Some(ProcedureStep { number, step: 1 }),
        };
        Ok(self.control().truncate_region(request).await?.into_inner())
    }

    /// Alters a region to this version of its schema.
    pub(super) async fn alter_region(
        &self,
        place: &RegionRef,
        table: &Table,
        version: u32,
        number: u64,
    ) -> Result<AlterRegionResponse, Status> {
        let schema = table.schema.clone().map(|schema| TableSchema { version, ..schema });
        let request = AlterRegionRequest {
            header: self.header(),
            group_id: place.group_id,
            region_id: place.region_id,
            schema,
            options: table.options.clone(),
            step: Some(ProcedureStep { number, step: 1 }),
            check_only: false,
        };
        Ok(self.control().alter_region(request).await?.into_inner())
    }

    pub(super) async fn open_area(
        &self,
        place: &RegionRef,
        number: u64,
    ) -> Result<OpenAreaResponse, Status> {
        let request = OpenAreaRequest {
            header: self.header(),
            group_id: place.group_id,
            region_id: place.region_id,
            area_id: vec![7; 16].into(),
            deadline_ms: u64::MAX,
            step: Some(ProcedureStep { number, step: 1 }),
        };
        Ok(self.control().open_area(request).await?.into_inner())
    }

    pub(super) async fn close_area(
        &self,
        place: &RegionRef,
        publish: bool,
        number: u64,
    ) -> Result<CloseAreaResponse, Status> {
        let request = CloseAreaRequest {
            header: self.header(),
            group_id: place.group_id,
            region_id: place.region_id,
            area_id: vec![7; 16].into(),
            publish,
            step: Some(ProcedureStep { number, step: 2 }),
            ..CloseAreaRequest::default()
        };
        Ok(self.control().close_area(request).await?.into_inner())
    }

    pub(super) async fn copy_region(
        &self,
        place: &RegionRef,
        number: u64,
    ) -> Result<CopyRegionResponse, Status> {
        let request = CopyRegionRequest {
            header: self.header(),
            group_id: place.group_id,
            region_id: place.region_id,
            source_table_id: 1,
            source_region_id: place.region_id,
            source_incarnation: 1,
            step: Some(ProcedureStep { number, step: 1 }),
        };
        Ok(self.control().copy_region(request).await?.into_inner())
    }

    /// Starts a garbage collection pass that names no region.
    pub(super) async fn sweep(&self, floor_ms: u64) -> Result<GarbageEvent, Status> {
        let request =
            SweepStoreRequest { header: self.header(), floor_ms, ..SweepStoreRequest::default() };
        let mut client = RegionAdminClient::new(self.channel.clone());
        let mut events = client.sweep_store(request).await?.into_inner();
        Ok(events.message().await?.unwrap_or_default())
    }

    pub(super) async fn change(
        &self,
        group_id: u64,
        (membership_term, membership_index): (u64, u64),
        change: Change,
    ) -> Result<ChangeMembershipResponse, Status> {
        let request = ChangeMembershipRequest {
            header: self.header(),
            group_id,
            membership_term,
            membership_index,
            change: Some(change),
        };
        Ok(self.control().change_membership(request).await?.into_inner())
    }

    /// Starts a replica of a group whose only first member is this node.
    pub(super) async fn start_group(
        &self,
        group_id: u64,
        initialize: bool,
    ) -> Result<StartGroupResponse, Status> {
        let member = GroupMember { node_id: self.id, address: "127.0.0.1:1".to_owned() };
        let request = StartGroupRequest {
            header: self.header(),
            group_id,
            first_members: vec![member],
            initialize,
        };
        Ok(self.control().start_group(request).await?.into_inner())
    }

    pub(super) async fn stop_replica(
        &self,
        group_id: u64,
        (membership_term, membership_index): (u64, u64),
    ) -> Result<StopReplicaResponse, Status> {
        let request = StopReplicaRequest {
            header: self.header(),
            group_id,
            membership_term,
            membership_index,
        };
        Ok(self.control().stop_replica(request).await?.into_inner())
    }

    /// Sends a heartbeat of a data node with one report.
    pub(super) async fn node_heartbeat(
        &self,
        node_id: u64,
        address: &str,
        report: GroupReport,
    ) -> Result<HeartbeatResponse, Status> {
        let request = HeartbeatRequest {
            cluster_id: self.cluster_id.clone(),
            node_id,
            role: NodeRole::Data.into(),
            address: address.to_owned(),
            groups: vec![report],
            release: Some((&Release::own()).into()),
            ..HeartbeatRequest::default()
        };
        Ok(MetaClient::new(self.channel.clone()).heartbeat(request).await?.into_inner())
    }

    /// Lists the cursors of durable hooks in the regions of a group.
    pub(super) async fn list_cursors(&self, group: u64) -> Result<Vec<HookCursor>, Status> {
        let cluster_id = self.cluster_id.clone();
        let request =
            ListCursorsRequest { cluster_id, group_ids: vec![group], ..Default::default() };
        let mut client = HookCursorsClient::new(self.channel.clone());
        let listed = client.list_cursors(request).await?.into_inner().cursors;
        Ok(listed.into_iter().filter_map(|listed| listed.cursor).collect())
    }

    pub(super) async fn advance_cursor(
        &self,
        advance: CursorAdvance,
    ) -> Result<AdvanceCursorsResponse, Status> {
        let cluster_id = self.cluster_id.clone();
        let request = AdvanceCursorsRequest { cluster_id, advances: vec![advance] };
        let mut client = HookCursorsClient::new(self.channel.clone());
        Ok(client.advance_cursors(request).await?.into_inner())
    }
}
