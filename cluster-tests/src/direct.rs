//! Calls to one node of the test's choice, past routing, hints and retries.

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
    ListRegionsRequest, RaftHeader, RaftVote, RegionInfo, ScanRequest, VoteRequest, VoteResponse,
    WriteRequest, WriteResponse,
};
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status};
use uuid::Uuid;

use crate::{HarnessError, Result};

/// A region as a request must name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RegionRef {
    /// The group that serves it.
    pub group_id: u64,
    /// The region.
    pub region_id: u64,
    /// Catalog version of this knowledge.
    pub catalog_version: u64,
    /// The table's schema version.
    pub schema_version: u32,
}

/// A connection to one node.
#[derive(Debug, Clone)]
pub struct Direct {
    channel: Channel,
    deadline: Duration,
}

impl Direct {
    /// Connects when first used; every call ends after `deadline`.
    ///
    /// # Errors
    /// When the address cannot be part of a URL.
    pub fn to(address: SocketAddr, deadline: Duration) -> Result<Self> {
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
        // A frozen server enforces no deadline: the caller does.
        tokio::time::timeout(self.deadline, call)
            .await
            .unwrap_or_else(|_| Err(Status::deadline_exceeded("the test's own deadline")))
    }

    /// The catalog as this meta node knows it; followers refuse.
    ///
    /// # Errors
    /// The node's refusal, or the transport's.
    pub async fn catalog(&self) -> Result<CatalogSnapshot, Status> {
        let mut client = MetaClient::new(self.channel.clone()).max_decoding_message_size(64 << 20);
        let request = self.request(GetCatalogRequest {});
        self.limited(async { client.get_catalog(request).await.map(|r| r.into_inner()) }).await
    }

    /// The regions that this data node hosts, of one table.
    ///
    /// # Errors
    /// The node's refusal, or the transport's.
    pub async fn regions(&self, table: &str, digest: bool) -> Result<Vec<RegionInfo>, Status> {
        let mut client = RegionAdminClient::new(self.channel.clone());
        let request = self.request(ListRegionsRequest {
            table: Some(table.to_owned()),
            region_id: None,
            include_followers: true,
            with_digest: digest,
        });
        self.limited(async { Ok(client.list_regions(request).await?.into_inner().regions) }).await
    }

    /// Counts the rows of a region: a linearizable read.
    ///
    /// # Errors
    /// The node's refusal, or the transport's.
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

    /// Sends a new producer's empty opening write: the smallest that must be replicated.
    ///
    /// # Errors
    /// The node's refusal, or the transport's.
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

    /// Asks the node to flush a region as its owner.
    ///
    /// # Errors
    /// The node's refusal, or the transport's.
    pub async fn flush(&self, region: RegionRef) -> Result<FlushRegionResponse, Status> {
        let mut client = RegionAdminClient::new(self.channel.clone());
        let request = self
            .request(FlushRegionRequest { group_id: region.group_id, region_id: region.region_id });
        self.limited(async { client.flush_region(request).await.map(|r| r.into_inner()) }).await
    }

    /// Asks for a vote in term 0, which nobody grants, as if the node were `target`.
    ///
    /// # Errors
    /// The node's refusal, or the transport's.
    pub async fn ask_vote(
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
        };
        let vote = RaftVote { term: 0, node_id: source, committed: false };
        let request = self.request(VoteRequest {
            header: Some(header),
            vote: Some(vote),
            ..VoteRequest::default()
        });
        self.limited(async { client.vote(request).await.map(|r| r.into_inner()) }).await
    }

    /// Asks the node to take files over.
    ///
    /// # Errors
    /// The node's refusal, or the transport's.
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
    /// The node's refusal, or the transport's.
    pub async fn begin_load(&self, request: BeginLoadRequest) -> Result<BeginLoadResponse, Status> {
        let mut client = AdminClient::new(self.channel.clone());
        let request = self.request(request);
        self.limited(async { client.begin_load(request).await.map(|r| r.into_inner()) }).await
    }

    /// Ends an atomic load.
    ///
    /// # Errors
    /// The node's refusal, or the transport's.
    pub async fn end_load(&self, request: EndLoadRequest) -> Result<EndLoadResponse, Status> {
        let mut client = AdminClient::new(self.channel.clone());
        let request = self.request(request);
        self.limited(async { client.end_load(request).await.map(|r| r.into_inner()) }).await
    }

    /// Sends a write as it stands.
    ///
    /// # Errors
    /// The node's refusal, or the transport's.
    pub async fn write(&self, write: WriteRequest) -> Result<WriteResponse, Status> {
        let mut client =
            DataClient::new(self.channel.clone()).max_encoding_message_size(usize::MAX);
        let request = self.request(write);
        self.limited(async { client.write(request).await.map(|r| r.into_inner()) }).await
    }
}

/// The refusal in an answer that must be one.
///
/// # Errors
/// When the call succeeded.
pub fn refusal_of<T: std::fmt::Debug>(answer: Result<T, Status>) -> Result<Refusal> {
    match answer {
        Ok(answer) => Err(HarnessError::violated(format!("not refused: {answer:?}"))),
        Err(status) => Ok(Refusal::from(status)),
    }
}
