//! Slot for the node's replica of group 0: empty until the node belongs to a cluster.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::RwLock;
use tidewater_common::refusal::Refusal;
use tidewater_proto::v1::{self, Reason, meta_command::Kind};

use crate::commands::{CommandError, command_level};
use crate::feed::CatalogFeed;
use crate::group::MetaGroup;
use crate::leader::problems::ProblemWatch;
use crate::leader::{Control, Observations};

/// Parts of a running replica that the services use.
#[derive(Debug, Clone)]
pub(crate) struct RunningReplica {
    pub(crate) group: Arc<MetaGroup>,
    pub(crate) feed: Arc<CatalogFeed>,
    pub(crate) control: Arc<Control>,
    pub(crate) observations: Arc<Observations>,
    pub(crate) problems: Arc<ProblemWatch>,
}

impl RunningReplica {
    /// Proposes a command, unless the cluster is below the level of its kind.
    pub(crate) async fn propose_at_level(&self, kind: Kind) -> Result<v1::MetaReply, Refusal> {
        let level = self.group.view.read().header().feature_level;
        let needed = command_level(&kind);
        if level < needed {
            return Err(CommandError::FeatureLevel { needed, level }.into());
        }
        self.group.propose(kind).await
    }
}

/// Slot for the running replica: set when the node has joined its cluster, cleared when it stops.
#[derive(Debug, Clone, Default)]
pub(crate) struct ReplicaSlot {
    running: Arc<RwLock<Option<RunningReplica>>>,
}

impl ReplicaSlot {
    pub(crate) fn set(&self, running: RunningReplica) {
        *self.running.write() = Some(running);
    }

    pub(crate) fn clear(&self) {
        *self.running.write() = None;
    }

    pub(crate) fn get(&self) -> Result<RunningReplica, Refusal> {
        self.running.read().clone().ok_or_else(|| {
            Refusal::new(
                Reason::NotBootstrapped,
                "this meta node belongs to no cluster yet: start one of its peers with --bootstrap",
            )
            .retry_after(Duration::from_millis(500))
        })
    }
}
