//! The node's replica of group 0: absent until the node belongs to a cluster.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::RwLock;
use tidewater_common::refusal::Refusal;
use tidewater_proto::v1::Reason;

use crate::group::MetaGroup;
use crate::leader::{Control, Observations};

/// What the services need of a node that belongs to a cluster.
#[derive(Debug, Clone)]
pub(crate) struct Running {
    pub(crate) group: Arc<MetaGroup>,
    pub(crate) control: Arc<Control>,
    pub(crate) observations: Arc<Observations>,
}

/// Filled when the node has joined its cluster; emptied when it stops.
#[derive(Debug, Clone, Default)]
pub(crate) struct Slot {
    running: Arc<RwLock<Option<Running>>>,
}

impl Slot {
    pub(crate) fn fill(&self, running: Running) {
        *self.running.write() = Some(running);
    }

    pub(crate) fn empty(&self) {
        *self.running.write() = None;
    }

    pub(crate) fn get(&self) -> Result<Running, Refusal> {
        self.running.read().clone().ok_or_else(|| {
            Refusal::new(
                Reason::NotBootstrapped,
                "this meta node belongs to no cluster yet: start one of its peers with --bootstrap",
            )
            .retry_after(Duration::from_millis(500))
        })
    }
}
