//! Nodes: registration, addresses, states, and the members of group 0.

use std::collections::BTreeMap;
use std::sync::Arc;

use tidewater_common::address::is_address;
use tidewater_common::feature_level::{FeatureLevel, Release};
use tidewater_common::ids::{BootNumber, NodeId};
use tidewater_proto::v1::{self, NodeRole, NodeState};
use uuid::Uuid;

use super::{CommandError, CommandReply, NodeCommandError};
use crate::catalog::{COMPACTOR_KEPT_MS, CatalogChange, Header, MetaState, Node};

pub(super) fn register(
    state: &MetaState,
    command: &v1::RegisterNode,
) -> Result<(CommandReply, CatalogChange), CommandError> {
    let header = state.header();
    let ours = header.cluster_id.ok_or(CommandError::NotBootstrapped)?;
    if !command.cluster_id.is_empty() && command.cluster_id != ours.to_string() {
        return Err(CommandError::WrongCluster { theirs: command.cluster_id.clone(), ours });
    }
    let directory: Uuid = command
        .directory_id
        .parse()
        .map_err(|_| CommandError::Malformed("the directory id is not a UUID".to_owned()))?;
    check_release(header.feature_level, command)?;
    let role = match NodeRole::try_from(command.role) {
        Ok(role @ (NodeRole::Data | NodeRole::Compactor)) => role,
        _ => return Err(NodeCommandError::RoleCannotRegister.into()),
    };
    check_address(&command.address)?;
    let start = NodeStart::try_from(command)?;
    let object_store_id = check_object_store(header, role, &command.object_store_id)?;
    let known = state.node_of_directory(directory);
    let claimed = NodeId(command.node_id);
    if claimed.get() != 0 && known.is_none_or(|node| node.id != claimed) {
        return Err(NodeCommandError::WrongDirectory { claimed, directory }.into());
    }
    let mut header = Header { object_store_id, ..header.clone() };
    let node = match known {
        Some(node) => reregister(node, role, command, start, header.time_ms)?,
        None => {
            let id = header.next_node_id;
            header.next_node_id =
                NodeId(id.get().checked_add(1).ok_or(CommandError::IdsUsedUp("node"))?);
            Node {
                id,
                role,
                address: command.address.clone(),
                state: NodeState::Up,
                draining: false,
                replacement: None,
                directory_id: Some(directory),
                state_since_ms: header.time_ms,
                registered_ms: header.time_ms,
                boot: start.boot,
                start_id: start.id,
            }
        }
    };
    let reply = CommandReply::Node(node.id);
    if known.is_some_and(|known| **known == node) {
        return Ok((reply, CatalogChange::default()));
    }
    let mut change = displace(state, &node);
    change.header = Some(header);
    change.nodes.push(node);
    Ok((reply, change))
}

/// Checks that a node can run at the cluster's level. At the first level, every release can, and replicas of
/// releases without levels accept every node.
fn check_release(level: FeatureLevel, command: &v1::RegisterNode) -> Result<(), CommandError> {
    if level == FeatureLevel::FIRST {
        return Ok(());
    }
    Ok(Release::from(command.release.clone()).check(level)?)
}

/// Start of a node: its number, and the id of its process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct NodeStart {
    boot: BootNumber,
    id: Option<Uuid>,
}

impl TryFrom<&v1::RegisterNode> for NodeStart {
    type Error = CommandError;

    fn try_from(command: &v1::RegisterNode) -> Result<Self, CommandError> {
        let malformed =
            |_| CommandError::Malformed("the id of the process is not a UUID".to_owned());
        let id = match command.start_id.as_str() {
            "" => None,
            text => Some(text.parse().map_err(malformed)?),
        };
        Ok(Self { boot: BootNumber(command.boot), id })
    }
}

impl NodeStart {
    /// Returns the start to record for a known node.
    ///
    /// Each start counts one up in its directory, so that a number belongs to one process. A process with
    /// an older number, or with the number of another process, uses a copy of the directory or an
    /// earlier state of it: as a second voter of the same id it could elect a second leader, and it
    /// lacks writes that the node has acknowledged. Such a process is refused for good, since its
    /// directory does not change. A process without a number has an older release.
    fn after(self, node: &Node) -> Result<Self, CommandError> {
        let known = Self { boot: node.boot, id: node.start_id };
        if self.boot == BootNumber(0) {
            return Ok(known);
        }
        if self.boot > known.boot || self == known {
            return Ok(self);
        }
        Err(CommandError::Node(NodeCommandError::DirectoryCopied {
            node: node.id,
            boot: self.boot,
            registered: known.boot,
            address: node.address.clone(),
        }))
    }
}

/// Returns the record of a known node after a repeated registration.
fn reregister(
    node: &Node,
    role: NodeRole,
    command: &v1::RegisterNode,
    start: NodeStart,
    now_ms: u64,
) -> Result<Node, CommandError> {
    if node.role != role {
        return Err(NodeCommandError::RoleMismatch {
            node: node.id,
            registered: node.role,
            requested: role,
        }
        .into());
    }
    if node.state == NodeState::Removed {
        return Err(NodeCommandError::NodeRemoved(node.id).into());
    }
    let start = start.after(node)?;
    let since = if node.state == NodeState::Up { node.state_since_ms } else { now_ms };
    Ok(Node {
        address: command.address.clone(),
        state: NodeState::Up,
        state_since_ms: since,
        boot: start.boot,
        start_id: start.id,
        ..node.clone()
    })
}

/// Sets other nodes with the newcomer's role and address down, since the newcomer has replaced them.
/// Deletes the records of compactors instead: a compactor keeps no state and gets a new id at every
/// start, so that each restart would leave a record.
fn displace(state: &MetaState, newcomer: &Node) -> CatalogChange {
    let mut change = CatalogChange::default();
    let others = state.nodes().filter(|node| {
        node.id != newcomer.id && node.role == newcomer.role && node.address == newcomer.address
    });
    for node in others {
        match (node.role, node.state) {
            (NodeRole::Compactor, _) => change.node_deletes.push(node.id),
            (_, NodeState::Up) => change.nodes.push(Node {
                state: NodeState::Down,
                state_since_ms: state.header().time_ms,
                ..node.as_ref().clone()
            }),
            _ => {}
        }
    }
    change
}

/// Returns compactors that have been down for more than [`COMPACTOR_KEPT_MS`] at `time_ms`, at most
/// `limit`.
pub(super) fn expired_compactors(state: &MetaState, time_ms: u64, limit: usize) -> Vec<NodeId> {
    let is_expired = |node: &&Arc<Node>| {
        node.role == NodeRole::Compactor
            && node.state != NodeState::Up
            && time_ms.saturating_sub(node.state_since_ms) > COMPACTOR_KEPT_MS
    };
    state.nodes().filter(is_expired).take(limit).map(|node| node.id).collect()
}

pub(super) fn update(
    state: &MetaState,
    command: &v1::UpdateNode,
) -> Result<CatalogChange, CommandError> {
    let node = find_registered(state, NodeId(command.node_id))?;
    check_address(&command.address)?;
    if node.address == command.address {
        return Ok(CatalogChange::default());
    }
    let node = Node { address: command.address.clone(), ..node.as_ref().clone() };
    Ok(CatalogChange { nodes: vec![node], ..CatalogChange::default() })
}

pub(super) fn set_state(
    state: &MetaState,
    command: &v1::SetNodeState,
) -> Result<CatalogChange, CommandError> {
    let node = find_registered(state, NodeId(command.node_id))?;
    let new_state = match NodeState::try_from(command.state) {
        Ok(new @ (NodeState::Up | NodeState::Down | NodeState::Removed)) => new,
        _ => return Err(NodeCommandError::BadNodeState(node.id).into()),
    };
    if node.state == new_state {
        return Ok(CatalogChange::default());
    }
    let state_since_ms = state.header().time_ms;
    let node = Node { state: new_state, state_since_ms, ..node.as_ref().clone() };
    Ok(CatalogChange { nodes: vec![node], ..CatalogChange::default() })
}

fn find_registered(state: &MetaState, id: NodeId) -> Result<&Arc<Node>, CommandError> {
    let node = state
        .node(id)
        .filter(|node| node.role != NodeRole::Meta)
        .ok_or(CommandError::Node(NodeCommandError::NodeNotFound(id)))?;
    match node.state {
        NodeState::Removed => Err(CommandError::Node(NodeCommandError::NodeAlreadyRemoved(id))),
        _ => Ok(node),
    }
}

/// Returns the change of meta nodes after a membership entry: new members are up, known ones keep their state, and all others
/// are removed.
pub fn members_change(state: &MetaState, members: &BTreeMap<NodeId, String>) -> CatalogChange {
    let now = state.header().time_ms;
    let known = |id: &NodeId| state.node(*id).filter(|node| node.role == NodeRole::Meta);
    let mut nodes = Vec::new();
    for (id, address) in members {
        let member = known(id).filter(|node| node.state != NodeState::Removed);
        let same = member.is_some_and(|node| node.address == *address);
        if !same {
            nodes.push(Node {
                id: *id,
                role: NodeRole::Meta,
                address: address.clone(),
                state: member.map_or(NodeState::Up, |node| node.state),
                draining: false,
                replacement: None,
                directory_id: None,
                state_since_ms: now,
                registered_ms: known(id).map_or(now, |node| node.registered_ms),
                boot: BootNumber(0),
                start_id: None,
            });
        }
    }
    for node in state.nodes().filter(|node| node.role == NodeRole::Meta) {
        if !members.contains_key(&node.id) && node.state != NodeState::Removed {
            nodes.push(Node {
                state: NodeState::Removed,
                state_since_ms: now,
                ..node.as_ref().clone()
            });
        }
    }
    CatalogChange { nodes, ..CatalogChange::default() }
}

pub(super) fn check_address(address: &str) -> Result<(), CommandError> {
    if is_address(address) {
        Ok(())
    } else {
        Err(CommandError::Node(NodeCommandError::BadAddress(address.to_owned())))
    }
}

/// Returns the cluster's object store after a registration: the store of the first data node. A
/// compactor never sets it: a compactor keeps no data, so a wrong URL would remain unnoticed.
/// Compactors of releases without remote compaction name no store.
fn check_object_store(
    header: &Header,
    role: NodeRole,
    theirs: &str,
) -> Result<Option<Arc<str>>, CommandError> {
    let ours = &header.object_store_id;
    if theirs.is_empty() {
        return match role {
            NodeRole::Compactor => Ok(ours.clone()),
            _ => Err(CommandError::Node(NodeCommandError::ObjectStoreRequired)),
        };
    }
    match ours {
        None if role == NodeRole::Compactor => {
            Err(CommandError::Node(NodeCommandError::ObjectStoreUnknown))
        }
        None => Ok(Some(theirs.into())),
        Some(ours) if **ours == *theirs => Ok(Some(ours.clone())),
        Some(ours) => Err(CommandError::Node(NodeCommandError::ObjectStoreMismatch {
            theirs: theirs.to_owned(),
            ours: ours.as_ref().to_owned(),
        })),
    }
}
