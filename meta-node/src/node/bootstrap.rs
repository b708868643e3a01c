//! Creation of a cluster: checks that all peers would join, then lets them join.

use std::time::Duration;

use tidewater_common::feature_level::FeatureLevel;
use tidewater_common::ids::{ClusterId, NodeId};
use tidewater_proto::v1;
use tidewater_raft_store::Identity;

use super::MetaError;
use crate::join::{self, JoinEligibility, MetaPeers};

/// Delay between attempts to reach a peer.
const RETRY_DELAY: Duration = Duration::from_millis(300);
/// Delay between checks whether the peers already run a cluster. Longer than the handshake takes, so
/// that a joining node does not find the cluster that it is about to join.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);
/// Number of attempts for each log line.
const ATTEMPTS_PER_LOG: u32 = 20;

/// Checks that all peers would join. Writes nothing on any node.
pub(super) async fn check_peers(
    peers: &MetaPeers,
    cluster_id: ClusterId,
    node_id: NodeId,
) -> Result<(), MetaError> {
    call_all(peers, cluster_id, node_id, true).await
}

/// Makes all peers join the cluster.
pub(super) async fn join_peers(peers: &MetaPeers, identity: &Identity) -> Result<(), MetaError> {
    call_all(peers, identity.cluster_id, identity.node_id, false).await
}

async fn call_all(
    peers: &MetaPeers,
    cluster_id: ClusterId,
    node_id: NodeId,
    check_only: bool,
) -> Result<(), MetaError> {
    let others = peers.iter().filter(|(id, _)| **id != node_id);
    let calls = others.map(|(peer, address)| {
        let request = v1::JoinClusterRequest {
            cluster_id: cluster_id.to_string(),
            source_node: node_id.get(),
            target_node: peer.get(),
            peers: join::peers_to_wire(peers),
            bootstrap: true,
            check_only,
            feature_level: FeatureLevel::FIRST.get(),
        };
        call(*peer, address, request)
    });
    futures::future::try_join_all(calls).await.map(|_| ())
}

/// Calls a peer until it accepts. Retries transient errors; any other error is returned.
async fn call(
    peer: NodeId,
    address: &str,
    request: v1::JoinClusterRequest,
) -> Result<(), MetaError> {
    let mut attempts = 0u32;
    loop {
        let refusal = match join::request_join(address, request.clone()).await {
            Ok(_) => return Ok(()),
            Err(refusal) => refusal,
        };
        if !join::is_transient(refusal.reason) {
            return Err(MetaError::PeerRefused { peer, address: address.to_owned(), refusal });
        }
        if attempts.is_multiple_of(ATTEMPTS_PER_LOG) {
            tracing::info!(%peer, address, %refusal, "waiting for a peer to join the bootstrap");
        }
        attempts += 1;
        tokio::time::sleep(RETRY_DELAY).await;
    }
}

/// Waits until the peers run a cluster that can never add this node; returns the error.
pub(super) async fn wait_until_ineligible(peers: &MetaPeers, node_id: NodeId) -> MetaError {
    let mut logged = false;
    loop {
        for (peer, address) in peers.iter().filter(|(id, _)| **id != node_id) {
            tokio::time::sleep(CHECK_INTERVAL).await;
            // A peer that is unreachable, or is also waiting, has no members to compare with.
            let Ok(members) = join::members(address).await else { continue };
            match join::join_eligibility(node_id, peers, &members) {
                JoinEligibility::Ineligible(refusal) => {
                    return MetaError::PeerRefused {
                        peer: *peer,
                        address: address.clone(),
                        refusal,
                    };
                }
                JoinEligibility::Eligible if !logged => {
                    logged = true;
                    tracing::warn!(
                        %peer,
                        address,
                        "cluster runs without this node; add it with `tidewater meta-member add`"
                    );
                }
                JoinEligibility::Eligible => {}
            }
        }
        if peers.len() < 2 {
            std::future::pending::<()>().await;
        }
    }
}
