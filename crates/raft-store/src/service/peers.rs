//! Refusal of messages that no member of their group sends: counted, and logged at a bounded rate.
//!
//! A replica that missed changes of the members may not know its group's leader. Before it refuses a
//! stranger for good, it asks the members that it knows, at most once a second.

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

    /// Refuses a message that no member of the group sends. `from`: the sender's address.
    pub(super) fn admit(
        self: &Arc<Self>,
        group: GroupId,
        hosted: &Arc<HostedGroup>,
        message: &PeerMessage,
        from: Option<SocketAddr>,
    ) -> Result<(), Refusal> {
        let view = hosted.handler.view();
        let confirmed = hosted.confirmed.newer_than(*view.effective.log_id());
        let checked = check_peer(message, self.node_id().get(), &view, &confirmed);
        let Err(violation) = checked else { return Ok(()) };
        if matches!(violation, PeerViolation::NotMember(_))
            && hosted.confirmed.begin(Instant::now())
        {
            tokio::spawn(ask_members(Arc::clone(self), group, Arc::clone(hosted), view));
        }
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
    let questions =
        others.map(|(id, member)| {
            let address = host.address(NodeId(*id)).unwrap_or_else(|| member.address.clone());
            let header = v1::RaftHeader {
                cluster_id: host.cluster_id().to_string(),
                source_node: own,
                target_node: *id,
                group_id: group.get(),
                source_boot: 0,
            };
            async move {
                tokio::time::timeout(ANSWER_TIMEOUT, ask(address, header)).await.ok().flatten()
            }
        });
    for membership in join_all(questions).await.into_iter().flatten() {
        hosted.confirmed.record(&membership);
    }
}

/// Asks one member. `None`: it does not answer, or does not know the group.
async fn ask(address: String, header: v1::RaftHeader) -> Option<StoredMembership> {
    let channel = ConnectPolicy::CONTROL.channel(&address).ok()?;
    let request = v1::MembersRequest { header: Some(header) };
    let answer = RaftClient::new(channel).members(request).await.ok()?.into_inner();
    wire::stored_membership_from_wire(answer).ok()
}
