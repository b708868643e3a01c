use std::fmt;
use std::path::Path;

use serde::{Deserialize, Serialize};
use tidewater_common::ids::{BootNumber, ClusterId, DirectoryId, NodeId};

use super::IdentityError;

/// Newest format of a data directory that this release reads and writes.
pub const FORMAT_VERSION: u32 = 1;

/// Role of a node. Compactor nodes have no data directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Holds a replica of the meta group.
    Meta,
    /// Holds replicas of data groups.
    Data,
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Meta => "meta",
            Self::Data => "data",
        })
    }
}

/// Identity of a node. It never changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identity {
    /// Cluster of the node.
    pub cluster_id: ClusterId,
    /// Id of the node; never assigned to another node.
    pub node_id: NodeId,
    /// Role of the node.
    pub role: Role,
    /// Data directory of the node.
    pub directory_id: DirectoryId,
}

/// Content of both copies, as JSON so that operators can read the file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct IdentityRecord {
    pub(super) format: u32,
    pub(super) role: Role,
    pub(super) directory_id: DirectoryId,
    /// `None` until adopted, as is `node_id`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) cluster_id: Option<ClusterId>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) node_id: Option<NodeId>,
    /// Starts of the node so far. Counted in the file only: the copy keeps the number at its writing.
    #[serde(default, skip_serializing_if = "is_uncounted")]
    pub(super) boot: BootNumber,
}

fn is_uncounted(boot: &BootNumber) -> bool {
    *boot == BootNumber(0)
}

#[derive(Deserialize)]
struct FormatHeader {
    format: u32,
}

impl IdentityRecord {
    pub(super) fn fresh(role: Role, directory_id: DirectoryId) -> Self {
        let boot = BootNumber(0);
        Self { format: FORMAT_VERSION, role, directory_id, cluster_id: None, node_id: None, boot }
    }

    /// Returns the record after another start of the node.
    pub(super) fn started(&self) -> Self {
        Self { boot: BootNumber(self.boot.get().saturating_add(1)), ..self.clone() }
    }

    /// Returns whether two records name the same node. The number of starts may differ.
    pub(super) fn is_same_node(&self, other: &Self) -> bool {
        Self { boot: other.boot, ..self.clone() } == *other
    }

    pub(super) fn with_identity(&self, cluster_id: ClusterId, node_id: NodeId) -> Self {
        Self { cluster_id: Some(cluster_id), node_id: Some(node_id), ..self.clone() }
    }

    pub(super) fn identity(&self) -> Option<Identity> {
        Some(Identity {
            cluster_id: self.cluster_id?,
            node_id: self.node_id?,
            role: self.role,
            directory_id: self.directory_id,
        })
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        // A struct of numbers and strings always encodes.
        let mut bytes = serde_json::to_vec(self).unwrap_or_default();
        bytes.push(b'\n');
        bytes
    }

    /// Decodes the copy found at `place` of the directory `dir`. Checks the format first: the
    /// rest of a newer format is unknown.
    pub(super) fn decode(bytes: &[u8], dir: &Path, place: &str) -> Result<Self, IdentityError> {
        let damaged = |error: serde_json::Error| IdentityError::Damaged {
            place: place.to_owned(),
            message: error.to_string(),
        };
        let FormatHeader { format } = serde_json::from_slice(bytes).map_err(damaged)?;
        if format > FORMAT_VERSION {
            return Err(IdentityError::NewerFormat {
                path: dir.to_owned(),
                found: format,
                supported: FORMAT_VERSION,
            });
        }
        serde_json::from_slice(bytes).map_err(damaged)
    }
}

impl fmt::Display for IdentityRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.node_id, self.cluster_id) {
            (Some(node), Some(cluster)) => {
                write!(f, "{} node {node} of cluster {cluster}", self.role)
            }
            _ => write!(f, "{} node without id", self.role),
        }
    }
}
