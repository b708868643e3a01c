//! Garbage collection: when, up to which time, and on which data node.

use std::time::Duration;

use tidewater_common::ids::{NodeId, RegionId};
use tidewater_common::refusal::Refusal;
use tidewater_proto::v1::{self, CursorState, GarbageEvent, NodeRole, NodeState, Reason};
use tokio::time::{MissedTickBehavior, interval_at};
use tonic::Streaming;

use super::Control;
use super::stewardship::Stewardship;
use crate::catalog::{Cursor, MetaState};

/// How long nothing may be heard of a pass; the node says every few seconds that it goes on.
const SILENCE: Duration = Duration::from_secs(60);

/// What is not collected yet.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Retention {
    /// What has been garbage for less stays.
    pub(crate) grace: Duration,
    /// How long what a durable hook has still to be told is kept.
    pub(crate) hook_age: Duration,
    /// Versions that a durable hook may be behind.
    pub(crate) hook_versions: u64,
}

/// When garbage is collected.
#[derive(Debug, Clone, Copy)]
pub(crate) struct GarbageOptions {
    /// How often.
    pub(crate) every: Duration,
    /// What stays.
    pub(crate) retention: Retention,
}

/// Up to when, and where: pure.
pub(crate) fn floor_and_node(state: &MetaState, grace: Duration) -> Result<(u64, NodeId), Refusal> {
    let grace = u64::try_from(grace.as_millis()).unwrap_or(u64::MAX);
    let floor_ms = state.header().time_ms.saturating_sub(grace);
    let mut up = state
        .nodes()
        .filter(|node| node.role == NodeRole::Data && node.state == NodeState::Up)
        .map(|node| node.id);
    // One and the same as long as it lives, so that two passes seldom meet.
    let node = up.next().ok_or_else(|| {
        Refusal::new(Reason::Unavailable, "no data node is up to collect garbage")
            .retry_after(Duration::from_secs(1))
    })?;
    Ok((floor_ms, node))
}

/// Asks a data node for a pass.
pub(crate) async fn begin(
    control: &Control,
    state: &MetaState,
    retention: Retention,
    dry_run: bool,
    table_id: Option<u32>,
) -> Result<Streaming<GarbageEvent>, Refusal> {
    let (floor_ms, node) = floor_and_node(state, retention.grace)?;
    let awaited = awaited(state, retention);
    control.sweep(node, v1::SweepStoreRequest { floor_ms, dry_run, table_id, ..awaited }).await
}

/// What durable hooks know of each region, and how long they are waited for: pure.
fn awaited(state: &MetaState, retention: Retention) -> v1::SweepStoreRequest {
    let waits = |cursor: &&Cursor| matches!(cursor.state, CursorState::Tail | CursorState::From);
    let regions = state.cursors().regions_from(RegionId(0)).map(|(region, cursors)| {
        let versions = cursors.filter(waits).map(|cursor| cursor.version.get()).collect();
        v1::KnownVersions { region_id: region.get(), versions }
    });
    let kept = u64::try_from(retention.hook_age.as_millis()).unwrap_or(u64::MAX);
    v1::SweepStoreRequest {
        known: regions.filter(|region| !region.versions.is_empty()).collect(),
        awaited_oldest_ms: state.header().time_ms.saturating_sub(kept),
        awaited_most: retention.hook_versions,
        ..v1::SweepStoreRequest::default()
    }
}

impl Stewardship {
    /// Collects garbage at intervals, as long as this node leads.
    pub(super) async fn collect_garbage(&self, options: GarbageOptions) {
        let first = tokio::time::Instant::now() + options.every;
        let mut turns = interval_at(first, options.every);
        turns.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            turns.tick().await;
            match self.pass(options.retention).await {
                Ok(report) => tracing::info!(
                    node = report.node_id,
                    deleted = report.deleted,
                    bytes = report.bytes,
                    failed = report.failed,
                    unreadable = report.unreadable.len(),
                    "garbage collected"
                ),
                Err(error) => {
                    tracing::warn!(%error, "garbage was not collected; the next turn tries again");
                }
            }
        }
    }

    async fn pass(&self, retention: Retention) -> Result<v1::GarbageReport, Refusal> {
        let state = self.group.view.frozen();
        let mut events = begin(&self.control, &state, retention, false, None).await?;
        loop {
            let next = tokio::time::timeout(SILENCE, events.message()).await.map_err(|_| {
                Refusal::new(Reason::DeadlineExceeded, "nothing was heard of the pass for a minute")
            })?;
            match next.map_err(|status| Refusal::from_status(&status))? {
                Some(GarbageEvent { report: Some(report), .. }) => return Ok(report),
                Some(_) => {}
                None => {
                    return Err(Refusal::new(Reason::Unavailable, "the pass ended without a word"));
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
    fn what_hooks_that_are_told_deltas_know_is_named_by_region() {
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
        let asked = awaited(&state, retention);
        let known: Vec<(u64, Vec<u64>)> =
            asked.known.into_iter().map(|one| (one.region_id, one.versions)).collect();
        // One that begins with a snapshot needs no delta.
        assert_eq!(known, [(1, vec![7, 4]), (2, vec![0, 0, 0])]);
        assert_eq!(asked.awaited_most, 7);
        assert_eq!(asked.awaited_oldest_ms, state.header().time_ms.saturating_sub(3_600_000));
    }
}
