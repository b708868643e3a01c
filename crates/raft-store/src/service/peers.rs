//! Refusal of messages that no member of their group sends: counted, and logged at a bounded rate.
//!
//! A replica that missed changes of the members may not know its group's leader. Before it refuses a
//! stranger for good, it reads the meta group's record of the members, and asks the members that it knows, at
//! most once a second.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use tidewater_common::ids::{GroupId, NodeId};
use tidewater_common::refusal::Refusal;
use tidewater_proto::v1::raft_client::RaftClient;
use tidewater_proto::v1::{self, Reason};
use tidewater_rpc::ConnectPolicy;
use tokio::time::Instant;

use super::dispatch::Sender;
use super::host::{HostedGroup, RaftHost};
use super::peer_check::{PeerMessage, PeerViolation, ReplicaView, check_peer, check_start};
use crate::meters;
use crate::types::{StoredMembership, wire};

/// Deadline of a member's answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);

impl RaftHost {
    /// Refuses a message of a process that a newer one of the same node has superseded.
    pub(super) fn check_start(&self, group: GroupId, sender: Sender) -> Result<(), Refusal> {
        let newest = self.newest_start(NodeId(sender.node));
        let Err(violation) = check_start(sender.boot, newest) else { return Ok(()) };
        let text = format!("group {group} refuses a message of node {}: {violation}", sender.node);
        self.note_refusal(group, violation.label(), &text, sender.address);
        Err(Refusal::new(Reason::DirectoryCopied, text))
    }

    /// Asks another node for the last membership of a group that it knows to be committed. `None`: its
    /// address is not known, it does not answer, or it has no replica of the group.
    pub async fn ask_membership(&self, group: GroupId, node: NodeId) -> Option<StoredMembership> {
        ask(self.address(node)?, self.question(group, node)).await
    }

    fn question(&self, group: GroupId, to: NodeId) -> v1::RaftHeader {
        v1::RaftHeader {
            cluster_id: self.cluster_id().to_string(),
            source_node: self.node_id().get(),
            target_node: to.get(),
            group_id: group.get(),
            source_boot: 0,
        }
    }

    /// Refuses a message that no member of the group sends. `from`: the sender's address.
    pub(super) fn admit(
        self: &Arc<Self>,
        group: GroupId,
        hosted: &Arc<HostedGroup>,
        message: &PeerMessage,
        from: Option<SocketAddr>,
    ) -> Result<(), Refusal> {
        let view = hosted.handler.view();
        let check = || {
            let confirmed = hosted.confirmed.newer_than(*view.effective.log_id());
            check_peer(message, self.node_id().get(), &view, &confirmed)
        };
        let mut checked = check();
        if matches!(checked, Err(PeerViolation::NotMember(_)))
            && hosted.confirmed.begin(Instant::now())
        {
            if let Some((at, members)) = self.recorded_members(group) {
                let nodes = || members.iter().map(|node| node.get()).collect();
                hosted.confirmed.record_at(Some(at), nodes);
                checked = check();
            }
            if checked.is_err() {
                let view = view.clone();
                tokio::spawn(ask_members(Arc::clone(self), group, Arc::clone(hosted), view));
            }
        }
        let Err(violation) = checked else { return Ok(()) };
        let reason = match violation {
            PeerViolation::NotMember(_) => Reason::MemberNotFound,
            _ => Reason::InvalidArgument,
        };
        let kind = message.kind;
        let text =
            format!("group {group} refuses a message of node {}: {violation}", message.source);
        self.note_refusal(group, violation.label(), &format!("{kind:?}: {text}"), from);
        Err(Refusal::new(reason, text))
    }

    /// Counts a refused message, and logs it unless another one was logged a moment ago.
    pub(super) fn note_refusal(
        &self,
        group: GroupId,
        label: &'static str,
        problem: &str,
        from: Option<SocketAddr>,
    ) {
        meters::count_refused_message(label);
        if let Some(count) = self.refusals().due(Instant::now().into_std()) {
            let from = from.map_or_else(|| "unknown".to_owned(), |from| from.to_string());
            tracing::warn!(%group, %from, count, problem, "refused a Raft message");
        }
    }
}

/// Asks the members that the replica knows, and records the latest membership that they name.
async fn ask_members(
    host: Arc<RaftHost>,
    group: GroupId,
    hosted: Arc<HostedGroup>,
    view: ReplicaView,
) {
    let own = host.node_id().get();
    let others = view.effective.nodes().filter(|(id, _)| **id != own);
    let questions = others.map(|(id, member)| {
        let address = host.address(NodeId(*id)).unwrap_or_else(|| member.address.clone());
        ask(address, host.question(group, NodeId(*id)))
    });
    for membership in join_all(questions).await.into_iter().flatten() {
        hosted.confirmed.record(&membership);
    }
}

/// Asks one member. `None`: it does not answer in time, or does not know the group.
async fn ask(address: String, header: v1::RaftHeader) -> Option<StoredMembership> {
    let channel = ConnectPolicy::CONTROL.channel(&address).ok()?;
    let request = v1::MembersRequest { header: Some(header) };
    let mut client = RaftClient::new(channel);
    let answer = tokio::time::timeout(ANSWER_TIMEOUT, client.members(request)).await.ok()?;
    wire::stored_membership_from_wire(answer.ok()?.into_inner()).ok()
}
