//! The groups of all stub nodes, in one place.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tidewater_common::ids::{GroupId, NodeId, RegionId};
use tidewater_common::refusal::{Leader, Refusal};
use tidewater_proto::v1::{GroupReport, ProcedureStep, Reason};
use tidewater_rpc::AddressBook;
use uuid::Uuid;

use super::barrier_log::BarrierLog;
use super::counters::StubCounters;
use super::group::{GroupError, MemberChange, StubGroup, StubRegion};

/// Wait that a node suggests while a group has no leader.
const ELECTION: Duration = Duration::from_millis(300);

/// Groups with their regions, and the nodes that run. All stub nodes of a process share it.
#[derive(Debug)]
pub struct StubWorld {
    state: Mutex<WorldState>,
    delay_ms: AtomicU64,
    /// Addresses of all nodes of the catalog: one book for all watches, which see the same catalog.
    pub(super) book: AddressBook,
    /// Id of the object store that the nodes register with.
    pub(super) object_store: Uuid,
    /// Counters.
    pub counters: StubCounters,
    /// Barriers that the nodes have received.
    pub barriers: BarrierLog,
}

#[derive(Debug, Default)]
struct WorldState {
    groups: BTreeMap<GroupId, StubGroup>,
    hosted: BTreeMap<NodeId, BTreeSet<GroupId>>,
    running: BTreeSet<NodeId>,
    addresses: BTreeMap<NodeId, String>,
}

impl StubWorld {
    pub(super) fn new() -> Self {
        Self {
            state: Mutex::default(),
            delay_ms: AtomicU64::new(0),
            book: AddressBook::new(),
            object_store: Uuid::new_v4(),
            counters: StubCounters::default(),
            barriers: BarrierLog::default(),
        }
    }

    /// Delays the answers of all nodes to calls of the meta leader and of clients.
    pub fn set_delay(&self, delay: Duration) {
        let delay_ms = u64::try_from(delay.as_millis()).unwrap_or(u64::MAX);
        self.delay_ms.store(delay_ms, Ordering::Relaxed);
    }

    pub(super) fn delay(&self) -> Duration {
        Duration::from_millis(self.delay_ms.load(Ordering::Relaxed))
    }

    /// Number of groups with a leader that runs.
    pub fn led_groups(&self) -> usize {
        let state = self.state.lock();
        let leaders = state.groups.values().filter_map(|group| group.view().leader);
        leaders.filter(|leader| state.running.contains(leader)).count()
    }

    /// Number of regions.
    pub fn regions(&self) -> usize {
        self.state.lock().groups.values().map(|group| group.regions().count()).sum()
    }

    pub(super) fn set_running(&self, node: NodeId, address: &str, running: bool) {
        let mut state = self.state.lock();
        state.addresses.insert(node, address.to_owned());
        if running {
            state.running.insert(node);
        } else {
            state.running.remove(&node);
        }
    }

    /// Elects leaders of the groups whose leaders do not run; returns the number of elections.
    pub(super) fn elect(&self) -> usize {
        let mut state = self.state.lock();
        let WorldState { groups, running, .. } = &mut *state;
        groups.values_mut().filter_map(|group| group.elect(None, running).then_some(())).count()
    }

    /// Reports of all groups that a node hosts, as its heartbeat has them.
    pub(super) fn reports(&self, node: NodeId) -> Vec<GroupReport> {
        let state = self.state.lock();
        let hosted = state.hosted.get(&node).into_iter().flatten();
        hosted
            .filter_map(|id| Some(report(*id, state.groups.get(id)?, node, &state.running)))
            .collect()
    }

    /// Groups that a node leads.
    pub(super) fn led_by(&self, node: NodeId) -> Vec<GroupId> {
        let state = self.state.lock();
        let hosted = state.hosted.get(&node).into_iter().flatten();
        let leads = |id: &&GroupId| state.groups.get(id).is_some_and(|group| group.is_led_by(node));
        hosted.filter(leads).copied().collect()
    }

    /// Regions of the groups that a node hosts, with their group and whether the node leads it.
    pub(super) fn regions_of(&self, node: NodeId) -> Vec<(GroupId, RegionId, StubRegion, bool)> {
        let state = self.state.lock();
        let hosted = state.hosted.get(&node).into_iter().flatten();
        let groups = hosted.filter_map(|id| Some((*id, state.groups.get(id)?)));
        groups
            .flat_map(|(id, group)| {
                let leads = group.is_led_by(node);
                group.regions().map(move |(region, known)| (id, region, known, leads))
            })
            .collect()
    }

    /// Starts a replica, and the group with its first membership.
    pub(super) fn start(&self, node: NodeId, id: GroupId, members: &[NodeId], initialize: bool) {
        let mut state = self.state.lock();
        state.hosted.entry(node).or_default().insert(id);
        let WorldState { groups, running, .. } = &mut *state;
        let group = groups.entry(id).or_default();
        group.host(node);
        if initialize {
            group.initialize(members);
            group.elect(Some(node), running);
        }
    }

    /// Stops a replica.
    pub(super) fn stop(&self, node: NodeId, id: GroupId, abandoned: bool) -> Result<(), Refusal> {
        let mut state = self.state.lock();
        let Some(group) = state.groups.get_mut(&id) else { return Ok(()) };
        let stopped = group.stop(node, abandoned);
        if stopped.is_ok()
            && let Some(hosted) = state.hosted.get_mut(&node)
        {
            hosted.remove(&id);
        }
        stopped.map_err(|error| state.refusal(id, error))
    }

    pub(super) fn change_membership(
        &self,
        node: NodeId,
        id: GroupId,
        on: (u64, u64),
        change: MemberChange,
    ) -> Result<(u64, u64), Refusal> {
        self.at(node, id, |group, running| group.change_membership(node, on, change, running))
    }

    pub(super) fn transfer(&self, node: NodeId, id: GroupId, to: NodeId) -> Result<(), Refusal> {
        self.at(node, id, |group, running| group.transfer(node, to, running))
    }

    pub(super) fn open(
        &self,
        node: NodeId,
        id: GroupId,
        region: RegionId,
        opened: StubRegion,
    ) -> Result<(), Refusal> {
        self.at(node, id, |group, running| group.open(node, region, opened, running))
    }

    /// Begins an epoch in a group; returns the epoch of the group.
    pub(super) fn begin_epoch(
        &self,
        node: NodeId,
        id: GroupId,
        barrier: (u64, u64),
    ) -> Result<u64, Refusal> {
        self.at(node, id, |group, running| group.begin_epoch(node, barrier, running))
    }

    pub(super) fn apply_step(
        &self,
        node: NodeId,
        id: GroupId,
        region: RegionId,
        step: (Option<&ProcedureStep>, Option<u32>),
    ) -> Result<(), Refusal> {
        self.at(node, id, |group, running| group.apply_step(node, region, step, running))
    }

    pub(super) fn drop_region(
        &self,
        node: NodeId,
        id: GroupId,
        region: RegionId,
    ) -> Result<(), Refusal> {
        self.at(node, id, |group, running| group.drop_region(node, region, running))
    }

    pub(super) fn require_leader(&self, node: NodeId, id: GroupId) -> Result<(), Refusal> {
        self.at(node, id, |group, _| group.require_leader(node))
    }

    pub(super) fn write(
        &self,
        node: NodeId,
        id: GroupId,
        region: RegionId,
    ) -> Result<(u64, StubRegion), Refusal> {
        self.at(node, id, |group, running| group.write(node, region, running))
    }

    /// Calls a group at the replica of a node.
    fn at<T>(
        &self,
        node: NodeId,
        id: GroupId,
        call: impl FnOnce(&mut StubGroup, &BTreeSet<NodeId>) -> Result<T, GroupError>,
    ) -> Result<T, Refusal> {
        let mut state = self.state.lock();
        if !state.hosted.get(&node).is_some_and(|hosted| hosted.contains(&id)) {
            let text = format!("node {node} hosts no replica of group {id}");
            return Err(Refusal::new(Reason::GroupNotHosted, text));
        }
        let WorldState { groups, running, .. } = &mut *state;
        let called = call(groups.entry(id).or_default(), running);
        called.map_err(|error| state.refusal(id, error))
    }
}

impl WorldState {
    /// The RPC error that a data node would return.
    fn refusal(&self, group: GroupId, error: GroupError) -> Refusal {
        let reason = match error {
            GroupError::NotLeader(_) => Reason::NotLeader,
            GroupError::NoQuorum => Reason::DeadlineExceeded,
            GroupError::MembershipStale => Reason::MembershipStale,
            GroupError::NotCaughtUp(_) => Reason::MembershipBusy,
            GroupError::RegionNotFound(_) => Reason::RegionNotFound,
            GroupError::RegionDropped(_) => Reason::InvalidArgument,
        };
        let refusal = Refusal::new(reason, format!("group {group}: {error}"));
        match error {
            GroupError::NotLeader(Some(node)) if self.running.contains(&node) => {
                let address = self.addresses.get(&node).cloned().unwrap_or_default();
                refusal.leader(Some(Leader { node_id: node, address }))
            }
            GroupError::NotLeader(_) => refusal.retry_after(ELECTION),
            _ => refusal,
        }
    }
}

fn report(id: GroupId, group: &StubGroup, node: NodeId, running: &BTreeSet<NodeId>) -> GroupReport {
    let view = group.view();
    let caught_up = if group.is_led_by(node) { group.caught_up(running) } else { Vec::new() };
    GroupReport {
        group_id: id.get(),
        term: view.term,
        leader: view.leader.map_or(0, NodeId::get),
        last_log_index: view.last_index,
        applied_index: view.last_index,
        voters: view.voters,
        learners: view.learners,
        membership_term: view.membership.0,
        membership_index: view.membership.1,
        caught_up,
        effective_term: view.membership.0,
        effective_index: view.membership.1,
        load: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_follow_the_groups_of_a_node() {
        let world = StubWorld::new();
        let members = [NodeId(101), NodeId(102), NodeId(103)];
        for node in members {
            world.set_running(node, &format!("127.0.0.1:{node}"), true);
        }
        let group = GroupId(5);
        world.start(NodeId(102), group, &members, false);
        assert_eq!(world.reports(NodeId(102))[0].leader, 0);
        world.start(NodeId(103), group, &members, false);
        world.start(NodeId(101), group, &members, true);
        let reported = world.reports(NodeId(102));
        assert_eq!((reported[0].leader, reported[0].voters.len()), (101, 3));
        assert_eq!((world.led_groups(), world.led_by(NodeId(101))), (1, vec![group]));
        assert!(world.reports(NodeId(104)).is_empty());

        world.set_running(NodeId(101), "127.0.0.1:101", false);
        assert_eq!(world.led_groups(), 0);
        assert_eq!(world.elect(), 1);
        assert_eq!(world.led_by(NodeId(102)), [group]);
        let refusal = world.require_leader(NodeId(103), group).unwrap_err();
        assert_eq!(refusal.reason, Reason::NotLeader);
        assert_eq!(refusal.leader.unwrap().address, "127.0.0.1:102");
        let refusal = world.require_leader(NodeId(104), group).unwrap_err();
        assert_eq!(refusal.reason, Reason::GroupNotHosted);
    }
}
