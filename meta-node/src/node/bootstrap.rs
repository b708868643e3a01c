//! Making a cluster: ask all peers whether they would join, then let them.

use std::time::Duration;

use tidewater_common::ids::{ClusterId, NodeId};
use tidewater_proto::v1::{self, Reason};
use tidewater_raft_store::Identity;

use super::MetaError;
use crate::join::{self, Peers};

/// Pause between two attempts to reach a peer.
const RETRY: Duration = Duration::from_millis(300);
/// Attempts between two log lines.
const QUIET: u32 = 20;

/// Asks all peers; writes nothing anywhere.
pub(super) async fn check(
    peers: &Peers,
    cluster_id: ClusterId,
    node_id: NodeId,
) -> Result<(), MetaError> {
    ask_all(peers, cluster_id, node_id, true).await
}

/// Lets all peers join.
pub(super) async fn let_join(peers: &Peers, identity: &Identity) -> Result<(), MetaError> {
    ask_all(peers, identity.cluster_id, identity.node_id, false).await
}

async fn ask_all(
    peers: &Peers,
    cluster_id: ClusterId,
    node_id: NodeId,
    check_only: bool,
) -> Result<(), MetaError> {
    let others = peers.iter().filter(|(id, _)| **id != node_id);
    let asking = others.map(|(peer, address)| {
        let request = v1::JoinClusterRequest {
            cluster_id: cluster_id.to_string(),
            source_node: node_id.get(),
            target_node: peer.get(),
            peers: join::peers_to_wire(peers),
            bootstrap: true,
            check_only,
        };
        ask(*peer, address, request)
    });
    futures::future::try_join_all(asking).await.map(|_| ())
}

/// Until the peer answers; a refusal ends it.
async fn ask(
    peer: NodeId,
    address: &str,
    request: v1::JoinClusterRequest,
) -> Result<(), MetaError> {
    let mut attempts = 0u32;
    loop {
        let refusal = match join::ask(address, request.clone()).await {
            Ok(()) => return Ok(()),
            Err(refusal) => refusal,
        };
        if !is_passing(refusal.reason) {
            return Err(MetaError::PeerRefused { peer, address: address.to_owned(), refusal });
        }
        if attempts.is_multiple_of(QUIET) {
            tracing::info!(%peer, address, %refusal, "waiting for a peer to bootstrap with");
        }
        attempts += 1;
        tokio::time::sleep(RETRY).await;
    }
}

/// Whether a peer that answers so may answer otherwise later: it is not there yet, or is stopping.
fn is_passing(reason: Reason) -> bool {
    !matches!(
        reason,
        Reason::PeersMismatch
            | Reason::AlreadyBootstrapped
            | Reason::WrongNode
            | Reason::WrongCluster
            | Reason::InvalidArgument
    )
}
