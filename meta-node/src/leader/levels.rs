//! The next feature level of the cluster, and the nodes that hold it back (pure).

use std::collections::BTreeMap;
use std::fmt;

use tidewater_common::feature_level::{FeatureLevel, Release};
use tidewater_common::ids::NodeId;
use tidewater_proto::v1::{self, NodeRole, NodeState};

use super::releases::ReportedRelease;
use crate::catalog::{MetaState, Node};
use crate::commands::must_support;

/// Reason for which a node holds back a level.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum HoldReason {
    /// The node is down, and its replicas are not on other nodes yet.
    Down,
    /// This leader has no recent report of the node's release.
    Unreported,
    /// The release of the node does not support the level.
    Unsupported(Release),
    /// The node was started with a highest level below.
    Limited(FeatureLevel),
}

impl fmt::Display for HoldReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Down => f.write_str(
                "it is down and has replicas: start it with a release that supports the level, or wait until its \
                 replicas are moved",
            ),
            Self::Unreported => f.write_str(
                "the meta leader has no recent report of its release: the node has just started, does not answer, \
                 or lags",
            ),
            Self::Unsupported(release) => {
                let Release { lowest, highest, .. } = release;
                write!(f, "it runs {release}, which supports levels {lowest} to {highest}: upgrade it")
            }
            Self::Limited(level) => {
                write!(f, "it runs with --max-feature-level {level}: restart it without the option")
            }
        }
    }
}

/// Release of a node, and whether the node holds back the next level.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NodeLevel {
    pub(crate) node: NodeId,
    pub(crate) reported: Option<ReportedRelease>,
    pub(crate) hold: Option<HoldReason>,
}

impl From<&NodeLevel> for v1::NodeRelease {
    fn from(level: &NodeLevel) -> Self {
        Self {
            node_id: level.node.get(),
            release: level.reported.as_ref().map(|reported| (&reported.release).into()),
            holds_back: level.hold.as_ref().map_or_else(String::new, ToString::to_string),
        }
    }
}

/// Level of the cluster, and the next one with the nodes that hold it back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LevelStatus {
    pub(crate) level: FeatureLevel,
    /// `None`: the leader supports no higher level.
    pub(crate) next: Option<FeatureLevel>,
    /// All nodes that were not removed, by id.
    pub(crate) nodes: Vec<NodeLevel>,
}

impl LevelStatus {
    /// Compares the state with the recent reports. `highest`: highest level that the leader supports.
    pub(crate) fn new(
        state: &MetaState,
        recent: &BTreeMap<NodeId, ReportedRelease>,
        highest: FeatureLevel,
    ) -> Self {
        let level = state.header().feature_level;
        let next = Some(level.next()).filter(|next| *next <= highest);
        let judge = |node: &Node| {
            let reported = recent.get(&node.id);
            let must_support = must_support(state, node);
            // A node that is down and reports will be up in a moment.
            let hold = next
                .filter(|_| must_support || reported.is_some())
                .and_then(|next| hold_reason(node, must_support, reported, next));
            NodeLevel { node: node.id, reported: reported.cloned(), hold }
        };
        let nodes = state.nodes().filter(|node| node.state != NodeState::Removed);
        Self { level, next, nodes: nodes.map(|node| judge(node)).collect() }
    }

    /// Returns the raise that is due: to the next level, once no node holds it back.
    pub(crate) fn due_raise(&self) -> Option<v1::RaiseFeatureLevel> {
        let next = self.next?;
        if self.nodes.is_empty() || self.nodes.iter().any(|node| node.hold.is_some()) {
            return None;
        }
        let supporting = self.nodes.iter().filter_map(|node| {
            let reported = node.reported.as_ref()?;
            reported.release.check(next).ok()?;
            Some(v1::SupportingNode { node_id: node.node.get(), boot: reported.boot.get() })
        });
        Some(v1::RaiseFeatureLevel { level: next.get(), nodes: supporting.collect() })
    }
}

fn hold_reason(
    node: &Node,
    must_support: bool,
    reported: Option<&ReportedRelease>,
    next: FeatureLevel,
) -> Option<HoldReason> {
    // A meta node has no replicas: while it is down, it does not report.
    if must_support && node.state == NodeState::Down && node.role != NodeRole::Meta {
        return Some(HoldReason::Down);
    }
    // Another start may have been of another release, and apply would refuse the raise.
    let Some(reported) = reported.filter(|reported| reported.boot == node.boot) else {
        return Some(HoldReason::Unreported);
    };
    if reported.release.check(next).is_err() {
        return Some(HoldReason::Unsupported(reported.release.clone()));
    }
    reported.max_level.filter(|limit| *limit < next).map(HoldReason::Limited)
}

#[cfg(test)]
mod tests;
