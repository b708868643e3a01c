//! Garbage collection: when, up to which time, and on which data node.

use std::time::Duration;

use tidewater_common::ids::NodeId;
use tidewater_common::refusal::Refusal;
use tidewater_proto::v1::{self, GarbageEvent, NodeRole, NodeState, Reason};
use tokio::time::{MissedTickBehavior, interval_at};
use tonic::Streaming;

use super::Control;
use super::stewardship::Stewardship;
use crate::catalog::MetaState;

/// How long nothing may be heard of a pass; the node says every few seconds that it goes on.
const SILENCE: Duration = Duration::from_secs(60);

/// When garbage is collected.
#[derive(Debug, Clone, Copy)]
pub(crate) struct GarbageOptions {
    /// How often.
    pub(crate) every: Duration,
    /// What has been garbage for less stays.
    pub(crate) grace: Duration,
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
    grace: Duration,
    dry_run: bool,
    table_id: Option<u32>,
) -> Result<Streaming<GarbageEvent>, Refusal> {
    let (floor_ms, node) = floor_and_node(state, grace)?;
    let request = v1::SweepStoreRequest { header: None, floor_ms, dry_run, table_id };
    control.sweep(node, request).await
}

impl Stewardship {
    /// Collects garbage at intervals, as long as this node leads.
    pub(super) async fn collect_garbage(&self, options: GarbageOptions) {
        let first = tokio::time::Instant::now() + options.every;
        let mut turns = interval_at(first, options.every);
        turns.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            turns.tick().await;
            match self.pass(options.grace).await {
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

    async fn pass(&self, grace: Duration) -> Result<v1::GarbageReport, Refusal> {
        let state = self.group.view.frozen();
        let mut events = begin(&self.control, &state, grace, false, None).await?;
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
