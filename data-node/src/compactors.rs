//! Compactor nodes, as a data node uses them.
//!
//! - [`fleet`]: which there are, how busy they are, and which of them gets a job.
//! - [`call`]: one attempt at a job: open, compact, close; `watch`: what happens in between.
//! - [`board`]: the jobs of the regions that this node owns, for operators.
//!
//! What becomes of a job when an attempt has ended is decided per region, by its group's leader:
//! [`leadership::compactions`](crate::leadership::compactions).

pub mod board;
pub mod call;
pub mod fleet;
mod watch;

use std::sync::Arc;

use tidewater_common::ids::{ClusterId, NodeId, TableId};
use tidewater_region_engine::hooks::HookSpec;
use uuid::Uuid;

use self::board::Board;
use self::fleet::Fleet;
use crate::hooks::NodeHooks;

/// What a data node knows of compactors, and what they must know of it.
#[derive(Debug)]
pub struct Compactors {
    cluster: ClusterId,
    node: NodeId,
    object_store_id: Uuid,
    hooks: Arc<NodeHooks>,
    channels: call::Channels,
    /// Those that are up.
    pub fleet: Fleet,
    /// Jobs of the regions that this node owns.
    pub board: Board,
}

impl Compactors {
    /// For a node of a cluster, whose regions lie in the object store with this id.
    pub fn new(
        cluster: ClusterId,
        node: NodeId,
        object_store_id: Uuid,
        hooks: Arc<NodeHooks>,
    ) -> Arc<Self> {
        Arc::new(Self {
            cluster,
            node,
            object_store_id,
            hooks,
            channels: call::Channels::default(),
            fleet: Fleet::default(),
            board: Board::default(),
        })
    }

    /// For a node that calls no hooks by configuration.
    #[cfg(test)]
    pub(crate) fn for_tests(cluster: ClusterId, node: NodeId) -> Arc<Self> {
        use tidewater_region_engine::Plugins;
        use tidewater_region_engine::hooks::{HookHome, HookKinds};
        let home = HookHome { role: "data", node_id: node };
        let hooks = NodeHooks::new(HookKinds::default(), home, Plugins::default());
        Self::new(cluster, node, Uuid::nil(), Arc::new(hooks))
    }

    /// The hooks that see this table: a compactor gets them with the region.
    fn plugins(&self, table: TableId) -> Vec<HookSpec> {
        self.hooks.plugin_specs(table)
    }
}
