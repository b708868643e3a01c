//! Placement steps: the decisions of the planner.

use bytes::Bytes;
use tidewater_common::ids::{GroupId, LogIndex, NodeId, RegionId, Term};

/// One placement step. The group's leader rejects a step with a membership (`on`) when its current
/// membership differs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum PlacementStep {
    /// Creates a group with its first membership. `home_groups`: number of groups of the same home.
    Create { first_members: Vec<NodeId>, home_groups: usize },
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
    /// Marks a group as retiring, or takes that back.
    SetRetiring { group: GroupId, retiring: bool },
    /// Retires a group without regions.
    Retire { group: GroupId },
    /// Begins the move of a route to another group.
    MoveRoute { route: RegionId, to: GroupId },
    /// Begins the split of a hot route at a row key.
    SplitRoute { route: RegionId, key: Bytes },
    /// Begins the merge of cold neighbours.
    MergeRoutes { left: RegionId, right: RegionId },
}

/// Subject of a step. Each has one step at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum StepSubject {
    /// A group.
    Group(GroupId),
    /// The group that a step creates, by its home.
    NewGroup { home: Option<NodeId> },
    /// The route that a step changes.
    Route(RegionId),
}

impl PlacementStep {
    /// The subject of the step.
    pub(crate) fn subject(&self) -> StepSubject {
        match (self, self.group()) {
            (
                Self::MoveRoute { route, .. }
                | Self::SplitRoute { route, .. }
                | Self::MergeRoutes { left: route, .. },
                _,
            ) => StepSubject::Route(*route),
            (_, Some(group)) => StepSubject::Group(group),
            (Self::Create { first_members, .. }, None) => {
                StepSubject::NewGroup { home: first_members.first().copied() }
            }
            (_, None) => StepSubject::NewGroup { home: None },
        }
    }

    /// The group whose failures in a row the step counts for; `None` for a group that does not exist yet, and for operations on routes.
    pub(crate) fn group(&self) -> Option<GroupId> {
        match self {
            Self::Create { .. }
            | Self::MoveRoute { .. }
            | Self::SplitRoute { .. }
            | Self::MergeRoutes { .. } => None,
            Self::Start { group }
            | Self::Activate { group }
            | Self::Abandon { group }
            | Self::Add { group, .. }
            | Self::Promote { group, .. }
            | Self::Remove { group, .. }
            | Self::Transfer { group, .. }
            | Self::Stop { group, .. }
            | Self::SetRetiring { group, .. }
            | Self::Retire { group } => Some(*group),
        }
    }
}
