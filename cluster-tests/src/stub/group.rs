//! Members, leader and regions of a data group without storage (pure).
//!
//! All replicas share one log: a position counts the entries that a real group would have committed.

use std::collections::{BTreeMap, BTreeSet};

use tidewater_common::ids::{NodeId, RegionId};
use tidewater_proto::v1::ProcedureStep;

/// A change of one member.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum MemberChange {
    /// Adds a member without a vote.
    AddLearner(NodeId),
    /// Gives a learner a vote.
    Promote(NodeId),
    /// Removes a member.
    Remove(NodeId),
}

/// A region as its group has it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct StubRegion {
    /// Table of the region.
    pub(super) table: u32,
    /// Version of the region's schema.
    pub(super) schema_version: u32,
    /// Greatest procedure step so far: number of the change, and step.
    pub(super) step: (u64, u32),
}

/// Reason why a call had no effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum GroupError {
    /// Another node leads, or none.
    #[error("this node does not lead the group")]
    NotLeader(Option<NodeId>),
    /// The leader cannot commit an entry.
    #[error("the group has no quorum")]
    NoQuorum,
    /// The membership that the caller named is not the current one.
    #[error("the members of the group have changed")]
    MembershipStale,
    /// The node to promote has no replica.
    #[error("node {0} is not a learner with a replica")]
    NotCaughtUp(NodeId),
    /// The group does not have the region.
    #[error("the group has no region {0}")]
    RegionNotFound(RegionId),
    /// The region was dropped.
    #[error("region {0} was dropped")]
    RegionDropped(RegionId),
}

/// A data group.
#[derive(Debug, Clone, Default)]
pub(super) struct StubGroup {
    hosts: BTreeSet<NodeId>,
    voters: BTreeSet<NodeId>,
    learners: BTreeSet<NodeId>,
    leader: Option<NodeId>,
    term: u64,
    last_index: u64,
    /// Log id of the membership; (0, 0) before the first one.
    membership: (u64, u64),
    regions: BTreeMap<RegionId, StubRegion>,
    dropped: BTreeSet<RegionId>,
    epoch: u64,
}

/// A group as one of its replicas reports it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct GroupView {
    pub(super) leader: Option<NodeId>,
    pub(super) term: u64,
    pub(super) last_index: u64,
    pub(super) membership: (u64, u64),
    pub(super) voters: Vec<u64>,
    pub(super) learners: Vec<u64>,
}

impl StubGroup {
    /// Starts a replica on a node.
    pub(super) fn host(&mut self, node: NodeId) {
        self.hosts.insert(node);
    }

    /// Writes the first membership. A repeated call changes nothing. The caller elects a leader.
    pub(super) fn initialize(&mut self, members: &[NodeId]) {
        if self.voters.is_empty() {
            self.voters = members.iter().copied().collect();
        }
    }

    /// Elects a leader, unless one is running. Prefers `home`, then the lowest id. Returns whether there
    /// was an election.
    pub(super) fn elect(&mut self, home: Option<NodeId>, running: &BTreeSet<NodeId>) -> bool {
        let is_able = |node: &NodeId| self.hosts.contains(node) && running.contains(node);
        if self.leader.as_ref().is_some_and(is_able) {
            return false;
        }
        if !self.has_quorum(running) {
            return false;
        }
        let preferred = home.filter(|home| self.voters.contains(home) && is_able(home));
        let Some(leader) = preferred.or_else(|| self.voters.iter().copied().find(is_able)) else {
            return false;
        };
        self.leader = Some(leader);
        self.term += 1;
        self.last_index += 1;
        if self.membership == (0, 0) {
            self.membership = (self.term, self.last_index);
        }
        true
    }

    fn has_quorum(&self, running: &BTreeSet<NodeId>) -> bool {
        let able = self
            .voters
            .iter()
            .filter(|node| self.hosts.contains(node))
            .filter(|node| running.contains(node));
        able.count() * 2 > self.voters.len()
    }

    /// Returns the group as its replicas report it.
    pub(super) fn view(&self) -> GroupView {
        let ids = |nodes: &BTreeSet<NodeId>| nodes.iter().map(|node| node.get()).collect();
        GroupView {
            leader: self.leader,
            term: self.term,
            last_index: self.last_index,
            membership: self.membership,
            voters: ids(&self.voters),
            learners: ids(&self.learners),
        }
    }

    /// Learners with a running replica: they have all entries.
    pub(super) fn caught_up(&self, running: &BTreeSet<NodeId>) -> Vec<u64> {
        let able = self.learners.iter().filter(|node| self.hosts.contains(node));
        able.filter(|node| running.contains(node)).map(|node| node.get()).collect()
    }

    /// Returns whether a node leads.
    pub(super) fn is_led_by(&self, node: NodeId) -> bool {
        self.leader == Some(node)
    }

    /// Returns the regions in order of id.
    pub(super) fn regions(&self) -> impl Iterator<Item = (RegionId, StubRegion)> {
        self.regions.iter().map(|(id, region)| (*id, *region))
    }

    /// Checks that a node leads, as before a read.
    pub(super) fn require_leader(&self, node: NodeId) -> Result<(), GroupError> {
        if self.is_led_by(node) { Ok(()) } else { Err(GroupError::NotLeader(self.leader)) }
    }

    /// Begins an epoch at the leader, if the group is at the one before. Returns the epoch of the group.
    pub(super) fn begin_epoch(
        &mut self,
        node: NodeId,
        (previous, epoch): (u64, u64),
        running: &BTreeSet<NodeId>,
    ) -> Result<u64, GroupError> {
        self.require_leader(node)?;
        if self.epoch == previous && epoch > previous {
            self.commit(node, running)?;
            self.epoch = epoch;
        }
        Ok(self.epoch)
    }

    /// Commits an entry at the leader.
    fn commit(&mut self, node: NodeId, running: &BTreeSet<NodeId>) -> Result<u64, GroupError> {
        self.require_leader(node)?;
        if !self.has_quorum(running) {
            return Err(GroupError::NoQuorum);
        }
        self.last_index += 1;
        Ok(self.last_index)
    }

    /// Changes a member on condition that the membership is the one that the caller names; returns the log
    /// id of the new one.
    pub(super) fn change_membership(
        &mut self,
        node: NodeId,
        on: (u64, u64),
        change: MemberChange,
        running: &BTreeSet<NodeId>,
    ) -> Result<(u64, u64), GroupError> {
        self.require_leader(node)?;
        if self.membership != on {
            return Err(GroupError::MembershipStale);
        }
        match change {
            MemberChange::AddLearner(member) if !self.voters.contains(&member) => {
                self.commit(node, running)?;
                self.learners.insert(member);
            }
            MemberChange::AddLearner(_) => return Ok(on),
            MemberChange::Promote(member) => {
                if !self.caught_up(running).contains(&member.get()) {
                    return Err(GroupError::NotCaughtUp(member));
                }
                self.commit(node, running)?;
                self.learners.remove(&member);
                self.voters.insert(member);
            }
            MemberChange::Remove(member) => {
                self.commit(node, running)?;
                self.learners.remove(&member);
                self.voters.remove(&member);
            }
        }
        self.membership = (self.term, self.last_index);
        Ok(self.membership)
    }

    /// Transfers the leadership to a voter with a running replica.
    pub(super) fn transfer(
        &mut self,
        node: NodeId,
        to: NodeId,
        running: &BTreeSet<NodeId>,
    ) -> Result<(), GroupError> {
        self.require_leader(node)?;
        if !self.voters.contains(&to) || !self.hosts.contains(&to) || !running.contains(&to) {
            return Err(GroupError::NotCaughtUp(to));
        }
        if to != node {
            self.leader = Some(to);
            self.term += 1;
            self.last_index += 1;
        }
        Ok(())
    }

    /// Stops the replica of a node that is not a member; `abandoned`: whatever the members are.
    pub(super) fn stop(&mut self, node: NodeId, abandoned: bool) -> Result<(), GroupError> {
        if !abandoned && (self.voters.contains(&node) || self.learners.contains(&node)) {
            return Err(GroupError::MembershipStale);
        }
        self.hosts.remove(&node);
        if self.is_led_by(node) {
            self.leader = None;
        }
        Ok(())
    }

    /// Adds a region. A repeated call changes nothing.
    pub(super) fn open(
        &mut self,
        node: NodeId,
        id: RegionId,
        region: StubRegion,
        running: &BTreeSet<NodeId>,
    ) -> Result<(), GroupError> {
        self.commit(node, running)?;
        if self.dropped.contains(&id) {
            return Err(GroupError::RegionDropped(id));
        }
        self.regions.entry(id).or_insert(region);
        Ok(())
    }

    /// Applies a procedure step to a region; an earlier or repeated step changes nothing.
    pub(super) fn apply_step(
        &mut self,
        node: NodeId,
        id: RegionId,
        (step, schema_version): (Option<&ProcedureStep>, Option<u32>),
        running: &BTreeSet<NodeId>,
    ) -> Result<(), GroupError> {
        self.commit(node, running)?;
        let region = self.regions.get_mut(&id).ok_or(GroupError::RegionNotFound(id))?;
        let step = step.map_or((0, 0), |step| (step.number, step.step));
        if step > region.step {
            region.step = step;
            region.schema_version = schema_version.unwrap_or(region.schema_version);
        }
        Ok(())
    }

    /// Removes a region for good.
    pub(super) fn drop_region(
        &mut self,
        node: NodeId,
        id: RegionId,
        running: &BTreeSet<NodeId>,
    ) -> Result<(), GroupError> {
        self.commit(node, running)?;
        self.regions.remove(&id);
        self.dropped.insert(id);
        Ok(())
    }

    /// Takes a write: returns its log index, and the region.
    pub(super) fn write(
        &mut self,
        node: NodeId,
        id: RegionId,
        running: &BTreeSet<NodeId>,
    ) -> Result<(u64, StubRegion), GroupError> {
        self.require_leader(node)?;
        let region = *self.regions.get(&id).ok_or(GroupError::RegionNotFound(id))?;
        Ok((self.commit(node, running)?, region))
    }
}

#[cfg(test)]
mod tests;
