//! Applying an entry to the registry: deterministic, a file per kind of entry. Everything is checked
//! before the first change, so a refusal means that nothing moved.
//!
//! Apply decides from the entry and the state alone. What follows from it outside of the state is
//! handed out: rows through [`RowSink`], the rest as [`Effect`]s that the shell carries out. None of
//! it waits for object storage.

mod altered;
mod areas;
mod dropped;
mod manifest_advanced;
mod opened;
mod truncated;
mod writes;

pub(crate) use self::writes::{
    check_schema_version, done_before, named_opening, producer_key, row_op,
};

use std::io;
use std::sync::Arc;

use arrow::array::RecordBatch;
use tidewater_common::ids::{LogIndex, ManifestVersion, RegionId, Sequence};
use tidewater_proto::v1::{RowOp, group_entry};
use tidewater_region_engine::region::{Cause, PendingObligation};

use super::descriptor::Descriptor;
use super::entry::{Advance, Outcome};
use super::state::GroupState;

#[cfg(test)]
pub(crate) mod tests;

/// Where applied rows go.
pub trait RowSink {
    /// Puts rows, sorted by row key, into the region's memtable.
    ///
    /// # Errors
    /// See [`SinkError`].
    fn rows(
        &self,
        region: RegionId,
        sequence: Sequence,
        op: RowOp,
        batch: RecordBatch,
    ) -> Result<(), SinkError>;
}

/// Why rows did not go into a memtable.
#[derive(Debug, thiserror::Error)]
pub enum SinkError {
    /// The rows are at fault, the same way on every replica: the write is refused. What depends on a
    /// replica's files must be asked before the rows come here.
    #[error("{0}")]
    BadRows(String),
    /// The replica is at fault, and unusable.
    #[error(transparent)]
    Fault(#[from] io::Error),
}

/// What the shell has to do because an entry was applied.
#[derive(Debug, Clone, PartialEq)]
pub enum Effect {
    /// Host a new region.
    Open {
        /// What it is.
        descriptor: Arc<Descriptor>,
        /// Its base.
        base: Sequence,
    },
    /// Give a region another schema and other options.
    Alter {
        /// What it is from here on.
        descriptor: Arc<Descriptor>,
        /// What decided it.
        cause: Cause,
    },
    /// What else the log has decided about a region, which its manifest has to record.
    Decide(RegionId, PendingObligation),
    /// Put a region away.
    Close(RegionId),
    /// Load the manifest up to this version at least, then drop flushed runs.
    Follow(RegionId, ManifestVersion),
}

/// What an entry came to.
#[derive(Debug, PartialEq)]
pub struct Applied {
    /// One per write, else one.
    pub outcomes: Vec<Outcome>,
    /// To be carried out before the next entry is applied.
    pub effects: Vec<Effect>,
}

impl Applied {
    fn outcome(outcome: Outcome) -> Self {
        Self { outcomes: vec![outcome], effects: Vec::new() }
    }

    /// An earlier entry has done it.
    fn repeated() -> Self {
        Self::outcome(Outcome::Done { sequence: Sequence(0), rows: 0, repeated: true })
    }

    fn with_effect(effect: Effect) -> Self {
        let sequence = match &effect {
            Effect::Alter { cause, .. } => cause.sequence,
            Effect::Decide(_, pending) => pending.cause.sequence,
            Effect::Open { .. } | Effect::Close(_) | Effect::Follow(..) => Sequence(0),
        };
        let outcome = Outcome::Done { sequence, rows: 0, repeated: false };
        Self { outcomes: vec![outcome], effects: vec![effect] }
    }
}

/// Applies the entry at `index`.
pub fn apply(
    state: &mut GroupState,
    index: LogIndex,
    entry: group_entry::Entry,
    sink: &dyn RowSink,
) -> io::Result<Applied> {
    match entry {
        group_entry::Entry::Opened(entry) => Ok(opened::apply(state, &entry)),
        group_entry::Entry::Altered(entry) => Ok(altered::apply(state, index, &entry)),
        group_entry::Entry::Truncated(entry) => Ok(truncated::apply(state, index, &entry)),
        group_entry::Entry::AreaOpened(entry) => Ok(areas::open(state, index, &entry)),
        group_entry::Entry::AreaPublished(entry) => Ok(areas::publish(state, index, &entry)),
        group_entry::Entry::AreaAbandoned(entry) => Ok(areas::abandon(state, index, &entry)),
        group_entry::Entry::Dropped(entry) => Ok(dropped::apply(state, RegionId(entry.region_id))),
        group_entry::Entry::Writes(entry) => writes::apply(state, index, entry.writes, sink),
        group_entry::Entry::ManifestAdvanced(entry) => {
            Ok(manifest_advanced::apply(state, &Advance::from(&entry)))
        }
    }
}
