//! Calls of refreshes.

use std::time::Duration;

use tidewater_common::ids::NodeId;
use tidewater_common::refusal::Refusal;
use tidewater_proto::v1;
use tidewater_proto::v1::data_client::DataClient;
use tidewater_proto::v1::refresh_work_client::RefreshWorkClient;
use tidewater_rpc::{attempt, timed};
use tonic::Streaming;

use super::{CALL_DEADLINE, Control, target};

/// Deadline to list a source, above that of the data node.
const LIST_DEADLINE: Duration = Duration::from_secs(70);
/// Deadline to stage files: the owner reads all of them.
const STAGE_DEADLINE: Duration = Duration::from_secs(90);
/// Largest list of splits or of files, in bytes: 10,000 splits with pins of 4 KiB.
const LISTING_BYTES: usize = 64 << 20;

impl Control {
    /// Checks the kind and the configuration of a source.
    pub(crate) async fn check_source(
        &self,
        node: NodeId,
        request: v1::CheckSourceRequest,
    ) -> Result<(), Refusal> {
        let request = v1::CheckSourceRequest { header: self.header(node), ..request };
        let mut client = RefreshWorkClient::new(self.channel(node)?);
        let request = timed(request, CALL_DEADLINE);
        attempt(target(node), CALL_DEADLINE, client.check_source(request)).await?;
        Ok(())
    }

    /// Lists and pins the content of a source.
    pub(crate) async fn list_source(
        &self,
        node: NodeId,
        request: v1::ListSourceRequest,
    ) -> Result<v1::ListSourceResponse, Refusal> {
        let request = v1::ListSourceRequest { header: self.header(node), ..request };
        let mut client =
            RefreshWorkClient::new(self.channel(node)?).max_decoding_message_size(LISTING_BYTES);
        let request = timed(request, LIST_DEADLINE);
        Ok(attempt(target(node), LIST_DEADLINE, client.list_source(request)).await?)
    }

    /// Loads splits. It has no deadline: its messages show that the node is alive, and the last one reports the end.
    pub(crate) async fn load_splits(
        &self,
        node: NodeId,
        request: v1::LoadSplitsRequest,
    ) -> Result<Streaming<v1::LoadSplitsResponse>, Refusal> {
        let request = v1::LoadSplitsRequest { header: self.header(node), ..request };
        let mut client =
            RefreshWorkClient::new(self.channel(node)?).max_decoding_message_size(LISTING_BYTES);
        Ok(attempt(target(node), CALL_DEADLINE, client.load_splits(request)).await?)
    }

    /// Merges a staging area into a region for a short time, and returns the progress.
    pub(crate) async fn merge_region(
        &self,
        node: NodeId,
        request: v1::MergeRegionRequest,
    ) -> Result<v1::MergeRegionResponse, Refusal> {
        let request = v1::MergeRegionRequest { header: self.header(node), ..request };
        let mut client = RefreshWorkClient::new(self.channel(node)?);
        let request = timed(request, CALL_DEADLINE);
        Ok(attempt(target(node), CALL_DEADLINE, client.merge_region(request)).await?)
    }

    /// Stages files in an open staging area.
    pub(crate) async fn stage_files(
        &self,
        node: NodeId,
        request: v1::AdoptFilesRequest,
    ) -> Result<(), Refusal> {
        let mut client = DataClient::new(self.channel(node)?);
        let request = timed(request, STAGE_DEADLINE);
        attempt(target(node), STAGE_DEADLINE, client.adopt_files(request)).await?;
        Ok(())
    }
}
