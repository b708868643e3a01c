//! Making a cluster: ask all peers whether they would join, then let them.

use std::time::Duration;

use tidewater_common::ids::{ClusterId, NodeId};
use tidewater_proto::v1;
use tidewater_raft_store::Identity;

use super::MetaError;
use crate::join::{self, Peers, Standing};

/// Pause between two attempts to reach a peer.
const RETRY: Duration = Duration::from_millis(300);
/// Pause between two looks at whether the peers run a cluster already. Longer than a peer that is
/// being asked to join takes, so that it does not meet the cluster that it is about to be part of.
const LOOK: Duration = Duration::from_secs(1);
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
        if !join::is_passing(refusal.reason) {
            return Err(MetaError::PeerRefused { peer, address: address.to_owned(), refusal });
        }
        if attempts.is_multiple_of(QUIET) {
            tracing::info!(%peer, address, %refusal, "waiting for a peer to bootstrap with");
        }
        attempts += 1;
        tokio::time::sleep(RETRY).await;
    }
}

/// Resolves with the reason when the peers run a cluster that can never ask this node to join.
pub(super) async fn never_asked(peers: &Peers, node_id: NodeId) -> MetaError {
    let mut told = false;
    loop {
        for (peer, address) in peers.iter().filter(|(id, _)| **id != node_id) {
            tokio::time::sleep(LOOK).await;
            // A peer that is not there, or waits too, says nothing about a cluster.
            let Ok(members) = join::members(address).await else { continue };
            match join::standing(node_id, peers, &members) {
                Standing::Refused(refusal) => {
                    return MetaError::PeerRefused {
                        peer: *peer,
                        address: address.clone(),
                        refusal,
                    };
                }
                Standing::MayBeAdded if !told => {
                    told = true;
                    tracing::warn!(
                        %peer,
                        address,
                        "the cluster runs without this node: add it with `tidewater meta-member add`"
                    );
                }
                Standing::MayBeAdded => {}
            }
        }
        if peers.len() < 2 {
            std::future::pending::<()>().await;
        }
    }
}
