//! Application of log entries to the group's replicated state: deterministic, one file per kind of
//! entry. All checks precede the first change: a refused entry changes nothing.
//!
//! The result depends on the entry and the state alone. Consequences outside the state are returned
//! or passed on: rows through [`RowSink`], the rest as [`ApplyEffect`]s that the shell carries out.
//! None of them waits for object storage.

mod activated;
mod altered;
mod areas;
mod barrier;
mod closed;
mod dropped;
mod held;
mod level_raised;
mod manifest_advanced;
mod merge;
mod merged;
mod opened;
mod prepared;
mod received;
mod released;
mod split;
mod truncated;
mod writes;

pub(crate) use self::altered::check_altered;
pub(crate) use self::received::{check_departing, check_epoch};
pub(crate) use self::writes::{
    check_not_dropped, check_writable, earlier_outcome, named_opening, producer_key, row_op,
    served_version,
};

use std::io;
use std::sync::Arc;

use arrow::array::RecordBatch;
use tidewater_common::feature_level::FeatureLevel;
use tidewater_common::ids::{Epoch, LogIndex, ManifestVersion, RegionId, Sequence};
use tidewater_proto::v1::{self, Reason, RowOp, group_entry};
use tidewater_region_engine::region::{Cause, PendingObligation};

use super::admits::Operation;
use super::descriptor::Descriptor;
use super::entry::{EntryOutcome, ManifestAdvance, entry_level};
use super::moves::not_served;
use super::state::{GroupState, RegionState};

#[cfg(test)]
pub(crate) mod tests;

/// Place of a write in the history of a region.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WritePoint {
    /// Sequence of the rows.
    pub sequence: Sequence,
    /// Epoch of the group.
    pub epoch: Epoch,
}

/// Destination of applied rows.
pub trait RowSink {
    /// Puts rows, sorted by row key, into the region's memtable.
    ///
    /// # Errors
    /// See [`SinkError`].
    fn rows(
        &self,
        region: RegionId,
        point: WritePoint,
        op: RowOp,
        batch: RecordBatch,
    ) -> Result<(), SinkError>;
}

/// Error of a [`RowSink`].
#[derive(Debug, thiserror::Error)]
pub enum SinkError {
    /// The rows are invalid, on every replica alike: the write is refused. Checks that depend on a
    /// replica's files must be made before the rows reach the sink.
    #[error("{0}")]
    BadRows(String),
    /// The replica has failed and is unusable.
    #[error(transparent)]
    Fault(#[from] io::Error),
}

/// Work for the shell after an entry was applied.
#[derive(Debug, Clone, PartialEq)]
pub enum ApplyEffect {
    /// Host a new region.
    Open {
        /// The region.
        descriptor: Arc<Descriptor>,
        /// Base sequence of the region.
        base: Sequence,
    },
    /// Change a region's schema and options.
    Alter {
        /// The region with its new schema and options.
        descriptor: Arc<Descriptor>,
        /// The log entry that decided the change.
        cause: Cause,
    },
    /// Hand another decision of the log to the region; its manifest must record it.
    Decide(RegionId, PendingObligation),
    /// Replace a region by its children.
    Divide {
        /// The region.
        parent: RegionId,
        /// The children, in key order.
        children: Vec<RegionId>,
    },
    /// Replace regions by one child.
    Merge {
        /// The regions, in key order.
        parents: Vec<RegionId>,
        /// The child.
        child: RegionId,
    },
    /// Host a region that another group has fenced.
    Receive {
        /// The region.
        descriptor: Arc<Descriptor>,
        /// Base sequence of the region.
        base: Sequence,
        /// Manifest version that has all its rows.
        version: ManifestVersion,
    },
    /// Serve a received region.
    Activate(RegionId),
    /// Close a region.
    Close(RegionId),
    /// Load at least this manifest version, then drop flushed runs.
    Follow(RegionId, ManifestVersion),
    /// Drop what reads of the regions can no longer return.
    AdvanceSince,
}

/// Result of applying an entry.
#[derive(Debug, PartialEq)]
pub struct Applied {
    /// One outcome per write of a `writes` entry, else one.
    pub outcomes: Vec<EntryOutcome>,
    /// Effects to carry out before the next entry is applied.
    pub effects: Vec<ApplyEffect>,
}

impl Applied {
    fn outcome(outcome: EntryOutcome) -> Self {
        Self { outcomes: vec![outcome], effects: Vec::new() }
    }

    /// Outcome of an entry whose work an earlier entry has done.
    fn repeated() -> Self {
        Self::outcome(EntryOutcome::REPEATED)
    }

    fn with_effect(effect: ApplyEffect) -> Self {
        let sequence = match &effect {
            ApplyEffect::Alter { cause, .. } => cause.sequence,
            ApplyEffect::Decide(_, pending) => pending.cause.sequence,
            ApplyEffect::Open { .. }
            | ApplyEffect::Divide { .. }
            | ApplyEffect::Merge { .. }
            | ApplyEffect::Receive { .. }
            | ApplyEffect::Activate(_)
            | ApplyEffect::Close(_)
            | ApplyEffect::AdvanceSince
            | ApplyEffect::Follow(..) => Sequence(0),
        };
        let outcome = EntryOutcome::Done { sequence, rows: 0, repeated: false };
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
    let needed = entry_level(&entry);
    if needed > state.level {
        return Ok(above_level(&entry, needed, state.level));
    }
    let applied = match entry {
        group_entry::Entry::Writes(entry) => return writes::apply(state, index, entry, sink),
        group_entry::Entry::MergeBegun(entry) => merge::begin(state, &entry),
        group_entry::Entry::Chunk(entry) => merge::chunk(state, index, &entry, sink)?,
        group_entry::Entry::LevelRaised(entry) => Ok(level_raised::apply(state, &entry)),
        group_entry::Entry::Barrier(entry) => barrier::apply(state, &entry),
        group_entry::Entry::Opened(entry) => Ok(opened::apply(state, &entry)),
        group_entry::Entry::Altered(entry) => altered::apply(state, index, &entry),
        group_entry::Entry::Truncated(entry) => truncated::apply(state, index, &entry),
        group_entry::Entry::AreaOpened(entry) => areas::open(state, index, &entry),
        group_entry::Entry::AreaPublished(entry) => areas::publish(state, index, &entry),
        group_entry::Entry::AreaAbandoned(entry) => areas::abandon(state, index, &entry),
        group_entry::Entry::Held(entry) => held::apply(state, index, &entry),
        group_entry::Entry::Split(entry) => split::apply(state, index, &entry),
        group_entry::Entry::Merged(entry) => merged::apply(state, index, &entry),
        group_entry::Entry::Closed(entry) => closed::apply(state, &entry),
        group_entry::Entry::Prepared(entry) => prepared::apply(state, &entry),
        group_entry::Entry::Received(entry) => received::apply(state, index, entry),
        group_entry::Entry::Released(entry) => released::apply(state, &entry),
        group_entry::Entry::Activated(entry) => activated::apply(state, index, &entry),
        group_entry::Entry::Dropped(entry) => Ok(dropped::apply(state, RegionId(entry.region_id))),
        group_entry::Entry::ManifestAdvanced(entry) => {
            Ok(manifest_advanced::apply(state, &ManifestAdvance::from(&entry)))
        }
    };
    Ok(applied.unwrap_or_else(Applied::outcome))
}

/// Returns the region that an entry changes.
///
/// # Errors
/// The outcome of an entry that changes nothing: see [`RegionState::check_step`].
fn admitted<'a>(
    state: &'a mut GroupState,
    id: RegionId,
    step: Option<&v1::ProcedureStep>,
    operation: Operation,
) -> Result<&'a mut RegionState, EntryOutcome> {
    let departure = state.moves.departure(id);
    let region = state.regions.get_mut(&id).ok_or_else(|| not_served(id, departure))?;
    region.check_step(step, operation)?;
    Ok(region)
}

/// Refuses an entry that the group's level does not allow yet, on every replica alike.
fn above_level(entry: &group_entry::Entry, needed: FeatureLevel, level: FeatureLevel) -> Applied {
    let text = format!("the entry needs feature level {needed}, and the group is at level {level}");
    let outcomes = match entry {
        group_entry::Entry::Writes(entry) => entry.writes.len(),
        _ => 1,
    };
    let refused = EntryOutcome::refused(Reason::Unsupported, text);
    Applied { outcomes: vec![refused; outcomes], effects: Vec::new() }
}
