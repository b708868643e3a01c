//! Closing of handles and cancellation of jobs.

use tidewater_common::refusal::Refusal;
use tidewater_proto::compaction::v1::{
    CancelCompactionRequest, CancelCompactionResponse, CloseCompactionRegionRequest,
    CloseCompactionRegionResponse,
};
use tidewater_proto::v1::Reason;
use tidewater_region_engine::compaction::job_id;
use tracing::info;

use crate::context::CompactorContext;

/// Closes a handle; its jobs continue.
pub(super) fn call(
    context: &CompactorContext,
    request: &CloseCompactionRegionRequest,
) -> CloseCompactionRegionResponse {
    context.handles.lock().close(&request.handle);
    context.observe();
    CloseCompactionRegionResponse {}
}

/// Cancels a job.
pub(super) fn cancel(
    context: &CompactorContext,
    request: &CancelCompactionRequest,
) -> Result<CancelCompactionResponse, Refusal> {
    let job = job_id(&request.job_id)
        .map_err(|error| Refusal::new(Reason::InvalidArgument, error.to_string()))?;
    context.jobs.cancel(job)?;
    info!(%job, "compaction cancelled");
    Ok(CancelCompactionResponse {})
}
