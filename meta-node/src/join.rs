//! Handshake by which a meta node with an empty directory joins a cluster.
//!
//! A node joins a cluster only on a `JoinCluster` call: from the one peer that was started with
//! `--bootstrap`, or from the meta leader when an operator adds a member. The bootstrapping node calls
//! all peers twice: first with `check_only` (when a peer rejects, nothing is written), then to join.
//! Only then it initializes the group. Therefore two nodes that bootstrap at the same time both
//! reject, and nodes with different peer lists never elect a leader among themselves.

use std::collections::BTreeMap;
use std::time::Duration;

use parking_lot::Mutex;
use tidewater_common::feature_level::{FeatureLevel, Release};
use tidewater_common::ids::{ClusterId, NodeId};
use tidewater_common::refusal::Refusal;
use tidewater_proto::v1::admin_client::AdminClient;
use tidewater_proto::v1::meta_client::MetaClient;
use tidewater_proto::v1::{self, Reason};
use tidewater_rpc::{ConnectPolicy, attempt};
use tokio::sync::{mpsc, oneshot};
use tonic::transport::Channel;
use tonic::{Response, Status};

/// Limit for joining a cluster, once requested.
const JOIN_TIMEOUT: Duration = Duration::from_secs(5);
/// Limit for the answer to a call: above the time that joining may take.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// Members of group 0 with their addresses.
pub(crate) type MetaPeers = BTreeMap<NodeId, String>;

pub(crate) fn peers_to_wire(peers: &MetaPeers) -> Vec<v1::MetaPeer> {
    let peer = |(id, address): (&NodeId, &String)| v1::MetaPeer {
        node_id: id.get(),
        address: address.clone(),
    };
    peers.iter().map(peer).collect()
}

/// An accepted request to join a cluster, for the node's main task.
#[derive(Debug)]
pub(crate) struct JoinRequest {
    pub(crate) cluster_id: ClusterId,
    pub(crate) done: oneshot::Sender<Result<(), Refusal>>,
}

/// Handler of `JoinCluster` calls.
#[derive(Debug)]
pub(crate) struct Joiner {
    node_id: NodeId,
    peers: MetaPeers,
    bootstraps: bool,
    joined: Mutex<Option<ClusterId>>,
    requests: mpsc::Sender<JoinRequest>,
}

impl Joiner {
    pub(crate) fn new(
        node_id: NodeId,
        peers: MetaPeers,
        bootstraps: bool,
        joined: Option<ClusterId>,
    ) -> (Self, mpsc::Receiver<JoinRequest>) {
        let (requests, receiver) = mpsc::channel(4);
        (Self { node_id, peers, bootstraps, joined: Mutex::new(joined), requests }, receiver)
    }

    /// Records the cluster that this node has joined.
    pub(crate) fn set_joined(&self, cluster_id: ClusterId) {
        *self.joined.lock() = Some(cluster_id);
    }

    /// Handles a `JoinCluster` call. Returns when the node has joined, or an error.
    pub(crate) async fn handle(&self, request: v1::JoinClusterRequest) -> Result<(), Refusal> {
        let cluster_id: ClusterId = request
            .cluster_id
            .parse()
            .map_err(|_| Refusal::new(Reason::InvalidArgument, "the cluster id is not a UUID"))?;
        if self.decide(cluster_id, &request)? == JoinDecision::AlreadyMember || request.check_only {
            return Ok(());
        }
        let (done, result) = oneshot::channel();
        let stopping = || Refusal::new(Reason::ShuttingDown, "this meta node is stopping");
        let accepted = JoinRequest { cluster_id, done };
        let joining = async {
            self.requests.send(accepted).await.map_err(|_| stopping())?;
            result.await.map_err(|_| stopping())?
        };
        tokio::time::timeout(JOIN_TIMEOUT, joining).await.unwrap_or_else(|_| {
            Err(Refusal::new(
                Reason::DeadlineExceeded,
                format!("meta node {} is joining, but not ready yet: retry", self.node_id),
            ))
        })
    }

    fn decide(
        &self,
        cluster_id: ClusterId,
        request: &v1::JoinClusterRequest,
    ) -> Result<JoinDecision, Refusal> {
        let node_id = self.node_id;
        if request.target_node != node_id.get() {
            return Err(Refusal::new(
                Reason::WrongNode,
                format!("this is meta node {node_id}, not {}", request.target_node),
            ));
        }
        Release::own()
            .check(FeatureLevel::new(request.feature_level))
            .map_err(|error| Refusal::new(Reason::ReleaseUnsupported, error.to_string()))?;
        match *self.joined.lock() {
            Some(ours) if ours == cluster_id => return Ok(JoinDecision::AlreadyMember),
            Some(ours) => {
                return Err(Refusal::new(
                    Reason::AlreadyBootstrapped,
                    format!("meta node {node_id} already belongs to cluster {ours}"),
                ));
            }
            None => {}
        }
        if self.bootstraps {
            return Err(Refusal::new(
                Reason::AlreadyBootstrapped,
                format!(
                    "meta node {node_id} was also started with --bootstrap: use it on one node"
                ),
            ));
        }
        let theirs: MetaPeers =
            request.peers.iter().map(|peer| (NodeId(peer.node_id), peer.address.clone())).collect();
        check_peers(node_id, &self.peers, &theirs, request.bootstrap)?;
        Ok(JoinDecision::Join)
    }
}

/// Decision on a valid `JoinCluster` call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum JoinDecision {
    /// The node has already joined this cluster.
    AlreadyMember,
    /// The node joins the cluster.
    Join,
}

/// Checks a node's configured peers against the cluster's members. In a new cluster, both must be equal.
/// The configured peers of a node that joins later may be a subset of the members.
fn check_peers(
    node_id: NodeId,
    ours: &MetaPeers,
    theirs: &MetaPeers,
    bootstrap: bool,
) -> Result<(), Refusal> {
    let fits = if bootstrap {
        ours == theirs
    } else {
        theirs.contains_key(&node_id)
            && ours.iter().all(|(id, address)| theirs.get(id) == Some(address))
    };
    if fits {
        return Ok(());
    }
    let text = |peers: &MetaPeers| {
        peers.iter().map(|(id, address)| format!("{id}={address}")).collect::<Vec<_>>().join(",")
    };
    Err(Refusal::new(
        Reason::PeersMismatch,
        format!(
            "meta node {node_id} was started with --peers {}, the cluster has {}",
            text(ours),
            text(theirs)
        ),
    ))
}

/// Eligibility of a waiting node for membership in a running cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum JoinEligibility {
    /// An operator can add the node: all its configured peers are members.
    Eligible,
    /// The cluster can never add the node.
    Ineligible(Refusal),
}

/// Compares the configured peers of a waiting node with the members of a running cluster.
pub(crate) fn join_eligibility(
    node_id: NodeId,
    ours: &MetaPeers,
    members: &MetaPeers,
) -> JoinEligibility {
    if members.contains_key(&node_id) {
        return JoinEligibility::Ineligible(Refusal::new(
            Reason::MemberExists,
            format!(
                "meta node {node_id} is already a member of the cluster, with another data directory: to \
                 replace a lost directory, use a new node id (`tidewater meta-member replace`)"
            ),
        ));
    }
    let with_us: MetaPeers = members
        .iter()
        .chain(ours.iter().filter(|(id, _)| **id == node_id))
        .map(|(id, address)| (*id, address.clone()))
        .collect();
    match check_peers(node_id, ours, &with_us, false) {
        Ok(()) => JoinEligibility::Eligible,
        Err(refusal) => JoinEligibility::Ineligible(refusal),
    }
}

/// Fetches the members of the meta group from its leader, through the member at `address`.
pub(crate) async fn members(address: &str) -> Result<MetaPeers, Refusal> {
    let list = |address: String| async move {
        call(&address, async |channel| {
            AdminClient::new(channel).list_meta_members(v1::ListMetaMembersRequest {}).await
        })
        .await
    };
    let response = match list(address.to_owned()).await {
        Err(Refusal { leader: Some(leader), .. }) if !leader.address.is_empty() => {
            list(leader.address).await
        }
        response => response,
    };
    let members = response?.members;
    Ok(members.into_iter().map(|member| (NodeId(member.node_id), member.address)).collect())
}

/// Sends a `JoinCluster` call to the node at `address`; returns the node's release.
pub(crate) async fn request_join(
    address: &str,
    request: v1::JoinClusterRequest,
) -> Result<Release, Refusal> {
    let response =
        call(address, async |channel| MetaClient::new(channel).join_cluster(request).await);
    Ok(response.await?.release.into())
}

/// Returns whether a `JoinCluster` error is transient, e.g. because the peer is starting or stopping.
pub(crate) fn is_transient(reason: Reason) -> bool {
    !matches!(
        reason,
        Reason::PeersMismatch
            | Reason::AlreadyBootstrapped
            | Reason::WrongNode
            | Reason::WrongCluster
            | Reason::ReleaseUnsupported
            | Reason::InvalidArgument
    )
}

async fn call<T>(
    address: &str,
    make: impl AsyncFnOnce(Channel) -> Result<Response<T>, Status>,
) -> Result<T, Refusal> {
    let channel = ConnectPolicy::CONTROL.channel(address)?;
    attempt(address, ANSWER_TIMEOUT, make(channel)).await.map_err(|failed| {
        if failed.silent {
            let message = format!("cannot reach the meta node at {address}: {}", failed.refusal);
            Refusal::new(Reason::Unavailable, message).retry_after(Duration::from_millis(500))
        } else {
            failed.refusal
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peers(list: &[(u64, &str)]) -> MetaPeers {
        list.iter().map(|(id, address)| (NodeId(*id), (*address).to_owned())).collect()
    }

    fn cluster(number: u128) -> ClusterId {
        ClusterId(uuid::Uuid::from_u128(number))
    }

    fn request(
        cluster_id: ClusterId,
        peers: &MetaPeers,
        bootstrap: bool,
    ) -> v1::JoinClusterRequest {
        v1::JoinClusterRequest {
            cluster_id: cluster_id.to_string(),
            source_node: 1,
            target_node: 2,
            peers: peers_to_wire(peers),
            bootstrap,
            check_only: true,
            feature_level: 1,
        }
    }

    fn decide(joiner: &Joiner, request: &v1::JoinClusterRequest) -> Result<JoinDecision, Reason> {
        let cluster_id = request.cluster_id.parse().unwrap();
        joiner.decide(cluster_id, request).map_err(|refusal| refusal.reason)
    }

    #[test]
    fn empty_node_joins_the_cluster_of_its_peers() {
        let three = peers(&[(1, "a:1"), (2, "b:1"), (3, "c:1")]);
        let two = peers(&[(1, "a:1"), (2, "b:1")]);
        let other = peers(&[(1, "a:1"), (2, "b:1"), (3, "x:1")]);
        let (joiner, _requests) = Joiner::new(NodeId(2), three.clone(), false, None);
        let ours = cluster(1);
        assert_eq!(decide(&joiner, &request(ours, &three, true)), Ok(JoinDecision::Join));
        for wrong in [&two, &other] {
            assert_eq!(decide(&joiner, &request(ours, wrong, true)), Err(Reason::PeersMismatch));
        }
        let wrong_node = v1::JoinClusterRequest { target_node: 3, ..request(ours, &three, true) };
        assert_eq!(decide(&joiner, &wrong_node), Err(Reason::WrongNode));
        let feature_level = FeatureLevel::HIGHEST.next().get();
        let later = v1::JoinClusterRequest { feature_level, ..request(ours, &three, true) };
        assert_eq!(decide(&joiner, &later), Err(Reason::ReleaseUnsupported));
        joiner.set_joined(ours);
        assert_eq!(decide(&joiner, &request(ours, &two, true)), Ok(JoinDecision::AlreadyMember));
        assert_eq!(
            decide(&joiner, &request(cluster(2), &three, true)),
            Err(Reason::AlreadyBootstrapped)
        );
        let (second, _requests) = Joiner::new(NodeId(2), three.clone(), true, None);
        assert_eq!(decide(&second, &request(ours, &three, true)), Err(Reason::AlreadyBootstrapped));
    }

    #[test]
    fn later_joiner_may_list_a_subset_of_the_members() {
        let four = peers(&[(1, "a:1"), (2, "b:1"), (3, "c:1"), (4, "d:1")]);
        let decide_with = |ours: &MetaPeers| {
            let (joiner, _requests) = Joiner::new(NodeId(2), ours.clone(), false, None);
            decide(&joiner, &request(cluster(1), &four, false))
        };
        assert_eq!(decide_with(&peers(&[(1, "a:1"), (2, "b:1")])), Ok(JoinDecision::Join));
        assert_eq!(decide_with(&four), Ok(JoinDecision::Join));
        assert_eq!(decide_with(&peers(&[(2, "b:1"), (5, "e:1")])), Err(Reason::PeersMismatch));
        assert_eq!(decide_with(&peers(&[(2, "z:1")])), Err(Reason::PeersMismatch));
    }

    #[test]
    fn waiting_node_detects_a_cluster_that_cannot_add_it() {
        let members = peers(&[(1, "a:1"), (2, "b:1"), (3, "c:1")]);
        let rejected =
            |node: u64, ours: &MetaPeers| match join_eligibility(NodeId(node), ours, &members) {
                JoinEligibility::Eligible => None,
                JoinEligibility::Ineligible(refusal) => Some(refusal.reason),
            };
        assert_eq!(rejected(4, &peers(&[(1, "a:1"), (4, "d:1")])), None);
        let other_address = peers(&[(1, "x:1"), (4, "d:1")]);
        assert_eq!(rejected(4, &other_address), Some(Reason::PeersMismatch));
        let unknown_peer = peers(&[(1, "a:1"), (5, "e:1"), (4, "d:1")]);
        assert_eq!(rejected(4, &unknown_peer), Some(Reason::PeersMismatch));
        assert_eq!(rejected(3, &members), Some(Reason::MemberExists));
    }
}
