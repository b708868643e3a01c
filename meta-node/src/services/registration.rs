//! Limits of registrations, checked by the leader before it proposes one: a registration needs no
//! authorization, and every node that is registered is part of every catalog watch.
//!
//! They are no part of the command: replaying a log of an earlier release gives the same catalog.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tidewater_common::feature_level::Release;
use tidewater_common::ids::NodeId;
use tidewater_common::quote::quoted;
use tidewater_common::refusal::Refusal;
use tidewater_proto::v1::{NodeRole, NodeState, Reason, RegisterRequest};

use super::registration_rate::RETRY_AFTER;
use crate::catalog::{MetaState, Node};
use crate::commands::CommandError;

/// Maximum number of compactors in the catalog, including those that are down and not yet forgotten.
const MAX_COMPACTORS: usize = 1_024;
/// Time without a heartbeat after which another node may use its address: two heartbeats.
const LIVE_WITHIN: Duration = Duration::from_secs(2);

/// Checks the registration of a node.
///
/// `silent_for`: time since the last heartbeat of each node that has sent one. `max_data_nodes`: maximum
/// number of data nodes in the catalog, which never forgets one. A node that is known by its directory is
/// not limited, but it must not be running at another address: then this directory is a copy of its
/// directory.
pub(super) fn check(
    state: &MetaState,
    request: &RegisterRequest,
    silent_for: &BTreeMap<NodeId, Duration>,
    max_data_nodes: usize,
) -> Result<(), Refusal> {
    let release = Release::from(request.release.clone());
    release.check(state.header().feature_level).map_err(CommandError::from)?;
    let address = &request.address;
    let is_live = |node: &Node| {
        node.state == NodeState::Up
            && silent_for.get(&node.id).is_some_and(|silent| *silent < LIVE_WITHIN)
    };
    if let Some(known) = find_known(state, request) {
        // A number of starts is sent by nodes that stop when this is final.
        return if request.boot != 0 && known.address != *address && is_live(known) {
            Err(running_elsewhere(known))
        } else {
            Ok(())
        };
    }
    // A process with all roles has one address.
    let has_meta_node =
        state.nodes().any(|node| node.role == NodeRole::Meta && node.address == *address);
    let owner = state.nodes().find(|node| {
        let may_share = has_meta_node && node.role != request.role();
        node.role != NodeRole::Meta && node.address == *address && !may_share && is_live(node)
    });
    if let Some(owner) = owner {
        let text = format!(
            "address {} belongs to node {}, which sends heartbeats: choose another --listen or \
             --advertise",
            quoted(address),
            owner.id
        );
        return Err(Refusal::new(Reason::MemberExists, text).retry_after(RETRY_AFTER));
    }
    let registered = state.nodes().filter(|node| node.role == request.role()).count();
    let text = match request.role() {
        NodeRole::Compactor if registered >= MAX_COMPACTORS => format!(
            "the cluster has {MAX_COMPACTORS} compactors, which is the maximum: stop some, and \
             register again an hour later"
        ),
        NodeRole::Data if registered >= max_data_nodes => format!(
            "the catalog has {registered} data nodes, including those that are down, which is the maximum: \
             restart nodes with their data directories, so that they keep their ids, or raise \
             --max-data-nodes of all meta nodes"
        ),
        _ => return Ok(()),
    };
    Err(Refusal::new(Reason::Overloaded, text).retry_after(RETRY_AFTER))
}

/// Returns whether the catalog has the node of this directory.
pub(super) fn is_known(state: &MetaState, request: &RegisterRequest) -> bool {
    find_known(state, request).is_some()
}

fn find_known<'a>(state: &'a MetaState, request: &RegisterRequest) -> Option<&'a Arc<Node>> {
    state.node_of_directory(request.directory_id.parse().ok()?)
}

/// A node that has just stopped may start at another address: it registers again until its silence is long
/// enough.
fn running_elsewhere(node: &Node) -> Refusal {
    let text = format!(
        "node {} with this data directory sends heartbeats from {}: this directory is a copy of its \
         directory. To join as a new node, use an empty --data-dir",
        node.id, node.address
    );
    Refusal::new(Reason::DirectoryCopied, text).retry_after(RETRY_AFTER)
}

#[cfg(test)]
mod tests {
    use tidewater_proto::v1::{self, meta_command::Kind};

    use super::*;
    use crate::commands::testing::{compactor, directory, run, with_nodes};

    fn request(number: u64, role: NodeRole, address: &str) -> RegisterRequest {
        RegisterRequest {
            directory_id: directory(number),
            role: role.into(),
            address: address.into(),
            ..RegisterRequest::default()
        }
    }

    #[test]
    fn address_of_a_live_node_is_not_taken_over() {
        let state = with_nodes(2);
        let address = state.node(NodeId(101)).unwrap().address.clone();
        let heard = |milliseconds| [(NodeId(101), Duration::from_millis(milliseconds))].into();
        let check = |role, heard: &BTreeMap<NodeId, Duration>| {
            super::check(&state, &request(500, role, &address), heard, MAX_DATA_NODES)
                .map_err(|refusal| refusal.reason)
        };
        for role in [NodeRole::Data, NodeRole::Compactor] {
            assert_eq!(check(role, &heard(0)), Err(Reason::MemberExists), "{role:?}");
            assert_eq!(check(role, &heard(1_999)), Err(Reason::MemberExists), "{role:?}");
            assert_eq!(check(role, &heard(2_000)), Ok(()), "{role:?}");
            assert_eq!(check(role, &BTreeMap::new()), Ok(()), "{role:?}");
        }
        let other = request(500, NodeRole::Compactor, "127.0.0.1:9999");
        assert_eq!(super::check(&state, &other, &heard(0), MAX_DATA_NODES), Ok(()));
    }

    #[test]
    fn release_that_lacks_the_clusters_level_is_refused() {
        let state = with_nodes(1);
        let check = |lowest_level, highest_level| {
            let release = "9".to_owned();
            let release = Some(v1::ReleaseInfo { release, lowest_level, highest_level });
            let address = "127.0.0.1:9";
            let request = RegisterRequest { release, ..request(500, NodeRole::Data, address) };
            super::check(&state, &request, &BTreeMap::new(), MAX_DATA_NODES)
                .map_err(|refusal| refusal.reason)
        };
        assert_eq!(check(1, 9), Ok(()));
        assert_eq!(check(2, 9), Err(Reason::ReleaseUnsupported));
    }

    #[test]
    fn copy_of_a_running_node_is_refused() {
        let state = with_nodes(1);
        let at = state.node(NodeId(101)).unwrap().address.clone();
        let check = |boot, address: &str, silent_ms: Option<u64>| {
            let request = RegisterRequest { boot, ..request(1, NodeRole::Data, address) };
            let silent = silent_ms.map(|ms| (NodeId(101), Duration::from_millis(ms)));
            let silent = silent.into_iter().collect();
            super::check(&state, &request, &silent, MAX_DATA_NODES).map_err(|refusal| {
                assert!(refusal.retry_after.is_some(), "the node may have just stopped");
                refusal.reason
            })
        };
        assert_eq!(check(2, "127.0.0.1:9", Some(0)), Err(Reason::DirectoryCopied));
        assert_eq!(check(2, "127.0.0.1:9", Some(1_999)), Err(Reason::DirectoryCopied));
        assert_eq!(check(2, "127.0.0.1:9", Some(2_000)), Ok(()));
        assert_eq!(check(2, "127.0.0.1:9", None), Ok(()));
        // A restart, and a node of an older release, which would never stop trying.
        assert_eq!(check(2, &at, Some(0)), Ok(()));
        assert_eq!(check(0, "127.0.0.1:9", Some(0)), Ok(()));
    }

    /// Limit of the tests.
    const MAX_DATA_NODES: usize = 3;

    fn check(
        state: &MetaState,
        request: &RegisterRequest,
        heard: &BTreeMap<NodeId, Duration>,
    ) -> Result<(), Refusal> {
        super::check(state, request, heard, MAX_DATA_NODES)
    }

    #[test]
    fn number_of_data_nodes_is_limited() {
        let heard = BTreeMap::new();
        let one_more = request(9_999, NodeRole::Data, "127.0.0.1:9");
        assert_eq!(check(&with_nodes(2), &one_more, &heard), Ok(()));
        let mut full = with_nodes(3);
        // A node that is down stays in the catalog.
        let down = v1::SetNodeState { node_id: 101, state: v1::NodeState::Down.into() };
        run(&mut full, Kind::SetNodeState(down)).unwrap();
        let refused = check(&full, &one_more, &heard).unwrap_err();
        assert_eq!(refused.reason, Reason::Overloaded);
        assert!(refused.message.contains("3 data nodes"), "{refused}");
        assert!(refused.message.contains("--max-data-nodes"), "{refused}");
        let known = RegisterRequest { directory_id: directory(1), ..one_more };
        assert_eq!(check(&full, &known, &heard), Ok(()), "it returns with its directory");
        let compactor = request(9_999, NodeRole::Compactor, "127.0.0.1:9");
        assert_eq!(check(&full, &compactor, &heard), Ok(()));
    }

    #[test]
    fn number_of_compactors_is_limited() {
        let mut state = with_nodes(1);
        for number in 0..MAX_COMPACTORS as u64 {
            run(&mut state, Kind::RegisterNode(compactor(1_000 + number, number % 50_000)))
                .unwrap();
        }
        let heard = BTreeMap::new();
        let one_more = request(9_999, NodeRole::Compactor, "127.0.0.1:9");
        assert_eq!(check(&state, &one_more, &heard).unwrap_err().reason, Reason::Overloaded);
        let data = request(9_999, NodeRole::Data, "127.0.0.1:9");
        assert_eq!(check(&state, &data, &heard), Ok(()));
        let known = v1::RegisterRequest { directory_id: directory(1_000), ..one_more };
        assert_eq!(check(&state, &known, &heard), Ok(()));
    }
}
