//! CPU-bound half of a flush: merges, splits into files, encodes.

use std::sync::Arc;

use tidewater_common::ids::Epoch;
use tidewater_common::schema::WriteMode;
use tokio::sync::mpsc;

use super::series::{FilePart, FileSeries};
use crate::EngineError;
use crate::layout::RegionDir;
use crate::memtable::{Run, greatest_epoch, merge_into};
use crate::read::merge::{MergeRules, Versions};
use crate::read::shape::{Carried, TableShape};
use crate::sst::units::StoredUnits;
use crate::sst::writer::FilePlan;
use crate::workers::WorkerSlot;

/// Parameters of a flush.
#[derive(Debug, Clone)]
pub(crate) struct FlushPlan {
    pub(crate) shape: Arc<TableShape>,
    pub(crate) dir: RegionDir,
    /// Rows up to this sequence are in files already.
    pub(crate) flushed: u64,
    /// Versions that no read as of this epoch or later returns are dropped.
    pub(crate) since: Epoch,
    /// True if older files may hold keys that a delete hides.
    pub(crate) keep_deletes: bool,
    /// Size at which a file ends, in bytes.
    pub(crate) target_bytes: usize,
}

/// Merges the runs and sends the files; blocks while the upload is slower.
pub(crate) fn encode(
    plan: &FlushPlan,
    runs: &[Arc<Run>],
    sender: mpsc::Sender<FilePart>,
    slot: Arc<WorkerSlot>,
) -> Result<(), EngineError> {
    let versions = Versions::kept(plan.shape.mode(), plan.since, greatest_epoch(runs));
    let deletes = runs.iter().any(|run| run.deletes() > 0);
    let keep_deletes = plan.keep_deletes && deletes;
    let newest_only = versions == Versions::Newest;
    let file = FilePlan {
        shape: plan.shape.clone(),
        dir: plan.dir,
        hashed: plan.shape.options.hash.is_some(),
        // Deletes of epochs that can be read are versions like others.
        with_deletes: deletes && (keep_deletes || !newest_only),
        unique: newest_only,
    };
    let mut files = FileSeries::new(file, plan.target_bytes, sender, slot);
    if plan.shape.mode() == WriteMode::AppendOnly {
        let carried = Carried::all(&plan.shape.schema)?;
        let units = StoredUnits::from_rows(&carried, runs.iter().flat_map(|run| run.batches()));
        files = files.with_units(units.union(&StoredUnits::of_defaults(&carried)?));
    }
    let rules = MergeRules { versions, keep_deletes };
    merge_into(&plan.shape, rules, runs, plan.flushed, |rows, repeats| files.push(&rows, repeats))?;
    files.finish()
}
