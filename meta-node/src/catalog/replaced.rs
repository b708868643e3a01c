//! Records that a change replaces.

use std::sync::Arc;

use tidewater_common::ids::NodeId;
use uuid::Uuid;

use super::{CatalogChange, MetaState, Node, Procedure};

/// Nodes and procedures that a change creates, replaces or deletes, as they are before it; `None`: it creates them.
/// Events follow from them and the state after the change.
#[derive(Debug, Default)]
pub struct ReplacedRecords {
    /// Nodes, in the order of the change.
    pub nodes: Vec<(NodeId, Option<Arc<Node>>)>,
    /// Procedures, in the order of the change, without those that are forgotten.
    pub procedures: Vec<(Uuid, Option<Arc<Procedure>>)>,
}

impl ReplacedRecords {
    /// Returns the records of `state` that a change replaces. Most changes replace none.
    pub(super) fn of(state: &MetaState, change: &CatalogChange) -> Self {
        let nodes = change.nodes.iter().map(|node| node.id);
        let nodes = nodes.chain(change.node_deletes.iter().copied());
        let procedures = change.procedures.iter().map(|procedure| procedure.id);
        Self {
            nodes: nodes.map(|id| (id, state.node(id).cloned())).collect(),
            procedures: procedures.map(|id| (id, state.procedures().get(id).cloned())).collect(),
        }
    }

    /// Returns whether the change replaces no node and no procedure.
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty() && self.procedures.is_empty()
    }
}
