//! A garbage collection pass that streams its progress.

use std::collections::BTreeSet;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures::Stream;
use tidewater_common::clock::Clock;
use tidewater_common::ids::{Incarnation, ManifestVersion, NodeId, RegionId, TableId};
use tidewater_common::refusal::Refusal;
use tidewater_proto::v1::{
    GarbageEvent, GarbageObject, GarbageReport, KeptObjects, Reason, SweepStoreRequest,
    UnreadableManifest,
};
use tidewater_region_engine::EngineError;
use tidewater_region_engine::env::RegionEnv;
use tidewater_region_engine::gc::{
    Garbage, GarbageCollector, GcReport, GcRequest, HookPositions, KeepReason, LoggedVersions,
};
use tidewater_region_engine::layout::RegionDir;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use crate::meters;

/// Maximum number of objects deleted in one pass: bounds its memory.
const MAX_DELETED: usize = 200_000;
/// Maximum number of objects in one event.
const EVENT_OBJECTS: usize = 500;
/// Interval of events while the pass is in progress, even without deletions.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(5);

/// Allowed difference between the clocks of two nodes, in milliseconds.
const MAX_CLOCK_SKEW_MS: u64 = 600_000;

/// Events of a garbage collection pass.
pub(super) type GarbageStream =
    Pin<Box<dyn Stream<Item = Result<GarbageEvent, Status>> + Send + 'static>>;

/// Starter of garbage collection passes; runs one pass at a time.
#[derive(Debug, Clone)]
pub(super) struct Sweeper {
    permit: Arc<Semaphore>,
}

impl Sweeper {
    pub(super) fn new() -> Self {
        Self { permit: Arc::new(Semaphore::new(1)) }
    }

    /// Starts a pass. It continues after the caller disconnects.
    pub(super) fn start(
        &self,
        env: RegionEnv,
        node: NodeId,
        request: SweepStoreRequest,
        logged: LoggedVersions,
    ) -> Result<GarbageStream, Refusal> {
        check_clock(env.clock.as_ref())?;
        check_floor(request.floor_ms, env.clock.now_ms())?;
        let permit = self.permit.clone().try_acquire_owned().map_err(|_| {
            Refusal::new(
                Reason::Overloaded,
                "a garbage collection pass is already in progress: retry after its end",
            )
            .retry_after(PROGRESS_INTERVAL)
        })?;
        let (events, receiver) = mpsc::channel(1);
        tokio::spawn(run(env, node, request, logged, events, permit));
        Ok(Box::pin(ReceiverStream::new(receiver)))
    }
}

/// Refuses a pass on a node whose clock differs from the cluster's clocks.
fn check_clock(clock: &dyn Clock) -> Result<(), Refusal> {
    clock.check().map_err(|difference| {
        let message = format!("this node's clock is {difference}: it deletes no objects");
        Refusal::new(Reason::ClockDiffers, message)
    })
}

/// Checks the floor against the cluster's time. A floor never decreases: a floor in the future would
/// cause every later file to be refused.
fn check_floor(floor_ms: u64, now_ms: u64) -> Result<(), Refusal> {
    if floor_ms <= now_ms.saturating_add(MAX_CLOCK_SKEW_MS) {
        return Ok(());
    }
    Err(Refusal::new(
        Reason::InvalidArgument,
        format!(
            "the garbage collection floor {floor_ms} ms is ahead of this node's clock \
             ({now_ms} ms): compare the clocks of the nodes"
        ),
    ))
}

async fn run(
    env: RegionEnv,
    node: NodeId,
    request: SweepStoreRequest,
    logged: LoggedVersions,
    events: mpsc::Sender<Result<GarbageEvent, Status>>,
    _permit: OwnedSemaphorePermit,
) {
    let gc_request = GcRequest {
        floor_ms: request.floor_ms,
        dry_run: request.dry_run,
        table: request.table_id.map(TableId),
        max_deletions: MAX_DELETED,
    };
    let (sender, mut found) = mpsc::channel(EVENT_OBJECTS);
    let collector = GarbageCollector::new(env)
        .with_hook_positions(awaited(&request))
        .with_logged_versions(logged);
    let pass = async {
        let outcome = collector.collect(&gc_request, &sender).await;
        drop(sender);
        outcome
    };
    let report_progress = async {
        let mut objects = Vec::with_capacity(EVENT_OBJECTS);
        loop {
            let next = tokio::time::timeout(
                PROGRESS_INTERVAL,
                found.recv_many(&mut objects, EVENT_OBJECTS),
            )
            .await;
            if next == Ok(0) {
                return;
            }
            let objects = objects.drain(..).map(to_wire).collect();
            // The pass does not need a connected caller.
            let _ = events.send(Ok(GarbageEvent { objects, report: None })).await;
        }
    };
    let (outcome, ()) = tokio::join!(pass, report_progress);
    let _ = events.send(final_event(outcome, node, gc_request.floor_ms)).await;
}

/// Converts the versions that durable hooks still wait for.
fn awaited(request: &SweepStoreRequest) -> HookPositions {
    let known = request.known.iter().map(|region| {
        (RegionId(region.region_id), region.versions.iter().copied().map(ManifestVersion).collect())
    });
    HookPositions {
        known: known.collect(),
        oldest_ms: request.awaited_oldest_ms,
        max_versions_behind: request.awaited_most,
    }
}

/// Converts the versions that the groups' logs have recorded. A region of this node's catalog that the
/// request does not name is left alone: it is new, or the request is not the meta leader's.
pub(super) fn logged_versions(request: &SweepStoreRequest, catalog: &[RegionId]) -> LoggedVersions {
    let named: BTreeSet<u64> = request.logged.iter().map(|region| region.region_id).collect();
    let unnamed = catalog.iter().copied().filter(|region| !named.contains(&region.get()));
    let unanswered = request.unanswered_regions.iter().copied().map(RegionId).chain(unnamed);
    let known = request.logged.iter().map(|region| {
        let dir = RegionDir {
            table_id: TableId(region.table_id),
            region_id: RegionId(region.region_id),
            incarnation: Incarnation(region.incarnation),
        };
        (dir, ManifestVersion(region.version))
    });
    LoggedVersions { known: known.collect(), unanswered: unanswered.collect() }
}

fn final_event(
    outcome: Result<GcReport, EngineError>,
    node: NodeId,
    floor_ms: u64,
) -> Result<GarbageEvent, Status> {
    let report = outcome.map_err(|error| Status::from(Refusal::from(&error)))?;
    let awaited = report.kept.get(&KeepReason::Awaited).copied().unwrap_or(0);
    meters::set_awaited_objects(awaited);
    tracing::info!(
        deleted = report.deleted,
        bytes = report.bytes,
        kept = report.kept_objects(),
        awaited,
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
        unreadable_manifests: report.unreadable.iter().map(unreadable).collect(),
    };
    Ok(GarbageEvent { objects: Vec::new(), report: Some(report) })
}

fn unreadable((dir, why): &(RegionDir, String)) -> UnreadableManifest {
    UnreadableManifest {
        region_id: dir.region_id.get(),
        table_id: dir.table_id.get(),
        error: why.clone(),
    }
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
    use tidewater_common::clock::ClockDifference;
    use tidewater_proto::v1;
    use tidewater_region_engine::MemoryBudget;
    use tidewater_region_engine::env::{EngineOptions, SystemIds};
    use tidewater_region_engine::storage::Storage;

    use super::*;

    #[derive(Debug)]
    struct WrongClock;

    impl Clock for WrongClock {
        fn now_ms(&self) -> u64 {
            0
        }

        fn check(&self) -> Result<(), ClockDifference> {
            Err(ClockDifference { difference_ms: 9, bound_ms: 1, since_ms: 0 })
        }
    }

    #[tokio::test]
    async fn node_with_wrong_clock_collects_no_garbage() {
        let env = RegionEnv::new(
            Storage::memory(),
            Arc::new(WrongClock),
            Arc::new(SystemIds),
            MemoryBudget::new(1 << 20),
            EngineOptions::default(),
        );
        let request = SweepStoreRequest::default();
        let started = Sweeper::new().start(env, NodeId(1), request, LoggedVersions::default());
        assert_eq!(started.err().map(|refusal| refusal.reason), Some(Reason::ClockDiffers));
    }

    #[test]
    fn regions_that_a_request_omits_are_left_alone() {
        let logged = v1::LoggedVersion { table_id: 3, region_id: 7, incarnation: 1, version: 5 };
        let request = SweepStoreRequest {
            logged: vec![logged],
            unanswered_regions: vec![8],
            ..SweepStoreRequest::default()
        };
        let versions = logged_versions(&request, &[7, 8, 9].map(RegionId));
        assert_eq!(versions.unanswered, BTreeSet::from([8, 9].map(RegionId)));
        let dir =
            RegionDir { table_id: TableId(3), region_id: RegionId(7), incarnation: Incarnation(1) };
        assert_eq!(versions.known, [(dir, ManifestVersion(5))].into());
    }

    #[test]
    fn gc_floor_in_the_future_is_refused() {
        let now = 10_000_000;
        for (floor, accepted) in [(0, true), (now, true), (now + MAX_CLOCK_SKEW_MS, true)] {
            assert_eq!(check_floor(floor, now).is_ok(), accepted, "{floor}");
        }
        for floor in [now + MAX_CLOCK_SKEW_MS + 1, u64::MAX] {
            assert_eq!(check_floor(floor, now).unwrap_err().reason, Reason::InvalidArgument);
        }
    }
}
