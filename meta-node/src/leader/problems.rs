//! Problems of the cluster, from what the meta leader knows. Pure, except for `watch` and `probe`.
//!
//! - *Problem*: kind, subject, sentence. Their list decides the health of the cluster: it is healthy when
//!   there is none.
//! - *Begin*: the history in [`Observations`](super::Observations) knows since when each problem exists.
//!   Where the catalog or a node knows the age, a new leader knows it as well; otherwise a problem begins
//!   with the leader's term.
//!
//! - `members`: the meta group; `nodes`: data nodes and compactors; `drains`: nodes that leave; `groups`: data groups; `tables`: tables
//!   and garbage collection; `refreshes`: refreshable tables; `exports`: exports; `waiting_drops`: tables with the empty
//!   read policy.
//! - `watch`: evaluates the problems at intervals; `probe`: connects to nodes at intervals.

mod drains;
mod exports;
mod groups;
mod members;
mod nodes;
mod probe;
mod refreshes;
mod tables;
mod waiting_drops;
mod watch;

use std::collections::BTreeMap;
use std::time::Duration;

use tidewater_common::feature_level::FeatureLevel;
use tidewater_common::ids::NodeId;
use tidewater_common::problem::Problem;
use tidewater_proto::v1::ProblemKind;

pub(crate) use self::members::MemberHealth;
pub(crate) use self::probe::run as probe_nodes;
pub(crate) use self::tables::TableOperation;
pub(crate) use self::watch::ProblemWatch;
use super::ObservedCluster;
use crate::catalog::MetaState;

/// Knowledge of the meta leader.
#[derive(Debug, Clone)]
pub(crate) struct ClusterKnowledge<'a> {
    /// The catalog.
    pub(crate) state: &'a MetaState,
    /// Heartbeats and reports of this term.
    pub(crate) observed: &'a ObservedCluster,
    /// The other members of the meta group.
    pub(crate) members: &'a [MemberHealth],
    /// The meta leader.
    pub(crate) leader: NodeId,
    /// Problems of its process.
    pub(crate) of_process: &'a [Problem],
    /// Nodes whose clocks differ too much, as the leader sees them.
    pub(crate) differing_clocks: &'a [NodeId],
    /// Operations on tables that are in progress, with the time for which this leader has seen them.
    pub(crate) operations: &'a BTreeMap<TableOperation, Duration>,
    /// Time without a heartbeat or a report after which a node or a leader counts as silent.
    pub(crate) failure_timeout: Duration,
}

/// Returns all problems. The cluster is healthy when there is none that has lasted for its grace.
pub(crate) fn find_problems(known: &ClusterKnowledge<'_>) -> Vec<Problem> {
    let mut problems = members::problems(known);
    problems.extend(nodes::problems(known));
    problems.extend(drains::problems(known));
    problems.extend(groups::problems(known));
    problems.extend(tables::problems(known));
    problems.extend(refreshes::problems(known.state));
    problems.extend(exports::problems(known.state, &known.observed.failing_exports));
    problems.extend(waiting_drops::problems(known.state));
    let of_leader = |problem: &Problem| {
        let detail = format!("node {}: {}", known.leader, problem.detail);
        Problem { detail, ..problem.clone() }.of_node(known.leader)
    };
    problems.extend(known.of_process.iter().map(of_leader));
    if known.state.header().feature_level < FeatureLevel::EVENT_TABLES {
        // There is no table for events before the last node is upgraded, and a rolling upgrade waits for health.
        problems.retain(|problem| problem.kind != ProblemKind::EventsNotRecorded);
    }
    problems
}

#[cfg(test)]
mod tests;
