//! Placement steps: the decisions of the planner.

use tidewater_common::ids::{GroupId, LogIndex, NodeId, Term};

/// One placement step. The group's leader rejects a step with a membership (`on`) when its current
/// membership differs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum PlacementStep {
    /// Creates a group with its first membership.
    Create { first_members: Vec<NodeId> },
    /// Starts the replicas of a group in state creating, and initializes the group.
    Start { group: GroupId },
    /// Activates a group that has a leader.
    Activate { group: GroupId },
    /// Abandons a group that never had a leader.
    Abandon { group: GroupId },
    /// Starts a replica on a node and adds it as a learner.
    Add { group: GroupId, leader: NodeId, node: NodeId, on: (Term, LogIndex) },
    /// Promotes a learner that has caught up to voter.
    Promote { group: GroupId, leader: NodeId, node: NodeId, on: (Term, LogIndex) },
    /// Removes a member.
    Remove { group: GroupId, leader: NodeId, node: NodeId, on: (Term, LogIndex) },
    /// Transfers the leadership to another voter.
    Transfer { group: GroupId, leader: NodeId, to: NodeId },
    /// Stops a replica on a node that is not a member.
    Stop { group: GroupId, node: NodeId, on: (Term, LogIndex) },
}

/// Subject of a step. Each has one step at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum StepSubject {
    /// A group.
    Group(GroupId),
    /// The group that a step creates, by its home.
    NewGroup { home: Option<NodeId> },
}

impl PlacementStep {
    /// The subject of the step.
    pub(crate) fn subject(&self) -> StepSubject {
        match (self, self.group()) {
            (_, Some(group)) => StepSubject::Group(group),
            (Self::Create { first_members }, None) => {
                StepSubject::NewGroup { home: first_members.first().copied() }
            }
            (_, None) => StepSubject::NewGroup { home: None },
        }
    }

    /// The group of the step; `None` for a group that does not exist yet.
    pub(crate) fn group(&self) -> Option<GroupId> {
        match self {
            Self::Create { .. } => None,
            Self::Start { group }
            | Self::Activate { group }
            | Self::Abandon { group }
            | Self::Add { group, .. }
            | Self::Promote { group, .. }
            | Self::Remove { group, .. }
            | Self::Transfer { group, .. }
            | Self::Stop { group, .. } => Some(*group),
        }
    }
}
