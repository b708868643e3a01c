//! Transfers a group's leadership to another voter.

use std::time::Duration;

use openraft::async_runtime::WatchReceiver;
use openraft::errors::Fatal;
use tidewater_common::ids::{GroupId, NodeId};
use tidewater_common::refusal::Refusal;
use tidewater_proto::v1::{Reason, TransferLeaderRequest, TransferLeaderResponse};

use crate::group::refusals;
use crate::group::replica::GroupReplica;
use crate::groups::Groups;

const DEADLINE: Duration = Duration::from_secs(5);

pub(super) async fn call(
    groups: &Groups,
    request: TransferLeaderRequest,
) -> Result<TransferLeaderResponse, Refusal> {
    let replica = groups.get(GroupId(request.group_id))?;
    replica.require_leader()?;
    transfer(&replica, NodeId(request.to_node), DEADLINE).await?;
    Ok(TransferLeaderResponse {})
}

/// Starts the transfer and waits until the target leads.
pub(crate) async fn transfer(
    replica: &GroupReplica,
    to: NodeId,
    limit: Duration,
) -> Result<(), Refusal> {
    let group = replica.group();
    if to == replica.shared.node {
        return Ok(());
    }
    if !replica.membership().membership().voter_ids().any(|voter| voter == to.get()) {
        return Err(Refusal::new(
            Reason::MemberNotFound,
            format!("node {to} is not a voter of group {group}"),
        ));
    }
    replica
        .raft
        .trigger()
        .transfer_leader(to.get())
        .await
        .map_err(|fatal| refusals::replica_stopped(group, &fatal))?;
    let mut metrics = replica.raft.server_metrics();
    let moved = async {
        loop {
            if metrics.borrow_watched().current_leader == Some(to.get()) {
                return Ok(());
            }
            if metrics.changed().await.is_err() {
                return Err(refusals::replica_stopped(group, &Fatal::Stopped));
            }
        }
    };
    tokio::time::timeout(limit, moved)
        .await
        .unwrap_or_else(|_| Err(refusals::deadline_exceeded("a leader transfer", group)))
}
