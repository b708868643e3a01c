//! The history of a manifest: the deltas after a version, each with its effect. For durable hooks,
//! which receive every version on any node at any time.
//!
//! The effect of a delta follows from the state before it, so reading begins with the newest
//! checkpoint at or below the known version; garbage collection keeps that checkpoint and the
//! deltas after it while a durable hook still needs them (`gc::awaited`). Validity is decided as
//! for every reader: the manifest is listed again after the deltas were read, and a delta that a
//! checkpoint covers by then is valid only if the checkpoint names its writer. Nothing is kept
//! between two calls.

use std::sync::Arc;

use tidewater_common::ids::ManifestVersion;
use tidewater_common::schema::TableSchema;

use super::announce::delivered_as;
use super::listing::HistoryPlan;
use super::reader::ManifestReader;
use super::{Delta, ManifestState, replay};
use crate::env::RegionEnv;
use crate::error::EngineError;
use crate::hooks::ManifestKind;
use crate::layout::RegionDir;

/// The deltas after a version, or the reason why there are none.
#[derive(Debug, Clone)]
pub enum History {
    /// The next deltas, in order; at least one.
    Deltas(Vec<PastDelta>),
    /// There is no newer delta yet.
    Current,
    /// There is no newer delta and never will be: the region was dropped at or before the version.
    Ended,
    /// Newer deltas existed and were cleaned: only a [`snapshot`] shows the region's content now.
    Lagged,
}

/// A committed delta with its effect.
#[derive(Debug, Clone)]
pub struct PastDelta {
    /// The committed delta.
    pub delta: Arc<Delta>,
    /// The kind under which hooks receive it.
    pub manifest: ManifestKind,
    /// The table's schema after it; `None` before the first version with a schema.
    pub schema: Option<Arc<TableSchema>>,
}

/// Result of one read attempt.
enum HistoryRead {
    Done(History),
    /// The manifest changed during the read, or a listing was inconsistent.
    Again {
        missing: Option<ManifestVersion>,
    },
}

/// Returns at most `limit` deltas after `after` in the manifest as it is stored now.
///
/// # Errors
/// The store cannot be read, an object is damaged, or the manifest changes in every round.
pub async fn history(
    env: &RegionEnv,
    dir: RegionDir,
    after: ManifestVersion,
    limit: u64,
) -> Result<History, EngineError> {
    let reader = reader(env, dir);
    let mut gap = None;
    for round in 1..=reader.options.read_rounds.max(1) {
        match read_once(&reader, after, limit.max(1)).await? {
            HistoryRead::Done(history) => return Ok(history),
            HistoryRead::Again { missing } => gap = missing,
        }
        reader.storage.back_off(reader.options.backoff, round).await;
    }
    Err(reader.unsettled(gap))
}

/// Returns the state at the manifest's tail as it is stored now.
pub async fn snapshot(env: &RegionEnv, dir: RegionDir) -> Result<Arc<ManifestState>, EngineError> {
    let found = reader(env, dir).tail(&ManifestState::empty(dir)).await?;
    Ok(Arc::new(found.state))
}

fn reader(env: &RegionEnv, dir: RegionDir) -> ManifestReader {
    ManifestReader { storage: env.storage.clone(), dir, options: env.options.manifest.clone() }
}

async fn read_once(
    reader: &ManifestReader,
    after: ManifestVersion,
    limit: u64,
) -> Result<HistoryRead, EngineError> {
    let (base, through) = match plan(reader, after, limit).await? {
        HistoryPlan::Read { base, through } => (base, through),
        HistoryPlan::Cleaned => return Ok(HistoryRead::Done(History::Lagged)),
        HistoryPlan::Missing { version } => {
            return Ok(HistoryRead::Again { missing: Some(version) });
        }
    };
    let mut state = match base.get() {
        0 => ManifestState::empty(reader.dir),
        _ => match reader.checkpoint(base).await? {
            Some(state) => state,
            None => return Ok(HistoryRead::Again { missing: None }),
        },
    };
    let Some(mut deltas) = reader.deltas(base.next(), through).await? else {
        return Ok(HistoryRead::Again { missing: None });
    };
    let Some(valid) = valid_deltas(reader, base.next(), &deltas).await? else {
        return Ok(HistoryRead::Again { missing: None });
    };
    let disowned = deltas.get(valid).map(|delta| delta.version);
    if disowned.is_some_and(|version| version <= after.next()) {
        return Ok(HistoryRead::Done(History::Lagged));
    }
    deltas.truncate(valid);
    Ok(HistoryRead::Done(replayed(&mut state, deltas, after)))
}

/// Plans a read from a listing that reaches back to a checkpoint.
async fn plan(
    reader: &ManifestReader,
    after: ManifestVersion,
    limit: u64,
) -> Result<HistoryPlan, EngineError> {
    // A durable hook that is far behind keeps many deltas in the store: mostly they need not all be
    // listed.
    let near = after.get().saturating_sub(4 * reader.options.checkpoint_every);
    let listing = reader.list(ManifestVersion(near)).await?;
    if near == 0 || listing.checkpoints.first().is_some_and(|first| *first <= after) {
        return Ok(listing.history_plan(after, limit));
    }
    Ok(reader.list(ManifestVersion(0)).await?.history_plan(after, limit))
}

/// Returns the number of valid deltas, from the first on; `None`: start over.
async fn valid_deltas(
    reader: &ManifestReader,
    first: ManifestVersion,
    deltas: &[Delta],
) -> Result<Option<usize>, EngineError> {
    if deltas.is_empty() {
        return Ok(Some(0));
    }
    let Some(at) = reader.list(first).await?.newest_checkpoint() else {
        return Ok(Some(deltas.len()));
    };
    let Some(newer) = reader.checkpoint(at).await? else { return Ok(None) };
    let is_valid = |delta: &Delta| delta.version > at || newer.names(delta.version, delta.writer);
    Ok(Some(deltas.iter().position(|delta| !is_valid(delta)).unwrap_or(deltas.len())))
}

/// Replays the deltas and returns those after a version, each with its effect on the state before
/// it.
fn replayed(state: &mut ManifestState, deltas: Vec<Delta>, after: ManifestVersion) -> History {
    let mut past = Vec::new();
    let mut ended = state.is_removed();
    let mut schema = None;
    for delta in deltas {
        let outcome = replay::apply(state, &delta);
        update_schema(&mut schema, state);
        if delta.version <= after {
            ended = state.is_removed();
        } else {
            let manifest = delivered_as(&delta, &outcome);
            past.push(PastDelta { delta: Arc::new(delta), manifest, schema: schema.clone() });
        }
    }
    match (ended, past.is_empty()) {
        (true, _) => History::Ended,
        (false, true) => History::Current,
        (false, false) => History::Deltas(past),
    }
}

/// Copies the schema of a state if it differs.
fn update_schema(schema: &mut Option<Arc<TableSchema>>, state: &ManifestState) {
    let current = state.table.as_ref().map(|table| &table.schema);
    if schema.as_deref() != current {
        *schema = current.cloned().map(Arc::new);
    }
}

#[cfg(test)]
mod tests;
