//! Carrying a plan out.

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

use crate::parts::NodeParts;
use crate::run::{Events, run};

/// How long a commit in doubt is asked after: a store that is out of reach for longer has its owner
/// find out.
const SETTLED_WITHIN: Duration = Duration::from_secs(60);

/// See `Compaction.Compact`.
pub(super) type EventStream = Pin<Box<dyn Stream<Item = Result<CompactionEvent, Status>> + Send>>;

/// Begins a job, which from then on belongs to the node: dropping the stream does not end it.
pub(super) async fn call(
    parts: &Arc<NodeParts>,
    request: CompactRequest,
) -> Result<EventStream, Refusal> {
    let source = NodeId(request.header.map_or(0, |header| header.source_node));
    let bad_plan = |detail: String| Refusal::new(Reason::BadPlan, detail);
    let plan = request.plan.ok_or_else(|| bad_plan("there is no plan".to_owned()))?;
    let plan = CompactionPlan::try_from(plan).map_err(|error| bad_plan(error.to_string()))?;
    let region = parts.handles.lock().get(&request.handle, Instant::now())?;
    parts.jobs.check(plan.job_id, plan.dir, &plan.inputs)?;
    let job = {
        let _permit = parts.may_read_a_manifest().await?;
        region.prepare(&plan).await.map_err(|error| Refusal::from(&error))?
    };
    let room = parts.disk.room().await;
    let asked = (request.attempt, source);
    let slot = parts.jobs.begin(&job, region.limits(), room, asked, Instant::now())?;
    parts.observe();
    let (events, receiver) = Events::channel();
    let node = parts.clone();
    parts.tasks.spawn(async move {
        let (limits, attempt) = (slot.job.limits, slot.job.attempt.clone());
        let work = region.run(&job, limits, &attempt);
        let in_doubt = run(work, slot, &node.disk, events).await;
        node.observe();
        if in_doubt {
            region.settle(SETTLED_WITHIN).await;
        }
    });
    Ok(Box::pin(ReceiverStream::new(receiver)))
}
