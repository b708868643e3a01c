//! Ending what was begun: a handle, a job.

use tidewater_common::refusal::Refusal;
use tidewater_proto::compaction::v1::{
    CancelCompactionRequest, CancelCompactionResponse, CloseCompactionRegionRequest,
    CloseCompactionRegionResponse,
};
use tidewater_proto::v1::Reason;
use tidewater_region_engine::compaction::job_id;
use tracing::info;

use crate::parts::NodeParts;

/// Forgets a handle; its jobs go on.
pub(super) fn call(
    parts: &NodeParts,
    request: &CloseCompactionRegionRequest,
) -> CloseCompactionRegionResponse {
    parts.handles.lock().close(&request.handle);
    parts.observe();
    CloseCompactionRegionResponse {}
}

/// Ends a job soon.
pub(super) fn cancel(
    parts: &NodeParts,
    request: &CancelCompactionRequest,
) -> Result<CancelCompactionResponse, Refusal> {
    let job = job_id(&request.job_id)
        .map_err(|error| Refusal::new(Reason::InvalidArgument, error.to_string()))?;
    parts.jobs.cancel(job)?;
    info!(%job, "compaction is cancelled");
    Ok(CancelCompactionResponse {})
}
