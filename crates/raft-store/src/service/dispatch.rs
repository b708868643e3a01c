use std::net::SocketAddr;
use std::sync::Arc;

use tidewater_common::ids::{BootNumber, ClusterId, GroupId, NodeId};
use tidewater_common::refusal::Refusal;
use tidewater_proto::v1::{self, Reason};

use super::RaftService;
use super::host::{HostedGroup, RaftHost};
use super::peer_check::{MessageKind, PeerMessage};
use crate::types::Vote;
use crate::types::wire::WireError;

/// Sender of a message: the node that it names, and its address.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sender {
    pub(super) node: u64,
    pub(super) boot: BootNumber,
    pub(super) address: Option<SocketAddr>,
}

impl Sender {
    pub(super) fn new(header: Option<&v1::RaftHeader>, address: Option<SocketAddr>) -> Self {
        let node = header.map_or(0, |header| header.source_node);
        let boot = BootNumber(header.map_or(0, |header| header.source_boot));
        Self { node, boot, address }
    }
}

/// Destination of a message: the group, its node and its handler.
pub(super) struct Destination {
    pub(super) group: GroupId,
    pub(super) host: Arc<RaftHost>,
    pub(super) hosted: Arc<HostedGroup>,
}

impl RaftService {
    /// Finds the group that a message is addressed to.
    pub(super) fn destination(
        &self,
        header: Option<&v1::RaftHeader>,
    ) -> Result<Destination, Refusal> {
        let host = self.host(header)?;
        let group = GroupId(header.map_or(0, |header| header.group_id));
        let hosted = host.find_group(group)?;
        Ok(Destination { group, host, hosted })
    }

    /// Finds the node that a message is addressed to.
    pub(super) fn host(&self, header: Option<&v1::RaftHeader>) -> Result<Arc<RaftHost>, Refusal> {
        let header = header
            .ok_or_else(|| Refusal::new(Reason::InvalidArgument, "a Raft message has no header"))?;
        let target = NodeId(header.target_node);
        let hosts = self.hosts.read().clone();
        // The cluster first: in another cluster, the node's id may belong to any node.
        let cluster = header.cluster_id.parse::<ClusterId>().ok();
        if let Some(known) = hosts.first()
            && !hosts.iter().any(|host| Some(host.cluster_id()) == cluster)
        {
            return Err(Refusal::new(
                Reason::WrongCluster,
                format!(
                    "node {} of cluster {} called a node of cluster {}",
                    header.source_node,
                    header.cluster_id,
                    known.cluster_id()
                ),
            ));
        }
        let host = hosts.into_iter().find(|host| host.node_id() == target).ok_or_else(|| {
            Refusal::new(
                Reason::WrongNode,
                format!("node {target} is not at this address: it was moved or removed"),
            )
        })?;
        if Some(host.cluster_id()) != cluster {
            return Err(Refusal::new(
                Reason::WrongCluster,
                format!("node {target} does not belong to cluster {}", header.cluster_id),
            ));
        }
        Ok(host)
    }
}

impl Destination {
    /// Refuses a message that no member of the group sends.
    pub(super) fn admit(
        &self,
        sender: Sender,
        kind: MessageKind,
        vote: Vote,
    ) -> Result<(), Refusal> {
        self.host.check_start(self.group, sender)?;
        let message = PeerMessage { kind, source: sender.node, vote };
        self.host.admit(self.group, &self.hosted, &message, sender.address)
    }

    /// Refuses a message that cannot be converted.
    pub(super) fn well_formed<T>(
        &self,
        sender: Sender,
        converted: Result<T, WireError>,
    ) -> Result<T, Refusal> {
        converted.map_err(|error| {
            let refusal = Refusal::new(Reason::InvalidArgument, error.to_string());
            self.host.note_refusal(self.group, "malformed", &refusal.message, sender.address);
            refusal
        })
    }
}

impl RaftHost {
    /// Returns a group of this node.
    pub(super) fn find_group(&self, group: GroupId) -> Result<Arc<HostedGroup>, Refusal> {
        self.group(group).ok_or_else(|| {
            Refusal::new(
                Reason::GroupNotHosted,
                format!("node {} has no replica of group {group}", self.node_id()),
            )
        })
    }
}

#[cfg(test)]
#[path = "dispatch_tests.rs"]
mod tests;
