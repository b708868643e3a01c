//! Calls to one given node, without routing, leader hints or retries.

use std::net::SocketAddr;
use std::time::Duration;

use futures::TryStreamExt;
use tidewater_common::refusal::Refusal;
use tidewater_proto::v1::admin_client::AdminClient;
use tidewater_proto::v1::data_client::DataClient;
use tidewater_proto::v1::meta_client::MetaClient;
use tidewater_proto::v1::raft_client::RaftClient;
use tidewater_proto::v1::region_admin_client::RegionAdminClient;
use tidewater_proto::v1::{
    AdoptFilesRequest, AdoptFilesResponse, BeginLoadRequest, BeginLoadResponse, CatalogSnapshot,
    EndLoadRequest, EndLoadResponse, FlushRegionRequest, FlushRegionResponse, GetCatalogRequest,
    ListRegionsRequest, RaftHeader, RaftVote, RegionInfo, ScanRequest, ScanResponse, VoteRequest,
    VoteResponse, WriteRequest, WriteResponse,
};
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status, Streaming};
use uuid::Uuid;

use crate::{HarnessError, Result};

/// Identification of a region in a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RegionRef {
    /// Id of the group that serves the region.
    pub group_id: u64,
    /// Id of the region.
    pub region_id: u64,
    /// Catalog version in which the group serves the region.
    pub catalog_version: u64,
    /// Schema version of the table.
    pub schema_version: u32,
}

/// A connection to one node.
#[derive(Debug, Clone)]
pub struct NodeClient {
    channel: Channel,
    deadline: Duration,
}

impl NodeClient {
    /// Creates a client that connects on first use. Every call ends after `deadline`.
    ///
    /// # Errors
    /// If the address is not valid in a URL.
    pub fn new(address: SocketAddr, deadline: Duration) -> Result<Self> {
        let channel = Endpoint::from_shared(format!("http://{address}"))
            .map_err(|error| HarnessError::violated(format!("address {address}: {error}")))?
            .connect_lazy();
        Ok(Self { channel, deadline })
    }

    fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        request.set_timeout(self.deadline);
        request
    }

    async fn limited<T>(&self, call: impl Future<Output = Result<T, Status>>) -> Result<T, Status> {
        // A frozen server does not enforce the deadline, so the caller does.
        tokio::time::timeout(self.deadline, call)
            .await
            .unwrap_or_else(|_| Err(Status::deadline_exceeded("the test's own deadline")))
    }

    /// Returns the catalog of this meta node; followers reject the call.
    ///
    /// # Errors
    /// The RPC error of the node or of the transport.
    pub async fn catalog(&self) -> Result<CatalogSnapshot, Status> {
        let mut client = MetaClient::new(self.channel.clone()).max_decoding_message_size(64 << 20);
        let request = self.request(GetCatalogRequest {});
        self.limited(async { client.get_catalog(request).await.map(|r| r.into_inner()) }).await
    }

    /// Returns the regions of one table that this data node hosts.
    ///
    /// # Errors
    /// The RPC error of the node or of the transport.
    pub async fn regions(&self, table: &str, digest: bool) -> Result<Vec<RegionInfo>, Status> {
        let mut client = RegionAdminClient::new(self.channel.clone());
        let request = self.request(ListRegionsRequest {
            table: Some(table.to_owned()),
            region_id: None,
            include_followers: true,
            with_digest: digest,
            with_times: false,
            confirmed: false,
        });
        self.limited(async { Ok(client.list_regions(request).await?.into_inner().regions) }).await
    }

    /// Counts the rows of a region with a linearizable read.
    ///
    /// # Errors
    /// The RPC error of the node or of the transport.
    pub async fn count(&self, region: RegionRef) -> Result<u64, Status> {
        let mut client = DataClient::new(self.channel.clone());
        let request = self.request(ScanRequest {
            group_id: region.group_id,
            region_id: region.region_id,
            catalog_version: region.catalog_version,
            schema_version: region.schema_version,
            count_only: true,
            ..ScanRequest::default()
        });
        self.limited(async {
            let parts: Vec<_> = client.scan(request).await?.into_inner().try_collect().await?;
            match parts.last() {
                Some(last) if last.done => Ok(parts.iter().map(|part| part.row_count).sum()),
                _ => Err(Status::data_loss("the scan ended without its last message")),
            }
        })
        .await
    }

    /// Opens a scan of some columns of a region, whose rows are sent as they are read from the stream.
    ///
    /// # Errors
    /// The RPC error of the node or of the transport.
    pub async fn open_scan(
        &self,
        region: RegionRef,
        projection: Vec<u32>,
    ) -> Result<Streaming<ScanResponse>, Status> {
        let mut client = DataClient::new(self.channel.clone()).max_decoding_message_size(64 << 20);
        // Without a deadline: the stream outlives the call.
        let request = Request::new(ScanRequest {
            group_id: region.group_id,
            region_id: region.region_id,
            catalog_version: region.catalog_version,
            schema_version: region.schema_version,
            projection,
            ..ScanRequest::default()
        });
        self.limited(async { client.scan(request).await.map(|r| r.into_inner()) }).await
    }

    /// Sends the empty opening write of a new producer, the smallest write that must be replicated.
    ///
    /// # Errors
    /// The RPC error of the node or of the transport.
    pub async fn open_producer(&self, region: RegionRef) -> Result<WriteResponse, Status> {
        self.write(WriteRequest {
            group_id: region.group_id,
            region_id: region.region_id,
            catalog_version: region.catalog_version,
            schema_version: region.schema_version,
            producer_id: Uuid::new_v4().into_bytes().to_vec().into(),
            serial: 1,
            origin_region_id: region.region_id,
            ..WriteRequest::default()
        })
        .await
    }

    /// Requests a flush of a region from its owner.
    ///
    /// # Errors
    /// The RPC error of the node or of the transport.
    pub async fn flush(&self, region: RegionRef) -> Result<FlushRegionResponse, Status> {
        let mut client = RegionAdminClient::new(self.channel.clone());
        let request = self.request(FlushRegionRequest {
            group_id: region.group_id,
            region_id: region.region_id,
            by_node: false,
        });
        self.limited(async { client.flush_region(request).await.map(|r| r.into_inner()) }).await
    }

    /// Requests a vote in term 0, which no node grants, as if this node were `target`.
    ///
    /// # Errors
    /// The RPC error of the node or of the transport.
    pub async fn request_vote(
        &self,
        cluster_id: &str,
        source: u64,
        target: u64,
        group_id: u64,
    ) -> Result<VoteResponse, Status> {
        let mut client = RaftClient::new(self.channel.clone());
        let header = RaftHeader {
            cluster_id: cluster_id.to_owned(),
            source_node: source,
            target_node: target,
            group_id,
            source_boot: 0,
        };
        let vote = RaftVote { term: 0, node_id: source, committed: false };
        let request = self.request(VoteRequest {
            header: Some(header),
            vote: Some(vote),
            ..VoteRequest::default()
        });
        self.limited(async { client.vote(request).await.map(|r| r.into_inner()) }).await
    }

    /// Requests the adoption of files.
    ///
    /// # Errors
    /// The RPC error of the node or of the transport.
    pub async fn adopt_files(
        &self,
        request: AdoptFilesRequest,
    ) -> Result<AdoptFilesResponse, Status> {
        let mut client = DataClient::new(self.channel.clone());
        let request = self.request(request);
        self.limited(async { client.adopt_files(request).await.map(|r| r.into_inner()) }).await
    }

    /// Begins an atomic load.
    ///
    /// # Errors
    /// The RPC error of the node or of the transport.
    pub async fn begin_load(&self, request: BeginLoadRequest) -> Result<BeginLoadResponse, Status> {
        let mut client = AdminClient::new(self.channel.clone());
        let request = self.request(request);
        self.limited(async { client.begin_load(request).await.map(|r| r.into_inner()) }).await
    }

    /// Ends an atomic load.
    ///
    /// # Errors
    /// The RPC error of the node or of the transport.
    pub async fn end_load(&self, request: EndLoadRequest) -> Result<EndLoadResponse, Status> {
        let mut client = AdminClient::new(self.channel.clone());
        let request = self.request(request);
        self.limited(async { client.end_load(request).await.map(|r| r.into_inner()) }).await
    }

    /// Sends a write unchanged.
    ///
    /// # Errors
    /// The RPC error of the node or of the transport.
    pub async fn write(&self, write: WriteRequest) -> Result<WriteResponse, Status> {
        let mut client =
            DataClient::new(self.channel.clone()).max_encoding_message_size(usize::MAX);
        let request = self.request(write);
        self.limited(async { client.write(request).await.map(|r| r.into_inner()) }).await
    }
}

/// Returns the RPC error of a call that must fail.
///
/// # Errors
/// If the call succeeded.
pub fn expect_refusal<T: std::fmt::Debug>(answer: Result<T, Status>) -> Result<Refusal> {
    match answer {
        Ok(answer) => Err(HarnessError::violated(format!("the call succeeded: {answer:?}"))),
        Err(status) => Ok(Refusal::from(status)),
    }
}
