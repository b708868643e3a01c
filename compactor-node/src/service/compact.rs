//! Start of a compaction job.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures::Stream;
use tidewater_common::ids::NodeId;
use tidewater_common::refusal::Refusal;
use tidewater_proto::compaction::v1::{CompactRequest, CompactionEvent};
use tidewater_proto::v1::Reason;
use tidewater_region_engine::compaction::CompactionPlan;
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use crate::context::CompactorContext;
use crate::run::{EventSender, run};

/// Time limit for settling a commit with an unknown outcome. If the store is unreachable for
/// longer, the owner determines the outcome.
const SETTLE_LIMIT: Duration = Duration::from_secs(60);

/// Events of a job; see `Compaction.Compact`.
pub(super) type EventStream = Pin<Box<dyn Stream<Item = Result<CompactionEvent, Status>> + Send>>;

/// Starts a job, which the node then runs to its end: dropping the stream does not end it.
pub(super) async fn call(
    context: &Arc<CompactorContext>,
    request: CompactRequest,
) -> Result<EventStream, Refusal> {
    let source = NodeId(request.header.map_or(0, |header| header.source_node));
    let bad_plan = |detail: String| Refusal::new(Reason::BadPlan, detail);
    let plan = request.plan.ok_or_else(|| bad_plan("the request has no plan".to_owned()))?;
    let plan = CompactionPlan::try_from(plan).map_err(|error| bad_plan(error.to_string()))?;
    let region = context.handles.lock().get(&request.handle, Instant::now())?;
    context.jobs.check(plan.job_id, plan.dir, &plan.inputs)?;
    let job = {
        let _permit = context.acquire_manifest_read().await?;
        region.prepare(&plan).await.map_err(|error| Refusal::from(&error))?
    };
    let room = context.disk.room().await;
    let caller = (request.attempt, source);
    let slot = context.jobs.start(&job, region.limits(), room, caller, Instant::now())?;
    context.observe();
    let (events, receiver) = EventSender::channel();
    let node = context.clone();
    context.tasks.spawn(async move {
        let began = slot.job.began;
        let limits = slot.job.limits;
        let attempt = slot.job.attempt.clone();
        let work = region.run(&job, limits, &attempt);
        let unknown = run(work, slot, &node.disk, events).await;
        node.events.job_ended(job.dir, began.elapsed());
        node.observe();
        if unknown {
            region.settle(SETTLE_LIMIT).await;
        }
    });
    Ok(Box::pin(ReceiverStream::new(receiver)))
}
