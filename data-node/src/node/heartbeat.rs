//! Heartbeats to the meta service: liveness of the node and reports of its groups.

use std::sync::Arc;

use tidewater_common::clock::{Clock, ClusterClock};
use tidewater_common::feature_level::{FeatureLevel, Release, UnsupportedRelease};
use tidewater_common::ids::NodeId;
use tidewater_proto::v1::{GroupReport, HeartbeatRequest, NodeCondition, NodeRole, Reason};
use tidewater_raft_store::types::LogId;
use tidewater_region_engine::storage::Storage;
use tidewater_rpc::MetaLink;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::conditions::{Conditions, DiskSpace};
use super::handover::Handover;
use super::load_windows::LoadWindows;
use crate::group::replica::{GroupReplica, Leadership};
use crate::groups::Groups;
use crate::hooks::NodeHooks;
use crate::meters;
use crate::options::DataOptions;

/// Maximum lag, in log entries, of a learner that may be promoted.
const CAUGHT_UP: u64 = 1_000;

/// Runs until the node closes.
pub(super) async fn run(
    groups: Arc<Groups>,
    hooks: Arc<NodeHooks>,
    link: MetaLink,
    options: DataOptions,
    clock: Arc<ClusterClock>,
    closing: CancellationToken,
) {
    let mut handover = Handover::default();
    let mut conditions = Conditions::default();
    let mut loads = LoadWindows::new(Instant::now());
    let store = Storage::directory(&options.object_store);
    let disk = DiskSpace::new(options.disk_low, groups.context().directory.path(), store);
    tokio::spawn(disk.clone().run(closing.clone()));
    let mut ticks = tokio::time::interval(options.heartbeat);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut reachable = true;
    loop {
        tokio::select! {
            () = closing.cancelled() => return,
            _ = ticks.tick() => {}
        }
        meters::observe(&groups);
        groups.context().events.record_due_refusals();
        let reported = conditions.report(&groups, &disk, options.problems.list());
        let mut request = beat(&groups, &hooks, &clock, &options, reported);
        loads.report(&groups, &mut request.groups, Instant::now());
        let reply = tokio::select! {
            () = closing.cancelled() => return,
            reply = link.heartbeat(&request) => reply,
        };
        match reply {
            Ok(reply) => {
                loads.mark_sent();
                let node = groups.context();
                node.compactors.fleet.follow(node.node, &reply.compactors);
                clock.record(reply.replicated_ms, reply.clocks_ms);
                if let Err(problem) = follow_level(&node.cluster_level, reply.feature_level) {
                    groups.fail(problem.to_string());
                    return;
                }
                if clock.check().is_err() {
                    handover.start(&groups, reply.differing_clocks);
                }
                if !reachable {
                    tracing::info!("meta service accepts heartbeats again");
                }
                reachable = true;
            }
            Err(problem) if problem.reason == Reason::NodeRemoved => {
                groups.fail(format!("this node was removed from the cluster: {problem}"));
                return;
            }
            Err(problem) if problem.reason == Reason::ReleaseUnsupported => {
                groups.fail(format!("this node cannot run in the cluster: {problem}"));
                return;
            }
            Err(problem) if problem.reason == Reason::DirectoryCopied => {
                groups.fail(format!("this node was superseded: {problem}"));
                return;
            }
            Err(problem) if reachable => {
                reachable = false;
                warn!(
                    tried = link.addresses().join(", "),
                    reason = ?problem.reason,
                    %problem,
                    "meta service does not accept this node's heartbeats"
                );
            }
            Err(problem) => debug!(%problem, "heartbeat failed"),
        }
    }
}

/// Records the cluster's feature level, which never falls.
fn follow_level(
    known: &watch::Sender<FeatureLevel>,
    reported: u32,
) -> Result<(), UnsupportedRelease> {
    let level = FeatureLevel::new(reported);
    Release::own().check(level)?;
    known.send_if_modified(|known| {
        let is_raised = level > *known;
        *known = level.max(*known);
        is_raised
    });
    Ok(())
}

fn beat(
    groups: &Groups,
    hooks: &NodeHooks,
    clock: &ClusterClock,
    options: &DataOptions,
    conditions: Vec<NodeCondition>,
) -> HeartbeatRequest {
    let node = groups.context();
    HeartbeatRequest {
        cluster_id: node.cluster.to_string(),
        node_id: node.node.get(),
        role: NodeRole::Data.into(),
        address: options.advertise.clone(),
        groups: groups.all().iter().map(|replica| report(replica)).collect(),
        problems: conditions.iter().map(|condition| condition.detail.clone()).collect(),
        hooks: hooks.reports(),
        compactor: None,
        clock_ms: clock.wall_ms(),
        boot: node.directory.boot().get(),
        conditions,
        release: Some((&Release::own()).into()),
    }
}

fn report(replica: &GroupReplica) -> GroupReport {
    // An uncommitted membership may never become one: nothing is decided on it. Memberships are read
    // first, so that term and log are not older.
    let membership = replica.committed_membership();
    let position = |id: &Option<LogId>| id.map_or((0, 0), |id| (id.leader_id.term, id.index));
    let id = position(membership.log_id());
    let effective = position(replica.membership().log_id());
    let leadership = replica.leadership();
    let has_members = membership.membership().voter_ids().next().is_some();
    let leader = reported_leader(&leadership, has_members, || replica.has_quorum());
    let (last, applied) = replica.positions();
    let caught_up = if leadership.is_leader { replica.caught_up(CAUGHT_UP) } else { Vec::new() };
    GroupReport {
        group_id: replica.group().get(),
        term: leadership.term,
        leader: leader.map_or(0, NodeId::get),
        last_log_index: last.get(),
        applied_index: applied.get(),
        voters: membership.membership().voter_ids().collect(),
        learners: membership.membership().learner_ids().collect(),
        membership_term: id.0,
        membership_index: id.1,
        caught_up: caught_up.into_iter().map(NodeId::get).collect(),
        effective_term: effective.0,
        effective_index: effective.1,
        load: None,
    }
}

/// Returns the leader that a replica reports. A leader without a quorum remains leader until it learns of a later one,
/// but cannot serve. The first leader of a group serves after it has committed the first membership.
fn reported_leader(
    leadership: &Leadership,
    has_members: bool,
    has_quorum: impl FnOnce() -> bool,
) -> Option<NodeId> {
    leadership.leader.filter(|_| has_members && (!leadership.is_leader || has_quorum()))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use tidewater_raft_store::Member;
    use tidewater_raft_store::types::{EntryPayload, Membership};

    use super::*;
    use crate::groups::tests::{GROUP, NODE, members, node, stop, until};

    #[test]
    fn level_of_the_cluster_never_falls() {
        let known = watch::Sender::default();
        let mut changes = known.subscribe();
        let highest = FeatureLevel::HIGHEST.get();
        for (reported, expected, is_raised) in [
            (0, 1, false),
            (highest, highest, true),
            (highest, highest, false),
            (1, highest, false),
        ] {
            follow_level(&known, reported).unwrap();
            assert_eq!(changes.has_changed().unwrap(), is_raised, "{reported}");
            assert_eq!(*changes.borrow_and_update(), FeatureLevel::new(expected), "{reported}");
        }
        assert!(follow_level(&known, FeatureLevel::HIGHEST.next().get()).is_err());
        assert_eq!(*changes.borrow(), FeatureLevel::HIGHEST);
    }

    #[test]
    fn leader_is_reported_with_members_and_quorum() {
        let led = |leader: Option<u64>, is_leader| Leadership {
            term: 2,
            leader: leader.map(NodeId),
            is_leader,
        };
        for (leadership, has_members, has_quorum, expected) in [
            (led(Some(101), true), true, true, true),
            (led(Some(101), true), true, false, false),
            (led(Some(101), true), false, true, false),
            (led(Some(101), false), true, false, true),
            (led(Some(101), false), false, false, false),
            (led(None, false), true, true, false),
        ] {
            let reported = reported_leader(&leadership, has_members, || has_quorum);
            assert_eq!(reported.is_some(), expected, "{leadership:?} {has_members} {has_quorum}");
        }
    }

    // A replica that a change removes would be stopped on it, and the change may never be committed.
    #[tokio::test(flavor = "multi_thread")]
    async fn heartbeat_reports_committed_members() {
        let folder = tempfile::tempdir().unwrap();
        let groups = node(folder.path());
        let replica = groups.start(GROUP).await.unwrap();
        groups.initialize(&replica, members()).await.unwrap();
        until("the first members are committed", async || !report(&replica).voters.is_empty())
            .await;
        let before = report(&replica);
        let mut nodes = members();
        nodes.insert(102, Member::new("127.0.0.1:1"));
        let voters = [BTreeSet::from([NODE.get()]), BTreeSet::from([NODE.get(), 102])];
        let joint = Membership::new(voters.to_vec(), nodes).unwrap();
        let raft = replica.raft.clone();
        let change = async move { raft.append_membership(joint, EntryPayload::Blank, []).await };
        let changing = tokio::spawn(change);
        until("the change is in the log", async || {
            report(&replica).effective_index > before.effective_index
        })
        .await;
        let during = report(&replica);
        assert_eq!(during.voters, before.voters);
        assert_eq!(during.membership_index, before.membership_index);
        changing.abort();
        drop(replica);
        stop(groups).await;
    }
}
