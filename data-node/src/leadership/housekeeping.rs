//! Work of every replica, leader or follower: takes a snapshot after enough bytes of log, purges the
//! log that it covers, and requests flushes from the owner when memory is short. The leader also
//! completes membership changes that were interrupted.

use std::time::Duration;

use openraft::async_runtime::WatchReceiver;
use tidewater_common::ids::{LogIndex, NodeId};
use tidewater_raft_store::membership::JointMembershipFinisher;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tracing::{debug, warn};

use super::OwnerContext;
use crate::group::shared::ReplicaState;
use crate::owner_request::OwnerRequest;
use crate::peers::Peers;

const TICK: Duration = Duration::from_secs(1);
/// Interval in seconds at which each manifest is read again. An owner may die right after a commit,
/// before the log advances to it: such a commit must be found long before garbage collection deletes
/// the files that it replaced.
const REREAD_INTERVAL: u64 = 600;
/// Limit for which a leader's flushes may delay a snapshot that is due.
const MAX_FLUSH_DELAY: Duration = Duration::from_secs(20);
/// Bytes of a snapshot that is worth replacing by a much smaller one.
const LARGE_SNAPSHOT: u64 = 64 * 1024 * 1024;
/// Shortest time between two snapshots that are taken to be smaller than the last.
const SHRINK_INTERVAL: Duration = Duration::from_secs(30);

/// Runs until the replica stops.
pub async fn run(
    context: OwnerContext,
    snapshot_bytes: u64,
    peers: Peers,
    requests: mpsc::Sender<OwnerRequest>,
) {
    let shared = context.shared.clone();
    let mut tick = tokio::time::interval(TICK);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut due_since = None;
    let mut shrunk = None;
    let mut unfinished = JointMembershipFinisher::default();
    let mut second = 0;
    loop {
        tokio::select! {
            () = shared.stopping.cancelled() => return,
            _ = tick.tick() => {
                second += 1;
                reload_manifests(&shared, second);
            }
            () = shared.housekeeping.notified() => {}
        }
        let excess = group_excess(&shared);
        if excess > 0 && !shared.leads() {
            request_flush(&context, &peers, excess).await;
        }
        snapshot_if_due(&context, snapshot_bytes, &requests, &mut due_since).await;
        shrink_snapshot(&context, &mut shrunk).await;
        purge(&context).await;
        unfinished.finish(shared.group, &context.raft).await;
    }
}

/// Schedules the manifests that are due in this second: all within [`REREAD_INTERVAL`], not all in the
/// same second.
fn reload_manifests(shared: &ReplicaState, second: u64) {
    for hosted in shared.regions.all() {
        let region = hosted.descriptor.region_id;
        if region.get() % REREAD_INTERVAL == second % REREAD_INTERVAL {
            shared.targets.reload(region);
        }
    }
}

/// Returns the bytes of the node's excess memory that this group can free: at most all that it holds.
fn group_excess(shared: &ReplicaState) -> u64 {
    let excess = shared.memory().excess();
    if excess == 0 {
        return 0;
    }
    let regions = shared.regions.all();
    excess.min(regions.iter().map(|hosted| hosted.region.stats().memtable_bytes).sum())
}

async fn request_flush(context: &OwnerContext, peers: &Peers, excess: u64) {
    let leader = context.raft.server_metrics().borrow_watched().current_leader.map(NodeId);
    let Some(leader) = leader.filter(|leader| *leader != context.shared.node) else { return };
    if let Err(problem) = peers.request_flush(leader, context.shared.group, excess).await {
        debug!(group = %context.shared.group, %leader, %problem, "failed to request a flush from the owner");
    }
}

/// Takes a snapshot if one is due. A leader flushes large memtables first, so that the snapshot stays
/// small; a follower's runs are dropped when the owner flushes.
async fn snapshot_if_due(
    context: &OwnerContext,
    snapshot_bytes: u64,
    requests: &mpsc::Sender<OwnerRequest>,
    due_since: &mut Option<Instant>,
) {
    let shared = &context.shared;
    if shared.log_bytes.lock().since_snapshot() < snapshot_bytes {
        *due_since = None;
        return;
    }
    if shared.leads() {
        let first = due_since.is_none();
        let since = *due_since.get_or_insert_with(Instant::now);
        if first {
            // A full queue means that flushes have been requested already.
            let _ = requests.try_send(OwnerRequest::FlushLarge);
        }
        let min_bytes = context.flush_policy.min_bytes;
        let regions = shared.regions.all();
        let some_large =
            regions.iter().any(|hosted| hosted.region.stats().memtable_bytes >= min_bytes);
        if some_large && since.elapsed() < MAX_FLUSH_DELAY {
            return;
        }
    }
    *due_since = None;
    if let Err(error) = context.raft.trigger().snapshot().await {
        warn!(group = %shared.group, %error, "failed to start a snapshot");
    }
}

/// Replaces a large snapshot when its rows were flushed: it would keep the log before it and its file on
/// the disk until the next `snapshot_bytes` of log.
async fn shrink_snapshot(context: &OwnerContext, last: &mut Option<Instant>) {
    let shared = &context.shared;
    let regions = shared.regions.all();
    let memtables = regions.iter().map(|hosted| hosted.region.stats().memtable_bytes).sum();
    let has_changed = shared.log_bytes.lock().since_snapshot() > 0;
    if !has_changed
        || !is_outgrown(shared.snapshot_length(), memtables)
        || last.is_some_and(|last| last.elapsed() < SHRINK_INTERVAL)
    {
        return;
    }
    *last = Some(Instant::now());
    if let Err(error) = context.raft.trigger().snapshot().await {
        warn!(group = %shared.group, %error, "failed to start a smaller snapshot");
    }
}

/// Returns whether a new snapshot would be much smaller than the current one.
fn is_outgrown(snapshot_length: u64, memtable_bytes: u64) -> bool {
    snapshot_length >= LARGE_SNAPSHOT && memtable_bytes <= snapshot_length / 4
}

/// Purges the log up to the last snapshot, except for the tail that followers may need.
async fn purge(context: &OwnerContext) {
    let (snapshot, purged) = {
        let metrics = context.raft.data_metrics();
        let metrics = metrics.borrow_watched();
        (metrics.snapshot.map(|id| id.index), metrics.purged.map_or(0, |id| id.index))
    };
    let Some(snapshot) = snapshot else { return };
    let upto = context.shared.log_bytes.lock().purge_up_to(LogIndex(snapshot));
    let Some(upto) = upto.filter(|upto| upto.get() > purged) else { return };
    if let Err(error) = context.raft.trigger().purge_log(upto.get()).await {
        warn!(group = %context.shared.group, %error, "failed to purge the log");
    }
}

#[cfg(test)]
mod tests {
    use tidewater_common::ids::{Epoch, Sequence};
    use tidewater_region_engine::storage::Storage;
    use tidewater_region_engine::{Region, RowOp, RowsWrite};

    use super::*;
    use crate::group::testing::{batch, host, shared};

    fn fill(region: &Region) -> u64 {
        let batch = batch(&(0..200).collect::<Vec<i64>>());
        let write =
            RowsWrite { sequence: Sequence(65_536), epoch: Epoch(0), op: RowOp::Put, batch };
        region.apply(write).unwrap();
        region.stats().memtable_bytes
    }

    #[test]
    fn large_snapshot_of_flushed_rows_is_outgrown() {
        let mib = |count: u64| count << 20;
        assert!(is_outgrown(mib(64), 0));
        assert!(is_outgrown(mib(256), mib(64)));
        assert!(!is_outgrown(mib(256), mib(65)));
        assert!(!is_outgrown(mib(63), 0));
    }

    #[test]
    fn group_frees_at_most_its_own_rows() {
        let ours = shared(Storage::memory(), 5_000);
        assert_eq!(group_excess(&ours), 0);
        let first = fill(&host(&ours, 7));
        assert!(first > 2_500 && first < 5_000, "{first}");
        assert_eq!(group_excess(&ours), 0);
        fill(&host(&ours, 8));
        assert_eq!(group_excess(&ours), 2 * first - 5_000);
        // Another group of the node: its rows count in the same budget.
        let other = ReplicaState::new(
            tidewater_common::ids::GroupId(6),
            ours.node,
            ours.env.clone(),
            tidewater_hook_kinds::EventTables::default(),
            1 << 20,
        );
        for id in 1..=3 {
            fill(&host(&other, id));
        }
        assert_eq!(ours.memory().excess(), 5 * first - 5_000);
        assert_eq!(group_excess(&ours), 2 * first);
        assert_eq!(group_excess(&other), 3 * first);
    }
}
