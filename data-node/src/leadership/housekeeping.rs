//! What every replica does, leading or not: snapshots when enough log has come together, purging
//! what they cover, and asking the owner to flush when memory is short. Whoever leads also finishes
//! changes of members that were cut off.

use std::time::Duration;

use openraft::async_runtime::WatchReceiver;
use tidewater_common::ids::{LogIndex, NodeId};
use tidewater_raft_store::membership::JointMembershipFinisher;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tracing::{debug, warn};

use super::{Context, FlushRequest};
use crate::group::shared::Shared;
use crate::peers::Peers;

const TICK: Duration = Duration::from_secs(1);
/// Seconds after which each manifest is read again: a commit of which the log was never told, by an
/// owner that died right after it, must be seen long before garbage collection deletes what it
/// replaced.
const REREAD: u64 = 600;
/// How long a leader's flushes may hold up a snapshot that is due.
const FLUSH_FIRST: Duration = Duration::from_secs(20);

/// Runs until the replica stops.
pub async fn run(
    context: Context,
    snapshot_bytes: u64,
    peers: Peers,
    requests: mpsc::Sender<FlushRequest>,
) {
    let shared = context.shared.clone();
    let mut tick = tokio::time::interval(TICK);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut due_since = None;
    let mut unfinished = JointMembershipFinisher::default();
    let mut second = 0;
    loop {
        tokio::select! {
            () = shared.stopping.cancelled() => return,
            _ = tick.tick() => {
                second += 1;
                reread(&shared, second);
            }
            () = shared.housekeeping.notified() => {}
        }
        let over = over(&shared);
        if over > 0 && !shared.leads() {
            ask_owner(&context, &peers, over).await;
        }
        snapshot_if_due(&context, snapshot_bytes, &requests, &mut due_since).await;
        purge(&context).await;
        unfinished.finish(shared.group, &context.raft).await;
    }
}

/// Has the manifests read whose turn it is: all within [`REREAD`] seconds, not at once.
fn reread(shared: &Shared, second: u64) {
    for hosted in shared.regions.all() {
        let region = hosted.descriptor.region_id;
        if region.get() % REREAD == second % REREAD {
            shared.targets.reload(region);
        }
    }
}

/// What this group can do about the node being short of memory: its part, at most all of it.
fn over(shared: &Shared) -> u64 {
    let excess = shared.memory().excess();
    if excess == 0 {
        return 0;
    }
    let regions = shared.regions.all();
    excess.min(regions.iter().map(|hosted| hosted.region.stats().memtable_bytes).sum())
}

async fn ask_owner(context: &Context, peers: &Peers, over: u64) {
    let leader = context.raft.server_metrics().borrow_watched().current_leader.map(NodeId);
    let Some(leader) = leader.filter(|leader| *leader != context.shared.node) else { return };
    if let Err(problem) = peers.request_flush(leader, context.shared.group, over).await {
        debug!(group = %context.shared.group, %leader, %problem, "the owner was not asked to flush");
    }
}

/// A leader flushes large memtables first, so that the snapshot stays small; a follower's runs are
/// dropped when the owner flushes.
async fn snapshot_if_due(
    context: &Context,
    snapshot_bytes: u64,
    requests: &mpsc::Sender<FlushRequest>,
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
            // A full queue means that flushes are asked for already.
            let _ = requests.try_send(FlushRequest::Large);
        }
        let large = shared
            .regions
            .all()
            .iter()
            .any(|hosted| hosted.region.stats().memtable_bytes >= context.policy.worth);
        if large && since.elapsed() < FLUSH_FIRST {
            return;
        }
    }
    *due_since = None;
    if let Err(error) = context.raft.trigger().snapshot().await {
        warn!(group = %shared.group, %error, "a snapshot could not be begun");
    }
}

/// Purges what the last snapshot covers, but for the tail that followers may need.
async fn purge(context: &Context) {
    let (snapshot, purged) = {
        let metrics = context.raft.data_metrics();
        let metrics = metrics.borrow_watched();
        (metrics.snapshot.map(|id| id.index), metrics.purged.map_or(0, |id| id.index))
    };
    let Some(snapshot) = snapshot else { return };
    let upto = context.shared.log_bytes.lock().purge_up_to(LogIndex(snapshot));
    let Some(upto) = upto.filter(|upto| upto.get() > purged) else { return };
    if let Err(error) = context.raft.trigger().purge_log(upto.get()).await {
        warn!(group = %context.shared.group, %error, "the log could not be purged");
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
        let (sequence, op) = (Sequence(65_536), RowOp::Put);
        region.apply(RowsWrite { sequence, epoch: Epoch(0), op, batch }).unwrap();
        region.stats().memtable_bytes
    }

    #[test]
    fn a_group_asks_for_what_is_over_and_at_most_for_all_that_it_holds() {
        let ours = shared(Storage::memory(), 5_000);
        assert_eq!(over(&ours), 0);
        let first = fill(&host(&ours, 7));
        assert!(first > 2_500 && first < 5_000, "{first}");
        assert_eq!(over(&ours), 0);
        fill(&host(&ours, 8));
        assert_eq!(over(&ours), 2 * first - 5_000);
        // Another group of the node, whose rows count in the same budget.
        let other =
            Shared::new(tidewater_common::ids::GroupId(6), ours.node, ours.env.clone(), 1 << 20);
        for id in 1..=3 {
            fill(&host(&other, id));
        }
        assert_eq!(ours.memory().excess(), 5 * first - 5_000);
        assert_eq!(over(&ours), 2 * first);
        assert_eq!(over(&other), 3 * first);
    }
}
