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
use super::{ActionKind, Delta, ManifestState, replay};
use crate::env::RegionEnv;
use crate::error::EngineError;
use crate::file_meta::{FileMeta, FileRef};
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
    /// Newer deltas existed and were cleaned, or files of theirs were deleted: only a [`snapshot`] shows
    /// the region's content now.
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

/// A history, with the state after its last delta.
struct ReadHistory {
    history: History,
    state: ManifestState,
    /// Newest version in the listing.
    tail: ManifestVersion,
}

/// Result of one read attempt.
enum HistoryRead {
    Done(Box<ReadHistory>),
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
    Ok(read(&reader(env, dir), after, limit).await?.history)
}

/// Returns the history for a caller that reads the files of the deltas: [`History::Lagged`] also if a delta
/// adds a file that garbage collection may have deleted since.
///
/// # Errors
/// As for [`history`].
pub async fn history_with_files(
    env: &RegionEnv,
    dir: RegionDir,
    after: ManifestVersion,
    limit: u64,
) -> Result<History, EngineError> {
    let reader = reader(env, dir);
    let ReadHistory { history, state, tail } = read(&reader, after, limit).await?;
    let History::Deltas(past) = &history else { return Ok(history) };
    let newest = if state.version < tail { reader.tail(&state).await?.state } else { state };
    Ok(if adds_deleted_files(past, &newest) { History::Lagged } else { history })
}

/// Returns `true` if a delta adds a file that the newest state has forgotten: a file that was removed is
/// known until the floor of garbage collection passes its removal, and is deleted only then. The files of
/// a dropped region need not be read.
fn adds_deleted_files(past: &[PastDelta], newest: &ManifestState) -> bool {
    let is_known =
        |file: &FileRef| newest.live.contains_key(file) || newest.removed.contains_key(file);
    let live = past.iter().filter(|entry| entry.manifest == ManifestKind::Live);
    let mut added = live.flat_map(|entry| added_files(&entry.delta));
    !newest.is_removed() && added.any(|file| !is_known(&file))
}

/// Returns the files that a delta makes visible.
fn added_files(delta: &Delta) -> impl Iterator<Item = FileRef> {
    let edits = delta.actions.iter().filter(|action| action.staged.is_none());
    let edits = edits.filter_map(|action| match &action.kind {
        ActionKind::Edit(edit) => Some(edit),
        _ => None,
    });
    edits.flat_map(|edit| edit.add.iter().map(FileMeta::reference))
}

async fn read(
    reader: &ManifestReader,
    after: ManifestVersion,
    limit: u64,
) -> Result<ReadHistory, EngineError> {
    let mut gap = None;
    for round in 1..=reader.options.read_rounds.max(1) {
        match read_once(reader, after, limit.max(1)).await? {
            HistoryRead::Done(history) => return Ok(*history),
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
    let (plan, tail) = plan(reader, after, limit).await?;
    let done = |history, state| HistoryRead::Done(Box::new(ReadHistory { history, state, tail }));
    let (base, through) = match plan {
        HistoryPlan::Read { base, through } => (base, through),
        HistoryPlan::Cleaned => {
            return Ok(done(History::Lagged, ManifestState::empty(reader.dir)));
        }
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
        return Ok(done(History::Lagged, state));
    }
    deltas.truncate(valid);
    let history = replayed(&mut state, deltas, after);
    Ok(done(history, state))
}

/// Plans a read from a listing that reaches back to a checkpoint. Also returns the newest version in it.
async fn plan(
    reader: &ManifestReader,
    after: ManifestVersion,
    limit: u64,
) -> Result<(HistoryPlan, ManifestVersion), EngineError> {
    // A durable hook that is far behind keeps many deltas in the store: mostly they need not all be
    // listed.
    let near = after.get().saturating_sub(4 * reader.options.checkpoint_every);
    let mut listing = reader.list(ManifestVersion(near)).await?;
    if near > 0 && listing.checkpoints.first().is_none_or(|first| *first > after) {
        listing = reader.list(ManifestVersion(0)).await?;
    }
    let newest = listing.newest_checkpoint().max(listing.deltas.last().copied());
    Ok((listing.history_plan(after, limit), newest.unwrap_or(ManifestVersion(0))))
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
