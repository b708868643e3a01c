//! Tables, their changes in progress, and their stored messages.

use tidewater_common::ids::{Epoch, GroupId, RegionId, TableId};
use tidewater_common::schema::{TableOptions, TableSchema};
use tidewater_proto::v1::{self, LoadPhase, TableState};
use uuid::Uuid;

use super::records::{invalid, known};
use super::{CatalogError, Coverage};

/// A region of a dropped table that is not removed yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DroppedRegion {
    /// Id of the region.
    pub region_id: RegionId,
    /// Group that serves the region.
    pub group_id: GroupId,
}

/// Drop of a table whose rows are kept, until its last hold ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DroppedTable {
    /// Name that the table had.
    pub name: String,
    /// Replicated time of the drop, milliseconds since the Unix epoch.
    pub dropped_ms: u64,
}

/// A table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Table {
    /// Unique id, never reused.
    pub id: TableId,
    /// Unique among tables that are not being dropped. That of a dropped table is reserved.
    pub name: String,
    /// Creating, active or dropping.
    pub state: TableState,
    /// Columns and keys.
    pub schema: TableSchema,
    /// Write mode, distribution, time to live.
    pub options: TableOptions,
    /// Regions still to be removed; empty unless the state is dropping.
    pub dropping: Vec<DroppedRegion>,
    /// Replicated time of creation, milliseconds since the Unix epoch.
    pub created_ms: u64,
    /// The change in progress.
    pub change: Option<TableChange>,
    /// Number of changes begun so far, which is the number of the last change.
    pub changes: u64,
    /// Source table of a clone, set during creation.
    pub clone_of: Option<TableId>,
    /// Epoch as of which a refreshable table is read; 0: it is empty.
    pub published: Epoch,
    /// Later publications of a refreshable table are after this epoch; 0: after the published one.
    pub complete: Epoch,
    /// The table was dropped, and has routes: holds keep its rows.
    pub dropped: Option<DroppedTable>,
    /// Checksum of the description with which the table was created under an id that was handed out.
    pub description: Option<u32>,
}

/// A change that the regions of a table apply one by one; it is complete when all regions have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TableChange {
    /// Changes schema and options.
    Alter {
        /// Schema after the change.
        schema: Box<TableSchema>,
        /// Options after the change.
        options: TableOptions,
    },
    /// Deletes all rows.
    Truncate,
    /// Stages files in every region and publishes them in all regions together.
    Load(AtomicLoad),
}

/// An atomic load.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AtomicLoad {
    /// Id of the staging area, the same in every region; the request id that began the load.
    pub area: Uuid,
    /// Replicated time at which the load is abandoned, unless it is publishing.
    pub deadline_ms: u64,
    /// Upper limit of extensions of the deadline.
    pub latest_ms: u64,
    /// Phase of the procedure.
    pub phase: LoadPhase,
}

impl TableChange {
    /// Past participle of the operation, for messages such as "table t is being altered".
    pub fn verb(&self) -> &'static str {
        match self {
            Self::Alter { .. } => "altered",
            Self::Truncate => "truncated",
            Self::Load(_) => "loaded",
        }
    }

    /// Converts to the form that data nodes watch. `number`: the number of the change.
    fn published(&self, number: u64) -> v1::TableChange {
        let record = v1::TableChangeRecord::from(self);
        let is_in = |phase| matches!(self, Self::Load(load) if load.phase == phase);
        v1::TableChange {
            number,
            schema: record.schema,
            options: record.options,
            load_area: record.load.map(|load| load.area_id).unwrap_or_default(),
            load_publishing: is_in(LoadPhase::Publishing),
            load_abandoning: is_in(LoadPhase::Abandoning),
            ..v1::TableChange::default()
        }
    }
}

impl Table {
    /// Adds the change in progress to a record for watchers. Stored deltas lack it: their bytes would
    /// differ between releases, and with them the replicas' digests.
    pub fn publish_change(&self, published: &mut v1::Table) {
        published.change = self.change.as_ref().map(|change| change.published(self.changes));
        published.clone_of = self.clone_of.map_or(0, TableId::get);
    }

    /// Returns the greatest epoch as of which the published rows of a refreshable table are its rows.
    pub fn complete_through(&self) -> Epoch {
        self.published.max(self.complete)
    }

    /// Returns whether the table has its routes.
    pub fn is_live(&self) -> bool {
        self.state != TableState::Dropping
    }

    /// Returns whether commands find the table by its name.
    pub fn is_named(&self) -> bool {
        self.is_live() && self.dropped.is_none()
    }

    /// Returns the name that the table has, or had when it was dropped, for messages.
    pub fn original_name(&self) -> &str {
        self.dropped.as_ref().map_or(&self.name, |dropped| &dropped.name)
    }

    /// Returns the keys of a live table that have a route.
    pub fn coverage(&self) -> Coverage {
        match self.state {
            TableState::Reserved => Coverage::Partial,
            _ => Coverage::Whole,
        }
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
            // Not in stored deltas: see `Table::publish_change`.
            change: None,
            clone_of: 0,
            route_changes: Vec::new(),
            published_epoch: table.published.get(),
            complete_epoch: table.complete.get(),
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
            dropped: table.dropped.as_ref().map(|dropped| v1::DroppedTable {
                name: dropped.name.clone(),
                dropped_ms: dropped.dropped_ms,
            }),
            description: table.description.unwrap_or(0),
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
            published: Epoch(table.published_epoch),
            complete: Epoch(table.complete_epoch),
            dropped: stored
                .dropped
                .map(|dropped| DroppedTable { name: dropped.name, dropped_ms: dropped.dropped_ms }),
            description: (stored.description != 0).then_some(stored.description),
        })
    }
}

impl From<&TableChange> for v1::TableChangeRecord {
    fn from(change: &TableChange) -> Self {
        match change {
            TableChange::Truncate => Self::default(),
            TableChange::Alter { schema, options } => {
                let schema = Some(schema.as_ref().into());
                Self { schema, options: Some(options.into()), load: None }
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
                .map_err(|_| invalid("table", "the staging area of its load is not a UUID"))?;
            let phase = known(LoadPhase::try_from(load.phase), LoadPhase::Unspecified, "table")?;
            return Ok(Self::Load(AtomicLoad {
                area,
                deadline_ms: load.deadline_ms,
                latest_ms: load.latest_ms,
                phase,
            }));
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
