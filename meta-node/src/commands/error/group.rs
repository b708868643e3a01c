//! Errors of commands on data groups and on the balance of their routes.

use tidewater_common::ids::{GroupId, NodeId};
use tidewater_proto::v1::GroupState;

/// Error of a rejected command; the state is unchanged.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GroupCommandError {
    /// Invalid first members of a group.
    #[error("invalid first members of a group: {0}")]
    FirstMembers(String),
    /// A second group with the same first member.
    #[error("node {home} already is the home of group {group}")]
    HomeTaken {
        /// First member of both groups.
        home: NodeId,
        /// The first group.
        group: GroupId,
    },
    /// A group whose home has another number of groups than its leader knew.
    #[error("node {home} is the home of {known} groups, not of {expected}")]
    HomeGroups {
        /// First member of the groups.
        home: NodeId,
        /// Number that the leader knew.
        expected: u32,
        /// Current number.
        known: usize,
    },
    /// A retirement of the only group that takes routes.
    #[error("group {0} is the only one that takes routes: it is not retired")]
    LastGroup(GroupId),
    /// A route in a group that retires.
    #[error("group {0} is being retired: choose another one (`tidewater group list`)")]
    Retiring(GroupId),
    /// A retirement of a group with regions.
    #[error("group {0} has regions, or is about to receive one: it is not retired")]
    GroupInUse(GroupId),
    /// A split of a hot route while hotspots are not on.
    #[error(
        "hotspots are not on: `tidewater balance set --hotspots on` lets routes follow the load"
    )]
    HotspotsNotOn,
    /// A setting of the balance outside of its range.
    #[error("{0}")]
    BalanceSetting(&'static str),
    /// A rest of the balance outside of its range, in milliseconds.
    #[error("the balance cannot rest for {0} ms: use 1s to 1h")]
    BalanceRest(u64),
    /// No group has this id.
    #[error("group {0} does not exist")]
    GroupNotFound(GroupId),
    /// The state of the group does not permit the command.
    #[error("group {group} is {state:?}")]
    GroupState {
        /// Id of the group.
        group: GroupId,
        /// Current state of the group.
        state: GroupState,
    },
    /// A report older than the recorded one.
    #[error("the report on group {0} is older than the recorded one")]
    StaleReport(GroupId),
    /// An invalid report on a group.
    #[error("the report on group {0} is malformed")]
    BadReport(GroupId),
    /// No data group is active.
    #[error("no data group is ready: start a data node, or wait until its group is created")]
    NoGroups,
}
