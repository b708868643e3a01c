//! A pass of garbage collection, told as it goes.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures::Stream;
use tidewater_common::ids::{ManifestVersion, NodeId, RegionId, TableId};
use tidewater_common::refusal::Refusal;
use tidewater_proto::v1::{
    GarbageEvent, GarbageObject, GarbageReport, KeptObjects, Reason, SweepStoreRequest,
};
use tidewater_region_engine::EngineError;
use tidewater_region_engine::env::RegionEnv;
use tidewater_region_engine::gc::{Garbage, GarbageCollector, GcReport, GcRequest, HookPositions};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

/// Objects deleted in one pass: bounds what it keeps in memory.
const MOST: usize = 200_000;
/// Objects told at once.
const TOLD: usize = 500;
/// How often whoever waits is told that the pass goes on.
const PULSE: Duration = Duration::from_secs(5);

/// The clocks of two nodes may differ by so much, in milliseconds.
const CLOCKS_DIFFER_MS: u64 = 600_000;

/// What happens in a pass.
pub(super) type GarbageStream =
    Pin<Box<dyn Stream<Item = Result<GarbageEvent, Status>> + Send + 'static>>;

/// Lets one pass run at a time.
#[derive(Debug, Clone)]
pub(super) struct Sweeper {
    turn: Arc<Semaphore>,
}

impl Sweeper {
    pub(super) fn new() -> Self {
        Self { turn: Arc::new(Semaphore::new(1)) }
    }

    /// Begins a pass. It goes on when the caller goes away.
    pub(super) fn begin(
        &self,
        env: RegionEnv,
        node: NodeId,
        request: SweepStoreRequest,
    ) -> Result<GarbageStream, Refusal> {
        check_floor(request.floor_ms, env.clock.now_ms())?;
        let permit = self.turn.clone().try_acquire_owned().map_err(|_| {
            Refusal::new(Reason::Overloaded, "garbage is being collected already: wait for its end")
                .retry_after(PULSE)
        })?;
        let (events, receiver) = mpsc::channel(1);
        tokio::spawn(run(env, node, request, events, permit));
        Ok(Box::pin(ReceiverStream::new(receiver)))
    }
}

/// A floor never goes back: one in the future would refuse every file that is written from then on.
fn check_floor(floor_ms: u64, now_ms: u64) -> Result<(), Refusal> {
    if floor_ms <= now_ms.saturating_add(CLOCKS_DIFFER_MS) {
        return Ok(());
    }
    Err(Refusal::new(
        Reason::InvalidArgument,
        format!(
            "garbage up to {floor_ms} ms is asked for, and it is {now_ms} ms here: compare the clocks"
        ),
    ))
}

async fn run(
    env: RegionEnv,
    node: NodeId,
    request: SweepStoreRequest,
    events: mpsc::Sender<Result<GarbageEvent, Status>>,
    _turn: OwnedSemaphorePermit,
) {
    let asked = GcRequest {
        floor_ms: request.floor_ms,
        dry_run: request.dry_run,
        table: request.table_id.map(TableId),
        max_deletions: MOST,
    };
    let (sender, mut found) = mpsc::channel(TOLD);
    let collector = GarbageCollector::new(env).with_hook_positions(awaited(&request));
    let pass = async {
        let outcome = collector.collect(&asked, &sender).await;
        drop(sender);
        outcome
    };
    let tell = async {
        let mut objects = Vec::with_capacity(TOLD);
        loop {
            let next = tokio::time::timeout(PULSE, found.recv_many(&mut objects, TOLD)).await;
            if next == Ok(0) {
                return;
            }
            let objects = objects.drain(..).map(to_wire).collect();
            // Who does not listen any more does not miss it.
            let _ = events.send(Ok(GarbageEvent { objects, report: None })).await;
        }
    };
    let (outcome, ()) = tokio::join!(pass, tell);
    let _ = events.send(last(outcome, node, asked.floor_ms)).await;
}

/// What durable hooks wait for.
fn awaited(request: &SweepStoreRequest) -> HookPositions {
    let known = request.known.iter().map(|one| {
        (RegionId(one.region_id), one.versions.iter().copied().map(ManifestVersion).collect())
    });
    HookPositions {
        known: known.collect(),
        oldest_ms: request.awaited_oldest_ms,
        max_versions_behind: request.awaited_most,
    }
}

fn last(
    outcome: Result<GcReport, EngineError>,
    node: NodeId,
    floor_ms: u64,
) -> Result<GarbageEvent, Status> {
    let report = outcome.map_err(|error| Status::from(Refusal::from(&error)))?;
    tracing::info!(
        deleted = report.deleted,
        bytes = report.bytes,
        kept = report.kept_objects(),
        failed = report.failed,
        unreadable = report.unreadable.len(),
        "garbage collected"
    );
    let kept = report
        .kept
        .iter()
        .map(|(why, objects)| KeptObjects { why: why.as_str().to_owned(), objects: *objects });
    let report = GarbageReport {
        deleted: report.deleted,
        bytes: report.bytes,
        kept: kept.collect(),
        failed: report.failed,
        unreadable: report.unreadable.iter().map(|(dir, why)| format!("{dir}: {why}")).collect(),
        floor_ms,
        node_id: node.get(),
    };
    Ok(GarbageEvent { objects: Vec::new(), report: Some(report) })
}

fn to_wire(garbage: Garbage) -> GarbageObject {
    GarbageObject {
        path: garbage.path.to_string(),
        bytes: garbage.bytes,
        why: garbage.why.as_str().to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_floor_in_the_future_is_refused() {
        let now = 10_000_000;
        for (floor, taken) in [(0, true), (now, true), (now + CLOCKS_DIFFER_MS, true)] {
            assert_eq!(check_floor(floor, now).is_ok(), taken, "{floor}");
        }
        for floor in [now + CLOCKS_DIFFER_MS + 1, u64::MAX] {
            assert_eq!(check_floor(floor, now).unwrap_err().reason, Reason::InvalidArgument);
        }
    }
}
