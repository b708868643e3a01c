//! Forged calls of exports: the operator has granted no directory, so that no call makes a node write a file.

use tidewater_cluster_tests::{HarnessError, Result};
use tidewater_proto::v1::export_work_client::ExportWorkClient;
use tidewater_proto::v1::{
    ClaimExportTargetRequest, ClaimExportTargetResponse, CompleteExportStepRequest,
    CompleteExportStepResponse, ExportFile, ExportRegionRequest, ExportRegionResponse,
    ExportTarget, Reason,
};
use tonic::Status;
use tonic::transport::Channel;

use super::calls::Forger;
use super::refused;
use super::target::Target;

/// Targets that no node may open, and malformed ones.
const REFUSED: &[Reason] = &[Reason::ExportTargetUnavailable, Reason::InvalidArgument];
/// Most calls of an export of a region that runs in the background.
const MAX_POLLS: usize = 60;

/// Sends calls that claim targets, and that write rows and steps to them.
pub(super) async fn forge_export_calls(target: &Target, node: &Forger) -> Result<()> {
    let directory =
        tempfile::tempdir().map_err(|error| HarnessError::violated(error.to_string()))?;
    let inside = format!(r#"{{"url": "file://{}/forged"}}"#, directory.path().display());
    for config in
        [inside.as_str(), r#"{"url": "file:///etc/../tmp"}"#, r#"{"url": "ftp://x"}"#, "{", ""]
    {
        let forged = forged_target(config, &[7; 16]);
        refused("claim of a target", node.claim_export_target(forged.clone()).await, REFUSED)?;
        refused("step of an export", node.complete_step(forged.clone(), 1, None).await, REFUSED)?;
        let region = node.export_region_to_end(target, forged).await;
        // Epoch 65536 was long ago.
        let reasons = [REFUSED, &[Reason::NotLeader, Reason::EpochBelowSince]].concat();
        refused("export of a region", region, &reasons)?;
    }
    let malformed = &[Reason::InvalidArgument];
    for id in [&[][..], &[0xff; 17]] {
        let claimed = node.claim_export_target(forged_target(&inside, id)).await;
        refused("claim of an export without an id", claimed, malformed)?;
    }
    refused("claim of no target", node.claim_export_target(None).await, malformed)?;
    // Steps that skip or repeat epochs.
    for (step, after) in [(0, None), (2, None), (1, Some(1)), (2, Some(u64::MAX))] {
        let completed = node.complete_step(forged_target(&inside, &[7; 16]), step, after).await;
        refused("step with wrong epochs", completed, malformed)?;
    }
    let written = directory.path().read_dir().map(Iterator::count);
    match written {
        Ok(0) => Ok(()),
        found => Err(HarnessError::violated(format!("forged exports wrote files: {found:?}"))),
    }
}

fn forged_target(config: &str, id: &[u8]) -> Option<ExportTarget> {
    Some(ExportTarget {
        export_id: id.to_vec().into(),
        name: "forged".to_owned(),
        table: "written".to_owned(),
        target: config.to_owned(),
    })
}

impl Forger {
    fn exports(&self) -> ExportWorkClient<Channel> {
        ExportWorkClient::new(self.channel.clone())
    }

    async fn claim_export_target(
        &self,
        target: Option<ExportTarget>,
    ) -> Result<ClaimExportTargetResponse, Status> {
        let request = ClaimExportTargetRequest { header: self.header(), target };
        Ok(self.exports().claim_export_target(request).await?.into_inner())
    }

    async fn complete_step(
        &self,
        target: Option<ExportTarget>,
        step: u64,
        after: Option<u64>,
    ) -> Result<CompleteExportStepResponse, Status> {
        let file = ExportFile { path: "../escaped".to_owned(), rows: 1, bytes: 1 };
        let request = CompleteExportStepRequest {
            header: self.header(),
            target,
            step,
            after,
            as_of: 1 << 16,
            files: vec![file],
        };
        Ok(self.exports().complete_export_step(request).await?.into_inner())
    }

    /// Repeats the call while the region is being written.
    async fn export_region_to_end(
        &self,
        of: &Target,
        target: Option<ExportTarget>,
    ) -> Result<ExportRegionResponse, Status> {
        let request = ExportRegionRequest {
            header: self.header(),
            target,
            step: 1,
            group_id: of.region.group_id,
            region_id: of.region.region_id,
            after: None,
            as_of: 1 << 16,
        };
        let mut last = self.exports().export_region(request.clone()).await?.into_inner();
        for _ in 0..MAX_POLLS {
            if last.done {
                break;
            }
            last = self.exports().export_region(request.clone()).await?.into_inner();
        }
        Ok(last)
    }
}
