//! Tables, groups, nodes and the header: values with typed ids, and their stored messages.
//!
//! States and roles are the wire's enums: they have one meaning everywhere.

use std::collections::BTreeSet;
use std::sync::Arc;

use tidewater_common::ids::{
    ClusterId, GroupId, Incarnation, LogIndex, NodeId, RegionId, Revision, TableId, Term,
};
use tidewater_common::schema::{TableOptions, TableSchema};
use tidewater_proto::v1::{self, GroupState, LoadPhase, NodeRole, NodeState, TableState};
use uuid::Uuid;

use super::CatalogError;

/// What there is one of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// `None` until the cluster is bootstrapped.
    pub cluster_id: Option<ClusterId>,
    /// Raised when the cluster is restored; part of region directory names.
    pub incarnation: Incarnation,
    /// Commands that need a higher one are refused.
    pub feature_level: u32,
    /// Replicated time, milliseconds since the Unix epoch; never goes back.
    pub time_ms: u64,
    /// Grows by one with every change that watchers see.
    pub revision: Revision,
    /// The next table's id.
    pub next_table_id: TableId,
    /// The next group's id.
    pub next_group_id: GroupId,
    /// The next data or compactor node's id.
    pub next_node_id: NodeId,
    /// The object store of the first data node; all others must use it too.
    pub object_store_id: Option<Arc<str>>,
}

/// A region that a drop has still to remove.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DroppedRegion {
    /// The region.
    pub region_id: RegionId,
    /// The group that serves it.
    pub group_id: GroupId,
}

/// A table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Table {
    /// Never used again.
    pub id: TableId,
    /// Unique among tables that are not being dropped.
    pub name: String,
    /// Creating, active or dropping.
    pub state: TableState,
    /// Columns and keys.
    pub schema: TableSchema,
    /// Write mode, distribution, time to live.
    pub options: TableOptions,
    /// Empty unless dropping.
    pub dropping: Vec<DroppedRegion>,
    /// Replicated time of its creation.
    pub created_ms: u64,
    /// What its regions are being changed to.
    pub change: Option<TableChange>,
    /// Changes begun so far. The number of the last one, of `change` if there is one.
    pub changes: u64,
    /// While it is being created: the table whose rows it gets.
    pub clone_of: Option<TableId>,
}

/// A change that the regions of a table take, one by one; the table has it when all do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TableChange {
    /// Schema and options to come.
    Alter {
        /// The schema.
        schema: Box<TableSchema>,
        /// The options.
        options: TableOptions,
    },
    /// All rows are forgotten.
    Truncate,
    /// Files are staged in every region, and published only when all of them are.
    Load(Load),
}

/// An atomic load.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Load {
    /// The staging area, the same in every region; the request that began the load.
    pub area: Uuid,
    /// Replicated time at which it is given up, unless it is being published.
    pub deadline_ms: u64,
    /// Its deadline cannot be put off beyond it.
    pub latest_ms: u64,
    /// How far it is.
    pub phase: LoadPhase,
}

impl TableChange {
    /// What is being done to the table.
    pub fn verb(&self) -> &'static str {
        match self {
            Self::Alter { .. } => "altered",
            Self::Truncate => "truncated",
            Self::Load(_) => "loaded",
        }
    }
}

impl Table {
    /// Whether its keys have routes.
    pub fn is_live(&self) -> bool {
        self.state != TableState::Dropping
    }
}

impl From<&Table> for v1::Table {
    fn from(table: &Table) -> Self {
        Self {
            table_id: table.id.get(),
            name: table.name.clone(),
            state: table.state.into(),
            schema: Some((&table.schema).into()),
            options: Some((&table.options).into()),
        }
    }
}

/// A data group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    /// Never used again.
    pub id: GroupId,
    /// Creating, active or abandoned.
    pub state: GroupState,
    /// The membership it starts with; the first one is its home. Never planned again.
    pub first_members: Vec<NodeId>,
    /// As last reported by its leader.
    pub voters: BTreeSet<NodeId>,
    /// As last reported by its leader.
    pub learners: BTreeSet<NodeId>,
    /// Log id of that membership.
    pub membership: (Term, LogIndex),
    /// Last known leader.
    pub leader: Option<NodeId>,
    /// Its term.
    pub leader_term: Term,
}

impl Group {
    /// Everybody who holds, or is about to hold, a replica: before the first report the first
    /// members.
    pub fn replicas(&self) -> BTreeSet<NodeId> {
        if self.voters.is_empty() {
            self.first_members.iter().copied().collect()
        } else {
            self.voters.union(&self.learners).copied().collect()
        }
    }
}

impl From<&Group> for v1::Group {
    fn from(group: &Group) -> Self {
        let numbers = |ids: &BTreeSet<NodeId>| ids.iter().map(|id| id.get()).collect();
        Self {
            group_id: group.id.get(),
            state: group.state.into(),
            first_members: group.first_members.iter().map(|id| id.get()).collect(),
            voters: numbers(&group.voters),
            learners: numbers(&group.learners),
            membership_term: group.membership.0.get(),
            membership_index: group.membership.1.get(),
            leader: group.leader.map_or(0, NodeId::get),
            leader_term: group.leader_term.get(),
        }
    }
}

/// A node of any role. Meta nodes have no directory here: their membership is the log's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// Never used again.
    pub id: NodeId,
    /// What it is.
    pub role: NodeRole,
    /// host:port.
    pub address: String,
    /// Up, down or removed.
    pub state: NodeState,
    /// Made with its data directory; `None` for meta nodes.
    pub directory_id: Option<Uuid>,
    /// Replicated time of the last change of state.
    pub state_since_ms: u64,
    /// Replicated time of the first registration.
    pub registered_ms: u64,
}

impl From<&Node> for v1::Node {
    fn from(node: &Node) -> Self {
        Self {
            node_id: node.id.get(),
            role: node.role.into(),
            address: node.address.clone(),
            state: node.state.into(),
        }
    }
}

fn invalid(kind: &'static str, problem: impl ToString) -> CatalogError {
    CatalogError::InvalidRecord { kind, problem: problem.to_string() }
}

impl From<&Header> for v1::MetaHeader {
    fn from(header: &Header) -> Self {
        Self {
            cluster_id: header.cluster_id.map_or_else(String::new, |id| id.to_string()),
            incarnation: header.incarnation.get(),
            feature_level: header.feature_level,
            time_ms: header.time_ms,
            revision: header.revision.get(),
            next_table_id: header.next_table_id.get(),
            next_group_id: header.next_group_id.get(),
            next_node_id: header.next_node_id.get(),
            object_store_id: header.object_store_id.as_deref().unwrap_or_default().to_owned(),
        }
    }
}

impl TryFrom<v1::MetaHeader> for Header {
    type Error = CatalogError;

    fn try_from(stored: v1::MetaHeader) -> Result<Self, CatalogError> {
        let cluster_id = match stored.cluster_id.as_str() {
            "" => None,
            text => Some(text.parse().map_err(|_| invalid("header", "cluster id is no UUID"))?),
        };
        Ok(Self {
            cluster_id,
            incarnation: Incarnation(stored.incarnation),
            feature_level: stored.feature_level,
            time_ms: stored.time_ms,
            revision: Revision(stored.revision),
            next_table_id: TableId(stored.next_table_id),
            next_group_id: GroupId(stored.next_group_id),
            next_node_id: NodeId(stored.next_node_id),
            object_store_id: (!stored.object_store_id.is_empty())
                .then(|| stored.object_store_id.into()),
        })
    }
}

impl From<&Table> for v1::TableRecord {
    fn from(table: &Table) -> Self {
        let dropping = |region: &DroppedRegion| v1::DroppedRegion {
            region_id: region.region_id.get(),
            group_id: region.group_id.get(),
        };
        Self {
            table: Some(table.into()),
            dropping: table.dropping.iter().map(dropping).collect(),
            created_ms: table.created_ms,
            change: table.change.as_ref().map(Into::into),
            changes: table.changes,
            clone_of: table.clone_of.map_or(0, TableId::get),
        }
    }
}

impl TryFrom<v1::TableRecord> for Table {
    type Error = CatalogError;

    fn try_from(stored: v1::TableRecord) -> Result<Self, CatalogError> {
        let table = stored.table.ok_or_else(|| invalid("table", "it has no table"))?;
        let schema = table.schema.as_ref().ok_or_else(|| invalid("table", "it has no schema"))?;
        let options =
            table.options.as_ref().ok_or_else(|| invalid("table", "it has no options"))?;
        let dropping = |region: &v1::DroppedRegion| DroppedRegion {
            region_id: RegionId(region.region_id),
            group_id: GroupId(region.group_id),
        };
        Ok(Self {
            id: TableId(table.table_id),
            name: table.name.clone(),
            state: known(TableState::try_from(table.state), TableState::Unspecified, "table")?,
            schema: TableSchema::try_from(schema).map_err(|error| invalid("table", error))?,
            options: TableOptions::try_from(options).map_err(|error| invalid("table", error))?,
            dropping: stored.dropping.iter().map(dropping).collect(),
            created_ms: stored.created_ms,
            change: stored.change.as_ref().map(TableChange::try_from).transpose()?,
            changes: stored.changes,
            clone_of: (stored.clone_of != 0).then_some(TableId(stored.clone_of)),
        })
    }
}

impl From<&TableChange> for v1::TableChangeRecord {
    fn from(change: &TableChange) -> Self {
        match change {
            TableChange::Truncate => Self::default(),
            TableChange::Alter { schema, options } => {
                let (schema, options) = (Some(schema.as_ref().into()), Some(options.into()));
                Self { schema, options, load: None }
            }
            TableChange::Load(load) => {
                let load = v1::LoadRecord {
                    area_id: load.area.as_bytes().to_vec().into(),
                    deadline_ms: load.deadline_ms,
                    phase: load.phase.into(),
                    latest_ms: load.latest_ms,
                };
                Self { load: Some(load), ..Self::default() }
            }
        }
    }
}

impl TryFrom<&v1::TableChangeRecord> for TableChange {
    type Error = CatalogError;

    fn try_from(stored: &v1::TableChangeRecord) -> Result<Self, CatalogError> {
        if let Some(load) = &stored.load {
            let area = Uuid::from_slice(&load.area_id)
                .map_err(|_| invalid("table", "its load has no staging area"))?;
            let phase = known(LoadPhase::try_from(load.phase), LoadPhase::Unspecified, "table")?;
            let (deadline_ms, latest_ms) = (load.deadline_ms, load.latest_ms);
            return Ok(Self::Load(Load { area, deadline_ms, latest_ms, phase }));
        }
        let Some(schema) = &stored.schema else { return Ok(Self::Truncate) };
        let options =
            stored.options.as_ref().ok_or_else(|| invalid("table", "its change has no options"))?;
        Ok(Self::Alter {
            schema: Box::new(
                TableSchema::try_from(schema).map_err(|error| invalid("table", error))?,
            ),
            options: TableOptions::try_from(options).map_err(|error| invalid("table", error))?,
        })
    }
}

impl TryFrom<v1::Group> for Group {
    type Error = CatalogError;

    fn try_from(stored: v1::Group) -> Result<Self, CatalogError> {
        let ids = |numbers: &[u64]| numbers.iter().copied().map(NodeId).collect();
        Ok(Self {
            id: GroupId(stored.group_id),
            state: known(GroupState::try_from(stored.state), GroupState::Unspecified, "group")?,
            first_members: stored.first_members.iter().copied().map(NodeId).collect(),
            voters: ids(&stored.voters),
            learners: ids(&stored.learners),
            membership: (Term(stored.membership_term), LogIndex(stored.membership_index)),
            leader: (stored.leader != 0).then_some(NodeId(stored.leader)),
            leader_term: Term(stored.leader_term),
        })
    }
}

impl From<&Node> for v1::NodeRecord {
    fn from(node: &Node) -> Self {
        Self {
            node: Some(node.into()),
            directory_id: node.directory_id.map_or_else(String::new, |id| id.to_string()),
            state_since_ms: node.state_since_ms,
            registered_ms: node.registered_ms,
        }
    }
}

impl TryFrom<v1::NodeRecord> for Node {
    type Error = CatalogError;

    fn try_from(stored: v1::NodeRecord) -> Result<Self, CatalogError> {
        let node = stored.node.ok_or_else(|| invalid("node", "it has no node"))?;
        let directory_id = match stored.directory_id.as_str() {
            "" => None,
            text => Some(text.parse().map_err(|_| invalid("node", "directory id is no UUID"))?),
        };
        Ok(Self {
            id: NodeId(node.node_id),
            role: known(NodeRole::try_from(node.role), NodeRole::Unspecified, "node")?,
            address: node.address,
            state: known(NodeState::try_from(node.state), NodeState::Unspecified, "node")?,
            directory_id,
            state_since_ms: stored.state_since_ms,
            registered_ms: stored.registered_ms,
        })
    }
}

/// A number of an enum that this release knows, and not the one that means "absent".
fn known<E: PartialEq, X>(
    parsed: Result<E, X>,
    unspecified: E,
    kind: &'static str,
) -> Result<E, CatalogError> {
    parsed
        .ok()
        .filter(|value| *value != unspecified)
        .ok_or_else(|| invalid(kind, "its state or role is unknown"))
}
