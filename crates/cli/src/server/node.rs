//! A running node of any role, as the process sees it.

use std::time::Duration;

use tidewater_compactor_node::CompactorNode;
use tidewater_data_node::node::DataNode;
use tidewater_meta_node::Meta;
use tonic::service::RoutesBuilder;

use super::start_errors;
use crate::exit::Failure;

/// A running node.
pub(crate) enum RunningNode {
    Meta(Box<Meta>),
    Data(Box<DataNode>),
    Compactor(Box<CompactorNode>),
}

impl RunningNode {
    /// Its id in the cluster.
    pub(crate) fn node_id(&self) -> u64 {
        match self {
            Self::Meta(node) => node.node_id().get(),
            Self::Data(node) => node.node_id().get(),
            Self::Compactor(node) => node.node_id().get(),
        }
    }

    /// Adds its services; `Raft` is the process's.
    pub(crate) fn add_services(&self, routes: &mut RoutesBuilder) {
        match self {
            Self::Meta(node) => node.add_services(routes),
            Self::Data(node) => node.add_services(routes),
            Self::Compactor(node) => node.add_services(routes),
        }
    }

    /// Resolves when the node belongs to its cluster. A meta node joins by calls that come through
    /// the port; the others have joined when they have started.
    pub(crate) async fn joined(&self) -> Result<(), Failure> {
        match self {
            Self::Meta(node) => match node.joined().await {
                Ok(_) => Ok(()),
                Err(error) => Err(start_errors::of_meta(&error)),
            },
            Self::Data(_) | Self::Compactor(_) => Ok(()),
        }
    }

    /// Resolves, in words, when the process must exit.
    pub(crate) async fn failed(&self) -> String {
        match self {
            Self::Meta(node) => node.failed().await.to_string(),
            Self::Data(node) => node.failed().await,
            Self::Compactor(node) => node.failed().await,
        }
    }

    /// How much longer than usual it may take to stop.
    pub(crate) fn longest_stop(&self) -> Duration {
        match self {
            Self::Meta(_) | Self::Data(_) => Duration::ZERO,
            Self::Compactor(node) => node.longest_shutdown(),
        }
    }

    /// Stops it: work in hand is finished, leadership is handed over.
    pub(crate) async fn shutdown(self) {
        match self {
            Self::Meta(node) => node.shutdown().await,
            Self::Data(node) => node.shutdown().await,
            Self::Compactor(node) => node.shutdown().await,
        }
    }
}
