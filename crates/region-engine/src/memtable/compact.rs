//! Merges several runs into one.

use std::sync::Arc;

use tidewater_common::ids::Epoch;
use tidewater_common::keys::KeyRange;
use tidewater_common::schema::WriteMode;

use super::run::Run;
use crate::EngineError;
use crate::read::merge::{Merge, MergeRules, MergeStep, Versions};
use crate::read::ranges::KeyRanges;
use crate::read::run_source::{PIECE_ROWS, RunSource};
use crate::read::shape::{Carried, TableShape};
use crate::row_versions::RowVersions;

/// Merges runs without rows at or below `flushed`, and passes the batches to `emit`, in order, each with whether it
/// has, together with earlier ones, several versions of a key. CPU-bound: not for the runtime's threads.
pub(crate) fn merge_into(
    shape: &Arc<TableShape>,
    rules: MergeRules,
    runs: &[Arc<Run>],
    flushed: u64,
    mut emit: impl FnMut(RowVersions, bool) -> Result<(), EngineError>,
) -> Result<(), EngineError> {
    let carried = Carried::all(&shape.schema)?;
    let ranges = KeyRanges::one(&KeyRange::whole(), &KeyRange::whole());
    let mut sources = runs
        .iter()
        .map(|run| RunSource::new(run.clone(), shape.clone(), carried.clone(), &ranges, flushed))
        .collect::<Result<Vec<_>, _>>()?;
    let mut merge = Merge::new(sources.len(), rules);
    loop {
        match merge.advance(PIECE_ROWS) {
            MergeStep::Feed(source) => {
                let chunk = match sources[source].next()? {
                    Some(piece) => Some(piece.into_chunk(&shape.codec, runs[source].unique())?),
                    None => None,
                };
                merge.feed(source, chunk);
            }
            MergeStep::Full => {
                if let Some(rows) = merge.take()? {
                    emit(rows, merge.take_repeats())?;
                }
            }
            MergeStep::Done => {
                if let Some(rows) = merge.take()? {
                    emit(rows, merge.take_repeats())?;
                }
                return Ok(());
            }
        }
    }
}

/// Returns one run with the rows of several above sequence `flushed`; `None` when there are none. Versions that no read
/// as of `since` or later returns are dropped.
pub(crate) fn merge_runs(
    shape: &Arc<TableShape>,
    runs: &[Arc<Run>],
    flushed: u64,
    since: Epoch,
) -> Result<Option<Run>, EngineError> {
    let versions = Versions::kept(shape.mode(), since, greatest_epoch(runs));
    let rules = MergeRules { versions, keep_deletes: true };
    let mut batches = Vec::new();
    let mut unique = shape.mode() == WriteMode::Upsert;
    merge_into(shape, rules, runs, flushed, |rows, repeats| {
        unique &= !repeats;
        batches.push(rows);
        Ok(())
    })?;
    Ok(Run::from_batches(batches, unique))
}

/// Returns the greatest epoch of a row of these runs.
pub(crate) fn greatest_epoch(runs: &[Arc<Run>]) -> Epoch {
    runs.iter().map(|run| run.max_epoch()).max().unwrap_or_default()
}
