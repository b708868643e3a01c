//! Schedule of garbage collection: interval, retention and the data node that runs a pass.

mod recorded_pass;

use std::collections::{BTreeMap, BTreeSet};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures::{Stream, StreamExt, stream};
use tidewater_common::ids::{NodeId, RegionId};
use tidewater_common::refusal::Refusal;
use tidewater_proto::v1::{self, CursorState, GarbageEvent, NodeRole, NodeState, Reason};
use tokio::time::{Instant, MissedTickBehavior, interval_at};
use tonic::{Status, Streaming};

use self::recorded_pass::RecordedPass;
pub(crate) use self::recorded_pass::with_event;
use super::leader_term::LeaderTerm;
use super::{Control, Observations};
use crate::catalog::{HookCursor, MetaState};

/// Maximum time between two events of a pass; the data node sends a keep-alive every few seconds.
const SILENCE: Duration = Duration::from_secs(60);

/// Nodes whose regions are listed at the same time.
const CONCURRENT_LISTS: usize = 8;

/// Retention of unreferenced objects.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Retention {
    /// Grace period before unreferenced objects are deleted.
    pub(crate) grace: Duration,
    /// Maximum age of deltas that are kept for a durable hook that lags.
    pub(crate) hook_age: Duration,
    /// Maximum number of versions that are kept for a durable hook that lags.
    pub(crate) hook_versions: u64,
}

/// Schedule and retention of garbage collection.
#[derive(Debug, Clone, Copy)]
pub(crate) struct GarbageOptions {
    /// Interval between passes.
    pub(crate) interval: Duration,
    /// Retention of unreferenced objects.
    pub(crate) retention: Retention,
}

/// Returns the time up to which a pass collects, and the data node that runs it. Pure.
pub(crate) fn floor_and_node(state: &MetaState, grace: Duration) -> Result<(u64, NodeId), Refusal> {
    let grace = u64::try_from(grace.as_millis()).unwrap_or(u64::MAX);
    let floor_ms = state.header().time_ms.saturating_sub(grace);
    let mut up = state
        .nodes()
        .filter(|node| node.role == NodeRole::Data && node.state == NodeState::Up)
        .map(|node| node.id);
    // The same node while it is up, so that two passes seldom run concurrently.
    let node = up.next().ok_or_else(|| {
        Refusal::new(Reason::Unavailable, "no data node is up to run garbage collection")
            .retry_after(Duration::from_secs(1))
    })?;
    Ok((floor_ms, node))
}

/// Starts a pass on a data node.
pub(crate) async fn begin(
    control: &Control,
    state: &MetaState,
    retention: Retention,
    dry_run: bool,
    table_id: Option<u32>,
) -> Result<Streaming<GarbageEvent>, Refusal> {
    let (floor_ms, node) = floor_and_node(state, retention.grace)?;
    let hook_limits = hook_limits(state, retention);
    let (logged, unanswered_regions) = logged_versions(state, &list_replicas(control, state).await);
    let request = v1::SweepStoreRequest {
        floor_ms,
        dry_run,
        table_id,
        logged,
        unanswered_regions,
        ..hook_limits
    };
    control.sweep(node, request).await
}

/// Events of a pass.
pub(crate) type GarbageEvents =
    Pin<Box<dyn Stream<Item = Result<GarbageEvent, Status>> + Send + 'static>>;

/// Records the report of a pass that an operator has requested, as the events pass by.
pub(crate) fn recorded(
    events: Streaming<GarbageEvent>,
    observations: Arc<Observations>,
) -> GarbageEvents {
    let record = move |event: &Result<GarbageEvent, Status>| {
        if let Ok(GarbageEvent { report: Some(report), .. }) = event {
            observations.record_garbage(Ok(report), Instant::now());
        }
    };
    Box::pin(events.inspect(record))
}

/// Lists the regions of all replicas that can be reached.
async fn list_replicas(control: &Control, state: &MetaState) -> Vec<v1::RegionInfo> {
    let nodes = state.nodes().filter(|node| node.role == NodeRole::Data).map(|node| node.id);
    stream::iter(nodes.collect::<Vec<_>>())
        .map(|node| async move {
            control.list_regions(node).await.unwrap_or_else(|error| {
                tracing::debug!(%node, %error, "failed to list the regions of a node");
                Vec::new()
            })
        })
        .buffer_unordered(CONCURRENT_LISTS)
        .concat()
        .await
}

/// Returns the manifest versions that the replicas' logs have recorded, and the regions of the catalog
/// of which no replica answered. Pure.
fn logged_versions(
    state: &MetaState,
    replicas: &[v1::RegionInfo],
) -> (Vec<v1::LoggedVersion>, Vec<u64>) {
    let mut known = BTreeMap::new();
    for replica in replicas {
        let dir = (replica.region_id, replica.table_id, replica.incarnation);
        let version = known.entry(dir).or_insert(0);
        // A replica that lags knows an older version.
        *version = replica.logged_version.max(*version);
    }
    let answered: BTreeSet<u64> = known.keys().map(|(region, ..)| *region).collect();
    let unanswered = state.routes().map(|route| route.route_id.get());
    let unanswered = unanswered.filter(|region| !answered.contains(region)).collect();
    let logged = known.into_iter().map(|((region_id, table_id, incarnation), version)| {
        v1::LoggedVersion { table_id, region_id, incarnation, version }
    });
    (logged.collect(), unanswered)
}

/// Returns a request with the versions that durable hooks have received, and the limits for lagging
/// hooks. Pure.
fn hook_limits(state: &MetaState, retention: Retention) -> v1::SweepStoreRequest {
    let needs_deltas =
        |cursor: &&HookCursor| matches!(cursor.state, CursorState::Tail | CursorState::From);
    let regions = state.cursors().regions_from(RegionId(0)).map(|(region, cursors)| {
        let versions = cursors.filter(needs_deltas).map(|cursor| cursor.version.get()).collect();
        v1::KnownVersions { region_id: region.get(), versions }
    });
    let max_age_ms = u64::try_from(retention.hook_age.as_millis()).unwrap_or(u64::MAX);
    v1::SweepStoreRequest {
        known: regions.filter(|region| !region.versions.is_empty()).collect(),
        awaited_oldest_ms: state.header().time_ms.saturating_sub(max_age_ms),
        awaited_most: retention.hook_versions,
        ..v1::SweepStoreRequest::default()
    }
}

impl LeaderTerm {
    /// Collects garbage at intervals while this node leads.
    pub(super) async fn collect_garbage(&self, options: GarbageOptions) {
        let first = Instant::now() + options.interval;
        let mut ticks = interval_at(first, options.interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let recorder = Arc::clone(&self.events.recorder);
            let pass = RecordedPass::in_term(recorder);
            let outcome = self.run_garbage_pass(options.retention).await;
            pass.end(outcome.as_ref());
            self.observations.record_garbage(outcome.as_ref(), Instant::now());
            match outcome {
                Ok(report) => tracing::info!(
                    node = report.node_id,
                    deleted = report.deleted,
                    bytes = report.bytes,
                    failed = report.failed,
                    unreadable = report.unreadable.len(),
                    "garbage collection pass completed"
                ),
                Err(error) => {
                    tracing::warn!(%error, "garbage collection pass failed; retrying at the next interval");
                }
            }
        }
    }

    async fn run_garbage_pass(&self, retention: Retention) -> Result<v1::GarbageReport, Refusal> {
        let state = self.group.view.read();
        let mut events = begin(&self.control, &state, retention, false, None).await?;
        loop {
            let next = tokio::time::timeout(SILENCE, events.message()).await.map_err(|_| {
                let silence = SILENCE.as_secs();
                let text = format!("garbage collection reported no progress for {silence} s");
                Refusal::new(Reason::DeadlineExceeded, text)
            })?;
            match next.map_err(|status| Refusal::from_status(&status))? {
                Some(GarbageEvent { report: Some(report), .. }) => return Ok(report),
                Some(_) => {}
                None => {
                    let text = "garbage collection ended without a report";
                    return Err(Refusal::new(Reason::Unavailable, text));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use tidewater_proto::v1::meta_command::Kind;

    use super::*;
    use crate::commands::testing::{directory, run, table, with_groups};

    #[test]
    fn request_names_logged_versions_and_unanswered_regions() {
        let mut state = with_groups(1, 1);
        run(&mut state, Kind::CreateTable(table(1, "t"))).unwrap();
        run(&mut state, Kind::CreateTable(table(5, "u"))).unwrap();
        let replica = |node_id, logged_version| v1::RegionInfo {
            region_id: 1,
            table_id: 1,
            incarnation: 3,
            node_id,
            logged_version,
            ..v1::RegionInfo::default()
        };
        let (logged, unanswered) = logged_versions(&state, &[replica(101, 6), replica(102, 7)]);
        let newest = v1::LoggedVersion { table_id: 1, region_id: 1, incarnation: 3, version: 7 };
        assert_eq!((logged, unanswered), (vec![newest], vec![2]));
    }

    #[test]
    fn request_names_known_versions_of_hooks_by_region() {
        let mut state = with_groups(1, 1);
        run(&mut state, Kind::CreateTable(table(1, "t"))).unwrap();
        for (request, name, start, version) in [(2, "a", 2, 8), (3, "b", 1, 0), (4, "c", 2, 5)] {
            let hook = v1::AddHookRequest {
                request_id: directory(request),
                name: name.into(),
                kind: "jsonl".into(),
                config: "{}".into(),
                durable: true,
                start,
                version,
                ..v1::AddHookRequest::default()
            };
            run(&mut state, Kind::AddHook(hook)).unwrap();
        }
        run(&mut state, Kind::CreateTable(table(5, "u"))).unwrap();
        let hour = Duration::from_secs(3_600);
        let retention = Retention { grace: hour, hook_age: hour, hook_versions: 7 };
        let request = hook_limits(&state, retention);
        let known: Vec<(u64, Vec<u64>)> =
            request.known.into_iter().map(|region| (region.region_id, region.versions)).collect();
        // A hook that starts with a snapshot needs no delta.
        assert_eq!(known, [(1, vec![7, 4]), (2, vec![0, 0, 0])]);
        assert_eq!(request.awaited_most, 7);
        assert_eq!(request.awaited_oldest_ms, state.header().time_ms.saturating_sub(3_600_000));
    }
}
