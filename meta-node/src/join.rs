//! How a node with an empty directory becomes part of a cluster.
//!
//! A node belongs to a cluster only once it is told so: by the one peer that was started with
//! `--bootstrap`, or by the meta leader when an operator adds a member. The bootstrapping node asks
//! all peers twice, first whether they would join (nothing is written when one would not), then to
//! join, and only then initializes the group. So two nodes that bootstrap at the same time both
//! refuse, and nodes whose peer lists differ never elect a leader among themselves.

use std::collections::BTreeMap;
use std::time::Duration;

use parking_lot::Mutex;
use tidewater_common::ids::{ClusterId, NodeId};
use tidewater_common::refusal::Refusal;
use tidewater_proto::v1::admin_client::AdminClient;
use tidewater_proto::v1::meta_client::MetaClient;
use tidewater_proto::v1::{self, Reason};
use tokio::sync::{mpsc, oneshot};
use tonic::transport::{Channel, Endpoint};
use tonic::{Response, Status};

/// How long one call may take.
const CALL: Duration = Duration::from_secs(5);

/// Members of group 0 and where they are.
pub(crate) type Peers = BTreeMap<NodeId, String>;

pub(crate) fn peers_to_wire(peers: &Peers) -> Vec<v1::MetaPeer> {
    let peer = |(id, address): (&NodeId, &String)| v1::MetaPeer {
        node_id: id.get(),
        address: address.clone(),
    };
    peers.iter().map(peer).collect()
}

/// A cluster that this node should be part of.
#[derive(Debug)]
pub(crate) struct Adoption {
    pub(crate) cluster_id: ClusterId,
    pub(crate) done: oneshot::Sender<Result<(), Refusal>>,
}

/// Answers those who want this node in their cluster.
#[derive(Debug)]
pub(crate) struct Joiner {
    node_id: NodeId,
    peers: Peers,
    bootstraps: bool,
    joined: Mutex<Option<ClusterId>>,
    adoptions: mpsc::Sender<Adoption>,
}

impl Joiner {
    pub(crate) fn new(
        node_id: NodeId,
        peers: Peers,
        bootstraps: bool,
        joined: Option<ClusterId>,
    ) -> (Self, mpsc::Receiver<Adoption>) {
        let (adoptions, requests) = mpsc::channel(4);
        (Self { node_id, peers, bootstraps, joined: Mutex::new(joined), adoptions }, requests)
    }

    /// This node belongs to a cluster from now on.
    pub(crate) fn joined(&self, cluster_id: ClusterId) {
        *self.joined.lock() = Some(cluster_id);
    }

    /// Joins, or says why not.
    pub(crate) async fn answer(&self, request: v1::JoinClusterRequest) -> Result<(), Refusal> {
        let cluster_id: ClusterId = request
            .cluster_id
            .parse()
            .map_err(|_| Refusal::new(Reason::InvalidArgument, "the cluster id is no UUID"))?;
        if self.decide(cluster_id, &request)? == Verdict::Belongs || request.check_only {
            return Ok(());
        }
        let (done, result) = oneshot::channel();
        let stopping = || Refusal::new(Reason::ShuttingDown, "this meta node is stopping");
        let adoption = Adoption { cluster_id, done };
        let joining = async {
            self.adoptions.send(adoption).await.map_err(|_| stopping())?;
            result.await.map_err(|_| stopping())?
        };
        tokio::time::timeout(CALL, joining).await.unwrap_or_else(|_| {
            Err(Refusal::new(
                Reason::DeadlineExceeded,
                format!("meta node {} is joining, but not ready yet: ask again", self.node_id),
            ))
        })
    }

    fn decide(
        &self,
        cluster_id: ClusterId,
        request: &v1::JoinClusterRequest,
    ) -> Result<Verdict, Refusal> {
        let node_id = self.node_id;
        if request.target_node != node_id.get() {
            return Err(Refusal::new(
                Reason::WrongNode,
                format!("this is meta node {node_id}, not {}", request.target_node),
            ));
        }
        match *self.joined.lock() {
            Some(ours) if ours == cluster_id => return Ok(Verdict::Belongs),
            Some(ours) => {
                return Err(Refusal::new(
                    Reason::AlreadyBootstrapped,
                    format!("meta node {node_id} belongs to cluster {ours} already"),
                ));
            }
            None => {}
        }
        if self.bootstraps {
            return Err(Refusal::new(
                Reason::AlreadyBootstrapped,
                format!("meta node {node_id} was started with --bootstrap too: only one may be"),
            ));
        }
        let theirs: Peers =
            request.peers.iter().map(|peer| (NodeId(peer.node_id), peer.address.clone())).collect();
        check_peers(node_id, &self.peers, &theirs, request.bootstrap)?;
        Ok(Verdict::Joins)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Belongs,
    Joins,
}

/// A new cluster has exactly the peers that each node was started with; one that joins later may
/// have been told of fewer, but of nobody else.
fn check_peers(
    node_id: NodeId,
    ours: &Peers,
    theirs: &Peers,
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
    let text = |peers: &Peers| {
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

/// What a node that waits to be asked learns about a cluster that runs already.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Standing {
    /// It may be added: all that it knows of are members.
    MayBeAdded,
    /// It can never be asked into this cluster.
    Refused(Refusal),
}

/// Compares what a waiting node was started with and the members of a running cluster.
pub(crate) fn standing(node_id: NodeId, ours: &Peers, members: &Peers) -> Standing {
    if members.contains_key(&node_id) {
        return Standing::Refused(Refusal::new(
            Reason::MemberExists,
            format!(
                "meta node {node_id} is a member of the cluster already, with another data directory: a \
                 directory that was lost comes back under a new id (meta-member replace)"
            ),
        ));
    }
    let with_us: Peers = members
        .iter()
        .chain(ours.iter().filter(|(id, _)| **id == node_id))
        .map(|(id, address)| (*id, address.clone()))
        .collect();
    match check_peers(node_id, ours, &with_us, false) {
        Ok(()) => Standing::MayBeAdded,
        Err(refusal) => Standing::Refused(refusal),
    }
}

/// The members of the meta group as its leader tells, found through any of them.
pub(crate) async fn members(address: &str) -> Result<Peers, Refusal> {
    let list = |address: String| async move {
        call(&address, async |channel| {
            AdminClient::new(channel).list_meta_members(v1::ListMetaMembersRequest {}).await
        })
        .await
    };
    let answer = match list(address.to_owned()).await {
        Err(Refusal { leader: Some(leader), .. }) if !leader.address.is_empty() => {
            list(leader.address).await
        }
        answer => answer,
    };
    let members = answer?.members;
    Ok(members.into_iter().map(|member| (NodeId(member.node_id), member.address)).collect())
}

/// Asks a node to join.
pub(crate) async fn ask(address: &str, request: v1::JoinClusterRequest) -> Result<(), Refusal> {
    let answer =
        call(address, async |channel| MetaClient::new(channel).join_cluster(request).await);
    answer.await.map(|_| ())
}

/// Whether a peer that answers so may answer otherwise later: it is not there yet, or is stopping.
pub(crate) fn is_passing(reason: Reason) -> bool {
    !matches!(
        reason,
        Reason::PeersMismatch
            | Reason::AlreadyBootstrapped
            | Reason::WrongNode
            | Reason::WrongCluster
            | Reason::InvalidArgument
    )
}

async fn call<T>(
    address: &str,
    make: impl AsyncFnOnce(Channel) -> Result<Response<T>, Status>,
) -> Result<T, Refusal> {
    let unreachable = |error: &dyn std::fmt::Display| {
        Refusal::new(Reason::Unavailable, format!("meta node at {address} is not reached: {error}"))
            .retry_after(Duration::from_millis(500))
    };
    let endpoint = Endpoint::from_shared(format!("http://{address}"))
        .map_err(|error| Refusal::new(Reason::InvalidArgument, error.to_string()))?
        .connect_timeout(CALL)
        .timeout(CALL);
    let calling = async {
        let channel = endpoint.connect().await.map_err(|error| unreachable(&error))?;
        make(channel)
            .await
            .map(Response::into_inner)
            .map_err(|status| Refusal::from_status(&status))
    };
    match tokio::time::timeout(2 * CALL, calling).await {
        Ok(answer) => answer,
        Err(_) => Err(unreachable(&"no answer in time")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peers(list: &[(u64, &str)]) -> Peers {
        list.iter().map(|(id, address)| (NodeId(*id), (*address).to_owned())).collect()
    }

    fn cluster(number: u128) -> ClusterId {
        ClusterId(uuid::Uuid::from_u128(number))
    }

    fn request(cluster_id: ClusterId, peers: &Peers, bootstrap: bool) -> v1::JoinClusterRequest {
        v1::JoinClusterRequest {
            cluster_id: cluster_id.to_string(),
            source_node: 1,
            target_node: 2,
            peers: peers_to_wire(peers),
            bootstrap,
            check_only: true,
        }
    }

    fn reason(joiner: &Joiner, request: &v1::JoinClusterRequest) -> Result<Verdict, Reason> {
        let cluster_id = request.cluster_id.parse().unwrap();
        joiner.decide(cluster_id, request).map_err(|refusal| refusal.reason)
    }

    #[test]
    fn an_empty_node_joins_the_cluster_of_its_peers() {
        let three = peers(&[(1, "a:1"), (2, "b:1"), (3, "c:1")]);
        let two = peers(&[(1, "a:1"), (2, "b:1")]);
        let other = peers(&[(1, "a:1"), (2, "b:1"), (3, "x:1")]);
        let (joiner, _requests) = Joiner::new(NodeId(2), three.clone(), false, None);
        let ours = cluster(1);
        assert_eq!(reason(&joiner, &request(ours, &three, true)), Ok(Verdict::Joins));
        for wrong in [&two, &other] {
            assert_eq!(reason(&joiner, &request(ours, wrong, true)), Err(Reason::PeersMismatch));
        }
        let wrong_node = v1::JoinClusterRequest { target_node: 3, ..request(ours, &three, true) };
        assert_eq!(reason(&joiner, &wrong_node), Err(Reason::WrongNode));
        joiner.joined(ours);
        assert_eq!(reason(&joiner, &request(ours, &two, true)), Ok(Verdict::Belongs));
        assert_eq!(
            reason(&joiner, &request(cluster(2), &three, true)),
            Err(Reason::AlreadyBootstrapped)
        );
        let (second, _requests) = Joiner::new(NodeId(2), three.clone(), true, None);
        assert_eq!(reason(&second, &request(ours, &three, true)), Err(Reason::AlreadyBootstrapped));
    }

    #[test]
    fn a_node_that_joins_later_may_know_fewer_peers_but_no_others() {
        let four = peers(&[(1, "a:1"), (2, "b:1"), (3, "c:1"), (4, "d:1")]);
        let ask = |ours: &Peers| {
            let (joiner, _requests) = Joiner::new(NodeId(2), ours.clone(), false, None);
            reason(&joiner, &request(cluster(1), &four, false))
        };
        assert_eq!(ask(&peers(&[(1, "a:1"), (2, "b:1")])), Ok(Verdict::Joins));
        assert_eq!(ask(&four), Ok(Verdict::Joins));
        assert_eq!(ask(&peers(&[(2, "b:1"), (5, "e:1")])), Err(Reason::PeersMismatch));
        assert_eq!(ask(&peers(&[(2, "z:1")])), Err(Reason::PeersMismatch));
    }

    #[test]
    fn a_waiting_node_learns_that_it_can_never_be_asked() {
        let members = peers(&[(1, "a:1"), (2, "b:1"), (3, "c:1")]);
        let refused = |node: u64, ours: &Peers| match standing(NodeId(node), ours, &members) {
            Standing::MayBeAdded => None,
            Standing::Refused(refusal) => Some(refusal.reason),
        };
        assert_eq!(refused(4, &peers(&[(1, "a:1"), (4, "d:1")])), None);
        let other_address = peers(&[(1, "x:1"), (4, "d:1")]);
        assert_eq!(refused(4, &other_address), Some(Reason::PeersMismatch));
        let nobody = peers(&[(1, "a:1"), (5, "e:1"), (4, "d:1")]);
        assert_eq!(refused(4, &nobody), Some(Reason::PeersMismatch));
        assert_eq!(refused(3, &members), Some(Reason::MemberExists));
    }
}
