//! Replacement of a member of the meta group.

use tidewater_common::ids::NodeId;
use tidewater_proto::v1;

/// Replacement that the meta leader continues until it is complete. At most one is in progress.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemberReplacement {
    /// Member to remove.
    pub old: NodeId,
    /// Node to add.
    pub new: NodeId,
    /// Address of the new node, host:port.
    pub address: String,
    /// The new node is removed again.
    pub cancelled: bool,
}

/// Change of the replacement in progress.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReplacementChange {
    /// This one is in progress.
    Set(MemberReplacement),
    /// None is in progress.
    End,
}

impl From<&MemberReplacement> for v1::MemberReplacement {
    fn from(replacement: &MemberReplacement) -> Self {
        Self {
            old_node_id: replacement.old.get(),
            new_node_id: replacement.new.get(),
            address: replacement.address.clone(),
            cancelled: replacement.cancelled,
        }
    }
}

impl From<v1::MemberReplacement> for MemberReplacement {
    fn from(stored: v1::MemberReplacement) -> Self {
        Self {
            old: NodeId(stored.old_node_id),
            new: NodeId(stored.new_node_id),
            address: stored.address,
            cancelled: stored.cancelled,
        }
    }
}
