//! Calls of exports.

use std::time::Duration;

use tidewater_common::ids::NodeId;
use tidewater_common::refusal::Refusal;
use tidewater_proto::v1;
use tidewater_proto::v1::export_work_client::ExportWorkClient;
use tidewater_rpc::{attempt, timed};
use tonic::transport::Channel;

use super::{CALL_DEADLINE, Control, target};

/// Deadline of a claim: a caller waits for it, and another data node may make it.
const CLAIM_DEADLINE: Duration = Duration::from_secs(20);
/// Deadline to complete a step, in which a data node makes several requests to the store of the export.
const COMPLETE_DEADLINE: Duration = Duration::from_secs(100);
/// Largest list of files, in bytes.
const LISTED_FILES_BYTES: usize = 32 << 20;

impl Control {
    /// Claims the prefix of an export.
    pub(crate) async fn claim_export_target(
        &self,
        node: NodeId,
        request: v1::ClaimExportTargetRequest,
    ) -> Result<(), Refusal> {
        let request = v1::ClaimExportTargetRequest { header: self.header(node), ..request };
        let mut client = self.export_work(node)?;
        let request = timed(request, CLAIM_DEADLINE);
        attempt(target(node), CLAIM_DEADLINE, client.claim_export_target(request)).await?;
        Ok(())
    }

    /// Writes a region for a step for a short time, and returns the progress.
    pub(crate) async fn export_region(
        &self,
        node: NodeId,
        request: v1::ExportRegionRequest,
    ) -> Result<v1::ExportRegionResponse, Refusal> {
        let request = v1::ExportRegionRequest { header: self.header(node), ..request };
        let mut client = self.export_work(node)?;
        let request = timed(request, CALL_DEADLINE);
        Ok(attempt(target(node), CALL_DEADLINE, client.export_region(request)).await?)
    }

    /// Writes the object of a step.
    pub(crate) async fn complete_export_step(
        &self,
        node: NodeId,
        request: v1::CompleteExportStepRequest,
    ) -> Result<v1::CompleteExportStepResponse, Refusal> {
        let request = v1::CompleteExportStepRequest { header: self.header(node), ..request };
        let mut client = self.export_work(node)?;
        let request = timed(request, COMPLETE_DEADLINE);
        let call = client.complete_export_step(request);
        Ok(attempt(target(node), COMPLETE_DEADLINE, call).await?)
    }

    fn export_work(&self, node: NodeId) -> Result<ExportWorkClient<Channel>, Refusal> {
        Ok(ExportWorkClient::new(self.channel(node)?)
            .max_decoding_message_size(LISTED_FILES_BYTES)
            .max_encoding_message_size(LISTED_FILES_BYTES))
    }
}
