//! Tables and the changes that they go through, and their stored messages.

use tidewater_common::ids::{GroupId, RegionId, TableId};
use tidewater_common::schema::{TableOptions, TableSchema};
use tidewater_proto::v1::{self, LoadPhase, TableState};
use uuid::Uuid;

use super::CatalogError;
use super::records::{invalid, known};

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
