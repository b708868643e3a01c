//! Compactor nodes, as used by a data node.
//!
//! - [`fleet`]: the compactors that are up, their free slots, and the choice of one for a job.
//! - [`call`]: one attempt at a job on a compactor: open, compact, close; `watch`: the attempt while it
//!   runs.
//! - [`registry`]: the jobs of the regions that this node owns, for operators.
//!
//! The leader of a region's group decides what follows from the outcome of an attempt
//! (`leadership/compactions/retry_policy.rs`).

pub mod call;
pub mod fleet;
pub mod registry;
mod watch;

use std::sync::Arc;

use tidewater_common::header::CallSender;
use tidewater_common::ids::{ClusterId, NodeId, TableId};
use tidewater_region_engine::hooks::HookSpec;
use tidewater_rpc::{Channels, ConnectPolicy};
use uuid::Uuid;

use self::fleet::Fleet;
use self::registry::JobRegistry;
use crate::hooks::NodeHooks;

/// Compactors that are up, the jobs of this node, and what compactors need to know about the node.
#[derive(Debug)]
pub struct Compactors {
    sender: CallSender,
    object_store_id: Uuid,
    hooks: Arc<NodeHooks>,
    channels: Channels,
    /// Compactors that are up.
    pub fleet: Fleet,
    /// Jobs of the regions that this node owns.
    pub registry: JobRegistry,
}

impl Compactors {
    /// Creates the compactors of a node without any compactor. `object_store_id`: the store of its regions.
    pub fn new(
        cluster: ClusterId,
        node: NodeId,
        object_store_id: Uuid,
        hooks: Arc<NodeHooks>,
    ) -> Arc<Self> {
        Arc::new(Self {
            sender: CallSender { cluster, node },
            object_store_id,
            hooks,
            channels: Channels::new(ConnectPolicy::CONTROL),
            fleet: Fleet::default(),
            registry: JobRegistry::default(),
        })
    }

    /// Creates the compactors of a node without configured hooks.
    #[cfg(test)]
    pub(crate) fn for_tests(cluster: ClusterId, node: NodeId) -> Arc<Self> {
        use tidewater_region_engine::Plugins;
        use tidewater_region_engine::hooks::{HookHome, HookKinds};
        let home = HookHome { role: "data", node_id: node };
        let hooks = NodeHooks::new(HookKinds::default(), home, Plugins::default());
        Self::new(cluster, node, Uuid::nil(), Arc::new(hooks))
    }

    /// Returns the name of this table, for the hooks of a compactor; empty if the catalog no longer has it.
    fn table_name(&self, table: TableId) -> String {
        self.hooks.table_name(table).map_or_else(String::new, |name| name.to_string())
    }

    /// Returns the hooks of this table: a compactor receives them with the region.
    fn hook_specs(&self, table: TableId) -> Vec<HookSpec> {
        self.hooks.hook_specs(table)
    }
}
