//! A running node of any role.

use std::time::Duration;

use tidewater_compactor_node::CompactorNode;
use tidewater_data_node::node::DataNode;
use tidewater_meta_node::{Meta, MetaLeadership};
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
    /// Returns the id of the node in the cluster.
    pub(crate) fn node_id(&self) -> u64 {
        match self {
            Self::Meta(node) => node.node_id().get(),
            Self::Data(node) => node.node_id().get(),
            Self::Compactor(node) => node.node_id().get(),
        }
    }

    /// Returns a handle to the leadership of a meta node; `None`: the node has another role.
    pub(crate) fn meta_leadership(&self) -> Option<MetaLeadership> {
        match self {
            Self::Meta(node) => Some(node.leadership()),
            Self::Data(_) | Self::Compactor(_) => None,
        }
    }

    /// Adds the services of the node. The process itself adds the `Raft` service, which its nodes share.
    pub(crate) fn add_services(&self, routes: &mut RoutesBuilder) {
        match self {
            Self::Meta(node) => node.add_services(routes),
            Self::Data(node) => node.add_services(routes),
            Self::Compactor(node) => node.add_services(routes),
        }
    }

    /// Resolves when the node belongs to its cluster. A meta node joins through calls to its port.
    /// Other nodes have joined when they have started.
    pub(crate) async fn joined(&self) -> Result<(), Failure> {
        match self {
            Self::Meta(node) => match node.joined().await {
                Ok(_) => Ok(()),
                Err(error) => Err(start_errors::meta_failure(&error)),
            },
            Self::Data(_) | Self::Compactor(_) => Ok(()),
        }
    }

    /// Resolves with an error message when the process must exit.
    pub(crate) async fn failed(&self) -> String {
        match self {
            Self::Meta(node) => node.failed().await.to_string(),
            Self::Data(node) => node.failed().await,
            Self::Compactor(node) => node.failed().await,
        }
    }

    /// Returns the additional time that the node may take to stop.
    pub(crate) fn extra_stop_time(&self) -> Duration {
        match self {
            Self::Meta(_) | Self::Data(_) => Duration::ZERO,
            Self::Compactor(node) => node.longest_shutdown(),
        }
    }

    /// Stops the node: completes work in progress and transfers leadership.
    pub(crate) async fn shutdown(self) {
        match self {
            Self::Meta(node) => node.shutdown().await,
            Self::Data(node) => node.shutdown().await,
            Self::Compactor(node) => node.shutdown().await,
        }
    }
}
