//! What heartbeats said, and when: the leader's view of nodes and groups. In memory only.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use parking_lot::Mutex;
use tidewater_common::ids::{GroupId, LogIndex, NodeId, TableId, Term};
use tidewater_proto::v1;
use tokio::sync::Notify;
use tokio::time::Instant;

/// Hooks of one heartbeat that are looked at.
const MOST_HOOKS: usize = 1_000;

/// What a node's heartbeats said.
#[derive(Debug, Clone, Default)]
struct Seen {
    at: Option<Instant>,
    hosted: BTreeMap<GroupId, Instant>,
    problems: Vec<String>,
    hooks: Vec<v1::HookReport>,
    address: String,
    compactor: Option<v1::CompactorLoad>,
}

/// A compactor that was not heard of for longer gets no work: it beats every second.
const COMPACTOR_HEARD: Duration = Duration::from_secs(4);

/// What each node's last heartbeat said of its hooks.
pub(crate) type HookReports = BTreeMap<NodeId, Vec<v1::HookReport>>;

/// What a group's leader last said of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ObservedGroup {
    pub(crate) term: Term,
    pub(crate) leader: NodeId,
    pub(crate) voters: BTreeSet<NodeId>,
    pub(crate) learners: BTreeSet<NodeId>,
    pub(crate) membership: (Term, LogIndex),
    pub(crate) caught_up: BTreeSet<NodeId>,
}

#[derive(Debug, Default)]
struct Inner {
    since: Option<Instant>,
    nodes: BTreeMap<NodeId, Seen>,
    groups: BTreeMap<GroupId, ObservedGroup>,
    reported: BTreeMap<GroupId, Instant>,
    creating: BTreeMap<GroupId, Instant>,
    // Membership that a step led to: older reports are not planned on.
    changed: BTreeMap<GroupId, ((Term, LogIndex), Instant)>,
    table_errors: BTreeMap<TableId, String>,
    joined_at: Option<Instant>,
}

/// A frozen copy for pure decisions: ages instead of instants.
#[derive(Debug, Clone, Default)]
pub(crate) struct Observed {
    /// Since this node leads.
    pub(crate) leading_for: Duration,
    /// Since the last heartbeat of each node that sent one.
    pub(crate) silent_for: BTreeMap<NodeId, Duration>,
    /// Since each node first reported each group that it hosts now.
    pub(crate) hosted_for: BTreeMap<(NodeId, GroupId), Duration>,
    /// What leaders say.
    pub(crate) groups: BTreeMap<GroupId, ObservedGroup>,
    /// Since they last said so.
    pub(crate) reported_for: BTreeMap<GroupId, Duration>,
    /// Since this leader first saw a group being created.
    pub(crate) creating_for: BTreeMap<GroupId, Duration>,
    /// Memberships that steps led to lately.
    pub(crate) changed: BTreeMap<GroupId, (Term, LogIndex)>,
    /// Since the last data node registered here or this node began to lead.
    pub(crate) quiet_for: Duration,
    /// Where nodes say they are.
    pub(crate) addresses: BTreeMap<NodeId, String>,
    /// What nodes complain about.
    pub(crate) problems: BTreeMap<NodeId, Vec<String>>,
    /// Why tables are not ready.
    pub(crate) table_errors: BTreeMap<TableId, String>,
}

/// Reports on a membership that a step has changed are waited for so long.
const REPORT_WAIT: Duration = Duration::from_secs(5);

/// What heartbeats said since this node leads.
#[derive(Debug, Default)]
pub(crate) struct Observations {
    inner: Mutex<Inner>,
    /// Something that may need a step has changed.
    pub(crate) news: Notify,
}

impl Observations {
    /// Forgets everything: a new term begins.
    pub(crate) fn restart(&self, now: Instant) {
        *self.inner.lock() = Inner { since: Some(now), joined_at: Some(now), ..Inner::default() };
    }

    /// A node has registered: it lives. After a data node more may follow at once.
    pub(crate) fn joined(&self, node: NodeId, data: bool, now: Instant) {
        let mut inner = self.inner.lock();
        inner.nodes.entry(node).or_default().at = Some(now);
        if data {
            inner.joined_at = Some(now);
        }
        drop(inner);
        self.news.notify_one();
    }

    /// Takes in a heartbeat.
    pub(crate) fn heartbeat(&self, request: &v1::HeartbeatRequest, now: Instant) {
        let node = NodeId(request.node_id);
        let mut inner = self.inner.lock();
        let seen = inner.nodes.entry(node).or_default();
        let mut news = seen.at.is_none();
        seen.at = Some(now);
        let hosted = |report: &v1::GroupReport| {
            let id = GroupId(report.group_id);
            (id, seen.hosted.get(&id).copied().unwrap_or(now))
        };
        let hosted: BTreeMap<_, _> = request.groups.iter().map(hosted).collect();
        news |= hosted.len() != seen.hosted.len();
        seen.hosted = hosted;
        seen.address.clone_from(&request.address);
        seen.problems.clone_from(&request.problems);
        seen.problems.truncate(16);
        seen.hooks.clone_from(&request.hooks);
        seen.hooks.truncate(MOST_HOOKS);
        seen.compactor = request.compactor.clone();
        for report in request.groups.iter().filter(|report| report.leader == request.node_id) {
            news |= inner.leader_report(node, report, now);
        }
        drop(inner);
        if news {
            self.news.notify_one();
        }
    }

    /// Forgets nodes that are not known any more.
    pub(crate) fn keep(&self, known: impl Fn(NodeId) -> bool) {
        self.inner.lock().nodes.retain(|node, _| known(*node));
    }

    /// What nodes say of their hooks.
    pub(crate) fn hooks(&self) -> HookReports {
        let inner = self.inner.lock();
        inner.nodes.iter().map(|(node, seen)| (*node, seen.hooks.clone())).collect()
    }

    /// What compactors last said of their load, of those that were heard of lately.
    pub(crate) fn compactors(&self, now: Instant) -> BTreeMap<NodeId, v1::CompactorLoad> {
        let inner = self.inner.lock();
        let lately = |seen: &Seen| {
            seen.at.is_some_and(|at| now.saturating_duration_since(at) < COMPACTOR_HEARD)
        };
        let nodes = inner.nodes.iter().filter(|(_, seen)| lately(seen));
        nodes.filter_map(|(node, seen)| Some((*node, seen.compactor.clone()?))).collect()
    }

    /// Who last said that it leads a group.
    pub(crate) fn leader_of(&self, group: GroupId) -> Option<NodeId> {
        self.inner.lock().groups.get(&group).map(|report| report.leader)
    }

    /// A membership step has been carried out.
    pub(crate) fn changed(&self, group: GroupId, membership: (Term, LogIndex), now: Instant) {
        self.inner.lock().changed.insert(group, (membership, now));
    }

    /// Why a table is not ready yet; `None`: it is.
    pub(crate) fn table_error(&self, table: TableId, error: Option<String>) {
        let errors = &mut self.inner.lock().table_errors;
        match error {
            Some(error) => drop(errors.insert(table, error)),
            None => drop(errors.remove(&table)),
        }
    }

    /// Everything as of now. `creating` are the groups that are being created.
    pub(crate) fn observed(&self, creating: &[GroupId], now: Instant) -> Observed {
        let mut inner = self.inner.lock();
        inner.creating.retain(|group, _| creating.contains(group));
        for group in creating {
            inner.creating.entry(*group).or_insert(now);
        }
        inner.changed.retain(|_, (_, at)| now.duration_since(*at) < REPORT_WAIT);
        let age = |at: &Instant| now.duration_since(*at);
        let mut observed = Observed {
            leading_for: inner.since.as_ref().map_or(Duration::ZERO, age),
            groups: inner.groups.clone(),
            reported_for: inner.reported.iter().map(|(id, at)| (*id, age(at))).collect(),
            creating_for: inner.creating.iter().map(|(id, at)| (*id, age(at))).collect(),
            changed: inner.changed.iter().map(|(id, (at, _))| (*id, *at)).collect(),
            quiet_for: inner.joined_at.as_ref().map_or(Duration::ZERO, age),
            table_errors: inner.table_errors.clone(),
            ..Observed::default()
        };
        for (id, seen) in &inner.nodes {
            if let Some(at) = &seen.at {
                observed.silent_for.insert(*id, age(at));
            }
            for (group, at) in &seen.hosted {
                observed.hosted_for.insert((*id, *group), age(at));
            }
            if !seen.address.is_empty() {
                observed.addresses.insert(*id, seen.address.clone());
            }
            if !seen.problems.is_empty() {
                observed.problems.insert(*id, seen.problems.clone());
            }
        }
        observed
    }
}

impl Inner {
    /// Keeps the report of the latest term; says whether it is another than before.
    fn leader_report(&mut self, node: NodeId, report: &v1::GroupReport, now: Instant) -> bool {
        let ids = |numbers: &[u64]| numbers.iter().copied().map(NodeId).collect();
        let group = ObservedGroup {
            term: Term(report.term),
            leader: node,
            voters: ids(&report.voters),
            learners: ids(&report.learners),
            membership: (Term(report.membership_term), LogIndex(report.membership_index)),
            caught_up: ids(&report.caught_up),
        };
        let id = GroupId(report.group_id);
        if self.groups.get(&id).is_some_and(|known| known.term > group.term) {
            return false;
        }
        self.reported.insert(id, now);
        let known = self.groups.insert(id, group.clone());
        known != Some(group)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(group_id: u64, term: u64, leader: u64, voters: &[u64]) -> v1::GroupReport {
        let voters = voters.to_vec();
        v1::GroupReport { group_id, term, leader, voters, ..v1::GroupReport::default() }
    }

    fn heartbeat(node_id: u64, groups: Vec<v1::GroupReport>) -> v1::HeartbeatRequest {
        v1::HeartbeatRequest { node_id, groups, ..v1::HeartbeatRequest::default() }
    }

    #[test]
    fn a_deposed_leader_is_not_believed() {
        let (seen, now) = (Observations::default(), Instant::now());
        seen.heartbeat(&heartbeat(102, vec![report(1, 5, 102, &[101, 102])]), now);
        seen.heartbeat(&heartbeat(101, vec![report(1, 4, 101, &[101])]), now);
        assert_eq!(seen.leader_of(GroupId(1)), Some(NodeId(102)));
        // Nor what followers say of it.
        seen.heartbeat(&heartbeat(103, vec![report(1, 9, 101, &[101])]), now);
        let observed = seen.observed(&[], now);
        assert_eq!(observed.groups[&GroupId(1)].term, Term(5));
        seen.heartbeat(&heartbeat(101, vec![report(1, 6, 101, &[101])]), now);
        assert_eq!(seen.leader_of(GroupId(1)), Some(NodeId(101)));
    }

    #[test]
    fn a_new_term_begins_without_anything_known() {
        let (seen, begun) = (Observations::default(), Instant::now());
        seen.restart(begun);
        seen.heartbeat(&heartbeat(101, vec![report(1, 5, 101, &[101])]), begun);
        seen.table_error(TableId(1), Some("no".into()));
        let later = begun + Duration::from_secs(9);
        assert_eq!(seen.observed(&[], later).silent_for[&NodeId(101)], Duration::from_secs(9));
        seen.restart(later);
        let observed = seen.observed(&[], later + Duration::from_secs(1));
        assert_eq!(observed.leading_for, Duration::from_secs(1));
        assert!(observed.silent_for.is_empty() && observed.groups.is_empty());
        assert!(observed.hosted_for.is_empty() && observed.table_errors.is_empty());
    }

    #[test]
    fn nodes_that_are_forgotten_leave_nothing_behind() {
        let (seen, now) = (Observations::default(), Instant::now());
        for node in [101, 102] {
            seen.heartbeat(&heartbeat(node, vec![]), now);
        }
        seen.keep(|node| node == NodeId(101));
        assert_eq!(seen.hooks().into_keys().collect::<Vec<_>>(), [NodeId(101)]);
        assert_eq!(seen.observed(&[], now).silent_for.len(), 1);
    }

    // Otherwise it would be taken for one that has been silent for as long as this node leads.
    #[test]
    fn who_registers_lives_before_its_first_heartbeat() {
        let (seen, begun) = (Observations::default(), Instant::now());
        seen.restart(begun);
        let later = begun + Duration::from_secs(60);
        seen.joined(NodeId(104), false, later);
        let observed = seen.observed(&[], later);
        assert_eq!(observed.silent_for, BTreeMap::from([(NodeId(104), Duration::ZERO)]));
        assert_eq!(observed.quiet_for, Duration::from_secs(60), "no data node has come");
    }

    #[test]
    fn compactors_are_those_that_said_so_lately() {
        let (seen, begun) = (Observations::default(), Instant::now());
        let load = v1::CompactorLoad { slots: 2, ..v1::CompactorLoad::default() };
        let beat = v1::HeartbeatRequest { compactor: Some(load.clone()), ..heartbeat(104, vec![]) };
        seen.heartbeat(&beat, begun);
        seen.heartbeat(&heartbeat(101, vec![]), begun);
        assert_eq!(seen.compactors(begun), BTreeMap::from([(NodeId(104), load.clone())]));
        let (soon, later) = (begun + COMPACTOR_HEARD / 2, begun + COMPACTOR_HEARD);
        assert_eq!(seen.compactors(soon).len(), 1);
        assert!(seen.compactors(later).is_empty());
        let busy = v1::CompactorLoad { jobs: 2, ..load.clone() };
        seen.heartbeat(&v1::HeartbeatRequest { compactor: Some(busy.clone()), ..beat }, soon);
        assert_eq!(seen.compactors(later)[&NodeId(104)], busy);
        seen.keep(|node| node == NodeId(101));
        assert!(seen.compactors(soon).is_empty());
    }

    #[test]
    fn a_changed_membership_is_waited_for_but_not_for_ever() {
        let (seen, now) = (Observations::default(), Instant::now());
        let at = (Term(2), LogIndex(7));
        seen.changed(GroupId(1), at, now);
        let soon = now + REPORT_WAIT / 2;
        assert_eq!(seen.observed(&[], soon).changed.get(&GroupId(1)), Some(&at));
        assert!(seen.observed(&[], now + REPORT_WAIT).changed.is_empty());
    }

    #[test]
    fn a_report_is_as_old_as_the_last_word_of_whoever_leads() {
        let seen = Observations::default();
        let start = Instant::now();
        let age = |after: u64| {
            let observed = seen.observed(&[], start + Duration::from_secs(after));
            observed.reported_for.get(&GroupId(1)).map(Duration::as_secs)
        };
        assert_eq!(age(0), None);
        seen.heartbeat(&heartbeat(101, vec![report(1, 2, 101, &[])]), start);
        assert_eq!(age(5), Some(5));
        // The same again is a new word; that of a follower is none, nor that of an old leader.
        seen.heartbeat(
            &heartbeat(101, vec![report(1, 2, 101, &[])]),
            start + Duration::from_secs(5),
        );
        seen.heartbeat(&heartbeat(101, vec![report(1, 2, 0, &[])]), start + Duration::from_secs(7));
        seen.heartbeat(
            &heartbeat(102, vec![report(1, 1, 102, &[])]),
            start + Duration::from_secs(8),
        );
        assert_eq!(age(9), Some(4));
        assert_eq!(seen.leader_of(GroupId(1)), Some(NodeId(101)));
        seen.heartbeat(
            &heartbeat(102, vec![report(1, 3, 102, &[])]),
            start + Duration::from_secs(9),
        );
        assert_eq!((age(9), seen.leader_of(GroupId(1))), (Some(0), Some(NodeId(102))));
    }
}
